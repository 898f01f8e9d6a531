"""Two small lidars (TF-Luna, TFmini) that look across a way, or down on it: count_in, count_out, frames_bad, heartbeat."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.decoders.benewake import BenewakeStream, Distance
from edge.drivers.line import METRICS, Line
from edge.errors import DeviceError
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Reading, Record, Site

SILENT_US = 3_000_000
"""A lidar measures many times a second: one that says nothing for so long is dead or unplugged."""

GATHER_S = 0.05
"""How long to let measurements gather: two hundred of them a second would wake a small processor as often."""

SURE = 2
"""Measurements in a row that must agree: a single one may be a raindrop or an insect."""

_Port = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Serial port of the outer (a) or inner (b) lidar: whoever comes in passes the outer one first.",
    ),
]


class LidarPairConfig(BaseModel):
    """`type = "lidar_pair"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["lidar_pair"]
    port_a: _Port
    port_b: _Port
    baud: Annotated[int, Field(ge=300, le=4_000_000, description="Speed of both ports, 8N1.")] = 115_200
    rate_hz: Annotated[float, Field(ge=1, le=1000, description="Measurements a second, as the lidars are set.")] = 100
    near_cm: Annotated[
        int, Field(ge=10, le=1200, description="Something nearer than this is a person: a little less than to the other side.")
    ]
    gap_ms: Annotated[
        int, Field(ge=0, le=5000, description="How long nobody may be near before a passage past lidars far apart ends.")
    ] = 300
    blocked_s: Annotated[float, Field(ge=10, le=86_400, description="Something near for longer is reported as blocking it.")] = (
        600
    )
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the line is alive.")] = 60

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port_a == self.port_b:
            raise ValueError(f"port_a and port_b are both {self.port_a}: each lidar needs a port of its own")
        return self


class _Lidar:
    """One of the two: distances to cut or free."""

    def __init__(self, config: LidarPairConfig, started_us: int) -> None:
        self.stream = BenewakeStream()
        self.heard_us, self.heard = started_us, False
        self._near_cm, self._period_us = config.near_cm, 1e6 / config.rate_hz
        self._cut, self._others = False, 0

    def changes(self, chunk: bytes, now_us: int) -> list[tuple[int, bool]]:
        """When it was cut (True) or free again. What came in one piece was measured one after the other."""
        found: list[Distance] = self.stream.feed(chunk)
        said: list[tuple[int, bool]] = []
        for number, measured in enumerate(found, start=1):
            # No echo is nobody: the other side may be further away than a lidar sees.
            cut = measured.distance_cm is not None and measured.distance_cm < self._near_cm
            self._others = self._others + 1 if cut != self._cut else 0
            if self._others >= SURE:
                self._cut, self._others = cut, 0
                said.append((now_us - int((len(found) - number) * self._period_us), cut))
        if found:
            self.heard_us, self.heard = now_us, True
        return said


class LidarPair:
    """Counts who comes near both lidars, by which saw them first."""

    metrics: ClassVar[tuple[str, ...]] = (*METRICS, "frames_bad")

    def __init__(self, device: str, config: LidarPairConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """Totals when they changed, and each heartbeat. DeviceError when a lidar falls silent: the order of both is needed."""
        config, clock = self._config, self._site.clock
        came = asyncio.Event()
        line = Line(
            self._device, self._site, gap_s=config.gap_ms / 1000, blocked_s=config.blocked_s, heartbeat_s=config.heartbeat_s
        )
        try:
            with (
                open_serial(config.port_a, config.baud, came.set) as take_a,
                open_serial(config.port_b, config.baud, came.set) as take_b,
            ):
                now_us = followed_us = clock.now().mono_us
                lidars = (_Lidar(config, now_us), _Lidar(config, now_us))
                bad_said = 0
                while True:
                    chunks = (take_a(), take_b())
                    now = clock.now()
                    changes = [
                        (at_us, beam, cut)
                        for beam, (lidar, chunk) in enumerate(zip(lidars, chunks, strict=True))
                        for at_us, cut in lidar.changes(chunk, now.mono_us)
                    ]
                    for at_us, beam, cut in sorted(changes):
                        followed_us = max(followed_us, at_us)
                        line.follow(beam, cut=cut, at_us=followed_us)
                    for lidar, port in zip(lidars, (config.port_a, config.port_b), strict=True):
                        if now.mono_us - lidar.heard_us >= SILENT_US:
                            raise DeviceError(
                                f"the lidar on {port} says nothing it should: is it powered, is TX wired to RX, and is the "
                                f"speed {config.baud}? Nobody is counted until then."
                            )
                    followed_us = now.mono_us  # what comes next was measured later
                    if all(lidar.heard for lidar in lidars):
                        for reading in line.say(now):
                            yield reading
                            bad = sum(lidar.stream.bad for lidar in lidars)
                            if reading.metric == "heartbeat" and bad != bad_said:
                                bad_said = bad
                                yield Reading(now, self._device, "frames_bad", bad)
                    due_us = min(line.due_us, *(lidar.heard_us + SILENT_US for lidar in lidars))
                    if await woken_within(came, (due_us - clock.now().mono_us) / 1e6, clock):
                        await clock.sleep(GATHER_S)
        finally:
            line.close()
