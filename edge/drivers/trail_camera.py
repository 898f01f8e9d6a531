"""A trail camera's folder of pictures: media_captured, media_count, media_withheld, frames_bad, heartbeat.

The camera (or an FTP server, or whatever copies from its card) writes the folder; here it is only read: no file is changed or
removed. Folders in it are looked into, too, as cameras make new ones (DCIM/100RECNX, 101RECNX, ...). edge.drivers.pictures makes
the events.

The kernel says when something changes. Since it says nothing of what another machine writes to a network folder, and may be out
of watches, the folder is looked through again and again all the same, only less often.
"""

import hashlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field

from edge.clock import Instant
from edge.decoders.jpeg import camera_time, jpeg_fault
from edge.decoders.video import video_fault, video_type
from edge.drivers.pictures import Pictures, Shot
from edge.drivers.taken import Stamp, Taken
from edge.errors import DeviceError
from edge.hardware.card import CardReader, changes_in, free_bytes
from edge.hardware.classifier import ModelConfig
from edge.hardware.wakeup import woken_within
from edge.records import Reading, Record, Site

log = logging.getLogger(__name__)

MAX_BYTES = 32 * 1024 * 1024
"""A larger file is no trail camera's picture, and would not fit a Pi's memory beside the agent."""

PATIENT_SCANS = 15
"""A file that is not whole may still be being written: it is called bad when it held still for so many scans."""

WATCHED_SCAN_S = 60.0
"""How often a folder is looked through whose changes the kernel tells."""

SETTLED_S = 10.0
"""By then the kernel's watches are set up, whatever came before."""

MOST_FOLDERS_DEEP = 8

_PICTURES, _VIDEOS = (".jpg", ".jpeg"), (".mp4", ".mov", ".avi")


class TrailCameraConfig(BaseModel):
    """`type = "trail_camera"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["trail_camera"]
    folder: Annotated[
        Path,
        Field(
            description="Folder that pictures (*.jpg, *.jpeg) and videos (*.mp4, *.mov, *.avi) appear in, or in folders in it."
        ),
    ]
    mount: Annotated[
        bool,
        Field(description="The folder is where a card is mounted: without the card the camera is down, and not merely quiet."),
    ] = False
    watch: Annotated[
        bool,
        Field(description="The kernel tells of changes. Set it to false for network and FUSE folders, of which it says nothing."),
    ] = True
    scan_s: Annotated[
        float,
        Field(
            ge=0.1, le=3600, description="How long a file must hold still; without `watch` also how often to look for new ones."
        ),
    ] = 2
    full_below_mib: Annotated[
        int,
        Field(
            ge=0, le=1_000_000, description="With less room than this the folder is full and the camera is down; 0: it is never."
        ),
    ] = 8
    max_mib: Annotated[
        int, Field(ge=1, le=1024, description="The largest file taken in; the gateway has a limit of its own, `media.max_mib`.")
    ] = 32
    burst_s: Annotated[
        float, Field(ge=0, le=60, description="Pictures taken within this of each other, by the camera's clock, are one burst.")
    ] = 5
    time_zone: Annotated[str, Field(description="The zone that the camera's clock is set to, where it does not say one.")] = (
        "Asia/Tokyo"
    )
    model: Annotated[
        ModelConfig | None, Field(description="Looks at pictures on this node; absent: they are `unclassified`.")
    ] = None
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the folder can be read.")] = 60


class _Held(NamedTuple):
    """A file that is being waited for: for how many scans it has held still, and when it was first seen."""

    stamp: Stamp
    scans: int
    arrived: Instant | None
    """None: it was there when the folder was opened."""


class _File(NamedTuple):
    """A file to be looked into now."""

    name: str
    path: Path
    held: _Held


class _Look(NamedTuple):
    """What was found in a file: something whole; or why there never will be; or, with neither, nothing yet."""

    shot: Shot | None = None
    fault: str = ""
    lasting: bool = True
    """False for a fault that may go away while the file stays as it is."""
    timeless: str = ""
    """Why the camera's time is not known."""


class TrailCamera:
    """Takes in each picture of a folder once, as soon as it is written."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "media_count", "media_withheld", "frames_bad")

    def __init__(self, device: str, config: TrailCameraConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._card = CardReader("the card")
        self._held: dict[str, _Held] = {}
        self._finished: dict[str, Stamp] = {}  # taken in, or bad for good
        self._called_bad: dict[str, Stamp] = {}
        self._bad = 0

    async def records(self) -> AsyncIterator[Record]:
        """An event per picture, in the order in which they were written; readings each heartbeat.

        DeviceError when the folder, a shelf, the model or this device's memory can't be used, and when the folder is full.
        """
        config, clock, device = self._config, self._site.clock, self._device
        self._held, self._finished = {}, {}
        card = await self._card.run(_card_of, config.folder, config.mount)
        pictures = Pictures(device, self._site, config.model, _zone_of(config.time_zone), config.burst_s)
        await pictures.open()
        try:
            with changes_in(config.folder, device, wanted=config.watch) as changes:
                started_us = beat_due_us = scan_due_us = clock.now().mono_us
                first, bad_said = True, 0
                while True:
                    files: list[_File] = []
                    if self._held or clock.now().mono_us >= scan_due_us:
                        files = await self._card.run(self._held_still, card, pictures.taken, first)
                        first = False
                        now_us = clock.now().mono_us
                        told = changes.watched and now_us - started_us >= SETTLED_S * 1e6
                        scan_due_us = now_us + int(WATCHED_SCAN_S * 1e6 if told else 0)
                    elif await self._card.run(_card_of, config.folder, config.mount) != card:
                        raise _changed(config.folder)
                    for file in files:
                        shot = await self._shot_of(file)
                        if shot is not None:
                            if shot.sha256 not in pictures.taken:
                                async with aclosing(pictures.take(shot, self._card)) as events:  # type: ignore[type-var]
                                    async for event in events:
                                        yield event
                            pictures.taken.add_file(shot.sha256, file.name, file.held.stamp)
                            self._finished[file.name] = file.held.stamp
                            self._held.pop(file.name, None)
                        await clock.sleep(0)  # a card full of pictures must not hold up the other devices
                        if clock.now().mono_us >= beat_due_us:
                            break  # nor its own heartbeat; the others still hold still at the next scan
                    now = clock.now()
                    if self._bad != bad_said:
                        bad_said = self._bad
                        yield Reading(now, device, "frames_bad", bad_said)
                    await self._refuse_full()
                    if now.mono_us >= beat_due_us:
                        yield Reading(now, device, "heartbeat", (now.mono_us - started_us) / 1e6)
                        yield Reading(now, device, "media_count", pictures.taken.count)
                        if config.model is not None:
                            yield Reading(now, device, "media_withheld", pictures.taken.withheld)
                        pictures.tidy()
                        beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                    if self._held:  # a file must hold still for so long, whatever the kernel says meanwhile
                        await clock.sleep(config.scan_s)
                    elif await woken_within(changes.wakeup, config.scan_s, clock):
                        scan_due_us = now.mono_us
        finally:
            pictures.close()

    def _held_still(self, card: tuple[int, int], taken: Taken, first: bool) -> list[_File]:
        """One scan: the files that are new, and now as they were at the scan before. The oldest first."""
        folder, now = self._config.folder, self._site.clock.now()
        if _card_of(folder, self._config.mount) != card:
            raise _changed(folder)
        held: dict[str, _Held] = {}
        finished: dict[str, Stamp] = {}
        ready: list[_File] = []
        for name, stamp in _files_in(folder):
            if self._finished.get(name) == stamp or taken.has(name, stamp):
                finished[name] = stamp
                continue
            before = self._held.get(name)
            if before is None:
                held[name] = _Held(stamp, 0, None if first else now)
            else:
                held[name] = before._replace(stamp=stamp, scans=before.scans + 1 if before.stamp == stamp else 0)
            if held[name].scans:
                ready.append(_File(name, folder / name, held[name]))
        if first or finished.keys() < self._finished.keys():
            taken.forget_files_but(finished.keys() | held.keys())
        # What is no longer in the folder is forgotten, so that this stays as small as the folder.
        self._held, self._finished = held, finished
        here = held.keys() | finished.keys()
        self._called_bad = {name: stamp for name, stamp in self._called_bad.items() if name in here}
        return sorted(ready, key=lambda file: (file.held.stamp.mtime_ns, file.name))

    async def _shot_of(self, file: _File) -> Shot | None:
        """A whole picture or video, or None; a file that is bad is said once and counted once, until it changes."""
        stamp = file.held.stamp
        known_bad = self._called_bad.get(file.name) == stamp
        if known_bad and file.held.scans % PATIENT_SCANS:
            return None  # looked into again now and then: its fault may have gone away
        look = await self._card.run(_look_into, file, self._config.max_mib)
        if look.fault:
            if not known_bad:
                self._called_bad[file.name] = stamp
                self._bad += 1
                log.warning("%s: %r is not taken in: %s", self._device, file.name, look.fault)
            if look.lasting:
                self._finished[file.name] = stamp
                self._held.pop(file.name, None)
        if look.timeless:
            log.info("%s: %r does not say when it was taken: %s", self._device, file.name, look.timeless)
        return look.shot

    async def _refuse_full(self) -> None:
        """DeviceError when the folder is full and everything that it holds has been taken in."""
        least = self._config.full_below_mib * 2**20
        if not least or any(held.scans < PATIENT_SCANS for held in self._held.values()):
            return
        try:
            free = await self._card.run(free_bytes, self._config.folder)
        except OSError as error:
            raise _gone(self._config.folder, error) from error
        if free is not None and free < least:
            raise DeviceError(
                f"{self._config.folder} is full ({free // 2**20} MiB are free): the camera can save no more pictures. "
                "Everything in it was taken in: make room, or put in an empty card."
            )


def _zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DeviceError(
            f"time_zone: {name!r} is not known here. Is it written as in Asia/Tokyo? If so: apt install tzdata",
            named=name,
        ) from error


def _card_of(folder: Path, mount: bool) -> tuple[int, int]:
    """Which file system and folder stands under this name now: a card that was taken out leaves another one."""
    try:
        found = folder.stat()
    except OSError as error:
        raise _gone(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise DeviceError(f"{folder} is no folder: give the folder that the camera's pictures are in", named=folder)
    if mount and not os.path.ismount(folder):
        raise DeviceError(
            f"{folder} has no card mounted on it. Is the card in? If it needs no mounting, set mount = false", named=folder
        )
    return found.st_dev, found.st_ino


def _files_in(folder: Path, below: str = "", deep: int = 0) -> Iterator[tuple[str, Stamp]]:
    """Names, from the folder on, and stamps of the regular files that are called pictures or videos, in folders in it, too.

    Hidden ones are somebody's bookkeeping; links are not followed.
    """
    try:
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if deep < MOST_FOLDERS_DEEP:
                        yield from _files_in(folder, f"{below}{entry.name}/", deep + 1)
                elif entry.name.lower().endswith(_PICTURES + _VIDEOS):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed while we looked
                    if stat.S_ISREG(found.st_mode):
                        yield below + entry.name, _stamp(found)
    except FileNotFoundError as error:
        if not below:
            raise _gone(folder, error) from error
        # a folder in it, removed while we looked
    except OSError as error:
        raise _gone(folder / below, error) from error


def _gone(folder: Path, error: OSError) -> DeviceError:
    return DeviceError(
        f"{folder} can't be read: {error.strerror or error}. Is the card in, and is it mounted there?", named=folder
    )


def _changed(folder: Path) -> DeviceError:
    return DeviceError(f"{folder} is another folder than before: was the card taken out? It is read anew.")


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _look_into(file: _File, max_mib: int) -> _Look:
    try:
        file.name.encode("utf-8")
    except UnicodeEncodeError:
        return _Look(fault="its name is not UTF-8; give it another one")
    size = file.held.stamp.size
    picture = file.name.lower().endswith(_PICTURES)
    if picture and size > MAX_BYTES:
        return _Look(fault=f"it has {size} bytes, a picture has {MAX_BYTES} at most")
    if size > max_mib * 2**20:
        return _Look(
            fault=f"it has {size} bytes, more than max_mib allows; set that, and media.max_mib of the gateway, to let it pass"
        )
    try:
        look = _picture_in(file) if picture else _video_in(file)
    except FileNotFoundError:
        return _Look()
    except OSError as error:
        return _Look(fault=f"it can't be read: {error.strerror or error}", lasting=False)
    return _Look() if look.fault and file.held.scans < PATIENT_SCANS else look


def _picture_in(file: _File) -> _Look:
    stamp = file.held.stamp
    with file.path.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
        after = _stamp(os.fstat(opened.fileno()))
    if after != stamp or len(content) != stamp.size:
        return _Look()  # still being written after all
    if fault := jpeg_fault(content):
        return _Look(fault=fault)
    taken_at = camera_time(content)
    sha256 = hashlib.sha256(content).hexdigest()
    shot = Shot(
        file.path, file.name, sha256, len(content), "image/jpeg", content, taken_at.text, file.held.arrived, stamp.mtime_ns
    )
    return _Look(shot, timeless=taken_at.reason)


def _video_in(file: _File) -> _Look:
    stamp = file.held.stamp
    with file.path.open("rb") as opened:
        fault = video_fault(opened, stamp.size)
        opened.seek(0)
        kind = video_type(opened.read(12))
        opened.seek(0)
        sha256 = "" if fault else hashlib.file_digest(opened, "sha256").hexdigest()
        after = _stamp(os.fstat(opened.fileno()))
    if after != stamp:
        return _Look()  # still being written after all
    if fault or kind is None:
        return _Look(fault=fault or "it is no video")
    return _Look(Shot(file.path, file.name, sha256, stamp.size, kind, None, None))
