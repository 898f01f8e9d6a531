"""For all tests: what is the same in each of them is made once, a new state database and what the API's answers look like.

With SATOMORI_STATE=postgresql each state database that a test opens in this process, whatever file it names, is in PostgreSQL;
but one that is named as an URI, `sqlite:///file:<path>?uri=true`, is that file.
"""

import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import utils as fastapi_fields
from fastapi.dependencies import utils as fastapi_parameters
from fastapi.params import Depends
from pydantic.fields import FieldInfo
from sqlalchemy import URL, Engine, delete, text

from gateway.state import State, database, open_state
from gateway.state.tables import metadata
from gateway.words import call_office
from tests import postgresql

ON_POSTGRESQL = os.environ.get("SATOMORI_STATE") == "postgresql"


# What takes a minute and more. All of it is begun at first, by one worker: begun last it would run alone after the others have
# ended, and side by side with each other these would have ten processes each for two cores.
_LONG = tuple(
    str(Path(__file__).parent / one)
    for one in (
        "scenarios/test_storm.py",
        "scenarios/test_escalation_storm.py",
        "gateway/roles/test_several_processes.py",
        "walks",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not str(item.path).startswith(_LONG))
    for item in items:
        if ON_POSTGRESQL and (only := item.get_closest_marker("sqlite_only")):
            item.add_marker(pytest.mark.skip(reason=f"on SQLite only: {only.args[0]}"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Python looks for cyclic garbage as seldom as in a gateway (gateway.core): among all that is collected here it took a
    quarter of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Beside(State):
    """Writes erasures beside the file that a test named, also where its configuration, made for SQLite, names no file."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "erasures_file" or value is not None or not hasattr(self, name):
            super().__setattr__(name, value)


class Databases:
    """For each file that a test names a database of its own, as the migrations made it; always the same one.

    A new one costs ten times as much as emptying one: a test's go to the next of its module.
    """

    def __init__(self, server: postgresql.Server) -> None:
        self._server, self._made, self._count = server, dict[str, str](), 0
        self._free: list[str] = []
        self._within: dict[str, psycopg.Connection] = {}
        open_state(server.make("schema")).close()
        # Tests read what was queued in the order in which it was: SQLite has that by itself, in a column of this name.
        server.run("ALTER TABLE notifications ADD COLUMN rowid bigserial", database="schema")
        self._empty = ";".join(str(delete(table)) for table in metadata.sorted_tables)
        self._form = server.run(_FORM, database="schema"), server.run(_VERSION, database="schema")
        self._addressed = database._addressed

    def addressed(self, url: str) -> URL:
        """Where the database really is."""
        named = self._addressed(url)
        if named.drivername != "sqlite" or named.database in (None, "", ":memory:") or named.database.startswith("file:"):
            return named
        if named.database not in self._made:
            if not self._free:
                self.empty(lambda path: not path.parent.exists())
            self._made[named.database] = self._free.pop() if self._free else self._new()
        return self._addressed(self._server.url(self._made[named.database]))

    def _new(self) -> str:
        self._count += 1
        self._server.make(f"d{self._count}", "schema")
        return f"d{self._count}"

    def opened(self, engine: Engine) -> State:
        """As a configuration has to say where erasures are written: beside the file, as on SQLite."""
        named = {name: path for path, name in self._made.items()}
        return _Beside(engine, Path(f"{named[engine.url.database]}.erasures") if engine.url.database in named else None)

    def empty(self, is_over: Callable[[Path], bool]) -> None:
        """Lets others have those of files that are over, where nobody is connected and tables are as they were."""
        gone = [path for path in self._made if is_over(Path(path))]
        for path in gone:
            name = self._made[path]
            if name not in self._within:
                self._within[name] = psycopg.connect(self._server.url(name), autocommit=True)
                self._within[name].execute("SET session_replication_role = replica")  # no row asks after another
            here = self._within[name]
            said = (here.execute(one).fetchall() for one in (_OTHERS, _FORM, _VERSION))
            if all(one == wanted for one, wanted in zip(said, ([(0,)], *self._form), strict=True)):
                here.execute(self._empty.encode())
                here.execute(_FROM_ONE)
                self._free.append(self._made.pop(path))

    def drop(self) -> None:
        """Drops those that nobody is connected to any more."""
        for connection in self._within.values():
            connection.close()
        self._within.clear()
        used = {name for (name,) in self._server.run("SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL")}
        gone = [name for name in (*self._made.values(), *self._free) if name not in used]
        self._server.run(*(f'DROP DATABASE "{name}"' for name in gone))
        self._free.clear()
        self._made = {path: name for path, name in self._made.items() if name not in gone}


_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_FORM = "SELECT (SELECT count(*) FROM pg_attribute), (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_trigger)"
_VERSION = "SELECT version_num FROM alembic_version"
_FROM_ONE = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"


@pytest.fixture(autouse=True)
def _office_unnamed() -> Iterator[None]:
    """What the office is called belongs to a process: a gateway of one test must not name it for the next."""
    yield
    call_office("")


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases | None]:
    """A new state database is a copy of one that the real migrations made, so that each test need not make it anew."""
    with pytest.MonkeyPatch.context() as patch:
        if ON_POSTGRESQL:
            with postgresql.running() as server:
                databases = Databases(server)
                patch.setattr(database, "_addressed", databases.addressed)
                patch.setattr(database, "State", databases.opened)
                # A machine that does much at once may leave a test alone for longer than a gateway that hangs.
                patch.setattr(database, "_TOWN", text(database._TOWN.text.replace("'5s'", "'60s'")))
                yield databases
            return
        template = tmp_path_factory.mktemp("schema") / "state.db"
        open_state(f"sqlite:///{template}").close()
        migrate = database._migrate

        def copied(state: State) -> None:
            name = state._engine.url.database
            if name and Path(name).is_file() and Path(name).stat().st_size == 0:
                shutil.copyfile(template, name)
            migrate(state)

        patch.setattr(database, "_migrate", copied)
        yield None


@pytest.fixture(autouse=True)
def _emptied(_migrated_once: Databases | None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Named first, so that what a test has open is closed before."""
    yield
    if _migrated_once is not None and "tmp_path" in request.node.funcargs:
        folder = request.node.funcargs["tmp_path"]
        _migrated_once.empty(lambda path: path.is_relative_to(folder))


@pytest.fixture(scope="module", autouse=True)
def _let_go(_migrated_once: Databases | None) -> Iterator[None]:
    """A database in PostgreSQL has 10 MB: those of a module's tests go with it."""
    yield
    if _migrated_once is not None:
        _migrated_once.drop()


@pytest.fixture(scope="session", autouse=True)
def _described_once() -> Iterator[None]:
    """FastAPI looks at each parameter and answer of each app anew; what is described alike is looked at once, over all apps."""
    analyze, field = fastapi_parameters.analyze_param, fastapi_fields.create_model_field
    parameters, fields = _Known(), _Known()

    def parameter(*, param_name: str, annotation: Any, value: Any, path_param_names: set[str]) -> Any:
        def look() -> Any:
            return analyze(param_name=param_name, annotation=annotation, value=value, path_param_names=path_param_names)

        # What a parameter depends on is a function of one app, and a field that stands as a default is written on.
        said = [value, *getattr(annotation, "__metadata__", ())]
        if any(isinstance(part, Depends) for part in said) or isinstance(value, FieldInfo):
            return look()
        return parameters.get((param_name, param_name in path_param_names, _said(annotation), value), look)

    def answer(name: str, type_: Any, **more: Any) -> Any:
        return fields.get((name, _said(type_), more), lambda: field(name=name, type_=type_, **more))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastapi_parameters, "analyze_param", parameter)
        patch.setattr("fastapi.routing.create_model_field", answer)
        yield


@pytest.fixture(scope="session", autouse=True)
def _authorities_once() -> Iterator[None]:
    """Each new client of httpx reads anew whom all the world trusts, 20 ms each time: here once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx._config, "create_ssl_context", functools.cache(httpx._config.create_ssl_context))
        yield


class _Known:
    """What was made for a description before; the first part of one is a name."""

    def __init__(self) -> None:
        self._made: dict[str, list[tuple[Any, Any]]] = {}

    def get(self, described: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        alike = self._made.setdefault(described[0], [])
        for known, made in alike:
            if known == described:
                return made
        alike.append((described, made := make()))
        return made


def _said(annotation: Any) -> Any:
    """What two annotations must have in common to be the same; pydantic compares fields by identity only."""
    if not hasattr(annotation, "__metadata__"):
        return annotation
    return annotation.__origin__, [_shown(part) if isinstance(part, FieldInfo) else part for part in annotation.__metadata__]


def _shown(field: FieldInfo) -> Any:
    slots = {name: getattr(field, name, None) for name in FieldInfo.__slots__ if name != "_original_assignment"}
    return type(field), slots, getattr(field, "__dict__", {})
