"""Where one process hears and another judges: readings are handed over in a table, events stand in theirs already.

An ingest process hands on (`Handing`) what rules want to see, durably, before it acknowledges anything. The one process that
holds the lease `rules` judges (`Judging`): it takes what was handed on in its order, and events in the order of their commit.

While nobody judges, readings wait for an hour; of those before that the newest of each series stays. Events all wait.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from sqlalchemy import Connection, delete, select, text
from sqlalchemy.exc import OperationalError

from gateway.rules import Fact
from gateway.state import State
from gateway.state.tables import handed

log = logging.getLogger(__name__)

TICK_S = 1.0
AT_ONCE = 5000

KEPT_US = 3600 * 1_000_000
"""Longer than a machine is away that somebody looks after. What a reading said before that tells rules of a past that nobody can
act on; only that its series was heard, and what it came to, is of use still.
"""
MOST = 1_000_000
"""Rows; some 200 MB."""
FORGETS_S = 300
"""So often it is looked whether some wait for too long: with many that takes seconds."""

_NEWEST = select(handed.c.id).order_by(handed.c.id.desc()).limit(1)
_OLDEST = select(handed.c.id, handed.c.body).order_by(handed.c.id).limit(1)
# As JSON they are in the order of Fact: 0 to 2 are the series, 4 is its time, 5 when it was received.
_TOO_MANY = text(
    """
    SELECT id FROM (
        SELECT id, CAST(said ->> 5 AS bigint) AS received_us,
            row_number() OVER (
                PARTITION BY said ->> 0, said ->> 1, said ->> 2 ORDER BY CAST(said ->> 4 AS bigint) DESC, id DESC
            ) AS place
        FROM (SELECT id, CAST(body AS json) AS said FROM handed) AS one
    ) AS ranked
    WHERE place > 1 AND (received_us < :before_us OR id <= :last)
    ORDER BY id
    """
)
_WAITING = select(handed.c.id, handed.c.body).order_by(handed.c.id).limit(AT_ONCE)


class Handing:
    """In the place of a watch, for gateway.pipeline."""

    def __init__(
        self,
        state: State,
        metrics: frozenset[str],
        ring: Callable[[], None],
        forgotten: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`metrics`: of which rules want readings. `ring` tells who judges that there is something. `forgotten` hears of how many
        readings nobody will judge.
        """
        self._state, self.metrics, self._ring, self._forgotten = state, metrics, ring, forgotten
        self._forgets = False

    def run(self, readings: Iterable[Fact], now_us: int) -> None:  # noqa: ARG002 - as a watch's
        """Hands them on. What is judged twice, after a crash, is judged the same."""
        rows = [(json.dumps(fact, ensure_ascii=False, separators=(",", ":")),) for fact in readings]
        self._state.insert(handed, ("body",), rows)
        self._ring()

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Time passes where it is judged."""

    def forget(self, now_us: int) -> int:
        """The chore that keeps what waits from growing for ever; how many readings went. PostgreSQL only."""
        with self._state.read() as connection:
            oldest, newest = connection.execute(_OLDEST).first(), connection.scalar(_NEWEST) or 0
            if oldest is None or not (now_us - since_us(oldest.body) > KEPT_US or newest - oldest.id >= MOST):
                if self._forgets:
                    self._forgets = False
                    log.warning("readings are judged again")
                return 0
            ids = list(connection.scalars(_TOO_MANY, {"before_us": now_us - KEPT_US, "last": newest - MOST}))
        gone = 0
        for at in range(0, len(ids), AT_ONCE):
            # What is judged at this very moment may be among them; who deletes second finds nothing.
            with self._state.write(own=True) as connection:
                gone += connection.execute(delete(handed).where(handed.c.id.in_(ids[at : at + AT_ONCE]))).rowcount
        if gone and not self._forgets:
            self._forgets = True
            log.error("no process judges: of readings that have waited for an hour, or of more than %d, only the newest of each "
                      "series is kept for rules. Start one with --role rules. Events all wait", MOST)  # fmt: skip
        self._forgotten(gone)
        return gone


def since_us(body: str) -> int:
    """When a reading that was handed on was received."""
    return int(Fact(*json.loads(body)).received_us)


def oldest_us(connection: Connection) -> int | None:
    """When the one that waits the longest was received; None where none waits."""
    oldest = connection.execute(_OLDEST).first()
    return None if oldest is None else since_us(oldest.body)


class Watch(Protocol):
    """gateway.watch.Watch."""

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges the readings and every committed event not judged yet."""
        ...

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass."""
        ...


class Ticking(Protocol):
    """gateway.paging.Paging."""

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass."""
        ...


class Judging:
    """Runs by `run` in its own thread, until `stop`. Who holds the lease has one; `state` is guarded."""

    def __init__(
        self,
        state: State,
        watch: Watch,
        paging: Ticking,
        now_us: Callable[[], int],
        listening_since_us: Callable[[], int | None],
    ) -> None:
        """`listening_since_us`: since when the whole town has been heard without a break; None: a part of it is not."""
        self._state, self._watch, self._paging = state, watch, paging
        self._now_us, self._listening = now_us, listening_since_us
        self._stop, self._bell = threading.Event(), threading.Event()

    def ring(self) -> None:
        """Something was committed: judge it now. Safe from any thread."""
        self._bell.set()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stop.set()
        self._bell.set()

    def run(self) -> None:
        """Until `stop`. Fenced, where others took this process for dead."""
        complained, next_tick = False, 0.0
        while not self._stop.is_set():
            self._bell.clear()
            try:
                more = self.step(self._now_us())
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    now_us, since_us = self._now_us(), self._listening()
                    self._watch.tick(now_us, since_us)
                    self._paging.tick(now_us, since_us)
                if complained:
                    complained = False
                    log.warning("what comes in is judged again")
            except OperationalError as error:
                if not complained:
                    complained = True
                    log.error("nothing is judged: the state database: %s", error.orig)
                more = False
            if not more:
                self._bell.wait(max(next_tick - time.monotonic(), 0.05))

    def step(self, now_us: int) -> bool:
        """Judges what was handed on, and every event. Whether more was handed on than could be taken at once."""
        with self._state.read() as connection:
            rows = connection.execute(_WAITING).all()
        self._watch.run([Fact(*json.loads(row.body)) for row in rows], now_us)
        if rows:
            with self._state.write(own=True) as connection:
                # Not "up to": a smaller number may become visible later.
                connection.execute(delete(handed).where(handed.c.id.in_([row.id for row in rows])))
        return len(rows) == AT_ONCE
