"""A picture made small: a JPEG for lists, the right way up, without anything but what it shows. Pure; nothing else decodes.

Whatever was sent is decoded here, so it is bounded before: by what its headers say (gateway.picture_check), and by the decoder's
own word before it begins. A baseline JPEG comes in at the size it is needed in, a few rows at a time; all else is held whole.
"""

import io

from gateway.picture_check import extent
from gateway.stripping import Bytes, length, plan, read

VERSION = 1
"""Counts up when the same picture is made small otherwise: part of its ETag and of the name it is kept under."""
SIDE = 320
"""Pixels of its longer side: four to a phone's width at twice the density."""

_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_QUALITY = 75
_MOST_BYTES = 64 * 2**20
_MOST_PIXELS = 89_000_000
"""Beyond that Pillow itself warns of a bomb."""
_MOST_HELD = 24_000_000
"""Pixels of what is held whole: some 100 MB, and on a Pi a second or two."""
_MOST_SCANS = 100
"""Of one JPEG. A progressive one has about ten; each costs as much as a picture, and but a few bytes."""


def small(content: Bytes, content_type: str) -> bytes | None:
    """At most SIDE pixels wide and high. None for films, for what is too large to be decoded here, and what can't be."""
    pieces, said = plan(content, content_type), extent(content, content_type)
    if content_type not in _FORMATS or said is None or not pieces or length(pieces) > _MOST_BYTES:
        return None
    most = _MOST_PIXELS if said.rows else _MOST_HELD
    if said.pixels > most or said.scans > _MOST_SCANS:
        return None
    try:
        return _made(b"".join(read(content, pieces, 0, length(pieces))), _FORMATS[content_type], most)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises whatever its readers of formats do; a broken picture is no error of ours
        return None


def _made(content: bytes, kind: str, most: int) -> bytes | None:
    from PIL import Image, ImageFile, ImageOps  # 2 MiB and more: only where pictures are looked at

    # Of a picture that was cut off, what is there. Of the whole process, and WeasyPrint says the same of it when it is loaded.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with Image.open(io.BytesIO(content), formats=(kind,)) as image:
        if image.width * image.height > most:
            return None
        image.thumbnail((SIDE, SIDE))
        # Onto a canvas of its own: what else a format's reader has learned of the picture does not come along.
        upright = ImageOps.exif_transpose(image).convert("RGBA")
        canvas = Image.new("RGB", upright.size, "white")
        canvas.paste(upright, mask=upright)
    made = io.BytesIO()
    canvas.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()
