"""Ranges beside a plain set of numbers: whatever is asked, both answer the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.ranges import Ranges

# A small world, so that ranges touch, overlap and swallow each other.
SPANS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda span: (span[0], span[0] + span[1])), max_size=25)


def numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {number for low, high in spans for number in range(low, high + 1)}


def as_ranges(model: set[int]) -> list[tuple[int, int]]:
    """The model's numbers as closed ranges that do not touch."""
    lows = sorted(number for number in model if number - 1 not in model)
    highs = sorted(number for number in model if number + 1 not in model)
    return list(zip(lows, highs, strict=True))


@given(SPANS)
def test_any_order_of_adding_gives_the_same_sorted_ranges_that_do_not_touch(spans: list[tuple[int, int]]) -> None:
    model = numbers(spans)
    ranges = Ranges(spans)
    assert list(ranges) == as_ranges(model)
    assert len(ranges) == len(as_ranges(model))
    assert ranges.size == len(model)
    assert {number for number in range(-1, 90) if number in ranges} == model
    assert ranges == Ranges(reversed(spans))


@given(SPANS)
def test_upto_is_the_end_of_the_unbroken_run_from_1(spans: list[tuple[int, int]]) -> None:
    model = numbers(spans)
    assert Ranges(spans).upto == next(number for number in range(100) if number + 1 not in model)


@given(SPANS, st.integers(-1, 90))
def test_holes_are_what_is_missing_below(spans: list[tuple[int, int]], below: int) -> None:
    holes = Ranges(spans).holes(below)
    assert holes == as_ranges(set(range(1, below)) - numbers(spans))


@given(SPANS, SPANS)
def test_around_gives_each_range_that_holds_one_of_the_numbers_once(
    spans: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    wanted = [(low, high) for low, high in as_ranges(numbers(spans)) if not numbers(asked).isdisjoint(range(low, high + 1))]
    assert Ranges(spans).around(asked) == wanted


@given(SPANS)
def test_text_and_parse_are_inverses(spans: list[tuple[int, int]]) -> None:
    ranges = Ranges(spans)
    assert Ranges.parse(ranges.text()) == ranges
    assert eval(repr(ranges), {"Ranges": Ranges}) == ranges  # noqa: S307 - our own repr


def test_text_is_short() -> None:
    assert Ranges([(1, 500), (502, 502)]).text() == "1-500,502"
    assert Ranges().text() == ""


@pytest.mark.parametrize(
    "text", ["x", "1-", "-1", "0", "2-1", "1,,2", ",", "5,1", "1-2,3", "1,1", "01", "+1", "1_0", " 1", "１", "3-3", "9" * 19]
)
def test_parse_takes_nothing_that_text_does_not_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Ranges.parse(text)


@given(st.one_of(st.text(), st.text(alphabet="0123456789-,", max_size=12)))
def test_parse_either_gives_back_the_text_or_refuses_it(text: str) -> None:
    try:
        assert Ranges.parse(text).text() == text
    except ValueError:
        pass


@pytest.mark.parametrize(("low", "high"), [(0, None), (-3, 5), (2, 1), (10, 2**63 - 1), (2**70, None)])
def test_an_empty_range_or_a_number_that_is_none_is_refused_and_changes_nothing(low: int, high: int | None) -> None:
    ranges = Ranges([(4, 6)])
    with pytest.raises(ValueError, match="no range of sequence numbers"):
        ranges.add(low, high)
    assert ranges == Ranges([(4, 6)])


@given(SPANS, st.integers(1, 60))
def test_a_copy_is_independent(spans: list[tuple[int, int]], number: int) -> None:
    ranges = Ranges(spans)
    copy = ranges.copy()
    assert copy == ranges
    copy.add(number)
    assert ranges == Ranges(spans)


def test_huge_numbers_are_as_good_as_small_ones() -> None:
    top = 2**53 - 1
    assert Ranges([(1, top - 1), (top, top)]).upto == top
