"""Hours and days of the SQLite store: they say what the readings said, whatever came late, was interrupted or is forgotten."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select

from gateway.errors import StoreDown
from gateway.keeping.retention import Readings
from gateway.state import open_state
from gateway.state.tables import removals
from gateway.store import Bucket, SeriesKey, SqliteStore, SqliteStoreConfig, rollups, sqlite
from gateway.telemetry import Telemetry
from tests.gateway.store.series_tender_child import SERIES, batch, now_us

TRAP = SeriesKey("kita-01", "trap-11", "battery_voltage")
DOOR = SeriesKey("kita-01", "door", "count_in")
CHILD = "tests.gateway.store.series_tender_child"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MIDNIGHT_MS = 20_000 * DAY_MS - 9 * HOUR_MS  # in Japan
KEEP_H = 24


@pytest.fixture(autouse=True)
def _no_breath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BREATH_S", 0)


@pytest.fixture
def keeping_a_day(sqlite_config: SqliteStoreConfig) -> SqliteStoreConfig:
    return sqlite_config.model_copy(update={"keep": KEEP_H * 3600})


@pytest.fixture
def store(keeping_a_day: SqliteStoreConfig) -> Iterator[SqliteStore]:
    with closing(SqliteStore(keeping_a_day)) as opened:
        yield opened


def hour(number: float, plus_ms: int = 0) -> int:
    """A time, in hours after that midnight."""
    return round(MIDNIGHT_MS + number * HOUR_MS) + plus_ms


def drained(store: SqliteStore, at_us: int) -> int:
    """How many readings it forgot until it had nothing more to do."""
    removed = 0
    for _ in range(1000):
        removed += store.tend(at_us).get("readings", 0)
        if not store.behind:
            return removed
    raise AssertionError("there is always more to do")


def tended(store: SqliteStore, now_h: float) -> int:
    return drained(store, hour(now_h) * 1000)


def said(store: SqliteStore, key: SeriesKey, start_h: float, end_h: float, bucket_h: float) -> list[Bucket]:
    return store.read_bucketed(*key, start_ms=hour(start_h), end_ms=hour(end_h), bucket_ms=round(bucket_h * HOUR_MS))


def behind_its_back(config: SqliteStoreConfig, sql: str) -> None:
    with closing(sqlite3.connect(config.path, isolation_level=None)) as other:
        other.execute(sql)


def by_hand(points: dict[int, float], start_ms: int, end_ms: int, bucket_ms: int) -> list[tuple[int, int, float, float, float]]:
    """(time, points, low, high, last) of each bucket."""
    steps: dict[int, list[float]] = {}
    for t, value in sorted(points.items()):
        if start_ms <= t < end_ms:
            steps.setdefault(start_ms + (t - start_ms) // bucket_ms * bucket_ms, []).append(value)
    return [(t, len(values), min(values), max(values), values[-1]) for t, values in steps.items()]


def means_by_hand(points: dict[int, float], start_ms: int, end_ms: int, bucket_ms: int) -> list[float]:
    steps: dict[int, list[float]] = {}
    for t, value in sorted(points.items()):
        if start_ms <= t < end_ms:
            steps.setdefault((t - start_ms) // bucket_ms, []).append(value)
    return [sum(values) / len(values) for values in steps.values()]


class TestForgetting:
    def test_readings_go_when_their_time_is_over_and_their_hours_and_days_stay(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10, n * 1000), float(n)) for n in range(4)] + [(TRAP, hour(30), 9.0), (DOOR, hour(10), 7.0)])
        assert tended(store, 50) == 5

        assert store.count() == 1
        ten = Bucket(hour(10), 4, 0.0, 1.5, 3.0, 3.0)
        assert said(store, TRAP, 0, 48, 1) == [ten, Bucket(hour(30), 1, 9.0, 9.0, 9.0, 9.0)]
        assert said(store, TRAP, 0, 24, 24) == [ten._replace(time_ms=hour(0))]
        assert said(store, DOOR, 10, 11, 1) == [Bucket(hour(10), 1, 7.0, 7.0, 7.0, 7.0)]

    def test_readings_that_are_gone_are_a_gap_and_never_a_zero(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 3.0), (TRAP, hour(30), 4.0)])
        tended(store, 50)

        assert store.read(*TRAP, start_ms=hour(0), end_ms=hour(48), limit=10) == [(hour(30), 4.0)]
        assert [bucket.time_ms for bucket in said(store, TRAP, 0, 48, 0.25)] == [hour(30)]  # finer than what is left
        assert [bucket.time_ms for bucket in said(store, TRAP, 0.5, 48, 1)] == [hour(29.5)]  # beside the hour
        assert said(store, TRAP, 0, 10.5, 1) == []  # half an hour of it can't be told

    def test_the_newest_value_is_known_when_its_reading_is_gone(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 1.0), (TRAP, hour(10, 5), 2.0)])
        tended(store, 50)

        assert (store.count(), store.latest(*TRAP)) == (0, (hour(10, 5), 2.0))

    def test_without_an_end_nothing_is_forgotten(self, sqlite_config: SqliteStoreConfig) -> None:
        with closing(SqliteStore(sqlite_config.model_copy(update={"keep": 0}))) as store:
            store.write([(TRAP, hour(10), 1.0)])
            assert tended(store, 1_000_000) == 0
            assert store.count() == 1

    def test_what_went_before_a_step_failed_is_still_said(
        self, store: SqliteStore, keeping_a_day: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "ROWS_A_STEP", 1)
        monkeypatch.setattr(sqlite, "BUSY_S", 0)
        store.write([(TRAP, hour(n), 1.0) for n in range(10)])
        with closing(sqlite3.connect(keeping_a_day.path, isolation_level=None)) as other:

            def lock_once_one_is_gone(_: float) -> None:
                if store.count() == 9 and not other.in_transaction:
                    store.close()
                    other.execute("BEGIN IMMEDIATE")

            monkeypatch.setattr(sqlite, "sleep", lock_once_one_is_gone)
            with pytest.raises(StoreDown, match=r"can't be tended: .*locked"):
                store.tend(hour(60) * 1000)
            other.execute("ROLLBACK")
            monkeypatch.setattr(sqlite, "sleep", lambda _: None)

        assert tended(store, 60) == 10

    def test_what_went_is_counted_for_prometheus_and_for_the_report(self, store: SqliteStore, tmp_path: Path) -> None:
        store.write([(TRAP, hour(10), 1.0), (DOOR, hour(10), 1.0)])
        telemetry = Telemetry()
        with closing(open_state(f"sqlite:///{tmp_path}/state.db")) as state:
            chore = Readings(store, state, telemetry)
            for _ in range(2):
                chore.run(hour(50) * 1000)
            with state.read() as connection:
                (row,) = connection.execute(select(removals.c.kind, removals.c.count, removals.c.node))

        assert tuple(row) == ("readings", 2, "")
        assert telemetry.removed.labels("readings")._value.get() == 2

    def test_who_reports_on_a_month_finds_its_readings(self, sqlite_config: SqliteStoreConfig) -> None:
        table = {"type": "sqlite", "path": sqlite_config.path}
        with pytest.raises(ValidationError, match="at least 92d"):
            SqliteStoreConfig.model_validate({**table, "keep": "30d"})
        assert SqliteStoreConfig.model_validate({**table, "keep": "92d"}).keep == 92 * 86_400
        assert SqliteStoreConfig.model_validate({**table, "keep": 0}).keep == 0


class TestWhatComesLate:
    def test_for_an_hour_that_was_summed_up_it_counts_at_once_and_after(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 1.0), (TRAP, hour(11), 5.0)])
        tended(store, 30)
        store.write([(TRAP, hour(10), 3.0), (TRAP, hour(10, 1), 5.0), (TRAP, hour(2), 8.0)])

        right = [Bucket(hour(2), 1, *[8.0] * 4), Bucket(hour(10), 2, 3.0, 4.0, 5.0, 5.0), Bucket(hour(11), 1, *[5.0] * 4)]
        day = [Bucket(hour(0), 4, 3.0, 5.25, 8.0, 5.0)]
        assert (said(store, TRAP, 0, 24, 1), said(store, TRAP, 0, 24, 24)) == (right, day)
        tended(store, 30)
        assert (said(store, TRAP, 0, 24, 1), said(store, TRAP, 0, 24, 24)) == (right, day)

    def test_for_an_hour_whose_readings_are_gone_it_is_added_and_goes_too(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 1.0), (TRAP, hour(10, 10), 2.0)])
        assert tended(store, 50) == 2
        store.write([(TRAP, hour(10, 5), 6.0)])

        right = [Bucket(hour(10), 3, 1.0, 3.0, 6.0, 2.0)]
        assert said(store, TRAP, 10, 11, 1) == right
        assert tended(store, 50) == 1
        assert (said(store, TRAP, 10, 11, 1), store.count()) == (right, 0)
        assert said(store, TRAP, 0, 24, 24) == [right[0]._replace(time_ms=hour(0))]

    def test_for_an_hour_that_nobody_had_heard_of_it_makes_one(self, store: SqliteStore) -> None:
        store.write([(DOOR, hour(40), 1.0)])
        tended(store, 50)
        store.write([(TRAP, hour(10), 6.0)])

        assert tended(store, 51) == 1
        assert said(store, TRAP, 0, 48, 1) == [Bucket(hour(10), 1, 6.0, 6.0, 6.0, 6.0)]

    def test_sent_again_to_an_hour_whose_readings_are_gone_it_counts_again_as_documented(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 6.0)])
        tended(store, 50)
        store.write([(TRAP, hour(10), 6.0)])
        tended(store, 50)

        assert said(store, TRAP, 10, 11, 1) == [Bucket(hour(10), 2, 6.0, 6.0, 6.0, 6.0)]


class TestAClockThatWasSetBack:
    def test_an_hour_that_is_not_over_again_is_answered_from_its_readings_until_it_is(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write([(TRAP, hour(10), 1.0)])
        tended(store, 20)
        monkeypatch.setattr(sqlite, "STEPS_A_LOOK", 1)
        for number in range(1, 4):
            store.write([(TRAP, hour(10, number), 4.0)])
            store.tend(hour(10.5) * 1000)
            assert not store.behind, "it is not summed up at each look"
            assert said(store, TRAP, 10, 11, 1)[0].points == 1 + number
        tended(store, 11.5)

        assert said(store, TRAP, 0, 24, 24) == [Bucket(hour(0), 4, 1.0, 3.25, 4.0, 4.0)]


class TestWhatAnswers:
    def test_whole_hours_are_answered_without_their_readings(self, store: SqliteStore, keeping_a_day: SqliteStoreConfig) -> None:
        store.write([(TRAP, hour(n / 4), float(n)) for n in range(4 * 30)])
        tended(store, 29.5)
        before = [said(store, TRAP, 0, 29, hours) for hours in (1, 2, 24)]
        behind_its_back(keeping_a_day, "DELETE FROM samples")

        assert [said(store, TRAP, 0, 29, hours) for hours in (1, 2, 24)] == before
        assert said(store, TRAP, 0, 29, 0.5) == []

    def test_whole_days_of_japan_are_answered_without_their_hours(
        self, store: SqliteStore, keeping_a_day: SqliteStoreConfig
    ) -> None:
        store.write([(TRAP, hour(n / 4), float(n)) for n in range(4 * 80)])
        tended(store, 81)
        before = [said(store, TRAP, 0, 72, hours) for hours in (24, 48)]
        behind_its_back(keeping_a_day, "DELETE FROM samples")
        behind_its_back(keeping_a_day, f"DELETE FROM rollups WHERE span_ms = {HOUR_MS}")  # noqa: S608

        assert [said(store, TRAP, 0, 72, hours) for hours in (24, 48)] == before
        assert said(store, TRAP, 1, 72, 24) == []  # a day that begins elsewhere is made of hours

    def test_the_hour_that_is_not_over_is_answered_from_its_readings(self, store: SqliteStore) -> None:
        store.write([(TRAP, hour(10), 1.0), (TRAP, hour(11), 1.0), (TRAP, hour(12), 2.0)])
        tended(store, 12.1)
        store.write([(TRAP, hour(11, 1), 3.0), (TRAP, hour(12, 1), 4.0)])

        assert [(b.points, b.last) for b in said(store, TRAP, 10, 12.5, 1)] == [(1, 1.0), (2, 3.0), (2, 4.0)]


OFFSETS = st.sampled_from([0, 1, 1000, HOUR_MS // 2, HOUR_MS - 1])
POINT = st.tuples(st.sampled_from([TRAP, DOOR]), st.integers(-3, 80), OFFSETS, st.integers(-1000, 1000).map(float))
DEED = st.one_of(
    st.tuples(st.just("write"), st.lists(POINT, min_size=1, max_size=8)),
    st.tuples(st.just("tend"), st.integers(0, 100), st.integers(1, 40)),
    st.tuples(st.just("look"), st.integers(-3, 80), st.integers(1, 80), st.sampled_from([1, 2, 3, 24, 48])),
    st.tuples(st.just("fold"), st.integers(1, 20)),
    st.tuples(st.just("open anew")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(DEED, max_size=25), rows=st.sampled_from([1, 25, 5000]))
def test_whatever_is_written_tended_and_forgotten_in_any_order_buckets_are_what_one_would_count_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deeds: list[tuple[str, *tuple[object, ...]]], rows: int
) -> None:
    monkeypatch.setattr(rollups, "ROWS_A_STEP", rows)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    config = SqliteStoreConfig(type="sqlite", path=path).model_copy(update={"keep": KEEP_H * 3600})
    points: dict[SeriesKey, dict[int, float]] = {TRAP: {}, DOOR: {}}
    forgotten_ms, removed = hour(-1000), 0
    store = SqliteStore(config)

    def check(start_h: int, end_h: int, bucket_h: int) -> None:
        for key, held in points.items():
            asked = hour(start_h), hour(end_h), bucket_h * HOUR_MS
            found = store.read_bucketed(*key, *asked)
            assert [(b.time_ms, b.points, b.low, b.high, b.last) for b in found] == by_hand(held, *asked)
            assert [b.mean for b in found] == pytest.approx(means_by_hand(held, *asked), abs=1e-9)
            assert store.latest(*key) == max(held.items(), default=None)
            there = store.read(*key, start_ms=hour(-100), end_ms=hour(200), limit=1000)
            assert set(there) <= set(held.items())
            assert {point for point in held.items() if point[0] >= forgotten_ms} <= set(there)

    for deed in deeds:
        match deed:
            case ("write", list(wanted)):
                batch = [(key, hour(h, plus_ms), value) for key, h, plus_ms, value in wanted]
                # What is sent again to an hour without readings counts again: that has a test of its own.
                batch = [(key, t, value) for key, t, value in batch if t >= forgotten_ms or t not in points[key]]
                batch = list({(key, t): (key, t, value) for key, t, value in batch}.values())
                store.write(batch)
                for key, t, value in batch:
                    points[key][t] = value
            case ("tend", int(now_h), int(steps)):
                monkeypatch.setattr(sqlite, "STEPS_A_LOOK", steps)
                forgotten_ms = max(forgotten_ms, hour(now_h - KEEP_H))
                removed += store.tend(hour(now_h) * 1000).get("readings", 0)
            case ("fold", int(least)):
                store.fold(least)
            case ("look", int(start_h), int(length_h), int(bucket_h)):
                check(start_h, start_h + length_h, bucket_h)
            case _:
                store.close()
                store = SqliteStore(config)
    check(-3, 81, 1)
    check(0, 72, 24)
    assert removed == sum(map(len, points.values())) - store.count()
    store.close()


class TestNothingIsLostInBetween:
    @pytest.mark.parametrize("seed", range(4))
    def test_kill_9_in_the_midst_of_a_step_leaves_every_hour_as_it_was_written(
        self, keeping_a_day: SqliteStoreConfig, seed: int
    ) -> None:
        chance = random.Random(seed)
        written = -1
        for _ in range(5):
            child = subprocess.run(
                [sys.executable, "-m", CHILD, keeping_a_day.path, str(written + 1), str(chance.randint(1, 200))],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                check=False,
            )
            assert child.returncode == -signal.SIGKILL
            written = max([written, *map(int, child.stdout.split())])

            with closing(SqliteStore(keeping_a_day)) as store:
                for tending in (False, True):
                    if tending:
                        drained(store, now_us(written + 1))
                        drained(store, now_us(written + 2))  # hours that late points had made go an hour later
                    for key in SERIES:
                        points = {t: v for n in range(written + 1) for k, t, v in batch(n) if k == key}
                        found = store.read_bucketed(*key, start_ms=0, end_ms=2**40, bucket_ms=HOUR_MS)
                        assert [(b.time_ms, b.points, b.low, b.high, b.last) for b in found] == by_hand(points, 0, 2**40, HOUR_MS)
                assert store.count() == 0, "all of it is old"

    def test_what_is_written_between_two_steps_into_the_hour_that_they_sum_up_counts(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "ROWS_A_STEP", 1)
        store.write([(key, hour(n), 1.0) for key in (TRAP, DOOR) for n in range(3)])
        late = iter(range(1, 1000))

        def breathe(_: float) -> None:
            plus_ms = next(late)
            store.write([(key, hour(n, plus_ms), 1.0) for key in (TRAP, DOOR) for n in range(3)])

        monkeypatch.setattr(sqlite, "sleep", breathe)
        monkeypatch.setattr(sqlite, "STEPS_A_LOOK", 4)
        store.tend(hour(20) * 1000)
        monkeypatch.setattr(sqlite, "sleep", lambda _: None)
        written = next(late)
        assert written >= 4
        for _ in range(2):
            assert [[b.points for b in said(store, key, 0, 3, 1)] for key in (TRAP, DOOR)] == [[written] * 3] * 2
            tended(store, 20)

    def test_what_is_written_while_its_hour_is_about_to_be_forgotten_counts(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "ROWS_A_STEP", 1)
        monkeypatch.setattr(sqlite, "STEPS_A_LOOK", 1)
        store.write([(TRAP, hour(n), 1.0) for n in range(6)])
        while store.count() == 6:
            store.tend(hour(60) * 1000)
            assert store.behind
        monkeypatch.setattr(sqlite, "STEPS_A_LOOK", 100)
        store.write([(TRAP, hour(n, 7), 1.0) for n in range(6)])
        tended(store, 60)
        tended(store, 61)

        assert [bucket.points for bucket in said(store, TRAP, 0, 6, 1)] == [2] * 6
        assert store.count() == 0

    def test_between_two_steps_the_lock_is_free_and_no_step_is_long(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "ROWS_A_STEP", 200)
        counts: list[list[tuple[int, float]]] = []

        def breathe(_: float) -> None:
            assert not store._turn.locked()
            store.write([(DOOR, hour(60, len(counts)), 1.0)])
            counts.append(store.read(*TRAP, start_ms=0, end_ms=2**60, limit=10_000))

        monkeypatch.setattr(sqlite, "sleep", breathe)
        store.write([(TRAP, hour(n // 50, n), 1.0) for n in range(1000)])
        assert tended(store, 60) == 1000
        assert max(len(a) - len(b) for a, b in pairwise(counts)) <= 250


class TestSpace:
    def test_what_is_forgotten_gives_its_space_back(self, store: SqliteStore, keeping_a_day: SqliteStoreConfig) -> None:
        store.write([(TRAP, hour(n // 3000, n), 1.0) for n in range(60_000)])
        store.close()
        before = keeping_a_day.path.stat().st_size
        assert before > 800_000
        tended(store, 60)
        store.close()

        assert keeping_a_day.path.stat().st_size < before / 5

    def test_a_file_of_the_first_version_opens_at_once_is_read_at_once_and_summed_up_by_and_by(
        self, keeping_a_day: SqliteStoreConfig
    ) -> None:
        with closing(sqlite3.connect(keeping_a_day.path, isolation_level=None)) as old:
            old.executescript(f"""
                CREATE TABLE series (id INTEGER PRIMARY KEY, node TEXT NOT NULL, device TEXT NOT NULL, metric TEXT NOT NULL,
                    UNIQUE (node, device, metric)) STRICT;
                CREATE TABLE samples (series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL NOT NULL,
                    PRIMARY KEY (series, time_ms)) STRICT, WITHOUT ROWID;
                PRAGMA application_id = {sqlite.APPLICATION_ID}; PRAGMA user_version = 1;
            """)
            old.execute("INSERT INTO series VALUES (7, ?, ?, ?)", TRAP)
            old.execute("BEGIN")
            old.executemany("INSERT INTO samples VALUES (7, ?, ?)", [(hour(n // 3000, n), float(n)) for n in range(60_000)])
            old.execute("COMMIT")
        size = keeping_a_day.path.stat().st_size

        with closing(SqliteStore(keeping_a_day)) as store:
            before = said(store, TRAP, 0, 48, 1)
            assert len(before) == 20
            assert tended(store, 60) == 60_000
            assert said(store, TRAP, 0, 48, 1) == before
            # Such a file does not shrink; what is free in it is used again.
            store.write([(TRAP, hour(59, n), 1.0) for n in range(50_000)])
        assert keeping_a_day.path.stat().st_size <= size + 100_000
