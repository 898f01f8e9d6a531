"""Who can be told now, of a group: its members, or who stands in for them, with the addresses that were proved. Only reads.

Who can't be reached is left out, and so shown to the office; a message to them would only look like one.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, get_args
from zoneinfo import ZoneInfo

from sqlalchemy import BindParameter, Connection, bindparam, select

from gateway.alerting.route import Channel
from gateway.contacts import people
from gateway.contacts.config import GroupConfig
from gateway.contacts.person import Address, Person
from gateway.contacts.quiet import quiet_until_us
from gateway.notify.message import Language
from gateway.state.tables import addresses, contacts, memberships

_LANGUAGES = get_args(Language)
_AT_ONCE = 500  # SQLite takes so many parameters in any build

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it, and each alarm asks them.
_MEMBERS = (
    select(memberships.c.team, memberships.c.contact)
    .join(contacts, contacts.c.id == memberships.c.contact)
    .where(memberships.c.team.in_(bindparam("teams", expanding=True)))
    .order_by(contacts.c.created_us, contacts.c.id)
)
_NAME = select(contacts.c.name).where(contacts.c.id == bindparam("id"))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_THEM = select(contacts).where(contacts.c.id.in_(_IDS), contacts.c.removed_us.is_(None))
_THEIR_WAYS = select(addresses).where(addresses.c.contact.in_(_IDS)).order_by(addresses.c.rank, addresses.c.id)
_THEIR_TEAMS = select(memberships).where(memberships.c.contact.in_(_IDS)).order_by(memberships.c.team)


class Unreachable(NamedTuple):
    """A contact without an address that can be used, for the office."""

    contact: str
    name: str
    groups: tuple[str, ...]
    waiting: bool
    """Some address is new: its first test may still be answered. False: nothing of theirs leads anywhere."""
    why: str | None
    """Of the address that was tried first, as `addresses.why` has it. None: nothing was answered yet, or there is none."""
    since_us: int
    """The last time anything was heard of them, or when they were added."""


class Book:
    """Safe on many threads: what it knows by itself is the configuration."""

    def __init__(
        self, groups: Mapping[str, GroupConfig], configured_contacts: Collection[str], zone: ZoneInfo, language: Language = "ja"
    ) -> None:
        """`configured_contacts`: names of the configuration's `contact` table; `language` is theirs."""
        self._groups, self._configured, self._zone, self._language = groups, frozenset(configured_contacts), zone, language

    def who(
        self, connection: Connection, name: str, now_us: int, by: Channel | None = None, shelf: "Shelf | None" = None
    ) -> list[Person]:
        """Everybody who can be told now where `name` (a group, or a configured contact) is to be told, each once.

        In the order in which they were added. `by`: over this channel only. Who is away is replaced by their deputy, and by
        nobody where that one is away without another, can't be reached, or is told already. `shelf`: for who asks much of one
        transaction, so that nobody's rows are read twice.
        """
        if name in self._configured:
            return self._configured_one(name, by)
        shelf = shelf or Shelf(connection)
        members = shelf.members_of(name)
        there = {id_ for id_ in members if not shelf.is_away(id_, now_us)}
        found: dict[str, Person] = {}
        for id_ in members:
            instead = id_ if id_ in there else shelf.deputy_of(id_, now_us)
            # Who is told for themself is not told for somebody else too.
            if instead is None or instead in found or (instead != id_ and instead in there):
                continue
            person = self._made(shelf, instead, now_us, by, group=name, instead_of=None if instead == id_ else id_)
            if person is not None:
                found[instead] = person
        return list(found.values())

    def deputy(self, connection: Connection, contact: str, now_us: int) -> Person | None:
        """Who is told instead of a contact who is away; None: nobody is. Of who is not away: themself."""
        shelf = Shelf(connection, [contact])
        instead = shelf.deputy_of(contact, now_us)
        return None if instead is None else self._made(shelf, instead, now_us, None, instead_of=contact)

    def person(
        self, connection: Connection, contact: str, now_us: int, *, testing: bool = False, shelf: "Shelf | None" = None
    ) -> Person | None:
        """This very contact, also while they are away; None where they can't be reached. `testing`: over new addresses too."""
        if contact in self._configured:
            return self._configured_one(contact, None)[0]
        return self._made(shelf or Shelf(connection), contact, now_us, None, testing=testing)

    def name_of(self, connection: Connection, contact: str) -> str:
        """What others are told of them. A configured contact is called as it is configured; who is unknown or removed: —."""
        if contact in self._configured:
            return contact
        return connection.scalar(_NAME, {"id": contact}) or people.REMOVED

    def groups_of(self, connection: Connection, contact: str) -> list[str]:
        """The groups a contact is in, by name."""
        query = select(memberships.c.team).where(memberships.c.contact == contact).order_by(memberships.c.team)
        return list(connection.scalars(query))

    def label_of(self, group: str) -> str:
        """What a group's people call it; its name where it is not configured."""
        return self._groups[group].label if group in self._groups else group

    def _configured_one(self, name: str, by: Channel | None) -> list[Person]:
        if by not in (None, "webhook"):
            return []
        return [Person(name, name, self._language, (Address(None, "webhook", ""),))]

    def _made(
        self,
        shelf: "Shelf",
        id_: str,
        now_us: int,
        by: Channel | None,
        *,
        group: str | None = None,
        instead_of: str | None = None,
        testing: bool = False,
    ) -> Person | None:
        row = shelf.contact(id_)
        if row is None:
            return None
        usable = ("proved", "new") if testing else ("proved",)
        ways = [one for one in shelf.addresses_of(id_) if one.state in usable and (by is None or one.channel == by)]
        if not ways:
            return None
        return Person(
            contact=id_,
            name=row.name,
            language=row.language if row.language in _LANGUAGES else self._language,
            addresses=tuple(Address(one.id, one.channel, one.address) for one in ways),
            quiet_until_us=self._quiet_until(shelf, row, now_us, group),
            stands_in_for=instead_of,
        )

    def _quiet_until(self, shelf: "Shelf", row: Any, now_us: int, group: str | None) -> int | None:
        """By their own hours; else by those of the group that is told; where it is none of theirs, of all their groups."""
        own = people.quiet_of(row.quiet)
        if own is not None:
            return quiet_until_us(own, now_us, self._zone)
        theirs = shelf.groups_of(row.id)
        asked: Iterable[str] = (group,) if group in theirs and group is not None else theirs
        hours = [quiet for name in asked if name in self._groups for quiet in self._groups[name].quiet]
        return quiet_until_us(hours, now_us, self._zone)


def unreachable(connection: Connection) -> list[Unreachable]:
    """Every contact who is not removed and has no proved address, in the order in which they were added."""
    query = select(contacts.c.id).where(contacts.c.removed_us.is_(None)).order_by(contacts.c.created_us, contacts.c.id)
    ids = list(connection.scalars(query))
    shelf, found = Shelf(connection, ids), []
    for id_ in ids:
        row, ways = shelf.contact(id_), shelf.addresses_of(id_)
        if row is None or any(one.state == "proved" for one in ways):
            continue
        heard = [one.heard_us for one in ways if one.heard_us is not None]
        found.append(
            Unreachable(
                id_,
                row.name,
                tuple(shelf.groups_of(id_)),
                any(one.state == "new" for one in ways),
                next((one.why for one in ways if one.why), None),
                max(heard, default=row.created_us),
            )
        )
    return found


class Shelf:
    """Rows of some contacts, read together, and of others, read as they are asked for. Of one transaction: it does not age."""

    def __init__(self, connection: Connection, ids: Collection[str] = ()) -> None:
        self._connection = connection
        self._contacts: dict[str, Any] = {}
        self._addresses: dict[str, list[Any]] = {}
        self._groups: dict[str, list[str]] = {}
        self._members: dict[str, list[str]] = {}
        self._read(ids)

    def open(self, groups: Collection[str]) -> None:
        """Reads everybody of these groups together, as far as that was not done."""
        new = [name for name in groups if name not in self._members]
        for name in new:
            self._members[name] = []
        for at in range(0, len(new), _AT_ONCE):
            for row in self._connection.execute(_MEMBERS, {"teams": new[at : at + _AT_ONCE]}):
                self._members[row.team].append(row.contact)
        self._read({id_ for name in new for id_ in self._members[name] if id_ not in self._contacts})

    def members_of(self, group: str) -> list[str]:
        """In the order in which they were added."""
        if group not in self._members:
            self.open([group])
        return self._members[group]

    def contact(self, id_: str) -> Any:
        """The row; None where there is none, or they are removed."""
        if id_ not in self._contacts:
            self._read([id_])
        return self._contacts[id_]

    def addresses_of(self, id_: str) -> list[Any]:
        self.contact(id_)
        return self._addresses[id_]

    def groups_of(self, id_: str) -> list[str]:
        self.contact(id_)
        return self._groups[id_]

    def is_away(self, id_: str, now_us: int) -> bool:
        row = self.contact(id_)
        return row is not None and row.away_until_us is not None and row.away_until_us > now_us

    def deputy_of(self, id_: str, now_us: int) -> str | None:
        """Who stands in for somebody away: the first of the chain who is not away themself."""
        passed = {id_}
        while self.is_away(id_, now_us):
            deputy: str | None = self.contact(id_).deputy
            if deputy is None or deputy in passed:
                return None
            passed.add(deputy)
            id_ = deputy
        return id_

    def _read(self, ids: Collection[str]) -> None:
        listed = list(ids)
        for at in range(0, len(listed), _AT_ONCE):
            some = listed[at : at + _AT_ONCE]
            for id_ in some:
                self._contacts[id_], self._addresses[id_], self._groups[id_] = None, [], []
            for row in self._connection.execute(_THEM, {"ids": some}):
                self._contacts[row.id] = row
            for row in self._connection.execute(_THEIR_WAYS, {"ids": some}):
                self._addresses[row.contact].append(row)
            for row in self._connection.execute(_THEIR_TEAMS, {"ids": some}):
                self._groups[row.contact].append(row.team)
