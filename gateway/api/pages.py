"""GET pages, GET one with what was answered and delivered, POST an answer of the staff's, or of somebody who called them.

Who was asked over what, and what each said, concerns persons: the staff, and who looks after what the page is about. A family
sees who goes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api import sift, things
from gateway.api.deliveries import DeliveryJson, delivery_json
from gateway.api.deps import Deps, LimitQuery, permitted, sifted
from gateway.api.problems import NotHere, Problem
from gateway.notify.message import Answer
from gateway.paging import STAFF, NotTaken, Paging, Standing
from gateway.policy import Actor, extent, refusal
from gateway.state import tables

PageState = Literal["waiting", "asking", "answered", "exhausted", "closed"]

StateQuery = Annotated[
    list[PageState] | None, Query(max_length=5, description="Only pages in one of these states; all when not said.")
]
PagePath = Annotated[str, Path(max_length=64)]


class PageJson(TypedDict):
    """One page: alerts of which people are told together. `going`: names of who goes; `missing`: how many more."""

    id: str
    route: str
    kind: str
    severity: str
    state: str
    needed: int
    going: list[str]
    missing: int
    step: int
    round: int
    opened_us: int
    answered_us: int | None
    due_us: int | None
    closed_us: int | None


class PagesJson(TypedDict):
    """Pages, the newest first."""

    now_us: int
    pages: list[PageJson]


class PagedAlertJson(TypedDict):
    """One alert of a page. `told_us`: when a message first named it."""

    alert: str
    rule: str
    state: str
    joined_us: int
    told_us: int | None


class AnswerJson(TypedDict):
    """What one contact said; the last that they said counts."""

    at_us: int
    contact: str
    name: str
    answer: str
    via: str


class PageWithAnswersJson(PageJson):
    """A page with all that was said, on both sides. `answers`, `deliveries` null: not for this caller (`page.history`).

    `mine`: what the caller said last.
    """

    alerts: list[PagedAlertJson]
    mine: str | None
    answers: list[AnswerJson] | None
    deliveries: list[DeliveryJson] | None


class AnsweredJson(TypedDict):
    """The answer is kept. `repeated`: they had said the same before."""

    answer: str
    repeated: bool
    page: PageJson


class SaidAnswer(BaseModel):
    """What is answered, and by whom."""

    model_config = ConfigDict(extra="forbid")

    answer: Answer
    contact: Annotated[
        str | None, Field(max_length=64, description="Who said so, by telephone or in person; null: the caller of the API.")
    ] = None


def routes(deps: Deps) -> APIRouter:
    """GET /pages, GET /pages/{id}, POST /pages/{id}/answer."""
    router = APIRouter()

    @router.get("/pages")
    def pages(
        actor: Annotated[Actor, Depends(sifted("page.read"))], state: StateQuery = None, limit: LimitQuery = 200
    ) -> PagesJson:
        """Those pages that the caller may read, the newest first."""
        paging, now_us = _paging(deps), deps.now_us()
        query = select(tables.pages).where(sift.of_page(extent(actor, "page.read", deps.world)))
        query = query.order_by(tables.pages.c.opened_us.desc(), tables.pages.c.id).limit(limit)
        if state is not None:
            query = query.where(tables.pages.c.state.in_(state))
        with deps.state.read() as connection:
            rows = connection.execute(query).mappings().all()
            return {"now_us": now_us, "pages": [_page(paging, connection, row, now_us) for row in rows]}

    @router.get("/pages/{id}")
    def page(
        actor: Annotated[Actor, Depends(permitted("page.read", things.page))],
        id: PagePath,  # noqa: A002 - the word of the path
    ) -> PageWithAnswersJson:
        """One page with those of its alerts that the caller may read and, where they may, all that was answered and sent."""
        paging, now_us = _paging(deps), deps.now_us()
        joined, said, sent = tables.page_alerts, tables.answers, tables.notifications
        theirs = sift.of_device(extent(actor, "page.read", deps.world), tables.alerts.c.node, tables.alerts.c.device)
        history = extent(actor, "page.history", deps.world)
        tells = history.everything or any(map(history.covers, things.page_things(deps, id)))
        with deps.state.read() as connection:
            row = _row(connection, id)
            alerts = connection.execute(
                select(joined, tables.alerts.c.rule, tables.alerts.c.state)
                .join(tables.alerts, tables.alerts.c.id == joined.c.alert)
                .where(joined.c.page == id, theirs)
                .order_by(joined.c.joined_us, joined.c.alert)
            ).all()
            answers = connection.execute(select(said).where(said.c.page == id).order_by(said.c.id)).all()
            query = select(sent).where(sent.c.page == id).order_by(sent.c.created_us, sent.c.id)
            deliveries = connection.execute(query).mappings().all()
            return {
                **_page(paging, connection, row, now_us),
                "alerts": [
                    {"alert": one.alert, "rule": one.rule, "state": one.state, "joined_us": one.joined_us, "told_us": one.told_us}
                    for one in alerts
                ],
                "mine": next((one.answer for one in reversed(answers) if one.contact == _own(actor)), None),
                "answers": [
                    {
                        "at_us": one.at_us,
                        "contact": one.contact,
                        "name": paging.answers.name_of(connection, one.contact),
                        "answer": one.answer,
                        "via": one.via,
                    }
                    for one in answers
                ]
                if tells
                else None,
                "deliveries": [delivery_json(one, now_us) for one in deliveries] if tells else None,
            }

    @router.post("/pages/{id}/answer")
    def answer(
        actor: Annotated[Actor, Depends(permitted("page.answer", things.page))],
        id: PagePath,  # noqa: A002 - the word of the path
        said: Annotated[SaidAnswer, Body()],
    ) -> AnsweredJson:
        """The caller's own answer or, by the staff, what a contact who was told said to them. 409 when the page can't take it."""
        paging, now_us = _paging(deps), deps.now_us()
        theirs = extent(actor, "page.answer-for", deps.world)
        is_staff = theirs.everything or any(map(theirs.covers, things.page_things(deps, id)))
        if said.contact not in (None, actor.contact) and not is_staff:
            raise refusal(actor, "page.answer-for")
        own = f"{STAFF}{actor.name}" if is_staff else _own(actor)
        contact = own if said.contact is None else said.contact
        with deps.state.write() as connection:
            result = paging.answers.answer(connection, id, contact, said.answer, "api", None, now_us)
            if isinstance(result, NotTaken):
                now = result.now
                if now is None:
                    raise Problem(404, "not_taken.unknown")
                raise Problem(409, f"not_taken.{result.reason}", state=now.state, missing=now.missing)
            shown = _page(paging, connection, _row(connection, id), now_us)
        deps.feed.say("page", {"id": id, "state": shown["state"], "severity": shown["severity"]})
        return {"answer": result.answer, "repeated": result.repeated, "page": shown}

    return router


def _own(actor: Actor) -> str:
    return actor.contact or f"{STAFF}{actor.name}"


def _paging(deps: Deps) -> Paging:
    if deps.paging is None:
        raise NotHere("[people]")
    return deps.paging


def _row(connection: Connection, id_: str) -> Mapping[Any, Any]:
    row = connection.execute(select(tables.pages).where(tables.pages.c.id == id_)).mappings().first()
    if row is None:
        raise Problem(404, "not_taken.unknown")
    return row


def _page(paging: Paging, connection: Connection, row: Mapping[Any, Any], now_us: int) -> PageJson:
    standing: Standing | None = paging.answers.standing(connection, row["id"], now_us)
    return {
        "id": row["id"],
        "route": row["route"],
        "kind": row["kind"],
        "severity": row["severity"],
        "state": row["state"],
        "needed": row["needed"],
        "going": list(standing.going) if standing else [],
        "missing": standing.missing if standing else row["needed"],
        "step": row["step"],
        "round": row["round"],
        "opened_us": row["opened_us"],
        "answered_us": row["answered_us"],
        "due_us": row["due_us"],
        "closed_us": row["closed_us"],
    }
