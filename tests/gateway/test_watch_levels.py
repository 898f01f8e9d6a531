"""By level: what stands is compared with the rows at each tick, mutes begin and end by themselves, rules judge other subjects."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from gateway import silences
from gateway.alerting.lifecycle import Alert, resolve, shelve
from gateway.alerting.mute import FlappingConfig, Muting
from gateway.alerting.route import Match
from gateway.moves import write_move
from gateway.rules import Fact, Memory, Verdict
from gateway.rules.absence import AbsenceConfig
from gateway.rules.occurrence import OccurrenceConfig
from gateway.state import tables
from gateway.watch import Watch, WatchedRule
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, NOW_US, SECOND_US, Town, batch, event, reading

KNOCK = OccurrenceConfig(type="occurrence", event="trap_sprung", until="trap_reset")  # a warning
SILENT = AbsenceConfig.model_validate({"type": "absence", "of": "heartbeat", "for": "10m"})


def current(town: Town) -> Alert:
    """The one alert that is not over."""
    with town.state.read() as connection:
        query = select(tables.alerts).where(tables.alerts.c.state != "resolved")
        return Alert(**connection.execute(query).mappings().one())


def steps(town: Town) -> list[tuple[Any, ...]]:
    """What the history says of it all."""
    return [(row["before"], row["after"], row["who"], row["why"]) for row in town.rows(tables.alert_history)]


def silence(town: Town, until_us: int, **match: str) -> int:
    with town.state.write() as connection:
        return int(silences.add(connection, Match(**match), None, until_us, "test", "tanaka", town.now_us)["id"])


class Moves:
    """Paging that only keeps what it is told."""

    def __init__(self, town: Town) -> None:
        self.told: list[tuple[str, str, bool]] = []
        real = town.paging.moved

        def moved(connection: Any, move: Any, now_us: int) -> None:
            self.told.append((move.alert.rule, move.alert.state, move.tell))
            real(connection, move, now_us)

        town.paging.moved = moved  # type: ignore[method-assign]

    @property
    def rang(self) -> list[str]:
        return [rule for rule, _, tell in self.told if tell]


# ---- what was missed --------------------------------------------------------------------------------------


def test_an_alert_whose_end_was_missed_ends_by_itself(town: Town) -> None:
    town.process(batch(events=[event(1), event(2, SECOND_US, "trap_reset")]))
    with town.state.write() as connection:  # as a database does that was restored to a moment in between
        connection.execute(update(tables.alerts).values(state="firing", resolved_us=None))
    town.restart()
    town.tick()
    assert town.alerts() == [("sprung", "resolved")]
    assert steps(town)[-1] == ("firing", "resolved", "rule", "no longer so")


def test_an_alert_whose_beginning_was_missed_begins_and_is_told(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    with town.state.write() as connection:
        for table in (tables.page_alerts, tables.notifications, tables.pages, tables.alert_history, tables.alerts):
            connection.execute(delete(table))
    town.restart()
    moves = Moves(town)
    town.tick()
    town.tick()
    assert town.alerts() == [("sprung", "firing")]
    assert moves.rang == ["sprung"]


def test_rows_are_compared_now_and_then_even_where_no_history_says_that_one_changed(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    town.tick()
    with town.state.write() as connection:
        connection.execute(update(tables.alerts).values(state="pending"))
    town.tick()
    assert current(town).state == "pending"
    town.later(MINUTE_US)
    town.tick()
    assert current(town).state == "firing"


def test_what_nobody_remembers_anything_of_is_left_to_a_person(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    with town.state.write() as connection:
        connection.execute(delete(tables.rule_states))
    town.restart()
    town.tick()
    assert town.alerts() == [("sprung", "firing")]


def test_an_end_is_taken_though_what_the_rule_remembered_is_lost(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    with town.state.write() as connection:
        connection.execute(delete(tables.rule_states))
    town.restart()
    town.process(batch(events=[event(2, SECOND_US, "trap_reset")]))
    assert town.alerts() == [("sprung", "resolved")]


def test_what_a_person_resolved_stays_so_while_the_rule_still_says_it(tmp_path: Path) -> None:
    with Town(tmp_path, {"sprung": KNOCK}) as town:
        town.process(batch(events=[event(1)]))
        with town.state.write() as connection:
            move = resolve(current(town), "tanaka", "seen on site", town.now_us)
            assert move is not None
            assert write_move(connection, move, town.now_us)
            assert not write_move(connection, move, town.now_us), "an old tap moves nothing"
        moves = Moves(town)
        for _ in range(3):
            town.later(MINUTE_US)
            town.tick()
        town.restart()
        town.tick()
        assert town.alerts() == [("sprung", "resolved")]
        assert moves.told == []
        town.process(batch(events=[event(2, HOUR_US)]))
        assert sorted(state for _, state in town.alerts()) == ["firing", "resolved"]


def test_states_that_an_earlier_release_saved_are_understood(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    with town.state.write() as connection:
        [row] = town.rows(tables.rule_states)
        body = json.loads(row["body"])
        own = body.pop("watch")["standing"]
        old = {**body, "level": own[0], "opening": own[2]}
        connection.execute(update(tables.rule_states).values(body=json.dumps(old)))
    town.restart()
    moves = Moves(town)
    town.tick()
    assert (town.alerts(), moves.told) == ([("sprung", "firing")], [])
    town.process(batch(events=[event(2, SECOND_US, "trap_reset")]))
    assert town.alerts() == [("sprung", "resolved")]


def test_an_event_that_the_gateway_made_is_judged_at_the_next_tick(town: Town) -> None:
    town.tick()  # what a start has to judge anyway is judged
    with town.state.write() as connection:
        made = {"epoch": "gateway", "seq": 1, "type": "trap_sprung", "class_": "alarm", "late": False, "clock_trusted": True}
        times = dict.fromkeys(("time_us", "node_time_us", "received_us"), NOW_US)
        connection.execute(insert(tables.events).values(node=NODE, device="trap-11", body="{}", **made, **times))
    town.tick()
    assert town.alerts() == [("sprung", "firing")]


# ---- mutes ------------------------------------------------------------------------------------------------


def test_what_is_silenced_is_told_once_when_the_silence_ends(town: Town) -> None:
    id_ = silence(town, NOW_US + HOUR_US, kind="trap")
    moves = Moves(town)
    town.process(batch(events=[event(1)]))
    assert (current(town).state, current(town).suppressed_by) == ("suppressed", f"silence:{id_}")
    assert (moves.rang, town.rows(tables.notifications)) == ([], [])
    town.restart()
    moves = Moves(town)
    town.later(HOUR_US - 1)
    town.tick()
    assert moves.told == []
    town.later(1)
    town.tick()
    town.tick()
    assert (current(town).state, moves.rang) == ("firing", ["sprung"])
    assert steps(town)[-1] == ("suppressed", "firing", "rule", f"silence:{id_} ended")


def test_a_silence_over_what_was_told_already_does_not_have_it_told_again(town: Town) -> None:
    moves = Moves(town)
    town.process(batch(events=[event(1)]))
    id_ = silence(town, NOW_US + HOUR_US, node=NODE)
    town.tick()
    assert current(town).state == "suppressed"
    with town.state.write() as connection:
        assert silences.end(connection, id_, "tanaka", town.now_us)
    town.tick()
    assert (current(town).state, moves.rang) == ("firing", ["sprung"])


def test_what_was_silenced_and_is_over_when_the_silence_ends_is_never_told(town: Town) -> None:
    silence(town, NOW_US + HOUR_US, kind="trap")
    moves = Moves(town)
    town.process(batch(events=[event(1), event(2, SECOND_US, "trap_reset")]))
    town.later(2 * HOUR_US)
    town.tick()
    assert (town.alerts(), moves.rang) == ([("sprung", "resolved")], [])


def test_a_shelved_alert_fires_and_is_told_again_when_its_time_is_over_also_after_a_restart(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    with town.state.write() as connection:
        before = current(town)
        after = shelve(before, NOW_US + HOUR_US)
        assert after is not None
        connection.execute(
            update(tables.alerts).values({"state": after.state, "shelved_until_us": after.shelved_until_us, "version": 2})
        )
    town.restart()
    moves = Moves(town)
    town.later(HOUR_US - 1)
    town.tick()
    assert current(town).state == "shelved"
    town.later(1)
    town.tick()
    town.tick()
    assert (current(town).state, moves.rang) == ("firing", ["sprung"])


def test_a_node_that_falls_silent_is_told_and_its_devices_are_not_though_all_are_found_in_one_tick(tmp_path: Path) -> None:
    with Town(tmp_path, {"a-silent": SILENT, "sprung": KNOCK}) as town:
        town.deployments._by_device[NODE, "node"] = town.deployments.of(NODE, "node").model_copy(update={"kind": "node"})
        town.process(batch([reading(1), reading(2, device="cam-01"), reading(3, device="node")]))
        moves = Moves(town)
        town.later(10 * MINUTE_US)
        town.tick()
        by_device = {row["device"]: (row["state"], row["suppressed_by"]) for row in town.rows(tables.alerts)}
        assert by_device == {
            "node": ("firing", None),
            "trap-11": ("suppressed", "inhibit:node-offline"),
            "cam-01": ("suppressed", "inhibit:node-offline"),
        }
        town.process(batch(events=[event(4)], t0=town.now_us))
        assert moves.rang == ["a-silent", "sprung"], "a trap that sprang is told whatever is known of its node"
        town.process(batch([reading(5, device="node")], t0=town.now_us))
        town.later(4 * MINUTE_US)
        town.tick()
        town.process(batch([reading(6), reading(7, device="cam-01")], t0=town.now_us))
        town.later(10 * MINUTE_US)
        assert moves.rang == ["a-silent", "sprung"], "they came back one after the other, and nobody was woken"
        assert [row["state"] for row in town.rows(tables.alerts) if row["rule"] == "a-silent"] == ["resolved"] * 3


def test_a_silent_node_whose_alert_a_person_ended_hides_its_devices_no_longer(tmp_path: Path) -> None:
    with Town(tmp_path, {"a-silent": SILENT}) as town:
        town.deployments._by_device[NODE, "node"] = town.deployments.of(NODE, "node").model_copy(update={"kind": "node"})
        town.process(batch([reading(1), reading(2, device="node")]))
        moves = Moves(town)
        town.later(10 * MINUTE_US)
        town.tick()
        with town.state.write() as connection:
            node = connection.execute(select(tables.alerts).where(tables.alerts.c.device == "node")).mappings().one()
            move = resolve(Alert(**node), "tanaka", "taken home", town.now_us)
            assert move is not None
            assert write_move(connection, move, town.now_us)
        town.tick()
        assert moves.rang == ["a-silent"]
        town.later(HOUR_US)
        town.tick()
        assert (current(town).state, moves.rang) == ("firing", ["a-silent", "a-silent"]), "the trap itself is told now"


def test_what_flaps_is_told_a_few_times_then_once_that_it_flaps_then_when_it_stays(tmp_path: Path) -> None:
    muting = Muting(flapping=FlappingConfig(count=2, within=600))
    with Town(tmp_path, {"sprung": KNOCK}, muting=muting) as town:
        for seq in range(1, 12):
            town.process(batch(events=[event(seq, 0, "trap_sprung" if seq % 2 else "trap_reset")], t0=town.now_us))
            town.later(10 * SECOND_US)
            if seq == 8:
                town.restart()
        assert [row["after"] for row in town.rows(tables.alert_history) if row["before"] is None] == [
            "firing", "firing", "firing", "suppressed", "suppressed", "suppressed",
        ]  # fmt: skip
        assert [json.loads(row["facts"]).get("flapping") for row in town.rows(tables.alerts) if row["fired_us"]] == [
            None, None, True,
        ]  # fmt: skip
        assert current(town).suppressed_by == "flapping"
        town.later(600 * SECOND_US)
        town.tick()
        assert current(town).state == "firing", "it stayed, so it is told after all"


# ---- facts and counts -------------------------------------------------------------------------------------


class Counting:
    """A rule of the test's own: each spring is one more of the same; it judges a place, not the device."""

    events = frozenset({"trap_sprung"})
    metrics: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        return [("area", "north"), ("area", "south")] if fact.device == "trap-11" else []

    def subjects(self) -> Iterable[tuple[str, str]]:
        return [("area", "east")]

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        memory["times"] = memory.get("times", 0) + 1
        return Verdict("firing", fact.time_us, "one", facts={"of": subject[1]}, times=memory["times"])

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]) -> Verdict | None:
        return Verdict("firing", now_us, "one", reason="never heard") if subject[1] == "east" else None


def with_rule(town: Town, rule: Any, kind: str | None = None) -> Moves:
    """The town with this rule in place of its own."""
    old = town.watch
    rules = [WatchedRule("own", "warning", rule, kind)]
    town.watch = Watch(town.state, rules, town.deployments, town.telemetry, old._say, town.paging)
    town.pipeline._watch = town.watch
    return Moves(town)


def test_the_count_of_an_open_alert_grows_and_its_facts_are_kept_up_without_telling_anybody(town: Town) -> None:
    moves = with_rule(town, Counting())
    for seq in range(1, 6):
        town.process(batch(events=[event(seq, seq)]))
    town.tick()
    found = {row["device"]: (row["count"], json.loads(row["facts"]), row["version"]) for row in town.rows(tables.alerts)}
    assert found["north"] == (5, {"of": "north"}, 1)
    assert found["south"] == (5, {"of": "south"}, 1)
    assert sorted(moves.rang) == ["own", "own", "own"]
    assert len(town.rows(tables.alert_history)) == 3


def test_a_rule_judges_the_subjects_it_names_and_those_before_anything_was_heard(town: Town) -> None:
    with_rule(town, Counting(), kind="area")
    town.tick()
    assert [(row["kind"], row["node"], row["device"]) for row in town.rows(tables.alerts)] == [("area", "area", "east")]
    town.process(batch(events=[event(1), event(2, device="trap-12")]))
    assert sorted(row["device"] for row in town.rows(tables.alerts)) == ["east", "north", "south"]


def test_the_kind_of_a_rule_is_that_of_the_subject(town: Town) -> None:
    with_rule(town, Counting(), kind="trap")
    town.process(batch(events=[event(1)]))
    town.tick()
    assert town.alerts() == []


def test_a_quiet_town_costs_the_same_few_questions_each_tick(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.process(batch([reading(1)]))
    for _ in range(3):
        town.tick()
    monkeypatch.setattr(town.watch._known, "read_open", lambda *_: pytest.fail("nothing has changed"))
    town.steps.taken.clear()
    for _ in range(10):
        town.later(SECOND_US)
        town.watch.tick(town.now_us, NOW_US - HOUR_US)
    assert town.steps.taken == [], "nothing was written"
