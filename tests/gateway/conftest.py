"""A gateway's core for a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.town import Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made
