"""Watch tags near a BLE receiver on a serial port: tag_entered, tag_seen, tag_left, tags_near, heartbeat.

The receiver prints one advertisement a line, `<rssi dBm> <hex of the advertising data>` (edge.decoders.advertisement).
An empty line means "I am alive". Only tags of the configured UUIDs and namespaces pass: every other advertisement is
counted and forgotten, so that nobody who did not ask for it is ever followed.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from edge.clock import Instant
from edge.decoders.advertisement import Lines, parse_advertisement, parse_line
from edge.decoders.eddystone import decode_eddystone_uid
from edge.decoders.ibeacon import decode_ibeacon
from edge.drivers.sightings import Sightings
from edge.errors import DeviceError
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Happened, Reading, Record, Site

_HEX = r"[0-9A-Fa-f]"
ProximityUuid = Annotated[
    str,
    StringConstraints(pattern=rf"^{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}$"),
    AfterValidator(lambda text: str(uuid.UUID(text))),
]
"""An iBeacon's proximity UUID; kept in lower case with dashes."""

Namespace = Annotated[str, StringConstraints(pattern=rf"^{_HEX}{{20}}$", to_lower=True)]
"""An Eddystone-UID namespace, 10 bytes in hex; kept in lower case."""


class BleTagsConfig(BaseModel):
    """`type = "ble_tags"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["ble_tags"]
    port: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Serial port; a name under /dev/serial/by-id stays the same when another device is plugged in.",
        ),
    ]
    baud: Annotated[int, Field(ge=300, le=4_000_000, description="Speed of the port, 8N1.")] = 115_200
    ibeacon_uuids: Annotated[
        tuple[ProximityUuid, ...], Field(max_length=100, description="Proximity UUIDs of the town's iBeacon tags.")
    ] = ()
    eddystone_namespaces: Annotated[
        tuple[Namespace, ...], Field(max_length=100, description="Namespaces of the town's Eddystone-UID tags.")
    ] = ()
    leave_after_s: Annotated[float, Field(ge=1, le=3600, description="A tag that was not heard for so long has left.")] = 60
    summary_s: Annotated[float, Field(ge=10, le=3600, description="How often a tag that stays within reach is spoken of.")] = 120
    silent_after_s: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="For a receiver that prints something, if only an empty line, at least this often: longer "
            "silence means that it hangs, and no tag is said to have left. 0: it makes no such promise.",
        ),
    ] = 0
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the receiver is alive.")] = 60

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.ibeacon_uuids and not self.eddystone_namespaces:
            raise ValueError("give ibeacon_uuids or eddystone_namespaces: without them every tag is foreign")
        if self.silent_after_s >= self.leave_after_s:
            raise ValueError("silent_after_s must be less than leave_after_s: a silent receiver would make tags leave")
        return self


class BleTags:
    """Condenses what a receiver hears into sightings of the town's own tags."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "tags_near", "frames_foreign", "frames_bad")

    def __init__(self, device: str, config: BleTagsConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._foreign = 0
        self._bad = 0

    async def records(self) -> AsyncIterator[Record]:
        """Sightings as they come; readings each heartbeat.

        Begins with nobody near: while the port could not be read, nobody was seen to leave either.
        """
        config, clock = self._config, self._site.clock
        came, lines = asyncio.Event(), Lines()
        sightings = Sightings(self._device, config.leave_after_s, config.summary_s)
        self._foreign = self._bad = 0
        said = (0, 0)
        with open_serial(config.port, config.baud, came.set) as take:
            started_us = beat_due_us = spoke_us = clock.now().mono_us
            while True:
                chunk = take()
                now = clock.now()
                if chunk:
                    spoke_us = now.mono_us
                for line in lines.feed(chunk):
                    for sighting in self._sightings_of(line, sightings, now):
                        yield sighting
                if config.silent_after_s and now.mono_us - spoke_us >= config.silent_after_s * 1e6:
                    raise DeviceError(
                        f"the receiver on {config.port} has been silent for {config.silent_after_s:g} s: it hangs. "
                        "Plug it out and in again; who is near is unknown until then."
                    )
                for sighting in sightings.tick(now):
                    yield sighting
                if now.mono_us >= beat_due_us:
                    yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                    yield Reading(now, self._device, "tags_near", sightings.near)
                    counts = (self._foreign + sightings.refused, self._bad + lines.too_long)
                    for metric, count, before in zip(("frames_foreign", "frames_bad"), counts, said, strict=True):
                        if count != before:
                            yield Reading(now, self._device, metric, count)
                    said = counts
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                due_us = min(beat_due_us, sightings.next_due_us() or beat_due_us)
                if config.silent_after_s:
                    due_us = min(due_us, spoke_us + int(config.silent_after_s * 1e6))
                await woken_within(came, max(due_us - clock.now().mono_us, 0) / 1e6, clock)

    def _sightings_of(self, line: bytes, sightings: Sightings, now: Instant) -> list[Happened]:
        """What one line of the receiver has to say; counts it when that is nothing."""
        if not line.rstrip(b"\r"):
            return []
        heard = parse_line(line)
        if heard is None:
            self._bad += 1
            return []
        advertisement = parse_advertisement(heard.payload)
        beacon = decode_ibeacon(advertisement)
        if beacon is not None and beacon.uuid in self._config.ibeacon_uuids:
            return sightings.heard(beacon.tag, heard.rssi_dbm, now)
        frame = decode_eddystone_uid(advertisement)
        if frame is not None and frame.namespace in self._config.eddystone_namespaces:
            return sightings.heard(frame.tag, heard.rssi_dbm, now)
        if advertisement.whole:
            self._foreign += 1
        else:
            self._bad += 1
        return []
