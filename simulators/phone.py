"""The far end of a webhook: a person's phone on loopback, which shows what that person would see.

It takes POSTed notifications in JSON ({id, alert, kind, severity, title, body, late, event_time, sent_at, ...}), keeps
them in order with the time they came, and shows them on GET / as a small Japanese page. It can be told to misbehave in
every way a server on the internet does. It never guards against repeats: to count them is what it is for.
"""

import html
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from simulators.door import Door, DoorServer

MAX_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as it came in, whatever was answered."""

    at_us: int
    """When its last byte was here, UTC µs."""
    message: dict[str, Any]
    """The JSON object."""
    key: str | None
    """The Idempotency-Key header."""
    answer: int | None
    """The status it was answered with; None when the answer was dropped or garbage."""

    @property
    def id(self) -> str:
        """What it is: the notification's own id, or else the key, or else nothing ("")."""
        return str(self.message.get("id") or self.key or "")

    @property
    def shown(self) -> bool:
        """Whether a person saw it: also when the sender was never told so, but not when it was refused."""
        return self.answer is None or self.answer < 400


class Phone:
    """A context manager: on a free loopback port while open. `now_us` is the clock of `Received.at_us`.

    All methods may be called from any thread. Behaviours last until the next one is chosen; `answer(200)` is the first.
    """

    def __init__(self, port: int = 0, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._now_us = now_us
        self._changed = threading.Condition()
        self._received: list[Received] = []
        self._status, self._reply, self._delay_s = 200, "status", 0.0
        self._closing = threading.Event()
        self._door = Door(lambda port: _Server(self, port), port, "sim-phone")

    def __enter__(self) -> "Phone":
        self._closing.clear()
        self._door.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._door.shut()

    @property
    def url(self) -> str:
        """Where to POST, and the page to look at. The port stays the same over `refuse`."""
        return f"http://127.0.0.1:{self._door.port}/"

    # --- behaviours ---------------------------------------------------------------------------------

    def answer(self, status: int) -> None:
        """Answers with this status: 2xx takes the message, 4xx and 5xx do not show it."""
        self._behave("status", status)

    def slow(self, seconds: float) -> None:
        """Takes the message, but answers 200 only after so long."""
        self._behave("status", 200, seconds)

    def drop(self) -> None:
        """Takes the message, then closes the connection without a word."""
        self._behave("drop")

    def garbage(self) -> None:
        """Takes the message, then answers what is not HTTP."""
        self._behave("garbage")

    def refuse(self) -> None:
        """Nobody listens on the port any more: switched off, out of reach."""
        self._door.shut()

    def _behave(self, reply: str, status: int = 200, delay_s: float = 0.0) -> None:
        with self._changed:
            self._reply, self._status, self._delay_s = reply, status, delay_s
        self._door.open()

    # --- what it got --------------------------------------------------------------------------------

    @property
    def received(self) -> tuple[Received, ...]:
        """Every POST that could be read, in order."""
        with self._changed:
            return tuple(self._received)

    def seen(self) -> list[Received]:
        """What the person saw: each notification once, when it came first, in order."""
        first: dict[str, Received] = {}
        for number, one in enumerate(self.received):
            if one.shown:
                first.setdefault(one.id or f"without an id {number}", one)
        return list(first.values())

    def times(self) -> dict[str, int]:
        """How often each notification was shown, by its id. Anything but 1 woke somebody twice."""
        count: dict[str, int] = {}
        for one in self.received:
            if one.shown and one.id:
                count[one.id] = count.get(one.id, 0) + 1
        return count

    def wait_for(self, condition: Callable[[tuple[Received, ...]], object], timeout_s: float = 10) -> tuple[Received, ...]:
        """Waits until `condition(received)` holds; TimeoutError with what did come when it does not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(tuple(self._received)), timeout_s):
                came = [(one.id, one.answer) for one in self._received]
                raise TimeoutError(f"the phone at {self.url} waited {timeout_s:g} s in vain; (id, answer) came: {came}")
            return tuple(self._received)

    # --- the server ---------------------------------------------------------------------------------

    def _take(self, message: dict[str, Any], key: str | None) -> tuple[str, int]:
        with self._changed:
            reply, status, delay_s = self._reply, self._status, self._delay_s
            self._received.append(Received(self._now_us(), message, key, status if reply == "status" else None))
            self._changed.notify_all()
        if delay_s:
            self._closing.wait(delay_s)
        return reply, status


class _Server(DoorServer):
    def __init__(self, phone: Phone, port: int) -> None:
        self.phone = phone
        super().__init__(port, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30

    def do_POST(self) -> None:
        """One notification."""
        length = self.headers.get("Content-Length", "")
        self.close_connection = True  # what was not read of a bad request must not be taken for the next one
        if not length.isascii() or not length.isdigit():
            self._say(411, "text/plain", "a Content-Length is needed")
            return
        if len(length) > 9 or int(length) > MAX_BYTES:
            self._say(413, "text/plain", f"at most {MAX_BYTES} bytes")
            return
        try:
            message = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            self._say(400, "text/plain", f"the body is no JSON: {error}")
            return
        if not isinstance(message, dict):
            self._say(400, "text/plain", "the body is no JSON object")
            return
        reply, status = self.server.phone._take(message, self.headers.get("Idempotency-Key"))
        if reply == "garbage":
            self.wfile.write(b"\x00\xff this is not HTTP \x80\r\n\r\n")
        elif reply == "status":
            self._say(status, "application/json", "{}")

    def do_GET(self) -> None:
        """The page."""
        if self.path == "/":
            self._say(200, "text/html", _page(self.server.phone))
        else:
            self._say(404, "text/plain", "the page is /")

    def _say(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """To the log like all else, not to stderr."""
        _log.debug("phone: %s", format % args)


def clock_words(t_us: int) -> str:
    """A time as people read it: 6月3日 午前6時12分 (Japan's time)."""
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t_us) + timedelta(hours=9)
    half = "午前" if local.hour < 12 else "午後"
    return f"{local.month}月{local.day}日 {half}{local.hour % 12}時{local.minute}分"


_SEVERITY = {"critical": ("緊急", "#b3261e"), "warning": ("注意", "#8a5a00"), "info": ("お知らせ", "#1f5fa8")}

_STYLE = """
body{margin:0;background:#d9dde3;color:#1c1b1f;font:17px/1.6 "Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{max-width:390px;min-height:100vh;margin:0 auto;background:#f4f5f7;padding:0 12px 24px;box-sizing:border-box}
h1{font-size:17px;margin:0;padding:14px 4px}
article{background:#fff;border-left:6px solid var(--c);border-radius:10px;padding:10px 14px;margin:0 0 10px}
h2{font-size:17px;margin:0}p{margin:4px 0 0;white-space:pre-line;overflow-wrap:anywhere}
small{color:#49454f;font-size:14px}b{color:var(--c);font-size:14px}
"""


def _page(phone: Phone) -> str:
    times = phone.times()
    cards = []
    for one in reversed(phone.seen()):
        word, colour = _SEVERITY.get(str(one.message.get("severity")), _SEVERITY["info"])
        notes = [word]
        if one.message.get("late"):
            notes.append("遅れて届きました")
        if times.get(one.id, 1) > 1:
            notes.append(f"同じ知らせが{times[one.id]}回届きました")
        title, body = (html.escape(str(one.message.get(part) or "")) for part in ("title", "body"))
        cards.append(
            f'<article style="--c:{colour}"><b>{"・".join(notes)}</b><h2>{title}</h2><p>{body}</p>'
            f"<small>{clock_words(one.at_us)} に届きました</small></article>"
        )
    return (
        '<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>電話（模擬）</title><style>{_STYLE}</style></head><body><main><h1>お知らせ（模擬の電話）</h1>"
        f"{''.join(cards) or '<p>まだ何も届いていません。</p>'}</main></body></html>"
    )
