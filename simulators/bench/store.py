"""Readings a second in batches of 100: through the series store, and through the whole pipeline, beside raw SQLite.

Raw is what no program can go below that keeps the same promise: the same rows, made and sorted before the clock starts, by
`executemany` into the same table with the same pragmas, one transaction a batch (or a group), in turns with ours.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from edge.contract.topics import Channel, Topic, topic_for
from gateway.pipeline import Message
from gateway.store import SqliteStore, SqliteStoreConfig
from gateway.store.sqlite import CACHE_KIB, CHECKPOINT_PAGES
from simulators.bench.figures import Figure
from simulators.bench.ours import Parts
from simulators.fleet import FleetNode, make_nodes

BATCH = 100
BATCHES = 400
"""Of one repetition: 40,000 readings."""
GROUP = 20
"""Batches that ingest hands over together under load; the pipeline alone is measured one by one, too."""

_Point = tuple[tuple[str, str, str], int, float]
_SERIES = 10
_RAW = """CREATE TABLE samples (series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL NOT NULL,
PRIMARY KEY (series, time_ms)) STRICT, WITHOUT ROWID"""


def measure(folder: Path, rounds: int) -> list[Figure]:
    """Three figures, in readings a second. RuntimeError when not every reading arrived."""
    folder.mkdir(parents=True)
    peer = "raw SQLite, same rows and pragmas"
    speeds: dict[str, tuple[list[float], list[float]]] = {
        f"readings into the store, {BATCH} a batch": ([], []),
        f"readings through the pipeline, {BATCH} a batch": ([], []),
        f"readings through the pipeline, {GROUP} x {BATCH}": ([], []),
    }
    names = list(speeds)
    with (
        closing(SqliteStore(SqliteStoreConfig(type="sqlite", path=folder / "store.db"))) as store,
        closing(_raw(folder / "raw-store.db")) as raw_store,
        closing(_raw(folder / "raw-single.db")) as raw_single,
        closing(_raw(folder / "raw-group.db")) as raw_group,
    ):
        for kind in ("single", "group"):
            (folder / kind).mkdir()
        singles, groups = Parts(folder / "single"), Parts(folder / "group")
        nodes = make_nodes(200, 1)
        for number in range(rounds + 1):
            batches = [_points(f"node-{n % 200}", number * BATCHES + n) for n in range(BATCHES)]
            group = [list(chain.from_iterable(batches[n : n + GROUP])) for n in range(0, BATCHES, GROUP)]
            now_us = time.time_ns() // 1000
            messages = [_message(nodes[n % len(nodes)], now_us + n * 1000) for n in range(BATCHES)]
            took = [
                (_write(store, batches), _insert(raw_store, batches)),
                (_process(singles, messages, 1), _insert(raw_single, batches)),
                (_process(groups, messages, GROUP), _insert(raw_group, group)),
            ]
            if number:  # the first round names the series and fills the caches
                for name, (ours_s, raw_s) in zip(names, took, strict=True):
                    speeds[name][0].append(BATCHES * BATCH / ours_s)
                    speeds[name][1].append(BATCHES * BATCH / raw_s)
        wanted = (rounds + 1) * BATCHES * BATCH
        for count in (store.count(), singles.store.count(), groups.store.count()):
            if count != wanted:
                raise RuntimeError(f"{count} readings arrived in a store, {wanted} were written")
        singles.close()
        groups.close()
    targets = (0.8, None, None)  # of the pipeline, parsing and checking alone cost more than SQLite
    return [
        Figure(name, "readings/s", ours, peer, raw, target)
        for (name, (ours, raw)), target in zip(speeds.items(), targets, strict=True)
    ]


def _points(node: str, number: int) -> list[_Point]:
    """One batch: ten readings of each of ten series."""
    zero = 1_780_000_000_000 + number // 200 * 10_000
    return [
        ((node, f"device-{which % 4}", f"metric-{which}"), zero + at * 1000, 20.5 + at)
        for at in range(BATCH // _SERIES)
        for which in range(_SERIES)
    ]


def _message(node: FleetNode, now_us: int) -> Message:
    return Message(topic_for(Topic(node.name, Channel.LIVE)), node.readings(now_us, BATCH).payload)


def _write(store: SqliteStore, batches: Sequence[list[_Point]]) -> float:
    begun = time.perf_counter()
    for points in batches:
        store.write(points)
    return time.perf_counter() - begun


def _process(parts: Parts, messages: Sequence[Message], group: int) -> float:
    now_us = time.time_ns() // 1000
    begun = time.perf_counter()
    for start in range(0, len(messages), group):
        parts.pipeline.process(messages[start : start + group], now_us)
    return time.perf_counter() - begun


def _raw(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute(_RAW)
    return db


def _insert(db: sqlite3.Connection, batches: Sequence[list[_Point]]) -> float:
    ids: dict[tuple[str, str, str], int] = {}
    rows = [sorted((ids.setdefault(key, len(ids)), time_ms, value) for key, time_ms, value in points) for points in batches]
    begun = time.perf_counter()
    for some in rows:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", some)
        db.execute("COMMIT")
    return time.perf_counter() - begun
