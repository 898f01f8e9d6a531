"""A PostgreSQL of a test run's own: on loopback and a free port, stopped by its own pid, and fast as nothing of it is kept."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.services import REQUIRE

USER = "satomori"
_NOBODY = 65534  # its programs refuse to work for root

# Nothing here outlives the server: neither power cut nor backup. What a killed server had committed stays all the same.
_FAST = {
    "fsync": "off", "full_page_writes": "off", "autovacuum": "off", "wal_level": "minimal", "max_wal_senders": "0",
    "shared_buffers": "64MB", "max_connections": "300", "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
    "jit": "off",
}  # fmt: skip


class Server:
    """One server with a folder of its own. Each `start` after a `kill` finds what was committed before."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self._programs, self._folder, self.port = programs, folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Of a database in it, for `open_state`."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Runs it until it takes connections; at most 30 s."""
        set_ = [part for name, value in _FAST.items() for part in ("-c", f"{name}={value}")]
        argv = _as_nobody([self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port), *set_])
        deadline = time.monotonic() + 30
        with (self._folder / "log").open("ab") as log:
            while not self._is_up():
                # Also again: while something of a killed one still ends, a new one refuses to begin.
                if self._process is None or self._process.poll() is not None:
                    self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.05)  # the pause between two looks; ends early when the server does
                if time.monotonic() > deadline:
                    self.kill()
                    pytest.fail(f"postgres never became ready; its log ends:\n{(self._folder / 'log').read_text()[-4000:]}")

    def kill(self) -> None:
        """As a power cut of the process: -9, to what serves connections too."""
        if self._process is not None:
            pid = self._process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            self._process.kill()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends it at once, with every connection."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Runs each by itself, outside of a transaction. What the last one answers, if it answers."""
        found: list[tuple[object, ...]] = []
        with closing(psycopg.connect(self.url(database), autocommit=True)) as connection:
            for statement in statements:
                done = connection.execute(statement.encode())
                found = done.fetchall() if done.description else []
        return found

    @contextmanager
    def asking_passwords(self) -> Iterator[None]:
        """While the block runs a user named `guest` comes in by password only."""
        rules = self._folder / "data" / "pg_hba.conf"
        before = rules.read_bytes()
        try:
            rules.write_bytes(b"host all guest 127.0.0.1/32 scram-sha-256\n" + before)
            self.run("SELECT pg_reload_conf()")
            yield
        finally:
            rules.write_bytes(before)
            self.run("SELECT pg_reload_conf()")

    def holds(self, text: str) -> bool:
        """Whether any file of any database holds it; not its write-ahead log."""
        self.run("CHECKPOINT")
        files = [path for path in (self._folder / "data" / "base").rglob("*") if path.is_file()]
        return any(text.encode() in path.read_bytes() for path in files)

    def make(self, database: str, template: str = "template0") -> str:
        """Makes a database, empty or as another one is, that nobody is connected to. Its URL."""
        self.run(f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.url(database)

    def _is_up(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return self._process is not None


@contextmanager
def running() -> Iterator[Server]:
    """A new server while the block runs. Without PostgreSQL's programs: skipped, or failed when SATOMORI_REQUIRE_SERVICES=1."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="satomori-postgresql-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        data = folder / "data"
        data.mkdir(0o700)
        if os.geteuid() == 0:
            os.chown(data, _NOBODY, _NOBODY)
        made: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(_as_nobody(made), capture_output=True, text=True, timeout=60, check=False, cwd="/")
        if done.returncode:
            pytest.fail(f"initdb failed: {done.stderr[-2000:]}")
        server = Server(programs, folder, _free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """The folder of initdb and postgres. Debian keeps each version's own in a folder that is on no PATH: the newest."""
    if (found := shutil.which("postgres")) and shutil.which("initdb"):
        return Path(found).parent
    kept = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if kept:
        return max(kept, key=lambda path: int(path.parent.name))
    lacking = "PostgreSQL is not installed, so what this test promises is NOT CHECKED: install Debian's package postgresql"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{lacking} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(f"{lacking} ({REQUIRE}=1 makes this a failure)")


def _as_nobody(argv: list[str | Path]) -> list[str | Path]:
    if os.geteuid() != 0:
        return argv
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *argv]


def _free_port() -> int:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
