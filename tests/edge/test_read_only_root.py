"""Everything that an agent writes lies in its state folder: it runs, and checks itself, where all else is read-only.

A real kernel says so: the agent runs in a mount namespace of its own, in which the root file system can't be written.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from simulators.hardware import PinsFile, SerialPort, counter_frame, picture, save_picture
from simulators.town import beside_python, write_toml

PATIENCE_S = 30
ALL = {"cam", "gate", "node", "trap"}
READ_ONLY = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind /
for place in /tmp /var /home /root "$(df --output=target "$1/.." | tail -n 1)"; do
    if mountpoint -q "$place"; then mount -o remount,ro,bind "$place"; fi
done
if touch "$1/../outside" 2>/dev/null; then echo "the root is not read-only" >&2; exit 99; fi
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The beginning of a command that runs in a mount namespace of its own."""
    argv = [shutil.which("unshare") or "/usr/bin/unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]
    state = tmp_path_factory.mktemp("alone") / "state"
    state.mkdir()
    try:
        tried = subprocess.run([*argv, str(state), "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount namespace of one's own here, so what this test promises is NOT CHECKED: {error}")
    if tried.returncode == 99:
        pytest.fail(tried.stderr)
    if tried.returncode:
        pytest.skip(f"no mount namespace of one's own here, so what this test promises is NOT CHECKED: {tried.stderr.strip()}")
    return argv


def test_an_agent_with_every_kind_of_work_writes_to_its_state_folder_only(tmp_path: Path, alone: list[str]) -> None:
    state, card, pins = tmp_path / "state", tmp_path / "card", PinsFile(tmp_path / "pins")
    pins.high(17)
    state.mkdir()
    card.mkdir()
    save_picture(card, 1_780_434_720_000_000, picture(1_780_434_720_000_000, "boar", 1))
    counter = SerialPort(tmp_path / "counter")
    config = tmp_path / "edge.toml"
    write_toml(
        config,
        {
            "node": {"name": "kitayama-03", "state": str(state)},
            "broker": {"url": "mqtt://127.0.0.1:1"},
            "device": {
                "node": {"type": "node_health"},
                "cam": {"type": "trail_camera", "folder": str(card), "scan_s": 0.2},
                "gate": {"type": "people_counter", "port": str(counter.path)},
                "trap": {"type": "reed_trap", "pin": 17},
            },
        },
    )
    argv = [*alone, str(state), str(beside_python("satomori-edge")), "run", str(config)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env={**os.environ, **pins.environment}) as child:
        deadline = time.monotonic() + PATIENCE_S
        while not said(state) >= ALL and child.poll() is None and time.monotonic() < deadline:
            counter.write(counter_frame(7, 5, 3700))  # what came before the port was open is not for us
            time.sleep(0.1)  # the agent's time is real
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=PATIENCE_S)
    counter.unplug()
    assert said(state) >= ALL, log
    assert child.returncode == 0, log
    assert "Read-only" not in log
    assert {path.name for path in tmp_path.iterdir()} <= {"state", "card", "pins", "counter", "edge.toml"}


def said(state: Path) -> set[str]:
    """The devices of which something is in the outbox."""
    try:
        with closing(sqlite3.connect(f"file:{state / 'outbox.db'}?mode=ro", uri=True, timeout=10)) as db:
            bodies = [body for (body,) in db.execute("SELECT body FROM records")]
    except sqlite3.OperationalError:  # not made yet
        return set()
    return {name for name in ALL if any(f'"{name}"' in body for body in bodies)}
