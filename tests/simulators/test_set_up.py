"""`make`: what is made once is not made again, and its list of targets fits a terminal."""

import re
import subprocess
import sys
from pathlib import Path

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_a_python_is_the_same_one_by_every_link_that_leads_to_it(tmp_path: Path) -> None:
    """An activated .venv says python3.11 where the shell said python3: that alone must not make .venv again."""
    describe = re.search(r"^describe='(.*?)'$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert describe is not None
    link = tmp_path / "another-name"
    link.symlink_to(Path(sys._base_executable))  # type: ignore[attr-defined]
    subprocess.run([link, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    pythons = [sys.executable, str(link), str(tmp_path / "venv" / "bin" / "python3")]
    said = [
        subprocess.run([one, "-c", describe[1]], check=True, capture_output=True, text=True, timeout=60).stdout for one in pythons
    ]
    assert len(set(said)) == 1, said


def test_the_list_of_targets_stands_in_columns_of_a_terminal() -> None:
    said = subprocess.run(
        ["make", "--file", MAKEFILE, "help"], cwd=MAKEFILE.parent, check=True, capture_output=True, text=True, timeout=60
    )
    targets = said.stdout.splitlines()[1:]
    assert any("bench-edge" in line for line in targets)
    assert max(map(len, targets)) < 80
    assert len({re.match(r" +\S+ +", line).end() for line in targets}) == 1  # type: ignore[union-attr]
