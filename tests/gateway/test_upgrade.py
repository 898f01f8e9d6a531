"""What an upgrade would do is known before, and knowing it changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.upgrade import pending, revisions
from tests.gateway.backup.saved import files_of, furnished, said, tables_of, upgraded_to, written

pytestmark = pytest.mark.sqlite_only("its file is made as an earlier version left it")


def test_of_an_older_database_it_says_which_steps_would_run_and_runs_none(tmp_path: Path) -> None:
    config = written(tmp_path)
    upgraded_to("0002", tmp_path / "state.db")
    before = files_of(tmp_path)
    found = said("upgrade", config, "--check")
    assert found["schema"] == "0002"
    assert [step["revision"] for step in found["migrations"]] == revisions()[2:]
    third = found["migrations"][0]
    assert third["name"].startswith("People and what they are told")
    assert "contacts" in third["makes"]
    assert third["corrects"] == ["notifications"]
    assert files_of(tmp_path) == before


def test_a_table_that_would_be_copied_is_named_with_its_rows(tmp_path: Path) -> None:
    """As SQLite can't make a column of another kind in its place."""
    copied = {step.revision: step.rewrites for step in pending("0002")}
    config = written(tmp_path)
    upgraded_to("0002", tmp_path / "state.db")
    found = said("upgrade", config, "--check")
    named = {name for rewrites in copied.values() for name in rewrites} & set(tables_of(tmp_path / "state.db"))
    assert named
    assert found["rows"] == dict.fromkeys(named, 0)


def test_of_one_that_is_up_to_date_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    before = files_of(tmp_path)
    found = said("upgrade", config, "--check")
    assert (found["schema"], found["migrations"], found["faults"]) == (revisions()[-1], [], [])
    assert files_of(tmp_path) == before


def test_before_the_first_start_it_makes_nothing(tmp_path: Path) -> None:
    config = written(tmp_path)
    assert said("upgrade", config, "--check")["schema"] is None
    assert list(files_of(tmp_path)) == ["gateway.toml"]


def test_databases_of_a_newer_version_are_a_fault(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with closing(sqlite3.connect(tmp_path / "series.db")) as connection, connection:
        connection.execute("PRAGMA user_version = 9999")
    state, series = said("upgrade", config, "--check", code=1)["faults"]
    assert "newer satomori (schema 9999" in state
    assert "store.path: a newer satomori" in series


def test_what_is_no_database_of_ours_and_what_is_no_configuration_is_said(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    (tmp_path / "state.db").write_bytes(b"no database at all" * 100)
    assert "Is it a satomori database?" in said("upgrade", config, "--check", code=2)["error"]
    config.write_text(config.read_text() + "\nnothing = 1\n")
    assert "nothing" in said("upgrade", config, "--check", code=2)["error"]


def test_without_check_it_says_that_the_start_does_it(tmp_path: Path) -> None:
    assert "when it starts" in said("upgrade", furnished(tmp_path), code=2)["error"]
