"""`run --metrics`: what a process without an API says of itself to whoever scrapes this machine, and to nobody else."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.cli import main
from gateway.errors import ConfigError
from gateway.metrics import Address, address_of, served
from gateway.telemetry import Telemetry
from simulators.broker import nats
from simulators.ports import free_port
from tests.postgresql import Server
from tests.postgresql import running as postgresql

ROOT = Path(__file__).parents[2]
WAIT_S = 60


def asked(at: Address, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    connection = HTTPConnection(at.host, at.port, timeout=WAIT_S)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as running:
        yield running


@contextmanager
def a_process(argv: list[str | Path]) -> Iterator[dict[str, str]]:
    """What the gateway says when it is ready."""
    program = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*program, *argv, "--json"], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(WAIT_S) == 0


@pytest.mark.services
def test_each_process_without_the_api_tells_its_own(server: Server, tmp_path: Path) -> None:
    with nats(tmp_path / "broker") as broker:
        config = tmp_path / "gateway.toml"
        config.write_text(f"""
state = {{ url = "{server.make("metrics")}" }}
broker = {{ url = "{broker.url}" }}
store = {{ type = "sqlite", path = "{tmp_path / "series.db"}" }}
api = {{ tokens_file = "{tmp_path / "tokens"}" }}
media = {{ folder = "{tmp_path / "media"}" }}
keep = {{ erasures_file = "{tmp_path / "erasures"}" }}
""")
        (tmp_path / "tokens").touch(0o600)
        (tmp_path / "tokens").write_text("desk operator invented-operator-token\n")
        with a_process(["run", config, "--role", "ingest", "--role", "rules", "--metrics", "127.0.0.1:0"]) as said:
            assert set(said) == {"ok", "metrics"}, "it has no page"
            url = urlsplit(said["metrics"])
            assert url.hostname is not None
            assert url.port is not None
            status, text = asked(Address(url.hostname, url.port))
            assert status == 200
            assert "satomori_messages_total 0.0" in text
            assert "process_resident_memory_bytes" in text


@pytest.fixture
def told() -> Iterator[tuple[Address, Telemetry]]:
    telemetry = Telemetry()
    with served(telemetry.registry, Address("127.0.0.1", 0)) as at:
        yield at, telemetry


def test_they_are_those_of_this_moment(told: tuple[Address, Telemetry]) -> None:
    at, telemetry = told
    telemetry.lost.inc(3)
    assert "\nsatomori_lost_total 3.0\n" in asked(at)[1]


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/metrics?x=1", 200), ("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 501),
])  # fmt: skip
def test_nothing_else_is_told_or_taken(told: tuple[Address, Telemetry], method: str, path: str, status: int) -> None:
    assert asked(told[0], method, path)[0] == status


def test_who_hangs_up_or_says_nonsense_keeps_nobody_else_from_reading(told: tuple[Address, Telemetry]) -> None:
    at, _ = told
    for nonsense in (b"", b"GET", b"\x16\x03\x01\x00\r\n\r\n", b"GET /metrics HTTP/1.0\r\n\r\n"):
        with socket.create_connection(at) as reader:
            reader.send(nonsense)
    assert asked(at)[0] == 200


def test_who_says_nothing_is_hung_up_on(told: tuple[Address, Telemetry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.metrics.PATIENCE_S", 0.1)
    with served(told[1].registry, Address("127.0.0.1", 0)) as at, socket.create_connection(at) as silent:
        assert asked(at)[0] == 200
        assert silent.recv(1) == b""


@pytest.mark.parametrize("text", ["0.0.0.0:9101", "192.0.2.7:9101", "[::]:9101", "gateway.example:9101", "localhost", "", ":",
                                  "127.0.0.1:99999", "127.0.0.1:-1"])  # fmt: skip
def test_only_this_machine_may_read_them(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--metrics: "):
        address_of(text)


@pytest.mark.parametrize(("text", "address"), [
    ("9101", Address("127.0.0.1", 9101)), ("127.0.0.2:9101", Address("127.0.0.2", 9101)), ("[::1]:0", Address("::1", 0)),
])  # fmt: skip
def test_a_port_is_enough(text: str, address: Address) -> None:
    assert address_of(text) == address


def test_where_somebody_else_is_they_are_not_told(told: tuple[Address, Telemetry]) -> None:
    with pytest.raises(ConfigError, match="can't be listened on"), served(told[1].registry, told[0]):
        pytest.fail("two at one address")


def test_a_gateway_does_not_begin_where_its_metrics_would_be_open_to_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f"""
state = {{ url = "sqlite:///{tmp_path / "state.db"}" }}
broker = {{ url = "mqtt://127.0.0.1:{free_port()}" }}
store = {{ type = "sqlite", path = "{tmp_path / "series.db"}" }}
api = {{ tokens_file = "{tmp_path / "tokens"}" }}
media = {{ folder = "{tmp_path / "media"}" }}
""")
    assert main(["run", str(config), "--metrics", "0.0.0.0:9101"]) == 2
    assert "--metrics: 0.0.0.0 is no loopback address" in capsys.readouterr().err
    assert not (tmp_path / "state.db").exists()
