"""Traps for people and programs: how each stands, visits, dossiers of captures, and what people say that pictures show.

Names of visitors are for who has `visit.read`; how a trap stands is for everybody who may see devices.
"""

import uuid
from typing import Annotated, Any, Literal

import segno
from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, or_, select
from typing_extensions import TypedDict

from edge.contract.names import Name
from gateway.api import sift, things
from gateway.api.deps import Deps, LimitQuery, Sha256Path, permitted, sifted
from gateway.api.problems import NotHere, Problem
from gateway.pictures import Confirmed, confirm
from gateway.policy import Actor, Extent, Thing, authorize, extent
from gateway.state.tables import captures, pictures, visits
from gateway.traps.captures import CHECKLIST, Lacking, Refused, Sex, add_photo, capture_row, change_capture, open_capture
from gateway.traps.state import state_of
from gateway.traps.visits import NotTaken, Result, Visit, add_visit

MOST_PHOTOS = 20
"""Of one dossier."""

_strict = ConfigDict(extra="forbid")
IdPath = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
FromQuery = Annotated[int, Query(ge=0, le=2**53, description="Only what was then or later, UTC µs.")]


class VisitBody(BaseModel):
    """Somebody was at a trap. `id` is made by who sends it, so that it may be sent again."""

    model_config = _strict

    id: uuid.UUID
    node: Name
    device: Name
    at_us: Annotated[int | None, Field(ge=0, le=2**53, description="When; now where it is not said.")] = None
    who: Annotated[str, Field(max_length=60, description="Who was there; the actor where it is not said.")] = ""
    result: Result
    note: Annotated[str, Field(max_length=1000)] = ""


class CaptureBody(BaseModel):
    """A dossier's fields, all of them; null is not known yet."""

    model_config = _strict

    species: Annotated[str | None, Field(max_length=40)] = None
    sex: Sex | None = None
    weight_kg: Annotated[float | None, Field(gt=0, le=2000, allow_inf_nan=False)] = None
    disposal: Annotated[str | None, Field(max_length=200)] = None
    note: Annotated[str, Field(max_length=2000)] = ""
    seen: Annotated[str | None, Field(max_length=16, description="`seen` of the dossier that was looked at; any when null.")] = (
        None
    )
    complete: Annotated[bool, Field(description="That it is whole, and closed.")] = False


class PhotoBody(BaseModel):
    """A picture of the shelf, and what it is of."""

    model_config = _strict

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    item: Literal["whole", "board", "tail", "other"]


class ConfirmBody(BaseModel):
    """What a picture shows, by a person who looked at it."""

    model_config = _strict

    content: Confirmed
    species: Name | None = None


class TrapJson(TypedDict):
    """How a trap stands. `state`: set, sprung, unknown, sprung_silent; see gateway/traps/state.py."""

    node: str
    device: str
    place: str
    label: str
    state: str
    since_us: int | None
    signs: list[str]
    likely: str | None
    switch: str | None
    heard_us: int | None
    heard_age_s: float | None
    last_visit_us: int | None
    last_visit_via: str | None
    overdue: bool | None


class TrapsJson(TypedDict):
    """All traps; `now_us` is the gateway's clock."""

    now_us: int
    traps: list[TrapJson]


class VisitLinkJson(TypedDict):
    """What the QR at a trap opens, and the QR to print: SVG."""

    url: str
    svg: str


class VisitJson(TypedDict):
    """One visit; `capture` is the dossier that it opened, or was added to."""

    id: str
    node: str
    device: str
    at_us: int
    who: str
    via: str
    result: str
    note: str
    recorded_us: int
    capture: str | None


class VisitsJson(TypedDict):
    """Visits, the newest first."""

    visits: list[VisitJson]


class PhotoJson(TypedDict):
    """A picture in a dossier."""

    sha256: str
    item: str
    added_us: int
    added_by: str


class CaptureJson(TypedDict):
    """A dossier. `missing` names fields and items of `checklist`; `seen` marks this content, for PUT."""

    id: str
    node: str
    device: str
    place: str
    label: str
    alert: str | None
    sprung_us: int | None
    visit: VisitJson
    species: str | None
    sex: str | None
    weight_kg: float | None
    disposal: str | None
    note: str
    photos: list[PhotoJson]
    checklist: list[str]
    missing: list[str]
    opened_us: int
    completed_us: int | None
    completed_by: str | None
    seen: str


class CapturesJson(TypedDict):
    """Dossiers, the newest first."""

    captures: list[CaptureJson]


class CorrectionJson(TypedDict):
    """What a node's model took a picture for, and what a person says of it."""

    sha256: str
    node: str
    device: str
    captured_us: int
    content: str
    species: str | None
    confirmed_content: str
    confirmed_species: str | None
    confirmed_us: int
    confirmed_by: str


class CorrectionsJson(TypedDict):
    """Corrections, the oldest first; ask for the next page with the last `confirmed_us`."""

    corrections: list[CorrectionJson]


def routes(deps: Deps) -> APIRouter:
    """How traps stand, visits, dossiers of captures, and what people say of pictures."""
    router = APIRouter()
    _add_visits(router, deps)
    _add_captures(router, deps)
    _add_corrections(router, deps)
    return router


def _add_visits(router: APIRouter, deps: Deps) -> None:
    @router.get("/traps")
    def traps(actor: Annotated[Actor, Depends(sifted("device.read"))], overdue: bool | None = None) -> TrapsJson:
        """How each of the caller's traps stands, and how sure that is; `overdue`: only those that lack, or have, their visit."""
        now_us, theirs = deps.now_us(), extent(actor, "device.read", deps.world)
        stand = [one for one in deps.deployments if one.kind == "trap" and theirs.covers(Thing(one.node, one.device))]
        with deps.state.read() as connection:
            found = [state_of(connection, one, deps.rules, now_us) for one in stand]
        shown: list[Any] = [one for one in found if overdue is None or one["overdue"] is overdue]
        return {"now_us": now_us, "traps": shown}

    @router.get("/traps/{node}/{device}/visit-link")
    def visit_link(
        _: Annotated[Actor, Depends(permitted("visit.record", things.device))], node: Name, device: Name
    ) -> VisitLinkJson:
        """The link behind the QR at a trap: who has it can record visits there."""
        trap = deps.deployments.of(node, device)
        if trap.kind != "trap":
            raise Problem(404, "why.no_trap")
        if deps.answer_page is None:
            raise NotHere("[people]")
        url = deps.answer_page.links.visit_url(node, device, trap.qr)
        return {"url": url, "svg": segno.make(url, error="m").svg_inline(scale=4)}

    @router.get("/visits")
    def all_visits(
        actor: Annotated[Actor, Depends(sifted("visit.read"))],
        node: Annotated[Name | None, Query()] = None,
        device: Annotated[Name | None, Query()] = None,
        since_us: FromQuery = 0,
        limit: LimitQuery = 200,
    ) -> VisitsJson:
        """Visits to the caller's traps, the newest first."""
        theirs = sift.of_device(extent(actor, "visit.read", deps.world), visits.c.node, visits.c.device)
        query = select(visits).where(theirs, visits.c.at_us >= since_us).order_by(visits.c.at_us.desc(), visits.c.id).limit(limit)
        for column, wanted in (("node", node), ("device", device)):
            if wanted is not None:
                query = query.where(visits.c[column] == wanted)
        with deps.state.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            return {"visits": [_visit(connection, row) for row in rows]}

    @router.post("/visits", status_code=201)
    def enter_visit(actor: Annotated[Actor, Depends(sifted("visit.record"))], said: Annotated[VisitBody, Body()]) -> VisitJson:
        """Enters a visit: it ends the trap's alert, and counts for the day. Sent again it changes nothing."""
        authorize(actor, "visit.record", Thing(said.node, said.device), deps.world)
        at_us = deps.now_us() if said.at_us is None else said.at_us
        visit = Visit(str(said.id), said.node, said.device, at_us, said.who or actor.name, "form", said.result, said.note)
        return record_visit(deps, visit)


def _add_captures(router: APIRouter, deps: Deps) -> None:
    @router.get("/captures")
    def all_captures(
        actor: Annotated[Actor, Depends(sifted("capture.read"))],
        complete: bool | None = None,
        since_us: FromQuery = 0,
        limit: LimitQuery = 100,
    ) -> CapturesJson:
        """Dossiers of the caller's traps, the newest first; `complete`: only those that are, or are not."""
        theirs = sift.of_device(extent(actor, "capture.read", deps.world), captures.c.node, captures.c.device)
        query = select(captures.c.id).where(theirs, captures.c.opened_us >= since_us)
        if complete is not None:
            query = query.where(captures.c.completed_us.is_not(None) if complete else captures.c.completed_us.is_(None))
        with deps.state.read() as connection:
            ids = connection.scalars(query.order_by(captures.c.opened_us.desc(), captures.c.id).limit(limit)).all()
            return {"captures": [_capture(deps, connection, id_) for id_ in ids]}

    @router.get("/captures/{id}")
    def one_capture(
        _: Annotated[Actor, Depends(permitted("capture.read", things.capture))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> CaptureJson:
        """One dossier, with what it lacks."""
        with deps.state.read() as connection:
            return _capture(deps, connection, id)

    @router.put("/captures/{id}")
    def set_capture(
        actor: Annotated[Actor, Depends(permitted("capture.edit", things.capture))],
        id: IdPath,  # noqa: A002 - the word of the path
        said: Annotated[CaptureBody, Body()],
    ) -> CaptureJson:
        """Sets its fields, and completes it where asked: 409 where it is not whole, complete already, or changed meanwhile."""
        fields = said.model_dump(exclude={"seen", "complete"})
        try:
            with deps.state.write() as connection:
                _capture(deps, connection, id)
                change_capture(connection, id, fields, actor.name, deps.now_us(), seen=said.seen, complete=said.complete)
                return _capture(deps, connection, id)
        except Refused as refused:
            raise _refusal(refused) from refused

    @router.post("/captures/{id}/photos", status_code=201)
    def enter_photo(
        actor: Annotated[Actor, Depends(permitted("capture.edit", things.capture))],
        id: IdPath,  # noqa: A002 - the word of the path
        said: Annotated[PhotoBody, Body()],
    ) -> CaptureJson:
        """Adds a picture of the shelf. 409 where it proves another capture."""
        kept = deps.media.find(said.sha256)
        if kept is None or not kept.content_type.startswith("image/"):
            raise Problem(404, "why.picture_first")
        try:
            with deps.state.write() as connection:
                before = _capture(deps, connection, id)
                if len(before["photos"]) >= MOST_PHOTOS:
                    raise Problem(409, "why.photos_many", {"n": MOST_PHOTOS})
                add_photo(connection, id, said.sha256, said.item, actor.name, deps.now_us())
                return _capture(deps, connection, id)
        except Refused as refused:
            raise _refusal(refused) from refused


def _add_corrections(router: APIRouter, deps: Deps) -> None:
    @router.post("/media/{sha256}/confirm")
    def say_what_it_is(
        actor: Annotated[Actor, Depends(permitted("picture.confirm", things.picture))],
        sha256: Sha256Path,
        said: Annotated[ConfirmBody, Body()],
    ) -> CorrectionsJson:
        """Says what a picture shows. Kept beside the model's word; it ends the alert, or raises one. The last word counts."""
        theirs = _theirs(extent(actor, "picture.confirm", deps.world))
        with deps.state.write() as connection:
            facts = confirm(connection, sha256, said.content, said.species, actor.name, deps.now_us())
            told = _corrections(connection, theirs & (pictures.c.sha256 == sha256), 1000)
        if not told:
            raise Problem(404, "why.picture_untold")
        for row in facts:
            deps.feed.say("event", row)
        return {"corrections": told}

    @router.get("/corrections")
    def corrections(
        actor: Annotated[Actor, Depends(sifted("picture.confirm"))],
        since_us: FromQuery = 0,
        wrong: Annotated[bool, Query(description="Only where the person says something else than the model.")] = False,
        limit: LimitQuery = 1000,
    ) -> CorrectionsJson:
        """What people said of pictures of the caller's cameras, beside the model's word: to see how good it is."""
        query = _theirs(extent(actor, "picture.confirm", deps.world)) & (pictures.c.confirmed_us >= since_us)
        if wrong:
            query &= or_(
                pictures.c.content != pictures.c.confirmed_content,
                pictures.c.confirmed_species.is_not(None)
                & or_(pictures.c.species.is_(None), pictures.c.species != pictures.c.confirmed_species),
            )
        with deps.state.read() as connection:
            return {"corrections": _corrections(connection, query, limit)}


def record_visit(deps: Deps, visit: Visit) -> VisitJson:
    """Enters a visit, opens the dossier of a capture, and tells the live stream. Problem 404 or 409 where it can't be."""
    if deps.deployments.of(visit.node, visit.device).kind != "trap":
        raise Problem(404, "why.no_trap")
    try:
        with deps.state.write() as connection:
            fact = add_visit(connection, visit, deps.now_us())
            if fact is not None and visit.result == "capture":
                open_capture(connection, visit.id, deps.now_us())
            row = connection.execute(select(visits).where(visits.c.id == visit.id)).mappings().one()
            shown = _visit(connection, dict(row))
    except NotTaken as refused:
        raise Problem(409, refused) from refused
    if fact is not None:
        deps.feed.say("event", fact)
    return shown


def _visit(connection: Connection, row: dict[str, Any]) -> VisitJson:
    capture = connection.scalar(select(captures.c.id).where(captures.c.visit == row["id"]))
    return {**row, "capture": capture}  # type: ignore[typeddict-item]  # the row's columns are its keys


def _capture(deps: Deps, connection: Connection, id_: str) -> CaptureJson:
    row = capture_row(connection, id_)
    if row is None:
        raise Problem(404, "why.no_dossier")
    deployment = deps.deployments.of(row["node"], row["device"])
    shown: dict[str, Any] = {name: row[name] for name in CaptureJson.__annotations__ if name in row}
    shown["visit"] = _visit(connection, row["visit"])
    shown["photos"] = [{name: photo[name] for name in PhotoJson.__annotations__} for photo in row["photos"]]
    return {**shown, "place": deployment.place, "label": deployment.label, "checklist": list(CHECKLIST)}  # type: ignore[typeddict-item]


def _theirs(theirs: Extent) -> ColumnElement[bool]:
    return sift.of_device(theirs, pictures.c.node, pictures.c.device)


def _corrections(connection: Connection, query: Any, limit: int) -> list[CorrectionJson]:
    rows = connection.execute(
        select(*(pictures.c[name] for name in CorrectionJson.__annotations__))
        .where(query, pictures.c.confirmed_us.is_not(None))
        .order_by(pictures.c.confirmed_us, pictures.c.sha256, pictures.c.node)
        .limit(limit)
    ).mappings()
    return [dict(row) for row in rows]  # type: ignore[misc]  # the columns are its keys


def _refusal(refused: Refused) -> Problem:
    return Problem(409, refused, missing=" ".join(refused.missing) if isinstance(refused, Lacking) else None)
