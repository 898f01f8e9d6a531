"""A scenario: a story on virtual time, told to the real edge and gateway, and what came of it line by line.

A folder holds `scenario.toml` (nodes, people, rules, steps) and `expected.jsonl` (what comes of it, in order, nothing more).
Everything of edge and gateway is the real code on real files; what stands in is time, pins, the broker's wire and the providers.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from simulators.scenario.steps import ScenarioError, Steps
from simulators.scenario.story import Story

__all__ = ["ScenarioError", "Steps", "Story", "as_expected", "expected", "told"]


def told(folder: Path, home: Path) -> list[dict[str, Any]]:
    """The transcript of a scenario's folder."""
    return asyncio.run(Story(folder, home).tell())


def expected(folder: Path) -> list[dict[str, Any]]:
    """What must come of it: each line of expected.jsonl."""
    lines = (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def as_expected(line: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a line of the transcript is the one that is wanted.

    `between: [first, last]` in place of `at` leaves room for its time; a message whose `body` is not given may say what it likes.
    """
    wanted = dict(wanted)
    if (between := wanted.pop("between", None)) is not None:
        if not between[0] <= line["at"] <= between[1]:
            return False
        line = {name: value for name, value in line.items() if name != "at"}
    if "body" not in wanted and wanted.get("what") == "phone":
        line = {name: value for name, value in line.items() if name != "body"}
    return line == wanted
