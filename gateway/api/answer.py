"""The page behind the link in a message: GET /a/{token} shows it and how things stand now, POST /a/{token} answers it.

No login: who has the link is believed to be who got it (gateway.notify.links). GET answers nothing, because phones, mail scanners
and chats open links for a preview. It notes `seen` for a request that a browser makes because somebody navigates (Sec-Fetch-Mode
and -Dest, which previews do not send, and no Sec-Purpose); that is information only: no asking ends by it, and no address is
proved by it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Header, Path, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import OperationalError

from gateway.alerting.escalation import Memory, Said, who_go
from gateway.contacts.proof import heard
from gateway.mimamori.looks import note, still, told_in
from gateway.notify.links import Expired, Forged, Links
from gateway.notify.message import Answer, Button, Language, Link, Message
from gateway.notify.queue import arrived_as, mark_answered, mark_seen
from gateway.pages import language_of, render
from gateway.paging import Answered, NotTaken
from gateway.state import State
from gateway.state.tables import alerts, answers, notifications, pages
from gateway.telling import without_place
from gateway.words import acknowledged, not_taken, text
from gateway.words.moments import without_waiting

log = logging.getLogger(__name__)

OLD_US = 30 * 60 * 1_000_000
"""From this age on a message says that things may have changed."""

Take = Callable[[Connection, Row[Any], Answer, int], str | None]
"""take(connection, the notification's row, answer, now_us): takes an answer that the message offers. None when it was taken, also
once more; else why not: an id below `not_taken.` in the catalogues."""


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """What the page works with."""

    state: State
    links: Links
    zone: ZoneInfo
    now_us: Callable[[], int]
    name_of: Callable[[Connection, str], str]
    """What others are told a contact is called."""
    take: Take
    withheld: Callable[[Connection, Row[Any]], str | None] = lambda _connection, _row: None
    """Why this notification may no longer be read by who got it, as an id of the catalogues; None: it may."""

    push_url: Callable[[str, int], str] | None = None
    """push_url(contact, now_us): where they subscribe a browser, offered to who answered a test; None without push."""
    phone: str | None = None
    """The office's telephone."""


class _WithheldError(Exception):
    """What was sent may no longer be read; its text is the id of the words that say so."""


def taking(answer_to: Callable[[Connection, str, Answer, Literal["link"], int], Answered | NotTaken]) -> Take:
    """gateway.paging.answers.Answers.answer_to, for the page. A message of no page is a test: its answer proves the address."""

    def take(connection: Connection, row: Row[Any], answer: Answer, now_us: int) -> str | None:
        if row.page is not None:
            result = answer_to(connection, row.id, answer, "link", now_us)
            return result.reason if isinstance(result, NotTaken) else None
        mark_answered(connection, row.id, now_us)
        if row.address is not None:
            heard(connection, row.address, now_us)
        return None

    return take


TokenPath = Annotated[str, Path(max_length=100)]
AnswerForm = Annotated[str, Form(max_length=20)]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]
Fetch = Annotated[str | None, Header(max_length=40)]

AHEAD = ("sec-purpose", "purpose", "x-purpose", "x-moz")
"""Headers by which programs say that nobody looks yet: `prefetch`, `preview`."""

Look = Callable[[Connection, Row[Any]], Literal["here", "later"] | None]
"""Whether the picture that a notification is about can be seen below its page; gateway.api.told_picture."""


def routes(page: AnswerPage, look: Look = lambda _connection, _row: None) -> APIRouter:
    """GET, HEAD and POST /a/{token}."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/a/{token}", methods=["GET", "HEAD"])
    def shown(
        request: Request,
        token: TokenPath,
        accept_language: Accepts = None,
        sec_fetch_mode: Fetch = None,
        sec_fetch_dest: Fetch = None,
    ) -> Response:
        """The message as it stands now."""
        now_us = page.now_us()
        id_ = page.links.read(token, now_us)
        if isinstance(id_, Expired | Forged):
            return _no_link(page, id_, language_of(accept_language))
        try:
            looked = _read(page, id_, now_us)
        except _WithheldError as why:
            return _problem(page, str(why), 403, language_of(accept_language))
        if looked is None:
            return _problem(page, "screen.unknown", 404, language_of(accept_language))
        ahead = is_ahead(request)
        if looked.people and request.method != "HEAD":
            if ahead:
                return not_shown()
            _note_look(page, looked, now_us)
        if not ahead and (sec_fetch_mode, sec_fetch_dest) == ("navigate", "document") and looked.row.seen_us is None:
            _note_seen(page, id_, now_us)
        with page.state.read() as connection:
            picture = look(connection, looked.row)
        return _render(page, "answer.html", looked, now_us, picture=picture, here=f"/a/{token}")

    @router.post("/a/{token}")
    def answered(token: TokenPath, answer: AnswerForm = "", accept_language: Accepts = None) -> Response:
        """Takes the answer and says what became of it. The same answer once more changes nothing."""
        now_us = page.now_us()
        id_ = page.links.read(token, now_us)
        if isinstance(id_, Expired | Forged):
            return _no_link(page, id_, language_of(accept_language))
        try:
            why = _take(page, id_, answer, now_us)
        except _WithheldError as withheld:
            return _problem(page, str(withheld), 403, language_of(accept_language))
        except OperationalError as error:
            log.error("an answer could not be kept: the state database: %s", error.orig)
            return _problem(page, "screen.busy", 503, language_of(accept_language))
        looked = _read(page, id_, now_us)
        if looked is None:
            return _problem(page, "screen.unknown", 404, language_of(accept_language))
        _note_look(page, looked, now_us)
        message = looked.message
        if why is None:
            said = acknowledged(_known(answer), message.language, looked.kind)
        else:
            said = not_taken(why, message.language)
        status = {None: 200, "not_asked": 422}.get(why, 409)
        return _render(
            page,
            "told.html",
            looked,
            now_us,
            status=status,
            taken=why is None,
            said=said,
            record=_record_of(looked.message) if why is None and answer == "done" else None,
            here=f"/a/{token}",
            push_url=_push_url(page, looked, now_us) if why is None else None,
        )

    return router


def is_ahead(request: Request) -> bool:
    """Whether a program asks ahead of somebody who may open it, and says so."""
    said = " ".join(request.headers.get(name, "") for name in AHEAD).lower()
    return "prefetch" in said or "preview" in said


def not_shown() -> Response:
    """What such a program gets of where a tag was: nothing, or a browser would show it later and nobody know of that look."""
    return Response(status_code=503)


def _take(page: AnswerPage, id_: str, answer: str, now_us: int) -> str | None:
    """Why it was not taken, None when it was. Only what the message offers can be answered."""
    with page.state.write() as connection:
        id_ = arrived_as(connection, id_)
        row = connection.execute(select(notifications).where(notifications.c.id == id_)).first()
        if row is None:
            return "unknown"
        if (withheld := page.withheld(connection, row)) is not None:
            raise _WithheldError(withheld)
        if answer not in {button.answer for button in _message(row).buttons}:
            return "not_asked"
        return page.take(connection, row, _known(answer), now_us)


def _known(answer: str) -> Answer:
    known: Answer = next(one for one in get_args(Answer) if one == answer)
    return known


@dataclass(frozen=True, slots=True)
class _Mine:
    """What this contact answered last."""

    answer: str
    label: str
    at_us: int


@dataclass(frozen=True, slots=True)
class _Looked:
    """A notification and how things stand, at one moment."""

    row: Row[Any]
    message: Message
    kind: str | None
    """The alert's kind."""
    goers: Sequence[str]
    needed: int
    asks: bool
    """Whether people are asked to go."""
    over_us: int | None
    mine: _Mine | None
    people: Mapping[str, str]
    """Those of whom it says where their tags were, each with why they were told; empty where it does not say that."""


def _read(page: AnswerPage, id_: str, now_us: int) -> _Looked | None:
    with page.state.read() as connection:
        id_ = arrived_as(connection, id_)
        row = connection.execute(select(notifications).where(notifications.c.id == id_)).first()
        if row is None:
            return None
        if (withheld := page.withheld(connection, row)) is not None:
            raise _WithheldError(withheld)
        message, people = _message(row), told_in(connection, row)
        if still(connection, people, now_us):
            message, people = without_place(message), {}
        of = None if row.page is None else connection.execute(select(pages).where(pages.c.id == row.page)).first()
        if of is None:
            alert = connection.execute(select(alerts).where(alerts.c.id == row.alert)).first()
            over_us = alert.resolved_us if alert is not None else None
            mine = _mine(message, "seen", row.answered_us) if row.answered_us is not None else None
            return _Looked(row, message, alert.kind if alert is not None else None, (), 0, False, over_us, mine, people)
        said = [
            Said(one.id, one.contact, one.answer, one.at_us)
            for one in connection.execute(select(answers).where(answers.c.page == row.page).order_by(answers.c.id))
        ]
        goers = [one.contact for one in who_go(said, Memory.model_validate_json(of.memory).void, of.kind)]
        own = [one for one in said if one.contact == row.contact]
        return _Looked(
            row,
            message,
            of.kind,
            [page.name_of(connection, contact) for contact in goers],
            max(of.needed - len(goers), 0),
            of.needed > 0,
            (of.closed_us or now_us) if of.state == "closed" else None,
            _mine(message, own[-1].answer, own[-1].at_us) if own else None,
            people,
        )


def _message(row: Row[Any]) -> Message:
    """The message of a row; of one that is not written as we write it now, its words."""
    try:
        return Message.model_validate_json(row.body)
    except ValidationError:
        log.warning("notification %s: its body is not a message", row.id)
        return Message(id=row.id, title=text("ja", "screen.name"), body="")


def _mine(message: Message, answer: str, at_us: int) -> _Mine:
    label = next((button.label for button in message.buttons if button.answer == answer), None)
    return _Mine(answer, label or text(message.language, f"button.{answer}"), at_us)


def _note_look(page: AnswerPage, looked: _Looked, now_us: int) -> None:
    """A message about a watched person says where their tag was."""
    note(page.state, f"contact:{looked.row.contact}", looked.people, "message", now_us)


def _note_seen(page: AnswerPage, id_: str, now_us: int) -> None:
    """That it could not be noted must not keep the page from whoever needs it."""
    try:
        with page.state.write() as connection:
            mark_seen(connection, arrived_as(connection, id_), now_us)
    except OperationalError as error:
        log.warning("that a message was seen could not be noted: the state database: %s", error.orig)


def _render(page: AnswerPage, template: str, looked: _Looked, now_us: int, *, status: int = 200, **more: Any) -> Response:
    message = looked.message
    told_us = looked.row.sent_us or looked.row.created_us
    somebody_goes = bool(looked.goers) or looked.over_us is not None
    return render(
        template,
        message.language,
        page.zone,
        status=status,
        title=message.title,
        body=without_waiting(message.body, message.language) if somebody_goes else message.body,
        severity=message.severity,
        buttons=_offered(message, looked),
        links=[link for link in message.links if link.url.startswith(("https://", "tel:"))],
        told_us=told_us,
        now_us=now_us,
        is_old=now_us - told_us >= OLD_US,
        goers=looked.goers,
        needed=looked.needed,
        asks=looked.asks,
        over_us=looked.over_us,
        mine=looked.mine,
        **more,
    )


def _push_url(page: AnswerPage, looked: _Looked, now_us: int) -> str | None:
    """For who has just proved an address: one more way. Not for a browser, nor for what the configuration names."""
    row = looked.row
    wanted = page.push_url is not None and looked.message.kind == "test" and row.address is not None and row.channel != "push"
    return page.push_url(row.contact, now_us) if wanted and page.push_url is not None else None


def _record_of(message: Message) -> Link | None:
    """Where the visit is recorded that they speak of, as the message offers it."""
    return next((link for link in message.links if link.label == text(message.language, "link.visit")), None)


def _offered(message: Message, looked: _Looked) -> Sequence[Button]:
    return () if looked.over_us is not None else message.buttons


def _no_link(page: AnswerPage, why: Expired | Forged, language: Language) -> Response:
    if isinstance(why, Expired):
        return _problem(page, "screen.expired", 410, language)
    return _problem(page, "screen.forged", 404, language)


def _problem(page: AnswerPage, about: str, status: int, language: Language) -> Response:
    title, body = text(language, f"{about}.title"), text(language, f"{about}.body")
    return render("problem.html", language, page.zone, status=status, title=title, body=body, phone=page.phone)
