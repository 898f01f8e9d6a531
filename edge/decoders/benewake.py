"""Benewake's TF-Luna, TFmini-S and TFmini Plus on a UART: their distance frames, out of a stream that may hold anything else.

| bytes | what |
|---|---|
| 0-1 | 59 59 |
| 2-3 | distance in cm |
| 4-5 | strength of the echo |
| 6-7 | temperature of the chip, in 1/8 degrees above -256 |
| 8 | the lowest 8 bits of the sum of bytes 0-7 |

Little-endian, 100 frames a second unless set otherwise. A strength below 100, or of 65535, means that the distance can't be
trusted.
Source: Benewake, TF-Luna product manual A03 and TFmini Plus product manual A08, "standard data output format (cm)".
"""

import struct
from typing import NamedTuple

HEADER = b"\x59\x59"
SIZE = 9
WEAKEST, SATURATED = 100, 65535

_frame = struct.Struct("<2sHHHB")


class Distance(NamedTuple):
    """One measurement."""

    distance_cm: int | None
    """None where the echo can't be trusted: too weak (nothing there, or black), or too strong."""


class BenewakeStream:
    """Finds frames in a byte stream, however it comes in chunks."""

    def __init__(self) -> None:
        self.bad = 0
        """Runs of bytes that belong to no frame."""
        self._buffer = bytearray()
        self._lost = False

    def feed(self, chunk: bytes) -> list[Distance]:
        """The measurements that end in this chunk."""
        found: list[Distance] = []
        buffer = self._buffer
        buffer += chunk
        at = 0
        while len(buffer) - at >= SIZE:
            header, distance_cm, strength, _, total = _frame.unpack_from(buffer, at)
            if header != HEADER or sum(buffer[at : at + SIZE - 1]) & 0xFF != total:
                self.bad += not self._lost
                self._lost = True
                # The next header may stand anywhere behind.
                start = buffer.find(HEADER[:1], at + 1)
                at = len(buffer) if start < 0 else start
            else:
                self._lost = False
                found.append(Distance(distance_cm if WEAKEST <= strength < SATURATED else None))
                at += SIZE
        del buffer[:at]
        return found
