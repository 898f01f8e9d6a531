"""AltBeacon, a fixed frame in any company's manufacturer data.

Source: "AltBeacon Protocol Specification" v1.0 (github.com/AltBeacon/spec): code BE AC, beacon id (20 bytes, of which by its
advice the first 16 name the organisation), signal at 1 m (1 byte, signed, dBm), one byte that is the maker's own.
"""

from typing import NamedTuple

from edge.decoders.advertisement import Advertisement

SIZE = 24
_CODE = b"\xbe\xac"


class AltBeacon(NamedTuple):
    """What one AltBeacon says."""

    company: int
    """The maker's Bluetooth SIG company identifier."""
    id: str
    """40 hex digits, lower case."""
    power_dbm: int
    """Signal at 1 m, as its maker measured it."""

    @property
    def group(self) -> str:
        """Company and the organisation's 16 bytes, as they stand in a configuration: `0118:<32 hex digits>`."""
        return f"{self.company:04x}:{self.id[:32]}"

    @property
    def tag(self) -> str:
        """Its identity in events."""
        return f"altbeacon:{self.company:04x}:{self.id}"


def decode_altbeacon(advertisement: Advertisement) -> AltBeacon | None:
    """The AltBeacon in an advertisement, or None."""
    for company, data in advertisement.manufacturer.items():
        if len(data) == SIZE and data[:2] == _CODE:
            return AltBeacon(company, data[2:22].hex(), int.from_bytes(data[22:23], signed=True))
    return None
