"""For all tests: what is the same in each of them is made once, a new state database and what the API's answers look like.

With SATOMORI_STATE=postgresql each state database that a test opens in this process, whatever file it names, is in PostgreSQL.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi._compat import v2 as fastapi_types
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from sqlalchemy import URL, Engine

from gateway.state import State, database, open_state
from gateway.words import call_office
from tests import postgresql

ON_POSTGRESQL = os.environ.get("SATOMORI_STATE") == "postgresql"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ON_POSTGRESQL and (only := item.get_closest_marker("sqlite_only")):
            item.add_marker(pytest.mark.skip(reason=f"on SQLite only: {only.args[0]}"))


class _Beside(State):
    """Writes erasures beside the file that a test named, also where its configuration, made for SQLite, names no file."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "erasures_file" or value is not None or not hasattr(self, name):
            super().__setattr__(name, value)


class Databases:
    """For each file that a test names a database of its own, a copy of what the migrations made; always the same one."""

    def __init__(self, server: postgresql.Server) -> None:
        self._server, self._made, self._count = server, dict[str, str](), 0
        open_state(server.make("schema")).close()
        # Tests read what was queued in the order in which it was: SQLite has that by itself, in a column of this name.
        server.run("ALTER TABLE notifications ADD COLUMN rowid bigserial", database="schema")
        self._addressed = database._addressed

    def addressed(self, url: str) -> URL:
        """Where the database really is."""
        named = self._addressed(url)
        if named.drivername != "sqlite" or named.database in (None, "", ":memory:"):
            return named
        if named.database not in self._made:
            self._count += 1
            self._made[named.database] = self._server.make(f"d{self._count}", "schema")
        return self._addressed(self._made[named.database])

    def opened(self, engine: Engine) -> State:
        """As a configuration has to say where erasures are written: beside the file, as on SQLite."""
        named = {self._addressed(url).database: path for path, url in self._made.items()}
        return _Beside(engine, Path(f"{named[engine.url.database]}.erasures") if engine.url.database in named else None)

    def drop(self) -> None:
        """Drops those that nobody is connected to any more."""
        rows = self._server.run("SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL")
        used = {name for (name,) in rows}
        gone = {path: url for path, url in self._made.items() if url.rpartition("/")[2] not in used}
        self._server.run(*(f'DROP DATABASE "{url.rpartition("/")[2]}"' for url in gone.values()))
        for path in gone:
            del self._made[path]


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


@pytest.fixture(scope="module", autouse=True)
def _let_go(_migrated_once: Databases | None) -> Iterator[None]:
    """A database in PostgreSQL has 10 MB: those of a module's tests go with it."""
    yield
    if _migrated_once is not None:
        _migrated_once.drop()


@pytest.fixture(scope="session", autouse=True)
def _described_once() -> Iterator[None]:
    """FastAPI builds a validator for each answer and parameter of each app; what says the same shares one, over all apps."""
    made: dict[str, list[tuple[Any, TypeAdapter[Any]]]] = {}

    def shared(annotation: Any, *, config: Any = None) -> TypeAdapter[Any]:
        said = (annotation.__origin__, [_said(part) for part in annotation.__metadata__], config)
        alike = made.setdefault(repr(annotation), [])
        for known, adapter in alike:
            if known == said:
                return adapter
        adapter = TypeAdapter(annotation, config=config)
        alike.append((said, adapter))
        return adapter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastapi_types, "TypeAdapter", shared)
        yield


def _said(part: Any) -> Any:
    """What two parts of an annotation must have in common to be the same; pydantic compares fields by identity only."""
    if type(part) is not FieldInfo:
        return part
    return {name: getattr(part, name, None) for name in FieldInfo.__slots__ if name != "_original_assignment"}
