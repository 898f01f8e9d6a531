"""The outbox: SQLite, where every record is durable before anybody is told, and stays until the gateway has it.

Only this file knows the tables. `put` commits (synchronous=FULL) and hands out the seq; `ack` is the only way out besides
a declared loss. Full, it drops the oldest of the least class first, never an alarm, and remembers what it dropped. One process
has it open at a time: the lock beside the file goes with its holder, however that ends.
"""

import fcntl
import hashlib
import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from edge.contract.events import MAX_SEQ, RecordClass
from edge.contract.messages import parse_event, reading_fault
from edge.contract.names import is_hex16
from edge.errors import OutboxError
from edge.records import Happened, Record

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    seq INTEGER PRIMARY KEY, rank INTEGER NOT NULL, boot TEXT NOT NULL, clock TEXT NOT NULL,
    utc_us INTEGER NOT NULL, mono_us INTEGER NOT NULL, body TEXT NOT NULL);
-- Readings, the many, do not pay for this index.
CREATE INDEX events_by_rank ON records (rank, seq) WHERE rank < 3;
CREATE TABLE lost (low INTEGER PRIMARY KEY, high INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX lost_by_high ON lost (high);
CREATE TABLE quarantine (
    seq INTEGER NOT NULL, epoch TEXT NOT NULL, reason TEXT NOT NULL, utc_us INTEGER NOT NULL, body TEXT NOT NULL);
"""
QUARANTINE_ROWS = 10_000
MAX_BYTES = 1 << 30
"""1 GiB: ten times what 30 days of a busy node need, an eighth of a small card."""
LEAST_BYTES = 32 * 1024 * 1024
"""With less than this left on the disk it is about to stop."""
APART_MS = 20
"""Readings of one series are at least so far apart. The gateway may re-time the later of two by a clock that was set meanwhile,
by some milliseconds where it was right before; and of one millisecond it keeps one reading."""


_PAGE_BYTES = 1024  # a commit writes whole pages, some four of them: small ones halve what a card has to take
_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CLOCKS = ("sync", "holdover", "unsync")


class Row(NamedTuple):
    """One stored record. `body` is JSON without seq and dt: `"trap-1","rssi",-70` of a reading, `{...}` of an event."""

    seq: int
    rank: int
    boot: str
    clock: str
    utc_us: int
    mono_us: int
    body: str


_COLUMNS = ", ".join(Row._fields)


class _Last(NamedTuple):
    """Of a series: the latest that its clock said since it was set, and the millisecond that the last reading was given."""

    latest_us: int
    ms: int


class Outbox:
    """One open outbox, for one thread. `epoch` changes when this is not the outbox that the gateway knew."""

    def __init__(self, path: Path, *, machine: str, boot: str, max_records: int = 3_000_000, max_bytes: int = MAX_BYTES) -> None:
        """`machine` is any text that another machine would not have; `boot` this boot's 16 hex digits.

        It is full at `max_records`, or when the file's used part has `max_bytes`, whatever comes first; alarms go beyond both.
        OutboxError when the file can't be opened, or another process has it. A damaged file is set aside, never deleted, a new
        epoch begun, and what can still be read of it taken over.
        """
        self.boot = boot
        self._max_records, self._max_bytes = max_records, max_bytes
        self._only_alarms = False
        """Nothing was left to drop, and nothing came since that could be."""
        self._lock: int | None = None
        self._suspect = None if str(path) == ":memory:" else path.with_name(f"{path.name}.suspect")
        """There when the file failed in use, though it looked whole when it was opened."""
        self._last: dict[tuple[str, str], _Last] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = None
            if str(path) != ":memory:":
                self._lock = _lock(path)
            try:
                if self._suspect is not None and self._suspect.exists():
                    raise sqlite3.DatabaseError("it failed when it was used last")
                self._db = _open(path)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if isinstance(error, sqlite3.OperationalError):  # not the file's fault
                    raise
                aside = _set_aside(path)
                if self._suspect is not None:
                    self._suspect.unlink(missing_ok=True)
                log.error("outbox %s is damaged (%s); kept as %s, beginning anew", path, error, aside.name)
                self._db = _open(path)
            self._bind(hashlib.sha256(machine.encode()).hexdigest())
            if aside is not None:
                self._rescue(aside)
        except OutboxError as error:
            self._unlock()
            raise OutboxError(f"outbox {path}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            self._doubt(error)
            self._unlock()
            raise OutboxError(
                f"outbox {path} can't be opened: {error}. Is the disk full or read-only, and may this user write there?"
            ) from error

    def _bind(self, machine: str) -> None:
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.next_seq: int = meta.get("next_seq", 1)
        self.first_seq: int = meta.get("first_seq", 1)
        if not type(self.next_seq) is type(self.first_seq) is int:
            raise sqlite3.DatabaseError("its own numbers are damaged")
        if meta.get("machine") == machine and is_hex16(meta.get("epoch")):
            self.epoch: str = meta["epoch"]
        else:
            if "machine" in meta:
                log.warning("outbox was made on another machine; beginning a new epoch")
            self.renew_epoch(machine)
        (self.waiting,) = self._db.execute("SELECT count(*) FROM records").fetchone()

    def renew_epoch(self, machine: str | None = None) -> None:
        """Begins a new epoch: what waits keeps its seq and is sent under the new name, older seqs are not missed."""
        epoch = secrets.token_hex(8)
        with self._transaction():
            (oldest,) = self._db.execute("SELECT min(seq) FROM records").fetchone()
            first_seq = oldest or self.next_seq
            # To the new epoch these numbers never were: saying them lost would say the same of the acked ones between.
            for low, high, reason in self._db.execute(
                "DELETE FROM lost WHERE high < ? RETURNING low, high, reason", (first_seq,)
            ):
                log.error("records %d to %d were lost (%s) and the gateway was never told", low, high, reason)
            self._save("epoch", epoch)
            self._save("first_seq", first_seq)
            self._save("next_seq", self.next_seq)
            if machine is not None:
                self._save("machine", machine)
        self.epoch, self.first_seq = epoch, first_seq

    def _save(self, key: str, value: str | int) -> None:
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """`with` this: commits at the end, or rolls back all of it and raises OutboxError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                yield
        except sqlite3.Error as error:
            self._doubt(error)
            raise OutboxError(f"outbox can't be written: {error}. Is the disk full?") from error

    def _doubt(self, error: Exception) -> None:
        """Has the next start set the file aside, where what fails is the file's fault: as it is it would fail for ever."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        # Our own words are right, so an error in them (1) is a damaged schema.
        if self._suspect is None or not isinstance(error, sqlite3.Error) or code & 0xFF not in _DAMAGE:
            return
        try:
            self._suspect.touch()
        except OSError as failed:
            log.error("%s can't be written: %s", self._suspect, failed)

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._doubt(error)
            raise OutboxError(f"outbox can't be read: {error}. Is the disk failing?") from error

    def put(self, records: Sequence[Record], clock: str) -> None:
        """Makes the records durable, in order, each with the next seq. `clock` is sync, holdover or unsync.

        Two readings of one series are never in the same millisecond: the series store could keep only one of them.
        OutboxError when they can't be written; then none of them is.
        """
        seq = self.next_seq
        rows = []
        last: dict[tuple[str, str], _Last] = {}
        for record in records:
            utc_us, mono_us = record.at
            if isinstance(record, Happened):
                body = record.event.model_dump_json(by_alias=True, exclude={"seq", "dt"})
            else:
                series = (record.device, record.metric)
                before = last.get(series) or self._last.get(series)
                latest_us = utc_us
                # Back by a second or more, at once or bit by bit, the clock was set: believe it.
                if before and utc_us > before.latest_us - 1_000_000:
                    latest_us = max(utc_us, before.latest_us)
                    later_us = max((before.ms + APART_MS) * 1000 - utc_us, 0)
                    utc_us, mono_us = utc_us + later_us, mono_us + later_us
                last[series] = _Last(latest_us, utc_us // 1000)
                body = f"{json.dumps(record.device)},{json.dumps(record.metric)},{json.dumps(record.value, allow_nan=False)}"
            rows.append((seq, int(record.rank), self.boot, clock, utc_us, mono_us, body))
            seq += 1
        self._only_alarms = self._only_alarms and all(record.rank is RecordClass.ALARM for record in records)
        try:
            dropped = self._insert(rows, seq)
        except OutboxError as error:
            if not _is_full(error.__cause__):
                raise
            self._only_alarms = False  # what was dropped was taken back
            # Something else has filled the disk: what is worth least makes room within the file, if that is enough.
            log.error("the disk is full: dropping the least important records")
            dropped = self._insert(rows, seq, drop=max(4 * len(rows), self.waiting // 20))
        self.next_seq = seq
        self.waiting += len(rows) - dropped
        self._last |= last

    def _insert(self, rows: Sequence[tuple[object, ...]], next_seq: int, drop: int = 0) -> int:
        """One transaction: the rows, the next number, and what had to go for them; returns how many that were."""
        if drop:
            self._read("PRAGMA wal_checkpoint(RESTART)")  # the write-ahead log begins anew in the room that it has
        with self._transaction():
            dropped = self._drop(drop, "disk full") if drop else 0
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._save("next_seq", next_seq)
            # Some more than needed, so that a full outbox does not do this at every put.
            kept = self.waiting + len(rows) - dropped
            if kept > self._max_records:
                dropped += self._drop(kept - self._max_records + self._max_records // 100, "outbox full")
            elif self._used_bytes() > self._max_bytes:
                dropped += self._drop(kept // 100 + len(rows), "outbox full")
        return dropped

    def _used_bytes(self) -> int:
        """Of the file, without the pages that are free again."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _drop(self, excess: int, reason: str) -> int:
        """Drops so many records if there are, least class and oldest first, and declares them lost. Alarms stay."""
        dropped: list[int] = []
        for rank in () if self._only_alarms else (RecordClass.READING, RecordClass.SIGHTING, RecordClass.EVIDENCE):
            found = self._db.execute(
                "SELECT seq FROM records WHERE rank = ? ORDER BY seq LIMIT ?", (int(rank), excess - len(dropped))
            )
            dropped += (seq for (seq,) in found)
            if len(dropped) >= excess:
                break
        self._only_alarms = len(dropped) < excess
        self._db.executemany("DELETE FROM records WHERE seq = ?", ((seq,) for seq in dropped))
        for low, high in _runs(sorted(dropped)):
            self._lose(low, high, reason)
        return len(dropped)

    def _lose(self, low: int, high: int, reason: str) -> None:
        before = self._db.execute("SELECT low FROM lost WHERE high = ? AND reason = ?", (low - 1, reason)).fetchone()
        if before:
            self._db.execute("UPDATE lost SET high = ? WHERE low = ?", (high, before[0]))
        else:
            self._db.execute(
                "INSERT INTO lost VALUES (?, ?, ?) ON CONFLICT (low) DO UPDATE SET high = max(high, excluded.high)",
                (low, high, reason),
            )

    @property
    def oldest_seq(self) -> int:
        """The oldest seq still here, or the next one."""
        ((oldest,),) = self._read("SELECT min(seq) FROM records")
        return oldest or self.next_seq

    def events(self, low: int, high: int, skip: set[int], limit: int) -> list[Row]:
        """Events with low <= seq < high that are not in `skip`, the dearest class first, then by seq."""
        # `rank < 3` is for the index, the list of ranks so that seq is sought in it too, not read from the first.
        rows = self._read(
            f"SELECT {_COLUMNS} FROM records WHERE rank < 3 AND rank IN (0, 1, 2) AND seq >= ? AND seq < ?"  # noqa: S608
            " ORDER BY rank, seq LIMIT ?",
            low,
            high,
            limit + len(skip),
        )
        return self._usable(row for row in rows if row[0] not in skip)[:limit]

    def readings(self, low: int, high: int, limit: int) -> list[Row]:
        """Readings with low <= seq < high, by seq."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM records WHERE rank = 3 AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?",  # noqa: S608
            low,
            high,
            limit,
        )
        return self._usable(rows)

    def rows(self, seqs: Iterable[int]) -> list[Row]:
        """Those of `seqs` that are still here, in the order given."""
        query = f"SELECT {_COLUMNS} FROM records WHERE seq = ?"  # noqa: S608 - constant columns
        return self._usable(row for seq in seqs for row in self._read(query, seq))

    def _usable(self, rows: Iterable[tuple[Any, ...]]) -> list[Row]:
        """The rows without those that a failing card has changed beyond use: these are declared lost, once, and not looked at
        for ever. What is wrong inside a body is for the gateway to refuse."""
        found, damaged = [], []
        for row in rows:
            _, rank, boot, clock, utc_us, mono_us, body = row
            if type(utc_us) is type(mono_us) is type(rank) is int and is_hex16(boot) and clock in _CLOCKS and type(body) is str:
                found.append(Row(*row))
            else:
                damaged.append(row[0])
        if damaged:
            log.error("%d records are damaged on the disk; given up. Is the card failing?", len(damaged))
            with self._transaction():
                for seq in damaged:
                    self._db.execute("DELETE FROM records WHERE seq = ?", (seq,))
                    self._lose(seq, seq, "damaged on the disk")
            self.waiting -= len(damaged)
        return found

    def lost(self, limit: int) -> list[tuple[int, int, str]]:
        """Ranges this outbox had to give up and the gateway does not know of yet."""
        return self._read("SELECT low, high, reason FROM lost ORDER BY low LIMIT ?", limit)

    def ack(self, upto: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Forgets 1..upto and the ranges: the gateway has them durably.

        The one thing that need not be on the disk at once: a record that comes back after a power cut is sent again, and known.
        It goes there with the next record, which halves what a card has to take.
        """
        deleted = 0
        self._read("PRAGMA synchronous=NORMAL")
        try:
            with self._transaction():
                for low, high in ((1, upto), *ranges):
                    deleted += self._db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (low, high)).rowcount
                    self._db.execute("DELETE FROM lost WHERE low >= ? AND high <= ?", (low, high))
        finally:
            self._read("PRAGMA synchronous=FULL")
        self.waiting -= deleted

    def reject(self, rejected: Iterable[tuple[int, str]]) -> None:
        """Moves records that the gateway refuses for good into this edge's quarantine, with the reason."""
        moved = 0
        with self._transaction():
            for seq, reason in rejected:
                copied = self._db.execute(
                    "INSERT INTO quarantine SELECT seq, ?, ?, utc_us, body FROM records WHERE seq = ?",
                    (self.epoch, reason, seq),
                ).rowcount
                if copied:
                    self._db.execute("DELETE FROM records WHERE seq = ?", (seq,))
                    moved += copied
                    log.warning("the gateway refused record %d: %s; kept in quarantine", seq, reason)
            self._db.execute("DELETE FROM quarantine WHERE rowid <= (SELECT max(rowid) FROM quarantine) - ?", (QUARANTINE_ROWS,))
        self.waiting -= moved

    def quarantined(self) -> list[tuple[int, str, str]]:
        """(seq, reason, body) of refused records, oldest first."""
        return self._read("SELECT seq, reason, body FROM quarantine ORDER BY rowid")

    def declare_missing(self, ranges: Iterable[tuple[int, int]]) -> None:
        """The gateway never saw these and they are not here: they are lost, and said so. What is here is left alone."""
        oldest = self.oldest_seq
        with self._transaction():
            for low, high in ranges:
                if low < oldest:
                    self._lose(low, min(high, oldest - 1), "not in the outbox any more")

    def _rescue(self, aside: Path) -> None:
        """Takes over what can be read of a damaged file, from both ends to the damage, under the numbers that it had.

        What the gateway has already, without having been able to say so, comes to it a second time.
        """
        piece: list[tuple[Any, ...]] = []
        with closing(sqlite3.connect(f"file:{quote(str(aside))}?mode=ro", uri=True)) as damaged:
            damaged.text_factory = _text
            for order in ("ASC", "DESC"):
                try:
                    for row in damaged.execute(f"SELECT {_COLUMNS} FROM records ORDER BY seq {order}"):  # noqa: S608 - constants
                        piece.append(row)
                        if len(piece) == 1000:  # a month's records are more than a Pi's memory
                            self._take_over(piece)
                    break
                except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter out of a damaged schema
                    log.warning("%s can't be read further: %s", aside.name, error)
                finally:
                    self._take_over(piece)
        count, low, high = self._read("SELECT count(*), min(seq), max(seq) FROM records")[0]
        if count:
            with self._transaction():
                self._save("first_seq", low)
                self._save("next_seq", high + 1)
            self.waiting, self.first_seq, self.next_seq = count, low, high + 1
        log.error("%d records of %s are saved, and sent under the new epoch", count, aside.name)

    def _take_over(self, piece: list[tuple[Any, ...]]) -> None:
        with self._transaction():
            rows = [row for row in piece if _is_sound(row)]
            self._db.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        piece.clear()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _open(path: Path) -> sqlite3.Connection:
    if str(path) != ":memory:" and not path.exists():
        path.touch(0o600)  # its owner's alone; SQLite gives its log the same mode
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = _text  # a byte that a card has lost must not make the outbox unreadable
    try:
        db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise OutboxError(f"it was written by another version of satomori (schema {version}, here {SCHEMA_VERSION})")
        (fault,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise sqlite3.DatabaseError(fault)
    except BaseException:
        db.close()
        raise
    return db


def _lock(path: Path) -> int:
    """The descriptor that holds the lock, until it is closed. On a file of its own: closing any descriptor of the database's
    file would take SQLite's own locks away. OutboxError when another process holds it."""
    number = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise OutboxError(
            "another satomori-edge is using it. Stop that one first (systemctl stop satomori-edge), or give this one another "
            "node.state"
        ) from None
    return number


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL


def _is_sound(row: tuple[Any, ...]) -> bool:
    """Whether a row of a damaged file is a record as it was put: its own parts agree, and the gateway would take it."""
    seq, rank, boot, clock, utc_us, mono_us, body = row
    if not all(type(number) is int and 0 <= number <= MAX_SEQ for number in (seq, rank, utc_us, mono_us)) or seq < 1:
        return False
    if not all(type(text) is str for text in (boot, clock, body)):
        return False
    if not is_hex16(boot) or clock not in _CLOCKS:
        return False
    try:
        if body.startswith("{"):
            event = parse_event({**json.loads(body), "seq": seq, "dt": 0})
            return bool(event.rank == rank)
        return rank == RecordClass.READING and reading_fault(0, *json.loads(f"[{body}]")) is None
    except (ValueError, TypeError, RecursionError):
        return False


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _runs(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted numbers as closed ranges."""
    runs: list[list[int]] = []
    for seq in seqs:
        if runs and seq == runs[-1][1] + 1:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
    return [(low, high) for low, high in runs]
