"""What a picture says besides what it shows stays here: nothing of where it was taken leaves, and not a pixel changes."""

import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from gateway.stripping import VERSION, length, plan, read, strip

SECRET = b"36.1046,140.0846 Kitayama"
TYPES = ("image/jpeg", "image/png", "image/webp", "video/mp4", "video/quicktime", "video/x-msvideo")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode: str = "RGB") -> Image.Image:
    gradient = Image.linear_gradient("L").resize((48, 32))
    return Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).convert(mode)


def exif(orientation: int | None = 6) -> Image.Exif:
    """As a telephone writes it: where, when, by what."""
    made = Image.Exif()
    if orientation is not None:
        made[0x0112] = orientation
    made[0x010F], made[0x9003] = "Kitayama Cameras 36.1046,140.0846", "2026:06:03 06:12:00"
    made.get_ifd(0x8825).update({1: "N", 2: (36.0, 6.0, 16.0), 3: "E", 4: (140.0, 5.0, 4.0)})
    return made


def saved(kind: str, image: Image.Image | None = None, **how: object) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **how)
    return file.getvalue()


def says_where(content: bytes) -> bool:
    return SECRET in content or b"36.1046" in content or b"Kitayama" in content or b"GPS" in content


def pixels(content: bytes) -> tuple[str, tuple[int, int], bytes]:
    image = Image.open(io.BytesIO(content))
    return image.mode, image.size, image.tobytes()


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


JPEG = saved("JPEG", quality=80, icc_profile=ICC)
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + SECRET + b"</x:xmpmeta>")
HIDES = {
    "Exif with a position": saved("JPEG", quality=80, icc_profile=ICC, exif=exif()),
    "XMP": JPEG[:2] + XMP + JPEG[2:],
    "Photoshop's segment": JPEG[:2] + segment(0xED, b"Photoshop 3.0\0" + SECRET) + JPEG[2:],
    "a comment": JPEG[:2] + segment(0xFE, SECRET) + JPEG[2:],
    "an index of further pictures": JPEG[:2] + segment(0xE2, b"MPF\0" + SECRET) + JPEG[2:],
    "a maker's own segment": JPEG[:2] + segment(0xE8, SECRET) + JPEG[2:],
    "a second picture behind the end": JPEG + b"\xff\xd8" + XMP + JPEG[2:],
    "a film behind the end": JPEG + b"\0\0\0\x18ftypmp42" + SECRET,
    "words between segments": JPEG[:2] + SECRET + JPEG[2:],
    "a comment before the end": JPEG[:-2] + segment(0xFE, SECRET) + JPEG[-2:],
    "a thumbnail in JFIF": JPEG[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\5\5" + (SECRET * 3)[:75]) + JPEG[2:],
}


@pytest.mark.parametrize("content", HIDES.values(), ids=HIDES.keys())
def test_a_jpeg_leaves_without_where_it_was_taken_and_with_every_pixel(content: bytes) -> None:
    assert says_where(content)
    left = strip(content, "image/jpeg")
    assert not says_where(left)
    assert pixels(left) == pixels(JPEG)
    assert len(left) <= len(content)
    assert Image.open(io.BytesIO(left)).info["icc_profile"] == ICC, "its colours stay right"


@pytest.mark.parametrize("how", [{"progressive": True}, {"restart_marker_blocks": 1}, {"subsampling": 0}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_keeps_its_pixels(mode: str, how: dict[str, object]) -> None:
    content = saved("JPEG", picture(mode), exif=exif(), **how)
    assert pixels(strip(content, "image/jpeg")) == pixels(content)


@pytest.mark.parametrize(("kind", "content_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 6, 8])
def test_of_exif_only_which_side_is_up_stays(kind: str, content_type: str, orientation: int | None) -> None:
    content = saved(kind, exif=exif(orientation))
    left = strip(content, content_type)
    told = dict(Image.open(io.BytesIO(left)).getexif())
    assert told == ({} if orientation in (None, 1) else {0x0112: orientation})
    assert pixels(left) == pixels(content)
    assert len(left) <= len(content)
    assert not says_where(left)


def test_a_png_leaves_without_its_texts_and_without_what_follows_its_end() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", SECRET.decode())
    texts.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    texts.add(b"prVt", SECRET)
    content = saved("PNG", picture("RGBA"), pnginfo=texts, exif=exif(), icc_profile=ICC, dpi=(72, 72)) + b"PK\3\4" + SECRET
    left = strip(content, "image/png")
    assert says_where(content)
    assert not says_where(left)
    assert pixels(left) == pixels(content)
    assert Image.open(io.BytesIO(left)).info.keys() == {"icc_profile", "dpi", "exif"}


@pytest.mark.parametrize("how", [{"lossless": True}, {"quality": 70}])
def test_a_webp_leaves_without_exif_xmp_and_unknown_chunks(how: dict[str, object]) -> None:
    content = saved("WEBP", picture("RGBA"), exif=exif(), xmp=SECRET, icc_profile=ICC, **how)
    body = content[8:] + b"prVt" + struct.pack("<I", len(SECRET) + 1) + SECRET + b"\0"
    content = b"RIFF" + struct.pack("<I", len(body)) + body + SECRET
    left = strip(content, "image/webp")
    assert says_where(content)
    assert not says_where(left)
    assert pixels(left) == pixels(content)
    assert struct.unpack("<I", left[4:8])[0] == len(left) - 8
    assert "xmp" not in Image.open(io.BytesIO(left)).info


def test_a_moving_webp_keeps_its_pictures() -> None:
    frames = [picture(), picture().rotate(180)]
    content = saved("WEBP", frames[0], save_all=True, append_images=frames[1:], exif=exif(), xmp=SECRET, duration=100)
    left = Image.open(io.BytesIO(strip(content, "image/webp")))
    was = Image.open(io.BytesIO(content))
    for at in range(2):
        left.seek(at)
        was.seek(at)
        assert left.tobytes() == was.tobytes()
    assert getattr(left, "n_frames") == 2  # noqa: B009 - Pillow types it nowhere


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I", len(body) + 8) + kind + body


def film(handler: bytes = b"vide") -> bytes:
    """A film of a telephone: its frames lie in `mdat`, whose place a table in `moov` says."""
    where = box(b"udta", box(b"\xa9xyz", SECRET))
    track = box(
        b"trak", box(b"tkhd", bytes(84)), where,
        box(b"mdia", box(b"mdhd", bytes(24)), box(b"hdlr", bytes(8), handler, bytes(12)), box(b"minf", b"stco"), where),
    )  # fmt: skip
    moov = box(b"moov", box(b"mvhd", bytes(100)), track, where, box(b"meta", SECRET), box(b"prVt", SECRET))
    return box(b"ftyp", b"mp42") + box(b"uuid", SECRET) + moov + box(b"mdat", b"frames") + box(b"free", SECRET)


def test_a_film_leaves_without_where_and_nothing_in_it_moves() -> None:
    content = film()
    left = strip(content, "video/mp4")
    assert says_where(content)
    assert not says_where(left)
    assert len(left) == len(content)
    assert left.index(b"frames") == content.index(b"frames")
    assert left.count(b"trak") == left.count(b"tkhd") == left.count(b"mdhd") == left.count(b"minf") == 1


def test_a_film_with_a_track_of_positions_does_not_leave_at_all() -> None:
    assert strip(film(b"meta"), "video/mp4") == b""
    assert strip(film(b"soun"), "video/mp4") != b""


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def avi(stream: bytes = b"vids") -> bytes:
    header = chunk(b"LIST", b"strl" + chunk(b"strh", stream + bytes(52)) + chunk(b"strf", bytes(40)) + chunk(b"strd", SECRET))
    headers = chunk(b"LIST", b"hdrl" + chunk(b"avih", bytes(56)) + header)
    about = chunk(b"LIST", b"INFO" + chunk(b"ICMT", SECRET)) + chunk(b"JUNK", SECRET)
    where = chunk(b"JUNK", SECRET) + chunk(b"gps0", SECRET)
    record = chunk(b"LIST", b"rec " + chunk(b"00dc", b"later") + where)
    frames = chunk(b"LIST", b"movi" + chunk(b"00dc", b"frames") + where + chunk(b"01wb", b"sounds") + record)
    return chunk(b"RIFF", b"AVI " + headers + about + frames + chunk(b"idx1", bytes(16))) + SECRET


def test_an_avi_leaves_without_its_words_and_nothing_in_it_moves() -> None:
    content = avi()
    left = strip(content, "video/x-msvideo")
    assert not says_where(left)
    assert left.index(b"frames") == content.index(b"frames")
    assert [left.index(one) for one in (b"sounds", b"later")] == [content.index(one) for one in (b"sounds", b"later")]
    assert left.index(b"idx1") == content.index(b"idx1")
    assert struct.unpack("<I", left[4:8])[0] == len(left) - 8
    assert strip(avi(b"txts"), "video/x-msvideo") == b""


def test_a_list_too_short_for_its_own_name_leaves_as_zeros() -> None:
    content = avi()
    at = content.index(b"strl") - 4
    left = strip(content[:at] + bytes(4) + content[at + 4 :], "video/x-msvideo")
    assert len(left) == len(content) - len(SECRET)
    assert strip(left, "video/x-msvideo") == left
    assert strip(b"RIFF" + bytes(4) + b"AVI ", "video/x-msvideo") == b""


WHOLE = {
    "image/jpeg": HIDES["Exif with a position"], "image/png": saved("PNG", exif=exif()), "video/x-msvideo": avi(),
    "image/webp": saved("WEBP", picture("RGBA"), exif=exif(), xmp=SECRET), "video/mp4": film(), "video/quicktime": film(),
}  # fmt: skip


@pytest.mark.parametrize("content_type", TYPES)
def test_no_file_that_is_cut_off_says_where_or_grows(content_type: str) -> None:
    content = WHOLE[content_type]
    for end in range(0, len(content), 7):
        left = strip(content[:end], content_type)
        assert len(left) <= end
        assert not says_where(left)


@settings(max_examples=300, deadline=None)
@given(content_type=st.sampled_from(TYPES), data=st.data())
def test_no_bytes_raise_and_none_make_it_longer(content_type: str, data: st.DataObject) -> None:
    whole = WHOLE[content_type]
    content = bytearray(data.draw(st.sampled_from((whole, whole[: len(whole) // 2], whole * 2))))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=12)):
        content[at] = byte
    left = strip(bytes(content), content_type)
    assert len(left) <= len(content)
    assert strip(left, content_type) == left, "what left would leave as it is"


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=400), content_type=st.sampled_from((*TYPES, "text/html")))
def test_no_noise_raises(content: bytes, content_type: str) -> None:
    heads = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89PNG\r\n\x1a\n", "image/webp": b"RIFF\0\1\0\0WEBP",
             "video/x-msvideo": b"RIFF\0\1\0\0AVI ", "video/mp4": b"\0\0\0\x08ftyp",
             "video/quicktime": b"\0\0\0\x08wide"}  # fmt: skip
    for one in (content, heads.get(content_type, b"") + content):
        assert len(strip(one, content_type)) <= len(one)


@settings(max_examples=200, deadline=None)
@given(bodies=st.lists(st.tuples(st.integers(0xE0, 0xFE), st.binary(max_size=40)), max_size=6))
def test_whatever_a_jpeg_s_segments_say_stays_here(bodies: list[tuple[int, bytes]]) -> None:
    kept = (b"ICC_PROFILE", b"Exif", b"JFIF", b"Adobe")
    bodies = [(marker, SECRET + body) for marker, body in bodies if not body.startswith(kept) and not 0xEF < marker < 0xFE]
    left = strip(JPEG[:2] + b"".join(segment(*one) for one in bodies) + JPEG[2:], "image/jpeg")
    assert left == strip(JPEG, "image/jpeg")


@given(start=st.integers(0, 3000), size=st.integers(0, 3000))
def test_a_part_is_a_part_of_the_whole(start: int, size: int) -> None:
    content = WHOLE["image/png"]
    pieces = plan(content, "image/png")
    whole = strip(content, "image/png")
    assert length(pieces) == len(whole)
    assert b"".join(read(content, pieces, start, start + size)) == whole[start : start + size]


def test_the_same_file_leaves_as_the_same_bytes_as_long_as_the_version_says_so() -> None:
    """A copy that somebody fetched is told by its ETag: whoever changes these sums counts VERSION up."""
    made = segment(0xDB, bytes(65)) + segment(0xC0, bytes(15)) + segment(0xDA, bytes(8)) + b"\x12\xff\0\x34"
    content = b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + SECRET) + made + b"\xff\xd9" + SECRET
    assert (VERSION, zlib.crc32(strip(content, "image/jpeg"))) == (2, zlib.crc32(b"\xff\xd8" + made + b"\xff\xd9"))
