"""From a picture to its event, for every kind of camera: burst, verdict, shelf or withheld, told once.

The order of a picture's steps is what keeps it: it is looked at, put on a shelf durably, its event is yielded, and when the
driver is asked for the next record, and so this one is committed, it is remembered. A crash in between repeats the event and
never loses it.

A model's verdict is a burst's as much as a picture's. A person in one picture of a burst closes all of it: those that follow are
told as `person_or_vehicle`, and those before are told once more, withdrawn from the way to the gateway if they have not gone. A
vote can only close and never open: a picture is told as `animal` only if it says so itself and most of its burst do not doubt it.
"""

import calendar
import hashlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple

from edge.clock import Instant
from edge.contract.events import Content, MediaCaptured
from edge.drivers.camera_clock import CameraClock
from edge.drivers.taken import Recent, Taken
from edge.errors import DeviceError
from edge.hardware.card import CardReader
from edge.hardware.classifier import UNCLASSIFIED, Classifier, ModelConfig, Verdict, judge_within, load_classifier
from edge.media import MediaFolder
from edge.records import Happened, Record, Site

log = logging.getLogger(__name__)

LONGEST_BURST_S = 60
"""A burst ends after this, even if pictures go on coming: an hour of grazing deer is no one burst."""

LIVE_S = 120
"""A file older than its arrival by more was not written by the camera just now, and says nothing of the camera's clock."""


class Shot(NamedTuple):
    """A whole picture or video, not remembered yet."""

    path: Path
    name: str
    """What people call it: its name in the folder."""
    sha256: str
    size: int
    content_type: str
    content: bytes | None
    """A picture's bytes; None of a video, which stays in its file."""
    camera_time: str | None
    """ISO 8601, as the camera says it."""
    arrived: Instant | None = None
    """When it was first seen, if it came while its folder was watched; and what the file says of that."""
    mtime_ns: int = 0
    burst: str | None = None
    """Where the driver knows it better than the camera's times."""
    at: Instant | None = None
    """When it was taken, where the driver knows; else its event is of the moment it is told."""


class Pictures:
    """What one camera has taken in. `open` before all else, `close` after."""

    def __init__(self, device: str, site: Site, model: ModelConfig | None, zone: tzinfo = UTC, burst_s: float = 0) -> None:
        """`zone`: what the camera's clock is set to; `burst_s`: pictures so close by that clock are one burst."""
        self._device, self._site, self._model, self._zone, self._burst_s = device, site, model, zone, burst_s
        self._said_slow = False

    async def open(self) -> None:
        """DeviceError when the memory, the model or the folder for withheld pictures can't be used."""
        self._classifier: Classifier | None = None if self._model is None else await load_classifier(self._model)
        self.taken = Taken(self._site.state)
        try:
            self._withheld_folder = self._site.state / "withheld"
            self._withheld = MediaFolder(self._withheld_folder)
            self._clock = CameraClock(self.taken.samples)
            self.tidy()
        except OSError as error:
            self.close()
            raise DeviceError(f"{self._withheld_folder}, where pictures with persons stay, can't be used: {error}") from error

    def close(self) -> None:
        """Lets go of the memory."""
        self.taken.close()

    def tidy(self, room_for: int = 0) -> None:
        """Removes withheld pictures that are too old, and the oldest while there are too many. OSError from the disk."""
        model = self._model or ModelConfig(file=Path())  # none any more: what it left behind goes all the same, in time
        kept = sorted(((item, item.path.stat()) for item in self._withheld.waiting()), key=lambda one: one[1].st_mtime_ns)
        room = model.withheld_mib * 2**20 - room_for - sum(found.st_size for _, found in kept)
        now_s = self._site.clock.now().utc_us / 1e6
        for item, found in kept:
            too_old = self._site.clock_state() == "sync" and found.st_mtime < now_s - model.withheld_days * 86_400
            if not too_old and room >= 0:
                break  # the oldest come first
            self._withheld.done(item.sha256)
            room += found.st_size

    async def take(self, shot: Shot, card: CardReader) -> AsyncIterator[Record]:
        """The events of a picture that is not in `taken` yet: its own last, before it those it corrects."""
        taken_s = _naive_s(shot.camera_time)
        self._note_arrival(shot)
        recent = self.taken.recent()
        burst = shot.burst or self._burst_of(shot.sha256, taken_s, recent)
        own = await self._judge(shot)
        mates = [one for one in recent if burst is not None and one.event.burst == burst]
        content = _vote(own.content, [one.own for one in mates])
        withheld = content == "person_or_vehicle" and self._model is not None and not self._model.upload_persons
        if content == "person_or_vehicle":
            for mate in mates:
                if mate.event.content != content:
                    corrected = await self._corrected(mate.event, own.confidence, card, withhold=withheld)
                    yield Happened(self._site.clock.now(), corrected)
                    self.taken.correct(corrected)
        event = MediaCaptured(
            device=self._device,
            media=shot.sha256,
            size=shot.size,
            content_type=shot.content_type,
            camera_time=shot.camera_time,
            camera_offset_s=self._clock.offset_s(),
            burst=burst,
            content=content,
            confidence=own.confidence,
            # What animal it is is nobody's business where a person may be in it.
            species=None if content == "person_or_vehicle" else own.species,
            withheld=withheld,
        )
        await self._keep(shot, card, withheld=withheld)
        yield Happened(shot.at or self._site.clock.now(), event)
        self.taken.add(Recent(event, taken_s, own.content), self._clock.samples)

    def _note_arrival(self, shot: Shot) -> None:
        arrived = shot.arrived
        if arrived is None or shot.camera_time is None or self._site.clock_state() != "sync":
            return
        written_s, arrived_s = shot.mtime_ns / 1e9, arrived.utc_us / 1e6
        if written_s < arrived_s - LIVE_S or written_s > self._site.clock.now().utc_us / 1e6 + LIVE_S:
            return
        said = datetime.fromisoformat(shot.camera_time)
        camera_s = (said if said.tzinfo else said.replace(tzinfo=self._zone)).timestamp()
        self._clock.saw(camera_s, min(arrived_s, written_s), arrived.mono_us / 1e6)

    def _burst_of(self, sha256: str, taken_s: int | None, recent: list[Recent]) -> str | None:
        """The burst of a picture taken at most `burst_s` before or after; else one that begins with this picture."""
        if taken_s is None:
            return None
        near: tuple[float, str] | None = None
        first: dict[str, int] = {}
        for one in recent:
            if one.taken_s is not None and one.event.burst is not None:
                first[one.event.burst] = one.taken_s  # the newest come first, so what stays is the burst's first picture
                apart = abs(one.taken_s - taken_s)
                if apart <= self._burst_s and (near is None or apart < near[0]):
                    near = apart, one.event.burst
        if near is not None and abs(taken_s - first[near[1]]) <= LONGEST_BURST_S:
            return near[1]
        return burst_of(self._device, sha256)

    async def _judge(self, shot: Shot) -> Verdict:
        if self._classifier is None or self._model is None or shot.content is None:
            return UNCLASSIFIED
        try:
            verdict = await judge_within(self._classifier, shot.content, self._model.timeout_s, self._site.clock)
        except TimeoutError as error:
            if not self._said_slow:
                log.warning("%s: the model is too slow for this node (%s): pictures stay unclassified", self._device, error)
            self._said_slow = True
            return UNCLASSIFIED
        except ValueError as error:
            log.warning("%s: %r stays unclassified: %s", self._device, shot.name, error)
            return UNCLASSIFIED
        if self._said_slow:
            log.warning("%s: the model is fast enough again", self._device)
            self._said_slow = False
        return verdict

    async def _corrected(
        self, before: MediaCaptured, confidence: float | None, card: CardReader, *, withhold: bool
    ) -> MediaCaptured:
        """The event of a picture in whose burst a person was found, and the picture out of the way if it has not gone."""
        try:
            withheld = withhold and await card.run(self._withdraw, before.media)
        except OSError as error:
            raise DeviceError(f"picture {before.media} can't be withheld: {error}") from error
        closed = {"content": "person_or_vehicle", "confidence": confidence, "species": None, "withheld": withheld}
        return before.model_copy(update=closed)

    def _withdraw(self, sha256: str) -> bool:
        """Whether the picture is among the withheld now: also if a crash came after the move and before its event."""
        return self._site.media.withdraw(sha256, self._withheld_folder) or any(self._withheld_folder.glob(f"{sha256}.*"))

    async def _keep(self, shot: Shot, card: CardReader, *, withheld: bool) -> None:
        shelf = self._withheld if withheld else self._site.media
        try:
            if withheld:
                self.tidy(room_for=shot.size)
            if shot.content is not None:
                await card.run(shelf.keep, shot.content, shot.content_type)
            else:
                await card.run(shelf.keep_file, shot.path, shot.sha256, shot.content_type)
        except OSError as error:
            raise DeviceError(f"{shot.name!r} can't be stored and waits where it is: {error}") from error


def burst_of(device: str, sha256: str) -> str:
    """The name of the burst that begins with this picture."""
    return hashlib.sha256(f"{device}/{sha256}".encode()).hexdigest()[:16]


def _vote(own: Content, others: list[str]) -> Content:
    """What is told of a picture, by its own verdict and those of its burst so far."""
    if "person_or_vehicle" in (own, *others):
        return "person_or_vehicle"
    if own == "animal" and others.count("unsure") * 2 > len(others) + 1:
        return "unsure"
    return own


def _naive_s(camera_time: str | None) -> int | None:
    """Seconds by the camera's own clock, from any beginning."""
    if camera_time is None:
        return None
    return calendar.timegm(datetime.fromisoformat(camera_time).replace(tzinfo=UTC).timetuple())
