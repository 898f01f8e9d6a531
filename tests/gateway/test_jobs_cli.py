"""satomori-gateway job: an installer is let to nodes for a time, at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.cli import main
from gateway.state import open_state
from gateway.state.tables import accounts

CONFIG = """
broker = {{ url = "mqtt://127.0.0.1:9" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/tokens" }}
media = {{ folder = "{folder}/media" }}
"""
INSTALLER = "1" * 16


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    state = open_state(f"sqlite:///{tmp_path}/state.db")
    try:
        with state.write() as connection:
            for id_, name in ((INSTALLER, "小林"), ("2" * 16, "同じ"), ("3" * 16, "同じ")):
                row = {"id": id_, "name": name, "roles": "installer", "created_us": 0, "created_by": "test"}
                connection.execute(insert(accounts).values(row))
    finally:
        state.close()
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code = main(["job", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("who", [INSTALLER, "小林"])
def test_a_job_is_given_listed_and_ended(config: Path, capsys: pytest.CaptureFixture[str], who: str) -> None:
    nodes = ("--node", "kitayama-03", "--node", "kitayama-04")
    code, made = said(capsys, "add", config, who, *nodes, "--for", "3d", "--label", "北山 2基")
    job = made["job"]
    assert (code, job["account"], job["nodes"]) == (0, INSTALLER, ["kitayama-03", "kitayama-04"])
    assert job["until_us"] - job["from_us"] == 3 * 86_400_000_000
    assert main(["job", "list", str(config)]) == 0
    assert "小林: 北山 2基 kitayama-03 kitayama-04" in " ".join(capsys.readouterr().out.split())
    assert said(capsys, "end", config, job["id"])[0] == 0
    assert said(capsys, "list", config)[1]["jobs"] == []
    assert [one["id"] for one in said(capsys, "list", config, "--all")[1]["jobs"]] == [job["id"]]
    code, answer = said(capsys, "end", config, job["id"])
    assert (code, answer["ok"]) == (1, False)
    main(["audit", "show", str(config), "--thing", "node/kitayama-04", "--json"])
    entered = [(one["action"], one["thing"]) for one in json.loads(capsys.readouterr().out)["entries"]]
    assert entered == [("job.end", f"job/{job['id']}"), ("job.add", f"job/{job['id']}")]


@pytest.mark.parametrize(("arguments", "says"), [
    (["nobody", "--node", "a", "--for", "1h"], "ACCOUNT: there is none"),
    (["同じ", "--node", "a", "--for", "1h"], "say the id"),
    ([INSTALLER, "--node", "a", "--for", "soon"], "--for"),
    ([INSTALLER, "--node", "a", "--for", "100d"], "At most 92 days"),
    ([INSTALLER, "--node", "watched", "--for", "1h"], "can't be the name of a node"),
    ([INSTALLER, "--node", "../x", "--for", "1h"], "can't be the name of a node"),
])  # fmt: skip
def test_what_would_be_no_job_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, answer = said(capsys, "add", config, *arguments, "--label", "北山")
    assert (code, says in answer["error"]) == (2, True), answer
    assert said(capsys, "list", config, "--all")[1]["jobs"] == []
