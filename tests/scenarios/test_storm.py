"""Real processes, real brokers, each kind killed with -9: nothing is lost, nothing doubled, everybody told once.

Over mTLS, with nodes that claimed their identities.

The same code runs for hundreds of kills in `make soak`. The seeds are fixed; what they hit is decided by the machine's timing.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from simulators.broker import Broker, mosquitto, nats
from simulators.soak import ROUND, storm
from tests.services import require_binary

pytestmark = pytest.mark.services


def forgetful_mosquitto(folder: Path) -> Broker:
    """Debian's mosquitto as it comes: a kill takes everything that it had acknowledged."""
    require_binary("mosquitto")
    return mosquitto(folder, save_every=0, authority=folder.parent / "authority")


def claimed_nats(folder: Path) -> Broker:
    return nats(folder, authority=folder.parent / "authority")


@pytest.mark.parametrize(("broker", "seed"), [(claimed_nats, 11), (forgetful_mosquitto, 12)], ids=["nats", "mosquitto"])
def test_kills_of_each_kind_lose_nothing_and_tell_everybody_once(
    tmp_path: Path, broker: Callable[[Path], Broker], seed: int
) -> None:
    outcome = storm(tmp_path / "town", broker(tmp_path / "broker"), kills=len(ROUND), seed=seed)
    assert outcome.faults == []
    assert outcome.killed == Counter(ROUND)
    assert outcome.springs > 0
    assert outcome.found.produced > 100
