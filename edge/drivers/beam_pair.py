"""Two light beams on GPIO pins across a way, a hand apart: count_in, count_out, heartbeat."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.drivers.line import METRICS, Line
from edge.hardware.pins import open_switch
from edge.hardware.wakeup import woken_within
from edge.records import Record, Site

MOST_CHANGES = 10_000
"""Changes kept until the driver looks: a receiver that flickers in the sun must not fill the memory."""


class BeamPairConfig(BaseModel):
    """`type = "beam_pair"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["beam_pair"]
    pin_a: Annotated[
        int, Field(ge=0, le=27, description="BCM number of the pin of the outer beam: whoever comes in cuts it first.")
    ]
    pin_b: Annotated[int, Field(ge=0, le=27, description="BCM number of the pin of the inner beam.")]
    cut_when: Annotated[
        Literal["closed", "open"], Field(description="What a receiver's output does to ground while its beam is cut.")
    ] = "open"
    gap_ms: Annotated[
        int, Field(ge=0, le=5000, description="How long both beams must be free before a passage through beams far apart ends.")
    ] = 300
    blocked_s: Annotated[float, Field(ge=10, le=86_400, description="A beam that is cut for longer is reported as blocked.")] = (
        600
    )
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the line is alive.")] = 60

    @model_validator(mode="after")
    def _two_pins(self) -> Self:
        if self.pin_a == self.pin_b:
            raise ValueError(f"pin_a and pin_b are both {self.pin_a}: each beam needs a pin of its own")
        return self


class _Change(NamedTuple):
    beam: int
    cut: bool
    at_us: int


class BeamPair:
    """Counts who cuts both beams, by which came first."""

    metrics: ClassVar[tuple[str, ...]] = METRICS

    def __init__(self, device: str, config: BeamPairConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """Totals when they changed, and each heartbeat. Nothing until both beams were free once."""
        config, clock = self._config, self._site.clock
        loop, wakeup = asyncio.get_running_loop(), asyncio.Event()
        changes: deque[_Change] = deque(maxlen=MOST_CHANGES)
        closed: list[Callable[[], bool]] = []

        def is_cut(beam: int) -> bool:
            return closed[beam]() == (config.cut_when == "closed")

        def on_edge(beam: int) -> None:
            # In gpiozero's thread: the time is taken here, for the order of the two beams is all there is to know.
            if len(closed) == 2:
                changes.append(_Change(beam, is_cut(beam), clock.now().mono_us))
                loop.call_soon_threadsafe(wakeup.set)

        line = Line(
            self._device, self._site, gap_s=config.gap_ms / 1000, blocked_s=config.blocked_s, heartbeat_s=config.heartbeat_s
        )
        with ExitStack() as open_pins:
            open_pins.callback(line.close)
            closed.append(open_pins.enter_context(open_switch(config.pin_a, lambda: on_edge(0))))
            closed.append(open_pins.enter_context(open_switch(config.pin_b, lambda: on_edge(1))))
            start_us = clock.now().mono_us
            for beam in (0, 1):
                line.follow(beam, cut=is_cut(beam), at_us=start_us)
            while True:
                while changes:
                    change = changes.popleft()
                    line.follow(change.beam, cut=change.cut, at_us=max(change.at_us, start_us))
                now = clock.now()
                for reading in line.say(now):
                    yield reading
                await woken_within(wakeup, (line.due_us - clock.now().mono_us) / 1e6, clock)
