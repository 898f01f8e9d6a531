"""What a camera puts into a folder: pictures, videos, and the driver that reads them."""

import calendar
import hashlib
import io
import os
import struct
import time
from pathlib import Path

from PIL import ExifTags, Image

from edge.contract.events import MediaCaptured
from edge.drivers.trail_camera import TrailCamera, TrailCameraConfig
from edge.records import Happened, Reading, Record, Site
from tests.edge.drivers.listening import Listener


def picture(colour: tuple[int, int, int] = (80, 120, 70), taken: str | None = None, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG of one colour."""
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", exif=exif)
    return out.getvalue()


def video(size: int = 600) -> bytes:
    """A whole MP4, as far as its boxes go."""
    head = struct.pack(">I4s8s", 16, b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4s", 20, b"moov") + bytes(12)
    return head + struct.pack(">I4s", size - len(head), b"mdat") + bytes(size - len(head) - 8)


def exif_time(utc_us: int, zone_s: int = 9 * 3600) -> str:
    """The time of a camera whose clock is set to Japan's."""
    return time.strftime("%Y:%m:%d %H:%M:%S", time.gmtime(utc_us / 1e6 + zone_s))


def write(path: Path, content: bytes, utc_us: int | None = None) -> str:
    """A file as something writes it at a moment of the test's time; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if utc_us is not None:
        os.utime(path, ns=(utc_us * 1000, utc_us * 1000))
    return hashlib.sha256(content).hexdigest()


def camera(site: Site, folder: Path, **settings: object) -> Listener:
    """A camera that is looked through every 2 s of the test's time, not when the kernel says something in real time."""
    given = {"type": "trail_camera", "folder": str(folder), "watch": False} | settings
    return Listener(TrailCamera("cam-02", TrailCameraConfig.model_validate(given), site))


def captured(records: list[Record]) -> list[MediaCaptured]:
    """The pictures among what was said."""
    return [r.event for r in records if isinstance(r, Happened) and isinstance(r.event, MediaCaptured)]


def counted(records: list[Record], metric: str) -> list[float]:
    """The values of one metric, in order."""
    return [r.value for r in records if isinstance(r, Reading) and r.metric == metric]


def seconds(taken: str) -> int:
    """Of an EXIF time, by the camera's clock."""
    return calendar.timegm(time.strptime(taken, "%Y:%m:%d %H:%M:%S"))
