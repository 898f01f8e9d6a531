import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drivers.totals import Counts, Totals
from edge.errors import DeviceError


def said(totals: Totals) -> tuple[int, int, int]:
    return totals.inward, totals.outward, totals.resets


def test_a_counter_is_followed_from_what_it_has_counted_already(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    totals.follow(Counts(100, 90), None)
    totals.follow(Counts(103, 90), None)
    assert said(totals) == (103, 90, 0)


def test_who_passed_while_nobody_listened_is_in_the_next_total(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    totals.follow(Counts(100, 90), None)
    totals.save()
    later = Totals(tmp_path)
    later.follow(Counts(150, 95), None)
    assert said(later) == (150, 95, 0)


def test_a_reset_takes_nobody_back_and_is_seen(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    totals.follow(Counts(100, 90), None)
    assert totals.follow(Counts(2, 0), None)
    assert said(totals) == (102, 90, 1)


def test_a_counter_that_runs_over_goes_on(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    totals.follow(Counts(65_530, 5), 65_536)
    assert totals.follow(Counts(4, 6), 65_536)
    assert said(totals) == (65_540, 6, 1)


def test_a_fall_from_the_middle_is_a_reset_and_no_turn(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    totals.follow(Counts(30_000, 5), 65_536)
    totals.follow(Counts(4, 0), 65_536)
    assert said(totals) == (30_004, 5, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"in": -1, "out": 0, "resets": 0, "raw": null}', '{"in": "x"}'])
def test_a_file_that_is_no_use_is_said_and_counted_as_a_reset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "totals.json").write_text(text)
    with caplog.at_level(logging.ERROR):
        totals = Totals(tmp_path)
    assert said(totals) == (0, 0, 1)
    assert "totals.json" in caplog.text


def test_a_file_that_can_not_be_read_now_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "totals.json").mkdir()
    with pytest.raises(DeviceError, match="totals can't be read"):
        Totals(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=30))
def test_whoever_passes_is_counted_however_often_the_counter_runs_over(
    tmp_path_factory: pytest.TempPathFactory, passed: list[tuple[int, int]]
) -> None:
    """A counter of 16 bits, heard at least once in each sixteenth of a turn; the node is killed and comes back in between."""
    folder = tmp_path_factory.mktemp("totals")
    totals, inward, outward = Totals(folder), 0, 0
    totals.follow(Counts(0, 0), 65_536)
    for number, (more_in, more_out) in enumerate(passed):
        inward, outward = inward + more_in, outward + more_out
        if totals.follow(Counts(inward % 65_536, outward % 65_536), 65_536) or number % 3 == 0:
            totals.save()
        if number % 5 == 0:
            totals = Totals(folder)
    totals.follow(Counts(inward % 65_536, outward % 65_536), 65_536)
    assert (totals.inward, totals.outward) == (inward, outward)
