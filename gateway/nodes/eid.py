"""Eddystone-EID: what a rotating tag calls itself at a time, computed from its key. Pure; the key never leaves the gateway.

Source: Google, "EID Computation" (github.com/google/eddystone, eddystone-eid/eid-computation.md). A tag counts seconds, up to 32
bits, and makes a new identifier every 2^exponent of them, at a random moment of that window. Its clock may be wrong by 150 ppm.
"""

from collections.abc import Iterable
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MAX_EXPONENT = 15
DRIFT_PPM = 150
"""How wrong a tag's clock may be, by the specification."""

RESTART_S = 600
"""How far a tag's clock may be off besides: it was read by hand, and perhaps stood still while the battery was changed."""


class RotatingTag(NamedTuple):
    """One row of `rotating_tags`."""

    tag: str
    key: bytes
    """16 bytes, the identity key."""
    exponent: int
    """0 to 15."""
    zero_us: int
    """UTC µs at which the tag's own clock was 0."""


class ExpectedIdentifier(NamedTuple):
    """One entry of `edge.contract.remote.Expected.tags`."""

    eid: str
    """16 hex digits, lower case."""
    tag: str
    from_us: int
    """UTC µs."""
    until_us: int
    """UTC µs, excluded."""


def eid(key: bytes, exponent: int, tag_seconds: int) -> bytes:
    """The 8 bytes that a tag with this key calls itself when its clock shows so many seconds.

    ValueError for a key that has not 16 bytes, an exponent beyond 15, or a time beyond 32 bits.
    """
    if len(key) != 16:
        raise ValueError(f"an identity key has 16 bytes, not {len(key)}")
    if not 0 <= exponent <= MAX_EXPONENT:
        raise ValueError(f"a rotation exponent is 0 to {MAX_EXPONENT}, not {exponent}")
    if not 0 <= tag_seconds < 2**32:
        raise ValueError(f"a tag's clock is 0 to 2^32 - 1 s, not {tag_seconds}")
    temporary = _aes(key, bytes(11) + b"\xff" + bytes(2) + (tag_seconds >> 16).to_bytes(2))
    window = tag_seconds >> exponent << exponent
    return _aes(temporary, bytes(11) + bytes((exponent,)) + window.to_bytes(4))[:8]


def expected_identifiers(tags: Iterable[RotatingTag], now_us: int, hours: float) -> list[ExpectedIdentifier]:
    """All identifiers that may be heard from `now_us` on, for so many hours, sorted by when they begin.

    An identifier holds longer than its own window: by as much as the tag's clock may be off, and by one window more, because
    a tag changes at a random moment within it. So the windows of one tag overlap. Where a list must be cut, cutting its end
    leaves every tag known for the same time. A clock that ran over 32 bits begins again at 0, as the tag's own does.
    """
    end_us = now_us + round(hours * 3.6e9)
    found: list[ExpectedIdentifier] = []
    for tag in tags:
        window_us = 2**tag.exponent * 1_000_000
        drift_us = RESTART_S * 1_000_000 + max(end_us - tag.zero_us, 0) * DRIFT_PPM // 1_000_000
        first = max((now_us - tag.zero_us - drift_us) // window_us - 1, 0)
        last = (end_us - tag.zero_us + drift_us) // window_us
        for number in range(first, last + 1):
            begin_us = tag.zero_us + number * window_us
            from_us, until_us = begin_us - drift_us, begin_us + 2 * window_us + drift_us
            if until_us > now_us and from_us < end_us:
                name = eid(tag.key, tag.exponent, (number << tag.exponent) % 2**32).hex()
                found.append(ExpectedIdentifier(name, tag.tag, max(from_us, 0), until_us))
    return sorted(found, key=lambda one: (one.from_us, one.tag, one.eid))


def _aes(key: bytes, block: bytes) -> bytes:
    """AES-128 of one block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305 - one block, as the format says
