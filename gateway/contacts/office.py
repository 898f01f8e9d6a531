"""How the office hears of whom nothing reaches: one condition of the gateway's own for each, until it is well again.

Says a contact's id and why, never a name: the name is put in where the words are made for somebody who may read it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, select

from gateway.alerting.lifecycle import Alert
from gateway.contacts.book import Book, Unreachable
from gateway.state import State
from gateway.state.tables import alerts

PART = "contact-"
MOMENT = "alert.contact_unreachable"


class SayCondition(Protocol):
    """`Own.condition` of gateway.own."""

    def __call__(
        self, part: str, level: str, reason: str = "", facts: Mapping[str, Any] | None = None, opening: str = ""
    ) -> None: ...


class Office:
    """What `Proof` calls at each look with everybody whom no address reaches. Used by one thread."""

    def __init__(self, state: State, condition: SayCondition) -> None:
        self._state, self._condition = state, condition
        self._said: set[str] | None = None

    def __call__(self, rows: Sequence[Unreachable], now_us: int) -> None:  # noqa: ARG002 - what a look hands over
        """Whose last address was lost is said; who never answered yet, or has no address, is shown in lists only."""
        if self._said is None:
            self._said = self._told_before()
        lost = {PART + row.contact: row for row in rows if row.why is not None and not row.waiting}
        for part, row in lost.items():
            facts = {"moment": MOMENT, "contact": row.contact, "why": row.why}
            self._condition(part, "firing", "contact_unreachable", facts, str(row.since_us))
        for part in self._said - lost.keys():
            self._condition(part, "ok", "reachable again")
        self._said = set(lost)

    def _told_before(self) -> set[str]:
        """Parts with an open alert from before this start: who came back meanwhile must be said to be well."""
        with self._state.read() as connection:
            query = select(alerts.c.device).where(alerts.c.kind == "gateway", alerts.c.device.startswith(PART))
            return set(connection.scalars(query.where(alerts.c.state != "resolved")))


def named(book: Book) -> Callable[[Connection, Alert, str], Mapping[str, Any]]:
    """What `Paging` asks for more facts (its `more`): the name of the contact that an alert is about, for who is told of it."""

    def more(connection: Connection, alert: Alert, _told: str) -> Mapping[str, Any]:
        if not alert.device.startswith(PART):
            return {}
        contact = json.loads(alert.facts).get("contact")
        return {"name": [book.name_of(connection, contact)]} if isinstance(contact, str) else {}

    return more
