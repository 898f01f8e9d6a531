"""Erasing somebody: afterwards no file of the gateway holds their name, number or tag, and everybody else is whole.

What is looked at are the bytes on the disk: the database, its log, the pictures' folder, and all that was logged meanwhile.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Text, delete, insert, update
from sqlalchemy.event import listen

from gateway.errors import ConfigError
from gateway.keeping import NotErased, erase_contact, erase_tag, erase_watched, erasing
from gateway.keeping.held import ELSEWHERE, HELD, IN_JSON, SIGNED, WRITTEN
from gateway.keeping.kinds import KINDS
from gateway.keeping.retention import Erasures, replay
from gateway.mimamori.enrolled import Enrolled
from gateway.state import open_state, tables
from tests.gateway.keeping.erased import HANAE, UMEYO, Someone, fill, found_in, rows_of
from tests.gateway.mimamori.searching import HANA, TAG, Searching
from tests.gateway.paged import MINUTE_US


def of_watched(one: Someone) -> tuple[str, ...]:
    return one.name, one.tag, one.word


def of_contact(one: Someone) -> tuple[str, ...]:
    return one.keeper_name, one.keeper_phone, one.keeper_line


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        fill(made)
        yield made


def erased(town: Searching, erase: object, thing: str) -> None:
    with town.state.write() as connection:
        erase(connection, thing, "test", town.now_us + 1)  # type: ignore[operator]
    assert town.state.empty_log()


def theirs(rows: dict[str, list[str]], words: tuple[str, ...]) -> list[str]:
    return [row for listed in rows.values() for row in listed if any(word in row for word in words)]


def touched(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    return {name for name, rows in before.items() if set(rows) - set(after[name])}


@pytest.mark.sqlite_only("looks into the file")
def test_of_who_was_watched_over_no_byte_remains_and_the_other_is_whole(
    town: Searching, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = rows_of(town)
    assert found_in(town.folder, of_watched(HANAE))
    erased(town, erase_watched, HANAE.id)
    assert found_in(town.folder, of_watched(HANAE)) == []
    after = rows_of(town)
    assert theirs(after, (HANAE.id,)) == [row for row in after["erasures"] if HANAE.id in row]
    assert theirs(after, (*of_watched(UMEYO), UMEYO.id)) == theirs(before, (*of_watched(UMEYO), UMEYO.id))
    assert not any(word in caplog.text for word in of_watched(HANAE))


def test_each_table_that_can_tell_of_who_is_watched_over_is_tried(town: Searching) -> None:
    before = rows_of(town)
    erased(town, erase_watched, HANAE.id)
    assert {name for name, held in HELD.items() if "watched" in held.of} - touched(before, rows_of(town)) == set()


def test_a_page_about_both_goes_on_for_the_other(town: Searching) -> None:
    alerts = {row["device"]: row["id"] for row in town.rows(tables.alerts)}
    grouped = next(row["page"] for row in town.rows(tables.page_alerts) if row["alert"] == alerts[UMEYO.id])
    with town.state.write() as connection:
        both = {"page": grouped, "alert": alerts[HANAE.id], "joined_us": 1, "told_us": 1}
        connection.execute(insert(tables.page_alerts), both)
        sent = next(row["id"] for row in town.ledger() if row["page"] == grouped)
        words = json.dumps({"id": sent, "title": f"{HANAE.name}、{UMEYO.name}", "body": ""}, ensure_ascii=False)
        connection.execute(update(tables.notifications).where(tables.notifications.c.id == sent).values(body=words))
    erased(town, erase_watched, HANAE.id)
    assert [row["id"] for row in town.rows(tables.pages) if row["id"] == grouped] == [grouped]
    assert [row["alert"] for row in town.rows(tables.page_alerts) if row["page"] == grouped] == [alerts[UMEYO.id]]
    assert found_in(town.folder, of_watched(HANAE)) == []


@pytest.mark.sqlite_only("looks into the file")
def test_of_a_contact_no_byte_remains_but_an_id_and_the_other_is_whole(town: Searching, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    before = rows_of(town)
    assert found_in(town.folder, of_contact(HANAE))
    erased(town, erase_contact, HANAE.keeper)
    assert found_in(town.folder, of_contact(HANAE)) == []
    after = rows_of(town)
    assert theirs(after, of_contact(UMEYO)) == theirs(before, of_contact(UMEYO))
    assert len(after["answers"]) == len(before["answers"])
    assert not any(word in caplog.text for word in of_contact(HANAE))


def test_each_table_that_can_tell_of_a_contact_is_tried(town: Searching) -> None:
    before = rows_of(town)
    erased(town, erase_contact, HANAE.keeper)
    papers = {"captures", "capture_photos", "answers"}  # kept; under an id without a name
    assert {name for name, held in HELD.items() if "contact" in held.of} - touched(before, rows_of(town)) == papers


def test_of_a_tag_neither_its_name_nor_where_it_was_remains(town: Searching) -> None:
    before = rows_of(town)
    erased(town, erase_tag, HANAE.tag)
    assert found_in(town.folder, (HANAE.tag,)) == []
    after = rows_of(town)
    assert theirs(after, (UMEYO.tag, UMEYO.id)) == theirs(before, (UMEYO.tag, UMEYO.id))
    assert [row for row in after["search_sightings"] if "hanalabel" in row] == []
    assert any(HANAE.name in row for row in after["watched"])
    assert sorted((row["tag"], row["ended_us"] is None) for row in town.rows(tables.labels)) == [("", False), (UMEYO.tag, True)]
    assert [row["words"] for row in town.rows(tables.label_reports)] == [
        row["words"] for row in town.rows(tables.label_reports) if row["words"]
    ]


def test_after_a_tag_is_revoked_no_table_says_where_it_was_and_its_alert_stays(tmp_path: Path) -> None:
    """Not the alert, what was sent and what waits to be, open pages and closed ones, searches, rules, and what stands of them."""
    place, receiver = "中央公民館", "kominkan"
    with Searching(tmp_path) as town:
        facts = {"watched": HANA, "family": "family-hana", "place": place, "state": "near", "seen_us": town.now_us - MINUTE_US}
        standing = ["firing", town.now_us, "o:1", False, "left home", facts, 1, None]
        town.remembers(
            seen_us=town.now_us - MINUTE_US, seen_at=f"{receiver}/tags", seen_tag=TAG,
            at={f"{receiver}/tags {TAG}": {"near": True}}, watch={"standing": standing, "openings": None},
        )  # fmt: skip
        case = town.opened()
        town.heard(receiver)
        town.wait(5 * MINUTE_US)
        town.does("found", case, "haruka")
        town.sent()
        again = town.opened()
        alert = town.misses(place=place)
        town.tick()
        town.wait(12 * MINUTE_US)
        waiting = [row for row in town.ledger() if row["state"] == "queued"]
        assert any(place in row["body"] for row in waiting)
        assert any(place in row["memory"] for row in town.rows(tables.pages) if row["state"] != "closed")
        erased(town, erase_tag, TAG)
        left = [row for listed in rows_of(town).values() for row in listed]
        assert [row for row in left if place in row or receiver in row] == []
        assert found_in(town.folder, (place, receiver)) == []
        assert town.alert(alert).state == "firing"
        assert [row["after"] for row in town.rows(tables.alert_history)] == ["firing"]
        after = {row["id"]: row for row in town.ledger()}
        assert all(after[row["id"]]["state"] == "queued" for row in waiting)
        assert all(json.loads(after[row["id"]]["body"])["title"] for row in waiting)
        town.wait(30 * MINUTE_US)
        town.does("found", again, "haruka")
        assert [row for listed in rows_of(town).values() for row in listed if place in row or receiver in row] == []


def test_a_tag_that_is_somebody_elses_since_is_not_taken_from_them_by_a_restore(town: Searching) -> None:
    erased(town, erase_tag, HANAE.tag)
    later_us = town.now_us + 1_000_000
    with town.state.write() as connection:
        connection.execute(delete(tables.erasures))  # as in a database that knows nothing of it
        connection.execute(
            insert(tables.tags), {"tag": HANAE.tag, "watched": UMEYO.id, "enrolled_us": later_us, "enrolled_by": "test"}
        )
    town.now_us = later_us
    town.heard("eki", HANAE.tag)
    assert replay(town.state, later_us) == 1
    assert [row["watched"] for row in town.rows(tables.tags) if row["tag"] == HANAE.tag] == [UMEYO.id]
    assert len([row for row in town.rows(tables.events) if HANAE.tag in row["body"]]) == 1


@pytest.mark.sqlite_only("puts an older file in place of the newer")
def test_a_restored_database_is_erased_again_before_anything_reads_it(town: Searching, tmp_path: Path) -> None:
    town.state.empty_log()
    shutil.copy(town.folder / "state.db", tmp_path / "backup")
    for erase, thing in ((erase_watched, HANAE.id), (erase_contact, HANAE.keeper)):
        erased(town, erase, thing)
    town.state.close()
    shutil.move(tmp_path / "backup", town.folder / "state.db")
    assert found_in(town.folder, of_watched(HANAE) + of_contact(HANAE))
    town.state = open_state(f"sqlite:///{town.folder / 'state.db'}")
    assert replay(town.state, town.now_us + 5) == 2
    assert found_in(town.folder, of_watched(HANAE) + of_contact(HANAE)) == []
    assert replay(town.state, town.now_us + 6) == 0


@pytest.mark.sqlite_only("puts an older file in place of the newer")
def test_a_tag_comes_back_with_a_restore_and_is_erased_again(town: Searching, tmp_path: Path) -> None:
    town.state.empty_log()
    shutil.copy(town.folder / "state.db", tmp_path / "backup")
    erased(town, erase_tag, HANAE.tag)
    town.state.close()
    shutil.move(tmp_path / "backup", town.folder / "state.db")
    town.state = open_state(f"sqlite:///{town.folder / 'state.db'}")
    assert replay(town.state, town.now_us + 5) == 1
    assert found_in(town.folder, (HANAE.tag,)) == []


@pytest.mark.sqlite_only("looks into the file")
def test_it_is_on_disk_before_anything_is_deleted_and_done_after_a_crash(town: Searching) -> None:
    with pytest.raises(ZeroDivisionError), town.state.write() as connection:  # noqa: PT012 - it ends in the middle
        erase_watched(connection, HANAE.id, "test", town.now_us)
        raise ZeroDivisionError
    assert found_in(town.folder, of_watched(HANAE))
    assert replay(town.state, town.now_us) == 1
    assert found_in(town.folder, of_watched(HANAE)) == []


def test_what_can_not_be_noted_is_not_erased(town: Searching) -> None:
    town.state.erasures_file = town.folder / "no-such-folder" / "erasures"
    before = rows_of(town)
    with pytest.raises(OSError, match="No such file"), town.state.write() as connection:
        erase_watched(connection, HANAE.id, "test", town.now_us)
    assert rows_of(town) == before


def test_a_file_that_was_lost_is_written_anew_from_the_database(town: Searching) -> None:
    erased(town, erase_watched, HANAE.id)
    file = town.folder / "state.db.erasures"
    written = file.read_text(encoding="utf-8")
    file.unlink()
    assert replay(town.state, town.now_us) == 0
    assert file.read_text(encoding="utf-8") == written
    assert file.stat().st_mode & 0o077 == 0


def test_a_line_that_a_power_cut_broke_off_is_no_obstacle(town: Searching) -> None:
    file = town.folder / "state.db.erasures"
    file.write_text('{"id": "1", "ki', encoding="utf-8")
    erased(town, erase_watched, HANAE.id)
    assert replay(town.state, town.now_us) == 0
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[-1])["thing"] == HANAE.id


def test_a_file_that_is_none_stops_the_gateway_rather_than_somebody_coming_back(town: Searching) -> None:
    (town.folder / "state.db.erasures").write_text("hello\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 1 of .* is no erasure"):
        replay(town.state, town.now_us)


def test_who_is_searched_for_is_not_erased(town: Searching) -> None:
    with town.state.write() as connection:
        town.search.open(connection, HANAE.id, "again", HANAE.keeper, town.now_us)
    with pytest.raises(NotErased, match="end the search first"), town.state.write() as connection:
        erase_watched(connection, HANAE.id, "test", town.now_us)
    assert not (town.folder / "state.db.erasures").exists()


@pytest.mark.parametrize(("erase", "kind", "thing"), [(erase_watched, "watched", HANAE.id), (erase_tag, "tag", HANAE.tag)])
def test_the_largest_table_is_gone_through_before_others_wait_and_what_comes_meanwhile_is_erased_too(
    town: Searching, monkeypatch: pytest.MonkeyPatch, erase: Any, kind: Any, thing: str
) -> None:
    known = max(row["id"] for row in town.rows(tables.events))
    real = town.state.write

    def a_record_comes_first() -> AbstractContextManager[Connection]:
        monkeypatch.undo()
        town.heard("kominkan", HANAE.tag)
        town.heard("kominkan", UMEYO.tag)
        return real()

    monkeypatch.setattr(town.state, "write", a_record_comes_first)
    asked: list[tuple[str, Any]] = []
    with erasing(town.state, kind, thing) as connection:
        listen(connection, "before_cursor_execute", lambda _c, _u, statement, values, *_: asked.append((statement, values)))
        erase(connection, thing, "test", town.now_us)
    through = [(statement, values) for statement, values in asked if "FROM events" in statement and "LIKE" in statement]
    assert through
    for statement, values in through:
        assert "events.id > " in statement
        assert known in (values.values() if isinstance(values, dict) else values)
    assert [row["id"] for row in town.rows(tables.events) if HANAE.tag in row["body"]] == []
    assert len([row for row in town.rows(tables.events) if row["id"] > known and UMEYO.tag in row["body"]]) == 1


def test_a_tag_that_nothing_names_is_nobodys_and_one_that_was_erased_may_be_asked_for_again(town: Searching) -> None:
    with (
        pytest.raises(NotErased, match="nothing names it") as refused,
        erasing(town.state, "tag", "ibeacon:0f:9:9") as connection,
    ):
        erase_tag(connection, "ibeacon:0f:9:9", "test", town.now_us)
    assert refused.value.unknown
    assert not (town.folder / "state.db.erasures").exists()
    for _ in range(2):
        erased(town, erase_tag, HANAE.tag)
    with town.state.write() as connection:
        connection.execute(delete(tables.tags))
    erased(town, erase_tag, UMEYO.tag)  # nobody carries it, and where it was heard still names it
    assert [row for row in town.rows(tables.events) if UMEYO.tag in row["body"]] == []


@pytest.mark.parametrize("tag", ["species", "bear", "tag"])
def test_a_tag_that_is_called_like_something_else_takes_no_other_record_with_it(town: Searching, tag: str) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.tags).where(tables.tags.c.tag == UMEYO.tag).values(tag=tag))
        boar = {"node": "kita", "epoch": "e", "seq": 77, "device": "cam", "type": "media", "class_": "evidence", "time_us": 1,
                "node_time_us": 1, "received_us": 1, "late": False, "clock_trusted": True,
                "body": '{"dt":0,"species":"bear"}'}  # fmt: skip
        connection.execute(insert(tables.events), boar)
    before = town.rows(tables.events)
    town.heard("kominkan", tag)
    erased(town, erase_tag, tag)
    assert town.rows(tables.events) == before


def test_a_tag_without_a_name_is_nobodys(town: Searching) -> None:
    erased(town, erase_tag, HANAE.tag)  # the labels of such have no tag any more
    before = rows_of(town)
    with pytest.raises(NotErased), erasing(town.state, "tag", "") as connection:
        erase_tag(connection, "", "test", town.now_us)
    assert rows_of(town) == before


def test_nobody_is_erased_under_an_id_that_nobody_has(town: Searching) -> None:
    for erase in (erase_watched, erase_contact):
        with pytest.raises(NotErased, match="with this id"), town.state.write() as connection:
            erase(connection, "ef" * 8, "test", town.now_us)


def test_a_namesake_keeps_what_is_theirs(town: Searching) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.contacts).where(tables.contacts.c.id == UMEYO.keeper).values(name=HANAE.keeper_name))
        done = erase_contact(connection, HANAE.keeper, "test", town.now_us)
    assert [row["name"] for row in town.rows(tables.contacts) if row["id"] == UMEYO.keeper] == [HANAE.keeper_name]
    assert any("called the same" in line for line in done.remains)


def test_what_another_process_erased_is_forgotten_here_too(town: Searching) -> None:
    enrolled = Enrolled()
    chore = Erasures(town.state, enrolled.read)
    chore.run()
    assert enrolled.whose(HANAE.tag) == HANAE.id
    other = open_state(f"sqlite:///{town.folder / 'state.db'}")
    with other.write() as connection:
        erase_watched(connection, HANAE.id, "test", town.now_us)
    other.close()
    chore.run()
    assert enrolled.whose(HANAE.tag) is None
    assert found_in(town.folder, of_watched(HANAE)) == []


# --- The declared map -----------------------------------------------------------------------------------


def test_every_table_has_a_rule() -> None:
    """A new one: say in gateway/keeping/held.py whose its rows can be, and in erase.py what erasing does to them."""
    assert set(HELD) == set(tables.metadata.tables)
    kinds = {kind.name for kind in KINDS} | {"-"}
    assert {name for name, held in HELD.items() if not set(held.kind.split(", ")) <= kinds} == set()


def test_every_column_that_somebody_may_write_a_name_into_is_known() -> None:
    sounds_like_it = (
        "who",
        "why",
        "note",
        "name",
        "words",
        "reach",
        "reason",
        "label",
        "error",
        "relation",
        "browser",
        "summary",
    )
    known = {
        (table, column) for one in (SIGNED, WRITTEN, IN_JSON, ELSEWHERE) for table, columns in one.items() for column in columns
    }
    unknown = {
        (table.name, column.name)
        for table in tables.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text) and HELD[table.name].of and not column.primary_key and not column.foreign_keys
        if column.name in sounds_like_it or column.name.endswith("_by")
        if (table.name, column.name) not in known
    }
    assert unknown == set()
    assert {(t, c) for t, c in known if c not in tables.metadata.tables[t].c} == set()
