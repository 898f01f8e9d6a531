"""Which partitions this process hears: as many as its share of the town is, of those that nobody hears.

Every process looks by itself, each second: who has more than its share lets go of some, who has fewer takes what is free. What
it has is what it has sessions of; any other lease that stands under its name is free again at the next look. A partition moves
with its MQTT session, so nothing is lost on the way, and it counts as heard all the while if the move was short.
"""

from collections.abc import Callable, Mapping

from edge.contract.topics import PARTITIONS
from gateway.ingest import Held
from gateway.leases import HEARD, Worker

BREAK_US = 60 * 1_000_000
"""A partition that was heard so short a time ago has been heard without a break: the broker kept what came meanwhile."""


class Partitions:
    """Used by ingest's thread alone."""

    def __init__(self, worker: Worker, now_us: Callable[[], int], deaf: Callable[[], bool]) -> None:
        """`deaf`: nodes have been asked to hold their readings back, so that silence is none of theirs."""
        self._worker, self._now_us, self._deaf = worker, now_us, deaf
        self._deaf_until_us = 0

    def look(self, since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
        """(to be heard from now on, to be let go of). `since_us` has each that is heard here. Fenced."""
        now_us = self._now_us()
        if self._deaf():
            self._deaf_until_us = now_us
        stands = self._worker.listens({HEARD[one]: self._counted(since) for one, since in since_us.items()})
        others = [HEARD[one] for one in range(PARTITIONS) if one not in since_us]
        share = -(-PARTITIONS // max(stands.fellows, 1))
        if len(since_us) >= share:
            if stands.held > len(since_us):  # the database went away in the middle: some are ours still that nobody hears
                self._worker.give(others)
            return [], sorted(since_us)[share:]
        new = []
        for taken in self._worker.take(others, share - len(since_us)):
            heard_us = None if taken.heard_us is None else now_us - (taken.now_us - taken.heard_us)
            unbroken = heard_us is not None and now_us - heard_us < BREAK_US
            new.append(Held(int(taken.name), heard_us, taken.listening_since_us if unbroken else None))
        return new, []

    def let_go(self, partitions: list[int]) -> None:
        """Of these nothing is under way here any more: others may have them."""
        self._worker.give(HEARD[one] for one in partitions)

    def _counted(self, since_us: int | None) -> int | None:
        if since_us is None or self._deaf():
            return None
        return max(since_us, self._deaf_until_us)
