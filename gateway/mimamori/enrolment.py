"""Who is watched over, and which tags are theirs: what an operator may change of it. Every change is durable before it is said.

Nobody is enrolled, and no tag given, without a consent on record (gateway.mimamori.consent).
"""

import json
import secrets
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from edge.contract.names import is_name
from gateway.keeping.erase import erase_tag
from gateway.mimamori import consent
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Given
from gateway.state.tables import devices, tags, watched
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

DEFAULTS = MimamoriConfig()
MOST_TAGS = 10
MOST_HOMES = 20
RECEIVER = "ble-tags"
"""The kind of device that hears tags, as nodes announce it."""


class NotEnrolled(Refusal):
    """This can't be entered."""


class Entry(NamedTuple):
    """What is entered of a person."""

    name: str
    family: str
    """The group that is told: a name `[a-z0-9-]{1,32}`."""
    homes: Sequence[str]
    """Receivers as `node/device`."""


class Town(NamedTuple):
    """What an entry must fit to."""

    roles: Mapping[str, str | None] = MappingProxyType({})
    """Role by configured group; families themselves need not be configured."""
    office: str | None = None
    deployed: Container[tuple[str, str]] = ()
    """(node, device) of the configuration."""


def doubts(connection: Connection, entry: Entry, town: Town, me: str = "") -> Iterator[NotEnrolled]:
    """What can't be meant: a `family` of other people, homes that hear no tags, somebody entered twice. `me`: their id."""
    role = town.roles.get(entry.family)
    if entry.family == town.office or role not in (None, "family"):
        at_the_office = entry.family == town.office
        yield NotEnrolled("why.family_office" if at_the_office else "why.family_role", family=entry.family, role=role)
    if len(set(entry.homes)) < len(entry.homes):
        yield NotEnrolled("why.home_twice")
    for home in dict.fromkeys(entry.homes):
        node, _, device = home.partition("/")
        kind = connection.scalar(select(devices.c.kind).where(devices.c.node == node, devices.c.device == device))
        if kind is None and (node, device) not in town.deployed:
            yield NotEnrolled("why.home_unknown", home=home)
        elif kind is not None and kind != RECEIVER:
            yield NotEnrolled("why.home_deaf", home=home, kind=kind, receiver=RECEIVER)
    same = select(watched.c.id).where(watched.c.name == entry.name, watched.c.family == entry.family, watched.c.id != me)
    if connection.scalar(same.limit(1)) is not None:
        yield NotEnrolled("why.entered_twice", family=entry.family)


def add(connection: Connection, entry: Entry, given: Given, by: str, now_us: int, config: MimamoriConfig = DEFAULTS) -> str:
    """Enters a person on somebody's word; returns the id. NotEnrolled for what can't be, NoConsent without a word."""
    _check(entry)
    consent.check(given, now_us)
    id_ = secrets.token_hex(8)
    connection.execute(
        insert(watched).values(
            id=id_, name=entry.name, family=entry.family, homes=json.dumps(list(entry.homes)), created_us=now_us, created_by=by
        )
    )
    consent.enter(connection, id_, given, by, now_us, config)
    return id_


def refuse_doubtful(connection: Connection, entry: Entry, town: Town, me: str = "") -> None:
    """NotEnrolled with the first thing that can't be meant."""
    _check(entry)
    for doubt in doubts(connection, entry, town, me):
        raise doubt


def change(connection: Connection, id_: str, entry: Entry) -> bool:
    """Whether there is such a person. NotEnrolled for what can't be."""
    _check(entry)
    done = connection.execute(
        update(watched)
        .where(watched.c.id == id_)
        .values(name=entry.name, family=entry.family, homes=json.dumps(list(entry.homes)))
    )
    return done.rowcount == 1


def give_tag(connection: Connection, id_: str, tag: str, by: str, now_us: int) -> None:
    """This tag is this person's from now on. Nothing where there is no such person.

    NotEnrolled when it is somebody else's, NoConsent where no consent holds.
    """
    if connection.scalar(select(watched.c.id).where(watched.c.id == id_)) is None:
        return
    consent.must_hold(connection, id_, now_us)
    owner = connection.scalar(select(tags.c.watched).where(tags.c.tag == tag))
    if owner is not None and owner != id_:
        raise NotEnrolled("why.tag_taken")
    theirs = connection.scalars(select(tags.c.tag).where(tags.c.watched == id_)).all()
    if tag not in theirs and len(theirs) >= MOST_TAGS:
        raise NotEnrolled("why.tags_many", n=MOST_TAGS)
    connection.execute(upsert(tags), {"tag": tag, "watched": id_, "enrolled_us": now_us, "enrolled_by": by})


def take_tag(connection: Connection, id_: str, tag: str, by: str, now_us: int) -> bool:
    """The tag is nobody's from now on, and dropped where it is heard. Whether it was this person's.

    Where it was is erased and its key destroyed: who carries it next must not be shown what was of somebody else. NotEnrolled
    while they are searched for. Call `State.empty_log` once it is committed.
    """
    if connection.scalar(select(tags.c.tag).where(tags.c.tag == tag, tags.c.watched == id_)) is None:
        return False
    if consent.is_searched_for(connection, id_):
        raise NotEnrolled("why.searched_for")
    consent.end_labels(connection, [tag], now_us)
    erase_tag(connection, tag, by, now_us)
    return True


def _check(entry: Entry) -> None:
    if not is_name(entry.family):
        raise NotEnrolled("why.bad_name", where="family", name=repr(entry.family[:40]))
    if not entry.name.strip():
        raise NotEnrolled("why.watched_name")
    if not entry.homes or len(entry.homes) > MOST_HOMES:
        raise NotEnrolled("why.homes", n=MOST_HOMES)
    for home in entry.homes:
        node, slash, device = home.partition("/")
        if not slash or not is_name(node) or not is_name(device):
            raise NotEnrolled("why.home_form", home=repr(home[:70]))
