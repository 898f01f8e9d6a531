"""One SQLite file: a consistent copy of it beside whoever writes it, and what a copy holds. It knows no table's meaning."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.errors import ConfigError

BUSY_S = 10.0


class Held(NamedTuple):
    """What a file holds."""

    application_id: int
    user_version: int
    revision: str | None
    """Which of our migrations it had come to; None: it goes by none."""
    rows: dict[str, int]
    """Of each table."""


def snapshot(source: Path, target: Path, setting: str) -> None:
    """Copies the database as it is at one moment, while others write on: SQLite's online backup. A new file, its owner's alone.

    One step, so that it is one moment and never begins anew; writers wait for nothing meanwhile, only their log grows.
    ConfigError that begins with `setting`; OSError where the target's disk is full.
    """
    if not source.exists():
        raise ConfigError(f"{setting}: there is no {source} yet, so there is nothing to back up. Has the gateway run?")
    target.touch(0o600, exist_ok=False)
    with (
        explained(source, setting),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as read_from,
        closing(sqlite3.connect(target)) as write_to,
    ):
        read_from.backup(write_to)
        write_to.execute("PRAGMA journal_mode = DELETE")  # one file, which can be read where nothing can be written


def held(path: Path, setting: str, of: Path | None = None) -> Held:
    """What a copy holds. ConfigError where it can't be read, which names what it is a copy `of`: that is what is damaged."""
    with explained(of or path, setting), _opened(path) as connection:
        ask = connection.execute
        tables = [row[0] for row in ask("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
        rows = {name: int(ask(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in sorted(tables)}  # noqa: S608
        revision = ask("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
        application, version = (ask(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        return Held(application, version, revision[0] if revision else None, rows)


def column(path: Path, query: str) -> list[str]:
    """What a copy answers."""
    with _opened(path) as connection:
        return [row[0] for row in connection.execute(query)]


def fault(path: Path) -> str | None:
    """What SQLite finds wrong with a copy when it reads all of it; None: nothing."""
    try:
        with _opened(path) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else str(found)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """For reading, also from a disk that can't be written; nobody else writes a copy."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        yield connection


@contextmanager
def explained(path: Path, setting: str) -> Iterator[None]:
    """SQLite's errors with the setting and the file."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise OSError(f"{setting}: the copy of {path} can't be written: the disk is full. Make room") from error
        raise ConfigError(f"{setting}: {path} can't be copied: {error}. May this user read it, and is it a database?") from error
