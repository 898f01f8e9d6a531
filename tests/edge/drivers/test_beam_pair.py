import asyncio
from collections.abc import Iterator

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory
from pydantic import ValidationError

from edge.drivers.beam_pair import BeamPair, BeamPairConfig
from edge.errors import DeviceError
from edge.records import Site
from simulators.clock import VirtualClock, settle
from tests.edge.drivers.listening import Listener, values

A, B = 22, 23


class Beams:
    """The two receivers: their outputs go to ground while the beam is cut."""

    def __init__(self, factory: MockFactory) -> None:
        self._pins = {number: factory.pin(number) for number in (A, B)}

    def free(self, number: int) -> None:
        self._pins[number].drive_high()

    def cut(self, number: int) -> None:
        self._pins[number].drive_low()


@pytest.fixture
def beams() -> Iterator[Beams]:
    before, factory = Device.pin_factory, MockFactory()
    Device.pin_factory = factory
    try:
        yield Beams(factory)
    finally:
        Device.pin_factory = before
        factory.close()


def pair(site: Site, cut_when: str = "closed") -> Listener:
    config = BeamPairConfig.model_validate({"type": "beam_pair", "pin_a": A, "pin_b": B, "cut_when": cut_when})
    return Listener(BeamPair("gate-1", config, site))


async def walk(clock: VirtualClock, beams: Beams, first: int, second: int) -> None:
    """Somebody walks through, cutting both beams together for a moment."""
    for move, beam in ((beams.cut, first), (beams.cut, second), (beams.free, first), (beams.free, second)):
        move(beam)
        await settle()
        await clock.advance(0.1)


def test_who_comes_in_and_goes_out_is_counted_by_direction(beams: Beams, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site) as heard:
            assert values(heard.so_far()) == {"heartbeat": 0.0, "count_in": 0, "count_out": 0}
            await walk(clock, beams, A, B)
            await walk(clock, beams, A, B)
            await walk(clock, beams, B, A)
            await clock.advance(5)
            assert values(heard.so_far()) == {"count_in": 2, "count_out": 1}

    asyncio.run(play())


def test_a_crowd_says_its_totals_every_five_seconds_and_not_for_each_person(
    beams: Beams, site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        async with pair(site) as heard:
            heard.so_far()
            for _ in range(50):  # 20 s
                await walk(clock, beams, A, B)
            assert len(heard.so_far()) <= 2 * 5

    asyncio.run(play())


def test_totals_go_on_after_a_power_cut(beams: Beams, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site) as heard:
            await walk(clock, beams, A, B)
            await clock.advance(5)
            assert values(heard.so_far())["count_in"] == 1
            saved = (site.state / "totals.json").read_text()
        (site.state / "totals.json").write_text(saved)  # as the cut leaves it: no farewell
        async with pair(site) as heard:
            assert values(heard.so_far())["count_in"] == 1

    asyncio.run(play())


def test_who_was_counted_and_not_said_yet_is_said_after_a_restart(beams: Beams, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site) as heard:
            heard.so_far()
            await walk(clock, beams, A, B)
            assert heard.so_far() == []
        async with pair(site) as heard:
            assert values(heard.so_far())["count_in"] == 1

    asyncio.run(play())


def test_a_beam_that_stays_cut_is_reported(beams: Beams, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site) as heard:
            beams.cut(A)
            await clock.advance(599)
            heard.so_far()
            await clock.advance(1)
            with pytest.raises(DeviceError, match="a beam has been cut for 600 s"):
                heard.so_far()

    asyncio.run(play())


def test_a_line_that_begins_blocked_is_not_alive_until_it_is_free(beams: Beams, site: Site, clock: VirtualClock) -> None:
    """As when the agent tries a blocked line again. These outputs open while a beam is cut, and nothing drives them yet."""

    async def play() -> None:
        async with pair(site, cut_when="open") as heard:
            await clock.advance(300)
            assert heard.so_far() == []
            beams.cut(A)
            await clock.advance(1)
            assert heard.so_far() == [], "the other beam is still cut"
            beams.cut(B)
            await settle()
            await clock.advance(1)
            assert "heartbeat" in values(heard.so_far())

    asyncio.run(play())


def test_who_stands_there_at_the_start_came_from_nobody_knows_where(beams: Beams, site: Site, clock: VirtualClock) -> None:
    """These outputs open while a beam is cut, and nothing drives them yet."""
    free, cut = beams.cut, beams.free

    async def play() -> None:
        async with pair(site, cut_when="open") as heard:
            for beam in (A, B):
                free(beam)
                await settle()
                await clock.advance(0.1)
            await clock.advance(5)
            assert values(heard.so_far()) == {"heartbeat": 0.1, "count_in": 0, "count_out": 0}
            for move, beam in ((cut, B), (cut, A), (free, B), (free, A)):
                move(beam)
                await settle()
                await clock.advance(0.1)
            await clock.advance(5)
            assert values(heard.so_far()) == {"count_in": 0, "count_out": 1}

    asyncio.run(play())


def test_both_beams_on_one_pin_is_refused() -> None:
    with pytest.raises(ValidationError, match="each beam needs a pin of its own"):
        BeamPairConfig.model_validate({"type": "beam_pair", "pin_a": 4, "pin_b": 4})
