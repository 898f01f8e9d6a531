"""Writes points that are old to a store and tends it after each batch, in small steps, until it dies in the middle of a step.

Started by test_store_sqlite_rollups.py: `series_tender_child.py FILE FIRST CHANGES`: it is killed, by -9, when so many changes
of rollups, deletions and moves of points to their places were made, before the next. Batch n is 30 points of each of 3 series,
half an hour of them, and one that falls into the hours before: hours are summed up, touched again and forgotten all the time.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.store import SqliteStore, SqliteStoreConfig, fresh, rollups, sqlite

SERIES = [("kita-01", f"trap-{number}", "battery_voltage") for number in range(3)]
TIMES = 30
STEP_MS = 60_000
KEEP_S = 24 * 3600


def batch(number: int) -> list[tuple[tuple[str, str, str], int, float]]:
    """The points of one batch, the same in the child and in the test; no time comes twice."""
    late_ms = number * TIMES * STEP_MS // 2 + 7 + number
    times = [*((number * TIMES + i) * STEP_MS for i in range(TIMES)), late_ms]
    return [(key, time_ms, float(number + n)) for n, time_ms in enumerate(times) for key in SERIES]


def now_us(number: int) -> int:
    """The clock after a batch: years after its points, and an hour further each time, so that each tending forgets."""
    return (2**40 + number * 3_600_000) * 1000


class Mortal:
    """Dies, whole process and all, instead of one call too many."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def wrapped(self, do: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def counted(*given: Any, **named: Any) -> Any:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return do(*given, **named)

        return counted


def main() -> None:
    """Runs until killed."""
    mortal = Mortal(int(sys.argv[3]))
    rollups._put = mortal.wrapped(rollups._put)
    rollups._delete = mortal.wrapped(rollups._delete)
    fresh.move = mortal.wrapped(fresh.move)
    fresh.done = mortal.wrapped(fresh.done)
    sqlite.BREATH_S = 0
    rollups.ROWS_A_STEP, sqlite.ROWS_A_STEP = 60, 20
    config = SqliteStoreConfig(type="sqlite", path=Path(sys.argv[1])).model_copy(update={"keep": KEEP_S})
    store = SqliteStore(config)
    number = int(sys.argv[2])
    while True:
        store.write(batch(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        store.tend(now_us(number))
        number += 1


if __name__ == "__main__":
    main()
