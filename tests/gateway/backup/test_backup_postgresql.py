"""State on PostgreSQL goes into a backup by its own tools, at one moment while others write, and back into an empty database."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert, select

from gateway.backup import backup
from gateway.config import load
from gateway.state import open_state
from gateway.state.tables import media, town_modes
from tests import postgresql
from tests.gateway.backup.saved import files_of, furnished, pictures, said, written

pytestmark = [pytest.mark.services, pytest.mark.sqlite_only("it names a server of its own")]


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.running() as running:
        yield running


def on(config: Path, url: str) -> Path:
    """The same gateway with its state there."""
    text = config.read_text()
    [state] = [line for line in text.splitlines() if line.startswith("state = ")]
    erased = f'keep = {{ erasures_file = "{config.parent}/erased" }}'
    config.write_text(text.replace(state, f'state = {{ url = "{url}" }}\n{erased}'))
    return config


def test_state_on_a_server_comes_back_in_an_empty_database(server: postgresql.Server, tmp_path: Path) -> None:
    url = server.make("old")
    config = on(furnished(tmp_path / "old"), url)
    [name] = pictures(tmp_path / "old", 1)
    state = open_state(url)
    mode = {"mode": "disaster", "since_us": 1, "who": "test", "why": "架空の地震"}
    with state.write() as connection:
        connection.execute(insert(town_modes), mode)
        connection.execute(insert(media), {"sha256": name, "size": 1, "content_type": "application/gzip", "received_us": 1})
    (tmp_path / "disk").mkdir()
    with state.write() as connection:
        connection.execute(insert(town_modes), {**mode, "mode": "normal"})
        folder = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder  # beside a writer
    state.close()
    there = on(written(tmp_path / "new"), server.make("new"))
    assert said("restore", there, folder, "--dry-run")["in_the_way"] == []
    said("restore", there, folder)
    assert "empty machine" in said("restore", there, folder, code=1)["error"]
    state = open_state(server.url("new"))
    with state.write() as connection:
        assert connection.scalars(select(town_modes.c.mode)).all() == ["disaster"]
        connection.execute(insert(town_modes), {**mode, "mode": "normal"})  # numbered behind those that came back
    state.close()
    assert files_of(tmp_path / "new/media") == files_of(tmp_path / "old/media")
    with psycopg.connect(server.url("new")) as direct:
        assert direct.execute("SELECT name FROM cursors").fetchall() == [("restore_tested_us",)]


def test_a_dump_that_is_damaged_and_an_upgrade_are_known_before(server: postgresql.Server, tmp_path: Path) -> None:
    url = server.make("one")
    config = on(furnished(tmp_path / "old"), url)
    open_state(url).close()
    (tmp_path / "disk").mkdir()
    folder = Path(said("backup", config, tmp_path / "disk")["folder"])
    assert said("upgrade", config, "--check")["faults"] == []
    dump = folder / "state.dump"
    dump.write_bytes(dump.read_bytes()[:-100])
    assert "state.dump" in str(said("restore", config, folder, "--dry-run", code=1)["faults"])
