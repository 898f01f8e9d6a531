"""A trail camera's folder of pictures: media_captured, media_count, frames_bad, heartbeat.

The camera (or whatever copies from its card) writes the folder; here it is only read: no file is changed or removed.

A picture is put on the media shelf, durably; then its event is yielded; then, when the agent asks for the next record
and so has committed this one, its SHA-256 is remembered. A crash in between repeats the event and never loses it: the
gateway sees the same SHA-256 a second time, and has the picture already.
"""

import hashlib
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from edge.contract.events import MediaCaptured
from edge.decoders.jpeg import camera_time, jpeg_fault
from edge.errors import DeviceError
from edge.records import Happened, Reading, Record, Site

log = logging.getLogger(__name__)

CONTENT_TYPE = "image/jpeg"

MAX_BYTES = 32 * 1024 * 1024
"""A larger file is no trail camera's picture, and would not fit a Pi's memory beside the agent."""

PATIENT_SCANS = 15
"""A file that is no whole JPEG may still be being written: it is called bad when it held still for so many scans."""


class TrailCameraConfig(BaseModel):
    """`type = "trail_camera"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["trail_camera"]
    folder: Annotated[Path, Field(description="Folder the pictures (*.jpg, *.jpeg) appear in; folders in it are not read.")]
    scan_s: Annotated[float, Field(ge=0.1, le=3600, description="How often to look for new pictures.")] = 2
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the folder can be read.")] = 60


class _Stamp(NamedTuple):
    """What tells that a file was not touched since it was looked at."""

    inode: int
    size: int
    mtime_ns: int


class _Held(NamedTuple):
    """A file that is being waited for: for how many scans it has held still."""

    stamp: _Stamp
    scans: int


class _File(NamedTuple):
    """A file to be looked into now."""

    name: str
    path: Path
    stamp: _Stamp
    scans: int


class _Look(NamedTuple):
    """What was found in a file: a whole picture; or why there never will be one; or, with neither, nothing yet."""

    content: bytes | None = None
    fault: str = ""
    lasting: bool = True
    """False for a fault that may go away while the file stays as it is."""


class TrailCamera:
    """Takes in each picture of a folder once, as soon as it is written."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "media_count", "frames_bad")

    def __init__(self, device: str, config: TrailCameraConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._held: dict[str, _Held] = {}
        self._finished: dict[str, _Stamp] = {}  # taken in, or bad for good
        self._called_bad: dict[str, _Stamp] = {}
        self._bad = 0

    async def records(self) -> AsyncIterator[Record]:
        """An event per picture, in the order in which they were written; readings each heartbeat.

        DeviceError when the folder, the shelf or this device's memory can't be used.
        """
        config, clock, device = self._config, self._site.clock, self._device
        self._held, self._finished = {}, {}
        taken = _Taken(self._site.state / "taken")
        card = _card_of(config.folder)
        started_us = beat_due_us = clock.now().mono_us
        bad_said = 0
        while True:
            for file in self._held_still(card, taken):
                content = self._content_of(file)
                if content is not None:
                    sha256 = hashlib.sha256(content).hexdigest()
                    if sha256 not in taken:
                        self._keep(content)
                        yield Happened(clock.now(), self._captured(file.name, content, sha256))
                    taken.add(sha256, file.name, file.stamp)
                    self._finished[file.name] = file.stamp
                await clock.sleep(0)  # a card full of pictures must not hold up the other devices
            now = clock.now()
            if self._bad != bad_said:
                bad_said = self._bad
                yield Reading(now, device, "frames_bad", bad_said)
            if now.mono_us >= beat_due_us:
                yield Reading(now, device, "heartbeat", (now.mono_us - started_us) / 1e6)
                yield Reading(now, device, "media_count", len(taken))
                beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
            await clock.sleep(config.scan_s)

    def _held_still(self, card: tuple[int, int], taken: "_Taken") -> list[_File]:
        """One scan: the files that are new, and now as they were at the scan before. The oldest first."""
        folder = self._config.folder
        if _card_of(folder) != card:
            raise DeviceError(f"{folder} is another folder than before: was the card taken out? It is read anew.")
        held: dict[str, _Held] = {}
        finished: dict[str, _Stamp] = {}
        ready: list[_File] = []
        for name, stamp in _pictures(folder):
            if self._finished.get(name) == stamp or taken.has(name, stamp):
                finished[name] = stamp
                continue
            before = self._held.get(name)
            scans = before.scans + 1 if before is not None and before.stamp == stamp else 0
            held[name] = _Held(stamp, scans)
            if scans:
                ready.append(_File(name, folder / name, stamp, scans))
        # What is no longer in the folder is forgotten, so that this stays as small as the folder.
        self._held, self._finished = held, finished
        here = held.keys() | finished.keys()
        self._called_bad = {name: stamp for name, stamp in self._called_bad.items() if name in here}
        return sorted(ready, key=lambda file: (file.stamp.mtime_ns, file.name))

    def _content_of(self, file: _File) -> bytes | None:
        """A whole picture, or None; a file that is bad is said once and counted once, until it changes."""
        known_bad = self._called_bad.get(file.name) == file.stamp
        if known_bad and file.scans % PATIENT_SCANS:
            return None  # looked into again now and then: its fault may have gone away
        look = _look_into(file)
        if look.fault:
            if not known_bad:
                self._called_bad[file.name] = file.stamp
                self._bad += 1
                log.warning("%s: %r is not taken in: %s", self._device, file.name, look.fault)
            if look.lasting:
                self._finished[file.name] = file.stamp
        return look.content

    def _keep(self, content: bytes) -> None:
        try:
            self._site.media.keep(content, CONTENT_TYPE)
        except OSError as error:
            raise DeviceError(f"pictures of {self._config.folder} can't be stored and wait there: {error}") from error

    def _captured(self, name: str, content: bytes, sha256: str) -> MediaCaptured:
        taken_at = camera_time(content)
        if taken_at.text is None:
            log.info("%s: %r does not say when it was taken: %s", self._device, name, taken_at.reason)
        return MediaCaptured(
            device=self._device,
            media=sha256,
            size=len(content),
            content_type=CONTENT_TYPE,
            camera_time=taken_at.text,
        )


class _Taken:
    """What was taken in, over restarts: a file with one JSON list a line, [sha256, name, size, mtime in ns].

    Only ever appended to. A line torn by a crash is left out, which repeats one picture.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sha256s: set[str] = set()
        self._files: dict[str, tuple[int, int]] = {}
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise self._unusable(error) from error
        for line in content.splitlines():
            try:
                sha256, name, size, mtime_ns = json.loads(line)
                self._sha256s.add(sha256)
                self._files[name] = (size, mtime_ns)
            except (ValueError, TypeError):
                continue
        self._torn = not content.endswith(b"\n") and bool(content)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._sha256s

    def __len__(self) -> int:
        return len(self._sha256s)

    def has(self, name: str, stamp: _Stamp) -> bool:
        """Whether this file was taken in: a restart then need not read a whole card again."""
        return self._files.get(name) == (stamp.size, stamp.mtime_ns)

    def add(self, sha256: str, name: str, stamp: _Stamp) -> None:
        """Durable when it returns. DeviceError when it can't be."""
        line = json.dumps([sha256, name, stamp.size, stamp.mtime_ns]).encode("ascii") + b"\n"
        try:
            with self._path.open("ab") as file:
                file.write(b"\n" + line if self._torn else line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._torn = True
            raise self._unusable(error) from error
        self._torn = False
        self._sha256s.add(sha256)
        self._files[name] = (stamp.size, stamp.mtime_ns)

    def _unusable(self, error: OSError) -> DeviceError:
        return DeviceError(f"{self._path}, which remembers the pictures taken in, can't be used: {error}")


def _card_of(folder: Path) -> tuple[int, int]:
    """Which file system and folder stands under this name now: a card that was taken out leaves another one."""
    try:
        found = folder.stat()
    except OSError as error:
        raise _gone(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise DeviceError(f"{folder} is no folder: give the folder that the camera's pictures are in")
    return found.st_dev, found.st_ino


def _pictures(folder: Path) -> Iterator[tuple[str, _Stamp]]:
    """Names and stamps of the regular files that are called pictures; hidden ones are somebody's bookkeeping."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith((".jpg", ".jpeg")):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed while we looked
                if stat.S_ISREG(found.st_mode):
                    yield entry.name, _stamp(found)
    except OSError as error:
        raise _gone(folder, error) from error


def _gone(folder: Path, error: OSError) -> DeviceError:
    return DeviceError(f"{folder} can't be read: {error.strerror or error}. Is the card in, and is it mounted there?")


def _stamp(found: os.stat_result) -> _Stamp:
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _look_into(file: _File) -> _Look:
    try:
        file.name.encode("utf-8")
    except UnicodeEncodeError:
        return _Look(fault="its name is not UTF-8; give it another one")
    if file.stamp.size > MAX_BYTES:
        return _Look(fault=f"it has {file.stamp.size} bytes, a picture has {MAX_BYTES} at most")
    try:
        with file.path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
            after = _stamp(os.fstat(opened.fileno()))
    except FileNotFoundError:
        return _Look()
    except OSError as error:
        return _Look(fault=f"it can't be read: {error.strerror or error}", lasting=False)
    if after != file.stamp or len(content) != file.stamp.size:
        return _Look()  # still being written after all
    fault = jpeg_fault(content)
    if fault is None:
        return _Look(content)
    return _Look() if file.scans < PATIENT_SCANS else _Look(fault=fault)
