"""/reports/: what is printed, each as a page and in its other forms. What stands in it is gateway.reports' to say.

    /reports/{watch}/{month}          traps, cameras, tags, flow; 2026-09; also .pdf and .xlsx
    /reports/captures/{id}            a capture's dossier, to sign; also .pdf

Whoever may see the visits to some traps gets the report of those; of watch tags an officer only.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import Connection

from gateway.api import sift, things
from gateway.api.deps import Deps, permitted, sifted
from gateway.api.problems import Problem, reads
from gateway.api.traps import IdPath
from gateway.notify.message import Language
from gateway.pages import render
from gateway.pictures import is_open
from gateway.policy import Actor, Extent, Thing, extent, may
from gateway.reports.figures import Month, Watch, month_of
from gateway.reports.press import LARGEST_PICTURES_BYTES, NoPress, Press, PressBusy
from gateway.reports.reading import Town, figures_of
from gateway.reports.sheet import Cell, Sheet, reiwa, sheet_of
from gateway.reports.xlsx import MEDIA_TYPE, xlsx_of
from gateway.stripping import strip
from gateway.traps.captures import FIELDS, capture_row
from gateway.words import text
from gateway.words.times import number

PDF = "application/pdf"
PRINTED = frozenset(("image/jpeg", "image/png"))

MonthPath = Annotated[str, Path(pattern=r"^20[2-9]\d-(0[1-9]|1[0-2])$", description="As 2026-09.")]

CHECKS: Mapping[Watch, Callable[[Request], Actor]] = {
    "traps": sifted("visit.read"),
    "cameras": sifted("visit.read"),
    "tags": permitted("sighting.read"),
    "flow": permitted("area.read"),
}
"""Who may see each."""


class Photo(NamedTuple):
    """A picture of a dossier: what it shows, and where it opens; None: not to this reader."""

    item: str
    path: str | None
    sha256: str


def routes(deps: Deps) -> APIRouter:
    """All of /reports/."""
    router, press = APIRouter(prefix="/reports"), Press()
    _add_dossiers(router, deps, press)
    for watch in CHECKS:
        _add_months(router, deps, press, watch)
    return router


# --- A month ---------------------------------------------------------------------------------------------


def _add_months(router: APIRouter, deps: Deps, press: Press, watch: Watch) -> None:
    check, one_at_a_time = CHECKS[watch], threading.Lock()

    def made(actor: Actor, month: str, language: Language) -> Sheet:
        action = check.action  # type: ignore[attr-defined]  # as gateway.api.described reads it
        theirs = extent(actor, action, deps.world)
        town = Town(deps.state, deps.store, deps.deployments, deps.areas, deps.zone, deps.stale_after_s)
        with one_at_a_time:  # each reads a month of series
            figures = figures_of(town, watch, _month(deps, month), partial(sift.of_device, theirs), partial(_sees, theirs))
        return sheet_of(figures, language, deps.zone, deps.now_us())

    def page(sheet: Sheet, language: Language, here: str | None) -> Response:
        return render(
            "month.html",
            language,
            deps.zone,
            switch=here is not None,
            sheet=sheet,
            here=here,
            written=partial(_written, language),
        )

    @router.get(f"/{watch}/{{month}}.pdf", response_class=Response, responses=_as(PDF))
    def month_pdf(request: Request, actor: Annotated[Actor, Depends(check)], month: MonthPath) -> Response:
        """The report, to print."""
        language = reads(request.scope)
        answer = page(made(actor, month, language), language, None)
        return _file(_pressed(press, answer), PDF, f"{watch}-{month}.pdf")

    @router.get(f"/{watch}/{{month}}.xlsx", response_class=Response, responses=_as(MEDIA_TYPE))
    def month_xlsx(request: Request, actor: Annotated[Actor, Depends(check)], month: MonthPath) -> Response:
        """The report, to reckon with."""
        return _file(xlsx_of(made(actor, month, reads(request.scope))), MEDIA_TYPE, f"{watch}-{month}.xlsx")

    @router.get(f"/{watch}/{{month}}", response_class=Response, responses=_as("text/html"))
    def month_page(request: Request, actor: Annotated[Actor, Depends(check)], month: MonthPath) -> Response:
        """What was told in a month, how fast it was answered, and how much was heard of the devices."""
        language = reads(request.scope)
        return page(made(actor, month, language), language, f"/reports/{watch}/{month}")


def _month(deps: Deps, said: str) -> Month:
    now_us = deps.now_us()
    month = month_of(date.fromisoformat(f"{said}-01"), deps.zone, now_us)
    if month.from_us >= now_us:
        raise Problem(404, "why.month_to_come")
    if month.from_us < now_us - deps.alerts_kept_us:
        raise Problem(410, "why.month_forgotten")  # what is gone must not look like nothing
    return month


def _sees(theirs: Extent, one: Any) -> bool:
    return theirs.covers(Thing(one.node, one.device))


def _written(language: Language, cell: Cell) -> str:
    return cell if isinstance(cell, str) else number(cell, language)


# --- A dossier -------------------------------------------------------------------------------------------


def _add_dossiers(router: APIRouter, deps: Deps, press: Press) -> None:
    check = permitted("capture.read", things.capture)

    def page(actor: Actor, id_: str, language: Language, *, is_print: bool) -> tuple[Response, list[Photo]]:
        with deps.state.read() as connection:
            row = capture_row(connection, id_)
            if row is None:
                raise Problem(404, "why.no_dossier")
            photos = [_photo(deps, connection, actor, language, one) for one in row["photos"]]
        deployment = deps.deployments.of(row["node"], row["device"])
        made = render(
            "papers.html",
            language,
            deps.zone,
            switch=not is_print,
            where=f"{deployment.place} {deployment.label}".strip(),
            here=None if is_print else f"/reports/captures/{id_}",
            fields=_fields(deps, row, language),
            missing="、".join(text(language, f"dossier.{one}") for one in row["missing"]),
            photos=[(one.item, one.path) for one in photos],
        )
        return made, photos

    @router.get("/captures/{id}.pdf", response_class=Response, responses=_as(PDF))
    def dossier_pdf(request: Request, actor: Annotated[Actor, Depends(check)], id: IdPath) -> Response:  # noqa: A002 - the path's
        """The dossier, to print and sign."""
        answer, photos = page(actor, id, reads(request.scope), is_print=True)
        shown = [(one.path, kept) for one in photos if one.path is not None and (kept := deps.media.find(one.sha256))]
        if sum(kept.size for _, kept in shown) > LARGEST_PICTURES_BYTES:  # before they are in memory
            raise Problem(422, "why.press_large")
        pictures = {path: (strip(kept.path.read_bytes(), kept.content_type), kept.content_type) for path, kept in shown}
        return _file(_pressed(press, answer, pictures), PDF, f"capture-{id[:8]}.pdf")

    @router.get("/captures/{id}", response_class=Response, responses=_as("text/html"))
    def dossier(request: Request, actor: Annotated[Actor, Depends(check)], id: IdPath) -> Response:  # noqa: A002 - the path's
        """The dossier of a capture: what the sensor, the visit and the photographs say, and what is missing."""
        return page(actor, id, reads(request.scope), is_print=False)[0]


def _photo(deps: Deps, connection: Connection, actor: Actor, language: Language, row: Mapping[str, Any]) -> Photo:
    sha256, item = row["sha256"], row["item"]
    sees = is_open(connection, sha256) or may(actor, "media.read-uncleared", None, deps.world)
    kept = deps.media.find(sha256) if sees else None
    is_shown = kept is not None and kept.content_type in PRINTED
    said = text(language, "screen.capture.other" if item == "other" else f"dossier.{item}")
    return Photo(said, f"/api/v1/media/{sha256}" if is_shown else None, sha256)


def _fields(deps: Deps, row: Mapping[str, Any], language: Language) -> list[tuple[str, str]]:
    say = partial(text, language, zone=deps.zone)
    unknown = say("report.unknown")

    def moment(at_us: int | None) -> str:
        if at_us is None:
            return unknown
        day = datetime.fromtimestamp(at_us / 1e6, deps.zone).date()
        return say("report.capture.moment", year=str(day.year), reiwa=reiwa(day), when=at_us)

    said = {**row, "weight_kg": None if row["weight_kg"] is None else f"{number(row['weight_kg'], language)} kg"}
    if row["sex"] is not None:
        said["sex"] = say(f"screen.capture.{row['sex']}")
    return [
        (say("report.capture.number"), row["id"]),
        (say("report.capture.sprung"), moment(row["sprung_us"])),
        (say("report.capture.visited"), moment(row["visit"]["at_us"])),
        (say("report.capture.who"), row["visit"]["who"] or unknown),
        *((say(f"dossier.{name}"), said[name] or unknown) for name in FIELDS),
        (say("report.capture.note"), row["note"]),
    ]


# --- Both ------------------------------------------------------------------------------------------------


def _pressed(press: Press, page: Response, pictures: Mapping[str, tuple[bytes, str]] | None = None) -> bytes:
    try:
        return press.pdf(bytes(page.body).decode(), pictures)
    except NoPress as missing:
        raise Problem(501, "why.no_press") from missing
    except PressBusy as busy:
        raise Problem(503, "why.press_busy", headers={"Retry-After": "30"}) from busy
    except ValueError as large:
        raise Problem(422, "why.press_large") from large


def _file(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, headers=headers, media_type=media_type)


def _as(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {}}}}
