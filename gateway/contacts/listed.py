"""Contacts, groups and invitations as an operator sees them, in JSON. Only reads. Times are UTC µs (`*_us`)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.contacts import people
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.contacts.join import Listed
from gateway.state.tables import addresses, contacts, memberships


class AddressJson(TypedDict):
    """One way to reach somebody. `state`: new (never answered), proved or unreachable, then with `why`."""

    id: str
    channel: str
    address: str
    state: str
    why: str | None
    created_us: int
    proved_us: int | None
    tested_us: int | None
    heard_us: int | None


class ContactJson(TypedDict):
    """One contact. `quiet` null: the hours of their groups. `reachable`: some address is proved."""

    id: str
    name: str
    language: str
    groups: list[str]
    addresses: list[AddressJson]
    reachable: bool
    quiet: list[dict[str, Any]] | None
    away_until_us: int | None
    deputy: str | None
    created_us: int
    created_by: str


class ContactsJson(TypedDict):
    """All that were asked for, in the order in which they were added."""

    now_us: int
    contacts: list[ContactJson]


class GroupJson(TypedDict):
    """One group. `told`: how many would be told now, deputies included; 0: nobody would."""

    group: str
    label: str
    configured: bool
    members: int
    reachable: int
    away: int
    told: int


class GroupsJson(TypedDict):
    """Those of the configuration, and all others that have members."""

    now_us: int
    groups: list[GroupJson]


class InvitationJson(TypedDict):
    """An invitation that can still be used. Its code was shown once, when it was made."""

    id: str
    group: str
    name: str | None
    uses_left: int
    created_us: int
    created_by: str
    expires_us: int


class InvitationsJson(TypedDict):
    """The newest first."""

    now_us: int
    invitations: list[InvitationJson]


def contacts_json(
    connection: Connection, now_us: int, *, id_: str | None = None, group: str | None = None, reachable: bool | None = None
) -> list[ContactJson]:
    """Contacts who are not removed: all, or the one, those of the group, those who can be reached or can't."""
    query = select(contacts).where(contacts.c.removed_us.is_(None)).order_by(contacts.c.created_us, contacts.c.id)
    if id_ is not None:
        query = query.where(contacts.c.id == id_)
    if group is not None:
        query = query.where(contacts.c.id.in_(select(memberships.c.contact).where(memberships.c.team == group)))
    teams: dict[str, list[str]] = {}
    for row in connection.execute(select(memberships).order_by(memberships.c.team)):
        teams.setdefault(row.contact, []).append(row.team)
    ways: dict[str, list[AddressJson]] = {}
    for row in connection.execute(select(addresses).order_by(addresses.c.rank, addresses.c.id)):
        ways.setdefault(row.contact, []).append(_address_json(row))
    found = [_contact_json(row, teams.get(row.id, []), ways.get(row.id, []), now_us) for row in connection.execute(query).all()]
    return [one for one in found if reachable is None or one["reachable"] == reachable]


def _contact_json(row: Any, teams: list[str], ways: list[AddressJson], now_us: int) -> ContactJson:
    away = row.away_until_us if row.away_until_us is not None and row.away_until_us > now_us else None
    return {
        "id": row.id,
        "name": row.name,
        "language": row.language,
        "groups": teams,
        "addresses": ways,
        "reachable": any(way["state"] == "proved" for way in ways),
        "quiet": None if row.quiet is None else json.loads(row.quiet),
        "away_until_us": away,
        "deputy": row.deputy,
        "created_us": row.created_us,
        "created_by": row.created_by,
    }


def _address_json(row: Any) -> AddressJson:
    to = row.address
    if row.channel == "push":
        to = urlsplit(json.loads(to)["endpoint"]).hostname or ""  # the rest is a key
    return {
        "id": row.id,
        "channel": row.channel,
        "address": to,
        "state": row.state,
        "why": row.why,
        "created_us": row.created_us,
        "proved_us": row.proved_us,
        "tested_us": row.tested_us,
        "heard_us": row.heard_us,
    }


def groups_json(connection: Connection, book: Book, groups: Mapping[str, GroupConfig], now_us: int) -> list[GroupJson]:
    """How each group does."""
    count = select(memberships.c.team, func.count().label("members")).group_by(memberships.c.team)
    sizes = {row.team: row.members for row in connection.execute(count)}
    found: list[GroupJson] = []
    for name in [*groups, *sorted(sizes.keys() - groups.keys())]:
        members = contacts_json(connection, now_us, group=name)
        found.append(
            {
                "group": name,
                "label": book.label_of(name),
                "configured": name in groups,
                "members": len(members),
                "reachable": sum(one["reachable"] for one in members),
                "away": sum(one["away_until_us"] is not None for one in members),
                "told": len(book.who(connection, name, now_us)),
            }
        )
    return found


def invitations_json(rows: Sequence[Listed]) -> list[InvitationJson]:
    """Of `open_invitations`."""
    return [
        {
            "id": row.id,
            "group": row.group,
            "name": row.name,
            "uses_left": row.uses_left,
            "created_us": row.created_us,
            "created_by": row.created_by,
            "expires_us": row.expires_us,
        }
        for row in rows
    ]


def require_json(connection: Connection, contact: str, now_us: int) -> ContactJson:
    """One contact. NotDone where there is none."""
    people.require(connection, contact)
    return contacts_json(connection, now_us, id_=contact)[0]
