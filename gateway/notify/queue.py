"""The rows of the delivery outbox and ledger: how one is queued, and what becomes known of it after it was sent.

Everything here works in the caller's transaction, so that a message and what it follows from are durable together or not at all.
Repeating it changes nothing. What happens between queued and sent is `deliver`'s alone.
"""

import json
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, and_, case, func, select, update

from gateway.alerting.route import Channel
from gateway.contacts.person import Address, Person
from gateway.notify.message import Message
from gateway.state.tables import notifications
from gateway.state.upsert import upsert

RANK = {"critical": 0, "warning": 1, "info": 2}
"""What goes first, as `severity_rank` says it."""

FAILOVER_S = {"critical": 60.0, "warning": 600.0, "info": 600.0}
"""So long a message may wait for one address, by its severity; then the contact's next one is tried too."""

STAYS = frozenset({"test", "reply", "picture"})
"""Kinds of messages for which no other address can stand in: they are about the very one they go to, or may not ring."""

_ADD = upsert(notifications)


def queue(  # noqa: PLR0913 - a row's fields
    connection: Connection,
    person: Person,
    message: Message,
    now_us: int,
    *,
    due_us: int | None = None,
    alert: str | None = None,
    page: str | None = None,
    by: Channel | None = None,
    failover_after_s: float | None = None,
) -> str | None:
    """Writes one row, for the person's first address (with `by`: the first of that channel). Its id, which is the message's.

    None where the person has no such address: nothing is written then. `due_us`: not before that. `failover_after_s`: how long
    after that until another address is tried; by itself a minute for what is critical, ten for the rest. Where a row of this id
    stands already, it stays as it is.
    """
    address = first_address(person, by)
    if address is None:
        return None
    due_us = now_us if due_us is None else max(due_us, now_us)
    if failover_after_s is None:
        failover_after_s = FAILOVER_S[message.severity]
    if message.kind in STAYS:
        failover_after_s = None
    row = {
        "id": message.id,
        "alert": alert if alert is not None else message.alert,
        "page": page if page is not None else message.page,
        "kind": message.kind,
        "contact": person.contact,
        "address": address.id,
        "channel": address.channel,
        "only_by": by,
        "state": "queued",
        "severity_rank": RANK[message.severity],
        "body": message.model_dump_json(),
        "created_us": now_us,
        "due_us": due_us,
        "failover_us": None if failover_after_s is None else due_us + int(failover_after_s * 1e6),
        "attempts": 0,
    }
    connection.execute(_ADD, row)
    return message.id


def read_message(id_: str, body: str) -> Message:
    """A row's message. ValueError when there is none in it. Rows of before there were several channels hold one flat object."""
    match json.loads(body):
        case {"title": str(title), "body": str(text)} as said:
            with suppress(ValidationError):
                return Message.model_validate(said)
            return Message(
                id=id_,
                severity=said["severity"] if said.get("severity") in RANK else "warning",
                title=title,
                body=text,
                alert=said.get("alert"),
                late=bool(said.get("late", False)),
                data={name: value for name, value in said.items() if name not in Message.model_fields or name == "kind"},
            )
        case _:
            raise ValueError("it says no title and body")


def first_address(person: Person, by: Channel | None = None) -> Address | None:
    """Where a message to this person goes first; None where nothing fits."""
    return next((address for address in person.addresses if by is None or address.channel == by), None)


def arrived_as(connection: Connection, id_: str) -> str:
    """The id of the message that this one really arrived as: itself, or what stood in for it at another address.

    A stand-in carries the same link, so that who opens it names the message that never arrived.
    """
    while True:
        sent_us = connection.scalar(select(notifications.c.sent_us).where(notifications.c.id == id_))
        other = connection.scalar(
            select(notifications.c.id)
            .where(notifications.c.failed_over_from == id_, notifications.c.sent_us.is_not(None))
            .order_by(notifications.c.created_us.desc())
            .limit(1)
        )
        if sent_us is not None or other is None:
            return id_
        id_ = str(other)


_SENT = func.coalesce(notifications.c.sent_us, notifications.c.intent_us, notifications.c.due_us)


def mark_seen(connection: Connection, id_: str, now_us: int) -> bool:
    """Somebody opened it, or their phone said so. Whether there is such a row. Who saw it has it, whatever we thought."""
    done = connection.execute(
        update(notifications)
        .where(notifications.c.id == id_)
        .values(
            seen_us=func.coalesce(notifications.c.seen_us, now_us),
            sent_us=_SENT,
            state=case((notifications.c.state.in_(("queued", "sent", "dead")), "seen"), else_=notifications.c.state),
        )
    )
    return done.rowcount == 1


def mark_answered(connection: Connection, id_: str, now_us: int) -> bool:
    """Its contact answered it, over whatever way. Whether there is such a row.

    What stands in for it at another address, and has not been tried yet, need not be sent any more.
    """
    done = connection.execute(
        update(notifications)
        .where(notifications.c.id == id_)
        .values(answered_us=func.coalesce(notifications.c.answered_us, now_us), sent_us=_SENT, state="answered")
    )
    connection.execute(
        update(notifications)
        .where(and_(notifications.c.failed_over_from == id_, notifications.c.state == "queued", notifications.c.attempts == 0))
        .values(state="dropped", error="answered before it was sent")
    )
    return done.rowcount == 1


def by_provider_id(connection: Connection, channel: Channel, provider_id: str) -> str | None:
    """The id of the row that a provider calls so; None where there is none."""
    found: Any = connection.scalar(
        select(notifications.c.id).where(notifications.c.channel == channel, notifications.c.provider_id == provider_id)
    )
    return None if found is None else str(found)
