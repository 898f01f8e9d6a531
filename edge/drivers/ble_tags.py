"""Watch tags near a BLE receiver: tag_entered, tag_seen, tag_left, tag_battery, button_pressed, tags_near, heartbeat.

The receiver is the node's own Bluetooth (edge.hardware.ble), or a device on a serial port that prints one advertisement a line
(edge.decoders.advertisement). A tag is known by what it says of itself: iBeacon, Eddystone-UID, AltBeacon, or an Eddystone-EID
that the gateway told this node to expect. Frames without an identity (TLM, BTHome) count only beside one that has, by the
sender's address, which is remembered for a minute and never told; or where the configuration names the sender.

Only the town's own tags pass. Every other advertisement is counted and forgotten, so that nobody who did not ask for it is ever
followed: no address, no name and no byte of it is kept.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from edge.clock import Instant
from edge.contract.names import Name
from edge.decoders.advertisement import Advertisement, Lines, Received, parse_advertisement, parse_line
from edge.decoders.altbeacon import decode_altbeacon
from edge.decoders.bthome import BtHome, Sealed, decode_bthome, open_sealed
from edge.decoders.eddystone import decode_eddystone_eid, decode_eddystone_tlm, decode_eddystone_uid
from edge.decoders.ibeacon import decode_ibeacon
from edge.drivers.sightings import MAX_TAGS, Batteries, Buttons, Pressed, Sightings
from edge.durable import write_whole
from edge.errors import DeviceError
from edge.hardware.ble import open_scan
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Happened, Reading, Record, Site

log = logging.getLogger(__name__)

CHECK_S = 10.0
"""How often the node's own adapter is asked whether it is well."""

GATHER_S = 0.05
"""How long to let advertisements gather: a busy street has a thousand a second, which would wake a small processor as often."""

JOINED_US = 60 * 1_000_000
"""How long an address stands for the tag that used it last; tags change theirs to be left alone."""

_HEX = r"[0-9A-Fa-f]"
ProximityUuid = Annotated[
    str,
    StringConstraints(pattern=rf"^{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}$"),
    AfterValidator(lambda text: str(uuid.UUID(text))),
]
"""An iBeacon's proximity UUID; kept in lower case with dashes."""

Namespace = Annotated[str, StringConstraints(pattern=rf"^{_HEX}{{20}}$", to_lower=True)]
"""An Eddystone-UID namespace, 10 bytes in hex; kept in lower case."""

AltBeaconGroup = Annotated[str, StringConstraints(pattern=rf"^{_HEX}{{4}}:{_HEX}{{32}}$", to_lower=True)]
"""An AltBeacon maker's company identifier and the first 16 bytes of the beacon id, in hex; kept in lower case."""

Address = Annotated[
    str,
    StringConstraints(pattern=rf"^{_HEX}{{2}}(?::?{_HEX}{{2}}){{5}}$"),
    AfterValidator(lambda text: text.replace(":", "").lower()),
]
"""A Bluetooth address; kept as 12 hex digits in lower case."""


class BtHomeTag(BaseModel):
    """One tag of `bthome_tags`: a BTHome frame says nothing of who sent it, so the configuration does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Address = Field(description="The tag's Bluetooth address, which must be a fixed one; it never leaves the node.")
    key_file: Path | None = Field(
        None, description="File with the tag's bind key, 32 hex digits. With it, only what is sealed with that key counts."
    )


class BleTagsConfig(BaseModel):
    """`type = "ble_tags"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["ble_tags"]
    adapter: Annotated[
        str | None,
        Field(pattern=r"^hci[0-9]{1,2}$", description="The node's own Bluetooth, e.g. `hci0`. Give it or `port`, not both."),
    ] = None
    port: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Serial port of a receiver; a name under /dev/serial/by-id stays the same when another device is "
            "plugged in. Give it or `adapter`, not both.",
        ),
    ] = None
    baud: Annotated[int, Field(ge=300, le=4_000_000, description="Speed of the port, 8N1.")] = 115_200
    ibeacon_uuids: Annotated[
        tuple[ProximityUuid, ...], Field(max_length=100, description="Proximity UUIDs of the town's iBeacon tags.")
    ] = ()
    eddystone_namespaces: Annotated[
        tuple[Namespace, ...], Field(max_length=100, description="Namespaces of the town's Eddystone-UID tags.")
    ] = ()
    altbeacon_ids: Annotated[
        tuple[AltBeaconGroup, ...],
        Field(
            max_length=100,
            description="AltBeacon tags of the town: company identifier, a colon, the first 16 bytes of the beacon id, in hex.",
        ),
    ] = ()
    bthome_tags: Annotated[
        dict[Name, BtHomeTag], Field(max_length=MAX_TAGS, description="BTHome tags of the town that send nothing else, by name.")
    ] = {}
    leave_after_s: Annotated[float, Field(ge=1, le=3600, description="A tag that was not heard for so long has left.")] = 60
    summary_s: Annotated[float, Field(ge=10, le=3600, description="How often a tag that stays within reach is spoken of.")] = 120
    silent_after_s: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="For a receiver that hears or prints something, if only an empty line, at least this often: longer "
            "silence means that it hangs, and no tag is said to have left. 0: it makes no such promise.",
        ),
    ] = 0
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the receiver is alive.")] = 60

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if (self.adapter is None) == (self.port is None):
            raise ValueError("give either adapter (the node's own Bluetooth) or port (a receiver on a serial port)")
        if self.silent_after_s and self.silent_after_s >= self.leave_after_s:
            raise ValueError("silent_after_s must be less than leave_after_s: a silent receiver would make tags leave")
        addresses = [tag.address for tag in self.bthome_tags.values()]
        if len(set(addresses)) < len(addresses):
            raise ValueError("two of bthome_tags have the same address: nobody could tell them apart")
        return self


class _Receiver(Protocol):
    """Where advertisements come from, while it is open."""

    @property
    def bad(self) -> int:
        """Damaged lines so far."""
        ...

    @property
    def lost(self) -> int:
        """Advertisements so far that came faster than they were taken."""
        ...

    def take(self) -> tuple[list[Received], bool]:
        """What has come, and whether it showed any sign of life. DeviceError when it can't be read any more."""
        ...


class _Printed:
    """A receiver on a serial port. Once it has sent a checksum, a line without one is a damaged line."""

    lost = 0

    def __init__(self, take: Callable[[], bytes]) -> None:
        self._take = take
        self._lines = Lines()
        self._checked = False
        self._bad = 0

    @property
    def bad(self) -> int:
        return self._bad + self._lines.too_long

    def take(self) -> tuple[list[Received], bool]:
        chunk = self._take()
        return list(self._read(chunk)), bool(chunk)

    def _read(self, chunk: bytes) -> Iterator[Received]:
        for line in self._lines.feed(chunk):
            if not line.rstrip(b"\r"):
                continue
            heard = parse_line(line)
            if heard is None or (self._checked and not heard.checked):
                self._bad += 1
                continue
            self._checked = heard.checked
            yield Received(heard.rssi_dbm, heard.address, parse_advertisement(heard.payload))


class _Counts(NamedTuple):
    """Totals of what was dropped."""

    frames_foreign: int = 0
    frames_bad: int = 0
    frames_lost: int = 0


class _Joined:
    """Which of the town's tags an address belongs to, for a minute after it was heard. Strangers have no place here."""

    def __init__(self) -> None:
        self._tags: dict[str, tuple[str, int]] = {}  # the order is that of hearing

    def __len__(self) -> int:
        return len(self._tags)

    def heard(self, address: str, tag: str, now: Instant) -> None:
        self._tags.pop(address, None)
        self._tags[address] = (tag, now.mono_us + JOINED_US)
        self._forget(now)

    def tag_of(self, address: str | None, now: Instant) -> str | None:
        self._forget(now)
        return self._tags[address][0] if address in self._tags else None

    def _forget(self, now: Instant) -> None:
        while self._tags and (len(self._tags) > MAX_TAGS or next(iter(self._tags.values()))[1] <= now.mono_us):
            del self._tags[next(iter(self._tags))]


class _Ear:
    """Knows the town's tags among all advertisements, and says what is new of them."""

    def __init__(
        self, device: str, config: BleTagsConfig, site: Site, keys: dict[str, bytes], pressed: dict[str, Pressed]
    ) -> None:
        """`keys` by the name of a tag of `bthome_tags`; `pressed` as `Buttons.memory`."""
        self._config, self._expected, self._keys = config, site.expected, keys
        self.sightings = Sightings(device, config.leave_after_s, config.summary_s)
        self.buttons = Buttons(device, pressed, site.clock.now())
        self._batteries = Batteries(device)
        self._joined = _Joined()
        self._named = {tag.address: name for name, tag in config.bthome_tags.items()}
        self.foreign = self.bad = 0

    def hear(self, received: Received, now: Instant) -> list[Happened]:
        """What one advertisement has to say; counts it when that is nothing. A press comes first."""
        rssi, address, advertisement = received
        tag = self._tag_in(advertisement, now)
        if tag is not None and address is not None:
            self._joined.heard(address, tag, now)
        # A frame without an identity belongs to the one beside it, or to the tag that uses this address.
        owner = tag or self._joined.tag_of(address, now)
        said: list[Happened] = []
        tlm = decode_eddystone_tlm(advertisement)
        if owner is not None and tlm is not None:
            tag = owner
            volts = None if tlm.battery_mv is None else tlm.battery_mv / 1000
            said += self._batteries.heard(owner, volts, None, now)
        owner, home = self._home_in(advertisement, address, owner)
        if owner is not None and home is not None:
            tag = owner
            said = [
                *self.buttons.heard(owner, home, rssi, now),
                *said,
                *self._batteries.heard(owner, home.voltage, home.level, now),
            ]
        if tag is not None:
            return said + self.sightings.heard(tag, rssi, now)
        if advertisement.whole:
            self.foreign += 1
        else:
            self.bad += 1
        return []

    def _tag_in(self, advertisement: Advertisement, now: Instant) -> str | None:
        """The town's tag that says its identity in this advertisement."""
        config = self._config
        ibeacon = decode_ibeacon(advertisement)
        if ibeacon is not None and ibeacon.uuid in config.ibeacon_uuids:
            return ibeacon.tag
        uid = decode_eddystone_uid(advertisement)
        if uid is not None and uid.namespace in config.eddystone_namespaces:
            return uid.tag
        eid = decode_eddystone_eid(advertisement)
        if eid is not None and (name := self._expected(now).get(eid)) is not None:
            return f"eid:{name}"
        altbeacon = decode_altbeacon(advertisement)
        if altbeacon is not None and altbeacon.group in config.altbeacon_ids:
            return altbeacon.tag
        return None

    def _home_in(self, advertisement: Advertisement, address: str | None, owner: str | None) -> tuple[str | None, BtHome | None]:
        """Whose BTHome frame this is, and what it says; (None, None) where it is nobody's of ours or can't be believed."""
        frame = decode_bthome(advertisement)
        if frame is None:
            return None, None
        name = self._named.get(address or "")
        if name is None or address is None:
            return (None, None) if owner is None or isinstance(frame, Sealed) else (owner, frame)
        key = self._keys.get(name)
        if isinstance(frame, Sealed):
            home = open_sealed(frame, key, address) if key is not None else None
        else:
            home = frame if key is None else None  # anybody could have sent it
        return (None, None) if home is None else (f"bthome:{name}", home)


class BleTags:
    """Condenses what a receiver hears into few events of the town's own tags."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "tags_near", *_Counts._fields)

    def __init__(self, device: str, config: BleTagsConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._hung = False  # the adapter heard nobody for too long: it is switched off and on at the next try

    async def records(self) -> AsyncIterator[Record]:
        """Events as they come; readings each heartbeat.

        Begins with nobody near: while the receiver could not be read, nobody was seen to leave either.
        """
        config, clock = self._config, self._site.clock
        came = asyncio.Event()
        ear = _Ear(self._device, config, self._site, self._keys(), self._remembered())
        said = _Counts()
        async with self._open(came.set) as receiver:
            started_us = beat_due_us = spoke_us = clock.now().mono_us
            while True:
                received, alive = receiver.take()
                now = clock.now()
                if alive:
                    spoke_us = now.mono_us
                received.reverse()
                while received:  # taken out one by one, so that not even the last stranger is still held while this waits
                    happened = ear.hear(received.pop(), now)
                    for event in happened:
                        yield event
                    if any(event.event.type == "button_pressed" for event in happened):
                        self._remember(ear.buttons.memory)  # the agent comes back for more only when the event is committed
                self._expect_sound(spoke_us, now)
                for event in ear.sightings.tick(now):
                    yield event
                if now.mono_us >= beat_due_us:
                    yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                    yield Reading(now, self._device, "tags_near", ear.sightings.near)
                    counts = _Counts(
                        ear.foreign + ear.sightings.refused + ear.buttons.refused, ear.bad + receiver.bad, receiver.lost
                    )
                    for metric, count, before in zip(_Counts._fields, counts, said, strict=True):
                        if count != before:
                            yield Reading(now, self._device, metric, count)
                    said = counts
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                due_us = min(beat_due_us, ear.sightings.next_due_us() or beat_due_us)
                if config.silent_after_s:
                    due_us = min(due_us, spoke_us + int(config.silent_after_s * 1e6))
                if await woken_within(came, max(due_us - clock.now().mono_us, 0) / 1e6, clock):
                    await clock.sleep(GATHER_S)

    def _expect_sound(self, spoke_us: int, now: Instant) -> None:
        """DeviceError when the receiver has been silent for longer than it promised."""
        limit_s = self._config.silent_after_s
        if not limit_s or now.mono_us - spoke_us < limit_s * 1e6:
            return
        if self._config.adapter is None:
            raise DeviceError(
                f"the receiver on {self._config.port} has been silent for {limit_s:g} s: it hangs. "
                "Plug it out and in again; who is near is unknown until then."
            )
        self._hung = True
        raise DeviceError(
            f"Bluetooth adapter {self._config.adapter} has heard nobody at all for {limit_s:g} s: it hangs. "
            "It is switched off and on at the next try; who is near is unknown until then."
        )

    def _open(self, on_came: Callable[[], object]) -> AbstractAsyncContextManager[_Receiver]:
        return self._open_port(self._config.port, on_came) if self._config.port else self._open_adapter(on_came)

    @asynccontextmanager
    async def _open_port(self, port: str, on_came: Callable[[], object]) -> AsyncIterator[_Receiver]:
        with open_serial(port, self._config.baud, on_came) as take:
            yield _Printed(take)

    @asynccontextmanager
    async def _open_adapter(self, on_came: Callable[[], object]) -> AsyncIterator[_Receiver]:
        # Asked twice before a tag could be taken to have left, so that an adapter that failed makes nobody leave.
        check_s = min(CHECK_S, self._config.leave_after_s / 2)
        adapter = str(self._config.adapter)
        async with open_scan(adapter, self._site.clock, check_s, on_came, restart=self._hung) as scan:
            self._hung = False
            yield scan

    def _keys(self) -> dict[str, bytes]:
        """The bind keys of `bthome_tags`. DeviceError when one can't be read: its tag would be silently deaf."""
        keys = {}
        for name, tag in self._config.bthome_tags.items():
            if tag.key_file is None:
                continue
            try:
                key = bytes.fromhex(tag.key_file.read_text(encoding="ascii").strip())
            except (OSError, ValueError) as error:
                raise DeviceError(f"bthome_tags.{name}.key_file: {tag.key_file} can't be read: {error}") from error
            if len(key) != 16:
                raise DeviceError(f"bthome_tags.{name}.key_file: {tag.key_file} holds no key of 32 hex digits")
            keys[name] = key
        return keys

    def _remembered(self) -> dict[str, Pressed]:
        """The presses told before a restart: one heard on is no second one."""
        path = self._site.state / "pressed.json"
        try:
            return _PRESSED.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            log.error("%s can't be read (%s): a press from before the restart may be told again", path, str(error).split("\n")[0])
            return {}

    def _remember(self, pressed: dict[str, Pressed]) -> None:
        content = {tag: press.model_dump() for tag, press in pressed.items()}
        write_whole(self._site.state / "pressed.json", json.dumps(content).encode())


_PRESSED = TypeAdapter(dict[str, Pressed])
