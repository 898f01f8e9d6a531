"""A town with two people who are watched over and two contacts, in every table that can hold something of them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table, insert, select, update
from sqlalchemy.event import listen, remove

from gateway.alerting.lifecycle import Alert, Move
from gateway.audit import record
from gateway.mimamori.enrolled import WATCHED
from gateway.state import tables
from gateway.state.upsert import upsert
from tests.gateway.mimamori.searching import HANA, IDS, TAG, Searching
from tests.gateway.paged import MINUTE_US


class Someone(NamedTuple):
    """One person, with all by which they could be found."""

    id: str
    name: str
    tag: str
    label: str
    family: str
    keeper: str
    keeper_name: str
    keeper_phone: str
    keeper_line: str
    account: str
    word: str
    """Something that was only ever written about them."""


HANAE = Someone(
    HANA, "花山ハナ乃", TAG, "HANALABEL", "family-hana", IDS["haruka"], "遥川ハルカ乃", "+815000000001", "Uhanaline0001",
    "a1" * 8, "赤い帽子",
)  # fmt: skip
UMEYO = Someone(
    "cd" * 8, "梅本ウメ代", "ibeacon:0f:1:3", "UMELABEL", "volunteers", IDS["ichi"], "市川イチ乃", "+815000000002",
    "Uumeline0002", "b2" * 8, "青い手袋",
)  # fmt: skip


@contextmanager
def looked_through() -> Iterator[list[int]]:
    """Behind which ids the largest table was looked through while all others had to wait."""
    found: list[int] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_more: object) -> None:
        if "FROM events" in statement and "events.id > " in statement and "LIKE" in statement:
            found.append(values["id_1"] if isinstance(values, dict) else values[0])

    listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        remove(Engine, "before_cursor_execute", note)


def fill(town: Searching) -> None:
    """Everything of both."""
    with town.state.write() as connection:
        connection.execute(update(tables.watched).where(tables.watched.c.id == HANA).values(name=HANAE.name))
        connection.execute(
            insert(tables.watched),
            {"id": UMEYO.id, "name": UMEYO.name, "family": UMEYO.family, "homes": json.dumps(["eki/tags"]), "created_us": 0,
             "created_by": UMEYO.keeper_name},
        )  # fmt: skip
        connection.execute(update(tables.watched).where(tables.watched.c.id == HANA).values(created_by=HANAE.keeper_name))
        connection.execute(insert(tables.tags), {"tag": UMEYO.tag, "watched": UMEYO.id, "enrolled_us": 0, "enrolled_by": "test"})
        connection.execute(update(tables.tags).where(tables.tags.c.tag == TAG).values(enrolled_by=HANAE.keeper_name))
        connection.execute(upsert(tables.cursors, "value"), {"name": "watch", "value": 10_000})
        for one in (HANAE, UMEYO):
            connection.execute(update(tables.contacts).where(tables.contacts.c.id == one.keeper).values(name=one.keeper_name))
            for channel, address in (("sms", one.keeper_phone), ("line", one.keeper_line)):
                connection.execute(
                    insert(tables.addresses),
                    {"id": f"{one.account}{channel}", "contact": one.keeper, "channel": channel, "address": address, "rank": 5,
                     "state": "proved", "created_us": 0},
                )  # fmt: skip
    for one in (HANAE, UMEYO):
        _happens(town, one)
        _rows(town, one)
    (town.folder / "media").mkdir(exist_ok=True)
    (town.folder / "media" / ("9" * 64)).write_bytes(b"a boar")


def _happens(town: Searching, one: Someone) -> None:
    """A night exit, and a search, by the real ways."""
    town._openings += 1
    now_us = town.now_us
    facts = {
        "watched": one.id,
        "family": one.family,
        "place": "つばきの家",
        "seen_us": now_us - MINUTE_US,
        "tag": one.tag,
        "by": one.keeper_name,
    }
    id_ = f"00000000-0000-4000-8000-{town._openings:012}"
    alert = Alert(
        id_, "night-exit", "watched", "critical", WATCHED, one.id, f"o:{town._openings}", "firing", now_us, False, "left home",
        json.dumps(facts, ensure_ascii=False), fired_us=now_us,
    )  # fmt: skip
    town.move(Move(alert, None, "left home", tell=True, who=one.keeper_name))
    town.tick()
    with town.state.write() as connection:
        case = town.search.open(connection, one.id, f"散歩から {one.word} と {one.keeper_name}", one.keeper, now_us).case
    with town.state.read() as connection:
        page = connection.scalar(select(tables.search_cases.c.page).where(tables.search_cases.c.id == case))
    town.answer(one.keeper, "seen", page)
    town.heard("kominkan", one.tag)
    town.wait(2 * MINUTE_US)
    with town.state.write() as connection:
        town.search.found(connection, case, one.keeper, town.now_us)
        connection.execute(
            insert(tables.search_sightings),
            {
                "case": case,
                "node": f"n-{one.label.lower()}",
                "device": "tags",
                "first_us": 0,
                "last_us": town.now_us,
                "told": True,
            },
        )
    town.sent()
    town.tick()
    town.sent()


def _rows(town: Searching, one: Someone) -> None:
    """What other rooms keep of them."""
    now_us, by = town.now_us, one.keeper_name
    page = next(row["id"] for row in town.rows(tables.pages) if one.id in row["memory"])
    alert = next(row["id"] for row in town.rows(tables.alerts) if row["device"] == one.id)
    grouped = next(row["page"] for row in town.rows(tables.page_alerts) if row["alert"] == alert)
    words = json.dumps({"id": "d", "title": "まとめ", "body": f"{one.name} {by}"}, ensure_ascii=False)
    digest = {**town.ledger()[0], "id": f"digest-{one.account}", "page": None, "alert": None, "kind": "digest", "state": "sent",
              "contact": IDS["yakuba"], "body": words}  # fmt: skip
    remembered = {"at": {f"tsubaki/tags {one.tag}": {"near": True}}, "seen_at": "tsubaki/tags", "seen_us": now_us, "w": one.word}
    rows: list[tuple[Table, dict[str, Any]]] = [
        (tables.notifications, digest),
        (tables.digest_pages, {"notification": digest["id"], "page": page}),
        (tables.digest_pages, {"notification": digest["id"], "page": grouped}),
        (tables.rule_states, {"rule": "night-exit", "node": WATCHED, "device": one.id, "body": json.dumps(remembered)}),
        (tables.events, {"node": WATCHED, "epoch": "gateway", "seq": 90_000 + town._openings, "device": one.id, "type": "x",
                         "class_": "evidence", "time_us": now_us, "node_time_us": now_us, "received_us": now_us, "late": False,
                         "clock_trusted": True, "body": json.dumps({"tag": one.tag})}),
        (tables.quarantine, {"received_us": now_us, "topic": "t", "reason": "r", "size": 9,
                             "payload": json.dumps({"tag": one.tag}).encode()}),
        (tables.silences, {"match": json.dumps({"node": WATCHED, "device": one.id}), "from_us": 0, "until_us": now_us,
                           "why": f"{by} と {one.word}", "created_us": 0, "created_by": by}),
        (tables.consents, {"watched": one.id, "basis": "representative", "given_by": by, "relation": "daughter",
                           "entitled": f"{by} の戸籍", "given_us": 0,
                           "entered_us": 0, "entered_by": "test", "confirm_by_us": now_us}),
        (tables.labels, {"label": one.label, "tag": one.tag, "made_us": 0, "made_by": by}),
        (tables.label_reports, {"label": one.label, "what": "found", "at_us": now_us, "words": f"{one.word} {by}",
                                "reach": one.keeper_phone, "state": "open"}),
        (tables.rotating_tags, {"tag": one.tag, "key": one.account.encode(), "exponent": 10, "zero_us": 0}),
        (tables.inbox, {"id": f"line:{one.account}", "channel": "line", "received_us": now_us, "error": None, "done_us": None,
                        "body": json.dumps({"user": one.keeper_line, "text": f"{one.name} {one.word}"})}),
        (tables.accounts, {"id": one.account, "name": by, "roles": "", "contact": one.keeper, "created_us": 0,
                           "created_by": "test"}),
        (tables.passkeys, {"id": one.account, "account": one.account, "public_key": b"k", "sign_count": 0, "transports": "",
                           "name": f"{by} の電話", "created_us": 0}),
        (tables.ceremonies, {"sha256": one.account, "purpose": "login", "account": one.account, "challenge": b"c",
                             "expires_us": now_us}),
        (tables.login_links, {"sha256": one.account, "account": one.account, "via": "mail", "created_us": 0,
                              "expires_us": now_us}),
        (tables.sessions, {"sha256": one.account, "account": one.account, "how": "line", "browser": "Chrome", "opened_us": 0,
                           "used_us": 0, "expires_us": now_us}),
        (tables.jobs, {"id": one.account, "account": one.account, "label": by, "from_us": 0, "until_us": 1, "created_us": 0,
                       "created_by": "test"}),
        (tables.job_nodes, {"job": one.account, "node": "eki"}),
        (tables.installations, {"id": one.account, "node": "eki", "device": "trap-1", "by": by, "account": one.account,
                                "begun_us": 0, "received_us": 0, "note": by, "photos": "[]", "signal": "[]", "state": "done",
                                "why": "",
                                "answered_by": by, "version": 1}),
        (tables.invitations, {"code_sha256": one.account, "team": "office", "name": by, "uses_left": 1, "created_us": 0,
                              "created_by": "test", "expires_us": now_us}),
        (tables.pictures, {"sha256": "9" * 64, "node": one.label.lower(), "device": "cam", "content": "animal", "withheld": False,
                           "captured_us": 0, "cleared_by": by, "cleared_us": 1}),
        (tables.visits, {"id": one.account, "node": "kitayama-03", "device": "trap-1", "at_us": 1, "who": by, "via": "qr",
                         "result": "set", "note": f"{by} がいた", "recorded_us": 1}),
        (tables.visits, {"id": f"c{one.account}", "node": "kitayama-03", "device": "trap-1", "at_us": 1, "who": "",
                         "via": "button", "result": "capture", "recorded_us": 1}),
        (tables.captures, {"id": one.account, "node": "kitayama-03", "device": "trap-1", "visit": f"c{one.account}",
                           "alert": alert, "opened_us": 1}),
        (tables.recounts, {"area": "a", "at_us": 1, "counted": 5, "who": by}),
        (tables.town_modes, {"mode": "normal", "since_us": 1, "who": by, "why": f"{by} の電話で"}),
        (tables.claims, {"id": one.label[:4], "node": "eki", "code": None, "created_us": 1, "created_by": by, "expires_us": 2}),
        (tables.certificates, {"serial": one.account, "node": "eki", "issued_us": 1, "not_after_us": 2, "revoked_us": 1,
                               "revoked_why": f"{by} が失くした"}),
        (tables.desired, {"node": "eki", "revision": town._openings, "payload": "{}", "sha256": "", "created_us": 1,
                          "created_by": by}),
        (tables.commands, {"id": one.account, "node": "eki", "name": "identify", "payload": "{}", "issued_us": 1, "issued_by": by,
                           "expires_us": 2, "state": "done"}),
    ]  # fmt: skip
    with town.state.write() as connection:
        for table, row in rows:
            connection.execute(insert(table), row)
        memory = json.loads(connection.scalar(select(tables.pages.c.memory).where(tables.pages.c.id == page)) or "{}")
        memory["scripted"]["facts"]["by"] = by
        connection.execute(update(tables.pages).where(tables.pages.c.id == page).values(memory=json.dumps(memory)))
        record(connection, f"contact:{one.keeper}", "look", f"watched/{one.id}", now_us, why=one.word, more={"place": "駅前"})
        record(connection, "cli:office", "contact.manage", f"contact/{one.keeper}", now_us, more={"to": one.keeper_phone})
        record(connection, "cli:office", "tag.enrol", f"tag/{one.tag}", now_us)


def rows_of(town: Searching) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with town.state.read() as connection:
        return {
            table.name: sorted(str(dict(row)) for row in connection.execute(select(table)).mappings())
            for table in tables.metadata.sorted_tables
        }


def found_in(folder: Path, words: Iterable[str]) -> list[tuple[str, str]]:
    """(file, word) of every file below the folder whose bytes hold one of the words, as it is or as JSON spells it."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            spelt = {word: (word.encode(), json.dumps(word)[1:-1].encode()) for word in words}
            found += [(path.name, word) for word, ways in spelt.items() if any(way in content for way in ways)]
    return found
