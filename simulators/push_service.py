"""A push service on loopback, and the browsers that subscribed to it: as strict as those of the browsers' makers.

It takes Web Push messages (RFC 8030) with VAPID (RFC 8292), of which it checks signature, audience and end, and all that a real
service checks of headers and sizes. It holds the browsers' keys too, so that it shows what their people would see: decrypted,
one notification a tag. It never guards against repeats but by Topic, while a browser is away: more a real one does not do either.
"""

import base64
import binascii
import html
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import http_ece
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from simulators.door import Door, DoorServer

MOST_BYTES = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message as the service took or refused it."""

    at_us: int
    browser: str
    headers: dict[str, str]
    """By their names in small letters."""
    size: int
    """Of the encrypted body, bytes."""
    status: int | None
    """What it was answered with; None when the answer was dropped or garbage."""
    why: str
    """Why it was refused; empty where it was not."""
    message: dict[str, Any] | None
    """Decrypted. None where it was refused."""

    @property
    def shown(self) -> bool:
        """Whether the browser gets it: also when the sender was never told so."""
        return self.message is not None


@dataclass(slots=True)
class Browser:
    """One that subscribed, with the keys that only it has."""

    name: str
    application_key: str
    key: ec.EllipticCurvePrivateKey
    auth: bytes
    ended: bool = False
    away: bool = False
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    rang: list[str] = field(default_factory=list)
    """The tags that made it ring, in order."""
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What stands on its screen, by tag: a message of a tag that is there replaces it without a sound."""


class PushService:
    """A context manager: on a free loopback port while open. All methods may be called from any thread.

    Behaviours last until the next one is chosen; `answer(201)` is the first. `now_us` is the clock that VAPID's ends go by.
    """

    def __init__(self, port: int = 0, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._now_us = now_us
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._browsers: dict[str, Browser] = {}
        self._pushed: list[Pushed] = []
        self._reply, self._status, self._delay_s, self._retry_after = "status", 201, 0.0, ""
        self._most_bytes = MOST_BYTES
        self._door = Door(lambda port: _Server(self, port), port, "sim-push")

    def __enter__(self) -> "PushService":
        self._closing.clear()
        self._door.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._door.shut()

    @property
    def url(self) -> str:
        """Its origin, and a page that shows every browser. The port stays the same over `refuse`."""
        return f"http://127.0.0.1:{self._door.port}"

    # --- browsers -----------------------------------------------------------------------------------

    def subscribe(self, name: str, application_key: str) -> str:
        """A browser subscribes for messages of the server with this public key. The subscription, as its page gets it."""
        key, auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
        with self._changed:
            self._browsers[name] = Browser(name, application_key, key, auth)
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        keys = {"p256dh": _text(point), "auth": _text(auth)}
        return json.dumps({"endpoint": f"{self.url}/push/{name}", "expirationTime": None, "keys": keys})

    def end(self, name: str) -> None:
        """The browser's person takes the permission back: 410 from now on."""
        with self._changed:
            self._browsers[name].ended = True

    def away(self, name: str) -> None:
        """The phone is switched off: the service keeps what comes, of each Topic the last."""
        with self._changed:
            self._browsers[name].away = True

    def back(self, name: str) -> None:
        """It is switched on again and gets what waited."""
        with self._changed:
            browser = self._browsers[name]
            browser.away = False
            for message in browser.waiting.values():
                _show(browser, message)
            browser.waiting.clear()
            self._changed.notify_all()

    def seen(self, name: str) -> list[dict[str, Any]]:
        """What stands on the browser's screen, one of a tag."""
        with self._changed:
            return list(self._browsers[name].shown.values())

    def rang(self, name: str) -> list[str]:
        """The tags that made it ring, in order. The same one twice would have woken somebody twice."""
        with self._changed:
            return list(self._browsers[name].rang)

    # --- behaviours ---------------------------------------------------------------------------------

    def answer(self, status: int, retry_after: str = "") -> None:
        """Answers with this status: only 2xx takes the message."""
        self._behave("status", status, retry_after=retry_after)

    def slow(self, seconds: float) -> None:
        """Takes the message, but answers only after so long."""
        self._behave("status", 201, seconds)

    def drop(self) -> None:
        """Takes the message, then closes the connection without a word."""
        self._behave("drop")

    def garbage(self) -> None:
        """Takes the message, then answers what is not HTTP."""
        self._behave("garbage")

    def refuse(self) -> None:
        """Nobody listens on the port any more."""
        self._door.shut()

    def take_at_most(self, size: int) -> None:
        """Bodies longer than this are answered with 413."""
        with self._changed:
            self._most_bytes = size

    def _behave(self, reply: str, status: int = 201, delay_s: float = 0.0, retry_after: str = "") -> None:
        with self._changed:
            self._reply, self._status, self._delay_s, self._retry_after = reply, status, delay_s, retry_after
        self._door.open()

    # --- what came ----------------------------------------------------------------------------------

    @property
    def pushed(self) -> tuple[Pushed, ...]:
        """Every message, in order, the refused ones too."""
        with self._changed:
            return tuple(self._pushed)

    def wait_for(self, condition: Callable[[tuple[Pushed, ...]], object], timeout_s: float = 10) -> tuple[Pushed, ...]:
        """Waits until `condition(pushed)` holds; TimeoutError with what did come."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(tuple(self._pushed)), timeout_s):
                came = [(one.browser, one.status, one.why) for one in self._pushed]
                raise TimeoutError(f"the push service waited {timeout_s:g} s in vain; (browser, answer, why) came: {came}")
            return tuple(self._pushed)

    # --- the server ---------------------------------------------------------------------------------

    def _take(self, name: str, headers: dict[str, str], body: bytes) -> tuple[str, int, str, str]:
        """(how to reply, status, why, Retry-After) of one POST."""
        with self._changed:
            browser = self._browsers.get(name)
            message: dict[str, Any] | None = None
            status, why = self._judge(browser, headers, body)
            reply, delay_s, retry_after = "status", 0.0, ""
            if not why:
                reply, status, delay_s, retry_after = self._reply, self._status, self._delay_s, self._retry_after
            if browser and not why and (reply != "status" or status < 300):
                try:
                    message = _decrypted(browser, body)
                except ValueError as error:
                    # A real service can't see this; the browser drops the message, and nobody is told. Here it is said.
                    reply, status, why = "status", 400, str(error)
            if browser and message is not None:
                if browser.away:
                    browser.waiting.pop(headers.get("topic", ""), None)
                    browser.waiting[headers.get("topic") or str(len(self._pushed))] = message
                else:
                    _show(browser, message)
            answered = status if reply == "status" else None
            self._pushed.append(Pushed(self._now_us(), name, headers, len(body), answered, why, message))
            self._changed.notify_all()
        if delay_s:
            self._closing.wait(delay_s)
        return reply, status, why, retry_after

    def _judge(self, browser: Browser | None, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """(status, why) of what is refused; why is empty where it may be taken."""
        if browser is None:
            return 404, "there is no such subscription"
        if browser.ended:
            return 410, "the subscription has ended"
        if len(body) > self._most_bytes:
            return 413, f"at most {self._most_bytes} bytes"
        if fault := _header_fault(headers):
            return 400, fault
        if fault := self._vapid_fault(headers.get("authorization", ""), browser):
            return 403, fault
        return 201, ""

    def _vapid_fault(self, authorization: str, browser: Browser) -> str:
        found = re.fullmatch(r"vapid t=([\w-]+)\.([\w-]+)\.([\w-]+), ?k=([\w-]+)", authorization)
        if not found:
            return "Authorization is not `vapid t=<token>, k=<key>`"
        head, claims, signature, key = found.groups()
        if key != browser.application_key.rstrip("="):
            return "the subscription was made for another key"
        try:
            header, said = json.loads(_bytes(head)), json.loads(_bytes(claims))
            raw = _bytes(signature)
            if header.get("alg") != "ES256" or len(raw) != 64:
                return "the token is not ES256"
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _bytes(key))
            der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            public.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
        except (ValueError, AttributeError, InvalidSignature):
            return "the token is not signed by the key"
        now_s, ends = self._now_us() / 1e6, said.get("exp")
        if said.get("aud") != self.url:
            return f"the token is for {said.get('aud')}, not for {self.url}"
        if not isinstance(ends, int) or not now_s < ends <= now_s + 86_400:
            return "the token has ended, or ends later than in 24 h"
        if not re.match(r"mailto:[^@\s]+@[^@\s]+$|https://\S+$", str(said.get("sub", ""))):
            return "the token's sub is nobody one could write to"
        return ""


def _header_fault(headers: dict[str, str]) -> str:
    if not re.fullmatch(r"\d{1,10}", headers.get("ttl", "")):
        return "TTL is needed: seconds"
    if headers.get("content-encoding") != "aes128gcm":
        return "Content-Encoding is not aes128gcm"
    if headers.get("urgency", "normal") not in ("very-low", "low", "normal", "high"):
        return "Urgency is none of very-low, low, normal, high"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("topic", "x")):
        return "Topic is not 1 to 32 characters of base64url"
    return ""


def _decrypted(browser: Browser, body: bytes) -> dict[str, Any]:
    """What the browser reads. ValueError where it can't."""
    try:
        text = http_ece.decrypt(body, private_key=browser.key, auth_secret=browser.auth, version="aes128gcm")
        message = json.loads(text)
    except Exception as error:
        raise ValueError(f"the browser can't decrypt it: {error!r}") from error
    if not isinstance(message, dict) or not message.get("title"):
        raise ValueError("the page's service worker finds no title in it")
    return message


def _show(browser: Browser, message: dict[str, Any]) -> None:
    tag = str(message.get("tag", ""))
    if tag not in browser.shown or not tag:
        browser.rang.append(tag)
    browser.shown[tag or f"without a tag {len(browser.shown)}"] = message


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64url") from error


class _Server(DoorServer):
    def __init__(self, service: PushService, port: int) -> None:
        self.service = service
        super().__init__(port, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30

    def do_POST(self) -> None:
        """One message."""
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 7:
            self._say(411, "a Content-Length is needed")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(length))
        name = self.path.removeprefix("/push/") if self.path.startswith("/push/") else ""
        reply, status, why, retry_after = self.server.service._take(name, headers, body)
        if reply == "garbage":
            self.wfile.write(b"\x00\xff this is not HTTP \x80\r\n\r\n")
        elif reply == "status":
            self._say(status, why, retry_after)

    def do_GET(self) -> None:
        """The browsers' screens."""
        if self.path == "/":
            self._say(200, _page(self.server.service), kind="text/html")
        else:
            self._say(404, "the page is /")

    def _say(self, status: int, text: str, retry_after: str = "", kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if status == 201:
            self.send_header("Location", f"{self.server.service.url}/message/{len(self.server.service.pushed)}")
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """To the log like all else, not to stderr."""
        _log.debug("push service: %s", format % args)


_STYLE = """
body{margin:0;background:#20242b;color:#fff;font:17px/1.6 "Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{max-width:390px;min-height:100vh;margin:0 auto;padding:12px;box-sizing:border-box}
article{background:#f4f5f7;color:#1c1b1f;border-radius:14px;padding:10px 14px;margin:0 0 10px}
h1,h2{font-size:17px;margin:0}p{margin:4px 0;white-space:pre-line;overflow-wrap:anywhere}
a{display:inline-block;min-height:44px;line-height:44px;padding:0 14px;margin:0 8px 0 0;color:#1f5fa8}
"""


def _page(service: PushService) -> str:
    with service._changed:
        browsers = [(one.name, list(one.shown.values())) for one in service._browsers.values()]
    parts = []
    for name, messages in browsers:
        parts.append(f"<h1>{html.escape(name)}（模擬のブラウザ）</h1>")
        for message in reversed(messages):
            url = str(message.get("answer_url") or "")
            labels = [str(button.get("label")) for button in message.get("buttons", [])] if url.startswith("http") else []
            links = "".join(f'<a href="{html.escape(url)}">{html.escape(label)}</a>' for label in labels)
            title, body = (html.escape(str(message.get(part) or "")) for part in ("title", "body"))
            parts.append(f"<article><h2>{title}</h2><p>{body}</p>{links}</article>")
    return (
        '<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>プッシュ通知（模擬）</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )
