"""What the agent believes of its clock, and how it remembers that: the one place that knows a wrong clock from a right one.

    never disciplined in this boot     unsync     its records get their time later, from their time since boot
    disciplined now                    sync
    disciplined earlier in this boot   holdover   until somebody sets it forward by hand; back, it is not followed

A Pi has no battery for its clock. Yet it can't be earlier than when its image was made, nor than a time it has seen before:
that is its floor, and until the clock is disciplined the agent counts from there. The floor is saved as a time that it was
*at least*: a clock that nobody disciplined never raises it, so that one a year ahead leaves no trace.

A `zero` is the UTC of time-since-boot 0, in µs: the difference of the two clocks, which moves only when UTC is set or drifts.
"""

import json
import logging
import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple

from edge.clock import Clock, Instant, SystemClock, boot_id, kernel_is_disciplined
from edge.contract.events import MAX_SEQ, ClockSynced
from edge.durable import write_whole
from edge.errors import DeviceError
from edge.records import Happened, Record

log = logging.getLogger(__name__)

FILE = "clock.json"
IMAGE_STAMP = Path("/etc/satomori-image")
"""Written when an image is made; its time is what counts."""

LOOK_S = 5.0
SAVE_US = 10 * 60 * 1_000_000  # some 4 MB a day for the card, all in all
STEP_US = 1_000_000
"""A clock that moved by more than this against the time since boot was set. It does not drift against it: Linux corrects the
rate of both alike."""
_READ_TWICE_US = 1000
AGREE_US = 60_000_000
"""By so much the machine's own clock may differ from ours and still judge the dates of certificates."""


class _Memory(NamedTuple):
    """The file: what was known at `mono_us` of that boot."""

    boot: str
    mono_us: int
    zero_us: int
    """Of that boot, at least; as the disciplined clock had it, where `synced`."""
    synced: bool
    """The gateway was told of this boot's zero (or the record that says so is in the outbox)."""


class Timekeeper:
    """The agent's `edge.clock.Clock`, what it says of itself, and a driver that says when it became right.

    The agent runs it like any driver: `records` looks every few seconds, yields ClockSynced when the clock is disciplined for
    the first time in this boot and whenever it stepped after that, and nothing else.
    """

    metrics: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        state: Path,
        boot: str,
        clock: Clock | None = None,
        disciplined: Callable[[], bool] = kernel_is_disciplined,
        *,
        image_us: int | None = None,
        device: str = "clock",
    ) -> None:
        """`state` is the agent's state folder, which exists; `clock` the machine's own, never before `image_us` (UTC).

        Reads the file; writes nothing before `records`.
        """
        self._path, self._boot, self._device = state / FILE, boot, device
        self._clock = clock or SystemClock()
        self._disciplined = disciplined
        memory = _read(self._path)
        self._floor_us: int | None = _floor(memory, boot, image_us, self._clock.now().mono_us)
        """The least that zero can be: what `now` counts from where the clock is behind. None for a moment only: the clock is
        disciplined, and says less."""
        self._least_us: int = self._floor_us
        """The same for the file: what the next boot starts from."""
        known = memory is not None and memory.boot == boot and memory.synced
        self._told = known
        seen = self._look()
        self._first_us = self._zero_us = seen.zero_us
        self._jumped_us = 0
        if known and memory is not None:
            moved_us = seen.zero_us - memory.zero_us
            self._jumped_us = moved_us if abs(moved_us) > STEP_US else 0  # set while nobody looked
        # From the first record on, for other drivers may be asked before this one.
        self._state = "sync" if seen.disciplined else "holdover" if known and not self._jumped_us else "unsync"
        if seen.disciplined:
            self._floor_us = self._least_us = seen.zero_us
        self._saved_us: int | None = None

    def now(self) -> Instant:
        """This moment; while nothing disciplines the clock never before the floor."""
        now, floor_us = self._clock.now(), self._floor_us  # once: threads ask too, and NTP may come in between
        if floor_us is None or now.utc_us >= floor_us + now.mono_us - STEP_US:
            return now
        if self._disciplined():
            self._floor_us = None
            return now
        return now._replace(utc_us=floor_us + now.mono_us)

    async def sleep(self, seconds: float) -> None:
        """As the machine's clock."""
        await self._clock.sleep(seconds)

    def clock_state(self) -> str:
        """`sync`, `holdover` or `unsync`, as in Batch.clock.

        It becomes `sync` only when what was read before is committed as `unsync`: see `records`.
        """
        return self._state

    def machine_state(self, machine: Clock | None = None) -> str:
        """As `clock_state`, of the machine's own clock, which OpenSSL goes by: `unsync` too where that one tells another time."""
        off_us = self.now().utc_us - (machine or SystemClock()).now().utc_us
        return self._state if abs(off_us) <= AGREE_US else "unsync"

    async def records(self) -> AsyncIterator[Record]:
        """ClockSynced, as above. OSError when what is known can't be saved. Saves it a last time when it is ended."""
        try:
            while True:
                if (event := self._judge()) is not None:
                    # The agent commits it together with all that waits in its memory, and only then goes on here: so no
                    # reading of the old clock is ever committed as one of the new.
                    yield event
                    self._told, self._jumped_us, self._state = True, 0, "sync"
                    self._saved_us = None
                mono_us = self._clock.now().mono_us
                if self._saved_us is None or mono_us - self._saved_us >= SAVE_US:
                    self._save()
                await self._clock.sleep(LOOK_S)
        except (CancelledError, GeneratorExit):
            try:
                self._save()
            except OSError as error:
                log.error("the time can't be saved: %s; the next boot starts from an earlier one", error)
            raise

    def _judge(self) -> Happened | None:
        """One look: moves the state, except to `sync` where that must be told first."""
        seen = self._look()
        moved_us, self._zero_us = seen.zero_us - self._zero_us, seen.zero_us
        if abs(moved_us) > STEP_US:
            self._jumped_us += moved_us
        if not seen.disciplined:
            # Set by hand, or by something that does not vouch for it: what was known of the clock is over.
            kept = self._told and abs(self._jumped_us) <= STEP_US and self._state != "unsync"
            self._state = "holdover" if kept else "unsync"
            return None
        self._floor_us = self._least_us = seen.zero_us
        if self._told and abs(self._jumped_us) <= STEP_US and self._state != "unsync":
            self._state = "sync"
            return None
        stepped_us = self._jumped_us if self._told else seen.zero_us - self._first_us
        log.info("the clock is right: %s, moved by %.1f s", _text(seen.at.utc_us), stepped_us / 1e6)
        zero_us = max(seen.zero_us, 0)
        return Happened(seen.at, ClockSynced(device=self._device, boot=self._boot, zero=zero_us, stepped=stepped_us))

    def _look(self) -> "_Look":
        """Both clocks and the kernel's word, all of one moment: UTC may be set between any two of these readings."""
        for _ in range(10):
            disciplined = self._disciplined()
            first, second = self.now(), self.now()
            zero_us, again_us = first.utc_us - first.mono_us, second.utc_us - second.mono_us
            if abs(zero_us - again_us) < _READ_TWICE_US and disciplined == self._disciplined():
                break
        return _Look(second, again_us, disciplined)

    def _save(self) -> None:
        mono_us = self._clock.now().mono_us
        memory = _Memory(self._boot, mono_us, self._least_us, self._told)
        write_whole(self._path, json.dumps(memory._asdict()).encode())
        self._saved_us = mono_us


class _Look(NamedTuple):
    at: Instant
    zero_us: int
    disciplined: bool


def set_clock_to_floor(
    state: Path,
    *,
    now: Callable[[], Instant] | None = None,
    disciplined: Callable[[], bool] = kernel_is_disciplined,
    image_us: int | None = None,
    set_utc_ns: Callable[[int], None] | None = None,
) -> str:
    """Sets the machine's clock forward to the floor where it is behind; returns what was done, in one line.

    For the start of a node: certificates are not valid yet in 1970. Never backward, and never against NTP. DeviceError when it
    may not.
    """
    at = (now or SystemClock().now)()
    floor_us = _floor(_read(state / FILE), boot_id(), image_us, at.mono_us) + at.mono_us
    if disciplined():
        return f"the clock is disciplined and says {_text(at.utc_us)}: left alone"
    if at.utc_us >= floor_us:
        return f"the clock says {_text(at.utc_us)}, not before {_text(floor_us)}: left alone"
    try:
        (set_utc_ns or _set_utc_ns)(floor_us * 1000)
    except OSError as error:
        raise DeviceError(
            f"the clock says {_text(at.utc_us)}, at least {_text(floor_us)} is right, and it can't be set: {error.strerror}. "
            "Run this as root, or give it CAP_SYS_TIME"
        ) from error
    return f"the clock said {_text(at.utc_us)}: set forward to {_text(floor_us)}, the last time known"


def remember(state: Path, now_us: int) -> None:
    """Notes a time that it is at least (UTC), as the gateway said it at a claim: the clock begins no earlier from now on.

    A time that was right in this boot already, or a later one, stays. OSError when it can't be written.
    """
    boot, mono_us, memory = boot_id(), SystemClock().now().mono_us, _read(state / FILE)
    zero_us = now_us - mono_us
    if memory is not None:
        right = memory.boot == boot and memory.synced
        if right or _floor(memory, boot, 0, mono_us) >= zero_us:
            return
    write_whole(state / FILE, json.dumps(_Memory(boot, mono_us, zero_us, synced=False)._asdict()).encode())


def _set_utc_ns(utc_ns: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, utc_ns)


def image_time_us() -> int:
    """When this installation was made, UTC µs: the newest of the package's files and of the image's stamp."""
    times = []
    for path in (IMAGE_STAMP, *Path(__file__).parent.rglob("*.py")):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns // 1000)
    return max(times)


def _floor(memory: _Memory | None, boot: str, image_us: int | None, mono_us: int) -> int:
    """The least that this boot's zero can be, by the file and the image. This boot began after all moments of an earlier one.

    Not so the image: a newer version may have been installed in the middle of it. `mono_us` is now, and that is after it.
    """
    least_us = (image_time_us() if image_us is None else image_us) - mono_us
    if memory is None:
        return least_us
    if memory.boot == boot:
        return memory.zero_us if memory.synced else max(least_us, memory.zero_us)
    return max(least_us, memory.zero_us + memory.mono_us)


def _read(path: Path) -> _Memory | None:
    """None where there is nothing, or nothing that can be used; the latter is said."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        said = json.loads(content)
        kinds = {name: type(value) for name, value in said.items()}
        if kinds != {"boot": str, "mono_us": int, "zero_us": int, "synced": bool}:
            raise ValueError(f"it holds {sorted(kinds)}")
        memory = _Memory(**said)
        if not (0 <= memory.mono_us <= MAX_SEQ and 0 <= memory.zero_us + memory.mono_us <= MAX_SEQ):
            raise ValueError("its times are impossible")
    except (ValueError, AttributeError, RecursionError) as error:
        log.warning("%s can't be used: %s; the clock starts from when the image was made", path, error)
        return None
    return memory


def _text(utc_us: int) -> str:
    try:
        return datetime.fromtimestamp(utc_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return f"{utc_us} µs since 1970"
