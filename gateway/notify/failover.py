"""Another address of the same person stands in for one that is too slow, or leads nowhere: in the caller's transaction."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, literal, or_, select, update

from gateway.notify.queue import FAILOVER_S, RANK, STAYS, read_message
from gateway.state.tables import addresses, digest_pages, notifications, pages

_AT_ONCE = 200
_SEVERITY = {rank: severity for severity, rank in RANK.items()}

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_OVERDUE = (
    select(notifications.c.id)
    .where(notifications.c.state == "queued", notifications.c.failover_us <= bindparam("now_us"))
    .order_by(notifications.c.severity_rank, notifications.c.failover_us)
    .limit(_AT_ONCE)
)


def overdue(connection: Connection, now_us: int) -> list[str]:
    """Ids of what was not sent in time, the most urgent first."""
    return list(connection.scalars(_OVERDUE, {"now_us": now_us}))


def fail_over(connection: Connection, id_: str, now_us: int) -> None:
    """Has the next address tried of what is overdue, if it still is."""
    row = connection.execute(select(notifications).where(notifications.c.id == id_)).one()
    if row.state != "queued" or row.failover_us is None or row.failover_us > now_us:
        return
    chain = _chain(connection, row)
    # Nobody's telephone rings for what is not urgent, only because it takes long.
    but = () if row.severity_rank == RANK["critical"] else ("voice",)
    if row.address is not None and (other := _next_address(connection, row, chain, but)) is not None:
        # It keeps its `failover_us`: who has no other way left comes back to what only took too long.
        connection.execute(_settle(id_, "failed_over", row.error or "not sent in time"))
        _stand_in(connection, row, chain, other, now_us)
        return
    # There is no other way: it goes on here for as long as it takes, and whoever asks for answers goes on without it.
    connection.execute(update(notifications).where(notifications.c.id == id_).values(failover_us=None))
    page_changed(connection, row)


def give_up(connection: Connection, id_: str, now_us: int) -> bool:
    """A row that is dead now: the contact's next address stands in for it. Whether there is none: it stays a dead letter."""
    row = connection.execute(select(notifications).where(notifications.c.id == id_)).one()
    if row.kind in STAYS:
        # Nobody waits for it: that the address takes nothing is known of the address.
        connection.execute(_settle(id_, "dropped", row.error))
        return False
    if row.address is not None:
        chain = _chain(connection, row)
        if any(one.sent_us is not None for one in (*chain, *_stood_in(connection, row))):
            connection.execute(_settle(id_, "dropped", f"{row.error}; it has arrived at another address"))
            return False
        if (other := _next_address(connection, row, chain)) is not None:
            connection.execute(_settle(id_, "failed_over", row.error))
            connection.execute(update(notifications).where(notifications.c.id == id_).values(failover_us=None))
            _stand_in(connection, row, chain, other, now_us)
            return False
        waiting = [one for one in chain if one.state == "failed_over" and one.failover_us and one.sent_us is None]
        if waiting:
            # An earlier address was only slow. Its row comes back, under the id that its provider may know already.
            connection.execute(_settle(id_, "failed_over", row.error))
            connection.execute(
                update(notifications)
                .where(notifications.c.id == waiting[0].id)
                .values(state="queued", due_us=now_us, failover_us=None)
            )
            return False
    page_changed(connection, row)
    return True


def _chain(connection: Connection, row: Any) -> list[Any]:
    """The rows that this one stands in for, the nearest first."""
    found: list[Any] = []
    before = row.failed_over_from
    while before is not None and len(found) < 100:
        one = connection.execute(select(notifications).where(notifications.c.id == before)).one_or_none()
        if one is None:
            break
        found.append(one)
        before = one.failed_over_from
    return found


def _stood_in(connection: Connection, row: Any) -> list[Any]:
    """The rows that stood in for this one before it came back."""
    found: list[Any] = []
    asked = [row.id]
    while asked and len(found) < 100:
        asked_for = notifications.c.failed_over_from.in_(asked)
        more = connection.execute(select(notifications).where(notifications.c.contact == row.contact, asked_for)).all()
        asked = [one.id for one in more]
        found += more
    return found


def _next_address(connection: Connection, row: Any, chain: list[Any], but: Sequence[str] = ()) -> Any | None:
    """The contact's first address that can be used and was not tried for this message; over no channel of `but`."""
    tried = [row.address, *(one.address for one in (*chain, *_stood_in(connection, row)))]
    query = (
        select(addresses)
        .where(addresses.c.contact == row.contact, addresses.c.state == "proved", addresses.c.id.not_in(tried))
        .where(addresses.c.channel.not_in(but))
        .order_by(addresses.c.rank, addresses.c.id)
        .limit(1)
    )
    if row.only_by is not None:
        query = query.where(addresses.c.channel == row.only_by)
    return connection.execute(query).one_or_none()


def _settle(id_: str, state: str, error: str | None) -> Any:
    return update(notifications).where(notifications.c.id == id_).values(state=state, error=error)


def _stand_in(connection: Connection, row: Any, chain: list[Any], address: Any, now_us: int) -> None:
    """Writes the row that goes to another address in this one's place. Its id comes of both: it is written once."""
    first = chain[-1].id if chain else row.id
    id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"satomori:notification:{first}:{address.id}"))
    try:
        body = read_message(row.id, row.body).model_copy(update={"id": id_}).model_dump_json()
    except ValueError:
        body = row.body
    connection.execute(
        insert(notifications),
        {
            "id": id_,
            **{name: getattr(row, name) for name in ("alert", "page", "kind", "contact", "severity_rank", "only_by")},
            "address": address.id,
            "channel": address.channel,
            "state": "queued",
            "body": body,
            "created_us": row.created_us,
            "due_us": now_us,
            "failover_us": now_us + int(FAILOVER_S[_SEVERITY[row.severity_rank]] * 1e6),
            "failed_over_from": row.id,
            "attempts": 0,
        },
    )
    of_digest = select(literal(id_), digest_pages.c.page).where(digest_pages.c.notification == row.id)
    connection.execute(insert(digest_pages).from_select(["notification", "page"], of_digest))


def page_changed(connection: Connection, row: Any) -> None:
    """Whoever escalates looks at its pages at the next tick: this contact was not reached."""
    told = select(digest_pages.c.page).where(digest_pages.c.notification == row.id)
    mine = or_(pages.c.id == row.page, pages.c.id.in_(told))
    connection.execute(update(pages).where(mine, pages.c.state != "closed").values(changed=True))
