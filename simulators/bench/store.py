"""Readings a second in batches of 100: through the series store, and through the whole pipeline, beside raw SQLite.

Raw is what no program can go below that keeps the same promise: the same rows, made and sorted before the clock starts, by
`executemany` into the same table with the same pragmas, one transaction a batch (or a group), in turns with ours.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from edge.contract.topics import Channel, Topic, topic_for
from gateway.core import calm_collector
from gateway.pipeline import Message
from gateway.store import SqliteStore, SqliteStoreConfig, sqlite
from gateway.store.sqlite import CACHE_KIB, CHECKPOINT_PAGES
from simulators.bench.figures import Figure
from simulators.bench.ours import Parts
from simulators.fleet import FleetNode, make_nodes

BATCH = 100
BATCHES = 400
"""Of one repetition: 40,000 readings."""
GROUP = 20
"""Batches that ingest hands over together under load; the pipeline alone is measured one by one, too."""

TURN = 20
"""Transactions of ours, then as many raw."""

Point = tuple[tuple[str, str, str], int, float]
"""Series, time in ms, value."""
_SERIES = 10
_RAW = """CREATE TABLE samples (series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL NOT NULL,
PRIMARY KEY (series, time_ms)) STRICT, WITHOUT ROWID"""


def measure(folder: Path, rounds: int) -> list[Figure]:
    """Three figures, in readings a second. RuntimeError when not every reading arrived."""
    folder.mkdir(parents=True)
    calm_collector()  # as the gateway does
    peer = "raw SQLite, same rows and pragmas"
    speeds: dict[str, tuple[list[float], list[float]]] = {
        f"readings into the store, {BATCH} a batch": ([], []),
        f"readings through the pipeline, {BATCH} a batch": ([], []),
        f"readings through the pipeline, {GROUP} x {BATCH}": ([], []),
    }
    names = list(speeds)
    with (
        closing(SqliteStore(SqliteStoreConfig(type="sqlite", path=folder / "store.db"))) as store,
        closing(_Raw(folder / "raw-store.db")) as raw_store,
        closing(_Raw(folder / "raw-single.db")) as raw_single,
        closing(_Raw(folder / "raw-group.db")) as raw_group,
    ):
        for kind in ("single", "group"):
            (folder / kind).mkdir()
        singles, groups = Parts(folder / "single"), Parts(folder / "group")
        nodes = make_nodes(200, 1)
        for number in range(rounds + 1):
            batches = [points(f"node-{n % 200}", number * BATCHES + n) for n in range(BATCHES)]
            group = [list(chain.from_iterable(batches[n : n + GROUP])) for n in range(0, BATCHES, GROUP)]
            now_us = time.time_ns() // 1000
            messages = [message(nodes[n % len(nodes)], now_us + n * 1000) for n in range(BATCHES)]
            alone = [[message] for message in messages]
            grouped = [messages[n : n + GROUP] for n in range(0, BATCHES, GROUP)]
            took = [
                _in_turns(store.write, batches, store, raw_store, batches, TURN),
                _in_turns(singles.process, alone, _embedded(singles), raw_single, batches, TURN),
                _in_turns(groups.process, grouped, _embedded(groups), raw_group, group, 1),
            ]
            if number:  # the first round names the series and fills the caches
                for name, (ours_s, raw_s) in zip(names, took, strict=True):
                    speeds[name][0].append(BATCHES * BATCH / ours_s)
                    speeds[name][1].append(BATCHES * BATCH / raw_s)
        wanted = (rounds + 1) * BATCHES * BATCH
        for kept in (store, singles.store, groups.store, raw_store, raw_single, raw_group):
            count = kept.count()
            if count != wanted:
                raise RuntimeError(f"{count} readings arrived in a store, {wanted} were written")
        singles.close()
        groups.close()
    targets = (0.8, None, None)  # of the pipeline, parsing and checking alone cost more than SQLite
    return [
        Figure(name, "readings/s", ours, peer, raw, target)
        for (name, (ours, raw)), target in zip(speeds.items(), targets, strict=True)
    ]


def points(node: str, number: int) -> list[Point]:
    """One batch: ten readings of each of ten series."""
    zero = 1_780_000_000_000 + number // 200 * 10_000
    return [
        ((node, f"device-{which % 4}", f"metric-{which}"), zero + at * 1000, 20.5 + at)
        for at in range(BATCH // _SERIES)
        for which in range(_SERIES)
    ]


def message(node: FleetNode, now_us: int) -> Message:
    """One batch as it comes from the broker."""
    return Message(topic_for(Topic(node.name, Channel.LIVE)), node.readings(now_us, BATCH).payload)


def _embedded(parts: Parts) -> SqliteStore:
    assert isinstance(parts.store, SqliteStore)
    return parts.store


_Part = TypeVar("_Part")


def _in_turns(
    ours: Callable[[_Part], object], parts: Sequence[_Part], store: SqliteStore, raw: "_Raw",
    raw_parts: Sequence[list[Point]], turn: int,
) -> tuple[float, float]:  # fmt: skip
    """Seconds of ours and of raw for the same rows, `turn` transactions of one and then of the other: what else the machine
    does meanwhile hits both. What ours puts in its place later counts too, at the end, but for its pauses."""
    ours_s = raw_s = 0.0
    prepared = [raw.prepare(points) for points in raw_parts]
    for start in range(0, len(parts), turn):
        begun = time.perf_counter()
        for part in parts[start : start + turn]:
            ours(part)
        if start + turn >= len(parts):
            with _unpaused():
                store.fold(1)  # as the gateway's chore does, which looks each 2 s; here for all that was written
        between = time.perf_counter()
        for rows in prepared[start : start + turn]:
            raw.insert(rows)
        ours_s, raw_s = ours_s + between - begun, raw_s + time.perf_counter() - between
    return ours_s, raw_s


@contextmanager
def _unpaused() -> Iterator[None]:
    """`fold` pauses between its steps, in which a gateway writes. Here nobody would: its work counts, its sleep does not."""
    kept, sqlite.BREATH_S = sqlite.BREATH_S, 0
    try:
        yield
    finally:
        sqlite.BREATH_S = kept


class _Raw:
    """A table like the store's, and nothing around it."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._db.execute(_RAW)
        self._ids: dict[tuple[str, str, str], int] = {}

    def prepare(self, points: list[Point]) -> list[tuple[int, int, float]]:
        """The points as sorted rows."""
        return sorted((self._ids.setdefault(key, len(self._ids)), time_ms, value) for key, time_ms, value in points)

    def insert(self, rows: list[tuple[int, int, float]]) -> None:
        """One transaction, on disk when it returns."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def count(self) -> int:
        """How many rows there are."""
        (count,) = self._db.execute("SELECT count(*) FROM samples").fetchone()
        return int(count)

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()
