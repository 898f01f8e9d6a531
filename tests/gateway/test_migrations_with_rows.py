"""A database of any earlier version comes to this one with all that is in it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, Connection, LargeBinary, MetaData, Text, func, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConfigError
from gateway.state import State, database, open_state
from gateway.state.database import MIGRATIONS

SCRIPTS = ScriptDirectory(str(MIGRATIONS))
REVISIONS = sorted(script.revision for script in SCRIPTS.walk_revisions())


def value(column: Column[Any]) -> object:
    """One that fits the column, and the same wherever a row points to another."""
    if isinstance(column.type, Text):
        return "1"
    if isinstance(column.type, Boolean):
        return True
    return b"1" if isinstance(column.type, LargeBinary) else 1


def fill(connection: Connection) -> dict[str, int]:
    """A row in each table; how many there are in each."""
    known = MetaData()
    known.reflect(connection)
    for table in known.sorted_tables:
        if table.name != "alembic_version":
            connection.execute(insert(table), {column.name: value(column) for column in table.columns})
    return count(connection)


def count(connection: Connection) -> dict[str, int]:
    known = MetaData()
    known.reflect(connection)
    return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in known.sorted_tables}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """A new database without any table."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "_migrate", lambda _: None)
        opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    if opened.is_shared:  # a copy of what the migrations made
        with opened.rebuilding() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    yield opened
    opened.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_row_of_an_earlier_version_is_still_there_after_the_next(state: State, revision: str, tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with state.rebuilding() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with state.write() as connection:
        before = fill(connection)
    with closing(open_state(f"sqlite:///{tmp_path / 'state.db'}")) as opened, opened.read() as connection:
        after = count(connection)
    assert {name: after[name] for name in before if name in after} == {name: n for name, n in before.items() if name in after}
    assert before.keys() - after.keys() == set(), "a table went away with its rows"


def test_a_row_that_would_point_to_nothing_changes_nothing(state: State) -> None:
    def change() -> None:
        with state.rebuilding() as connection:
            connection.exec_driver_sql("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql("CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id))")
            connection.exec_driver_sql("INSERT INTO children VALUES (1, 5)")

    with pytest.raises((ConfigError, IntegrityError)):
        change()
    with state.read() as connection:
        assert count(connection) == {}
