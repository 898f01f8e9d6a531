"""The gateway is killed with -9 while it escalates, five times and once while it starts: nobody is left untold, nobody is told
twice, no answer is lost.

The same code runs for hundreds of kills in `make soak ARGS="--escalations 200"`. The seed is fixed; what the kills hit is decided
by the machine's timing.
"""

from pathlib import Path

import pytest

from simulators.broker import nats
from simulators.escalation_storm import escalation_storm

pytestmark = pytest.mark.services


def test_kills_amid_escalations_leave_nobody_untold_and_wake_nobody_twice(tmp_path: Path) -> None:
    outcome = escalation_storm(tmp_path / "town", nats(tmp_path / "broker"), kills=5, seed=21)
    assert outcome.faults == []
    assert outcome.springs == outcome.pages >= 15
    assert set(outcome.messages) == {"line", "push", "mail", "sms", "voice", "webhook"}
    assert outcome.answers > 0
