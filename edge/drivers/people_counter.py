"""A people counter on a serial port that keeps its own totals: count_in, count_out, counter_resets, battery_voltage, heartbeat.

What is said are totals that only grow (edge.drivers.totals): people who passed while nobody listened are in the next one, and a
counter that restarts or runs over takes nobody back. Which bytes it speaks, `format` tells; each is a decoder of its own.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.clock import Instant
from edge.decoders.beam_counter import FrameStream
from edge.decoders.counter_lines import Agreed, LineStream, compile_pattern
from edge.decoders.terabee import MODULUS as TERABEE_MODULUS
from edge.decoders.terabee import TerabeeStream
from edge.drivers.totals import Counts, Totals
from edge.errors import DeviceError
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Reading, Record, Site

REPORT_US = 5_000_000
"""How often new totals are said at most. They are saved before, so that they never go back; that must not wear out the card."""


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
    format: Annotated[
        Literal["satomori", "terabee", "lines"],
        Field(description="What the counter speaks: our frames, Terabee's People Counter Evo, or lines of text."),
    ] = "satomori"
    pattern: Annotated[
        str,
        Field(
            max_length=200,
            description="For `lines`: a regular expression for a whole line, with the groups (?P<in>) and (?P<out>).",
        ),
    ] = ""
    counts: Annotated[
        Literal["total", "since_last"],
        Field(description="For `lines`: whether the numbers are totals, or people since the line before."),
    ] = "total"
    runs_over_at: Annotated[
        int, Field(ge=0, le=2**53, description="For `lines` with totals: where the counter begins at 0 again; 0: nowhere.")
    ] = 0
    heartbeat_s: Annotated[
        float, Field(ge=1, le=86_400, description="How often it says that the counter is alive, if it is.")
    ] = 60

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "lines":
            if not self.pattern:
                raise ValueError(r"pattern is missing: format \"lines\" needs one, like 'IN=(?P<in>\d+) OUT=(?P<out>\d+)'")
            try:
                compile_pattern(self.pattern)
            except ValueError as error:
                raise ValueError(f"pattern {error}") from None
        elif self.pattern or self.runs_over_at or self.counts != "total":
            raise ValueError('pattern, counts and runs_over_at are for format = "lines"')
        return self


class _Said(NamedTuple):
    """What one frame or line tells."""

    counts: Counts | None
    """None: only that the counter lives."""
    battery_mv: int | None = None


class _Stream(Protocol):
    bad: int

    def feed(self, chunk: bytes) -> Iterator[_Said]: ...


class PeopleCounter:
    """Says a total when it changed, and everything each heartbeat in which something good came."""

    metrics: ClassVar[tuple[str, ...]] = (
        "heartbeat",
        "count_in",
        "count_out",
        "counter_resets",
        "battery_voltage",
        "frames_bad",
    )

    def __init__(self, device: str, config: PeopleCounterConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._resets_said = -1

    async def records(self) -> AsyncIterator[Record]:
        """The first good frame is said at once, with a heartbeat. Without good frames there is none: silence is unknown."""
        config, clock = self._config, self._site.clock
        came, stream = asyncio.Event(), _stream(config)
        modulus = {"satomori": 2**32, "terabee": TERABEE_MODULUS, "lines": config.runs_over_at or None}[config.format]
        totals = Totals(self._site.state)
        with open_serial(config.port, config.baud, came.set) as take:
            started_us = may_report_us = clock.now().mono_us
            beat_due_us = started_us + int(config.heartbeat_s * 1e6)
            heard, alive, battery_mv, bad_said, self._resets_said = False, False, None, 0, -1
            told = Counts(-1, -1)
            try:
                while True:
                    said = list(stream.feed(take()))
                    now = clock.now()
                    must_save = False
                    for one in said:
                        battery_mv = one.battery_mv or battery_mv
                        if one.counts is not None and self._count(totals, one.counts, modulus):
                            must_save = True
                    if said and not heard:
                        heard, beat_due_us = True, now.mono_us
                    alive = alive or bool(said)
                    beat = now.mono_us >= beat_due_us
                    counted = Counts(totals.inward, totals.outward)
                    report = heard and counted != told and now.mono_us >= may_report_us
                    if totals.unsaved and (must_save or report or beat):
                        self._save(totals)
                    if beat:
                        if alive:
                            told = counted
                            for record in self._beat(now, started_us, totals, battery_mv):
                                yield record
                        if stream.bad != bad_said:
                            bad_said = stream.bad
                            yield Reading(now, self._device, "frames_bad", bad_said)
                        alive = False
                        beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                    if report and counted != told:
                        before, told, may_report_us = told, counted, now.mono_us + REPORT_US
                        for record in self._changes(now, before, counted):
                            yield record
                    due_us = min(beat_due_us, may_report_us) if heard and counted != told else beat_due_us
                    await woken_within(came, (due_us - clock.now().mono_us) / 1e6, clock)
            finally:
                if totals.unsaved:
                    self._save(totals)

    def _count(self, totals: Totals, counts: Counts, modulus: int | None) -> bool:
        """Whether the file must be written now: what the counter itself can't tell again would be lost with it."""
        if self._config.counts == "since_last":
            totals.add(*counts)
            return any(counts)
        return totals.follow(counts, modulus)

    def _beat(self, now: Instant, started_us: int, totals: Totals, battery_mv: int | None) -> Iterator[Reading]:
        yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
        yield Reading(now, self._device, "count_in", totals.inward)
        yield Reading(now, self._device, "count_out", totals.outward)
        if totals.resets != self._resets_said:
            self._resets_said = totals.resets
            yield Reading(now, self._device, "counter_resets", totals.resets)
        if battery_mv is not None:
            yield Reading(now, self._device, "battery_voltage", battery_mv / 1000)

    def _changes(self, now: Instant, before: Counts, after: Counts) -> Iterator[Reading]:
        if before.inward != after.inward:
            yield Reading(now, self._device, "count_in", after.inward)
        if before.outward != after.outward:
            yield Reading(now, self._device, "count_out", after.outward)

    def _save(self, totals: Totals) -> None:
        try:
            totals.save()
        except OSError as error:
            raise DeviceError(f"the totals can't be saved: {error}. Is the disk full or read-only?") from error


class _Satomori:
    def __init__(self) -> None:
        self._frames = FrameStream()

    @property
    def bad(self) -> int:
        return self._frames.bad

    def feed(self, chunk: bytes) -> Iterator[_Said]:
        for frame in self._frames.feed(chunk):
            yield _Said(Counts(frame.in_total, frame.out_total), frame.battery_mv)


class _Terabee:
    def __init__(self) -> None:
        self._frames = TerabeeStream()

    @property
    def bad(self) -> int:
        return self._frames.bad

    def feed(self, chunk: bytes) -> Iterator[_Said]:
        for frame in self._frames.feed(chunk):
            yield _Said(Counts(*frame.counts) if frame.counts else None)


class _Lines:
    def __init__(self, pattern: re.Pattern[str], *, totals: bool) -> None:
        self._lines = LineStream(pattern)
        self._agreed = Agreed() if totals else None

    @property
    def bad(self) -> int:
        return self._lines.bad

    def feed(self, chunk: bytes) -> Iterator[_Said]:
        for line in self._lines.feed(chunk):
            believed = self._agreed.heard(line) if self._agreed else line
            yield _Said(Counts(*believed) if believed else None)


def _stream(config: PeopleCounterConfig) -> "_Satomori | _Terabee | _Lines":
    if config.format == "terabee":
        return _Terabee()
    if config.format == "lines":
        return _Lines(compile_pattern(config.pattern), totals=config.counts == "total")
    return _Satomori()
