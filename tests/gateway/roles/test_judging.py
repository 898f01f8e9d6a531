"""Readings handed from one process to another: judged in their order, let go of only after that, judged again after a crash."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway import judging, vitals
from gateway.judging import Handing, Judging
from gateway.rules import Fact
from gateway.state import State, open_state
from gateway.state.tables import handed
from gateway.telemetry import Telemetry
from tests import postgresql
from tests.gateway.scraped import Shown
from tests.gateway.town import NODE, NOW_US, Killed, locked

HOUR_US = 3600 * 1_000_000


def facts(first: int, last: int, metric: str = "battery") -> list[Fact]:
    return [Fact(NODE, "罠-11", metric, at / 3, NOW_US + at, NOW_US, False, f"e:{at}") for at in range(first, last + 1)]


class Watch:
    """In the place of who judges: notes what it is given, and what waits at that moment."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.judged: list[list[Fact]] = []
        self.waited: list[int] = []
        self.ticks: list[int | None] = []
        self.fails: BaseException | None = None

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        assert now_us == NOW_US
        self.judged.append(list(readings))
        self.waited.append(waiting(self._state))
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        assert now_us == NOW_US
        self.ticks.append(listening_since_us)


def waiting(state: State) -> int:
    with state.read() as connection:
        return len(connection.execute(select(handed.c.id)).all())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def watch(state: State) -> Watch:
    return Watch(state)


def judging_by(state: State, watch: Watch) -> Judging:
    return Judging(state, watch, watch, lambda: NOW_US, lambda: NOW_US - 7)


def test_what_was_handed_on_is_judged_whole_and_in_its_order(state: State, watch: Watch) -> None:
    rung: list[int] = []
    handing = Handing(state, frozenset({"battery"}), lambda: rung.append(waiting(state)))
    handing.run(facts(1, 3), NOW_US)
    handing.run(iter(facts(4, 5)), NOW_US)
    handing.run([], NOW_US)  # events alone: they stand in their table, and whoever judges is told all the same
    assert rung == [3, 5, 5]
    assert judging_by(state, watch).step(NOW_US) is False
    assert watch.judged == [facts(1, 5)]
    assert all(type(fact) is Fact for fact in watch.judged[0])


def test_it_is_let_go_of_only_after_it_was_judged_and_never_judged_again(state: State, watch: Watch) -> None:
    Handing(state, frozenset(), lambda: None).run(facts(1, 2), NOW_US)
    judge = judging_by(state, watch)
    judge.step(NOW_US)
    judge.step(NOW_US)
    assert watch.waited == [2, 0]
    assert watch.judged == [facts(1, 2), []]


@pytest.mark.parametrize("fails", [Killed(), locked()], ids=["killed", "the database is away"])
def test_what_was_not_judged_to_its_end_is_judged_again(state: State, watch: Watch, fails: BaseException) -> None:
    Handing(state, frozenset(), lambda: None).run(facts(1, 2), NOW_US)
    watch.fails = fails
    with pytest.raises(type(fails)):
        judging_by(state, watch).step(NOW_US)
    judging_by(state, watch).step(NOW_US)  # another process
    assert watch.judged == [facts(1, 2), facts(1, 2)]
    assert waiting(state) == 0


def test_much_is_judged_in_parts_without_a_pause_and_what_comes_meanwhile_stays(
    state: State, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "AT_ONCE", 2)
    monkeypatch.setattr(judging, "_WAITING", judging._WAITING.limit(2))
    handing, judge = Handing(state, frozenset(), lambda: None), judging_by(state, watch)
    handing.run(facts(1, 3), NOW_US)
    assert judge.step(NOW_US) is True
    handing.run(facts(4, 4), NOW_US)
    assert judge.step(NOW_US) is True
    assert judge.step(NOW_US) is False
    assert watch.judged == [facts(1, 2), facts(3, 4), []]


def test_time_passes_after_what_waits_and_an_outage_ends_nothing(state: State, watch: Watch) -> None:
    Handing(state, frozenset(), lambda: None).run(facts(1, 1), NOW_US)
    watch.fails = locked()
    judge = judging_by(state, watch)

    def tick(now_us: int, listening_since_us: int | None) -> None:
        assert watch.judged[1:2] == [facts(1, 1)]
        Watch.tick(watch, now_us, listening_since_us)
        judge.stop()

    watch.tick = tick  # type: ignore[method-assign]
    judge.run()
    assert watch.ticks[0] == NOW_US - 7


# --- while nobody judges ----------------------------------------------------------------------------


@pytest.fixture
def shared(server: postgresql.Server, request: pytest.FixtureRequest) -> Iterator[State]:
    opened = open_state(server.make(request.node.name[:60]))
    yield opened
    opened.close()


def handed_at(received_us: int, device: str, seq: int, time_us: int | None = None) -> Fact:
    return Fact(NODE, device, "battery", seq / 3, received_us if time_us is None else time_us, received_us, False, f"e:{seq}")


@pytest.mark.services
def test_of_what_waits_for_hours_only_the_newest_of_each_series_is_kept_and_that_is_said_once(
    shared: State, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    gone: list[int] = []
    handing = Handing(shared, frozenset(), lambda: None, gone.append)
    minute_us = HOUR_US // 60
    old = [handed_at(NOW_US - 3 * HOUR_US + at * minute_us, "罠-11", at) for at in range(100)]
    silent = [
        handed_at(NOW_US - 2 * HOUR_US, '罠-"12"', 7),
        handed_at(NOW_US - 2 * HOUR_US + 1, '罠-"12"', 3, NOW_US - 5 * HOUR_US),
    ]
    late = [handed_at(NOW_US - at * minute_us, "罠-11", 200 - at) for at in range(59, -1, -1)]
    handing.run([*old, *silent, *late], NOW_US)
    assert handing.forget(NOW_US) == 101
    assert handing.forget(NOW_US) == 0
    assert gone == [101, 0]
    telemetry = Telemetry()
    vitals.waiting(shared, telemetry, NOW_US)
    assert Shown(telemetry)("handed_oldest_seconds") == 2 * 3600
    with shared.read() as connection:
        assert "the oldest reading not judged for 2 h" in vitals.queues(connection, NOW_US).text
    judging_by(shared, watch).step(NOW_US)
    assert watch.judged == [[silent[0], *late]], "the silent one was heard: its age is known, and the last hour is judged whole"
    handing.run([handed_at(NOW_US, "罠-11", 201)], NOW_US)
    handing.forget(NOW_US)
    handing.forget(NOW_US)
    said = [record.getMessage() for record in caplog.records if record.name == judging.__name__]
    assert [line.partition(":")[0] for line in said] == ["no process judges", "readings are judged again"]


@pytest.mark.services
def test_what_comes_by_the_million_is_bounded_within_the_hour_and_by_several_processes_at_once(
    shared: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "MOST", 300)
    monkeypatch.setattr(judging, "AT_ONCE", 7)
    many = [handed_at(NOW_US, f"d-{at % 3}", at) for at in range(1000)]
    first, second = (Handing(shared, frozenset(), lambda: None) for _ in range(2))
    first.run(many, NOW_US)
    with ThreadPoolExecutor(2) as pool:
        gone = [*pool.map(lambda one: one.forget(NOW_US), (first, second))]
    assert (sum(gone), waiting(shared)) == (700, 300)
    with shared.read() as connection:
        assert connection.scalar(text("SELECT min(id) FROM handed")) == 701


@pytest.mark.services
def test_what_waits_for_less_stays_whole(shared: State) -> None:
    handing = Handing(shared, frozenset(), lambda: None)
    handing.run([handed_at(NOW_US - HOUR_US, "罠-11", at) for at in range(50)], NOW_US)
    assert (handing.forget(NOW_US), waiting(shared)) == (0, 50)
