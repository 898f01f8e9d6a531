"""The embedded series store when it is large: a day and a year of one series, and how long a write waits while it is tended.

The rows are written through the store in the order of time, as a town's are, a reading a minute of each of 1,000 series.
Warm: each day is read once before, as one that people look at is.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from gateway.store import SqliteStore, SqliteStoreConfig
from simulators.bench.figures import Figure

ALLOWED_MS = 10.0
"""Of a day of one series, warm."""

SERIES = 1000
TIMES_A_WRITE = 10
QUERIES = 200
WRITES = 300
KEPT = 0.9
"""As much of the time stays when it is tended; the rest is forgotten meanwhile."""

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_END_MS = 20_500 * _DAY_MS - 9 * _HOUR_MS  # midnight in Japan
_KEYS = [(f"node-{number // 10}", f"device-{number % 10}", "temperature") for number in range(SERIES)]


def measure(folder: Path, rows: int) -> list[Figure]:
    """Figures in ms. RuntimeError when a day is not what was written."""
    folder.mkdir(parents=True)
    minutes = max(rows // SERIES, 2 * 1440) // TIMES_A_WRITE * TIMES_A_WRITE
    start_ms = _END_MS - minutes * _MINUTE_MS
    config = SqliteStoreConfig(type="sqlite", path=folder / "series.db")
    config = config.model_copy(update={"keep": round(minutes * 60 * KEPT)})
    with closing(SqliteStore(config)) as store:
        for at in range(0, minutes, TIMES_A_WRITE):
            begin_ms = start_ms + at * _MINUTE_MS
            store.write([(key, begin_ms + n * _MINUTE_MS, at + n + 0.5) for key in _KEYS for n in range(TIMES_A_WRITE)])
        chance = random.Random(1)
        days = [(chance.choice(_KEYS), chance.randrange(start_ms, _END_MS - _DAY_MS)) for _ in range(QUERIES)]
        if len(store.read(*_KEYS[0], start_ms, start_ms + _DAY_MS, 10_000)) != 1440:
            raise RuntimeError("a day of one series is not what was written")
        points = _took_ms(lambda key, at: store.read(*key, at, at + _DAY_MS, 10_000), days)
        steps = _took_ms(lambda key, at: store.read_bucketed(*key, at, at + _DAY_MS, 5 * _MINUTE_MS), days)
        alone = _written_ms(store, _END_MS)
        with ThreadPoolExecutor(1) as beside:
            tending = beside.submit(_tend, store)
            tended = _written_ms(store, _END_MS + _HOUR_MS)
        tending.result()
        whole = [(key, start_ms - start_ms % _HOUR_MS) for key, _ in days]
        hours = _took_ms(lambda key, at: store.read_bucketed(*key, at, _END_MS, _HOUR_MS), whole)
    of = f"of {minutes * SERIES / 1e6:g} M readings"
    allowed = f"allowed: {ALLOWED_MS:g} ms"
    return [
        Figure(f"24 h of one series {of}, warm", "ms", points, allowed, [ALLOWED_MS], 1.0, less_is_better=True),
        Figure("the same in 5 min, warm", "ms", steps, allowed, [ALLOWED_MS], 1.0, less_is_better=True),
        Figure(f"{minutes / 1440:.0f} days of it by the hour, warm", "ms", hours, less_is_better=True),
        Figure("a write of 100 while it is tended", "ms", tended, "untended", alone, less_is_better=True),
    ]


def _took_ms(ask: Callable[[tuple[str, str, str], int], object], days: list[tuple[tuple[str, str, str], int]]) -> list[float]:
    """Of the second of two times that each is asked."""
    took = []
    for key, at_ms in days:
        ask(key, at_ms)
        begun = time.perf_counter()
        ask(key, at_ms)
        took.append((time.perf_counter() - begun) * 1000)
    return took


def _written_ms(store: SqliteStore, from_ms: int) -> list[float]:
    """What each of some writes of 100 readings took, a hundred a second at most."""
    took = []
    for number in range(WRITES):
        points = [(key, from_ms + number * 1000, 0.5) for key in _KEYS[number % 10 * 100 :][:100]]
        begun = time.perf_counter()
        store.write(points)
        took.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.01)
    return took


def _tend(store: SqliteStore) -> None:
    """Until nothing is left to do, as the chore does but without its pauses between two looks."""
    while store.behind:
        store.tend((_END_MS + _HOUR_MS) * 1000)
