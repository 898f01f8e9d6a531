"""A BLE advertisement: its AD structures, what any receiver hands on of it, and the line that one on a serial port prints.

Source: Bluetooth Core Specification Supplement, part A (AD types 0x16 and 0xFF), and Core Specification vol. 3 part C
section 11: a row of (length, type, data), where `length` counts type and data; a zero length ends the row.
"""

import binascii
import re
from typing import NamedTuple

SERVICE_DATA_16 = 0x16
MANUFACTURER_DATA = 0xFF

MAX_LINE = 540
"""Longest line of a receiver, in bytes: 255 bytes of advertising data in hex, signal, address, checksum, and some room."""


class Advertisement(NamedTuple):
    """What one advertisement says, of the kinds of AD structures that carry beacons."""

    manufacturer: dict[int, bytes]
    """Company identifier -> its data; the first, where a company stands twice."""
    services: dict[int, bytes]
    """16-bit service UUID -> its data; the first, where a service stands twice."""
    whole: bool
    """False when a structure runs over the end: it was left out, what stands before it was kept."""


class Received(NamedTuple):
    """One advertisement, from whatever receiver."""

    rssi_dbm: int
    address: str | None
    """Who sent it, 12 hex digits in lower case; None where the receiver does not say. It never leaves the node."""
    advertisement: Advertisement


class Heard(NamedTuple):
    """One line of a receiver on a serial port."""

    rssi_dbm: int
    payload: bytes
    address: str | None = None
    """12 hex digits, lower case; None where the line has none."""
    checked: bool = False
    """Whether the line had a checksum, which was right."""


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
_line = re.compile(
    rb"(?P<said>(?P<rssi>[+-][0-9]{1,3}) (?P<payload>(?:[0-9A-Fa-f]{2})+)(?: (?P<address>[0-9A-Fa-f]{12}))?)"
    rb"(?: (?P<crc>[0-9A-Fa-f]{4}))?\r?"
)


def parse_line(line: bytes) -> Heard | None:
    """`<rssi dBm> <hex of the advertising data>[ <address>][ <checksum>]` without its newline; None if it is not.

    The signal always has its sign and is -127 to +20 dBm, the range of the HCI's RSSI. The address has 12 hex digits. The
    checksum has 4: CRC-16/CCITT-FALSE (29B1 of "123456789") of all that stands before the space in front of it.
    """
    match = _line.fullmatch(line)
    if match is None or not -127 <= (rssi_dbm := int(match["rssi"])) <= 20:
        return None
    crc, address = match["crc"], match["address"]
    if crc is not None and int(crc, 16) != binascii.crc_hqx(match["said"], 0xFFFF):
        return None
    return Heard(
        rssi_dbm,
        bytes.fromhex(match["payload"].decode("ascii")),
        address.decode("ascii").lower() if address else None,
        crc is not None,
    )


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
