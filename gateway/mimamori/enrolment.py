"""Who is watched over, and which tags are theirs: what an operator may change of it. Every change is durable before it is said.

Who may be enrolled at all, with whose consent, is for the town to decide; here it is kept who entered it.
"""

import json
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from edge.contract.names import is_name
from gateway.mimamori.enrolled import WATCHED
from gateway.state.tables import rule_states, search_cases, search_changes, search_sightings, tags, watched
from gateway.state.upsert import upsert

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


def add(connection: Connection, entry: Entry, by: str, now_us: int) -> str:
    """Enters a person; returns the id. NotEnrolled for what can't be."""
    _check(entry)
    id_ = secrets.token_hex(8)
    connection.execute(
        insert(watched).values(
            id=id_, name=entry.name, family=entry.family, homes=json.dumps(list(entry.homes)), created_us=now_us, created_by=by
        )
    )
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


def remove(connection: Connection, id_: str) -> bool:
    """Forgets a person: tags, what rules remember, search cases. What was sighted falls to the retention of sightings.

    NotEnrolled while they are searched for.
    """
    cases = select(search_cases.c.id).where(search_cases.c.watched == id_)
    if connection.scalar(cases.where(search_cases.c.state.in_(("open", "paused")))) is not None:
        raise NotEnrolled("they are searched for: end the search first")
    for table in (search_changes, search_sightings):
        connection.execute(delete(table).where(table.c.case.in_(cases)))
    connection.execute(delete(tags).where(tags.c.watched == id_))
    connection.execute(delete(search_cases).where(search_cases.c.watched == id_))
    connection.execute(delete(rule_states).where(rule_states.c.node == WATCHED, rule_states.c.device == id_))
    return connection.execute(delete(watched).where(watched.c.id == id_)).rowcount == 1


def give_tag(connection: Connection, id_: str, tag: str, by: str, now_us: int) -> None:
    """This tag is this person's from now on. NotEnrolled when it is somebody else's. Nothing where there is no such person."""
    if connection.scalar(select(watched.c.id).where(watched.c.id == id_)) is None:
        return
    owner = connection.scalar(select(tags.c.watched).where(tags.c.tag == tag))
    if owner is not None and owner != id_:
        raise NotEnrolled("this tag is somebody else's already: take it from them first")
    theirs = connection.scalars(select(tags.c.tag).where(tags.c.watched == id_)).all()
    if tag not in theirs and len(theirs) >= MOST_TAGS:
        raise NotEnrolled(f"nobody carries more than {MOST_TAGS} tags")
    connection.execute(upsert(tags), {"tag": tag, "watched": id_, "enrolled_us": now_us, "enrolled_by": by})


def take_tag(connection: Connection, id_: str, tag: str) -> bool:
    """The tag is nobody's from now on, and dropped where it is heard. Whether it was this person's."""
    return connection.execute(delete(tags).where(tags.c.tag == tag, tags.c.watched == id_)).rowcount == 1


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
