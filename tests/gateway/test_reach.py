"""The wiring between an alert and a phone: what is there for which configuration."""

import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.doors import open_doors
from gateway.inbox import KEPT_US
from gateway.reach import INBOX, Outside, Reach, open_reach
from gateway.state import open_state
from gateway.state.tables import inbox
from gateway.telemetry import Telemetry

NOW_US = 1_780_455_600_000_000


def configured(folder: Path, channels: dict[str, Any]) -> GatewayConfig:
    return GatewayConfig.model_validate(
        {
            "broker": {"url": "mqtt://127.0.0.1:1883"},
            "state": {"url": f"sqlite:///{folder / 'state.db'}"},
            "store": {"type": "sqlite", "path": str(folder / "series.db")},
            "api": {"tokens_file": str(folder / "tokens")},
            "media": {"folder": str(folder / "media")},
            "people": {"public_url": "https://gateway.example", "folder": str(folder / "keys"), "office": "office"},
            "group": {"office": {"label": "市役所"}},
            "channel": channels,
        }
    )


def reach(folder: Path, **channels: Any) -> tuple[Reach, Any]:
    config = configured(folder, channels)
    state = open_state(config.state.url)
    outside = Outside({}, lambda _topic, _body: None, dict, lambda _name, _row: None)
    return open_reach(config, state, Deployments(()), Telemetry(), lambda: NOW_US, random.Random(1), outside), state


@pytest.fixture
def twilio(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "token").write_text("x" * 32)
    (tmp_path / "token").chmod(0o600)
    return {"account_sid": "AC" + "0" * 32, "auth_token_file": str(tmp_path / "token"), "from": "+815000000001"}


def test_what_calls_leave_in_the_inbox_is_forgotten_without_line_too(tmp_path: Path, twilio: dict[str, Any]) -> None:
    made, state = reach(tmp_path, twilio=twilio)
    with state.write() as connection:
        row = {"id": "twilio:CA1:keypad:1", "channel": "voice", "body": "{}", "received_us": NOW_US - KEPT_US - 1, "done_us": 1}
        connection.execute(insert(inbox), row)
    chore = next(one for one in made.chores._chores if one.name == INBOX)
    chore.run(NOW_US)
    with state.read() as connection:
        assert connection.execute(select(inbox)).all() == []
    made.close()
    state.close()


def test_who_answered_a_test_is_offered_push_where_there_is_push(tmp_path: Path, twilio: dict[str, Any]) -> None:
    for channels, offered in (({"twilio": twilio}, False), ({"push": {"contact": "mailto:office@example.jp"}}, True)):
        (tmp_path / str(offered)).mkdir()
        made, state = reach(tmp_path / str(offered), **channels)
        doors = open_doors(configured(tmp_path / str(offered), channels), state, made, lambda: NOW_US)
        assert made.desk is not None
        assert doors.answer_page is not None
        assert (made.desk.push_url is not None) == (doors.answer_page.push_url is not None) == (doors.push is not None) == offered
        if made.desk.push_url is not None and doors.push is not None:
            token = made.desk.push_url("00000000000000a1", NOW_US).rpartition("/")[2]
            assert doors.push.who(token, NOW_US) == "00000000000000a1"
        made.close()
        state.close()
