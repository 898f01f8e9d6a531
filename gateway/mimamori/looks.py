"""Who looked where somebody's tag was, and why: an entry of the audit trail for each look, durable before the answer is sent.

Several looks of one at the same person in the same way within `mimamori.look_every` are one entry. The family reads them: those
who are watched over are told who watches.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Connection, Row, func, or_, select

from gateway.audit.chain import record
from gateway.audit.erase import among
from gateway.mimamori.consent import standing
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.search import UNENDED
from gateway.state import State
from gateway.state.tables import (
    accounts,
    alerts,
    audit,
    audit_details,
    contacts,
    memberships,
    page_alerts,
    search_cases,
    tags,
)

LOOK = "look"
"""The action of their entries."""
EVERY_US = 600 * 1_000_000
MOST_WITHIN = 20_000
"""So many entries are looked back over at most; in a busier town somebody's look stands there twice."""

What = Literal["place", "page", "search", "help", "trail", "alert", "alerts", "message"]
"""How they looked: the list of everybody; the family's page, a search, the page of who helps in it; sightings one by one; an
alert, the list of alerts; a message that they were sent."""
LINK = "link"
"""In the log, though not yet a look: somebody was handed a link by which they come in as family."""
LINKED = "account.link"
"""The action of its entry (gateway.accounts.desk)."""
WHATS: tuple[str, ...] = (*get_args(What), LINK)
_NOT_HELD = ("lapsed", "revoked")
By = Literal["officer", "operator", "installer", "family", "office", "helper", "program", "gone"]
"""What somebody is to the person they looked at: staff by the role of their account."""
_STAFF: tuple[By, ...] = ("officer", "operator", "installer")


class Look(NamedTuple):
    """One look, for who reads of it."""

    id: int
    at_us: int
    who: str
    """As the trail has it."""
    name: str | None
    """What they are called now; None where they were erased."""
    by: By
    what: str
    """One of WHATS."""
    why: str
    """`search/<id>`, `alert/<id>`, or in their own words; empty: of family, who need none."""


def looked(connection: Connection, who: str, watched: str, what: What, why: str, now_us: int, every_us: int = EVERY_US) -> bool:
    """Logs that `who` (gateway.audit.who_of) looked where this person's tags were; False where it is in the log already.

    In a transaction of `State.write`, before anything is shown.
    """
    if recently(connection, who, [watched], what, now_us, every_us):
        return False
    record(connection, who, LOOK, f"{WATCHED}/{watched}", now_us, why=why, more=_more(what))
    return True


def note(state: State, who: str, why: Mapping[str, str], what: What, now_us: int, every_us: int = EVERY_US) -> None:
    """`looked` for each person of `why`, which says why it is; takes the write lock only where something is new."""
    if not why:
        return
    with state.read() as connection:
        known = recently(connection, who, why, what, now_us, every_us)
    if not known.issuperset(why):
        with state.write() as connection:
            for id_, reason in why.items():
                looked(connection, who, id_, what, reason, now_us, every_us)


def recently(connection: Connection, who: str, watched: Collection[str], what: What, now_us: int, every_us: int) -> set[str]:
    """Those of the people whom they looked at, in this way, so short a time ago. What a clock that was ahead wrote is not."""
    last = select(func.max(audit.c.id)).scalar_subquery()
    query = select(audit_details.c.thing).join(audit, audit.c.id == audit_details.c.id)
    query = query.where(audit_details.c.who == who, audit_details.c.action == LOOK, audit_details.c.more == _said(_more(what)))
    query = query.where(
        audit_details.c.id > last - MOST_WITHIN, audit.c.at_us > now_us - every_us, audit.c.at_us <= now_us
    ).distinct()
    return {thing.partition("/")[2] for thing in connection.scalars(query)} & set(watched)


def still(connection: Connection, watched: Iterable[str], now_us: int) -> set[str]:
    """Those of them of whom nobody but an officer sees where their tags were: one was reported, or no consent holds."""
    ids = set(watched)
    stopped = select(tags.c.watched).where(tags.c.watched.in_(ids), tags.c.stopped_us.is_not(None))
    return set(connection.scalars(stopped)) | {id_ for id_ in ids if standing(connection, id_, now_us).state in _NOT_HELD}


def reasons(connection: Connection, watched: Iterable[str] | None = None) -> dict[str, str]:
    """Why it may be looked now without saying why: an unended search, or an alert that is not over. Nobody else is in it.

    `watched` None: of everybody.
    """
    ids = None if watched is None else set(watched)
    found: dict[str, str] = {}
    told = select(alerts.c.id, alerts.c.device).where(alerts.c.node == WATCHED, alerts.c.state != "resolved")
    for row in connection.execute(told.order_by(alerts.c.since_us)):
        found[row.device] = f"alert/{row.id}"
    cases = select(search_cases.c.id, search_cases.c.watched).where(search_cases.c.state.in_(UNENDED))
    for row in connection.execute(cases):
        found[row.watched] = f"search/{row.id}"
    return {id_: why for id_, why in found.items() if ids is None or id_ in ids}


def told_in(connection: Connection, notification: Row[Any]) -> dict[str, str]:
    """The people whom a message is about, each with the search or the alert that is why it was sent."""
    joined = select(page_alerts.c.alert).where(page_alerts.c.page == notification.page)
    about = or_(alerts.c.id == notification.alert, alerts.c.id.in_(joined))
    found = {
        row.device: f"alert/{row.id}"
        for row in connection.execute(select(alerts.c.id, alerts.c.device).where(alerts.c.node == WATCHED, about))
    }
    if notification.page is not None:
        cases = select(search_cases.c.id, search_cases.c.watched)
        mine = or_(search_cases.c.page == notification.page, search_cases.c.helpers_page == notification.page)
        found |= {row.watched: f"search/{row.id}" for row in connection.execute(cases.where(mine))}
    return found


def log_of(
    connection: Connection, watched: str, family: str | None, office: str | None, *, before: int | None = None, limit: int = 100
) -> list[Look]:
    """Looks at a person, the newest first, and links that were handed out by which whoever has them looks as family does.

    `family`, `office`: the groups by which it is said who somebody is.
    """
    said, thing = audit_details.c, f"{WATCHED}/{watched}"
    query = select(audit.c.id, audit.c.at_us, said.who, said.action, said.why, said.more).join(
        audit_details, said.id == audit.c.id
    )
    query = query.where(((said.action == LOOK) & (said.thing == thing)) | ((said.action == LINKED) & among(thing)))
    if before is not None:
        query = query.where(audit.c.id < before)
    people: dict[str, tuple[str | None, By]] = {}
    found = []
    for row in connection.execute(query.order_by(audit.c.id.desc()).limit(limit)):
        if row.who not in people:
            people[row.who] = _person(connection, row.who, family, office)
        name, by = people[row.who]
        what = LINK if row.action == LINKED else str(json.loads(row.more).get("what", ""))
        found.append(Look(row.id, row.at_us, row.who, name, by, what, row.why))
    return found


def _person(connection: Connection, who: str, family: str | None, office: str | None) -> tuple[str | None, By]:
    kind, _, id_ = who.partition(":")
    contact, name = id_, None
    if kind in ("token", "cli"):
        return id_, "program"
    if kind == "account":
        account = connection.execute(
            select(accounts.c.name, accounts.c.contact, accounts.c.roles).where(accounts.c.id == id_)
        ).first()
        if account is None:
            return None, "gone"
        held = account.roles.split(",")
        if (role := next((one for one in _STAFF if one in held), None)) is not None:
            return account.name, role
        if account.contact is None:
            return account.name, "office"  # who is told nothing comes in as staff
        contact, name = account.contact, account.name
    row = connection.execute(select(contacts.c.name, contacts.c.removed_us).where(contacts.c.id == contact)).first()
    if row is None or row.removed_us is not None:
        return None, "gone"
    groups = set(connection.scalars(select(memberships.c.team).where(memberships.c.contact == contact)))
    by: By = "family" if family in groups else "office" if office in groups else "helper"
    return name or row.name, by


def _more(what: What) -> dict[str, Any]:
    return {"what": what}


def _said(more: Mapping[str, Any]) -> str:
    return json.dumps(more, ensure_ascii=False)
