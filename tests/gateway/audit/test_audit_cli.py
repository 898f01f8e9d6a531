"""satomori-gateway audit: walked, shown and told at the command line; and what commands change stands in the trail."""

import getpass
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from gateway.audit import record
from gateway.cli import main
from gateway.state import open_state
from gateway.state.tables import audit, audit_details

NOW_US = 1_780_434_720_000_000
CONFIG = """
broker = {{ url = "mqtt://127.0.0.1:9" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/tokens" }}
media = {{ folder = "{folder}/media" }}
audit = {{ heads_file = "{folder}/heads.txt" }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return path


def said(capsys: pytest.CaptureFixture[str], what: str, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["audit", what, *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def act(config: Path, times: int = 1, why: str = "向かいます") -> None:
    state = open_state(f"sqlite:///{config.parent / 'state.db'}")
    with state.write() as connection:
        for at in range(times):
            record(connection, "account:0123456789abcdef", "alert.acknowledge", f"alert/a-{at}", NOW_US, why=why)
    state.close()


def test_a_whole_trail_is_said_to_be_so_and_a_broken_one_exits_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act(config, 3)
    code, found = said(capsys, "verify", config)
    assert (code, found["entries"], found["fault"], found["heads"]) == (0, 3, None, 0)
    state = open_state(f"sqlite:///{config.parent / 'state.db'}")
    with state.write() as connection:
        connection.execute(update(audit_details).where(audit_details.c.id == 2).values(who="account:somebody-else"))
    state.close()
    assert main(["audit", "verify", str(config)]) == 1
    assert "entry 2: what it says was changed" in capsys.readouterr().err


def test_its_end_is_compared_with_what_was_kept_outside(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act(config, 3)
    main(["audit", "head", str(config)])
    kept = config.parent / "paper.txt"
    kept.write_text(capsys.readouterr().out)
    (config.parent / "heads.txt").write_text(kept.read_text())
    assert said(capsys, "verify", config)[1]["heads"] == 1
    state = open_state(f"sqlite:///{config.parent / 'state.db'}")
    with state.write() as connection:
        connection.execute(delete(audit_details).where(audit_details.c.id == 3))
        connection.execute(delete(audit).where(audit.c.id == 3))
    state.close()
    for more in ((), ("--heads", kept)):
        code, found = said(capsys, "verify", config, *more)
        assert (code, found["fault"]["id"]) == (1, 3)
    assert said(capsys, "verify", config, "--heads", config.parent / "nothing")[0] == 2


def test_it_works_on_a_database_in_use(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act(config)
    state = open_state(f"sqlite:///{config.parent / 'state.db'}")
    try:
        with state.read() as reading:
            assert reading.execute(select(audit)).all()
            for entries in (2, 3):
                with state.write() as connection:
                    record(connection, "token:x", "alert.resolve", "alert/a-9", NOW_US)
                assert said(capsys, "verify", config)[1]["entries"] == entries
    finally:
        state.close()


def test_what_is_shown_fits_80_columns(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act(config, 2, why="見回り" * 40 + "\x1b[2J")
    assert main(["audit", "show", str(config), "--thing", "alert/a-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["2", "2026-06-03", "06:12", "JST", "account:0123456789abcdef", "alert.acknowledge"]
    assert lines[1].split()[0] == "alert/a-1"
    for line in lines:
        assert sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line) <= 80
        assert line.isprintable()
    assert [one["id"] for one in said(capsys, "show", config, "--who", "account:0123456789abcdef")[1]["entries"]] == [2, 1]


def test_what_a_command_changes_is_there_before_it_is_done(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["silence", "add", str(config), "--node", "kitayama-03", "--for", "40d", "--why", "点検"])  # refused: too long
    main(["silence", "list", str(config)])
    [one] = said(capsys, "show", config)[1]["entries"]
    assert (one["who"], one["action"], one["thing"]) == (f"cli:{getpass.getuser()}", "silence.add", "node/kitayama-03")
    assert "点検" not in str(one)


def test_what_came_of_a_command_stands_there_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silence = ("silence", "add", str(config), "--node", "kitayama-03", "--why", "点検", "--for")
    assert (main([*silence, "40d"]), main([*silence, "1d"]), main(["silence", "end", str(config), "99"])) == (2, 0, 1)
    found = said(capsys, "show", config)[1]["entries"]
    assert [(one["action"], one["outcome"]) for one in found] == [
        ("silence.end", "refused"), ("silence.add", "done"), ("silence.add", "refused"),
    ]  # fmt: skip
    main(["audit", "show", str(config), "--limit", "1"])
    assert capsys.readouterr().out.splitlines()[0].split()[-2:] == ["silence.end", "refused"]


def test_who_is_not_in_the_trail_is_said_and_who_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act(config)
    assert main(["audit", "show", str(config), "--who", "tanaka"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told == "no entry by tanaka; there are entries by: account:0123456789abcdef"
    assert main(["audit", "show", str(config), "--action", "look"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told == "no entry of the action look; there are entries of the action: alert.acknowledge"
