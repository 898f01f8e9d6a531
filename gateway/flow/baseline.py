"""What is usual at this hour of this kind of day. Pure, but for the calendar of Japan's holidays (jpholiday).

A holiday is a day of its own kind: a Monday on which the town is on the street is no Monday. The usual is the median of the last
weeks, so that one festival does not make the next quiet week look like a fault.
"""

from datetime import UTC, date, datetime
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import jpholiday

KEPT = 8
"""So many values are remembered of each hour: about two months."""
LEAST = 3
"""Fewer than so many are no custom."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Memory = dict[str, Any]


def day_kind(day: date) -> str:
    """mon to sun, or `holiday` by the law of Japan."""
    return "holiday" if jpholiday.is_holiday(day) else _DAYS[day.weekday()]


def hour_of(time_us: int, zone: ZoneInfo) -> tuple[str, int]:
    """The kind of day and hour (`sat-14`) of a time, and when that local hour began, UTC s.

    The hour that is there twice when summer time ends is two hours of the same kind.
    """
    time_s = time_us // 1_000_000
    local = datetime.fromtimestamp(time_s, UTC).astimezone(zone)
    return f"{day_kind(local.date())}-{local.hour:02d}", time_s - local.minute * 60 - local.second


def remember(usual: Memory, kind: str, value: float) -> None:
    """Adds the sum of an hour that was wholly counted."""
    values = usual.setdefault(kind, [])
    values.append(value)
    del values[:-KEPT]


def expected(usual: Memory, kind: str) -> float | None:
    """The median of what was counted in such hours; None: there were too few to say."""
    values = usual.get(kind, ())
    return float(median(values)) if len(values) >= LEAST else None
