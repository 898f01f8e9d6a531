"""A process's own metrics, for who scrapes this machine: `run --metrics`. Nothing is asked of who reads them, so loopback only.

The API's `/metrics` asks for a right; a process without the role api has no API.
"""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from socketserver import TCPServer
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.errors import ConfigError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PATIENCE_S = 5.0
"""Who asks and does not go on asking for so long is hung up on: the others wait for it."""


class Address(NamedTuple):
    """Where metrics are read."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a scraper is told."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"


def address_of(text: str) -> Address:
    """`9101`, `127.0.0.1:9101` or `[::1]:9101`; port 0 takes a free one. ConfigError for anything else."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    try:
        loopback, number = ip_address(host).is_loopback, int(port)
    except ValueError:
        raise ConfigError(f"--metrics: {text!r} is no address of this machine like {LOOPBACK}:9101") from None
    if not loopback:
        raise ConfigError(
            f"--metrics: {host} is no loopback address. Who reads these metrics shows no token: give {LOOPBACK}:{port}, and let "
            "what reads them run on this machine; others read /metrics of a process with the role api"
        )
    if not 0 <= number <= 65535:
        raise ConfigError(f"--metrics: {number} is no port")
    return Address(host, number)


@contextmanager
def served(registry: CollectorRegistry, at: Address) -> Iterator[Address]:
    """GET /metrics while the block runs, one reader after the other: where. ConfigError when somebody else is there."""

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_S

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # who asked has hung up
            except Exception:
                log.exception("the metrics can't be told")

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = generate_latest(registry)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing: it is read every few seconds."""

    class Server(TCPServer):
        address_family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
        allow_reuse_address = True

    try:
        server = Server(at, Handler)
    except OSError as error:
        raise ConfigError(f"--metrics: {at.host}:{at.port} can't be listened on: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    with server:
        thread.start()
        try:
            yield Address(at.host, server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
