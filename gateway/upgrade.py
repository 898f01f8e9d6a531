"""`satomori-gateway upgrade --check`: what this version would do to the databases at its start, and whether it could.

Changes nothing. The start itself does it, in one transaction (gateway.state.database); the way back is a backup.
"""

import argparse
import re
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import create_engine, event

from gateway.backup import postgresql
from gateway.backup.backup import MIB, sqlite_path
from gateway.config import GatewayConfig, StateConfig
from gateway.errors import ConfigError
from gateway.state.database import MIGRATIONS
from gateway.store import SqliteStoreConfig
from gateway.store import sqlite as series
from gateway.terminal import Commands, Told, all_wrapped, leaf

if TYPE_CHECKING:
    from alembic.script import Script

OLDEST_SQLITE = (3, 37, 0)
"""It knows STRICT tables, which the series store is made of."""
OLDEST_POSTGRESQL = 130_000
"""As server_version_num says it."""

_TABLE = r"\s+\"?(?P<table>\w+)"
_DOES = {
    "makes": re.compile(rf"CREATE TABLE{_TABLE}"),
    "alters": re.compile(rf"ALTER TABLE{_TABLE}"),
    "corrects": re.compile(rf"(?:UPDATE|DELETE FROM){_TABLE}"),
}
_TMP = "_alembic_tmp_"
"""Alembic's name of a table's copy, where SQLite can't change the table in its place."""


class Migration(NamedTuple):
    """One step of the schema. Tables' names; rows that a step looks through one by one are not foretold."""

    revision: str
    name: str
    rewrites: list[str]
    """Copied whole: takes time and room."""
    makes: list[str]
    alters: list[str]
    corrects: list[str]


def add_commands(commands: Commands) -> None:
    """Adds `upgrade` to the program."""
    one = leaf(commands, "upgrade", "Say what this version would do to the databases at its start.", _upgrade)
    one.add_argument("--check", action="store_true", help="only say it; changes nothing")


def revisions() -> list[str]:
    """Every schema that this version knows, the oldest first."""
    return [script.revision for script in _scripts()]


def revision_of(state: StateConfig) -> str | None:
    """The schema of a database, which is left as it is; None: there is none yet. ConfigError where it can't be read."""
    file = sqlite_path(state.url)
    if file is None:
        return postgresql.revision(state)
    if not file.exists() or not file.stat().st_size:
        return None
    try:
        with closing(_reading(file)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise ConfigError(f"state.url: {file} can't be read: {error}. Is it a satomori database?") from error
    return row[0] if row else None


def pending(found: str | None) -> list[Migration]:
    """What would run on a SQLite database with this schema, as seen on an empty one. ConfigError for one of a newer version."""
    from alembic import command
    from alembic.config import Config

    scripts = _scripts()
    known = [script.revision for script in scripts]
    if found is not None and found not in known:
        raise ConfigError(
            f"state.url: the database was written by a newer satomori (schema {found}; this one knows {known[-1]}). "
            "Install that version again, or restore a backup made by this one."
        )
    to_run = scripts[known.index(found) + 1 :] if found is not None else scripts
    engine = create_engine("sqlite://")
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    migrations = []
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            if found is not None:
                command.upgrade(config, found)
            for script in to_run:
                statements.clear()
                command.upgrade(config, script.revision)
                migrations.append(_migration(script, statements))
    finally:
        engine.dispose()
    return migrations


def _migration(script: "Script", statements: Sequence[str]) -> Migration:
    found: dict[str, list[str]] = {}
    for what, pattern in _DOES.items():
        names = dict.fromkeys(hit["table"] for statement in statements if (hit := pattern.match(statement.strip())))
        found[what] = [name for name in names if name != "alembic_version"]
    rewrites = [name.removeprefix(_TMP) for name in found["makes"] if name.startswith(_TMP)]
    kept = {what: [name for name in names if not name.startswith(_TMP)] for what, names in found.items()}
    return Migration(script.revision, script.doc or "", rewrites, **kept)


def _scripts() -> "list[Script]":
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return list(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))


def _reading(file: Path) -> sqlite3.Connection:
    """Reads what a gateway may be writing. Where none has it open, nothing is made beside it either."""
    alone = "" if file.with_name(f"{file.name}-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=10)


# --- The command ----------------------------------------------------------------------------------------


def _upgrade(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    if not arguments.check:
        raise ConfigError(
            "upgrade: the gateway brings its database up to date when it starts. Say --check to see what that would do; "
            "make a backup before"
        )
    faults: list[str] = []
    found = revision_of(config.state)
    migrations: list[Migration] = []
    try:
        migrations = pending(found)
    except ConfigError as error:
        faults.append(str(error))
    if sqlite_path(config.state.url) is None:  # a server changes its tables in their place
        migrations = [one._replace(rewrites=[]) for one in migrations]
    rows = _rows_of(config, migrations) if found is not None else {}
    room = _room(config, migrations) if found is not None else None
    if room is not None and room[0] > room[1]:
        faults.append(f"disk: up to {_mib(room[0])} MiB are needed beside the database, and {room[1] // MIB} are free: make room")
    faults += _versions(config)
    faults += _store(config)
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [
        f"this satomori: schema {revisions()[-1]}, Python {python}, SQLite {sqlite3.sqlite_version}",
        f"state: schema {found}" if found else "state: there is none yet; it is made at the first start",
    ]
    if found is not None:
        lines += [_line(one, rows) for one in migrations] or (["nothing is to be done"] if not faults else [])
    if migrations and room is not None:
        lines.append(f"room: up to {_mib(room[0])} MiB for it, {room[1] // MIB} MiB free. Before it: satomori-gateway backup")
    lines += [f"NG  {fault}" for fault in faults]
    body: dict[str, Any] = {
        "schema": found,
        "knows": revisions()[-1],
        "migrations": [one._asdict() for one in migrations] if found is not None else [],
        "rows": rows,
        "faults": faults,
    }
    return Told(int(bool(faults)), body, all_wrapped(lines))


def _line(one: Migration, rows: dict[str, int]) -> str:
    does = [f"rewrites {table} ({rows[table]} rows)" if table in rows else f"rewrites {table}" for table in one.rewrites]
    does += [f"{what} {', '.join(names)}" for what, names in
             (("makes", one.makes), ("alters", one.alters), ("corrects", one.corrects)) if names]  # fmt: skip
    return f"{one.revision}  {one.name} {'; '.join(does) or 'changes no table'}"


def _rows_of(config: GatewayConfig, migrations: list[Migration]) -> dict[str, int]:
    """Of each table that would be rewritten and is there now."""
    file = sqlite_path(config.state.url)
    if file is None:
        return {}
    with closing(_reading(file)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        names = sorted({name for one in migrations for name in one.rewrites} & there)
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608


def _room(config: GatewayConfig, migrations: list[Migration]) -> tuple[int, int] | None:
    """Bytes needed at most, and free: all of a transaction stands in SQLite's log beside the file. None: a server's business."""
    file = sqlite_path(config.state.url)
    if file is None:
        return None
    return (file.stat().st_size if migrations else 0), shutil.disk_usage(file.parent).free


def _mib(size: int) -> int:
    return -(-size // MIB)


def _versions(config: GatewayConfig) -> list[str]:
    faults = []
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        faults.append(f"SQLite is {sqlite3.sqlite_version}; {'.'.join(map(str, OLDEST_SQLITE))} or later is needed")
    if sqlite_path(config.state.url) is None:
        with postgresql.connected(config.state) as connection:
            (number,) = connection.execute("SELECT current_setting('server_version_num')::int").fetchone() or (0,)
        if number < OLDEST_POSTGRESQL:
            faults.append(f"PostgreSQL is {number // 10_000}; {OLDEST_POSTGRESQL // 10_000} or later is needed")
    return faults


def _store(config: GatewayConfig) -> list[str]:
    """A series file of a newer version. Servers are asked by `check`."""
    if not isinstance(config.store, SqliteStoreConfig) or not config.store.path.exists():
        return []
    try:
        with closing(_reading(config.store.path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        return [f"store.path: {config.store.path} can't be read: {error}"]
    if version > series.VERSION:
        return [f"store.path: a newer satomori wrote it (version {version}; this one knows {series.VERSION}): install that one"]
    return []
