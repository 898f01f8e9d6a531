import binascii
import struct

from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.beam_counter import SIZE, CounterFrame, FrameStream, decode_frame

# 1234 in, 1200 out, 3.700 V
FRAME = bytes.fromhex("aa550100 d2040000 b0040000 740e 8966")
U32 = st.integers(0, 2**32 - 1)
FRAMES = st.builds(CounterFrame, U32, U32, st.one_of(st.none(), st.integers(0, 2**16 - 1)))


def encode(frame: CounterFrame) -> bytes:
    flags = 0 if frame.battery_mv is not None else 1
    body = struct.pack("<HBBIIH", 0x55AA, 1, flags, frame.in_total, frame.out_total, frame.battery_mv or 0)
    return body + binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "little")


def test_the_crc_is_ccitt_false() -> None:
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1


def test_a_frame_is_read_whole() -> None:
    assert decode_frame(FRAME) == CounterFrame(in_total=1234, out_total=1200, battery_mv=3700)


def test_a_counter_on_mains_power_says_no_battery_rather_than_0_v() -> None:
    assert decode_frame(encode(CounterFrame(7, 0, None))) == CounterFrame(7, 0, None)


def test_an_unknown_version_is_no_frame() -> None:
    body = b"\xaa\x55\x02" + FRAME[3:-2]
    assert decode_frame(body + binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "little")) is None


def test_frames_are_found_between_noise_and_the_noise_is_counted() -> None:
    stream = FrameStream()
    assert stream.feed(b"\x00\xffboot\r\n" + FRAME + b"\xaa" + FRAME[:7] + FRAME) == [CounterFrame(1234, 1200, 3700)] * 2
    assert stream.bad == 2  # what the counter said when it was switched on; the frame that was cut off


def test_a_start_inside_a_frame_does_not_mislead() -> None:
    totals = CounterFrame(0x55AA55AA, 0x55AA, 0x55AA)
    assert FrameStream().feed(encode(totals) * 3) == [totals] * 3


def test_a_port_at_the_wrong_speed_counts_on_and_on() -> None:
    stream = FrameStream()
    for _ in range(100):
        assert stream.feed(b"\x00" * SIZE) == []
    assert stream.bad == 100


def test_a_damaged_frame_counts_once_and_the_next_one_is_read() -> None:
    stream = FrameStream()
    damaged = FRAME[:6] + b"\x00" + FRAME[7:]
    assert stream.feed(damaged[:-1] + b"\x00" + FRAME) == [CounterFrame(1234, 1200, 3700)]
    assert stream.bad == 1


@given(FRAMES, st.integers(0, SIZE * 8 - 1))
def test_a_flipped_bit_never_yields_a_count(frame: CounterFrame, bit: int) -> None:
    damaged = bytearray(encode(frame))
    damaged[bit // 8] ^= 1 << bit % 8
    assert decode_frame(bytes(damaged)) is None
    assert FrameStream().feed(bytes(damaged)) == []


@given(FRAMES, st.integers(0, SIZE - 1))
def test_a_frame_cut_off_anywhere_yields_no_count(frame: CounterFrame, length: int) -> None:
    assert decode_frame(encode(frame)[:length]) is None
    assert FrameStream().feed(encode(frame)[:length]) == []


PARTS = st.lists(st.one_of(FRAMES.map(encode), st.binary(max_size=40), st.just(b"\xaa"), st.just(b"\xaa\x55")), max_size=8)


@given(PARTS, st.data())
def test_the_result_does_not_depend_on_how_the_bytes_come(parts: list[bytes], data: st.DataObject) -> None:
    bytes_ = b"".join(parts)
    at_once = FrameStream()
    expected = at_once.feed(bytes_)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(bytes_)), max_size=12)))
    in_chunks = FrameStream()
    frames = [
        frame for start, end in zip([0, *cuts], [*cuts, len(bytes_)], strict=True) for frame in in_chunks.feed(bytes_[start:end])
    ]
    assert (frames, in_chunks.bad) == (expected, at_once.bad)


@given(st.lists(st.tuples(st.binary(max_size=30).filter(lambda noise: b"\xaa" not in noise), FRAMES), max_size=6))
def test_every_good_frame_in_noise_is_found(parts: list[tuple[bytes, CounterFrame]]) -> None:
    stream = FrameStream()
    assert stream.feed(b"".join(noise + encode(frame) for noise, frame in parts)) == [frame for _, frame in parts]
    assert stream.bad == sum(-(-len(noise) // SIZE) for noise, _ in parts)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_it_holds_less_than_a_frame_between_chunks(chunks: list[bytes]) -> None:
    stream = FrameStream()
    for chunk in chunks:
        stream.feed(chunk)
        assert len(stream._buffer) < SIZE
