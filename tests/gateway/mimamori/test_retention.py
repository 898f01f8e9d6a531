"""Where a tag was is forgotten: after the time that sightings are kept, nothing about a place remains in any table."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.mimamori.enrolled import WATCHED
from gateway.notify.message import Message
from gateway.rules.presence import Presence, PresenceConfig
from gateway.state import tables
from gateway.state.upsert import upsert
from tests.gateway.mimamori.searching import Searching, everything
from tests.gateway.paged import HOUR_US, MINUTE_US, NOW_US, ZONE
from tests.gateway.rules.test_presence import DEPLOYMENTS, ENROLLED, HALL, ID, Person

DAY_US = 24 * HOUR_US
PLACES = ("つばきの家", "中央公民館", "駅前", "kominkan", "eki", "散歩から戻らない")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        made.remembers(seen_us=made.now_us - 12 * MINUTE_US)
        made.misses()
        made.tick()
        case = made.opened()
        made.heard("kominkan")
        made.wait(5 * MINUTE_US)
        made.heard("eki")
        made.wait(5 * MINUTE_US)
        made.does("found", case, "haruka")
        made.sent()
        made.tick()
        made.sent()
        with made.state.write() as connection:
            connection.execute(upsert(tables.cursors, "value"), {"name": "watch", "value": 10_000})
            connection.execute(
                insert(tables.quarantine),
                {"received_us": made.now_us, "topic": "t", "reason": "r", "size": 9, "payload": b'{"tag":"x","at":"eki"}'},
            )
        yield made


def test_while_it_is_kept_it_is_there(town: Searching) -> None:
    town.retention.run(NOW_US + 13 * DAY_US)
    kept = everything(town)
    for place in PLACES:
        assert place in kept
    assert len(town.rows(tables.events)) == 2


def test_afterwards_nothing_about_a_place_remains_in_any_table(town: Searching) -> None:
    sent = [(row["id"], row["state"], row["contact"]) for row in town.ledger()]
    town.retention.run(NOW_US + 15 * DAY_US)
    kept = everything(town)
    for place in PLACES:
        assert place not in kept, [line for line in kept.splitlines() if place in line]
    assert [(row["id"], row["state"], row["contact"]) for row in town.ledger()] == sent
    assert (town.case()["state"], town.case()["opened_by"] != "") == ("found", True)
    town.retention.run(NOW_US + 15 * DAY_US)  # and once more changes nothing
    assert everything(town) == kept


def test_a_digest_that_told_of_it_loses_its_words_too(town: Searching) -> None:
    page = next(row["id"] for row in town.rows(tables.pages) if row["kind"] == "search")
    with town.state.write() as connection:
        row = {**town.ledger()[0], "id": "0" * 32, "page": None, "alert": None, "kind": "digest", "state": "sent"}
        row["body"] = Message(id="0" * 32, title="まとめ", body="駅前").model_dump_json()
        connection.execute(insert(tables.notifications), row)
        connection.execute(insert(tables.digest_pages), {"notification": "0" * 32, "page": page})
    town.retention.run(NOW_US + 15 * DAY_US)
    assert "駅前" not in everything(town)


def test_what_the_rules_have_not_judged_yet_is_not_taken_from_them(town: Searching) -> None:
    with town.state.write() as connection:
        connection.execute(upsert(tables.cursors, "value"), {"name": "watch", "value": 1})
    town.retention.run(NOW_US + 15 * DAY_US)
    assert [row["id"] for row in town.rows(tables.events)] == [2]


def test_other_peoples_records_stay(town: Searching) -> None:
    with town.state.write() as connection:
        row = {**town.rows(tables.events)[0], "id": 900, "seq": 900, "class_": "alarm", "type": "trap_sprung", "body": "{}"}
        row.pop("class", None)
        connection.execute(insert(tables.events), row)
    town.retention.run(NOW_US + 30 * DAY_US)
    assert [row["id"] for row in town.rows(tables.events)] == [900]


def test_a_rule_forgets_where_and_keeps_when() -> None:
    person = Person(when="not_seen")
    person.rule = Presence(PresenceConfig(type="presence", when="not_seen"), DEPLOYMENTS, ENROLLED, ZONE, 14 * 86_400)
    person.fact("tag_entered", HALL)
    person.fact("tag_left", HALL)
    seen_us = person.memory["seen_us"]
    person.now_us += 13 * DAY_US
    person.rule.on_tick(person.memory, person.now_us, person.listening_us, (WATCHED, ID))
    assert "kominkan" in str(person.memory)
    person.now_us += 2 * DAY_US
    person.rule.on_tick(person.memory, person.now_us, person.listening_us, (WATCHED, ID))
    assert "kominkan" not in str(person.memory)
    assert person.memory["seen_us"] == seen_us


def test_of_who_is_no_longer_watched_a_rule_remembers_nothing() -> None:
    person = Person(when="not_seen")
    person.fact("tag_entered", HALL)
    person.rule.on_tick(person.memory, person.now_us, person.listening_us, (WATCHED, "cd" * 8))
    assert person.memory == {}
