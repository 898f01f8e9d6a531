"""What comes over a socket from who means no good: slow, doubled, broken and roundabout requests. Real server, real bytes."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api import server
from gateway.api.app import create_app
from gateway.api.problems import SECURITY_HEADERS
from tests.gateway.api.conftest import BEARER, Gateway
from tests.gateway.api.served import served

AUTH = f"Authorization: {BEARER['operator']['Authorization']}\r\n"
NODE = f"Authorization: {BEARER['node']['Authorization']}\r\n"


@pytest.fixture
def port(gateway: Gateway) -> Iterator[int]:
    with served(create_app(gateway.deps)) as got:
        yield got


def say(port: int, *pieces: bytes, is_all: bool = False) -> bytes:
    """What comes back: until the other side hangs up, or has begun to answer and says no more. `is_all`: we hang up first."""
    had = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as wire:
            for piece in pieces:
                wire.sendall(piece)
            if is_all:
                with suppress(OSError):  # they may have hung up already; what they said before that is read all the same
                    wire.shutdown(socket.SHUT_WR)
            while piece := wire.recv(65536):
                had += piece
                wire.settimeout(0.5)
    except (TimeoutError, ConnectionResetError, BrokenPipeError):
        pass
    return had


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def statuses(answers: bytes) -> list[int]:
    return [int(one[:3]) for one in answers.split(b"HTTP/1.1 ")[1:]]


def head(method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway.example", AUTH.strip(), *more, "", ""]
    return "\r\n".join(lines).encode()


def test_requests_one_after_the_other_are_answered_one_after_the_other(port: int) -> None:
    """So that the refusals below mean something."""
    assert statuses(say(port, head("GET", "/api/v1/alerts") + head("GET", "/api/v1/nothing", "Connection: close"))) == [200, 404]


SMUGGLED = b"GET /api/v1/quarantine HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "more",
    [
        ("Content-Length: 4", "Content-Length: 40"),
        ("Content-Length: 4, 40",),
        ("Content-Length: +4",),
        ("Content-Length: -1",),
        ("Content-Length: 0x4",),
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
    ids=" + ".join,
)
def test_a_body_whose_end_two_servers_could_see_in_two_places_is_refused_and_nothing_behind_it_is_asked(
    port: int, more: tuple[str, ...]
) -> None:
    answers = say(port, head("POST", "/api/v1/silences", "Content-Type: application/json", *more) + b"0\r\n\r\n" + SMUGGLED)
    assert statuses(answers) in ([400], [411])


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["tls", "no host", "two hosts", "nul", "not ascii", "nonsense", "a long head"],
)
def test_what_is_no_http_is_refused_as_a_problem_with_all_its_headers(port: int, said: bytes) -> None:
    answer = say(port, said)
    first, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [400]
    assert json.loads(body)["status"] == 400
    for name in ("content-type: application/problem+json", *map(str.lower, SECURITY_HEADERS)):
        assert name.encode() in first.lower(), name


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/media/../../../../etc/passwd", "/api/v1/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/api/v1/media/..%5c..%5cetc",
        "/page.js/../../pyproject.toml", "/..%2fpyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd", "/page.js%00.html",
        "/api/v1/media/" + "a" * 63 + "%00", "/api/v1/media/%ff%fe", "/a/..%2f..%2fetc", "/push-worker.js/..",
    ],
)  # fmt: skip
def test_no_path_leads_out(port: int, path: str) -> None:
    for who in (AUTH, NODE):
        answer = say(port, f"GET {path} HTTP/1.1\r\nHost: a\r\n{who}Connection: close\r\n\r\n".encode())
        assert statuses(answer)[0] in (400, 403, 404, 405, 422), answer[:200]
        assert b"root:" not in answer
        assert b"[project]" not in answer


def test_a_websocket_is_no_way_around(port: int) -> None:
    more = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    without = head("GET", "/api/v1/devices", *more).replace(AUTH.encode(), b"")
    assert statuses(say(port, without)) == [401]


@pytest.mark.parametrize("begun", [b"GET /api/v1/alerts HTTP/1.1\r\nX: ", head("POST", "/api/v1/silences", "Content-Length: 9999",
                                                                               "Content-Type: application/json")],
                         ids=["head", "body"])  # fmt: skip
def test_a_byte_now_and_then_holds_no_connection(port: int, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.2)
    monkeypatch.setattr(server, "LEAST_BYTES_S", 500.0)
    until_s = time.monotonic() + 10
    with socket.create_connection(("127.0.0.1", port), 5) as slow:
        slow.sendall(begun)
        slow.settimeout(0.02)
        while time.monotonic() < until_s:
            try:
                slow.sendall(b"x")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it is still listened to")


def test_one_address_leaves_connections_to_the_others(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there are, that begin a request and go no further. Who comes from elsewhere is served all the same."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 30)
    monkeypatch.setattr(server, "SHAKING_HANDS", 0)
    with served(create_app(gateway.deps), most_of_one=20) as port, ExitStack() as held:
        for _ in range(100):
            slow = held.enter_context(socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.0.2", 0)))
            with suppress(ConnectionError):
                slow.sendall(b"GET /api/v1/alerts HTTP/1.1\r\nX: ")
        assert hung_up(slow)
        assert statuses(say(port, head("GET", "/api/v1/alerts", "Connection: close"))) == [200]


def test_a_trusted_proxy_comes_for_everybody(gateway: Gateway) -> None:
    proxies = [ip_network("127.0.0.1"), ip_network("2001:db8::/32")]
    with served(create_app(gateway.deps), most_of_one=1, proxies=proxies) as port, ExitStack() as held:
        for _ in range(5):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        assert statuses(say(port, head("GET", "/api/v1/alerts", "Connection: close"))) == [200]


def test_who_sends_at_the_pace_of_a_thin_link_is_heard_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.1)
    body = b"[" + b" " * 4000 + b"]"
    with socket.create_connection(("127.0.0.1", port), 5) as thin:
        thin.sendall(head("POST", "/api/v1/silences", f"Content-Length: {len(body)}", "Content-Type: application/json",
                          "Connection: close"))  # fmt: skip
        for at in range(0, len(body), 100):
            thin.sendall(body[at : at + 100])
            time.sleep(0.01)  # the link, not a wait for something
        assert statuses(thin.recv(65536)) == [422]


def test_who_asks_and_takes_nothing_is_hung_up_on(port: int, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.2)
    monkeypatch.setattr(server, "LEAST_BYTES_S", 5000.0)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect(("127.0.0.1", port))
        try:
            for _ in range(400):
                deaf.sendall(head("GET", "/page.js"))
        except ConnectionError:
            return  # hung up on while it still asked
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            try:
                deaf.sendall(b"\r\n")
            except ConnectionError:
                return
        pytest.fail("its answers are still kept for it")


@given(st.lists(st.binary(min_size=1, max_size=60)
                | st.sampled_from([head("GET", "/"), b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1"]),
                min_size=1, max_size=4))  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered_or_hung_up_on_and_the_next_one_is_served(port: int, pieces: list[bytes]) -> None:
    assert all(status < 500 for status in statuses(say(port, *pieces, is_all=True)))
    assert statuses(say(port, head("GET", "/api/v1/alerts", "Connection: close"))) == [200]
