"""A box or snare trap with a reed or limit switch on a GPIO pin; besides it perhaps a tamper loop, vibration, tilt, a button.

trap_sprung, trap_reset, tamper_opened, tamper_closed, trap_moved, trap_visited; trap_closed, bump, heartbeat.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.clock import Instant
from edge.contract.events import TrapVisited
from edge.drivers.paced import BURST, BURST_US, Kind, Paced, Tale, event_of
from edge.durable import write_whole
from edge.hardware.pins import open_switch
from edge.hardware.wakeup import woken_within
from edge.records import Happened, Reading, Record, Site

log = logging.getLogger(__name__)

UNSETTLED_DEBOUNCES = 25
"""A switch that chatters on and on is taken as sprung after so many debounce times: an animal is shaking the trap."""

VISIT_PAUSE_US = 60_000_000
"""Presses of the visit button so soon after one that was told are the same visit: people press twice to be sure."""

SPRINGING_US = 2_000_000
"""A trap that springs shakes: a movement is told only when its switch has not said sprung so long after it."""

_MEMORY: dict[Kind, tuple[str, str]] = {
    "trap_sprung": ("told", "sprung"),
    "trap_reset": ("told", "set"),
    "tamper_opened": ("tamper", "opened"),
    "tamper_closed": ("tamper", "closed"),
}
"""Which file remembers what was told last of a switch, and how it says that."""

_Level = Literal["closed", "open"]
_Pin = Annotated[int, Field(ge=0, le=27)]


class ReedTrapConfig(BaseModel):
    """`type = "reed_trap"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["reed_trap"]
    pin: Annotated[int, Field(ge=0, le=27, description="BCM number of the GPIO pin.")]
    sprung_when: Annotated[_Level, Field(description="What the switch does when the trap springs.")] = "closed"
    debounce_ms: Annotated[int, Field(ge=0, le=10_000, description="How long the switch must hold before a change counts.")] = 200
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often the trap says that it is alive.")] = 60
    tamper_pin: _Pin | None = Field(None, description="BCM number of the pin of a tamper loop or lid switch.")
    tamper_when: Annotated[_Level, Field(description="What the tamper loop does when somebody tampers.")] = "open"
    vibration_pin: _Pin | None = Field(None, description="BCM number of the pin of a vibration sensor.")
    tilt_pin: _Pin | None = Field(None, description="BCM number of the pin of a tilt switch.")
    visit_pin: _Pin | None = Field(None, description="BCM number of the pin of a button that visitors press.")
    move_pause_s: Annotated[
        float, Field(ge=1, le=86_400, description="At most one movement of each kind in so long is told; the others are counted.")
    ] = 300

    @model_validator(mode="after")
    def _own_pins(self) -> Self:
        names = ("pin", "tamper_pin", "vibration_pin", "tilt_pin", "visit_pin")
        pins = {name: pin for name in names if (pin := getattr(self, name)) is not None}
        for name, pin in pins.items():
            first = next(other for other, taken in pins.items() if taken == pin)
            if first != name:
                raise ValueError(f"{name} and {first} are both {pin}: each switch needs a pin of its own")
        return self


class _Change(NamedTuple):
    """A switch left its settled state."""

    at: Instant
    quiet_since_us: int
    folded: int
    found: bool = False


class _Switch:
    """One debounced input: at most one tale per settled change, none too often. On is what is worth an alarm."""

    def __init__(self, read: Callable[[], bool], kinds: tuple[Kind, Kind], debounce_ms: int, *, told: bool) -> None:
        """`read` tells whether it is on now, `told` whether it was when it was spoken of last; `kinds` when it is off and on."""
        self.on = told
        self.edges = 0
        self._read, self._kinds, self._debounce_us = read, kinds, debounce_ms * 1000
        self._change: _Change | None = None
        self._said_us: deque[int] = deque(maxlen=BURST)

    def begin(self, now: Instant) -> None:
        """What is found at the start may differ from what was told last."""
        self._change = _Change(now, now.mono_us, 0, found=True) if self._read() != self.on else None

    def begin_as_found(self) -> None:
        """For what is no news, however it is found."""
        self.on = self._read()

    def step(self, now: Instant) -> Tale | None:
        """Follows the switch; says so when it has settled in a new state."""
        on = self._read()
        edges, self.edges = self.edges, 0
        if self._change is None:
            # The first edge is the change itself; the others are chatter.
            self._change = _Change(now, now.mono_us, max(edges - 1, 0)) if on != self.on else None
        elif edges:
            self._change = self._change._replace(quiet_since_us=now.mono_us, folded=self._change.folded + edges)
        change, due_us = self._change, self.due_us
        if change is None or due_us is None or now.mono_us < due_us:
            return None
        final = on or now.mono_us < change.quiet_since_us + self._debounce_us
        self._change = None
        if final == self.on:
            return None
        self.on = final
        self._said_us.append(now.mono_us)
        return Tale(change.at, self._kinds[final], change.folded, change.found)

    @property
    def due_us(self) -> int | None:
        """When the change under way is decided; None while there is none."""
        if self._change is None:
            return None
        quiet_us = self._change.quiet_since_us + self._debounce_us
        patience_us = self._change.at.mono_us + self._debounce_us * UNSETTLED_DEBOUNCES
        allowed_us = self._said_us[0] + BURST_US if len(self._said_us) == BURST else 0
        return max(min(quiet_us, patience_us), allowed_us)


class _Shakes:
    """Makes movements of a vibration sensor's edges: a run of them without a pause of the debounce time is one."""

    due_us: int | None = None

    def __init__(self, debounce_ms: int) -> None:
        self.edges = 0
        self._debounce_us = debounce_ms * 1000
        self._last_us: int | None = None

    def step(self, now: Instant) -> Tale | None:
        """The one that began now."""
        edges, self.edges = self.edges, 0
        if not edges:
            return None
        began = self._last_us is None or now.mono_us >= self._last_us + self._debounce_us
        self._last_us = now.mono_us
        return Tale(now, "vibration") if began else None


class _Movement:
    """Movements of one kind: counted all, told in rate, and only while the trap is set."""

    def __init__(self, sensor: _Switch | _Shakes, pause_s: float) -> None:
        self.felt = 0
        self._sensor = sensor
        self._paced = Paced(1, int(pause_s * 1e6))
        self._begun: Tale | None = None

    def step(self, now: Instant, trap: _Switch) -> Tale | None:
        """What may be told now."""
        if (tale := self._sensor.step(now)) is not None:
            self.felt += 1
            begun = self._begun
            self._begun = tale if begun is None else begun._replace(folded=begun.folded + 1)
        if trap.on:
            self._begun = None  # it has sprung: that is told, and what shakes it is what it caught
        if self._begun is not None and trap.due_us is None and now.mono_us >= self._begun.at.mono_us + SPRINGING_US:
            self._paced.add(self._begun)
            self._begun = None
        return self._paced.take(now.mono_us)

    def due_us(self, trap: _Switch) -> int | None:
        """When `step` has something to do; while the trap's own switch changes, that has its time."""
        springing_us = None if self._begun is None or trap.due_us is not None else self._begun.at.mono_us + SPRINGING_US
        dues = (self._sensor.due_us, self._paced.due_us, springing_us)
        return min((due for due in dues if due is not None), default=None)


class _Button:
    """A button that a visitor holds for the debounce time: one press is one visit, and presses that follow soon are the same."""

    def __init__(self, read: Callable[[], bool], debounce_ms: int) -> None:
        self._read, self._debounce_us = read, debounce_ms * 1000
        self._down: Instant | None = None
        # Pressed while the agent starts is a jammed button, until it was once let go.
        self._armed = not read()
        self._said_us: int | None = None

    def step(self, now: Instant) -> Instant | None:
        """When the press began that counts as a visit now."""
        if not self._read():
            self._armed, self._down = True, None
            return None
        if not self._armed:
            return None
        self._down = self._down or now
        if now.mono_us < self._down.mono_us + self._debounce_us:
            return None
        self._armed = False
        if self._said_us is not None and self._down.mono_us < self._said_us + VISIT_PAUSE_US:
            return None
        self._said_us = now.mono_us
        return self._down

    @property
    def due_us(self) -> int | None:
        """When a press under way counts."""
        return None if self._down is None or not self._armed else self._down.mono_us + self._debounce_us


class ReedTrap:
    """Turns the edges of a trap's switches into at most one event per settled change."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "trap_closed", "bump")

    def __init__(self, device: str, config: ReedTrapConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """Readings each heartbeat and at each change; an event when a settled state changes, at its first edge.

        The state found at the start is said as a reading, and as an event when it is not the one last told: a trap that sprang
        while the node had no power must still ring, and one that was reset must be able to ring again. Such an event is marked
        `found`, for it may be one that was told already: after a power cut, or when the outbox was lost. None is left out.
        """
        config, clock, device = self._config, self._site.clock, self._device
        wakeup = asyncio.Event()
        with ExitStack() as opened:
            trap = self._switch(opened, wakeup, config.pin, config.sprung_when, ("trap_reset", "trap_sprung"))
            switches = [trap]
            if config.tamper_pin is not None:
                kinds: tuple[Kind, Kind] = ("tamper_closed", "tamper_opened")
                switches.append(self._switch(opened, wakeup, config.tamper_pin, config.tamper_when, kinds))
            moves = self._moves(opened, wakeup)
            button = self._button(opened, wakeup)
            bumps = _Bumps(self._site.state / "bumps")
            start = clock.now()
            beat_due_us = start.mono_us
            for switch in switches:
                switch.begin(start)
            while True:
                now = clock.now()
                for switch in switches:
                    if tale := switch.step(now):
                        yield Happened(tale.at, event_of(tale, device))
                        self._told(tale.kind)  # the agent comes back for more only when the event is committed
                        if switch is trap:
                            yield Reading(tale.at, device, "trap_closed", float(trap.on))
                for move in moves:
                    if tale := move.step(now, trap):
                        yield Happened(tale.at, event_of(tale, device))
                if button is not None and (pressed := button.step(now)) is not None:
                    yield Happened(pressed, TrapVisited(device=device))
                if now.mono_us >= beat_due_us:
                    yield Reading(now, device, "heartbeat", (now.mono_us - start.mono_us) / 1e6)
                    yield Reading(now, device, "trap_closed", float(trap.on))
                    if moves:
                        yield Reading(now, device, "bump", bumps.total(sum(move.felt for move in moves)))
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                dues = [beat_due_us, *(switch.due_us for switch in switches), *(move.due_us(trap) for move in moves)]
                dues.append(None if button is None else button.due_us)
                due_us = min(due for due in dues if due is not None)
                await woken_within(wakeup, max(due_us - clock.now().mono_us, 0) / 1e6, clock)

    def _switch(self, opened: ExitStack, wakeup: asyncio.Event, pin: int, on_when: _Level, kinds: tuple[Kind, Kind]) -> _Switch:
        """A switch on a pin that knows what was told of it last."""

        def on_edge() -> None:
            switch.edges += 1
            wakeup.set()

        read = _open(opened, pin, on_when, on_edge)
        switch = _Switch(read, kinds, self._config.debounce_ms, told=self._last_told(kinds[True]))
        return switch

    def _moves(self, opened: ExitStack, wakeup: asyncio.Event) -> list[_Movement]:
        """The inputs that feel movements, as far as there are any."""
        config, moves = self._config, []
        if config.vibration_pin is not None:
            shakes = _Shakes(config.debounce_ms)

            def on_shake() -> None:
                shakes.edges += 1
                wakeup.set()

            _open(opened, config.vibration_pin, "closed", on_shake)
            moves.append(_Movement(shakes, config.move_pause_s))
        if config.tilt_pin is not None:
            tilt = self._switch(opened, wakeup, config.tilt_pin, "closed", ("tilt", "tilt"))
            tilt.begin_as_found()
            moves.append(_Movement(tilt, config.move_pause_s))
        return moves

    def _button(self, opened: ExitStack, wakeup: asyncio.Event) -> _Button | None:
        """The visit button, where there is one."""
        if self._config.visit_pin is None:
            return None
        read = _open(opened, self._config.visit_pin, "closed", wakeup.set)
        return _Button(read, self._config.debounce_ms)

    def _last_told(self, kind: Kind) -> bool:
        """Whether the last event of this kind's switch that was committed is of this kind; false when there was none."""
        file, state = _MEMORY.get(kind, ("", ""))
        try:
            told = (self._site.state / file).read_text(encoding="ascii", errors="replace") if file else ""
        except FileNotFoundError:
            return False
        # An outbox begun anew may have lost what the old one had not sent yet.
        return told == f"{self._site.epoch} {state}"

    def _told(self, kind: Kind) -> None:
        """Durable when it returns, as the event is: a power cut after this finds it."""
        file, state = _MEMORY[kind]
        write_whole(self._site.state / file, f"{self._site.epoch} {state}".encode("ascii"))


class _Bumps:
    """The movements felt, over restarts. What is said was written down before, so that it never falls."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before = self._kept = self._read()

    def total(self, felt: int) -> int:
        """With those felt since the start. Durable when it returns; called once a heartbeat, which spares the SD card."""
        total = self._before + felt
        if total != self._kept:
            write_whole(self._file, str(total).encode("ascii"))
            self._kept = total
        return total

    def _read(self) -> int:
        try:
            return max(int(self._file.read_text(encoding="ascii")), 0)
        except FileNotFoundError:
            return 0
        except ValueError as error:  # no number, or no ASCII
            log.error("%s can't be used (%s); bumps are counted from zero again", self._file, error)
            return 0


def _open(opened: ExitStack, pin: int, on_when: _Level, on_edge: Callable[[], object]) -> Callable[[], bool]:
    """Opens a pin; the function tells whether it is in the state `on_when` now. `on_edge` is called in the event loop."""
    loop = asyncio.get_running_loop()
    # gpiozero calls back from its own thread.
    closed = opened.enter_context(open_switch(pin, lambda: loop.call_soon_threadsafe(on_edge)))
    return lambda: closed() == (on_when == "closed")
