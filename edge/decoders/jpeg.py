"""A JPEG file from a camera: whether it is whole, and when the camera says that it was taken.

Sources: ITU-T T.81 annex B (markers and segments); CIPA DC-008 (Exif 3.0) 4.5.4 (APP1) and 4.6.6 (DateTimeOriginal
0x9003, OffsetTimeOriginal 0x9011). The tags are read by exifread, which was written for honest files: it gets the Exif
segment alone (64 KiB at most), as a file that allows a bounded number of reads. Where EXIF has no time, the maker's own note is
asked (edge.decoders.makernote).
"""

import io
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import exifread

from edge.decoders.makernote import reconyx_time

MAX_SEGMENTS = 2000
"""Segments looked at before the image data: a camera writes some ten, hostile bytes up to eight million."""

MAX_EXIF_READS = 20_000
MAX_EXIF_BYTES = 4 * 1024 * 1024

# exifread complains on its own logger, without the file's name; the reason goes to the caller instead.
logging.getLogger("exifread").setLevel(logging.CRITICAL)

_START, _IMAGE_DATA, _END, _APP1 = 0xD8, 0xDA, 0xD9, 0xE1
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_time = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", re.ASCII)
_offset = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d", re.ASCII)


class CameraTime(NamedTuple):
    """What the camera's own clock said."""

    text: str | None
    """ISO 8601, e.g. 2026-06-03T06:12:00; ends in the offset (+09:00) when the camera wrote one."""
    reason: str
    """Why there is no text; empty when there is."""


def jpeg_fault(content: bytes) -> str | None:
    """Why this is no whole JPEG, or None when it is one. What follows the image's end is not looked at."""
    if not content:
        return "it is empty"
    if content[:3] != b"\xff\xd8\xff":
        return "it does not begin as a JPEG"
    for marker, _, end in _segments(content):
        if marker == _IMAGE_DATA:
            # Within image data FF is followed by 00 or a restart marker: this is the image's end, not a thumbnail's.
            return None if content.find(b"\xff\xd9", end) >= 0 else "its end is missing: it was cut off"
    return "its image data is missing: it was cut off, or its segments are damaged"


def camera_time(content: bytes) -> CameraTime:
    """EXIF DateTimeOriginal of a JPEG, with OffsetTimeOriginal if it is there; else the time in a Reconyx camera's own note."""
    for marker, start, end in _segments(content):
        if marker == _APP1 and content[start : start + 6] == b"Exif\0\0":
            tiff = content[start + 6 : end]
            said = _exif_time(tiff)
            noted = reconyx_time(tiff) if said.text is None else None
            return said if noted is None else CameraTime(noted, "")
    return CameraTime(None, "it has no EXIF")


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, first byte of the data, end) up to the image data; ends early where the bytes are no segment."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(content) or content[at] != 0xFF or content[at + 1] == _END:
            return
        marker = content[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
            if end < at + 4 or end > len(content):
                return
            yield marker, at + 4, end
            if marker == _IMAGE_DATA:
                return
            at = end


class _BoundedFile(io.BytesIO):
    """Ends reading after so much of it: exifread follows the counts and offsets that the file gives, in loops."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads = 0
        self._bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads += 1
        self._bytes += len(data)
        if self._reads > MAX_EXIF_READS or self._bytes > MAX_EXIF_BYTES:
            raise ValueError("its EXIF has no end")
        return data


def _exif_time(tiff: bytes) -> CameraTime:
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return CameraTime(None, "its EXIF is damaged: no TIFF header")
    try:
        tags = exifread.process_file(_BoundedFile(tiff), stop_tag="OffsetTimeOriginal", details=False, extract_thumbnail=False)
        taken, offset = (
            str(tags[name].values).strip("\0 ") if name in tags else ""
            for name in ("EXIF DateTimeOriginal", "EXIF OffsetTimeOriginal")
        )
    except Exception as error:  # noqa: BLE001 - on damaged bytes exifread raises whatever its loops ran into
        return CameraTime(None, f"its EXIF can't be read: {error!r}"[:200])
    if not taken:
        return CameraTime(None, "its EXIF has no DateTimeOriginal")
    match = _time.fullmatch(taken)
    text = f"{match[1]}-{match[2]}-{match[3]}T{match[4]}" if match else ""
    try:
        datetime.fromisoformat(text)  # is there such a day and such a time?
    except ValueError:
        return CameraTime(None, f"its DateTimeOriginal is no time: {taken[:32]!r}; was the camera's clock ever set?")
    return CameraTime(text + (offset if _offset.fullmatch(offset) else ""), "")
