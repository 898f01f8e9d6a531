"""What was erased, in an append-only file outside of the database: one JSON object a line, on disk BEFORE anything is deleted.

    {"id": "<uuid>", "kind": "watched" | "contact" | "tag" | "picture", "thing": "...", "asked_us": 1780434720000000,
     "asked_by": "..."}

`thing` is an id that means nothing any more; of a tag the SHA-256 of its name, of a picture that of its bytes. An older database
that is put back lacks some of the lines' ids: those are erased once more when it is opened. A line without its deletion (a crash,
a full disk) is done then too.
"""

import errno
import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import Connection, insert, select

from gateway.errors import ConfigError
from gateway.state.tables import erasures

Kind = Literal["watched", "contact", "tag"]
"""What a person asks for by its id."""
Noted = Kind | Literal["picture"]
NOTED: tuple[Noted, ...] = ("watched", "contact", "tag", "picture")


class Line(NamedTuple):
    """One erasure, as it was asked for."""

    id: str
    kind: Noted
    thing: str
    asked_us: int
    asked_by: str


def file_of(connection: Connection) -> Path | None:
    """Where this database's erasures are written: as configured, else beside SQLite's file; None: it lives in memory.

    ConfigError for PostgreSQL where nothing is configured: after a restore nobody would know.
    """
    configured: Path | None = connection.info.get("erasures_file")
    name = connection.engine.url.database
    if configured is not None or not name or name == ":memory:":
        return configured
    if connection.dialect.name != "sqlite":
        raise ConfigError("keep.erasures_file: state in PostgreSQL needs one, on a disk that is not restored with the database")
    return Path(f"{name}.erasures")


def note(connection: Connection, line: Line) -> None:
    """Puts it on disk, and after that in the transaction. OSError: it can't be written, and nothing may be deleted."""
    path = file_of(connection)
    if path is not None:
        _append(path, [line])
    mark(connection, line, line.asked_us)


def mark(connection: Connection, line: Line, done_us: int) -> None:
    """The database's own row of it."""
    connection.execute(insert(erasures).values(**line._asdict(), done_us=done_us))


def missing(connection: Connection) -> list[Line]:
    """Lines of the file that this database knows nothing of: what is to be erased again. Writes those that the file lacks.

    ConfigError for a file that can't be read: to begin without it could bring somebody back.
    """
    path = file_of(connection)
    if path is None:
        return []
    lines = _read(path)
    query = select(erasures.c.id, erasures.c.kind, erasures.c.thing, erasures.c.asked_us, erasures.c.asked_by)
    known = [Line(*row) for row in connection.execute(query.order_by(erasures.c.asked_us))]
    in_file, here = {line.id for line in lines}, {line.id for line in known}
    if absent := [line for line in known if line.id not in in_file]:
        _append(path, absent)
    return [line for line in lines if line.id not in here]


def _read(path: Path) -> list[Line]:
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"keep.erasures_file: {path} can't be read: {error.strerror}. It says what must stay erased."
        ) from error
    # What a power cut left of a last line was never acted on: it is on disk whole before anything is deleted.
    whole, _, _ = written.rpartition(b"\n")
    lines: dict[str, Line] = {}
    for number, one in enumerate(whole.splitlines(), 1):
        if not one.strip():
            continue
        try:
            said = json.loads(one)
            line = Line(*(said[name] for name in Line._fields))
            if line.kind not in NOTED or not isinstance(line.asked_us, int):
                raise ValueError(line.kind)
        except (ValueError, KeyError, TypeError):
            if not _is_torn(one):
                raise ConfigError(
                    f"keep.erasures_file: line {number} of {path} is no erasure. Put the file back as it was: "
                    "without it somebody who was erased could come back."
                ) from None
            continue
        lines[line.id] = line
    return list(lines.values())


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of a line that a power cut broke off, closed by the next one that was written."""
    return line.startswith(b'{"id"') and not line.endswith(b"}")


def _append(path: Path, lines: list[Line]) -> None:
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        text = "".join(json.dumps(line._asdict(), ensure_ascii=False) + "\n" for line in lines)
        written = (b"\n" if torn else b"") + text.encode()
        if os.write(descriptor, written) != len(written):
            raise OSError(errno.ENOSPC, "the disk is full", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
