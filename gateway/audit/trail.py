"""Reading the trail: page by page, the newest first, by who, by what it was done to, by what was done."""

import json
from typing import Any

from sqlalchemy import Connection, or_, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.audit.erase import among
from gateway.state.tables import audit, audit_details


class EntryJson(TypedDict):
    """One entry. Where `who` is null, what it said was erased."""

    id: int
    at_us: int
    hash: str
    who: str | None
    action: str | None
    thing: str | None
    why: str | None
    more: dict[str, Any] | None


def entries(
    connection: Connection, *, who: str | None = None, thing: str | None = None, action: str | None = None,
    before: int | None = None, limit: int = 100,
) -> list[EntryJson]:  # fmt: skip
    """Those that fit all that is given. Erased ones stand among them where nothing is asked for."""
    query = select(audit.c.id, audit.c.at_us, audit.c.hash, *(audit_details.c[name] for name in _SAID))
    query = query.outerjoin(audit_details, audit_details.c.id == audit.c.id).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    if who is not None:
        query = query.where(audit_details.c.who == who)
    if action is not None:
        query = query.where(audit_details.c.action == action)
    if thing is not None:
        query = query.where(or_(audit_details.c.thing == thing, among(thing)))
    return [
        {
            "id": row.id,
            "at_us": row.at_us,
            "hash": row.hash,
            "who": row.who,
            "action": row.action,
            "thing": row.thing,
            "why": row.why,
            "more": None if row.more is None else json.loads(row.more),
        }
        for row in connection.execute(query)
    ]


_SAID = ("who", "action", "thing", "why", "more")
