"""The media shelf: files on their way to the gateway, each under its own SHA-256, in one folder and nowhere else.

A file that is here is whole and durable. It goes when the gateway has all of it. A full disk must not take the room
that alarms need: the shelf refuses before that, and what stays on a camera's card is taken in later.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edge.durable import sync_folder

EXTENSIONS = {
    "image/jpeg": "jpg",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "application/gzip": "gz",
}
"""Content type -> extension, the only types a shelf takes."""

RESERVE_BYTES = 256 * 1024 * 1024
"""Free space that is left to the outbox."""

_CHUNK_BYTES = 1024 * 1024

_types = {extension: content_type for content_type, extension in EXTENSIONS.items()}
_name = re.compile(r"([0-9a-f]{64})\.([a-z0-9]+)", re.ASCII)


class Waiting(NamedTuple):
    """One file on the shelf."""

    sha256: str
    path: Path
    content_type: str


class MediaFolder:
    """`edge.records.MediaShelf` in a folder of its own. One process uses it; made with the first file."""

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        """OSError when the folder can't be read."""
        self._folder, self._reserve_bytes = folder, reserve_bytes
        if folder.exists():
            for left_over in folder.glob("*.part"):  # a crash while writing; its driver keeps the same bytes again
                left_over.unlink()

    def keep(self, content: bytes, content_type: str) -> str:
        """Stores the bytes durably; returns their SHA-256. The same bytes again change nothing.

        ValueError for a content type that is not in EXTENSIONS; OSError when there is no room or the disk fails, and
        then nothing is left behind.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        self._put(sha256, content_type, len(content), lambda file: file.write(content))
        return sha256

    def keep_file(self, source: Path, sha256: str, content_type: str) -> None:
        """As `keep`, of a file that is too large for memory. `sha256` is what its bytes had when they were looked at.

        OSError, too, when the file has other bytes by now.
        """

        def copy(file: BinaryIO) -> None:
            digest = hashlib.sha256()
            with source.open("rb") as opened:
                for chunk in _chunks(opened):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise OSError(f"{source} was changed while it was copied")

        self._put(sha256, content_type, source.stat().st_size, copy)

    def withdraw(self, sha256: str, folder: Path) -> bool:
        """Moves a file that waits into another folder of this disk, durably; False when it is not here any more."""
        for extension in EXTENSIONS.values():
            path = self._folder / f"{sha256}.{extension}"
            if not path.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            try:
                path.rename(folder / path.name)
            except FileNotFoundError:
                continue
            sync_folder(folder)
            sync_folder(self._folder)
            return True
        return False

    def _put(self, sha256: str, content_type: str, size: int, write: Callable[[BinaryIO], object]) -> None:
        if content_type not in EXTENSIONS:
            raise ValueError(f"the media shelf takes {', '.join(EXTENSIONS)}, not {content_type!r}")
        path = self._folder / f"{sha256}.{EXTENSIONS[content_type]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            sync_folder(self._folder)  # it may have been put there by a call that failed after the rename
            return
        free = shutil.disk_usage(self._folder).free
        if free - size < self._reserve_bytes:
            raise OSError(
                f"no room for media: {free // 2**20} MiB are free at {self._folder} and "
                f"{self._reserve_bytes // 2**20} MiB are kept for alarms. Make room on the disk, or "
                "see why nothing is uploaded."
            )
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)

    def waiting(self) -> list[Waiting]:
        """What is on the shelf: pictures before videos, which are long on a thin link, and of each the oldest first.

        Files with other names are not ours and left alone.
        """
        found: list[tuple[bool, int, Waiting]] = []
        if not self._folder.exists():  # nothing was ever kept
            return []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                match = _name.fullmatch(entry.name)
                if match is not None and match[2] in _types:
                    item = Waiting(match[1], self._folder / entry.name, _types[match[2]])
                    try:
                        since_ns = entry.stat().st_mtime_ns
                    except FileNotFoundError:
                        continue  # withdrawn, or gone to the gateway, while we looked
                    found.append((item.content_type.startswith("video/"), since_ns, item))
        return [item for *_, item in sorted(found)]

    def done(self, sha256: str) -> None:
        """The gateway has all of it: removes the file. One that is not here is no error."""
        for extension in EXTENSIONS.values():
            (self._folder / f"{sha256}.{extension}").unlink(missing_ok=True)
        if self._folder.exists():
            sync_folder(self._folder)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
