"""Which way somebody went through two beams, A then B: pure, from when each was cut and came back.

    A ────┐       ┌────        in:   A is cut first, and B is the last to come back
          └───────┘
    B ────────┐       ┌────    out:  the other way round
              └───────┘        neither: somebody turned round, or only one beam was cut

Beams a hand apart are cut together by anybody, and a passage ends when both are free. Further apart, one may come back before
the other is cut: then it ends when both have been free for `gap_us`. One passage is one person; two side by side are one, so
beams stand across narrow ways.
"""

from enum import Enum


class Way(Enum):
    """Who passed."""

    IN = "in"
    OUT = "out"


class Passage:
    """One pair of beams. `follow` takes each change, `tick` lets time pass. Times are monotonic µs and never go back."""

    def __init__(self, gap_us: int) -> None:
        self._gap_us = gap_us
        self._cut = [False, False]
        self._first: int | None = None  # which beam began the passage; None while there is none
        self._last = 0  # which came back last
        self._together = False  # whether both beams were cut at the same time
        self._free_since_us = 0
        self.cut_since_us: int | None = None
        """Since when at least one beam is cut; None while both are free."""

    def follow(self, beam: int, *, cut: bool, at_us: int) -> list[Way]:
        """Beam 0 (A) or 1 (B) is cut, or free, from `at_us` on. Who has passed by then: up to two, one of them before."""
        passed = self.tick(at_us)
        if self._cut[beam] == cut:
            return passed
        self._cut[beam] = cut
        if cut:
            if self._first is None:
                self._first, self._together = beam, False
            self._together = self._together or all(self._cut)
            if self.cut_since_us is None:
                self.cut_since_us = at_us
        else:
            self._last = beam
            if not any(self._cut):
                self._free_since_us, self.cut_since_us = at_us, None
        return passed + self.tick(at_us)

    def tick(self, now_us: int) -> list[Way]:
        """Who has passed by now."""
        due_us = self.due_us
        if due_us is None or now_us < due_us:
            return []
        first, self._first = self._first, None
        if first == self._last:
            return []  # somebody turned round, or cut one beam only
        return [Way.IN if first == 0 else Way.OUT]

    @property
    def due_us(self) -> int | None:
        """When `tick` has something to decide; None while somebody stands in a beam or nobody came."""
        if self._first is None or any(self._cut):
            return None
        return self._free_since_us + (0 if self._together else self._gap_us)
