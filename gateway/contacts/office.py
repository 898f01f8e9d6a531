"""How the office hears of whom nothing reaches: one condition of the gateway's own, told anew when somebody is added.

Thirty who leave at once are one page. It says contacts' ids and why, never a name: names are put in where the words are made for
somebody who may read them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, select

from gateway.alerting.lifecycle import Alert
from gateway.contacts.book import Book, Unreachable
from gateway.state import State
from gateway.state.tables import alerts

PART = "contact"
MOMENT, MOMENT_OF_MANY = "alert.contact_unreachable", "alert.contacts_unreachable"
NAMED = 5
"""Of so many the names are said; the list has them all."""
_EACH = "contact-"
"""How earlier releases called a part of each contact's own; what is open of those is ended."""


class SayCondition(Protocol):
    """`Own.condition` of gateway.own."""

    def __call__(
        self, part: str, level: str, reason: str = "", facts: Mapping[str, Any] | None = None, opening: str = ""
    ) -> None: ...


class Office:
    """What `Proof` calls at each look with everybody whom no address reaches. Used by one thread."""

    def __init__(self, state: State, condition: SayCondition) -> None:
        self._state, self._condition = state, condition
        self._said: frozenset[str] | None = None
        self._opening = ""

    def __call__(self, rows: Sequence[Unreachable], now_us: int) -> None:
        """Whose last address was lost is said; who never answered yet, or has no address, is shown in lists only."""
        if self._said is None:
            self._said = self._told_before()
        lost = {row.contact: row for row in rows if row.why is not None and not row.waiting}
        if not lost:
            if self._said:
                self._condition(PART, "ok", "reachable again")
            self._said = frozenset()
            return
        new = [contact for contact in lost if contact not in self._said]
        if new or not self._opening:
            self._opening = str(now_us)
        # Who is new stands first: theirs are the names that are said.
        named = [*new, *(contact for contact in lost if contact not in new)]
        facts: dict[str, Any] = {"moment": MOMENT if len(lost) == 1 else MOMENT_OF_MANY, "n": len(lost), "contacts": named}
        if len(lost) == 1:
            facts["why"] = lost[named[0]].why
        self._condition(PART, "firing", "contact_unreachable", facts, self._opening)
        self._said = frozenset(lost)

    def _told_before(self) -> frozenset[str]:
        """Who was said before this start, by the alert that is open: nobody is said twice, who came back is well."""
        mine = select(alerts.c.device, alerts.c.opening, alerts.c.facts).where(alerts.c.kind == "gateway")
        with self._state.read() as connection:
            open_ = connection.execute(mine.where(alerts.c.device.startswith(PART), alerts.c.state != "resolved")).all()
        said: frozenset[str] = frozenset()
        for row in open_:
            if row.device == PART:
                self._opening, said = row.opening, frozenset(json.loads(row.facts or "{}").get("contacts", ()))
            elif row.device.startswith(_EACH):
                self._condition(row.device, "ok", "said together with others now")
        return said


def named(book: Book) -> Callable[[Connection, Alert, str], Mapping[str, Any]]:
    """What `Paging` asks for more facts (its `more`): names of the contacts that an alert is about, for who is told of it."""

    def more(connection: Connection, alert: Alert, _told: str) -> Mapping[str, Any]:
        if alert.kind != "gateway" or not alert.device.startswith(PART):
            return {}
        facts = json.loads(alert.facts)
        ids = facts.get("contacts", [facts.get("contact")])[:NAMED]
        found = [book.name_of(connection, one) for one in ids if isinstance(one, str)]
        return {"name": found} if found else {}

    return more
