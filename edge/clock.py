"""Time on the edge: the one place that reads the machine's clocks. Everything else is handed a `Clock`."""

import asyncio
import ctypes
import time
from pathlib import Path
from typing import NamedTuple, Protocol

_TIME_ERROR = 5  # linux/timex.h: the clock is not synchronised


class Instant(NamedTuple):
    """One moment by both clocks: UTC (may step) and time since boot (never does), in µs."""

    utc_us: int
    mono_us: int


class Clock(Protocol):
    """What the agent knows of time. Tests hand in a virtual one."""

    def now(self) -> Instant:
        """This moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits; returns early only by cancellation."""
        ...


class SystemClock:
    """The machine's own clocks. Time since boot counts suspend too (CLOCK_BOOTTIME)."""

    def now(self) -> Instant:
        """This moment, both clocks read back to back."""
        return Instant(time.time_ns() // 1000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)

    async def sleep(self, seconds: float) -> None:
        """asyncio's own sleep."""
        await asyncio.sleep(seconds)


def boot_id() -> str:
    """This boot as 16 hex digits, from the kernel's random boot id (proc(5), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "").strip()[:16]


def clock_state() -> str:
    """Whether the kernel's clock is disciplined now: `sync` or `unsync`, from adjtimex(2), TIME_ERROR when it is not.

    `holdover` (disciplined earlier in this boot) needs a memory and comes with the node's health.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(256)  # struct timex is 208 bytes on 64-bit Linux, less on 32; zero: read only
    return "sync" if libc.adjtimex(timex) in range(_TIME_ERROR) else "unsync"


def machine_id() -> str:
    """Text that another machine would not have: the system's id (machine-id(5)) and the Pi's serial number where there is one."""
    parts = []
    for path in ("/etc/machine-id", "/sys/firmware/devicetree/base/serial-number"):
        try:
            parts.append(Path(path).read_text(encoding="ascii", errors="replace").strip("\0\n"))
        except OSError:  # not every machine has both
            parts.append("")
    return "/".join(parts)
