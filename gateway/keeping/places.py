"""Forgetting where tags were: whatever says so and is too old, in every table; of everybody, or of one person at once.

That somebody was searched for, by whom and how it ended, stays; where, why and in which words does not. What rules remember they
forget themselves (gateway.rules.presence), because the watch has it in memory. Each function does one piece, and says how much
it forgot; a piece that was full is followed by another. Repeating it changes nothing.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, delete, or_, select, update

from edge.contract.events import EVENTS
from gateway.alerting.escalation import Memory
from gateway.mimamori.enrolled import WATCHED
from gateway.notify.message import Message
from gateway.state.sql import position
from gateway.state.tables import (
    alerts,
    cursors,
    digest_pages,
    events,
    notifications,
    page_alerts,
    pages,
    quarantine,
    search_cases,
    search_changes,
    search_sightings,
)
from gateway.telling import PERSONAL, without_place

AT_ONCE = 500
MOST_PIECES = 200
"""Of one piece in one run of the chore: it must not keep the others waiting; the next hour goes on."""
TAGGED = [name for name, model in EVENTS.items() if "tag" in model.model_fields]
PLACES = ("place", "state", "seen_us")
"""Facts of an alert, a page or a verdict that say where a tag was, and when."""
_BLANK = '"title":""'
"""How the body of a message without words begins to say so."""

Piece = Callable[[Connection, int, int], int]
"""piece(connection, before_us, now_us) -> how much it forgot; AT_ONCE or more: there is more."""


class Events(NamedTuple):
    """Old events of some sort, that the rules have seen. To find them reads a large table: not while the others wait to write."""

    which: Callable[[], ColumnElement[bool]]

    def found(self, connection: Connection, before_us: int) -> list[int]:
        """Their ids, of the oldest as many as go in one run."""
        old = select(events.c.id).where(events.c.received_us < before_us, events.c.id <= judged(), self.which())
        return list(connection.scalars(old.order_by(events.c.id).limit(AT_ONCE * MOST_PIECES)))

    @staticmethod
    def forget(connection: Connection, ids: list[int]) -> int:
        """How many of them were still there."""
        return connection.execute(delete(events).where(events.c.id.in_(ids))).rowcount


def judged() -> ScalarSelect[Any]:
    """Up to which event the rules have seen them."""
    return select(cursors.c.value).where(cursors.c.name == "watch").scalar_subquery()


def of_sighting() -> ColumnElement[bool]:
    """Events that say where a tag was."""
    return or_(events.c.class_ == "sighting", events.c.type.in_(TAGGED) & events.c.body.like('%"tag"%'))


sightings = Events(of_sighting)
others = Events(lambda: ~of_sighting())


def in_alerts(connection: Connection, before_us: int, _now_us: int, *, of: str | None = None) -> int:
    """Of a person's alert the place, and when that was."""
    query = select(alerts.c.id, alerts.c.facts, alerts.c.since_us).where(alerts.c.node == WATCHED, alerts.c.since_us < before_us)
    query = query.where(or_(*(alerts.c.facts.like(f'%"{name}"%') for name in PLACES)))
    done = 0
    for row in connection.execute(query if of is None else query.where(alerts.c.device == of)).all():
        facts = json.loads(row.facts)
        if (facts.get("seen_us") or row.since_us) < before_us:
            left = {name: fact for name, fact in facts.items() if name not in PLACES}
            done += connection.execute(
                update(alerts).where(alerts.c.id == row.id).values(facts=json.dumps(left, ensure_ascii=False))
            ).rowcount
    return done


def in_messages(connection: Connection, before_us: int, _now_us: int, *, of: str | None = None) -> int:
    """A message keeps its id, kind and what came of it, and loses its words."""
    mine = _personal(of)
    theirs = select(alerts.c.id).where(alerts.c.node == WATCHED)
    theirs = theirs if of is None else theirs.where(alerts.c.device == of)
    old = select(notifications.c.id, notifications.c.body).where(about(mine, theirs), notifications.c.created_us < before_us)
    old = old.where(notifications.c.state != "queued", notifications.c.body.not_like(f"%{_BLANK}%"))
    rows = connection.execute(old.limit(AT_ONCE)).all()
    for row in rows:
        blank(connection, row.id, row.body)
    return len(rows)


def about(mine: Select[Any], theirs: Select[Any]) -> ColumnElement[bool]:
    """Messages about these pages, about pages with these alerts, and digests of either."""
    grouped = select(page_alerts.c.page).where(page_alerts.c.alert.in_(theirs))
    digests = select(digest_pages.c.notification).where(or_(digest_pages.c.page.in_(mine), digest_pages.c.page.in_(grouped)))
    return or_(
        notifications.c.page.in_(mine),
        notifications.c.page.in_(grouped),
        notifications.c.alert.in_(theirs),
        notifications.c.id.in_(digests),
    )


def blank(connection: Connection, id_: str, body: str) -> None:
    """Takes the words out of a message."""
    said = json.loads(body)
    kept = {name: said[name] for name in ("kind", "severity", "language") if name in said}
    empty = Message(id=id_, title="", body="", **kept).model_dump_json()
    connection.execute(update(notifications).where(notifications.c.id == id_).values(body=empty))


def in_queue(connection: Connection, of: str) -> None:
    """What waits to be sent about a person still wakes whom it was to wake, with its buttons, and says no place."""
    theirs = select(alerts.c.id).where(alerts.c.node == WATCHED, alerts.c.device == of)
    waits = select(notifications.c.id, notifications.c.body).where(about(_personal(of), theirs))
    for row in connection.execute(waits.where(notifications.c.state == "queued")).all():
        try:
            said = without_place(Message.model_validate_json(row.body)).model_dump_json()
        except ValidationError:  # written by another release
            blank(connection, row.id, row.body)
            continue
        connection.execute(update(notifications).where(notifications.c.id == row.id).values(body=said))


def in_pages(connection: Connection, before_us: int, _now_us: int, *, of: str | None = None) -> int:
    """What a closed page remembers of a place; of one person also an open one."""
    query = select(pages.c.id, pages.c.memory, pages.c.version)
    query = query.where(pages.c.kind.in_(PERSONAL), pages.c.memory.like('%"place"%'))
    mine = pages.c.closed_us < before_us if of is None else pages.c.id.in_(_personal(of))
    for row in connection.execute(query.where(mine)).all():
        memory = Memory.model_validate_json(row.memory)
        if memory.scripted is not None:
            memory.scripted.facts = {name: fact for name, fact in memory.scripted.facts.items() if name not in PLACES}
        # Another version: who read it before must read it again, and does not write the place back.
        less = {"memory": memory.model_dump_json(exclude_defaults=True), "version": row.version + 1}
        connection.execute(update(pages).where(pages.c.id == row.id, pages.c.version == row.version).values(less))
    return 0


def in_cases(connection: Connection, before_us: int, now_us: int, *, of: str | None = None) -> int:
    """Of a search: places, reasons and words."""
    mine = select(search_cases.c.id) if of is None else select(search_cases.c.id).where(search_cases.c.watched == of)
    gone = delete(search_sightings).where(search_sightings.c.last_us < before_us, search_sightings.c.case.in_(mine))
    done = connection.execute(gone).rowcount
    old = mine.where(search_cases.c.ended_us < before_us, search_cases.c.forgotten_us.is_(None))
    for part in parts(connection.scalars(old)):
        done += connection.execute(delete(search_sightings).where(search_sightings.c.case.in_(part))).rowcount
        connection.execute(update(search_changes).where(search_changes.c.case.in_(part)).values(why=""))
        connection.execute(update(search_cases).where(search_cases.c.id.in_(part)).values(reason="", forgotten_us=now_us))
    return done


def in_quarantine(connection: Connection, before_us: int, _now_us: int) -> int:
    """Raw messages that were refused: those that may name a tag."""
    tagged = position(b'"tag', quarantine.c.payload) > 0
    old = select(quarantine.c.id).where(quarantine.c.received_us < before_us, tagged).limit(AT_ONCE)
    return connection.execute(delete(quarantine).where(quarantine.c.id.in_(connection.scalars(old).all()))).rowcount


def of_person(connection: Connection, id_: str, now_us: int) -> None:
    """All that says where this person's tags were, but for events: in what people were told, or are to be, and in cases."""
    in_queue(connection, id_)
    for forget in (in_alerts, in_messages, in_pages, in_cases):
        while forget(connection, now_us + 1, now_us, of=id_) >= AT_ONCE:
            pass


def _personal(of: str | None) -> Select[Any]:
    """Pages about a person: everybody's, or one's."""
    mine = select(pages.c.id).where(pages.c.kind.in_(PERSONAL))
    if of is None:
        return mine
    theirs = select(alerts.c.id).where(alerts.c.node == WATCHED, alerts.c.device == of)
    cases = select(search_cases.c.id).where(search_cases.c.watched == of)
    grouped = select(page_alerts.c.page).where(page_alerts.c.alert.in_(theirs))
    return mine.where(or_(pages.c.group_key.in_(cases), pages.c.id.in_(grouped)))


def parts(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """In pieces that a statement can name."""
    listed = list(ids)
    for at in range(0, len(listed), AT_ONCE):
        yield listed[at : at + AT_ONCE]
