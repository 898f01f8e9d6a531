"""The serial people counter: 16 bytes a frame, little-endian, out of a stream that may hold anything else.

| bytes | what |
|---|---|
| 0-1 | AA 55 |
| 2 | version, 01 |
| 3 | flags: bit 0 set = the battery is not measured (a counter on mains power); the others are reserved |
| 4-7 | people counted inwards in total, u32; 0 again after 2^32 - 1, and when the counter restarts |
| 8-11 | people counted outwards in total, likewise |
| 12-13 | battery in mV, u16 |
| 14-15 | CRC-16/CCITT-FALSE (polynomial 1021, start FFFF, nothing reflected; 29B1 of "123456789") of bytes 0-13 |

The project's own format. The CRC finds every damage of up to 16 bits in a row and 65535 of 65536 others.
"""

import binascii
import struct
from typing import NamedTuple

SYNC = b"\xaa\x55"
VERSION = 1
BATTERY_UNKNOWN = 0x01

_body = struct.Struct("<2sBBIIH")
SIZE = _body.size + 2


class CounterFrame(NamedTuple):
    """What one frame says."""

    in_total: int
    out_total: int
    battery_mv: int | None
    """None when the counter does not measure it."""


def decode_frame(frame: bytes) -> CounterFrame | None:
    """One whole frame, or None: wrong length, start, version or CRC."""
    if len(frame) != SIZE or int.from_bytes(frame[-2:], "little") != binascii.crc_hqx(frame[:-2], 0xFFFF):
        return None
    sync, version, flags, in_total, out_total, battery_mv = _body.unpack_from(frame)
    if sync != SYNC or version != VERSION:
        return None
    return CounterFrame(in_total, out_total, None if flags & BATTERY_UNKNOWN else battery_mv)


class FrameStream:
    """Finds frames in a byte stream, however it comes in chunks. Holds less than one frame between two calls."""

    def __init__(self) -> None:
        self.bad = 0
        """Damage so far: each run of bytes that belongs to no frame counts once per begun `SIZE` bytes of it.

        So one damaged frame is 1, and a port at the wrong speed counts on and on.
        """
        self._buffer = bytearray()
        self._skipped = 0  # bytes since the last good frame

    def feed(self, chunk: bytes) -> list[CounterFrame]:
        """The frames that end in this chunk."""
        frames: list[CounterFrame] = []
        buffer = self._buffer
        buffer += chunk
        at = 0  # what stands before is done with; the buffer is cut once, at the end
        while True:
            start = buffer.find(SYNC, at)
            if start < 0:
                # The last byte may be the first half of a start.
                start = len(buffer) - buffer.endswith(SYNC[:1])
                self._skip(max(start - at, 0))
                at = max(start, at)
                break
            self._skip(start - at)
            at = start
            if len(buffer) - at < SIZE:
                break
            frame = decode_frame(bytes(buffer[at : at + SIZE]))
            if frame is None:
                # A start by chance, or damage: the next true start may stand anywhere behind this one.
                self._skip(1)
                at += 1
            else:
                frames.append(frame)
                self._skipped = 0
                at += SIZE
        del buffer[:at]
        return frames

    def _skip(self, count: int) -> None:
        before, self._skipped = self._skipped, self._skipped + count
        self.bad += -(-self._skipped // SIZE) + (-before // SIZE)
