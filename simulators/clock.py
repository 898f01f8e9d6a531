"""Virtual time for the whole edge and gateway: it stands still until a test moves it, and then skips all waiting."""

import asyncio
import heapq

from edge.clock import Instant

MAX_ROUNDS = 100_000
"""Rounds of the event loop after which something is taken to run for ever without waiting."""


class VirtualClock:
    """`edge.clock.Clock` by hand. Time since boot moves by `advance` only; `step_utc` moves UTC alone."""

    def __init__(self, start_utc_us: int, start_mono_us: int = 0) -> None:
        self._utc_us, self._mono_us = start_utc_us, start_mono_us
        self._parked: list[tuple[int, int, asyncio.Future[None]]] = []  # due, number (first come, first served), sleeper
        self._number = 0

    def now(self) -> Instant:
        """This moment, which lasts until the next `advance`."""
        return Instant(self._utc_us, self._mono_us)

    async def sleep(self, seconds: float) -> None:
        """Waits for `advance` to come so far; for zero or less it lets the others run once, as asyncio.sleep does."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._parked, (self._mono_us + max(round(seconds * 1e6), 1), self._number, sleeper))
        await sleeper

    async def advance(self, seconds: float) -> None:
        """Lets so much time pass: wakes sleepers one by one, each at its own instant and before the next.

        A sleeper may sleep again within the same advance, and is woken as often as time allows.
        """
        if seconds < 0:
            raise ValueError(f"time since boot never goes back: {seconds} s; step_utc moves the wall clock")
        end_us = self._mono_us + round(seconds * 1e6)
        await settle()
        while self._parked and self._parked[0][0] <= end_us:
            due_us, _, sleeper = heapq.heappop(self._parked)
            if sleeper.done():
                continue  # cancelled meanwhile
            self._move_to(due_us)
            sleeper.set_result(None)
            await settle()
        self._move_to(end_us)
        await settle()

    def step_utc(self, us: int) -> None:
        """Jumps the wall clock by so many µs, forward or back. No sleeper notices."""
        self._utc_us += us

    def _move_to(self, mono_us: int) -> None:
        self._utc_us += mono_us - self._mono_us
        self._mono_us = mono_us


async def settle() -> None:
    """Lets everything that can run, run until it waits for time or for I/O. Real I/O itself needs real waiting.

    RuntimeError when something never waits.
    """
    # asyncio has no public way to tell that nothing is ready; a fixed number of rounds would be a guess.
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    idle = 0
    for _ in range(MAX_ROUNDS):
        await asyncio.sleep(0)
        # Twice: in between, the loop looks at its files and sockets.
        idle = 0 if ready else idle + 1
        if idle == 2:
            return
    raise RuntimeError(f"after {MAX_ROUNDS} rounds of the event loop something still runs without ever waiting")
