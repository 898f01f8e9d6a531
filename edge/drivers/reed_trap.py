"""A box or snare trap with a reed or limit switch on a GPIO pin: trap_sprung, trap_reset, trap_closed, heartbeat."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from edge.clock import Instant
from edge.contract.events import TrapReset, TrapSprung
from edge.hardware.pins import open_switch
from edge.hardware.wakeup import woken_within
from edge.records import Happened, Reading, Record, Site

UNSETTLED_DEBOUNCES = 25
"""A switch that chatters on and on is taken as sprung after so many debounce times: an animal is shaking the trap."""

BURST, BURST_US = 6, 60_000_000
"""At most so many events in so long; later changes are folded into the next one, so that nothing can fill the disk."""


class ReedTrapConfig(BaseModel):
    """`type = "reed_trap"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["reed_trap"]
    pin: Annotated[int, Field(ge=0, le=27, description="BCM number of the GPIO pin.")]
    sprung_when: Annotated[Literal["closed", "open"], Field(description="What the switch does when the trap springs.")] = "closed"
    debounce_ms: Annotated[int, Field(ge=0, le=10_000, description="How long the switch must hold before a change counts.")] = 200
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often the trap says that it is alive.")] = 60


class _Edges:
    """Counts the switch's edges and wakes the driver."""

    def __init__(self) -> None:
        self.wakeup = asyncio.Event()
        self._count = 0

    def add(self) -> None:
        self._count += 1
        self.wakeup.set()

    def take(self) -> int:
        count, self._count = self._count, 0
        return count


class _Change(NamedTuple):
    """The switch left its settled state."""

    at: Instant
    quiet_since_us: int
    folded: int
    found: bool = False


class ReedTrap:
    """Turns a switch's edges into at most one event per settled change."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "trap_closed")

    def __init__(self, device: str, config: ReedTrapConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """Readings each heartbeat and at each change; an event when the settled state changes, at its first edge.

        The state found at the start is said as a reading, and as an event when it is not the one last told: a trap that sprang
        while the node had no power must still ring, and one that was reset must be able to ring again. Such an event is marked
        `found`, for it may be one that was told already: after a power cut, or when the outbox was lost. None is left out.
        """
        clock, edges = self._site.clock, _Edges()
        loop = asyncio.get_running_loop()
        # gpiozero calls back from its own thread.
        with open_switch(self._config.pin, lambda: loop.call_soon_threadsafe(edges.add)) as closed:
            start = clock.now()
            started_us = beat_due_us = start.mono_us
            settled = self._last_told()
            sprung = closed() == (self._config.sprung_when == "closed")
            change = _Change(start, started_us, 0, found=True) if sprung != settled else None
            said: deque[int] = deque(maxlen=BURST)
            while True:
                now = clock.now()
                sprung = closed() == (self._config.sprung_when == "closed")
                change = self._follow(change, sprung != settled, edges.take(), now)
                due_us = beat_due_us
                if change is not None:
                    quiet_us = change.quiet_since_us + self._config.debounce_ms * 1000
                    patience_us = change.at.mono_us + self._config.debounce_ms * 1000 * UNSETTLED_DEBOUNCES
                    allowed_us = said[0] + BURST_US if len(said) == BURST else 0
                    decide_us = max(min(quiet_us, patience_us), allowed_us)
                    if now.mono_us >= decide_us:
                        final = sprung or now.mono_us < quiet_us
                        at, folded, found, change = change.at, change.folded, change.found, None
                        if final != settled:
                            settled = final
                            said.append(now.mono_us)
                            kind = TrapSprung if settled else TrapReset
                            yield Happened(at, kind(device=self._device, folded=folded, found=found))
                            self._told(settled)  # the agent comes back for more only when the event is committed
                            yield Reading(at, self._device, "trap_closed", float(settled))
                        continue
                    due_us = min(due_us, decide_us)
                if now.mono_us >= beat_due_us:
                    yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                    yield Reading(now, self._device, "trap_closed", float(settled))
                    beat_due_us = now.mono_us + int(self._config.heartbeat_s * 1e6)
                    continue
                await woken_within(edges.wakeup, (due_us - now.mono_us) / 1e6, clock)

    def _last_told(self) -> bool:
        """Whether the last event that was committed said sprung; a trap never heard of in this epoch counts as set."""
        try:
            told = (self._site.state / "told").read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return False
        # An outbox begun anew may have lost what the old one had not sent yet.
        return told == f"{self._site.epoch} sprung"

    def _told(self, sprung: bool) -> None:
        """Durable when it returns, as the event is: a power cut after this finds it."""
        folder = self._site.state
        new = folder / "told.new"
        with new.open("w", encoding="ascii") as file:
            file.write(f"{self._site.epoch} {'sprung' if sprung else 'set'}")
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / "told")
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    @staticmethod
    def _follow(change: _Change | None, differs: bool, edges: int, now: Instant) -> _Change | None:
        """What is going on after `edges` more edges: a change begins, goes on chattering, or holds still."""
        if change is None:
            # The first edge is the change itself; the others are chatter.
            return _Change(now, now.mono_us, max(edges - 1, 0)) if differs else None
        if edges:
            return change._replace(quiet_since_us=now.mono_us, folded=change.folded + edges)
        return change
