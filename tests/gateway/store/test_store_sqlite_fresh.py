"""Points of the SQLite store that wait to be put in their places: nobody who reads can tell, whoever moves them, and when."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreDown
from gateway.store import Bucket, SeriesKey, SqliteStore, SqliteStoreConfig, fresh, sqlite
from gateway.store.disk import Reserve

TRAP = SeriesKey("kita-01", "trap-11", "battery_voltage")
DOOR = SeriesKey("kita-01", "door", "count_in")


@pytest.fixture(autouse=True)
def _no_breath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BREATH_S", 0)


@pytest.fixture
def store(sqlite_config: SqliteStoreConfig) -> Iterator[SqliteStore]:
    with closing(SqliteStore(sqlite_config)) as opened:
        yield opened


def everything(store: SqliteStore, key: SeriesKey) -> list[tuple[int, float]]:
    return store.read(*key, start_ms=0, end_ms=2**60, limit=1_000_000)


def waiting(config: SqliteStoreConfig) -> int:
    with closing(sqlite3.connect(config.path)) as other:
        return int(other.execute("SELECT count(*) FROM fresh").fetchone()[0])


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For who moves them."""
    honest = fresh.sort

    def sort(keeper: sqlite3.Connection, most: int) -> tuple[int, int, int]:
        keeper.execute("PRAGMA max_page_count = 1")  # SQLite's own way to say it
        return honest(keeper, most)

    with monkeypatch.context() as broken:
        broken.setattr(fresh, "sort", sort)
        yield


def test_a_few_points_wait_until_there_are_enough_to_be_worth_moving(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FOLD_ROWS", 10)
    store.write([(TRAP, n, 1.0) for n in range(9)])
    store.fold(sqlite.FOLD_ROWS)
    assert waiting(sqlite_config) == 9

    store.write([(TRAP, 9, 1.0)])
    store.fold(sqlite.FOLD_ROWS)
    assert (waiting(sqlite_config), store.count()) == (0, 10)


def test_where_nobody_moves_them_who_writes_does(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FRESH_MOST", 20)
    for n in range(100):
        store.write([(TRAP, n, float(n)), (DOOR, n, float(n))])
        assert waiting(sqlite_config) <= 22
    assert everything(store, TRAP) == [(n, float(n)) for n in range(100)]


def test_a_write_that_fails_because_they_can_not_be_moved_has_written_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FRESH_MOST", 2)
    store.write([(TRAP, n, 1.0) for n in range(5000)])
    with full_disk(monkeypatch):
        for _ in range(3):
            with pytest.raises(StoreDown, match="disk is full: make room"):
                store.write([(TRAP, 5000, 1.0)])
    assert everything(store, TRAP) == [(n, 1.0) for n in range(5000)]
    store.write([(TRAP, 5000, 1.0)])
    assert everything(store, TRAP) == [(n, 1.0) for n in range(5001)]


def test_a_disk_that_fails_while_they_are_moved_is_said_and_takes_nothing(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CACHE_KIB", 8)  # so that it writes before it commits; SQLite then rolls back by itself
    store.write([(TRAP, n, 1.0) for n in range(5000)])
    log_size = Path(f"{sqlite_config.path}-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log_size + 5000, hard))
    try:
        with pytest.raises(StoreDown, match=r"series\.db can't be tended: .*The disk failed, or is full"):
            store.fold(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.count() == 5000
    store.fold(1)
    assert everything(store, TRAP) == [(n, 1.0) for n in range(5000)]


def test_on_a_disk_with_little_room_they_wait(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([(TRAP, 1, 1.0)])
    with monkeypatch.context() as full:
        full.setattr(store, "disk", Reserve(sqlite_config.path.parent, 2**40))
        store.fold(1)
        assert (waiting(sqlite_config), everything(store, TRAP)) == (1, [(1, 1.0)])
    store.fold(1)
    assert waiting(sqlite_config) == 0


def test_what_is_written_while_they_are_moved_counts_and_is_not_lost(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", 3)
    store.write([(key, n, 1.0) for key in (TRAP, DOOR) for n in range(10)])
    seen: list[tuple[list[tuple[int, float]], tuple[int, float] | None, int]] = []

    def breathe(_: float) -> None:
        at = len(seen)
        store.write([(TRAP, at, 2.0), (DOOR, 100 + at, 2.0)])
        seen.append((everything(store, TRAP), store.latest(*DOOR), store.count()))

    monkeypatch.setattr(sqlite, "sleep", breathe)
    store.fold(1)
    monkeypatch.setattr(sqlite, "sleep", lambda _: None)

    assert len(seen) == 7
    for at, (trap, door, count) in enumerate(seen):
        assert trap == [(n, 2.0 if n <= at else 1.0) for n in range(10)]
        assert (door, count) == ((100 + at, 2.0), 20 + at + 1)
    store.fold(1)
    assert everything(store, TRAP) == seen[-1][0]
    assert store.count() == 27


@pytest.mark.parametrize("step", [2, 6])
def test_of_two_who_move_the_same_points_the_slower_one_neither_puts_old_over_new_nor_lets_go_of_what_it_has_not_moved(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", step)
    store.write([(TRAP, n, 1.0) for n in range(6)])
    with closing(SqliteStore(sqlite_config)) as other:

        def overtaken(_: float) -> None:
            monkeypatch.setattr(sqlite, "sleep", lambda _: None)
            other.fold(1)
            other.write([(TRAP, n, 2.0) for n in range(6)])
            other.fold(1)
            other.write([(TRAP, n, 3.0) for n in range(6, 9)])  # in rows with the numbers of those that the slower one saw

        monkeypatch.setattr(sqlite, "sleep", overtaken)
        store.fold(1)
        store.fold(1)

    assert everything(store, TRAP) == [(n, 2.0 if n < 6 else 3.0) for n in range(9)]


def test_of_two_in_the_midst_of_moving_the_slower_one_puts_nothing_old_over_what_the_other_has_moved(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", 2)
    store.write([(TRAP, n, 1.0) for n in range(6)])
    with closing(SqliteStore(sqlite_config)) as other, other._keeping() as keeper:
        moved: list[tuple[int, int, int]] = []

        def overtaken(_: float) -> None:
            if not moved:
                other.write([(TRAP, n, 2.0) for n in range(6)])
                folds, last, rows = fresh.sort(keeper, 100)
                with other._step(keeper):
                    assert fresh.move(keeper, folds, 0, rows)
                moved.append((folds + 1, last, rows))

        monkeypatch.setattr(sqlite, "sleep", overtaken)
        store.fold(1)
        with other._step(keeper):
            assert fresh.done(keeper, *moved[0])
    assert waiting(sqlite_config) == 0
    assert everything(store, TRAP) == [(n, 2.0) for n in range(6)]


def test_what_has_not_been_moved_stays_where_somebody_compacts_the_file_meanwhile(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([(DOOR, n, 1.0) for n in range(5)])
    with closing(sqlite3.connect(sqlite_config.path, isolation_level=None)) as by_hand:
        by_hand.execute("UPDATE fresh SET rowid = rowid + 100")  # as they are numbered after many went

        def compact(_: float) -> None:
            monkeypatch.setattr(sqlite, "sleep", lambda _: None)
            store.write([(TRAP, n, 2.0) for n in range(20)])
            by_hand.execute("VACUUM")

        monkeypatch.setattr(sqlite, "sleep", compact)
        store.fold(1)
    store.fold(1)
    assert everything(store, TRAP) == [(n, 2.0) for n in range(20)]


def test_no_transaction_moves_more_than_a_step_and_between_two_others_may_write(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", 10)
    store.write([(TRAP, n, 1.0) for n in range(100)])
    breaths = []

    def breathe(_: float) -> None:
        assert not store._turn.locked()
        breaths.append(1)

    monkeypatch.setattr(sqlite, "sleep", breathe)
    store.fold(1)
    assert len(breaths) == 10


def test_a_loss_of_power_takes_back_moves_and_never_a_point(
    store: SqliteStore, sqlite_config: SqliteStoreConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", 100)
    log = Path(f"{sqlite_config.path}-wal")
    store.write([(key, n, value) for value in (1.0, 2.0) for n in range(150) for key in (TRAP, DOOR)])
    durable = log.stat().st_size  # all that a disk must have when `write` returns
    before = sqlite_config.path.read_bytes()
    store.fold(1)
    written = log.read_bytes()
    assert len(written) > durable
    waited = set()
    for upto in (*range(durable, len(written), 1000), len(written)):
        after = SqliteStoreConfig(type="sqlite", path=tmp_path / f"after-{upto}.db")
        after.path.write_bytes(before)
        Path(f"{after.path}-wal").write_bytes(written[:upto])
        with closing(SqliteStore(after)) as again:
            waited.add(waiting(after))
            assert everything(again, TRAP) == everything(again, DOOR) == [(n, 2.0) for n in range(150)]
            again.fold(1)
            assert everything(again, TRAP) == everything(again, DOOR) == [(n, 2.0) for n in range(150)]
    assert waited == {600, 0}


def test_a_file_of_the_version_before_is_brought_up_to_date_with_what_it_holds(
    store: SqliteStore, sqlite_config: SqliteStoreConfig
) -> None:
    store.write([(TRAP, 1, 1.0)])
    store.fold(1)
    store.close()
    with closing(sqlite3.connect(sqlite_config.path, isolation_level=None)) as old:
        old.executescript(
            "DROP VIEW readings; DROP TABLE fresh; ALTER TABLE progress DROP COLUMN folds; PRAGMA user_version = 2;"
        )
    with closing(SqliteStore(sqlite_config)) as again:
        again.write([(TRAP, 2, 2.0)])
        assert everything(again, TRAP) == [(1, 1.0), (2, 2.0)]


def test_a_file_that_is_gone_is_said_and_not_made_anew(store: SqliteStore, sqlite_config: SqliteStoreConfig) -> None:
    store.write([(TRAP, 1, 1.0)])
    sqlite_config.path.rename(sqlite_config.path.with_suffix(".away"))
    with pytest.raises(StoreDown, match="can't be tended"):
        store.fold(1)
    assert not sqlite_config.path.exists()


POINT = st.tuples(st.sampled_from([TRAP, DOOR]), st.integers(0, 40), st.integers(-100, 100).map(float))
DEED = st.one_of(
    st.tuples(st.just("write"), st.lists(POINT, min_size=1, max_size=10)),
    st.tuples(st.just("fold"), st.integers(1, 8)),
    st.tuples(st.just("open anew")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(DEED, max_size=20), at_once=st.integers(1, 4), step=st.integers(1, 5))
def test_whatever_is_written_twice_and_moved_in_any_order_the_last_word_on_a_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deeds: list[tuple[str, *tuple[object, ...]]], at_once: int, step: int
) -> None:
    monkeypatch.setattr(fresh, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(sqlite, "ROWS_A_STEP", step)
    monkeypatch.setattr(sqlite, "FOLD_MOST", 7)
    config = SqliteStoreConfig(type="sqlite", path=tmp_path / f"{len(list(tmp_path.iterdir()))}.db")
    held: dict[SeriesKey, dict[int, float]] = {TRAP: {}, DOOR: {}}
    store = SqliteStore(config)
    for deed in deeds:
        match deed:
            case ("write", list(points)):
                store.write(points)
                for key, time_ms, value in points:
                    held[key][time_ms] = value
            case ("fold", int(least)):
                store.fold(least)
            case _:
                store.close()
                store = SqliteStore(config)
    for key, said in held.items():
        rows = sorted(said.items())
        assert everything(store, key) == rows
        assert store.read(*key, start_ms=5, end_ms=30, limit=4) == [row for row in rows if 5 <= row[0] < 30][:4]
        assert store.latest(*key) == (rows[-1] if rows else None)
        found = store.read_bucketed(*key, start_ms=3, end_ms=38, bucket_ms=7)
        by_hand: dict[int, list[float]] = {}
        for time_ms, value in rows:
            if 3 <= time_ms < 38:
                by_hand.setdefault(3 + (time_ms - 3) // 7 * 7, []).append(value)
        assert [bucket._replace(mean=0) for bucket in found] == [
            Bucket(at, len(values), min(values), 0, max(values), values[-1]) for at, values in by_hand.items()
        ]
        assert [bucket.mean for bucket in found] == pytest.approx([sum(v) / len(v) for v in by_hand.values()], abs=1e-9)
    assert store.count() == sum(map(len, held.values()))
    store.close()
