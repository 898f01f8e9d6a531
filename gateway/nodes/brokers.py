"""What brokers must know of the nodes' identities, as files beside the authority's own, and the signal to read them again.

    crl.pem           revoked certificates: for Mosquitto (crlfile) and everything else that goes by OpenSSL
    nats-nodes.conf   one user for each live certificate, with the rights of its node: for NATS (include in `authorization`)

Both are made anew of the state database whenever they differ from it, so that a crash between database and file mends itself.
"""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from sqlalchemy import select

from edge.contract.topics import ROOT, partition_of
from gateway.canary import CANARY
from gateway.nodes.authority import ACCOUNT, CRL, Authority, Revoked, write_whole
from gateway.state import State
from gateway.state.tables import certificates

log = logging.getLogger(__name__)

NATS_NODES = "nats-nodes.conf"
PROGRAMS = frozenset({"mosquitto", "nats-server"})
"""What may be sent SIGHUP: a process id in a stale file may be anybody's by now, and SIGHUP ends most programs."""
PROC = Path("/proc")


class Brokers:
    """`tell` after each change, and now and then."""

    def __init__(self, state: State, authority: Authority, pid_file: Path | None, now_us: Callable[[], int]) -> None:
        self._state, self._authority, self._pid_file, self._now_us = state, authority, pid_file, now_us
        self._fault: str | None = None
        self._unsaid = False
        self._lock = threading.Lock()  # claims, renewals and the look each minute are on different threads

    def tell(self, *, anyway: bool = False) -> str | None:
        """Brings the files up to date and has the broker read them, if anything changed or `anyway`. Why it failed, or None.

        A failure is logged once and tried again by the next call: what it is about is durable in the state database.
        """
        with self._lock:
            return self._tell(anyway=anyway)

    def _tell(self, *, anyway: bool) -> str | None:
        try:
            changed = self._write()
            self._unsaid = self._unsaid or changed or anyway
            if self._unsaid and self._pid_file is not None:
                _hang_up(self._pid_file)
            self._unsaid = False
            fault = None
        except OSError as error:
            fault = f"the broker was not told who is a node and who no longer: {error}"
        if fault is not None and self._fault is None:
            log.error("%s; trying again", fault)
        elif fault is None and self._fault is not None:
            log.warning("the broker was told who is a node")
        self._fault = fault
        return fault

    def _write(self) -> bool:
        with _alone(self._authority.folder):
            # Read after the lock is had: a writer that waited must not put older news over ours.
            now_us = self._now_us()
            with self._state.read() as connection:
                rows = connection.execute(select(certificates).order_by(certificates.c.node, certificates.c.issued_us)).all()
            revoked = [Revoked(row.serial, row.revoked_us) for row in rows if row.revoked_us is not None]
            live = [(row.node, row.serial) for row in rows if row.revoked_us is None and row.not_after_us > now_us]
            changed = self._write_crl(revoked, now_us)
            path, text = self._authority.folder / NATS_NODES, nats_nodes(live).encode()
            if not path.exists() or path.read_bytes() != text:
                write_whole(path, text, 0o644)
                changed = True
            return changed

    def _write_crl(self, revoked: list[Revoked], now_us: int) -> bool:
        path = self._authority.folder / CRL
        before = path.read_bytes() if path.exists() else None
        try:
            known = None if before is None else {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(before)}
        except ValueError:
            log.error("%s could not be read and is made anew", path)
            before = known = None
        if known == {one.serial for one in revoked}:
            return False
        write_whole(path, self._authority.revocations(revoked, now_us, before), 0o644)
        return True


def nats_nodes(live: list[tuple[str, str]]) -> str:
    """The users of NATS: the gateway, which speaks for its canary too, and each live certificate as (node, serial), by its
    subject, for `verify_and_map`.

    An MQTT subscription to `x/#` is two of NATS, `x` and `x.>`, and needs the right to both. A right to `$MQTT.>` is not
    needed by anybody, and would let a node put messages into the stream where everybody's wait.
    """
    root = ROOT.replace("/", ".")
    lines = [
        "# Written by satomori-gateway when nodes come and go; changes made here are lost.",
        "users: [",
        _nats_user(
            ACCOUNT,
            [f"{root}.*.*.down.>", f"{root}.{partition_of(CANARY):02d}.{CANARY}.up.live"],
            [f"{root}.*.*.up", f"{root}.*.*.up.>"],
        ),
    ]
    for node, serial in live:
        own = f"{root}.{partition_of(node):02d}.{node}"
        lines.append(_nats_user(f"SERIALNUMBER={serial},CN={node}", [f"{own}.up.>"], [f"{own}.down", f"{own}.down.>"]))
    return "\n".join([*lines, "]", ""])


def _nats_user(user: str, publish: list[str], subscribe: list[str]) -> str:
    def listed(subjects: list[str]) -> str:
        return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"

    return f'  {{ user: "{user}", permissions: {{ publish: {listed(publish)}, subscribe: {listed(subscribe)} }} }}'


def running_broker(pid_file: Path) -> int | None:
    """The broker's process; None when it does not run. OSError when the file names something else."""
    try:
        text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not text.isascii() or not text.isdecimal() or not 1 < int(text[:10]) < 2**31:
        raise OSError(f"nodes.broker_pid_file: {pid_file} holds no process id")
    pid = int(text[:10])
    try:
        program = (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    if program not in PROGRAMS:
        raise OSError(f"nodes.broker_pid_file: {pid_file} names process {pid}, which is {program!r} and no broker")
    return pid


def _hang_up(pid_file: Path) -> None:
    """SIGHUP to the broker; one that does not run reads the files when it starts. OSError when it can't be signalled."""
    if (pid := running_broker(pid_file)) is None:
        return
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise OSError(
            f"nodes.broker_pid_file: this user may not signal process {pid}; run both as one user, or have systemd reload the "
            f"broker when {CRL} or {NATS_NODES} changes"
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time, over processes: the command line writes beside a gateway that runs."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
