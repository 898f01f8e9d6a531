"""Time on the edge: the one place that reads the machine's clocks. Everything else is handed a `Clock`."""

import asyncio
import ctypes
import time
from functools import cache
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


def kernel_is_disciplined() -> bool:
    """Whether something (NTP, GPS) disciplines the kernel's clock now: adjtimex(2), which answers TIME_ERROR while nothing does.

    The kernel forgets it by itself some 9 h after the last correction, when the error may have grown to 16 s.
    """
    timex = ctypes.create_string_buffer(256)  # struct timex is 208 bytes on 64-bit Linux, less on 32; zero: read only
    return _libc().adjtimex(timex) in range(_TIME_ERROR)


def clock_state() -> str:
    """`sync` or `unsync`, without a memory. What the agent says of its clock is edge.timekeeper's, which knows `holdover` too."""
    return "sync" if kernel_is_disciplined() else "unsync"


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def machine_id() -> str:
    """Text that another machine would not have: the system's id (machine-id(5)) and the Pi's serial number where there is one."""
    parts = []
    for path in ("/etc/machine-id", "/sys/firmware/devicetree/base/serial-number"):
        try:
            parts.append(Path(path).read_text(encoding="ascii", errors="replace").strip("\0\n"))
        except OSError:  # not every machine has both
            parts.append("")
    return "/".join(parts)
