"""Uvicorn inside the caller's event loop: started and stopped with a `with`, signals left to the caller."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gateway.errors import ConfigError

STOP_WITHIN_S = 5
MAX_CONNECTIONS = 500
"""At once, of one server. Each is a file, and without files left neither database nor broker could be opened."""
IDLE_S = 30.0
"""Who has begun nothing, or not ended what was begun, and says nothing for so long, is hung up on."""


class _Patient(H11Protocol):
    """Uvicorn's connection, but not for ever and not for any number: whoever can reach the port can connect, and be silent."""

    _idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._wait_on()

    def data_received(self, data: bytes) -> None:
        self._wait_on()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

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


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs the loop decides what a signal means."""
        yield


@asynccontextmanager
async def serve(
    app: FastAPI, host: str, port: int, tls: ssl.SSLContext | None = None, setting: str = "api.listen"
) -> AsyncIterator[int]:
    """Serves `app` while the block runs; yields the port, which is a free one when 0 was asked for.

    With `tls`, over TLS only; who loads another certificate into it later changes what new connections see. Leaving the block
    ends the streams and waits, at most 5 s, for answers under way. ConfigError, about `setting`, when the address can't be had.
    """
    listener = _listen(host, port, setting)
    config = uvicorn.Config(
        app,
        http=_Patient,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
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


def _listen(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
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
