"""The line of a REYAX RYLR998 (a sold LoRa module with AT commands) that has received our trap frame, sent as hex.

Source: REYAX, "RYLR998 RYLR498 LoRa AT Command Guide" (23-OCT-2023, 56312E33): `+RCV=<Address>,<Length>,<Data>,<RSSI>,<SNR>`,
ended by CR LF; its example is `+RCV=50,5,HELLO,-99,40`. Address (0 to 65535) is the sending module's, Length counts the bytes of
Data, 240 at most; RSSI in dBm, SNR in dB. What else the module says (`+READY`, `+OK`, `+ERR=...`) answers commands.

The line has no checksum; what it carries has its MAC, so that damage on the wire shows as a frame that is not authentic.
"""

import re
from typing import Literal

from edge.decoders.trap_frame import ReceivedFrame, received

MAX_DATA = 240

_frame = re.compile(rb"\+RCV=([0-9]{1,5}),([0-9]{1,3}),((?:[0-9A-Fa-f]{2})+),(-?[0-9]{1,3}),(-?[0-9]{1,3})")
_answer = re.compile(rb"\+(?!RCV=)[A-Z]{2,12}(?:=[ -~]{0,60})?")


def parse_line(line: bytes) -> ReceivedFrame | Literal["alive"] | None:
    """One line without its newline. An answer says that the module is alive; None for anything else, foreign data too."""
    line = line.removesuffix(b"\r")
    match = _frame.fullmatch(line)
    if match is None:
        return "alive" if not line or _answer.fullmatch(line) else None
    if int(match[1]) > 65535 or int(match[2]) != len(match[3]) or len(match[3]) > MAX_DATA:
        return None
    return received(float(match[4]), float(match[5]), bytes.fromhex(match[3].decode("ascii")))
