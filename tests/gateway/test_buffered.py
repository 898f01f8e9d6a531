"""The buffered socket under paho: no byte lost, doubled or held back, whatever the pieces it comes in."""

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.buffered import BufferedSocket

chunks = st.lists(st.binary(min_size=1, max_size=300), max_size=20)


class Wire:
    """A non-blocking socket that takes and gives what the test says."""

    def __init__(self, incoming: list[bytes], room: list[int]) -> None:
        self.incoming, self.room = incoming, room
        self.written = b""
        self.closed = False

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        first, self.incoming = self.incoming[0], self.incoming[1:]
        if len(first) > size:
            self.incoming.insert(0, first[size:])
        return first[:size]

    def send(self, data: bytes | bytearray) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room.pop(0)]
        self.written += taken
        return len(taken)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag


@given(chunks, st.lists(st.integers(1, 50), min_size=1))
def test_what_comes_in_is_read_once_and_in_order_in_pieces_of_any_size(incoming: list[bytes], sizes: list[int]) -> None:
    wire = BufferedSocket(Wire(list(incoming), []))
    got, turn = b"", 0
    while True:
        try:
            piece = wire.recv(sizes[turn % len(sizes)])
        except BlockingIOError:
            break
        assert 0 < len(piece) <= sizes[turn % len(sizes)]
        got, turn = got + piece, turn + 1
    assert got == b"".join(incoming)
    assert not wire.ahead


@given(chunks, st.lists(st.integers(1, 100), max_size=30))
def test_what_is_sent_is_written_once_and_in_order_however_little_the_kernel_takes(sent: list[bytes], room: list[int]) -> None:
    below = Wire([], [])
    wire = BufferedSocket(below)
    for data in sent:
        assert wire.send(data) == len(data)
    assert below.written == b""
    for some in room:
        below.room = [some]
        wire.flush()
    everything = b"".join(sent)
    assert below.written == everything[: sum(room)]
    assert wire.behind == (sum(room) < len(everything))
    below.room = [len(everything)]
    wire.flush()
    assert below.written == everything
    assert not wire.behind


def test_a_long_write_does_not_wait_for_flush() -> None:
    below = Wire([], [1_000_000])
    BufferedSocket(below).send(b"x" * 100_000)
    assert len(below.written) == 100_000


def test_the_goodbye_is_written_before_the_socket_closes() -> None:
    below = Wire([], [100])
    wire = BufferedSocket(below)
    wire.send(b"\xe0\x00")
    wire.close()
    assert below.written == b"\xe0\x00"
    assert below.closed


def test_the_end_of_the_stream_and_a_broken_one_are_said_as_by_any_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        wire = BufferedSocket(left)
        right.sendall(b"abc")
        assert wire.recv(1) == b"a"
        assert wire.ahead
        right.close()
        assert wire.recv(10) == b"bc"
        assert wire.recv(1) == b""
        wire.send(b"nobody reads this")
        with pytest.raises(OSError, match="pipe"):
            wire.flush()


@pytest.fixture
def blocked() -> Wire:
    class Tls(Wire):
        def send(self, data: bytes | bytearray) -> int:
            raise ssl.SSLWantWriteError

        def recv(self, size: int) -> bytes:
            raise ssl.SSLWantReadError

    return Tls([], [])


def test_tls_that_wants_to_wait_keeps_what_is_to_be_written(blocked: Wire) -> None:
    wire = BufferedSocket(blocked)
    wire.send(b"abc")
    wire.flush()
    assert wire.behind
    with pytest.raises(ssl.SSLWantReadError):
        wire.recv(1)
