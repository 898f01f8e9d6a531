"""Queuing a message: one row, in the caller's transaction, the same however often it is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contacts.person import Address, Person
from gateway.notify.message import Message
from gateway.notify.queue import queue
from gateway.state import open_state
from tests.gateway.notify.ledger import ALERT, FARMER, LINE, PAGE, VOICE, Ledger, message, people
from tests.gateway.town import NOW_US, SECOND_US


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    people(state)
    yield Ledger(state)
    state.close()


def test_a_row_holds_the_message_and_what_it_is_about(ledger: Ledger) -> None:
    assert ledger.queue(message(kind="again"), alert=ALERT) == "n-1"
    row = ledger.row()
    assert {name: row[name] for name in ("contact", "address", "channel", "state", "kind", "alert", "page", "attempts")} == {
        "contact": FARMER.contact, "address": LINE, "channel": "line", "state": "queued", "kind": "again", "alert": ALERT,
        "page": PAGE, "attempts": 0,
    }  # fmt: skip
    assert Message.model_validate_json(row["body"]) == message(kind="again")


def test_the_message_itself_may_say_what_it_is_about(ledger: Ledger) -> None:
    ledger.queue(message(alert=ALERT, page=PAGE), page=None)
    assert (ledger.row()["alert"], ledger.row()["page"]) == (ALERT, PAGE)


def test_saying_it_again_changes_nothing(ledger: Ledger) -> None:
    ledger.queue(message())
    before = ledger.row()
    ledger.later(60)
    assert ledger.queue(message(title="another")) == "n-1"
    assert ledger.rows() == [before]


def test_it_is_durable_with_what_it_follows_from_or_not_at_all(ledger: Ledger) -> None:
    def crash() -> None:
        with ledger.state.write() as connection:
            queue(connection, FARMER, message(), NOW_US)
            raise RuntimeError("here it ends")

    with pytest.raises(RuntimeError):
        crash()
    assert ledger.rows() == []


def test_only_over_one_channel(ledger: Ledger) -> None:
    ledger.queue(message(), by="voice")
    assert (ledger.row()["address"], ledger.row()["only_by"]) == (VOICE, "voice")


def test_who_has_no_such_address_is_not_queued_for(ledger: Ledger) -> None:
    assert ledger.queue(message(), by="sms") is None
    assert ledger.queue(message(), Person("nobody", "x", "ja", ())) is None
    assert ledger.rows() == []


@pytest.mark.parametrize(
    ("said", "more", "after_s"),
    [
        ({"severity": "critical"}, {}, 60),
        ({"severity": "warning"}, {}, 600),
        ({"severity": "info"}, {}, 600),
        ({"severity": "warning"}, {"failover_after_s": 5}, 5),
        ({"severity": "critical"}, {"due_us": NOW_US + 100 * SECOND_US}, 160),
        ({"severity": "critical", "kind": "test"}, {}, None),
        ({"severity": "critical", "kind": "reply"}, {"failover_after_s": 5}, None),
    ],
)
def test_how_long_one_address_may_take(ledger: Ledger, said: Any, more: Any, after_s: int | None) -> None:
    ledger.queue(message(**said), **more)
    assert ledger.row()["failover_us"] == (None if after_s is None else NOW_US + after_s * SECOND_US)


def test_a_contact_of_the_configuration_has_one_address_and_no_other(ledger: Ledger) -> None:
    ledger.queue(message(), Person("phone", "phone", "ja", (Address(None, "webhook", ""),)))
    row = ledger.row()
    assert (row["contact"], row["address"], row["channel"]) == ("phone", None, "webhook")
    assert row["failover_us"] == NOW_US + 60 * SECOND_US, "then its page goes on without it"


@pytest.mark.parametrize(("due_us", "wanted_us"), [(None, NOW_US), (NOW_US + 5, NOW_US + 5), (NOW_US - 5, NOW_US)])
def test_when_it_is_due(ledger: Ledger, due_us: int | None, wanted_us: int) -> None:
    ledger.queue(message(), due_us=due_us)
    assert ledger.row()["due_us"] == wanted_us


@pytest.mark.parametrize(("severity", "rank"), [("critical", 0), ("warning", 1), ("info", 2)])
def test_its_severity_decides_on_its_place(ledger: Ledger, severity: str, rank: int) -> None:
    ledger.queue(message(severity=severity))
    assert ledger.row()["severity_rank"] == rank
    assert json.loads(ledger.row()["body"])["severity"] == severity
