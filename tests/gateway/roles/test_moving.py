"""Partitions on their way to and from one process: nothing that it knows is lost, and an outage in between leaves none deaf."""

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from gateway import ingest as ingest_module
from gateway import pipeline
from gateway.flush import Answer
from gateway.ingest import GatewayBrokerConfig, Held, Ingest
from gateway.pipeline import Message
from gateway.state import tables
from gateway.telemetry import Telemetry
from simulators.ports import free_port
from tests.gateway.town import NOW_US, Town, batch, locked, reading


class Scripted:
    """What is taken and let go of, look by look; after the last look the process is stopped."""

    def __init__(self, *looks: tuple[list[int], list[int]]) -> None:
        self._looks: Iterator[tuple[list[int], list[int]]] = iter(looks)
        self.heard: list[set[int]] = []
        self.let: list[list[int]] = []
        self.fails: Exception | None = None
        self.stop: Callable[[], None] = lambda: None
        self.before_let_go: Callable[[], object] = lambda: None

    def look(self, since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
        self.heard.append(set(since_us))
        found = next(self._looks, None)
        if found is None:
            self.stop()
            return [], []
        return [Held(one, None, None) for one in found[0]], found[1]

    def let_go(self, partitions: list[int]) -> None:
        self.before_let_go()
        self.let.append(partitions)
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails


class Remembering:
    """A processor of which only `anew` matters."""

    def __init__(self, *fails: Exception | None) -> None:
        self._fails = iter(fails)

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        return []

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Nothing waits for it."""

    def save(self) -> None:
        """Nothing is remembered."""

    def anew(self) -> None:
        if (error := next(self._fails, None)) is not None:
            raise error


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "TICK_S", 0.01)


def run(processor: ingest_module.Processor, partitions: Scripted) -> None:
    """Until its looks are over; nobody listens at the broker's port."""
    config = GatewayBrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}")
    ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: NOW_US, None, partitions=partitions)
    partitions.stop = ingest.stop
    ingest.run()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as town:
        yield town


def test_the_newest_readings_are_saved_before_others_are_read_anew(town: Town) -> None:
    town.process(batch([reading(1, value=41.5)]))
    run(town.pipeline, Scripted(([3], [])))
    assert [row["value"] for row in town.rows(tables.latest)] == [41.5]


def test_the_newest_readings_are_saved_before_their_partition_is_let_go_of(town: Town) -> None:
    town.process(batch([reading(1, value=41.5)]))
    partitions = Scripted(([3, 4], []), ([], [4]))
    found: list[int] = []
    partitions.before_let_go = lambda: found.append(len(town.rows(tables.latest)))
    run(town.pipeline, partitions)
    assert (found, partitions.let) == ([1], [[4]])


@pytest.mark.parametrize(("looks", "heard_at"), [([([3, 4], []), ([], [4])], 1), ([([3], [])], 0), ([], 0)],
                         ids=["let go of", "read anew", "stopped"])  # fmt: skip
def test_however_many_nodes_wait_none_is_left_unsaved(
    town: Town, monkeypatch: pytest.MonkeyPatch, looks: list[tuple[list[int], list[int]]], heard_at: int
) -> None:
    monkeypatch.setattr(pipeline, "SAVED", 1)
    names = [f"kitayama-{number:02d}" for number in range(20)]
    partitions = Scripted(*looks)
    found: list[int] = []

    def look(since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
        if len(partitions.heard) == heard_at:
            town.process(*(batch([reading(1)], node=node) for node in names))
        return Scripted.look(partitions, since_us)

    def saved() -> None:
        found.append(len(town.rows(tables.latest)))

    monkeypatch.setattr(partitions, "look", look)
    partitions.before_let_go = saved
    run(town.pipeline, partitions)
    saved()
    assert set(found) == {len(names)}
    assert {row["seen_us"] for row in town.rows(tables.nodes)} == {NOW_US}


def test_what_could_not_be_read_anew_is_not_heard_and_not_thought_to_be() -> None:
    partitions = Scripted(([3, 4], []), ([3, 4], []))
    run(Remembering(locked()), partitions)
    assert partitions.heard == [set(), set(), {3, 4}]


def test_what_could_not_be_let_go_of_is_not_heard_either_way() -> None:
    partitions = Scripted(([3, 4], []), ([], [4]))
    partitions.fails = locked()
    run(Remembering(), partitions)
    assert partitions.heard == [set(), {3, 4}, {3}]


def test_a_database_that_can_not_be_read_takes_nothing_from_what_is_remembered(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.process(batch([reading(1, value=41.5)]))
    town.tick()
    with monkeypatch.context() as patch:
        patch.setattr(town.state, "read", _away)
        with pytest.raises(OperationalError):
            town.pipeline.anew()
    town.process(batch([reading(2, -60_000_000, value=7.0)]))  # an older one, from the backlog
    town.tick()
    assert [row["value"] for row in town.rows(tables.latest)] == [41.5]


def _away() -> None:
    raise locked()
