"""Each folder here is a story on virtual time; what must come of it stands in its expected.jsonl, line by line."""

import json
from pathlib import Path

import pytest

from simulators.scenario import expected, told

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/scenario.toml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_story_ends_as_expected(folder: Path, tmp_path: Path) -> None:
    def lines(rows: list[dict[str, object]]) -> list[str]:
        return [json.dumps(row, ensure_ascii=False) for row in rows]

    assert lines(told(folder, tmp_path)) == lines(expected(folder))
