"""GET events, quarantine, losses: what was recorded, newest first, page by page. Paged by id, so nothing is skipped."""

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Select, Table, select

from edge.contract.events import EVENTS, RecordClass
from edge.contract.names import Name
from gateway.api import sift
from gateway.api.deps import BeforeQuery, Deps, LimitQuery, permitted, sifted
from gateway.api.looking import look_for
from gateway.api.problems import Problem
from gateway.api.shapes import TAGGED, EventsJson, LossesJson, QuarantineJson, Row, concerns_person, event_class, event_json
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.search import UNENDED
from gateway.own_facts import OWN_TYPES
from gateway.policy import Actor, extent, may
from gateway.state import tables
from gateway.state.tables import search_cases

NodeQuery = Annotated[Name | None, Query()]


def _within_searches(deps: Deps, rows: list[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows without sightings of anybody who is not searched for; and of each who is and was sighted, the search.

    Each sighting in its order is where somebody went: for that there must be a search. What was left out is not made up for by
    other rows, so that the next page begins where this one ends.
    """
    people = [row for row in rows if concerns_person(row)]
    if not people:
        return rows, {}
    with deps.state.read() as connection:
        unended = select(search_cases.c.watched, search_cases.c.id).where(search_cases.c.state.in_(UNENDED))
        cases = {row.watched: row.id for row in connection.execute(unended)}
    hidden, trails = set[int](), dict[str, str]()
    for row in people:
        tag = json.loads(row["body"]).get("tag")
        who = row["device"] if row["node"] == WATCHED else deps.enrolled.whose(tag) if tag is not None else None
        if who is not None and who in cases:
            trails[who] = f"search/{cases[who]}"
        elif tag is not None or row["node"] == WATCHED or event_class(row) == "sighting":
            hidden.add(row["id"])
    return [row for row in rows if row["id"] not in hidden], trails


def routes(deps: Deps) -> APIRouter:
    """GET /events, /quarantine, /losses."""
    router = APIRouter()

    def page(table: Table, query: Select[tuple[object, ...]], before: int | None, limit: int) -> tuple[list[Row], int | None]:
        query = query.order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.id < before)
        with deps.state.read() as connection:
            rows: list[Row] = [dict(row) for row in connection.execute(query).mappings()]
        return rows, rows[-1]["id"] if len(rows) == limit else None

    @router.get("/events")
    def events(
        actor: Annotated[Actor, Depends(sifted("event.read"))],
        node: NodeQuery = None,
        device: NodeQuery = None,
        type: Annotated[str | None, Query(max_length=32)] = None,  # noqa: A002 - the word of the wire
        class_: Annotated[str | None, Query(alias="class", max_length=16)] = None,
        after: Annotated[int | None, Query(ge=0, lt=2**63, description="Only rows with a larger id: what is new.")] = None,
        before: BeforeQuery = None,
        limit: LimitQuery = 100,
    ) -> EventsJson:
        """The caller's events. Those with a tag only while its person is searched for, to who may see where tags were."""
        if type is not None and type not in (*EVENTS, *OWN_TYPES):
            known = dict.fromkeys((*EVENTS, *OWN_TYPES))  # a visit is a node's too: by its button
            raise Problem(400, f"type: {type!r} is no event; there are {', '.join(known)}")
        classes = [one.name.lower() for one in RecordClass]
        if class_ is not None and class_ not in classes:
            raise Problem(400, f"class: {class_!r} is no class; there are {', '.join(classes)}")
        theirs = extent(actor, "event.read", deps.world)
        query = select(tables.events).where(sift.of_device(theirs, tables.events.c.node, tables.events.c.device))
        for column, wanted in (("node", node), ("device", device), ("type", type), ("class_", class_)):
            if wanted is not None:
                query = query.where(tables.events.c[column] == wanted)
        if after is not None:
            query = query.where(tables.events.c.id > after)
        if not may(actor, "sighting.read", None, deps.world):
            query = query.where(tables.events.c.class_ != "sighting", tables.events.c.type.not_in(TAGGED))
        rows, next_before = page(tables.events, query, before, limit)
        rows, trails = _within_searches(deps, rows)
        look_for(deps, actor, trails, "trail")
        shown = [event_json(row, deps.deployments.of(row["node"], row["device"])) for row in rows]
        return {"events": shown, "next_before": next_before}

    @router.get("/quarantine")
    def quarantine(
        _: Annotated[Actor, Depends(permitted("quarantine.read"))],
        node: NodeQuery = None,
        before: BeforeQuery = None,
        limit: LimitQuery = 100,
    ) -> QuarantineJson:
        """Messages and records that were refused, with the reason."""
        query = select(tables.quarantine)
        if node is not None:
            query = query.where(tables.quarantine.c.node == node)
        rows, next_before = page(tables.quarantine, query, before, limit)
        return {
            "quarantine": [
                {
                    "id": row["id"],
                    "received_us": row["received_us"],
                    "node": row["node"],
                    "seq": row["seq"],
                    "topic": row["topic"],
                    "reason": row["reason"],
                    "size": row["size"],
                    "payload": bytes(row["payload"]).decode("utf-8", "replace"),
                }
                for row in rows
            ],
            "next_before": next_before,
        }

    @router.get("/losses")
    def losses(
        _: Annotated[Actor, Depends(permitted("loss.read"))],
        node: NodeQuery = None,
        before: BeforeQuery = None,
        limit: LimitQuery = 100,
    ) -> LossesJson:
        """Records that will never arrive, as their node declared."""
        query = select(tables.losses)
        if node is not None:
            query = query.where(tables.losses.c.node == node)
        rows, next_before = page(tables.losses, query, before, limit)
        return {
            "losses": [
                {
                    "id": row["id"],
                    "node": row["node"],
                    "epoch": row["epoch"],
                    "low": row["low"],
                    "high": row["high"],
                    "reason": row["reason"],
                    "recorded_us": row["recorded_us"],
                }
                for row in rows
            ],
            "next_before": next_before,
        }

    return router
