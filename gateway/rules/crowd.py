"""crowd: an area holds too many: by density (Fruin), or by its capacity where it is a shelter in use.

The memory of one area is all that is known of it, and so what the API shows of it (gateway/api/flow.py reads it, never writes).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from gateway.flow import baseline, occupancy
from gateway.flow.density import density_level, shelter_level
from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Severity, Verdict

if TYPE_CHECKING:  # what an area is says its durations in the words of this package, so it can't be loaded first
    from gateway.flow.config import AreaConfig

AREA = "area"
"""The `node` of every area as a subject; its `device` is the area's name."""
RECOUNTED, TOWN_MODE = "area_recounted", "town_mode"
"""Facts that the gateway makes: somebody counted heads (`{"counted": 120}`), the town's mode (`{"mode": "disaster"}`)."""

_TREND_EVERY_US, _TREND_US = 15_000_000, 300_000_000
_ONE_WORD_US = 120_000_000
_DANGEROUS = 3
_LEAST_TREND_US = 60_000_000  # two frames of a counter are no trend


class CrowdConfig(RuleBase):
    """`type = "crowd"`."""

    type: Literal["crowd"] = Field(description="An area holds too many people.")
    from_level: Annotated[int, Field(ge=1, le=4)] = Field(
        2, description="The density level that fires: 1 from 2/m², 2 3.57, 3 5.55, 4 7.1."
    )
    shelter_from: Annotated[int, Field(ge=2, le=4)] = Field(
        4, description="The level of a shelter in use that fires: 2 from 30 %, 3 60, 4 80."
    )
    ahead: Duration = Field(300, description="A level that will be reached so soon, as fast as it fills now, counts as reached.")
    calm: Duration = Field(120, description="How long it must be less before it is over.")


class Crowd:
    """One verdict an area. It fires anew, and people are told again, when a higher level is reached."""

    metrics = frozenset(("count_in", "count_out", "heartbeat"))
    events = frozenset((RECOUNTED, TOWN_MODE))
    ends: frozenset[str] = frozenset()

    def __init__(self, config: CrowdConfig, areas: Mapping[str, "AreaConfig"], zone: ZoneInfo) -> None:
        self._config, self._areas, self._zone = config, areas, zone
        self._signs: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for name, area in areas.items():
            for line in area.line:
                self._signs.setdefault((line.node, line.device), []).append((name, -1 if line.turned else 1))

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        """The areas at whose edge the counter stands, the one that was recounted, or all."""
        if fact.name == TOWN_MODE:
            return [(AREA, name) for name in self._areas]
        if fact.name == RECOUNTED:
            return [(AREA, fact.device)] if fact.device in self._areas else ()
        return [(AREA, name) for name, _ in self._signs.get((fact.node, fact.device), ())]

    def subjects(self) -> Iterable[tuple[str, str]]:
        """Every area: it is emptied at night whether anybody counts or not."""
        return [(AREA, name) for name in self._areas]

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        """Counts, corrects, changes the mode; then judges."""
        area = self._areas[subject[1]]
        if fact.name == TOWN_MODE:
            memory["mode"] = json.loads(fact.body).get("mode", "normal")
        elif fact.name == RECOUNTED:
            self._empty_at_night(memory, area, self._local(fact.time_us))
            self._correct(memory, int(json.loads(fact.body)["counted"]), fact.time_us, "recount")
        else:
            line = f"{fact.node}/{fact.device}"
            known = memory.setdefault("lines", {}).setdefault(line, {})
            known["heard_us"] = max(known.get("heard_us", 0), fact.received_us)
            if fact.time_us > known.get("now_us", 0):  # what it says at one moment comes as several facts
                known["said_us"], known["now_us"] = known.get("now_us", 0), fact.time_us
            if fact.name == "heartbeat":
                self._add_to_hour(memory, area, 0, fact)  # an hour in which nobody came is one too
            else:
                self._empty_at_night(memory, area, self._local(fact.time_us))  # what comes after a night comes to nobody
                sign = dict(self._signs[fact.node, fact.device])[subject[1]]
                self._count(memory, area, line, fact, sign)
        return self._judge(memory, area, now_us)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]) -> Verdict | None:  # noqa: ARG002
        """A new day, a night in which nobody is there, a crowd that has gone."""
        area = self._areas.get(subject[1])
        if area is None:  # taken out of the configuration
            known = bool(memory)
            memory.clear()
            return Verdict("ok", now_us, reason="no area any more") if known else None
        local = self._local(now_us)
        if memory.get("day") != (day := local.date().isoformat()):
            if "day" in memory:
                occupancy.new_day(memory)
            memory["day"] = day
        self._empty_at_night(memory, area, local)
        self._sample(memory, now_us)
        return self._judge(memory, area, now_us)

    def _local(self, time_us: int) -> datetime:
        return datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone(self._zone)

    def _count(self, memory: Memory, area: "AreaConfig", line: str, fact: Fact, sign: int) -> None:
        total = fact.name.removeprefix("count_")
        way = sign if total == "in" else -sign
        known = memory.get("lines", {}).get(line, {})
        before, said_us = known.get(total), known.get(f"{total}_us", fact.time_us)
        occupancy.count(memory, line, total, fact.value, fact.time_us, sign=way, said_us=known.get("said_us", 0))
        if way > 0 and before is not None and fact.value > before:
            self._add_to_hour(memory, area, int(fact.value - before), fact)
        if fact.time_us - said_us > _ONE_WORD_US and before is not None and fact.value != before:
            memory.pop("trend", None)  # it brings what passed over a long time: no crowd came at once
        self._sample(memory, fact.time_us)

    def _add_to_hour(self, memory: Memory, area: "AreaConfig", came: int, fact: Fact) -> None:
        """Sums who came in this hour. An hour in which a counter was not heard is not remembered as usual."""
        kind, hour = baseline.hour_of(fact.time_us, self._zone)
        running = memory.get("hour")
        if running is None or hour > running["hour"]:
            if running is not None and running["whole"]:
                baseline.remember(memory.setdefault("usual", {}), running["kind"], running["came"])
            running = memory["hour"] = {"hour": hour, "kind": kind, "came": 0, "whole": running is not None}
        if hour == running["hour"]:
            running["came"] += came
            running["whole"] = running["whole"] and alive(memory, area, fact.received_us) == len(area.line)

    def _correct(self, memory: Memory, true: int, at_us: int, how: str) -> None:
        correction = occupancy.set_right(memory, true, at_us)
        memory["correction"] = {"reckoned": correction.reckoned, "true": true, "at_us": at_us, "how": how}
        memory.pop("trend", None)  # a jump of the reckoning is no crowd that moves

    def _empty_at_night(self, memory: Memory, area: "AreaConfig", local: datetime) -> None:
        if area.empty_at == "never":
            return
        hour, minute = map(int, area.empty_at.split(":"))
        night = local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
        if night > local:
            night = (night - timedelta(days=1)).replace(fold=0)
        night_us = int(night.timestamp()) * 1_000_000
        if "emptied_us" not in memory or (area.shelter and memory.get("mode") == "disaster"):
            memory["emptied_us"] = night_us  # we were not there that night; or people were, and are not gone with its end
        elif night_us > memory["emptied_us"]:
            memory["emptied_us"] = night_us
            self._correct(memory, 0, night_us, "night")

    def _sample(self, memory: Memory, at_us: int) -> None:
        trend: list[list[int]] = memory.setdefault("trend", [])
        if trend and at_us - trend[-1][0] < _TREND_EVERY_US:
            if at_us < trend[-1][0] - _TREND_US:
                trend.clear()  # our own clock was ahead then
            return
        trend.append([at_us, memory.get("inside", 0)])
        while trend[-1][0] - trend[0][0] > _TREND_US:
            trend.pop(0)

    def _judge(self, memory: Memory, area: "AreaConfig", now_us: int) -> Verdict | None:
        if not any("in" in line or "out" in line for line in memory.get("lines", {}).values()):
            return None  # nobody has ever counted here: there is nothing to say
        state = level(memory, area, self._config.ahead)
        memory["crowd"] = state
        fires = self._config.shelter_from if state["shelter"] else self._config.from_level
        if state["level"] < fires:
            if "began_us" not in memory:
                return None
            below_us = memory.setdefault("below_us", now_us)
            if now_us - min(below_us, now_us) >= self._config.calm * 1_000_000:
                del memory["began_us"], memory["below_us"]
                memory.pop("worst", None)
                return Verdict("ok", now_us, reason="crowd gone")
        else:
            memory.pop("below_us", None)
            memory.setdefault("began_us", now_us)
            memory["worst"] = max(memory.get("worst", 0), state["level"])
        facts = {
            **state,
            "where": area.label,
            "advice": area.advice,
            "alive": alive(memory, area, now_us),
            "lines": len(area.line),
        }
        # From where forces become dangerous it is urgent, whatever the rule is.
        severity: Severity | None = "critical" if state["level"] >= _DANGEROUS and not state["shelter"] else None
        opening = f"{memory['began_us']}:{memory['worst']}"
        return Verdict("firing", memory["began_us"], opening, reason="crowd", facts=facts, severity=severity)


def level(memory: Mapping[str, Any], area: "AreaConfig", ahead_s: int) -> dict[str, Any]:
    """What an area's memory says: inside, density (people a m², None without `m2`), level, whether a shelter in use, rising."""
    inside = memory.get("inside", 0)
    before = memory.get("crowd", {})
    in_use = area.shelter and memory.get("mode") == "disaster"
    same = before.get("shelter") == in_use
    rising_by_s = _rise(memory)
    soon = inside + rising_by_s * ahead_s
    if in_use:
        assert area.capacity is not None  # noqa: S101 - AreaConfig saw to it
        held = before.get("held", 1) if same else 1
        now, then = shelter_level(inside / area.capacity, held), shelter_level(soon / area.capacity)
        share: float | None = round(inside / area.capacity, 3)
    elif area.m2 is not None:
        held = before.get("held", 0) if same else 0
        now, then = density_level(inside / area.m2, held), density_level(soon / area.m2)
        share = None
    else:
        now = then = 0
        share = None
    # Only a crowd that is already one can be told of ahead: an empty square that fills is what squares are for.
    rising = then > now >= 1 and not in_use
    return {
        "inside": inside,
        "density": round(inside / area.m2, 2) if area.m2 and not in_use else None,
        "share": share,
        "held": now,
        "level": now + 1 if rising else now,
        "rising": rising,
        "shelter": in_use,
    }


def alive(memory: Mapping[str, Any], area: "AreaConfig", now_us: int) -> int:
    """How many of the area's counters were heard of late: what its number rests on."""
    lines = memory.get("lines", {})
    heard = (lines.get(f"{line.node}/{line.device}", {}).get("heard_us") for line in area.line)
    return sum(at_us is not None and now_us - at_us <= area.silent_after * 1_000_000 for at_us in heard)


def _rise(memory: Mapping[str, Any]) -> float:
    """People a second, over the last minutes; 0 where it falls or too little is known."""
    trend = memory.get("trend", ())
    if len(trend) < 2 or trend[-1][0] - trend[0][0] < _LEAST_TREND_US:
        return 0.0
    return float(max((trend[-1][1] - trend[0][1]) / ((trend[-1][0] - trend[0][0]) / 1e6), 0.0))
