"""Where a page could be forgotten: told by a digest that died, over an address that hangs, who is away, off a shelf."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.state import tables
from tests.gateway.paged import HOUR_US, MINUTE_US, SECOND_US, Paged, asked

BATTERY: Any = {"severity": "warning", "kind": "battery", "rule": "low", "summary": "battery"}
FARMERS = [("sato", "alert"), ("tanaka", "alert")]


@pytest.fixture
def paged(tmp_path: Path) -> Iterator[Paged]:
    with Paged(tmp_path) as opened:
        yield opened


def devices(number: int) -> list[str]:
    return [f"trap-{one + 1}" for one in range(number)]


# ---- digests --------------------------------------------------------------------------------------------


def test_of_pages_that_a_dead_digest_told_of_the_office_hears(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "digest": "07:00"}) as paged:
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(HOUR_US)
        assert paged.new() == [("sato", "digest"), ("tanaka", "digest")]
        paged.sent("dead")
        paged.tick()
        assert {kind for _, kind in paged.new()} == {"office"}


def test_one_digest_that_arrived_is_enough(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "digest": "07:00"}) as paged:
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(HOUR_US)
        paged.new()
        with paged.state.write() as connection:
            one = tables.notifications.c.contact == "sato"
            connection.execute(update(tables.notifications).where(one).values(state="dead"))
        paged.sent()
        paged.later(HOUR_US)
        assert paged.new() == []


def test_a_digest_that_was_really_sent_begins_the_cooldown(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "cooldown": "1h"}) as paged:
        paged.paging.hold(paged.now_us + MINUTE_US)
        pair = [paged.fire(device, **BATTERY) for device in devices(2)]
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == [("sato", "digest"), ("tanaka", "digest")]
        paged.sent()
        for one in pair:
            paged.becomes(one, "resolved")
        paged.later(MINUTE_US)
        paged.fire("trap-1", **BATTERY)
        paged.later(58 * MINUTE_US)
        assert paged.new() == []
        paged.later(2 * MINUTE_US)
        assert paged.new() == FARMERS


def test_what_asks_can_be_answered_also_where_much_comes_at_once(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1}) as paged:
        paged.paging.hold(paged.now_us + MINUTE_US)
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == sorted(FARMERS * 2)
        assert all("going" in asked(one) for one in paged.messages())


def test_of_very_much_that_asks_the_first_can_be_answered_and_the_rest_is_one_digest(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1}) as paged:
        paged.paging.hold(paged.now_us + MINUTE_US)
        for device in devices(9):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == sorted([*FARMERS * 3, ("sato", "digest"), ("tanaka", "digest")])


def test_what_waited_once_is_not_collected_for_ever(tmp_path: Path) -> None:
    steps = [{"to": "farmers"}, {"after": "10m", "to": "hunters"}]
    with Paged(tmp_path, {"steps": steps}) as paged:
        paged.paging.hold(paged.now_us + MINUTE_US)
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == [("sato", "digest"), ("tanaka", "digest")]
        paged.later(10 * MINUTE_US)
        assert paged.new() == sorted([("ito", "alert"), ("suzuki", "alert")] * 2)


def test_a_test_alarm_is_no_line_of_a_digest_for_it_wants_an_answer(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        paged.paging.hold(paged.now_us + MINUTE_US)
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.fire("trap-9", severity="warning", kind="test", rule="canary", summary="test_alarm")
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == sorted([*FARMERS, ("sato", "digest"), ("tanaka", "digest")])
        assert [asked(one) for one in paged.messages() if one.kind == "alert"] == [["seen"]] * 2


def test_where_the_words_of_a_digest_fail_each_is_told_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        monkeypatch.setattr(paged.teller, "digest", lambda *_: 1 / 0)
        paged.paging.hold(paged.now_us + MINUTE_US)
        for device in devices(2):
            paged.fire(device, **BATTERY)
        paged.tick()
        paged.later(MINUTE_US)
        assert paged.new() == sorted(FARMERS * 2)


# ---- what hangs -----------------------------------------------------------------------------------------


def test_a_step_whose_messages_hang_with_no_other_way_is_passed_at_once(paged: Paged) -> None:
    """As the deliverer leaves them: tried, overdue, and with no address that could stand in."""
    paged.fire()
    paged.new()
    with paged.state.write() as connection:
        connection.execute(update(tables.notifications).values(attempts=4, failover_us=None, error="answered 503"))
        connection.execute(update(tables.pages).values(changed=True))
    paged.later(SECOND_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


# ---- shelves and mutes ----------------------------------------------------------------------------------


def test_what_comes_off_the_shelf_into_a_mute_is_told_afresh_when_the_mute_ends(paged: Paged) -> None:
    alert = paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    paged.new()
    paged.becomes(alert, "shelved", shelved_until_us=paged.now_us + HOUR_US)
    paged.later(HOUR_US)
    paged.becomes(alert, "suppressed", suppressed_by="silence:1", shelved_until_us=None, fired_us=None,
                  acknowledged_us=None, acknowledged_by=None)  # fmt: skip
    paged.later(HOUR_US)
    paged.becomes(alert, "firing", suppressed_by=None, fired_us=paged.now_us)
    paged.tick()
    assert paged.new() == FARMERS


# ---- who is away ----------------------------------------------------------------------------------------


def away(paged: Paged, name: str, deputy: str | None = None) -> None:
    with paged.state.write() as connection:
        connection.execute(
            update(tables.contacts)
            .where(tables.contacts.c.id == name)
            .values(away_until_us=paged.now_us + 240 * HOUR_US, deputy=deputy)
        )


def test_who_went_away_after_they_were_told_is_asked_no_more_and_their_deputy_is(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 2, "again_every": "30m"}) as paged:
        paged.fire()
        paged.new()
        away(paged, "tanaka", deputy="ito")
        paged.later(31 * MINUTE_US)
        told = paged.new()
        assert ("ito", "alert") in told
        assert ("sato", "again") in told
        assert ("tanaka", "again") not in told


def test_where_all_who_were_told_went_away_the_next_step_begins_at_once(paged: Paged) -> None:
    paged.fire()
    paged.new()
    for name in ("tanaka", "sato"):
        away(paged, name)
    with paged.state.write() as connection:
        connection.execute(update(tables.pages).values(changed=True))
    paged.tick()
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


# ---- old words ------------------------------------------------------------------------------------------


def test_an_old_message_ends_only_what_it_spoke_of_and_for_the_rest_people_are_asked_on(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1, "group_by": ["rule"], "again_every": "30m"}) as paged:
        first = paged.fire("trap-1")
        old = next(row["id"] for row in paged.ledger() if row["contact"] == "tanaka")
        paged.later(MINUTE_US)
        second = paged.fire("trap-2")
        paged.later(10 * MINUTE_US)
        paged.new()
        paged.answer("tanaka", "false_alarm", notification=old)
        paged.later(2 * SECOND_US)
        assert (paged.alert(first).state, paged.alert(second).state) == ("resolved", "firing")
        assert paged.page()["state"] != "closed"
        paged.later(31 * MINUTE_US)
        assert ("tanaka", "again") in paged.new(), "of the other trap they have said nothing"
        newest = [row["id"] for row in paged.ledger() if row["contact"] == "tanaka"][-1]
        paged.answer("tanaka", "false_alarm", notification=newest)
        paged.later(2 * SECOND_US)
        assert (paged.alert(second).state, paged.page()["state"]) == ("resolved", "closed")


def test_who_answers_what_they_see_ends_all_of_it(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1, "group_by": ["rule"]}) as paged:
        pair = [paged.fire(device) for device in devices(2)]
        paged.answer("staff:yakuba", "false_alarm", via="api")
        assert [paged.alert(one).state for one in pair] == ["resolved", "resolved"]


def test_a_broker_that_comes_and_goes_holds_no_warning_back_for_ever(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        paged.paging.tick(paged.now_us, paged.now_us)
        paged.fire(**BATTERY)
        for _ in range(22):
            paged.now_us += 30 * SECOND_US
            paged.paging.tick(paged.now_us, paged.now_us)
        assert paged.new() == FARMERS


# ---- mistakes -------------------------------------------------------------------------------------------


def test_words_that_fail_for_one_page_stop_no_other_and_it_is_tried_again(
    paged: Paged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = paged.teller.message

    def broken(id_: str, person: Any, tell: Any, about: Any, now_us: int) -> Any:
        if about.alerts and about.alerts[0].device == "trap-1":
            raise RuntimeError("a mistake")
        return real(id_, person, tell, about, now_us)

    monkeypatch.setattr(paged.teller, "message", broken)
    with caplog.at_level(logging.ERROR):
        paged.fire("trap-1")
        paged.fire("trap-2")
        paged.tick()
    assert paged.new() == FARMERS
    monkeypatch.undo()
    paged.tick()
    assert paged.new() == FARMERS, "and the other one as soon as it can be said"


def test_what_no_route_fits_is_the_offices(tmp_path: Path) -> None:
    with Paged(tmp_path, {"match": {"kind": "trap"}, "to": "farmers"}) as paged:
        paged.fire(**BATTERY)
        paged.tick()
        assert paged.new() == [("yakuba", "alert")]


def test_the_outside_watcher_can_know_when_pages_were_looked_at(paged: Paged, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [paged.paging.looked_us] == [None]
    paged.tick()
    looked_us = paged.paging.looked_us
    assert looked_us == paged.now_us
    paged.fire(**BATTERY)
    paged.now_us += HOUR_US

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(paged.paging._looking, "look", broken)
    with pytest.raises(RuntimeError):
        paged.tick()
    assert paged.paging.looked_us == looked_us, "a look that did not get through is none"


# ---- a year later ---------------------------------------------------------------------------------------


@pytest.mark.sqlite_only("asks SQLite for its plan")
def test_a_look_does_not_read_the_pages_that_are_closed(paged: Paged) -> None:
    rows = [
        {"id": f"old-{number}", "route": "main", "group_key": "g", "severity": "info", "kind": "trap", "state": "closed",
         "needed": 0, "step": 1, "opened_us": number, "changed": False, "version": 1}
        for number in range(5000)
    ]  # fmt: skip
    with paged.state.write() as connection:
        connection.execute(insert(tables.pages), rows)
    with paged.state.read() as connection:
        plan = "\n".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql(paged)}"))
    assert "SCAN pages" not in plan
    assert "pages_state" in plan


def sql(paged: Paged) -> str:
    """What a look asks first."""
    from sqlalchemy.dialects import sqlite

    from gateway.paging.reading import due_pages

    return str(due_pages(paged.now_us).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))


# ---- the telephone ---------------------------------------------------------------------------------------


def test_nobody_is_rung_to_hear_who_goes_or_that_it_is_over_but_who_is_on_the_way(paged: Paged) -> None:
    with paged.state.write() as connection:
        only_a_telephone = tables.addresses.c.channel == "line"
        connection.execute(update(tables.addresses).where(only_a_telephone).values(state="unreachable"))
    alert = paged.fire()
    assert paged.new() == FARMERS  # both are rung: they are asked
    paged.answer("tanaka", "going")
    assert ("sato", "update") in paged.new()  # one more is needed: that asks
    paged.answer("sato", "cannot")
    paged.new()
    paged.becomes(alert, "resolved")
    paged.tick()
    assert paged.new() == [("tanaka", "over")]
