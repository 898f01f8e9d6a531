"""Readings handed from one process to another: judged in their order, let go of only after that, judged again after a crash."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway import judging
from gateway.judging import Handing, Judging
from gateway.rules import Fact
from gateway.state import State, open_state
from gateway.state.tables import handed
from tests.gateway.town import NODE, NOW_US, Killed, locked


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
