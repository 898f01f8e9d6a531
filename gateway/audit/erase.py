"""Erasing what entries say: of a person who is erased, and of everybody when it is too old. The chain stays.

Each erasing is an entry itself and lists the numbers of those that it emptied: what is gone without such an entry, somebody has
taken (gateway.audit.verify). These entries name nobody, and are emptied by age only. Whoever deletes rows of `audit_details`
does it by `empty`.
"""

import json
from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, delete, or_, select

from gateway.audit.chain import record
from gateway.state.tables import audit, audit_details

ERASE = "audit.erase"
AT_ONCE = 500
TIME = "time"
"""Who erased it where it was only too old."""


def erase(connection: Connection, by: str, now_us: int, *, things: Iterable[str] = (), who: Iterable[str] = ()) -> int:
    """Empties every entry that is about one of `things` (`watched/<id>`), or that one of `who` made; returns how many.

    In a transaction of `State.write`. Done again it finds nothing, and leaves no entry.
    """
    about = [one for thing in things for one in (audit_details.c.thing == thing, among(thing))]
    mine = [audit_details.c.who == one for one in who]
    if not about and not mine:
        return 0
    return erase_where(connection, or_(*about, *mine), by, now_us)


def erase_where(connection: Connection, where: ColumnElement[bool], by: str, now_us: int) -> int:
    """Empties every entry whose row of `audit_details` is so; returns how many."""
    wanted = select(audit_details.c.id).where(where, audit_details.c.action != ERASE)
    return empty(connection, list(connection.scalars(wanted.order_by(audit_details.c.id))), by, now_us)


def forget(connection: Connection, before_us: int, now_us: int) -> int:
    """Empties entries of before `before_us`, at most `AT_ONCE` of them; how many.

    Its entry stands for all that came before: those of earlier erasings grow old and are emptied with the rest.
    """
    old = select(audit_details.c.id).join(audit, audit.c.id == audit_details.c.id).where(audit.c.at_us < before_us)
    ids = list(connection.scalars(old.order_by(audit_details.c.id).limit(AT_ONCE)))
    if ids:
        connection.execute(delete(audit_details).where(audit_details.c.id.in_(ids)))
        record(connection, TIME, ERASE, "", now_us, more={"ids": [[1, ids[-1]]]})
    return len(ids)


def erased_by(more: str) -> list[tuple[int, int]]:
    """The ranges of numbers that an entry of an erasing lists. ValueError for what is none."""
    try:
        return [(int(low), int(high)) for low, high in json.loads(more)["ids"]]
    except (KeyError, TypeError) as error:
        raise ValueError("this entry lists no numbers") from error


def empty(connection: Connection, ids: Sequence[int], by: str, now_us: int) -> int:
    """Deletes what the entries `ids`, in their order, say, and records that; returns how many there are."""
    if not ids:
        return 0
    ranges: list[list[int]] = []
    for id_ in ids:
        if ranges and ranges[-1][1] == id_ - 1:
            ranges[-1][1] = id_
        else:
            ranges.append([id_, id_])
    for low, high in ranges:
        connection.execute(delete(audit_details).where(audit_details.c.id.between(low, high)))
    record(connection, by, ERASE, "", now_us, more={"ids": ranges})
    return len(ids)


def among(thing: str) -> ColumnElement[bool]:
    """Whether an entry is about `thing` beside what it is about first (gateway.audit.acts.WITH)."""
    return audit_details.c.more.contains(json.dumps(thing, ensure_ascii=False), autoescape=True)
