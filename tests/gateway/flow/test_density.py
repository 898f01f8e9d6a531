"""Levels of crowds and shelters: where they begin, and that a crowd at the edge does not ring and unring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.flow.density import density_level, shelter_level


@pytest.mark.parametrize(
    ("per_m2", "level"), [(0, 0), (1.99, 0), (2, 1), (3.56, 1), (3.57, 2), (5.54, 2), (5.55, 3), (7.09, 3), (7.1, 4), (20, 4)]
)
def test_density_levels_begin_where_fruin_says(per_m2: float, level: int) -> None:
    assert density_level(per_m2) == level


@pytest.mark.parametrize(("share", "level"), [(0, 1), (0.29, 1), (0.3, 2), (0.59, 2), (0.6, 3), (0.79, 3), (0.8, 4), (1.3, 4)])
def test_shelter_levels_begin_where_towns_say(share: float, level: int) -> None:
    assert shelter_level(share) == level


def test_a_level_is_left_only_when_it_is_clearly_less() -> None:
    assert density_level(3.5, before=2) == 2
    assert density_level(3.2, before=2) == 1
    assert shelter_level(0.75, before=4) == 4
    assert shelter_level(0.71, before=4) == 3


@given(st.floats(0, 12), st.integers(0, 4))
def test_hysteresis_only_ever_holds_what_was_reached(per_m2: float, before: int) -> None:
    assert density_level(per_m2) <= density_level(per_m2, before) <= max(before, density_level(per_m2))
