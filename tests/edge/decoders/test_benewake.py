import struct

from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.benewake import BenewakeStream, Distance


def measured(distance_cm: int, strength: int = 1000) -> bytes:
    body = struct.pack("<2sHHH", b"\x59\x59", distance_cm, strength, 2200)
    return body + bytes([sum(body) & 0xFF])


def test_a_frame_by_the_byte() -> None:
    """120 cm, strength 1000, as it stands on the wire."""
    frame = bytes.fromhex("5959 7800 e803 9808 b5")
    assert frame == measured(120)
    assert BenewakeStream().feed(frame) == [Distance(120)]


def test_an_echo_too_weak_or_too_strong_is_no_distance() -> None:
    stream = BenewakeStream()
    assert stream.feed(measured(120, 99) + measured(120, 65535) + measured(120, 100)) == [
        Distance(None),
        Distance(None),
        Distance(120),
    ]


@given(st.binary(max_size=100), st.lists(st.integers(0, 1200), max_size=6), st.data())
def test_noise_never_raises_and_frames_are_found_however_cut(noise: bytes, cm: list[int], data: st.DataObject) -> None:
    stream, whole = BenewakeStream(), b"".join(map(measured, cm))
    stream.feed(noise)
    stream.feed(bytes(9))  # ends whatever the noise began
    cut = data.draw(st.integers(0, len(whole)))
    assert [one.distance_cm for piece in (whole[:cut], whole[cut:]) for one in stream.feed(piece)] == cm


def test_one_damaged_frame_counts_once() -> None:
    stream = BenewakeStream()
    damaged = bytearray(measured(120))
    damaged[2] ^= 1
    assert stream.feed(measured(80) + bytes(damaged) + measured(90)) == [Distance(80), Distance(90)]
    assert stream.bad == 1
