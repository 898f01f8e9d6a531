"""On the whole way of a record: what comes too late is settled and dropped, who was erased is not written again."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.deployments import Deployment, Deployments
from gateway.keeping import erase_tag, erase_watched
from gateway.keeping.config import KeepConfig
from gateway.keeping.late import Keeps, late_by
from gateway.mimamori.enrolled import Enrolled
from gateway.pipeline import Pipeline
from gateway.rules.presence import Presence, PresenceConfig
from gateway.state import tables
from gateway.watch import Watch, WatchedRule
from tests.gateway.keeping.erased import found_in
from tests.gateway.paged import ZONE
from tests.gateway.town import MINUTE_US, NODE, SECOND_US, Town, batch, covered, event

ID, TAG, PLACE = "ab" * 8, "ibeacon:0f:1:2", "つばきの家"
DAY_US = 86_400 * SECOND_US


class Watched(Town):
    """A town in which a tag's button calls, and a presence rule remembers where the tag was."""

    def _open(self) -> None:
        super()._open()
        self.enrolled = Enrolled()
        deployments = Deployments([Deployment(node=NODE, device="tags", kind="tags", place=PLACE)])
        rules = [
            WatchedRule(
                when,
                "critical",
                Presence(PresenceConfig.model_validate({"type": "presence", "when": when}), deployments, self.enrolled, ZONE),
            )
            for when in ("button", "not_seen")
        ]
        self.watch = Watch(self.state, rules, deployments, self.telemetry, self._say, self.paging)
        self.pipeline = Pipeline(
            self.state, self.store, self.watch, self.telemetry, self._say, self.outgoing, self.paging,
            Keeps(self.is_ours, late_by(KeepConfig())),
        )  # fmt: skip

    def read(self) -> None:
        with self.state.read() as connection:
            self.enrolled.read(connection)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    with made:
        with made.state.write() as connection:
            homes = f'["{NODE}/tags"]'
            row = {"id": ID, "name": "花山ハナ乃", "family": "farmers", "homes": homes, "created_us": 0, "created_by": ""}
            connection.execute(insert(tables.watched), row)
            connection.execute(insert(tables.tags), {"tag": TAG, "watched": ID, "enrolled_us": 0, "enrolled_by": ""})
        made.read()
        yield made


def seen(seq: int, **more: Any) -> dict[str, Any]:
    return event(seq, type_="tag_seen", device="tags", class_="sighting", tag=TAG, rssi=-60, frames=5, **more)


def pressed(seq: int) -> dict[str, Any]:
    return event(seq, type_="button_pressed", device="tags", class_="alarm", tag=TAG, rssi=-60, press="press")


@pytest.mark.sqlite_only("looks into the file")
def test_series_and_logs_hold_nothing_of_a_tag(town: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    town.process(batch(events=[seen(1), pressed(2)], readings=[[3, 0, "tags", "heartbeat", 1.0]]))
    town.tick()
    assert {name for name, _ in found_in(town.folder, (TAG,))} <= {"state.db", "state.db-wal", "state.db-shm"}
    assert found_in(town.folder, (TAG,))
    with town.state.read() as connection:
        latest = connection.execute(tables.latest.select()).all()
    assert latest
    assert TAG not in str(latest)
    assert not any(word in caplog.text for word in (TAG, "花山", PLACE))


def test_who_was_erased_is_not_written_again_by_what_the_watch_has_in_memory(
    town: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    town.process(batch(events=[seen(1), pressed(2)]))
    town.tick()
    assert [state for _, state in town.alerts()] == ["firing"]
    with town.state.write() as connection:
        erase_watched(connection, ID, "test", town.now_us)
    for minutes in (1, 11):  # the rules may not know of it for some seconds
        town.later(minutes * MINUTE_US)
        town.process(batch(events=[event(10 + minutes, type_="trap_reset")]))
        town.tick()
        assert town.rows(tables.alerts) == []
        assert town.state.empty_log()
        assert found_in(town.folder, (TAG, "花山ハナ乃")) == []
    town.read()
    town.tick()
    town.later(11 * MINUTE_US)
    town.tick()
    assert town.state.empty_log()
    assert town.rows(tables.alerts) == []
    assert town.rows(tables.notifications) == []
    assert [row for row in town.rows(tables.rule_states) if PLACE in row["body"] or TAG in row["body"]] == []
    assert found_in(town.folder, (TAG, "花山ハナ乃")) == []
    assert not any(word in caplog.text for word in (TAG, "花山", PLACE))


def test_where_an_erased_tag_was_is_not_written_again_though_nobody_is_heard(town: Watched) -> None:
    """Its person carries another, and so the alert goes on; without the broker no rule judges anew."""
    with town.state.write() as connection:
        connection.execute(insert(tables.tags), {"tag": "other", "watched": ID, "enrolled_us": 0, "enrolled_by": ""})
    town.process(batch(events=[pressed(1)]))
    town.tick()
    assert any(PLACE in row["facts"] for row in town.rows(tables.alerts))
    with town.state.write() as connection:
        erase_tag(connection, TAG, "test", town.now_us + 1)
    town.read()
    for _ in range(3):
        town.later(4 * MINUTE_US)
        town.watch.tick(town.now_us, None)
    assert [state for _, state in town.alerts()] == ["firing"]
    assert [row for table in (tables.rule_states, tables.alerts) for row in town.rows(table) if PLACE in str(row)] == []


def test_where_a_tag_was_weeks_ago_is_settled_and_dropped(town: Watched) -> None:
    old = batch(events=[seen(1, dt=-20 * DAY_US), seen(2)])
    for _ in range(2):  # sent again, it is settled again
        acks = town.process(old)
        assert all(seq in covered(acks) for seq in (1, 2))
    assert town.seqs() == [2]
    assert town.telemetry.too_late.labels("sightings")._value.get() == 1
    assert [(row["kind"], row["node"], row["count"]) for row in town.rows(tables.removals)] == [("sightings", NODE, 1)]
    assert town.reasons() == []


def test_a_traps_alarm_is_never_too_late(town: Watched) -> None:
    town.process(batch(events=[event(1, dt=-20 * DAY_US)]))
    assert town.seqs() == [1]
