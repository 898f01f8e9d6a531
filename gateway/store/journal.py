"""What a server has said it took, and may still forget: kept here until it can't. Knows nothing of servers and of what it keeps.

A folder of segments, each one file of records that are only ever added to. A process has its segments locked (flock) for as long
as it lives; those that nobody has locked are of one that is dead, and belong to whoever looks next. So several processes may have
the same folder, on a disk of their own machine.

A record is its length and CRC-32 (of length and body), 4 bytes each, little-endian; then the body. Behind the last come zeros, of
room that was made beforehand, or what a kill left of a record that nobody was told of: what follows the last whole record is cut
off. One that is not whole before another that is was damaged later: its file is kept for people.
"""

import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Lock

from gateway.errors import ConfigError, StoreDown
from gateway.store.disk import RESERVE_MIB, Reserve

log = logging.getLogger(__name__)

MIB = 2**20
SEGMENT_BYTES = 32 * MIB
"""One that has grown so large gets no more: what is done with a segment takes a bounded time."""
ROOM_BYTES = 8 * MIB
"""How much room is made at once: a record that doesn't make its file longer is on disk in half the time."""
SEALED_MOST = 64
"""Segments that wait, each an open file: while a server takes points and settles none, for hours, the last one grows instead."""
ENDING, REFUSED, UNREAD = ".segment", ".refused", ".unread"

_HEADER = struct.Struct("<II")


class Segment:
    """A file of bodies that belongs to this process."""

    def __init__(self, path: Path, descriptor: int, mark: int | None, size: int) -> None:
        """`descriptor` is open for reading and writing, and holds the lock."""
        self.path, self._descriptor = path, descriptor
        self.mark = mark
        """Whatever who writes wants to know of all its bodies; None: nobody knows any more."""
        self.size = size
        """Bytes; of one taken over the file's, of which the last may be no record."""
        self.since_s: float | None = None
        """For who settles: since when the server has had all of it, by its clock."""
        self.unread = False
        """Whether the disk did not give back all of it: then the file stays, for people, when the rest of it is durable."""
        self._room = size

    def bodies(self) -> Iterator[bytes]:
        """In the order in which they were added; after the last whole one it ends, or where the disk can't be read. What the disk
        has changed is passed over.
        """
        at = whole = 0  # where the next record begins, and where the last whole one ends
        try:
            while (found := self._record(at)) is not None:
                at, body = found
                if body is None:
                    continue
                if at - _HEADER.size - len(body) > whole:  # who could write this one had written those before it
                    self._is_unread(whole, "it is not what was written")
                yield body
                whole = at
            if rest := os.pread(self._descriptor, self.size - whole, whole).rstrip(b"\0"):
                log.warning("%s ends with %d bytes of no whole record, which nobody was told is safe", self.path, len(rest))
        except OSError as error:
            self._is_unread(at, error.strerror)

    def _record(self, at: int) -> tuple[int, bytes | None] | None:
        """Where the record that begins there ends, and its body; None in place of a body that is not whole. None: no record."""
        header = os.pread(self._descriptor, _HEADER.size, at)
        if len(header) < _HEADER.size:
            return None
        length, said = _HEADER.unpack(header)
        begins = at + _HEADER.size
        if not length or length > self.size - begins:
            return None
        body = os.pread(self._descriptor, length, begins)
        is_whole = len(body) == length and _sum_of(header[:4], body) == said
        return begins + length, body if is_whole else None

    def _is_unread(self, at: int, why: str | None) -> None:
        if not self.unread:
            log.error(
                "%s can't be read at byte %d (%s): where the series server was killed it may be all that is left of some "
                "readings. It will lie beside the others as %s", self.path, at, why, self.path.stem + UNREAD,
            )  # fmt: skip
        self.unread = True

    def add(self, record: bytes) -> None:
        """Durable when it returns. OSError: it is not, what was before it is, and what comes next is written over it."""
        end = self.size + len(record)
        if end > self._room:
            room = max(end, self._room + ROOM_BYTES)
            os.posix_fallocate(self._descriptor, self.size, room - self.size)
            self._room = room
        written = 0
        while written < len(record):  # a disk that fills up takes a part
            written += os.pwrite(self._descriptor, record[written:] if written else record, self.size + written)
        os.fdatasync(self._descriptor)
        self.size = end

    def end(self) -> None:
        """Gives back the room behind the last record."""
        with suppress(OSError):  # it is read just as well with it
            os.ftruncate(self._descriptor, self.size)

    @property
    def is_there(self) -> bool:
        """Whether the file still has its name: one that was removed from under us would be gone with this process."""
        return os.fstat(self._descriptor).st_nlink > 0

    def let_go(self) -> None:
        """Closes it, and with that unlocks it."""
        os.close(self._descriptor)


class Journal:
    """One process' part of the folder. `append` by one thread, the rest by any one other."""

    def __init__(self, folder: Path, setting: str, most_mib: int) -> None:
        """Makes the folder where its parent is there. ConfigError, naming the setting, where it can't be written."""
        self._folder, self._setting, self._most_mib = folder.absolute(), setting, most_mib
        try:
            with suppress(FileExistsError):  # others may begin at the same moment
                self._folder.mkdir(mode=0o700)
                _give(self._folder, self._folder.parent)
            with os.scandir(self._folder):
                pass
            if not os.access(self._folder, os.W_OK):
                raise PermissionError("this user may not write there")
        except OSError as error:
            raise ConfigError(
                f"{setting}: {self._folder} can't be used: {error.strerror or error}. Name a folder that this user may write, on "
                "a disk of this machine; it is made where the one above it is there."
            ) from error
        self.disk = Reserve(self._folder, RESERVE_MIB)
        """The room it leaves to others."""
        self._lock = Lock()
        self._open: Segment | None = None
        self._sealed: list[Segment] = []
        self._out_of_reach: set[str] = set()

    @property
    def size(self) -> int:
        """Bytes in the segments of this process."""
        with self._lock:
            return sum(one.size for one in self._all())

    def check_room(self, length: int) -> None:
        """StoreDown where a body of so many bytes has no room now."""
        if (shortage := self.disk.shortage()) is not None:
            raise StoreDown(f"{self._setting}: {shortage}")
        if self.size + _HEADER.size + length > self._most_mib * MIB:
            raise StoreDown(
                f"{self._setting}: {self._folder} holds {self.size // MIB} MiB that the series server has not made durable, and "
                f"{self._setting}_mib is {self._most_mib}: readings wait until it has. The gateway's log says what is the matter "
                "with the server."
            )

    def append(self, body: bytes, mark: int | None) -> None:
        """Keeps a body, 1 byte or more; durable when it returns. Bodies of one mark stand together. StoreDown: it is not kept."""
        length = struct.pack("<I", len(body))
        record = b"".join((length, struct.pack("<I", _sum_of(length, body)), body))
        with self._lock:
            segment = self._open
            if segment is not None and (segment.mark != mark or segment.size >= SEGMENT_BYTES or not segment.is_there):
                self._seal()
            try:
                if self._open is None:
                    self._open = self._made(mark)
                self._open.add(record)
            except OSError as error:
                raise StoreDown(
                    f"{self._setting}: {self._folder} can't be written: {error.strerror}. Is it there, is its disk mounted and "
                    "has it room?"
                ) from error

    def seal(self) -> list[Segment]:
        """Ends the segment that is added to, unless very many wait already; takes over those of the dead; and returns all that
        nothing is added to any more.
        """
        with self._lock:
            if len(self._sealed) < SEALED_MOST:
                self._seal()
            known = {one.path for one in self._sealed}
            self._sealed += self._left_over(known)
            return list(self._sealed)

    def drop(self, segment: Segment) -> None:
        """Forgets a sealed segment: what was read of it is durable elsewhere. One that was not read to its end is kept under
        another name, and nothing here reads it again. OSError: it stays.
        """
        if segment.unread and segment.path.exists():
            segment.path.rename(segment.path.with_suffix(UNREAD))
        else:
            segment.path.unlink(missing_ok=True)
        with self._lock:
            self._sealed.remove(segment)
        segment.let_go()  # last: who has opened it meanwhile finds it unlocked only once it has no name

    def set_aside(self, body: bytes) -> Path:
        """Keeps a body as a file of its own, for people; nothing here reads it again. OSError."""
        path = self._folder / f"{token_hex(8)}{REFUSED}"
        descriptor = self._new(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(descriptor)
        self._sync_folder()
        return path

    def close(self) -> None:
        """Lets go of all segments: who looks next takes them over."""
        with self._lock:
            self._seal()
            for segment in self._sealed:
                segment.let_go()
            self._sealed.clear()

    def _all(self) -> list[Segment]:
        return [*self._sealed, *([self._open] if self._open else [])]

    def _seal(self) -> None:
        if self._open is not None:
            self._open.end()
            self._sealed.append(self._open)
            self._open = None

    def _made(self, mark: int | None) -> Segment:
        """A new segment, ours, and known to the folder on disk."""
        while True:
            path = self._folder / f"{token_hex(8)}{ENDING}"
            descriptor = self._new(path)
            if _locked(descriptor):
                self._sync_folder()
                return Segment(path, descriptor, mark, 0)
            # Somebody looked for segments of the dead just between: it was theirs before it was ours.

    def _left_over(self, known: set[Path]) -> list[Segment]:
        """Segments whose process is dead, from now on ours."""
        found = []
        for path in sorted(self._folder.glob(f"*{ENDING}")):
            if path in known:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # dropped meanwhile
                continue
            except OSError as error:
                if path.name not in self._out_of_reach:
                    self._out_of_reach.add(path.name)
                    log.error(
                        "%s can't be opened (%s): where the series server was killed it may be all that is left of some readings."
                        " Give it to this user", path, error.strerror,
                    )  # fmt: skip
                continue
            if _locked(descriptor):
                found.append(Segment(path, descriptor, None, os.fstat(descriptor).st_size))
        return found

    def _new(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _give(descriptor, self._folder)
        return descriptor

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put_aside(folder: Path) -> list[Path]:
    """Files that hold readings which nobody may have but they, for people. OSError where the folder can't be read."""
    with os.scandir(folder) as found:
        return sorted(Path(one) for one in found if one.name.endswith((REFUSED, UNREAD)))


def _locked(descriptor: int) -> bool:
    """Whether it is ours now, and still has a name; where not, it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(descriptor).st_nlink > 0
    except BlockingIOError:
        is_ours = False
    if not is_ours:
        os.close(descriptor)
    return is_ours


def _give(made: Path | int, beside: Path) -> None:
    """What root makes, by a command, belongs to whom its folder does: the gateway must get at it."""
    if os.geteuid() == 0:
        like = beside.stat()
        os.chown(made, like.st_uid, like.st_gid)


def _sum_of(length: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(length))
