"""The gate before all routes: who has no token gets no further; every answer leaves with the security headers.

Plain ASGI, so that a body is not read, and a stream not buffered, for anybody who may not come in.
"""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import SECURITY_HEADERS, problem
from gateway.api.tokens import Tokens

MAX_BODY_BYTES = 64 * 1024
MEDIA = "/api/v1/media/"
"""Where longer bodies go in, piece by piece to the disk; everything else is read into memory."""
LONGER = {"/hooks/line": 1024 * 1024}
"""Where many events may come in one body."""

PHOTOS = "/v/"
PHOTO_BYTES = 16 * 1024 * 1024
"""Below `PHOTOS` a form may bring one photo, which goes to a file while it is read."""

OPEN = frozenset({"/", "/page.js", "/page.css", "/icon.svg", "/api/v1/health", "/hooks/line"}) | {
    "/push.js",
    "/push-worker.js",
    "/api/v1/push/key",
    "/api/v1/push/subscriptions",
    "/api/v1/push/unsubscribe",
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
    "/hooks/twilio/",
)
"""Paths whose rest is itself the proof that they may be opened (gateway.notify.links)."""


def needs_no_token(path: str) -> bool:
    """Whether anybody may open this path."""
    return path in OPEN or path.startswith(OPEN_BELOW)


class Gate:
    """Sets `request.state.actor` for what it lets through."""

    def __init__(self, app: ASGIApp, tokens: Tokens, is_open: Callable[[str], bool] = needs_no_token) -> None:
        """`is_open`: which paths need no token."""
        self._app, self._tokens, self._is_open = app, tokens, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return  # no websockets here, and lifespan does not come this way

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)  # a page with forms and a style inside says its own policy
                if scope["path"] not in OPEN:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if not self._is_open(scope["path"]):
            scheme, _, token = headers.get("Authorization", "").partition(" ")
            # In a thread: a token may be looked up in the database.
            actor = await run_in_threadpool(self._tokens.actor, token.strip()) if scheme.lower() == "bearer" else None
            if actor is None:
                said = "This token is not known." if token else "Say `Authorization: Bearer <token>`."
                await problem(401, said, {"WWW-Authenticate": "Bearer"})(scope, receive, send_with_headers)
                return
            scope.setdefault("state", {})["actor"] = actor
        if not scope["path"].startswith(MEDIA) and (fault := _body_fault(headers, _most(scope["path"]))):
            await problem(*fault)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _most(path: str) -> int:
    """How long a body may be."""
    return PHOTO_BYTES if path.startswith(PHOTOS) and path.endswith("/photos") else LONGER.get(path, MAX_BODY_BYTES)


def _body_fault(headers: Headers, most_bytes: int) -> tuple[int, str] | None:
    if "Transfer-Encoding" in headers:
        return 411, "Say how long the body is, in Content-Length."
    length = headers.get("Content-Length", "0")
    if not length.isdecimal() or int(length[:20]) > most_bytes:
        return 413, f"At most {most_bytes} bytes."
    return None
