"""Forgetting where tags were: whatever says so and is older than `mimamori.keep_sightings`, in every table.

That somebody was searched for, by whom and how it ended, stays; where, why and in which words does not. What rules remember they
forget themselves (gateway.rules.presence), because the watch has it in memory. A chore of an hour; repeating it changes nothing.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from edge.contract.events import EVENTS
from gateway.alerting.escalation import Memory
from gateway.mimamori.enrolled import WATCHED
from gateway.notify.message import Message
from gateway.state import State
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
from gateway.telling import PERSONAL

AT_ONCE = 500
_TAGGED = [name for name, model in EVENTS.items() if "tag" in model.model_fields]
_PLACES = ("place", "state", "seen_us")
_BLANK = '"title":""'
"""How the body of a message without words begins to say so."""


class Retention:
    """`run` is the chore."""

    def __init__(self, state: State, keep_s: float) -> None:
        self._state, self._keep_us = state, int(keep_s * 1e6)

    def run(self, now_us: int) -> None:
        """Forgets what is too old, in pieces that leave room for others to write."""
        before_us = now_us - self._keep_us
        for forget in (_events, _alerts, _messages, _pages, _cases, _quarantine):
            more = True
            while more:
                with self._state.write() as connection:
                    more = forget(connection, before_us, now_us)


def _events(connection: Connection, before_us: int, _: int) -> bool:
    """Only what the rules have seen."""
    judged = select(cursors.c.value).where(cursors.c.name == "watch").scalar_subquery()
    old = select(events.c.id, events.c.class_, events.c.body).where(events.c.received_us < before_us, events.c.id <= judged)
    old = old.where(or_(events.c.class_ == "sighting", events.c.type.in_(_TAGGED) & events.c.body.like('%"tag"%')))
    rows = connection.execute(old.order_by(events.c.id).limit(AT_ONCE)).all()
    ids = [row.id for row in rows]
    connection.execute(delete(events).where(events.c.id.in_(ids)))
    return len(rows) == AT_ONCE


def _alerts(connection: Connection, before_us: int, _: int) -> bool:
    query = select(alerts.c.id, alerts.c.facts, alerts.c.since_us, alerts.c.version)
    query = query.where(alerts.c.node == WATCHED, alerts.c.since_us < before_us, alerts.c.facts.like('%"place"%'))
    for row in connection.execute(query).all():
        facts = json.loads(row.facts)
        if (facts.get("seen_us") or row.since_us) < before_us:
            left = {name: fact for name, fact in facts.items() if name not in _PLACES}
            connection.execute(update(alerts).where(alerts.c.id == row.id).values(facts=json.dumps(left, ensure_ascii=False)))
    return False


def _messages(connection: Connection, before_us: int, _: int) -> bool:
    """A message keeps its id, kind and what came of it, and loses its words."""
    mine = select(pages.c.id).where(pages.c.kind.in_(PERSONAL))
    theirs = select(alerts.c.id).where(alerts.c.node == WATCHED)
    grouped = select(page_alerts.c.page).where(page_alerts.c.alert.in_(theirs))
    of_theirs = or_(digest_pages.c.page.in_(mine), digest_pages.c.page.in_(grouped))
    digests = select(digest_pages.c.notification).where(of_theirs)
    about = or_(
        notifications.c.page.in_(mine),
        notifications.c.page.in_(grouped),
        notifications.c.alert.in_(theirs),
        notifications.c.id.in_(digests),
    )
    old = select(notifications.c.id, notifications.c.body).where(about, notifications.c.created_us < before_us)
    old = old.where(notifications.c.state != "queued", notifications.c.body.not_like(f"%{_BLANK}%"))
    rows = connection.execute(old.limit(AT_ONCE)).all()
    for row in rows:
        connection.execute(
            update(notifications).where(notifications.c.id == row.id).values(body=_without_words(row.id, row.body))
        )
    return len(rows) == AT_ONCE


def _without_words(id_: str, body: str) -> str:
    said = json.loads(body)
    kept = {name: said[name] for name in ("kind", "severity", "language") if name in said}
    return Message(id=id_, title="", body="", **kept).model_dump_json()


def _pages(connection: Connection, before_us: int, _: int) -> bool:
    query = select(pages.c.id, pages.c.memory, pages.c.version)
    query = query.where(pages.c.kind.in_(PERSONAL), pages.c.closed_us < before_us, pages.c.memory.like('%"place"%'))
    for row in connection.execute(query).all():
        memory = Memory.model_validate_json(row.memory)
        if memory.scripted is not None:
            memory.scripted.facts = {name: fact for name, fact in memory.scripted.facts.items() if name not in _PLACES}
        same = (pages.c.id == row.id, pages.c.version == row.version)
        connection.execute(update(pages).where(*same).values(memory=memory.model_dump_json(exclude_defaults=True)))
    return False


def _cases(connection: Connection, before_us: int, now_us: int) -> bool:
    connection.execute(delete(search_sightings).where(search_sightings.c.last_us < before_us))
    old = select(search_cases.c.id).where(search_cases.c.ended_us < before_us, search_cases.c.forgotten_us.is_(None))
    for part in _parts(connection.scalars(old)):
        connection.execute(delete(search_sightings).where(search_sightings.c.case.in_(part)))
        connection.execute(update(search_changes).where(search_changes.c.case.in_(part)).values(why=""))
        connection.execute(update(search_cases).where(search_cases.c.id.in_(part)).values(reason="", forgotten_us=now_us))
    return False


def _quarantine(connection: Connection, before_us: int, _: int) -> bool:
    """Raw messages that were refused: those that may name a tag."""
    query = select(quarantine.c.id, quarantine.c.payload).where(quarantine.c.received_us < before_us)
    for part in _parts(row.id for row in connection.execute(query) if b'"tag' in bytes(row.payload)):
        connection.execute(delete(quarantine).where(quarantine.c.id.in_(part)))
    return False


def _parts(ids: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(ids)
    for at in range(0, len(listed), AT_ONCE):
        yield listed[at : at + AT_ONCE]
