"""A gateway's configuration on real files, what is in them, and its programs as processes."""

import gzip
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from alembic import command as alembic_command
from alembic.config import Config
from sqlalchemy import create_engine

from gateway.cli import main
from gateway.media import MediaShelf
from gateway.state import open_state
from gateway.state.database import MIGRATIONS
from gateway.store import SqliteStore, SqliteStoreConfig

ROOT = Path(__file__).parents[3]
SECRET = "an-invented-secret-of-a-webhook"
Tables = dict[str, list[tuple[Any, ...]]]


def written(folder: Path, broker_url: str = "mqtt://127.0.0.1:9", more: str = "") -> Path:
    """gateway.toml of a gateway all of whose things are in one folder. The secrets are there only if somebody put them there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gateway.toml"
    path.write_text(
        f"""
broker = {{ url = "{broker_url}" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/etc/tokens", port = 0 }}
media = {{ folder = "{folder}/media" }}
people = {{ public_url = "https://a.example", folder = "{folder}/people", office = "office", town = "霧沢町" }}
route = [{{ to = ["office"] }}]
{more}
[rule]
sprung = {{ type = "occurrence", event = "trap_sprung" }}
[contact]
office = {{ type = "webhook", url = "http://127.0.0.1:9/", secret_file = "{folder}/etc/hook" }}
"""
    )
    return path


def furnished(folder: Path, broker_url: str = "mqtt://127.0.0.1:9") -> Path:
    """The same, with its secrets and a folder of keys."""
    path = written(folder, broker_url)
    for name, text, mode in (("etc/tokens", "tanaka operator invented-operator-token\n", 0o600), ("etc/hook", SECRET, 0o640)):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    (folder / "people").mkdir(mode=0o700)
    key = folder / "people" / "a-key"
    key.write_text("invented key")
    key.chmod(0o400)
    open_state(f"sqlite:///{folder}/state.db").close()
    SqliteStore(SqliteStoreConfig(type="sqlite", path=folder / "series.db")).close()
    return path


def pictures(folder: Path, number: int, size: int = 3) -> list[str]:
    """So many files on record, as nodes send them."""
    state = open_state(f"sqlite:///{folder}/state.db")
    names = []
    try:
        shelf = MediaShelf(folder / "media", state, lambda: 1)
        for one in range(number):
            content = gzip.compress(f"{one}".encode() + os.urandom(size), 0)
            names.append(hashlib.sha256(content).hexdigest())
            shelf.keep(names[-1], content, "application/gzip")
    finally:
        state.close()
    return names


def command(*argv: str | Path) -> list[str]:
    """As an operator types it: another process."""
    return [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())", *map(str, argv)]


def started(*argv: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def upgraded_to(revision: str, path: Path) -> None:
    """A state database as an earlier version left it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic_command.upgrade(config, revision)
    engine.dispose()


@contextmanager
def gateway(config: Path) -> Iterator[None]:
    """A gateway at work, from when it says where its page is until it has ended."""
    with (config.parent / "log").open("w") as log:
        process = subprocess.Popen(
            command("run", config, "--json"), stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["ok"] is True
            yield
            process.terminate()
            process.communicate(timeout=40)
        finally:
            process.kill()
            process.communicate()


def said(*argv: str | Path, code: int = 0) -> dict[str, Any]:
    """What the command tells a program."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        ended = main([*map(str, argv), "--json"])
    assert ended == code, out.getvalue() + err.getvalue()
    body: dict[str, Any] = json.loads(out.getvalue())
    return body


def said_beside(*argv: str | Path) -> dict[str, Any]:
    """The same by another process."""
    process = started(*argv, "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    body: dict[str, Any] = json.loads(out)
    return body


def killed_when(process: "subprocess.Popen[str]", seen: Callable[[], bool]) -> None:
    """kill -9 at the moment that something is there."""
    give_up = time.monotonic() + 60
    while not seen():
        assert process.poll() is None, f"it ended before: {process.communicate()}"
        assert time.monotonic() < give_up
    process.kill()
    process.communicate()


def tables_of(path: Path) -> Tables:
    """Every row of every table of a SQLite file, which is left as it is."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}  # noqa: S608


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
