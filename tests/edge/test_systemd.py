"""The service manager is told what sd_notify(3) says, over a real datagram socket."""

import os
import socket
from pathlib import Path

import pytest

from edge.hardware.systemd import notify, watchdog_s


@pytest.mark.parametrize("abstract", [False, True])
def test_who_started_us_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@satomori-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_started_by_hand_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", "", 30.0),
        pytest.param("30000000", str(os.getpid()), 30.0, id="this process"),
        ("30000000", "1", None),
        ("", "", None),
        ("x", "", None),
        ("0", "", None),
    ],
)
def test_the_watchdog_says_how_often(usec: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_s() == seconds
