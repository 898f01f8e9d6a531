"""A node that nothing else gives the time goes by the gateway's: asked over real TLS from the real node listener."""

import asyncio
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.clock import Clock
from edge.contract.events import ClockSynced
from edge.gateway_time import ASK_S, GOOD_FOR_US, LONGEST_TRIP_US, GatewayTime
from edge.records import Happened
from edge.timekeeper import Timekeeper
from simulators.clock import VirtualClock
from tests.gateway.nodes.boxes import Town, at_work, town

YEAR_US = 365 * 86_400 * 1_000_000
UPTIME_US = 90_000_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Town, str]]:
    with town(tmp_path_factory.mktemp("town")) as made, at_work(made) as port:
        yield made, f"https://127.0.0.1:{port}"


class Node:
    """A node whose own clock is a year behind, and that no NTP reaches until the test says so."""

    def __init__(self, gateway: tuple[Town, str], *, clock: Clock | None = None, ca_file: Path | None = None) -> None:
        self.town, url = gateway
        self.clock = VirtualClock(self.town.now_us - YEAR_US, UPTIME_US)
        self.ntp = False
        self.time = GatewayTime(
            clock or self.clock, url, ca_file or self.town.folder / "ca.pem", random.Random(1), lambda: self.ntp
        )


def test_without_ntp_it_is_the_gateways_time(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    assert not node.time.disciplined()
    assert asyncio.run(node.time.ask())
    assert node.time.now().utc_us == node.town.now_us
    assert node.time.disciplined()
    assert node.time.guides


def test_it_goes_on_by_the_time_since_boot_and_is_believed_for_nine_hours(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asyncio.run(node.time.ask())
    asyncio.run(node.clock.advance(GOOD_FOR_US / 1e6 - 1))
    assert node.time.now().utc_us == node.town.now_us + GOOD_FOR_US - 1_000_000
    assert node.time.disciplined()
    asyncio.run(node.clock.advance(1))
    assert not node.time.disciplined()


def test_ntp_takes_over_as_soon_as_it_is_there(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asyncio.run(node.time.ask())
    node.ntp = True
    node.clock.step_utc(YEAR_US + 5_000_000)
    assert node.time.disciplined()
    assert not node.time.guides
    assert node.time.now().utc_us == node.town.now_us + 5_000_000


def test_a_gateway_of_another_authority_tells_no_time(
    gateway: tuple[Town, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with town(tmp_path) as other:
        node = Node(gateway, ca_file=other.folder / "ca.pem")
        with caplog.at_level(logging.WARNING):
            assert not asyncio.run(node.time.ask())
            assert not asyncio.run(node.time.ask())
    assert not node.time.disciplined()
    assert caplog.text.count("the gateway can't be asked") == 1


class Slow(VirtualClock):
    """Each look at it takes three seconds longer than the last: as if the answer had been on its way."""

    def now(self):  # type: ignore[no-untyped-def]  # as VirtualClock's
        self._move_to(self._mono_us + LONGEST_TRIP_US + 1)
        return super().now()


def test_an_answer_that_was_long_on_its_way_is_not_gone_by(gateway: tuple[Town, str]) -> None:
    node = Node(gateway, clock=Slow(gateway[0].now_us - YEAR_US, UPTIME_US))
    assert not asyncio.run(node.time.ask())


def test_it_is_asked_at_once_and_each_hour(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asked: list[int] = []
    answered = threading.Semaphore(0)

    async def ask() -> bool:
        asked.append(node.clock.now().mono_us - UPTIME_US)
        answered.release()
        return True

    async def play() -> None:
        node.time.ask = ask  # type: ignore[method-assign]
        task = asyncio.ensure_future(node.time.run())
        await node.clock.advance(3 * ASK_S)
        task.cancel()

    asyncio.run(play())
    assert asked[0] == 0
    assert 2 <= len(asked) - 1 <= 4


def test_the_timekeeper_tells_that_the_clock_became_right(gateway: tuple[Town, str], tmp_path: Path) -> None:
    """So that what was recorded before gets its time, as when NTP arrives."""
    node = Node(gateway)

    async def play() -> tuple[str, ClockSynced, str]:
        keeper = Timekeeper(tmp_path, "b" * 16, node.time, node.time.disciplined, image_us=0)
        before = keeper.clock_state()
        await node.time.ask()
        records = keeper.records()
        said = await anext(records)
        assert isinstance(said, Happened)
        assert isinstance(said.event, ClockSynced)
        waiting = asyncio.ensure_future(anext(records))
        await node.clock.advance(1)
        waiting.cancel()
        return before, said.event, keeper.clock_state()

    before, said, after = asyncio.run(play())
    assert (before, after) == ("unsync", "sync")
    assert said.zero == node.town.now_us - UPTIME_US
    assert said.stepped == YEAR_US
