"""How far a trail camera's clock is off, from when its pictures arrive. Pure: times are arguments.

A picture arrives later than it was taken, by the way it takes and never earlier, so each arrival says: the camera's clock minus
the node's is at least (camera's time - arrival). Pictures that come together are one arrival and the newest of them counts, for
it waited least. The estimate is the median of the last arrivals, once there are three and most of them agree.

What says nothing is left out, by the caller: pictures that were there already when the folder was opened (a card brought home),
files older than their arrival (copied from a card), anything while the node's own clock is not right. And here: pictures that
come together but were taken over a longer time, for they had been waiting.
"""

from statistics import median
from typing import NamedTuple

TOGETHER_S = 60.0
"""Pictures that arrive within this of each other are one arrival."""

WAITED_S = 600.0
"""Pictures of one arrival that were taken over a longer time had been waiting: they say nothing."""

AGREE_S = 300.0
"""Arrivals agree when they differ by less. A camera that sends over a thin link is a minute or two late."""

LEAST, MOST = 3, 9
"""Arrivals needed to say something, and remembered."""


class _Arrival(NamedTuple):
    """Pictures that came together: the first and last camera time among them, the best sample, when the last one came."""

    oldest_s: float
    newest_s: float
    sample_s: float
    mono_s: float


class CameraClock:
    """One camera's. `samples` is what a restart keeps of it, one for each arrival."""

    def __init__(self, samples: list[int]) -> None:
        self._before = samples[-MOST:]
        self._now: _Arrival | None = None

    @property
    def samples(self) -> list[int]:
        """Camera minus node in seconds, the latest arrival last.

        Two in a row that agree with each other and not with those before mean that the camera was set: what was before goes.
        """
        arrival = self._now
        if arrival is None or arrival.newest_s - arrival.oldest_s > WAITED_S:
            return self._before
        samples = [*self._before, round(arrival.sample_s)][-MOST:]
        if len(samples) > 2:
            *before, one, other = samples
            if abs(one - other) <= AGREE_S and abs(other - median(before)) > AGREE_S:
                return [one, other]
        return samples

    def saw(self, camera_utc_s: float, arrived_utc_s: float, mono_s: float) -> None:
        """A picture arrived live: the camera's time as UTC, the node's, and the node's time since boot."""
        sample_s = camera_utc_s - arrived_utc_s
        now = self._now
        if now is None or mono_s - now.mono_s > TOGETHER_S:
            self._before = self.samples
            self._now = _Arrival(camera_utc_s, camera_utc_s, sample_s, mono_s)
        else:
            self._now = _Arrival(
                min(now.oldest_s, camera_utc_s), max(now.newest_s, camera_utc_s), max(now.sample_s, sample_s), mono_s
            )

    def offset_s(self) -> int | None:
        """The camera's clock minus the node's; None where it can't be told."""
        samples = self.samples
        if len(samples) < LEAST:
            return None
        middle = median(samples)
        agreeing = sum(abs(sample - middle) <= AGREE_S for sample in samples)
        return round(middle) if agreeing * 2 > len(samples) else None
