"""How the machine and what waits in the gateway are: measured at one moment. For `check`, with a level, and for `/metrics`.

Mends nothing. What can't be known is said to be unknown, never fine.
"""

import ctypes
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import disk_usage
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from gateway.backup import cli as backup_cli
from gateway.backup import places
from gateway.backup.backup import sqlite_path
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.judging import oldest_us
from gateway.nodes.authority import LISTENER, ends_us
from gateway.state import State
from gateway.state.tables import cursors, events, inbox, notifications, quotas
from gateway.store import open_store
from gateway.store.disk import RESERVE_MIB
from gateway.store.journal import put_aside
from gateway.telemetry import Telemetry
from gateway.terminal import day, minute

Level = Literal["OK", "!!", "??", "NG"]
"""Fine; a warning; nobody can say; a fault."""

TESTED_DAYS = 90
"""A restore that nobody tried for so long is a hope."""
ENDS_DAYS = 30
SCARCE_MIB = 4 * RESERVE_MIB
WAITS_US = 5 * 60 * 1_000_000
"""Longer than anything waits in a gateway that works."""
UNJUDGED_EVENT = "event not judged"
UNJUDGED_READING = "reading not judged"
PROBE = ("gateway", "check", "written_s")
"""The series that `check` writes to and reads: one point a day, in UTC, whose value is when in that day it was written last."""

_DAY_US = 86_400 * 1_000_000
_TIME_ERROR = 5
_GIB = 2**30


class Vital(NamedTuple):
    """How one part is."""

    level: Level
    text: str = ""
    """Empty: nothing to say beside the level."""


def clock() -> Vital:
    """Whether something disciplines the kernel's clock: adjtimex(2), which answers TIME_ERROR while nothing does."""
    timex = ctypes.create_string_buffer(512)  # larger than any struct timex; zero: read only
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):  # no Linux
        answer = -1
    if answer == _TIME_ERROR:
        return Vital("!!", "no time server keeps this machine's clock right. See: timedatectl")
    if answer < 0:
        return Vital("??", "the kernel does not say whether a time server keeps it right")
    return Vital("OK", "kept right by a time server")


def disk(config: GatewayConfig) -> Vital:
    """The least room on any disk that the gateway writes to. ConfigError where it is what is kept for alarms."""
    found: dict[int, tuple[int, Path]] = {}
    for folder in written(config).values():
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
        found.setdefault(os.stat(there).st_dev, (disk_usage(there).free, there))  # noqa: PTH116 - beside disk_usage
    free, where = min(found.values())
    text = f"{free / _GIB:.1f} GiB free at {where}"
    if free < RESERVE_MIB * 2**20:
        raise ConfigError(f"{text}: the rest is kept for alarms, and no pictures or readings are taken. Make room there")
    return Vital("!!" if free < SCARCE_MIB * 2**20 else "OK", text)


def written(config: GatewayConfig) -> dict[str, Path]:
    """The folders that the gateway writes to, by what is kept there: `state` and `store` where they are here."""
    found = {"media": config.media.folder}
    found |= {setting.removesuffix(".folder"): folder for setting, folder in places.folders(config).items()}
    if state := sqlite_path(config.state.url):
        found["state"] = state.parent
    if config.store.type == "sqlite":
        found["store"] = config.store.path.parent
    elif config.store.type == "victoriametrics":
        found["store"] = config.store.journal
    return found


def expose(config: GatewayConfig, telemetry: Telemetry) -> None:
    """Has `/metrics` tell of disks and certificates on this machine, asked whenever it is read; not a number: nobody can say."""
    for of, folder in written(config).items():
        telemetry.disk_free.labels(of).set_function(_known(_free, folder))
    files = {"client": config.broker.certificate_file}
    if config.nodes is not None:
        files |= {"authority": config.nodes.folder / "ca.pem", "listener": config.nodes.folder / f"{LISTENER}.pem"}
    for of, path in files.items():
        if path is not None:
            telemetry.certificate_ends.labels(of).set_function(_known(_ends, path))


def _free(folder: Path) -> float:
    return disk_usage(folder).free


def _ends(path: Path) -> float:
    return ends_us(path) / 1e6


def _known(asked: Callable[[Path], float], path: Path) -> Callable[[], float]:
    def known() -> float:
        try:
            return asked(path)
        except (OSError, ConfigError):  # gone, or being replaced: `check` says what is wrong with it
            return math.nan

    return known


def note(state: State, telemetry: Telemetry, now_us: int) -> None:
    """Has `/metrics` tell what the state database knows: what waits to be judged, and the last backups."""
    waiting(state, telemetry, now_us)
    with state.read() as connection:
        made_us, tested_us = backup_cli.last(connection)
    telemetry.backup_made.set((made_us or 0) / 1e6)
    telemetry.restore_tested.set((tested_us or 0) / 1e6)


def waiting(state: State, telemetry: Telemetry, now_us: int) -> None:
    """Has `/metrics` tell what waits to be judged: also where no process is there that judges."""
    with state.read() as connection:
        waits = _waits(connection, now_us)
    telemetry.unjudged_oldest.set(waits.get(UNJUDGED_EVENT, 0) / 1e6)
    telemetry.handed_oldest.set(waits.get(UNJUDGED_READING, 0) / 1e6)


def store(config: GatewayConfig, now_us: int) -> Vital:
    """Writes a point and reads it. ConfigError, StoreDown, StoreRefused; ConfigError also where it does not come back."""
    begins_us = now_us - now_us % _DAY_US
    begins_ms, value = begins_us // 1000, float((now_us - begins_us) // 1_000_000)
    began = time.monotonic()
    opened = open_store(config.store)
    try:
        opened.write([(PROBE, begins_ms, value)])
        read = opened.read(*PROBE, begins_ms, begins_ms + 1, 1)
    finally:
        opened.close()
    # A server that keeps both of two equal times gives the larger back.
    if not read or read[0][1] < value:
        raise ConfigError("store: a point that was written does not come back when it is read")
    text = f"written and read in {(time.monotonic() - began) * 1000:.0f} ms"
    if config.store.type == "victoriametrics" and (aside := put_aside(config.store.journal)):
        names = ", ".join(path.name for path in aside[:3]) + (" and others" if len(aside) > 3 else "")
        return Vital("!!", f"{text}; {len(aside)} files in {config.store.journal} hold readings that it may not have: {names}. "
                           "The gateway's log says why; try to give it them again, then remove them")  # fmt: skip
    return Vital("OK", text)


def certificates(ends: Mapping[str, int], now_us: int, zone: ZoneInfo) -> Vital:
    """Until when certificates are good; `ends`: UTC µs of each, by what it is called."""
    first_us = min(ends.values())
    level: Level = "!!" if first_us - now_us < ENDS_DAYS * _DAY_US else "OK"
    return Vital(level, ", ".join(f"{name} until {day(end_us, zone)}" for name, end_us in ends.items()))


def quota(connection: Connection, now_us: int, zone: ZoneInfo) -> Vital:
    """What LINE said of this month's messages."""
    row = connection.execute(select(quotas).where(quotas.c.channel == "line")).first()
    if row is None:
        return Vital("??", "not read from LINE yet: the gateway does so each hour")
    asked = f"of {minute(row.read_us, zone)}"
    if row.limit_ is None:
        return Vital("OK", f"no limit, {asked}")
    left = max(row.limit_ - row.used, 0)
    old = now_us - row.read_us > _DAY_US
    return Vital("!!" if not left else "??" if old else "OK", f"{left} of {row.limit_} left, {asked}")


def queues(connection: Connection, now_us: int) -> Vital:
    """How long the oldest has waited of what should be done at once."""
    waits = _waits(connection, now_us)
    if not waits:
        return Vital("OK", "nothing waits")
    said = ", ".join(f"the oldest {what} for {_long(wait_us)}" for what, wait_us in waits.items())
    return Vital("!!" if max(waits.values()) > WAITS_US else "OK", said)


def _waits(connection: Connection, now_us: int) -> dict[str, int]:
    """How long in µs the oldest has waited, by what it is; without what does not wait."""
    judged = select(cursors.c.value).where(cursors.c.name == "watch").scalar_subquery()
    asked = {
        "message to send": select(func.min(notifications.c.due_us)).where(notifications.c.state == "queued"),
        "answer": select(func.min(inbox.c.received_us)).where(inbox.c.done_us.is_(None)),
        UNJUDGED_EVENT: select(func.min(events.c.received_us)).where(events.c.id > func.coalesce(judged, 0)),
    }
    since = {what: connection.scalar(query) for what, query in asked.items()} | {UNJUDGED_READING: oldest_us(connection)}
    waits = {}
    for what, since_us in since.items():
        if since_us is not None and since_us <= now_us:
            waits[what] = now_us - since_us
    return waits


def backup(connection: Connection, now_us: int, zone: ZoneInfo) -> Vital:
    """When the last one was made, and when somebody tried whether it can be put back."""
    made_us, tested_us = backup_cli.last(connection)
    made = "none was ever made here" if made_us is None else f"made {day(made_us, zone)}"
    if tested_us is None:
        return Vital("!!", f"{made}; a restore was never tested: satomori-gateway restore gateway.toml BACKUP --dry-run")
    said = f"{made}; a restore was tested {day(tested_us, zone)}"
    if now_us - tested_us > TESTED_DAYS * _DAY_US:
        return Vital("!!", f"{said}, more than {TESTED_DAYS} days ago: satomori-gateway restore gateway.toml BACKUP --dry-run")
    return Vital("!!" if made_us is None else "OK", said)


def _long(us: int) -> str:
    minutes = us // 60_000_000
    return f"{us // 1_000_000} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
