"""Who does what only one of several processes may do: rows of `workers` and `leases` in PostgreSQL, by its clock.

A process that works is a row of `workers`, renewed each few seconds; the number of the row is its fencing token. Each of its
transactions asks first whether the row is still there (`Worker.guard`), and holds it there until it has committed. What it holds
are rows of `leases`. Whoever finds a worker past its time deletes its row, unless a commit is under way, and that frees what it
held; from then on nothing of it succeeds, however long it had been paused and whatever it believes. A transaction that it was
paused in is ended with its connection.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.exc import OperationalError

from edge.contract.topics import PARTITIONS
from gateway.state import State
from gateway.state.database import ENDS_WHEN_IDLE, process_name

log = logging.getLogger(__name__)

LEASE_S = 12
"""So long after it last said that it works, a process may be taken for dead: where `state.lease` says nothing else."""
RENEWALS = 6
"""In the time of a lease."""
STEADY = 3
"""Who said so as often as this without a fault may bury others: after an outage of the database everybody is past the time."""
RULES = "rules"
HEARD = tuple(f"{partition:02d}" for partition in range(PARTITIONS))
"""The leases of partitions, by their level in the topic."""


def _sql(words: str) -> TextClause:
    """A statement, with `now_us()` for the database's clock in µs, and `bounded()` in what begins a transaction."""
    now_us = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
    return text(words.replace("now_us()", now_us).replace("bounded()", ENDS_WHEN_IDLE))


def _of_names(words: str) -> TextClause:
    return _sql(words).bindparams(bindparam("names", expanding=True))


_ENTER = _sql("INSERT INTO workers (name, role, until_us) VALUES (:name, :role, now_us() + :lease_us) RETURNING id")
_MADE = _sql("INSERT INTO leases (name) VALUES (:name) ON CONFLICT DO NOTHING")
# KEY SHARE: others may renew the row meanwhile, and nobody may delete it before the transaction has ended.
_GUARD = _sql("SELECT bounded() FROM workers WHERE id = :id FOR KEY SHARE")
_BEAT = _sql(
    """
    UPDATE workers SET until_us = now_us() + :lease_us, faults = :faults WHERE id = :id
    RETURNING bounded(), EXISTS (SELECT FROM workers WHERE until_us < now_us())
    """
)
# A process that is paused in a transaction would keep what it has locked; by its name its connections are known. In containers
# the one that was started in its place may have the same.
_HANG_UP = _sql(
    """
    SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
    WHERE a.datname = current_database()
    AND a.application_name IN (SELECT left(name, 63) FROM workers WHERE until_us < now_us())
    AND a.application_name NOT IN (SELECT left(name, 63) FROM workers WHERE until_us >= now_us())
    """
)
# Who has a transaction under way still is looked at again: to wait for it would keep us from saying that we work ourselves.
_BURY = _sql(
    """
    DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE until_us < now_us() FOR UPDATE SKIP LOCKED)
    RETURNING name, role, bounded()
    """
)
_LEAVE = _sql("DELETE FROM workers WHERE id = :id RETURNING bounded()")
_LIVE = _sql("SELECT role, faults FROM workers ORDER BY id")
_TAKE = _of_names(
    """
    UPDATE leases SET holder = :id
    WHERE name IN (
        SELECT name FROM leases WHERE (holder IS NULL OR holder = :id) AND name IN :names
        ORDER BY holder, name LIMIT :most FOR UPDATE SKIP LOCKED
    )
    RETURNING name, heard_us, listening_since_us, now_us() AS now_us
    """
)
_LISTEN = _sql(
    """
    UPDATE leases SET
        listening_since_us = told.since_us,
        heard_us = CASE WHEN told.since_us IS NULL THEN leases.heard_us ELSE now_us() END
    FROM unnest(CAST(:names AS text[]), CAST(:since_us AS bigint[])) AS told (name, since_us)
    WHERE leases.name = told.name AND leases.holder = :id
    """
)
_STANDS = _sql(
    """
    SELECT
        (SELECT count(*) FROM workers WHERE role = :role) AS fellows,
        (SELECT count(*) FROM leases WHERE holder = :id AND name = ANY(CAST(:names AS text[]))) AS held
    """
)
_GIVE = _of_names("UPDATE leases SET holder = NULL WHERE holder = :id AND name IN :names")
_LISTENING = _of_names("SELECT listening_since_us FROM leases WHERE name IN :names AND holder IS NOT NULL")


class Fenced(BaseException):
    """This process was taken for dead, and others do its work: it must end, and start anew.

    As SystemExit no Exception: whoever goes on after somebody's mistake must not go on after this.
    """


class Stands(NamedTuple):
    """How a process stands among those of its role."""

    fellows: int
    """How many of them are live, itself among them."""
    held: int
    """How many partitions are its own."""


class Taken(NamedTuple):
    """A lease that this process holds from now on."""

    name: str
    heard_us: int | None
    """When somebody last held it and listened; None: nobody ever did."""
    listening_since_us: int | None
    """Since when it was heard without a break then."""
    now_us: int
    """By the database's clock."""


class Worker:
    """One process among several. Any thread may ask; `state` is the unguarded one."""

    def __init__(self, state: State, role: str, lease_s: int = LEASE_S) -> None:
        """Enters."""
        self._state, self.role, self.lease_s = state, role, lease_s
        self.name = process_name()
        with state.write(own=True) as connection:
            connection.execute(_MADE, [{"name": name} for name in (*HEARD, RULES)])
            told = {"name": self.name, "role": role, "lease_us": lease_s * 1_000_000}
            self.id: int = connection.execute(_ENTER, told).scalar_one()

    @property
    def alive(self) -> str:
        """`guard` as a query, for what is one statement and no more: a row where this process works, none where it is fenced."""
        return f"SELECT FROM workers WHERE id = {self.id} FOR KEY SHARE"

    def guard(self, connection: Connection) -> None:
        """Begins each transaction of this process. Fenced where others took it for dead."""
        if connection.execute(_GUARD, {"id": self.id}).first() is None:
            raise self._fenced()

    def beat(self, faults: Mapping[str, Any]) -> bool:
        """Says that this process works, and which of its parts are not well. Whether somebody is past the time. Fenced."""
        with self._state.write(own=True) as connection:
            told = {"id": self.id, "lease_us": self.lease_s * 1_000_000, "faults": json.dumps(faults, ensure_ascii=False)}
            if (said := connection.execute(_BEAT, told).first()) is None:
                raise self._fenced()
            return bool(said[1])

    def bury(self) -> None:
        """Takes away the rows of those who have not said in time that they work, and their connections."""
        with self._state.write(own=True) as connection:
            connection.execute(_HANG_UP)
        with self._state.write(own=True) as connection:
            for row in connection.execute(_BURY):
                log.warning("%s (%s) says nothing any more; others do its work", row.name, row.role)

    def leave(self) -> None:
        """The goodbye: what it held is free at once."""
        try:
            with self._state.write(own=True) as connection:
                connection.execute(_LEAVE, {"id": self.id})
        except OperationalError as error:
            log.warning("what %s held is free in %d s only: the state database: %s", self.name, self.lease_s, error.orig)

    def take(self, names: Iterable[str], most: int) -> list[Taken]:
        """At most so many of these that nobody else holds, first those that it holds itself without knowing it: the word that
        they were taken may have been lost with a connection. Fenced.
        """
        with self._state.write(own=True) as connection:
            self.guard(connection)
            rows = connection.execute(_TAKE, {"id": self.id, "names": list(names), "most": most})
            return sorted(Taken(*row) for row in rows)

    def give(self, names: Iterable[str]) -> None:
        """Holds these no longer: nothing of them is under way here any more. Fenced."""
        if given := list(names):
            with self._state.write(own=True) as connection:
                self.guard(connection)
                connection.execute(_GIVE, {"id": self.id, "names": given})

    def listens(self, since_us: Mapping[str, int | None]) -> Stands:
        """Since when each of these partitions, held here, has been heard; None: it is not heard now. Fenced."""
        with self._state.write(own=True) as connection:
            self.guard(connection)
            if since_us:
                connection.execute(_LISTEN, {"id": self.id, "names": list(since_us), "since_us": list(since_us.values())})
            return Stands(*connection.execute(_STANDS, {"id": self.id, "role": self.role, "names": list(HEARD)}).one())

    def _fenced(self) -> Fenced:
        return Fenced(f"{self.name} was not heard of for {self.lease_s} s; others do its work now")


def listening_since_us(state: State) -> int | None:
    """Since when every partition has been heard without a break; None where one is not."""
    with state.read() as connection:
        since: list[int | None] = list(connection.execute(_LISTENING, {"names": list(HEARD)}).scalars())
    heard = [one for one in since if one is not None]
    return max(heard) if len(heard) == len(HEARD) else None


def all_held(state: State) -> bool:
    """Whether every partition is some live process's, whether it hears anything or not."""
    with state.read() as connection:
        return len(connection.execute(_LISTENING, {"names": list(HEARD)}).all()) == len(HEARD)


def faults_of(state: State) -> dict[str, list[dict[str, Any]]]:
    """By role, of each live process: which of its parts are not well, each with what gateway.own.Own.condition takes."""
    found: dict[str, list[dict[str, Any]]] = {}
    with state.read() as connection:
        for row in connection.execute(_LIVE):
            found.setdefault(row.role, []).append(json.loads(row.faults))
    return found


class Beating:
    """Says in a thread of its own that this process works, until `stop`: however long a transaction of another thread takes."""

    def __init__(self, worker: Worker, fenced: Callable[[], None]) -> None:
        """`fenced` is called once, where others took this process for dead."""
        self._worker, self._fenced = worker, fenced
        self.faults: Callable[[], Mapping[str, Any]] = dict
        """Which of its parts are not well; set once there are any."""
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stop.set()

    def run(self) -> None:
        """Until `stop`, or until it is fenced."""
        complained, steady = False, 0
        while not self._stop.is_set():
            try:
                is_one_late = self._worker.beat(self.faults())
                steady += 1
                if is_one_late and steady > STEADY:
                    self._worker.bury()
                if complained:
                    complained = False
                    log.warning("the state database can be told again that this process works")
            except OperationalError as error:
                steady = 0
                if not complained:
                    complained = True
                    log.error("the state database can't be told that this process works: %s", error.orig)
            except Fenced as error:
                log.error("%s", error)
                self._fenced()
                return
            self._stop.wait(self._worker.lease_s / RENEWALS)
