"""What the machine says of itself: /proc, /sys and statvfs (proc(5), Linux's thermal sysfs API).

Each function returns None when there is no such sensor or it can't be read now: absent, never zero.
"""

import os
from pathlib import Path
from typing import NamedTuple

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


def disk_written_bytes(folder: Path) -> float | None:
    """Bytes written since boot to the disk that holds `folder`, all of it (Linux: block/stat, field 7, in 512 bytes)."""
    try:
        device = folder.stat().st_dev
    except OSError:
        return None
    block = ROOT / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    words = (_text(block / "stat") or "").split()
    # A partition's own numbers stand beside its disk's: the card wears as a whole.
    whole = (_text(block.resolve().parent / "stat") or "").split() if (block / "partition").exists() else words
    sectors = _number(whole[6]) if len(whole) > 6 else None
    return sectors * 512 if sectors is not None else None


def agent_memory_bytes() -> float | None:
    """Memory that this process holds: VmRSS."""
    for line in (_text(ROOT / "proc/self/status") or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "VmRSS:" and (kib := _number(words[1])) is not None:
            return kib * 1024
    return None


class Supply(NamedTuple):
    """What the Raspberry Pi's firmware says of its supply and its heat, now."""

    undervoltage: bool
    throttled: bool


def supply() -> Supply | None:
    """The firmware's `get_throttled`, as the kernel shows it: bit 0 under-voltage, 1 frequency capped, 2 throttled, 3 too warm.

    Source: Raspberry Pi documentation, vcgencmd get_throttled; kernel driver raspberrypi-firmware's sysfs attribute.
    """
    # /sys/devices/platform/soc/soc:firmware on most; on a Pi 5 the name of `soc` has its address.
    for file in sorted((ROOT / "sys/devices/platform").glob("soc*/*firmware/get_throttled")):
        text = _text(file)
        try:
            bits = int(text, 16) if text else None
        except ValueError:
            bits = None
        if bits is not None:
            return Supply(bool(bits & 0b0001), bool(bits & 0b1110))
    alarm = None  # newer kernels have a sensor of the supply alone
    for chip in sorted((ROOT / "sys/class/hwmon").glob("hwmon*")):
        if _text(chip / "name") == "rpi_volt":
            alarm = _number(_text(chip / "in0_lcrit_alarm"))
    return Supply(bool(alarm), False) if alarm is not None else None


def supply_voltage_v() -> float | None:
    """Volts of the first supply that a board measures: a battery or charger (power_supply class), or an INA2xx (hwmon)."""
    for source in sorted((ROOT / "sys/class/power_supply").glob("*")):
        if (micro := _number(_text(source / "voltage_now"))) is not None:
            return micro / 1e6
    for chip in sorted((ROOT / "sys/class/hwmon").glob("hwmon*")):
        if (_text(chip / "name") or "").startswith("ina2") and (milli := _number(_text(chip / "in1_input"))) is not None:
            return milli / 1000
    return None


def wifi_rssi_dbm() -> float | None:
    """Signal of the first wireless interface that has one (/proc/net/wireless, the column `level`)."""
    for line in (_text(ROOT / "proc/net/wireless") or "").splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and " " not in name.strip() and len(words) >= 3:
            level = _number(words[2].rstrip("."))
            # Drivers that do not know say 0, or a quality instead of dBm.
            if level is not None and -200 <= level < 0:
                return level
    return None


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
