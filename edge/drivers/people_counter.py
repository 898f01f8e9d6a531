"""A beam or radar people counter on a serial port: count_in, count_out, battery_voltage, frames_bad, heartbeat.

The frames are edge.decoders.beam_counter's. The totals are the device's own and are passed on as they are: whoever
reads them sees a restart as a smaller value. Noise can't make one, because of the CRC.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.decoders.beam_counter import CounterFrame, FrameStream
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Reading, Record, Site


class PeopleCounterConfig(BaseModel):
    """`type = "people_counter"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["people_counter"]
    port: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Serial port; a name under /dev/serial/by-id stays the same when another device is plugged in.",
        ),
    ]
    baud: Annotated[int, Field(ge=300, le=4_000_000, description="Speed of the port, 8N1.")] = 9600
    heartbeat_s: Annotated[
        float, Field(ge=1, le=86_400, description="How often it says that the counter is alive, if it is.")
    ] = 60


class PeopleCounter:
    """Says a total when it changed, and everything each heartbeat in which a good frame came."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "count_in", "count_out", "battery_voltage", "frames_bad")

    def __init__(self, device: str, config: PeopleCounterConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """The first good frame is said at once, with a heartbeat. Without good frames there is none: silence is unknown."""
        config, clock = self._config, self._site.clock
        came, stream = asyncio.Event(), FrameStream()
        with open_serial(config.port, config.baud, came.set) as take:
            started_us = clock.now().mono_us
            beat_due_us = started_us + int(config.heartbeat_s * 1e6)
            before: CounterFrame | None = None
            frames_since_beat = 0
            bad_said = 0
            while True:
                frames = stream.feed(take())
                now = clock.now()
                frames_since_beat += len(frames)
                if before is None and frames:
                    before = frames[0]
                    beat_due_us = now.mono_us
                beat = now.mono_us >= beat_due_us
                for number, frame in enumerate(frames, start=1):
                    if before is not None and not (beat and number == len(frames)):  # the beat says the last one
                        if frame.in_total != before.in_total:
                            yield Reading(now, self._device, "count_in", frame.in_total)
                        if frame.out_total != before.out_total:
                            yield Reading(now, self._device, "count_out", frame.out_total)
                    before = frame
                if beat:
                    if before is not None and frames_since_beat:
                        yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                        yield Reading(now, self._device, "count_in", before.in_total)
                        yield Reading(now, self._device, "count_out", before.out_total)
                        if before.battery_mv is not None:
                            yield Reading(now, self._device, "battery_voltage", before.battery_mv / 1000)
                    if stream.bad != bad_said:
                        bad_said = stream.bad
                        yield Reading(now, self._device, "frames_bad", bad_said)
                    frames_since_beat = 0
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                await woken_within(came, (beat_due_us - clock.now().mono_us) / 1e6, clock)
