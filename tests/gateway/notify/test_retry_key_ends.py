"""LINE remembers a retry key for a day. What is taken after that may have been taken before, and the ledger says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.notify import Delivered, Outcome, Retry
from gateway.state import State, open_state
from simulators.line import RETRY_KEY_US
from tests.gateway.notify.ledger import FARMER, Ledger, Provider, message, people


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    people(opened, FARMER.addresses[:1])
    yield opened
    opened.close()


@pytest.mark.parametrize(("pause_s", "twice"), [(RETRY_KEY_US / 1e6 - 60, False), (RETRY_KEY_US / 1e6 + 60, True)])
def test_what_line_takes_after_its_retry_key_has_ended_is_possibly_twice(state: State, pause_s: float, twice: bool) -> None:
    answers: list[Outcome] = [Retry("LINE: ReadTimeoutError"), Delivered("1")]
    ledger = Ledger(state, line=Provider(lambda _: answers.pop(0)))
    ledger.queue(message())
    ledger.step()
    ledger.later(pause_s)
    ledger.step()
    assert (ledger.row()["state"], ledger.row()["possibly_twice"]) == ("sent", twice)


def test_what_waited_for_days_and_was_never_tried_is_there_once(state: State) -> None:
    """A gateway that was switched off."""
    ledger = Ledger(state, line=Provider())
    ledger.queue(message())
    ledger.later(3 * RETRY_KEY_US / 1e6)
    ledger.step()
    assert (ledger.row()["state"], ledger.row()["possibly_twice"]) == ("sent", False)
