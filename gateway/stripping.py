"""What of a picture or film leaves: what shows it, and nothing that says where, by whom or with what it was taken. Pure.

A file is read as a plan of pieces of itself, so that a film is never held in memory. What a decoder needs is on a list for each
format, and all else goes: Exif, XMP, comments, thumbnails, chunks that nobody knows, a second picture or a film behind the end.
Pixels are never decoded: what is left shows exactly the same. Of Exif one number comes back, in an Exif of its own: which side
is up. Bytes that are no such file give nothing; no bytes raise.

Sources: ITU-T T.81 annex B (JPEG), JFIF 1.02, Exif 2.32, W3C PNG third edition, RFC 9649 (WebP), ISO/IEC 14496-12 (MP4),
Microsoft's AVI RIFF file reference.
"""

import mmap
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

Bytes = bytes | mmap.mmap
Piece = tuple[int, int] | bytes | int
"""From where to where of the file; bytes of our own; so many bytes of zero."""

VERSION = 2
"""Counts up when the same file leaves as other bytes than before: part of its ETag."""

_ZEROS = bytes(64 * 1024)
_MOST_CHUNKS = 20_000
"""Of one file: what has more was not made by a camera."""
_MOST_FRAMES = 200_000
"""Of an AVI's film: half an hour of pictures and sounds. What comes later does not leave."""


def plan(content: Bytes, content_type: str) -> list[Piece]:
    """What leaves of it; empty where nothing can: no such file, or a film with a track that is neither picture nor sound."""
    strip = _STRIPS.get(content_type)
    return strip(content) if strip is not None else []


def length(pieces: Sequence[Piece]) -> int:
    """Bytes altogether; never more than the file had."""
    return sum(map(_length, pieces))


def read(content: Bytes, pieces: Sequence[Piece], start: int, stop: int) -> Iterator[bytes]:
    """Bytes `start` to `stop` of what leaves, in parts of at most 64 KiB."""
    at = 0
    for piece in pieces:
        low, high = max(start - at, 0), min(stop - at, _length(piece))
        at += _length(piece)
        while low < high:
            here = min(high, low + len(_ZEROS))
            if isinstance(piece, int):
                yield _ZEROS[: here - low]
            elif isinstance(piece, bytes):
                yield piece[low:here]
            else:
                yield content[piece[0] + low : piece[0] + here]
            low = here


def strip(content: bytes, content_type: str) -> bytes:
    """All of what leaves at once."""
    pieces = plan(content, content_type)
    return b"".join(read(content, pieces, 0, length(pieces)))


def _length(piece: Piece) -> int:
    return piece if isinstance(piece, int) else len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]


# --- Which side is up ---------------------------------------------------------------------------------

_TIFF_BYTES = 26


def _orientation(tiff: bytes) -> int | None:
    """Of a TIFF structure, 2 to 8; None where it says nothing, or 1, which is what is shown without a word."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None or len(tiff) < _TIFF_BYTES:
        return None

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    at = number(4, 4)
    for _ in range(min(number(at, 2), 64)):
        if at + 14 > len(tiff):
            return None
        if number(at + 2, 2) == 0x0112 and number(at + 4, 2) == 3:
            found = number(at + 10, 2)
            return found if 2 <= found <= 8 else None
        at += 12
    return None


def _tiff(orientation: int) -> bytes:
    """A TIFF structure of 26 bytes that says this alone."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"


# --- JPEG ---------------------------------------------------------------------------------------------

_in_scan_ends = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_TABLES = frozenset((0xC4, 0xCC, 0xDB, 0xDC, 0xDD))
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JFIF, _ICC, _EXIF = b"JFIF\0", b"ICC_PROFILE\0", b"Exif\0\0"


def _jpeg(content: Bytes) -> list[Piece]:
    if content[:2] != b"\xff\xd8":
        return []
    pieces: list[Piece] = [(0, 2)]
    at, shows, turned = 2, False, False
    for _ in range(_MOST_CHUNKS):
        at = content.find(b"\xff", at)
        while 0 <= at < len(content) - 1 and content[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 2 > len(content):
            break
        marker = content[at + 1]
        if marker == 0xD9:
            pieces.append((at, at + 2))  # and what comes behind the end is not of this picture
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xD8 or end < at + 4 or end > len(content):
            break
        if marker == 0xDA:
            found = _in_scan_ends.search(content, end)
            end = found.end() - 2 if found else len(content)
            pieces.append((at, end))
            shows = True
        elif marker in _TABLES or marker in FRAMES:
            pieces.append((at, end))
        elif 0xE0 <= marker <= 0xEF:
            pieces += _application(content, marker, at, end, turned)
            turned = turned or (marker == 0xE1 and content[at + 4 : at + 10] == _EXIF)
        at = end
    return pieces if shows else []


def _application(content: Bytes, marker: int, at: int, end: int, turned: bool) -> list[Piece]:
    """What stays of an application's segment."""
    if marker == 0xE0 and content[at + 4 : at + 9] == _JFIF and end >= at + 18:
        return [b"\xff\xe0\0\x10" + content[at + 4 : at + 16] + b"\0\0"]  # without its thumbnail
    if marker == 0xE2 and content[at + 4 : at + 16] == _ICC:
        return [(at, end)]
    if marker == 0xEE and content[at + 4 : at + 9] == b"Adobe" and end >= at + 16:
        return [b"\xff\xee\0\x0e" + content[at + 4 : at + 16]]  # how its colours are coded
    if marker == 0xE1 and content[at + 4 : at + 10] == _EXIF and not turned:
        up = _orientation(content[at + 10 : end])
        return [] if up is None else [b"\xff\xe1\0\x22" + _EXIF + _tiff(up)]
    return []


# --- PNG ----------------------------------------------------------------------------------------------

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"bKGD", b"pHYs",
     b"acTL", b"fcTL", b"fdAT")
)  # fmt: skip


def _png(content: Bytes) -> list[Piece]:
    if content[:8] != _PNG or content[12:16] != b"IHDR":
        return []
    pieces: list[Piece] = [(0, 8)]
    at, shows = 8, False
    for _ in range(_MOST_CHUNKS):
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        if end > len(content) or at + 12 > len(content):
            break
        if kind == b"eXIf":
            up = _orientation(content[at + 8 : end - 4])
            if up is not None:
                said = b"eXIf" + _tiff(up)
                pieces.append(_TIFF_BYTES.to_bytes(4, "big") + said + zlib.crc32(said).to_bytes(4, "big"))
        elif kind in _PNG_KEPT:
            pieces.append((at, end))
            shows = shows or kind == b"IDAT"
        at = end
        if kind == b"IEND":
            break
    return pieces if shows else []


# --- RIFF: WebP and AVI -------------------------------------------------------------------------------

_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_FRAME_KEPT = frozenset((b"VP8 ", b"VP8L", b"ALPH"))
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04


def _chunks(content: Bytes, at: int, stop: int, most: int = _MOST_CHUNKS) -> Iterator[tuple[bytes, int, int, int]]:
    """(kind, where it begins, where its body ends, where the next begins) of each that is whole."""
    for _ in range(most):
        if at + 8 > stop:
            return
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        if end > stop:
            return
        following = min(end + (end - at) % 2, stop)
        yield content[at : at + 4], at, end, following
        at = following


def _webp(content: Bytes) -> list[Piece]:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return []
    stop = min(8 + int.from_bytes(content[4:8], "little"), len(content))
    kept: list[Piece] = []
    header: int | None = None
    up, shows = None, False
    for kind, at, end, following in _chunks(content, 12, stop):
        if kind == b"VP8X" and end - at >= 18 and header is None:
            header = len(kept)
            kept.append(b"VP8X\x0a\0\0\0" + content[at + 8 : at + 18])
        elif kind == b"ANMF" and end - at >= 24:
            frame = [(start, after) for name, start, _, after in _chunks(content, at + 24, end) if name in _FRAME_KEPT]
            kept += [b"ANMF" + (16 + length(frame)).to_bytes(4, "little") + content[at + 8 : at + 24], *frame]
            if length(frame) % 2:
                kept.append((end, following))
            shows = True
        elif kind == b"EXIF":
            up = up or _orientation(content[at + 8 : end].removeprefix(_EXIF))
        elif kind in _WEBP_KEPT and kind not in (b"VP8X", b"ANMF"):
            kept.append((at, following))
            shows = shows or kind != b"ICCP"
    if not shows:
        return []
    if header is not None:
        said = kept[header]
        assert isinstance(said, bytes)  # noqa: S101 - put there above
        flags = said[8] & ~(_EXIF_FLAG | _XMP_FLAG) | (_EXIF_FLAG if up else 0)
        kept[header] = said[:8] + bytes([flags]) + said[9:]
        if up:
            kept.append(b"EXIF" + _TIFF_BYTES.to_bytes(4, "little") + _tiff(up))
    return [b"RIFF" + (4 + length(kept)).to_bytes(4, "little") + b"WEBP", *kept]


_AVI_KEPT: Mapping[bytes, frozenset[bytes]] = {
    b"AVI ": frozenset((b"idx1",)),
    b"AVIX": frozenset(),
    b"hdrl": frozenset((b"avih",)),
    b"strl": frozenset((b"strh", b"strf", b"indx", b"vprp")),
    b"odml": frozenset((b"dmlh",)),
}
"""Of each list, what stays of it. Lists that are named here are looked into."""
_AVI_FILM = frozenset((b"movi", b"rec "))
_frame = re.compile(rb"[0-9]{2}(?:d[bc]|wb|pc)|ix[0-9]{2}")
"""Of the film itself: pictures, sounds, palettes and indexes. Cameras write where they were between them."""


def _avi(content: Bytes) -> list[Piece]:
    if content[:4] != b"RIFF" or content[8:12] != b"AVI ":
        return []
    pieces: list[Piece] = []
    for kind, at, end, _ in _chunks(content, 0, len(content)):
        if kind != b"RIFF" or content[at + 8 : min(at + 12, end)] not in (b"AVI ", b"AVIX"):
            break
        inside = _avi_list(content, at, end, 0)
        if inside is None:
            return []
        pieces += inside
    return pieces


def _avi_list(content: Bytes, at: int, end: int, depth: int) -> list[Piece] | None:
    """The same list with what does not stay as zeros, so that nothing moves. None where it has a track of something else."""
    is_film = content[at + 8 : at + 12] in _AVI_FILM
    kept = _AVI_KEPT.get(content[at + 8 : at + 12], frozenset())
    pieces: list[Piece] = [(at, at + 12)]
    done = at + 12
    for kind, start, stop, following in _chunks(content, at + 12, end, _MOST_FRAMES if is_film else _MOST_CHUNKS):
        if kind == b"\0\0\0\0":
            break
        name = content[start + 8 : min(start + 12, stop)] if kind == b"LIST" else b""  # a list may be too short for one
        if kind == b"strh" and name == b"" and content[start + 8 : start + 12] not in (b"vids", b"auds"):
            return None
        if (name in _AVI_KEPT or name in _AVI_FILM) and depth < 4:
            inside = _avi_list(content, start, stop, depth + 1)
            if inside is None:
                return None
            pieces += [*inside, following - stop]
        elif kind in kept or (is_film and _frame.fullmatch(kind)):
            if done == start and isinstance(pieces[-1], tuple):
                pieces[-1] = pieces[-1][0], following  # one piece of a thousand frames
            else:
                pieces.append((start, following))
        else:
            pieces += [b"JUNK", (start + 4, start + 8), following - start - 8]
        done = following
    return [*pieces, end - done]


# --- MP4 and QuickTime --------------------------------------------------------------------------------

_BOXES: Mapping[bytes, frozenset[bytes]] = {
    b"": frozenset((b"ftyp", b"styp", b"mdat", b"wide", b"sidx", b"mfra", b"pdin")),
    b"moov": frozenset((b"mvhd", b"mvex", b"iods")),
    b"trak": frozenset((b"tkhd", b"edts", b"tref", b"tapt")),
    b"mdia": frozenset((b"mdhd", b"hdlr", b"minf", b"elng")),
    b"moof": frozenset((b"mfhd",)),
    b"traf": frozenset((b"tfhd", b"tfdt", b"trun", b"sdtp", b"sbgp", b"sgpd", b"subs", b"saiz", b"saio", b"senc")),
}
"""Of each box, what stays of it. Boxes that are named here are looked into."""
_INTO: Mapping[bytes, frozenset[bytes]] = {
    b"": frozenset((b"moov", b"moof")),
    b"moov": frozenset((b"trak",)),
    b"trak": frozenset((b"mdia",)),
    b"moof": frozenset((b"traf",)),
}


def _mp4(content: Bytes) -> list[Piece]:
    return (_boxes(content, b"", 0, len(content)) or []) if content[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") else []


def _boxes(content: Bytes, parent: bytes, at: int, stop: int) -> list[Piece] | None:
    """The same boxes with what does not stay as zeros, so that nothing moves. None where it has a track of something else."""
    pieces: list[Piece] = []
    for _ in range(_MOST_CHUNKS):
        if at + 8 > stop:
            break
        size, kind, head = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        end = stop if size == 0 and not parent else at + size
        if end < at + head or end > stop:
            break
        if kind == b"hdlr" and parent == b"mdia" and content[at + head + 8 : at + head + 12] not in (b"vide", b"soun"):
            return None
        if kind in _INTO.get(parent, ()):
            inside = _boxes(content, kind, at + head, end)
            if inside is None:
                return None
            pieces += [(at, at + head), *inside]
        elif kind in _BOXES[parent]:
            pieces.append((at, end))
        else:
            pieces += [(at, at + 4), b"free", (at + 8, at + head), end - at - head]
        at = end
    if parent:
        pieces.append(stop - at)
    return pieces


def _whole(content: Bytes) -> list[Piece]:
    return [(0, len(content))]


_STRIPS: Mapping[str, Callable[[Bytes], list[Piece]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "video/mp4": _mp4,
    "video/quicktime": _mp4,
    "video/x-msvideo": _avi,
    "application/gzip": _whole,  # a node's diagnostics: no picture
}
