"""iBeacon, a fixed frame in Apple's manufacturer data.

Source: Apple, "Proximity Beacon Specification", R1: company 0x004C, type 02, length 15 (hex), then proximity UUID
(16 bytes), major and minor (2 bytes each, big-endian), measured power at 1 m (1 byte, signed, dBm).
"""

import struct
import uuid
from typing import NamedTuple

from edge.decoders.advertisement import Advertisement

APPLE = 0x004C
_frame = struct.Struct(">BB16sHHb")


class IBeacon(NamedTuple):
    """What one iBeacon says."""

    uuid: str
    """Proximity UUID, lower case with dashes."""
    major: int
    minor: int
    power_dbm: int
    """Signal at 1 m, as its maker measured it."""

    @property
    def tag(self) -> str:
        """Its identity in events."""
        return f"ibeacon:{self.uuid}:{self.major}:{self.minor}"


def decode_ibeacon(advertisement: Advertisement) -> IBeacon | None:
    """The iBeacon in an advertisement, or None: no other length and no other type is one."""
    data = advertisement.manufacturer.get(APPLE, b"")
    if len(data) != _frame.size:
        return None
    kind, length, proximity, major, minor, power_dbm = _frame.unpack(data)
    if (kind, length) != (0x02, 0x15):
        return None
    return IBeacon(str(uuid.UUID(bytes=proximity)), major, minor, power_dbm)
