"""State on PostgreSQL goes into a backup by its own tools, at one moment while others write, and back into an empty database."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, select

from gateway.backup import backup
from gateway.backup import postgresql as of_server
from gateway.backup.restore import MARKER
from gateway.config import load
from gateway.state import open_state
from gateway.state.tables import media, town_modes
from tests import postgresql
from tests.gateway.backup.saved import files_of, furnished, pictures, said, written

pytestmark = [pytest.mark.services, pytest.mark.sqlite_only("it names a server of its own")]


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


def test_who_comes_in_by_password_backs_up_looks_and_restores_by_it(server: postgresql.Server, tmp_path: Path) -> None:
    """As every server but a test's asks for one."""
    server.run("CREATE ROLE guest LOGIN SUPERUSER PASSWORD 'an example password'")
    here, there = furnished(tmp_path / "old"), written(tmp_path / "new")
    (tmp_path / "disk").mkdir()
    for config, database in ((here, "closed"), (there, "closed-new")):
        url = server.make(database).replace("//satomori@", "//guest@")
        password = config.parent / "password"
        password.write_text("an example password\n")
        password.chmod(0o600)
        on(config, url)
        config.write_text(config.read_text().replace(f'url = "{url}"', f'url = "{url}", password_file = "{password}"'))
    open_state(server.url("closed")).close()
    with server.asking_passwords():
        made = said("backup", here, tmp_path / "disk")
        assert made["noted"] is True
        assert said("upgrade", here, "--check")["faults"] == []
        said("restore", there, made["folder"])
    assert b"an example password" not in (Path(made["folder"]) / "manifest.json").read_bytes()


def test_the_dump_is_of_the_moment_at_which_the_rest_was_counted(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed between the counting and the dump is in neither: else no backup of a busy town would ever be whole."""
    config = on(furnished(tmp_path / "old"), server.make("busy"))
    (tmp_path / "disk").mkdir()
    state, run = open_state(server.url("busy")), of_server._run

    def meanwhile(*of: Any) -> None:
        with state.write() as connection:
            connection.execute(insert(town_modes), {"mode": "disaster", "since_us": 1, "who": "test", "why": "架空の地震"})
        run(*of)

    monkeypatch.setattr(of_server, "_run", meanwhile)
    folder = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder
    monkeypatch.undo()
    state.close()
    there = on(written(tmp_path / "new"), server.make("busy-new"))
    said("restore", there, folder)
    with psycopg.connect(server.url("busy-new")) as direct:
        assert direct.execute("SELECT count(*) FROM town_modes").fetchone() == (0,)


def test_a_database_that_somebody_began_while_a_restore_was_interrupted_is_not_taken_for_the_restored_one(
    server: postgresql.Server, tmp_path: Path
) -> None:
    config = on(furnished(tmp_path / "old"), server.make("whole"))
    state = open_state(server.url("whole"))
    with state.write() as connection:
        connection.execute(insert(town_modes), {"mode": "disaster", "since_us": 1, "who": "test", "why": "架空の地震"})
    state.close()
    (tmp_path / "disk").mkdir()
    made = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000)
    there = on(written(tmp_path / "new"), server.make("begun"))
    (tmp_path / "new/media").mkdir()
    (tmp_path / "new/media" / MARKER).write_text(json.dumps({"made_us": made.manifest.made_us}))
    open_state(server.url("begun")).close()  # as by a worker on another machine, which sees no marker of this one
    assert "other rows than the backup" in said("restore", there, made.folder, code=2)["error"]
    assert (tmp_path / "new/media" / MARKER).exists(), "and no gateway starts on it here"
    server.run("DROP DATABASE begun")
    server.make("begun")
    said("restore", there, made.folder)


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
