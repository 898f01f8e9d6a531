"""A plan becomes messages: each in its receiver's language, or one digest of many, and they stand in the delivery outbox."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from gateway.alerting.escalation import Plan, Said, Tell, Waited
from gateway.alerting.lifecycle import Alert
from gateway.contacts.person import Person
from gateway.notify.message import Message, Severity
from gateway.notify.queue import RANK, queue
from gateway.paging.ids import digest_id, message_id
from gateway.paging.reading import Desk, Found, by_visit
from gateway.rules.trial import TEST
from gateway.state.tables import digest_pages
from gateway.state.upsert import upsert
from gateway.telling import About, Teller

log = logging.getLogger(__name__)

MERGE_ABOVE = 3
"""So many first messages of one look may go to one person by themselves; more are one digest."""
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")

More = Callable[[Connection, Alert, str], Mapping[str, Any]]
"""more(connection, alert, contact): facts for the words beyond the alert's own, as this contact may know them."""


class Ready(NamedTuple):
    """A message that is ready to be queued, or to be said together with others."""

    id: str
    person: Person
    tell: Tell
    about: About
    message: Message
    waited: Waited | None

    @property
    def may_merge(self) -> bool:
        """Whether it can be a line of a digest."""
        by_itself = self.about.severity == "critical" or self.about.kind == TEST or self.tell.by is not None
        return not by_itself and self.tell.kind in ("alert", "again")


class Messages:
    """Makes them, and puts them into the outbox."""

    def __init__(self, teller: Teller, more: More | None) -> None:
        self._teller, self._more = teller, more

    def made(
        self,
        connection: Connection,
        row: Any,
        plan: Plan,
        tell: Tell,
        found: Found,
        desk: Desk,
        now_us: int,
    ) -> Ready | None:
        """The message, in its receiver's language. None where nothing reaches them any more."""
        person = desk.person(tell.contact, tell.by)
        if person is not None and tell.kind == "picture":
            person = _in_silence(person)
        elif person is not None and tell.by is None and not _rings(tell, found.answers[row.id]):
            person = _without_calls(person)
        if person is None:
            return None
        mine = found.alerts[row.id]
        speaking = [alert for alert, _ in mine if alert.state in ("firing", "acknowledged")] or [alert for alert, _ in mine]
        said = [
            one
            for one in found.answers[row.id]
            if one.contact in tell.names or (tell.kind == "result" and one.contact == tell.contact)
        ]
        ended = [alert.resolved_us for alert in speaking if alert.resolved_us is not None]
        moment, severity = tell.moment, _worst(row.severity, speaking)
        when_us = said[-1].at_us if said else max(ended, default=None)
        if tell.kind == "picture":
            speaking, severity = [alert for alert in speaking if alert.id in tell.alerts] or speaking, "info"
            when_us = speaking[0].since_us
        if moment == "page.over" and row.kind == "trap" and by_visit(connection, speaking):
            tell = tell._replace(moment="page.over_visit")
        about = About(
            page=row.id,
            kind=row.kind,
            severity=severity,
            opened_us=row.opened_us,
            alerts=speaking,
            names=[desk.name_of(one) for one in tell.names],
            when_us=when_us,
            facts=self._more(connection, speaking[0], tell.contact) if self._more and speaking else {},
        )
        id_ = message_id(row.id, tell.contact, tell.kind, tell.key)
        message = self._teller.message(id_, person, tell, about, now_us)
        return Ready(id_, person, tell, about, message, plan.memory.waited)

    def put(self, connection: Connection, ready: Sequence[Ready], now_us: int) -> None:
        """Writes the messages. What was held back, or comes in a heap, is one digest for each person."""
        heaps: dict[str, list[Ready]] = defaultdict(list)
        for one in ready:
            if one.may_merge:
                heaps[one.person.contact].append(one)
        merged: set[str] = set()
        for heap in heaps.values():
            if len(heap) > (1 if all(one.waited for one in heap) else MERGE_ABOVE):
                # A digest asks nothing: of what asks, the most urgent come by themselves, so that there is something to answer.
                asking = sorted((one for one in heap if one.tell.asks), key=_urgency)[:MERGE_ABOVE]
                rest = [one for one in heap if one not in asking]
                if len(rest) > 1 and self._queue_digest(connection, rest, now_us):
                    merged.update(one.id for one in rest)
        for one in ready:
            if one.id not in merged:
                sleeps = one.tell.kind in ("office", "picture") and one.about.severity != "critical"
                quiet_us = one.person.quiet_until_us if sleeps else None
                queue(connection, one.person, one.message, now_us, page=one.about.page, by=one.tell.by, due_us=quiet_us)

    def _queue_digest(self, connection: Connection, heap: Sequence[Ready], now_us: int) -> bool:
        """Whether it is one now. Where its words fail, each is said by itself: the pages are written as told already."""
        why = {one.waited for one in heap}
        about = {alert.id: alert for one in heap for alert in one.about.alerts}
        id_ = digest_id(one.id for one in heap)
        first = sorted(about.values(), key=lambda alert: (SEVERITIES.index(alert.severity), alert.since_us, alert.id))
        person = heap[0].person
        try:
            message = self._teller.digest(id_, person, first, why.pop() if len(why) == 1 else None, now_us)
        except Exception:
            log.exception("the words of a digest of %d alerts failed; each is told by itself", len(first))
            return False
        queue(connection, person, message, now_us)
        told = {one.about.page for one in heap}
        connection.execute(upsert(digest_pages), [{"notification": id_, "page": page} for page in sorted(told)])
        return True


def _rings(tell: Tell, said: Sequence[Said]) -> bool:
    """Whether this is worth a telephone call: what asks, and to who is on their way that it is over."""
    if tell.kind == "over":
        last = {one.contact: one.answer for one in said}
        return last.get(tell.contact) in ("going", "done")
    return tell.asks or tell.kind in ("alert", "office")


def _in_silence(person: Person) -> Person | None:
    """Over the first channel on which a second message costs nobody a ring; None for who has none such."""
    silent = [address.channel for address in person.addresses if address.channel in ("line", "push")]
    addresses = tuple(address for address in person.addresses if address.channel in silent[:1])
    return person._replace(addresses=addresses) if addresses else None


def _without_calls(person: Person) -> Person | None:
    """None for who has a telephone only."""
    addresses = tuple(address for address in person.addresses if address.channel != "voice")
    return person._replace(addresses=addresses) if addresses else None


def _urgency(one: Ready) -> tuple[int, int, str]:
    return SEVERITIES.index(one.about.severity), one.about.opened_us, one.id


def _worst(severity: Severity, speaking: Sequence[Alert]) -> Severity:
    found = [severity, *(one for alert in speaking for one in SEVERITIES if one == alert.severity)]
    return min(found, key=RANK.__getitem__)
