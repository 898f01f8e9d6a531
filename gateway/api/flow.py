"""Areas, recounts by people, the town's mode. What an area's rule remembers is shown, with how old and how sure it is."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, insert, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.names import Name
from gateway.api.deps import Deps, FromQuery, UntilQuery, permitted
from gateway.api.problems import Problem
from gateway.flow import baseline, occupancy
from gateway.flow.config import AreaConfig
from gateway.flow.mode import tell_mode, tell_people
from gateway.open_data import Hour, hours_of
from gateway.own_facts import add_fact
from gateway.policy import Actor
from gateway.rules.crowd import AREA, RECOUNTED, alive
from gateway.state.tables import recounts, rule_states, town_modes

HOUR_US = 3_600_000_000
LONGEST_HOURS_US = 62 * 24 * HOUR_US
AreaPath = Annotated[Name, Path()]


class LineJson(TypedDict):
    """One counter. Sums are of today, local time; null where it has never spoken, which is not zero."""

    node: str
    device: str
    label: str
    came_today: int | None
    left_today: int | None
    heard_us: int | None
    silent: bool


class CorrectionJson(TypedDict):
    """When the reckoning was last set right, by `recount` or by `night`, and how far it was off (positive: too many)."""

    at_us: int
    how: str
    reckoned: int
    true: int
    error: int


class AreaJson(TypedDict):
    """One area. `inside` is null where nobody ever counted. `alive` of `lines` counters were heard of late: its coverage.

    `usual_this_hour`: how many usually come in at this hour of such a day; null while too few such hours were counted.
    """

    area: str
    label: str
    inside: int | None
    density: float | None
    share: float | None
    level: int | None
    rising: bool
    shelter: bool
    alive: int
    drift: int
    gaps: int
    came_this_hour: int | None
    usual_this_hour: float | None
    lines: list[LineJson]
    correction: CorrectionJson | None


class AreasJson(TypedDict):
    """All areas; `now_us` is the gateway's clock."""

    now_us: int
    mode: str
    areas: list[AreaJson]


class LineHourJson(TypedDict):
    """One counter's hour; null where it was not heard all through it, which is not zero."""

    came: int | None
    left: int | None


class HourJson(TypedDict):
    """One hour of an area: sums over the counters that were heard all through it. `lines`: of each, as in the list of lines."""

    start_us: int
    came: int | None
    left: int | None
    coverage_percent: int
    lines: list[LineHourJson]


class CounterJson(TypedDict):
    """One counter of an area."""

    node: str
    device: str
    label: str


class HoursJson(TypedDict):
    """The hours of an area, the first first."""

    area: str
    lines: list[CounterJson]
    hours: list[HourJson]


class RecountJson(TypedDict):
    """One count of heads by a person. `error_percent` is of `counted`; null where that is 0 or nothing was reckoned."""

    at_us: int
    counted: int
    reckoned: int | None
    error_percent: float | None
    who: str


class RecountsJson(TypedDict):
    """The newest first."""

    recounts: list[RecountJson]


class ModeJson(TypedDict):
    """The town's mode since when, by whom and why; null before anybody set one."""

    mode: str
    since_us: int | None
    who: str | None
    why: str | None


class Recount(BaseModel):
    """Heads, counted."""

    model_config = ConfigDict(extra="forbid")

    counted: Annotated[int, Field(ge=0, le=10**6, description="How many are in the area now.")]


class Mode(BaseModel):
    """What the town should be in from now on."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["normal", "disaster"]
    why: Annotated[str, Field(min_length=1, max_length=200, description="For the history: 大雨警報.")]


def routes(deps: Deps) -> APIRouter:
    """GET /areas, GET /areas/{area}/hours, GET|POST /areas/{area}/recounts, GET|POST /town/mode."""
    router = APIRouter()

    @router.get("/areas")
    def areas(_: Annotated[Actor, Depends(permitted("area.read"))]) -> AreasJson:
        """How full each area is, by its counters, and what that rests on."""
        now_us = deps.now_us()
        with deps.state.read() as connection:
            known = _memories(connection)
            mode = _mode(connection)["mode"]
        return {
            "now_us": now_us,
            "mode": mode,
            "areas": [_area(name, area, known.get(name, {}), now_us) for name, area in deps.areas.items()],
        }

    @router.get("/areas/{area}/hours")
    def hours(
        _: Annotated[Actor, Depends(permitted("area.read"))], area: AreaPath, from_us: FromQuery, until_us: UntilQuery = None
    ) -> HoursJson:
        """Who came and left by the hour, exact, for the office; the same as `/export/flow.csv`. At most 62 days."""
        known = _known(deps, area)
        start_us, end_us = from_us - from_us % HOUR_US, deps.now_us() + 1 if until_us is None else until_us
        if end_us - start_us > LONGEST_HOURS_US:
            raise Problem(422, "why.two_months")
        return {
            "area": area,
            "lines": [{"node": one.node, "device": one.device, "label": one.label} for one in known.line],
            "hours": [_hour_json(hour) for hour in hours_of(deps.store, known, start_us, end_us)],
        }

    @router.get("/areas/{area}/recounts")
    def counted(_: Annotated[Actor, Depends(permitted("area.read"))], area: AreaPath) -> RecountsJson:
        """How far off the reckoning was whenever somebody counted: the published error."""
        _known(deps, area)
        with deps.state.read() as connection:
            rows = connection.execute(
                select(recounts).where(recounts.c.area == area).order_by(recounts.c.id.desc()).limit(200)
            ).all()
        return {"recounts": [_recount(row) for row in rows]}

    @router.post("/areas/{area}/recounts", status_code=201)
    def recount(
        actor: Annotated[Actor, Depends(permitted("area.recount"))], area: AreaPath, said: Annotated[Recount, Body()]
    ) -> RecountJson:
        """Sets the reckoning right; how far it was off is kept and published."""
        _known(deps, area)
        now_us = deps.now_us()
        with deps.state.write() as connection:
            memory = _memories(connection).get(area, {})
            reckoned = memory.get("inside")
            row = {"area": area, "at_us": now_us, "counted": said.counted, "reckoned": reckoned, "who": actor.name}
            connection.execute(insert(recounts).values(row))
            add_fact(connection, AREA, area, RECOUNTED, {"counted": said.counted}, now_us, now_us)
        deps.ring()
        return _recount_json(now_us, said.counted, reckoned, actor.name)

    @router.get("/town/mode")
    def mode(_: Annotated[Actor, Depends(permitted("area.read"))]) -> ModeJson:
        """Whether the town is in disaster mode."""
        with deps.state.read() as connection:
            return _mode(connection)

    @router.post("/town/mode")
    def switch(actor: Annotated[Actor, Depends(permitted("town.switch"))], said: Annotated[Mode, Body()]) -> ModeJson:
        """Switches the town's mode: shelters are judged by capacity, rules of the other mode are quiet. 409: it is so already."""
        now_us = deps.now_us()
        with deps.state.write() as connection:
            before = _mode(connection)
            if before["mode"] == said.mode:
                raise Problem(409, "why.mode_already", {"mode": said.mode}, mode=said.mode)
            row = {"mode": said.mode, "since_us": now_us, "who": actor.name, "why": said.why}
            connection.execute(insert(town_modes).values(row))
            tell_mode(connection, now_us)
            if deps.paging is not None and deps.mode_to:
                tell_people(connection, deps.paging.notices, deps.mode_to, actor.name, said.why, now_us)
        deps.ring_deliveries()
        deps.feed.say("mode", row)
        deps.ring()
        return {"mode": said.mode, "since_us": now_us, "who": actor.name, "why": said.why}

    return router


def _known(deps: Deps, area: str) -> AreaConfig:
    found = deps.areas.get(area)
    if found is None:
        raise Problem(404, "why.no_area", {"area": area})
    return found


def _memories(connection: Connection) -> dict[str, dict[str, Any]]:
    """What a `crowd` rule remembers of each area. Several such rules count alike: any of them will do."""
    rows = connection.execute(
        select(rule_states.c.device, rule_states.c.body).where(rule_states.c.node == AREA).order_by(rule_states.c.rule)
    ).all()
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        memory = json.loads(row.body)
        if "lines" in memory:
            found.setdefault(row.device, memory)
    return found


def _mode(connection: Connection) -> ModeJson:
    row = connection.execute(select(town_modes).order_by(town_modes.c.id.desc()).limit(1)).first()
    if row is None:
        return {"mode": "normal", "since_us": None, "who": None, "why": None}
    return {"mode": row.mode, "since_us": row.since_us, "who": row.who, "why": row.why}


def _area(name: str, area: AreaConfig, memory: Mapping[str, Any], now_us: int) -> AreaJson:
    crowd = memory.get("crowd", {})
    correction = memory.get("correction")
    lines: list[LineJson] = []
    for line in area.line:
        key = f"{line.node}/{line.device}"
        heard_us = memory.get("lines", {}).get(key, {}).get("heard_us")
        sums = occupancy.today(dict(memory), key)
        came, left = (sums if not line.turned else sums[::-1]) if sums else (None, None)
        silent = heard_us is None or now_us - heard_us > area.silent_after * 1_000_000
        lines.append({"node": line.node, "device": line.device, "label": line.label, "came_today": came, "left_today": left,
                      "heard_us": heard_us, "silent": silent})  # fmt: skip
    return {
        "area": name,
        "label": area.label,
        "inside": crowd.get("inside"),
        "density": crowd.get("density"),
        "share": crowd.get("share"),
        "level": crowd.get("level"),
        "rising": crowd.get("rising", False),
        "shelter": crowd.get("shelter", False),
        "alive": alive(memory, area, now_us),
        "drift": memory.get("drift", 0),
        "gaps": memory.get("gaps", 0),
        **_hour(memory, now_us),
        "lines": lines,
        "correction": _correction(correction) if correction else None,
    }


def _hour_json(hour: Hour) -> HourJson:
    lines: list[LineHourJson] = [{"came": one[0], "left": one[1]} if one else {"came": None, "left": None} for one in hour.lines]
    return {"start_us": hour.start_us, "came": hour.came, "left": hour.left, "coverage_percent": hour.coverage, "lines": lines}


class _Hour(TypedDict):
    came_this_hour: int | None
    usual_this_hour: float | None


def _hour(memory: Mapping[str, Any], now_us: int) -> _Hour:
    """Null where the hour that is remembered is not the one that is now: nothing was heard in this one yet."""
    running = memory.get("hour")
    if running is None or not 0 <= now_us // 1_000_000 - running["hour"] < 3600:
        return {"came_this_hour": None, "usual_this_hour": None}
    return {"came_this_hour": running["came"], "usual_this_hour": baseline.expected(memory.get("usual", {}), running["kind"])}


def _correction(kept: Mapping[str, Any]) -> CorrectionJson:
    reckoned, true = kept["reckoned"], kept["true"]
    return {"at_us": kept["at_us"], "how": kept["how"], "reckoned": reckoned, "true": true, "error": reckoned - true}


def _recount(row: Any) -> RecountJson:
    return _recount_json(row.at_us, row.counted, row.reckoned, row.who)


def _recount_json(at_us: int, counted: int, reckoned: int | None, who: str) -> RecountJson:
    known = reckoned is not None and counted > 0
    error = round((reckoned - counted) / counted * 100, 1) if known and reckoned is not None else None
    return {"at_us": at_us, "counted": counted, "reckoned": reckoned, "error_percent": error, "who": who}
