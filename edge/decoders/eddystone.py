"""Eddystone: UID, EID and plain TLM frames in the service data of 0xFEAA.

Source: Google, "Eddystone Protocol Specification" (github.com/google/eddystone). All numbers are big-endian.
UID: frame type 00, power at 0 m (1 byte, signed, dBm), namespace (10 bytes), instance (6 bytes), two reserved bytes that some
beacons leave out. EID: 30, power at 0 m, ephemeral identifier (8 bytes). TLM: 20, version 00, battery (mV, 0 where it is not
measured), temperature (8.8 fixed point, 8000 where it is not measured), advertisements sent and tenths of seconds since power-on.
"""

import struct
from typing import NamedTuple

from edge.decoders.advertisement import Advertisement

SERVICE = 0xFEAA
_tlm = struct.Struct(">BBHhII")


class EddystoneUid(NamedTuple):
    """What one Eddystone-UID frame says."""

    namespace: str
    """20 hex digits, lower case."""
    instance: str
    """12 hex digits, lower case."""
    power_dbm: int
    """Signal at 0 m, as its maker measured it."""

    @property
    def tag(self) -> str:
        """Its identity in events."""
        return f"eddystone-uid:{self.namespace}:{self.instance}"


class EddystoneTlm(NamedTuple):
    """What one plain TLM frame says of the beacon that sent it; it does not say which beacon that is."""

    battery_mv: int | None
    temperature_c: float | None
    sent: int
    """Advertisements since it was switched on."""
    up_s: float
    """Time since it was switched on."""


def decode_eddystone_uid(advertisement: Advertisement) -> EddystoneUid | None:
    """The Eddystone-UID frame in an advertisement, or None: URL and TLM frames name no tag."""
    data = advertisement.services.get(SERVICE, b"")
    if len(data) not in (18, 20) or data[0] != 0x00:
        return None
    return EddystoneUid(data[2:12].hex(), data[12:18].hex(), int.from_bytes(data[1:2], signed=True))


def decode_eddystone_eid(advertisement: Advertisement) -> bytes | None:
    """The ephemeral identifier (8 bytes) of an Eddystone-EID frame, or None. Only who has the key knows whose it is."""
    data = advertisement.services.get(SERVICE, b"")
    return data[2:] if len(data) == 10 and data[0] == 0x30 else None


def decode_eddystone_tlm(advertisement: Advertisement) -> EddystoneTlm | None:
    """The plain TLM frame in an advertisement, or None; an encrypted one (version 01) is none."""
    data = advertisement.services.get(SERVICE, b"")
    if len(data) != _tlm.size or data[:2] != b"\x20\x00":
        return None
    _, _, battery_mv, temperature, sent, tenths = _tlm.unpack(data)
    return EddystoneTlm(battery_mv or None, None if temperature == -0x8000 else temperature / 256, sent, tenths / 10)
