"""Eddystone-UID, a frame in the service data of 0xFEAA.

Source: Google, "Eddystone Protocol Specification", Eddystone-UID: frame type 00, power at 0 m (1 byte, signed, dBm),
namespace (10 bytes), instance (6 bytes), two reserved bytes that some beacons leave out.
"""

from typing import NamedTuple

from edge.decoders.advertisement import Advertisement

SERVICE = 0xFEAA


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


def decode_eddystone_uid(advertisement: Advertisement) -> EddystoneUid | None:
    """The Eddystone-UID frame in an advertisement, or None: URL, TLM and EID frames name no tag."""
    data = advertisement.services.get(SERVICE, b"")
    if len(data) not in (18, 20) or data[0] != 0x00:
        return None
    return EddystoneUid(data[2:12].hex(), data[12:18].hex(), int.from_bytes(data[1:2], signed=True))
