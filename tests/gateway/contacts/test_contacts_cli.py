"""`contact` and `invite` as an officer meets them, on the database of a gateway."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.cli import main
from gateway.contacts import proof
from gateway.state import open_state
from gateway.state.tables import addresses, notifications

Say = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tokens").write_text("tanaka operator,officer invented-operator-token\n")
    (tmp_path / "tokens").chmod(0o600)
    path = tmp_path / "gateway.toml"
    path.write_text(
        f"""
broker = {{ url = "mqtt://127.0.0.1" }}
state = {{ url = "sqlite:///{tmp_path}/state.db" }}
store = {{ type = "sqlite", path = "{tmp_path}/series.db" }}
api = {{ tokens_file = "{tmp_path}/tokens" }}
media = {{ folder = "{tmp_path}/media" }}
people = {{ public_url = "https://gateway.example", folder = "{tmp_path}/people", office = "office" }}
[channel]
mail = {{ host = "mail.example.jp", from = "satomori@example.jp" }}
twilio = {{ account_sid = "AC{"0" * 32}", auth_token_file = "{tmp_path}/token", from = "+815000000009" }}
[group]
farmers = {{ label = "北山のわな番" }}
office = {{ label = "役場" }}
""",
        encoding="utf-8",
    )
    return path


def told(capsys: Say, config: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """What `satomori-gateway <two words> gateway.toml <rest> --json` says."""
    capsys.readouterr()
    assert main([*words[:2], str(config), *words[2:], "--json"]) == code
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["ok"] is (code == 0)
    return said


def entered(capsys: Say, config: Path, *more: str) -> dict[str, Any]:
    made: dict[str, Any] = told(capsys, config, "contact", "add", "--name", "田中", "--group", "farmers", *more)["contact"]
    return made


def test_an_officer_enters_a_landline_whose_test_is_a_call(config: Path, capsys: Say) -> None:
    made = entered(capsys, config, "--voice", "050-0000-0001", "--mail", "tanaka@example.jp")
    assert [(one["channel"], one["address"], one["state"]) for one in made["addresses"]] == [
        ("mail", "tanaka@example.jp", "new"),
        ("voice", "+815000000001", "new"),
    ]
    state = open_state(f"sqlite:///{config.parent}/state.db")
    with state.read() as connection:
        rows = connection.execute(select(notifications).where(notifications.c.kind == "test")).all()
    state.close()
    assert sorted(row.channel for row in rows) == ["mail", "voice"]
    assert "https://gateway.example/a/" in rows[0].body, "mails have a link to press"
    assert (config.parent / "people" / "link.key").stat().st_mode & 0o077 == 0


def test_the_list_says_who_can_be_reached(config: Path, capsys: Say) -> None:
    made = entered(capsys, config, "--mail", "tanaka@example.jp")
    assert [one["name"] for one in told(capsys, config, "contact", "list", "--unreachable")["contacts"]] == ["田中"]
    state = open_state(f"sqlite:///{config.parent}/state.db")
    with state.write() as connection:
        proof.heard(connection, connection.scalar(select(addresses.c.id)) or "", 1)
    state.close()
    assert told(capsys, config, "contact", "list", "--unreachable")["contacts"] == []
    assert told(capsys, config, "contact", "list", "--group", "office")["contacts"] == []
    assert main(["contact", "list", str(config)]) == 0
    out = capsys.readouterr().out
    assert f"{made['id']}  田中 (ja)  farmers: reachable" in out
    assert "tanaka@example.jp: proved, last heard" in out


def test_what_is_changed_is_what_is_given(config: Path, capsys: Say) -> None:
    made = entered(capsys, config, "--mail", "tanaka@example.jp")
    words = ("--name", "田中 太郎", "--join", "office", "--leave", "farmers", "--drop", made["addresses"][0]["id"])
    changed = told(capsys, config, "contact", "change", made["id"], *words, "--sms", "050-0000-0002")["contact"]
    assert (changed["name"], changed["groups"], changed["language"]) == ("田中 太郎", ["office"], "ja")
    assert [one["channel"] for one in changed["addresses"]] == ["sms"]
    told(capsys, config, "contact", "remove", made["id"], "--yes")
    assert told(capsys, config, "contact", "list")["contacts"] == []


def test_what_cannot_be_is_refused_whole(config: Path, capsys: Say) -> None:
    made = entered(capsys, config)
    for words in (
        ("change", made["id"], "--name", "鈴木", "--join", "farmer"),
        ("change", made["id"], "--name", "鈴木", "--mail", "nowhere"),
        ("change", made["id"], "--name", "\n"),
        ("change", made["id"], "--leave", "office"),
        ("change", "0" * 16, "--name", "鈴木"),
        ("remove", made["id"]),
        ("remove", "0" * 16, "--yes"),
        ("away", made["id"], "--until", "2020-01-01"),
    ):
        assert told(capsys, config, "contact", *words, code=2)["error"]
    assert [one["name"] for one in told(capsys, config, "contact", "list")["contacts"]] == ["田中"]
    assert told(capsys, config, "contact", "test", made["id"], code=1)["error"].startswith("they have no address")


@pytest.mark.parametrize(
    ("option", "section"), [("--mail", "channel.mail"), ("--sms", "channel.twilio"), ("--voice", "channel.twilio")]
)
def test_an_address_over_which_nothing_could_be_sent_is_refused_and_nobody_is_entered(
    config: Path, capsys: Say, option: str, section: str
) -> None:
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith(("mail", "twilio"))))
    to = "tanaka@example.jp" if option == "--mail" else "050-0000-0001"
    said = told(capsys, config, "contact", "add", "--name", "田中", "--group", "farmers", option, to, code=2)["error"]
    assert f"[{section}]" in said
    assert told(capsys, config, "contact", "list")["contacts"] == []


def test_who_may_be_there_already_is_said(config: Path, capsys: Say) -> None:
    first = entered(capsys, config, "--sms", "050-0000-0001")
    words = ("contact", "add", "--name", "田　中", "--group", "office", "--voice", "050-0000-0001")
    second = told(capsys, config, *words)
    assert [first["id"] in one for one in second["warnings"]] == [True, True]
    assert "is called the same" in second["warnings"][0]
    assert "has the same telephone number" in second["warnings"][1]
    third = told(capsys, config, "contact", "add", "--name", "鈴木", "--group", "office")
    assert third["warnings"] == []
    told(capsys, config, "contact", "remove", second["contact"]["id"], "--yes")
    assert told(capsys, config, "contact", "change", first["id"], "--language", "en")["warnings"] == []


def test_somebody_is_away_with_a_deputy_and_back(config: Path, capsys: Say) -> None:
    made, deputy = entered(capsys, config), entered(capsys, config)
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(days=2)).date().isoformat()  # the command reads the machine's clock
    noted = told(capsys, config, "contact", "away", made["id"], "--until", soon, "--deputy", deputy["id"])
    assert noted["deputy"] is None, "who can't be reached stands in for nobody"
    shown = told(capsys, config, "contact", "list")["contacts"][0]
    assert (shown["deputy"], shown["away_until_us"]) == (deputy["id"], noted["until_us"])
    assert told(capsys, config, "contact", "back", made["id"])["was_away"] is True
    assert told(capsys, config, "contact", "back", made["id"])["was_away"] is False


def test_a_code_is_printed_with_what_to_scan_and_can_be_ended(config: Path, capsys: Say) -> None:
    made = told(capsys, config, "invite", "add", "farmers", "--uses", "30", "--days", "14")
    assert made["qr"] == f"https://gateway.example/join/{made['code'].replace('-', '')}"
    assert main(["invite", "add", str(config), "farmers"]) == 0
    out = capsys.readouterr().out
    assert "█" in out
    assert re.search(r"^北山のわな番: \S{4}-\S{4}   1 use", out, re.MULTILINE)
    listed = told(capsys, config, "invite", "list")
    assert {one["uses_left"] for one in listed["invitations"]} == {30, 1}
    assert [one["group"] for one in listed["groups"]] == ["farmers", "office"]
    told(capsys, config, "invite", "end", made["id"])
    told(capsys, config, "invite", "end", made["id"], code=2)
    told(capsys, config, "invite", "add", "farmer", code=2)


@pytest.mark.parametrize("words", [("--uses", "0"), ("--uses", "1001"), ("--days", "9" * 5000)])
def test_numbers_that_cannot_be_are_named(config: Path, capsys: Say, words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main(["invite", "add", str(config), "farmers", *words])
    assert "is no whole number from 1 to" in capsys.readouterr().err


def test_without_people_in_the_configuration_it_says_so(config: Path, capsys: Say) -> None:
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("people")))
    assert "[people]" in told(capsys, config, "contact", "list", code=2)["error"]


def test_an_office_that_is_nobody_is_a_fault_of_the_configuration(config: Path, capsys: Say) -> None:
    config.write_text(config.read_text().replace('office = "office"', 'office = "offices"'))
    assert "people.office: neither contact.offices nor group.offices" in told(capsys, config, "contact", "list", code=2)["error"]
