"""The gate before all routes: who has no token and no session gets no further; every answer leaves with the security headers.

A cookie goes with whatever another site has a browser ask. So who has only a cookie changes something from our own pages only.

Plain ASGI, so that a body is not read, and a stream not buffered, for anybody who may not come in.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.accounts.desk import Accounts
from gateway.accounts.limits import Limits, asker
from gateway.accounts.sessions import Entered
from gateway.api import web
from gateway.api.built import PAGES
from gateway.api.cookie import cookie_name
from gateway.api.problems import HSTS, SECURITY_HEADERS, problem
from gateway.api.tokens import Tokens
from gateway.policy import Actor

MAX_BODY_BYTES = 64 * 1024
MEDIA = "/api/v1/media/"
"""Where longer bodies go in, piece by piece to the disk; everything else is read into memory."""
LONGER = {"/hooks/line": 1024 * 1024}
"""Where many events may come in one body."""

PHOTOS = "/v/"
PHOTO_BYTES = 16 * 1024 * 1024
"""Below `PHOTOS` a form may bring one photo, which goes to a file while it is read."""

OPEN = frozenset({"/", "/f", "/open", "/page.js", "/page.css", "/icon.svg", "/api/v1/health", "/hooks/line"}) | {
    "/push.js",
    "/push-worker.js",
    "/api/v1/push/key",
    "/api/v1/push/subscriptions",
    "/api/v1/push/unsubscribe",
    *(path for page in PAGES for path in (page, f"{page}/")),
    web.WORKER,
    web.LICENCES,
}
"""What needs no token: the page's own files, which hold no data, whether the gateway is well, and what is signed or brings a
signed link's token in its body."""

OPEN_BELOW = (
    "/a/",
    "/v/",  # the QR at a trap
    "/join/",
    "/push/",
    "/m/",  # the family's page
    "/s/",  # the page of who was asked to search
    "/c/",  # whether a watch goes on
    "/f/",  # a tag's label
    "/hooks/twilio/",
    web.ASSETS,
    "/open/",  # open data: not a proof, but everybody's
    "/tiles/",  # the map, likewise
)
"""Paths whose rest is itself the proof that they may be opened (gateway.notify.links)."""

LOGIN = "/login"
COMING_IN = frozenset({LOGIN, "/account", "/passkey.js"})
COMING_IN_BELOW = ("/login/", "/account/", "/api/v1/login/")
"""Where people come in, and where they see to their account by forms: who has no session is led to the first by the others."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_KNOWN = 1000
"""Tokens that opened, remembered as hashes with the address they came from."""
LOOK_AGAIN_S = 2.0
"""An answer that goes on and on is looked after so often: who is out hears no more."""


def needs_no_token(path: str) -> bool:
    """Whether anybody may open this path."""
    return path in OPEN or path.startswith(OPEN_BELOW) or _is_coming_in(path)


def _is_coming_in(path: str) -> bool:
    return path in COMING_IN or path.startswith(COMING_IN_BELOW)


class Gate:
    """Sets `request.state.actor` for what it lets through, and `request.state.entered` for who came by a session."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        is_open: Callable[[str], bool] = needs_no_token,
        accounts: Accounts | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`is_open`: which paths need no token. `accounts`: whose cookies open what tokens do; None: nobody's.

        `limits`: how many wrong tokens may come from one address; None: any number.
        """
        self._limits = limits
        self._known: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._app, self._tokens, self._is_open, self._accounts = app, tokens, is_open, accounts
        self._headers = {**SECURITY_HEADERS, **(HSTS if accounts is not None and accounts.https else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return  # no websockets here, and lifespan does not come this way

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)  # a page with forms and a style inside says its own policy
                if scope["path"] not in OPEN:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers, path = Headers(scope=scope), scope["path"]
        is_open, entered = self._is_open(path), None
        if not is_open or _is_coming_in(path):
            if "Authorization" not in headers:
                # In a thread: a session is looked up in the database, and so may a token be.
                entered = await run_in_threadpool(self._entered, scope)
            actor = entered.actor if entered is not None else None
            scheme, _, token = headers.get("Authorization", "").partition(" ")
            if actor is None and not is_open:
                found = await self._by_token(token.strip(), scope) if scheme.lower() == "bearer" else None
                if isinstance(found, int):
                    await problem(429, "why.tokens_wrong", {"Retry-After": str(found)})(scope, receive, send_with_headers)
                    return
                actor = found
            if actor is None and not is_open:
                await self._come_in(scope, headers)(scope, receive, send_with_headers)
                return
            scope.setdefault("state", {}).update(actor=actor, entered=entered)
            by_cookie = entered is not None or _is_coming_in(path)
            if by_cookie and scope["method"] not in SAFE and not self._is_own(headers):
                await problem(403, "why.foreign")(scope, receive, send_with_headers)
                return
        if not path.startswith(MEDIA) and (fault := _body_fault(headers, _most(path))):
            await fault(scope, receive, send_with_headers)
            return
        if entered is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await self._while_in(entered, scope, receive, send_with_headers)

    async def _while_in(self, entered: Entered, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers somebody who came by a session, as long as it goes on: a stream does not outlive it."""
        looked_s, is_out = time.monotonic(), False

        async def send_or_end(message: Message) -> None:
            nonlocal looked_s, is_out
            more = message["type"] == "http.response.body" and message.get("more_body", False)
            if more and time.monotonic() - looked_s >= LOOK_AGAIN_S:
                looked_s = time.monotonic()
                is_out = self._accounts is None or not await run_in_threadpool(self._accounts.still, entered)
                if is_out:
                    raise OSError("the session is over")  # as when the other side has gone away
            await send(message)

        try:
            await self._app(scope, receive, send_or_end)
        except Exception:
            if not is_out:
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _by_token(self, token: str, scope: Scope) -> Actor | int | None:
        """Who has it; None: nobody; a number: too many wrong ones came from there, so for so many seconds no other is tried.

        A token that opened from there goes on: of machines behind one address one with an old token must not shut out the others.
        """
        if self._limits is None:
            return await run_in_threadpool(self._tokens.actor, token)
        client = scope.get("client")
        who = asker(client[0] if client else None)
        known = (who, hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest())
        if known not in self._known and (wait_s := self._limits.closed_s("token", who)):
            return wait_s
        actor = await run_in_threadpool(self._tokens.actor, token)
        if actor is None:
            self._known.pop(known, None)
            self._limits.wait_s("token", who)
            return None
        self._known[known] = None
        self._known.move_to_end(known)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return actor

    def _entered(self, scope: Scope) -> Entered | None:
        if self._accounts is None:
            return None
        cookie = HTTPConnection(scope).cookies.get(cookie_name(self._accounts.https))
        return self._accounts.enter(cookie) if cookie else None

    def _come_in(self, scope: Scope, headers: Headers) -> Response:
        """401; who opens a page with a browser is led to where people come in."""
        if self._accounts is not None and _opens_a_page(scope, headers):
            return RedirectResponse(f"{LOGIN}?next={quote(scope['path'], safe='/')}", 303)
        has_token = "Authorization" in headers
        return problem(401, "why.token_unknown" if has_token else "why.come_in", {"WWW-Authenticate": "Bearer"})

    def _is_own(self, headers: Headers) -> bool:
        """Whether a page of ours asks, as the browser says it: by Sec-Fetch-Site; browsers of before 2023 say Origin only."""
        if "Sec-Fetch-Site" in headers:
            return headers["Sec-Fetch-Site"] == "same-origin"
        return self._accounts is not None and headers.get("Origin") == self._accounts.site.origin


def _opens_a_page(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks for something to be shown to a person, who can come in first."""
    is_page = scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/api/")
    return is_page and "Authorization" not in headers and "text/html" in headers.get("Accept", "")


def is_json(path: str) -> bool:
    """Whether bodies there are JSON: everywhere in the API but where pictures come in."""
    return path.startswith("/api/v1/") and not path.startswith(MEDIA)


def is_form(path: str) -> bool:
    """Whether forms that come there have fields only: on every page, but where a photo comes along."""
    return not path.startswith("/api/v1/") and not _brings_photo(path)


def _brings_photo(path: str) -> bool:
    return path.startswith(PHOTOS) and path.endswith("/photos")


def _most(path: str) -> int:
    """How long a body may be."""
    return PHOTO_BYTES if _brings_photo(path) else LONGER.get(path, MAX_BODY_BYTES)


def _body_fault(headers: Headers, most_bytes: int) -> Response | None:
    # What follows may be its body or another request: a proxy before us could see the one, we the other. Nothing of it is asked.
    close = {"Connection": "close"}
    if "Transfer-Encoding" in headers:
        return problem(411, "why.length", close)
    length = headers.get("Content-Length", "0")
    if not length.isdecimal() or int(length[:20]) > most_bytes:
        return problem(413, "why.too_long", close, facts={"n": most_bytes})
    return None
