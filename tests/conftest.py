"""For all tests: what is the same in each of them is made once, a new state database and what the API's answers look like."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi._compat import v2 as fastapi_types
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from gateway.state import State, database, open_state
from gateway.words import call_office


@pytest.fixture(autouse=True)
def _office_unnamed() -> Iterator[None]:
    """What the office is called belongs to a process: a gateway of one test must not name it for the next."""
    yield
    call_office("")


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new state database is a copy of one that the real migrations made, so that each test need not make it anew."""
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


@pytest.fixture(scope="session", autouse=True)
def _described_once() -> Iterator[None]:
    """FastAPI builds a validator for each answer and parameter of each app; what says the same shares one, over all apps."""
    made: dict[str, list[tuple[Any, TypeAdapter[Any]]]] = {}

    def shared(annotation: Any, *, config: Any = None) -> TypeAdapter[Any]:
        said = (annotation.__origin__, [_said(part) for part in annotation.__metadata__], config)
        alike = made.setdefault(repr(annotation), [])
        for known, adapter in alike:
            if known == said:
                return adapter
        adapter = TypeAdapter(annotation, config=config)
        alike.append((said, adapter))
        return adapter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastapi_types, "TypeAdapter", shared)
        yield


def _said(part: Any) -> Any:
    """What two parts of an annotation must have in common to be the same; pydantic compares fields by identity only."""
    if type(part) is not FieldInfo:
        return part
    return {name: getattr(part, name, None) for name in FieldInfo.__slots__ if name != "_original_assignment"}
