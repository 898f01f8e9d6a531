"""The outbox: SQLite, where every record is durable before anybody is told, and stays until the gateway has it.

Only this file knows the tables. `put` commits (synchronous=FULL) and hands out the seq; `ack` is the only way out besides
a declared loss. Full, it drops the oldest of the least class first, never an alarm, and remembers what it dropped.
"""

import hashlib
import json
import logging
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edge.contract.events import RecordClass
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
APART_MS = 2
"""Readings of one series are at least so far apart. The gateway may re-time batches by the monotonic clock, which moves against
UTC: two neighbours by less than a millisecond, so that one of distance would not be enough."""


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
    """The last reading of a series: when it was, and the millisecond that it was given."""

    said_us: int
    ms: int


class Outbox:
    """One open outbox, for one thread. `epoch` changes when this is not the outbox that the gateway knew."""

    def __init__(self, path: Path, *, machine: str, boot: str, max_records: int = 3_000_000) -> None:
        """`machine` is any text that another machine would not have; `boot` this boot's 16 hex digits.

        OutboxError when the file can't be opened. A damaged file is set aside, never deleted, and a new epoch begun.
        """
        self.boot = boot
        self._max_records = max_records
        self._last: dict[tuple[str, str], _Last] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = _open(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # not the file's fault
                    raise
                aside = _set_aside(path)
                log.error("outbox %s is damaged (%s); kept as %s, beginning anew", path, error, aside.name)
                self._db = _open(path)
            self._bind(hashlib.sha256(machine.encode()).hexdigest())
        except OutboxError as error:
            raise OutboxError(f"outbox {path}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            raise OutboxError(
                f"outbox {path} can't be opened: {error}. Is the disk full or read-only, and may this user write there?"
            ) from error

    def _bind(self, machine: str) -> None:
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.next_seq: int = meta.get("next_seq", 1)
        self.first_seq: int = meta.get("first_seq", 1)
        if meta.get("machine") == machine:
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
            raise OutboxError(f"outbox can't be written: {error}. Is the disk full?") from error

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
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
                said_us = utc_us
                # Back by a second or more, the clock was set: believe it.
                if before and said_us > before.said_us - 1_000_000 and utc_us // 1000 < before.ms + APART_MS:
                    later_us = (before.ms + APART_MS) * 1000 - utc_us
                    utc_us, mono_us = utc_us + later_us, mono_us + later_us
                last[series] = _Last(said_us, utc_us // 1000)
                body = f"{json.dumps(record.device)},{json.dumps(record.metric)},{json.dumps(record.value, allow_nan=False)}"
            rows.append((seq, int(record.rank), self.boot, clock, utc_us, mono_us, body))
            seq += 1
        with self._transaction():
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._save("next_seq", seq)
            dropped = self._make_room(self.waiting + len(rows) - self._max_records)
        self.next_seq = seq
        self.waiting += len(rows) - dropped
        self._last |= last

    def _make_room(self, excess: int) -> int:
        """Drops at least `excess` records, least class and oldest first, and declares them lost. Alarms stay."""
        if excess <= 0:
            return 0
        excess += self._max_records // 100  # so that a full outbox does not do this at every put
        dropped: list[int] = []
        for rank in (RecordClass.READING, RecordClass.SIGHTING, RecordClass.EVIDENCE):
            found = self._db.execute(
                "SELECT seq FROM records WHERE rank = ? ORDER BY seq LIMIT ?", (int(rank), excess - len(dropped))
            )
            dropped += (seq for (seq,) in found)
            if len(dropped) >= excess:
                break
        self._db.executemany("DELETE FROM records WHERE seq = ?", ((seq,) for seq in dropped))
        for low, high in _runs(sorted(dropped)):
            self._lose(low, high, "outbox full")
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
        return [Row(*row) for row in rows if row[0] not in skip][:limit]

    def readings(self, low: int, high: int, limit: int) -> list[Row]:
        """Readings with low <= seq < high, by seq."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM records WHERE rank = 3 AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?",  # noqa: S608
            low,
            high,
            limit,
        )
        return [Row(*row) for row in rows]

    def rows(self, seqs: Iterable[int]) -> list[Row]:
        """Those of `seqs` that are still here, in the order given."""
        query = f"SELECT {_COLUMNS} FROM records WHERE seq = ?"  # noqa: S608 - constant columns
        return [Row(*row) for seq in seqs for row in self._read(query, seq)]

    def lost(self, limit: int) -> list[tuple[int, int, str]]:
        """Ranges this outbox had to give up and the gateway does not know of yet."""
        return self._read("SELECT low, high, reason FROM lost ORDER BY low LIMIT ?", limit)

    def ack(self, upto: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Forgets 1..upto and the ranges: the gateway has them durably."""
        deleted = 0
        with self._transaction():
            for low, high in ((1, upto), *ranges):
                deleted += self._db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (low, high)).rowcount
                self._db.execute("DELETE FROM lost WHERE low >= ? AND high <= ?", (low, high))
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

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
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
