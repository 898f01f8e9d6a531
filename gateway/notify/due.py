"""What is due: what each address should have next, and which of that this process may attempt. Nothing is sent here."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, case, func, literal, or_, select, text, update

from gateway.state import State
from gateway.state.tables import addresses, alerts, notifications, pages, workers

SLOTS = 16
"""Attempts at once over one channel. A `contact` of the configuration has one, for it is one address."""
_AT_ONCE = 200  # rows of one look

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_own = literal("contact.").concat(notifications.c.contact)
_address = func.coalesce(notifications.c.address, _own)
_key = case((notifications.c.address.is_(None), _own), else_=notifications.c.channel)
_place = func.row_number().over(
    partition_by=_address,
    order_by=(notifications.c.severity_rank, notifications.c.created_us, notifications.c.id),
)


def _next(*conditions: ColumnElement[bool]) -> Select[Any]:
    """What each address should have next. Nothing is sorted but what sorting needs: bodies are read of what is found."""
    due = (
        select(notifications.c.id, _address.label("at"), _key.label("key"), _place.label("place"))
        .where(notifications.c.state == "queued", notifications.c.due_us <= bindparam("now_us"), *conditions)
        .where(_address.not_in(bindparam("busy", expanding=True)))
        .where(_key.not_in(bindparam("full", expanding=True)))
        .subquery()
    )
    return (
        select(
            notifications,
            due.c.at,
            due.c.key,
            alerts.c.state.label("alert_state"),
            alerts.c.fired_us,
            pages.c.state.label("page_state"),
            pages.c.opened_us,
            addresses.c.address.label("to"),
            addresses.c.state.label("address_state"),
            addresses.c.why,
        )
        .select_from(due)
        .join(notifications, notifications.c.id == due.c.id)
        .join(alerts, alerts.c.id == notifications.c.alert, isouter=True)
        .join(pages, pages.c.id == notifications.c.page, isouter=True)
        .join(addresses, addresses.c.id == notifications.c.address, isouter=True)
        .where(due.c.place == 1)
        .order_by(notifications.c.severity_rank, notifications.c.created_us, notifications.c.id)
        .limit(_AT_ONCE)
    )


_NEXT = _next()
# Where several processes deliver: nothing to an address to which another is sending.
_others = notifications.alias()
_claimed = (
    select(func.coalesce(_others.c.address, literal("contact.").concat(_others.c.contact)))
    .join(workers, workers.c.id == _others.c.claimed_by)
    .where(_others.c.state == "queued", workers.c.id != bindparam("me"))
)
_NEXT_OF_SEVERAL = _next(_address.not_in(_claimed))
# One claims at a time, any number that no other program in this database uses: of two that claim different messages of one
# address neither would see the other's claim.
_CLAIMING = text("SELECT pg_advisory_xact_lock(5462532)")
_claimable = (
    select(notifications.c.id)
    .where(notifications.c.id.in_(bindparam("ids", expanding=True)), notifications.c.state == "queued")
    .where(notifications.c.due_us <= bindparam("now_us"), _address.not_in(_claimed))
    .where(
        or_(
            notifications.c.claimed_by.is_(None),
            notifications.c.claimed_by == bindparam("me"),
            notifications.c.claimed_by.not_in(select(workers.c.id)),  # it died over it
        )
    )
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(notifications)
    .where(notifications.c.id.in_(_claimable))
    .values(claimed_by=bindparam("me"))
    .returning(notifications.c.id, notifications.c.attempts)
)
_UNDELIVERED = (
    select(notifications.c.state, func.count().label("number"), func.min(notifications.c.due_us).label("due_us"))
    .where(notifications.c.state.in_(("queued", "dead")))
    .group_by(notifications.c.state)
)


class Undelivered(NamedTuple):
    """How much waits, since when it is due (None: nothing waits), and how many letters are dead."""

    waiting: int
    due_us: int | None
    dead: int


class Due:
    """Safe on many threads, of which one looks at a time."""

    def __init__(self, state: State, now_us: Callable[[], int], worker: int | None) -> None:
        """`worker`: the number of this process among several that deliver; None: it is the only one."""
        self._state, self._now_us, self._worker = state, now_us, worker

    def look(self, busy: Mapping[str, str]) -> list[Any]:
        """What each address should have next, as far as its channel has a slot. `busy`: channels of addresses to leave out."""
        busy = dict(busy)
        used = Counter(busy.values())
        found: list[Any] = []
        with self._state.read() as connection:
            while True:
                full = [key for key, number in used.items() if number >= slots(key)]
                asked = {"now_us": self._now_us(), "busy": list(busy), "full": full}
                if self._worker is None:
                    rows = connection.execute(_NEXT, asked).all()
                else:
                    rows = connection.execute(_NEXT_OF_SEVERAL, {**asked, "me": self._worker}).all()
                for row in rows:
                    if used[row.key] < slots(row.key):
                        used[row.key] += 1
                        busy[row.at] = row.key
                        found.append(row)
                # A channel that has no slot left may have filled the look; others may wait behind it.
                if len(rows) < _AT_ONCE:
                    break
        return self._claimed(found, self._worker) if self._worker is not None and found else found

    def _claimed(self, rows: list[Any], worker: int) -> list[Any]:
        """Those of them that are ours to attempt: an address to which another process sends by now is its, and what it has
        attempted since we looked is looked at again.
        """
        asked = {"ids": [row.id for row in rows], "me": worker, "now_us": self._now_us()}
        with self._state.write(own=True) as connection:
            connection.execute(_CLAIMING)
            ours = {row.id: row.attempts for row in connection.execute(_CLAIM, asked)}
        return [row for row in rows if ours.get(row.id) == row.attempts]

    def undelivered(self) -> Undelivered:
        """What waits, and what is dead. Not at each look: a long queue takes long to count."""
        with self._state.read() as connection:
            found = {row.state: row for row in connection.execute(_UNDELIVERED)}
        dead, queued = found.get("dead"), found.get("queued")
        return Undelivered(queued.number if queued else 0, queued.due_us if queued else None, dead.number if dead else 0)


def slots(key: str) -> int:
    """How many attempts there may be at once over a channel."""
    return 1 if key.startswith("contact.") else SLOTS
