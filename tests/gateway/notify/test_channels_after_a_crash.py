"""The gateway dies between an attempt and its row: what the next life does, over each channel that has no key for repetitions."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.notify import Channel
from gateway.notify.deliver import Deliverer
from gateway.notify.mail import Mail, MailConfig
from gateway.notify.message import Button, Message
from gateway.notify.push import Push, PushConfig, open_vapid
from gateway.notify.twilio import Account, Sms, TwilioConfig, Voice
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry
from simulators.mail_server import MailServer
from simulators.push_service import PushService
from simulators.twilio import TwilioService

NOW_US = 1_780_434_720_000_000
ID = "6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
SID, OURS, THEIRS = "AC" + "0" * 32, "+815000000001", "+815000000002"
PUBLIC = "https://gateway.example.jp"
MESSAGE = Message(
    id=ID, severity="critical", title="わな作動", body="北尾根 3番", answer_url=f"{PUBLIC}/a/abc",
    buttons=(Button(answer="going", label="行きます"),),
)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def queue(state: State, channel: str, to: str) -> None:
    """A row whose attempt was begun; what came of it nobody knows."""
    with state.write() as connection:
        connection.execute(insert(tables.contacts).values(id="c1", name="田中", created_us=1, created_by="office"))
        connection.execute(
            insert(tables.addresses).values(
                id="a1", contact="c1", channel=channel, address=to, rank=0, state="proved", created_us=1
            )
        )
        connection.execute(
            insert(tables.notifications).values(
                id=ID, kind="alert", contact="c1", address="a1", channel=channel, state="queued", severity_rank=0,
                body=MESSAGE.model_dump_json(), created_us=NOW_US, due_us=NOW_US, attempts=0, intent_us=NOW_US,
            )
        )  # fmt: skip


def next_life(state: State, name: str, channel: Channel) -> Any:
    """Delivers what is due; the row then."""
    Deliverer(state, {name: channel}, Telemetry(), random.Random(1), lambda: NOW_US).step()
    with state.read() as connection:
        return connection.execute(select(tables.notifications)).one()


@pytest.fixture
def twilio(tmp_path: Path) -> Iterator[tuple[TwilioService, Account]]:
    (tmp_path / "token").write_text("token-for-tests")
    (tmp_path / "token").chmod(0o600)
    with TwilioService(SID, "token-for-tests", [OURS], now_us=lambda: NOW_US) as service:
        said: dict[str, Any] = {"account_sid": SID, "auth_token_file": tmp_path / "token", "from": OURS, "url": service.url}
        account = Account(TwilioConfig(**said), PUBLIC)
        yield service, account
        account.close()


def test_a_short_message_that_was_sent_is_found_at_twilio_and_not_sent_again(
    state: State, twilio: tuple[TwilioService, Account]
) -> None:
    service, account = twilio
    queue(state, "sms", THEIRS)
    Sms(account).send(ID, THEIRS, MESSAGE)
    row = next_life(state, "sms", Sms(account))
    assert (row.state, row.provider_id, row.possibly_twice) == ("sent", service.messages[0].sid, False)
    assert len(service.messages) == 1


def test_a_call_that_was_made_is_found_at_twilio_and_rings_no_second_time(
    state: State, twilio: tuple[TwilioService, Account]
) -> None:
    service, account = twilio
    queue(state, "voice", THEIRS)
    Voice(account, "").send(ID, THEIRS, MESSAGE)
    row = next_life(state, "voice", Voice(account, ""))
    assert (row.state, row.possibly_twice, len(service.calls)) == ("sent", False, 1)


def test_a_short_message_that_never_left_is_sent(state: State, twilio: tuple[TwilioService, Account]) -> None:
    service, account = twilio
    queue(state, "sms", THEIRS)
    assert next_life(state, "sms", Sms(account)).state == "sent"
    assert len(service.messages) == 1


def test_while_twilio_can_not_be_asked_nothing_is_sent(state: State, twilio: tuple[TwilioService, Account]) -> None:
    service, account = twilio
    queue(state, "sms", THEIRS)
    Sms(account).send(ID, THEIRS, MESSAGE)
    service.refuse()
    row = next_life(state, "sms", Sms(account))
    assert (row.state, row.intent_us) == ("queued", NOW_US)


def test_a_mail_goes_again_is_shown_once_and_the_ledger_says_possibly_twice(state: State) -> None:
    with MailServer(now_us=lambda: NOW_US) as server:
        config: dict[str, Any] = {"host": server.host, "port": server.port, "tls": "none", "from": "satomori@town.example.jp"}
        channel = Mail(MailConfig(**config), lambda: NOW_US)
        queue(state, "mail", "tanaka@example.jp")
        channel.send(ID, "tanaka@example.jp", MESSAGE)
        row = next_life(state, "mail", channel)
        assert (row.state, row.possibly_twice) == ("sent", True)
        assert (len(server.mailbox("tanaka@example.jp")), len(server.seen("tanaka@example.jp"))) == (2, 1)


def test_a_push_goes_again_rings_once_and_the_ledger_says_possibly_twice(state: State, tmp_path: Path) -> None:
    vapid = open_vapid(tmp_path / "people", "mailto:office@example.jp")
    channel = Push(PushConfig(contact="mailto:office@example.jp", allow_loopback=True), vapid, lambda: NOW_US)
    with PushService(now_us=lambda: NOW_US) as service:
        to = service.subscribe("tanaka", vapid.public_key)
        queue(state, "push", to)
        channel.send(ID, to, MESSAGE)
        row = next_life(state, "push", channel)
        assert (row.state, row.possibly_twice) == ("sent", True)
        assert (len(service.pushed), service.rang("tanaka")) == (2, [ID])
    channel.close()
