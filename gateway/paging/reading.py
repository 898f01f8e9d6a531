"""What is read of pages: which are due, all that belongs to some of them, and whom the book knows, each opened once a look.

Nothing is written here.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from sqlalchemy import BindParameter, Connection, Select, bindparam, case, func, or_, select

from gateway.alerting.escalation import Said
from gateway.alerting.lifecycle import Alert
from gateway.alerting.route import FAMILY, Channel, StepConfig
from gateway.contacts.book import Shelf
from gateway.contacts.person import Person
from gateway.state.tables import alert_history, alerts, answers, digest_pages, notifications, page_alerts, pages

OPEN = ("waiting", "asking", "answered", "exhausted")
"""States of a page that is not closed. Named, because an index finds what is named, and not what is excluded."""
STAFF = "staff:"
"""Before the name of somebody who answers by the API and was not asked."""
AT_ONCE = 2000
ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]
_IN = 500  # SQLite takes so many parameters in any build
_ALIVE = frozenset(("sent", "seen", "answered"))

# What belongs to some pages: `Found`. Built once: a town that comes back is a thousand pages in one look.
_ITS: BindParameter[Any] = bindparam("its", expanding=True)
THEIR_PAGES = select(pages).where(pages.c.id.in_(_ITS), pages.c.state != "closed").with_for_update()
_THEIR_ALERTS = (
    select(page_alerts.c.page, page_alerts.c.told_us, *ALERT_COLUMNS)
    .join(alerts, alerts.c.id == page_alerts.c.alert)
    .where(page_alerts.c.page.in_(_ITS))
    .order_by(page_alerts.c.joined_us, alerts.c.since_us, alerts.c.id)
)
_THEIR_ANSWERS = (
    select(answers, notifications.c.created_us)
    .join(notifications, notifications.c.id == answers.c.notification, isouter=True)
    .where(answers.c.page.in_(_ITS))
    .order_by(answers.c.id)
)
# Tried, overdue, and with no other address: it may arrive yet, but nobody waits for it.
_HANGS = (notifications.c.state == "queued") & (notifications.c.attempts > 0) & notifications.c.failover_us.is_(None)
_HOW_IT_WENT = (notifications.c.contact, case((_HANGS, "hangs"), else_=notifications.c.state))
_THEIR_MESSAGES = select(notifications.c.page, *_HOW_IT_WENT).distinct().where(notifications.c.page.in_(_ITS))
_THEIR_DIGESTS = (
    select(digest_pages.c.page, *_HOW_IT_WENT)
    .join(notifications, notifications.c.id == digest_pages.c.notification)
    .distinct()
    .where(digest_pages.c.page.in_(_ITS))
)


class Directory(Protocol):
    """Who can be told; gateway.contacts.book.Book is one."""

    def who(
        self, connection: Connection, name: str, now_us: int, by: Channel | None = None, shelf: Shelf | None = None
    ) -> list[Person]:
        """Everybody of a group, or a configured contact, who can be told now."""
        ...

    def person(self, connection: Connection, contact: str, now_us: int, *, shelf: Shelf | None = None) -> Person | None:
        """This contact; None where nothing reaches them."""
        ...

    def name_of(self, connection: Connection, contact: str) -> str:
        """What others are told of them."""
        ...


class Found:
    """What belongs to some pages, read together."""

    def __init__(self, connection: Connection, rows: Sequence[Any]) -> None:
        """`rows`: at most as many as a statement takes parameters."""
        self.rows = rows
        its = {"its": [row.id for row in rows]}
        self.alerts: dict[str, list[tuple[Alert, int | None]]] = defaultdict(list)
        self.answers: dict[str, list[Said]] = defaultdict(list)
        self.lost: dict[str, set[str]] = defaultdict(set)
        self.waits: set[str] = set()
        for page, told_us, *values in connection.execute(_THEIR_ALERTS, its):
            self.alerts[page].append((Alert(**dict(zip(Alert.__slots__, values, strict=True))), told_us))
        for row in connection.execute(_THEIR_ANSWERS, its):
            self.answers[row.page].append(Said(row.id, row.contact, row.answer, row.at_us, row.created_us))
        states: dict[tuple[str, str], set[str]] = defaultdict(set)
        for query in (_THEIR_MESSAGES, _THEIR_DIGESTS):
            for page, contact, state in connection.execute(query, its):
                states[page, contact].add(state)
        for (page, contact), seen in states.items():
            if seen & {"queued", "hangs"}:
                self.waits.add(page)
            if seen & {"dead", "hangs"} and not seen & (_ALIVE | {"queued"}):
                self.lost[page].add(contact)


class Desk:
    """The book, each page of it opened once a look."""

    def __init__(self, book: Directory, connection: Connection, now_us: int) -> None:
        self._book, self._connection, self._now_us = book, connection, now_us
        self._shelf = Shelf(connection)
        self._who: dict[tuple[str, Channel | None], list[Person]] = {}
        self._people: dict[str, Person | None] = {}
        self._names: dict[str, str] = {}

    def open(self, groups: Iterable[str]) -> None:
        """Everybody whom some pages may tell, read together."""
        self._shelf.open(set(groups))

    def who(self, name: str, by: Channel | None) -> list[Person]:
        if (name, by) not in self._who:
            self._who[name, by] = self._book.who(self._connection, name, self._now_us, by, self._shelf)
        return self._who[name, by]

    def of_step(self, step: StepConfig, mine: Sequence[tuple[Alert, int | None]]) -> list[Person]:
        """Everybody whom a step tells, of these alerts."""
        found: dict[str, Person] = {}
        for name in step.to:
            names = [name]
            if name == FAMILY:
                facts = (json.loads(alert.facts).get(FAMILY) for alert, _ in mine)
                names = list(dict.fromkeys(family for family in facts if isinstance(family, str)))
            for one in names:
                for person in self.who(one, step.by):
                    found.setdefault(person.contact, person)
        return list(found.values())

    def person(self, contact: str, by: Channel | None = None) -> Person | None:
        """With the addresses of one channel only, where `by` says so."""
        if contact not in self._people:
            self._people[contact] = self._book.person(self._connection, contact, self._now_us, shelf=self._shelf)
        person = self._people[contact]
        if person is None or by is None:
            return person
        ways = tuple(address for address in person.addresses if address.channel == by)
        return person._replace(addresses=ways) if ways else None

    def name_of(self, contact: str) -> str:
        """What others are told of them; of one of the staff, the name."""
        if contact.startswith(STAFF):
            return contact.removeprefix(STAFF)
        if contact not in self._names:
            self._names[contact] = self._book.name_of(self._connection, contact)
        return self._names[contact]


def due_pages(now_us: int) -> Select[Any]:
    """Which pages are to be looked at now. Of the years of closed ones none is read."""
    due = or_(pages.c.changed.is_(True), pages.c.due_us <= now_us)
    return select(pages.c.id).where(pages.c.state.in_(OPEN), due).order_by(pages.c.opened_us, pages.c.id).limit(AT_ONCE)


def cooled_us(connection: Connection, row: Any) -> int | None:
    """When the last message of an earlier page of this group was really sent."""
    earlier = select(pages.c.id).where(pages.c.route == row.route, pages.c.group_key == row.group_key, pages.c.id != row.id)
    last = select(func.max(notifications.c.sent_us))
    alone = last.where(notifications.c.page.in_(earlier), notifications.c.kind.in_(("alert", "again")))
    of_digest = last.join(digest_pages, digest_pages.c.notification == notifications.c.id)
    found = (connection.scalar(alone), connection.scalar(of_digest.where(digest_pages.c.page.in_(earlier))))
    return max((at_us for at_us in found if at_us is not None), default=None)


def by_visit(connection: Connection, mine: Sequence[Alert]) -> bool:
    """Whether somebody's visit ended them."""
    why = connection.scalars(
        select(alert_history.c.why).where(
            alert_history.c.alert.in_([alert.id for alert in mine]), alert_history.c.after == "resolved"
        )
    )
    return any(one.startswith("trap_visited") for one in why)


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at once as a statement takes."""
    for at in range(0, len(ids), _IN):
        yield ids[at : at + _IN]
