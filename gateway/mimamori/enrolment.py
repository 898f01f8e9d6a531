"""Who is watched over, and which tags are theirs: what an operator may change of it. Every change is durable before it is said.

Nobody is enrolled, and no tag given, without a consent on record (gateway.mimamori.consent).
"""

import json
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from edge.contract.names import is_name
from gateway.keeping.erase import erase_tag
from gateway.mimamori import consent
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Given
from gateway.state.tables import tags, watched
from gateway.state.upsert import upsert

DEFAULTS = MimamoriConfig()
MOST_TAGS = 10
MOST_HOMES = 20


class NotEnrolled(ValueError):
    """This can't be entered; the text says what would be right."""


class Entry(NamedTuple):
    """What is entered of a person."""

    name: str
    family: str
    """The group that is told: a name `[a-z0-9-]{1,32}`."""
    homes: Sequence[str]
    """Receivers as `node/device`."""


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
        raise NotEnrolled("this tag is somebody else's already: take it from them first")
    theirs = connection.scalars(select(tags.c.tag).where(tags.c.watched == id_)).all()
    if tag not in theirs and len(theirs) >= MOST_TAGS:
        raise NotEnrolled(f"nobody carries more than {MOST_TAGS} tags")
    connection.execute(upsert(tags), {"tag": tag, "watched": id_, "enrolled_us": now_us, "enrolled_by": by})


def take_tag(connection: Connection, id_: str, tag: str, by: str, now_us: int) -> bool:
    """The tag is nobody's from now on, and dropped where it is heard. Whether it was this person's.

    Where it was is erased and its key destroyed: who carries it next must not be shown what was of somebody else. NotEnrolled
    while they are searched for. Call `State.empty_log` once it is committed.
    """
    if connection.scalar(select(tags.c.tag).where(tags.c.tag == tag, tags.c.watched == id_)) is None:
        return False
    if consent.is_searched_for(connection, id_):
        raise NotEnrolled("they are searched for: end the search first, as found or closed")
    consent.end_labels(connection, [tag], now_us)
    erase_tag(connection, tag, by, now_us)
    return True


def _check(entry: Entry) -> None:
    if not is_name(entry.family):
        raise NotEnrolled(f"family: {entry.family[:40]!r} is no name of 1 to 32 of a-z, 0-9 and '-'")
    if not entry.name.strip():
        raise NotEnrolled("name: say what they are called")
    if not entry.homes or len(entry.homes) > MOST_HOMES:
        raise NotEnrolled(f"homes: say 1 to {MOST_HOMES} receivers that hear the tag at home, each as node/device")
    for home in entry.homes:
        node, slash, device = home.partition("/")
        if not slash or not is_name(node) or not is_name(device):
            raise NotEnrolled(f"homes: {home[:70]!r} is not node/device, like tsubaki/tags")
