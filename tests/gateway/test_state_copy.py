"""A town's state moves from its SQLite file into an empty database, whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from gateway.errors import ConfigError
from gateway.state import State, open_state
from gateway.state.copy import copy
from gateway.state.tables import alert_history, alerts, cursors, metadata, workers
from tests.gateway.api.conftest import DEFAULTS, NOW_US


@pytest.fixture
def old(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(open_state(f"sqlite:///{tmp_path / 'old.db'}")) as state:
        with state.write() as connection:
            connection.execute(insert(cursors).values(name="watch", value=7))
            connection.execute(insert(workers).values(name="here", role="api", until_us=1))
            alert = DEFAULTS["alerts"](NOW_US)
            connection.execute(insert(alerts).values(alert))
            for _ in range(2500):
                connection.execute(insert(alert_history).values({**DEFAULTS["alert_history"](NOW_US), "alert": alert["id"]}))
        yield state


@pytest.fixture
def new(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(open_state(f"sqlite:///{tmp_path / 'new.db'}")) as state:
        yield state


def rows(state: State) -> dict[str, list[tuple[object, ...]]]:
    with state.read() as connection:
        return {table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
                for table in metadata.sorted_tables if table is not workers}  # fmt: skip


def test_every_row_comes_over_and_new_ones_are_numbered_after_them(old: State, new: State) -> None:
    counts = copy(old, new)
    assert (counts["alert_history"], counts["cursors"], "workers" in counts) == (2500, 1, False)
    assert rows(new) == rows(old)
    with new.write() as connection:
        alert = connection.scalar(select(alerts.c.id))
        connection.execute(insert(alert_history).values({**DEFAULTS["alert_history"](NOW_US), "alert": alert}))
        assert connection.scalar(select(alert_history.c.id).order_by(alert_history.c.id.desc()).limit(1)) == 2501


def test_a_database_that_holds_something_is_left_as_it_is(old: State, new: State) -> None:
    with new.write() as connection:
        connection.execute(insert(cursors).values(name="watch", value=1))
    before = rows(new)
    with pytest.raises(ConfigError, match="not empty"):
        copy(old, new)
    assert rows(new) == before


def test_what_breaks_on_the_way_leaves_nothing_behind(old: State, new: State) -> None:
    with pytest.raises(RuntimeError):
        copy(old, new, said=lambda table, _: (_ for _ in ()).throw(RuntimeError(table)) if table == "alerts" else None)
    assert all(found == [] for found in rows(new).values())
