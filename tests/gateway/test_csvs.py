"""Tables that leave: a spreadsheet finds the rows and numbers, and nothing in them that it would run."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.csvs import BOM, plain, safe, table, whole

FORMULAS = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "　＝1", "＋1", "－1", "＠SUM",
            "\u200b=1", "\ufeff=1", "−1", "'=1", "﹦1"]  # fmt: skip


def opened(content: bytes) -> list[list[str]]:
    """As a spreadsheet does."""
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def runs(cell: str) -> bool:
    """Whether a spreadsheet would, after it passed over what it passes over, and made wide letters narrow."""
    seen = cell.strip().lstrip("\u200b\ufeff\0\u200e\u200f\u2060 　")
    return seen[:1] in tuple("=+-@＝＋－＠") or cell[:1] in ("\t", "\r", "\n")


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_text_is_taken_for_a_formula(formula: str) -> None:
    [_, [cell]] = opened(whole(["note"], [[formula]]))
    assert cell.startswith("'")
    assert not runs(cell)


def test_numbers_stay_numbers_and_what_is_not_known_is_empty_and_no_zero() -> None:
    assert opened(whole(["n", "x", "gone", "yes"], [[-5, -0.5, None, True], [0, 2.25, "", False]])) == [
        ["n", "x", "gone", "yes"], ["-5", "-0.5", "", "true"], ["0", "2.25", "", "false"],
    ]  # fmt: skip
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="no number"):
            whole(["x"], [[wrong]])


def test_the_bytes_are_what_rfc_4180_says() -> None:
    content = whole(["名", "b"], [['say "hi", twice', "two\r\nlines"]])
    assert content == f'{BOM}名,b\r\n"say ""hi"", twice","two\nlines"\r\n'.encode()


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        whole(["a"], [["x", "y"]])


def test_a_long_table_comes_in_parts() -> None:
    parts = list(table(["a"], [["x" * 1000] for _ in range(500)]))
    assert len(parts) > 5
    assert len(opened(b"".join(parts))) == 501


texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029") | st.sampled_from("\n\t,\"'=+-@")
)


@given(st.lists(st.tuples(texts, texts), max_size=8))
def test_whatever_was_typed_comes_back_and_runs_nothing(rows: list[tuple[str, str]]) -> None:
    got = opened(whole(["a", "b"], rows))
    assert [tuple(map(plain, row)) for row in got[1:]] == rows
    assert not any(runs(cell) for row in got[1:] for cell in row)


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_at_all_is_one_cell_of_one_row(cells: list[str]) -> None:
    got = opened(whole([f"c{n}" for n in range(len(cells))], [cells]))
    assert got[1] == [safe(cell) for cell in cells]
