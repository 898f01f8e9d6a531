"""The state database on PostgreSQL: dumped and put back by its own tools, pg_dump and pg_restore, on this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.backup.sqlite_file import Held
from gateway.config import StateConfig
from gateway.errors import ConfigError
from gateway.secret_files import read_secret_text

if TYPE_CHECKING:
    import psycopg

SETTING = "state.url"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"


def dump(state: StateConfig, target: Path, query: str) -> tuple[Held, list[str]]:
    """Writes what the database holds at one moment, while others write on; what that is, and what it answers to `query` then.

    A new file, its owner's alone.

    ConfigError where the tool is missing or refuses; OSError where the disk is full.
    """
    tool = _tool("pg_dump")
    target.touch(0o600, exist_ok=False)
    with connected(state) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # The dump and our counts see the same moment.
        (moment,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        found = _held(connection)
        answer = [row[0] for row in connection.execute(query.encode())] if "media" in found.rows else []
        _run([tool, "--format=custom", "--no-owner", "--no-privileges", f"--snapshot={moment}", f"--file={target}",
              f"--dbname={_libpq(state)}"], state)  # fmt: skip
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found, answer


def fault(dump: Path) -> str | None:
    """What is wrong with a dump when all of it is read; None: nothing."""
    try:
        _run([_tool("pg_restore"), "--file=/dev/null", str(dump)])
    except (ConfigError, OSError) as error:
        return str(error)
    return None


def held(state: StateConfig) -> Held:
    """What the database holds now; no rows of any table: it is empty. ConfigError where it can't be asked."""
    with connected(state) as connection:
        return _held(connection)


def revision(state: StateConfig) -> str | None:
    """Which of our migrations it has come to; None: it holds nothing of ours."""
    with connected(state) as connection:
        return _revision(connection)


def restore(state: StateConfig, dump: Path) -> None:
    """Puts a dump into an empty database: all of it, or nothing. ConfigError, OSError."""
    _run([_tool("pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction",
          f"--dbname={_libpq(state)}", str(dump)], state)  # fmt: skip


@contextmanager
def connected(state: StateConfig) -> "Iterator[psycopg.Connection]":
    """One transaction. ConfigError where nobody answers."""
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(f"{SETTING}: PostgreSQL needs the package psycopg: pip install 'satomori[postgresql]'") from error
    try:
        with psycopg.connect(_libpq(state), password=_password(state), connect_timeout=10) as connection:
            yield connection
    except psycopg.Error as error:
        raise ConfigError(f"{SETTING}: {str(error).strip()}") from error


def _held(connection: "psycopg.Connection") -> Held:
    from psycopg import sql

    tables = [row[0] for row in connection.execute(_TABLES)]
    rows = {}
    for name in tables:
        (rows[name],) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone() or (0,)
    return Held(0, 0, _revision(connection), rows)


def _revision(connection: "psycopg.Connection") -> str | None:
    (there,) = connection.execute("SELECT to_regclass('alembic_version')").fetchone() or (None,)
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if there else None
    return row[0] if row else None


def _libpq(state: StateConfig) -> str:
    """As PostgreSQL's own programs take it. No password is in it: everybody on a machine reads what a program is started with."""
    return state.url.replace("postgresql+psycopg://", "postgresql://", 1)


def _password(state: StateConfig) -> str | None:
    if state.password_file is None:
        return None
    return read_secret_text(state.password_file, "state.password_file").rstrip("\r\n")


def _tool(name: str) -> str:
    """Of the newest PostgreSQL here: an older one can't read a newer server."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True)
    found = str(newest[0]) if newest else shutil.which(name)
    if found is None:
        raise ConfigError(f"{SETTING}: {name} is missing, by which PostgreSQL is backed up: install postgresql-client")
    return found


def _run(argv: list[str], state: StateConfig | None = None) -> None:
    """`state`: the database that the tool comes into."""
    password = _password(state) if state is not None else None
    environment = {**os.environ, **({"PGPASSWORD": password} if password is not None else {})}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.split())[:500]
    if "No space left" in said:
        raise OSError(f"{Path(argv[0]).name}: the disk is full: {said}")
    raise ConfigError(f"{SETTING}: {Path(argv[0]).name} failed: {said}")
