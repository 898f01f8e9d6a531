"""Terabee's TeraRanger Evo People Counter on a UART or USB: its binary frames, out of a stream that may hold anything else.

| bytes | what |
|---|---|
| 0-1 | `PC`: somebody passed |
| 2-5 | sensor id |
| 6-9 | in minus out, signed |
| 10-11 | people from left to right, in total since power was given, u16 |
| 12-13 | people from right to left, likewise |
| 14 | CRC-8 |

Between them, many times a second, `DD`: two distances (2 + 2 bytes) and a CRC-8; they tell that the sensor lives. Numbers are
most significant byte first. The CRC has polynomial 07, start 00, nothing reflected: E7 of `00 61 01`.

Source: TeraRanger Evo People Counter, user manual (2021, 2023), sections 5.4 and 5.5. The order of bytes, which the manual gives
for commands only, is taken to be the same; the redundant difference is checked, so that a wrong guess would show as damage.
"""

import struct
from typing import NamedTuple

MODULUS = 2**16
"""Where the counter's totals run over."""

_PASSAGE = struct.Struct(">2s4siHH")
_SIZES = {b"PC": _PASSAGE.size + 1, b"DD": 7}


class TerabeeFrame(NamedTuple):
    """What one frame says: `counts` of a passage (inward, outward), None of a frame that only shows that the sensor lives."""

    counts: tuple[int, int] | None


def crc8(data: bytes) -> int:
    """CRC-8 with polynomial 07, start 00, not reflected."""
    crc = 0
    for byte in data:
        crc = _TABLE[crc ^ byte]
    return crc


def _row(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1) ^ 0x107 if byte & 0x80 else byte << 1
    return byte


_TABLE = tuple(_row(byte) for byte in range(256))


class TerabeeStream:
    """Finds frames in a byte stream, however it comes in chunks."""

    def __init__(self) -> None:
        self.bad = 0
        """Runs of bytes that belong to no frame."""
        self._buffer = bytearray()
        self._lost = False

    def feed(self, chunk: bytes) -> list[TerabeeFrame]:
        """The frames that end in this chunk."""
        frames: list[TerabeeFrame] = []
        buffer = self._buffer
        buffer += chunk
        at = 0
        while len(buffer) - at >= 2:
            size = _SIZES.get(bytes(buffer[at : at + 2]))
            if size is not None and len(buffer) - at < size:
                break
            frame = _decode(bytes(buffer[at : at + size])) if size is not None else None
            if frame is None or size is None:
                self.bad += not self._lost
                self._lost = True
                at += 1
            else:
                frames.append(frame)
                self._lost = False
                at += size
        del buffer[:at]
        return frames


def _decode(frame: bytes) -> TerabeeFrame | None:
    if crc8(frame[:-1]) != frame[-1]:
        return None
    if frame[:2] == b"DD":
        return TerabeeFrame(None)
    _, _, difference, inward, outward = _PASSAGE.unpack_from(frame)
    if (inward - outward - difference) % MODULUS:
        return None
    return TerabeeFrame((inward, outward))
