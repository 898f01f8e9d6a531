"""The media shelf: files on their way to the gateway, each under its own SHA-256, in one folder and nowhere else.

A file that is here is whole and durable. It goes when the gateway has all of it. A full disk must not take the room
that alarms need: the shelf refuses before that, and what stays on a camera's card is taken in later.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

EXTENSIONS = {"image/jpeg": "jpg"}
"""Content type -> extension, the only types a shelf takes."""

RESERVE_BYTES = 256 * 1024 * 1024
"""Free space that is left to the outbox."""

_types = {extension: content_type for content_type, extension in EXTENSIONS.items()}
_name = re.compile(r"([0-9a-f]{64})\.([a-z0-9]+)", re.ASCII)


class Waiting(NamedTuple):
    """One file on the shelf."""

    sha256: str
    path: Path
    content_type: str


class MediaFolder:
    """`edge.records.MediaShelf` in a folder of its own. One process uses it; made when it is not there."""

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        """OSError when the folder can't be made or read."""
        self._folder, self._reserve_bytes = folder, reserve_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("*.part"):  # a crash while writing; its driver keeps the same bytes again
            left_over.unlink()

    def keep(self, content: bytes, content_type: str) -> str:
        """Stores the bytes durably; returns their SHA-256. The same bytes again change nothing.

        ValueError for a content type that is not in EXTENSIONS; OSError when there is no room or the disk fails, and
        then nothing is left behind.
        """
        if content_type not in EXTENSIONS:
            raise ValueError(f"the media shelf takes {', '.join(EXTENSIONS)}, not {content_type!r}")
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{sha256}.{EXTENSIONS[content_type]}"
        if path.exists():
            self._sync_folder()  # it may have been put there by a call that failed after the rename
            return sha256
        free = shutil.disk_usage(self._folder).free
        if free - len(content) < self._reserve_bytes:
            raise OSError(
                f"no room for media: {free // 2**20} MiB are free at {self._folder} and "
                f"{self._reserve_bytes // 2**20} MiB are kept for alarms. Make room on the disk, or "
                "see why nothing is uploaded."
            )
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._sync_folder()
        return sha256

    def waiting(self) -> list[Waiting]:
        """What is on the shelf, the oldest first. Files with other names are not ours and left alone."""
        found: list[tuple[int, Waiting]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                match = _name.fullmatch(entry.name)
                if match is not None and match[2] in _types:
                    item = Waiting(match[1], self._folder / entry.name, _types[match[2]])
                    found.append((entry.stat().st_mtime_ns, item))
        return [item for _, item in sorted(found)]

    def done(self, sha256: str) -> None:
        """The gateway has all of it: removes the file. One that is not here is no error."""
        for extension in EXTENSIONS.values():
            (self._folder / f"{sha256}.{extension}").unlink(missing_ok=True)
        self._sync_folder()

    def _sync_folder(self) -> None:
        number = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
