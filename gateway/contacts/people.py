"""People as they are kept: who there is, in which groups, with which addresses; one change each, in the caller's transaction.

What can't be done raises NotDone with the reason, and nothing of it is done. Nothing here sends anything.
"""

import json
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from gateway.contacts.address import AddressChannel
from gateway.contacts.config import QuietConfig
from gateway.notify.message import Language, Message
from gateway.state.tables import addresses, answers, contacts, invitations, memberships, notifications, pages
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal
from gateway.words.times import names

MOST_ADDRESSES = 10
REMOVED = "—"
"""What is left of a name."""


class NotDone(Refusal):
    """It can't be done. `why` tells the cases apart: unknown, taken, full, wrong."""

    def __init__(self, why: str, id_: str, /, **facts: Any) -> None:
        super().__init__(id_, **facts)
        self.why = why


class Known(NamedTuple):
    """Whose an address is."""

    contact: str
    address: str
    state: str


def add(connection: Connection, name: str, language: Language, groups: Sequence[str], who: str, now_us: int) -> str:
    """A new contact without an address; its id. The name is one that `clean_name` gave."""
    id_ = secrets.token_hex(8)
    connection.execute(insert(contacts).values(id=id_, name=name, language=language, created_us=now_us, created_by=who))
    for group in groups:
        enter(connection, id_, group)
    return id_


class Alike(NamedTuple):
    """Contacts who may be one person, entered more than once. They are told of everything as often."""

    contacts: tuple[str, ...]
    """Their ids, who was added first before the others."""
    by: str
    """`name`, or `number`: one telephone number as sms of one and voice of another."""


def alike(connection: Connection) -> list[Alike]:
    """Who is called the same, whatever the spaces and the width of letters, or shares a telephone number."""
    called: dict[str, list[str]] = {}
    here = select(contacts.c.id, contacts.c.name).where(contacts.c.removed_us.is_(None))
    for row in connection.execute(here.order_by(contacts.c.created_us, contacts.c.id)):
        called.setdefault("".join(unicodedata.normalize("NFKC", row.name).casefold().split()), []).append(row.id)
    numbers: dict[str, list[str]] = {}
    phones = select(addresses.c.contact, addresses.c.address).where(addresses.c.channel.in_(("sms", "voice")))
    for row in connection.execute(phones.order_by(addresses.c.created_us, addresses.c.id)):
        holders = numbers.setdefault(row.address, [])
        if row.contact not in holders:
            holders.append(row.contact)
    found = [Alike(tuple(ids), "name") for ids in called.values() if len(ids) > 1]
    return found + [Alike(tuple(ids), "number") for ids in numbers.values() if len(ids) > 1]


def add_address(connection: Connection, contact: str, channel: AddressChannel, to: str, now_us: int) -> str:
    """A new address, the last that is tried; its id. One that the contact has already stays as it is."""
    found = owner(connection, channel, to)
    if found is not None:
        if found.contact != contact:
            raise NotDone("taken", "why.address_taken")
        return found.address
    row = select(func.count(), func.coalesce(func.max(addresses.c.rank), -1)).where(addresses.c.contact == contact)
    count, rank = connection.execute(row).one()
    if count >= MOST_ADDRESSES and not _forget_ended(connection, contact):
        raise NotDone("full", "why.addresses_many", n=MOST_ADDRESSES)
    id_ = secrets.token_hex(8)
    connection.execute(
        insert(addresses).values(
            id=id_, contact=contact, channel=channel, address=to, rank=rank + 1, state="new", created_us=now_us
        )
    )
    return id_


def _forget_ended(connection: Connection, contact: str) -> bool:
    """Makes room: browsers end their subscriptions by themselves, and each new one is an address. False where none has ended."""
    mine = select(addresses.c.id).where(addresses.c.contact == contact, addresses.c.channel == "push")
    ended = connection.scalar(mine.where(addresses.c.state == "unreachable").order_by(addresses.c.created_us).limit(1))
    if ended is not None:
        connection.execute(delete(addresses).where(addresses.c.id == ended))
    return ended is not None


def remove_address(connection: Connection, contact: str, address: str) -> None:
    """Forgets one address of the contact."""
    done = connection.execute(delete(addresses).where(addresses.c.id == address, addresses.c.contact == contact))
    if done.rowcount != 1:
        raise NotDone("unknown", "why.no_address")
    look_again(connection, contact)


def prefer(connection: Connection, contact: str, order: Sequence[str]) -> None:
    """The order in which a contact's addresses are tried: all their ids, the first first."""
    has = set(connection.scalars(select(addresses.c.id).where(addresses.c.contact == contact)))
    if len(order) != len(has) or set(order) != has:
        raise NotDone("wrong", "why.address_order")
    for rank, id_ in enumerate(order):
        connection.execute(update(addresses).where(addresses.c.id == id_).values(rank=rank))


def owner(connection: Connection, channel: str, to: str) -> Known | None:
    """Whose this address is; None where nobody has it."""
    query = select(addresses.c.contact, addresses.c.id, addresses.c.state)
    row = connection.execute(query.where(addresses.c.channel == channel, addresses.c.address == to)).first()
    return None if row is None else Known(*row)


def state_of(connection: Connection, address: str) -> str | None:
    """new, proved or unreachable, of an address's id; None where there is none."""
    return connection.scalar(select(addresses.c.state).where(addresses.c.id == address))


def require(connection: Connection, contact: str) -> Any:
    """The row of a contact who is not removed."""
    row = connection.execute(select(contacts).where(contacts.c.id == contact, contacts.c.removed_us.is_(None))).first()
    if row is None:
        raise NotDone("unknown", "why.no_contact")
    return row


def change(connection: Connection, contact: str, values: Mapping[str, Any]) -> None:
    """Sets what is given of name, language, quiet (a sequence of QuietConfig, or None: their groups') and deputy."""
    require(connection, contact)
    kept = {key: values[key] for key in ("name", "language", "deputy") if key in values}
    if kept.get("deputy") is not None:
        if kept["deputy"] == contact:
            raise NotDone("wrong", "why.own_deputy")
        require(connection, kept["deputy"])
    if "quiet" in values:
        kept["quiet"] = None if values["quiet"] is None else quiet_json(values["quiet"])
    if kept:
        connection.execute(update(contacts).where(contacts.c.id == contact).values(kept))


def quiet_json(quiets: Sequence[QuietConfig]) -> str:
    """Quiet hours as they are stored."""
    return json.dumps([quiet.model_dump(mode="json", by_alias=True) for quiet in quiets])


def quiet_of(text: str | None) -> list[QuietConfig] | None:
    """What `quiet_json` wrote; None: those of their groups."""
    return None if text is None else [QuietConfig.model_validate(one) for one in json.loads(text)]


def enter(connection: Connection, contact: str, group: str) -> bool:
    """Into a group; False for who was in it."""
    return connection.execute(upsert(memberships), {"team": group, "contact": contact}).rowcount == 1


def leave(connection: Connection, contact: str, group: str) -> bool:
    """Out of a group; False for who was not in it."""
    out = delete(memberships).where(memberships.c.contact == contact, memberships.c.team == group)
    return connection.execute(out).rowcount == 1


def remove(connection: Connection, contact: str, now_us: int) -> None:
    """Erases a contact: name, addresses, groups, what they were told, and their name in what others were told.

    That they answered stays, without a name.
    """
    name = require(connection, contact).name
    look_again(connection, contact)
    connection.execute(delete(memberships).where(memberships.c.contact == contact))
    connection.execute(delete(addresses).where(addresses.c.contact == contact))
    connection.execute(update(contacts).where(contacts.c.deputy == contact).values(deputy=None))
    connection.execute(
        update(contacts)
        .where(contacts.c.id == contact)
        .values(name=REMOVED, quiet=None, deputy=None, away_until_us=None, removed_us=now_us)
    )
    connection.execute(
        update(notifications)
        .where(notifications.c.contact == contact, notifications.c.state == "queued")
        .values(state="dropped", error="the contact was removed")
    )
    connection.execute(update(invitations).where(invitations.c.name == name, invitations.c.uses_left == 0).values(name=None))
    _forget_words(connection, contact, name)


def _forget_words(connection: Connection, contact: str, name: str) -> None:
    """Out of the ledger: all that this contact was told, and the name wherever it stands, also where it is a namesake's."""
    told = connection.execute(select(notifications.c.id, notifications.c.kind).where(notifications.c.contact == contact)).all()
    for row in told:
        empty = Message(id=row.id, title=REMOVED, body="").model_copy(update={"kind": row.kind})
        connection.execute(update(notifications).where(notifications.c.id == row.id).values(body=empty.model_dump_json()))
    # One sign alone stands in half of all words: as a name it has its honorific.
    written, instead = (names(name), names(REMOVED)) if len(name) == 1 else (json.dumps(name, ensure_ascii=False)[1:-1], REMOVED)
    found = select(notifications.c.id, notifications.c.body).where(notifications.c.body.contains(written, autoescape=True))
    for row in connection.execute(found).all():
        body = row.body.replace(written, instead)
        connection.execute(update(notifications).where(notifications.c.id == row.id).values(body=body))


def look_again(connection: Connection, contact: str) -> None:
    """Something about the contact changed: open pages that asked them, or that they answered, are to be thought over."""
    # From the open pages, which are few: whom they asked is found by their index, in a ledger of years.
    asked = exists().where(notifications.c.page == pages.c.id, notifications.c.contact == contact)
    answered = exists().where(answers.c.page == pages.c.id, answers.c.contact == contact)
    connection.execute(update(pages).where(pages.c.state != "closed", or_(asked, answered)).values(changed=True))
