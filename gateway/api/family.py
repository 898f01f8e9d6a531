"""Pages about a person who is watched over: /m/{token} for their family and the office, /s/{token} for who was asked to search.

No login: who has the link is believed to be who got it (gateway.notify.links), and asked anew at each look whether they are still
family, or were asked to help in a search that is open. GET changes nothing, but that it is written down who looked, before the
answer is sent; and family reads that. Where a tag was comes with its age.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Header, Path, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import OperationalError

from gateway.api.answer import is_ahead, not_shown
from gateway.api.deps import BeforeQuery, Deps
from gateway.api.mimamori import SILENT_AFTER_S, presence_memories
from gateway.mimamori.consent import standing
from gateway.mimamori.enrolled import receiver_of
from gateway.mimamori.knowing import CONSENT_US
from gateway.mimamori.looks import WHATS, Look, What, log_of, note, reasons
from gateway.mimamori.search import NoSearchError, Reached, Search, Seen
from gateway.notify.links import Expired, Forged, Links
from gateway.notify.message import Language
from gateway.pages import language_of, render
from gateway.rules.presence import state
from gateway.state.tables import contacts, search_cases, watched
from gateway.words import text

log = logging.getLogger(__name__)

ENDED_FOR_US = 24 * 3600 * 1_000_000
"""How long the family's page says that a search has ended."""

LOOKS = 50
"""So many looks are on a page: it stays below 30 KB."""

TokenPath = Annotated[str, Path(max_length=100)]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]
ActForm = Annotated[str, Form(max_length=10)]
ReasonForm = Annotated[str, Form(max_length=200)]


@dataclass(frozen=True, slots=True)
class _Sentence:
    """What is known of the tag: an id of the catalogues and its facts."""

    id: str
    place: str | None = None
    age: int | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """A search as a page shows it."""

    row: Row[Any]
    reached: Reached
    sightings: Sequence[Seen]
    pauses_us: int | None


class _RefusedError(Exception):
    """This page is not for whoever asks: an id of the catalogues, and the status."""

    def __init__(self, about: str, status: int) -> None:
        super().__init__(about)
        self.about, self.status = about, status


def routes(deps: Deps, links: Links, zone: ZoneInfo) -> APIRouter:
    """GET, HEAD, POST /m/{token}; GET, HEAD /m/{token}/looks; GET, HEAD /s/{token}."""
    router = APIRouter(include_in_schema=False)
    pages = _Pages(deps, links, zone)

    @router.api_route("/m/{token}", methods=["GET", "HEAD"])
    def family(request: Request, token: TokenPath, accept_language: Accepts = None) -> Response:
        """How it is now, as far as the tag says."""
        if is_ahead(request):
            return not_shown()
        try:
            return pages.family(token, accept_language, shows=request.method != "HEAD")
        except _RefusedError as why:
            return pages.refused(why, accept_language)

    @router.api_route("/m/{token}/looks", methods=["GET", "HEAD"])
    def looks(token: TokenPath, before: BeforeQuery = None, accept_language: Accepts = None) -> Response:
        """Who looked, and why. It says nothing of where the tag was, so it is no look."""
        try:
            return pages.looks(token, before, accept_language)
        except _RefusedError as why:
            return pages.refused(why, accept_language)

    @router.post("/m/{token}")
    def said(token: TokenPath, act: ActForm = "", reason: ReasonForm = "", accept_language: Accepts = None) -> Response:
        """Opens a search, renews it, or says that they are found. The same again changes nothing."""
        try:
            return pages.said(token, act, reason, accept_language)
        except _RefusedError as why:
            return pages.refused(why, accept_language)
        except OperationalError as error:
            log.error("what a family said could not be kept: the state database: %s", error.orig)
            return pages.refused(_RefusedError("screen.busy", 503), accept_language)

    @router.api_route("/s/{token}", methods=["GET", "HEAD"])
    def helper(request: Request, token: TokenPath, accept_language: Accepts = None) -> Response:
        """The search, for who was asked to help, while it is open."""
        if is_ahead(request):
            return not_shown()
        try:
            return pages.helper(token, accept_language, shows=request.method != "HEAD")
        except _RefusedError as why:
            return pages.refused(why, accept_language)

    return router


class _Pages:
    """What the routes share."""

    def __init__(self, deps: Deps, links: Links, zone: ZoneInfo) -> None:
        self._deps, self._links, self._zone = deps, links, zone

    def family(
        self, token: str, accepts: str | None, *, note: str | None = None, status: int = 200, shows: bool = True
    ) -> Response:
        """`shows`: false of HEAD, whose answer has no page: programs that try links in mails ask so, and it is no look."""
        now_us = self._deps.now_us()
        id_, contact = self._opened(self._links.read_family(token, now_us))
        with self._deps.state.read() as connection:
            person = self._kept(connection, id_, contact, now_us)
            language = _language(connection, contact, accepts)
            sentence = self._sentence(connection, person, now_us)
            row = self._search.unended(connection, id_)
            case = None if row is None else self._case(connection, row)
            ended = None if case else self._ended(connection, id_, now_us)
            held = standing(connection, id_, now_us)
            why = reasons(connection, [id_]).get(id_) or (f"search/{ended.id}" if ended else "")
            if not why and not self._search.is_family(connection, id_, contact, now_us):
                raise _RefusedError("screen.no_reason", 403)
        if shows:
            self._look(contact, id_, "page", why, now_us)
        return render(
            "family.html", language, self._zone, status=status, who=person.name, sentence=sentence, case=case, ended=ended,
            note=note, now_us=now_us, here=f"/m/{token}", held=held,
            consent_url=self._links.consent_url(id_, contact, now_us + CONSENT_US),
        )  # fmt: skip

    def looks(self, token: str, before: int | None, accepts: str | None) -> Response:
        now_us = self._deps.now_us()
        id_, contact = self._opened(self._links.read_family(token, now_us))
        with self._deps.state.read() as connection:
            person = self._kept(connection, id_, contact, now_us)
            language = _language(connection, contact, accepts)
            found = log_of(connection, id_, person.family, self._search.office, before=before, limit=LOOKS)
        return render(
            "looks.html", language, self._zone, who=person.name, looks=[_shown(one) for one in found], back=f"/m/{token}",
            earlier=f"/m/{token}/looks?before={found[-1].id}" if len(found) == LOOKS else None,
        )  # fmt: skip

    def _look(self, contact: str, id_: str, what: What, why: str, now_us: int) -> None:
        note(self._deps.state, f"contact:{contact}", {id_: why}, what, now_us, self._deps.look_every_us)

    def said(self, token: str, act: str, reason: str, accepts: str | None) -> Response:
        now_us = self._deps.now_us()
        id_, contact = self._opened(self._links.read_family(token, now_us))
        if act not in ("search", "renew", "found"):
            return self.family(token, accepts, note="screen.search.changed", status=422)
        if act == "search" and not reason.strip():
            return self.family(token, accepts, note="screen.search.why_missing", status=422)
        with self._deps.state.write() as connection:
            self._kept(connection, id_, contact, now_us)
            done = self._do(connection, id_, act, reason, contact, now_us)
        self._deps.ring_deliveries()
        if not done:
            return self.family(token, accepts, note="screen.search.changed", status=409)
        return RedirectResponse(f"/m/{token}", status_code=303, headers={"Cache-Control": "no-store"})

    def _do(self, connection: Connection, id_: str, act: str, reason: str, contact: str, now_us: int) -> bool:
        if act == "search":
            try:
                self._search.open(connection, id_, reason, contact, now_us)
            except NoSearchError:
                return False
            return True
        row = self._search.unended(connection, id_)
        if row is None:
            return False
        if act == "renew":
            return self._search.renew(connection, row.id, contact, now_us)
        return self._search.found(connection, row.id, contact, now_us)

    def helper(self, token: str, accepts: str | None, *, shows: bool = True) -> Response:
        now_us = self._deps.now_us()
        id_, contact = self._opened(self._links.read_search(token, now_us))
        with self._deps.state.read() as connection:
            try:
                row = self._search.case(connection, id_)
            except NoSearchError as error:
                raise _RefusedError("screen.search_over", 410) from error
            if not self._search.was_asked(connection, row, contact):
                raise _RefusedError("screen.forged", 404)
            if row.state == "paused":
                raise _RefusedError("screen.search_paused", 403)
            if row.state != "open":
                raise _RefusedError("screen.search_over", 410)
            person = connection.execute(select(watched).where(watched.c.id == row.watched)).one()
            language = _language(connection, contact, accepts)
            sentence = self._sentence(connection, person, now_us)
            case = self._case(connection, row)
        if shows:
            self._look(contact, row.watched, "help", f"search/{id_}", now_us)
        return render(
            "helping.html", language, self._zone, who=person.name, sentence=sentence, case=case, now_us=now_us,
        )  # fmt: skip

    def refused(self, why: _RefusedError, accepts: str | None) -> Response:
        """Says in plain words why, and what to do."""
        language = language_of(accepts)
        title, body = text(language, f"{why.about}.title"), text(language, f"{why.about}.body")
        return render("problem.html", language, self._zone, status=why.status, title=title, body=body)

    # Inside

    @property
    def _search(self) -> Search:
        if self._deps.search is None:
            raise _RefusedError("screen.unknown", 404)
        return self._deps.search

    @staticmethod
    def _opened(found: tuple[str, str] | Expired | Forged) -> tuple[str, str]:
        if isinstance(found, Expired):
            raise _RefusedError("screen.expired", 410)
        if isinstance(found, Forged):
            raise _RefusedError("screen.forged", 404)
        return found

    def _kept(self, connection: Connection, id_: str, contact: str, now_us: int) -> Row[Any]:
        """The person, where this contact may know of them now."""
        person = connection.execute(select(watched).where(watched.c.id == id_)).first()
        if person is None or not self._search.may_keep(connection, id_, contact, now_us):
            raise _RefusedError("screen.not_family", 403)
        return person

    def _case(self, connection: Connection, row: Row[Any]) -> _Case:
        search = self._search
        seen = [] if search.is_stopped(connection, row.watched) else search.sightings(connection, row.id)
        return _Case(row, search.reached(connection, row), seen, search.pauses_us(row))

    @staticmethod
    def _ended(connection: Connection, id_: str, now_us: int) -> Row[Any] | None:
        query = select(search_cases).where(search_cases.c.watched == id_, search_cases.c.ended_us > now_us - ENDED_FOR_US)
        return connection.execute(query.order_by(search_cases.c.ended_us.desc()).limit(1)).first()

    def _sentence(self, connection: Connection, person: Row[Any], now_us: int) -> _Sentence:
        if standing(connection, person.id, now_us).state in ("lapsed", "revoked"):
            return _Sentence("screen.family.lapsed")
        if self._search.is_stopped(connection, person.id):
            return _Sentence("screen.family.stopped")
        memory = presence_memories(connection).get(person.id, {})
        how = state(memory, [receiver_of(home) for home in _homes(person)], now_us, SILENT_AFTER_S)
        if how == "never":
            return _Sentence("screen.family.never")
        age_us = max(now_us - memory["seen_us"], 0)
        if "seen_at" not in memory and how != "home":
            return _Sentence("screen.family.long_ago", age=age_us)
        place = self._deps.deployments.of(*receiver_of(memory["seen_at"])).place if "seen_at" in memory else None
        return _Sentence(f"screen.family.{how}", place, age_us)


@dataclass(frozen=True, slots=True)
class _Look:
    """A look as the page says it; `why` is an id of the catalogues."""

    at_us: int
    by: str
    name: str | None
    what: str | None
    why: str | None
    said: str


def _shown(look: Look) -> _Look:
    kind = look.why.partition("/")[0]
    why = kind if kind in ("search", "alert") else "said" if look.why else None
    known = look.what in WHATS
    return _Look(look.at_us, f"screen.looks.by.{look.by}", look.name, f"screen.looks.what.{look.what}" if known else None,
                 f"screen.looks.why.{why}" if why else None, look.why)  # fmt: skip


def _homes(person: Row[Any]) -> list[str]:
    found: list[str] = json.loads(person.homes)
    return found


def _language(connection: Connection, contact: str, accepts: str | None) -> Language:
    known = connection.scalar(select(contacts.c.language).where(contacts.c.id == contact))
    return next((one for one in get_args(Language) if one == known), language_of(accepts))
