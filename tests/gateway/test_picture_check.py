"""By its headers alone: whether a file is what it is said to be, and how much there is to decode."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.picture_check import Extent, extent, is_as_said
from gateway.stripping import strip
from tests.gateway.images import MP4, bomb, box, saved, saying

SAYS = b"<html><script>alert('invented')</script>"
ZIP = b"PK\3\4\x14\0\0\0" + SAYS + b"PK\5\6" + bytes(18)
PROGRAM = b"MZ\x90\0" + bytes(60) + b"PE\0\0" + SAYS


JPEG, PNG, WEBP = saved("JPEG"), saved("PNG"), saved("WEBP")
AVI = b"RIFF" + struct.pack("<I", 4) + b"AVI "


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (JPEG, "image/jpeg"), (PNG, "image/png"), (WEBP, "image/webp"), (MP4, "video/mp4"), (AVI, "video/x-msvideo"),
        (b"\0\0\0\x08wide" + MP4, "video/quicktime"), (b"\x1f\x8b\x08", "application/gzip"),
    ],
)  # fmt: skip
def test_what_cameras_and_nodes_send_is_what_it_is_said_to_be(content: bytes, content_type: str) -> None:
    assert is_as_said(content, content_type)


@pytest.mark.parametrize("content", [JPEG[:-200], JPEG[:-200] + bytes(200), JPEG.replace(b"\xff\xd9", b"")])
def test_a_picture_that_is_damaged_behind_its_beginning_is_one_all_the_same(content: bytes) -> None:
    """A battery that ended in the middle of writing: its upper half may show what was in the trap."""
    assert is_as_said(content, "image/jpeg")


@pytest.mark.parametrize("film", [MP4[:30], box(b"mdat", bytes(8)), MP4 + box(b"moov", box(b"trak", b"of positions"))])
def test_a_film_is_one_by_how_it_begins(film: bytes) -> None:
    assert is_as_said(film, "video/mp4")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (saved("GIF", mode="P"), "image/jpeg"),
        (PNG, "image/jpeg"),
        (JPEG, "image/png"),
        (JPEG, "video/mp4"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "image/png"),
        (SAYS + JPEG, "image/jpeg"),
        (ZIP, "application/gzip"),
        (PROGRAM, "video/mp4"),
        (PROGRAM, "video/x-msvideo"),
        (WEBP, "video/x-msvideo"),
        (b"\xff\xd8\xff\xe0" + SAYS, "image/jpeg"),
        (b"", "image/jpeg"),
        (b"", "video/mp4"),
        (JPEG, "image/svg+xml"),
    ],
)
def test_what_is_something_else_is_known_for_it(content: bytes, content_type: str) -> None:
    assert not is_as_said(content, content_type)


@pytest.mark.parametrize(
    ("content", "content_type", "behind"),
    [(JPEG, "image/jpeg", ZIP), (PNG, "image/png", SAYS), (WEBP, "image/webp", ZIP), (MP4, "video/mp4", PROGRAM)],
)
def test_what_hides_behind_a_picture_does_not_leave(content: bytes, content_type: str, behind: bytes) -> None:
    both = content + behind
    assert is_as_said(both, content_type), "it is a picture; what is behind it stays here"
    left = strip(both, content_type)
    assert left
    for hidden in (SAYS, b"PK\5\6", b"PE\0\0"):
        assert hidden not in left


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_says_how_large_it_is_and_whether_it_has_to_be_held(progressive: bool) -> None:
    found = extent(saved("JPEG", (300, 200), progressive=progressive), "image/jpeg")
    assert found is not None
    assert (found.width, found.height, found.pixels) == (300, 200, 60_000)
    assert found.rows is not progressive
    assert (found.scans > 1) is progressive


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (saved("PNG", (300, 200)), "image/png"),
        (saved("WEBP", (300, 200)), "image/webp"),
        (saved("WEBP", (300, 200), lossless=True), "image/webp"),
        (saved("WEBP", (300, 200), exif=Image.Exif()), "image/webp"),
        (saved("WEBP", (300, 200), "RGBA"), "image/webp"),
    ],
)
def test_other_images_say_it_too(content: bytes, content_type: str) -> None:
    assert extent(content, content_type) == Extent(300, 200, 1, False)


def test_of_several_headers_the_largest_counts() -> None:
    at = JPEG.index(b"\xff\xc0")
    huge = saying(JPEG, 60_000, 60_000)
    found = extent(JPEG[: at + 19] + huge[at:], "image/jpeg")
    assert found is not None
    assert found.pixels == 3_600_000_000


def test_what_does_not_say_has_no_size() -> None:
    assert extent(b"\xff\xd8\xff\xda\0\2 no frame \xff\xd9", "image/jpeg") is None
    assert extent(b"RIFF\x0c\0\0\0WEBPVP8 ", "image/webp") is None
    assert extent(MP4, "video/mp4") is None


@given(
    st.sampled_from(["image/jpeg", "image/png", "image/webp", "video/mp4", "video/x-msvideo", "application/gzip"]),
    st.sampled_from([b"", JPEG, PNG, WEBP, MP4]),
    st.integers(0, 400),
    st.binary(max_size=60),
)
def test_no_bytes_raise(content_type: str, begins: bytes, until: int, rest: bytes) -> None:
    content = begins[:until] + rest
    is_as_said(content, content_type)
    found = extent(content, content_type)
    assert found is None or found.pixels >= 0


def test_a_bomb_is_seen_by_what_it_says() -> None:
    found = extent(bomb(30_000), "image/png")
    assert found is not None
    assert found.pixels == 900_000_000
