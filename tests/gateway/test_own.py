"""What the gateway finds out about itself becomes an alert like any other, and is told."""

from pathlib import Path
from typing import Any

import pytest

from gateway.own import Own, Probe
from gateway.state import tables
from gateway.watch import Watch
from tests.gateway.town import SECOND_US, Town


class Parts:
    """A town with nothing but its own parts."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.fault: str | None = None
        self.own = Own({"broker": Probe(lambda: self.fault, 60)})
        self.begin()

    def begin(self) -> None:
        old = self.town.watch
        self.town.watch = Watch(
            self.town.state, [self.own.watched()], self.town.deployments, self.town.telemetry, old._say, self.town.paging
        )
        self.town.pipeline._watch = self.town.watch

    def passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.town.later(SECOND_US)
            self.town.tick(listening_since_us=None)

    def alerts(self) -> list[tuple[Any, ...]]:
        return [tuple(row[name] for name in ("kind", "device", "severity", "state")) for row in self.town.rows(tables.alerts)]


@pytest.fixture
def parts(town: Town) -> Parts:
    return Parts(town)


def test_a_broker_that_is_away_for_a_minute_is_told_though_nothing_comes_in(parts: Parts) -> None:
    parts.fault = "connection lost"
    parts.passes(60)
    assert parts.alerts() == []
    parts.passes(2)
    assert parts.alerts() == [("gateway", "broker", "critical", "firing")]
    assert len(parts.town.rows(tables.notifications)) == 2
    parts.fault = None
    parts.passes(1)
    assert parts.alerts() == [("gateway", "broker", "critical", "resolved")]


def test_a_broker_that_only_starts_anew_wakes_nobody(parts: Parts) -> None:
    for _ in range(5):
        parts.fault = "connection lost"
        parts.passes(50)
        parts.fault = None
        parts.passes(1)
    assert parts.alerts() == []


def test_a_condition_that_others_find_is_an_alert_until_they_say_that_it_is_over(parts: Parts) -> None:
    parts.own.condition("line_quota", "firing", "10 of 200 left", {"left": 10})
    parts.passes(2)
    assert parts.alerts() == [("gateway", "line_quota", "warning", "firing")]
    assert parts.town.rows(tables.alerts)[0]["facts"] == '{"left": 10, "part": "line_quota"}'
    parts.own.condition("line_quota", "ok")
    parts.passes(1)
    parts.own.condition("line_quota", "firing", "5 of 200 left")
    parts.passes(1)
    assert [state for *_, state in parts.alerts()] == ["resolved", "firing"]


def test_another_opening_of_a_condition_is_another_alert(parts: Parts) -> None:
    for opening in ("day 1", "day 1", "day 2"):
        parts.own.condition("canary", "firing", "not answered", opening=opening)
        parts.passes(1)
    assert [state for *_, state in parts.alerts()] == ["resolved", "firing"]


def test_after_a_restart_a_condition_stands_until_somebody_speaks_of_it(parts: Parts) -> None:
    parts.own.condition("line_quota", "firing", "10 of 200 left")
    parts.passes(2)
    parts.own = Own()
    parts.begin()
    parts.passes(70)
    assert parts.alerts() == [("gateway", "line_quota", "warning", "firing")]
    parts.own.condition("line_quota", "firing", "9 of 200 left")
    parts.passes(1)
    assert len(parts.town.rows(tables.notifications)) == 2, "told once"
    parts.own.condition("line_quota", "ok")
    parts.passes(1)
    assert parts.alerts() == [("gateway", "line_quota", "warning", "resolved")]


def test_a_level_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say ok, pending or firing"):
        Own().condition("x", "bad")
