"""Uvicorn inside the caller's event loop: started and stopped with a `with`, signals left to the caller."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from gateway.errors import ConfigError

STOP_WITHIN_S = 5


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
