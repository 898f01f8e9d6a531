"""Tables for a spreadsheet: visits, dossiers of captures, hours of counters, alerts. Each shows what its caller may read.

A table is whole or not there: of more rows than one may have, a shorter time is asked for. What concerns a person who is watched
over is in none of them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from sqlalchemy import Select, select

from gateway.api import sift
from gateway.api.deps import Deps, FromQuery, UntilQuery, permitted, sifted
from gateway.api.problems import Problem
from gateway.csvs import MEDIA_TYPE, Cell, table
from gateway.mimamori.enrolled import WATCHED
from gateway.open_data import Hour, hours_of
from gateway.policy import Actor, Thing, extent
from gateway.state.tables import alerts, captures, visits

MOST_ROWS = 50_000
LONGEST_FLOW_US = 31 * 86_400_000_000

_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}


def routes(deps: Deps) -> APIRouter:
    """GET /export/{visits,captures,alerts,flow}.csv. Times are ISO 8601 in UTC."""
    router = APIRouter()

    def rows_of(query: Select[Any]) -> Sequence[Any]:
        with deps.state.read() as connection:
            found = connection.execute(query.limit(MOST_ROWS + 1)).all()
        if len(found) > MOST_ROWS:
            raise Problem(422, "why.rows", {"n": MOST_ROWS})
        return found

    def end_of(until_us: int | None) -> int:
        return deps.now_us() + 1 if until_us is None else until_us

    @router.get("/export/visits.csv", response_class=StreamingResponse, responses=_CSV)
    def export_visits(
        actor: Annotated[Actor, Depends(sifted("visit.read"))], from_us: FromQuery = 0, until_us: UntilQuery = None
    ) -> StreamingResponse:
        """Visits to the caller's traps, the oldest first."""
        theirs = sift.of_device(extent(actor, "visit.read", deps.world), visits.c.node, visits.c.device)
        query = select(visits).where(theirs, visits.c.at_us >= from_us, visits.c.at_us < end_of(until_us))
        rows = rows_of(query.order_by(visits.c.at_us, visits.c.id))
        columns = ("id", "at", "place", "label", "node", "device", "who", "via", "result", "note")
        return _file("visits", columns, [
            (row.id, _time(row.at_us), *_where(deps, row), row.node, row.device, row.who, row.via, row.result, row.note)
            for row in rows
        ])  # fmt: skip

    @router.get("/export/captures.csv", response_class=StreamingResponse, responses=_CSV)
    def export_captures(
        actor: Annotated[Actor, Depends(sifted("capture.read"))], from_us: FromQuery = 0, until_us: UntilQuery = None
    ) -> StreamingResponse:
        """Dossiers of the caller's traps, in the order in which they were opened."""
        theirs = sift.of_device(extent(actor, "capture.read", deps.world), captures.c.node, captures.c.device)
        query = select(captures).where(theirs, captures.c.opened_us >= from_us, captures.c.opened_us < end_of(until_us))
        rows = rows_of(query.order_by(captures.c.opened_us, captures.c.id))
        columns = ("id", "opened", "sprung", "place", "label", "node", "device", "species", "sex", "weight_kg", "disposal",
                   "note", "completed", "completed_by")  # fmt: skip
        return _file("captures", columns, [
            (row.id, _time(row.opened_us), _time(row.sprung_us), *_where(deps, row), row.node, row.device, row.species, row.sex,
             row.weight_kg, row.disposal, row.note, _time(row.completed_us), row.completed_by)
            for row in rows
        ])  # fmt: skip

    @router.get("/export/alerts.csv", response_class=StreamingResponse, responses=_CSV)
    def export_alerts(
        actor: Annotated[Actor, Depends(sifted("alert.read"))], from_us: FromQuery = 0, until_us: UntilQuery = None
    ) -> StreamingResponse:
        """The caller's alerts, the oldest first; none of a person."""
        theirs = sift.of_device(extent(actor, "alert.read", deps.world), alerts.c.node, alerts.c.device)
        query = select(alerts).where(theirs, alerts.c.node != WATCHED)
        query = query.where(alerts.c.since_us >= from_us, alerts.c.since_us < end_of(until_us))
        rows = rows_of(query.order_by(alerts.c.since_us, alerts.c.id))
        answers = extent(actor, "page.history", deps.world)
        columns = ("id", "since", "rule", "kind", "severity", "place", "label", "node", "device", "summary", "state", "count",
                   "fired", "acknowledged", "acknowledged_by", "resolved")  # fmt: skip
        return _file("alerts", columns, [
            (row.id, _time(row.since_us), row.rule, row.kind, row.severity, *_where(deps, row), row.node, row.device,
             row.summary, row.state, row.count, _time(row.fired_us), _time(row.acknowledged_us),
             row.acknowledged_by if answers.covers(Thing(row.node, row.device)) else None,
             _time(row.resolved_us))
            for row in rows
        ])  # fmt: skip

    @router.get("/export/flow.csv", response_class=StreamingResponse, responses=_CSV)
    def export_flow(
        _: Annotated[Actor, Depends(permitted("area.read"))], from_us: FromQuery, until_us: UntilQuery = None
    ) -> StreamingResponse:
        """Who came and left by the hour, of every area. Exact, for the office: public ones are at /open/. At most 31 days."""
        start_us, end_us = from_us - from_us % 3_600_000_000, end_of(until_us)
        if end_us - start_us > LONGEST_FLOW_US:
            raise Problem(422, "why.month")
        columns = ("area", "hour", "came", "left", "coverage_percent")
        return _file("flow", columns, [
            (name, _time(hour.start_us), *_counted(hour), hour.coverage)
            for name, area in deps.areas.items() for hour in hours_of(deps.store, area, start_us, end_us)
        ])  # fmt: skip

    return router


def _file(name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
    return StreamingResponse(table(columns, rows), headers=headers, media_type=MEDIA_TYPE)


def _where(deps: Deps, row: Any) -> tuple[str, str]:
    deployment = deps.stands(row.node, row.device)
    return deployment.place, deployment.label


def _counted(hour: Hour) -> tuple[int | None, int | None]:
    return hour.came, hour.left


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
