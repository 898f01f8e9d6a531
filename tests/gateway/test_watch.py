"""From facts to alerts and notifications: one message for one thing, over crashes, replays and people's answers."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import OperationalError

from gateway.alerting.lifecycle import Alert, Move, acknowledge
from gateway.alerting.route import Match, RouteConfig
from gateway.rules import Fact, RuleConfig, Verdict
from gateway.state import tables
from gateway.watch import watch as watch_module
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, NOW_US, SECOND_US, Town, batch, event, locked, reading

ADAPTER: TypeAdapter[dict[str, RuleConfig]] = TypeAdapter(dict[str, RuleConfig])


def rules(**configs: dict[str, Any]) -> dict[str, RuleConfig]:
    return ADAPTER.validate_python(configs)


SPRUNG = {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"}
LOW = {"type": "threshold", "metric": "battery_voltage", "below": 3.4, "for": "10m"}


def volts(seq: int, at_us: int, value: float) -> Any:
    return batch([reading(seq, 0, metric="battery_voltage", value=value)], t0=at_us)


def answer(town: Town, who: str = "tanaka") -> None:
    """A person acknowledges the one alert that is firing, as the API does."""
    with town.state.write() as connection:
        row = connection.execute(select(tables.alerts).where(tables.alerts.c.state == "firing")).mappings().one()
        answered = acknowledge(Alert(**row), who, town.now_us)
        assert answered is not None
        connection.execute(update(tables.alerts).where(tables.alerts.c.id == answered.id).values(asdict(answered)))


def test_a_sprung_trap_tells_each_contact_of_its_route_once(town: Town) -> None:
    town.process(batch(events=[event(1, -MINUTE_US)]))
    [alert] = town.rows(tables.alerts)
    assert (alert["state"], alert["kind"], alert["severity"], alert["since_us"]) == (
        "firing", "trap", "critical", NOW_US - MINUTE_US,
    )  # fmt: skip
    told = town.rows(tables.notifications)
    assert sorted(row["contact"] for row in told) == ["farmers", "office"]
    body = json.loads(told[0]["body"])
    assert body["id"] == told[0]["id"]
    assert (body["title"][:6], body["late"], body["data"]["place"]) == ("【わな作動】", False, "北尾根")
    assert [kind for kind, _ in town.said] == ["event", "alert"]


def test_sprung_answered_reset_and_sprung_again(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    answer(town)
    town.process(batch(events=[event(3, 2 * SECOND_US, "trap_reset")]))
    assert town.alerts() == [("sprung", "resolved")]
    assert len(town.rows(tables.notifications)) == 2
    town.process(batch(events=[event(4, 3 * SECOND_US)]))
    assert sorted(state for _, state in town.alerts()) == ["firing", "resolved"]
    assert len(town.rows(tables.notifications)) == 4
    assert [(row["before"], row["after"]) for row in town.rows(tables.alert_history)] == [
        (None, "firing"), ("acknowledged", "resolved"), (None, "firing"),
    ]  # fmt: skip


def test_a_trap_that_sprang_again_while_its_reset_is_on_the_way_rings_again(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    answer(town)
    town.process(batch(events=[event(3, 2 * SECOND_US)]))
    assert sorted(state for _, state in town.alerts()) == ["firing", "resolved"]
    assert len(town.rows(tables.notifications)) == 4
    town.process(batch(events=[event(2, SECOND_US, "trap_reset")]))
    assert sorted(state for _, state in town.alerts()) == ["firing", "resolved"], "it was reset before that"


def test_pictures_in_a_row_are_told_once_and_those_after_a_quiet_time_again(tmp_path: Path) -> None:
    with Town(tmp_path, rules(pictures={"type": "occurrence", "event": "media_captured", "hold": "10m"})) as town:

        def picture(seq: int) -> None:
            more = {"media": "a" * 64, "size": 1, "content_type": "image/jpeg", "class_": "evidence"}
            town.process(batch(events=[event(seq, 0, "media_captured", "cam-02", **more)], t0=town.now_us))

        for seq in range(1, 4):
            picture(seq)
            town.later(5 * MINUTE_US)
            town.tick()
        answer(town)
        assert len(town.rows(tables.notifications)) == 2
        town.later(5 * MINUTE_US)
        town.tick()
        assert town.alerts() == [("pictures", "resolved")]
        picture(4)
        town.tick()
        assert sorted(state for _, state in town.alerts()) == ["firing", "resolved"]
        assert len(town.rows(tables.notifications)) == 4


def test_the_same_opening_never_alerts_again_whatever_is_replayed(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    town.process(batch(events=[event(1), event(2, SECOND_US), event(3, 2 * SECOND_US, "trap_reset")]))
    before = town.rows(tables.alerts), town.rows(tables.notifications)
    with town.state.write() as connection:
        connection.execute(delete(tables.cursors))
    town.restart()
    town.tick()
    assert (town.rows(tables.alerts), town.rows(tables.notifications)) == before
    assert caplog.records == []
    with town.state.write() as connection:  # not even when what the rules remember is lost with it
        connection.execute(delete(tables.cursors))
        connection.execute(delete(tables.rule_states))
    town.restart()
    town.tick()
    assert (town.rows(tables.alerts), town.rows(tables.notifications)) == before
    assert caplog.records == []


def test_a_late_event_that_was_reset_meanwhile_wakes_nobody(town: Town) -> None:
    town.process(batch(events=[event(9, 0, "trap_reset")]))
    town.process(batch(events=[event(8, -HOUR_US)]))
    assert town.alerts() == []


def test_a_late_event_rings_once_and_says_that_it_is_late(town: Town) -> None:
    town.process(batch(events=[event(1, -HOUR_US)]))
    [alert] = town.rows(tables.alerts)
    assert (alert["late"], alert["state"]) == (True, "firing")
    assert "60分遅れて届いた" in json.loads(town.rows(tables.notifications)[0]["body"])["body"]


def test_another_devices_reset_ends_nothing(town: Town) -> None:
    town.process(batch(events=[event(1), event(2, 1, "trap_reset", "trap-12")]))
    assert town.alerts() == [("sprung", "firing")]


def test_a_rule_for_one_kind_leaves_devices_of_others_alone(tmp_path: Path) -> None:
    with Town(tmp_path, rules(sprung={**SPRUNG, "kind": "trap"})) as town:
        town.process(batch(events=[event(1, device="bucket-1"), event(2)]))
        assert [row["device"] for row in town.rows(tables.alerts)] == ["trap-11"]


# ---- over time ------------------------------------------------------------------------------------------


def test_a_pending_alert_survives_a_restart_and_fires_by_itself(tmp_path: Path) -> None:
    with Town(tmp_path, rules(low=LOW)) as town:
        town.process(volts(1, NOW_US, 3.3))
        assert (town.alerts(), town.rows(tables.notifications)) == ([("low", "pending")], [])
        town.restart()
        town.later(10 * MINUTE_US - 1)
        town.tick()
        assert town.alerts() == [("low", "pending")]
        town.later(1)
        town.tick()
        town.tick()
        assert town.alerts() == [("low", "firing")]
        assert len(town.rows(tables.notifications)) == 2
        town.process(volts(2, town.now_us, 4.0))
        assert town.alerts() == [("low", "resolved")]


def test_pending_that_passes_tells_nobody(tmp_path: Path) -> None:
    with Town(tmp_path, rules(low=LOW)) as town:
        town.process(volts(1, NOW_US, 3.3))
        town.process(volts(2, NOW_US + SECOND_US, 3.5))
        town.later(HOUR_US)
        town.tick()
        assert (town.alerts(), town.rows(tables.notifications)) == ([("low", "resolved")], [])


def test_silence_is_noticed_while_somebody_listens_and_ends_with_the_next_word(tmp_path: Path) -> None:
    with Town(tmp_path, rules(silent={"type": "absence", "of": "heartbeat", "for": "26h"})) as town:
        town.process(batch([reading(1)]))
        for hours in range(25):
            town.now_us = NOW_US + hours * HOUR_US
            town.tick()
        town.now_us = NOW_US + 27 * HOUR_US
        town.tick(listening_since_us=None)
        assert town.alerts() == []
        town.tick()
        assert town.alerts() == [("silent", "firing")]
        town.restart()
        town.tick()
        town.process(batch([reading(2)], t0=town.now_us))
        assert town.alerts() == [("silent", "resolved")]
        assert len(town.rows(tables.notifications)) == 2


def test_what_rules_remember_of_time_alone_is_saved_now_and_then(tmp_path: Path) -> None:
    """Restarts each 12 hours, each with an hour away, and nobody speaks: the silence still adds up."""
    with Town(tmp_path, rules(silent={"type": "absence", "of": "heartbeat", "for": "26h"})) as town:
        town.process(batch([reading(1)]))
        town.tick()
        for _ in range(3):
            since_us = town.now_us
            for _ in range(11 * 6):
                town.later(10 * MINUTE_US)
                town.tick(listening_since_us=since_us)
            town.later(HOUR_US)
            town.restart()
        assert town.alerts() == [("silent", "firing")]


# ---- when things go wrong -------------------------------------------------------------------------------


def test_a_rule_that_raises_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Town(tmp_path, rules(broken=SPRUNG, sprung=SPRUNG)) as town:

        def fail(*_: Any) -> Verdict:
            raise ZeroDivisionError

        town.watch._judge._rules["broken"].rule.on_fact = fail
        town.watch._judge._rules["broken"].rule.on_tick = fail
        for seq in range(1, 4):
            town.process(batch(events=[event(seq, seq, "trap_reset" if seq % 2 == 0 else "trap_sprung")]))
            town.tick()
        assert sorted(town.alerts()) == [("sprung", "firing"), ("sprung", "resolved")]
        assert sum(record.exc_info is not None for record in caplog.records) == 1, "said once"
        counted = town.telemetry.registry.get_sample_value("satomori_rule_errors_total", {"rule": "broken"})
        assert counted is not None
        assert counted >= 3


def test_an_alert_that_cannot_be_written_does_not_stop_the_others_and_the_next_tick_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Town(tmp_path, rules(a=SPRUNG, sprung=SPRUNG)) as town:
        real = town.paging.moved

        def moved(connection: Connection, move: Move, now_us: int) -> None:
            if move.alert.rule == "a":
                raise KeyError("a mistake in a sentence")
            real(connection, move, now_us)

        monkeypatch.setattr(town.paging, "moved", moved)
        town.process(batch(events=[event(1)]))
        town.tick()
        assert town.alerts() == [("sprung", "firing")]
        assert caplog.text.count("rule.a") == 1, "said once"
        monkeypatch.undo()
        town.tick()
        assert sorted(town.alerts()) == [("a", "firing"), ("sprung", "firing")]
        assert len(town.rows(tables.notifications)) == 4
        assert "is written down" in caplog.text


def test_nobody_to_tell_is_said_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Town(tmp_path, routes=[RouteConfig(match=Match(kind="camera"), to=["office"])]) as town:
        town.process(batch(events=[event(1)]))
        assert town.alerts() == [("sprung", "firing")]
        [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "nobody is told" in error.message


def test_more_events_than_are_judged_at_once_are_all_judged_in_their_order(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_NEW", watch_module._NEW.limit(3))
    monkeypatch.setattr(watch_module, "_FACTS_AT_ONCE", 3)
    town.process(batch(events=[event(seq, seq * 1000, "trap_sprung" if seq % 2 else "trap_reset") for seq in range(1, 12)]))
    assert [state for _, state in town.alerts()].count("resolved") == 5
    assert [state for _, state in town.alerts()].count("firing") == 1
    assert town.rows(tables.cursors)[0]["value"] == 11


def test_a_watch_that_found_the_database_locked_forgets_what_it_did_not_commit(tmp_path: Path) -> None:
    with Town(tmp_path, rules(low={**LOW, "for": "0s"}, flow={"type": "rate", "metric": "count_in", "above": 30})) as town:
        facts = [
            Fact(NODE, "trap-11", "battery_voltage", 3.3, NOW_US, NOW_US, False, "e:1"),
            Fact(NODE, "trap-11", "count_in", 5.0, NOW_US, NOW_US, False, "e:2"),
        ]
        for fail_at in (0, 1):
            town.steps.taken.clear()
            town.steps.fail_at, town.steps.error = fail_at, locked()
            with pytest.raises(OperationalError):
                town.watch.run(facts, NOW_US)
        town.steps.fail_at = None
        assert town.alerts() == []
        town.watch.run(facts, NOW_US)
        town.tick()
        assert town.alerts() == [("low", "firing")]
        assert len(town.rows(tables.notifications)) == 2
        remembered = {row["rule"]: json.loads(row["body"]) for row in town.rows(tables.rule_states)}
        assert remembered["flow"]["samples"] == [[NOW_US, 5.0]], "once, not once a try"


def test_a_future_reading_does_not_make_a_rule_deaf(tmp_path: Path) -> None:
    """A node whose clock is not trusted may seem to be hours ahead for a while."""
    with Town(tmp_path, rules(low={**LOW, "for": "0s"})) as town:
        far_us = NOW_US - 10 * HOUR_US
        town.process(batch([reading(1, metric="battery_voltage", value=4.0)], t0=far_us, clock="unsync"))
        ahead = reading(2, metric="battery_voltage", value=4.0)
        town.process(batch([ahead], t0=far_us, mono0=10**9 + 9 * HOUR_US, clock="unsync"))
        town.later(MINUTE_US)
        town.process(batch([reading(3, metric="battery_voltage", value=3.0)], t0=far_us, mono0=10**9 + MINUTE_US, clock="unsync"))
        assert town.alerts() == [("low", "firing")]
