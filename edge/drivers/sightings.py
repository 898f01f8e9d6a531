"""Many advertisements -> few sightings: enter and leave at once, else one summary per tag and interval.

Pure: `now` is an argument, and any source of advertisements will do. Decided by time since boot, which never steps.
"""

from dataclasses import dataclass

from edge.clock import Instant
from edge.contract.events import TagEntered, TagLeft, TagSeen
from edge.records import Happened

MAX_TAGS = 5000
"""Tags followed at once: no street has so many, but a transmitter that makes up identities does."""


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
            self._near[tag] = _Near(now, rssi, now.mono_us + self._summary_us)
            said.append(Happened(now, TagEntered(device=self._device, tag=tag, rssi=rssi)))
        else:
            near.last, near.last_rssi = now, rssi
            near.frames += 1
            near.strongest = rssi if near.strongest is None else max(near.strongest, rssi)
        return said

    def tick(self, now: Instant) -> list[Happened]:
        """What the passing of time says: tags that left (at the instant they were heard last), and due summaries."""
        said: list[Happened] = []
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
        return said

    def next_due_us(self) -> int | None:
        """Time since boot at which tick() has something to do, or None while nothing is within reach."""
        return min(
            (min(near.last.mono_us + self._leave_us, near.summary_due_us) for near in self._near.values()),
            default=None,
        )

    def _left(self, tag: str, near: _Near) -> Happened:
        del self._near[tag]
        rssi = near.last_rssi if near.strongest is None else near.strongest
        return Happened(near.last, TagLeft(device=self._device, tag=tag, rssi=rssi))
