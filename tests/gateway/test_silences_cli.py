"""satomori-gateway silence: made, listed and ended at the command line, by name, with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.config import load
from gateway.errors import ConfigError

CONFIG = """
broker = {{ url = "mqtt://127.0.0.1:9" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/tokens" }}
media = {{ folder = "{folder}/media" }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code = main(["silence", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_silence_is_made_listed_and_ended(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, made = said(capsys, "add", config, "--node", "kitayama-03", "--kind", "trap", "--for", "12h", "--why", "わなの点検")
    one = made["silence"]
    assert (code, json.loads(one["match"])) == (0, {"kind": "trap", "node": "kitayama-03"})
    assert (one["until_us"] - one["from_us"], one["why"]) == (12 * 3600 * 1_000_000, "わなの点検")
    assert one["created_by"].startswith("cli")
    assert main(["silence", "list", str(config)]) == 0
    assert "kind=trap node=kitayama-03" in capsys.readouterr().out
    assert said(capsys, "end", config, "1")[0] == 0
    assert said(capsys, "list", config)[1]["silences"] == []
    assert [row["id"] for row in said(capsys, "list", config, "--all")[1]["silences"]] == [1]
    code, answer = said(capsys, "end", config, "1")
    assert (code, answer["ok"]) == (1, False)


@pytest.mark.parametrize(("arguments", "says"), [
    (["--for", "1h"], "say at least one of"),
    (["--for", "soon", "--node", "a"], "--for: 'soon' is no duration"),
    (["--for", "40d", "--node", "a"], "At most 31 days"),
])  # fmt: skip
def test_what_would_be_no_good_silence_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, answer = said(capsys, "add", config, "--why", "x", *arguments)
    assert (code, says in answer["error"]) == (2, True)
    assert said(capsys, "list", config, "--all")[1]["silences"] == []


@pytest.mark.parametrize(("more", "says"), [
    ('[rule]\ngateway = { type = "occurrence", event = "trap_sprung" }\n', "rule.gateway: the gateway has a rule of this name"),
    ('[[inhibit]]\nname = "x"\nsource = {}\ntarget = { kind = "trap" }\n', "an empty match fits every alert"),
    ('[[maintenance]]\nfrom = "25:00"\nto = "06:00"\nwhy = "x"\n', "maintenance.0.from"),
    ('[[maintenance]]\nfrom = "05:00"\nto = "06:00"\n', "maintenance.0.why"),
    ("[flapping]\ncount = 0\n", "flapping.count"),
])  # fmt: skip
def test_settings_that_would_mute_wrongly_are_named(config: Path, more: str, says: str) -> None:
    config.write_text(config.read_text() + more, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        load(config)
