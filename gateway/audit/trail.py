"""Reading the trail: page by page, the newest first, by who, by what it was done to, by what was done.

What came of an act stands in a later entry (gateway.audit.acts), and is read as one with it.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, or_, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.audit.acts import ENTRY, OUTCOME, ROUTE
from gateway.audit.erase import among
from gateway.state.tables import audit, audit_details


class EntryJson(TypedDict):
    """One entry. Where `who` is null, what it said was erased.

    `outcome`: `done`, `refused`, `failed` by a fault of ours, or `unknown`: the gateway ended in the act, or it goes on. Null:
    the entry was made with what it tells of, in one. `status`: how the API answered.
    """

    id: int
    at_us: int
    hash: str
    who: str | None
    action: str | None
    thing: str | None
    why: str | None
    more: dict[str, Any] | None
    outcome: str | None
    status: int | None


def entries(
    connection: Connection, *, who: str | None = None, thing: str | None = None, action: str | None = None,
    before: int | None = None, limit: int = 100,
) -> list[EntryJson]:  # fmt: skip
    """Those that fit all that is given. Erased ones stand among them where nothing is asked for."""
    query = select(audit.c.id, audit.c.at_us, audit.c.hash, *(audit_details.c[name] for name in _SAID))
    query = query.outerjoin(audit_details, audit_details.c.id == audit.c.id).order_by(audit.c.id.desc()).limit(limit)
    query = query.where(or_(audit_details.c.action.is_(None), audit_details.c.action != OUTCOME))
    if before is not None:
        query = query.where(audit.c.id < before)
    if who is not None:
        query = query.where(audit_details.c.who == who)
    if action is not None:
        query = query.where(audit_details.c.action == action)
    if thing is not None:
        query = query.where(or_(audit_details.c.thing == thing, among(thing)))
    rows = connection.execute(query).all()
    came = _outcomes(connection, [row.id for row in rows])
    return [
        {
            "id": row.id,
            "at_us": row.at_us,
            "hash": row.hash,
            "who": row.who,
            "action": row.action,
            "thing": row.thing,
            "why": row.why,
            "more": (more := None if row.more is None else json.loads(row.more)),
            "outcome": came.get(row.id, {}).get(OUTCOME, "unknown") if more is not None and ROUTE in more else None,
            "status": came.get(row.id, {}).get("status"),
        }
        for row in rows
    ]


def known(connection: Connection, what: str) -> list[str]:
    """Everything that stands in this column, `who` or `action`, in order. By whom and of what there are entries at all."""
    column = audit_details.c[what]
    return list(connection.scalars(select(column).where(audit_details.c.action != OUTCOME).distinct().order_by(column)))


def _outcomes(connection: Connection, ids: Collection[int]) -> dict[int, Mapping[str, Any]]:
    """What `more` of the entry says that says what came of these."""
    about = {f"{ENTRY}/{id_}": id_ for id_ in ids}
    query = select(audit_details.c.thing, audit_details.c.more)
    query = query.where(audit_details.c.thing.in_(list(about)), audit_details.c.action == OUTCOME)
    return {about[row.thing]: json.loads(row.more) for row in connection.execute(query)}


_SAID = ("who", "action", "thing", "why", "more")
