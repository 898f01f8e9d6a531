"""Pages for who finds a tag: /f where its label is typed, /f/{label} behind its QR, and a report. No login, no script.

Whether it is ours is all that can be learned here: never whose, and the same of tags that were stopped or ended. GET changes
nothing. Tries are limited by asker, and those that hit nothing over all askers; even then a label that is ours opens: a lock
against guessers would be theirs to close, and behind a label lie 39 bits.
"""

import logging
from typing import Annotated, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Path, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import OperationalError

from gateway.accounts.limits import Limits, asker
from gateway.api.deps import Deps
from gateway.api.problems import reads
from gateway.mimamori.labels import MOST_REACH, MOST_WORDS, Labels, Mistyped, What, is_ours, read, shown
from gateway.notify.message import Language
from gateway.pages import render
from gateway.words import text

log = logging.getLogger(__name__)

LabelPath = Annotated[str, Path(max_length=60)]
LabelForm = Annotated[str, Form(max_length=60)]
WhatForm = Annotated[str, Form(max_length=10)]
WordsForm = Annotated[str, Form(max_length=MOST_WORDS)]
ReachForm = Annotated[str, Form(max_length=MOST_REACH)]
EVERYBODY = "everybody"


def routes(deps: Deps, zone: ZoneInfo, phone: str | None) -> APIRouter:
    """GET, HEAD, POST /f; GET, HEAD, POST /f/{label}."""
    router = APIRouter(include_in_schema=False)
    pages = _Pages(deps, deps.labels or Labels(), zone, phone)

    @router.api_route("/f", methods=["GET", "HEAD"])
    def form(request: Request) -> Response:
        """Where a label is typed."""
        return pages.form(reads(request.scope))

    @router.post("/f")
    def typed(request: Request, label: LabelForm = "") -> Response:
        """Leads to the label's page, or says that something in it is not right, or that it is not ours."""
        language = reads(request.scope)
        found = pages.looked_up(request, label, language)
        if isinstance(found, Response):
            return found
        return RedirectResponse(f"/f/{shown(found)}?lang={language}", 303, {"Cache-Control": "no-store"})

    @router.api_route("/f/{label}", methods=["GET", "HEAD"])
    def scanned(request: Request, label: LabelPath) -> Response:
        """What it is, and what to do."""
        language = reads(request.scope)
        found = pages.looked_up(request, label, language)
        return found if isinstance(found, Response) else pages.ours(found, language)

    @router.post("/f/{label}")
    def told(request: Request, label: LabelPath, what: WhatForm = "", words: WordsForm = "", reach: ReachForm = "") -> Response:
        """Takes a report: found, or misuse."""
        language = reads(request.scope)
        found = pages.looked_up(request, label, language)
        if isinstance(found, Response):
            return found
        try:
            return pages.report(request, found, what, words, reach, language)
        except OperationalError as error:
            log.error("what a finder said could not be kept: the state database: %s", error.orig)
            return pages.said("screen.busy", 503, language)

    return router


class _Pages:
    """What the routes share."""

    def __init__(self, deps: Deps, labels: Labels, zone: ZoneInfo, phone: str | None) -> None:
        self._deps, self._labels, self._zone, self._phone = deps, labels, zone, phone
        self._limits = Limits(deps.now_us)

    def form(self, language: Language, typed: str = "", fault: str | None = None, status: int = 200) -> Response:
        return render(
            "finder.html", language, self._zone, status=status, switch=True, typed=typed, fault=fault,
            owner=self._owner(language), phone=self._phone,
        )  # fmt: skip

    def ours(self, label: str, language: Language) -> Response:
        return render(
            "finder_ours.html", language, self._zone, switch=True, label=shown(label), owner=self._owner(language),
            phone=self._phone,
        )  # fmt: skip

    def looked_up(self, request: Request, typed: str, language: Language) -> str | Response:
        """The label, where it is one of ours; else the page that says what is not right."""
        if wait_s := self._limits.wait_s("label", _asker(request)):
            return self._wait(wait_s, language)
        try:
            label = read(typed)
        except Mistyped:
            return self.form(language, typed, "screen.finder.mistyped", 422)
        with self._deps.state.read() as connection:
            if is_ours(connection, label):
                return label
        if wait_s := self._limits.wait_s("label_miss", EVERYBODY):
            return self._wait(wait_s, language)
        return self.form(language, typed, "screen.finder.not_ours", 404)

    def report(self, request: Request, label: str, what: str, words: str, reach: str, language: Language) -> Response:
        kind: What | None = next((one for one in get_args(What) if one == what), None)
        if kind is None:
            return self.ours(label, language)
        if wait_s := self._limits.wait_s("report", _asker(request)):
            return self._wait(wait_s, language)
        with self._deps.state.write() as connection:
            outcome = self._labels.report(connection, label, kind, words, reach, self._deps.now_us())
        self._labels.learn()
        self._deps.ring_deliveries()
        if outcome is None:
            return self.said("screen.finder_enough", 429, language)
        if kind == "found":
            return self.said("screen.finder_thanks", 200, language)
        return self.said("screen.finder_stopped" if outcome.is_stopped else "screen.finder_not_yet", 200, language)

    def said(self, about: str, status: int, language: Language) -> Response:
        title, body = text(language, f"{about}.title"), text(language, f"{about}.body")
        return render("problem.html", language, self._zone, status=status, title=title, body=body, phone=self._phone)

    def _wait(self, wait_s: int, language: Language) -> Response:
        answer = self.said("screen.finder_wait", 429, language)
        answer.headers["Retry-After"] = str(wait_s)
        return answer

    def _owner(self, language: Language) -> str:
        return self._labels.town or text(language, "part.label_owner")


def _asker(request: Request) -> str:
    return asker(request.client.host if request.client is not None else None)
