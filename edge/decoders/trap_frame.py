"""A trap's radio frame: 24 bytes over LoRa, and the line in which a receiver prints it on its serial port.

All numbers little-endian. A value that the transmitter does not measure is said as "absent", never as zero.

| bytes | what |
|---|---|
| 0 | high four bits: version, 1; low four bits: why the frame was sent (`Why`) |
| 1 | flags: bit 0 set = the trap is sprung; bit 1 set = the tamper loop is open; the others are reserved |
| 2-3 | the transmitter's address, u16, 1 to 65534 |
| 4-7 | counter, u32: grows with each new frame, never repeats under one key, also not over a change of batteries |
| 8-9 | battery in mV, u16; 0 absent |
| 10 | tilt against upright in steps of 2 degrees, i8, -90 to 90; -128 absent |
| 11 | what is left of the bait in %, u8, 0 to 100; 255 absent |
| 12-13 | shocks felt in total, u16, 0 again after 65534; 65535 absent |
| 14-15 | times the motion sensor saw warmth move in total, likewise |
| 16-23 | the first 8 bytes of AES-128-CMAC over bytes 0-15 (RFC 4493, which wants at least 64 bits of a truncated MAC) |

The body is one AES block. 24 bytes is what one frame may have at SF10 under the 400 ms dwell time of AS923 (LoRaWAN Regional
Parameters RP002, AS923: 19 bytes of MACPayload and 5 around it).

The project's own format. The fields are those of Trap.NZ's sensor record, as far as a transmitter can know them.
"""

import binascii
import hmac
import re
import struct
from enum import IntEnum
from typing import Literal, NamedTuple

VERSION = 1
MAC_BYTES = 8
SPRUNG, TAMPER_OPEN = 0x01, 0x02
NO_BATTERY, NO_TILT, NO_BAIT, NO_COUNT = 0, -128, 255, 0xFFFF

_body = struct.Struct("<BBHIHbBHH")
SIZE = _body.size + MAC_BYTES


class Why(IntEnum):
    """Why a frame was sent. The trap's state is in the flags of every frame, whatever the reason."""

    HEARTBEAT = 0
    SET = 1
    SPRUNG = 2
    VIBRATION = 3
    TILT = 4
    TAMPER = 5
    BAIT_LEVEL = 6


class TrapFrame(NamedTuple):
    """What one frame says; None where the transmitter does not measure it."""

    why: Why
    address: int
    counter: int
    sprung: bool
    tamper_open: bool
    battery_mv: int | None
    tilt_deg: int | None
    bait_percent: int | None
    bump: int | None
    pir_count: int | None


class ReceivedFrame(NamedTuple):
    """A radio frame as a receiver handed it on, with how it was heard."""

    rssi_dbm: float
    snr_db: float
    payload: bytes


def decode_frame(payload: bytes) -> TrapFrame | None:
    """The fields of one frame, or None: wrong length, wrong version, address 0 or 65535. The MAC is not looked at.

    Reasons to send that this version does not know are taken as a heartbeat: what else stands in the frame is true all the same.
    Impossible values (a tilt of 200 degrees) count as absent.
    """
    if len(payload) != SIZE:
        return None
    kind, flags, address, counter, battery_mv, tilt, bait, bump, pir_count = _body.unpack_from(payload)
    if kind >> 4 != VERSION or not 1 <= address <= 65534:
        return None
    reason = kind & 0x0F
    return TrapFrame(
        Why(reason) if reason <= max(Why) else Why.HEARTBEAT,
        address,
        counter,
        sprung=bool(flags & SPRUNG),
        tamper_open=bool(flags & TAMPER_OPEN),
        battery_mv=battery_mv if battery_mv != NO_BATTERY else None,
        tilt_deg=tilt * 2 if -90 <= tilt <= 90 else None,
        bait_percent=bait if bait <= 100 else None,
        bump=bump if bump != NO_COUNT else None,
        pir_count=pir_count if pir_count != NO_COUNT else None,
    )


def is_authentic(payload: bytes, key: bytes) -> bool:
    """Whether the frame ends in its MAC under this key of 16 bytes. ValueError for a key of another length."""
    return len(payload) > MAC_BYTES and hmac.compare_digest(mac(key, payload[:-MAC_BYTES])[:MAC_BYTES], payload[-MAC_BYTES:])


def mac(key: bytes, message: bytes) -> bytes:
    """AES-128-CMAC, all 16 bytes (RFC 4493). ValueError for a key that has not 16 bytes."""
    from cryptography.hazmat.primitives.ciphers.algorithms import AES  # heavy: only where frames are heard
    from cryptography.hazmat.primitives.cmac import CMAC

    if len(key) != 16:
        raise ValueError(f"a key of {len(key)} bytes; AES-128 wants 16")
    cmac = CMAC(AES(key))
    cmac.update(message)
    return cmac.finalize()


# Signs are compulsory: without them, "-97" cut off at its front would read as 7 dBm.
_line = re.compile(rb"([+-][0-9]{1,3}(?:\.[0-9]{1,2})?) ([+-][0-9]{1,3}(?:\.[0-9]{1,2})?) ((?:[0-9A-Fa-f]{2})+) ([0-9A-Fa-f]{4})")


def parse_line(line: bytes) -> ReceivedFrame | Literal["alive"] | None:
    """`<rssi dBm> <snr dB> <frame in hex> <CRC-16 in hex>` without its newline; an empty line says that the receiver is alive.

    None for anything else, and when the CRC is wrong: CRC-16/CCITT-FALSE (polynomial 1021, start FFFF, nothing reflected; 29B1 of
    "123456789") of all characters before the last space. RSSI is -200 to 50 dBm and SNR -100 to 100 dB, as the metrics are.
    """
    line = line.removesuffix(b"\r")
    if not line:
        return "alive"
    match = _line.fullmatch(line)
    if match is None or int(match[4], 16) != binascii.crc_hqx(line[: match.start(4) - 1], 0xFFFF):
        return None
    return received(float(match[1]), float(match[2]), bytes.fromhex(match[3].decode("ascii")))


def received(rssi_dbm: float, snr_db: float, payload: bytes) -> ReceivedFrame | None:
    """A frame with how it was heard, or None when nothing can be heard so."""
    return ReceivedFrame(rssi_dbm, snr_db, payload) if -200 <= rssi_dbm <= 50 and -100 <= snr_db <= 100 else None
