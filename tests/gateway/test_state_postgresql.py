"""The state database in PostgreSQL: what differs from SQLite's, and what must not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, delete, insert, literal, select
from sqlalchemy.exc import DataError, OperationalError

from gateway.errors import ConfigError
from gateway.keeping import ledger
from gateway.state import State, open_state, tables
from gateway.state.database import MIGRATIONS
from gateway.state.sql import greatest, json_value, least, position
from gateway.state.upsert import upsert
from tests import postgresql
from tests.gateway.test_state import put, values

pytestmark = pytest.mark.services


@pytest.fixture
def url(server: postgresql.Server, request: pytest.FixtureRequest) -> str:
    """Of a new, empty database."""
    return server.make(f"{request.node.name[:40]}_{time.monotonic_ns()}".replace("[", "_").replace("]", "_"))


@pytest.fixture
def state(url: str) -> Iterator[State]:
    opened = open_state(url)
    yield opened
    opened.close()


def test_the_migrations_make_exactly_the_schema_of_the_code(state: State) -> None:
    with state.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_each_step_of_the_migrations_can_be_taken_alone(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    steps = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    for step in steps:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, step)
    engine.dispose()
    state = open_state(url)
    put(state, "a", 1)
    assert values(state) == {"a": 1}
    state.close()


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(state: State, url: str) -> None:
    with state.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"state\.url: .*newer satomori \(schema 9999\).*[Ii]nstall that version"):
        open_state(url)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "Does its server run"),
        (lambda url: f"{url}_none", "does the database exist"),
        (lambda url: url.replace("//satomori@", "//nobody@"), "may this user come in"),
    ],
    ids=["no server", "no database", "no user"],
)
def test_what_can_not_be_reached_is_refused_with_what_to_look_at(url: str, broken: Callable[[str], str], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)state\.url: .*{said}"):
        open_state(broken(url))


@pytest.mark.parametrize("made", ["ENCODING 'SQL_ASCII'", "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"])
def test_a_database_that_orders_or_writes_text_otherwise_is_refused_with_how_to_make_one(
    server: postgresql.Server, made: str
) -> None:
    name = f"other_{time.monotonic_ns()}"
    server.run(f'CREATE DATABASE "{name}" TEMPLATE template0 {made}')
    with pytest.raises(ConfigError, match=f"state.url: .*UTF8.*createdb --template=template0 .*--locale=C {name}"):
        open_state(server.url(name))


def test_who_comes_in_by_password_has_it_from_a_file_that_is_theirs_alone(
    server: postgresql.Server, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("an example password\n", encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"state\.password_file: .*chmod 600"):
        open_state(url, file)
    server.run("CREATE ROLE guest LOGIN SUPERUSER PASSWORD 'an example password'")
    file.chmod(0o600)
    with server.asking_passwords():
        with pytest.raises(ConfigError, match="password"):
            open_state(url.replace("//satomori@", "//guest@"))
        state = open_state(url.replace("//satomori@", "//guest@"), file)
        put(state, "a", 1)
        assert values(state) == {"a": 1}
        assert "an example password" not in repr(state._engine)
        state.close()


def test_a_server_that_dies_and_comes_back_loses_nothing_that_was_committed(server: postgresql.Server, state: State) -> None:
    def dies_in_between() -> None:
        with state.write() as connection:
            connection.execute(upsert(tables.cursors, "value"), {"name": "a", "value": 2})
            server.kill()
            connection.execute(select(tables.cursors))

    put(state, "a", 1)
    with pytest.raises(OperationalError):
        dies_in_between()
    for one in (lambda: put(state, "b", 1), lambda: values(state)):
        with pytest.raises(OperationalError):
            one()
    server.start()
    assert after_a_while(lambda: values(state)) == {"a": 1}
    put(state, "b", 2)
    assert values(state) == {"a": 1, "b": 2}


def after_a_while(ask: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Who had a connection of before finds out once that it is gone; all others with it."""
    try:
        return ask()
    except OperationalError:
        return ask()


def test_a_server_that_dies_at_the_commit_is_told_as_one_that_is_away(server: postgresql.Server, state: State) -> None:
    def dies_at_the_commit() -> None:
        with state.write() as connection:
            connection.execute(upsert(tables.cursors, "value"), {"name": "a", "value": 2})
            server.kill()

    with pytest.raises(OperationalError):
        dies_at_the_commit()
    server.start()
    assert after_a_while(lambda: values(state)) == {}


def test_text_that_it_can_not_keep_is_refused_at_once_and_is_no_outage(state: State) -> None:
    """A zero character, half a surrogate pair, a number of 65 bits: it must not block all that comes after."""
    for name, value in (("a\0", 1), ("\ud800", 1), ("a", 2**64)):
        with pytest.raises((DataError, UnicodeError)):
            put(state, name, value)
    assert values(state) == {}


def test_what_is_said_in_other_words_means_the_same(url: str) -> None:
    asked = select(
        least(literal(3), literal(2)),
        greatest(literal(3), literal(2)),
        position("B", literal("aBb")),
        position("b", literal("aB")),
        position(b"\x00b", literal(b"a\x00b")),
        json_value(literal('{"tag": "t-1"}'), "tag"),
        json_value(literal('{"tag": "t-1"}'), "none"),
    )
    for engine in (create_engine("sqlite://"), create_engine(url.replace("postgresql://", "postgresql+psycopg://"))):
        with engine.connect() as connection:
            assert tuple(connection.execute(asked).one()) == (2, 3, 2, 0, 2, "t-1", None)
        engine.dispose()


def test_whether_an_insert_found_its_row_there_is_known(state: State) -> None:
    with state.write() as connection:
        found = [connection.execute(upsert(tables.boots), {"node": "n", "boot": "b", "zero_us": us}).rowcount for us in (1, 2)]
    assert found == [1, 0]


def test_nothing_is_erased_where_nobody_would_know_after_a_restore(state: State) -> None:
    with state.write() as connection, pytest.raises(ConfigError, match=r"keep\.erasures_file: "):
        ledger.file_of(connection)


def test_after_a_rewrite_no_file_of_the_database_holds_what_was_deleted(server: postgresql.Server, state: State) -> None:
    secret = "himitsu-no-namae-0001"
    with state.write() as connection:
        connection.execute(insert(tables.cursors), [{"name": f"{secret}-{number}", "value": 1} for number in range(50)])
    with state.write() as connection:
        connection.execute(delete(tables.cursors))
    server.run("VACUUM cursors", database=state._engine.url.database or "")
    assert server.holds(secret), "a plain VACUUM overwrites nothing: what SECURITY.md says would be too little"
    state.rewrite()
    assert not server.holds(secret)
