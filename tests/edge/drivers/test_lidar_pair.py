import asyncio
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from pydantic import ValidationError

from edge.drivers.lidar_pair import LidarPair, LidarPairConfig
from edge.errors import DeviceError
from edge.records import Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener, Wire, values, wire

FAR, NEAR = 240, 90


def measured(distance_cm: int) -> bytes:
    body = struct.pack("<2sHHH", b"\x59\x59", distance_cm, 1000, 2200)
    return body + bytes([sum(body) & 0xFF])


class Way(NamedTuple):
    """The far ends of the two ports."""

    outer: Wire
    inner: Wire

    def see(self, outer_cm: list[int], inner_cm: list[int]) -> None:
        """What both measured since the last time, 100 a second."""
        self.outer.send(b"".join(map(measured, outer_cm)))
        self.inner.send(b"".join(map(measured, inner_cm)))


@pytest.fixture
def way() -> Iterator[Way]:
    with ExitStack() as plugged:
        yield Way(plugged.enter_context(wire()), plugged.enter_context(wire()))


def pair(site: Site, way: Way) -> Listener:
    config = LidarPairConfig.model_validate(
        {"type": "lidar_pair", "port_a": way.outer.port, "port_b": way.inner.port, "near_cm": 200, "heartbeat_s": 60}
    )
    return Listener(LidarPair("gate-1", config, site))


INWARDS = ([FAR] * 5 + [NEAR] * 20 + [FAR] * 25, [FAR] * 15 + [NEAR] * 20 + [FAR] * 15)
"""Somebody walks in within half a second: first before the outer lidar, then before the inner."""


def test_directions_are_told_apart_even_when_half_a_second_comes_in_one_piece(way: Way, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site, way) as heard:
            way.see([FAR], [FAR])
            await clock.advance(0.1)
            await heard.until("count_out")
            for outer, inner in (INWARDS, INWARDS, INWARDS[::-1]):
                way.see(outer, inner)
                await clock.advance(0.5)
            way.see([FAR], [FAR])
            await clock.advance(2)
            way.see([FAR], [FAR])
            await clock.advance(3)
            assert values(heard.so_far()) == {"count_in": 2, "count_out": 1}

    asyncio.run(play())


def test_a_single_odd_measurement_is_nobody(way: Way, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site, way) as heard:
            way.see([FAR], [FAR])
            await clock.advance(1)
            way.see([FAR, NEAR, FAR, FAR, FAR, FAR], [FAR, FAR, NEAR, FAR, FAR, FAR])
            for _ in range(4):  # longer than new totals wait
                await clock.advance(2)
                way.see([FAR], [FAR])
            said = values(heard.so_far())
            assert (said["count_in"], said["count_out"]) == (0, 0)

    asyncio.run(play())


def test_a_lidar_that_falls_silent_is_reported_by_its_port(way: Way, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site, way) as heard:
            way.see([FAR], [FAR])
            await clock.advance(2)
            heard.so_far()
            way.see([FAR], [])
            await clock.advance(1.2)
            with pytest.raises(DeviceError, match=f"the lidar on {way.inner.port} says nothing"):
                heard.so_far()

    asyncio.run(play())


def test_nothing_is_said_before_both_lidars_are_heard(way: Way, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with pair(site, way) as heard:
            way.see([FAR] * 10, [])
            await clock.advance(1)
            assert heard.so_far() == []

    asyncio.run(play())


def test_both_lidars_on_one_port_is_refused() -> None:
    with pytest.raises(ValidationError, match="each lidar needs a port of its own"):
        LidarPairConfig.model_validate({"type": "lidar_pair", "port_a": "/dev/a", "port_b": "/dev/a", "near_cm": 100})
