"""Twilio on loopback, and the telephones it reaches: short messages that can be read, calls that are taken and answered by keys.

Its REST API (2010-04-01) wants what the real one wants: the account's password, E.164 numbers, senders of the account, TwiML that
its strict reader takes. What happens to a message or a call it tells the gateway's hooks, signed. It dedupes nothing. A call
rings until the test, or a person on its page, takes it, presses a key, is busy or lets it ring.
"""

import base64
import hashlib
import hmac
import html
import json
import logging
import re
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urljoin, urlsplit

import httpx

from simulators.door import Door, DoorServer

MOST_UNITS = 1600
MOST_TWIML = 4000

_log = logging.getLogger(__name__)

Form = dict[str, list[str]]


@dataclass(slots=True)
class Sms:
    """One short message."""

    sid: str
    to: str
    from_: str
    body: str
    callback: str
    at_us: int
    status: str = "queued"
    error: int | None = None


@dataclass(slots=True)
class Call:
    """One call."""

    sid: str
    to: str
    from_: str
    twiml: str
    callback: str
    events: frozenset[str]
    at_us: int
    status: str = "queued"
    said: list[str] = field(default_factory=list)
    """What was said, in order, as far as the call has come."""
    waiting: str | None = None
    """Where the key goes that it waits for; None: it waits for none."""
    asked: list[str] = field(default_factory=list)
    """The gateway's URLs that were asked for this call."""


class Refused(Exception):
    """What the API answers 4xx with."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class TwilioService:
    """A context manager: on a free loopback port while open. All methods may be called from any thread.

    `gateway_url`: where hooks lead in reality (None: nobody is told); `public_url`, by which they are named and signed, may be
    another host. `client`: what hooks are asked by, in place of the network. Behaviours last until the next one is chosen;
    `answer(201)` is the first.
    """

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        numbers: Sequence[str],
        *,
        public_url: str = "https://gateway.example.jp",
        gateway_url: str | None = None,
        client: httpx.Client | None = None,
        port: int = 0,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.account_sid, self.auth_token, self._numbers = account_sid, auth_token, frozenset(numbers)
        self._public_url, self.gateway_url = public_url.rstrip("/"), gateway_url
        self._now_us, self._client = now_us, client
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._messages: list[Sms] = []
        self._calls: list[Call] = []
        self._bad: dict[str, int] = {}
        self._reply, self._status, self._delay_s, self._retry_after = "status", 201, 0.0, ""
        self._door = Door(lambda port: _Server(self, port), port, "sim-twilio")

    def __enter__(self) -> "TwilioService":
        self._closing.clear()
        self._door.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._door.shut()

    @property
    def url(self) -> str:
        """Of the API; `/phones/+81...` is a telephone's page."""
        return f"http://127.0.0.1:{self._door.port}"

    # --- behaviours ---------------------------------------------------------------------------------

    def answer(self, status: int, retry_after: str = "") -> None:
        """Answers what would make a message or a call with this status; only 201 takes it."""
        self._behave("status", status, retry_after=retry_after)

    def slow(self, seconds: float) -> None:
        """Takes it, but answers only after so long."""
        self._behave("status", 201, seconds)

    def drop(self) -> None:
        """Takes it, then closes the connection without a word."""
        self._behave("drop")

    def garbage(self) -> None:
        """Takes it, then answers what is not HTTP."""
        self._behave("garbage")

    def refuse(self) -> None:
        """Nobody listens on the port any more."""
        self._door.shut()

    def knows_not(self, number: str, code: int = 21211) -> None:
        """This number is refused with this of Twilio's errors: 21211 invalid, 21614 no mobile, 21610 said STOP."""
        with self._changed:
            self._bad[number] = code

    def _behave(self, reply: str, status: int = 201, delay_s: float = 0.0, retry_after: str = "") -> None:
        with self._changed:
            self._reply, self._status, self._delay_s, self._retry_after = reply, status, delay_s, retry_after
        self._door.open()

    # --- telephones ---------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Sms, ...]:
        """Every short message, in order."""
        with self._changed:
            return tuple(self._messages)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call, in order."""
        with self._changed:
            return tuple(self._calls)

    def inbox(self, number: str) -> list[str]:
        """The short messages on a telephone."""
        return [one.body for one in self.messages if one.to == number]

    def rings(self, number: str) -> list[Call]:
        """The calls that a telephone got."""
        return [one for one in self.calls if one.to == number]

    def wait_for(self, condition: Callable[["TwilioService"], object], timeout_s: float = 10) -> None:
        """Waits until `condition(self)` holds; TimeoutError with what did come."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self):
                if not self._changed.wait(max(deadline - time.monotonic(), 0)) and time.monotonic() >= deadline:
                    came = [*((one.sid, one.status) for one in self._messages), *((one.sid, one.status) for one in self._calls)]
                    raise TimeoutError(f"Twilio waited {timeout_s:g} s in vain; (sid, status) came: {came}")

    def deliver(self, sms: Sms, status: str = "delivered", error: int | None = None) -> int | None:
        """The message's end is known: delivered, undelivered or failed; the gateway is told. What its hook answered."""
        sms.status, sms.error = status, error
        form = {"MessageSid": sms.sid, "MessageStatus": status, "To": sms.to, "From": sms.from_, "AccountSid": self.account_sid}
        if error is not None:
            form["ErrorCode"] = str(error)
        return self.post(sms.callback, form)[0] if sms.callback and self._tells else None

    def take(self, call: Call) -> list[str]:
        """Somebody takes the call: what it says until it waits for a key, or hangs up."""
        self._progress(call, "in-progress", "answered")
        self._play(call, call.twiml, "")
        return call.said

    def press(self, call: Call, digit: str) -> list[str]:
        """A key is pressed, or none ("") until the call loses patience: what it says then."""
        if call.waiting is None:
            raise AssertionError(f"call {call.sid} waits for no key: it is {call.status}")
        before, action = len(call.said), call.waiting
        form = {**self._form(call), "Digits": digit}
        if not digit:
            form |= {"msg": "Gather End"}
        call.waiting = None
        status, text = self.post(action, form, call)
        if status != 200:
            call.said.append("an application error has occurred")
            self.hang_up(call)
        else:
            self._play(call, text, action)
        return call.said[before:]

    def hang_up(self, call: Call) -> None:
        """The call is over."""
        call.waiting = None
        self._progress(call, "completed", "completed")

    def fail(self, call: Call, status: str = "no-answer") -> None:
        """Nobody takes the call: busy, no-answer or failed."""
        self._progress(call, status, "completed")

    def post(self, url: str, form: dict[str, str], call: Call | None = None, signature: str | None = None) -> tuple[int, str]:
        """A hook of the gateway, asked as Twilio asks it: signed, unless a signature is given. (status, text)."""
        real = self.gateway_url or self._public_url
        said = signature if signature is not None else self.signature(url, form)
        if call is not None:
            call.asked.append(url)
        with nullcontext(self._client) if self._client else httpx.Client(timeout=15, trust_env=False) as client:
            answer = client.post(url.replace(self._public_url, real, 1), data=form, headers={"X-Twilio-Signature": said})
        return answer.status_code, answer.text

    @property
    def _tells(self) -> bool:
        return self.gateway_url is not None or self._client is not None

    def signature(self, url: str, form: dict[str, str]) -> str:
        """https://www.twilio.com/docs/usage/security: HMAC-SHA1 of the URL and the sorted fields."""
        text = url + "".join(name + form[name] for name in sorted(form))
        return base64.b64encode(hmac.new(self.auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()

    def _form(self, call: Call) -> dict[str, str]:
        return {
            "CallSid": call.sid,
            "CallStatus": call.status,
            "To": call.to,
            "From": call.from_,
            "Direction": "outbound-api",
            "AccountSid": self.account_sid,
            "ApiVersion": "2010-04-01",
        }

    def _progress(self, call: Call, status: str, event: str) -> None:
        with self._changed:
            call.status = status
            self._changed.notify_all()
        if call.callback and event in call.events and self._tells:
            self.post(call.callback, self._form(call), call)

    def _play(self, call: Call, twiml: str, base: str) -> None:
        """Follows TwiML as far as it goes without a key."""
        for verb in read_twiml(twiml):
            if verb.tag == "Say":
                call.said.append(verb.text or "")
            elif verb.tag == "Gather":
                call.said.extend(say.text or "" for say in verb.iter("Say"))
                call.waiting = urljoin(base, verb.get("action", base))
                with self._changed:
                    self._changed.notify_all()
                return
            elif verb.tag == "Hangup":
                break
        self.hang_up(call)

    # --- the API ------------------------------------------------------------------------------------

    def create(self, kind: str, form: Form) -> tuple[str, int, str, dict[str, Any]]:
        """(how to reply, status, Retry-After, body) of a POST to Messages or Calls."""
        with self._changed:
            reply, status, delay_s, retry_after = self._reply, self._status, self._delay_s, self._retry_after
            if reply == "status" and status != 201:
                code = {429: 20429, 401: 20003}.get(status, status)
                return reply, status, retry_after, {"code": code, "message": "refused by the test", "status": status}
            made = self._new_message(form) if kind == "Messages" else self._new_call(form)
            self._changed.notify_all()
        if isinstance(made, Call):
            threading.Thread(target=self._ring, args=(made,), name="sim-twilio-ring", daemon=True).start()
        if delay_s:
            self._closing.wait(delay_s)
        return reply, status, "", self.shown(made)

    def _ring(self, call: Call) -> None:
        """Twilio says that it has begun; when that can't be told it is of no consequence to the call."""
        if call.callback and "initiated" in call.events and self._tells:
            try:
                self.post(call.callback, {**self._form(call), "CallStatus": "initiated"}, call)
            except httpx.HTTPError as error:
                _log.info("twilio: %s could not be told: %s", call.sid, error)

    def _new_message(self, form: Form) -> Sms:
        to, from_ = self._numbers_of(form)
        body = _one(form, "Body")
        if not body:
            raise Refused(400, 21602, "Message body is required.")
        if len(body.encode("utf-16-le")) // 2 > MOST_UNITS:
            raise Refused(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
        made = Sms(f"SM{len(self._messages):032x}", to, from_, body, self._callback(form), self._now_us())
        self._messages.append(made)
        return made

    def _new_call(self, form: Form) -> Call:
        to, from_ = self._numbers_of(form)
        twiml = _one(form, "Twiml")
        if not twiml:
            raise Refused(400, 21205, "Url or Twiml parameter is required.")
        if len(twiml) > MOST_TWIML:
            raise Refused(400, 21218, "Twiml is longer than 4000 characters.")
        try:
            read_twiml(twiml)
        except ValueError as error:
            raise Refused(400, 12100, f"Document parse failure: {error}") from error
        events = frozenset(form.get("StatusCallbackEvent", ["completed"]))
        if not events <= {"initiated", "ringing", "answered", "completed"}:
            raise Refused(400, 21626, "Invalid 'StatusCallbackEvent'")
        if not 5 <= int(_one(form, "Timeout") or 60) <= 600:
            raise Refused(400, 21206, "Timeout")
        made = Call(f"CA{len(self._calls):032x}", to, from_, twiml, self._callback(form), events, self._now_us(), "ringing")
        self._calls.append(made)
        return made

    def _numbers_of(self, form: Form) -> tuple[str, str]:
        to, from_ = _one(form, "To"), _one(form, "From")
        if not to:
            raise Refused(400, 21201, "No 'To' number is specified")
        if not from_:
            raise Refused(400, 21603, "A 'From' phone number is required.")
        if not re.fullmatch(r"\+[1-9]\d{6,14}", to):
            raise Refused(400, 21211, f"The 'To' number {to} is not a valid phone number.")
        if to in self._bad:
            raise Refused(400, self._bad[to], f"The number {to} can't be reached.")
        if from_ not in self._numbers:
            raise Refused(400, 21212, f"The 'From' number {from_} is not a valid phone number of yours.")
        return to, from_

    def _callback(self, form: Form) -> str:
        url = _one(form, "StatusCallback")
        if url and not re.match(r"https?://[^/\s]+/\S*$", url):
            raise Refused(400, 21609, "Invalid 'StatusCallback' URL.")
        return url

    def listed(self, kind: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of the list, the newest first."""
        things: Sequence[Sms | Call] = self._messages if kind == "Messages" else self._calls
        to, from_ = _one(query, "To"), _one(query, "From")
        with self._changed:
            found = [self.shown(one) for one in reversed(things) if to in ("", one.to) and from_ in ("", one.from_)]
        name = "messages" if kind == "Messages" else "calls"
        size = int(_one(query, "PageSize") or 50)
        path = f"/2010-04-01/Accounts/{self.account_sid}/{kind}.json"
        return {name: found[:size], "page": 0, "page_size": size, "uri": path, "next_page_uri": None, "previous_page_uri": None,
                "first_page_uri": path, "start": 0, "end": len(found[:size])}  # fmt: skip

    def events(self, sid: str) -> dict[str, Any]:
        """What Twilio asked the gateway for a call."""
        call = next((one for one in self.calls if one.sid == sid), None)
        if call is None:
            raise Refused(404, 20404, "The requested resource was not found")
        shown = [{"request": {"method": "POST", "url": url, "parameters": {}}, "response": {}} for url in call.asked]
        return {"events": shown, "page": 0, "page_size": 50, "uri": "", "next_page_uri": None, "start": 0, "end": len(shown)}

    def shown(self, one: Sms | Call) -> dict[str, Any]:
        """The resource as the API shows it."""
        at = format_datetime(datetime.fromtimestamp(one.at_us // 1_000_000, UTC))
        same = {"sid": one.sid, "account_sid": self.account_sid, "to": one.to, "from": one.from_, "status": one.status,
                "date_created": at, "date_updated": at, "direction": "outbound-api", "api_version": "2010-04-01"}  # fmt: skip
        if isinstance(one, Sms):
            return {**same, "body": one.body, "error_code": one.error, "num_segments": "1",
                    "date_sent": at if one.status not in ("queued", "accepted") else None}  # fmt: skip
        return {**same, "start_time": None, "end_time": None, "duration": None}


def _one(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[0]


_MAY = {
    "Response": {"Say", "Pause", "Gather", "Hangup", "Redirect"},
    "Gather": {"Say", "Pause", "Play"},
    "Say": set[str](),
    "Pause": set[str](),
    "Hangup": set[str](),
    "Redirect": set[str](),
}
_ATTRIBUTES = {
    "Response": set[str](),
    "Say": {"language", "voice", "loop"},
    "Pause": {"length"},
    "Hangup": set[str](),
    "Redirect": {"method"},
    "Gather": {"action", "method", "numDigits", "timeout", "finishOnKey", "actionOnEmptyResult", "input", "language"},
}
_LANGUAGES = {"ja-JP", "en-US", "en-GB", "zh-CN", "ko-KR"}


def read_twiml(text: str) -> list[ET.Element]:
    """The verbs of a document. ValueError for what Twilio would not take."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - of our own gateway
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    if root.tag != "Response":
        raise ValueError(f"<{root.tag}> is not <Response>")
    for parent in root.iter():
        if parent.tag not in _MAY:
            raise ValueError(f"there is no verb <{parent.tag}>")
        if unknown := set(parent.attrib) - _ATTRIBUTES[parent.tag]:
            raise ValueError(f"<{parent.tag}> has no {sorted(unknown)}")
        for child in parent:
            if child.tag not in _MAY[parent.tag]:
                raise ValueError(f"<{child.tag}> may not stand in <{parent.tag}>")
    for say in root.iter("Say"):
        if not (say.text or "").strip():
            raise ValueError("<Say> says nothing")
        if say.get("language", "en-US") not in _LANGUAGES:
            raise ValueError(f"no voice speaks {say.get('language')}")
    for gather in root.iter("Gather"):
        if not re.fullmatch(r"[1-9]\d*", gather.get("numDigits", "1")) or gather.get("method", "POST") not in ("GET", "POST"):
            raise ValueError("<Gather> is wrong")
    return list(root)


class _Server(DoorServer):
    def __init__(self, service: TwilioService, port: int) -> None:
        self.service = service
        super().__init__(port, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30

    def do_POST(self) -> None:
        """A new message or call; a key or a button on a telephone's page."""
        self.close_connection = True
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdigit() and len(length) < 7 else 0).decode("utf-8", "replace")
        if self.path.startswith("/phones/"):
            self._on_phone(dict(parse_qsl(body, keep_blank_values=True)))
            return
        kind = self._kind()
        if kind is None or "/" in kind:
            return
        try:
            reply, status, after, shown = self.server.service.create(kind, parse_qs(body, keep_blank_values=True))
        except Refused as refused:
            self._refuse(refused)
            return
        if reply == "garbage":
            self.wfile.write(b"\x00\xff this is not HTTP \x80\r\n\r\n")
        elif reply == "status":
            self._json(status, shown, after)

    def do_GET(self) -> None:
        """A list, a call's events, a telephone's page."""
        if self.path.startswith("/phones/"):
            self._say(200, "text/html", _page(self.server.service, unquote(self.path.removeprefix("/phones/"))))
            return
        kind = self._kind()
        if kind is None:
            return
        service, query = self.server.service, parse_qs(urlsplit(self.path).query)
        try:
            found = re.fullmatch(r"Calls/(CA[0-9a-f]{32})/Events", kind)
            self._json(200, service.events(found[1]) if found else service.listed(kind, query))
        except Refused as refused:
            self._refuse(refused)

    def _kind(self) -> str | None:
        """What is asked for: Messages, Calls or a call's events; None once it was refused."""
        service = self.server.service
        wanted = base64.b64encode(f"{service.account_sid}:{service.auth_token}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self._refuse(Refused(401, 20003, "Authenticate"))
            return None
        found = re.fullmatch(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/(Messages|Calls|Calls/CA[0-9a-f]{32}/Events)\.json",
                             urlsplit(self.path).path)  # fmt: skip
        if not found or found[1] != service.account_sid:
            self._refuse(Refused(404, 20404, f"The requested resource {self.path} was not found"))
            return None
        return found[2]

    def _on_phone(self, form: dict[str, str]) -> None:
        service = self.server.service
        call = next((one for one in service.calls if one.sid == form.get("call")), None)
        if call is not None:
            if form.get("do") == "take" and call.status == "ringing":
                service.take(call)
            elif form.get("do") == "busy" and call.status == "ringing":
                service.fail(call, "busy")
            elif form.get("do") == "hang up" and call.status == "in-progress":
                service.hang_up(call)
            elif "digit" in form and call.waiting is not None:
                service.press(call, form["digit"])
        self.send_response(303)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(self, refused: Refused) -> None:
        more = f"https://www.twilio.com/docs/errors/{refused.code}"
        self._json(refused.status, {"code": refused.code, "message": str(refused), "more_info": more, "status": refused.status})

    def _json(self, status: int, shown: dict[str, Any], after: str = "") -> None:
        self._say(status, "application/json", json.dumps(shown), after)

    def _say(self, status: int, kind: str, text: str, after: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if after:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """To the log like all else, not to stderr."""
        _log.debug("twilio: %s", format % args)


_STYLE = """
body{margin:0;background:#d9dde3;color:#1c1b1f;font:17px/1.6 "Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{max-width:390px;min-height:100vh;margin:0 auto;background:#f4f5f7;padding:0 12px 24px;box-sizing:border-box}
h1{font-size:17px;margin:0;padding:14px 4px}article{background:#fff;border-radius:10px;padding:10px 14px;margin:0 0 10px}
p{margin:4px 0;white-space:pre-line;overflow-wrap:anywhere}form{display:inline}
button{min-width:88px;min-height:48px;margin:4px;font-size:17px;border:0;border-radius:24px;background:#dfe3ea;color:#1c1b1f}
.go{background:#1b7f3b;color:#fff}.no{background:#b3261e;color:#fff}
"""
_STATUS = {"ringing": "着信中", "in-progress": "通話中", "completed": "通話終了", "busy": "話し中", "no-answer": "応答なし"}


def _page(service: TwilioService, number: str) -> str:
    parts = []
    for call in reversed(service.rings(number)):
        keys = ""
        if call.status == "ringing":
            keys = _button(number, call, "do", "take", "出る", "go") + _button(number, call, "do", "busy", "出ない", "no")
        elif call.status == "in-progress":
            keys = "".join(_button(number, call, "digit", key, key) for key in "123456789")
            keys += _button(number, call, "do", "hang up", "切る", "no")
        said = html.escape("\n".join(call.said))
        parts.append(f"<article><b>☎ {_STATUS.get(call.status, call.status)}</b><p>{said}</p>{keys}</article>")
    for one in reversed([one for one in service.messages if one.to == number]):
        text = re.sub(r"(https?://[^\s<]+)", r'<a href="\1">\1</a>', html.escape(one.body))
        parts.append(f"<article><b>SMS</b><p>{text}</p></article>")
    return (
        '<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>電話（模擬）</title><style>{_STYLE}</style></head><body><main><h1>{html.escape(number)}（模擬の電話）</h1>"
        f"{''.join(parts) or '<p>まだ何も届いていません。</p>'}</main></body></html>"
    )


def _button(number: str, call: Call, name: str, value: str, label: str, kind: str = "") -> str:
    return (
        f'<form method="post" action="/phones/{quote(number)}"><input type="hidden" name="call" value="{call.sid}">'
        f'<button class="{kind}" name="{name}" value="{value}">{label}</button></form>'
    )
