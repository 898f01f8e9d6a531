"""A socket that reads ahead and writes together, for one thread that waits in select(): paho reads and writes byte by byte.

paho takes three calls of the system to read a packet and one to write each; under load that is a third of ingest's time.
What is read ahead no select() can see: ask `ahead` before waiting. What was written waits in memory until `flush`.
"""

import select
import ssl
from typing import Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

_AHEAD = 64 * 1024
_TOGETHER = 64 * 1024


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


class BufferedSocket:
    """What paho needs of a socket, over a non-blocking one, TLS or not."""

    def __init__(self, sock: SocketLike) -> None:
        self._sock = sock
        self._in, self._at = b"", 0
        self._out = bytearray()

    @property
    def ahead(self) -> bool:
        """Whether there is something to read that select() does not know of."""
        return self._at < len(self._in) or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    @property
    def behind(self) -> bool:
        """Whether something that was sent waits to be written."""
        return bool(self._out)

    def recv(self, size: int) -> bytes:
        """As a socket's; BlockingIOError (or ssl.SSLWantReadError) when nothing is there, b"" at the end."""
        at = self._at
        if at >= len(self._in):
            self._in, self._at = self._sock.recv(_AHEAD), 0
            at = 0
        found = self._in[at : at + size]
        self._at = at + len(found)
        return found

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


class BufferedClient(mqtt.Client):
    """paho's client over a BufferedSocket. Where paho should make its sockets elsewhere one day, it is only slower."""

    def _create_socket(self) -> BufferedSocket:
        return BufferedSocket(super()._create_socket())

    @property
    def ahead(self) -> bool:
        """Whether something was read ahead: `loop_read` has work without waiting."""
        sock = self.socket()
        return isinstance(sock, BufferedSocket) and sock.ahead

    def wait(self, timeout_s: float) -> tuple[bool, bool]:
        """Waits until there is something to read, or something waits and can be written: (readable, writable)."""
        sock = self.socket()
        if sock is None:
            return False, False
        behind = self.want_write() or (isinstance(sock, BufferedSocket) and sock.behind)
        ahead = self.ahead
        readable, writable, _ = select.select([sock], [sock] if behind else [], [], 0 if ahead else timeout_s)
        return ahead or bool(readable), bool(writable)

    def flush(self) -> MQTTErrorCode:
        """Writes what waits, as far as that needs no waiting."""
        sock = self.socket()
        if isinstance(sock, BufferedSocket):
            try:
                sock.flush()
            except OSError:
                sock.close()
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
        return MQTTErrorCode.MQTT_ERR_SUCCESS
