"""What must never be: a message sent over and over, one mistake that stops the others, a contact who waits for a dead address."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway.notify import Gone, Refused, Retry
from gateway.state import State, open_state
from tests.gateway.notify.ledger import FARMER, Ledger, Provider, message, people


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    people(opened, FARMER.addresses[:2])
    yield opened
    opened.close()


def test_an_address_that_came_back_and_refuses_then_is_a_dead_letter_and_not_tried_for_ever(state: State) -> None:
    """LINE is slow, mail refuses, LINE refuses too: each was tried, and nothing is begun anew."""
    line, mail = Provider(lambda _: Retry("answered 500")), Provider(lambda _: Refused("550"))
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message())
    ledger.step()
    ledger.later(61)
    ledger.step()  # mail stands in, refuses, and LINE is tried on
    line.answer = lambda _: Refused("400")
    ledger.later(600)
    ledger.step()
    assert ledger.states() == [("line", "dead"), ("mail", "failed_over")]
    assert ledger.page()["changed"], "whoever escalates looks at once"
    sent = len(line.sent)
    ledger.later(600)
    assert ledger.step() == 0
    assert len(line.sent) == sent


def test_what_follows_from_an_attempt_may_fail_and_it_is_not_attempted_again_for_that(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    line, mail = Provider(lambda _: Gone("blocked")), Provider()
    ledger = Ledger(state, broken, line=line, mail=mail)
    ledger.queue(message())
    with caplog.at_level(logging.ERROR):
        ledger.step()
    ledger.later(600)
    ledger.step()
    assert len(line.sent) == 1
    assert ledger.states() == [("line", "dead")], "it is seen, and can be retried"
    assert ledger.page()["changed"], "and the page goes on without it"
    assert len([one for one in caplog.records if "could not be written" in one.message]) == 1


def test_what_is_not_critical_goes_to_the_next_address_too_only_later(state: State) -> None:
    line, mail = Provider(lambda _: Retry("answered 500")), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message(severity="warning"))
    ledger.step()
    ledger.later(599)
    ledger.step()
    assert mail.sent == []
    ledger.later(2)
    ledger.step()
    assert len(mail.sent) == 1
    assert ledger.states() == [("line", "failed_over"), ("mail", "sent")]


def test_nobody_is_called_by_telephone_for_what_only_took_too_long_and_is_not_critical(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'other.db'}")
    people(state, (FARMER.addresses[0], FARMER.addresses[2]))
    ledger = Ledger(state, line=Provider(lambda _: Retry("answered 500")), voice=Provider())
    ledger.queue(message(severity="warning"))
    ledger.later(601)
    ledger.step()
    assert ledger.states() == [("line", "queued")]
    assert ledger.page()["changed"], "whoever escalates knows that it hangs"
    state.close()


def test_a_mistake_with_one_overdue_message_stops_no_other(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gateway.notify import failover

    real = failover._next_address

    def broken(connection: Connection, row: object, *more: object) -> object:
        if getattr(row, "id", "") == "n-1":
            raise RuntimeError("a mistake")
        return real(connection, row, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(failover, "_next_address", broken)
    mail = Provider()
    ledger = Ledger(state, line=Provider(lambda _: Retry("answered 500")), mail=mail)
    ledger.queue(message("n-1"))
    ledger.queue(message("n-2"))
    ledger.later(61)
    with caplog.at_level(logging.ERROR):
        ledger.step()
    assert len(mail.sent) == 1
    assert "n-1" in caplog.text
