"""The reckoning of an area: what its counters say, what sets it right, what it never does."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.flow.occupancy import Correction, count, new_day, set_right, today

EAST, SOUTH = "hiroba/east", "hiroba/south"


def counted(memory: dict[str, Any], line: str, total: str, value: float, at: int) -> int:
    count(memory, line, total, value, at, sign=1 if total == "in" else -1)
    return int(memory.get("inside", 0))


def test_the_first_word_of_a_counter_is_only_where_it_begins() -> None:
    memory: dict[str, Any] = {}
    assert counted(memory, EAST, "in", 1_000, 1) == 0
    assert counted(memory, EAST, "in", 1_030, 2) == 30


def test_who_comes_in_by_one_line_may_leave_by_another() -> None:
    memory: dict[str, Any] = {}
    for line in (EAST, SOUTH):
        counted(memory, line, "in", 0, 1)
        counted(memory, line, "out", 0, 1)
    assert counted(memory, EAST, "in", 50, 2) == 50
    assert counted(memory, SOUTH, "out", 20, 3) == 30


def test_a_reading_that_comes_late_or_twice_changes_nothing() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 0, 1)
    assert counted(memory, EAST, "in", 40, 5) == 40
    assert counted(memory, EAST, "in", 10, 3) == 40
    assert counted(memory, EAST, "in", 40, 5) == 40


def test_a_counter_that_was_out_of_reach_brings_what_it_counted_meanwhile() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 100, 1)
    assert counted(memory, EAST, "in", 340, 7_200_000_000) == 240


def test_a_counter_that_began_anew_counts_on_and_the_gap_is_said() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 100, 1)
    counted(memory, EAST, "in", 130, 2)
    assert counted(memory, EAST, "in", 5, 3) == 35
    assert memory["gaps"] == 1
    assert today(memory, EAST) == (35, 0)


def test_never_fewer_than_nobody_and_the_drift_is_kept() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "out", 0, 1)
    assert counted(memory, EAST, "out", 12, 2) == 0
    assert memory["drift"] == -12


def test_a_recount_sets_it_right_and_says_how_far_it_was_off() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 0, 1)
    counted(memory, EAST, "in", 110, 2)
    correction = set_right(memory, 100, 2)
    assert correction == Correction(110, 100)
    assert correction.error == 10
    assert counted(memory, EAST, "in", 115, 4) == 105


def test_a_counter_that_never_spoke_has_no_sum_which_is_not_zero() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 7, 1)
    assert today(memory, EAST) == (0, 0)
    assert today(memory, SOUTH) is None


def test_a_new_day_begins_the_sums_anew_and_leaves_who_is_inside() -> None:
    memory: dict[str, Any] = {}
    counted(memory, EAST, "in", 0, 1)
    counted(memory, EAST, "in", 30, 2)
    new_day(memory)
    assert today(memory, EAST) == (0, 0)
    assert counted(memory, EAST, "in", 34, 3) == 34
    assert today(memory, EAST) == (4, 0)


@given(
    st.lists(st.tuples(st.sampled_from((EAST, SOUTH)), st.sampled_from(("in", "out")), st.integers(0, 10**6), st.integers(0, 99)))
)
def test_whatever_counters_say_nobody_is_counted_twice_or_below_zero(said: list[tuple[str, str, int, int]]) -> None:
    once: dict[str, Any] = {}
    twice: dict[str, Any] = {}
    for line, total, value, at in said:
        inside = counted(once, line, total, value, at)
        assert inside >= 0
        counted(twice, line, total, value, at)
        counted(twice, line, total, value, at)
    assert once == twice
