"""Opening the state database: engine, pragmas, migrations, and the two kinds of transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import RLock

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gateway.errors import ConfigError

MOST_CONNECTIONS = 200
"""More than there are threads: nobody who has a transaction to make waits for another's to end, but for the write lock."""
MIGRATIONS = Path(__file__).parent / "migrations"


class State:
    """The open database. Safe to share between threads; each transaction has its own connection."""

    def __init__(self, engine: Engine, erasures_file: Path | None = None) -> None:
        """`erasures_file`: where gateway.keeping.ledger writes what is erased; None: beside the database."""
        self._engine, self.erasures_file = engine, erasures_file
        # SQLite has who waits for its write lock look again now and then, up to 100 ms later; a lock of ours hands over at once.
        self._writing: AbstractContextManager[object] = RLock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write: all of it is durable when the block ends, or none of it.

        On SQLite it takes the one write lock at once (BEGIN IMMEDIATE). It waits for other threads of this process, and up to
        10 s for other processes.
        """
        with self._writing, self._engine.connect() as connection:
            connection.info["erasures_file"] = self.erasures_file
            if connection.dialect.name == "sqlite":
                connection.info["begin"] = "BEGIN IMMEDIATE"
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; never waits for writers."""
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.info["begin"] = "BEGIN"
            with connection.begin():
                yield connection

    def empty_log(self) -> bool:
        """Empties SQLite's write-ahead log into the database: what was destroyed there must not go on in the log.

        False where a reader that is at work just then keeps the log as it is: try again later.
        """
        with self._engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                return True
            run = connection.connection.driver_connection.execute  # type: ignore[union-attr]
            return bool(run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def rewrite(self) -> None:
        """Writes the whole of SQLite's file anew, so that nothing is left of what was ever deleted. Others wait meanwhile."""
        with self._writing, self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.connection.driver_connection.execute("VACUUM")  # type: ignore[union-attr]
        self.empty_log()

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()


def open_state(url: str) -> State:
    """Opens the database, bringing its schema up to date. ConfigError when it can't be used, with what to do."""
    try:
        # An error that is logged shows the statement, never what was to be written: that is names, numbers and keys.
        engine = create_engine(url, max_overflow=MOST_CONNECTIONS, hide_parameters=True)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"state.url: {url!r} is no database that can be opened: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(connection.info["begin"]))
    state = State(engine)
    try:
        _made_private(engine)
        _migrate(state)
    except (DBAPIError, sqlite3.Error, OSError) as error:
        state.close()
        cause = getattr(error, "orig", None) or error
        raise ConfigError(
            f"state.url: the database {engine.url.render_as_string()} can't be opened: {cause}. "
            "Does its folder exist, may this user write there, and is it a satomori database?"
        ) from error
    except BaseException:
        state.close()
        raise
    return state


def _made_private(engine: Engine) -> None:
    """A new file is its owner's alone: keys of tags are in it. SQLite gives its log the same mode."""
    name = engine.url.database
    if engine.dialect.name == "sqlite" and name and name != ":memory:" and not name.startswith("file:"):
        path = Path(name)
        if not path.exists():
            path.touch(0o600)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the `begin` listener decides which BEGIN
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten, not only let go of


def _migrate(state: State) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with state.write() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        if found == scripts.get_current_head():
            return
        if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
            raise ConfigError(
                f"state.url: the database was written by a newer satomori (schema {found}). "
                "Install that version again, or restore a backup made by this one."
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
