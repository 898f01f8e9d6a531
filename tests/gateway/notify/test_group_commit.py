"""Many threads' small transactions as one: each is durable when its thread goes on, and one's mistake is one's own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import OperationalError

from gateway.notify.commit import GroupCommit
from gateway.state import State, open_state
from gateway.state.tables import cursors
from tests.gateway.town import locked


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def writing(name: str) -> Any:
    def work(connection: Connection) -> str:
        connection.execute(insert(cursors), {"name": name, "value": 1})
        return name

    return work


def names(state: State) -> set[str]:
    with state.read() as connection:
        return set(connection.scalars(select(cursors.c.name)))


class Counted:
    """The state, which holds the first writer back until so many have come."""

    def __init__(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.free = threading.Event()
        self.at_door = threading.Event()
        real = state.write

        @contextmanager
        def write() -> Iterator[Connection]:
            self.commits += 1
            if self.commits == 1:
                self.at_door.set()
                assert self.free.wait(20)
            with real() as connection:
                yield connection

        monkeypatch.setattr(state, "write", write)


class Crowd:
    """Threads that write at once, the first of them held back until all have come; what each got or what was raised in it."""

    def __init__(self, state: State, monkeypatch: pytest.MonkeyPatch, *works: Any) -> None:
        self.counted = Counted(state, monkeypatch)
        self.got: list[Any] = [None] * len(works)
        self.seen_at_return: list[set[str]] = [set()] * len(works)
        commit = GroupCommit(state)

        def one(number: int, work: Any) -> None:
            try:
                self.got[number] = commit.do(work)
                self.seen_at_return[number] = names(state)
            except Exception as error:  # noqa: BLE001 - it is what the test asks for
                self.got[number] = error

        threads = [threading.Thread(target=one, args=(number, work)) for number, work in enumerate(works)]
        threads[0].start()
        assert self.counted.at_door.wait(20)
        for thread in threads[1:]:
            thread.start()
        for _ in range(20_000):
            if len(commit._waiting) == len(works):
                break
            threading.Event().wait(0.001)
        self.counted.free.set()
        for thread in threads:
            thread.join(20)


def test_who_comes_while_another_waits_for_the_lock_goes_along_in_one_transaction(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(state, monkeypatch, *(writing(f"n-{number}") for number in range(20)))
    assert crowd.got == [f"n-{number}" for number in range(20)]
    assert crowd.counted.commits == 1
    assert all(f"n-{number}" in seen for number, seen in enumerate(crowd.seen_at_return)), "durable when its thread goes on"


def test_the_mistake_of_one_is_raised_in_its_own_thread_and_the_others_are_written(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: Connection) -> None:
        writing("half")(connection)
        raise KeyError("a mistake")

    crowd = Crowd(state, monkeypatch, writing("a"), broken, writing("b"))
    assert (crowd.got[0], type(crowd.got[1]), crowd.got[2]) == ("a", KeyError, "b")
    assert names(state) == {"a", "b"}, "each once, and of the mistake nothing"


def test_a_database_that_fails_is_heard_of_by_all_and_nothing_is_written(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_connection: Connection) -> None:
        raise locked()

    crowd = Crowd(state, monkeypatch, writing("a"), fails, writing("b"))
    assert [type(one) for one in crowd.got] == [OperationalError] * 3
    assert names(state) == set()


def test_after_a_failure_the_next_goes_on(state: State) -> None:
    commit = GroupCommit(state)

    def fails(_connection: Connection) -> None:
        raise locked()

    with pytest.raises(OperationalError):
        commit.do(fails)
    assert commit.do(writing("a")) == "a"
    assert names(state) == {"a"}
