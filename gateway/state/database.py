"""Opening the state database: engine, pragmas, migrations, and the two kinds of transaction."""

import math
import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, Table, create_engine, event, insert, inspect, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from gateway.errors import ConfigError, NotMade
from gateway.secret_files import read_secret_text
from gateway.state.upsert import added, by_column, in_one, upsert_rows

MOST_CONNECTIONS = 200
"""More than there are threads: nobody who has a transaction to make waits for another's to end, but for the write lock."""
MIGRATIONS = Path(__file__).parent / "migrations"

# Of PostgreSQL's connections: what is unanswered for half a minute is gone, be it a machine or the way to it, and is said to be.
_NOTICED = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

Guard = Callable[[Connection], None]
"""Raises where this transaction may not be made."""

_NOBODY_ASKS, _NEVER = "SELECT", "SELECT WHERE false"

ENDS_WHEN_IDLE = "set_config('idle_in_transaction_session_timeout', '5s', true)"
"""Of PostgreSQL, in a transaction's first statement: a process that is paused in it (SIGSTOP, a machine asleep) must not keep
what it has locked. To whoever goes on after that the connection is gone.
"""
# Any number that no other program in this database uses.
_TOWN = text(f"SELECT {ENDS_WHEN_IDLE}, pg_advisory_xact_lock(5462531)")


class State:
    """The open database. Safe to share between threads; each transaction has its own connection."""

    def __init__(
        self, engine: Engine, erasures_file: Path | None = None, guard: Guard | None = None, alive: str = _NOBODY_ASKS
    ) -> None:
        """`erasures_file`: where gateway.keeping.ledger writes what is erased; None: beside the database. See `guarded`."""
        self._engine, self.erasures_file, self._guard, self._alive = engine, erasures_file, guard, alive
        # SQLite has who waits for its write lock look again now and then, up to 100 ms later; a lock of ours hands over at once.
        self._writing: AbstractContextManager[object] = RLock() if engine.dialect.name == "sqlite" else nullcontext()
        self.wrote: Callable[[float], object] = lambda _: None
        """Hears how long each transaction that may write took, from asking for it to its being durable."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes may work in it, each with a role of its own: PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    def guarded(self, guard: Guard, alive: str = _NEVER) -> "State":
        """The same database; each transaction that may write begins with `guard`, and what that raises ends it.

        `alive`: the same as a query of PostgreSQL, with one row where the transaction may be made, and none where `guard` raises.
        """
        made = State(self._engine, self.erasures_file, guard, alive)
        made.wrote = self.wrote
        return made

    @contextmanager
    def write(self, *, own: bool = False) -> Iterator[Connection]:
        """One transaction that may write: all of it is durable when the block ends, or none of it.

        One at a time in the whole town, so that what was read in it is still so when it ends, and rows are numbered in the order
        in which they become visible. On SQLite that is its one write lock, taken at once (BEGIN IMMEDIATE); on PostgreSQL an
        advisory lock. It waits for other threads of this process, and up to 10 s for other processes.

        `own`: only rows are written that nobody else may write, because a lease says so (gateway.leases); then PostgreSQL lets
        several go on at once.
        """
        began_s = perf_counter()
        with self._writing, self._engine.connect() as connection:
            connection.info["erasures_file"] = self.erasures_file
            if connection.dialect.name == "sqlite":
                connection.info["begin"] = "BEGIN IMMEDIATE"
            with connection.begin():
                if self.is_shared and not own:
                    connection.execute(_TOWN)
                if self._guard is not None:
                    self._guard(connection)
                yield connection
        self.wrote(perf_counter() - began_s)

    def upsert(self, table: Table, changed: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
        """`upsert_rows` as one transaction, of rows that nobody else may write.

        On PostgreSQL one statement that has the guard in it, not four and four answers: ingest makes hundreds of them a second.
        """
        if rows and not self._written(in_one(table, changed, self._engine.dialect, self._alive), rows):
            with self.write(own=True) as connection:  # whose guard says why nothing was written
                upsert_rows(connection, table, changed, rows)

    def insert(self, table: Table, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
        """Adds rows of these columns, in their order; as `upsert` otherwise."""
        if rows and not self._written(added(table, names, self._engine.dialect, self._alive), rows):
            with self.write(own=True) as connection:
                connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])

    def _written(self, said: str, rows: Sequence[tuple[object, ...]]) -> bool:
        """Whether PostgreSQL has written them by this one statement; where it has not, it has written none."""
        if not self.is_shared:
            return False
        began_s = perf_counter()
        with self._engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901
            if connection.exec_driver_sql(said, by_column(rows)).rowcount != len(rows):
                return False
        self.wrote(perf_counter() - began_s)
        return True

    @contextmanager
    def rebuilding(self) -> Iterator[Connection]:
        """As `write`, for changes of the schema.

        SQLite changes a table by making it anew, and would take the rows that point to it for lost meanwhile
        (sqlite.org/lang_altertable.html, 7): so they are looked at once, at the end.
        """
        with self._writing, self._engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                with connection.begin():
                    connection.execute(_TOWN)
                    yield connection
                return
            run = connection.connection.driver_connection.execute  # type: ignore[union-attr]
            run("PRAGMA foreign_keys=OFF")  # heeded outside of a transaction only
            try:
                connection.info["begin"] = "BEGIN IMMEDIATE"
                with connection.begin():
                    yield connection
                    if lost := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                        raise ConfigError(
                            f"state.url: a row of {lost[0]} would point to nothing of {lost[2]}; nothing was changed"
                        )
            finally:
                run("PRAGMA foreign_keys=ON")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; never waits for writers."""
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.info["begin"] = "BEGIN"
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)  # noqa: PLW2901
            with connection.begin():
                yield connection

    @contextmanager
    def telling(self) -> Iterator[Connection]:
        """For what is told to other processes (gateway.news) and written nowhere, a statement at a time. PostgreSQL only."""
        with self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def listening(self, channels: Iterable[str]) -> Iterator[Any]:
        """A psycopg connection of its own that listens on the channels. PostgreSQL only; psycopg.OperationalError."""
        import psycopg
        from psycopg.conninfo import make_conninfo
        from psycopg.sql import SQL, Identifier

        url = self._engine.url
        more = {**_named(), **{name: str(value) for name, value in url.query.items()}}
        where = make_conninfo(host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database,
                              **more)  # fmt: skip
        connection = psycopg.connect(where, autocommit=True)
        try:
            for channel in channels:
                connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            yield connection
        finally:
            connection.close()

    def schema(self) -> str:
        """The last step of the migrations that it has gone through."""
        with self.read() as connection:
            return _schema(connection) or ""

    def size_bytes(self) -> float:
        """Of the database with its log; not a number while nobody can say."""
        try:
            if self.is_shared:
                with self.read() as connection:
                    return float(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
            file = Path(self._engine.url.database or "")
            return sum(path.stat().st_size for path in (file, Path(f"{file}-wal")) if path.exists())
        except (OSError, SQLAlchemyError):
            return math.nan

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
        """Writes the database's files anew, so that nothing is left in them of what was ever deleted. Others wait meanwhile.

        What PostgreSQL has archived or sent elsewhere, and its write-ahead log until that comes round, is not reached.
        """
        with self._writing, self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.connection.driver_connection.execute("VACUUM")  # type: ignore[union-attr]
            else:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM FULL")
        self.empty_log()

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()


def open_state(url: str, password_file: Path | None = None, *, as_it_is: bool = False) -> State:
    """Opens the database, bringing its schema up to date. ConfigError when it can't be used, with what to do.

    `password_file`: what the URL's user comes in with, on PostgreSQL. `as_it_is`: its schema is left so; NotMade where that is
    not this version's.
    """
    password = read_secret_text(password_file, "state.password_file").rstrip("\r\n") if password_file else None
    try:
        where = _addressed(url).set(password=password)
        is_shared = where.get_backend_name() == "postgresql"
        named = {name: value for name, value in _named().items() if name not in where.query} if is_shared else {}
        # An error that is logged shows the statement, never what was to be written: that is names, numbers and keys.
        # Without `preserve_rowcount` nobody knows, on PostgreSQL, whether an insert that does nothing on conflict did something.
        engine = create_engine(where, max_overflow=MOST_CONNECTIONS, hide_parameters=True, connect_args=named,
                               execution_options={"preserve_rowcount": True})  # fmt: skip
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"state.url: {url!r} is no database that can be opened: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(connection.info["begin"]))
    else:
        event.listen(engine, "handle_error", _gone_is_operational)
    state = State(engine)
    try:
        if as_it_is:
            _check_made(state)
        _made_private(engine)
        if state.is_shared:
            _check_order(state)
        if not as_it_is:
            _migrate(state)
    except (*FAILS, OSError) as error:
        state.close()
        cause = getattr(error, "orig", None) or error
        raise ConfigError(
            f"state.url: the database {engine.url.render_as_string()} can't be opened: {str(cause).strip()}. "
            f"{_ASK[state.is_shared]}"
        ) from error
    except BaseException:
        state.close()
        raise
    return state


def _named() -> dict[str, Any]:
    """What each connection to PostgreSQL is opened with, where the URL does not say otherwise."""
    return {"application_name": process_name(), "client_encoding": "utf8", **_NOTICED}


def process_name() -> str:
    """What this process is called, for people: in `workers`, and among PostgreSQL's connections."""
    return f"{socket.gethostname()}-{os.getpid()}"


FAILS = (DBAPIError, sqlite3.Error, UnicodeDecodeError)
"""What a database raises that is damaged or gives no answer; the last comes out of a damaged schema, in place of SQLite's own."""
MISTAKES = (IntegrityError, DataError, ProgrammingError)
"""What a whole database raises too, of what it is asked: of that no backup is the cure."""


def trouble(error: Exception) -> str:
    """Of one of `FAILS`, raised by a database that opened: what is the matter, and what to do, in one line."""
    cause = getattr(error, "orig", None) or error
    said, code = str(cause).strip().partition("\n")[0], getattr(cause, "sqlite_errorcode", 0) & 0xFF
    is_server = isinstance(error, OperationalError) and not isinstance(cause, sqlite3.Error)
    do = _SERVER if is_server else _DO.get(code, "Where that stays so, restore a backup")
    return f"opens, and then can't be used: {said}. {do}"


_SERVER = "Does its server run, may it be reached, has its disk room? What happened stands in its log"
_DO = {
    sqlite3.SQLITE_FULL: "Make room on its disk",
    sqlite3.SQLITE_BUSY: "Another program keeps it locked: find and stop that",
    sqlite3.SQLITE_READONLY: "May this user write it and its folder, and is its disk mounted for writing?",
}
_ASK = {
    False: "Does its folder exist, may this user write there, and is it a satomori database?",
    True: "Does its server run, does the database exist, and may this user come in (state.password_file) and make tables?",
}


def _check_order(state: State) -> None:
    """PostgreSQL orders text as the database was made to. Here it is ordered as SQLite does, byte by byte, on every machine."""
    with state.read() as connection:
        row = connection.execute(text("SELECT 'Z' < 'a', current_setting('server_encoding'), current_database()")).one()
    if (row[0], row[1]) != (True, "UTF8"):
        raise ConfigError(
            "state.url: the database was not made for satomori: it needs the encoding UTF8 and the locale C. Make it anew: "
            f"createdb --template=template0 --encoding=UTF8 --locale=C {row[2]}"
        )


def _addressed(url: str) -> URL:
    """With the driver that this program has: who writes postgresql:// means any."""
    made = make_url(url)
    return made.set(drivername="postgresql+psycopg") if made.drivername == "postgresql" else made


def _gone_is_operational(context: ExceptionContext) -> None:
    """A server that has gone is said in several classes; who may try again catches one."""
    error = context.sqlalchemy_exception
    if context.is_disconnect and isinstance(error, DBAPIError) and not isinstance(error, OperationalError):
        raise OperationalError(context.statement, None, context.original_exception, hide_parameters=True) from error


def _made_private(engine: Engine) -> None:
    """A new file is its owner's alone: keys of tags are in it. SQLite gives its log the same mode."""
    path = _file(engine)
    if path is not None and not path.exists():
        path.touch(0o600)


def _file(engine: Engine) -> Path | None:
    name = engine.url.database
    is_file = engine.dialect.name == "sqlite" and name and name != ":memory:" and not name.startswith("file:")
    return Path(str(name)) if is_file else None


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the `begin` listener decides which BEGIN
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables or "alembic_version" in tables:  # it stays in the file: another program's is left as it is
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten, not only let go of


def _schema(connection: Connection) -> str | None:
    """The last step of the migrations that a database has gone through; None: it is empty. ConfigError: another program's."""
    look = inspect(connection)
    if not look.has_table("alembic_version"):
        if connection.dialect.name == "sqlite" and (tables := look.get_table_names()):
            raise ConfigError(
                f"state.url: {connection.engine.url.database} is another program's database: it holds {', '.join(tables[:3])}. "
                "Name a file of the gateway's own, or one that is not there yet"
            )
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _check_made(state: State) -> None:
    """Writes nothing; not even a file, as whoever connects to SQLite would."""
    file = None if state.is_shared else _file(state._engine)
    if file is not None and (not file.exists() or (file.is_file() and not file.stat().st_size)):
        found = None
    else:
        found = state.schema() or None
    if found is None:
        raise NotMade("state.url: the database has no tables yet: start the gateway once, which makes them", is_empty=True)
    if found < newest_schema():
        raise NotMade(
            f"state.url: the database is of an older release (schema {found}, here it is {newest_schema()}). Make a backup, see "
            "what an upgrade does (satomori-gateway upgrade gateway.toml --check), then start the gateway, which does it",
            is_empty=False,
        )
    if found > newest_schema():
        raise ConfigError(_NEWER.format(found))


_NEWER = (
    "state.url: the database was written by a newer satomori (schema {}). "
    "Install that version again, or restore a backup made by this one."
)


def newest_schema() -> str:
    """The last step of the migrations that this version knows: their files are named by it."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _migrate(state: State) -> None:
    with state.rebuilding() as connection:
        found = _schema(connection)
        if found == newest_schema():
            return
        # Here and not above: with it and the steps themselves every command would take 200 ms longer.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
            raise ConfigError(_NEWER.format(found))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
