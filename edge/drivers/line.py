"""A counting line made of two beams, whatever they are: what it has counted, and when to say it. No I/O but the file of totals.

Here the node itself counts, and nobody else knows: totals are saved before they are said, at most each `REPORT_US`, so that they
never go back, not even after a power cut.
"""

from collections.abc import Iterator

from edge.clock import Instant
from edge.drivers.direction import Passage, Way
from edge.drivers.totals import Totals
from edge.errors import DeviceError
from edge.records import Reading, Site

REPORT_US = 5_000_000

METRICS = ("heartbeat", "count_in", "count_out")


class Line:
    """One line. `follow` takes the beams' changes, `say` gives the readings that are due."""

    def __init__(self, device: str, site: Site, *, gap_s: float, blocked_s: float, heartbeat_s: float) -> None:
        """`gap_s` as in edge.drivers.direction; a beam that is cut for longer than `blocked_s` is no person."""
        self._device = device
        self._totals = Totals(site.state)
        self._gap_us = int(gap_s * 1e6)
        self._passage = Passage(self._gap_us)
        self._blocked_us, self._heartbeat_us = int(blocked_s * 1e6), int(heartbeat_s * 1e6)
        self._started_us = self._beat_due_us = site.clock.now().mono_us
        self._may_report_us = 0
        self._seen_free = False

    def follow(self, beam: int, *, cut: bool, at_us: int) -> None:
        """Beam 0 or 1 is cut, or free, from `at_us` (monotonic) on."""
        self._count(self._passage.follow(beam, cut=cut, at_us=at_us))

    def say(self, now: Instant) -> Iterator[Reading]:
        """What is due. Nothing before both beams were seen free: a line that begins blocked counts nobody, and is not alive.

        DeviceError when a beam has been cut for too long, or the totals can't be saved.
        """
        self._count(self._passage.tick(now.mono_us))
        cut_since_us = self._passage.cut_since_us
        if cut_since_us is None:
            if not self._seen_free:
                self._passage = Passage(self._gap_us)  # who stood there before this line looked came from nobody knows where
            self._seen_free = True
        elif now.mono_us - cut_since_us >= self._blocked_us:
            raise DeviceError(
                f"a beam has been cut for {self._blocked_us // 1_000_000} s: something stands in it, its sender is dark or it is "
                "out of line. Clear and align it; until then nobody is counted."
            )
        if not self._seen_free:
            return
        beat = now.mono_us >= self._beat_due_us
        if not beat and not (self._totals.unsaved and now.mono_us >= self._may_report_us):
            return
        if self._totals.unsaved:
            try:
                self._totals.save()
            except OSError as error:
                raise DeviceError(f"the totals can't be saved: {error}. Is the disk full or read-only?") from error
        self._may_report_us = now.mono_us + REPORT_US
        if beat:
            self._beat_due_us = now.mono_us + self._heartbeat_us
            yield Reading(now, self._device, "heartbeat", (now.mono_us - self._started_us) / 1e6)
        yield Reading(now, self._device, "count_in", self._totals.inward)
        yield Reading(now, self._device, "count_out", self._totals.outward)

    @property
    def due_us(self) -> int:
        """Monotonic time at which `say` should be called even if nothing happens."""
        due = [self._beat_due_us if self._seen_free else None, self._passage.due_us]
        due.append(self._may_report_us if self._totals.unsaved and self._seen_free else None)
        if (cut_since_us := self._passage.cut_since_us) is not None:
            due.append(cut_since_us + self._blocked_us)
        return min((at_us for at_us in due if at_us is not None), default=self._beat_due_us + self._blocked_us)

    def close(self) -> None:
        """Keeps what was counted and not said yet."""
        if self._totals.unsaved:
            self._totals.save()

    def _count(self, passed: list[Way]) -> None:
        for way in passed if self._seen_free else ():
            self._totals.add(int(way is Way.IN), int(way is Way.OUT))
