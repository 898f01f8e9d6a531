"""The phones of a town's people, with the providers behind them: LINE, a mail server, Twilio; each on loopback, each strict.

People are told apart by their names; their addresses are invented here. What came is read as they would see it.
"""

import html
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import httpx
from sqlalchemy import Connection, update

from gateway.contacts import people, proof
from gateway.contacts.config import QuietConfig
from gateway.state.tables import addresses, contacts
from simulators.line import LinePlatform, Webhook, user_id
from simulators.line_page import NEWEST
from simulators.mail_server import MailServer
from simulators.twilio import Call, TwilioService, read_twiml

ACCOUNT, CALLER = "AC" + "0" * 32, "+815000000000"
TOKEN = "auth-token-of-the-simulator"  # noqa: S105 - of an account that does not exist
CHANNELS = ("line", "mail", "sms", "voice")
_LINK = re.compile(r"https?://\S+")
_PLAIN = "text/plain; charset=utf-8"
_MAILBOX = re.compile(r"/mail/([^/]+)/(full|room)")


class Someone(NamedTuple):
    """One person of the town."""

    name: str
    groups: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("line",)
    """In the order in which they are tried: line, mail, sms, voice."""
    language: str = "ja"
    quiet: tuple[Mapping[str, Any], ...] | None = None
    """Quiet hours, as QuietConfig takes them; None: those of their groups."""
    deputy: str | None = None
    joined: bool = True
    """Whether they stand in the book with proved addresses; else they are still to come."""


class Got(NamedTuple):
    """One message as its person has it."""

    to: str
    channel: str
    title: str
    body: str


class DeskPage(NamedTuple):
    """What the desk answers."""

    status: int
    text: str
    content_type: str = "text/html; charset=utf-8"
    location: str | None = None
    """Where to go instead, with 303."""


class Phones:
    """A context manager: everything listens while it is open. All methods may be called from any thread."""

    def __init__(
        self,
        everybody: Sequence[Someone],
        *,
        now_us: Callable[[], int],
        public_url: str,
        webhook: Webhook = None,
        gateway_url: str | None = None,
        client: httpx.Client | None = None,
        limit: int | None = None,
        desk_port: int | None = None,
    ) -> None:
        """`webhook` and `gateway_url` or `client`: the way back to the gateway. `limit`: messages that LINE takes this month.

        `desk_port`: where a page shows all of them side by side; None: nowhere.
        """
        self._desk_port = desk_port
        self.guide: Callable[[str, str], DeskPage | None] | None = None
        """What the desk answers besides its phones, by method and path; None: nothing."""
        self.everybody = tuple(everybody)
        self._number = {one.name: number for number, one in enumerate(self.everybody, 1)}
        self.line = LinePlatform(webhook, limit=limit, now_us=now_us)
        self.mail = MailServer(now_us=now_us)
        self.twilio = TwilioService(
            ACCOUNT, TOKEN, [CALLER], public_url=public_url, gateway_url=gateway_url, client=client, now_us=now_us
        )  # fmt: skip
        self._seen: dict[tuple[str, str], int] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Phones":
        for one in (self.line, self.mail, self.twilio):
            self._open.enter_context(one)
        if self._desk_port is not None:
            self._desk = _Desk(self, self._desk_port)
            thread = threading.Thread(target=self._desk.serve_forever, args=(0.05,), name="sim-desk", daemon=True)
            thread.start()
            self._open.callback(self._desk.server_close)
            self._open.callback(self._desk.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def address(self, name: str, channel: str) -> str:
        """Where this person is reached over line, mail, sms or voice."""
        if channel == "line":
            return user_id(name)
        number = self._number[name]
        return f"person-{number}@example.jp" if channel == "mail" else f"+8150{number:08}"

    def channel_settings(self, folder: Path) -> dict[str, Any]:
        """`[channel]` of a gateway.toml that leads here; secrets are written into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, secret in (("line-secret", self.line.secret), ("line-token", self.line.token), ("twilio-token", TOKEN)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(secret, encoding="ascii")
        used = {channel for one in self.everybody for channel in one.channels}
        settings: dict[str, Any] = {}
        if "line" in used:
            settings["line"] = {"channel_secret_file": str(folder / "line-secret"), "url": self.line.url,
                                "access_token_file": str(folder / "line-token"), "timeout_s": 2.0}  # fmt: skip
        if "mail" in used:
            settings["mail"] = {"host": self.mail.host, "port": self.mail.port, "tls": "none", "from": "satomori@example.jp",
                                "timeout_s": 2.0}  # fmt: skip
        if used & {"sms", "voice"}:
            settings["twilio"] = {"account_sid": ACCOUNT, "auth_token_file": str(folder / "twilio-token"), "from": CALLER,
                                  "url": self.twilio.url, "timeout_s": 2.0}  # fmt: skip
        return settings

    def enrol(self, connection: Connection, now_us: int) -> None:
        """Puts everybody who has joined into the book, each address proved just now. They follow the LINE account."""
        ids: dict[str, str] = {}
        for number, one in enumerate(self.everybody):
            if not one.joined:
                continue
            language: Any = one.language
            ids[one.name] = id_ = people.add(connection, one.name, language, one.groups, "simulator", now_us + number)
            if one.quiet is not None:
                people.change(connection, id_, {"quiet": [QuietConfig.model_validate(hours) for hours in one.quiet]})
            for channel in one.channels:
                way: Any = channel
                address = people.add_address(connection, id_, way, self.address(one.name, channel), now_us)
                proof.heard(connection, address, now_us)
                # As after a test that was answered just now: nobody is tested in the next days.
                connection.execute(update(addresses).where(addresses.c.id == address).values(tested_us=now_us))
            if "line" in one.channels:
                self.line.follow(one.name)
        for one in self.everybody:
            if one.deputy is not None:
                connection.execute(update(contacts).where(contacts.c.id == ids[one.name]).values(deputy=ids[one.deputy]))

    # What they have

    def news(self) -> Iterator[Got]:
        """What came since the last look, person by person."""
        for one in self.everybody:
            for channel in CHANNELS:
                all_of_it = list(self._got(one.name, channel))
                before = self._seen.get((one.name, channel), 0)
                self._seen[one.name, channel] = len(all_of_it)
                yield from all_of_it[before:]

    def _got(self, name: str, channel: str) -> Iterator[Got]:
        if channel == "line":
            for shown in self.line.phone(name).messages:
                yield Got(name, channel, shown.title, shown.body)
        elif channel == "mail":
            for mail in self.mail.seen(self.address(name, channel)):
                yield Got(name, channel, mail.subject, without_links(mail.text()))
        elif channel == "sms":
            for text in self.twilio.inbox(self.address(name, channel)):
                yield Got(name, channel, "", without_links(text))
        else:
            for call in self.twilio.rings(self.address(name, channel)):
                yield Got(name, channel, "", spoken(call))

    def count(self) -> dict[str, int]:
        """How many messages people have, by channel; those over which nothing came are left out."""
        found = {channel: sum(1 for one in self.everybody for _ in self._got(one.name, channel)) for channel in CHANNELS}
        return {channel: number for channel, number in found.items() if number}

    def call(self, name: str) -> Call:
        """The newest call to this person that asks something and is not over. LookupError when there is none."""
        for call in reversed(self.twilio.rings(self.address(name, "voice"))):
            if call.status in ("ringing", "in-progress") and "<Gather" in call.twiml:
                return call
        raise LookupError(f"no telephone of {name} rings with a question")

    def link(self, name: str) -> str:
        """The newest link by which this person can answer, in a mail or a short message. LookupError when there is none."""
        texts = [one.text() for one in self.mail.seen(self.address(name, "mail"))]
        texts += self.twilio.inbox(self.address(name, "sms"))
        for text in reversed(texts):
            for found in _LINK.findall(text):
                if "/a/" in found:
                    return str(found)
        raise LookupError(f"{name} has no link to answer by")

    # On the desk

    @property
    def desk_url(self) -> str:
        """The desk: what its guide shows."""
        return f"http://127.0.0.1:{self._desk.server_port}/"

    @property
    def url(self) -> str:
        """The page with all of them side by side."""
        return f"{self.desk_url}phones"

    def page(self, name: str, channel: str) -> str:
        """The address of the page that shows one of them."""
        if channel == "line":
            return f"{self.line.url}/phones/{user_id(name)}#{NEWEST}"
        if channel == "mail":
            return f"http://127.0.0.1:{self._desk.server_port}/mail/{self.address(name, channel)}"
        return f"{self.twilio.url}/phones/{self.address(name, channel)}"

    def join_all(self, desk: Callable[[str, Mapping[str, Any]], Any], timeout_s: float = 30) -> None:
        """Everybody joins as in the field: over LINE by a code, otherwise entered by the desk; each answers the test.

        `desk(path, body)`: a POST to the gateway's API as an operator; its JSON. TimeoutError when a test does not come.
        """
        todo: dict[tuple[str, str], Callable[[], bool]] = {}
        for one in self.everybody:
            others = [channel for channel in one.channels if channel != "line"]
            if "line" in one.channels:
                self.line.follow(one.name)
                for group in one.groups:
                    self.line.write(one.name, f"{desk('/invitations', {'group': group})['code']} {one.name}")
                todo[one.name, "line"] = lambda name=one.name: self._proves_line(name)  # type: ignore[misc]
            if others:
                ways = [{"channel": channel, "address": self.address(one.name, channel)} for channel in others]
                groups = [] if "line" in one.channels else list(one.groups)
                desk("/contacts", {"name": one.name, "language": one.language, "groups": groups, "addresses": ways})
            for channel in others:
                proves = self._proves_by_key if channel == "voice" else self._proves_by_link
                todo[one.name, channel] = lambda name=one.name, proves=proves: proves(name)  # type: ignore[misc]
        deadline = time.monotonic() + timeout_s
        while todo:
            todo = {who: proves for who, proves in todo.items() if not proves()}
            if todo and time.monotonic() > deadline:
                raise TimeoutError(f"no test came to {', '.join(f'{name} ({channel})' for name, channel in todo)}")
            time.sleep(0.05)

    def _proves_line(self, name: str) -> bool:
        for shown in self.line.phone(name).messages:
            for action in shown.actions:
                if action.type == "postback":
                    self.line.press(name, action)
                    return True
        return False

    def _proves_by_link(self, name: str) -> bool:
        try:
            link = self.link(name)
        except LookupError:
            return False
        return httpx.post(link, data={"answer": "seen"}, timeout=10, trust_env=False).status_code == 200

    def _proves_by_key(self, name: str) -> bool:
        try:
            call = self.call(name)
        except LookupError:
            return False
        self.twilio.take(call)
        self.twilio.press(call, "1")
        return True


def without_links(text: str) -> str:
    """A text as far as its first link: links are another each time."""
    return re.split(r"\n*[^\n]*https?://", text.replace("\r\n", "\n"), maxsplit=1)[0].strip()


def spoken(call: Call) -> str:
    """What a call says to who takes it, before it says it again."""
    return next((say.text or "" for verb in read_twiml(call.twiml) for say in verb.iter("Say")), "")


class _Desk(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, phones: Phones, port: int) -> None:
        self.phones = phones
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while it is answered is no fault."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Desk

    def do_GET(self) -> None:
        """/phones: all of them; /mail/<address>: one mailbox; all else is the guide's."""
        if not self._is_asked_here():
            self._say(DeskPage(403, "this desk is at 127.0.0.1 only", _PLAIN))
        elif self.path == "/phones":
            self._say(DeskPage(200, _side_by_side(self.server.phones)))
        elif self.path.startswith("/mail/"):
            self._say(DeskPage(200, self.server.phones.mail.page(unquote(self.path.removeprefix("/mail/")))))
        else:
            self._guided("GET")

    def do_POST(self) -> None:
        """What is pressed on a page of this desk, and on no other that stands open in the same browser."""
        origin = self.headers.get("Origin")
        own = (
            self.headers.get("Sec-Fetch-Site") == "same-origin"
            if origin in (None, "null")  # "null" is what a form says on a page whose address is told nobody, as ours are
            else origin == f"http://{self.headers.get('Host')}"
        )
        if not self._is_asked_here() or not own:
            self._say(DeskPage(403, "press it on the desk's own page", _PLAIN))
        elif box := _MAILBOX.fullmatch(unquote(self.path)):
            self.server.phones.mail.fill(box[1], full=box[2] == "full")
            self._say(DeskPage(303, "", location=f"/mail/{quote(box[1])}"))
        else:
            self._guided("POST")

    def _is_asked_here(self) -> bool:
        """Not under a name that somebody else's page gave to this machine."""
        return self.headers.get("Host") in {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}

    def _guided(self, method: str) -> None:
        guide = self.server.phones.guide
        found = guide(method, self.path) if guide is not None else None
        self._say(found or DeskPage(404, "the pages are /phones and /mail/..., and the guide's where there is one", _PLAIN))

    def _say(self, page: DeskPage) -> None:
        body = page.text.encode()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        if page.status != 204:
            self.send_header("Content-Length", str(len(body)))
        if page.location is not None:
            self.send_header("Location", page.location)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing: a page that looks each second is no news."""


_STYLE = """
body{margin:0;background:#cfd5dc;font:16px/1.5 "Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{display:flex;flex-wrap:wrap;gap:20px;padding:20px;justify-content:center}
figure{margin:0}figcaption{padding:0 6px 6px;font-weight:bold}small{font-weight:normal;color:#444}
iframe{width:320px;height:600px;border:8px solid #1c1b1f;border-radius:26px;background:#fff}
"""
_WAY = {"line": "LINE", "mail": "メール", "sms": "SMS", "voice": "電話"}


def _side_by_side(phones: Phones) -> str:
    shown = "".join(
        f"<figure><figcaption>{html.escape(one.name)} <small>{_WAY[channel]}・{html.escape('、'.join(one.groups))}</small>"
        f'</figcaption><iframe title="{html.escape(one.name)}" src="{html.escape(phones.page(one.name, channel))}"></iframe>'
        "</figure>"
        for one in phones.everybody
        for channel in one.channels
    )
    return (
        '<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>机の上の電話（模擬）</title><style>{_STYLE}</style></head><body><main>{shown}</main></body></html>"
    )
