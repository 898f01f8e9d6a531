"""The buffered client hears what paho hears and says what paho says, whatever the pieces it comes and goes in."""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

import paho.mqtt.client as mqtt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from gateway.buffered import BufferedClient, BufferedSocket

OK = MQTTErrorCode.MQTT_ERR_SUCCESS
Heard = tuple[bytes, bytes, int, int, bool]
_Client = TypeVar("_Client", bound=mqtt.Client)


class Wire:
    """A non-blocking socket that takes and gives what the test says; a file descriptor for select(), never used else."""

    def __init__(self, incoming: list[bytes], *, ends: bool = False) -> None:
        self.incoming, self.ends = list(incoming), ends
        self.room: list[int] | None = None  # what the kernel takes at the next writes; None: everything
        self.written = b""
        self.closed = False

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            if self.ends:
                return b""
            raise BlockingIOError
        first = self.incoming.pop(0)
        if len(first) > size:
            self.incoming.insert(0, first[size:])
        return first[:size]

    def send(self, data: bytes | bytearray) -> int:
        if self.room is not None and not self.room:
            raise BlockingIOError
        taken = data if self.room is None else data[: self.room.pop(0)]
        self.written += taken
        return len(taken)

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag


def connected(kind: type[_Client], wire: Wire, heard: list[Heard]) -> _Client:
    class Over(kind):  # type: ignore[misc, valid-type]
        def _create_socket(self) -> Wire | BufferedSocket:
            return BufferedSocket(wire) if issubclass(kind, BufferedClient) else wire

    client: _Client = Over(CallbackAPIVersion.VERSION2, "gateway", protocol=MQTTProtocolVersion.MQTTv311, manual_ack=True)

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        heard.append((message._topic, bytes(message.payload), message.mid, message.qos, message.retain))

    client.on_message = on_message
    client.connect("nowhere.invalid")
    return client


def buffered(wire: Wire, heard: list[Heard]) -> BufferedClient:
    return connected(BufferedClient, wire, heard)


def drain(client: mqtt.Client, heard: list[Heard], most: int = 3, room: int = 300) -> bool:
    """Reads until nothing is left, the buffered client's messages some at a time; whether the connection still stands."""
    wire = client.socket()
    for _ in range(2000):
        if isinstance(client, BufferedClient):
            taken = client.take(most, room)
            assert len(taken) <= most
            assert sum(len(one.payload) for one in taken[:-1]) < room
            heard += taken
        if client.loop_read() != OK or client.socket() is None:
            return False
        below = wire._sock if isinstance(wire, BufferedSocket) else wire
        assert isinstance(below, Wire)
        if not below.incoming and not (isinstance(client, BufferedClient) and client.ahead):
            client.loop_read()
            return client.socket() is not None
    raise AssertionError("there is no end to it")


def length(size: int) -> bytes:
    out = b""
    while True:
        size, low = divmod(size, 128)
        out += bytes([low | (0x80 if size else 0)])
        if not size:
            return out


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + length(len(body)) + body


publishes = st.builds(
    lambda topic, payload, mid, qos, dup, retain: packet(
        0x30 | dup << 3 | qos << 1 | retain,
        len(topic.encode()).to_bytes(2, "big") + topic.encode() + (mid.to_bytes(2, "big") if qos else b"") + payload,
    ),
    st.text(min_size=1, max_size=40).filter(lambda topic: not set("#+\0") & set(topic)),
    st.binary(max_size=400),
    st.integers(1, 65535),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 1),
)
others = st.sampled_from([packet(0xD0, b""), packet(0x40, b"\x00\x07"), packet(0x90, b"\x00\x01\x01")])
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def in_pieces(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(stream):
        pieces.append(stream[at : at + sizes[turn % len(sizes)]])
        at += len(pieces[-1])
        turn += 1
    return pieces


@given(st.lists(st.one_of(publishes, publishes, others), max_size=12), cuts)
def test_every_message_is_heard_once_and_in_order_as_paho_hears_it(packets: list[bytes], sizes: list[int]) -> None:
    pieces = in_pieces(b"".join(packets), sizes)
    paho: list[Heard] = []
    ours: list[Heard] = []
    assert drain(connected(mqtt.Client, Wire(pieces), paho), paho)
    assert drain(buffered(Wire(pieces), ours), ours)
    assert ours == paho
    assert len(ours) == sum(one[0] & 0xF0 == 0x30 for one in packets)


nearly = st.sampled_from([
    packet(0x32, b"\x00\x01t\x00\x00x"),  # QoS 1 and no number
    packet(0x36, b"\x00\x01t\x00\x01x"),  # QoS 3
    packet(0x34, b"\x00\x01t\x00\x01x"),  # QoS 2, which paho answers before it gives it out
    packet(0x30, b"\x00\x00x"),  # no topic
    packet(0x30, b"\x00\x09t"),  # a topic longer than the packet
    packet(0x32, b"\x00\x01t\x00"),  # half a number
    packet(0x30, b"\x00"),
    b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
])  # fmt: skip


@given(st.lists(publishes, max_size=2), st.one_of(nearly, st.binary(max_size=60)), cuts)
def test_of_what_is_no_mqtt_as_much_is_heard_as_by_paho(packets: list[bytes], rubbish: bytes, sizes: list[int]) -> None:
    pieces = in_pieces(b"".join(packets) + rubbish, sizes)
    paho: list[Heard] = []
    ours: list[Heard] = []
    with contextlib.suppress(Exception):  # paho raises on some rubbish; what it had heard before counts
        drain(connected(mqtt.Client, Wire(pieces, ends=True), paho), paho)
    with contextlib.suppress(Exception):
        drain(buffered(Wire(pieces, ends=True), ours), ours)
    assert ours == paho


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 200_000, 2_200_000])
def test_messages_of_every_length_of_length_are_heard_whole(size: int) -> None:
    heard: list[Heard] = []
    stream = packet(0x32, b"\x00\x01t\x00\x09" + b"x" * size) * 2
    assert drain(buffered(Wire(in_pieces(stream, [5000])), heard), heard)
    assert heard == [(b"t", b"x" * size, 9, 1, False)] * 2


def test_the_end_and_a_break_are_noticed() -> None:
    for wire in (Wire([], ends=True), Wire([packet(0x30, b"\x00\x01tx")[:4]], ends=True)):
        client = buffered(wire, [])
        codes = [client.loop_read() for _ in range(3)]
        assert codes[-1] != OK
        assert client.socket() is None

    class Broken(Wire):
        def recv(self, size: int) -> bytes:
            raise ConnectionResetError("cut")

    client = buffered(Broken([]), [])
    assert client.loop_read() != OK
    assert client.socket() is None


def test_acks_leave_in_order_with_what_paho_sends_and_only_by_flush() -> None:
    wire = Wire([])
    client = buffered(wire, [])
    client.flush()
    wire.written = b""
    client.publish("t", b"x", qos=1)
    client.acknowledge([1, 300, 65535])
    client.publish("t", b"y", qos=0)
    assert wire.written == b""
    client.flush()
    publish = packet(0x32, b"\x00\x01t\x00\x01x")
    assert wire.written == publish + b"\x40\x02\x00\x01\x40\x02\x01\x2c\x40\x02\xff\xff" + packet(0x30, b"\x00\x01ty")


def test_an_ack_does_not_overtake_what_paho_holds_back() -> None:
    wire = Wire([])
    client = buffered(wire, [])
    client.flush()
    wire.written = b""
    with client._in_callback_mutex:  # as in a callback, where paho only queues
        client.publish("t", b"x", qos=0)
        client.acknowledge([1, 2])
    client.loop_write()
    client.flush()
    assert wire.written == packet(0x30, b"\x00\x01tx") + b"\x40\x02\x00\x01\x40\x02\x00\x02"


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#+\0"), min_size=1, max_size=90),
            st.one_of(st.binary(max_size=300), st.sampled_from([b"x" * size for size in (16_379, 16_384, 70_000, 2_097_152)])),
        ),
        max_size=5,
    )
)
@example([("t", b"x" * size) for size in (0, 124, 125, 16_380, 16_381, 2_097_148, 2_097_149)])
def test_messages_of_qos_0_leave_byte_for_byte_as_paho_writes_them(messages: list[tuple[str, bytes]]) -> None:
    def written(kind: type[mqtt.Client]) -> bytes:
        wire = Wire([])
        client = connected(kind, wire, [])
        if isinstance(client, BufferedClient):
            assert client.publish_all(messages) == OK
            client.flush()
        else:
            for topic, payload in messages:
                client.publish(topic, payload, qos=0)
        return wire.written

    assert written(BufferedClient) == written(mqtt.Client)


def test_messages_of_qos_0_leave_in_order_with_all_else_and_only_by_flush() -> None:
    wire = Wire([])
    client = buffered(wire, [])
    client.flush()
    wire.written = b""
    client.publish("t", b"x", qos=1)
    client.publish_all([("t", b"y"), ("u", b"z")])
    client.acknowledge([1])
    assert wire.written == b""
    client.flush()
    told = packet(0x30, b"\x00\x01ty") + packet(0x30, b"\x00\x01uz")
    assert wire.written == packet(0x32, b"\x00\x01t\x00\x01x") + told + b"\x40\x02\x00\x01"


def test_messages_of_qos_0_do_not_overtake_what_paho_holds_back() -> None:
    wire = Wire([])
    client = buffered(wire, [])
    client.flush()
    wire.written = b""
    with client._in_callback_mutex:
        client.publish("t", b"x", qos=0)
        client.publish_all([("t", b"y"), ("t", b"z")])
    client.loop_write()
    client.flush()
    assert wire.written == packet(0x30, b"\x00\x01tx") + packet(0x30, b"\x00\x01ty") + packet(0x30, b"\x00\x01tz")


def test_who_publishes_or_acknowledges_into_a_broken_connection_hears_of_it() -> None:
    class Broken(Wire):
        def send(self, data: bytes | bytearray) -> int:
            raise BrokenPipeError

    says: list[Callable[[BufferedClient], MQTTErrorCode]] = [
        lambda client: client.publish_all([("t", b"x" * 100_000)]),
        lambda client: client.acknowledge([1] * 40_000),
    ]
    for say in says:
        wire = Wire([])
        client = buffered(wire, [])
        sock = client.socket()
        assert isinstance(sock, BufferedSocket)
        sock._sock = Broken([])
        assert say(client) != OK
        assert sock._sock.closed
    assert BufferedClient(CallbackAPIVersion.VERSION2).publish_all([("t", b"x")]) != OK  # without any


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 100), max_size=30))
def test_what_is_sent_is_written_once_and_in_order_however_little_the_kernel_takes(sent: list[bytes], room: list[int]) -> None:
    below = Wire([])
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
    below.room = None
    wire.flush()
    assert below.written == everything
    assert not wire.behind


def test_a_long_write_does_not_wait_for_flush() -> None:
    below = Wire([])
    BufferedSocket(below).send(b"x" * 100_000)
    assert len(below.written) == 100_000


def test_the_goodbye_is_written_before_the_socket_closes() -> None:
    wire = Wire([])
    client = buffered(wire, [])
    client.disconnect()
    assert wire.written.endswith(b"\xe0\x00")
    assert wire.closed


def test_a_connection_that_broke_under_a_write_is_an_error_and_closed() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        wire = BufferedSocket(left)
        right.close()
        wire.send(b"nobody reads this")
        with pytest.raises(OSError, match="pipe"):
            wire.flush()


def test_tls_that_wants_to_wait_keeps_what_is_to_be_written() -> None:
    class Tls(Wire):
        def send(self, data: bytes | bytearray) -> int:
            raise ssl.SSLWantWriteError

        def recv(self, size: int) -> bytes:
            raise ssl.SSLWantReadError

    wire = BufferedSocket(Tls([]))
    wire.send(b"abc")
    wire.flush()
    assert wire.behind
    assert not wire.fill()
    assert not wire.ended


def test_the_kernel_holds_nothing_back_until_what_went_before_is_acknowledged() -> None:
    """Nagle's algorithm would hold a command back for some 40 ms: a ping would tell of that."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = BufferedClient(CallbackAPIVersion.VERSION2, "satomori-gateway", protocol=MQTTProtocolVersion.MQTTv311)
        client.connect("127.0.0.1", server.getsockname()[1])
        connected = client.socket()
        assert connected is not None
        with socket.socket(fileno=os.dup(connected.fileno())) as same:
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connected.close()
