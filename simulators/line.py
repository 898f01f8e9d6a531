"""LINE on loopback: the Messaging API's rules as they are documented, and the phones of the people who talk with the account.

What LINE refuses is refused here: a wrong token, a field that is missing, too long or unknown, a retry key that is no UUID, a
reply token used twice or after a minute, more than the month's messages. What LINE does not do is not done either: a push to
somebody who blocked the account is answered 200 and reaches nobody; only a repeated retry key is told from a second message.

    POST /v2/bot/message/push, /v2/bot/message/reply    GET /v2/bot/message/quota, /v2/bot/message/quota/consumption
    GET /phones, /phones/<user>: what the people see; their buttons send signed webhooks

https://developers.line.biz/en/reference/messaging-api/
"""

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx

from simulators.door import Door, DoorServer
from simulators.line_page import people_page, phone_page
from simulators.line_rules import request_faults

_log = logging.getLogger(__name__)

MAX_BYTES = 2 * 1024 * 1024
RETRY_KEY_US = 24 * 3600 * 1_000_000
REPLY_TOKEN_US = 60 * 1_000_000

Headers = Mapping[str, str] | Message

Webhook = str | Callable[[bytes, Mapping[str, str]], int] | None
"""Where webhooks go: a URL, or who takes the body and the headers and returns the status; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a button does."""

    type: str
    """postback, message or uri."""
    label: str
    value: str
    """The postback's data, the message's text, or the URI."""
    shows: str = ""
    """What the person is seen to say when they press it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One message as a person sees it."""

    at_us: int
    how: str
    """push, reply, or "said" for the person's own words."""
    title: str
    body: str
    actions: tuple[Action, ...] = ()
    key: str | None = None
    """A push's retry key."""
    colour: str = ""
    id: str = ""
    """LINE's own id of it."""

    @property
    def labels(self) -> list[str]:
        """What its buttons say."""
        return [action.label for action in self.actions]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API, whatever was answered."""

    at_us: int
    path: str
    key: str | None
    to: str | None
    status: int | None
    """None when the answer was dropped or garbage."""


@dataclass(slots=True)
class _User:
    id: str
    name: str
    follows: bool = False
    chat: list[Shown] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Phone:
    """One person's LINE at one moment."""

    user: str
    name: str
    follows: bool
    chat: tuple[Shown, ...]
    """All of the conversation, the oldest first."""

    @property
    def messages(self) -> list[Shown]:
        """What came from the account."""
        return [one for one in self.chat if one.how != "said"]


def user_id(name: str) -> str:
    """The user id of somebody of this name; an id is its own."""
    return name if re.fullmatch(r"U[0-9a-f]{32}", name) else "U" + hashlib.sha256(name.encode()).hexdigest()[:32]


class LinePlatform:
    """A context manager: on a free loopback port while open. All methods may be called from any thread.

    `limit`: messages a month; None: no limit. Behaviours last until the next one is chosen; `well()` is the first.
    """

    def __init__(
        self,
        webhook: Webhook = None,
        *,
        secret: str = "channel-secret-of-the-simulator",  # noqa: S107 - of an account that does not exist
        token: str = "access-token-of-the-simulator",  # noqa: S107
        limit: int | None = 200,
        port: int = 0,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.webhook, self.secret, self.token, self.limit = webhook, secret, token, limit
        self.used = 0
        self._now_us = now_us
        self._changed = threading.Condition()
        self._users: dict[str, _User] = {}
        self._calls: list[Call] = []
        self._accepted: dict[str, tuple[int, str, str]] = {}  # retry key -> when, request id, message id
        self._tokens: dict[str, tuple[str, int]] = {}  # reply token -> user, until when
        self._behaviour: tuple[str, int, str, float] = ("well", 200, "", 0.0)
        self._last: tuple[str, dict[str, Any]] | None = None
        self._closing = threading.Event()
        self._door = Door(lambda port: _Server(self, port), port, "sim-line")

    def __enter__(self) -> "LinePlatform":
        self._closing.clear()
        self._door.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._door.shut()

    @property
    def url(self) -> str:
        """What `[channel.line] url` is set to. The port stays the same over `refuse`."""
        return f"http://127.0.0.1:{self._door.port}"

    # --- behaviours of the API ----------------------------------------------------------------------

    def well(self) -> None:
        """Works as documented."""
        self._behave("well")

    def answer(self, status: int, message: str = "", *, taken: bool = False) -> None:
        """Answers every call with this status; `taken`: but does what was asked, as a 500 of LINE may."""
        self._behave("taken" if taken else "status", status, message)

    def rate_limited(self) -> None:
        """429, of too many calls; not of the month's limit, which comes by itself."""
        self._behave("status", 429, "The API rate limit has been exceeded. Try again later.")

    def slow(self, seconds: float) -> None:
        """Does what is asked, but says so only after so long."""
        self._behave("well", delay_s=seconds)

    def drop(self) -> None:
        """Does what is asked, then closes the connection without a word."""
        self._behave("drop")

    def garbage(self) -> None:
        """Does what is asked, then answers 200 with what is no JSON."""
        self._behave("garbage")

    def refuse(self) -> None:
        """Nobody listens on the port any more."""
        self._door.shut()

    def _behave(self, how: str, status: int = 200, message: str = "", delay_s: float = 0.0) -> None:
        with self._changed:
            self._behaviour = (how, status, message, delay_s)
        self._door.open()

    # --- the people ---------------------------------------------------------------------------------

    def follow(self, user: str) -> int:
        """Adds the account as a friend, or unblocks it. The status of the webhook, 0 where it got nowhere; so all of these."""
        self._user(user).follows = True
        return self._say(user, {"type": "follow", "follow": {"isUnblocked": False}}, replies=True)

    def block(self, user: str) -> int:
        """Blocks the account: pushes go on to be answered 200 and reach nobody."""
        self._user(user).follows = False
        return self._say(user, {"type": "unfollow"})

    def write(self, user: str, text: str) -> int:
        """Writes to the account."""
        self._add(user, Shown(self._now_us(), "said", "", text))
        message = {"type": "text", "id": _number(), "quoteToken": secrets.token_hex(8), "text": text}
        return self._say(user, {"type": "message", "message": message}, replies=True)

    def tap(self, user: str, label: str) -> int:
        """Presses the newest button with this label. LookupError when there is none."""
        for shown in reversed(self.phone(user).chat):
            for action in shown.actions:
                if action.label == label:
                    return self.press(user, action)
        raise LookupError(f"{user} has no button {label!r}; there are: {[one.labels for one in self.phone(user).messages]}")

    def press(self, user: str, action: Action) -> int:
        """Presses this button. A link opens nothing here: LookupError."""
        if action.type == "message":
            return self.write(user, action.value)
        if action.type != "postback":
            raise LookupError(f"{action.label!r} opens {action.value}")
        if action.shows:
            self._add(user, Shown(self._now_us(), "said", "", action.shows))
        return self._say(user, {"type": "postback", "postback": {"data": action.value}}, replies=True)

    def invite(self, group: str) -> int:
        """Somebody adds the account to a group of LINE."""
        return self.deliver([self._event("", {"type": "join"}, replies=True) | {"source": {"type": "group", "groupId": group}}])

    def again(self) -> int:
        """Delivers the last webhook once more, as LINE does when it was not answered 200."""
        if self._last is None:
            raise LookupError("no webhook was sent yet")
        user, event = self._last
        _log.debug("webhook for %s again", user)
        return self.deliver([event | {"deliveryContext": {"isRedelivery": True}}])

    def deliver(self, events: list[dict[str, Any]], *, secret: str | None = None) -> int:
        """Sends these events as one webhook, signed with the channel's secret or with another."""
        body = json.dumps({"destination": user_id("the account"), "events": events}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "X-Line-Signature": sign(secret or self.secret, body)}
        if self.webhook is None:
            return 0
        if not isinstance(self.webhook, str):
            return self.webhook(body, headers)
        try:
            return httpx.post(self.webhook, content=body, headers=headers, timeout=10, trust_env=False).status_code
        except httpx.HTTPError as error:
            _log.info("the webhook got nowhere: %s", error)
            return 0

    def phone(self, user: str) -> Phone:
        """What this person sees now."""
        with self._changed:
            one = self._user(user)
            return Phone(one.id, one.name, one.follows, tuple(one.chat))

    @property
    def people(self) -> list[str]:
        """The names of everybody who ever talked with the account."""
        with self._changed:
            return [user.name for user in self._users.values()]

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call of the API, in order."""
        with self._changed:
            return tuple(self._calls)

    def times(self, user: str | None = None) -> dict[str, int]:
        """How often each push was shown, by its retry key; of one person or of all. Anything but 1 woke somebody twice."""
        count: dict[str, int] = {}
        for name in [user] if user is not None else self.people:
            for one in self.phone(name).messages:
                if one.how == "push" and one.key is not None:
                    count[one.key] = count.get(one.key, 0) + 1
        return count

    def wait_for(self, user: str, condition: Callable[[Phone], object], timeout_s: float = 10) -> Phone:
        """Waits until it holds of this person's phone; TimeoutError with what is on it when it does not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.phone(user)), timeout_s):
                there = [(one.how, one.title, one.body) for one in self.phone(user).chat]
                raise TimeoutError(f"{user}'s phone waited {timeout_s:g} s in vain; on it: {there}")
            return self.phone(user)

    def _user(self, user: str) -> _User:
        with self._changed:
            return self._users.setdefault(user_id(user), _User(user_id(user), user))

    def _add(self, user: str, shown: Shown) -> None:
        with self._changed:
            self._user(user).chat.append(shown)
            self._changed.notify_all()

    def _event(self, user: str, what: dict[str, Any], *, replies: bool) -> dict[str, Any]:
        now_us = self._now_us()
        event = {
            **what,
            "timestamp": now_us // 1000,
            "source": {"type": "user", "userId": user_id(user)},
            "mode": "active",
            "webhookEventId": _ulid(now_us),
            "deliveryContext": {"isRedelivery": False},
        }
        if replies:
            event["replyToken"] = token = secrets.token_hex(16)
            with self._changed:
                self._tokens[token] = (user_id(user), now_us + REPLY_TOKEN_US)
        return event

    def _say(self, user: str, what: dict[str, Any], *, replies: bool = False) -> int:
        event = self._event(user, what, replies=replies)
        self._last = (user, event)
        return self.deliver([event])

    # --- the API ------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, headers: Headers, body: bytes) -> tuple[str, int, dict[str, Any], str]:
        """(how to behave, status, JSON, the id of a call that was accepted before)."""
        with self._changed:
            how, status, message, delay_s = self._behaviour
            key = headers.get("X-Line-Retry-Key")
            if how == "status":
                said: tuple[int, dict[str, Any], str] = (status, {"message": message or "error"}, "")
            else:
                said = self._answered(method, path, headers, body)
                if how == "taken":
                    said = (status, {"message": message or "error"}, "")
            to = _to(body)
            told = None if how in ("drop", "garbage") else said[0]
            self._calls.append(Call(self._now_us(), path, key, to, told))
            self._changed.notify_all()
        if delay_s:
            self._closing.wait(delay_s)
        return how, *said

    def _answered(self, method: str, path: str, headers: Headers, body: bytes) -> tuple[int, dict[str, Any], str]:
        if headers.get("Authorization") != f"Bearer {self.token}":
            reason = "invalid token. Confirm that the access token in the authorization header is valid."
            return 401, {"message": f"Authentication failed due to the following reason: {reason}"}, ""
        if (method, path) == ("GET", "/v2/bot/message/quota"):
            return 200, {"type": "none"} if self.limit is None else {"type": "limited", "value": self.limit}, ""
        if (method, path) == ("GET", "/v2/bot/message/quota/consumption"):
            return 200, {"totalUsage": self.used}, ""
        if method != "POST" or path not in ("/v2/bot/message/push", "/v2/bot/message/reply"):
            return 404, {"message": "Not found"}, ""
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return 415, {"message": f"The content type, {kind}, is not supported"}, ""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            return 400, {"message": "The request body could not be parsed as JSON (line: 1, column: 1)"}, ""
        faults = request_faults(document, is_reply=path.endswith("reply"))
        if faults:
            details = [{"message": message, "property": where} for where, message in faults]
            return 400, {"message": f"The request body has {len(faults)} error(s)", "details": details}, ""
        take = self._reply if path.endswith("reply") else self._push
        return take(document, headers.get("X-Line-Retry-Key"))

    def _push(self, document: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any], str]:
        now_us = self._now_us()
        if key is not None:
            try:
                key = str(uuid.UUID(key)) if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", key) else ""
            except ValueError:
                key = ""
            if not key:
                return 400, {"message": "The value for the 'X-Line-Retry-Key' header is invalid"}, ""
            accepted = self._accepted.get(key)
            if accepted is not None and now_us - accepted[0] < RETRY_KEY_US:
                sent = [{"id": accepted[2], "quoteToken": "q"}]
                return 409, {"message": "The retry key is already accepted", "sentMessages": sent}, accepted[1]
        if not re.fullmatch(r"[UCR][0-9a-f]{32}", document["to"]):
            return 400, {"message": "The property, 'to', in the request body is invalid (line: -, column: -)"}, ""
        user = self._users.get(document["to"])
        if user is None:
            return 400, {"message": "Failed to send messages"}, ""
        if self.limit is not None and self.used >= self.limit:
            return 429, {"message": "You have reached your monthly limit."}, ""
        ids = [_number() for _ in document["messages"]]
        if key is not None:
            self._accepted[key] = (now_us, str(uuid.uuid4()), ids[0])
        if user.follows:
            self.used += 1  # by receivers, however many messages it holds; who blocked us is not counted
            self._show(user, document, ids, "push", key)
        return 200, {"sentMessages": [{"id": one, "quoteToken": "q"} for one in ids]}, ""

    def _reply(self, document: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any], str]:
        if key is not None:
            return 400, {"message": "The 'X-Line-Retry-Key' header is not supported for this API"}, ""
        user_, until_us = self._tokens.pop(document["replyToken"], ("", 0))
        if self._now_us() >= until_us:
            return 400, {"message": "Invalid reply token"}, ""
        ids = [_number() for _ in document["messages"]]
        user = self._users.get(user_)
        if user is not None and user.follows:
            self._show(user, document, ids, "reply", None)
        return 200, {"sentMessages": [{"id": one, "quoteToken": "q"} for one in ids]}, ""

    def _show(self, user: _User, document: dict[str, Any], ids: list[str], how: str, key: str | None) -> None:
        for message, id_ in zip(document["messages"], ids, strict=True):
            user.chat.append(seen(message, self._now_us(), how, key, id_))

    # --- the server ---------------------------------------------------------------------------------


def sign(secret: str, body: bytes) -> str:
    """X-Line-Signature of a webhook's body."""
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def _number() -> str:
    return str(10**17 + secrets.randbelow(9 * 10**17))


def _ulid(now_us: int) -> str:
    number = (now_us // 1000) << 80 | secrets.randbits(80)
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(125, -5, -5))


def _to(body: bytes) -> str | None:
    try:
        to = json.loads(body or b"{}").get("to")
    except (ValueError, AttributeError, RecursionError):
        return None
    return to if isinstance(to, str) else None


# --- what people see ------------------------------------------------------------------------------------


def seen(message: Mapping[str, Any], at_us: int, how: str, key: str | None, id_: str) -> Shown:
    """A message that LINE took, as a person reads it."""
    quick = [_read_action(item["action"]) for item in message.get("quickReply", {}).get("items", [])]
    if message["type"] == "text":
        return Shown(at_us, how, "", message["text"], tuple(quick), key, "", id_)
    contents = message["contents"]
    bubbles = contents["contents"] if contents["type"] == "carousel" else [contents]
    title = [text for bubble in bubbles for text in _texts(bubble.get("header"))]
    body = [text for bubble in bubbles for text in _texts(bubble.get("body"))]
    actions = [action for bubble in bubbles for block in ("body", "footer") for action in _buttons(bubble.get(block))]
    colour = (bubbles[0].get("header") or {}).get("backgroundColor", "")
    return Shown(at_us, how, "\n".join(title), "\n".join(body), (*actions, *quick), key, colour, id_)


def _texts(one: Any) -> list[str]:
    if not one:
        return []
    if one["type"] == "text":
        return [one["text"]] if one.get("text") else []
    return [text for inner in one.get("contents", []) for text in _texts(inner)]


def _buttons(one: Any) -> list[Action]:
    if not one:
        return []
    if one["type"] == "button":
        return [_read_action(one["action"])]
    return [action for inner in one.get("contents", []) if one["type"] == "box" for action in _buttons(inner)]


def _read_action(action: Mapping[str, Any]) -> Action:
    value = action.get("data") or action.get("text") or action.get("uri") or ""
    return Action(action["type"], action.get("label", ""), value, action.get("displayText", ""))


class _Server(DoorServer):
    def __init__(self, platform: LinePlatform, port: int) -> None:
        self.platform = platform
        super().__init__(port, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True  # headers and body are written apart: the second would wait 40 ms for the first's ack

    def do_GET(self) -> None:
        """The phones' pages, and the API's questions."""
        path = urlsplit(self.path).path
        if path in ("/", "/phones", "/phones/"):
            self._text(200, "text/html", people_page(self.server.platform.people))
        elif path.startswith("/phones/"):
            self._text(200, "text/html", phone_page(self.server.platform.phone(unquote(path.removeprefix("/phones/")))))
        else:
            self._api(b"")

    def do_POST(self) -> None:
        """A press on a page, or a call of the API."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 9 or int(length) > MAX_BYTES:
            self.close_connection = True
            self._json(413, {"message": "Payload Too Large"}, "")
            return
        body = self.rfile.read(int(length))
        path = urlsplit(self.path).path
        if path.startswith("/phones/"):
            self._pressed(unquote(path.removeprefix("/phones/")), parse_qs(body.decode("utf-8", "replace")))
        else:
            self._api(body)

    def _pressed(self, user: str, form: Mapping[str, list[str]]) -> None:
        platform = self.server.platform
        try:
            if "press" in form:
                number, _, at = form["press"][0].partition(".")
                platform.press(user, platform.phone(user).chat[int(number)].actions[int(at)])
            elif "text" in form:
                platform.write(user, form["text"][0])
            elif "friend" in form:
                (platform.follow if form["friend"][0] == "follow" else platform.block)(user)
        except (LookupError, ValueError):
            self._text(400, "text/plain", "there is no such button")
            return
        self.send_response(303)
        self.send_header("Location", f"/phones/{quote(user)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _api(self, body: bytes) -> None:
        if not self.server.platform._door.is_of(self.server):
            self.close_connection = True  # hung up, while a connection was kept
            return
        how, status, document, accepted = self.server.platform._call(self.command, urlsplit(self.path).path, self.headers, body)
        if how == "drop":
            self.close_connection = True
        elif how == "garbage":
            self._text(200, "text/html", "<html>this is no answer of LINE's")
        else:
            self._json(status, document, accepted)

    def _json(self, status: int, document: dict[str, Any], accepted: str) -> None:
        self._text(status, "application/json", json.dumps(document), {"x-line-accepted-request-id": accepted} if accepted else {})

    def _text(self, status: int, content_type: str, text: str, more: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("x-line-request-id", str(uuid.uuid4()))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """To the log like all else, not to stderr."""
        _log.debug("line: %s", format % args)
