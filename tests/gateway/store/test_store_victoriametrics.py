"""VictoriaMetrics: how it must have been started, who it lets in, and that what is called written outlives it and us."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from gateway import core, vitals
from gateway.config import GatewayConfig
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.service import running
from gateway.store import VictoriaMetricsStore, VictoriaMetricsStoreConfig, open_store, try_store, victoriametrics
from gateway.store.journal import Journal, Segment
from simulators.ports import free_port
from tests.gateway.store import servers

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[3]
NOON_MS = 1_700_000_000_000
KEY = ("kita-01", "trap-11", "heartbeat")
AS_DOCUMENTED = ("-dedup.minScrapeInterval=1ms", "-snapshotsMaxAge=1d")


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is; tests run in its folder's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "journal"


def config_of(url: str, login_file: Path | None = None) -> VictoriaMetricsStoreConfig:
    return VictoriaMetricsStoreConfig(type="victoriametrics", url=url, login_file=login_file, journal=Path("journal"))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def settle(store: VictoriaMetricsStore, clock: Clock) -> None:
    """Until nothing is left of what was written before: what is young when it is first looked at is left for the next time."""
    for _ in range(2):
        clock.now_s += 20
        store.settle()


def held(store: VictoriaMetricsStore) -> list[tuple[int, float]]:
    return store.read(*KEY, 0, 2**62, 1000)


def snapshots(url: str) -> bytes:
    with servers.get(f"{url}/snapshot/list") as answer:
        return b"".join(answer.read().split())


def points_of(number: int) -> list[tuple[tuple[str, str, str], int, float]]:
    """What the child writes as batch `number`; a time of its own for each."""
    return [(KEY, NOON_MS + number, float(number))]


def login(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "login"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.Served]:
    with servers.victoria_metrics(tmp_path) as started:
        yield started


# ---- Killed ----------------------------------------------------------------------------------------------


def test_what_it_forgot_it_is_given_again_however_often_it_is_killed(
    server: servers.Served, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        for _ in range(2):
            server.kill()
            server.start()
            assert held(store) == [], "or this test would show nothing"
            clock.now_s += 20
            store.settle()
            assert held(store) == [(NOON_MS + 1, 1.0)]
        store.write(points_of(2))
        settle(store, clock)
        server.kill()
        server.start()
        clock.now_s += 20
        caplog.clear()
        store.settle()
        assert held(store) == [(NOON_MS + 1, 1.0), (NOON_MS + 2, 2.0)], "it is on its disk"
        assert not caplog.records, "and nothing had to be given again"


def test_what_it_took_before_it_was_killed_and_we_kept_only_afterwards_is_given_again(
    server: servers.Served, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        honest = store._server.post

        def then_be_killed(body: bytes, wait_s: float) -> None:
            honest(body, wait_s)
            server.kill()
            server.start()
            monkeypatch.undo()
            clock.now_s += 20
            store.settle()  # and so learns that another one is there

        monkeypatch.setattr(store._server, "post", then_be_killed)
        store.write(points_of(2))
        settle(store, clock)
        assert held(store) == [(NOON_MS + 1, 1.0), (NOON_MS + 2, 2.0)]


def test_a_snapshot_of_one_that_began_anew_meanwhile_settles_nothing(
    server: servers.Served, clock: Clock, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        clock.now_s += 20
        store.settle()
        honest = store._snapshot

        def after_a_kill() -> str:
            server.kill()
            server.start()
            return honest()

        with monkeypatch.context() as killed:
            killed.setattr(store, "_snapshot", after_a_kill)
            clock.now_s += 20
            store.settle()
        assert held(store) == [], "it has forgotten what it took"
        assert len(list(journal.iterdir())) == 1

        settle(store, clock)
        assert held(store) == [(NOON_MS + 1, 1.0)]
        assert list(journal.iterdir()) == []


STAGES = (
    "server:Server.post", "journal:Journal.append", "journal:Segment.add", "journal:Journal.seal",
    "victoriametrics:VictoriaMetricsStore._snapshot", "victoriametrics:VictoriaMetricsStore._forget", "journal:Journal.drop",
)  # fmt: skip
"""Before what a writer is killed: in a write, and in what settles it."""


def test_what_was_written_outlives_the_writer_and_the_server_killed_at_the_same_moment(
    server: servers.Served, clock: Clock, journal: Path
) -> None:
    written: list[int] = []
    for number, stage in enumerate(STAGES):
        child = subprocess.run(
            [sys.executable, "-m", "tests.gateway.store.lines_writer_child", server.url, journal, stage, str(number * 100)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        server.kill()
        assert child.returncode == -signal.SIGKILL, stage
        written += map(int, child.stdout.split())
        server.start()

    assert len(written) >= 2 * len(STAGES)
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        settle(store, clock)
        there = dict(held(store))
        assert [one for one in written if there.get(NOON_MS + one) != one] == []
        assert list(journal.iterdir()) == []


# ---- Settled ---------------------------------------------------------------------------------------------


def test_what_is_durable_there_is_dropped_here_and_no_snapshot_stays(victoria_metrics: str, clock: Clock, journal: Path) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as store:
        for number in range(3):
            store.write(points_of(number))
            settle(store, clock)
            assert list(journal.iterdir()) == []
    assert b'"snapshots":[]' in snapshots(victoria_metrics)


def test_what_it_took_a_moment_ago_a_snapshot_does_not_settle(victoria_metrics: str, clock: Clock, journal: Path) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as store:
        store.write(points_of(1))
        store.settle()
        clock.now_s += 4
        store.write(points_of(2))
        store.settle()
        assert len(list(journal.iterdir())) == 2
        clock.now_s += 2
        store.settle()
        assert len(list(journal.iterdir())) == 1, "the younger stays: it may be on its way to its disk"


def test_while_little_waits_it_is_left_in_peace(
    victoria_metrics: str, clock: Clock, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as store:
        store.write(points_of(1))
        settle(store, clock)
        store.write(points_of(2))
        clock.now_s += 14
        with monkeypatch.context() as silent:
            silent.setattr(store._server, "ask", None)
            store.settle()
        clock.now_s += 1
        store.settle()
        clock.now_s += 5
        store.settle()
        assert list(journal.iterdir()) == []

        monkeypatch.setattr(victoriametrics, "_MUCH", 1)
        store.write(points_of(3))
        store.settle()
        clock.now_s += 5
        store.settle()
        assert list(journal.iterdir()) == [], "but where much waits it is not"


def test_of_a_process_that_died_it_is_settled_by_another_and_of_a_living_one_left(
    victoria_metrics: str, clock: Clock, journal: Path
) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as living:
        living.write(points_of(1))
        with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as dead:
            dead.write(points_of(2))
        with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as another:
            assert len(list(journal.iterdir())) == 2
            settle(another, clock)
            assert len(list(journal.iterdir())) == 1
        settle(living, clock)
        assert list(journal.iterdir()) == []


def test_while_the_server_is_away_nothing_is_settled_and_nothing_lost(
    server: servers.Served, clock: Clock, journal: Path
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        server.kill()
        clock.now_s += 20
        with pytest.raises(StoreDown, match="gives no answer"):
            store.settle()
        with pytest.raises(StoreDown, match="gives no answer"):
            store.write(points_of(2))
        assert len(list(journal.iterdir())) == 1, "what it did not take is not kept either: nobody is told that it is written"
        server.start()
        store.write(points_of(3))
        store.settle()
        assert held(store) == [(NOON_MS + 1, 1.0), (NOON_MS + 3, 3.0)], "what it forgot is there again at the next look"


def test_a_body_that_it_refuses_when_it_is_given_again_is_kept_for_people(
    server: servers.Served, clock: Clock, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        store.write(points_of(2))
        server.kill()
        server.start()
        honest = store._server.post

        def refuse_one(body: bytes, wait_s: float) -> None:
            if b"value=1.0" in body:
                raise StoreRefused("will not take this (400: invented).", 400)
            honest(body, wait_s)

        monkeypatch.setattr(store._server, "post", refuse_one)
        settle(store, clock)
        assert held(store) == [(NOON_MS + 2, 2.0)]
        (aside,) = journal.iterdir()
        assert f"lies in {aside}, as lines for its /api/v2/write" in caplog.text

        with servers.get(f"{server.url}/api/v2/write?precision=ms", aside.read_bytes()):
            pass
        clock.now_s += 20
        assert held(store) == [(NOON_MS + 1, 1.0), (NOON_MS + 2, 2.0)], "as it says"


def test_what_a_disk_does_not_give_back_keeps_nothing_else_from_being_settled(
    victoria_metrics: str, clock: Clock, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that died, so that it is read. `check` counts it, and is no failure."""
    config = config_of(victoria_metrics)
    with closing(VictoriaMetricsStore(config, clock)) as dead:
        dead.write(points_of(1))
    (bad,) = journal.iterdir()
    inode, read = bad.stat().st_ino, os.pread

    def fail(descriptor: int, length: int, at: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, length, at)

    monkeypatch.setattr(os, "pread", fail)
    with closing(VictoriaMetricsStore(config, clock)) as store:
        store.write(points_of(2))
        settle(store, clock)
        assert [one.suffix for one in journal.iterdir()] == [".unread"]
    document = {
        "broker": {"url": "mqtt://127.0.0.1:1"},
        "state": {"url": "sqlite:///state.db"},
        "store": config.model_dump(),
        "api": {"tokens_file": "tokens"},
        "media": {"folder": "media"},
    }
    found = vitals.store(GatewayConfig.model_validate(document), NOON_MS * 1000)
    assert (found.level, bad.stem in found.text) == ("!!", True)


@pytest.mark.parametrize("stays", [0, 1])
def test_one_that_can_not_be_dropped_keeps_no_other(
    victoria_metrics: str, clock: Clock, journal: Path, monkeypatch: pytest.MonkeyPatch, stays: int
) -> None:
    config, unlink = config_of(victoria_metrics), Path.unlink
    for number in range(2):
        with closing(VictoriaMetricsStore(config, clock)) as dead:
            dead.write(points_of(number))
    kept = sorted(journal.iterdir())[stays]

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path == kept:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with closing(VictoriaMetricsStore(config, clock)) as store:
        with pytest.raises(OSError, match="Input/output error"):
            settle(store, clock)
        assert list(journal.iterdir()) == [kept]


def test_one_that_lets_us_in_no_more_is_given_it_once_it_does(
    server: servers.Served, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url), clock)) as store:
        store.write(points_of(1))
        server.kill()
        server.start()

        def refuse(body: bytes, wait_s: float) -> None:
            raise StoreRefused("refuses the login (401: invented).", 401)

        with monkeypatch.context() as refused:
            refused.setattr(store._server, "post", refuse)
            clock.now_s += 20
            with pytest.raises(StoreRefused, match="refuses the login"):
                store.settle()
        settle(store, clock)
        assert held(store) == [(NOON_MS + 1, 1.0)]


def test_of_several_that_write_and_settle_at_once_none_removes_what_is_another_s(
    victoria_metrics: str, caplog: pytest.LogCaptureFixture, journal: Path
) -> None:
    def write(worker: int) -> None:
        clock = Clock()
        with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as store:
            for number in range(10):
                store.write([((f"kita-{worker}", "trap-11", "heartbeat"), NOON_MS + number, 1.0)])
                settle(store, clock)

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(write, range(4)))

    assert not caplog.records, "no write failed, and no snapshot was missed when it was to be removed"
    assert b'"snapshots":[]' in snapshots(victoria_metrics)
    assert list(journal.iterdir()) == []


def test_a_snapshot_that_can_not_be_removed_is_said_and_its_points_count(
    victoria_metrics: str, clock: Clock, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics), clock)) as store:
        store._snapshot = lambda: "no-snapshot"  # type: ignore[method-assign]
        store.write(points_of(1))
        settle(store, clock)
    assert "snapshot no-snapshot stays until VictoriaMetrics removes it itself: " in caplog.text
    assert list(journal.iterdir()) == []


def test_a_full_journal_is_an_outage_before_the_server_is_asked(victoria_metrics: str) -> None:
    with closing(VictoriaMetricsStore(config_of(victoria_metrics).model_copy(update={"journal_mib": 0}))) as store:
        with pytest.raises(StoreDown, match=r"store\.journal: .*readings wait"):
            store.write([(("kita-02", "trap-11", "heartbeat"), NOON_MS, 1.0)])
        assert store.latest("kita-02", "trap-11", "heartbeat") is None


# ---- How it must be there --------------------------------------------------------------------------------


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
    server: servers.Served, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VictoriaMetricsStore(config_of(server.url).model_copy(update={"timeout_s": 0.5}), clock)) as store:
        store.write(points_of(1))
        clock.now_s += 20
        store.settle()
        honest = store._snapshot

        def hang() -> str:
            server.hang()
            return honest()

        monkeypatch.setattr(store, "_snapshot", hang)
        with pytest.raises(StoreDown, match=r"timed out.*the snapshot by which points become durable: .*timeout_s .0.5 s."):
            settle(store, clock)
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


# ---- In a gateway ----------------------------------------------------------------------------------------


def test_a_gateway_takes_up_at_its_start_what_the_one_before_left(
    server: servers.Served, tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "calm_collector", lambda: None)  # it is for a whole process, and this one has other tests
    monkeypatch.setattr(victoriametrics, "_MOVES_S", 0.0)
    with closing(VictoriaMetricsStore(config_of(server.url))) as before:
        before.write(points_of(1))
    server.kill()
    server.start()
    (tmp_path / "tokens").write_text("tanaka operator,officer invented-operator-token\n")
    (tmp_path / "tokens").chmod(0o600)
    config = GatewayConfig.model_validate(
        {
            "broker": {"url": f"mqtt://127.0.0.1:{free_port()}"},
            "state": {"url": f"sqlite:///{tmp_path / 'state.db'}"},
            "store": {"type": "victoriametrics", "url": server.url, "journal": journal},
            "api": {"tokens_file": tmp_path / "tokens", "port": 0},
            "media": {"folder": tmp_path / "media"},
        }
    )

    dropped, honest = threading.Event(), Journal.drop

    def drop(journal: Journal, segment: Segment) -> None:
        honest(journal, segment)
        dropped.set()

    monkeypatch.setattr(Journal, "drop", drop)

    async def until_it_is_settled() -> bool:
        async with running(config):
            return await asyncio.to_thread(dropped.wait, 20)

    assert asyncio.run(until_it_is_settled())
    assert list(journal.iterdir()) == []
    with closing(VictoriaMetricsStore(config_of(server.url))) as after:
        assert held(after) == [(NOON_MS + 1, 1.0)]
