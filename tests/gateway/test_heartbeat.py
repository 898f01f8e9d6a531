"""The outside watcher hears of a gateway that is well, and of no other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.heartbeat import Heartbeat, HeartbeatConfig
from gateway.state import State, open_state
from tests.gateway.town import NOW_US, locked


class Watcher(ThreadingHTTPServer):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Notes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Notes(BaseHTTPRequestHandler):
    server: Watcher

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Nothing."""


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    server = Watcher()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@contextmanager
def heart(state: State, watcher: Watcher, well: dict[str, bool], **more: Any) -> Iterator[Heartbeat]:
    config = HeartbeatConfig.model_validate({"url": f"{watcher.url}/ping/9d2f", "timeout_s": 2, **more})
    made = Heartbeat(state, config, lambda: well)
    yield made
    made.close()


def test_a_gateway_that_is_well_says_so_at_each_beat(state: State, watcher: Watcher) -> None:
    with heart(state, watcher, {"ingest": True, "deliver": True}) as heartbeat:
        for n in range(3):
            heartbeat.run(NOW_US + n)
    assert watcher.asked == ["/ping/9d2f"] * 3


def test_one_that_is_not_is_silent_until_it_is(state: State, watcher: Watcher) -> None:
    well = {"ingest": True, "deliver": False}
    with heart(state, watcher, well) as heartbeat:
        heartbeat.run(NOW_US)
        assert watcher.asked == []
        well["deliver"] = True
        heartbeat.run(NOW_US)
    assert watcher.asked == ["/ping/9d2f"]


def test_where_there_is_an_address_for_it_the_watcher_need_not_wait(state: State, watcher: Watcher) -> None:
    with heart(state, watcher, {"ingest": False}, fail_url=f"{watcher.url}/ping/9d2f/fail") as heartbeat:
        heartbeat.run(NOW_US)
    assert watcher.asked == ["/ping/9d2f/fail"]


def test_a_state_database_that_cannot_be_written_is_not_well(
    state: State, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> Any:
        raise locked()

    with heart(state, watcher, {"ingest": True}) as heartbeat:
        monkeypatch.setattr(state, "write", write)
        heartbeat.run(NOW_US)
    assert watcher.asked == []


def test_a_watcher_that_is_away_stops_nothing_and_is_said_once(
    state: State, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    watcher.status = 503
    with heart(state, watcher, {"ingest": True}) as heartbeat:
        for _ in range(3):
            heartbeat.run(NOW_US)
        watcher.status = 200
        heartbeat.run(NOW_US)
    said = [record.message for record in caplog.records]
    assert [("can't be told" in one, "told again" in one) for one in said] == [(True, False), (False, True)]
    assert "9d2f" not in caplog.text, "who knows the address could speak for the gateway"


def test_an_ill_gateway_says_so_once_in_its_log_and_names_the_part(
    state: State, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    well = {"ingest": True, "deliver": False}
    with heart(state, watcher, well) as heartbeat:
        heartbeat.run(NOW_US)
        heartbeat.run(NOW_US)
        well["deliver"] = True
        heartbeat.run(NOW_US)
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert said[0].endswith(": deliver")


def test_it_goes_nowhere_that_the_guard_forbids(state: State, watcher: Watcher) -> None:
    with heart(state, watcher, {"ingest": True}, url="https://169.254.169.254/latest") as heartbeat:
        heartbeat.run(NOW_US)
    assert watcher.asked == []


@pytest.mark.parametrize("setting", ["url", "fail_url"])
@pytest.mark.parametrize("host", ["watcher.example", "192.0.2.7", "127.0.0.1.example", "[2001:db8::1]"])
def test_an_address_that_can_be_read_on_its_way_is_refused(setting: str, host: str) -> None:
    urls = {"url": "https://watcher.example/ping", setting: f"http://{host}/ping/9d2f"}
    with pytest.raises(ValidationError, match="write https://") as caught:
        HeartbeatConfig.model_validate(urls)
    assert "9d2f" not in str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x", "https://watcher.example/x"])
def test_one_on_this_machine_or_by_https_is_not(url: str) -> None:
    assert str(HeartbeatConfig.model_validate({"url": url}).url) == url
