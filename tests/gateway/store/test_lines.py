"""Points as the body of a request: however they are held, line by line as one would write them by hand."""

from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreRefused
from gateway.points import Point, Points, Run, in_columns
from gateway.store.server import Login, Place, Server, line_head


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Nobody is there, and nobody is asked."""
    with closing(Server("InfluxDB", "http://127.0.0.1:1", Login("Token", "", ""), Place("satomori", "satomori", ""))) as made:
        yield made


_points = st.lists(
    st.tuples(
        st.tuples(
            st.sampled_from(["kita-01", "minami, 2"]),
            st.sampled_from(["trap-11", "わな"]),
            st.sampled_from(["rssi", "heart beat"]),
        ),
        st.integers(-(2**62), 2**62),
        st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.booleans()),
    ),
    min_size=1,
    max_size=8,
)


def _columns_of(points: list[Point]) -> Points:
    """Each node's points that follow each other as rounds of a few names where that can be, as ingest hands them on."""
    keys, times_ms, values = zip(*points, strict=True)
    runs = []
    for node, of_node in groupby(keys, itemgetter(0)):
        names = tuple((device, metric) for _, device, metric in of_node)
        size = next(at for at in range(1, len(names) + 1) if names[at:] == names[:-at])
        runs.append(Run(node, names[:size], len(names)))
    return Points(runs, list(times_ms), list(values))


@given(_points)
def test_every_point_is_a_line_however_the_points_are_held(server: Server, points: list[Point]) -> None:
    body = server.lines(points)
    assert body == server.lines(_columns_of(points))
    lines = body.decode().split("\n")
    for line, (key, time_ms, value) in zip(lines, points, strict=True):
        head, said, at_ms = line[: len(line_head(key))], *line[len(line_head(key)) :].split(" ")
        assert (head, float(said), int(at_ms)) == (line_head(key), float(value), time_ms)
        assert not said.lstrip("-").isdecimal(), "the type of a field is fixed by its first value: always a float"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_named(server: Server, value: float) -> None:
    points = [(("kita-01", "trap-11", "rssi"), 5, -70.0), (("kita-01", "trap-12", "rssi"), 5, value)]
    for held in (points, _columns_of(points)):
        with pytest.raises(StoreRefused, match=r"kita-01/trap-12/rssi at 5 ms"):
            server.lines(held)


@given(_points, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_columns_are_points(points: list[Point], start: int, end: int, are_distinct: bool) -> None:
    held = _columns_of(points)
    held.are_distinct = are_distinct
    assert (list(held), len(held), held[-1]) == (points, len(points), points[-1])
    assert list(held[start:end]) == points[start:end]
    assert held[start:end].are_distinct == are_distinct
    assert in_columns(held) is held
    assert list(in_columns(points)) == points
    assert [held[at] for at in range(-len(points), len(points))] == [*points, *points]
    assert not in_columns(points).are_distinct, "nobody has looked"
    assert not in_columns([])
