"""Dossiers of captures, as a municipality's form wants them: when it sprang, who was there, what it was, photographs.

A dossier is complete only when it is whole, and a photograph can prove one capture only. Each change is a fact, so that the
reminder (gateway/rules/dossier.py) knows what is lacking.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from gateway.own_facts import DOSSIER, add_fact
from gateway.state.tables import alerts, capture_photos, captures, events, visits
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

CHECKLIST = ("whole", "board", "tail")
"""Photographs that a form needs: the whole animal (個体全体), the board with date and trap (記録板), the tail (尾)."""
ITEMS = (*CHECKLIST, "other")
"""What a photograph can be of."""

Sex = Literal["male", "female", "unknown"]
FIELDS = ("species", "sex", "weight_kg", "disposal")
"""What a form needs besides. `note` may stay empty."""

_LONGEST_US = 7 * 24 * 3600 * 1_000_000
_NAMESPACE = uuid.UUID("0b8f8f0e-3c0c-5b8e-8a34-6d1f3e5f7c21")


class Refused(Refusal):
    """This can't be entered."""


class Lacking(Refused):
    """A dossier can't be completed yet. `missing`: names of FIELDS and of CHECKLIST."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__("why.dossier_lacks", missing=", ".join(missing))
        self.missing = missing


def open_capture(connection: Connection, visit: str, now_us: int) -> str:
    """The dossier of the capture that this visit found: a new one, or the open one of the same springing. Returns its id.

    The sensor's time is that of the last springing before the visit that no other dossier has.
    """
    found = connection.execute(select(visits).where(visits.c.id == visit)).one()
    here = (events.c.node == found.node, events.c.device == found.device)
    sprung_us = connection.scalar(
        select(events.c.time_us)
        .where(*here, events.c.type == "trap_sprung")
        .where(events.c.time_us <= found.at_us, events.c.time_us > found.at_us - _LONGEST_US)
        .order_by(events.c.time_us.desc())
        .limit(1)
    )
    if sprung_us is not None:
        same = connection.execute(
            select(captures).where(
                captures.c.node == found.node, captures.c.device == found.device, captures.c.sprung_us == sprung_us
            )
        ).first()
        if same is not None and same.completed_us is None:
            return str(same.id)
        if same is not None:
            sprung_us = None  # that one's papers are done: this is another animal, which no sensor told of
    alert = connection.scalar(
        select(alerts.c.id)
        .where(alerts.c.node == found.node, alerts.c.device == found.device, alerts.c.summary == "trap_sprung")
        .where(alerts.c.since_us == sprung_us)
        .limit(1)
    )
    id_ = str(uuid.uuid5(_NAMESPACE, visit))
    row = {"id": id_, "node": found.node, "device": found.device, "alert": alert, "sprung_us": sprung_us, "visit": visit,
           "opened_us": now_us}  # fmt: skip
    connection.execute(insert(captures).values(row))
    _changed(connection, id_, now_us)
    return id_


def capture_row(connection: Connection, id_: str) -> dict[str, Any] | None:
    """The dossier with `visit` (its row), `photos` (rows, the first added first), `missing` and `seen`, its content's mark."""
    row = connection.execute(select(captures).where(captures.c.id == id_)).mappings().first()
    if row is None:
        return None
    photos = connection.execute(
        select(capture_photos).where(capture_photos.c.capture == id_).order_by(capture_photos.c.added_us, capture_photos.c.sha256)
    ).mappings()
    visit = connection.execute(select(visits).where(visits.c.id == row["visit"])).mappings().one()
    whole: dict[str, Any] = {**row, "visit": dict(visit), "photos": [dict(one) for one in photos]}
    return {**whole, "missing": list(missing_in(whole)), "seen": _mark(whole)}


def missing_in(capture: Mapping[str, Any]) -> tuple[str, ...]:
    """What it lacks to be whole: names of FIELDS and of CHECKLIST."""
    there = {photo["item"] for photo in capture["photos"]}
    fields = [name for name in FIELDS if capture[name] is None or capture[name] == ""]
    return (*fields, *(item for item in CHECKLIST if item not in there))


def change_capture(
    connection: Connection, id_: str, fields: Mapping[str, Any], who: str, now_us: int, *, seen: str | None, complete: bool
) -> None:
    """Sets fields (FIELDS and `note`), and completes it where asked. Refused where it is complete, changed, or not whole."""
    before = _open_one(connection, id_)
    if seen is not None and seen != before["seen"]:
        raise Refused("why.changed")
    # Compare-and-set, as PostgreSQL lets others write between our look and this.
    changed = connection.execute(
        update(captures).where(captures.c.id == id_, captures.c.completed_us.is_(None)).values(**fields, id=id_)
    )
    if changed.rowcount != 1:
        raise Refused("why.dossier_complete")
    if complete:
        after = capture_row(connection, id_) or before
        if after["missing"]:
            raise Lacking(tuple(after["missing"]))
        connection.execute(update(captures).where(captures.c.id == id_).values(completed_us=now_us, completed_by=who))
    _changed(connection, id_, now_us)


def add_photo(connection: Connection, id_: str, sha256: str, item: str, who: str, now_us: int) -> bool:
    """Adds a picture of the shelf; False where it was in it already, as the same. Refused where it proves another capture."""
    capture = _open_one(connection, id_)
    added = {"sha256": sha256, "capture": capture["id"], "item": item, "added_us": now_us, "added_by": who}
    if connection.execute(upsert(capture_photos), added).rowcount == 1:
        _changed(connection, id_, now_us)
        return True
    known = connection.execute(select(capture_photos).where(capture_photos.c.sha256 == sha256)).one()
    if known.capture != id_:
        raise Refused("why.picture_elsewhere")
    if known.item != item:
        raise Refused("why.picture_twice", item=known.item)
    return False


def _open_one(connection: Connection, id_: str) -> dict[str, Any]:
    found = capture_row(connection, id_)
    if found is None:
        raise Refused("why.no_dossier")
    if found["completed_us"] is not None:
        raise Refused("why.dossier_complete")
    return found


def _changed(connection: Connection, id_: str, now_us: int) -> None:
    """The fact of it."""
    found = capture_row(connection, id_)
    if found is None:
        return
    body = {"capture": id_, "opened_us": found["opened_us"], "missing": found["missing"],
            "completed": found["completed_us"] is not None}  # fmt: skip
    add_fact(connection, found["node"], found["device"], DOSSIER, body, now_us, now_us)


def _mark(capture: Mapping[str, Any]) -> str:
    said = {name: capture[name] for name in (*FIELDS, "note", "completed_us")} | {
        "photos": [p["sha256"] for p in capture["photos"]]
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
