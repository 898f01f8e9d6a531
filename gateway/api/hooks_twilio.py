"""POST /hooks/twilio/keypad/{id} and /status/{id}: a key was pressed in a call, and what became of a call or a short message.

Open to all, and nothing is done without Twilio's signature, which covers the URL and with it the notification. A call waits for
what is said next, so the answer is taken at once, in one transaction with the row of the inbox that tells a repetition: what was
said then is said again, and nothing else happens.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import ImmutableMultiDict

from gateway.api.problems import NotHere, Problem
from gateway.contacts.proof import heard
from gateway.notify.afterwards import Lost, arrived, not_arrived
from gateway.notify.message import Answer, Message
from gateway.notify.queue import mark_answered, read_message
from gateway.notify.twilio import ANEW, KEYPAD, MOST_DIGITS, STATUS, asking, saying
from gateway.paging import Answered, NotTaken
from gateway.state import State
from gateway.state.tables import inbox, notifications
from gateway.state.upsert import upsert
from gateway.words import acknowledged, not_taken, text

log = logging.getLogger(__name__)

MOST_FIELDS = 100

Take = Callable[[Connection, str, Answer, int], str | None]
"""take(connection, notification, answer, now_us): takes an answer that the message offers. None when it was taken, also once
more; else why not: an id below `not_taken.` in the catalogues."""

_NO_SUCH_TELEPHONE = frozenset(("30005", "30006"))
"""Of a short message that was not delivered: unknown, a landline.

Not 30003: a telephone that is switched off, or on a mountain, is there again tomorrow.
"""
_NOBODY = frozenset(("busy", "no-answer", "failed", "canceled"))


@dataclass(frozen=True, slots=True)
class TwilioHooks:
    """What the hooks work with."""

    state: State
    auth_token: str
    public_url: str
    """The gateway as Twilio reaches it: what signatures are made over."""
    town: str
    now_us: Callable[[], int]
    take: Take
    lost: Lost
    """gateway.contacts.proof.lost."""
    ring: Callable[[], None] = lambda: None
    """Something may have to be sent to another address now."""


def taking(answer_to: Callable[[Connection, str, Answer, Literal["keypad"], int], Answered | NotTaken]) -> Take:
    """gateway.paging.answers.Answers.answer_to, by keypad. A message of no page is a test: its answer proves the telephone."""

    def take(connection: Connection, id_: str, answer: Answer, now_us: int) -> str | None:
        row = connection.execute(select(notifications.c.page, notifications.c.address).where(notifications.c.id == id_)).one()
        if row.page is not None:
            result = answer_to(connection, id_, answer, "keypad", now_us)
            return result.reason if isinstance(result, NotTaken) else None
        mark_answered(connection, id_, now_us)
        if row.address is not None:
            heard(connection, row.address, now_us)
        return None

    return take


NotificationPath = Annotated[str, Path(max_length=64)]
RoundQuery = Annotated[int, Query(alias="round", ge=1, le=ANEW)]


def routes(hooks: TwilioHooks | None) -> APIRouter:
    """POST /hooks/twilio/keypad/{id}, POST /hooks/twilio/status/{id}."""
    router = APIRouter(include_in_schema=False)

    @router.post(f"{KEYPAD}{{id}}")
    async def keypad(
        request: Request,
        id: NotificationPath,  # noqa: A002 - the word of the path
        round: RoundQuery = 1,  # noqa: A002
    ) -> Response:
        """A key, or none within the time: takes the answer, and what the call says next."""
        known, said = await _signed(hooks, request)
        return _twiml(await run_in_threadpool(_key, known, id, round, said))

    @router.post(f"{STATUS}{{id}}", status_code=204)
    async def status(request: Request, id: NotificationPath) -> Response:  # noqa: A002 - the word of the path
        """How far a call or a short message has come."""
        known, said = await _signed(hooks, request)
        await run_in_threadpool(_status, known, id, said)
        return Response(status_code=204)

    return router


def _twiml(document: str) -> Response:
    return Response(document, media_type="application/xml")


async def _signed(hooks: TwilioHooks | None, request: Request) -> tuple[TwilioHooks, dict[str, str]]:
    """The fields of a request that Twilio signed. Problem 404 without Twilio, 400 for no form, 403 for any other sender."""
    if hooks is None:
        raise NotHere("[channel.twilio]")
    try:
        body = (await request.body()).decode("utf-8")
        fields = parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_FIELDS, strict_parsing=bool(body), errors="strict")
    except ValueError:
        raise Problem(400, "This is no form as Twilio sends it.") from None
    from twilio.request_validator import RequestValidator

    query = f"?{request.url.query}" if request.url.query else ""
    path = request.scope.get("raw_path", b"").decode("ascii", "replace").partition("?")[0] or request.url.path
    signature = request.headers.get("X-Twilio-Signature", "")
    validator = RequestValidator(hooks.auth_token)
    if not validator.validate(f"{hooks.public_url.rstrip('/')}{path}{query}", ImmutableMultiDict(fields), signature):
        raise Problem(403, "X-Twilio-Signature is not that of this account's auth token.")
    return hooks, dict(fields)


# --- Keys -------------------------------------------------------------------------------------------


def _key(hooks: TwilioHooks, id_: str, round_: int, said: dict[str, str]) -> str:
    """The TwiML that follows. Whatever goes wrong here, somebody is on the telephone and hears so."""
    now_us = hooks.now_us()
    try:
        with hooks.state.write() as connection:
            return _key_in(connection, hooks, id_, round_, said, now_us)
    except OperationalError as error:
        log.error("a key could not be kept: the state database: %s", error.orig)
    except Exception:
        log.exception("notification %s: what was pressed could not be taken", id_)
    return saying(text("ja", "voice.not_kept"), "ja")


def _key_in(connection: Connection, hooks: TwilioHooks, id_: str, round_: int, said: dict[str, str], now_us: int) -> str:
    event = f"twilio:{said.get('CallSid', '')[:64]}:keypad:{round_}"
    before = connection.scalar(select(inbox.c.body).where(inbox.c.id == event))
    if before is not None:
        return str(json.loads(before)["twiml"])
    twiml = _next(connection, hooks, id_, round_, said.get("Digits", ""), now_us)
    kept = {"notification": id_, "digits": said.get("Digits", "")[:4], "twiml": twiml}
    row = {"id": event, "channel": "voice", "received_us": now_us, "done_us": now_us}
    connection.execute(upsert(inbox), {**row, "body": json.dumps(kept, ensure_ascii=False)})
    return twiml


def _next(connection: Connection, hooks: TwilioHooks, id_: str, round_: int, digits: str, now_us: int) -> str:
    row = connection.execute(select(notifications).where(notifications.c.id == id_, notifications.c.channel == "voice")).first()
    if row is None:
        return saying(not_taken("unknown", "ja"), "ja")
    message = read_message(id_, row.body)
    answer = _chosen(message, digits)
    if answer is not None:
        why = hooks.take(connection, id_, answer, now_us)
        hooks.ring()
        return saying(_confirmed(message, digits, answer, why), message.language)
    if round_ < ANEW:
        url = f"{hooks.public_url.rstrip('/')}{KEYPAD}{id_}"
        return asking(message, hooks.town, url, round_ + 1, text(message.language, "voice.nothing"))
    not_arrived(connection, id_, "the call was taken, but no key was pressed", now_us)
    return saying(text(message.language, "voice.goodbye"), message.language)


def _chosen(message: Message, digits: str) -> Answer | None:
    """The answer that a key stands for: its buttons count from 1."""
    if len(digits) != 1 or digits not in "123456789":
        return None
    at = int(digits) - 1
    return message.buttons[at].answer if at < min(len(message.buttons), MOST_DIGITS) else None


def _confirmed(message: Message, digits: str, answer: Answer, why: str | None) -> str:
    if why is not None:
        return not_taken(why, message.language)
    heard_ = text(message.language, "voice.heard", label=message.buttons[int(digits) - 1].label)
    return f"{heard_} {acknowledged(answer, message.language)}"


# --- What became of it ------------------------------------------------------------------------------


def _status(hooks: TwilioHooks, id_: str, said: dict[str, str]) -> None:
    sid = said.get("CallSid") or said.get("MessageSid")
    status = said.get("CallStatus") or said.get("MessageStatus")
    if not sid or not status:
        raise Problem(400, "This names no call and no message, or not what became of it.")
    now_us = hooks.now_us()
    with hooks.state.write() as connection:
        row: dict[str, Any] = {"channel": "voice" if "CallSid" in said else "sms", "received_us": now_us, "done_us": now_us}
        kept = {"notification": id_, "status": status[:20], "error": said.get("ErrorCode", "")[:10]}
        row |= {"id": f"twilio:{sid[:64]}:{status[:20]}", "body": json.dumps(kept)}
        if connection.execute(upsert(inbox), row).rowcount == 1:
            _note(connection, hooks, id_, said, now_us)
    hooks.ring()


def _note(connection: Connection, hooks: TwilioHooks, id_: str, said: dict[str, str], now_us: int) -> None:
    sid, error = said.get("CallSid") or said.get("MessageSid") or "", said.get("ErrorCode", "")[:10]
    call, sms = said.get("CallStatus", ""), said.get("MessageStatus", "")
    if sms in ("undelivered", "failed"):
        lost = hooks.lost if error in _NO_SUCH_TELEPHONE else None
        reason = f"not delivered: {sms}, Twilio's error {error or 'unknown'}"
        not_arrived(connection, id_, reason, now_us, lost=lost, why="number")
        return
    # Whatever else it is, Twilio has it: nothing more may go to this telephone for the same attempt.
    arrived(connection, id_, sid, now_us)
    if call in _NOBODY:
        not_arrived(connection, id_, f"nobody took the call: {call}", now_us)
    elif call == "completed":
        row = connection.execute(select(notifications.c.body, notifications.c.error).where(notifications.c.id == id_)).first()
        if row is not None and row.error is None and read_message(id_, row.body).buttons:
            not_arrived(connection, id_, "the call was taken, but no key was pressed", now_us)
