"""The numbers of series in memory: the same as in the file, however many nodes share their names, and small."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.points import Points, Run, in_columns
from gateway.store import numbers
from gateway.store.numbers import Numbers

KEYS = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["d", "e"]), st.integers(0, 5).map("m{}".format))


@given(st.lists(KEYS, unique=True, max_size=30), st.integers(1, 6))
def test_each_series_has_the_number_that_it_was_given(keys: list[tuple[str, str, str]], shared: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "SHARED", shared)
        known = Numbers()
        for at, key in enumerate(keys):
            assert key not in known
            known.add([(key, 7 * at)])
    assert [known[key] for key in keys] == [7 * at for at in range(len(keys))]
    told = in_columns([(key, at, 0.5) for at, key in enumerate(keys)])
    assert known.flat(told) == [part for at in range(len(keys)) for part in (7 * at, at, 0.5)]
    for stranger in (("a", "d", "other"), ("other", "d", "m0")):
        assert stranger not in known
        with pytest.raises(KeyError):
            known.flat(in_columns([(stranger, 1, 1.0)]))


@given(st.lists(st.tuples(KEYS, st.integers(0, 9), st.integers(0, 3)), max_size=12), st.integers(1, 3))
def test_the_numbers_of_many_points_are_those_of_each_in_rounds_and_while_series_are_added(
    said: list[tuple[tuple[str, str, str], int, int]], shared: int
) -> None:
    """Nodes that share their names ask by the same tuple of names, and some have a series more by then."""
    rounds = [(("d", "m0"),), (("d", "m0"), ("e", "m1")), (("e", "m1"), ("d", "m0")), (("d", "m0"), ("e", "m1"), ("d", "m2"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "SHARED", shared)
        known = Numbers()
        count = 0
        for (node, device, metric), number, which in said:
            names = rounds[which]
            runs = [Run(one, names, number + len(names)) for one in {node, "a"}]
            points = Points(runs, [0] * sum(run.number for run in runs), [0.5] * sum(run.number for run in runs))
            for key in dict.fromkeys([*points.keys, (node, device, metric)]):
                if key not in known:
                    with pytest.raises(KeyError):
                        known.flat(in_columns([(key, 0, 0.0)]))
                    known.add([(key, count := count + 1)])
            assert known.flat(points)[::3] == [known[key] for key in points.keys]


def test_a_node_of_ten_series_takes_less_than_half_a_kilobyte() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        known = Numbers()
        known.add(((f"town-{node:05d}", f"device-{at}", "metric"), node * 10 + at) for node in range(2000) for at in range(10))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert known["town-01999", "device-9", "metric"] == 19_999
    assert taken / 2000 < 512
