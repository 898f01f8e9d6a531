"""Where a simulated phone or provider listens: one HTTP server on loopback that can go away, and come back on the same port."""

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_log = logging.getLogger(__name__)


class DoorServer(ThreadingHTTPServer):
    """A server as every door's is; who makes one of it says what it serves."""

    daemon_threads = True  # a slow answer must not hold up the end of a test
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """A sender that gave up waiting is no fault of ours; all else is told once, with its trace."""
        _log.info("%s went away or could not be served", client_address, exc_info=True)


class Door:
    """Opens and shuts; both may be repeated. `make(port)` makes the server; `port` 0 takes a free one, and keeps it."""

    def __init__(self, make: Callable[[int], DoorServer], port: int, name: str) -> None:
        self._make, self._name, self.port = make, name, port
        self._server: DoorServer | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Somebody listens from now on."""
        if self._server is not None:
            return
        self._server = self._make(self.port)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=self._name, daemon=True)
        self._thread.start()

    def shut(self) -> None:
        """Nobody listens any more."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.shutdown()
        thread.join()
        server.server_close()

    def is_of(self, server: DoorServer) -> bool:
        """Whether this server is the one that is open now."""
        return self._server is server
