"""round: the daily visit that the law asks for. Each trap needs one on each local day; no sensor can make it.

A visit is what a person said (`trap_visited`). A heartbeat, a reset or a picture is none.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from gateway.deployments import Deployments
from gateway.rules.duration import TimeOfDay
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

VISITED = "trap_visited"
_MOST_NAMED = 6


class RoundConfig(RuleBase):
    """`type = "round"`."""

    type: Literal["round"] = Field(description="A trap was not visited on a day.")
    by: TimeOfDay = Field(
        "17:00", description="The time of day, in the gateway's `time_zone`, by which each trap must have been visited."
    )


class Round:
    """One verdict a place: it fires at `by` while traps there lack their visit of the day, anew each day, and ends with the last.

    Its subject is the place's first trap, so that route and words know where it is; `facts` name all that are overdue.
    """

    metrics: frozenset[str] = frozenset()
    events = frozenset((VISITED,))
    ends: frozenset[str] = frozenset()

    def __init__(self, config: RoundConfig, deployments: Deployments, zone: ZoneInfo) -> None:
        self._by, self._zone = config.by, zone
        places: dict[str, list[tuple[str, str]]] = {}
        for one in deployments:
            if one.kind == (config.kind or "trap"):
                places.setdefault(one.place, []).append((one.node, one.device))
        self._traps = {traps[0]: traps for traps in places.values()}
        self._first = {trap: first for first, traps in self._traps.items() for trap in traps}
        self._places = {traps[0]: place for place, traps in places.items()}
        self._labels = {(one.node, one.device): one.label or one.device for one in deployments}

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        """The first trap of the place that the visit was at."""
        first = self._first.get((fact.node, fact.device))
        return () if first is None else (first,)

    def subjects(self) -> Iterable[tuple[str, str]]:
        """Each place: it is overdue though nothing was ever heard of it."""
        return self._traps

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        """A visit counts for the day on which it was, even when it is told later."""
        trap = f"{fact.node}/{fact.device}"
        visits: dict[str, int] = memory.setdefault("visits", {})
        if fact.time_us >= visits.get(trap, 0):
            visits[trap] = min(fact.time_us, now_us)
            removed = set(memory.get("removed", ())) - {trap}
            if json.loads(fact.body).get("result") == "removed":
                removed.add(trap)  # there is nothing to visit until somebody sets it anew
            memory["removed"] = sorted(removed)
        return self._judge(memory, now_us, subject)

    def on_tick(
        self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]  # noqa: ARG002
    ) -> Verdict | None:  # fmt: skip
        """Whether it is time."""
        # What was before we began to keep books is not known, and not asked for.
        begun: dict[str, int] = memory.setdefault("begun", {})
        traps = {f"{node}/{device}" for node, device in self._traps.get(subject, ())}
        if begun.keys() != traps:
            memory["begun"] = {trap: begun.get(trap, now_us) for trap in sorted(traps)}
            memory["visits"] = {trap: at_us for trap, at_us in memory.get("visits", {}).items() if trap in traps}
        return self._judge(memory, now_us, subject)

    def _judge(self, memory: Memory, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        deadline_us, day_us, day = last_deadline(now_us, self._by, self._zone)
        late = [
            trap
            for trap in self._traps.get(subject, ())
            if (name := f"{trap[0]}/{trap[1]}") not in memory.get("removed", ())
            and is_overdue(memory.get("visits", {}).get(name), memory.get("begun", {}).get(name, now_us), day_us)
        ]
        said: dict[str, Any] = {"day": day if late else None, "traps": [f"{node}/{device}" for node, device in late]}
        if memory.get("said", {"day": None, "traps": []}) == said:
            return None
        memory["said"] = said
        if not late:
            return Verdict("ok", now_us, reason="visited")
        labels = [self._labels[trap] for trap in late]
        more = [f"+{len(labels) - _MOST_NAMED}"] if len(labels) > _MOST_NAMED else []
        facts = {
            **said,
            "day_us": day_us,
            "labels": labels,
            "where": f"{self._places[subject]} {', '.join([*labels[:_MOST_NAMED], *more])}",
        }
        return Verdict("firing", deadline_us, day, reason="round overdue", facts=facts)


def last_deadline(now_us: int, by: str, zone: ZoneInfo) -> tuple[int, int, str]:
    """The last deadline that has passed: when it was, when its local day began (UTC µs both), and that day, 2026-06-03.

    A time that the clock skips in spring is the moment of the skip; one that comes twice in autumn is the first.
    """
    local = datetime.fromtimestamp(now_us // 1_000_000, UTC).astimezone(zone)
    hour, minute = map(int, by.split(":"))
    for back in (0, 1):
        day = local.date() - timedelta(days=back)
        deadline_us = _us(datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone))
        if deadline_us <= now_us:
            break
    return deadline_us, _us(datetime(day.year, day.month, day.day, tzinfo=zone)), day.isoformat()


def is_overdue(visited_us: int | None, begun_us: int, day_us: int) -> bool:
    """Whether no visit since the day began, where books were kept all that day."""
    return begun_us <= day_us and (visited_us is None or visited_us < day_us)


def _us(local: datetime) -> int:
    return int(local.timestamp()) * 1_000_000
