"""A BLE advertisement: its AD structures, and what a receiver on a serial port prints of it.

Source: Bluetooth Core Specification Supplement, part A (AD types 0x16 and 0xFF), and Core Specification vol. 3 part C
section 11: a row of (length, type, data), where `length` counts type and data; a zero length ends the row.
"""

import re
from typing import NamedTuple

SERVICE_DATA_16 = 0x16
MANUFACTURER_DATA = 0xFF

MAX_LINE = 520
"""Longest line of a receiver, in bytes: 255 bytes of advertising data in hex, the signal, and some room."""


class Advertisement(NamedTuple):
    """What one advertisement says, of the kinds of AD structures that carry beacons."""

    manufacturer: dict[int, bytes]
    """Company identifier -> its data; the first, where a company stands twice."""
    services: dict[int, bytes]
    """16-bit service UUID -> its data; the first, where a service stands twice."""
    whole: bool
    """False when a structure runs over the end: it was left out, what stands before it was kept."""


class Heard(NamedTuple):
    """One line of a receiver: an advertisement and how strong it was."""

    rssi_dbm: int
    payload: bytes


def parse_advertisement(payload: bytes) -> Advertisement:
    """Splits advertising data into its structures."""
    manufacturer: dict[int, bytes] = {}
    services: dict[int, bytes] = {}
    at = 0
    while at < len(payload) and (length := payload[at]):
        end = at + 1 + length
        if end > len(payload):
            return Advertisement(manufacturer, services, whole=False)
        kind, data = payload[at + 1], payload[at + 2 : end]
        if kind in (MANUFACTURER_DATA, SERVICE_DATA_16) and len(data) >= 2:
            found = manufacturer if kind == MANUFACTURER_DATA else services
            found.setdefault(int.from_bytes(data[:2], "little"), data[2:])
        at = end
    return Advertisement(manufacturer, services, whole=True)


# The sign is compulsory: without it, "-67" cut off at its front would read as 7 dBm.
_line = re.compile(rb"([+-][0-9]{1,3}) ((?:[0-9A-Fa-f]{2})+)\r?")


def parse_line(line: bytes) -> Heard | None:
    """`<rssi dBm> <hex of the advertising data>` without its newline, e.g. `-67 0201061aff4c00...`; None if it is not.

    The signal always has its sign and is -127 to +20 dBm, the range of the HCI's RSSI.
    """
    match = _line.fullmatch(line)
    if match is None or not -127 <= (rssi_dbm := int(match[1])) <= 20:
        return None
    return Heard(rssi_dbm, bytes.fromhex(match[2].decode("ascii")))


class Lines:
    """Cuts a byte stream into lines, however it comes in chunks. Holds `MAX_LINE` bytes at most."""

    def __init__(self) -> None:
        self.too_long = 0
        """Lines dropped because they were longer than `MAX_LINE`, in total."""
        self._begun = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, without their newlines."""
        lines: list[bytes] = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._add(part)
            if not self._dropping:
                lines.append(bytes(self._begun))
            self._begun.clear()
            self._dropping = False
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        if self._dropping:
            return
        if len(self._begun) + len(part) > MAX_LINE:
            self._dropping = True
            self.too_long += 1
        else:
            self._begun += part
