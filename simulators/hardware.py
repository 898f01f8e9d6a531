"""What devices put on the wire, and the far side of the seams: pins, serial ports, a camera's memory card.

Encoders only, written from the formats' own descriptions and never from the project's decoders, so that the two sides
can catch each other's mistakes. Real libraries stand above every seam: gpiozero, pyserial on a pty, files.
"""

import binascii
import io
import os
import random
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gpiozero import Device
from gpiozero.pins.mock import MockFactory
from PIL import ExifTags, Image, ImageDraw

from simulators.pin_factory import FACTORY, PINS_FILE
from simulators.world import Tag

# --- pins -------------------------------------------------------------------------------------------


class PinsFile:
    """Moves the pins of an edge agent in another process, which was started with `environment`.

    See simulators.pin_factory. The file outlives both sides: an agent started later finds the pins as they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def environment(self) -> dict[str, str]:
        """What the agent's environment needs besides."""
        return {"GPIOZERO_PIN_FACTORY": FACTORY, PINS_FILE: str(self.path)}

    def low(self, pin: int) -> None:
        """Drives a BCM pin low: a switch to ground closes."""
        self._say(pin, "low")

    def high(self, pin: int) -> None:
        """Drives a BCM pin high: a switch to ground opens."""
        self._say(pin, "high")

    def _say(self, pin: int, level: str) -> None:
        _check_pin(pin)
        with self.path.open("ab", buffering=0) as file:  # one write: no reader ever sees half a line
            file.write(f"{pin} {level}\n".encode())


class OwnPins:
    """Moves pins of this process, at once: what `own_pins` yields."""

    def __init__(self, factory: MockFactory) -> None:
        self._factory = factory

    def low(self, pin: int) -> None:
        """Drives a BCM pin low: a switch to ground closes."""
        _check_pin(pin)
        self._factory.pin(pin).drive_low()

    def high(self, pin: int) -> None:
        """Drives a BCM pin high: a switch to ground opens."""
        _check_pin(pin)
        self._factory.pin(pin).drive_high()


@contextmanager
def own_pins() -> Iterator[OwnPins]:
    """gpiozero's own mock pins for this process, which has one set of them: nodes that share it need different pins.

    A level set before a device opens the pin is lost to the pull, other than with PinsFile.
    """
    before, factory = Device.pin_factory, MockFactory()
    Device.pin_factory = factory
    try:
        yield OwnPins(factory)
    finally:
        Device.pin_factory = before
        factory.close()


def _check_pin(pin: int) -> None:
    if not 0 <= pin <= 27:
        raise ValueError(f"pin {pin}: a Raspberry Pi's header has BCM pins 0 to 27")


# --- serial ports -----------------------------------------------------------------------------------


class SerialPort:
    """A serial port with a device at its far end: a pty behind a name of its own, as under /dev/serial/by-id.

    `path` is what pyserial opens; it is there while the device is plugged in and stays the same over `unplug` and
    `plug`. Nothing is ever written back by the device.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master: int | None = None
        self._slave: int | None = None
        self.plug()

    def plug(self) -> None:
        """Plugs the device in again, as a new port under the old name."""
        if self._master is not None:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)  # a UART neither echoes nor edits lines
        os.set_blocking(self._master, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))

    def write(self, data: bytes) -> int:
        """Sends bytes to whoever has the port open; returns how many were taken.

        Less than all when nobody reads: a UART does not wait for its listener either. OSError when unplugged.
        """
        if self._master is None:
            raise OSError(f"{self.path} is unplugged; plug() it before writing")
        sent = 0
        while sent < len(data):
            try:
                sent += os.write(self._master, data[sent:])
            except BlockingIOError:
                break
        return sent

    def unplug(self) -> None:
        """Pulls the plug: the name goes, and whoever has the port open gets a hang-up."""
        if self._master is None or self._slave is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = None

    def __enter__(self) -> "SerialPort":
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()


def counter_frame(in_total: int, out_total: int, battery_mv: int | None) -> bytes:
    """One frame of the people counter, 16 bytes, little-endian.

    AA 55, version 1, flags (bit 0: the battery is not measured), total in (u32), total out (u32), battery in mV (u16),
    CRC-16/CCITT-FALSE (polynomial 1021, start FFFF, nothing reflected) of all before it. Totals roll over at 2^32, as
    the device's own do. A `battery_mv` of None is a counter on mains power.
    """
    mains = battery_mv is None
    body = struct.pack("<BBBBIIH", 0xAA, 0x55, 1, mains, in_total % 2**32, out_total % 2**32, battery_mv or 0)
    return body + struct.pack("<H", binascii.crc_hqx(body, 0xFFFF))


def advertisement(tag: Tag) -> bytes:
    """The advertising data of a tag: AD structures of length, type, data (Bluetooth Core Supplement, part A).

    iBeacon: Apple's manufacturer data 004C of type 02 15, measured power -59 dBm. Eddystone-UID: service data of
    FEAA, frame 00, power at 0 m -20 dBm, two reserved bytes.
    """
    flags = bytes.fromhex("020106")
    if tag.kind == "ibeacon":
        return flags + bytes.fromhex("1aff4c000215") + tag.identity + bytes.fromhex("c5")
    return flags + bytes.fromhex("0303aafe" + "1716aafe00ec") + tag.identity + bytes.fromhex("0000")


def advertisement_line(tag: Tag, rssi: int) -> bytes:
    """What the BLE receiver prints for one advertisement: `<rssi dBm> <hex of the advertising data>` and a newline.

    The signal always has its sign, so that a line cut off at its front can't be taken for a stronger one.
    """
    return f"{rssi:+d} {advertisement(tag).hex()}\n".encode("ascii")


# --- a trail camera ---------------------------------------------------------------------------------

_SHAPES = {  # length and height in pixels, colour
    "wild-boar": (90, 50, (70, 60, 55)),
    "deer": (80, 75, (125, 100, 75)),
    "bear": (110, 80, (35, 32, 35)),
    "tanuki": (50, 30, (110, 95, 80)),
    "person": (25, 95, (60, 90, 130)),
}


def picture(t_us: int, what: str, seed: int) -> bytes:
    """A small JPEG (320 x 240) as a trail camera takes it at `t_us`, with EXIF; the same arguments give the same bytes.

    The camera's clock is set to Japan's time and says no zone, as cheap ones do.
    """
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t_us) + timedelta(hours=9)
    chance = random.Random(f"{seed}|{t_us}|{what}")
    night = not 5 <= local.hour < 18
    image = Image.new("RGB", (320, 240), (25, 28, 30) if night else (150, 180, 200))
    draw = ImageDraw.Draw(image)
    draw.polygon([(0, 150), (110, 80), (200, 140), (320, 95), (320, 240), (0, 240)], (42, 50, 42) if night else (80, 120, 70))
    for _ in range(7):
        x, thick = chance.randrange(320), chance.randrange(4, 12)
        draw.rectangle((x, 20, x + thick, 200), (32, 30, 28) if night else (90, 70, 50))
    length, height, colour = _SHAPES.get(what, (60, 40, (90, 90, 90)))
    left, ground = chance.randrange(20, 300 - length), chance.randrange(190, 215)
    draw.ellipse((left, ground - height, left + length, ground), colour)
    draw.ellipse((left + length - 12, ground - height - 8, left + length + 14, ground - height + 18), colour)
    for _ in range(400):  # the sensor's noise
        draw.point((chance.randrange(320), chance.randrange(240)), (chance.randrange(256),) * 3)
    draw.rectangle((0, 222, 320, 240), (0, 0, 0))
    draw.text((6, 225), f"SIMCAM  {local:%Y-%m-%d %H:%M:%S}  {what}", (255, 255, 255))

    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "SIMCAM"
    exif[ExifTags.Base.Model] = "SIMCAM"
    exif[ExifTags.Base.DateTime] = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{local:%Y:%m:%d %H:%M:%S}"
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, exif=exif)
    return out.getvalue()


def save_picture(folder: Path, t_us: int, content: bytes) -> Path:
    """Puts a picture on the camera's memory card under its next number, as a camera does: in place, not renamed."""
    taken = [int(entry.stem[4:]) for entry in folder.glob("IMG_[0-9][0-9][0-9][0-9].JPG")]
    path = folder / f"IMG_{max(taken, default=0) + 1:04d}.JPG"
    path.write_bytes(content)
    os.utime(path, ns=(t_us * 1000, t_us * 1000))
    return path
