"""The state database: its migrations make the schema that the code means, and its transactions are whole and wait their turn."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, insert, select

from gateway.errors import ConfigError
from gateway.state import State, open_state, tables
from gateway.state.upsert import upsert


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def put(state: State, name: str, value: int) -> None:
    with state.write() as connection:
        connection.execute(upsert(tables.cursors, "value"), {"name": name, "value": value})


def values(state: State) -> dict[str, int]:
    with state.read() as connection:
        return {row.name: row.value for row in connection.execute(select(tables.cursors))}


def test_the_migrations_make_exactly_the_schema_of_the_code(state: State) -> None:
    with state.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_opening_again_changes_nothing(state: State, tmp_path: Path) -> None:
    put(state, "a", 1)
    open_state(f"sqlite:///{tmp_path / 'state.db'}").close()
    assert values(state) == {"a": 1}


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(state: State, tmp_path: Path) -> None:
    with state.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"state\.url: .*newer satomori \(schema 9999\).*[Ii]nstall that version"):
        open_state(f"sqlite:///{tmp_path / 'state.db'}")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "can't be opened"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "file is not a database"),
    ],
    ids=["a folder", "another file"],
)
def test_what_is_no_database_is_refused_with_its_setting(make: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError, match=rf"(?s)state\.url: .*{reason}"):
        open_state(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["no url", "sqlite+nothing:///x", "oracle9i://x"])
def test_an_address_that_is_none_is_refused_with_its_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"state\.url"):
        open_state(url)


def test_a_transaction_that_fails_leaves_nothing_behind(state: State) -> None:
    def half() -> None:
        with state.write() as connection:
            connection.execute(insert(tables.cursors), {"name": "a", "value": 1})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert values(state) == {}
    put(state, "b", 2)
    assert values(state) == {"b": 2}


def test_writers_wait_for_each_other_and_lose_nothing(state: State) -> None:
    put(state, "count", 0)

    def count() -> None:
        for _ in range(25):
            with state.write() as connection:
                value = connection.scalar(select(tables.cursors.c.value)) or 0
                connection.execute(upsert(tables.cursors, "value"), {"name": "count", "value": value + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert values(state) == {"count": 100}


def test_readers_never_wait_for_a_writer_and_see_nothing_half_done(state: State) -> None:
    put(state, "a", 1)
    with state.write() as connection:
        connection.execute(upsert(tables.cursors, "value"), {"name": "a", "value": 2})
        assert values(state) == {"a": 1}
    assert values(state) == {"a": 2}


def test_one_read_is_one_view(state: State) -> None:
    put(state, "a", 1)
    with state.read() as connection:
        before = connection.scalar(select(func.count()).select_from(tables.cursors))
        put(state, "b", 1)
        assert connection.scalar(select(func.count()).select_from(tables.cursors)) == before


def test_what_is_committed_is_synced(state: State) -> None:
    with state.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        with pytest.raises(sqlite3.IntegrityError):
            connection.connection.driver_connection.execute(  # type: ignore[union-attr]
                "INSERT INTO notifications (id, alert, contact, state, body, created_us, due_us, attempts)"
                " VALUES ('n', 'no such alert', 'c', 'queued', '', 0, 0, 0)"
            )


def test_upsert_without_columns_leaves_the_row_that_stands(state: State) -> None:
    for zero_us in (1, 2):
        with state.write() as connection:
            connection.execute(upsert(tables.boots), {"node": "n", "boot": "b", "zero_us": zero_us})
    with state.read() as connection:
        assert connection.scalar(select(tables.boots.c.zero_us)) == 1
