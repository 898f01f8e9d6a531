"""Labels of tags at the office: made and printed, and what finders reported of them, until it is settled. Says whose a tag is."""

import io
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import segno
from fastapi import APIRouter, Body, Depends, Form, Path, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.events import MAX_SEQ
from gateway.api.deps import Deps, permitted
from gateway.api.problems import Problem, reads
from gateway.audit import who_of
from gateway.keeping import erasing
from gateway.mimamori import labels as made
from gateway.mimamori.labels import How, Labels, Mistyped, NotSettled, read, shown
from gateway.notify.links import Links
from gateway.notify.message import Language
from gateway.pages import render
from gateway.policy import Actor
from gateway.state.tables import label_reports, labels, tags, watched
from gateway.words import text

IdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
TagPath = Annotated[str, Path(pattern=r"^[a-z0-9:-]{1,80}$")]
LabelPath = Annotated[str, Path(max_length=60)]
ReportPath = Annotated[int, Path(ge=1, le=MAX_SEQ)]
MOST = 200


class LabelJson(TypedDict):
    """A tag's label as it is printed, and what its QR opens; null without `[people]`."""

    label: str
    url: str | None


class ReportJson(TypedDict):
    """What a finder said. `state`: open, resumed, revoked, done. `stopped`: whether what is heard of the tag is dropped now."""

    id: int
    label: str
    what: str
    at_us: int
    words: str
    reach: str
    state: str
    watched: str | None
    name: str | None
    stopped: bool
    settled_us: int | None
    settled_by: str | None


class ReportsJson(TypedDict):
    """Reports, the newest first."""

    reports: list[ReportJson]


class Settled(BaseModel):
    """What becomes of a report."""

    model_config = ConfigDict(extra="forbid")

    how: Annotated[How, Field(description="stop (in a search), resume or revoke of misuse; done of a found one.")]
    why: Annotated[str, Field(max_length=200)] = ""


def routes(deps: Deps) -> APIRouter:
    """PUT /watched/{id}/tags/{tag}/label; GET /label-reports; POST /label-reports/{id}/settle."""
    router = APIRouter()
    office = _office(deps)

    @router.put("/watched/{id}/tags/{tag}/label")
    def label(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        tag: TagPath,
    ) -> LabelJson:
        """The label of this tag; a new one where it has none. 404 where they have no such tag."""
        with deps.state.write() as connection:
            if connection.scalar(select(tags.c.tag).where(tags.c.tag == tag, tags.c.watched == id)) is None:
                raise Problem(404, "why.no_tag")
            found = shown(made.make(connection, tag, who_of(actor), deps.now_us()))
        return {"label": found, "url": deps.answer_page.links.label_url(found) if deps.answer_page else None}

    @router.get("/label-reports")
    def reports(_: Annotated[Actor, Depends(permitted("label.settle"))]) -> ReportsJson:
        """What finders reported, the newest first."""
        with deps.state.read() as connection:
            return {"reports": _reports(connection)}

    @router.post("/label-reports/{id}/settle")
    def settle(
        actor: Annotated[Actor, Depends(permitted("label.settle"))],
        id: ReportPath,  # noqa: A002 - the word of the path
        told: Annotated[Settled, Body()],
    ) -> ReportsJson:
        """Decides; every open report of the same kind of this tag is settled with it. 409 where it is already, or can't be so."""
        try:
            _settle(deps, office, id, told.how, actor, told.why)
        except NotSettled as error:
            raise Problem(409, error) from error
        with deps.state.read() as connection:
            return {"reports": _reports(connection)}

    return router


def pages(deps: Deps, links: Links, zone: ZoneInfo, phone: str | None) -> APIRouter:
    """GET, POST /labels: the reports and their buttons; GET /labels/{label}: what is printed and fixed to the tag. No script."""
    router = APIRouter(include_in_schema=False)
    office = _office(deps)

    @router.get("/labels")
    def reported(request: Request, _: Annotated[Actor, Depends(permitted("label.settle"))]) -> Response:
        """What is to be decided."""
        return _page(deps, zone, reads(request.scope))

    @router.post("/labels")
    def settled(
        request: Request,
        actor: Annotated[Actor, Depends(permitted("label.settle"))],
        report: Annotated[int, Form(ge=1, le=MAX_SEQ)],
        how: Annotated[How, Form()],
        sure: Annotated[Literal["", "yes"], Form()] = "",
    ) -> Response:
        """Decides. What erases is asked for once more: it can't be undone."""
        if how == "revoke" and not sure:
            return _page(deps, zone, reads(request.scope), asked=report)
        try:
            _settle(deps, office, report, how, actor, "")
        except NotSettled:
            return _page(deps, zone, reads(request.scope), note="screen.reports.not_settled", status=409)
        return RedirectResponse(f"/labels?lang={reads(request.scope)}", 303, {"Cache-Control": "no-store"})

    @router.get("/labels/{label}")
    def printed(_: Annotated[Actor, Depends(permitted("mimamori.manage"))], label: LabelPath) -> Response:
        """The slip, in Japanese and English, with its QR."""
        try:
            known = read(label)
        except Mistyped as error:
            raise Problem(404, "why.label_mistyped") from error
        with deps.state.read() as connection:
            if connection.scalar(select(labels.c.label).where(labels.c.label == known, labels.c.ended_us.is_(None))) is None:
                raise Problem(404, "why.no_label")
        url = links.label_url(shown(known))
        where = url.removesuffix(f"/{shown(known)}").partition("://")[2]
        about = "screen.label.printed" if phone else "screen.label.printed_without"
        said = [
            text(one, about, owner=office.town or text(one, "part.label_owner"), phone=phone, url=where) for one in ("ja", "en")
        ]
        return render("slip.html", "ja", zone, label=shown(known), said=said, qr=Markup(_qr(url)))  # noqa: S704 - our own

    return router


def _office(deps: Deps) -> Labels:
    return deps.labels or Labels()


def _settle(deps: Deps, office: Labels, report: int, how: How, actor: Actor, why: str) -> None:
    with deps.state.read() as connection:
        of_label = select(labels.c.tag).join(label_reports, label_reports.c.label == labels.c.label)
        tag = connection.scalar(of_label.where(label_reports.c.id == report)) or ""
    with erasing(deps.state, "tag", tag) if how == "revoke" and tag else deps.state.write() as connection:
        office.settle(connection, report, how, who_of(actor), deps.now_us(), why)
    if how == "revoke":
        deps.state.empty_log()
    with deps.state.read() as connection:
        deps.enrolled.read(connection)
    deps.ring_deliveries()


def _page(
    deps: Deps, zone: ZoneInfo, language: Language, *, note: str | None = None, status: int = 200, asked: int | None = None
) -> Response:
    """`asked`: the one report that is shown, with what erasing means."""
    with deps.state.read() as connection:
        found = [one for one in _reports(connection) if one["state"] == "open" and asked in (None, one["id"])]
    return render("reports.html", language, zone, status=status, switch=asked is None, reports=found, note=note, asked=asked)


def _reports(connection: Connection) -> list[ReportJson]:
    query = select(label_reports, labels.c.tag, tags.c.stopped_us, watched.c.id.label("whose"), watched.c.name)
    query = query.join(labels, labels.c.label == label_reports.c.label).outerjoin(tags, tags.c.tag == labels.c.tag)
    query = query.outerjoin(watched, watched.c.id == tags.c.watched).order_by(label_reports.c.id.desc()).limit(MOST)
    return [
        {
            "id": row.id,
            "label": shown(row.label),
            "what": row.what,
            "at_us": row.at_us,
            "words": row.words,
            "reach": row.reach,
            "state": row.state,
            "watched": row.whose,
            "name": row.name,
            "stopped": row.stopped_us is not None or row.whose is None,
            "settled_us": row.settled_us,
            "settled_by": row.settled_by,
        }
        for row in connection.execute(query)
    ]


def _qr(url: str) -> str:
    drawn = io.BytesIO()
    segno.make(url, error="m", micro=False).save(drawn, kind="svg", xmldecl=False, scale=3, svgclass=None, lineclass=None)
    return drawn.getvalue().decode()
