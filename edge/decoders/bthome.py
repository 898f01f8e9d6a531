"""BTHome v2: battery and buttons, in the service data of 0xFCD2, plain or sealed with AES-CCM.

Source: bthome.io/format and bthome.io/encryption. Device information byte: bit 0 sealed, bit 2 sent on a trigger, bits 5-7 the
version (2), the others reserved. Then objects: an identifier and its value, little-endian, as long as the identifier says; what
stands behind an identifier that is not known can't be read. Sealed: ciphertext, counter (4 bytes), MIC (4 bytes); the nonce is
address, D2 FC, device information, counter.
"""

from typing import NamedTuple

from edge.decoders.advertisement import Advertisement

SERVICE = 0xFCD2
_SERVICE_BYTES = SERVICE.to_bytes(2, "little")
_SEALED, _TRIGGERED, _VERSION_2 = 0x01, 0x04, 0x40

PRESSES = {
    0x01: "press",
    0x02: "double_press",
    0x03: "triple_press",
    0x04: "long_press",
    0x05: "long_double_press",
    0x06: "long_triple_press",
    0x80: "hold_press",
}
"""Button event -> its name; 0x00 is a button that was not pressed."""

_PACKET_ID, _BATTERY, _VOLTAGE_MV, _BUTTON, _VOLTAGE_DV = 0x00, 0x01, 0x0C, 0x3A, 0x4A

# How many bytes the value of each object has; text (53) and raw (54) say it themselves.
_LENGTHS = {
    **dict.fromkeys((0x00, 0x01, 0x09, *range(0x0F, 0x12), *range(0x15, 0x30), 0x3A, 0x46, 0x57, 0x58, 0x59, 0x60, 0x64), 1),
    **dict.fromkeys((0x02, 0x03, 0x06, 0x07, 0x08, 0x0C, 0x0D, 0x0E, 0x12, 0x13, 0x14, 0x3C, 0x3D, 0x3F, 0x40, 0x41), 2),
    **dict.fromkeys((0x43, 0x44, 0x45, 0x47, 0x48, 0x49, 0x4A, 0x51, 0x52, 0x56, 0x5A, 0x5D, 0x5E, 0x5F, 0x61, 0xF0), 2),
    **dict.fromkeys((0x04, 0x05, 0x0A, 0x0B, 0x42, 0x4B, 0xF2), 3),
    **dict.fromkeys((0x3E, 0x4C, 0x4D, 0x4E, 0x4F, 0x50, 0x55, 0x5B, 0x5C, 0x62, 0x63, 0xF1), 4),
}
_SAYS_ITS_LENGTH = (0x53, 0x54)


class BtHome(NamedTuple):
    """What one frame says, as far as a watch tag has it to say."""

    packet_id: int | None = None
    """0 to 255; the same in each repetition of one packet."""
    level: int | None = None
    """Battery, percent."""
    voltage: float | None = None
    """Battery, V."""
    presses: tuple[str, ...] | None = None
    """What was pressed, by its name in PRESSES; empty when its buttons rest, None when it speaks of no button."""
    counter: int | None = None
    """Of a sealed frame: grows with each one."""


class Sealed(NamedTuple):
    """A frame that only its key can open."""

    information: int
    ciphertext: bytes
    counter: bytes
    mic: bytes


def decode_bthome(advertisement: Advertisement) -> BtHome | Sealed | None:
    """The BTHome v2 frame in an advertisement, or None: there is none, it has another version, or it is damaged."""
    data = advertisement.services.get(SERVICE, b"")
    if not data or data[0] & ~(_SEALED | _TRIGGERED) != _VERSION_2:
        return None
    if not data[0] & _SEALED:
        return _objects(data[1:])
    return Sealed(data[0], data[1:-8], data[-8:-4], data[-4:]) if len(data) > 9 else None


def open_sealed(sealed: Sealed, key: bytes, address: str) -> BtHome | None:
    """What a sealed frame says; None when it was not sealed with this key (16 bytes) by this address (12 hex digits)."""
    from cryptography.exceptions import InvalidTag  # heavy, and only tags with keys need it
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM

    nonce = bytes.fromhex(address) + _SERVICE_BYTES + bytes((sealed.information,)) + sealed.counter
    try:
        plain = AESCCM(key, tag_length=len(sealed.mic)).decrypt(nonce, sealed.ciphertext + sealed.mic, None)
    except InvalidTag:
        return None
    said = _objects(plain)
    return None if said is None else said._replace(counter=int.from_bytes(sealed.counter, "little"))


def _objects(data: bytes) -> BtHome | None:
    """The objects one after the other; None when one is cut off."""
    said, at = BtHome(), 0
    while at < len(data):
        kind = data[at]
        at += 1
        if kind in _SAYS_ITS_LENGTH and at < len(data):
            length = 1 + data[at]
        elif kind in _LENGTHS:
            length = _LENGTHS[kind]
        elif kind in _SAYS_ITS_LENGTH:
            return None
        else:
            return said  # a newer object than this table
        value = data[at : at + length]
        if len(value) < length:
            return None
        at += length
        said = _with(said, kind, int.from_bytes(value, "little"))
    return said


def _with(said: BtHome, kind: int, number: int) -> BtHome:
    """What was said and one object more; impossible values are left out."""
    if kind == _PACKET_ID:
        return said._replace(packet_id=number)
    if kind == _BATTERY and number <= 100:
        return said._replace(level=number)
    if kind == _VOLTAGE_MV:
        return said._replace(voltage=number / 1000)
    if kind == _VOLTAGE_DV and number <= 1000:
        return said._replace(voltage=number / 10)
    if kind == _BUTTON:
        pressed = (PRESSES[number],) if number in PRESSES else ()
        return said._replace(presses=(said.presses or ()) + pressed)
    return said
