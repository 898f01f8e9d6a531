"""Time series in a SQLite file of their own: the embedded store. How the file is opened, locked, written, read and tended. What
was written of late and waits to be put in its place is in fresh.py, what is kept of readings by the hour and by the day in
rollups.py. All of the gateway's SQL on series is in these three.

The file is in WAL mode and synced at every commit of a `write` (synchronous=FULL), so one that has returned survives kill -9,
and loss of power as far as the disk keeps its word. It belongs on a local disk: WAL needs shared memory
(sqlite.org/wal.html).
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from gateway.errors import StoreDown, StoreRefused
from gateway.points import in_columns
from gateway.rules.duration import parse_duration
from gateway.store import fresh, rollups
from gateway.store.disk import RESERVE_MIB, Reserve
from gateway.store.numbers import Numbers
from gateway.store.series import Bucket, Key, Point, SeriesKey, check_finite

VERSION = 3
"""PRAGMA user_version of the schema below. 1 had no rollups; they are added when it is opened, empty, and filled by `tend`.
2 wrote each point in its place at once."""

APPLICATION_ID = int.from_bytes(b"smts", "big")
"""PRAGMA application_id: tells a series file from any other database, our state database included."""

CACHE_KIB = 16 * 1024
CHECKPOINT_PAGES = 4000
"""Of 4 KiB: the size to which the write-ahead log grows, while somebody folds; without, to the double."""

FOLD_ROWS, FOLD_MOST = 50_000, 200_000
"""So many points are worth putting in their places, and so many are put there together: some MiB of memory."""
FRESH_MOST = 1_000_000
"""Points that wait for that. Where nobody folds, who would write beyond it does: a reader has to look through them."""
FOLD_S = 2
"""Between two looks whether there are so many."""
ROWS_A_STEP = 14_000
"""Of one transaction of `fold`: some 10 ms."""

BUSY_S = 1.0
"""How long to wait for another program's lock before saying StoreDown: traps wait as long."""

KEEP_S = 3 * 365 * 86_400
LEAST_KEPT_S = 92 * 86_400
"""The report of a month, and the hours of open data, are reckoned from readings."""

STEPS_A_LOOK = 100
"""Transactions of one `tend`; each is some 10 ms, as those of `fold` are."""
BREATH_S = 0.005
"""Between two of them, so that who waits to write has the lock: a lock let go and taken again at once is nobody else's."""
PAGES_A_STEP = 200
FREE_PART = 20
"""One page in so many may be free: that much is filled again soon. What is free beyond it goes back to the disk."""

# STRICT, so that a time of 1.5 or a text value is refused and not quietly kept.
_SCHEMA = (
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, device TEXT NOT NULL, metric TEXT NOT NULL,
        UNIQUE (node, device, metric)
    ) STRICT""",
    """CREATE TABLE samples (
        series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (series, time_ms)
    ) STRICT, WITHOUT ROWID""",
    *rollups.SCHEMA,
    *fresh.SCHEMA,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_FROM_2 = (*fresh.SCHEMA, f"PRAGMA user_version = {VERSION}")
_FROM_1 = (*rollups.SCHEMA, *_FROM_2)
_ID = "(SELECT id FROM series WHERE node = ? AND device = ? AND metric = ?)"
_INCREMENTAL = 2  # as PRAGMA auto_vacuum says it

_ADVICE_DOWN = {
    sqlite3.SQLITE_FULL: "The disk is full: make room.",
    sqlite3.SQLITE_BUSY: "Another program holds it locked: find and stop it.",
    sqlite3.SQLITE_LOCKED: "Another program holds it locked: find and stop it.",
    sqlite3.SQLITE_CANTOPEN: "Does its folder exist, is its disk mounted, and may this user write there?",
    sqlite3.SQLITE_READONLY: "May this user write it, and is its disk mounted for writing?",
    sqlite3.SQLITE_IOERR: "The disk failed, or is full: look at the kernel's log and at `df`.",
}
_DAMAGED = "It is damaged, or no series store: move it away, with its -wal and -shm, and restore a backup."
_ADVICE_REFUSED = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,  # our statements are right: a table or column is not as we made it
    sqlite3.SQLITE_CONSTRAINT: "A point is not (series, whole ms, number).",
    sqlite3.SQLITE_MISMATCH: "A point is not (series, whole ms, number).",
}


class SqliteStoreConfig(BaseModel):
    """`type = "sqlite"`. Written and read; made at the first start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["sqlite"]
    path: Path = Field(description="The database's file; its folder must exist.")
    reserve_mib: int = Field(RESERVE_MIB, ge=0, description="Free space on its disk below which it takes no points.")
    keep: Annotated[int, BeforeValidator(parse_duration)] = Field(
        KEEP_S, ge=0, description="How long readings are kept, 92d at least; 0 for ever. Their hours and days stay."
    )

    @field_validator("keep")
    @classmethod
    def _reports_need_readings(cls, keep: int) -> int:
        if 0 < keep < LEAST_KEPT_S:
            raise ValueError(f"at least {LEAST_KEPT_S // 86_400}d, which the reports of a month are made from; or 0: for ever")
        return keep


class SqliteStore:
    """One connection writes, in turns with that of `fold` and `tend`; each read opens its own. Any thread may do any."""

    def __init__(self, config: SqliteStoreConfig) -> None:
        """Opens the file, making it when there is none. StoreDown, StoreRefused."""
        self._path = config.path.absolute()
        self._uri = self._path.as_uri()  # quotes what a name may have that means something in a URI: ? # %
        self._keep_ms = config.keep * 1000
        self.behind = True
        """Whether the last `tend` left something to do."""
        self._removed = 0  # since `tend` last said how many
        self._waiting = 0  # points to be put in their places, after the last write
        self._turn = Lock()  # SQLite's own has who waits look again up to 100 ms later
        self._kept = Lock()  # held by who folds or tends
        self._writer: sqlite3.Connection | None = None
        self._numbers = Numbers()
        self._inode = (0, 0)
        self.disk = Reserve(self._path.parent, config.reserve_mib)
        """The room it leaves to others."""
        with _explained(self._path, "opened"):
            self._open("rwc")

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:  # noqa: ARG002 - there is no server
        """See `SeriesWriter`. One transaction, which appends."""
        if not points:
            return
        columns = in_columns(points)
        check_finite(columns)
        if shortage := self.disk.shortage():
            raise StoreDown(shortage)
        if self._waiting > FRESH_MOST:  # before, so that a write that fails in this has written nothing
            with self._keeping() as keeper:
                self._fold(keeper, 1, FOLD_MOST)
        with self._turn, _explained(self._path, "written"):
            # Never "rwc" here: a file that is gone must not come back empty, on what may be a bare mount point.
            writer = self._writer or self._open("rw")
            numbers = self._numbers
            try:
                writer.execute("BEGIN IMMEDIATE")
                try:
                    flat = numbers.flat(columns)
                except KeyError:
                    numbers.add(_name_series(writer, [key for key in columns.keys if key not in numbers]))
                    flat = numbers.flat(columns)
                fresh.put(writer, flat)
                rollups.mark(writer, flat)
                self._waiting = fresh.count(writer)
                writer.execute("COMMIT")
                # A file removed or replaced under us takes commits that nobody will ever see again.
                if _inode(self._path) != self._inode:
                    raise StoreDown(
                        f"{self._path} was removed or replaced while in use: put it back, or restart to begin a new one"
                    )
            except BaseException:
                # Rolls back. The next write opens anew, which forgets ids that were rolled back too, and which a disk
                # that went away and came back needs.
                self._close()
                raise

    def fold(self, least: int = FOLD_ROWS) -> None:
        """Puts points in their places where at least so many wait for it. Readers find the same before, meanwhile and after.

        For a chore, a second or two apart. In steps, and others write between. StoreDown, StoreRefused; what a step did stays
        done.
        """
        if self.disk.shortage():  # nothing more comes until there is room again, and this would take of what is left
            return
        with self._keeping() as keeper:
            self._fold(keeper, least)

    def _fold(self, keeper: sqlite3.Connection, least: int, most: int | None = None) -> None:
        waiting = fresh.count(keeper)
        if waiting < least:
            return
        for _ in range(0, waiting if most is None else min(most, waiting), FOLD_MOST):  # what comes meanwhile is the next one's
            folds, last, rows = fresh.sort(keeper, FOLD_MOST)
            for after in range(0, rows, ROWS_A_STEP):
                with self._step(keeper):
                    if not fresh.move(keeper, folds, after, after + ROWS_A_STEP):
                        return
                folds += 1
                sleep(BREATH_S)
            with self._step(keeper):
                if not fresh.done(keeper, folds, last, rows):
                    return
            # Here nobody waits for it; within a COMMIT, whoever writes would.
            keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def tend(self, now_us: int) -> dict[str, int]:
        """Sums up hours and days that are over, forgets readings older than `keep`, gives space back: how many went, by kind.

        For a chore, some seconds apart: it goes on where it was, for a second or two at most, in steps, and others write between.
        StoreDown, StoreRefused; what a step did stays done.
        """
        self.behind = True
        now_ms = now_us // 1000
        with self._keeping() as keeper:
            if rollups.is_due(keeper, now_ms, self._keep_ms):
                for _ in range(2):  # what came during the first goes with the second; the few that are left, with the first step
                    self._fold(keeper, ROWS_A_STEP)
            for number in range(STEPS_A_LOOK):
                if number:
                    sleep(BREATH_S)
                with self._step(keeper):
                    removed = rollups.step(keeper, now_ms, self._keep_ms)
                    busy = removed is not None or _give_back(keeper)
                self._removed += removed or 0
                if not busy:
                    self.behind = False
                    break
            if number:
                keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # where nobody writes, nobody else does
        removed, self._removed = self._removed, 0
        return {"readings": removed} if removed else {}

    @contextmanager
    def _keeping(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for who tends the file; one at a time."""
        with self._kept, _explained(self._path, "tended"):
            keeper = sqlite3.connect(f"{self._uri}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None)
            with closing(keeper):
                # No transaction: what it was made as it stays, and a file put in its place was whole before.
                if _check_ours(keeper, self._path) != VERSION:
                    raise StoreDown(f"{self._path} was replaced by an older one while in use: restart the gateway")
                # What it commits is durable with the next write or checkpoint, never before what was committed earlier: after a
                # loss of power points may wait where they had waited, and are moved again. Nobody waits with the lock for a sync.
                keeper.execute("PRAGMA synchronous = NORMAL")
                keeper.execute("PRAGMA secure_delete = FAST")  # pages that points have left are not written once more, as zeros
                keeper.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                keeper.execute("PRAGMA wal_autocheckpoint = 0")
                keeper.execute("PRAGMA temp_store = MEMORY")
                yield keeper

    @contextmanager
    def _step(self, keeper: sqlite3.Connection) -> Iterator[None]:
        """One transaction of who tends, in turn with who writes."""
        with self._turn:
            keeper.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if keeper.in_transaction:  # where the disk fails or is full SQLite has rolled back itself
                    keeper.execute("ROLLBACK")
                raise
            keeper.execute("COMMIT")

    def close(self) -> None:
        """See `SeriesWriter`. A later write would open the file again."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def read(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, limit: int) -> list[tuple[int, float]]:
        """See `SeriesReader`."""
        if limit < 0:
            raise ValueError(f"limit is {limit}, must be 0 or more")
        found: list[tuple[int, float]] = []
        with self._reading() as reader:
            for number in _number(reader, (node, device, metric)):
                placed = reader.execute(
                    "SELECT time_ms, value FROM samples WHERE series = ? AND time_ms >= ? AND time_ms < ?"
                    " ORDER BY time_ms LIMIT ?",
                    (number, start_ms, end_ms, limit),
                ).fetchall()
                found = fresh.merged(placed, fresh.of(reader, number, start_ms, end_ms))
        return found[:limit]

    def read_bucketed(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, bucket_ms: int) -> list[Bucket]:
        """See `SeriesReader`."""
        if bucket_ms < 1:
            raise ValueError(f"bucket_ms is {bucket_ms}, must be 1 or more")
        with self._reading() as reader:
            found = [
                piece
                for number in _number(reader, (node, device, metric))
                for piece in rollups.bucketed(reader, number, start_ms, end_ms, bucket_ms)
            ]
        return [Bucket(*piece[:-1]) for piece in found]

    def latest(self, node: str, device: str, metric: str) -> tuple[int, float] | None:
        """See `SeriesReader`. Also of readings that are forgotten: their hour knows its last."""
        with self._reading() as reader:
            for number in _number(reader, (node, device, metric)):
                return rollups.latest(reader, number)
        return None

    def series(self) -> list[SeriesKey]:
        """See `SeriesReader`."""
        with self._reading() as reader:
            return [SeriesKey(*row) for row in reader.execute("SELECT node, device, metric FROM series ORDER BY 1, 2, 3")]

    def count(self) -> int:
        """See `SeriesReader`."""
        with self._reading() as reader:
            (count,) = reader.execute("SELECT count(*) FROM readings").fetchone()
        return int(count)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, to which the file stands still."""
        with (
            _explained(self._path, "read"),
            closing(sqlite3.connect(f"{self._uri}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)) as reader,
        ):
            reader.execute("BEGIN")
            yield reader

    def _open(self, mode: Literal["rwc", "rw"]) -> sqlite3.Connection:
        """Opens the one connection that writes and learns the ids of the series in the file. A new file is its owner's alone."""
        if mode == "rwc":
            with suppress(OSError):  # what stops this stops SQLite too, which says it below
                if not self._path.exists():
                    self._path.touch(0o600)
        writer = sqlite3.connect(
            # Opened by whoever starts the gateway, used by the thread that writes.
            f"{self._uri}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )  # fmt: skip
        try:
            _prepare(writer, self._path)
            self._numbers = Numbers()
            self._numbers.add(
                ((node, device, metric), number)
                for number, node, device, metric in writer.execute("SELECT id, node, device, metric FROM series ORDER BY id")
            )
            self._inode = _inode(self._path)
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        return writer


def _prepare(writer: sqlite3.Connection, path: Path) -> None:
    """Makes the schema in an empty file, or adds what an older one has not; changes nothing in one that is not ours."""
    writer.execute("BEGIN")  # another process may be making it: all of that or nothing
    _check_ours(writer, path)
    writer.execute("COMMIT")
    # Of an empty file only, and before anything else. In a file made without it space is used again, not given back.
    writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreRefused(f"{path} is on a file system where SQLite can't use WAL ({mode}): put it on a local disk")
    writer.execute("PRAGMA synchronous = FULL")
    # Who folds copies the log home as well, and for him nobody waits.
    writer.execute(f"PRAGMA wal_autocheckpoint = {2 * CHECKPOINT_PAGES}")
    writer.execute("BEGIN IMMEDIATE")
    version = _check_ours(writer, path)  # asked again under the lock: another process may have made it meanwhile
    for statement in {0: _SCHEMA, 1: _FROM_1, 2: _FROM_2}.get(version, ()):
        writer.execute(statement)
    writer.execute("COMMIT")


def _check_ours(writer: sqlite3.Connection, path: Path) -> int:
    """The version of a series file, 0 for an empty file, StoreRefused for anything else."""
    application, version, tables = (
        int(writer.execute(question).fetchone()[0])
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
    )
    if application == APPLICATION_ID and 1 <= version <= VERSION:
        return version
    if application == APPLICATION_ID and version > VERSION:
        raise StoreRefused(f"{path} is a series store of version {version}, this gateway knows {VERSION}: update the gateway")
    if tables or application or version:
        raise StoreRefused(f"{path} is a SQLite database, but no series store: give the store a file of its own")
    return 0


def _give_back(writer: sqlite3.Connection) -> bool:
    """Gives some free pages back to the disk; False where there are few, or where the file was made without that."""
    (free,), (pages,), (mode,) = (
        writer.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count", "auto_vacuum")
    )
    if mode != _INCREMENTAL or free * FREE_PART <= pages:
        return False
    # Fetched to the end: SQLite gives back one page for each row asked for.
    writer.execute(f"PRAGMA incremental_vacuum({PAGES_A_STEP})").fetchall()
    return True


def _number(reader: sqlite3.Connection, key: Key) -> list[int]:
    """The id of a series; none when it was never written."""
    return [number for (number,) in reader.execute(f"SELECT id FROM series WHERE id = {_ID}", key)]  # noqa: S608


def _name_series(writer: sqlite3.Connection, keys: list[Key]) -> list[tuple[Key, int]]:
    """Series not met before, each with its number, inside the transaction that writes their first points."""
    named = []
    for key in dict.fromkeys(keys):
        # Another process may have named it since this one opened the file: then its number counts.
        writer.execute(
            "INSERT INTO series (node, device, metric) VALUES (?, ?, ?) ON CONFLICT (node, device, metric) DO NOTHING",
            key,
        )
        (number,) = writer.execute(f"SELECT {_ID}", key).fetchone()
        named.append((key, number))
    return named


def _inode(path: Path) -> tuple[int, int]:
    """Which file the path names now; (0, 0) when it names none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the path of every write, and Path.stat costs twice as much
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


@contextmanager
def _explained(path: Path, done: str) -> Iterator[None]:
    """SQLite's errors as StoreDown or StoreRefused, with the file, SQLite's own words and what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # out of a damaged schema, instead of one of SQLite's own errors
        raise StoreRefused(f"{path} can't be {done}: {error}. {_DAMAGED}") from error
    except (OverflowError, ValueError) as error:  # a number beyond 64 bits, half a surrogate pair, a key of two names
        raise StoreRefused(f"{path} can't be {done}: {error}. A point is not (series, whole ms, number).") from error
    except (TypeError, ZeroDivisionError) as error:  # a row that is missing, or holds what no row of ours does
        raise StoreRefused(f"{path} can't be {done}: {error}. {_DAMAGED}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        what = f"{path} can't be {done}: {error}."
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):  # refused by the module, before SQLite
            raise StoreRefused(f"{what} A point is not (series, whole ms, number).") from error
        if code is None:  # the module could not decode a text it had read
            raise StoreRefused(f"{what} {_DAMAGED}") from error
        primary = code & 0xFF  # extended codes carry the primary in the low byte (sqlite.org/rescode.html)
        if primary in _ADVICE_REFUSED:
            raise StoreRefused(f"{what} {_ADVICE_REFUSED[primary]}") from error
        raise StoreDown(f"{what} {_ADVICE_DOWN.get(primary, 'It is tried again.')}") from error
