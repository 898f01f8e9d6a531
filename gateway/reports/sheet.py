"""A report as every format shows it: a heading, a sentence, tables of cells. In the reader's language; no format knows more.

The same cell stands in the page, the PDF and the spreadsheet: a number, or words. What is not known says so.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.notify.message import Language
from gateway.reports.figures import Check, Figures, Line, Silence
from gateway.words import has, text
from gateway.words.times import day

Cell = str | int | float

UTC_ZONE = ZoneInfo("UTC")
_REIWA = date(2019, 5, 1)


class Table(NamedTuple):
    """One table. Each row has as many cells as there are columns; the first is a name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Sheet(NamedTuple):
    """A whole report."""

    title: str
    sentence: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]


def sheet_of(figures: Figures, language: Language, zone: ZoneInfo, now_us: int) -> Sheet:
    """The figures in words, as they were at `now_us`."""
    say = partial(text, language, zone=zone)
    watch, month = say(f"report.watch.{figures.watch}"), figures.month
    return Sheet(
        say("report.head", watch=watch, year=str(month.first.year), month=month.from_us, reiwa=reiwa(month.first)),
        _sentence(figures, say),
        (
            *([] if month.is_over else [say("report.running")]),
            *([say("report.no_places")] if figures.watch == "tags" else []),
            say("report.made", when=now_us),
        ),
        tuple(
            one
            for one in (
                _places(figures, say),
                _days(figures, say, language),
                _checks(figures, say),
                _kinds(figures, say),
                *_devices(figures, say),
            )
            if one.rows
        ),
    )


def _sentence(figures: Figures, say: Callable[..., str]) -> str:
    total = figures.total
    facts = {"month": figures.month.from_us, "what": say(f"report.told.{figures.watch}"), "told": total.told}
    if total.median_min is None:
        return say("report.lead_unanswered", **facts, unanswered=total.unanswered)
    return say("report.lead", **facts, median=total.median_min, unanswered=total.unanswered)


def _columns(figures: Figures, say: Callable[..., str], first: str) -> tuple[str, ...]:
    answers = ("told", "median", "p95", "unanswered")
    return tuple(say(f"report.column.{one}") for one in (first, *answers, *figures.columns))


def _cells(line: Line, name: str, say: Callable[..., str]) -> tuple[Cell, ...]:
    none, unknown = say("report.none"), say("report.unknown")
    waits = (none if one is None else one for one in (line.median_min, line.p95_min))
    return name, line.told, *waits, line.unanswered, *(unknown if one is None else one for one in line.counted)


def _places(figures: Figures, say: Callable[..., str]) -> Table:
    rows = tuple(_cells(line, line.name or say("report.others"), say) for line in figures.places)
    return Table(say("report.places"), _columns(figures, say, "place"), rows)


def _days(figures: Figures, say: Callable[..., str], language: Language) -> Table:
    begin_us = (round(datetime.fromisoformat(f"{line.name}T00:00Z").timestamp() * 1e6) for line in figures.days)
    names = (day(at_us, UTC_ZONE, language) for at_us in begin_us)
    rows = [_cells(line, name, say) for line, name in zip(figures.days, names, strict=True)]
    return Table(say("report.days"), _columns(figures, say, "day"), (*rows, _cells(figures.total, say("report.total"), say)))


def _checks(figures: Figures, say: Callable[..., str]) -> Table:
    """Counters beside people who counted."""
    columns = tuple(say(f"report.column.{one}") for one in ("place", "recounts", "recount_median", "recount_worst"))
    return Table(say("report.recounts"), columns, tuple(_check(one, say) for one in figures.checks))


def _check(one: Check, say: Callable[..., str]) -> tuple[Cell, ...]:
    if one.recounts == 0:
        return one.place, 0, say("report.not_recounted"), say("report.none")
    unknown = say("report.unknown")
    return (
        one.place,
        one.recounts,
        unknown if one.median_percent is None else one.median_percent,
        unknown if one.worst_percent is None else one.worst_percent,
    )


def _kinds(figures: Figures, say: Callable[..., str]) -> Table:
    rows = tuple((_kind(kind, say), n) for kind, n in figures.kinds)
    return Table(say("report.kinds"), (say("report.column.kind"), say("report.column.n")), rows)


def _kind(kind: str, say: Callable[..., str]) -> str:
    """What a person typed stands as it is; what a model calls it, in the reader's language."""
    if not kind:
        return say("report.unknown")
    return say(f"species.{kind}") if has(f"species.{kind}") else kind


def _devices(figures: Figures, say: Callable[..., str]) -> Sequence[Table]:
    columns = tuple(say(f"report.column.{one}") for one in ("device", "silent", "coverage"))
    together = figures.heard._replace(name=say("report.all_devices", n=figures.device_count))
    rows = [_silence(one, say) for one in (*figures.devices, together)]
    return [Table(say("report.devices"), columns, tuple(rows) if figures.device_count else ())]


def _silence(one: Silence, say: Callable[..., str]) -> tuple[Cell, ...]:
    unknown = say("report.unknown")
    return (
        one.name,
        unknown if one.silent_h is None else one.silent_h,
        unknown if one.coverage_percent is None else one.coverage_percent,
    )


def reiwa(when: date) -> str:
    """The year of the Japanese calendar, for print: 8 for 2026."""
    return str(when.year - _REIWA.year + 1)
