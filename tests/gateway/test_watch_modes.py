"""Mutes by the town's mode and by maintenance, what is not damped as flapping, a rule's mistakes that cost no alert."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert, select

from gateway.alerting.mute import FlappingConfig, MaintenanceConfig, Muting
from gateway.rules import Fact, Memory, Verdict
from gateway.rules.occurrence import OccurrenceConfig
from gateway.state import tables
from tests.gateway.town import MINUTE_US, SECOND_US, Town, batch, event

CALM = OccurrenceConfig(type="occurrence", event="trap_sprung", until="trap_reset", severity="critical", mode="normal")
WILD = OccurrenceConfig(type="occurrence", event="trap_sprung", until="trap_reset", severity="critical", mode="disaster")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path, {"calm": CALM, "wild": WILD}) as opened:
        yield opened


def switch(town: Town, mode: str) -> None:
    with town.state.write() as connection:
        row = {"mode": mode, "since_us": town.now_us, "who": "officer", "why": "test"}
        connection.execute(insert(tables.town_modes), row)


def told(town: Town) -> list[str]:
    """The rules of whose alerts somebody was told, in order."""
    with town.state.read() as connection:
        query = select(tables.alerts.c.rule).join(tables.page_alerts).where(tables.page_alerts.c.told_us.is_not(None))
        return list(connection.scalars(query.order_by(tables.page_alerts.c.told_us)))


def muted(town: Town) -> dict[str, Any]:
    return {row["rule"]: (row["state"], row["suppressed_by"]) for row in town.rows(tables.alerts)}


def test_a_rule_for_the_other_mode_is_suppressed_and_says_so(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    assert muted(town) == {"calm": ("firing", None), "wild": ("suppressed", "mode")}
    assert told(town) == ["calm"]


def test_when_the_town_switches_what_stands_is_told_by_the_rules_that_apply_now(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    for _ in range(3):
        town.later(SECOND_US)
        town.tick()
    switch(town, "disaster")
    town.later(SECOND_US)
    town.tick()
    assert muted(town) == {"calm": ("suppressed", "mode"), "wild": ("firing", None)}
    assert told(town) == ["calm", "wild"]
    switch(town, "normal")
    town.later(SECOND_US)
    town.tick()
    assert muted(town) == {"calm": ("firing", None), "wild": ("suppressed", "mode")}
    assert told(town) == ["calm", "wild"], "it was told before, and is not told twice"


def test_the_mode_is_by_level_also_after_a_restart_and_for_the_very_next_fact(town: Town) -> None:
    switch(town, "disaster")
    town.restart()
    town.process(batch(events=[event(1)]))
    assert told(town) == ["wild"]


def test_a_rule_of_no_mode_is_told_in_both(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        switch(town, "disaster")
        town.process(batch(events=[event(1)]))
        assert told(town) == ["sprung"]


class Seeing:
    """Fires at each event, as another thing; says things that are no JSON."""

    events = frozenset({"trap_sprung"})
    metrics: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        memory["seen"] = datetime.fromtimestamp(now_us / 1e6, UTC)
        return Verdict("firing", fact.time_us, fact.id, reason="seen", facts={"species": frozenset({"boar"}), 3: "three"})  # type: ignore[dict-item]

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:
        return None


class Counting(Seeing):
    """Counts by itself what repeats."""

    flaps = False


@pytest.mark.parametrize(("rule", "number"), [(Seeing(), 3), (Counting(), 6)], ids=["flaps", "counts by itself"])
def test_what_counts_repetitions_by_itself_is_not_damped(tmp_path: Path, rule: Any, number: int) -> None:
    muting = Muting(flapping=FlappingConfig.model_validate({"count": 2, "within": "1h"}))
    with Town(tmp_path, muting=muting) as town:
        replace_rule(town, rule)
        for seq in range(1, 7):
            town.process(batch(events=[event(seq)]))
            town.later(MINUTE_US)
            town.tick()
        assert len([row for row in town.rows(tables.alert_history) if row["after"] == "firing"]) == number


def test_facts_that_are_no_json_cost_neither_the_alert_nor_the_commit(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        replace_rule(town, Seeing())
        acks = town.process(batch(events=[event(1)]))
        town.tick()
        assert town.alerts() == [("sprung", "firing")]
        assert acks[0].upto == 1
        assert "boar" in town.rows(tables.alerts)[0]["facts"]


def replace_rule(town: Town, rule: Any) -> None:
    watch = town.watch
    one = watch._judge._rules["sprung"]._replace(rule=rule, severity="warning", flaps=getattr(rule, "flaps", True))
    watch._judge._rules["sprung"] = one  # type: ignore[index]
    watch._judge._on.clear()
    watch._judge._on["trap_sprung"].append(one)


def test_alerts_that_no_rule_can_end_any_more_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Town(tmp_path, {"calm": CALM}) as town:
        town.process(batch(events=[event(1)]))
        town._rules = {"other": WILD}
        town.restart()
        with caplog.at_level(logging.WARNING):
            town.tick()
            town.later(MINUTE_US)
            town.tick()
        assert len([one for one in caplog.records if "not configured any more stay open (calm)" in one.message]) == 1
        assert town.alerts() == [("calm", "firing")], "that it is over nobody has said"


def test_maintenance_mutes_what_comes_in_its_hours_and_what_still_stands_is_told_when_they_end(tmp_path: Path) -> None:
    hours = MaintenanceConfig.model_validate({"from": "06:00", "to": "07:00", "why": "わなの点検", "match": {"kind": "trap"}})
    with Town(tmp_path, muting=Muting(windows=(hours,), zone=ZoneInfo("Asia/Tokyo"))) as town:  # it is 06:12
        town.process(batch(events=[event(1)]))
        assert muted(town) == {"sprung": ("suppressed", "maintenance:わなの点検")}
        town.later(47 * MINUTE_US)
        town.tick()
        assert told(town) == []
        town.later(MINUTE_US)
        town.tick()
        assert muted(town) == {"sprung": ("firing", None)}
        assert told(town) == ["sprung"]
