"""Periodic work, in one thread: looks that may come a little late, and that must not stop each other.

A chore is a name, a period and a function of `now`. What must happen at its second, or writes facts, is no chore.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

LOOK_S = 1.0


class Chore(NamedTuple):
    """One periodic piece of work."""

    name: str
    every_s: float
    run: Callable[[int], object]
    """`run(now_us)`: safe to repeat. It should end within seconds: the others wait for it."""


class Chores:
    """Runs by `run` in its own thread, or by `step` in the caller's."""

    def __init__(self, chores: Sequence[Chore], telemetry: Telemetry, now_us: Callable[[], int]) -> None:
        names = [chore.name for chore in chores]
        if len(set(names)) != len(names):
            raise ValueError(f"two chores have one name: {', '.join(sorted(names))}")
        self._chores, self._telemetry, self._now_us = tuple(chores), telemetry, now_us
        self._last_us: dict[str, int] = {}  # of the chores that ran
        self._failing: set[str] = set()
        self._rung: set[str] = set()
        self._lock = threading.Lock()
        self._stop, self._bell = threading.Event(), threading.Event()

    @property
    def names(self) -> list[str]:
        """By which they may be rung."""
        return [chore.name for chore in self._chores]

    def ring(self, name: str) -> None:
        """This chore has something to do: run it at the next look, which is now. Safe from any thread."""
        if name not in {chore.name for chore in self._chores}:
            raise ValueError(f"there is no chore {name!r}")
        with self._lock:
            self._rung.add(name)
        self._bell.set()

    def stop(self) -> None:
        """Asks `run` to end; the chore that is running is waited for."""
        self._stop.set()
        self._bell.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop.is_set():
            self._bell.clear()
            self.step(self._now_us())
            self._bell.wait(LOOK_S)

    def step(self, now_us: int) -> list[str]:
        """Runs what is due or was rung for, one after the other; their names. All are due at the first step."""
        with self._lock:
            rung, self._rung = self._rung, set()
        self._telemetry.turned.labels("chores").set(now_us / 1e6)
        due = [chore for chore in self._chores if chore.name in rung or self._is_due(chore, now_us)]
        for at, chore in enumerate(due):
            if self._stop.is_set():
                return [one.name for one in due[:at]]
            self._last_us[chore.name] = now_us
            self._do(chore, now_us)
        return [chore.name for chore in due]

    def _is_due(self, chore: Chore, now_us: int) -> bool:
        last_us = self._last_us.get(chore.name)
        # Where the clock was set back, nobody waits until it is again as late as it was.
        return last_us is None or now_us < last_us or now_us - last_us >= chore.every_s * 1e6

    def _do(self, chore: Chore, now_us: int) -> None:
        try:
            with self._telemetry.chore_seconds.labels(chore.name).time():
                chore.run(now_us)
        except Exception:
            self._telemetry.chore_errors.labels(chore.name).inc()
            if chore.name not in self._failing:
                self._failing.add(chore.name)
                log.exception("chore %s failed; it is tried again each %g s", chore.name, chore.every_s)
        else:
            self._telemetry.chore_done.labels(chore.name).set(now_us / 1e6)
            if chore.name in self._failing:
                self._failing.discard(chore.name)
                log.warning("chore %s works again", chore.name)
