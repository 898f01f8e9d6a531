"""paho's MQTT client over a socket that reads ahead and writes together, for one thread that waits in select().

paho takes three calls of the system and a dozen of Python to read a packet, and one of each to acknowledge it: under load, most
of ingest's time. So the packets that come and go by the thousand, PUBLISH in, PUBACK and PUBLISH of QoS 0 out, are read and
written here (MQTT 3.1.1, 2.2 and 3.3), whole packets at a time; paho sees all the others, and still does everything else. What
was read ahead no select() can see: ask `ahead` before waiting. What is sent waits in memory until `BufferedClient.flush`.
"""

import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

_AHEAD = 64 * 1024
_TOGETHER = 64 * 1024

_PUBLISH, _PUBACK = 0x30, b"\x40\x02"
_QOS, _RETAIN = 0x06, 0x01


class SocketLike(Protocol):
    """What paho needs of a socket; paho's own protocol of that name can only be seen by type checkers."""

    def recv(self, buffer_size: int, /) -> bytes:
        """As a socket's."""
        ...

    def send(self, buffer: bytes | bytearray, /) -> int:
        """As a socket's."""
        ...

    def close(self) -> None:
        """As a socket's."""
        ...

    def fileno(self) -> int:
        """As a socket's."""
        ...

    def setblocking(self, flag: bool, /) -> None:
        """As a socket's."""
        ...


class Published(NamedTuple):
    """A PUBLISH packet that came in. `mid` is 0 with QoS 0."""

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retain: bool


class BufferedSocket:
    """What paho needs of a socket, over a non-blocking one, TLS or not. It gives paho what `show` has shown, and no more."""

    def __init__(self, sock: SocketLike) -> None:
        self._sock = sock
        self._in, self._at, self._shown = bytearray(), 0, 0  # what came, how far it was taken, how far paho may take it
        self._out = bytearray()
        self._end: OSError | None = None
        self.ended = False
        """Whether nothing more will come: paho is told by `recv` when it has taken everything."""
        self.drained = False
        """Whether the last `fill` took all that was there: what came since then, poll() will say. Of TLS it is not known."""

    @property
    def pending(self) -> bool:
        """Whether TLS holds something that select() does not know of."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    @property
    def behind(self) -> bool:
        """Whether something that was sent waits to be written."""
        return bool(self._out)

    def fill(self) -> bool:
        """Reads what is there, without waiting; whether that was anything."""
        if self.ended:
            return False
        try:
            data = self._sock.recv(_AHEAD)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            self._end, data = error, b""
        if not data:
            self.ended = True
            return False
        del self._in[: self._at]
        self._shown, self._at = max(self._shown - self._at, 0), 0
        self._in += data
        self.drained = len(data) < _AHEAD and not isinstance(self._sock, ssl.SSLSocket)
        return True

    def packet(self) -> tuple[int, int, int] | None:
        """First byte, begin of the body and end of the packet that comes next, when all of it is here."""
        data, at = self._in, self._at + 1
        here, length, shift = len(data), 0, 0
        while at < here:
            byte = data[at]
            length |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return (data[self._at], at, at + length) if at + length <= here else None
            shift += 7
            if shift == 28:  # no length has a fifth byte: paho will say so when it sees it
                return (data[self._at], at + 1, at + 1) if at < here else None
        return None

    def publish(self, first: int, begin: int, end: int) -> Published | None:
        """Takes the packet, when it is a PUBLISH of QoS 0 or 1 and sound; None when it is for paho to judge."""
        data, qos = self._in, (first & _QOS) >> 1
        if first & 0xF0 != _PUBLISH or qos > 1 or end - begin < 2:
            return None
        topic_end = begin + 2 + (data[begin] << 8 | data[begin + 1])
        body = topic_end + 2 * qos
        if body > end or topic_end == begin + 2:
            return None
        mid = data[topic_end] << 8 | data[topic_end + 1] if qos else 0
        self._at = end
        return Published(bytes(data[begin + 2 : topic_end]), bytes(data[body:end]), mid, qos, bool(first & _RETAIN))

    def show(self, end: int) -> None:
        """Lets paho take what came up to the end of a packet."""
        self._shown = end

    def recv(self, size: int) -> bytes:
        """As a socket's; BlockingIOError when paho has taken what it was shown."""
        stop = min(self._at + size, self._shown)
        if stop > self._at:
            found = bytes(self._in[self._at : stop])
            self._at = stop
            return found
        if not self.ended:
            raise BlockingIOError
        if self._end is not None:
            raise self._end
        return b""

    def send(self, data: bytes | bytearray) -> int:
        """Takes all of it; OSError when what had to be written could not be."""
        self._out += data
        if len(self._out) >= _TOGETHER:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Writes what it can without waiting. OSError when the connection is gone."""
        while self._out:
            try:
                written = self._sock.send(bytes(self._out))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._out[:written]

    def close(self) -> None:
        """Writes what it still can: MQTT's goodbye is the last thing that is sent."""
        try:
            self.flush()
        except OSError:
            pass  # nobody is there to say goodbye to
        self._sock.close()

    def fileno(self) -> int:
        """For select()."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._sock.setblocking(flag)

    def getpeercert(self) -> Mapping[str, object] | None:
        """As a TLS socket's; None without TLS."""
        return self._sock.getpeercert() if isinstance(self._sock, ssl.SSLSocket) else None


class BufferedClient(mqtt.Client):
    """paho's client over a BufferedSocket. Where paho should make its sockets elsewhere one day, it is only slower."""

    def _create_socket_connection(self) -> socket.socket:
        sock = super()._create_socket_connection()
        # What belongs together is written together already; the kernel need not wait for more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _create_socket(self) -> BufferedSocket:
        return BufferedSocket(super()._create_socket())

    def _buffered(self) -> BufferedSocket | None:
        sock = self.socket()
        return sock if isinstance(sock, BufferedSocket) else None

    @property
    def ahead(self) -> bool:
        """Whether `loop_read` has work without waiting."""
        sock = self._buffered()
        return sock is not None and (sock.pending or sock.ended or sock.packet() is not None)

    @property
    def behind(self) -> bool:
        """Whether something waits to be written."""
        sock = self._buffered()
        return self.want_write() or (sock is not None and sock.behind)

    def take(self, most: int, room: int) -> list[Published]:
        """The messages that come next and are here whole: `most` of them, and some more bytes than `room`, at most.

        It stops at what is for paho, who takes it by `loop_read`; `ahead` says whether there is such.
        """
        found: list[Published] = []
        sock = self._buffered()
        looked = drained = False
        while sock is not None and len(found) < most and room > 0:
            packet = sock.packet()
            if packet is None:
                if looked or drained or not sock.fill():
                    break
                looked, drained = True, sock.drained
                continue
            published = sock.publish(*packet)
            if published is None:
                break
            looked = False
            found.append(published)
            room -= len(published.payload)
        return found

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """One packet, when a whole one is there; paho reads it."""
        sock = self._buffered()
        if sock is None:
            return super().loop_read(max_packets)
        packet = sock.packet()
        if packet is None and sock.fill():
            packet = sock.packet()
        if packet is None:
            return super().loop_read() if sock.ended else MQTTErrorCode.MQTT_ERR_SUCCESS
        sock.show(packet[2])
        return super().loop_read()

    def acknowledge(self, mids: Iterable[int]) -> MQTTErrorCode:
        """As paho's `ack` of each, with QoS 1; straight to the buffer, unless something that paho holds must go first."""
        sock = self._buffered()
        if sock is None or self.want_write():
            return _first_fault(self.ack(mid, 1) for mid in mids)
        return _send(sock, b"".join([_PUBACK + mid.to_bytes(2, "big") for mid in mids]))

    def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> MQTTErrorCode:
        """As paho's `publish` of each (topic, payload), with QoS 0 and not retained; to the buffer likewise."""
        sock = self._buffered()
        if sock is None or self.want_write():
            return _first_fault(self.publish(topic, payload, qos=0).rc for topic, payload in messages)
        return _send(sock, b"".join([_publish(topic.encode(), payload) for topic, payload in messages]))

    def flush(self) -> MQTTErrorCode:
        """Writes what waits, as far as that needs no waiting."""
        sock = self._buffered()
        if sock is not None:
            try:
                sock.flush()
            except OSError:
                sock.close()
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def _publish(topic: bytes, payload: bytes) -> bytes:
    """The packet, of QoS 0 and not retained."""
    left = 2 + len(topic) + len(payload)
    head = bytearray([_PUBLISH])
    while left > 0x7F:
        head.append(0x80 | left & 0x7F)
        left >>= 7
    head.append(left)
    head += len(topic).to_bytes(2, "big")
    return bytes(head) + topic + payload


def _send(sock: BufferedSocket, packets: bytes) -> MQTTErrorCode:
    try:
        sock.send(packets)
    except OSError:
        sock.close()
        return MQTTErrorCode.MQTT_ERR_CONN_LOST
    return MQTTErrorCode.MQTT_ERR_SUCCESS


def _first_fault(codes: Iterable[MQTTErrorCode]) -> MQTTErrorCode:
    """None of those after it is asked for."""
    return next((code for code in codes if code != MQTTErrorCode.MQTT_ERR_SUCCESS), MQTTErrorCode.MQTT_ERR_SUCCESS)
