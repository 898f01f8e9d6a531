"""The state database: its migrations make the schema that the code means, and its transactions are whole and wait their turn."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, insert, select

from edge.contract.events import MediaCaptured
from gateway.errors import ConfigError
from gateway.pictures import is_open
from gateway.state import State, open_state, tables
from gateway.state.database import MIGRATIONS, newest_schema
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


@pytest.mark.sqlite_only("test_state_postgresql.py has its own")
def test_the_migrations_make_exactly_the_schema_of_the_code(state: State) -> None:
    with state.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == newest_schema() == state.schema()


@pytest.mark.sqlite_only("what 0002 makes of old rows: in SQL of SQLite's")
def test_a_database_of_before_pictures_were_judged_keeps_all_it_has_and_nothing_in_it_opens(tmp_path: Path) -> None:
    """What 0002 makes of data that 0001 had: an event sent again is still the same one, and somebody may say `clear`."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    old = {"media": "a" * 64, "size": 3, "content_type": "image/jpeg", "camera_time": "2026-06-03T06:12:00"}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO boots (node, boot, zero_us) VALUES ('n', 'b', 7)")
        for seq, type_, body in (
            (1, "media_captured", json.dumps(old, separators=(",", ":"))),
            (2, "trap_sprung", '{"folded":0}'),
        ):
            connection.exec_driver_sql(
                "INSERT INTO events (node, epoch, seq, device, type, class, time_us, node_time_us, received_us, late,"
                " clock_trusted, body) VALUES ('n', 'e', ?, 'camera-1', ?, 'evidence', 5, 5, 6, 0, 1, ?)",
                (seq, type_, body),
            )
    engine.dispose()

    state = open_state(url)
    with state.read() as connection:
        rows = connection.execute(select(tables.events).order_by(tables.events.c.seq)).all()
        # As events came to be kept later on: `species` is written only where something says it.
        again = MediaCaptured.model_validate({"seq": 1, "dt": 0, "device": "camera-1", **old})
        assert rows[0].body == again.model_dump_json(by_alias=True, exclude={"seq", "dt", "device", "type", "class_", "species"})
        assert (rows[1].body, rows[1].boot) == ('{"folded":0}', None)
        assert connection.execute(select(tables.boots)).all() == [("n", "b", 7, False)]
        assert [tuple(row)[:6] for row in connection.execute(select(tables.pictures))] == [
            ("a" * 64, "n", "camera-1", "unclassified", False, 5)
        ]
        assert not is_open(connection, "a" * 64)
    state.close()


def test_opening_again_changes_nothing(state: State, tmp_path: Path) -> None:
    put(state, "a", 1)
    open_state(f"sqlite:///{tmp_path / 'state.db'}").close()
    assert values(state) == {"a": 1}


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(state: State, tmp_path: Path) -> None:
    with state.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"state\.url: .*newer satomori \(schema 9999\).*[Ii]nstall that version"):
        open_state(f"sqlite:///{tmp_path / 'state.db'}")


@pytest.mark.sqlite_only("about files")
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


def test_however_many_wait_to_write_who_reads_need_not(state: State) -> None:
    """Forty requests can wait for the write lock at once; the traps' thread must not wait for one of them to give up."""
    threads = [threading.Thread(target=put, args=(state, f"n{number}", number)) for number in range(40)]
    with state.write() as connection:
        for thread in threads:
            thread.start()
        reader = threading.Thread(target=values, args=(state,))
        reader.start()
        reader.join(5)
        waited = reader.is_alive()
        connection.execute(upsert(tables.cursors, "value"), {"name": "a", "value": 1})
    for thread in (*threads, reader):
        thread.join(30)
    assert not waited
    assert len(values(state)) == 41


def test_one_read_is_one_view(state: State) -> None:
    put(state, "a", 1)
    with state.read() as connection:
        before = connection.scalar(select(func.count()).select_from(tables.cursors))
        put(state, "b", 1)
        assert connection.scalar(select(func.count()).select_from(tables.cursors)) == before


@pytest.mark.sqlite_only("SQLite's own settings")
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
