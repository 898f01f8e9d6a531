"""How often something may go wrong: so many at once, then one in a while. Memory only; time is an argument."""

import math


class Limit:
    """A bucket of `burst` failures that wins one back every `every_us`."""

    __slots__ = ("_at_us", "_burst", "_every_us", "_left")

    def __init__(self, burst: int, every_us: int) -> None:
        self._burst, self._every_us = burst, every_us
        self._left, self._at_us = float(burst), 0

    def wait_s(self, now_us: int) -> int:
        """0 when another try may be made; else in how many whole seconds."""
        # Where the clock went back, nothing is won, and nobody waits for the old time to come again.
        self._at_us = min(self._at_us, now_us)
        self._left = min(self._burst, self._left + (now_us - self._at_us) / self._every_us)
        self._at_us = now_us
        return 0 if self._left >= 1 else math.ceil((1 - self._left) * self._every_us / 1e6)

    def count(self, now_us: int) -> None:
        """Something went wrong."""
        self.wait_s(now_us)
        self._left = max(0, self._left - 1)
