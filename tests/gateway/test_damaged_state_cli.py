"""Whatever is the matter with the databases, each command says it in one line: what, where, and what to do next."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from gateway import silences, state_cli
from gateway.cli import COMMANDS, main
from gateway.config import load
from gateway.state import open_state
from gateway.state.database import trouble
from gateway.state.tables import audit_details, cursors
from gateway.store import open_store

pytestmark = pytest.mark.sqlite_only("files are damaged")

# A command below each, with what stands before gateway.toml and what behind it.
TRIED: dict[str, tuple[str, str]] = {
    "run": ("", ""),
    "check": ("", ""),
    "node": ("list", ""),
    "contact": ("list", ""),
    "invite": ("add", "hunters"),
    "account": ("add", "--name Tanaka --role operator"),
    "mimamori": ("list", ""),
    "silence": ("add", "--for 1h --why storm --node kita"),
    "keep": ("report", ""),
    "erase": ("contact", "0123456789abcdef --yes"),
    "job": ("list", ""),
    "audit": ("verify", ""),
    "backup": ("", "{folder}"),
    "upgrade": ("", "--check"),
    "store": ("init", ""),
    "state": ("copy", "{folder}/state.db"),
}
READS_NONE = {"authority", "draft", "restore"}
"""What opens no database that is there, but to enter that it was asked for."""


def every_table(file: Path) -> None:
    _overwritten(file, lambda _: True)


def tables_that_no_open_looks_at(file: Path) -> None:
    """It opens, and fails in use: an open looks at what points to other tables."""
    with closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        looked_at = {name for name in tables if connection.execute(f"PRAGMA foreign_key_list({name})").fetchone()}
    _overwritten(file, lambda name: name not in looked_at)


def _overwritten(file: Path, which: Callable[[str], bool]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        [(size,)] = connection.execute("PRAGMA page_size")
        roots = connection.execute("SELECT tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0").fetchall()
    pages = bytearray(file.read_bytes())
    for name, root in roots:
        if name != "alembic_version" and which(name):
            pages[(root - 1) * size : root * size] = bytes([255]) * size
    file.write_bytes(pages)


def no_database(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def half_of_it(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def a_schema_that_is_no_text(file: Path) -> None:
    """SQLite's own message of it is no text either."""
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE", b"CR\xffATE TABLE"))


def a_newer_satomori_s(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def another_program_s(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of a gateway that has run."""
    folder = tmp_path_factory.mktemp("whole")
    open_state(f"sqlite:///{folder}/state.db").close()
    open_store(load(configured(folder)).store).close()
    return folder


def interrupt() -> None:
    raise KeyboardInterrupt


def configured(folder: Path, state: str = "state.db") -> Path:
    tokens = folder / "tokens"
    tokens.write_text("tanaka operator,officer invented-operator-token\n")
    tokens.chmod(0o600)
    path = folder / "gateway.toml"
    path.write_text(
        f"""
broker = {{ url = "mqtt://127.0.0.1:9" }}
state = {{ url = "sqlite:///{folder}/{state}" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{tokens}", port = 0 }}
media = {{ folder = "{folder}/media" }}
people = {{ town = "T", office = "office", public_url = "http://127.0.0.1:1", folder = "{folder}/people" }}
group = {{ hunters = {{ label = "H" }}, office = {{ label = "O" }} }}
channel.mail = {{ host = "127.0.0.1", port = 9, from = "town@example.org", tls = "none" }}
"""
    )
    return path


def begun(whole: Path, folder: Path, name: str) -> list[str]:
    """The databases in their place; the command of `name`, to be run on them."""
    for file in ("state.db", "series.db"):
        shutil.copy2(whole / file, folder)
    (folder / "media").mkdir()
    path = configured(folder, "new.db" if name == "state" else "state.db")
    what, more = TRIED[name]
    return [name, *what.split(), str(path), *more.format(folder=folder).split()]


def test_every_command_is_tried() -> None:
    assert {name for names in COMMANDS.values() for name in names} == TRIED.keys() | READS_NONE


STEPS = (
    "restore a backup",
    "Install that version",
    "Is it a",
    "is it a",
    "Name a file",
    "Has the gateway run",
    "FILE: there is no",
)
DAMAGES = (every_table, tables_that_no_open_looks_at, no_database, half_of_it, a_schema_that_is_no_text, a_newer_satomori_s,
           another_program_s, a_folder)  # fmt: skip
UNHURT = {
    ("upgrade", every_table), ("upgrade", tables_that_no_open_looks_at), ("account", tables_that_no_open_looks_at),
    ("job", tables_that_no_open_looks_at), ("backup", a_newer_satomori_s),
}  # fmt: skip
"""What reads nothing of what is damaged, and a whole copy of one that is newer."""


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for damage in DAMAGES for name in TRIED if (name, damage) not in UNHURT]
)
def test_a_state_database_that_can_not_be_used_is_said(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    command = begun(whole, tmp_path, name)
    damage(tmp_path / "state.db")
    code = main([*command, "--json"])
    said = capsys.readouterr()
    told = json.loads(said.out)
    if name == "check":
        assert (code, said.err) == (1, "")
        fault = told["faults"]["state"]
    elif name == "upgrade" and "faults" in told:
        (fault,) = told["faults"]
        assert (code, said.err) == (1, "")
    else:
        assert code in (1, 2)
        assert len(said.err.splitlines()) == 1, "and no traceback"
        fault = told["error"]
        assert str(tmp_path / "state.db") in fault or "newer satomori" in fault
    assert any(step in fault for step in STEPS)


@pytest.mark.parametrize("name", ["check", "store", "run"])
@pytest.mark.parametrize("damage", [every_table, no_database, half_of_it, a_schema_that_is_no_text, another_program_s, a_folder])
def test_a_series_file_that_can_not_be_used_is_said(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    command = begun(whole, tmp_path, name)
    damage(tmp_path / "series.db")
    assert main([*command, "--json"]) in (1, 2)
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert len(said.err.splitlines()) == (0 if name == "check" else 1), "and no traceback"
    fault = told["faults"]["store"] if name == "check" else told["error"]
    assert f"{tmp_path}/series.db" in fault
    assert any(step in fault for step in ("restore a backup", "a file of its own", "Does its folder exist"))


def test_another_program_s_database_is_left_as_it_is(whole: Path, tmp_path: Path) -> None:
    command = begun(whole, tmp_path, "contact")
    another_program_s(tmp_path / "state.db")
    before = (tmp_path / "state.db").read_bytes()
    assert main(command) == 2
    assert (tmp_path / "state.db").read_bytes() == before
    assert sorted(tmp_path.glob("state.db*")) == [tmp_path / "state.db"]


def test_a_copied_state_says_so_behind_the_trail_that_was_copied(whole: Path, tmp_path: Path) -> None:
    command = begun(whole, tmp_path, "state")
    with closing(open_state(f"sqlite:///{tmp_path}/state.db")) as old, old.write() as connection:
        connection.execute(insert(cursors).values(name="watch", value=7))
    assert main(command) == 0
    with closing(open_state(f"sqlite:///{tmp_path}/new.db")) as new, new.read() as connection:
        assert connection.scalar(select(cursors.c.value).where(cursors.c.name == "watch")) == 7
        assert connection.scalars(select(audit_details.c.action)).all() == ["state.copy"]
        assert connection.scalar(select(func.count()).select_from(audit_details)) == 1
    assert main(command) == 2, "it holds something now"


def test_a_copy_that_was_killed_before_it_could_say_so_is_no_copy(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = begun(whole, tmp_path, "state")
    with closing(open_state(f"sqlite:///{tmp_path}/state.db")) as old, old.write() as connection:
        connection.execute(insert(cursors).values(name="watch", value=7))
    monkeypatch.setattr(state_cli, "record", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        main(command)
    monkeypatch.undo()
    with closing(open_state(f"sqlite:///{tmp_path}/new.db")) as new, new.read() as connection:
        assert connection.scalar(select(func.count()).select_from(cursors)) == 0
    assert main(command) == 0


def test_a_mistake_of_ours_is_no_damaged_database(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reads that a backup would help puts one back, and loses what came since."""

    def add(connection: Connection, *_more: object) -> None:
        for _ in range(2):
            connection.execute(insert(cursors).values(name="watch", value=7))

    command = begun(whole, tmp_path, "silence")
    monkeypatch.setattr(silences, "add", add)
    with pytest.raises(IntegrityError):
        main(command)
    assert "backup" not in capsys.readouterr().err


def test_a_server_that_has_gone_is_looked_after_before_any_backup_is() -> None:
    psycopg = pytest.importorskip("psycopg")
    said = trouble(OperationalError("SELECT", None, psycopg.OperationalError("server closed the connection\nunexpectedly")))
    assert "server closed the connection. Does its server run" in said
    assert "backup" not in said
