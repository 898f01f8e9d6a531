"""The trail shows whatever was done to it: a byte changed, an entry left out or put in, words taken away, its end cut off."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audit import erase, forget, record
from gateway.audit.verify import Head, verify
from gateway.state import State, open_state

NOW_US = 1_780_434_720_000_000
ENTRIES = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    made = open_state(f"sqlite:///{path}")
    try:
        fill(made, ENTRIES)
        yield made
    finally:
        made.close()


def fill(state: State, count: int) -> None:
    for at in range(count):
        with state.write() as connection:
            record(
                connection,
                f"account:{at % 3}",
                "alert.acknowledge",
                f"alert/a-{at}",
                NOW_US + at,
                why="向かいます",
                more={"n": at},
            )


def vandal(path: Path, *statements: str) -> None:
    """Somebody who owns the file, and no key of the house."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for statement in statements:
            connection.execute(statement)


def head(state: State) -> Head:
    found = verify(state)
    assert found.head is not None
    return found.head


def test_an_untouched_trail_is_whole_however_it_is_walked(state: State) -> None:
    for piece in (1, 2, ENTRIES, 1000):
        found = verify(state, piece=piece)
        assert (found.entries, found.erased, found.fault) == (ENTRIES, 0, None)


def test_an_empty_trail_is_whole(tmp_path: Path) -> None:
    made = open_state(f"sqlite:///{tmp_path / 'empty.db'}")
    try:
        assert verify(made) == (0, 0, None, 0, None)
    finally:
        made.close()


@pytest.mark.sqlite_only("forges the file")
@pytest.mark.parametrize(
    ("done", "entry", "said"),
    [
        (["UPDATE audit SET at_us = at_us + 1 WHERE id = 3"], 3, "time, digest or hash"),
        (["UPDATE audit SET digest = hash WHERE id = 3"], 3, "time, digest or hash"),
        (["UPDATE audit_details SET who = 'account:other' WHERE id = 4"], 4, "what it says was changed"),
        (["DELETE FROM audit_details WHERE id = 5", "DELETE FROM audit WHERE id = 5"], 5, "missing"),
        (["DELETE FROM audit_details WHERE id = 6"], 6, "no entry says that they were erased"),
        (["UPDATE audit SET id = 99 WHERE id = 2", "UPDATE audit_details SET id = 99 WHERE id = 2"], 2, "missing"),
        (["DELETE FROM audit WHERE id = 7"], 7, "not in the chain"),
        (["UPDATE audit SET at_us = 'noon' WHERE id = 1"], 1, "no entry holds"),
        (["INSERT INTO audit_details SELECT 50, salt, who, action, thing, why, more FROM audit_details WHERE id = 1"], 50,
         "not in the chain"),
    ],
)  # fmt: skip
def test_the_first_broken_entry_is_named(state: State, path: Path, done: list[str], entry: int, said: str) -> None:
    vandal(path, *done)
    fault = verify(state).fault
    assert fault is not None
    assert (fault.id, said in fault.what) == (entry, True), fault


COLUMNS = [("audit", name) for name in ("id", "at_us", "digest", "hash")] + [
    ("audit_details", name) for name in ("id", "salt", "who", "action", "thing", "why", "more")
]


@pytest.mark.sqlite_only("forges the file")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(where=st.sampled_from(COLUMNS), entry=st.integers(1, ENTRIES), at=st.integers(0, 200), flip=st.integers(1, 255))
def test_any_byte_changed_anywhere_is_found(
    state: State, path: Path, where: tuple[str, str], entry: int, at: int, flip: int
) -> None:
    table, column = where
    change = f"UPDATE {table} SET {column} = ? WHERE id = ?"  # noqa: S608
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        [before] = connection.execute(f"SELECT {column} FROM {table} WHERE id = ?", (entry,)).fetchone()  # noqa: S608
        after = changed(before, at, flip)
        try:
            connection.execute(change, (after, entry))
        except sqlite3.IntegrityError:
            return  # another entry has that number
        try:
            assert verify(state).fault is not None, (table, column, before, after)
        finally:
            connection.execute(change, (before, after if column == "id" else entry))
    assert verify(state).fault is None


def changed(value: object, at: int, flip: int) -> object:
    if isinstance(value, int):
        return value ^ (flip << (at % 4 * 8))
    if isinstance(value, bytes):
        return bytes(byte ^ (flip if number == at % len(value) else 0) for number, byte in enumerate(value))
    assert isinstance(value, str)
    if not value:
        return chr(flip + 32)
    spot = at % len(value)
    return value[:spot] + chr(ord(value[spot]) ^ flip or 1) + value[spot + 1 :]


# --- What only somebody outside can know ------------------------------------------------------------------


@pytest.mark.sqlite_only("forges the file")
def test_a_cut_end_is_whole_in_itself_and_found_by_a_head(state: State, path: Path) -> None:
    told = head(state)
    vandal(path, "DELETE FROM audit_details WHERE id > 5", "DELETE FROM audit WHERE id > 5")
    assert verify(state).fault is None
    fault = verify(state, [told]).fault
    assert fault is not None
    assert (fault.id, "ends at 5" in fault.what) == (ENTRIES, True)


@pytest.mark.sqlite_only("forges the file")
def test_a_trail_written_anew_is_found_by_an_old_head(state: State, path: Path) -> None:
    told = head(state)
    vandal(path, "DELETE FROM audit_details", "DELETE FROM audit")
    fill(state, ENTRIES + 3)
    assert verify(state).fault is None
    fault = verify(state, [told]).fault
    assert fault is not None
    assert (fault.id, "written anew" in fault.what) == (ENTRIES, True)


def test_heads_of_a_trail_that_went_on_agree(state: State) -> None:
    told = head(state)
    fill(state, 2)
    found = verify(state, [told, head(state)])
    assert (found.heads, found.fault) == (2, None)


# --- Erasing ----------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only("forges the file")
def test_what_was_erased_is_counted_and_the_chain_holds(state: State, path: Path) -> None:
    with state.write() as connection:
        assert erase(connection, "token:tanaka", NOW_US, things=["alert/a-2"], who=["account:0"]) == 4
        assert erase(connection, "token:tanaka", NOW_US, things=["alert/a-2"], who=["account:0"]) == 0
    found = verify(state)
    assert (found.entries, found.erased, found.fault) == (ENTRIES + 1, 4, None)
    with closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT who FROM audit_details").fetchall()
    assert ("account:0",) not in left


def test_an_entry_about_two_things_goes_with_either(state: State) -> None:
    with state.write() as connection:
        record(connection, "account:9", "mimamori.manage", "watched/ab", NOW_US, more={"with": ["tag/ibeacon:1_2"]})
        record(connection, "account:9", "mimamori.manage", "watched/ab", NOW_US, more={"with": ["tag/ibeacon:1x2"]})
    with state.write() as connection:
        assert erase(connection, "time", NOW_US, things=["tag/ibeacon:1_2"]) == 1


def test_age_empties_all_that_is_old_and_its_own_entries_too_in_time(state: State) -> None:
    with state.write() as connection:
        assert forget(connection, NOW_US + 3, NOW_US + 100) == 3
    with state.write() as connection:
        assert forget(connection, NOW_US + 200, NOW_US + 300) == ENTRIES - 3 + 1
    found = verify(state)
    assert (found.entries, found.erased, found.fault) == (ENTRIES + 2, ENTRIES + 1, None)


def test_it_is_walked_while_others_append(state: State) -> None:
    seen = []
    for piece in (1, 2, 3):
        fill(state, 1)
        seen.append(verify(state, piece=piece).entries)
    assert seen == [ENTRIES + 1, ENTRIES + 2, ENTRIES + 3]
