"""What every series store promises to whoever writes: the same tests on each, against the real thing."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from gateway.errors import StoreRefused
from gateway.store import SeriesKey, SeriesWriter
from tests.gateway.store.conftest import Shelf

NOON_MS = 1_780_000_000_000


@pytest.fixture
def store(shelf: Shelf) -> Iterator[SeriesWriter]:
    with closing(shelf.open()) as opened:
        yield opened


def test_what_was_written_is_there_with_its_exact_time_and_value(store: SeriesWriter, shelf: Shelf, node: str) -> None:
    trap, voltage = (node, "trap-11", "trap_closed"), (node, "trap-11", "battery_voltage")
    store.write([(trap, NOON_MS, 1.0), (voltage, NOON_MS + 1, 3.705), (trap, NOON_MS + 2, 0.0)])

    assert shelf.holds(trap) == [(NOON_MS, 1.0), (NOON_MS + 2, 0.0)]
    assert shelf.holds(voltage) == [(NOON_MS + 1, 3.705)]


def test_series_that_differ_in_one_name_only_stay_apart(store: SeriesWriter, shelf: Shelf, node: str) -> None:
    keys = [(node, "a", "rssi"), (node, "b", "rssi"), (node, "a", "snr"), (f"{node}-2", "a", "rssi")]
    store.write([(key, NOON_MS, float(number)) for number, key in enumerate(keys)])

    assert [shelf.holds(key) for key in keys] == [
        [(NOON_MS, 0.0)],
        [(NOON_MS, 1.0)],
        [(NOON_MS, 2.0)],
        [(NOON_MS, 3.0)],
    ]


def test_points_written_again_are_there_once(store: SeriesWriter, shelf: Shelf, node: str) -> None:
    key = (node, "door", "count_in")
    points = [(key, NOON_MS + i, float(i)) for i in range(10)]
    store.write(points)
    store.write(points)
    store.write([*points[5:], (key, NOON_MS + 10, 10.0)])

    assert shelf.holds(key) == [(NOON_MS + i, float(i)) for i in range(11)]


def test_a_store_opened_anew_goes_on_where_the_old_one_was(shelf: Shelf, node: str) -> None:
    key = SeriesKey(node, "door", "count_in")
    for i in range(3):
        with closing(shelf.open()) as store:
            store.write([(key, NOON_MS + i, float(i))])

    assert shelf.holds(key) == [(NOON_MS, 0.0), (NOON_MS + 1, 1.0), (NOON_MS + 2, 2.0)]


def test_a_full_batch_in_any_order_of_time_arrives_whole(store: SeriesWriter, shelf: Shelf, node: str) -> None:
    key = (node, "door", "count_in")
    store.write([(key, NOON_MS + i * 7 % 5000, float(i)) for i in range(5000)])

    assert sorted(shelf.holds(key)) == sorted((NOON_MS + i * 7 % 5000, float(i)) for i in range(5000))


@pytest.mark.parametrize("value", [0, 3, 2**53, -0.5, 1e-7, 1e16, 0.1 + 0.2, -1.7976931348623157e308])
def test_whole_tiny_and_huge_values_come_back_unchanged(store: SeriesWriter, shelf: Shelf, node: str, value: float) -> None:
    key = (node, "probe", "memory_free")
    store.write([(key, NOON_MS, value)])

    # VictoriaMetrics keeps some 15 decimal digits; that SQLite keeps them all is tested with SQLite.
    ((time_ms, held),) = shelf.holds(key)
    assert time_ms == NOON_MS
    assert held == pytest.approx(value, rel=1e-14, abs=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused_by_name_and_nothing_of_its_batch_stays(
    store: SeriesWriter, shelf: Shelf, node: str, value: float
) -> None:
    key = (node, "probe", "rssi")
    with pytest.raises(StoreRefused, match=f"{node}/probe/rssi at {NOON_MS + 1} ms is {value}"):
        store.write([(key, NOON_MS, 1.0), (key, NOON_MS + 1, value)])

    assert shelf.holds(key) == []


@pytest.mark.parametrize("device", ["a,b", "a b", "a=b", "a, b = c", 'a"b', "わな３番", "a'b;--", "%2C", "?x#y"])
def test_names_with_characters_that_mean_something_elsewhere_stay_what_they_are(
    store: SeriesWriter, shelf: Shelf, node: str, device: str
) -> None:
    key = (node, device, "trap_closed")
    store.write([(key, NOON_MS, 1.0), ((node, "other", "trap_closed"), NOON_MS, 2.0)])

    assert shelf.holds(key) == [(NOON_MS, 1.0)]
    assert shelf.holds((node, "other", "trap_closed")) == [(NOON_MS, 2.0)]


def test_writing_nothing_is_nothing(store: SeriesWriter) -> None:
    store.write([])
