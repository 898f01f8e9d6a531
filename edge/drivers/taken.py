"""What a camera's driver has taken in, over restarts: SQLite in the device's own folder. Only this file knows the tables.

It forgets no picture that still lies in the camera's folder, and of the others remembers the last KEPT. So it stays as small as
the folder plus about 20 MB, and a card that is put in again gives no second event.
"""

import json
import logging
import secrets
import sqlite3
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from edge.contract.events import MediaCaptured
from edge.errors import DeviceError

log = logging.getLogger(__name__)

KEPT = 100_000
"""Pictures that are known again by their SHA-256 after they left the folder. A busy camera takes that many in some years."""

RECENT = 100
"""Of so many the whole event is kept, so that a later picture of the same burst can correct it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, taken_s INTEGER, burst TEXT, own TEXT, event TEXT);
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_sha256 ON files (sha256);
"""


class Stamp(NamedTuple):
    """What tells that a file was not touched since it was looked at."""

    inode: int
    size: int
    mtime_ns: int


class Recent(NamedTuple):
    """A picture taken in lately: what its event said, when the camera says it was taken, and what the model made of it alone."""

    event: MediaCaptured
    taken_s: int | None
    own: str


class Taken:
    """One open memory, for one thread at a time. `count` and `withheld` are totals over the device's life."""

    def __init__(self, folder: Path) -> None:
        """Opens `taken.db` in this folder. DeviceError when that can't be; a damaged one is set aside, and begun anew."""
        self._path = folder / "taken.db"
        try:
            try:
                self._db = _open(self._path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # not the file's fault
                    raise
                aside = self._path.with_name(f"taken.db.damaged-{secrets.token_hex(4)}")
                for suffix in ("", "-wal", "-shm"):
                    part = self._path.with_name(self._path.name + suffix)
                    if part.exists():
                        part.rename(aside.with_name(aside.name + suffix))
                log.error(
                    "%s is damaged (%s); kept as %s. Pictures in the folder are told once more.", self._path, error, aside.name
                )
                self._db = _open(self._path)
            self._bring_over(folder / "taken")
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        self.count: int = meta.get("count", 0)
        self.withheld: int = meta.get("withheld", 0)
        self.samples: list[int] = json.loads(meta.get("samples", "[]"))

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __contains__(self, sha256: str) -> bool:
        with self._errors():
            return bool(self._db.execute("SELECT 1 FROM pictures WHERE sha256 = ?", (bytes.fromhex(sha256),)).fetchall())

    def has(self, name: str, stamp: Stamp) -> bool:
        """Whether this file was taken in: a restart then need not read a whole card again."""
        try:
            with self._errors():
                found = self._db.execute("SELECT size, mtime_ns FROM files WHERE name = ?", (name,)).fetchone()
        except UnicodeEncodeError:  # such a name is never taken in
            return False
        return bool(found == (stamp.size, stamp.mtime_ns))

    def recent(self) -> list[Recent]:
        """The last RECENT pictures, the newest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT event, taken_s, own FROM pictures WHERE event IS NOT NULL ORDER BY number DESC LIMIT ?", (RECENT,)
            ).fetchall()
        return [Recent(MediaCaptured.model_validate_json(event), taken_s, own) for event, taken_s, own in rows]

    def add(self, picture: Recent, samples: list[int]) -> None:
        """A picture whose event is committed. Durable when it returns; DeviceError when it can't be."""
        event = picture.event
        with self._transaction():
            self._db.execute(
                "INSERT INTO pictures (sha256, taken_s, burst, own, event) VALUES (?, ?, ?, ?, ?)",
                (bytes.fromhex(event.media), picture.taken_s, event.burst, picture.own, event.model_dump_json(by_alias=True)),
            )
            (number,) = self._db.execute("SELECT max(number) FROM pictures").fetchone()
            self._db.execute("UPDATE pictures SET event = NULL WHERE number = ?", (number - RECENT,))
            self._db.execute(
                "DELETE FROM pictures WHERE number IN (SELECT number FROM pictures WHERE number <= ?"
                " AND sha256 NOT IN (SELECT sha256 FROM files) ORDER BY number LIMIT 10)",
                (number - KEPT,),
            )
            self._set_meta(count=self.count + 1, withheld=self.withheld + event.withheld, samples=json.dumps(samples))
        self.count, self.withheld, self.samples = self.count + 1, self.withheld + event.withheld, samples

    def correct(self, event: MediaCaptured) -> None:
        """A picture of before whose event was told anew."""
        with self._transaction():
            self._db.execute(
                "UPDATE pictures SET event = ? WHERE sha256 = ?",
                (event.model_dump_json(by_alias=True), bytes.fromhex(event.media)),
            )
            self._set_meta(withheld=self.withheld + event.withheld)
        self.withheld += event.withheld

    def add_file(self, sha256: str, name: str, stamp: Stamp) -> None:
        """This file holds this picture, which was taken in."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (name, stamp.size, stamp.mtime_ns, bytes.fromhex(sha256))
            )

    def forget_files_but(self, here: Set[str]) -> None:
        """Forgets the names of files that are not in the folder any more; their pictures stay known."""
        with self._errors():
            gone = [row for row in self._db.execute("SELECT name FROM files") if row[0] not in here]
        if gone:
            with self._transaction():
                self._db.executemany("DELETE FROM files WHERE name = ?", gone)

    def _set_meta(self, **values: object) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _bring_over(self, path: Path) -> None:
        """Takes over the list of lines that earlier versions kept, [sha256, name, size, mtime in ns], and removes it."""
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        with self._transaction():
            for line in lines:
                try:
                    sha256, name, size, mtime_ns = json.loads(line)
                    digest = bytes.fromhex(sha256)
                    self._db.execute("INSERT OR IGNORE INTO pictures (sha256) VALUES (?)", (digest,))
                    self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (name, size, mtime_ns, digest))
                except (ValueError, TypeError, sqlite3.InterfaceError, sqlite3.ProgrammingError):  # torn by a crash
                    continue
            (count,) = self._db.execute("SELECT count(*) FROM pictures").fetchone()
            self._set_meta(count=count)
        path.unlink()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DeviceError:
        return DeviceError(f"{self._path}, which remembers the pictures taken in, can't be used: {error}")


def _open(path: Path) -> sqlite3.Connection:
    # Used by the driver and, while that waits, by the thread that reads the card: never by two at a time.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-512")
        db.executescript(_SCHEMA)
        with closing(db.execute("PRAGMA quick_check(1)")) as said:
            (fault,) = said.fetchone()
        if fault != "ok":
            raise sqlite3.DatabaseError(fault)
    except BaseException:
        db.close()
        raise
    return db
