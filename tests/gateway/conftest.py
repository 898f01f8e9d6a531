"""A gateway's core for a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgresql
from tests.gateway.town import Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    """A PostgreSQL of this module's own: some of them end its connections, or it."""
    with postgresql.running() as running:
        yield running
