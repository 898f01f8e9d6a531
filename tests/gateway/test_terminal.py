"""What commands print fits a terminal of 80 columns, in Japanese too, and what is copied stays whole."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.terminal import WIDTH, cut, wrapped


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line)


@given(st.lists(st.text("abc北山", min_size=1, max_size=30), min_size=1, max_size=40))
def test_a_long_line_is_broken_and_nothing_is_lost(words: list[str]) -> None:
    line = " ".join(words)
    lines = wrapped(line)
    assert max(map(columns, lines)) <= WIDTH
    assert "".join(lines).replace(" ", "") == line.replace(" ", "")
    assert all(one.startswith("    ") for one in lines[1:])


@pytest.mark.parametrize("line", ["", "short", "x" * WIDTH, "北" * (WIDTH // 2), "  two in front, and  two between"])
def test_what_fits_stays_as_it_is(line: str) -> None:
    assert wrapped(line) == [line]


def test_a_link_is_never_broken() -> None:
    link = "https://gateway.example/" + "a" * 100
    assert wrapped(f"open {link} now") == ["open", f"    {link}", "    now"]


def test_what_moves_a_cursor_moves_none() -> None:
    assert cut("a\x1b[2J") == "a\\x1b[2J"
    assert columns(cut("山" * 60)) <= WIDTH
