"""What goes down to nodes besides acks: desired documents, commands, expected tags. When each is to be published, and again.

Everything to be sent stands in the state database, so a restart loses nothing; what is remembered here is only what this
connection has said already. Used by the one thread that has the connection; it is asked only while there is one.

    desired     retained; when it is new and, until it is answered, on each new connection; and when a node is born that runs
                less, unless it has said that it can't run it
    command     not retained; at once, again when its node comes back and, ever more seldom, until it is answered or runs out
    expected    retained; when tags change, each hour, on each new connection
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from edge.contract.topics import Channel, Topic, topic_for
from gateway.nodes import commands as orders
from gateway.nodes import desired, expected
from gateway.nodes.signing import Signer
from gateway.state import State
from gateway.state.tables import commands, cursors, nodes

FIRST_PAUSE_US = 30 * 1_000_000
LONGEST_PAUSE_US = 3600 * 1_000_000
AT_ONCE = 5  # expected documents made in one go: each is signed, and traps wait meanwhile
_NAMED_AT_ONCE = 500  # in one query

_ASKED = select(cursors.c.value).where(cursors.c.name == desired.ASKED)
_WAITING = (
    select(commands.c.id, commands.c.node, commands.c.payload, commands.c.expires_us)
    .where(commands.c.state == orders.WAITING)
    .order_by(commands.c.issued_us, commands.c.id)
)


class Down(NamedTuple):
    """One message to publish, with QoS 1."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class _Try:
    """When a command is said again, and how long after that."""

    due_us: int
    pause_us: int


class Outgoing:
    """`messages` says what is to be published now; `heard` tells it of nodes that came back."""

    def __init__(self, state: State, signer: Signer | None) -> None:
        """Without a signer nothing new can be said: only what was signed already is published."""
        self._state, self._signer = state, signer
        self.speaks_to: Callable[[str], bool] = lambda _: True
        """Which nodes this process speaks to, where several do: gateway.ingest.Ingest.hears of the one that it belongs to."""
        self._asked: int | None = None  # the cursor of desired documents, as it was when they were looked through
        self._said: dict[str, int] = {}  # node -> the unanswered revision that was said in this connection
        self._tries: dict[str, _Try] = {}  # by command
        self._born: set[str] = set()
        self._back: set[str] = set()
        self._coming: expected.Coming | None = None
        self._to_tell: list[str] = []  # nodes that are yet to hear what is coming
        self._told: set[str] = set()  # nodes that have, in this connection

    def heard(self, births: Collection[str], back: Collection[str]) -> None:
        """Nodes of which a birth was committed; those of them that have just said it, not the broker from memory."""
        self._born.update(births)
        self._back.update(back)

    def messages(self, now_us: int, *, anew: bool) -> list[Down]:
        """What is to be published now. `anew`: on a connection that was not there at the last call.

        An OperationalError of the database is raised; the next call then says all that this one would have said.
        """
        if anew:
            self._forget()
        try:
            with self._state.read() as connection:
                found = list(self._desired(connection))
                waiting = connection.execute(_WAITING).all()
                revision = None if self._signer is None else expected.newest(connection)
            found += [*self._commands(waiting, now_us), *self._expected(revision, now_us)]
        except BaseException:
            self._forget()
            raise
        self._born.clear()
        self._back.clear()
        return found

    def _forget(self) -> None:
        """Lets go of what was said: all that is open is to be said again."""
        self._asked = None
        self._said.clear()
        self._tries.clear()
        self._told.clear()
        self._to_tell = self._listeners() if self._coming is not None else []

    def _desired(self, connection: Connection) -> Iterator[Down]:
        asked = connection.scalar(_ASKED)
        if asked is None:
            return  # nothing was ever asked of anybody
        due: dict[str, int] = {}
        if asked != self._asked:
            unanswered = {
                row.node: row.revision
                for row in desired.highest(connection)
                if row.outcome is None and self.speaks_to(row.node)
            }  # fmt: skip
            due = {node: revision for node, revision in unanswered.items() if self._said.get(node) != revision}
            self._said, self._asked = unanswered, asked
        due.update(self._behind(connection))
        for node, revision in due.items():
            yield Down(topic_for(Topic(node, Channel.DESIRED)), desired.payload_of(connection, node, revision), retain=True)

    def _behind(self, connection: Connection) -> Iterator[tuple[str, int]]:
        """Nodes just born that run less than they should, and have not said that they can't: the broker may have forgotten."""
        born = sorted(self._born)
        for start in range(0, len(born), _NAMED_AT_ONCE):
            named = born[start : start + _NAMED_AT_ONCE]
            rows = connection.execute(select(nodes.c.node, nodes.c.config_revision).where(nodes.c.node.in_(named)))
            runs = {row.node: row.config_revision or 0 for row in rows}
            for row in desired.highest(connection, named):
                if row.outcome != "failed" and runs.get(row.node, 0) < row.revision:
                    yield row.node, row.revision

    def _commands(self, waiting: Sequence[Any], now_us: int) -> Iterator[Down]:
        alive = [row for row in waiting if row.expires_us > now_us]
        if len(alive) < len(waiting):
            with self._state.write() as connection:
                orders.expire(connection, now_us)
        tries, self._tries = self._tries, {}
        for row in alive:
            if not self.speaks_to(row.node):
                continue
            one = self._tries[row.id] = tries.get(row.id, _Try(now_us, FIRST_PAUSE_US))
            if row.node in self._back:
                one.due_us, one.pause_us = now_us, FIRST_PAUSE_US
            if one.due_us <= now_us:
                one.due_us, one.pause_us = now_us + one.pause_us, min(2 * one.pause_us, LONGEST_PAUSE_US)
                yield Down(topic_for(Topic(row.node, Channel.COMMAND, row.id)), row.payload.encode(), retain=False)

    def _expected(self, revision: int | None, now_us: int) -> Iterator[Down]:
        if self._signer is None or revision is None:
            return  # no tag was ever enrolled
        if self._coming is None or self._coming.revision != revision or now_us >= self._coming.remake_us:
            known = None if self._coming is None else self._coming.revision
            self._coming = expected.make(self._state, now_us, known)
            self._told.clear()
            self._to_tell = self._listeners()
        elif self._born:
            self._to_tell = self._listeners()
        now, self._to_tell = self._to_tell[:AT_ONCE], self._to_tell[AT_ONCE:]
        self._told.update(now)
        for node in now:
            yield Down(topic_for(Topic(node, Channel.EXPECTED)), self._coming.statement(self._signer, node).payload, retain=True)

    def _listeners(self) -> list[str]:
        with self._state.read() as connection:
            return [node for node in expected.listeners(connection) if node not in self._told and self.speaks_to(node)]
