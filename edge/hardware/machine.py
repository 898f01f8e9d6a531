"""What the machine says of itself: /proc, /sys and statvfs (proc(5), Linux's thermal sysfs API).

Each function returns None when there is no such sensor or it can't be read now: absent, never zero.
"""

import os
from pathlib import Path

ROOT = Path("/")
"""Where /proc and /sys hang: the seam for tests."""


def cpu_temperature_c() -> float | None:
    """The processor's temperature: the first thermal zone whose type speaks of the CPU, SoC or package."""
    for zone in sorted((ROOT / "sys/class/thermal").glob("thermal_zone*")):
        kind = _text(zone / "type")
        if kind is not None and any(word in kind.lower() for word in ("cpu", "soc", "pkg")):
            milli = _number(_text(zone / "temp"))
            if milli is not None:
                return milli / 1000
    return None


def load_1min() -> float | None:
    """Processes ready to run, mean of the last minute."""
    words = (_text(ROOT / "proc/loadavg") or "").split()
    return _number(words[0]) if words else None


def memory_free_bytes() -> float | None:
    """Memory that could still be handed out without swapping (MemAvailable)."""
    for line in (_text(ROOT / "proc/meminfo") or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "MemAvailable:" and (kib := _number(words[1])) is not None:
            return kib * 1024
    return None


def disk_free_bytes(folder: Path) -> float | None:
    """Free space, for ordinary users, on the file system that holds `folder`."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return float(found.f_bavail * found.f_frsize)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
