"""A video from a camera: of which type it is, and whether it is whole. Only its frame of boxes is read, never the pictures.

Sources: ISO/IEC 14496-12 4.2 (boxes: size and type, 64-bit sizes, size 0 = to the end) and Apple's QuickTime File Format, whence
it comes; Microsoft's AVI RIFF File Reference, and OpenDML 1.02 for AVI files of several RIFF chunks.
"""

from typing import BinaryIO

MAX_BOXES = 10_000
"""Boxes looked at; a camera writes some ten, or some hundred fragments."""

_FIRST = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))


def video_type(head: bytes) -> str | None:
    """The content type by the first 12 bytes: video/mp4, video/quicktime or video/x-msvideo; None for none of these."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    return "video/quicktime" if head[4:8] in _FIRST else None


def video_fault(file: BinaryIO, size: int) -> str | None:
    """Why this is no whole video, or None when it is one. `size`: its length in bytes. OSError is the file's own."""
    if size == 0:
        return "it is empty"
    file.seek(0)
    kind = video_type(file.read(12))
    if kind is None:
        return "it does not begin as an MP4, MOV or AVI video"
    return _avi_fault(file, size) if kind == "video/x-msvideo" else _boxes_fault(file, size)


def _boxes_fault(file: BinaryIO, size: int) -> str | None:
    at, found = 0, set()
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if len(head) >= 8 and length == 0:
            length = size - at  # to the end of the file; a camera writes this, too, before it knows better
        elif length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:])
        if len(head) < 8 or length < 8:
            break  # what some cameras fill the rest with
        found.add(kind)
        at += length
        if at >= size:
            break
    if at > size:
        return "its end is missing: it was cut off"
    if b"moov" not in found:
        return "its index is missing: it was cut off, or is still being written"
    if not found & {b"mdat", b"moof"}:
        return "it has no pictures"
    return None


def _avi_fault(file: BinaryIO, size: int) -> str | None:
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF":
            break  # what some cameras fill the rest with
        length = int.from_bytes(head[4:8], "little")
        if length < 4:
            return "its length is missing: it was cut off, or is still being written"
        at += 8 + length + length % 2
        if at > size + length % 2:
            return "its end is missing: it was cut off"
    return None
