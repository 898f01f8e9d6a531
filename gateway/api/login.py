"""Coming in: the page /login, one-time links, and what a browser with a passkey asks. Open to everybody, and so limited.

Every refusal is the same one, whoever is asked for and whatever is wrong: nobody learns here who has an account.
"""

import importlib.resources
import math
import re
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.accounts.desk import Accounts, Opened
from gateway.accounts.limits import Try, asker
from gateway.api.cookie import set_cookie
from gateway.api.deps import Deps
from gateway.api.problems import NotHere, Problem, reads
from gateway.notify.message import Language
from gateway.pages import HEADERS, render
from gateway.policy import Actor, has
from gateway.words import text

COMING_IN = {"x-open": "who comes in has no session yet; limited, and every refusal is the same"}
POLICY = HEADERS["Content-Security-Policy"] + "; script-src 'self'; connect-src 'self'"
OWN_HEADERS = {
    "Content-Security-Policy": POLICY,
    # So that older browsers say Origin with our forms, which is how the gate knows them.
    "Referrer-Policy": "same-origin",
}
_SCRIPT = (importlib.resources.files("gateway.pages") / "passkey.js").read_bytes()


def agent_of(request: Request) -> str:
    """What the browser calls itself; as long as it likes."""
    return request.headers.get("User-Agent", "")[:1000]


Agent = Annotated[str, Depends(agent_of)]
TokenPath = Annotated[str, Path(max_length=100)]
_OWN_PATH = re.compile(r"/?|(?:/[A-Za-z0-9_.~-]+)+/?(?:#/[A-Za-z0-9_.~%/-]*)?")
"""A path of this gateway and nothing else: no `//`, which is another host, no backslash, no query. What is open on the page there
may stand behind it, as in `/map#/office/audit`."""


class BegunJson(TypedDict):
    """What `navigator.credentials` is asked with; `ticket` goes back with its answer."""

    ticket: str
    options: dict[str, Any]


class CameInJson(TypedDict):
    """Come in: the cookie is set. `next`: the page to open."""

    next: str


class Ceremony(BaseModel):
    """A browser's answer to a challenge, as `PublicKeyCredential.toJSON()` has it."""

    model_config = ConfigDict(extra="forbid")

    ticket: Annotated[str, Field(max_length=64)]
    credential: Annotated[dict[str, Any], Field(max_length=20)]


class Asking(BaseModel):
    """Who wants a link."""

    model_config = ConfigDict(extra="forbid")

    mail: Annotated[str, Field(max_length=254)]


def routes(deps: Deps) -> APIRouter:
    """POST /login/passkey/begin, /login/passkey, /login/link, below the API's prefix."""
    router = APIRouter()

    @router.post("/login/passkey/begin", openapi_extra=COMING_IN)
    def begin(request: Request) -> BegunJson:
        """A challenge, answered once within 5 minutes."""
        accounts = known(deps)
        limited(accounts, request, "begin")
        begun = accounts.begin_login()
        return {"ticket": begun.ticket, "options": begun.options}

    @router.post("/login/passkey", openapi_extra=COMING_IN)
    def finish(request: Request, response: Response, said: Ceremony, agent: Agent) -> CameInJson:
        """Opens a session, in a cookie. 401 for whatever opens none."""
        accounts = known(deps)
        limited(accounts, request, "finish")
        limited(accounts, request, "passkey", str(said.credential.get("id"))[:200])
        opened = accounts.login(said.ticket, said.credential, agent)
        if opened is None:
            raise Problem(401, "why.passkey_opens_nothing")
        set_cookie(response, opened, accounts.https)
        return {"next": next_page(accounts, opened)}

    @router.post("/login/link", status_code=202, response_class=Response, openapi_extra=COMING_IN)
    def ask(request: Request, said: Asking) -> Response:
        """Sends a link to this address, if it is the proved address of somebody who may come in. 202 also where it is not."""
        accounts = known(deps)
        limited(accounts, request, "ask")
        if wait_s := accounts.wait_for_link_s(said.mail):
            raise _too_often(wait_s)
        accounts.ask(said.mail)
        return Response(status_code=202)

    return router


def pages(accounts: Accounts, zone: ZoneInfo, *, line: bool) -> APIRouter:
    """GET and POST of /login and /login/link/{token}; GET /passkey.js. `line`: links can be asked for there."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/passkey.js", methods=["GET", "HEAD"])
    def script() -> Response:
        """Without data."""
        headers = {"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-cache"}
        return Response(_SCRIPT, headers=headers)

    @router.api_route("/login", methods=["GET", "HEAD"])
    def login(request: Request, next: Annotated[str, Query(max_length=300)] = "") -> Response:  # noqa: A002 - the link's word
        """The ways in. `next`: the page of ours that was asked for, opened once a passkey or a link by mail has let them in."""
        wanted = own_path(next)
        return page("login.html", reads(request.scope), zone, switch=True, next=wanted, line=line, mails=accounts.mails)

    @router.post("/login")
    def ask(
        request: Request,
        mail: Annotated[str, Form(max_length=300)] = "",
        next: Annotated[str, Form(max_length=300)] = "",  # noqa: A002 - the form's word
    ) -> Response:
        """Says that a link is on its way, whether the address is anybody's or not: nothing was looked up yet."""
        language = reads(request.scope)
        if wait_s := accounts.limits.wait_s("ask", _asker(request)) or accounts.wait_for_link_s(mail):
            return often(language, zone, wait_s)
        accounts.ask(mail, own_path(next))
        return said(language, zone, "screen.login_sent")

    @router.api_route("/login/link/{token}", methods=["GET", "HEAD"])
    def look(request: Request, token: TokenPath) -> Response:
        """The one button. Looking uses nothing."""
        language = reads(request.scope)
        if wait_s := accounts.limits.wait_s("link", _asker(request)):
            return often(language, zone, wait_s)
        if not accounts.is_good(token):
            return said(language, zone, "screen.login_over", 410)
        return page("login_link.html", language, zone, switch=True)

    @router.post("/login/link/{token}")
    def use(
        request: Request,
        token: TokenPath,
        agent: Agent,
        next: Annotated[str, Query(max_length=300)] = "",  # noqa: A002 - the link's word
    ) -> Response:
        """Comes in, once; then to the page of ours that was asked for."""
        language = reads(request.scope)
        if wait_s := accounts.limits.wait_s("link", _asker(request)):
            return often(language, zone, wait_s)
        opened = accounts.use_link(token, agent)
        if opened is None:
            return said(language, zone, "screen.login_over", 410)
        answer = RedirectResponse(own_path(next) or "/account", 303, {"Cache-Control": "no-store"})
        set_cookie(answer, opened, accounts.https)
        return answer

    return router


def own_path(said: str) -> str | None:
    """Where somebody wanted to go, if that is here."""
    return said if said and _OWN_PATH.fullmatch(said) else None


def known(deps: Deps) -> Accounts:
    """404 in a gateway without accounts."""
    if deps.accounts is None:
        raise NotHere("[people]")
    return deps.accounts


def limited(accounts: Accounts, request: Request, what: Try, who: str | None = None) -> None:
    """429 for who tries too often: the asker, or (`who`) what is asked for."""
    if wait_s := accounts.limits.wait_s(what, who or _asker(request)):
        raise _too_often(wait_s)


def _too_often(wait_s: int) -> Problem:
    return Problem(429, "why.tries", headers={"Retry-After": str(wait_s)})


def next_page(accounts: Accounts, opened: Opened) -> str:
    """Where somebody goes from here: the town's page for who may see it, their own for the others."""
    entered = accounts.enter(opened.cookie)
    actor: Actor | None = entered.actor if entered is not None else None
    return "/" if actor is not None and has(actor, "stream.read") else "/account"


def page(template: str, language: Language, zone: ZoneInfo, **facts: Any) -> Response:
    """One of the pages here: with our own script, and a referrer for our own forms."""
    shown = render(template, language, zone, **facts)
    shown.headers.update(OWN_HEADERS)
    return shown


def said(language: Language, zone: ZoneInfo, about: str, status: int = 200, **facts: Any) -> Response:
    """A page that says one thing."""
    title, body = text(language, f"{about}.title"), text(language, f"{about}.body", **facts)
    return render("problem.html", language, zone, status=status, title=title, body=body)


def often(language: Language, zone: ZoneInfo, wait_s: int) -> Response:
    """429, as a page."""
    answer = said(language, zone, "screen.login_often", 429, minutes=math.ceil(wait_s / 60))
    answer.headers["Retry-After"] = str(wait_s)
    return answer


def _asker(request: Request) -> str:
    return asker(request.client.host if request.client is not None else None)
