"""How people come in: a code for a group, printed by an operator, and what somebody does with it.

The code is kept as a hash, has an end and a number of uses, and can't be found by trying. Who joins is told nothing but a test
until they have answered it.
"""

import hashlib
import re
import secrets
import threading
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.contacts import people
from gateway.contacts.address import AddressChannel, WrongAddress, clean_address, clean_name
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.proof import DAY_US, Proof, heard
from gateway.nodes.limit import Limit
from gateway.notify.message import Language, Message
from gateway.notify.queue import queue
from gateway.state.tables import invitations, memberships, watched
from gateway.words import words

ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Without 0 and O, 1, I and L, and without U, so that no word comes of it."""
CODE_LENGTH = 8
MOST_USES, LONGEST_DAYS = 1000, 366
KEPT_US = 7 * 86_400 * 1_000_000
"""So long after its end a code is still known, so that who has it is told that it is over, and not that it is wrong."""
BURST, WRONG_EVERY_US = 20, 5_000_000
"""Wrong codes at once, and then one in 5 s: of each LINE user, and on the page of all codes that begin with the same two signs.

There are 30^8 codes: who tries all beginnings needs years, and keeps nobody out whose code begins otherwise than theirs. Visitors
are not told apart, for behind a proxy all of them have one address.
"""
TYPED_AGAIN_US = 3600 * 1_000_000
"""A typed address may be a stranger's: its telephone rings no oftener than this, however often it is typed."""
_IDS = uuid.UUID("b1f0a6f2-6a0e-5d0c-9a5f-0f5f2c1f7e31")
_MOST_LIMITS = 5000
_between = re.compile(r"[\s\-\u2010-\u2015\u2212\u30fc.]+")

Why = Literal["wrong_code", "over", "limited", "wrong_address", "wrong_name", "taken", "full"]


class Joined(NamedTuple):
    """Somebody is in the group now."""

    contact: str
    name: str
    group: str
    label: str
    """What the group's people call it."""
    language: Language
    again: bool
    """They were in it already."""
    test: str | None
    """The notification that asks whether it arrived; None where the address was proved already."""


class Refused(NamedTuple):
    """Nothing was changed."""

    why: Why
    wait_s: int | None = None
    """With `limited`: when to try again."""


class Invitation(NamedTuple):
    """A new code, shown once."""

    id: str
    code: str
    group: str
    url: str
    """What its QR says: the page where it can be used."""
    uses: int
    expires_us: int

    @property
    def shown(self) -> str:
        """In groups of four, as it is printed."""
        return shown(self.code)


class Open(NamedTuple):
    """An invitation that can be used."""

    group: str
    label: str
    language: Language
    name: str | None
    """Of who is expected."""


def read_code(text: str) -> str | None:
    """The code in what somebody wrote (full-width, small letters, hyphens and blanks as they like); None where it is none."""
    if len(text) > 100:
        return None
    code = _between.sub("", unicodedata.normalize("NFKC", text)).upper()
    return code if len(code) == CODE_LENGTH and not set(code) - set(ALPHABET) else None


def shown(code: str) -> str:
    """In groups of four."""
    return f"{code[:4]}-{code[4:]}"


class Joining:
    """Makes invitations and takes who comes with one. Safe on many threads."""

    def __init__(self, groups: Mapping[str, GroupConfig], config: PeopleConfig, proof: Proof) -> None:
        self._groups, self._config, self._proof = groups, config, proof
        self._limits: OrderedDict[str, Limit] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def groups(self) -> Mapping[str, GroupConfig]:
        """As they are configured."""
        return self._groups

    @property
    def calling_code(self) -> str:
        """The country of telephone numbers that begin with 0."""
        return self._config.calling_code

    def check_group(self, connection: Connection, group: str) -> None:
        """NotDone for what is neither a group of the configuration nor a family's."""
        if group not in self._groups and not _is_family(connection, group):
            raise people.NotDone("unknown", "why.no_group", group=group)

    def invite(
        self, connection: Connection, group: str, who: str, now_us: int, *, uses: int = 1, days: int = 7, name: str | None = None
    ) -> Invitation:
        """A code for `group`. `name`: of who is expected, for a code of one use. NotDone for what can't be."""
        self.check_group(connection, group)
        if not 1 <= uses <= MOST_USES or not 1 <= days <= LONGEST_DAYS:
            raise people.NotDone("wrong", "why.invitation_limits", uses=MOST_USES, days=LONGEST_DAYS)
        if name is not None and (uses != 1 or clean_name(name) is None):
            raise people.NotDone("wrong", "why.invitation_name")
        connection.execute(delete(invitations).where(invitations.c.expires_us <= now_us - KEPT_US))
        code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
        expires_us = now_us + days * 86_400 * 1_000_000
        connection.execute(
            insert(invitations).values(
                code_sha256=_sha256(code), team=group, name=clean_name(name) if name else None, uses_left=uses,
                created_us=now_us, created_by=who, expires_us=expires_us,
            )
        )  # fmt: skip
        return Invitation(_id_of(_sha256(code)), code, group, f"{self._config.public_url}/join/{code}", uses, expires_us)

    def opened(self, connection: Connection, code: str, now_us: int) -> Open | Refused:
        """What the code is for, for who stands before the page; counts wrong ones as `join` does."""
        row = self._invitation(connection, code, _of_page(code), now_us)
        if isinstance(row, Refused):
            return row
        return Open(row.team, self._label(row.team), self._language(row.team), row.name)

    def join(
        self,
        connection: Connection,
        code: str,
        channel: AddressChannel,
        address: str,
        name: str | None,
        language: Language | None,
        now_us: int,
    ) -> Joined | Refused:
        """Somebody uses a code. A contact, an address and a test to it come of it, or only another group of who is known.

        `name` and `language` are what they say of themselves; of who is known already they change nothing. Only LINE itself says
        whose an address is; over all other channels it is believed when the test is answered.
        """
        row = self._invitation(connection, code, f"line {address}" if channel == "line" else _of_page(code), now_us)
        if isinstance(row, Refused):
            return row
        try:
            to = clean_address(channel, address, self._config.calling_code)
        except WrongAddress:
            return Refused("wrong_address")
        chosen = clean_name(name) if name else row.name
        if name and chosen is None:
            return Refused("wrong_name")
        known = people.owner(connection, channel, to)
        if known is not None and _is_in(connection, known.contact, row.team):
            return self._welcomed(connection, known.contact, known.address, row.team, channel, now_us, again=True)
        if not self._used(connection, row.code_sha256, now_us):
            return Refused("over")
        if known is not None:
            people.enter(connection, known.contact, row.team)
            return self._welcomed(connection, known.contact, known.address, row.team, channel, now_us)
        contact = people.add(
            connection,
            chosen or self._unnamed(connection, row.team),
            language or self._language(row.team),
            [row.team],
            f"invitation {_id_of(row.code_sha256)} of {row.created_by}",
            now_us,
        )
        return self._welcomed(
            connection, contact, people.add_address(connection, contact, channel, to, now_us), row.team, channel, now_us
        )

    def join_without(
        self, connection: Connection, code: str, name: str, language: Language | None, now_us: int
    ) -> Joined | Refused:
        """Somebody uses a code whose browser will be their first address: a contact without one comes of it."""
        row = self._invitation(connection, code, _of_page(code), now_us)
        if isinstance(row, Refused):
            return row
        chosen = clean_name(name)
        if chosen is None:
            return Refused("wrong_name")
        if not self._used(connection, row.code_sha256, now_us):
            return Refused("over")
        reads = language or self._language(row.team)
        who = f"invitation {_id_of(row.code_sha256)} of {row.created_by}"
        contact = people.add(connection, chosen, reads, [row.team], who, now_us)
        return Joined(contact, chosen, row.team, self._label(row.team), reads, again=False, test=None)

    def end(self, connection: Connection, id_: str, now_us: int) -> None:
        """Nobody comes in by this invitation (its id) any more. NotDone where none is open."""
        done = connection.execute(
            update(invitations)
            .where(func.substr(invitations.c.code_sha256, 1, _ID_LENGTH) == id_)
            .where(invitations.c.expires_us > now_us, invitations.c.uses_left > 0)
            .values(uses_left=0, expires_us=now_us)
        )
        if done.rowcount != 1:
            raise people.NotDone("unknown", "why.no_invitation")

    def _welcomed(
        self,
        connection: Connection,
        contact: str,
        address: str,
        group: str,
        channel: AddressChannel,
        now_us: int,
        *,
        again: bool = False,
    ) -> Joined:
        row = people.require(connection, contact)
        state = people.state_of(connection, address)
        if state == "unreachable" and channel == "line":
            heard(connection, address, now_us)  # they write to us: they did not go
            state = "proved"
        if state != "proved":
            test = self._proof.test(connection, address, now_us, again_us=TYPED_AGAIN_US)
            return Joined(contact, row.name, group, self._label(group), row.language, again, test)
        if channel != "line":
            # LINE says who writes. What was typed into a page may be somebody else's address: its owner hears of it, and who
            # typed it does not learn that it is known. No test: who ignores it must not become unreachable by a stranger's hand.
            self._tell_owner(connection, contact, address, group, now_us)
        return Joined(contact, row.name, group, self._label(group), row.language, again, None)

    def _tell_owner(self, connection: Connection, contact: str, address: str, group: str, now_us: int) -> None:
        """That they are in the group now; once a day, and not in their quiet hours."""
        person = self._proof.book.person(connection, contact, now_us)
        way = next((one for one in person.addresses if one.id == address), None) if person else None
        if person is None or way is None:
            return
        said = words(person.language, "contact.entered", group=self._label(group))
        id_ = str(uuid.uuid5(_IDS, f"{address}/{group}/{now_us // DAY_US}"))
        message = Message(
            id=id_, kind="reply", severity="info", language=person.language, title=said.title, body=said.body, spoken=said.spoken
        )
        queue(connection, person._replace(addresses=(way,)), message, now_us, due_us=person.quiet_until_us)

    def _invitation(self, connection: Connection, text: str, who: str, now_us: int) -> Any:
        """The row of a code that can be used, or Refused."""
        with self._lock:
            limit = self._limit_of(who)
            wait_s = limit.wait_s(now_us)
        if wait_s:
            return Refused("limited", wait_s)
        code = read_code(text)
        query = select(invitations).where(invitations.c.code_sha256 == _sha256(code or ""))
        row = connection.execute(query).first() if code else None
        if row is None:
            with self._lock:
                limit.count(now_us)
            return Refused("wrong_code")
        return row if row.uses_left > 0 and row.expires_us > now_us else Refused("over")

    def _limit_of(self, who: str) -> Limit:
        limit = self._limits.get(who)
        if limit is None:
            limit = self._limits[who] = Limit(BURST, WRONG_EVERY_US)
            if len(self._limits) > _MOST_LIMITS:
                # The page's own is never the oldest for long: it is moved to the end whenever it is asked.
                self._limits.popitem(last=False)
        self._limits.move_to_end(who)
        return limit

    @staticmethod
    def _used(connection: Connection, sha256: str, now_us: int) -> bool:
        """Takes one use, where there is one: two may come with the last at the same time."""
        one = update(invitations).where(invitations.c.code_sha256 == sha256)
        one = one.where(invitations.c.uses_left > 0, invitations.c.expires_us > now_us)
        return connection.execute(one.values(uses_left=invitations.c.uses_left - 1)).rowcount == 1

    def _label(self, group: str) -> str:
        return self._groups[group].label if group in self._groups else group

    def _language(self, group: str) -> Language:
        return self._groups[group].language if group in self._groups else "ja"

    def _unnamed(self, connection: Connection, group: str) -> str:
        """For who says no name: what the group is called, and which of its members this is."""
        count = connection.scalar(select(func.count()).where(memberships.c.team == group)) or 0
        return f"{self._label(group)[:30]} {count + 1}"


class Listed(NamedTuple):
    """An invitation as operators see it: never its code."""

    id: str
    group: str
    name: str | None
    uses_left: int
    created_us: int
    created_by: str
    expires_us: int


def open_invitations(connection: Connection, now_us: int) -> Sequence[Listed]:
    """Those that can still be used, the newest first."""
    query = select(invitations).where(invitations.c.expires_us > now_us, invitations.c.uses_left > 0)
    rows = connection.execute(query.order_by(invitations.c.created_us.desc(), invitations.c.code_sha256))
    return [
        Listed(_id_of(row.code_sha256), row.team, row.name, row.uses_left, row.created_us, row.created_by, row.expires_us)
        for row in rows
    ]


_ID_LENGTH = 12


def _of_page(text: str) -> str:
    """Whose limit a code on the page counts for; what is no code can't be found, and counts for nobody else."""
    return f"page {(read_code(text) or '')[:2]}"


def _id_of(sha256: str) -> str:
    """What an invitation is called where it is listed."""
    return sha256[:_ID_LENGTH]


def _sha256(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _is_in(connection: Connection, contact: str, group: str) -> bool:
    query = select(memberships.c.team).where(memberships.c.contact == contact, memberships.c.team == group)
    return connection.execute(query).first() is not None


def _is_family(connection: Connection, group: str) -> bool:
    """Families are groups that stand in no configuration."""
    return connection.execute(select(watched.c.id).where(watched.c.family == group).limit(1)).first() is not None
