"""What the QR at a trap opens: /v/{node}/{device}/{token}, the record of a visit, and after a capture its dossier. No login.

Who has the QR stands at the trap, or has stood there: they may say that they were there and what they found, and add to the
dossier of such a capture for a week. They see no name and no earlier record. GET changes nothing: phones open links for previews.
"""

import hashlib
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from edge.contract.names import Name
from gateway.api.deps import Deps
from gateway.api.gate import PHOTO_BYTES
from gateway.api.problems import Problem
from gateway.api.traps import MOST_PHOTOS, record_visit
from gateway.deployments import Deployment
from gateway.media import TooLarge, WrongType
from gateway.notify.links import Links
from gateway.notify.message import Language
from gateway.pages import language_of, render
from gateway.state.tables import capture_photos, captures, visits
from gateway.traps.captures import ITEMS, Refused, Sex, add_photo, capture_row, change_capture
from gateway.traps.state import state_of
from gateway.traps.visits import Result, Visit
from gateway.words import text

log = logging.getLogger(__name__)

OPEN_FOR_US = 7 * 24 * 3600 * 1_000_000
"""How long a dossier can be added to from the QR."""
MOST_AN_HOUR = 20
"""Visits that one QR may record: a photograph of it is in anybody's hands."""
MOST_PHOTOS_A_DAY = 60
"""Photos of one trap that may come by its QR, for the same reason: the disk is everybody's."""
VISITOR = "qr"
"""Who added what came by the QR; the visit has the name."""

_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

TokenPath = Annotated[str, Path(max_length=40)]
IdPath = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]


def routes(deps: Deps, links: Links, zone: ZoneInfo) -> APIRouter:
    """GET, POST /v/{node}/{device}/{token}; GET, POST .../c/{id}; POST .../c/{id}/photos."""
    router = APIRouter(include_in_schema=False)
    page = _Pages(deps, links, zone)

    @router.api_route("/v/{node}/{device}/{token}", methods=["GET", "HEAD"])
    def shown(node: Name, device: Name, token: TokenPath, accept_language: Accepts = None) -> Response:
        """How the trap stands, and what can be recorded."""
        trap, language = page.trap(node, device, token), language_of(accept_language)
        if trap is None:
            return page.no_link(language)
        return page.visit(trap, token, language, id_=str(uuid.uuid4()))

    @router.post("/v/{node}/{device}/{token}")
    async def recorded(request: Request, node: Name, device: Name, token: TokenPath, accept_language: Accepts = None) -> Response:
        """Records a visit. The same form sent again records it once."""
        trap, language = page.trap(node, device, token), language_of(accept_language)
        if trap is None:
            return page.no_link(language)
        said = await _fields(request)
        return await run_in_threadpool(page.busy_is_said(page.record, language), trap, token, language, said)

    @router.api_route("/v/{node}/{device}/{token}/c/{id}", methods=["GET", "HEAD"])
    def dossier(
        node: Name,
        device: Name,
        token: TokenPath,
        id: IdPath,  # noqa: A002 - the word of the path
        accept_language: Accepts = None,
        said: str = "",
    ) -> Response:
        """A capture's dossier, with what it lacks."""
        trap, language = page.trap(node, device, token), language_of(accept_language)
        return page.no_link(language) if trap is None else page.capture(trap, token, language, id, _SAID.get(said))

    @router.post("/v/{node}/{device}/{token}/c/{id}")
    async def changed(
        request: Request,
        node: Name,
        device: Name,
        token: TokenPath,
        id: IdPath,  # noqa: A002 - the word of the path
        accept_language: Accepts = None,
    ) -> Response:
        """What the animal was."""
        trap, language = page.trap(node, device, token), language_of(accept_language)
        if trap is None:
            return page.no_link(language)
        said = await _fields(request)
        return await run_in_threadpool(page.busy_is_said(page.change, language), trap, token, language, id, said)

    @router.post("/v/{node}/{device}/{token}/c/{id}/photos")
    async def added(
        request: Request,
        node: Name,
        device: Name,
        token: TokenPath,
        id: IdPath,  # noqa: A002 - the word of the path
        accept_language: Accepts = None,
    ) -> Response:
        """One photo."""
        trap, language = page.trap(node, device, token), language_of(accept_language)
        if trap is None:  # before the body is read
            return page.no_link(language)
        try:
            async with request.form(max_files=1, max_fields=5) as form:
                item, photo = form.get("item"), form.get("photo")
                content = await photo.read(PHOTO_BYTES) if isinstance(photo, UploadFile) else b""
        except HTTPException:
            item, content = None, b""
        return await run_in_threadpool(page.busy_is_said(page.photo, language), trap, token, language, id, item, content)

    return router


_SAID = {"saved": "screen.capture.saved"}


class _Pages:
    """The pages, each as an answer. Every method may block."""

    def __init__(self, deps: Deps, links: Links, zone: ZoneInfo) -> None:
        self._deps, self._links, self._zone = deps, links, zone

    def trap(self, node: str, device: str, token: str) -> Deployment | None:
        """The trap of this link; None where the link is not ours, or the trap is not deployed any more."""
        found = self._deps.deployments.of(node, device)
        return found if found.kind == "trap" and self._links.is_visit(node, device, token, found.qr) else None

    def no_link(self, language: Language) -> Response:
        """For a link that is none of ours: the same for a wrong token and a trap that is not there."""
        return self._problem(language, "screen.forged", 404)

    def busy_is_said(self, then: Callable[..., Response], language: Language) -> Callable[..., Response]:
        """The same; where the database can't be written now, that is said, and that nothing was kept."""

        def guarded(*args: Any) -> Response:
            try:
                return then(*args)
            except OperationalError as error:
                log.error("what a trap's page sent could not be kept: the state database: %s", error.orig)
                return self._problem(language, "screen.busy", 503)

        return guarded

    def visit(self, trap: Deployment, token: str, language: Language, *, status: int = 200, **form: Any) -> Response:
        """The form, with what was typed into it before; or, with `done_us`, what became of it."""
        with self._deps.state.read() as connection:
            now_us = self._deps.now_us()
            stands = state_of(connection, trap, self._deps.rules, now_us)
        facts = {
            "where": _where(trap), "here": _here(trap, token), "state": stands["state"], "since_us": stands["since_us"],
            "heard_age_us": int((stands["heard_age_s"] or 0) * 1e6), "last_visit_us": stands["last_visit_us"],
            "id": form.pop("id_", ""), "who": "", "note": "", "refused": None, "done_us": None, "capture_url": None,
        }  # fmt: skip
        return render("visit.html", language, self._zone, status=status, **{**facts, **form})

    def record(self, trap: Deployment, token: str, language: Language, said: Mapping[str, str]) -> Response:
        """A visit from the form."""
        who, note = said.get("who", "").strip()[:60], said.get("note", "").strip()[:1000]
        id_, result, now_us = _uuid(said.get("id", "")), said.get("result", ""), self._deps.now_us()
        again = {"id_": str(uuid.uuid4()), "who": who, "note": note}
        if id_ is None or result not in get_args(Result):
            return self.visit(trap, token, language, status=422, refused="screen.visit.refused", **again)
        with self._deps.state.read() as connection:
            known = connection.execute(select(visits).where(visits.c.id == id_)).first()
            lately = connection.scalar(
                select(func.count())
                .select_from(visits)
                .where(visits.c.node == trap.node, visits.c.device == trap.device, visits.c.via == "qr")
                .where(visits.c.recorded_us > now_us - 3600 * 1_000_000)
            )
        if known is None and (lately or 0) >= MOST_AN_HOUR:
            return self.visit(trap, token, language, status=429, refused="screen.visit.many", **again)
        try:
            made = record_visit(self._deps, Visit(id_, trap.node, trap.device, now_us, who, "qr", result, note))
        except Problem:
            return self.visit(trap, token, language, status=409, refused="screen.visit.refused", **again)
        capture = f"{_here(trap, token)}/c/{made['capture']}" if made["capture"] else None
        return self.visit(trap, token, language, done_us=made["at_us"], capture_url=capture)

    def capture(
        self, trap: Deployment, token: str, language: Language, id_: str, said: str | None = None, status: int = 200
    ) -> Response:
        """The dossier, where it is of this trap and not older than a week."""
        with self._deps.state.read() as connection:
            row = capture_row(connection, id_)
        if row is None or not self._is_open_to(trap, row):
            return self._problem(language, "screen.unknown", 404)
        lacks = [text(language, f"dossier.{one}") for one in row["missing"]]
        items = [(one, text(language, "screen.capture.other" if one == "other" else f"dossier.{one}")) for one in ITEMS]
        there = {photo["item"] for photo in row["photos"]}
        items.sort(key=lambda one: one[0] in there or one[0] == "other")  # what is still missing is chosen at first
        return render(
            "capture.html",
            language,
            self._zone,
            status=status,
            where=_where(trap),
            here=f"{_here(trap, token)}/c/{id_}",
            trap=_here(trap, token),
            said=said,
            capture=row,
            sprung_us=row["sprung_us"],
            visited_us=row["visit"]["at_us"],
            missing=text(language, "part.and").join(lacks),
            items=items,
            closed=row["completed_us"] is not None,
        )

    def change(self, trap: Deployment, token: str, language: Language, id_: str, said: Mapping[str, str]) -> Response:
        """What the form says of the animal; what it leaves empty is not known."""
        if not self._may_change(trap, id_):
            return self.capture(trap, token, language, id_, status=409)
        weight_kg = _number(said.get("weight_kg", ""))
        sex = said.get("sex", "")
        if (weight_kg is not None and not 0 < weight_kg <= 2000) or sex not in ("", *get_args(Sex)):
            return self.capture(trap, token, language, id_, "screen.capture.refused_field", 422)
        fields = {
            "species": said.get("species", "").strip()[:40] or None,
            "sex": sex or None,
            "weight_kg": weight_kg,
            "disposal": said.get("disposal", "").strip()[:200] or None,
            "note": said.get("note", "").strip()[:2000],
        }
        try:
            with self._deps.state.write() as connection:
                change_capture(
                    connection, id_, fields, VISITOR, self._deps.now_us(), seen=said.get("seen") or None, complete=False
                )
        except Refused:
            return self.capture(trap, token, language, id_, "screen.visit.refused", 409)
        return RedirectResponse(f"{_here(trap, token)}/c/{id_}?said=saved", 303)

    def photo(self, trap: Deployment, token: str, language: Language, id_: str, item: object, content: bytes) -> Response:
        """Keeps a photo on the shelf and adds it."""
        if not self._may_change(trap, id_):
            return self.capture(trap, token, language, id_, status=409)
        kind = next((kind for begin, kind in _KINDS.items() if content.startswith(begin)), None)
        if kind is None or not isinstance(item, str) or item not in ITEMS:
            return self.capture(trap, token, language, id_, "screen.capture.refused_kind", 422)
        sha256 = hashlib.sha256(content).hexdigest()
        with self._deps.state.read() as connection:
            row = capture_row(connection, id_)
            lately = connection.scalar(
                select(func.count())
                .select_from(capture_photos.join(captures, captures.c.id == capture_photos.c.capture))
                .where(captures.c.node == trap.node, captures.c.device == trap.device, capture_photos.c.added_by == VISITOR)
                .where(capture_photos.c.added_us > self._deps.now_us() - 24 * 3600 * 1_000_000)
            )
        known = row is not None and sha256 in {one["sha256"] for one in row["photos"]}
        if row is not None and not known and (len(row["photos"]) >= MOST_PHOTOS or (lately or 0) >= MOST_PHOTOS_A_DAY):
            return self.capture(trap, token, language, id_, "screen.capture.refused_many", 409)
        try:
            self._deps.media.keep(sha256, content, kind)
        except (TooLarge, WrongType):
            return self.capture(trap, token, language, id_, "screen.capture.refused_kind", 422)
        except OSError as error:
            log.error("a capture's photo can't be kept: %s", error.strerror or error)
            return self.capture(trap, token, language, id_, "screen.capture.refused_full", 507)
        try:
            with self._deps.state.write() as connection:
                add_photo(connection, id_, sha256, item, VISITOR, self._deps.now_us())
        except Refused:
            return self.capture(trap, token, language, id_, "screen.capture.refused_twice", 409)
        return RedirectResponse(f"{_here(trap, token)}/c/{id_}?said=saved", 303)

    def _may_change(self, trap: Deployment, id_: str) -> bool:
        with self._deps.state.read() as connection:
            row = connection.execute(select(captures).where(captures.c.id == id_)).mappings().first()
        return row is not None and self._is_open_to(trap, dict(row)) and row["completed_us"] is None

    def _is_open_to(self, trap: Deployment, row: Mapping[str, Any]) -> bool:
        here = (row["node"], row["device"]) == (trap.node, trap.device)
        return here and self._deps.now_us() - cast("int", row["opened_us"]) < OPEN_FOR_US

    def _problem(self, language: Language, about: str, status: int) -> Response:
        title, body = text(language, f"{about}.title"), text(language, f"{about}.body")
        return render("problem.html", language, self._zone, status=status, title=title, body=body)


async def _fields(request: Request) -> dict[str, str]:
    """The text fields of a form; none where it is no form."""
    try:
        async with request.form(max_files=0, max_fields=20) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except HTTPException:
        return {}


def _where(trap: Deployment) -> str:
    return f"{trap.place} {trap.label}".strip()


def _here(trap: Deployment, token: str) -> str:
    return f"/v/{trap.node}/{trap.device}/{token}"


def _uuid(said: str) -> str | None:
    try:
        return str(uuid.UUID(said))
    except ValueError:
        return None


def _number(said: str) -> float | None:
    """None of nothing; of what is no number one that is refused."""
    if not said.strip():
        return None
    try:
        found = float(said.strip().replace(",", "."))
    except ValueError:
        return -1.0
    return found if math.isfinite(found) else -1.0
