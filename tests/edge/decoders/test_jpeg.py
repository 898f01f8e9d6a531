import io
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from edge.decoders.jpeg import CameraTime, camera_time, jpeg_fault


def picture(taken: str | None = None, offset: str | None = None, *, thumbnail: bytes = b"") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "SIMCAM"
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    if taken is not None:
        tags[ExifTags.Base.DateTimeOriginal] = taken
    if offset is not None:
        tags[ExifTags.Base.OffsetTimeOriginal] = offset
    if thumbnail:
        tags[ExifTags.Base.MakerNote] = thumbnail
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (80, 120, 70)).save(out, "JPEG", exif=exif)
    return out.getvalue()


PICTURE = picture("2026:06:03 06:12:00")


def test_the_cameras_time_is_read_as_iso_8601() -> None:
    assert camera_time(PICTURE) == CameraTime("2026-06-03T06:12:00", "")


def test_the_cameras_offset_is_kept_when_it_wrote_one() -> None:
    assert camera_time(picture("2026:06:03 06:12:00", "+09:00")) == CameraTime("2026-06-03T06:12:00+09:00", "")


@pytest.mark.parametrize("offset", ["", "   :  ", "9:00", "+99:00", "Z"])
def test_an_offset_that_is_none_is_left_out(offset: str) -> None:
    assert camera_time(picture("2026:06:03 06:12:00", offset)) == CameraTime("2026-06-03T06:12:00", "")


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2026:02:30 06:12:00", "2026-06-03", "午前"])
def test_a_camera_whose_clock_says_nothing_gives_no_time_and_a_reason(taken: str) -> None:
    text, reason = camera_time(picture(taken))
    assert text is None
    assert "DateTimeOriginal" in reason or "EXIF" in reason


def test_pictures_without_the_time_say_why() -> None:
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "JPEG")
    assert camera_time(plain.getvalue()) == CameraTime(None, "it has no EXIF")
    assert camera_time(picture()) == CameraTime(None, "its EXIF has no DateTimeOriginal")
    assert camera_time(b"") == CameraTime(None, "it has no EXIF")


def test_a_whole_picture_has_no_fault() -> None:
    assert jpeg_fault(PICTURE) is None
    progressive = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(progressive, "JPEG", progressive=True)
    assert jpeg_fault(progressive.getvalue()) is None


def test_what_cameras_put_behind_the_image_is_no_fault() -> None:
    assert jpeg_fault(PICTURE + b"\0" * 4096) is None


def test_a_picture_cut_off_anywhere_is_faulty() -> None:
    for length in range(len(PICTURE)):
        assert jpeg_fault(PICTURE[:length]) is not None, length


def test_a_thumbnails_end_is_not_the_pictures_end() -> None:
    whole = picture("2026:06:03 06:12:00", thumbnail=PICTURE)
    assert jpeg_fault(whole) is None
    assert jpeg_fault(whole[:-2]) == "its end is missing: it was cut off"
    assert jpeg_fault(whole[: len(whole) - 300].ljust(len(whole), b"\0")) is not None  # room was set aside for it


def test_what_is_no_picture_says_so() -> None:
    assert jpeg_fault(b"") == "it is empty"
    assert jpeg_fault(b"GIF89a" + bytes(100)) == "it does not begin as a JPEG"


@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(content: bytes) -> None:
    jpeg_fault(content)
    jpeg_fault(b"\xff\xd8\xff" + content)
    camera_time(content)
    text, reason = camera_time(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content)
    assert (text is None) == bool(reason)


@given(st.lists(st.tuples(st.integers(0, len(PICTURE) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_picture_gives_a_time_or_a_reason(damage: list[tuple[int, int]]) -> None:
    content = bytearray(PICTURE)
    for at, value in damage:
        content[at] = value
    text, reason = camera_time(bytes(content))
    assert (text is None) == bool(reason)
    assert text is None or len(text) <= 32


def _in_app1(tiff: bytes) -> bytes:
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + PICTURE[2:]


def test_exif_that_leads_in_circles_is_given_up_soon() -> None:
    # 65535 entries of 999 numbers each; then a chain of directories that point to each other.
    entry = struct.pack("<HHII", 0x0100, 4, 999, 0)
    wide = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0xFFFF) + entry * 5000
    exif_ifd_within_itself = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2)
    exif_ifd_within_itself += struct.pack("<HHII", 0x8825, 4, 1, 8) + struct.pack("<HHII", 0xA005, 4, 1, 8) + bytes(4)
    begun = time.process_time()
    for tiff in (wide, exif_ifd_within_itself):
        text, reason = camera_time(_in_app1(tiff))
        assert text is None
        assert "EXIF" in reason
    assert time.process_time() - begun < 5


def test_a_picture_of_nothing_but_segments_is_given_up_soon() -> None:
    begun = time.process_time()
    assert jpeg_fault(b"\xff\xd8" + b"\xff" * 2**25) is not None
    assert jpeg_fault(b"\xff\xd8" + b"\xff\xe5\x00\x02" * 2**23) is not None
    assert time.process_time() - begun < 1
