"""Each folder here is a story on virtual time; what must come of it stands in its expected.jsonl, line by line."""

import json
from pathlib import Path

import pytest

from edge.hardware import machine
from simulators.scenario import expected, told

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/scenario.toml"))


def lines(rows: list[dict[str, object]]) -> list[str]:
    return [json.dumps(row, ensure_ascii=False) for row in rows]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_story_ends_as_expected(folder: Path, tmp_path: Path) -> None:
    assert lines(told(folder, tmp_path)) == lines(expected(folder))


def test_it_ends_so_whatever_sensors_the_machine_has_that_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node of this one speaks of its own health, and how much of that waits is counted."""
    folder = Path(__file__).parent / "store-down"
    monkeypatch.setattr(machine, "ROOT", tmp_path / "nothing")
    assert lines(told(folder, tmp_path)) == lines(expected(folder))
    assert tmp_path / "nothing" == machine.ROOT
