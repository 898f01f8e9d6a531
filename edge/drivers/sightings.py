"""Many advertisements -> few events: sightings (enter and leave at once, else one summary an interval), batteries, buttons.

Pure: `now` is an argument, and any source of advertisements will do. Decided by time since boot, which never steps.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from edge.clock import Instant
from edge.contract.events import ButtonPressed, TagBattery, TagEntered, TagLeft, TagSeen
from edge.decoders.bthome import BtHome
from edge.records import Happened

MAX_TAGS = 5000
"""Tags followed at once: no street has so many, but a transmitter that makes up identities does."""

BATTERY_AGAIN_US = 24 * 3600 * 1_000_000
NOTICEABLE_V, NOTICEABLE_LEVEL = 0.1, 5
"""A battery is spoken of when it changed by so much (V, percent), and once a day."""

SAME_PACKET_US = 300 * 1_000_000
"""A packet id heard again within this time of the last time is the same packet: ids begin anew after 256."""

SAME_BURST_US = 5 * 1_000_000
"""Without a packet id, the same press heard again within this time of the last time is the same press."""

PRESSES, PRESSES_US = 6, 60 * 1_000_000
"""At most so many presses of one tag are told in so long: by then somebody knows, and no button may fill the disk."""

NEWCOMERS = 20
"""At most so many tags that were never heard to be pressed before may be in `PRESSES_US`: a transmitter that makes up identities
rings no more often, while a tag whose press is remembered has `PRESSES` of its own."""

RESTARTED_COUNTER = 100
"""A counter below this may have begun anew, with a new battery; above, one that does not grow is a recording played back."""


@dataclass(slots=True)
class _Near:
    """A tag within reach."""

    last: Instant
    last_rssi: int
    summary_due_us: int
    frames: int = 0  # since it was spoken of last
    strongest: int | None = None  # likewise


class Sightings:
    """What is within reach of one receiver, and what to say of it. `now` must never go back in time since boot."""

    def __init__(self, device: str, leave_after_s: float, summary_s: float) -> None:
        self._device = device
        self._leave_us, self._summary_us = int(leave_after_s * 1e6), int(summary_s * 1e6)
        self._near: dict[str, _Near] = {}
        self._due_us: int | None = None  # nothing is due earlier; a tag that is heard again only puts it off
        self.refused = 0
        """Advertisements dropped because `MAX_TAGS` others were within reach, in total."""

    @property
    def near(self) -> int:
        """Tags within reach as of the last call."""
        return len(self._near)

    def heard(self, tag: str, rssi: int, now: Instant) -> list[Happened]:
        """One advertisement of one tag, `rssi` in dBm."""
        said: list[Happened] = []
        near = self._near.get(tag)
        if near is not None and now.mono_us - near.last.mono_us >= self._leave_us:
            said.append(self._left(tag, near))  # nobody called tick() meanwhile
            near = None
        if near is None:
            if len(self._near) >= MAX_TAGS:
                self.refused += 1
                return said
            self._near[tag] = near = _Near(now, rssi, now.mono_us + self._summary_us)
            due_us = self._due_of(near)
            self._due_us = due_us if self._due_us is None else min(self._due_us, due_us)
            said.append(Happened(now, TagEntered(device=self._device, tag=tag, rssi=rssi)))
        else:
            near.last, near.last_rssi = now, rssi
            near.frames += 1
            near.strongest = rssi if near.strongest is None else max(near.strongest, rssi)
        return said

    def tick(self, now: Instant) -> list[Happened]:
        """What the passing of time says: tags that left (at the instant they were heard last), and due summaries."""
        said: list[Happened] = []
        if self._due_us is None or now.mono_us < self._due_us:
            return said  # hundreds of tags are not looked at for each advertisement of one
        for tag, near in list(self._near.items()):
            if now.mono_us - near.last.mono_us >= self._leave_us:
                said.append(self._left(tag, near))
            elif now.mono_us >= near.summary_due_us:
                # A tag of which nothing was heard since has nothing to sum up; it leaves or is heard again.
                if near.strongest is not None:
                    seen = TagSeen(device=self._device, tag=tag, rssi=near.strongest, frames=near.frames)
                    said.append(Happened(near.last, seen))
                near.frames, near.strongest = 0, None
                near.summary_due_us = now.mono_us + self._summary_us
        self._due_us = min(map(self._due_of, self._near.values()), default=None)
        return said

    def next_due_us(self) -> int | None:
        """Time since boot before which tick() has nothing to do, or None while nothing is within reach."""
        return self._due_us

    def _due_of(self, near: _Near) -> int:
        return min(near.last.mono_us + self._leave_us, near.summary_due_us)

    def _left(self, tag: str, near: _Near) -> Happened:
        del self._near[tag]
        rssi = near.last_rssi if near.strongest is None else near.strongest
        return Happened(near.last, TagLeft(device=self._device, tag=tag, rssi=rssi))


@dataclass(slots=True)
class _Battery:
    """What was told of one tag's battery, and when."""

    voltage: float | None
    level: int | None
    told_us: int


class Batteries:
    """What tags say of their batteries, and what of that is worth an event."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._told: dict[str, _Battery] = {}

    def heard(self, tag: str, voltage: float | None, level: int | None, now: Instant) -> list[Happened]:
        """One word of a tag on its battery, V and percent; a tag may say the two in turn."""
        if voltage is None and level is None:
            return []
        before = self._told.get(tag)
        if before is not None:
            # What this frame does not speak of is as it was, and no news.
            voltage = before.voltage if voltage is None else voltage
            level = before.level if level is None else level
            if now.mono_us - before.told_us < BATTERY_AGAIN_US and not self._differs(before, voltage, level):
                return []
        elif len(self._told) >= MAX_TAGS:
            del self._told[min(self._told, key=lambda one: self._told[one].told_us)]
        self._told[tag] = _Battery(voltage, level, now.mono_us)
        return [Happened(now, TagBattery(device=self._device, tag=tag, voltage=voltage, level=level))]

    @staticmethod
    def _differs(before: _Battery, voltage: float | None, level: int | None) -> bool:
        if (before.voltage is None) != (voltage is None) or (before.level is None) != (level is None):
            return True  # the first word of the other kind
        # Rounded, because 3.0 - 2.9 is a little less than 0.1.
        volts = round(abs((voltage or 0) - (before.voltage or 0)), 6)
        return volts >= NOTICEABLE_V or abs((level or 0) - (before.level or 0)) >= NOTICEABLE_LEVEL


class Pressed(BaseModel):
    """The last press of a tag that was told: what outlives a restart, so that nobody is woken twice for one."""

    model_config = ConfigDict(extra="forbid")

    presses: tuple[str, ...]
    packet_id: int | None
    counter: int | None
    utc_us: int
    """When it was heard last."""


@dataclass(slots=True)
class _Button:
    told: Pressed
    heard_us: int  # the packet of that press, by time since boot
    resting: bool = False  # since then the tag has said that its buttons rest
    times_us: deque[int] = field(default_factory=lambda: deque(maxlen=PRESSES))


class Buttons:
    """Which of a tag's many repetitions is a new press."""

    def __init__(self, device: str, remembered: Mapping[str, Pressed], now: Instant) -> None:
        """`remembered` is `memory` of an earlier run."""
        self._device = device
        self._newcomers_us: deque[int] = deque(maxlen=NEWCOMERS)
        self.refused = 0
        """Frames of newcomers that were not told because of `NEWCOMERS` others, in total."""
        self._buttons = {
            # A wall clock that went back counts as no time: then the press may still be the same.
            tag: _Button(told, now.mono_us - max(now.utc_us - told.utc_us, 0))
            for tag, told in remembered.items()
        }

    @property
    def memory(self) -> dict[str, Pressed]:
        """What to hand to the constructor after a restart."""
        return {tag: button.told for tag, button in self._buttons.items()}

    def heard(self, tag: str, said: BtHome, rssi: int, now: Instant) -> list[Happened]:
        """One BTHome frame of a tag, `rssi` in dBm: an event for each kind of press in it that is new."""
        button = self._buttons.get(tag)
        if said.presses is None:
            return []  # it speaks of other things
        if not said.presses:
            if button is not None:
                button.resting = True
            return []
        if button is not None:
            if self._same(button, said, now):
                button.heard_us = now.mono_us
                button.told.utc_us = now.utc_us
                return []
            before = button.told.counter
            if said.counter is not None and before is not None and RESTARTED_COUNTER <= said.counter <= before:
                return []
            times_us = button.times_us
            if len(times_us) == PRESSES and now.mono_us - times_us[0] < PRESSES_US:
                return []
        else:
            newcomers_us = self._newcomers_us
            if len(newcomers_us) == NEWCOMERS and now.mono_us - newcomers_us[0] < PRESSES_US:
                self.refused += 1
                return []
            newcomers_us.append(now.mono_us)
            if len(self._buttons) >= MAX_TAGS:
                del self._buttons[min(self._buttons, key=lambda one: self._buttons[one].heard_us)]
        told = Pressed(presses=said.presses, packet_id=said.packet_id, counter=said.counter, utc_us=now.utc_us)
        new = _Button(told, now.mono_us)
        if button is not None:
            new.times_us.extend(button.times_us)
        new.times_us.append(now.mono_us)
        self._buttons[tag] = new
        return [
            Happened(now, ButtonPressed.model_validate({"device": self._device, "tag": tag, "press": press, "rssi": rssi}))
            for press in dict.fromkeys(said.presses)
        ]

    @staticmethod
    def _same(button: _Button, said: BtHome, now: Instant) -> bool:
        """Whether this is a repetition of the press that was told."""
        age_us, told = now.mono_us - button.heard_us, button.told
        if said.packet_id is not None:
            return said.packet_id == told.packet_id and age_us < SAME_PACKET_US
        return told.packet_id is None and said.presses == told.presses and not button.resting and age_us < SAME_BURST_US
