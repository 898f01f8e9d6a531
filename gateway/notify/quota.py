"""What a channel may still send this month: read from its provider, kept, foretold, and the rest of it kept for what is critical.

The provider's word is some minutes old, so what we sent since is counted on top. Months are those of the town's zone.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from gateway.state import State
from gateway.state.tables import notifications, quotas
from gateway.state.upsert import upsert

log = logging.getLogger(__name__)

EVERY_US = 3600 * 1_000_000
AFTER_PUSHES = 50
"""So many sent since the last reading: read again, whatever the hour."""

_DAY_S = 86_400


class Warn(Protocol):
    """`Own.condition` of gateway.own: what is so of one part of the gateway now."""

    def __call__(
        self, part: str, level: str, reason: str = "", facts: Mapping[str, Any] | None = None, opening: str = ""
    ) -> None: ...


class Left(NamedTuple):
    """What is known of this month."""

    limit: int | None
    """None: there is none."""
    used: int
    """The provider's count, and ours since."""
    runs_out: date | None
    """The day on which nothing is left if it goes on like this; None: not this month."""

    @property
    def left(self) -> int | None:
        """How many may still be sent; None: as many as one likes."""
        return None if self.limit is None else max(self.limit - self.used, 0)


def forecast(limit: int, used: int, now_us: int, zone: ZoneInfo) -> date | None:
    """The day of this month on which `used` reaches `limit` if each day is as the past ones were; None when that is later.

    A month that is younger than a day is taken for a day old: its first hour says nothing yet.
    """
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    local = now.astimezone(zone)
    begins = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (begins + timedelta(days=32)).replace(day=1)
    if used >= limit:
        return local.date()
    if used <= 0:
        return None
    passed_s = max((now - begins.astimezone(UTC)).total_seconds(), _DAY_S)
    left_s = (limit - used) * passed_s / used
    if left_s >= (following.astimezone(UTC) - now).total_seconds():
        return None
    return (now + timedelta(seconds=left_s)).astimezone(zone).date()


class Quota:
    """Of one channel. Safe from any thread."""

    def __init__(self, state: State, channel: str, zone: ZoneInfo, reserve: float, warn: Warn) -> None:
        """`reserve`: the share of the limit that only critical messages may use."""
        self._state, self._channel, self._zone, self._reserve, self._warn = state, channel, zone, reserve, warn
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._used = 0
        self._since = 0  # sent by us since the reading
        self._month: tuple[int, int] | None = None  # what the numbers are of
        self._read_us: int | None = None  # in this run; what the table says is not news
        self._unreadable = False
        with state.read() as connection:
            row = connection.execute(select(quotas).where(quotas.c.channel == channel)).first()
            if row is not None:
                self._limit, self._used, self._month = row.limit_, row.used, self._month_of(row.read_us)
                sent = select(func.count()).where(notifications.c.channel == channel, notifications.c.sent_us > row.read_us)
                self._since = connection.scalar(sent) or 0

    def allows(self, now_us: int, *, critical: bool) -> bool:
        """Whether one more may be sent. Until the first reading it may; the provider itself still says no."""
        known = self.left(now_us)
        if known.limit is None or known.left is None:
            return True
        return known.left > (0 if critical else known.limit * self._reserve)

    def spent(self, now_us: int) -> None:
        """One was sent."""
        with self._lock:
            self._turn(now_us)
            self._since += 1

    def left(self, now_us: int) -> Left:
        """What is known now."""
        with self._lock:
            self._turn(now_us)
            limit, used = self._limit, self._used + self._since
        return Left(limit, used, None if limit is None else forecast(limit, used, now_us, self._zone))

    def run(self, usage: Callable[[], tuple[int | None, int]], now_us: int) -> None:
        """The chore, each minute: asks the provider by `usage` when an hour or enough messages went by, keeps it, warns.

        A provider that can't be asked is told of once; the last reading and our own count go on.
        """
        with self._lock:
            due = self._read_us is None or now_us - self._read_us >= EVERY_US or self._since >= AFTER_PUSHES
            before = self._since
        if not due:
            return
        try:
            limit, used = usage()
        except OSError as error:
            if not self._unreadable:
                log.error("%s's quota can't be read: %s; trying again each minute", self._channel, error)
            self._unreadable = True
            return
        if self._unreadable:
            self._unreadable = False
            log.warning("%s's quota can be read again", self._channel)
        with self._state.write() as connection:
            connection.execute(
                upsert(quotas, "limit_", "used", "read_us"),
                {"channel": self._channel, "limit_": limit, "used": used, "read_us": now_us},
            )
        with self._lock:
            # What was sent while we asked may or may not be in the answer: it is counted, to be on the safe side.
            self._since = max(self._since - before, 0)
            self._limit, self._used, self._month, self._read_us = limit, used, self._month_of(now_us), now_us
        self._say(self.left(now_us), now_us)

    def _say(self, known: Left, now_us: int) -> None:
        year, month = self._month_of(now_us)
        opening = f"{year}-{month:02}"  # each is told once a month
        low, out = f"{self._channel}_quota", f"{self._channel}_quota_out"
        facts: dict[str, Any] = {"left": known.left, "limit": known.limit}
        if known.left == 0:
            self._warn(out, "firing", "used up", facts, opening)
        else:
            self._warn(out, "ok")
        if known.left and known.runs_out:
            noon = datetime.combine(known.runs_out, time(12), self._zone)
            facts["runs_out_us"] = int(noon.timestamp()) * 1_000_000
            self._warn(low, "firing", "will be used up", facts, opening)
        elif known.left != 0:
            self._warn(low, "ok")

    def _month_of(self, time_us: int) -> tuple[int, int]:
        local = datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(self._zone)
        return local.year, local.month

    def _turn(self, now_us: int) -> None:
        """A new month begins with nothing used, whatever the last reading said."""
        month = self._month_of(now_us)
        if self._month is not None and month != self._month:
            self._month, self._used, self._since, self._read_us = month, 0, 0, None
