"""SECURITY.md is true: each test that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_each_defence_names_a_test_that_there_is() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not set(line) <= set("|- ")][1:]
    there = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8")))
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.split("|")[-2])
        assert named, row
        for name in named:
            assert (ROOT / name).is_file() if name.endswith(".py") else name in there, name


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) < 80
    assert len(PAGE) < 9000
