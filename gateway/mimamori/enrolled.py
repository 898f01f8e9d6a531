"""Whose tag is whose, as this process knows it. The one way from a tag to a person; who has no way here is nobody.

Read from the tables `watched`, `tags` and `consents` and held in memory, because every sighting asks. Nothing of it is logged.
A tag that was stopped, and those of a person whose watch stands still, are nobody's here: what is heard of them is dropped.
"""

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from gateway.state.tables import consents, tags, watched

WATCHED = "watched"
"""The `node` of every watched person as a subject; its `device` is the person's id."""


class Watched(NamedTuple):
    """A person who carries a tag."""

    id: str
    name: str
    """呼び名: how those who care for them call them."""
    family: str
    """The group that is told."""
    homes: frozenset[tuple[str, str]]
    """The receivers (node, device) that hear the tag at home."""


class Enrolled:
    """All of them, and their tags. Reads are safe from any thread while one thread reads the tables anew."""

    def __init__(
        self,
        people: Mapping[str, Watched] | None = None,
        whose: Mapping[str, str] | None = None,
        still: Collection[str] = (),
    ) -> None:
        """`still`: the ids of those whose watch stands still."""
        self._people, self._whose, self._still = dict(people or {}), dict(whose or {}), frozenset(still)
        self._by_home, self._tags = _by_home(self._people), _tags(self._whose)

    def read(self, connection: Connection) -> None:
        """Takes over what the tables say now."""
        people = {
            row.id: Watched(row.id, row.name, row.family, frozenset(receiver_of(home) for home in json.loads(row.homes)))
            for row in connection.execute(select(watched))
        }
        rows = connection.execute(select(tags.c.tag, tags.c.watched, tags.c.stopped_us)).all()
        lapsed = _lapsed(connection)
        whose = {row.tag: row.watched for row in rows if row.stopped_us is None and row.watched not in lapsed}
        stopped = {row.watched for row in rows if row.stopped_us is not None}
        self._people, self._whose, self._by_home, self._tags = people, whose, _by_home(people), _tags(whose)
        self._still = frozenset(lapsed | (stopped - set(whose.values())))

    def whose(self, tag: str) -> str | None:
        """The id of who carries this tag; None where nobody does, so far as we know."""
        return self._whose.get(tag)

    def of(self, id_: str) -> Watched | None:
        """The person with this id."""
        return self._people.get(id_)

    def heeded(self, id_: str) -> Watched | None:
        """The person with this id, unless their watch stands still: nothing is known of them then, and nothing missed."""
        return None if id_ in self._still else self._people.get(id_)

    def at_home(self, receiver: tuple[str, str]) -> list[str]:
        """The ids of those whose home this receiver is at."""
        return self._by_home.get(receiver, [])

    def tags_of(self, id_: str) -> frozenset[str]:
        """The tags that this person carries."""
        return self._tags.get(id_, frozenset())

    def ids(self) -> list[str]:
        """Everybody."""
        return list(self._people)


def receiver_of(home: str) -> tuple[str, str]:
    """The receiver (node, device) that is written as `node/device`."""
    node, _, device = home.partition("/")
    return node, device


def _lapsed(connection: Connection) -> set[str]:
    """Those whose newest consent has lapsed, or was revoked. Who has none was enrolled before consents were asked for."""
    newest = select(func.max(consents.c.id)).group_by(consents.c.watched)
    over = consents.c.lapsed_us.is_not(None) | consents.c.revoked_us.is_not(None)
    return set(connection.scalars(select(consents.c.watched).where(consents.c.id.in_(newest), over)))


def _by_home(people: Mapping[str, Watched]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in people.values():
        for home in one.homes:
            found.setdefault(home, []).append(one.id)
    return found


def _tags(whose: Mapping[str, str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for tag, id_ in whose.items():
        found.setdefault(id_, set()).add(tag)
    return {id_: frozenset(theirs) for id_, theirs in found.items()}
