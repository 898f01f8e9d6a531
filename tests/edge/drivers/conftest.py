from pathlib import Path

import pytest

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
