"""Periodic work: each in its time, and none in the way of another."""

import logging
import threading
from functools import partial

import pytest

from gateway.chores import Chore, Chores
from gateway.telemetry import Telemetry

S = 1_000_000
NOW_US = 1_780_434_720_000_000


class Diary:
    """Chores that write down when they ran, and fail while told to."""

    def __init__(self, **every_s: float) -> None:
        self.ran: list[tuple[str, int]] = []
        self.broken: set[str] = set()
        self.telemetry = Telemetry()
        self.chores = Chores(
            [Chore(name, every, partial(self._run, name)) for name, every in every_s.items()],
            self.telemetry,
            lambda: NOW_US,
        )

    def _run(self, name: str, now_us: int) -> None:
        if name in self.broken:
            raise RuntimeError("no ink")
        self.ran.append((name, now_us))

    def errors(self, name: str) -> float:
        return self.telemetry.registry.get_sample_value("satomori_chore_errors_total", {"chore": name}) or 0


def test_each_runs_soon_after_the_start_and_then_in_its_own_time() -> None:
    diary = Diary(fast=10, slow=60)
    for at in range(0, 61, 5):
        diary.chores.step(NOW_US + at * S)
    assert [(now_us - NOW_US) // S for name, now_us in diary.ran if name == "fast"] == [0, 10, 20, 30, 40, 50, 60]
    assert [(now_us - NOW_US) // S for name, now_us in diary.ran if name == "slow"] == [0, 60]


def test_one_that_fails_does_not_stop_the_others_and_is_told_once_down_and_once_up(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary(first=10, second=10)
    diary.broken = {"first"}
    with caplog.at_level(logging.WARNING, "gateway.chores"):
        for at in (0, 10, 20):
            diary.chores.step(NOW_US + at * S)
        assert [name for name, _ in diary.ran] == ["second"] * 3
        diary.broken = set()
        diary.chores.step(NOW_US + 30 * S)
        diary.chores.step(NOW_US + 40 * S)
    assert [record.getMessage() for record in caplog.records] == [
        "chore first failed; it is tried again each 10 s",
        "chore first works again",
    ]
    assert caplog.records[0].exc_info
    assert (diary.errors("first"), diary.errors("second")) == (3, 0)


def test_who_rings_need_not_wait() -> None:
    diary = Diary(hourly=3600)
    diary.chores.step(NOW_US)
    assert diary.chores.step(NOW_US + S) == []
    diary.chores.ring("hourly")
    assert diary.chores.step(NOW_US + 2 * S) == ["hourly"]
    assert diary.chores.step(NOW_US + 3 * S) == []
    with pytest.raises(ValueError, match="no chore 'houly'"):
        diary.chores.ring("houly")


def test_a_clock_that_is_set_back_does_not_stop_them() -> None:
    diary = Diary(chore=10)
    diary.chores.step(NOW_US)
    assert diary.chores.step(NOW_US - 3600 * S) == ["chore"]
    assert diary.chores.step(NOW_US - 3599 * S) == []


def test_two_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="one name"):
        Chores([Chore("a", 1, print), Chore("a", 2, print)], Telemetry(), lambda: NOW_US)


def test_the_thread_ends_when_it_is_asked_to_after_the_chore_that_runs() -> None:
    began, go_on = threading.Event(), threading.Event()
    later: list[int] = []

    def slow(_: int) -> None:
        began.set()
        assert go_on.wait(10)

    chores = Chores([Chore("slow", 1, slow), Chore("later", 1, later.append)], Telemetry(), lambda: NOW_US)
    thread = threading.Thread(target=chores.run)
    thread.start()
    assert began.wait(10)
    chores.stop()
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert later == []
