"""A Pi's own camera, woken by a motion sensor or by order: media_captured, pir_count, media_count, media_withheld, heartbeat.

edge.drivers.pictures makes the events, as for any other camera. A picture is in memory until it is on the shelf: a power cut in
between loses it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.decoders.jpeg import jpeg_fault
from edge.drivers.pictures import Pictures, Shot, burst_of
from edge.errors import DeviceError
from edge.hardware.camera import open_camera, open_motion
from edge.hardware.card import CardReader
from edge.hardware.classifier import ModelConfig
from edge.hardware.wakeup import woken_within
from edge.records import Reading, Record, Site

REPORT_US = 5_000_000
"""How often new movements are said at most: a loose wire on the sensor's pin must not fill the disk."""


class PirCameraConfig(BaseModel):
    """`type = "pir_camera"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["pir_camera"]
    pin: Annotated[
        int | None,
        Field(ge=0, le=27, description="BCM number of the motion sensor's pin; absent: pictures are taken by order only."),
    ] = None
    pictures: Annotated[int, Field(ge=1, le=10, description="Pictures a burst.")] = 3
    interval_s: Annotated[float, Field(ge=0.2, le=60, description="From one picture of a burst to the next.")] = 1
    quiet_s: Annotated[
        float, Field(ge=0, le=86_400, description="Movement within this after a burst is counted, not pictured.")
    ] = 30
    warm_up_s: Annotated[
        float,
        Field(ge=0, le=600, description="A sensor sees ghosts when it was just switched on; for so long it is not believed."),
    ] = 60
    width: Annotated[int, Field(ge=64, le=9248, multiple_of=2, description="Of a picture, in pixels.")] = 1920
    height: Annotated[int, Field(ge=64, le=6944, multiple_of=2, description="Of a picture, in pixels.")] = 1080
    model: Annotated[
        ModelConfig | None, Field(description="Looks at pictures on this node; absent: they are `unclassified`.")
    ] = None
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the camera is alive.")] = 60


class PirCamera:
    """Takes a burst of pictures when something warm moves, or when it is told to."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "pir_count", "media_count", "media_withheld")

    def __init__(self, device: str, config: PirCameraConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._camera = CardReader("the camera")
        self._wakeup = asyncio.Event()
        self._moved = 0
        self._ordered = False

    def take_picture(self) -> None:
        """Asks for one picture; it comes as any other. Call it from the agent's loop."""
        self._ordered = True
        self._wakeup.set()

    async def records(self) -> AsyncIterator[Record]:
        """An event per picture, readings each heartbeat and of movements. DeviceError when camera or sensor can't be used."""
        config, clock = self._config, self._site.clock
        loop = asyncio.get_running_loop()
        self._moved, self._ordered = 0, False  # an order was for then
        pictures = Pictures(self._device, self._site, config.model)
        await pictures.open()
        with ExitStack() as open_things:
            open_things.callback(pictures.close)
            take = open_things.enter_context(open_camera(config.width, config.height))
            if config.pin is not None:
                open_things.enter_context(open_motion(config.pin, lambda: loop.call_soon_threadsafe(self._on_motion)))
            started_us = beat_due_us = may_report_us = clock.now().mono_us
            picture_from_us = started_us + int(config.warm_up_s * 1e6)
            counted = said = 0
            while True:
                now = clock.now()
                moved, self._moved = self._moved, 0
                ordered, self._ordered = self._ordered, False
                if now.mono_us >= started_us + config.warm_up_s * 1e6:
                    counted += moved
                wanted = 1 if ordered else 0
                if moved and now.mono_us >= picture_from_us:
                    wanted = config.pictures
                if wanted:
                    async with aclosing(self._burst(wanted, take, pictures)) as events:  # type: ignore[type-var]
                        async for event in events:
                            yield event
                    picture_from_us = max(picture_from_us, clock.now().mono_us + int(config.quiet_s * 1e6))
                    now = clock.now()
                if counted != said and now.mono_us >= may_report_us:
                    said, may_report_us = counted, now.mono_us + REPORT_US
                    yield Reading(now, self._device, "pir_count", counted)
                if now.mono_us >= beat_due_us:
                    yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                    yield Reading(now, self._device, "media_count", pictures.taken.count)
                    if config.model is not None:
                        yield Reading(now, self._device, "media_withheld", pictures.taken.withheld)
                    pictures.tidy()
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                due_us = beat_due_us if counted == said else min(beat_due_us, may_report_us)
                await woken_within(self._wakeup, (due_us - now.mono_us) / 1e6, clock)

    async def _burst(self, count: int, take: Callable[[], bytes], pictures: Pictures) -> AsyncIterator[Record]:
        """So many pictures; all are taken before the first is looked at, for the animal does not wait for a model."""
        clock, burst = self._site.clock, ""
        shots: dict[str, Shot] = {}
        for number in range(count):
            if number:
                await clock.sleep(self._config.interval_s)
            at = clock.now()
            content = await self._camera.run(take)
            if fault := jpeg_fault(content):
                raise DeviceError(f"the camera gave no whole picture: {fault}")
            sha256 = hashlib.sha256(content).hexdigest()
            burst = burst or burst_of(self._device, sha256)
            shots[sha256] = Shot(
                Path(), f"picture {number + 1}", sha256, len(content), "image/jpeg", content, None, burst=burst, at=at
            )
        for sha256, shot in shots.items():
            if sha256 in pictures.taken:
                continue  # a camera that gives one frame for ever; it was told once
            async with aclosing(pictures.take(shot, self._camera)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event

    def _on_motion(self) -> None:
        self._moved += 1
        self._wakeup.set()
