"""Whom a node believes while its own clock may be wrong: real handshakes with a server whose certificate is out of date."""

import asyncio
import queue
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from edge.contract.broker import BrokerConfig
from edge.media import MediaFolder
from edge.tls import client_context
from edge.uplink import LinkWords, MqttLink
from edge.upload import Uploader
from simulators.clock import VirtualClock
from tests.edge.authority import DAY, Authority

DATES = {
    "good": (-DAY, DAY),
    "expired": (-400 * DAY, -30 * DAY),
    "not yet valid": (30 * DAY, 400 * DAY),
}


@contextmanager
def server(folder: Path, authority: Authority, begins: timedelta, ends: timedelta, answer: bytes = b"") -> Iterator[int]:
    """Shakes hands with each caller, says `answer` to the first thing it hears; yields its port."""
    certificate, key = authority.write_pair(folder, "gateway", begins, ends)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                connection.settimeout(10)
                with context.wrap_socket(connection, server_side=True) as secured:
                    if secured.recv(4096) and answer:
                        secured.sendall(answer)
                        secured.recv(4096)
            except OSError:  # the caller did not like us
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def handshake(port: int, context: ssl.SSLContext) -> str:
    """What becomes of it: "" is a connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
                secured.sendall(b"x")
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""


@pytest.mark.parametrize("clock", ["sync", "holdover", "unsync"])
@pytest.mark.parametrize("dates", DATES)
def test_dates_are_judged_by_a_clock_that_was_set_and_by_no_other(dates: str, clock: str, tmp_path: Path) -> None:
    authority = Authority()
    with server(tmp_path, authority, *DATES[dates]) as port:
        fault = handshake(port, client_context("broker", authority.write(tmp_path), clock=clock))
    judged = {"good": "", "expired": "certificate has expired", "not yet valid": "certificate is not yet valid"}
    assert fault == ("" if clock == "unsync" else judged[dates])


@pytest.mark.parametrize("clock", ["sync", "unsync"])
@pytest.mark.parametrize("dates", DATES)
def test_another_authority_is_never_believed(dates: str, clock: str, tmp_path: Path) -> None:
    with server(tmp_path, Authority(), *DATES[dates]) as port:
        fault = handshake(port, client_context("broker", Authority("Elsewhere").write(tmp_path), clock=clock))
    assert fault in {"self-signed certificate in certificate chain", "unable to get local issuer certificate"}


def test_nor_is_another_host(tmp_path: Path) -> None:
    authority = Authority()
    with server(tmp_path, authority, *DATES["good"]) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        context = client_context("broker", authority.write(tmp_path), clock="unsync")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            context.wrap_socket(connection, server_hostname="another.example")


def test_the_systems_authorities_are_judged_by_their_dates_whatever_the_clock() -> None:
    assert client_context("broker", None, clock="unsync").verify_flags == client_context("broker", None).verify_flags


class Ear:
    def __init__(self) -> None:
        self.heard: queue.Queue[str] = queue.Queue()

    def link_up(self) -> None:
        self.heard.put("up")

    def link_down(self, reason: str) -> None:
        self.heard.put(reason)

    def received(self, topic: str, payload: bytes) -> None: ...


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_link_asks_the_clock_at_each_connection_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broker with an expired certificate that refuses everybody at the first word (CONNACK 5): so far comes who believes it."""
    authority, ear, clock = Authority(), Ear(), ["sync"]
    with server(tmp_path, authority, *DATES["expired"], answer=b"\x20\x02\x00\x05") as port:
        config = BrokerConfig(url=f"mqtts://127.0.0.1:{port}", ca_file=authority.write(tmp_path), backoff_cap_s=0.1)
        link = MqttLink(config, LinkWords("a", ("down",), "state", b""), ear, random.Random(1), lambda: clock[0])
        link.start()
        try:
            assert "certificate has expired" in ear.heard.get(timeout=20)
            clock[0] = "unsync"
            while "the broker refused: Not authorized" not in ear.heard.get(timeout=20):
                pass
            clock[0] = "sync"
            while "certificate has expired" not in ear.heard.get(timeout=20):
                pass
        finally:
            link.stop()
    assert caplog.text.count("the dates of the broker's certificate are not judged") == 1
    assert caplog.text.count("judged again") == 1


def test_pictures_take_the_same_care(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, clock = Authority(), ["sync"]
    shelf = MediaFolder(tmp_path / "media", reserve_bytes=0)
    shelf.keep(b"picture", "image/jpeg")
    done = b"HTTP/1.1 200 OK\r\nUpload-Complete: ?1\r\nContent-Length: 0\r\n\r\n"
    with server(tmp_path, authority, *DATES["not yet valid"], answer=done) as port:
        uploader = Uploader(
            shelf, f"https://127.0.0.1:{port}", "token", VirtualClock(0), random.Random(1),
            ca_file=authority.write(tmp_path), clock_state=lambda: clock[0],
        )  # fmt: skip
        assert not asyncio.run(uploader.send_all())
        assert "certificate is not yet valid" in caplog.text
        clock[0] = "unsync"
        assert asyncio.run(uploader.send_all())
    assert shelf.waiting() == []
