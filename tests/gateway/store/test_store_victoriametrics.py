"""VictoriaMetrics: how it must have been started, who it lets in, and that no write is called durable before it is."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.store import VictoriaMetricsStore, VictoriaMetricsStoreConfig, open_store, try_store
from simulators.ports import free_port
from tests.gateway.store import servers

pytestmark = pytest.mark.services

NOON_MS = 1_700_000_000_000
KEY = ("kita-01", "trap-11", "heartbeat")
AS_DOCUMENTED = ("-dedup.minScrapeInterval=1ms", "-snapshotsMaxAge=1d")


def config_of(url: str, login_file: Path | None = None) -> VictoriaMetricsStoreConfig:
    return VictoriaMetricsStoreConfig(type="victoriametrics", url=url, login_file=login_file)


def login(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "login"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.Served]:
    with servers.victoria_metrics(tmp_path) as started:
        yield started


def test_a_server_that_began_anew_during_a_write_is_written_to_again(
    server: servers.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url))) as store:
        store.write([(KEY, NOON_MS, 1.0)])
        honest = store._snapshot

        def after_a_kill() -> str:
            server.kill()
            server.start()
            return honest()

        monkeypatch.setattr(store, "_snapshot", after_a_kill)
        with pytest.raises(StoreDown, match="began anew while it took points"):
            store.write([(KEY, NOON_MS + 1, 2.0)])
        assert store.read(*KEY, 0, 2**62, 9) == [(NOON_MS, 1.0)], "it has forgotten what it took"

        monkeypatch.undo()
        store.write([(KEY, NOON_MS + 1, 2.0)])
        assert store.read(*KEY, 0, 2**62, 9) == [(NOON_MS, 1.0), (NOON_MS + 1, 2.0)]


def test_no_snapshot_stays(victoria_metrics: str) -> None:
    with closing(open_store(config_of(victoria_metrics))) as store:
        store.write([(KEY, NOON_MS, 1.0)])
    with servers.get(f"{victoria_metrics}/snapshot/list") as answer:
        assert b'"snapshots":[]' in b"".join(answer.read().split())


def test_of_several_that_write_at_once_none_removes_what_is_another_s(
    victoria_metrics: str, caplog: pytest.LogCaptureFixture
) -> None:
    def write(worker: int) -> None:
        with closing(open_store(config_of(victoria_metrics))) as store:
            for number in range(10):
                store.write([((f"kita-{worker}", "trap-11", "heartbeat"), NOON_MS + number, 1.0)])

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(write, range(4)))

    assert not caplog.records, "no write failed, and no snapshot was missed when it was to be removed"
    with servers.get(f"{victoria_metrics}/snapshot/list") as answer:
        assert b'"snapshots":[]' in b"".join(answer.read().split())


def test_a_snapshot_that_can_not_be_removed_is_said_and_its_points_count(
    victoria_metrics: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics))) as store:
        store._snapshot = lambda: "no-snapshot"  # type: ignore[method-assign]
        store.write([(KEY, NOON_MS, 1.0)])
    assert "snapshot no-snapshot stays until VictoriaMetrics removes it itself: " in caplog.text


def test_who_is_in_a_hurry_does_not_wait_for_a_server_that_hangs(server: servers.Served) -> None:
    with closing(open_store(config_of(server.url))) as store:
        server.hang()
        began = time.monotonic()
        with pytest.raises(StoreDown, match=r"gives no answer: .*timed out"):
            store.write([(KEY, NOON_MS, 1.0)], patience_s=0.2)
        assert time.monotonic() - began < 2
        server.go_on()
        store.write([(KEY, NOON_MS, 1.0)])
        assert store.read(*KEY, 0, 2**62, 9) == [(NOON_MS, 1.0)]


def test_a_disk_too_slow_for_a_snapshot_is_an_outage_that_says_so(
    server: servers.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url).model_copy(update={"timeout_s": 0.5}))) as store:
        store.write([(KEY, NOON_MS, 1.0)])
        honest = store._server.write

        def then_hang(*given: Any) -> None:
            honest(*given)
            server.hang()

        monkeypatch.setattr(store._server, "write", then_hang)
        with pytest.raises(StoreDown, match=r"timed out.*the snapshot by which points become durable: .*timeout_s .0.5 s."):
            store.write([(KEY, NOON_MS + 1, 2.0)])
        server.go_on()


@pytest.mark.parametrize("lacking", AS_DOCUMENTED)
def test_a_server_started_as_it_must_not_be_is_refused_at_the_start(tmp_path: Path, lacking: str) -> None:
    flags = [flag for flag in AS_DOCUMENTED if flag != lacking]
    with (
        servers.victoria_metrics(tmp_path, *flags) as server,
        pytest.raises(StoreRefused, match=f"was not started with {lacking}.*: start it so"),
    ):
        open_store(config_of(server.url))


def test_what_it_would_drop_in_silence_is_refused_by_name(tmp_path: Path) -> None:
    with (
        servers.victoria_metrics(tmp_path, *AS_DOCUMENTED, "-retentionPeriod=90d") as server,
        closing(open_store(config_of(server.url))) as store,
    ):
        with pytest.raises(StoreRefused, match=rf"would drop kita-01/trap-11/heartbeat at {NOON_MS} ms: .*-retentionPeriod"):
            store.write([(KEY, NOON_MS, 1.0)])
        assert store.read(*KEY, 0, 2**62, 9) == []


def test_it_wants_to_know_who_asks_and_who_is_wrong_hears_it_at_the_start(tmp_path: Path) -> None:
    flags = (*AS_DOCUMENTED, "-httpAuth.username=town", "-httpAuth.password=invented")
    with servers.victoria_metrics(tmp_path, *flags) as server:
        with pytest.raises(StoreRefused, match=r"refuses the login .401.*name it as store.login_file"):
            open_store(config_of(server.url))
        with pytest.raises(StoreRefused, match=r"refuses the login .401.*Put user:password into .*login and restart") as caught:
            open_store(config_of(server.url, login(tmp_path, "town:wrong")))
        assert "town:wrong" not in str(caught.value)

        with closing(open_store(config_of(server.url, login(tmp_path, "town:invented\n")))) as store:
            store.write([(KEY, NOON_MS, 1.0)])
            assert store.latest(*KEY) == (NOON_MS, 1.0)


@pytest.mark.parametrize("text", ["", "two words", "no-colon"])
def test_a_login_is_user_and_password_and_never_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.login_file .*must hold user:password") as caught:
        open_store(config_of("http://127.0.0.1:1", login(tmp_path, text)))
    assert not text or text not in str(caught.value)


def test_for_a_server_that_is_not_there_no_start_waits_but_a_check_says_it(caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(f"http://127.0.0.1:{free_port()}")
    open_store(config).close()
    assert "the series store can't be used yet: VictoriaMetrics at" in caplog.text
    with pytest.raises(StoreDown, match="gives no answer"):
        try_store(config)


def test_something_else_at_its_place_is_no_store(influxdb: str) -> None:
    with pytest.raises((StoreRefused, StoreDown)):
        try_store(config_of(influxdb))
