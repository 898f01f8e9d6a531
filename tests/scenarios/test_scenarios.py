"""Each folder here is a story on virtual time; what must come of it stands in its expected.jsonl, line by line."""

import json
from pathlib import Path

import pytest

from edge.hardware import machine
from simulators.scenario import as_expected, expected, told

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/scenario.toml"))


def check(folder: Path, home: Path) -> None:
    """In order, every line that is wanted and nothing else."""
    lines, wanted = told(folder, home), expected(folder)
    right = len(lines) == len(wanted) and all(map(as_expected, lines, wanted))
    assert right or lines == wanted, "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_story_ends_as_expected(folder: Path, tmp_path: Path) -> None:
    check(folder, tmp_path)


def test_it_ends_so_whatever_sensors_the_machine_has_that_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node of this one speaks of its own health, and how much of that waits is counted."""
    folder = Path(__file__).parent / "store-down"
    monkeypatch.setattr(machine, "ROOT", tmp_path / "nothing")
    check(folder, tmp_path)
    assert tmp_path / "nothing" == machine.ROOT
