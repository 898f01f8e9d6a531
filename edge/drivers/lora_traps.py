"""Traps far from any Pi, heard by a LoRa receiver on a serial port: each trap is a device with its own name.

Frames are edge.decoders.trap_frame's. A frame is believed by its MAC and its counter alone. What it changes is written down, with
the events still to be told, before the first of them is told; so a power cut repeats an event (marked `found`) and loses none.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.clock import Instant
from edge.contract.names import Name
from edge.decoders import rylr998, trap_frame
from edge.decoders.advertisement import Lines
from edge.decoders.trap_frame import ReceivedFrame, TrapFrame, Why
from edge.drivers.paced import Kind, Paced, Tale, event_of
from edge.durable import write_whole
from edge.errors import DeviceError
from edge.hardware.serial_port import open_serial
from edge.hardware.wakeup import woken_within
from edge.records import Happened, Reading, Record, Site

log = logging.getLogger(__name__)

MAX_TRAPS = 49
MOVE_PAUSE_US = 300_000_000
"""At most one movement of each kind in so long is told; an animal that worries a trap does it for hours."""

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
_KEY_CHECK = b"satomori key check"


class LoraTrapConfig(BaseModel):
    """One trap of a `lora_traps`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[int, Field(ge=1, le=65_534, description="The address its transmitter sends, 1 to 65534.")]
    key_file: Path | None = Field(None, description="File that holds a key of its own, in place of the receiver's.")


class LoraTrapsConfig(BaseModel):
    """`type = "lora_traps"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["lora_traps"]
    port: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Serial port; a name under /dev/serial/by-id stays the same when another device is plugged in.",
        ),
    ]
    baud: Annotated[int, Field(ge=300, le=4_000_000, description="Speed of the port, 8N1.")] = 115_200
    format: Annotated[
        Literal["satomori", "rylr998"],
        Field(description="What the receiver prints: `satomori`, or `rylr998` for a REYAX RYLR998 module."),
    ] = "satomori"
    key_file: Path | None = Field(None, description="File that holds the AES-128 key of the traps: 32 hexadecimal digits.")
    trap: dict[Name, LoraTrapConfig] = Field(min_length=1, max_length=MAX_TRAPS, description="The traps by name, 1 to 49.")
    silent_after_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="For a receiver that prints something, if only an empty line, at least this often: longer silence "
            "means that it hangs. 0: it makes no such promise.",
        ),
    ] = 0
    heartbeat_s: Annotated[float, Field(ge=1, le=86_400, description="How often it says that the receiver is alive.")] = 60

    @model_validator(mode="after")
    def _usable(self) -> Self:
        owners: dict[int, str] = {}
        for name, trap in self.trap.items():
            if (owner := owners.setdefault(trap.address, name)) != name:
                raise ValueError(f"trap.{name}.address: {trap.address} belongs to trap.{owner} already")
            if self.key_file is None and trap.key_file is None:
                raise ValueError(f"trap.{name} has no key: set key_file, of the receiver or of this trap")
        return self

    @property
    def children(self) -> dict[str, str]:
        """The devices this one speaks for besides itself: name -> kind."""
        return dict.fromkeys(self.trap, "lora-trap")


class _Known(NamedTuple):
    """What is remembered of one trap; on the disk before anybody is told of it."""

    address: int
    key_check: str
    """Tells one key from another and nothing more: a new key's counter begins anew."""
    counter: int = -1
    lost: int = 0
    epoch: str = ""
    sprung: bool = False
    tamper_open: bool = False
    telling: tuple[str, ...] = ()
    """The kinds that were still to be told."""


class _Trap:
    """One trap: which frames of it are believed, what they change, and what is still to be told."""

    def __init__(self, name: str, address: int, key: bytes, site: Site, now: Instant) -> None:
        """Reads what is remembered; what had still to be told is told now. OSError when the disk can't be read."""
        self.name = name
        self.bad = 0
        self.first_us: int | None = None
        self._key, self._file = key, site.state / f"{name}.json"
        switch, tamper, shaken, tilted = Paced(), Paced(), Paced(1, MOVE_PAUSE_US), Paced(1, MOVE_PAUSE_US)
        self._queues = (switch, tamper, shaken, tilted)
        self._queue_of: dict[Kind, Paced] = {
            "trap_sprung": switch,
            "trap_reset": switch,
            "tamper_opened": tamper,
            "tamper_closed": tamper,
            "vibration": shaken,
            "tilt": tilted,
        }
        self._last = b""
        self._warned: set[str] = set()
        known = self._read(_Known(address, trap_frame.mac(key, _KEY_CHECK)[:4].hex()))
        self._known = known._replace(epoch=site.epoch)
        for text in known.telling:
            self._add(Tale(now, _KINDS[text], found=True))
        if known.epoch != site.epoch:
            # An outbox begun anew may have lost what the old one had not sent yet.
            if known.sprung and "trap_sprung" not in known.telling:
                self._add(Tale(now, "trap_sprung", found=True))
            if known.tamper_open and "tamper_opened" not in known.telling:
                self._add(Tale(now, "tamper_opened", found=True))

    def hear(self, heard: ReceivedFrame, frame: TrapFrame, now: Instant) -> list[Reading]:
        """What a frame of this address says; nothing when it is not believed, or was heard already.

        What it changes is durable when this returns, and waits in `take`. OSError when the disk takes nothing: then this object
        is of no use any more, and the frame counts as not heard.
        """
        known = self._known
        if not trap_frame.is_authentic(heard.payload, self._key):
            self._refuse("key", "its key did not make it: is the same key in the transmitter and in key_file?")
            return []
        if frame.counter <= known.counter:
            if frame.counter != known.counter or (self._last and heard.payload != self._last):
                self._refuse(
                    "number",
                    f"its number {frame.counter} is not above {known.counter}: a replay, or the transmitter lost its memory "
                    "and needs a new key or address",
                )
            return []
        lost = known.lost + (frame.counter - known.counter - 1 if known.counter >= 0 else 0)
        for tale in self._tales(frame, now):
            self._add(tale)
        state = known._replace(counter=frame.counter, lost=lost, sprung=frame.sprung, tamper_open=frame.tamper_open)
        self._keep(state._replace(telling=self._waiting()))
        self._last = heard.payload
        if self.first_us is None:
            self.first_us = now.mono_us
        values = {
            "heartbeat": (now.mono_us - self.first_us) / 1e6,
            "trap_closed": float(frame.sprung),
            "rssi": heard.rssi_dbm,
            "snr": heard.snr_db,
            "frames_lost": lost,
            "battery_voltage": None if frame.battery_mv is None else frame.battery_mv / 1000,
            "tilt_angle": frame.tilt_deg,
            "bait_level": frame.bait_percent,
            "bump": frame.bump,
            "pir_count": frame.pir_count,
        }
        return [Reading(now, self.name, metric, value) for metric, value in values.items() if value is not None]

    def take(self, now_us: int) -> Happened | None:
        """The next event that may be told now. Call `told` once it is committed."""
        for queue in self._queues:
            if tale := queue.take(now_us):
                return Happened(tale.at, event_of(tale, self.name))
        return None

    def told(self) -> None:
        """The event that was taken is committed: it is not told again."""
        self._keep(self._known._replace(telling=self._waiting()))

    @property
    def due_us(self) -> int | None:
        """When `take` has something; None while nothing waits."""
        return min((due for queue in self._queues if (due := queue.due_us) is not None), default=None)

    def _tales(self, frame: TrapFrame, now: Instant) -> Iterator[Tale]:
        """What this frame changes. Its state bits speak also for events whose own frames were lost."""
        sprung, found = self._known.sprung, self.first_us is None
        if frame.why is Why.SPRUNG:
            # Under a new number this is another catch, also when the reset in between was never heard.
            yield Tale(now, "trap_sprung")
            sprung = True
        if frame.sprung != sprung:
            kind: Kind = "trap_sprung" if frame.sprung else "trap_reset"
            yield Tale(now, kind, found=found and frame.why not in (Why.SPRUNG, Why.SET))
        tamper_open = self._known.tamper_open
        if frame.why is Why.TAMPER and not frame.tamper_open and not tamper_open:
            yield Tale(now, "tamper_opened")
            tamper_open = True
        if frame.tamper_open != tamper_open:
            kind = "tamper_opened" if frame.tamper_open else "tamper_closed"
            yield Tale(now, kind, found=found and frame.why is not Why.TAMPER)
        if frame.why in (Why.VIBRATION, Why.TILT) and not frame.sprung:
            yield Tale(now, "vibration" if frame.why is Why.VIBRATION else "tilt")

    def _add(self, tale: Tale) -> None:
        self._queue_of[tale.kind].add(tale)

    def _waiting(self) -> tuple[Kind, ...]:
        return tuple(kind for queue in self._queues for kind in queue.waiting)

    def _refuse(self, kind: Literal["key", "number"], reason: str) -> None:
        """Counts it, and says the first of its kind: whoever plays recordings back must not fill the log."""
        self.bad += 1
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s: a frame of its address was dropped; %s", self.name, reason)

    def _read(self, new: _Known) -> _Known:
        """What the file says, or `new`: when there is none, or it is about another transmitter."""
        try:
            saved = json.loads(self._file.read_text(encoding="utf-8"))
            known = _Known(**saved | {"telling": tuple(saved["telling"])})
            numbers = (known.address, known.counter, known.lost)
            right = all(type(one) is int for one in numbers) and {type(known.sprung), type(known.tamper_open)} == {bool}
            if not right or not set(_KINDS).issuperset(known.telling) or known.counter < -1 or known.lost < 0:
                raise ValueError("not what it should hold")
        except FileNotFoundError:
            return new
        except (ValueError, KeyError, TypeError) as error:
            log.error("%s can't be used (%s); %s is believed from its next frame on", self._file, error, self.name)
            return new
        same = (known.address, known.key_check) == (new.address, new.key_check)
        # The trap is the same under a new transmitter: what was told of it stays told.
        return known if same else known._replace(address=new.address, key_check=new.key_check, counter=-1)

    def _keep(self, known: _Known) -> None:
        write_whole(self._file, json.dumps(known._asdict()).encode())
        self._known = known


class LoraTraps:
    """Gives each frame to the trap it is from, and tells what that says."""

    metrics: ClassVar[tuple[str, ...]] = (
        "heartbeat",
        "trap_closed",
        "battery_voltage",
        "rssi",
        "snr",
        "tilt_angle",
        "bump",
        "pir_count",
        "bait_level",
        "frames_lost",
        "frames_bad",
        "frames_foreign",
    )

    def __init__(self, device: str, config: LoraTrapsConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._bad = self._foreign = 0

    async def records(self) -> AsyncIterator[Record]:
        """Each believed frame's events and readings at once; the receiver's own readings each heartbeat."""
        config, clock = self._config, self._site.clock
        came, lines, parse = asyncio.Event(), Lines(), _PARSERS[config.format]
        self._bad = self._foreign = 0
        traps = self._traps(clock.now())
        said: dict[tuple[str, str], int] = {}
        with open_serial(config.port, config.baud, came.set) as take:
            started_us = beat_due_us = spoke_us = clock.now().mono_us
            while True:
                chunk = take()
                now = clock.now()
                if chunk:
                    spoke_us = now.mono_us
                for line in lines.feed(chunk):
                    readings = self._hear(parse(line), traps, now)
                    for event, trap in _ready(traps, now):
                        yield event
                        trap.told()  # the agent comes back for more only when the event is committed
                    for reading in readings:
                        yield reading
                for event, trap in _ready(traps, now):
                    yield event
                    trap.told()
                if config.silent_after_s and now.mono_us - spoke_us >= config.silent_after_s * 1e6:
                    raise DeviceError(
                        f"the receiver on {config.port} has been silent for {config.silent_after_s:g} s: it hangs. "
                        "Plug it out and in again; its traps are unknown until then."
                    )
                if now.mono_us >= beat_due_us:
                    yield Reading(now, self._device, "heartbeat", (now.mono_us - started_us) / 1e6)
                    counts = {(trap.name, "frames_bad"): trap.bad for trap in traps.values()}
                    counts[self._device, "frames_bad"] = self._bad + lines.too_long
                    counts[self._device, "frames_foreign"] = self._foreign
                    for (device, metric), count in counts.items():
                        if count != said.get((device, metric), 0):
                            yield Reading(now, device, metric, count)
                    said = counts
                    beat_due_us = now.mono_us + int(config.heartbeat_s * 1e6)
                due_us = min([beat_due_us, *(trap.due_us for trap in traps.values() if trap.due_us is not None)])
                if config.silent_after_s:
                    due_us = min(due_us, spoke_us + int(config.silent_after_s * 1e6))
                await woken_within(came, max(due_us - clock.now().mono_us, 0) / 1e6, clock)

    def _hear(self, heard: ReceivedFrame | Literal["alive"] | None, traps: dict[int, _Trap], now: Instant) -> list[Reading]:
        """What one line has to say; counts it when that is nothing."""
        if heard == "alive":
            return []
        if heard is None:
            self._bad += 1
            return []
        frame = trap_frame.decode_frame(heard.payload)
        if frame is None or frame.address not in traps:
            self._foreign += 1
            return []
        return traps[frame.address].hear(heard, frame, now)

    def _traps(self, now: Instant) -> dict[int, _Trap]:
        """By address. DeviceError when a key can't be read."""
        keys: dict[Path, bytes] = {}
        traps = {}
        for name, trap in self._config.trap.items():
            own = trap.key_file is not None
            path = trap.key_file or self._config.key_file
            if path is None:
                raise ValueError(f"trap.{name} has no key, and its config let it pass")
            if path not in keys:
                keys[path] = _key(path, f"device.{self._device}.{f'trap.{name}.' if own else ''}key_file")
            traps[trap.address] = _Trap(name, trap.address, keys[path], self._site, now)
        return traps


def _ready(traps: dict[int, _Trap], now: Instant) -> Iterator[tuple[Happened, _Trap]]:
    """What may be told now, one after the other."""
    for trap in traps.values():
        while (event := trap.take(now.mono_us)) is not None:
            yield event, trap


def _key(path: Path, setting: str) -> bytes:
    """The 16 bytes that the file holds in hex. DeviceError, which never quotes the file: it holds a secret."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DeviceError(f"{setting}: {path} can't be read: {error.strerror}", named=path) from error
    except UnicodeDecodeError:
        text = ""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 16:
        text = f"{setting}: {path} holds no key of 32 hexadecimal digits; make one with `openssl rand -hex 16`"
        raise DeviceError(text, named=path)
    return key


_PARSERS: dict[str, Callable[[bytes], ReceivedFrame | Literal["alive"] | None]] = {
    "satomori": trap_frame.parse_line,
    "rylr998": rylr998.parse_line,
}
