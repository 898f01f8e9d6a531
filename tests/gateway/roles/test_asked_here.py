"""What is asked of the process that answers people is done there: its memory is not another one's."""

import random
from pathlib import Path

from sqlalchemy import insert, select

from gateway.chores import Chores
from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.reach import Outside, open_reach
from gateway.roles import _asked_here
from gateway.state import open_state
from gateway.state.tables import addresses, contacts, memberships, notifications
from gateway.telemetry import Telemetry
from tests.gateway.town import NOW_US

MAIL = "tanaka@town.example.jp"


def test_a_link_that_was_asked_for_is_sent_by_the_process_that_was_asked(tmp_path: Path) -> None:
    config = GatewayConfig.model_validate(
        {
            "broker": {"url": "mqtt://127.0.0.1:1883"},
            "state": {"url": f"sqlite:///{tmp_path / 'state.db'}"},
            "store": {"type": "sqlite", "path": str(tmp_path / "series.db")},
            "api": {"tokens_file": str(tmp_path / "tokens")},
            "media": {"folder": str(tmp_path / "media")},
            "people": {"public_url": "https://gateway.example", "folder": str(tmp_path / "keys"), "office": "office"},
            "group": {"office": {"label": "市役所"}, "farmers": {"label": "農家", "role": "farmer"}},
            "channel": {"mail": {"host": "mail.example.jp", "from": MAIL}},
        }
    )
    state, rung = open_state(config.state.url), list[str]()
    outside = Outside({}, lambda _topic, _body: None, dict, lambda _name, _row: None, ring=rung.append)
    telemetry = Telemetry()
    reach = open_reach(config, state, Deployments(()), telemetry, lambda: NOW_US, random.Random(1), outside)
    with state.write() as connection:
        row = {"id": "c" * 16, "name": "田中", "language": "ja", "created_us": NOW_US, "created_by": "test"}
        connection.execute(insert(contacts).values(row))
        of_mail = {"channel": "mail", "address": MAIL, "rank": 0, "state": "proved", "created_us": NOW_US}
        connection.execute(insert(addresses).values(id="a" * 16, contact="c" * 16, **of_mail))
        connection.execute(insert(memberships).values(team="farmers", contact="c" * 16))
    assert reach.accounts is not None
    reach.accounts.ask(MAIL)
    Chores(_asked_here(reach), telemetry, lambda: NOW_US).step(NOW_US)
    with state.read() as connection:
        assert connection.scalars(select(notifications.c.contact)).all() == ["c" * 16]
    assert rung == ["deliver"]
    reach.close()
    state.close()
