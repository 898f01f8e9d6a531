"""Quiet hours: whether they are now, and when they end. Pure: `now` is an argument, the zone's rules come from tzdata.

They go by what a clock on the wall shows. On the night it is set forward, hours that never come are over at once; on the night
it is set back they begin with the first time it shows `from` and end with the last time it shows `to`: who sleeps is not
woken by the clock.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

from gateway.contacts.config import QuietConfig

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONGEST_DAYS = 7
"""Hours that follow each other without a gap are one, but for no longer: what can wait must not wait for ever."""

_Interval = tuple[int, int]  # µs, the end not in it


def quiet_until_us(quiets: Sequence[QuietConfig], now_us: int, zone: ZoneInfo) -> int | None:
    """When the quiet hours that are now end; None when it is none now. `zone` is for those that name no zone."""
    intervals = [interval for quiet in quiets for interval in _around(quiet, now_us, zone)]
    until, limit = now_us, now_us + LONGEST_DAYS * 86_400_000_000
    while until < limit:
        further = max((end for begin, end in intervals if begin <= until < end), default=until)
        if further == until:
            break
        until = further
    return min(until, limit) if until > now_us else None


def _around(quiet: QuietConfig, now_us: int, zone: ZoneInfo) -> Iterator[_Interval]:
    """The intervals that may hold `now`, or follow on one that does."""
    zone = ZoneInfo(quiet.zone) if quiet.zone else zone
    begins, ends = dt.time.fromisoformat(quiet.from_), dt.time.fromisoformat(quiet.to)
    today = dt.datetime.fromtimestamp(now_us / 1e6, zone).date()
    for number in range(-2, LONGEST_DAYS + 1):  # -2: a zone has skipped a whole day before
        day = today + dt.timedelta(days=number)
        if quiet.days is None or DAYS[day.weekday()] in quiet.days:
            begin = wall_us(day, begins, zone)
            end = wall_us(day + dt.timedelta(days=ends < begins), ends, zone, last=True)
            if begin < end:
                yield begin, end


def wall_us(day: dt.date, time: dt.time, zone: ZoneInfo, *, last: bool = False) -> int:
    """When the zone's clocks show this, UTC µs: the first time or the `last`; where they leap over it, the moment of the leap."""
    early, late = sorted(_us(dt.datetime.combine(day, time, zone).replace(fold=fold)) for fold in (0, 1))
    if early == late:
        return early
    wall = dt.datetime.combine(day, time)
    if _shown(early, zone) == wall:  # twice: both are right
        return late if last else early
    while late - early > 1_000_000:  # never: the leap lies between the two readings
        middle = (early + late) // 2
        early, late = (middle, late) if _shown(middle, zone) < wall else (early, middle)
    return late // 1_000_000 * 1_000_000


def _shown(us: int, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(us // 1_000_000, zone).replace(tzinfo=None, fold=0)


def _us(moment: dt.datetime) -> int:
    return int(moment.timestamp()) * 1_000_000
