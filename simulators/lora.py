"""The far side of a LoRa receiver: what trap transmitters send, and what receivers print of it.

Encoders only, written from the table in edge/README.md and never from the decoders. The CMAC is RFC 4493 step by step over AES
itself, so that it can catch a mistake in the library's use on the other side.
"""

import binascii
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HEARTBEAT, SET, SPRUNG, VIBRATION, TILT, TAMPER, BAIT_LEVEL = range(7)


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC, 16 bytes, step by step as RFC 4493, section 2.4 writes it."""
    encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update  # noqa: S305 - one block at a time: CMAC's own chaining

    def doubled(block: bytes) -> bytes:
        shifted = int.from_bytes(block) << 1
        return ((shifted ^ 0x87 if shifted >> 128 else shifted) & (2**128 - 1)).to_bytes(16)

    def xor(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=True))

    k1 = doubled(encrypt(bytes(16)))
    blocks = [message[at : at + 16] for at in range(0, max(len(message), 1), 16)]
    last = blocks.pop()
    last = xor(last, k1) if len(last) == 16 else xor(last + b"\x80" + bytes(15 - len(last)), doubled(k1))
    chain = bytes(16)
    for block in (*blocks, last):
        chain = encrypt(xor(chain, block))
    return chain


@dataclass
class Transmitter:
    """One trap far from any Pi. Change its fields, then `send`: each call is a new frame with the next counter."""

    key: bytes
    address: int
    counter: int = 0
    sprung: bool = False
    tamper_open: bool = False
    battery_mv: int | None = 3600
    tilt_deg: int | None = None
    bait_percent: int | None = None
    bump: int | None = None
    pir_count: int | None = None

    def send(self, why: int = HEARTBEAT) -> bytes:
        """The next frame, 24 bytes. A real transmitter sends an event's frame several times, unchanged."""
        self.counter += 1
        return trap_frame(self, why)


def trap_frame(trap: Transmitter, why: int) -> bytes:
    """24 bytes, little-endian: see "The trap's radio frame" in edge/README.md."""

    def said(value: int | None, absent: int) -> int:
        return absent if value is None else value

    body = struct.pack(
        "<BBHIHbBHH",
        1 << 4 | why,
        trap.sprung | trap.tamper_open << 1,
        trap.address,
        trap.counter,
        said(trap.battery_mv, 0),
        -128 if trap.tilt_deg is None else round(trap.tilt_deg / 2),
        said(trap.bait_percent, 255),
        said(None if trap.bump is None else trap.bump % 65535, 65535),
        said(None if trap.pir_count is None else trap.pir_count % 65535, 65535),
    )
    return body + cmac(trap.key, body)[:8]


def receiver_line(frame: bytes, rssi: float = -97, snr: float = 7.5) -> bytes:
    """What our receiver prints for one radio frame: signal, SNR, hex, CRC-16/CCITT-FALSE of all before, and a newline."""
    text = f"{rssi:+.0f} {snr:+.2f} {frame.hex()}".encode("ascii")
    return text + b" %04x\n" % binascii.crc_hqx(text, 0xFFFF)


def rylr998_line(frame: bytes, rssi: int = -97, snr: int = 7, address: int = 50) -> bytes:
    """What a REYAX RYLR998 prints for a frame that was sent to it as hex."""
    return b"+RCV=%d,%d,%s,%d,%d\r\n" % (address, 2 * len(frame), frame.hex().encode("ascii"), rssi, snr)
