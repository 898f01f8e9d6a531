"""Real servers in tests: found or loudly skipped, on loopback and a free port, and stopped by their own pid."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRE = "SATOMORI_REQUIRE_SERVICES"


def require_binary(name: str) -> Path:
    """Where a server's program is. Without it the test is skipped, or fails when SATOMORI_REQUIRE_SERVICES=1."""
    # Debian keeps servers in /usr/sbin, which is not on every user's PATH.
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin")))
    if found:
        return Path(found)
    lacking = f"{name} is not installed, so what this test promises is NOT CHECKED: install Debian's package of it"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{lacking} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(f"{lacking} ({REQUIRE}=1 makes this a failure)")


def listening(port: int) -> bool:
    """Whether somebody accepts connections on 127.0.0.1: the simplest `ready` for `running`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(argv: Sequence[str | Path], ready: Callable[[], bool], timeout: float = 20) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server while the block runs. Fails, with the end of its log, when it is not `ready()` in `timeout` s.

    At the end it is asked to stop and, after `timeout` s more, killed. A test may kill it itself before.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + timeout
            while not ready():
                try:
                    process.wait(0.05)  # the pause between two looks; ends early when the server does
                except subprocess.TimeoutExpired:
                    pass
                if process.returncode is not None or time.monotonic() > deadline:
                    ended = "never became ready" if process.returncode is None else f"ended with {process.returncode}"
                    log.seek(0)
                    pytest.fail(f"{argv[0]} {ended}; its log ends:\n{log.read()[-4000:].decode(errors='replace')}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
