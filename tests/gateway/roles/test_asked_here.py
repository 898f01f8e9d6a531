"""What is asked of the process that answers people is done there: its memory is not another one's."""

import random
from pathlib import Path

from sqlalchemy import insert, select

from gateway.alerting.lifecycle import Alert, Move
from gateway.chores import Chores
from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.moves import write_move
from gateway.reach import Outside, open_reach
from gateway.roles import _asked_here
from gateway.state import open_state
from gateway.state.tables import addresses, contacts, memberships, notifications, pages
from gateway.telemetry import Telemetry
from tests.gateway.town import NOW_US

MAIL = "tanaka@town.example.jp"


def configured(folder: Path) -> GatewayConfig:
    return GatewayConfig.model_validate(
        {
            "broker": {"url": "mqtt://127.0.0.1:1883"},
            "state": {"url": f"sqlite:///{folder / 'state.db'}"},
            "store": {"type": "sqlite", "path": str(folder / "series.db")},
            "api": {"tokens_file": str(folder / "tokens")},
            "media": {"folder": str(folder / "media")},
            "people": {"public_url": "https://gateway.example", "folder": str(folder / "keys"), "office": "office"},
            "group": {"office": {"label": "市役所"}, "farmers": {"label": "農家", "role": "farmer"}},
            "channel": {"mail": {"host": "mail.example.jp", "from": MAIL}},
        }
    )


def test_a_link_that_was_asked_for_is_sent_by_the_process_that_was_asked(tmp_path: Path) -> None:
    config = configured(tmp_path)
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


def test_what_an_answer_here_moved_is_on_the_stream(tmp_path: Path) -> None:
    """The process that judges says what it moves itself, and hears of no other."""
    config, said = configured(tmp_path), list[tuple[str, str]]()
    state, telemetry = open_state(config.state.url), Telemetry()
    outside = Outside({}, lambda _topic, _body: None, dict, lambda kind, row: said.append((kind, row["state"])))
    reach = open_reach(config, state, Deployments(()), telemetry, lambda: NOW_US, random.Random(1), outside)
    alert = Alert("a-1", "sprung", "trap", "critical", "kitayama-03", "trap-3", "o:1", "firing", NOW_US, False, "trap_sprung")
    with state.write() as connection:
        write_move(connection, Move(alert, None, "trap_sprung", tell=True), NOW_US)
        reach.paging.moved(connection, Move(alert, None, "trap_sprung", tell=True), NOW_US)
        page = connection.execute(select(pages.c.id)).scalar_one()
        reach.paging.answers.answer(connection, page, "staff:tanaka", "going", "api", None, NOW_US)
    chores = Chores(_asked_here(reach), telemetry, lambda: NOW_US)
    chores.step(NOW_US)
    assert said == [("alert", "acknowledged")]
    reach.close()
    state.close()
