"""The chores that forget: what is too old, and what was erased elsewhere.

Each kind's pieces go one after the other, each in a transaction of its own, so that others can write. What was
forgotten is said in `satomori_removed_total`, and in the rows of `removals` that `satomori-gateway keep report` reads.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection, Delete, Select, Update, func, literal, select, true

from gateway.clock import may_forget
from gateway.keeping import late, ledger, pictures
from gateway.keeping.config import KeepConfig
from gateway.keeping.erase import redo
from gateway.keeping.kinds import KINDS, Kind
from gateway.keeping.places import AT_ONCE, MOST_PIECES, Events, Piece, parts
from gateway.state import State
from gateway.state.tables import erasures, media
from gateway.store import SqliteStore
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

MISSING = "pictures_missing"
"""The gateway's own part that says so."""


class Retention:
    """`run` is the chore."""

    def __init__(
        self,
        state: State,
        keep: KeepConfig,
        media_folder: Path | None = None,
        telemetry: Telemetry | None = None,
        own_s: Mapping[tuple[str, str], int] | None = None,
        condition: Callable[[str, str, str, Mapping[str, Any]], object] = lambda *_: None,
    ) -> None:
        """`media_folder` None: no pictures are kept here. `own_s`: how long those of a (node, device) are, if not by `keep`."""
        self._state, self._keep, self._folder, self._telemetry = state, keep, media_folder, telemetry
        self._own_s, self._condition = own_s or {}, condition
        self._missing = 0

    def run(self, now_us: int) -> dict[str, int]:
        """Forgets what is too old; how much of each kind. Nothing while the clock may have leapt (gateway.clock)."""
        if not may_forget(self._state, now_us):
            return {}
        removed = {}
        for kind in KINDS:
            if kind.setting is not None and (number := self._kind(kind, now_us)):
                removed[kind.name] = number
        if self._folder is not None:
            self._swept(pictures.sweep(self._state, self._folder, now_us), self._folder)
        if removed:
            self._state.empty_log()
        return removed

    def _kind(self, kind: Kind, now_us: int) -> int:
        before_us = now_us - getattr(self._keep, str(kind.setting)) * 1_000_000
        done = 0
        for piece in kind.pieces:
            if isinstance(piece, Events):
                done += self._events(kind.name, piece, before_us, now_us)
            else:
                done += self._again(kind.name, now_us, partial(_done, piece, before_us, now_us))
        if kind.files is not None and self._folder is not None:
            done += self._again(kind.name, now_us, partial(_files, kind.files, before_us, self._own(now_us)))
        return done

    def _own(self, now_us: int) -> pictures.Own:
        return {device: now_us - seconds * 1_000_000 for device, seconds in self._own_s.items()}

    def _swept(self, swept: pictures.Swept, folder: Path) -> None:
        """Says what a sweep found. A missing file is never made up for by deleting its row: a backup may have it."""
        if self._telemetry is not None:
            self._telemetry.removed.labels("orphans").inc(swept.files)
            self._telemetry.pictures_missing.set(swept.missing)
            with self._state.read() as connection:
                self._telemetry.pictures_bytes.set(connection.scalar(select(func.coalesce(func.sum(media.c.size), 0))) or 0)
        if swept.missing:
            self._condition(MISSING, "firing", "pictures on record have no file", {"n": swept.missing})
        else:
            self._condition(MISSING, "ok", "every picture on record has its file", {})
        if swept.missing and not self._missing:
            log.error("%d pictures on record have no file in %s: is its disk mounted? Restore them from a backup.",
                      swept.missing, folder)  # fmt: skip
        elif self._missing and not swept.missing:
            log.warning("every picture on record has its file in %s again", folder)
        self._missing = swept.missing

    def _events(self, kind: str, piece: Events, before_us: int, now_us: int) -> int:
        with self._state.read() as connection:
            ids = piece.found(connection, before_us)
        return sum(self._once(kind, now_us, partial(piece.forget, ids=part)) for part in parts(ids))

    def _again(self, kind: str, now_us: int, piece: Callable[[Connection], int | list[str]]) -> int:
        done = 0
        for _ in range(MOST_PIECES):
            number = self._once(kind, now_us, piece)
            done += number
            if number < AT_ONCE:
                break
        return done

    def _once(self, kind: str, now_us: int, piece: Callable[[Connection], int | list[str]]) -> int:
        if not _has_work(self._state, piece):
            return 0
        with self._state.write() as connection:
            found = piece(connection)
            number = len(found) if isinstance(found, list) else found
            late.count(connection, kind, number, now_us)
        if isinstance(found, list) and self._folder is not None:
            # After the rows: a file without a row is swept some day, a row without its file would be asked for.
            pictures.remove(self._state, self._folder, found)
        if self._telemetry is not None and number:
            self._telemetry.removed.labels(kind).inc(number)
        return number


class _WouldWriteError(Exception):
    """A piece has something to do."""


class _Looking:
    """In the place of a piece's connection: answers what it asks, and does nothing of what it wants done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.scalar, self.scalars = connection.scalar, connection.scalars  # pieces ask by these, and write by `execute` only

    def execute(self, statement: Any, *more: Any) -> Any:
        """A question's answer; of a change that it would change no row. _WouldWriteError where it would, or who knows."""
        if isinstance(statement, Select):
            return self._connection.execute(statement, *more)
        if not isinstance(statement, Delete | Update) or more:
            raise _WouldWriteError
        concerned = true() if statement.whereclause is None else statement.whereclause
        if self._connection.scalar(select(literal(1)).select_from(statement.table).where(concerned).limit(1)) is not None:
            raise _WouldWriteError
        return SimpleNamespace(rowcount=0)


def _has_work(state: State, piece: Callable[[Connection], object]) -> bool:
    """Looked at by reading: mostly there is nothing to forget, and who waits to write does not wait for that."""
    with state.read() as connection:
        try:
            piece(cast(Connection, _Looking(connection)))
        except _WouldWriteError:
            return True
    return False


def _done(piece: Piece, before_us: int, now_us: int, connection: Connection) -> int:
    return piece(connection, before_us, now_us)


def _files(
    piece: Callable[[Connection, int, pictures.Own], list[str]], before_us: int, own: pictures.Own, connection: Connection
) -> list[str]:
    return piece(connection, before_us, own)


class Readings:
    """`run` is the chore: the embedded series store looks after its hours, days and space, and what it forgot is said here."""

    def __init__(self, store: SqliteStore, state: State, telemetry: Telemetry) -> None:
        self._store, self._state, self._telemetry = store, state, telemetry

    def run(self, now_us: int) -> None:
        """See `SqliteStore.tend`. Not while the clock may have leapt."""
        if not may_forget(self._state, now_us):
            return
        for kind, number in self._store.tend(now_us).items():
            with self._state.write() as connection:
                late.count(connection, kind, number, now_us)
            self._telemetry.removed.labels(kind).inc(number)


class Erasures:
    """`run` is the chore: what another process erased is no longer known here either, and its bytes leave SQLite's log."""

    def __init__(self, state: State, learn: Callable[[Connection], Any]) -> None:
        """`learn(connection)` reads anew what is held in memory of people."""
        self._state, self._learn = state, learn
        self._known: int | None = None
        self._to_empty = True

    def run(self, _now_us: int = 0) -> None:
        """Looks whether something was erased since the last look. A reader may keep the log for a while: then again."""
        with self._state.read() as connection:
            known = connection.scalar(select(func.count()).select_from(erasures)) or 0
            if known != self._known:
                self._learn(connection)
                self._to_empty, self._known = True, known
        if self._to_empty:
            self._to_empty = not self._state.empty_log()


def replay(state: State, now_us: int) -> int:
    """Erases again what an older database, put back, has brought back; how many erasures were done. Before anything else runs."""
    done = 0
    with state.write() as connection:
        lines = ledger.missing(connection)
    for line in lines:
        with state.write() as connection:
            redo(connection, line, now_us)
            ledger.mark(connection, line, now_us)
        done += 1
    if done:
        state.empty_log()
    return done
