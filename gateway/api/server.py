"""Uvicorn inside the caller's event loop: started and stopped with a `with`, signals left to the caller."""

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from pydantic import IPvAnyNetwork
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gateway.accounts.limits import asker
from gateway.api.problems import MEDIA_TYPE, SECURITY_HEADERS
from gateway.errors import ConfigError
from gateway.words import text

STOP_WITHIN_S = 5
MAX_CONNECTIONS = 500
"""At once, of one server. Each is a file, and without files left neither database nor broker could be opened."""
SHAKING_HANDS = 100
"""Connections beside these that are not through with TLS yet: each costs a quarter of a megabyte before anybody knows of it."""
MOST_OF_ONE = 100
"""Connections of one address, or of a network of 64 bits of IPv6, unless we are told otherwise: one stolen node must not take
them all from the others."""
IDLE_S = 30.0
"""Who has begun nothing, or not ended what was begun, and says nothing for so long, is hung up on."""
LOOK_S = 30.0
LEAST_BYTES_S = 50.0
"""Who has something to send or to take, and does less than this for `LOOK_S`, is hung up on: else a byte now and then would hold
a connection for ever. The thinnest link that pictures come over carries a hundred times as much."""


class _Patient(H11Protocol):
    """Uvicorn's connection, but not for ever and not for any number: whoever can reach the port can connect, and be silent."""

    _idle: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _came = 0
    """Bytes since the last look."""
    _left = 0
    """Bytes that the other side had not taken at the last look."""
    _was_busy = False
    """Whether there was something for the other side to do at the last look, too."""
    _flowed = False
    """Whether since then they took enough that we could go on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._wait_on()
            self._look = self.loop.call_later(LOOK_S, self._look_at_pace)

    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        self._wait_on()
        super().data_received(data)

    def resume_writing(self) -> None:
        self._flowed = True
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._idle, self._look):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP: a problem document like any other refusal. Nothing of it went to the application."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # in the middle of an answer: there is no room for another
            return
        body = json.dumps({"type": "about:blank", "title": text("ja", "fault.400"), "status": 400, "detail": msg}).encode()
        headers = {**SECURITY_HEADERS, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        said = [(name.lower().encode(), value.encode()) for name, value in headers.items()] + [(b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=said, reason=b"Bad Request"), h11.Data(body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait_on(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(IDLE_S, self._silent)

    def _silent(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._wait_on()  # it is for us to speak: a stream, or an answer that takes its time
        else:
            self.transport.abort()

    def _look_at_pace(self) -> None:
        state, left = self.conn.their_state, self.transport.get_write_buffer_size()
        sends = state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        sends = sends and not self.flow.read_paused  # else it is us who do not listen
        takes = self.flow.write_paused
        too_little = LEAST_BYTES_S * LOOK_S
        slow = (sends and self._came < too_little) or (takes and not self._flowed and self._left - left < too_little)
        if slow and self._was_busy:
            self.transport.abort()
            return
        self._was_busy, self._flowed, self._came, self._left = sends or takes, False, 0, left
        self._look = self.loop.call_later(LOOK_S, self._look_at_pace)


class _Door(socket.socket):
    """A listening socket that lets in so many at once; whoever comes beyond that is hung up on before it costs anything."""

    def __init__(
        self, family: int, kind: int, protocol: int, most_of_one: int, proxies: Sequence[IPv4Network | IPv6Network]
    ) -> None:
        """`proxies`: whose address stands for everybody's."""
        super().__init__(family, kind, protocol)
        self._most_of_one, self._proxies = most_of_one, proxies
        self._open: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """ConnectionAbortedError, which asyncio passes over, for who is not let in."""
        connection, address = super().accept()
        who = asker(address[0])
        too_many = self._open[who] >= self._most_of_one and not self._is_proxy(address[0])
        if too_many or self._open.total() >= MAX_CONNECTIONS + SHAKING_HANDS:
            connection.close()
            raise ConnectionAbortedError("too many connections")
        self._open[who] += 1
        return _Guest(connection, partial(self._gone, who)), address

    def _is_proxy(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in one for one in self._proxies)

    def _gone(self, who: str) -> None:
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]


class _Guest(socket.socket):
    """A connection whose end is told to the door."""

    def __init__(self, connection: socket.socket, gone: Callable[[], None]) -> None:
        super().__init__(fileno=connection.detach())
        self._when_gone: Callable[[], None] | None = gone

    def close(self) -> None:
        super().close()
        gone, self._when_gone = self._when_gone, None
        if gone is not None:
            gone()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs the loop decides what a signal means."""
        yield


@asynccontextmanager
async def serve(
    app: FastAPI,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    setting: str = "api.listen",
    proxies: Sequence[IPvAnyNetwork] = (),
    most_of_one: int | None = None,
) -> AsyncIterator[int]:
    """Serves `app` while the block runs; yields the port, which is a free one when 0 was asked for.

    `proxies`: who may say, by X-Forwarded-For, whom it asks for; of anybody else that is not believed.
    `most_of_one`: connections at once of one address that is no such proxy's; MOST_OF_ONE without.
    With `tls`, over TLS only; who loads another certificate into it later changes what new connections see. Leaving the block
    ends the streams and waits, at most 5 s, for answers under way. ConfigError, about `setting`, when the address can't be had.
    """
    listener = _listen(host, port, setting, MOST_OF_ONE if most_of_one is None else most_of_one, proxies)
    config = uvicorn.Config(
        app,
        http=_Patient,
        ws="none",  # it would take a connection over from `_Patient`, and there are none here
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=[str(one) for one in proxies],
        timeout_graceful_shutdown=STOP_WITHIN_S,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="api")
    try:
        yield int(listener.getsockname()[1])
    finally:
        app.state.feed.end()
        server.should_exit = True
        await serving
        listener.close()


def _listen(host: str, port: int, setting: str, most_of_one: int, proxies: Sequence[IPvAnyNetwork]) -> _Door:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = _Door(family, kind, protocol, most_of_one, proxies)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)  # now: who knows the port may connect before uvicorn accepts
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"{setting}: {host}:{port} can't be had: {error.strerror or error}. Is another program on this port?"
        ) from error
    return listener
