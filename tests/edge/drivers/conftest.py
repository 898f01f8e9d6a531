from pathlib import Path

import pytest

from edge.drivers import ble_tags
from edge.hardware import card
from edge.media import MediaFolder
from edge.records import Site
from simulators.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_780_434_720_000_000, start_mono_us=90_000_000)


@pytest.fixture
def site(tmp_path: Path, clock: VirtualClock) -> Site:
    state = tmp_path / "state"
    state.mkdir()
    return Site(clock, MediaFolder(tmp_path / "media", reserve_bytes=0), state, epoch="ab" * 8)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time stands still while bytes come and cards are read; a test that is about waiting sets its own."""
    monkeypatch.setattr(ble_tags, "GATHER_S", 0.0)
    monkeypatch.setattr(card, "AT_ONCE_S", 5.0)
