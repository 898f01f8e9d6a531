"""`make soak ARGS="--roles N"`, a little of it: a gateway's processes are killed under load; and what never comes is said."""

import shutil
from pathlib import Path

import pytest

from simulators import several, soak
from tests import postgresql

pytestmark = pytest.mark.services


def test_kill_9_of_a_process_at_random_loses_nothing_and_doubles_nothing(server: postgresql.Server, tmp_path: Path) -> None:
    """One kill; `make soak` does as many as are asked for, with the same code."""
    said: list[str] = []
    outcome = soak.roles_storm(tmp_path, server.make("soak"), kills=1, seed=20261123, say=said.append)
    assert outcome.faults == []
    assert (sum(outcome.killed.values()), len(said)) == (1, 1)
    assert outcome.springs > 0
    assert outcome.readings > 0


@pytest.mark.usefixtures("server")
def test_what_a_soak_waits_for_in_vain_is_said_with_its_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(several, "PATIENCE_S", 0.0)
    assert soak.main(["--roles", "1"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "soak: in 0 s it never came true that the schema is there"
    home = Path(second.removeprefix("The logs and databases of what ran are in "))
    assert (home / "town" / "ingest-1.log").exists()
    shutil.rmtree(home)
