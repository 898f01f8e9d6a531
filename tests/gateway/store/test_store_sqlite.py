"""The SQLite store: what it reads back, and that no accident to its file goes unseen or costs what it had taken."""

import os
import random
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.errors import StoreDown, StoreRefused
from gateway.store import Bucket, SeriesKey, SqliteStore, SqliteStoreConfig, StoreConfig, disk, open_store, sqlite
from tests.gateway.store.series_writer_child import SERIES, batch

TRAP = SeriesKey("kita-01", "trap-11", "trap_closed")
DOOR = SeriesKey("kita-01", "door", "count_in")
CHILD = "tests.gateway.store.series_writer_child"


@pytest.fixture
def store(sqlite_config: SqliteStoreConfig) -> Iterator[SqliteStore]:
    with closing(SqliteStore(sqlite_config)) as opened:
        yield opened


def all_of(store: SqliteStore, key: SeriesKey = TRAP) -> list[tuple[int, float]]:
    return store.read(*key, start_ms=-(2**62), end_ms=2**62, limit=1_000_000)


@contextmanager
def raw(config: SqliteStoreConfig) -> Iterator[sqlite3.Connection]:
    """Another program at the same file."""
    with closing(sqlite3.connect(config.path, isolation_level=None, timeout=0)) as connection:
        yield connection


class TestReading:
    def test_a_range_begins_with_its_start_and_ends_before_its_end(self, store: SqliteStore) -> None:
        store.write([(TRAP, t, float(t)) for t in (10, 20, 30)])

        assert store.read(*TRAP, start_ms=10, end_ms=30, limit=10) == [(10, 10.0), (20, 20.0)]
        assert store.read(*TRAP, start_ms=30, end_ms=10, limit=10) == []

    def test_pages_of_a_long_range_join_without_hole_or_overlap(self, store: SqliteStore) -> None:
        store.write([(TRAP, t, float(t)) for t in range(25)])
        seen, start = [], 0
        while page := store.read(*TRAP, start_ms=start, end_ms=100, limit=10):
            seen += page
            start = page[-1][0] + 1

        assert seen == [(t, float(t)) for t in range(25)]

    def test_the_newest_point_is_newest_by_time_and_not_by_arrival(self, store: SqliteStore) -> None:
        store.write([(TRAP, 20, 2.0), (DOOR, 99, 9.0)])
        store.write([(TRAP, 10, 1.0)])

        assert store.latest(*TRAP) == (20, 2.0)

    def test_a_series_never_written_is_empty_and_no_error(self, store: SqliteStore) -> None:
        store.write([(TRAP, 1, 1.0)])
        nobody = ("kita-02", "trap-11", "trap_closed")

        assert store.latest(*nobody) is None
        assert store.read(*nobody, start_ms=0, end_ms=10, limit=10) == []
        assert store.read_bucketed(*nobody, start_ms=0, end_ms=10, bucket_ms=5) == []

    def test_it_knows_its_series_and_how_many_points_it_has(self, store: SqliteStore) -> None:
        assert (store.series(), store.count()) == ([], 0)
        store.write([(TRAP, 1, 1.0), (DOOR, 1, 1.0), (TRAP, 2, 1.0)])
        store.write([(TRAP, 2, 0.0)])

        assert (store.series(), store.count()) == ([DOOR, TRAP], 3)

    def test_of_two_values_for_one_time_the_later_written_counts(self, store: SqliteStore) -> None:
        store.write([(TRAP, 1, 9.0), (TRAP, 1, 3.0)])
        assert all_of(store) == [(1, 3.0)]
        store.write([(TRAP, 1, 1.0)])
        assert all_of(store) == [(1, 1.0)]

    def test_questions_without_sense_are_the_caller_s_error(self, store: SqliteStore) -> None:
        with pytest.raises(ValueError, match="bucket_ms is 0"):
            store.read_bucketed(*TRAP, start_ms=0, end_ms=10, bucket_ms=0)
        with pytest.raises(ValueError, match="limit is -1"):
            store.read(*TRAP, start_ms=0, end_ms=10, limit=-1)

    def test_every_thread_may_read_while_one_writes_and_sees_whole_batches_only(self, store: SqliteStore) -> None:
        errors: list[BaseException] = []
        enough = threading.Event()

        def look() -> None:
            try:
                while not enough.is_set():
                    count = store.count()
                    assert count % 10 == 0, f"{count} points: a part of a batch"
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                errors.append(error)

        readers = [threading.Thread(target=look) for _ in range(3)]
        for reader in readers:
            reader.start()
        for number in range(50):
            store.write([(TRAP, number * 10 + i, 1.0) for i in range(10)])
        enough.set()
        for reader in readers:
            reader.join(10)

        assert errors == []

    def test_it_can_be_read_when_no_writer_is_left(self, store: SqliteStore) -> None:
        store.write([(TRAP, 1, 1.0)])
        store.close()

        assert store.latest(*TRAP) == (1, 1.0)


class TestBuckets:
    def test_a_bucket_says_how_many_lowest_mean_highest_and_last(self, store: SqliteStore) -> None:
        store.write([(TRAP, 100, 4.0), (TRAP, 105, 1.0), (TRAP, 109, 1.5), (TRAP, 110, 7.0)])

        assert store.read_bucketed(*TRAP, start_ms=100, end_ms=120, bucket_ms=10) == [
            Bucket(time_ms=100, points=3, low=1.0, mean=6.5 / 3, high=4.0, last=1.5),
            Bucket(time_ms=110, points=1, low=7.0, mean=7.0, high=7.0, last=7.0),
        ]

    def test_a_gap_stays_a_gap(self, store: SqliteStore) -> None:
        store.write([(TRAP, 0, 0.0), (TRAP, 95, 0.0)])

        assert [bucket.time_ms for bucket in store.read_bucketed(*TRAP, start_ms=0, end_ms=100, bucket_ms=10)] == [
            0,
            90,
        ]

    def test_days_begin_at_the_midnight_that_the_caller_means(self, store: SqliteStore) -> None:
        day_ms, japan_ms = 86_400_000, 9 * 3_600_000
        midnight = 20_000 * day_ms - japan_ms
        store.write([(DOOR, midnight - 1, 1.0), (DOOR, midnight, 2.0), (DOOR, midnight + day_ms - 1, 3.0)])

        buckets = store.read_bucketed(*DOOR, start_ms=midnight - day_ms, end_ms=midnight + day_ms, bucket_ms=day_ms)
        assert [(b.time_ms, b.points, b.last) for b in buckets] == [(midnight - day_ms, 1, 1.0), (midnight, 2, 3.0)]

    @pytest.mark.parametrize("value", [0.1, -0.1, 1.7976931348623157e308])
    def test_equal_values_have_that_value_as_their_mean(self, store: SqliteStore, value: float) -> None:
        store.write([(TRAP, t, value) for t in range(3)])

        assert store.read_bucketed(*TRAP, start_ms=0, end_ms=3, bucket_ms=3) == [Bucket(0, 3, *[value] * 4)]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        points=st.dictionaries(st.integers(-300, 300), st.floats(allow_nan=False, allow_infinity=False), max_size=40),
        start=st.integers(-350, 350),
        length=st.integers(0, 500),
        step=st.integers(1, 120),
    )
    def test_buckets_are_what_one_would_count_by_hand(
        self, tmp_path: Path, points: dict[int, float], start: int, length: int, step: int
    ) -> None:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        with closing(SqliteStore(SqliteStoreConfig(type="sqlite", path=path))) as store:
            store.write([(TRAP, t, value) for t, value in points.items()])
            assert dict(all_of(store)) == points  # every finite value, to the last bit
            found = store.read_bucketed(*TRAP, start_ms=start, end_ms=start + length, bucket_ms=step)

        steps: dict[int, list[float]] = {}
        for t, value in sorted(points.items()):
            if start <= t < start + length:
                steps.setdefault(start + (t - start) // step * step, []).append(value)
        assert [(b.time_ms, b.points, b.low, b.high, b.last) for b in found] == [
            (t, len(values), min(values), max(values), values[-1]) for t, values in steps.items()
        ]
        assert all(b.low <= b.mean <= b.high for b in found)


class TestPointsItCanNotHold:
    @pytest.mark.parametrize(
        "point",
        [
            (TRAP, 1.5, 1.0),
            (TRAP, "noon", 1.0),
            (TRAP, None, 1.0),
            (TRAP, 2**63, 1.0),
            (TRAP, 1, 2**70),
            (("kita-01", None, "rssi"), 1, 1.0),
            (("kita-01", "trap-11"), 1, 1.0),
            (("kita-01", "\ud800", "rssi"), 1, 1.0),
        ],
    )
    def test_a_point_of_another_shape_is_refused_with_its_batch_and_the_next_is_taken(
        self, store: SqliteStore, point: Any
    ) -> None:
        with pytest.raises(StoreRefused, match="A point is not"):
            store.write([(DOOR, 1, 1.0), point])
        assert (store.count(), store.series()) == (0, [])

        store.write([(DOOR, 1, 1.0)])
        assert all_of(store, DOOR) == [(1, 1.0)]


class TestNothingTakenIsLost:
    def test_every_commit_waits_for_the_disk(self, store: SqliteStore) -> None:
        assert store._writer is not None
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL

    @pytest.mark.parametrize("seed", range(4))
    def test_kill_9_loses_no_batch_that_was_reported_and_leaves_no_part_of_another(
        self, sqlite_config: SqliteStoreConfig, seed: int
    ) -> None:
        chance = random.Random(seed)
        reported = -1
        # Twice in the midst of writing, then at rest after a report: each child goes on with what the last one left.
        for at_rest in (False, False, True):
            awaited = reported + chance.randint(1, 60)
            last = awaited if at_rest else 10**9
            with subprocess.Popen(
                [sys.executable, "-m", CHILD, sqlite_config.path, str(reported + 1), str(last)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            ) as child:
                assert child.stdout is not None
                while reported < awaited:
                    reported = int(child.stdout.readline())
                child.kill()  # wherever it is by now in the batches after
                reported = max([reported, *map(int, child.stdout.read().split())])

            with closing(SqliteStore(sqlite_config)) as store:
                for key in SERIES:
                    held = set(all_of(store, SeriesKey(*key)))
                    for number in range(reported + 1):
                        assert {(t, v) for k, t, v in batch(number) if k == key} <= held
                assert store.count() % len(batch(0)) == 0

    def test_a_write_that_failed_leaves_no_series_that_later_points_would_go_astray_in(self, store: SqliteStore) -> None:
        with pytest.raises(StoreRefused):
            store.write([(TRAP, 1, 1.0), (DOOR, "noon", 1.0)])  # type: ignore[list-item]
        store.write([(DOOR, 1, 5.0)])
        store.write([(TRAP, 1, 6.0)])

        assert (all_of(store, DOOR), all_of(store, TRAP)) == ([(1, 5.0)], [(1, 6.0)])

    def test_two_programs_that_name_a_new_series_at_once_mean_the_same(self, sqlite_config: SqliteStoreConfig) -> None:
        with closing(SqliteStore(sqlite_config)) as one, closing(SqliteStore(sqlite_config)) as other:
            one.write([(TRAP, 1, 1.0)])
            other.write([(DOOR, 1, 2.0), (TRAP, 2, 3.0)])
            one.write([(DOOR, 2, 4.0)])

            assert (all_of(one, TRAP), all_of(one, DOOR)) == ([(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 4.0)])


class TestOutages:
    """Each is said as StoreDown with the file's name, keeps what was there, and ends by itself when its cause does."""

    def test_a_full_database(self, store: SqliteStore, sqlite_config: SqliteStoreConfig) -> None:
        store.write([(TRAP, 1, 1.0)])
        assert store._writer is not None
        store._writer.execute("PRAGMA max_page_count = 5")  # SQLite's own way to say "disk full"
        with pytest.raises(StoreDown, match=rf"{sqlite_config.path} can't be written: .*full.*make room"):
            store.write([(DOOR, t, 1.0) for t in range(5000)])
        assert all_of(store) == [(1, 1.0)]

        store.write([(DOOR, t, 1.0) for t in range(5000)])
        assert store.count() == 5001

    def test_a_disk_that_stops_taking_bytes(self, store: SqliteStore, sqlite_config: SqliteStoreConfig) -> None:
        store.write([(TRAP, 1, 1.0)])
        wal_size = Path(f"{sqlite_config.path}-wal").stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal_size + 5000, hard))
        try:
            with pytest.raises(StoreDown, match=r"series\.db can't be written"):
                store.write([(DOOR, t, 1.0) for t in range(5000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert all_of(store) == [(1, 1.0)]

        store.write([(DOOR, t, 1.0) for t in range(5000)])
        assert store.count() == 5001

    def test_another_program_that_holds_the_lock(
        self, store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "BUSY_S", 0)
        store.close()
        with raw(sqlite_config) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreDown, match=r"locked.*find and stop it"):
                store.write([(TRAP, 1, 1.0)])
            assert store.count() == 0  # readers are not held up
            other.execute("ROLLBACK")

        store.write([(TRAP, 1, 1.0)])
        assert all_of(store) == [(1, 1.0)]

    def test_what_is_left_of_a_filling_disk_belongs_to_others(
        self, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free_mib, now = 255, 0.0
        asked: list[Path] = []

        def usage(folder: Path) -> object:
            asked.append(folder)
            return SimpleNamespace(free=free_mib * 2**20)

        monkeypatch.setattr(disk, "disk_usage", usage)
        monkeypatch.setattr(disk, "monotonic", lambda: now)
        with closing(SqliteStore(sqlite_config)) as store:
            for _ in range(3):
                with pytest.raises(StoreDown, match=rf"less than 256 MiB free on {sqlite_config.path.parent}: 255 MiB are left"):
                    store.write([(TRAP, 1, 1.0)])
            assert asked == [sqlite_config.path.parent], "once a second is enough"
            free_mib, now = 256, 1.0
            store.write([(TRAP, 1, 1.0)])
            assert all_of(store) == [(1, 1.0)]

    def test_how_much_belongs_to_others_is_a_setting(self, sqlite_config: SqliteStoreConfig) -> None:
        more_than_any_disk_has = sqlite_config.model_copy(update={"reserve_mib": 2**40})
        with closing(SqliteStore(more_than_any_disk_has)) as store, pytest.raises(StoreDown, match=r"less than .* MiB free"):
            store.write([(TRAP, 1, 1.0)])
        with closing(SqliteStore(sqlite_config.model_copy(update={"reserve_mib": 0}))) as store:
            store.write([(TRAP, 1, 1.0)])

    def test_a_disk_that_is_gone_has_no_room(self, tmp_path: Path) -> None:
        said = disk.Reserve(tmp_path / "not-mounted", 1).shortage()
        assert said is not None
        assert "not-mounted" in said

    def test_traps_wait_at_most_a_second_for_a_lock(self) -> None:
        assert sqlite.BUSY_S <= 1

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "not-mounted" / "series.db"
        with pytest.raises(StoreDown, match=rf"{path} can't be opened: .*Does its folder exist"):
            SqliteStore(SqliteStoreConfig(type="sqlite", path=path))

    def test_a_file_removed_while_in_use_is_not_written_into_the_void(
        self, store: SqliteStore, sqlite_config: SqliteStoreConfig
    ) -> None:
        store.write([(TRAP, 1, 1.0)])
        sqlite_config.path.unlink()
        with pytest.raises(StoreDown, match="removed or replaced while in use"):
            store.write([(TRAP, 2, 1.0)])
        with pytest.raises(StoreDown, match="Does its folder exist, is its disk mounted"):
            store.write([(TRAP, 2, 1.0)])
        assert not sqlite_config.path.exists()  # an empty one in its place would hide the loss

    def test_a_file_replaced_while_in_use_is_taken_up_with_its_own_ids(
        self, store: SqliteStore, sqlite_config: SqliteStoreConfig, tmp_path: Path
    ) -> None:
        backup = SqliteStoreConfig(type="sqlite", path=tmp_path / "backup.db")
        with closing(SqliteStore(backup)) as earlier:
            earlier.write([(DOOR, 1, 1.0)])
        store.write([(TRAP, 1, 1.0)])
        for name in (sqlite_config.path, f"{sqlite_config.path}-wal", f"{sqlite_config.path}-shm"):
            Path(name).unlink()
        backup.path.rename(sqlite_config.path)

        with pytest.raises(StoreDown):
            store.write([(TRAP, 2, 2.0)])
        store.write([(TRAP, 2, 2.0)])
        assert (all_of(store, DOOR), all_of(store, TRAP)) == ([(1, 1.0)], [(2, 2.0)])


class TestFilesItWillNotTouch:
    def test_a_file_of_a_newer_gateway(self, store: SqliteStore, sqlite_config: SqliteStoreConfig) -> None:
        store.close()
        with raw(sqlite_config) as other:
            other.execute("PRAGMA user_version = 7")
        with pytest.raises(StoreRefused, match=r"series\.db is a series store of version 7.*update the gateway"):
            SqliteStore(sqlite_config)

    def test_a_database_of_somebody_else(self, sqlite_config: SqliteStoreConfig) -> None:
        with raw(sqlite_config) as other:
            other.execute("CREATE TABLE accounts (name TEXT)")
        before = sqlite_config.path.read_bytes()
        with pytest.raises(StoreRefused, match="no series store: give the store a file of its own"):
            SqliteStore(sqlite_config)
        assert sqlite_config.path.read_bytes() == before

    def test_a_file_that_is_no_database(self, sqlite_config: SqliteStoreConfig) -> None:
        sqlite_config.path.write_bytes(b"a letter to the town hall\n" * 100)
        with pytest.raises(StoreRefused, match=r"series\.db can't be opened: .*not a database.*restore a backup"):
            SqliteStore(sqlite_config)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreDown, match="can't be opened"):
            SqliteStore(SqliteStoreConfig(type="sqlite", path=tmp_path))

    def test_a_damaged_page_is_said_when_it_is_met(self, store: SqliteStore, sqlite_config: SqliteStoreConfig) -> None:
        store.write([(TRAP, t, 1.0) for t in range(5000)])
        store.close()
        content = bytearray(sqlite_config.path.read_bytes())
        content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
        sqlite_config.path.write_bytes(content)

        with pytest.raises(StoreRefused, match=r"can't be read: .*malformed.*restore a backup"):
            store.count()
        with pytest.raises(StoreRefused, match="restore a backup"):
            store.write([(TRAP, t, 2.0) for t in range(5000)])

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=64)), min_size=1, max_size=5))
    def test_no_damage_to_the_file_brings_anything_but_the_two_errors(
        self, tmp_path: Path, damage: list[tuple[int, bytes]]
    ) -> None:
        config = SqliteStoreConfig(type="sqlite", path=tmp_path / "damaged.db")
        for leftover in tmp_path.iterdir():
            leftover.unlink()
        with closing(SqliteStore(config)) as store:
            store.write([(key, t, 1.0) for key in (TRAP, DOOR) for t in range(300)])
        content = bytearray(config.path.read_bytes())
        for at, garbage in damage:
            begin = at % (len(content) - len(garbage))
            content[begin : begin + len(garbage)] = garbage
        config.path.write_bytes(content)

        try:
            with closing(SqliteStore(config)) as store:
                store.series()
                store.count()
                store.latest(*TRAP)
                store.read_bucketed(*TRAP, start_ms=0, end_ms=300, bucket_ms=7)
                store.write([(TRAP, 400, 1.0), (("new", "one", "rssi"), 1, 1.0)])
        except (StoreDown, StoreRefused) as error:
            assert str(config.path) in str(error)  # noqa: PT017 - one of many outcomes


class TestConfig:
    def test_the_table_of_gateway_toml_opens_the_store_it_names(self, tmp_path: Path) -> None:
        config = TypeAdapter(StoreConfig).validate_python({"type": "sqlite", "path": str(tmp_path / "s #1?.db")})
        with closing(open_store(config)) as store:
            store.write([(TRAP, 1, 1.0)])
            assert store.latest(*TRAP) == (1, 1.0)
        assert (tmp_path / "s #1?.db").exists()

    @pytest.mark.parametrize(
        ("table", "named"),
        [
            ({"type": "sqlite", "path": "s.db", "pth": 1}, "sqlite.pth"),
            ({"type": "sqlite"}, "sqlite.path"),
            ({"type": "sqlight", "path": "s.db"}, "'sqlite', 'influxdb'"),
        ],
    )
    def test_a_typo_is_named(self, table: dict[str, object], named: str) -> None:
        with pytest.raises(ValidationError) as caught:
            TypeAdapter(StoreConfig).validate_python(table)
        where = ".".join(map(str, caught.value.errors()[0]["loc"]))
        assert named in f"{where} {caught.value}"
