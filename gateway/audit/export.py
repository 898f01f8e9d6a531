"""The chain's last hash, told outside once a day: who rewrites the trail can't rewrite what others remember of it.

A line `day id hash` in a file (append only, synced), which belongs on another disk or another machine, and a message to whom
`[audit] heads_to` names. Neither says who did what.
"""

import datetime as dt
import logging
import os
import re
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway.audit.config import AuditConfig
from gateway.audit.verify import Head
from gateway.paging import Notices
from gateway.state import State
from gateway.state.tables import audit, cursors
from gateway.state.upsert import upsert

log = logging.getLogger(__name__)

PART = "audit"
"""As a part of the gateway that may be unwell."""
HEADS = "audit"
"""The kind (and route) of its messages."""
_TOLD = "audit_head_told"
_line = re.compile(r"\d{4}-\d\d-\d\d ([1-9]\d{0,18}) ([0-9a-f]{64})")


class HeadsError(ValueError):
    """The file of heads does not hold heads; the text says which line."""


class SayCondition(Protocol):
    """`Own.condition` of gateway.own."""

    def __call__(self, part: str, level: str, reason: str = "") -> None: ...


class Heads:
    """`run` is a chore: it does its work once a day, and may be repeated."""

    def __init__(self, state: State, config: AuditConfig, zone: ZoneInfo, notices: Notices, condition: SayCondition) -> None:
        self._state, self._config, self._zone, self._notices, self._condition = state, config, zone, notices, condition

    def run(self, now_us: int) -> None:
        """Tells the head where it was not told today. Where the trail is not what was told before, nothing more is written."""
        day = dt.datetime.fromtimestamp(now_us / 1e6, self._zone).date()
        if self._config.heads_file is not None:
            self._write(self._config.heads_file, day)
        if self._config.heads_to is not None:
            self._tell(self._config.heads_to, day, now_us)

    def _write(self, path: Path, day: dt.date) -> None:
        lines = read_lines(path)
        if lines and lines[-1].partition(" ")[0] == day.isoformat():
            return  # a later day is that of a clock that was ahead
        with self._state.read() as connection:
            head, known = last(connection), [head_in(line) for line in lines[-1:]]
            if any(not has(connection, one) for one in known):
                self._condition(PART, "firing", "audit_rewritten")
                raise HeadsError(f"audit.heads_file: the trail no longer has what line {len(lines)} of {path} remembers; "
                                 "`satomori-gateway audit verify` says where")  # fmt: skip
        if head is not None:
            append(path, line_of(day, head))
        self._condition(PART, "ok")

    def _tell(self, to: str, day: dt.date, now_us: int) -> None:
        with self._state.write() as connection:
            told = connection.scalar(select(cursors.c.value).where(cursors.c.name == _TOLD))
            head = last(connection)
            if head is None or told == day.toordinal():
                return
            self._notices.tell(
                connection, route=HEADS, group_key="heads", kind=HEADS, severity="info", to=[to], moment="alert.audit_head",
                facts={"day": day.isoformat(), "id": str(head.id), "hash": head.hash}, now_us=now_us,
                key=f"head/{day.isoformat()}", asks=False, ends=True,
            )  # fmt: skip
            connection.execute(upsert(cursors, "value"), {"name": _TOLD, "value": day.toordinal()})


def last(connection: Connection) -> Head | None:
    """The end of the chain; None where there is none yet."""
    row = connection.execute(select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)).first()
    return None if row is None else Head(row.id, row.hash)


def has(connection: Connection, head: Head) -> bool:
    """Whether the chain still has this entry with this hash."""
    return connection.scalar(select(audit.c.hash).where(audit.c.id == head.id)) == head.hash


def line_of(day: dt.date, head: Head) -> str:
    """As it stands in the file."""
    return f"{day.isoformat()} {head.id} {head.hash}"


def head_in(line: str) -> Head:
    """The head of a line. HeadsError where it holds none."""
    found = _line.fullmatch(line)
    if found is None:
        raise HeadsError(f"{line[:100]!r} is no line `day id hash`")
    return Head(int(found[1]), found[2])


def read_heads(path: Path) -> list[Head]:
    """All heads of a file; none where there is no file. HeadsError names the line that holds none."""
    found = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            found.append(head_in(line))
        except HeadsError as error:
            raise HeadsError(f"{path} line {number}: {error}") from error
    return found


def read_lines(path: Path) -> list[str]:
    """Its whole lines: of one that a power cut left unfinished nothing is believed."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.split("\n")[:-1] if line]


def append(path: Path, line: str) -> None:
    """Adds a line, durable when this returns. What a power cut left unfinished makes room for it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = not path.exists()
    whole = 0 if is_new else path.read_bytes().rfind(b"\n") + 1
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.ftruncate(descriptor, whole)
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
