"""A picture made small: the right way up, with nothing but what it shows, and never more work than a picture is worth."""

import io

import pytest
from PIL import Image

from gateway import thumbnails
from gateway.picture_check import Extent
from gateway.thumbnails import SIDE, small
from tests.gateway.images import MP4, bomb, encoded, saved, saying

RED_AT_THE_TOP = Image.new("RGB", (800, 600), "blue")
RED_AT_THE_TOP.paste("red", (0, 0, 800, 300))
UPRIGHT = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""Which transposition makes, of a picture that is upright, the one that a camera saves with this orientation."""


def opened(content: bytes | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(("kind", "content_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_it_is_a_small_jpeg_of_the_same_shape(kind: str, content_type: str) -> None:
    made = opened(small(encoded(RED_AT_THE_TOP, kind), content_type))
    assert (made.format, made.size) == ("JPEG", (SIDE, SIDE * 3 // 4))


def test_a_picture_that_is_small_already_does_not_grow() -> None:
    assert opened(small(saved("JPEG", (60, 40)), "image/jpeg")).size == (60, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "content_type"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "image/png")])
def test_it_stands_upright(orientation: int, kind: str, content_type: str) -> None:
    turn = UPRIGHT[orientation]
    lies = RED_AT_THE_TOP if turn is None else RED_AT_THE_TOP.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = opened(small(encoded(lies, kind, exif=exif), content_type))
    assert made.size == (SIDE, SIDE * 3 // 4)
    red, _, blue = made.getpixel((160, 20))  # type: ignore[misc]
    assert red > 200, "the red half is at the top"
    assert blue < 60


def test_it_says_nothing_but_what_it_shows() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Kitayama Cameras 36.1046,140.0846"
    exif.get_ifd(0x8825).update({1: "N", 2: (36.0, 6.0, 16.0)})
    made = small(encoded(RED_AT_THE_TOP, exif=exif, comment=b"Kitayama"), "image/jpeg")
    assert made is not None
    assert b"Kitayama" not in made
    assert b"Exif" not in made
    assert opened(made).info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_half_a_picture_shows_its_half() -> None:
    """The camera's battery ended: what was in the trap may stand in the upper half."""
    whole = encoded(RED_AT_THE_TOP)
    made = opened(small(whole[: len(whole) * 2 // 3], "image/jpeg"))
    red, _, blue = made.getpixel((160, 20))  # type: ignore[misc]
    assert red > 200
    assert blue < 60


def test_what_is_clear_is_white() -> None:
    made = opened(small(encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG"), "image/png"))
    assert made.getpixel((20, 20)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_pictures_too(mode: str) -> None:
    """At night cameras see no colours."""
    assert opened(small(encoded(RED_AT_THE_TOP.convert(mode)), "image/jpeg")).size == (SIDE, SIDE * 3 // 4)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (MP4, "video/mp4"),
        (b"\x1f\x8b", "application/gzip"),
        (b"", "image/jpeg"),
        (b"\xff\xd8\xff\xda\0\2 nothing to decode \xff\xd9", "image/jpeg"),
        (saved("PNG")[:60], "image/png"),
        (saved("WEBP")[:40], "image/webp"),
        (saved("PNG"), "image/jpeg"),
        (saved("JPEG", (300, 200))[:400], "image/jpeg"),
    ],
)
def test_what_can_not_be_decoded_has_no_small_one(content: bytes, content_type: str) -> None:
    assert small(content, content_type) is None


def test_what_is_no_picture_for_its_size_is_not_even_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr(Image, "open", never)
    held = saved("JPEG", (640, 480), progressive=True)
    assert small(saying(saved("JPEG", (640, 480)), 60_000, 60_000), "image/jpeg") is None
    assert small(bomb(30_000), "image/png") is None
    assert small(saying(held, 8000, 8000), "image/jpeg") is None, "it would be held whole"
    at = held.rindex(b"\xff\xda")
    assert small(held[:at] + held[at:-2] * 200 + held[-2:], "image/jpeg") is None, "each scan costs as much as a picture"


def test_the_decoder_s_own_word_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "_MOST_HELD", 100_000)
    monkeypatch.setattr(thumbnails, "extent", lambda *_: Extent(10, 10, 1, rows=False))
    assert small(saved("PNG", (640, 480)), "image/png") is None
