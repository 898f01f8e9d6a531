"""What everybody may know: how many came and left an area by the hour, and what was caught per month and square kilometre. Pure.

**No number of fewer than ten people can be had from it.** A count below ten, none included, is published as `few`; one that is
not known as `unknown`. The sum of a day is published only where it says nothing of any single hour that is `few`: each of them
must still be able to be anything from 0 to 9, and together they must be at least ten. Days and areas have no counter in common,
so no subtraction across them leads to a smaller number (`[open_data]` refuses areas that share one). A day is made once, when its
delay is over, and never again: of two versions of a day one could subtract.

Captures are counted per month, kind and square of the standard grid (JIS X 0410, five times the third order, some 5 km: the size
in which prefectures publish hunting), with no trap, no time and nobody's name. A square with fewer than three traps is not said:
who looks after the only trap of a valley is known there. Nothing of watch tags is here, nor ever will be.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from edge.contract.names import Name
from gateway.deployments import Deployment, Deployments
from gateway.flow.config import AreaConfig, LineConfig
from gateway.store import SeriesReader

FEWEST = 10
"""People in a cell that is published as a number."""
FEWEST_TRAPS = 3
"""Traps in a square that is said."""
LICENCES = {"CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/"}

SLOT_MS = 300_000
"""How finely it is looked whether a counter was alive."""
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class OpenDataConfig(BaseModel):
    """`[open_data]`: what everybody may have. Absent: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    publisher: str = Field(min_length=1, max_length=60, description="Who publishes, as the licence names them: ○○町.")
    areas: Annotated[list[Name], Field(max_length=50)] = Field(
        [], description="Areas whose hours are published; no two may share a counter."
    )
    captures: bool = Field(False, description="Whether captures are published: per month, kind and square of some 5 km.")
    licence: Literal["CC-BY-4.0"] = Field("CC-BY-4.0", description="Under what it may be used.")
    delay_days: Annotated[int, Field(ge=1, le=60)] = Field(
        3, description="Whole days between a day and its publication: what comes later is never in it."
    )


# --- People -------------------------------------------------------------------------------------------


class Hour(NamedTuple):
    """What is known of one hour of an area: sums over the counters that were heard all through it; None where none was."""

    start_us: int
    came: int | None
    left: int | None
    coverage: int
    """Per cent of its counters that were heard all through it."""
    lines: Sequence[tuple[int, int] | None] = ()
    """(came, left) by each of its counters, in the area's order; None where it was not heard all through it."""


def hours_of(store: SeriesReader, area: AreaConfig, start_us: int, end_us: int) -> list[Hour]:
    """Each whole hour from `start_us` on that ends by `end_us`."""
    start_ms, end_ms = start_us // 1000, end_us // 1000
    lines = [(line, _Counter(store, line, start_ms, end_ms)) for line in area.line]
    found = []
    for from_ms in range(start_ms, end_ms - _HOUR_MS + 1, _HOUR_MS):
        passed = [counter.passed(from_ms, from_ms + _HOUR_MS, area.silent_after * 1000) for _, counter in lines]
        each = [one[::-1] if one and line.turned else one for (line, _), one in zip(lines, passed, strict=True)]
        heard = [one for one in each if one is not None]
        coverage = 100 * len(heard) // len(lines)
        came, left = (sum(one[0] for one in heard), sum(one[1] for one in heard)) if heard else (None, None)
        found.append(Hour(from_ms * 1000, came, left, coverage, tuple(each)))
    return found


def heard_since(store: SeriesReader, area: AreaConfig, at_us: int) -> bool:
    """Whether one of its counters said anything at that time or after it."""
    said = (
        store.latest(line.node, line.device, metric) for line in area.line for metric in ("heartbeat", "count_in", "count_out")
    )
    return any(newest is not None and newest[0] * 1000 >= at_us for newest in said)


class _Counter:
    """One counter's words over some days."""

    def __init__(self, store: SeriesReader, line: LineConfig, start_ms: int, end_ms: int) -> None:
        def said(metric: str) -> list[tuple[int, float, float]]:
            """(slot, the smallest of it, the last of it)"""
            begin_ms = start_ms - _DAY_MS  # a counter that nobody passes says its totals seldom
            buckets = store.read_bucketed(line.node, line.device, metric, begin_ms, end_ms, SLOT_MS)
            return [(one.time_ms, one.low, one.last) for one in buckets]

        self._totals = [said("count_in"), said("count_out")]
        self._times = [[one[0] for one in total] for total in self._totals]
        self._heard = sorted({*(one[0] for one in said("heartbeat")), *self._times[0], *self._times[1]})

    def passed(self, start_ms: int, end_ms: int, silent_ms: float) -> tuple[int, int] | None:
        """How many went in and out in that time; None where it was silent in between, or began anew."""
        alive = self._heard[bisect_right(self._heard, start_ms - SLOT_MS - silent_ms) : bisect_right(self._heard, end_ms - 1)]
        if not alive or any(
            after - before > silent_ms + SLOT_MS for before, after in zip(alive, [*alive[1:], end_ms], strict=True)
        ):
            return None
        if alive[0] >= start_ms:  # nothing says what the total was when the hour began
            return None
        found = [self._grown(total, times, start_ms, end_ms) for total, times in zip(self._totals, self._times, strict=True)]
        return (found[0], found[1]) if found[0] is not None and found[1] is not None else None

    def _grown(self, total: list[tuple[int, float, float]], times: list[int], start_ms: int, end_ms: int) -> int | None:
        first, after = bisect_right(times, start_ms - 1), bisect_right(times, end_ms - 1)
        if not total:
            return 0 if any(self._totals) else None  # a counter of one direction has no other total
        if first == 0:
            return None
        before = total[first - 1][2]
        for _, low, last in total[first:after]:
            if low < before:
                return None
            before = last
        return round(before - total[first - 1][2])


class Cell(TypedDict):
    """One number of the table. `state`: number; few: fewer than ten, none included; unknown: no counter was heard."""

    state: Literal["number", "few", "unknown"]
    people: int | None


class OpenHour(TypedDict):
    """One hour of a published day; `start` is local time."""

    start: str
    came: Cell
    left: Cell
    coverage_percent: int


class Sum(TypedDict):
    """Of a day. `at_least`: the hours that are shown, added up. `people`: all known hours; null where that would tell."""

    at_least: int
    people: int | None


class OpenDay(TypedDict):
    """One published day of an area."""

    area: str
    label: str
    day: str
    hours: list[OpenHour]
    came: Sum
    left: Sum
    coverage_percent: int


def cell(count: int | None) -> Cell:
    """A count as everybody may see it."""
    if count is None:
        return {"state": "unknown", "people": None}
    return {"state": "number", "people": count} if count >= FEWEST else {"state": "few", "people": None}


def day_sum(counts: Iterable[int | None]) -> Sum:
    """A day's sum as everybody may see it, beside its hours as `cell` shows them.

    With k hours hidden, and S people in them, one hour lies between max(0, S - 9 (k - 1)) and min(9, S): from 0 to 9, which is
    what `few` says already, where 9 <= S <= 9 (k - 1). And S itself, which is the sum less the hours shown, must be at least ten.
    """
    known = [count for count in counts if count is not None]
    hidden = [count for count in known if count < FEWEST]
    shown, inside = sum(known) - sum(hidden), sum(hidden)
    tells = bool(hidden) and not FEWEST <= inside <= (FEWEST - 1) * (len(hidden) - 1)
    return {"at_least": shown, "people": None if tells or not known else shown + inside}


def open_day(name: str, area: AreaConfig, day: date, hours: Sequence[Hour], zone: ZoneInfo) -> OpenDay:
    """The day as everybody may see it."""
    return {
        "area": name,
        "label": area.label,
        "day": day.isoformat(),
        "hours": [
            {
                "start": datetime.fromtimestamp(hour.start_us / 1e6, zone).isoformat(timespec="minutes"),
                "came": cell(hour.came),
                "left": cell(hour.left),
                "coverage_percent": hour.coverage,
            }
            for hour in hours
        ],
        "came": day_sum(hour.came for hour in hours),
        "left": day_sum(hour.left for hour in hours),
        "coverage_percent": sum(hour.coverage for hour in hours) // len(hours) if hours else 0,
    }


def bounds_of(day: date, zone: ZoneInfo) -> tuple[int, int]:
    """When a local day begins and ends, UTC µs."""
    return tuple(  # type: ignore[return-value]  # two of them
        round(datetime(one.year, one.month, one.day, tzinfo=zone).timestamp() * 1e6) for one in (day, day + timedelta(days=1))
    )


def newest_day(now_us: int, delay_days: int, zone: ZoneInfo) -> date:
    """The newest day whose delay is over."""
    return datetime.fromtimestamp(now_us / 1e6, zone).date() - timedelta(days=delay_days + 1)


# --- Captures -----------------------------------------------------------------------------------------


KINDS = {
    "boar": "イノシシ", "deer": "ニホンジカ", "bear": "ツキノワグマ", "brown bear": "ヒグマ", "monkey": "ニホンザル",
    "masked palm civet": "ハクビシン", "raccoon": "アライグマ", "raccoon dog": "タヌキ", "badger": "アナグマ",
    "nutria": "ヌートリア",
    "muntjac": "キョン", "fox": "キツネ", "hare": "ノウサギ", "serow": "カモシカ", "シカ": "ニホンジカ", "サル": "ニホンザル",
}  # fmt: skip
"""Kinds that are published by their name. A dossier's kind is typed by people: whatever else they wrote is その他."""
OTHER = "その他"


class OpenCaptures(TypedDict):
    """Captures of one month, square and kind. `mesh` is null where too few traps are, or the trap's place is not entered."""

    month: str
    mesh: str | None
    species: str
    captures: int


def mesh_of(latitude: float, longitude: float) -> str | None:
    """The square of the standard grid, 5倍地域メッシュ (JIS X 0410): 7 digits, 150 seconds by 225; None outside of its range.

    Each square of the second order has four: 1 south-west, 2 south-east, 3 north-west, 4 north-east.
    """
    if not (0 <= latitude < 66.66 and 100 <= longitude < 180):
        return None
    # In units of 150 and 225 seconds: a float of 35.6 degrees times 24 may lie a hair below a whole number.
    south, west = int(latitude * 24 + 1e-7), int((longitude - 100) * 16 + 1e-7)
    return f"{south // 16:02}{west // 16:02}{south // 2 % 8}{west // 2 % 8}{south % 2 * 2 + west % 2 + 1}"


def said_meshes(deployments: Deployments) -> frozenset[str]:
    """The squares with so many traps that they may be said."""
    traps = Counter(_mesh(one) for one in deployments if one.kind == "trap")
    return frozenset(mesh for mesh, number in traps.items() if mesh is not None and number >= FEWEST_TRAPS)


def open_capture(species: str | None, deployment: Deployment, said: frozenset[str]) -> tuple[str, str]:
    """(square, kind) of one capture as everybody may know it; the square is empty where it is none of `said`."""
    mesh = _mesh(deployment)
    return (mesh if mesh in said else "") or "", _kind(species)


def _kind(species: str | None) -> str:
    known = (species or "").strip().lower()
    return known if known in KINDS.values() else KINDS.get(known, OTHER)


def _mesh(deployment: Deployment) -> str | None:
    return mesh_of(*deployment.at) if deployment.at is not None else None
