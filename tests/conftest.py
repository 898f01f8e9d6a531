"""For all tests: a new state database is a copy of one that the real migrations made, so that each test need not make it anew."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.state import State, database, open_state


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    template = tmp_path_factory.mktemp("schema") / "state.db"
    open_state(f"sqlite:///{template}").close()
    migrate = database._migrate

    def copied(state: State) -> None:
        name = state._engine.url.database
        if name and Path(name).is_file() and Path(name).stat().st_size == 0:
            shutil.copyfile(template, name)
        migrate(state)

    database._migrate = copied
    yield
    database._migrate = migrate
