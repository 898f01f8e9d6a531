"""What every series store promises, whatever its engine: the same tests on each, against the real thing.

A store is opened anew for reading, so that nothing is answered out of what the writer remembers.
"""

import gc
import math
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreDown, StoreRefused
from gateway.pipeline import STORE_PAUSE_S, Message
from gateway.store import (
    Bucket,
    InfluxdbStore,
    SeriesKey,
    SeriesStore,
    VictoriaMetricsStore,
    VictoriaMetricsStoreConfig,
    victoriametrics,
)
from tests.gateway.store import servers
from tests.gateway.store.conftest import MakeInfluxdbConfig, Open
from tests.gateway.town import NODE, SECOND_US, UPTIME_US, Town, batch, event, reading

NOON_MS = 1_700_000_000_000
"""Long ago on any machine's clock: VictoriaMetrics holds nothing that is still to come."""
DAY_MS = 86_400_000
EVER = (-(2**62), 2**62)

Points = list[tuple[int, float]]


@pytest.fixture
def store(open_one: Open) -> Iterator[SeriesStore]:
    with closing(open_one()) as opened:
        yield opened


def held(open_one: Open, key: tuple[str, str, str]) -> Points:
    with closing(open_one()) as reader:
        return reader.read(*key, *EVER, 1_000_000)


# ---- What is written is there, once --------------------------------------------------------------------


def test_what_was_written_is_there_with_its_exact_time_and_value(store: SeriesStore, open_one: Open, node: str) -> None:
    trap, voltage = (node, "trap-11", "trap_closed"), (node, "trap-11", "battery_voltage")
    store.write([(trap, NOON_MS, 1.0), (voltage, NOON_MS + 1, 3.705), (trap, NOON_MS + 2, 0.0)])

    assert held(open_one, trap) == [(NOON_MS, 1.0), (NOON_MS + 2, 0.0)]
    assert held(open_one, voltage) == [(NOON_MS + 1, 3.705)]


def test_series_that_differ_in_one_name_only_stay_apart(store: SeriesStore, open_one: Open, node: str) -> None:
    keys = [(node, "a", "rssi"), (node, "b", "rssi"), (node, "a", "snr"), (f"{node}-2", "a", "rssi")]
    store.write([(key, NOON_MS, float(number)) for number, key in enumerate(keys)])

    assert [held(open_one, key) for key in keys] == [[(NOON_MS, float(number))] for number in range(4)]


def test_a_point_is_found_at_its_very_ms_and_not_beside_it(store: SeriesStore, node: str) -> None:
    key = (node, "door", "count_in")
    # As a number of seconds many of these are a hair less than what they mean: who cuts to ms is one ms short.
    times = [1_073_945_600_018 + number * 777_600_006 for number in range(6)]
    store.write([(key, time_ms, 1.0) for time_ms in times])
    for time_ms in times:
        assert store.read(*key, time_ms, time_ms + 1, 9) == [(time_ms, 1.0)]
        assert store.read(*key, time_ms - 1, time_ms, 9) == store.read(*key, time_ms + 1, time_ms + 2, 9) == []
        assert [one.time_ms for one in store.read_bucketed(*key, time_ms - 1, time_ms + 2, 1)] == [time_ms]


def test_points_written_again_are_there_once(store: SeriesStore, open_one: Open, node: str) -> None:
    key = (node, "door", "count_in")
    points = [(key, NOON_MS + i, float(i)) for i in range(10)]
    store.write(points)
    store.write(points)
    store.write([*points[5:], (key, NOON_MS + 10, 10.0)])

    assert held(open_one, key) == [(NOON_MS + i, float(i)) for i in range(11)]


@pytest.mark.parametrize("values", [(3.0, 5.0), (5.0, 3.0)])
def test_of_two_values_of_one_ms_there_is_one_and_it_is_the_later(
    store: SeriesStore, open_one: Open, node: str, values: tuple[float, float]
) -> None:
    together, after = (node, "together", "rssi"), (node, "after", "rssi")
    store.write([(together, NOON_MS, value) for value in values])
    for value in values:
        store.write([(after, NOON_MS, value)])

    assert held(open_one, together) == [(NOON_MS, values[1])]
    assert held(open_one, after) == [(NOON_MS, values[1])]


def test_points_that_come_late_and_in_any_order_take_their_places(store: SeriesStore, open_one: Open, node: str) -> None:
    key = (node, "door", "count_in")
    late = NOON_MS - 400 * DAY_MS
    for offset in (5, 1, 9):
        store.write([(key, NOON_MS + offset, 1.0), (key, late + offset, 2.0)])
    store.write([(key, NOON_MS + 3, 1.0), (key, NOON_MS + 2, 1.0)])

    assert held(open_one, key) == [(late + 1, 2.0), (late + 5, 2.0), (late + 9, 2.0)] + [
        (NOON_MS + offset, 1.0) for offset in (1, 2, 3, 5, 9)
    ]


def test_a_store_opened_anew_goes_on_where_the_old_one_was(open_one: Open, node: str) -> None:
    key = SeriesKey(node, "door", "count_in")
    for i in range(3):
        with closing(open_one()) as store:
            store.write([(key, NOON_MS + i, float(i))])

    assert held(open_one, key) == [(NOON_MS, 0.0), (NOON_MS + 1, 1.0), (NOON_MS + 2, 2.0)]


def test_whole_tiny_and_huge_values_come_back_unchanged(store: SeriesStore, open_one: Open, node: str) -> None:
    values = [0, 3, 2**53, -0.5, 1e-7, 1e16, 0.1 + 0.2, -1.7976931348623157e308]
    store.write([((node, f"probe-{number}", "memory_free"), NOON_MS, value) for number, value in enumerate(values)])

    # VictoriaMetrics keeps some 15 decimal digits; that SQLite keeps them all is tested with SQLite.
    for number, value in enumerate(values):
        ((time_ms, found),) = held(open_one, (node, f"probe-{number}", "memory_free"))
        assert time_ms == NOON_MS
        assert found == pytest.approx(value, rel=1e-14, abs=0)


def test_writing_nothing_is_nothing(store: SeriesStore) -> None:
    before = store.count()
    store.write([])
    assert store.count() == before


# ---- What no store can hold is refused ------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused_by_name_and_nothing_of_its_batch_stays(
    store: SeriesStore, open_one: Open, node: str, value: float
) -> None:
    key = (node, "probe", "rssi")
    with pytest.raises(StoreRefused, match=f"{node}/probe/rssi at {NOON_MS + 1} ms is {value}"):
        store.write([(key, NOON_MS, 1.0), (key, NOON_MS + 1, value)])

    assert held(open_one, key) == []


def test_a_time_far_away_is_there_exactly_or_refused_and_never_lost_without_a_word(
    store: SeriesStore, open_one: Open, node: str
) -> None:
    for years in (-2000, -300, -60, -20, 3, 50, 300, 2000):
        key, far_ms = (node, f"probe-{years}", "rssi"), NOON_MS + years * 365 * DAY_MS
        try:
            store.write([(key, far_ms, 1.0)])
        except StoreRefused:
            assert held(open_one, key) == []
        else:
            assert held(open_one, key) == [(far_ms, 1.0)]


def test_the_time_zero_is_not_taken_for_now(store: SeriesStore, open_one: Open, node: str) -> None:
    key = (node, "probe", "rssi")
    try:
        store.write([(key, 0, 1.0)])
    except StoreRefused as error:
        assert f"{node}/probe/rssi at 0 ms" in str(error)  # noqa: PT017 - one of two outcomes
    else:
        assert held(open_one, key) == [(0, 1.0)]


HOSTILE = ["a,b", "a b", "a=b", "a, b = c", 'a"b', "わな３番", "a'b;--", "%2C", "?x#y", "{a}", "' OR 1=1", '"; DROP', "$x", "a.*"]


def test_names_with_characters_that_mean_something_elsewhere_stay_what_they_are(store: SeriesStore, node: str) -> None:
    keys = [
        key
        for name in HOSTILE
        for key in (SeriesKey(node, name, "rssi"), SeriesKey(node, "d", name), SeriesKey(f"{node} {name}", "d", "rssi"))
    ]
    store.write([(key, NOON_MS, float(number)) for number, key in enumerate(keys)])

    for number, key in enumerate(keys):
        value = float(number)
        assert store.read(*key, *EVER, 10) == [(NOON_MS, value)]
        assert store.latest(*key) == (NOON_MS, value)
        assert store.read_bucketed(*key, NOON_MS, NOON_MS + 10, 10) == [Bucket(NOON_MS, 1, value, value, value, value)]
    assert set(keys) <= set(store.series())


def test_names_that_it_does_not_hold_have_nothing_when_asked_for(store: SeriesStore, node: str) -> None:
    store.write([((node, "d", "rssi"), NOON_MS, 1.0)])
    for name in ("", "a\\", "\n", "\0", "a\\'; DROP", "x" * 70_000):
        for key in ((node, name, "rssi"), (node, "d", name), (name, "d", "rssi")):
            assert store.read(*key, *EVER, 10) == []
            assert store.latest(*key) is None
            assert store.read_bucketed(*key, NOON_MS, NOON_MS + 10, 10) == []


# ---- Reading ---------------------------------------------------------------------------------------------


def test_a_long_series_is_read_in_order_page_by_page(store: SeriesStore, node: str) -> None:
    key = (node, "door", "count_in")
    points = [(key, NOON_MS + i * 1000, float(i)) for i in range(25_000)]
    for start in (10_000, 0, 20_000):
        store.write(points[start : start + 10_000])
    times = [(time_ms, value) for _, time_ms, value in points]

    assert store.read(*key, *EVER, 23_000) == times[:23_000]
    assert store.read(*key, NOON_MS + 2000, NOON_MS + 5000, 100) == times[2:5], "the start counts, the end does not"
    assert store.read(*key, NOON_MS + 2001, NOON_MS + 10_000_000, 2) == times[3:5]
    assert store.read(*key, NOON_MS, NOON_MS + 10, 0) == []
    assert store.read(*key, NOON_MS + 5000, NOON_MS + 5000, 9) == []
    with pytest.raises(ValueError, match="limit is -1"):
        store.read(*key, *EVER, -1)
    assert [one.points for one in store.read_bucketed(*key, NOON_MS, NOON_MS + 25_000_000, 10_000_000)] == [10_000, 10_000, 5000]
    assert [one.last for one in store.read_bucketed(*key, NOON_MS, EVER[1], 500)] == [value for _, value in times]


def test_the_newest_point_is_found_however_old_it_is(store: SeriesStore, node: str) -> None:
    key = (node, "probe", "rssi")
    assert store.latest(*key) is None
    now_ms = time.time_ns() // 1_000_000
    for age_ms in (9000 * DAY_MS, 100 * DAY_MS, DAY_MS, 5_000, -60_000):
        store.write([(key, now_ms - age_ms, float(age_ms)), ((node, "other", "rssi"), now_ms, 1.0)])
        assert store.latest(*key) == (now_ms - age_ms, float(age_ms))


def test_it_knows_its_series_and_how_many_points_they_have(store: SeriesStore, node: str) -> None:
    before = store.count()
    keys = [SeriesKey(node, device, metric) for device in ("a", "b") for metric in ("rssi", "snr")]
    store.write([(key, NOON_MS + i, 1.0) for key in keys for i in range(5)])

    assert store.count() == before + 20
    found = store.series()
    assert found == sorted(found)
    assert [key for key in found if key.node == node] == keys


def test_a_gap_stays_a_gap_and_is_neither_zero_nor_filled(store: SeriesStore, node: str) -> None:
    key = (node, "probe", "temperature")
    store.write([(key, NOON_MS + minute * 60_000, 20.0) for minute in (0, 1, 2, 120, 121)])

    found = store.read_bucketed(*key, NOON_MS, NOON_MS + 3 * 3_600_000, 600_000)
    assert [((one.time_ms - NOON_MS) // 60_000, one.points) for one in found] == [(0, 3), (120, 2)]
    assert store.read_bucketed(*key, NOON_MS + 600_000, NOON_MS + 3_600_000, 600_000) == []
    with pytest.raises(ValueError, match="bucket_ms is 0"):
        store.read_bucketed(*key, NOON_MS, NOON_MS + 1, 0)


def test_a_day_begins_where_one_asks_and_not_where_utc_has_its_own(store: SeriesStore, node: str) -> None:
    key = (node, "door", "count_in")
    midnight_ms = NOON_MS - NOON_MS % DAY_MS - 9 * 3_600_000  # in Japan
    store.write(
        [(key, midnight_ms + day * DAY_MS + offset, float(day)) for day in range(3) for offset in (-1, 0, 1, DAY_MS // 2)]
    )

    found = store.read_bucketed(*key, midnight_ms, midnight_ms + 3 * DAY_MS, DAY_MS)
    assert [(one.time_ms - midnight_ms) // DAY_MS for one in found] == [0, 1, 2]
    assert [(one.points, one.low, one.high) for one in found] == [(4, 0.0, 1.0), (4, 1.0, 2.0), (3, 2.0, 2.0)]


def model(points: Points, start_ms: int, end_ms: int, bucket_ms: int) -> list[Bucket]:
    """What buckets are, in the plainest words."""
    steps: dict[int, list[float]] = {}
    for time_ms, value in sorted(points):
        if start_ms <= time_ms < end_ms:
            steps.setdefault(start_ms + (time_ms - start_ms) // bucket_ms * bucket_ms, []).append(value)
    return [
        Bucket(at, len(of), min(of), math.fsum(of) / len(of), max(of), of[-1]) for at, of in sorted(steps.items())
    ]  # fmt: skip


EXAMPLE = count()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offsets=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(-1000, 1000)), min_size=1, max_size=30, unique_by=lambda one: one[0]
    ),
    start=st.integers(-3000, 3000) | st.just(EVER[0] - NOON_MS),
    length=st.integers(0, 6000) | st.just(EVER[1]),
    bucket_ms=st.integers(1, 3000) | st.sampled_from([1, 10**6, 2**61]),
)
def test_buckets_are_what_the_model_says(
    store: SeriesStore, node: str, offsets: list[tuple[int, int]], start: int, length: int, bucket_ms: int
) -> None:
    key = (node, f"example-{next(EXAMPLE)}", "temperature")
    points = [(NOON_MS + offset, value / 4) for offset, value in offsets]
    store.write([(key, time_ms, value) for time_ms, value in points])
    start_ms = NOON_MS + start
    end_ms = min(start_ms + length, EVER[1])

    found, expected = store.read_bucketed(*key, start_ms, end_ms, bucket_ms), model(points, start_ms, end_ms, bucket_ms)
    assert [one._replace(mean=0) for one in found] == [one._replace(mean=0) for one in expected]
    assert [one.mean for one in found] == pytest.approx([one.mean for one in expected])
    assert all(one.low <= one.mean <= one.high for one in found)


# ---- Killed, and away ------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A server of this test's own, and how to open a store there."""

    server: servers.Served
    open: Open


@pytest.fixture(params=["influxdb", "victoriametrics"])
def place(request: pytest.FixtureRequest, tmp_path: Path, influxdb_config: MakeInfluxdbConfig) -> Iterator[Place]:
    """That SQLite keeps what it acknowledged when its writer is killed is in test_store_sqlite.py."""
    if request.param == "victoriametrics":
        with servers.victoria_metrics(tmp_path) as server:
            config = VictoriaMetricsStoreConfig(type="victoriametrics", url=server.url, journal=tmp_path / "journal")
            yield Place(server, lambda: VictoriaMetricsStore(config))
    else:
        with servers.influxdb_1(tmp_path) as server, servers.as_influxdb_2(server, tmp_path) as url:
            servers.say_who_is_who(server)
            servers.influxql(server.url, 'CREATE DATABASE "readings"')
            yield Place(server, lambda: InfluxdbStore(influxdb_config(url)))


@contextmanager
def tended(store: SeriesStore) -> Iterator[None]:
    """As a gateway tends it, but all the time."""
    over = threading.Event()

    def tend(store: VictoriaMetricsStore) -> None:
        while not over.wait(0.02):
            with suppress(StoreDown):
                store.settle()

    with ThreadPoolExecutor() as threads:
        tending = threads.submit(tend, store) if isinstance(store, VictoriaMetricsStore) else None
        try:
            yield
        finally:
            over.set()
        if tending is not None:
            tending.result()


@pytest.mark.services
def test_every_point_it_said_was_written_outlives_a_kill_in_the_middle_of_writing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(victoriametrics, "_REST_S", 0.0)
    monkeypatch.setattr(victoriametrics, "_MOVES_S", 0.3)
    series = [("kita-01", f"trap-{number}", "heartbeat") for number in range(5)]
    acknowledged: list[int] = []
    numbers = count()

    def write_until_it_is_killed(written: threading.Event) -> None:
        with closing(place.open()) as store, tended(store):
            for number in numbers:
                try:
                    store.write([(key, NOON_MS + number * 100 + i, float(number)) for key in series for i in range(20)])
                except StoreDown:
                    return
                acknowledged.append(number)
                written.set()

    for _ in range(4):
        several = [threading.Event() for _ in range(3)]  # as ingest workers are, each with a store of its own
        writers = [threading.Thread(target=write_until_it_is_killed, args=(written,)) for written in several]
        for writer in writers:
            writer.start()
        assert all(written.wait(20) for written in several)
        place.server.kill()
        for writer in writers:
            writer.join(30)
        place.server.start()

    with closing(place.open()) as store:
        if isinstance(store, VictoriaMetricsStore):
            store.settle()
        for key in series:
            there = dict(store.read(*key, *EVER, 1_000_000))
            assert [number for number in acknowledged for i in range(20) if there.get(NOON_MS + number * 100 + i) != number] == []
        store.write([(series[0], NOON_MS - 1, 1.0)])
        assert store.read(*series[0], *EVER, 1) == [(NOON_MS - 1, 1.0)], "it goes on"


@pytest.mark.services
def test_while_it_is_away_traps_ring_and_readings_wait_and_nothing_is_lost(place: Place, tmp_path: Path) -> None:
    def group(number: int) -> Message:
        """Ten readings and one trap of one second."""
        readings = [reading(number * 11 + i, i * 1000) for i in range(1, 11)]
        later_us = number * SECOND_US
        return batch(readings, [event(number * 11 + 11, 20_000)], t0=NOON_MS * 1000 + later_us, mono0=UPTIME_US + later_us)

    groups = [group(number) for number in range(40)]

    with Town(tmp_path) as town, closing(place.open()) as store:
        town.now_us = NOON_MS * 1000
        town.pipeline._store = store
        assert town.process(groups[0])[-1].upto == 11
        place.server.kill()
        for number in range(1, 39):  # six minutes
            town.later(10 * SECOND_US)
            acks = town.process(groups[number])
            assert {(low, high) for ack in acks for low, high in ack.ranges} >= {(number * 11 + 11, number * 11 + 11)}, "the trap"
            assert acks[-1].upto == 11, "readings stay at the edge"
            assert acks[-1].wait_s > 0
        assert town.pipeline.store_down
        assert len(town.seqs()) == 39, "each trap was heard at once"
        assert len(town.alerts()) == 39

        def bring(number: int) -> None:
            town.later(10 * SECOND_US)
            many = [reading(10_000 + number * 500 + i, i * 1000) for i in range(500)]
            town.process(batch(many, t0=town.now_us, mono0=UPTIME_US + town.now_us - NOON_MS * 1000))

        bring(0)
        tracemalloc.start()
        for number in range(1, 21):
            bring(number)
        gc.collect()  # errors and their traces
        held_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held_bytes < 200_000, "10,000 readings would be a megabyte at least"

        place.server.start()
        if isinstance(store, VictoriaMetricsStore):
            store.settle()
        town.later(STORE_PAUSE_S * SECOND_US)
        acks = town.process(*groups)  # the edge brings again what was not acknowledged
        assert acks[-1].upto == 440
        found = store.read(NODE, "trap-11", "heartbeat", *EVER, 10_000)
        assert [time_ms for time_ms, _ in found] == [NOON_MS + number * 1000 + i for number in range(40) for i in range(1, 11)]
