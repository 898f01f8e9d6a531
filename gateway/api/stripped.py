"""A picture of the shelf as an answer: stripped of what it says besides what it shows, as a whole or a part of it.

Its name is still the SHA-256 of the bytes as they came; the ETag says that these are others.
"""

import re
from collections.abc import Iterator, Mapping

from fastapi import Response
from fastapi.responses import StreamingResponse

from gateway.media import Kept, opened
from gateway.stripping import VERSION, Bytes, Piece, length, plan, read

_range = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


def stripped(kept: Kept, asked: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Response | None:
    """The answer to a request with these headers (`If-None-Match`, `Range`, `If-Range`). None: nothing of it can leave.

    304, 206 and 416 as RFC 9110 has them; of several ranges at once the whole is given, which it allows.
    """
    etag = f'"{kept.sha256}-{VERSION}"'
    said = {**(headers or {}), "ETag": etag, "Accept-Ranges": "bytes"}
    content = opened(kept.path)
    pieces = plan(content, kept.content_type)
    size = length(pieces)
    if not size:
        return None
    if has(asked, etag):
        return Response(status_code=304, headers=said)
    part = _part(asked.get("Range", ""), size) if asked.get("If-Range", etag) == etag else None
    if part == (0, 0):
        return Response(status_code=416, headers={**said, "Content-Range": f"bytes */{size}"})
    start, stop = part or (0, size)
    said["Content-Length"] = str(stop - start)
    if part:
        said["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    body = _body(content, pieces, start, stop)
    return StreamingResponse(body, 206 if part else 200, said, media_type=kept.content_type)


def has(asked: Mapping[str, str], etag: str) -> bool:
    """Whether who asks has this one already."""
    return etag in (one.strip().removeprefix("W/") for one in asked.get("If-None-Match", "").split(","))


def _body(content: Bytes, pieces: list[Piece], start: int, stop: int) -> Iterator[bytes]:
    yield from read(content, pieces, start, stop)


def _part(said: str, size: int) -> tuple[int, int] | None:
    """From where to where; (0, 0) for what lies beyond the end, None for what is no single range."""
    found = _range.fullmatch(said.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size if int(found[2]) else 0
    start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    if start >= size:
        return 0, 0
    return (start, stop) if start < stop else None
