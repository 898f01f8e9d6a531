import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.terabee import TerabeeFrame, TerabeeStream, crc8


def passage(inward: int, outward: int, sensor: int = 7) -> bytes:
    body = struct.pack(">2s4siHH", b"PC", sensor.to_bytes(4), inward - outward, inward % 65536, outward % 65536)
    return body + bytes([crc8(body)])


def distances(one_mm: int, other_mm: int) -> bytes:
    body = struct.pack(">2sHH", b"DD", one_mm, other_mm)
    return body + bytes([crc8(body)])


@pytest.mark.parametrize(("command", "crc"), [("00550800000000", 0x7C), ("006101", 0xE7), ("006102", 0xEE)])
def test_the_crc_is_the_one_of_the_manuals_commands(command: str, crc: int) -> None:
    assert crc8(bytes.fromhex(command)) == crc


def test_a_passage_and_the_distances_between() -> None:
    stream = TerabeeStream()
    assert stream.feed(distances(1800, 1795) + passage(12, 10)) == [TerabeeFrame(None), TerabeeFrame((12, 10))]
    assert stream.bad == 0


def test_totals_that_ran_over_are_no_damage() -> None:
    assert TerabeeStream().feed(passage(65536 + 3, 9)) == [TerabeeFrame((3, 9))]


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=8), st.data())
def test_however_the_stream_is_cut_the_frames_are_the_same(counts: list[tuple[int, int]], data: st.DataObject) -> None:
    stream, whole = TerabeeStream(), b"".join(passage(*pair) for pair in counts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [frame.counts for piece in pieces for frame in stream.feed(piece)] == counts


@given(st.binary(max_size=200), st.integers(0, 65535))
def test_noise_never_raises_and_a_frame_after_it_is_found(noise: bytes, inward: int) -> None:
    stream = TerabeeStream()
    stream.feed(noise)
    found = stream.feed(bytes(20) + passage(inward, 0))
    assert found[-1].counts == (inward, 0)


def test_one_damaged_frame_counts_once() -> None:
    stream = TerabeeStream()
    damaged = bytearray(passage(5, 5))
    damaged[11] ^= 0x40
    assert stream.feed(bytes(damaged) + passage(6, 5)) == [TerabeeFrame((6, 5))]
    assert stream.bad == 1


def test_totals_that_do_not_fit_their_difference_are_damage_though_the_crc_fits() -> None:
    """A CRC of 8 bits lets one damaged frame of 256 through."""
    body = struct.pack(">2s4siHH", b"PC", bytes(4), 2, 12, 11)
    stream = TerabeeStream()
    assert stream.feed(body + bytes([crc8(body)])) == []
    assert stream.bad == 1
