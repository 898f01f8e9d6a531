"""Accounts as they are kept: who there is, as what, and one change each, in the caller's transaction. Not how they come in.

An account has roles of its own, which somebody gave, and those of its contact's groups, which come and go with the membership.
Who is in a group with a role needs nobody to make an account: it comes to be when they first ask to come in.

Who may make whom: the roles that one gives or takes are roles that one has, or below (`BELOW`); nobody changes their own account;
the last officer stays. Hence the first operator and the first officer come from the command line.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from gateway.policy import ROLES, Actor
from gateway.state.tables import accounts, ceremonies, contacts, login_links, memberships, passkeys, sessions, watched
from gateway.words.refusal import Refusal

GIVEN = tuple(role for role in ROLES if role != "node")
"""The roles that an account may have."""
BELOW = frozenset(GIVEN) - {"operator", "officer"}
"""Roles that everybody who manages accounts may give."""
FAMILY = "family"
GROUP_ROLES = ("farmer", "hunter", "family", "volunteer")
"""The roles that a group may give its members."""

GroupRoles = Mapping[str, str]
"""Role by group, of the configuration. A watched person's family is in no configuration, and is `family`."""


class NotDone(Refusal):
    """It can't be done. `why` tells the cases apart: unknown, taken, forbidden, last, wrong."""

    def __init__(self, why: str, id_: str, /, **facts: Any) -> None:
        super().__init__(id_, **facts)
        self.why = why


class Account(NamedTuple):
    """Somebody who may come in."""

    id: str
    name: str
    """What they are called: of a contact whatever their contact is called."""
    own: frozenset[str]
    """The roles that somebody gave them."""
    by_groups: frozenset[str]
    """Those of their contact's groups."""
    contact: str | None
    groups: frozenset[str]
    language: str
    created_us: int
    created_by: str
    disabled_us: int | None

    def actor(self, how: str) -> Actor:
        """As they are after coming in so. Their own roles need more than an address that others may have written down."""
        roles = (self.own | self.by_groups) if how in STRONG else self.by_groups
        # What others read of it names no contact; staff are named, as they are in a file of tokens.
        name = f"contact:{self.contact}" if self.contact is not None and not self.own else self.name
        return Actor(name, roles, self.id, self.contact, self.groups)


STRONG = frozenset({"passkey", "hand"})
"""Ways to come in that nobody can open for themself by writing an address into a contact."""


def add(connection: Connection, name: str, roles: Collection[str], by: str, now_us: int, contact: str | None = None) -> str:
    """A new account with these roles of its own; its id. NotDone for what can't be."""
    _check_roles(roles)
    if contact is not None:
        known = connection.execute(select(contacts.c.id).where(contacts.c.id == contact, contacts.c.removed_us.is_(None))).first()
        if known is None:
            raise NotDone("unknown", "why.no_contact")
        if connection.scalar(select(accounts.c.id).where(accounts.c.contact == contact)) is not None:
            raise NotDone("taken", "why.account_taken")
    id_ = secrets.token_hex(8)
    row = {"id": id_, "name": name, "roles": _written(roles), "contact": contact, "created_us": now_us, "created_by": by}
    connection.execute(insert(accounts).values(row))
    return id_


def of_contact(connection: Connection, contact: str, group_roles: GroupRoles, now_us: int) -> Account | None:
    """The account of a contact, which comes to be by this where one of their groups has a role. None: they have nothing here."""
    id_ = connection.scalar(select(accounts.c.id).where(accounts.c.contact == contact))
    if id_ is not None:
        return get(connection, id_, group_roles)
    if not any(_roles_by_groups(connection, [contact], group_roles).get(contact, {}).values()):
        return None
    return get(connection, add(connection, "", (), f"contact:{contact}", now_us, contact), group_roles)


def get(connection: Connection, id_: str, group_roles: GroupRoles) -> Account | None:
    """One, also where it is disabled; None where there is none, or its contact is gone and nothing else is left of it."""
    row = connection.execute(_ALL.where(accounts.c.id == id_)).first()
    return None if row is None else _made(connection, [row], group_roles)[0]


def listed(
    connection: Connection, group_roles: GroupRoles, *, after: str | None = None, limit: int | None = None
) -> list[Account]:
    """In the order in which they were made: all, or `limit` of those made after the account `after`. NotDone where it is gone."""
    query = _ALL.order_by(accounts.c.created_us, accounts.c.id).limit(limit)
    if after is not None:
        since_us = connection.scalar(select(accounts.c.created_us).where(accounts.c.id == after))
        if since_us is None:
            raise NotDone("unknown", "why.account_gone")
        query = query.where((accounts.c.created_us > since_us) | ((accounts.c.created_us == since_us) & (accounts.c.id > after)))
    return _made(connection, connection.execute(query).all(), group_roles)


def change(connection: Connection, account: Account, values: Mapping[str, Any], by: frozenset[str] | None) -> None:
    """Sets what is given of name and roles. `by`: the roles of who does it; None: the command line, which may do all.

    Who had no role of their own has no passkey and no session after their first: they come in by a link that is handed over.
    """
    kept: dict[str, Any] = {}
    if "name" in values:
        kept["name"] = values["name"]
    if "roles" in values:
        roles = frozenset(values["roles"])
        _check_roles(roles)
        may_give(roles ^ account.own, by)
        if "officer" in account.own - roles:
            _check_not_last(connection, account)
        kept["roles"] = _written(roles)
        if roles and not account.own:
            _come_in_anew(connection, account.id)
    if kept:
        connection.execute(update(accounts).where(accounts.c.id == account.id).values(kept))


def _come_in_anew(connection: Connection, id_: str) -> None:
    """Of who gets their first role of their own: a passkey made after a link by mail may be of whoever read that mail."""
    for table in (passkeys, ceremonies, login_links, sessions):
        connection.execute(delete(table).where(table.c.account == id_))


def disable(connection: Connection, account: Account, now_us: int) -> None:
    """Shuts it, and every session of it, at once. NotDone for the last officer. One that is shut stays so."""
    _check_not_last(connection, account)
    connection.execute(
        update(accounts).where(accounts.c.id == account.id, accounts.c.disabled_us.is_(None)).values(disabled_us=now_us)
    )
    connection.execute(
        update(sessions).where(sessions.c.account == account.id, sessions.c.ended_us.is_(None)).values(ended_us=now_us)
    )
    connection.execute(delete(login_links).where(login_links.c.account == account.id))
    connection.execute(delete(ceremonies).where(ceremonies.c.account == account.id))


def enable(connection: Connection, account: Account, by: frozenset[str] | None) -> None:
    """Opens it again, with the passkeys that it had; who gives its roles back must be able to give them."""
    may_give(account.own, by)
    connection.execute(update(accounts).where(accounts.c.id == account.id).values(disabled_us=None))


def check_erasure(connection: Connection, contact: str, by: frozenset[str] | None) -> None:
    """NotDone where a contact's account, which goes with it, has roles that `by` may not take, or is the last officer."""
    for row in connection.execute(_ALL.where(accounts.c.contact == contact)).all():
        [account] = _made(connection, [row], {})
        may_give(account.own, by)
        _check_not_last(connection, account)


def may_give(roles: Collection[str], by: frozenset[str] | None) -> None:
    """NotDone where who has the roles `by` may not give or take one of these."""
    too_much = set() if by is None else (set(roles) & set(GIVEN)) - BELOW - by
    if too_much:
        raise NotDone("forbidden", "why.roles_not_yours", roles=", ".join(sorted(too_much)))


def role_of(groups: Mapping[str, Any]) -> dict[str, str]:
    """Role by group, of the configuration's `group` table."""
    return {name: group.role for name, group in groups.items() if group.role is not None}


_ALL = select(
    accounts,
    contacts.c.name.label("contact_name"),
    contacts.c.language,
    contacts.c.removed_us,
).join(contacts, contacts.c.id == accounts.c.contact, isouter=True)


def _made(connection: Connection, rows: Sequence[Any], group_roles: GroupRoles) -> list[Account]:
    """Of rows of `_ALL`, by two queries, however many they are."""
    there = {row.contact for row in rows if row.contact is not None and row.removed_us is None}
    roles = _roles_by_groups(connection, there, group_roles)
    return [
        Account(
            id=row.id,
            name=row.name or (row.contact_name if row.contact in there else "") or "—",
            own=frozenset(role for role in row.roles.split(",") if role in ROLES),
            by_groups=frozenset(filter(None, roles.get(row.contact, {}).values())),
            contact=row.contact if row.contact in there else None,
            groups=frozenset(roles.get(row.contact, {})),
            language=row.language if row.contact in there else "ja",
            created_us=row.created_us,
            created_by=row.created_by,
            disabled_us=row.disabled_us,
        )
        for row in rows
    ]


def _roles_by_groups(
    connection: Connection, people: Collection[str], group_roles: GroupRoles
) -> dict[str, dict[str, str | None]]:
    """Of these contacts: their groups, each with the role that it gives."""
    mine = connection.execute(select(memberships.c.contact, memberships.c.team).where(memberships.c.contact.in_(people))).all()
    others = {row.team for row in mine} - set(group_roles)
    families = set(connection.scalars(select(watched.c.family).where(watched.c.family.in_(others)))) if others else set()
    found: dict[str, dict[str, str | None]] = {}
    for row in mine:
        role = group_roles.get(row.team) or (FAMILY if row.team in families else None)
        found.setdefault(row.contact, {})[row.team] = role
    return found


def _check_roles(roles: Collection[str]) -> None:
    for role in roles:
        if role not in GIVEN:
            raise NotDone("wrong", "why.no_role", role=repr(role[:40]), roles=", ".join(GIVEN))


def _written(roles: Collection[str]) -> str:
    return ",".join(role for role in GIVEN if role in roles)


def _check_not_last(connection: Connection, account: Account) -> None:
    if "officer" not in account.own or account.disabled_us is not None:
        return
    others: Sequence[str] = connection.scalars(
        select(accounts.c.roles).where(accounts.c.id != account.id, accounts.c.disabled_us.is_(None))
    ).all()
    if not any("officer" in roles.split(",") for roles in others):
        raise NotDone("last", "why.last_officer")
