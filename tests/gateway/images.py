"""Pictures and films as cameras make them, and what only says that it is one. Nothing else."""

import io
import struct
import zlib

from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG", **how: object) -> bytes:
    """The bytes of an image."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def saved(kind: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **how: object) -> bytes:
    """Those of a gradient."""
    return encoded(Image.linear_gradient("L").resize(size).convert(mode), kind, **how)


def saying(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG, which says that it is so large."""
    at = next(found for marker in (b"\xff\xc0", b"\xff\xc2") if (found := jpeg.find(marker)) > 0)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def bomb(side: int) -> bytes:
    """A PNG that says it is so wide and high, in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def box(kind: bytes, body: bytes = b"") -> bytes:
    """A box of a film."""
    return struct.pack(">I", 8 + len(body)) + kind + body


MP4 = box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov", box(b"mvhd", bytes(100))) + box(b"mdat", b"pictures")
