import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.decoders import rylr998
from edge.decoders.trap_frame import SIZE, ReceivedFrame, TrapFrame, Why, decode_frame, is_authentic, mac, parse_line
from simulators import lora

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "trap_frame_vectors.json").read_text(encoding="utf-8"))
FIELDS = ("address", "counter", "sprung", "tamper_open", "battery_mv", "tilt_deg", "bait_percent", "bump", "pir_count")
KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
U16 = st.integers(0, 65534)
TRANSMITTERS = st.builds(
    lora.Transmitter,
    key=st.binary(min_size=16, max_size=16),
    address=st.integers(1, 65534),
    counter=st.integers(0, 2**32 - 1),
    sprung=st.booleans(),
    tamper_open=st.booleans(),
    battery_mv=st.none() | st.integers(1, 65535),
    tilt_deg=st.none() | st.integers(-90, 90).map(lambda steps: 2 * steps),
    bait_percent=st.none() | st.integers(0, 100),
    bump=st.none() | U16,
    pir_count=st.none() | U16,
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: str(one["name"]))
def test_the_vectors_that_firmware_is_built_with(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame_hex"])
    assert decode_frame(frame) == TrapFrame(Why[vector["why"].upper()], **{name: vector[name] for name in FIELDS})
    assert is_authentic(frame, bytes.fromhex(vector["key_hex"]))
    assert parse_line(vector["line"].encode()) == ReceivedFrame(vector["rssi_dbm"], vector["snr_db"], frame)
    assert rylr998.parse_line(vector["line_rylr998"].encode()) == ReceivedFrame(
        int(vector["rssi_dbm"]), int(vector["snr_db"]), frame
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: str(one["name"]))
def test_the_vectors_are_what_the_simulated_transmitter_sends(vector: dict[str, Any]) -> None:
    trap = lora.Transmitter(bytes.fromhex(vector["key_hex"]), **{name: vector[name] for name in FIELDS})
    frame = lora.trap_frame(trap, Why[vector["why"].upper()])
    assert frame.hex() == vector["frame_hex"]
    assert lora.receiver_line(frame, vector["rssi_dbm"], vector["snr_db"]).decode() == vector["line"] + "\n"


def test_a_frame_byte_by_byte() -> None:
    """Written out by hand from the table in edge/README.md; its MAC is an independent computation of RFC 4493."""
    body = bytes.fromhex("12 01 0700 71110100 a90b fa 50 0302 0000")
    assert decode_frame(body + lora.cmac(KEY, body)[:8]) == TrapFrame(
        Why.SPRUNG, 7, 70001, True, False, battery_mv=2985, tilt_deg=-12, bait_percent=80, bump=515, pir_count=0
    )
    assert (body + mac(KEY, body)[:8]).hex() == VECTORS[2]["frame_hex"]


@pytest.mark.parametrize(
    ("message", "tag"),
    [
        ("", "bb1d6929e95937287fa37d129b756746"),
        ("6bc1bee22e409f96e93d7e117393172a", "070a16b46b4d4144f79bdd9dd04a287c"),
        (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
            "dfa66747de9ae63030ca32611497c827",
        ),
        (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"  # noqa: ISC004 - one message
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
            "51f0bebf7e3b9d92fc49741779363cfe",
        ),
    ],
)
def test_the_mac_is_that_of_rfc_4493(message: str, tag: str) -> None:
    """Section 4, examples 1 to 4; the simulated transmitter's own computation too."""
    assert mac(KEY, bytes.fromhex(message)).hex() == tag
    assert lora.cmac(KEY, bytes.fromhex(message)).hex() == tag


@settings(max_examples=50)
@given(st.binary(min_size=16, max_size=16), st.binary(max_size=80))
def test_two_ways_to_compute_a_mac_agree(key: bytes, message: bytes) -> None:
    assert mac(key, message) == lora.cmac(key, message)


def test_a_key_of_another_length_is_no_key() -> None:
    with pytest.raises(ValueError, match="a key of 24 bytes"):
        is_authentic(bytes(24), bytes(24))


@settings(max_examples=50)
@given(TRANSMITTERS, st.sampled_from(Why))
def test_what_is_sent_is_what_is_read(trap: lora.Transmitter, why: Why) -> None:
    frame = lora.trap_frame(trap, why)
    assert len(frame) == SIZE == 24
    assert decode_frame(frame) == TrapFrame(why, **{name: getattr(trap, name) for name in FIELDS})
    assert is_authentic(frame, trap.key)


@settings(max_examples=50)
@given(TRANSMITTERS, st.integers(0, SIZE * 8 - 1))
def test_a_flipped_bit_is_seen(trap: lora.Transmitter, bit: int) -> None:
    damaged = bytearray(lora.trap_frame(trap, lora.SPRUNG))
    damaged[bit // 8] ^= 1 << bit % 8
    assert not is_authentic(bytes(damaged), trap.key)


def test_another_length_version_or_address_is_no_frame_of_ours() -> None:
    frame = lora.trap_frame(lora.Transmitter(KEY, 7), lora.SPRUNG)
    assert decode_frame(frame) is not None
    for other in (
        frame[:-1],
        frame + b"\0",
        b"",
        b"\x22" + frame[1:],
        frame[:2] + b"\0\0" + frame[4:],
        frame[:2] + b"\xff\xff" + frame[4:],
    ):
        assert decode_frame(other) is None


def test_a_reason_of_a_newer_transmitter_counts_as_a_heartbeat() -> None:
    frame = decode_frame(lora.trap_frame(lora.Transmitter(KEY, 7, sprung=True), 15))
    assert frame is not None
    assert (frame.why, frame.sprung) == (Why.HEARTBEAT, True)


def test_impossible_values_are_absent_rather_than_wrong() -> None:
    frame = bytearray(lora.trap_frame(lora.Transmitter(KEY, 7), lora.HEARTBEAT))
    frame[10], frame[11] = 91, 101
    read = decode_frame(bytes(frame))
    assert read is not None
    assert (read.tilt_deg, read.bait_percent) == (None, None)


LINE = VECTORS[2]["line"].encode()


def test_a_line_may_end_as_windows_writes_it_and_an_empty_one_is_a_sign_of_life() -> None:
    assert parse_line(LINE + b"\r") == parse_line(LINE) is not None
    assert parse_line(b"") == parse_line(b"\r") == "alive"


@pytest.mark.parametrize(
    "line",
    [
        LINE[1:],  # cut off at its front
        LINE[:-1],
        LINE + b"0",
        LINE[4:],
        LINE.replace(b" ", b"  ", 1),
        b" " + LINE,
        lora.receiver_line(b"", -97, 7)[:-1],  # no frame
        lora.receiver_line(b"\1", -201, 7)[:-1],
        lora.receiver_line(b"\1", -97, 101)[:-1],
        b"rst:0x5 (DEEPSLEEP_RESET),boot:0x13",
        "１２ ３４ 12 29b1".encode(),
    ],
)
def test_a_line_that_is_damaged_or_impossible_is_none(line: bytes) -> None:
    assert parse_line(line) is None


@given(st.integers(0, len(LINE) * 8 - 1))
def test_a_bit_flipped_on_the_wire_is_told_from_a_bad_frame(bit: int) -> None:
    damaged = bytearray(LINE)
    damaged[bit // 8] ^= 1 << bit % 8
    assert parse_line(bytes(damaged)) in (None, parse_line(LINE))  # hex in capitals is the same hex


def test_the_modules_line_is_read_as_its_guide_prints_it() -> None:
    """The guide's own example carries no hex; what the module says besides is a sign of life."""
    assert rylr998.parse_line(b"+RCV=50,5,HELLO,-99,40") is None
    assert rylr998.parse_line(b"+RCV=50,4,beef,-99,40\r") == ReceivedFrame(-99, 40, b"\xbe\xef")
    for answer in (b"+READY\r", b"+OK", b"+ERR=4", b"+VER=RYLR998_REYAX_V1.2.2", b""):
        assert rylr998.parse_line(answer) == "alive"


@pytest.mark.parametrize(
    "line",
    [
        b"+RCV=50,5,beef,-99,40",  # another length than it says
        b"+RCV=65536,4,beef,-99,40",
        b"+RCV=50,4,beef,-99",
        b"RCV=50,4,beef,-99,40",
        b"+RCV=50,242," + b"00" * 121 + b",-99,40",
        b"+RCV=50,4,beef,-999,40",
        b"noise",
    ],
)
def test_what_the_module_can_not_have_said_is_none(line: bytes) -> None:
    assert rylr998.parse_line(line) is None


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.from_regex(rb"[+-][0-9]{1,4} [+-][0-9.]{1,5} [0-9a-f]{1,60} [0-9a-f]{4}\r?", fullmatch=True))
def test_no_bytes_raise(line: bytes) -> None:
    for parsed in (parse_line(line), rylr998.parse_line(line), rylr998.parse_line(b"+RCV=" + line), decode_frame(line)):
        assert parsed is None or parsed == "alive" or isinstance(parsed, ReceivedFrame | TrapFrame)
    assert is_authentic(line, KEY) in (True, False)
