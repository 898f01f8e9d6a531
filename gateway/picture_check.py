"""Whether a file is what it is said to be, and how much there is to decode: by its headers alone, nothing is decoded. Pure.

What a camera made is never refused for being damaged behind its beginning: somebody may still see in it what was there. So an
image has to have something that can be shown (gateway.stripping), any other file has to begin as its type does, and that is all.
"""

from typing import NamedTuple

from gateway.stripping import FRAMES, Bytes, plan

_MP4 = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))


class Extent(NamedTuple):
    """How large an image says that it is."""

    width: int
    height: int
    scans: int
    """So many times a decoder goes over it."""
    rows: bool
    """It can be decoded a few rows at a time, without ever being held as a whole."""

    @property
    def pixels(self) -> int:
        """All of them."""
        return self.width * self.height


def is_as_said(content: Bytes, content_type: str) -> bool:
    """Whether these bytes are a file of this type, one of gateway.media.CONTENT_TYPES."""
    match content_type:
        case "video/mp4" | "video/quicktime":
            return content[4:8] in _MP4
        case "video/x-msvideo":
            return content[:4] == b"RIFF" and content[8:12] == b"AVI "
        case "application/gzip":
            return content[:2] == b"\x1f\x8b"
    return bool(plan(content, content_type))


def extent(content: Bytes, content_type: str) -> Extent | None:
    """Of an image; None where it does not say, and of what is none."""
    match content_type:
        case "image/jpeg":
            return _jpeg(content)
        case "image/png" if content[12:16] == b"IHDR":
            return Extent(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"), 1, False)
        case "image/webp":
            return _webp(content)
    return None


def _jpeg(content: Bytes) -> Extent | None:
    """Of several frames' headers, which no camera writes, the largest: a decoder may take any."""
    found, scans, baseline = [], 0, True
    for piece in plan(content, "image/jpeg"):
        if not isinstance(piece, tuple):
            continue
        at, end = piece
        if content[at + 1] == 0xDA:
            scans += 1
        elif content[at + 1] in FRAMES and end - at >= 9:
            found.append((int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")))
            baseline = baseline and content[at + 1] in (0xC0, 0xC1)
    if not found:
        return None
    width, height = max(found, key=lambda one: one[0] * one[1])
    return Extent(width, height, scans, baseline and scans == 1)


def _webp(content: Bytes) -> Extent | None:
    """By its first chunk, RFC 9649 section 2."""
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and content[20:21] == b"\x2f":
        bits = int.from_bytes(content[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return None
    return Extent(width, height, 1, False)
