"""The page behind the question whether a watch goes on: /c/{token}. No login: who has the link is believed to be who got it.

It is asked at each look whether they still are family of this person, or office. GET changes nothing, and to stop is asked
twice: what it erases can't be had back.
"""

import logging
from collections.abc import Callable
from typing import Annotated, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Header, Path, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import OperationalError

from gateway.api.deps import Deps
from gateway.keeping import erasing
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Consents, NoConsent, standing
from gateway.notify.links import Expired, Forged, Links
from gateway.notify.message import Language
from gateway.pages import language_of, render
from gateway.state.tables import contacts, watched
from gateway.words import text

log = logging.getLogger(__name__)

TokenPath = Annotated[str, Path(max_length=100)]
ActForm = Annotated[str, Form(max_length=10)]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]


class _RefusedError(Exception):
    """This page is not for whoever asks: an id of the catalogues, and the status."""

    def __init__(self, about: str, status: int) -> None:
        super().__init__(about)
        self.about, self.status = about, status


def routes(deps: Deps, links: Links, zone: ZoneInfo, phone: str | None) -> APIRouter:
    """GET, HEAD, POST /c/{token}."""
    router = APIRouter(include_in_schema=False)
    page = _Page(deps, links, zone, phone)

    def or_refused(answer: Callable[[], Response], accepts: str | None) -> Response:
        try:
            return answer()
        except _RefusedError as why:
            return page.told(why.about, why.status, language_of(accepts))
        except OperationalError as error:
            log.error("what a family said of a consent could not be kept: the state database: %s", error.orig)
            return page.told("screen.busy", 503, language_of(accepts))

    @router.api_route("/c/{token}", methods=["GET", "HEAD"])
    def shown(token: TokenPath, accept_language: Accepts = None, said: str = "") -> Response:
        """How it stands, and the choice."""
        note = "screen.consent.thanks" if said == "go_on" else None
        return or_refused(lambda: page.shown(token, accept_language, note=note), accept_language)

    @router.post("/c/{token}")
    def chosen(token: TokenPath, act: ActForm = "", accept_language: Accepts = None) -> Response:
        """It goes on, or ends. The same again changes nothing more."""
        return or_refused(lambda: page.chosen(token, act, accept_language), accept_language)

    return router


class _Page:
    """What the routes share."""

    def __init__(self, deps: Deps, links: Links, zone: ZoneInfo, phone: str | None) -> None:
        self._deps, self._links, self._zone, self._phone = deps, links, zone, phone
        self._consents = deps.consents or Consents(deps.state, MimamoriConfig())

    def shown(
        self, token: str, accepts: str | None, *, note: str | None = None, stopping: bool = False, status: int = 200
    ) -> Response:
        now_us = self._deps.now_us()
        id_, contact = self._opened(token, now_us)
        with self._deps.state.read() as connection:
            person = self._kept(connection, id_, contact, now_us)
            held, language = standing(connection, id_, now_us), _language(connection, contact, accepts)
        return render(
            "agreed.html", language, self._zone, status=status, who=person.name, held=held, note=note, stopping=stopping,
            phone=self._phone, here=f"/c/{token}",
        )  # fmt: skip

    def chosen(self, token: str, act: str, accepts: str | None) -> Response:
        now_us = self._deps.now_us()
        id_, contact = self._opened(token, now_us)
        if act not in ("go_on", "really"):
            return self.shown(token, accepts, stopping=act == "stop")
        state = self._deps.state
        try:
            with erasing(state, "watched", id_) if act == "really" else state.write() as connection:
                self._kept(connection, id_, contact, now_us)
                language = _language(connection, contact, accepts)
                if act == "go_on":
                    self._consents.confirm(connection, id_, f"contact:{contact}", now_us)
                else:
                    self._consents.revoke(connection, id_, f"contact:{contact}", now_us)
        except NoConsent:
            note = "screen.consent.in_search" if act == "really" else "screen.consent.missing"
            return self.shown(token, accepts, note=note, status=409)
        self._consents.learn()
        self._deps.ring_deliveries()
        if act == "really":
            self._deps.state.empty_log()
            return self.told("screen.consent_over", 200, language)
        return RedirectResponse(f"/c/{token}?said=go_on", 303, {"Cache-Control": "no-store"})

    def told(self, about: str, status: int, language: Language) -> Response:
        title, body = text(language, f"{about}.title"), text(language, f"{about}.body")
        return render("problem.html", language, self._zone, status=status, title=title, body=body, phone=self._phone)

    def _opened(self, token: str, now_us: int) -> tuple[str, str]:
        found = self._links.read_consent(token, now_us)
        if isinstance(found, Expired):
            raise _RefusedError("screen.expired", 410)
        if isinstance(found, Forged):
            raise _RefusedError("screen.forged", 404)
        return found

    def _kept(self, connection: Connection, id_: str, contact: str, now_us: int) -> Row[tuple[str]]:
        person = connection.execute(select(watched.c.name).where(watched.c.id == id_)).first()
        search = self._deps.search
        if person is None or search is None or not search.may_keep(connection, id_, contact, now_us):
            raise _RefusedError("screen.not_family", 403)
        return person


def _language(connection: Connection, contact: str, accepts: str | None) -> Language:
    known = connection.scalar(select(contacts.c.language).where(contacts.c.id == contact))
    return next((one for one in get_args(Language) if one == known), language_of(accepts))
