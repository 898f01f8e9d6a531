"""Pictures on the gateway's disk, each under the SHA-256 of its bytes, taken in piece by piece.

    <folder>/<sha256>.part     what has arrived so far; its length is the offset the sender goes on from
    <folder>/<sha256>          whole, its hash and form checked, on disk; a row in `media` says its type and size
    <folder>/<sha256>.*        made of it, to be made again at any time: `.thumb1.jpg` is what gateway.thumbnails made

No state of an upload lives in memory: a restart keeps the offset, and two senders of one picture (threads or
processes) meet at a lock on the part file, where the slower is told the offset the other has reached.

Resuming is our own, not a library's: those for tus give each upload a name of their own, which is forgotten with the answer that
tells it. Here the name is the hash, so whoever has the bytes goes on, and what arrived is judged before it is called whole.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import BinaryIO, NamedTuple

from sqlalchemy import func, insert, select

from edge.contract.names import SHA256_PATTERN
from gateway import thumbnails
from gateway.errors import ConfigError
from gateway.picture_check import extent, is_as_said
from gateway.picture_news import arrived
from gateway.state import State, tables
from gateway.store.disk import RESERVE_MIB, Reserve
from gateway.stripping import Bytes

CONTENT_TYPES = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "application/gzip": "gz",  # a node's diagnostics
}
"""What is taken and given back, and the ending it is saved under by who downloads it. Nothing a browser would run."""

MOST_MEGAPIXELS = 120
"""Of an image that is taken, by default. Telephones make 108, and panoramas of 63; a bomb has thousands."""
SUM_EVERY_S = 10.0
"""So often the database is asked how much is on the shelf."""

_sha256 = re.compile(SHA256_PATTERN)


class WrongOffset(Exception):
    """The sender goes on from another place than the gateway's; `offset` is the right one."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the gateway has {offset} bytes of this file")
        self.offset = offset


class TooLarge(Exception):
    """The file is, or grows, longer than it may be."""


class TooManyPixels(TooLarge):
    """Few bytes that say they are a picture which no program should open; the part has been removed."""


class WrongType(Exception):
    """The gateway takes no files of this type."""


class Mislabelled(WrongType):
    """All bytes are here, and are no file of the type they were sent as; the part has been removed."""


class WrongContent(Exception):
    """All bytes are here and their SHA-256 is not the one they were sent under; the part has been removed."""


class Kept(NamedTuple):
    """A whole picture."""

    sha256: str
    path: Path
    size: int
    content_type: str


class MediaShelf:
    """Thread-safe; every method does I/O and may block. `sha256` other than 64 lower-case hex digits: ValueError."""

    def __init__(
        self,
        folder: Path,
        state: State,
        now_us: Callable[[], int],
        limit_bytes: int = 32 * 1024 * 1024,
        reserve_mib: int = RESERVE_MIB,
        *,
        most_megapixels: int = MOST_MEGAPIXELS,
        total_gib: int | None = None,
    ) -> None:
        """`total_gib`: of all pictures together; None: what the disk has. Makes the folder. ConfigError when it can't be used."""
        self._folder, self._state, self._now_us = folder, state, now_us
        self.limit_bytes, self.most_megapixels = limit_bytes, most_megapixels
        self.disk = Reserve(folder, reserve_mib)
        """The room it leaves to others."""
        self._total_gib = total_gib
        self._summed: tuple[float, int] | None = None  # by the monotonic clock, and bytes
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"no right to write in {folder}")
        except OSError as error:
            raise ConfigError(
                f"media.folder: {folder} can't be used: {error}. Make it, and give it to the user satomori runs as."
            ) from error

    def find(self, sha256: str) -> Kept | None:
        """The picture when it is here whole and on record."""
        path = self._whole(sha256)
        with self._state.read() as connection:
            row = connection.execute(select(tables.media).where(tables.media.c.sha256 == sha256)).first()
        if row is None or not path.is_file():
            return None
        return Kept(sha256, path, row.size, row.content_type)

    def offset(self, sha256: str) -> int:
        """How many bytes are here: where a sender goes on."""
        for path in (self._whole(sha256), self._part(sha256)):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                pass
        return 0

    def check(self, sha256: str, offset: int, length: int, content_type: str) -> None:
        """Whether this upload may go on from `offset`. Raises TooLarge, WrongType or WrongOffset."""
        if length > self.limit_bytes:
            raise TooLarge(f"the file has {length} bytes; at most {self.limit_bytes} are taken")
        if content_type not in CONTENT_TYPES:
            raise WrongType(f"{content_type[:80]!r} is not taken; only {', '.join(CONTENT_TYPES)}")
        here = self.offset(sha256)
        if here > length and not self._whole(sha256).exists():
            self._part(sha256).unlink(missing_ok=True)  # began under a wrong length: it can never become this file
            here = 0
        if here != offset:
            raise WrongOffset(here)

    def shortage(self) -> str | None:
        """Why no picture is taken just now, and what to do about it; None while there is room."""
        return self.disk.shortage() or self.full()

    def full(self) -> str | None:
        """That all there may be is here. What is still on its way is not counted: it is here, or swept, within days."""
        if self._total_gib is None:
            return None
        summed, now = self._summed, monotonic()
        if summed is None or now - summed[0] >= SUM_EVERY_S:
            with self._state.read() as connection:
                summed = self._summed = (now, connection.scalar(select(func.coalesce(func.sum(tables.media.c.size), 0))) or 0)
        if summed[1] < self._total_gib * 2**30:
            return None
        return (
            f"the pictures in {self._folder} have {summed[1] // 2**20} MiB, and media.total_gib is {self._total_gib}. "
            "Give them more, or keep them for a shorter time ([keep] pictures)."
        )

    def append(self, sha256: str, offset: int, length: int, piece: bytes) -> int:
        """Adds bytes at `offset`; returns the new offset. WrongOffset; TooLarge when it would outgrow `length`.

        OSError ENOSPC before the disk is full, what is left of it belongs to the state database; EDQUOT when the shelf is.
        """
        if offset + len(piece) > length:
            raise TooLarge(f"more bytes were sent than the {length} of Upload-Length")
        if shortage := self.disk.shortage():
            raise OSError(errno.ENOSPC, shortage)
        if full := self.full():
            raise OSError(errno.EDQUOT, full)
        with _locked(self._whole(sha256)) as part:
            here = self.offset(sha256)
            if here != offset:
                raise WrongOffset(here)
            if self._whole(sha256).exists():
                raise WrongContent(f"the file with this SHA-256 has {here} bytes, not {length}")
            part.write(piece)
            part.flush()
        return offset + len(piece)

    def flush(self, sha256: str) -> None:
        """Puts what has arrived on the disk, so that even a power cut keeps the offset."""
        try:
            descriptor = os.open(self._part(sha256), os.O_RDONLY)
        except FileNotFoundError:
            return  # whole meanwhile, or nothing arrived
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, sha256: str, length: int, content_type: str) -> Kept:
        """Makes a part of `length` bytes a picture. Again: changes nothing.

        WrongContent when the hash differs, Mislabelled or TooManyPixels by what its headers say.
        """
        with _locked(self._whole(sha256)) as part:
            path = self._whole(sha256)
            if not path.exists():
                here = os.fstat(part.fileno()).st_size
                if here != length:
                    raise WrongOffset(here)
                if _hash_of(self._part(sha256)) != sha256:
                    self._part(sha256).unlink()
                    raise WrongContent(f"the {length} bytes that arrived do not have the SHA-256 {sha256}")
                self._judge(self._part(sha256), content_type)
                os.fsync(part.fileno())
                self._part(sha256).rename(path)
                _fsync_folder(self._folder)
            elif (here := path.stat().st_size) != length:
                raise WrongContent(f"the file with this SHA-256 has {here} bytes, not {length}")
            # A crash before this line leaves a whole file off the record; the sender then finishes it once more.
            with self._state.write() as connection:
                if connection.execute(select(tables.media).where(tables.media.c.sha256 == sha256)).first() is None:
                    connection.execute(
                        insert(tables.media).values(
                            sha256=sha256, size=length, content_type=content_type, received_us=self._now_us()
                        )
                    )
                    arrived(connection, sha256)
        return Kept(sha256, path, length, content_type)

    def keep(self, sha256: str, content: bytes, content_type: str) -> Kept:
        """All of a picture at once, from who has its bytes. Again: changes nothing.

        TooLarge, WrongType; OSError as `append`. Where somebody else sends the same one just now, it goes on from there.
        """
        while (kept := self.find(sha256)) is None:
            here = self.offset(sha256)
            try:
                self.check(sha256, here, len(content), content_type)
                if here < len(content):  # else it is whole, and off the record
                    self.append(sha256, here, len(content), content[here:])
                return self.finish(sha256, len(content), content_type)
            except WrongOffset:
                continue  # there is more of it now
            except WrongContent:
                if not here or self._whole(sha256).exists():  # a whole one that a disk has damaged stays as it is
                    raise
                # What lay here of it before was none of it, and is removed now.
        return kept

    def small(self, kept: Kept) -> bytes | None:
        """The picture as a small JPEG, which is kept beside it; None where there can't be one. The first time takes a while."""
        path = self._folder / f"{kept.sha256}.thumb{thumbnails.VERSION}.jpg"
        try:
            return path.read_bytes() or None
        except FileNotFoundError:
            made = thumbnails.small(opened(kept.path), kept.content_type)
        if self.disk.shortage() is None:
            with _locked(kept.path):
                if kept.path.exists():  # else it was deleted meanwhile, and nothing of it may come back
                    _write_whole(path, made or b"")  # an empty one: it need not be tried again
        return made

    def discard(self, sha256: str) -> None:
        """Deletes a picture that is on record no more, file and all."""
        discard(self._state, self._whole(sha256))

    def _judge(self, part: Path, content_type: str) -> None:
        content = opened(part)
        if not is_as_said(content, content_type):
            part.unlink()
            raise Mislabelled(f"what arrived is no {content_type}")
        said = extent(content, content_type)
        if said is not None and said.pixels > self.most_megapixels * 1_000_000:
            part.unlink()
            raise TooManyPixels(f"{said.width} x {said.height} pixels; at most {self.most_megapixels} million are taken")

    def _whole(self, sha256: str) -> Path:
        # The only place where text from outside becomes part of a path.
        if _sha256.match(sha256) is None:
            raise ValueError("not a SHA-256: 64 lower-case hex digits")
        return self._folder / sha256

    def _part(self, sha256: str) -> Path:
        return _part(self._whole(sha256))


def opened(path: Path) -> Bytes:
    """Read from the disk as it is needed: a film may be as long as memory. Who removes it meanwhile takes nothing from us."""
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return b""


def discard(state: State, whole: Path, *, before_us: int | None = None) -> bool:
    """Deletes a picture's file and whatever was made of it, unless it is on record; whether it did.

    Its row is deleted before. Whoever sends it anew meanwhile puts it on record again, and then it stays. `before_us`: nor where
    anything was written to it since then.
    """
    with _locked(whole):
        with state.read() as connection:
            if connection.scalar(select(tables.media.c.sha256).where(tables.media.c.sha256 == whole.name)) is not None:
                return False
        made = [path for path in whole.parent.glob(f"{whole.name}.*") if path != _part(whole)]
        if before_us is not None and any(_is_since(path, before_us) for path in (whole, _part(whole), *made)):
            return False
        # The part last: it is the lock, and without it somebody could put the whole one on record before it goes.
        for path in (*made, whole, _part(whole)):
            path.unlink(missing_ok=True)
    return True


def _is_since(path: Path, before_us: int) -> bool:
    """An empty one counts for nothing: the lock makes it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_size > 0 and found.st_mtime_ns // 1000 >= before_us


def _part(whole: Path) -> Path:
    return whole.with_suffix(".part")


@contextmanager
def _locked(whole: Path) -> Iterator[BinaryIO]:
    """The part file, open for appending, with nobody else in here for this picture."""
    path = _part(whole)
    while True:
        with path.open("ab") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            # While we waited, who held the lock may have renamed or removed what we opened.
            if not _is_at(part, path):
                continue
            try:
                yield part
            finally:
                if whole.exists() and _is_at(part, path):
                    path.unlink()  # an empty one that we made beside the whole picture
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    """So that it is there whole or not at all, also after a power cut."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
