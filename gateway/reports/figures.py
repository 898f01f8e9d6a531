"""What a month comes to: pure, and the only place where a report's numbers are reckoned.

A month and its days are those of the town's clock. Nothing that is not known becomes a zero: a median of no answers, the people
of a day on which no counter was heard, a device that never says that it is alive are None. What is still to come is left out.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

Watch = Literal["traps", "cameras", "tags", "flow"]
WATCHES: tuple[Watch, ...] = ("traps", "cameras", "tags", "flow")

MOST_PLACES = 40
"""Places with a line of their own; the others share the last line, whose name is empty."""
MOST_DEVICES = 40
"""Devices that are named: those that were silent for longest."""
HOUR_US = 3_600_000_000


class Month(NamedTuple):
    """A calendar month of the town's, and how much of it is over."""

    first: date
    from_us: int
    until_us: int
    """Where the next one begins."""
    known_until_us: int
    """The end, or now where it is not over."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be added to it."""
        return self.known_until_us == self.until_us


class Notice(NamedTuple):
    """People were told of something at a place. `answered_us`: when the first of them said, or showed, that they see to it."""

    place: str
    told_us: int
    answered_us: int | None


class Counted(NamedTuple):
    """So many of something, at a place and a time. `what` is a column: visits, captures, pictures, came, left."""

    what: str
    place: str
    at_us: int
    n: int = 1


class Device(NamedTuple):
    """A device, and when it was silent: (from, to), UTC µs. None: it never says that it is alive."""

    name: str
    silences: Sequence[tuple[int, int]] | None


class Recount(NamedTuple):
    """People counted the heads in an area. `reckoned`: what the counters had said there; None: they said nothing."""

    place: str
    at_us: int
    counted: int
    reckoned: int | None


class Check(NamedTuple):
    """How far the counters of an area were off, as recounts by people showed, per cent of the people who were there."""

    place: str
    recounts: int
    median_percent: float | None
    """None: not known, as where the counters said nothing, or nobody was there."""
    worst_percent: float | None


class Line(NamedTuple):
    """What was told at a place, or on a day (2026-09-03), and how fast it was answered, minutes; then the counted columns."""

    name: str
    told: int
    median_min: float | None
    p95_min: float | None
    unanswered: int
    counted: tuple[int | None, ...]


class Silence(NamedTuple):
    """For how long a device said nothing, hours, and the share of the time in which it was heard, per cent; None: not known."""

    name: str
    silent_h: float | None
    coverage_percent: float | None


class Figures(NamedTuple):
    """All of a month of one watch."""

    watch: Watch
    month: Month
    columns: tuple[str, ...]
    """What `Line.counted` counts."""
    total: Line
    places: tuple[Line, ...]
    """The one with most notices first; none where places would lead to people."""
    days: tuple[Line, ...]
    """Each that has begun."""
    kinds: tuple[tuple[str, int], ...]
    """Kinds of animals that were caught, or seen; the most first. Empty: not said."""
    devices: tuple[Silence, ...]
    """The one that was silent for longest first, then those of which nothing is known."""
    device_count: int
    heard: Silence
    """All devices together."""
    checks: tuple[Check, ...] = ()
    """Of each area, also where nobody recounted; none but of people's flow."""


COLUMNS: Mapping[Watch, tuple[str, ...]] = {
    "traps": ("visits", "captures"),
    "cameras": ("pictures",),
    "tags": (),
    "flow": ("came", "left"),
}
_UNHEARD_IS_UNKNOWN = frozenset(("came", "left"))
"""Columns of which nothing counted is not none: the counters may have been silent."""


def month_of(first: date, zone: ZoneInfo, now_us: int) -> Month:
    """The month that begins on this day."""
    following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    from_us, until_us = (_midnight(one, zone) for one in (first, following))
    return Month(first, from_us, until_us, max(from_us, min(until_us, now_us)))


def reckon(
    watch: Watch,
    month: Month,
    zone: ZoneInfo,
    notices: Sequence[Notice],
    counted: Sequence[Counted] = (),
    kinds: Iterable[str] = (),
    devices: Sequence[Device] = (),
) -> Figures:
    """The month's figures. What lies outside of the month is left out."""
    inside = [one for one in notices if month.from_us <= one.told_us < month.known_until_us]
    things = [one for one in counted if month.from_us <= one.at_us < month.known_until_us]
    columns = COLUMNS[watch]
    by_place = _lines(_grouped(inside, things, lambda place, _: place), columns)
    by_place.sort(key=lambda line: (-line.told, line.name))
    groups = _grouped(inside, things, lambda _, at_us: datetime.fromtimestamp(at_us / 1e6, zone).date().isoformat())
    for day in _days(month, zone):
        groups.setdefault(day.isoformat(), ([], []))
    heard = [_silence(one, month) for one in devices]
    heard.sort(key=lambda one: (one.silent_h is None, -(one.silent_h or 0), one.name))
    return Figures(
        watch,
        month,
        columns,
        total=_line("", inside, things, columns),
        places=() if watch == "tags" else _folded(by_place, inside, things, columns),
        days=tuple(sorted(_lines(groups, columns))),
        kinds=tuple(sorted(Counter(kinds).items(), key=lambda one: (-one[1], one[0]))),
        devices=() if watch == "tags" else tuple(heard[:MOST_DEVICES]),
        device_count=len(devices),
        heard=_together(heard),
    )


def checks_of(month: Month, areas: Iterable[str], recounts: Iterable[Recount]) -> tuple[Check, ...]:
    """How far off each area was in the month, too many or too few alike; also those of which there are recounts only."""
    inside = [one for one in recounts if month.from_us <= one.at_us < month.known_until_us]
    places = sorted({*areas, *(one.place for one in inside)})
    return tuple(_check(place, [one for one in inside if one.place == place]) for place in places)


def _check(place: str, recounts: Sequence[Recount]) -> Check:
    errors = [
        abs(one.reckoned - one.counted) / one.counted * 100
        for one in recounts
        if one.reckoned is not None and one.counted > 0  # of nobody there is no share to be off by
    ]
    if not errors:
        return Check(place, len(recounts), None, None)
    return Check(place, len(recounts), round(statistics.median(errors), 1), round(max(errors), 1))


Group = tuple[list[Notice], list[Counted]]


def _grouped(notices: Sequence[Notice], counted: Sequence[Counted], name_of: Callable[[str, int], str]) -> dict[str, Group]:
    groups: dict[str, Group] = defaultdict(lambda: ([], []))
    for notice in notices:
        groups[name_of(notice.place, notice.told_us)][0].append(notice)
    for thing in counted:
        groups[name_of(thing.place, thing.at_us)][1].append(thing)
    return groups


def _lines(groups: Mapping[str, Group], columns: Sequence[str]) -> list[Line]:
    return [_line(name, notices, things, columns) for name, (notices, things) in groups.items()]


def _line(name: str, notices: Sequence[Notice], things: Sequence[Counted], columns: Sequence[str]) -> Line:
    waits = sorted(max(one.answered_us - one.told_us, 0) / 60e6 for one in notices if one.answered_us is not None)
    median = statistics.median(waits) if waits else None
    p95 = waits[math.ceil(0.95 * len(waits)) - 1] if waits else None  # the nearest rank: a wait that there was
    counts: dict[str, int] = {}
    for thing in things:
        counts[thing.what] = counts.get(thing.what, 0) + thing.n
    return Line(
        name,
        len(notices),
        None if median is None else round(median, 1),
        None if p95 is None else round(p95, 1),
        sum(one.answered_us is None for one in notices),
        tuple(counts.get(what, None if what in _UNHEARD_IS_UNKNOWN else 0) for what in columns),
    )


def _folded(lines: list[Line], notices: Sequence[Notice], things: Sequence[Counted], columns: Sequence[str]) -> tuple[Line, ...]:
    if len(lines) <= MOST_PLACES:
        return tuple(lines)
    named = {line.name for line in lines[: MOST_PLACES - 1]}
    rest = _line("", [o for o in notices if o.place not in named], [o for o in things if o.place not in named], columns)
    return (*lines[: MOST_PLACES - 1], rest)


def _silence(device: Device, month: Month) -> Silence:
    whole_us = month.known_until_us - month.from_us
    if device.silences is None or whole_us <= 0:
        return Silence(device.name, None, None)
    silent_us = sum(
        max(0, min(until_us, month.known_until_us) - max(from_us, month.from_us)) for from_us, until_us in device.silences
    )
    return Silence(device.name, round(silent_us / HOUR_US, 1), _percent(whole_us - silent_us, whole_us))


def _together(heard: Sequence[Silence]) -> Silence:
    known = [one for one in heard if one.silent_h is not None and one.coverage_percent is not None]
    if not known:
        return Silence("", None, None)
    shares = [one.coverage_percent or 0 for one in known]
    return Silence("", round(sum(one.silent_h or 0 for one in known), 1), math.floor(sum(shares) / len(shares) * 10) / 10)


def _percent(part: float, whole: float) -> float:
    """Rounded down: what was not heard through is never 100."""
    return math.floor(1000 * part / whole) / 10


def _days(month: Month, zone: ZoneInfo) -> Iterable[date]:
    day = month.first
    while _midnight(day, zone) < month.known_until_us:
        yield day
        day += timedelta(days=1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1e6)


def silences_of(heard_us: Sequence[int], slot_us: int, allowed_us: int, from_us: int, until_us: int) -> list[tuple[int, int]]:
    """Stretches longer than `allowed_us` in which a device said nothing, between two slots in which it did.

    `heard_us`: where slots of `slot_us` began in which it spoke, in order; the first may lie before `from_us`.
    """
    # Before the first slot it may have spoken until just before we looked; what came after the last is silence until now.
    ends = [from_us, *(at_us + slot_us for at_us in heard_us)]
    begins = [*heard_us, until_us]
    return [(end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end > allowed_us]
