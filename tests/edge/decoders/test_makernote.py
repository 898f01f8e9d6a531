"""Notes are built here from the documented layouts, byte by byte."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from edge.decoders.jpeg import CameraTime, camera_time
from edge.decoders.makernote import reconyx_time


def hyperfire(order: str = "<") -> bytes:
    note = bytearray(130)
    struct.pack_into("<4H", note, 0, 0xF101, 3, 0, 0)
    struct.pack_into(f"{order}6H", note, 22, 9, 12, 6, 6, 3, 2026)  # second, minute, hour, month, day, year
    return bytes(note)


def ultrafire() -> bytes:
    note = bytearray(111)
    note[:10] = b"RECONYXUF\0"
    struct.pack_into("<5BH", note, 0x3B, 9, 12, 6, 3, 6, 2026)  # second, minute, hour, day, month, year
    return bytes(note)


def hyperfire_2() -> bytes:
    note = bytearray(160)
    note[:10] = b"RECONYXH2\0"
    struct.pack_into("<6H", note, 0x3E, 9, 12, 6, 3, 6, 2026)
    return bytes(note)


def tiff(note: bytes, order: str = "<", count: int | None = None) -> bytes:
    """TIFF header, a first directory that leads to the Exif directory, which holds the note alone."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    first = struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, 26, 0)
    exif = struct.pack(f"{order}HHHIII", 1, 0x927C, 7, len(note) if count is None else count, 44, 0)
    return head + first + exif + note


def picture(note: bytes, taken: str | None = None) -> bytes:
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    tags[ExifTags.Base.MakerNote] = note
    if taken:
        tags[ExifTags.Base.DateTimeOriginal] = taken
    out = io.BytesIO()
    Image.new("RGB", (16, 12)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("note", [hyperfire(), hyperfire(">"), ultrafire(), hyperfire_2()])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_time_of_a_reconyx_note_is_read(note: bytes, order: str) -> None:
    assert reconyx_time(tiff(note, order)) == "2026-06-03T06:12:09"


def test_a_picture_whose_exif_has_no_time_takes_it_from_the_note() -> None:
    assert camera_time(picture(hyperfire())) == CameraTime("2026-06-03T06:12:09", "")


def test_the_exif_time_goes_before_the_note() -> None:
    assert camera_time(picture(hyperfire(), "2026:06:03 07:00:00")) == CameraTime("2026-06-03T07:00:00", "")


@pytest.mark.parametrize(
    "segment",
    [
        b"",
        b"II*\0",
        tiff(b"Nikon\0" + bytes(100)),
        tiff(hyperfire()[:30]),
        tiff(hyperfire(), count=20),
        tiff(hyperfire()).replace(struct.pack("<6H", 9, 12, 6, 6, 3, 2026), struct.pack("<6H", 9, 12, 6, 13, 3, 2026)),
        tiff(bytes([1, 0xF1]) + bytes(128)),  # a clock that was never set
    ],
)
def test_without_a_whole_note_there_is_no_time(segment: bytes) -> None:
    assert reconyx_time(segment) is None


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_any_bytes_give_a_time_or_none(content: bytes, head: bytes) -> None:
    for segment in (content, head + content, tiff(content), tiff(b"\x01\xf1" + content), tiff(b"RECONYXUF\0" + content)):
        said = reconyx_time(segment)
        assert said is None or len(said) == 19
