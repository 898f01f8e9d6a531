"""Alarms that come together are told together, and each as if it had come alone."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sql_event

from gateway.alerting.route import RouteConfig
from gateway.state import tables
from tests.gateway.town import SECOND_US, Town, batch, event

MANY = 40
"""Alarms in one group of messages."""


def sprung(count: int, first: int = 1) -> Any:
    return batch(events=[event(seq, device=f"trap-{seq}") for seq in range(first, first + count)])


def statements(town: Town, message: Any) -> int:
    """How many statements it takes until all of it is told."""
    counted: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        counted.append(statement)

    sql_event.listen(town.state._engine, "before_cursor_execute", note)
    try:
        town.process(message)
    finally:
        sql_event.remove(town.state._engine, "before_cursor_execute", note)
    return len(counted)


def said(town: Town) -> list[tuple[str, bool]]:
    """What was queued for the first contact: (of which device, whether it says that it is over)."""
    bodies = [json.loads(row["body"]) for row in town.rows(tables.notifications) if row["contact"] == "farmers"]
    return [(body["data"]["device"], body["over"]) for body in bodies]


def test_many_alarms_of_one_group_are_a_message_each_at_once(town: Town) -> None:
    town.process(sprung(MANY))
    assert sorted(said(town)) == sorted((f"trap-{number}", False) for number in range(1, MANY + 1))
    assert [row["changed"] for row in town.rows(tables.pages)] == [False] * MANY


def test_the_next_alarm_of_a_group_costs_a_part_of_what_the_first_does(town: Town) -> None:
    """Pages, people and messages are read for all of them together: else fifty alarms a second are more than a core can do."""
    town.process(sprung(1))
    alone = statements(town, sprung(1, first=100))
    together = statements(town, sprung(1 + MANY, first=200))
    assert (together - alone) / MANY < alone / 2


def test_sprung_and_reset_in_one_group_is_told_as_sprung_and_not_only_as_over(town: Town) -> None:
    town.process(batch(events=[event(1), event(2, SECOND_US, "trap_reset")]))
    assert town.alerts() == [("sprung", "resolved")]
    assert said(town) == [("trap-11", False)]


def test_sprung_reset_and_sprung_again_in_one_group_are_two_catches(town: Town) -> None:
    town.process(batch(events=[event(1), event(2, SECOND_US, "trap_reset"), event(3, 2 * SECOND_US)]))
    assert [one for one in said(town) if not one[1]] == [("trap-11", False)] * 2


def test_alarms_of_one_group_that_are_one_page_are_one_message(tmp_path: Path) -> None:
    with Town(tmp_path, routes=[RouteConfig(to=["farmers"], group_by=["node"])]) as town:
        town.process(sprung(3))
        assert len(town.rows(tables.pages)) == 1
        assert len(said(town)) == 1
        assert all(row["told_us"] is not None for row in town.rows(tables.page_alerts)), "it names them all"


def test_an_alarm_that_is_over_in_its_own_group_is_named_beside_those_of_its_page_that_are_not(tmp_path: Path) -> None:
    with Town(tmp_path, routes=[RouteConfig(to=["farmers"], group_by=["node"])]) as town:
        reset = event(3, SECOND_US, "trap_reset", device="trap-1")
        town.process(batch(events=[event(1, device="trap-1"), event(2, device="trap-2"), reset]))
        assert len(town.rows(tables.page_alerts)) == 2
        assert all(row["told_us"] is not None for row in town.rows(tables.page_alerts))


def test_one_page_that_cannot_be_told_stops_no_other_of_its_group(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = town.teller.message

    def broken(id_: str, person: Any, tell: Any, about: Any, now_us: int) -> Any:
        if about.alerts[0].device == "trap-2":
            raise KeyError("a mistake in a sentence")
        return real(id_, person, tell, about, now_us)

    monkeypatch.setattr(town.teller, "message", broken)
    with caplog.at_level(logging.ERROR):
        town.process(sprung(3))
    assert sorted(said(town)) == [("trap-1", False), ("trap-3", False)]
    monkeypatch.undo()
    town.tick()
    assert sorted(said(town)) == [("trap-1", False), ("trap-2", False), ("trap-3", False)]
