"""The page that subscribes a browser: GET /push/{token}, its script, its service worker, its manifest (an iPhone wants one).

No login: the token is a signed link's, given to who proved another way to reach them, or who has just joined. What the browser
then says goes to `gateway.api.push`.
"""

import importlib.resources
import json
from collections.abc import Callable
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Path, Response

from gateway.api.push import SUBSCRIPTIONS, PushDoor
from gateway.contacts.people import NotDone, require
from gateway.notify.links import Expired, Forged
from gateway.notify.message import Language
from gateway.pages import HEADERS, language_of, render
from gateway.words import LANGUAGES, text

SCRIPTS = {"/push.js": "push.js", "/push-worker.js": "push-worker.js"}
"""Files without data, which need no token."""
_POLICY = HEADERS["Content-Security-Policy"] + "; script-src 'self'; worker-src 'self'; connect-src 'self'; manifest-src 'self'"

TokenPath = Annotated[str, Path(max_length=100)]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]


def routes(door: PushDoor, zone: ZoneInfo, phone: str | None = None) -> APIRouter:
    """GET and HEAD of /push/{token}, /push/{token}/manifest, /push.js, /push-worker.js. `phone`: the office's."""
    router = APIRouter(include_in_schema=False)
    for path, name in SCRIPTS.items():
        router.add_api_route(path, _serving(name), methods=["GET", "HEAD"])

    @router.api_route("/push/{token}", methods=["GET", "HEAD"])
    def page(token: TokenPath, accept_language: Accepts = None) -> Response:
        """The button. Looking at it subscribes nothing."""
        contact = door.who(token, door.now_us())
        if isinstance(contact, Expired | Forged):
            about, status = ("screen.expired", 410) if isinstance(contact, Expired) else ("screen.forged", 404)
            return _problem(about, status, language_of(accept_language), zone, phone)
        try:
            with door.state.read() as connection:
                reads = str(require(connection, contact).language)
        except NotDone:
            return _problem("screen.forged", 404, language_of(accept_language), zone, phone)
        language: Language = next((one for one in LANGUAGES if one == reads), "ja")
        shown = render(
            "push.html",
            language,
            zone,
            key=door.public_key,
            token=token,
            door=f"/api/v1{SUBSCRIPTIONS}",
            manifest=f"/push/{token}/manifest",
        )
        shown.headers["Content-Security-Policy"] = _POLICY
        return shown

    @router.get("/push/{token}/manifest")
    def manifest(token: TokenPath) -> Response:
        """What makes the page an icon of the home screen, without which an iPhone takes no messages."""
        icon = {"src": "/icon.svg", "sizes": "any", "type": "image/svg+xml"}
        name = text("ja", "screen.name")
        said = {"name": name, "short_name": name, "display": "standalone", "start_url": f"/push/{token}", "icons": [icon]}
        return Response(json.dumps(said), headers={"Cache-Control": "no-store"}, media_type="application/manifest+json")

    return router


def _problem(about: str, status: int, language: Language, zone: ZoneInfo, phone: str | None) -> Response:
    title, body = text(language, f"{about}.title"), text(language, f"{about}.body")
    return render("problem.html", language, zone, status=status, title=title, body=body, phone=phone)


def _serving(name: str) -> Callable[[], Response]:
    content = (importlib.resources.files("gateway.pages") / name).read_bytes()
    headers = {"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-cache"}
    return lambda: Response(content, headers=headers)
