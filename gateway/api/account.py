"""My account: the page /account and its forms, and what a browser asks that makes a passkey."""

from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Header, Path, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway import audit
from gateway.accounts import passkeys
from gateway.accounts.account import Account
from gateway.accounts.desk import Accounts
from gateway.accounts.passkeys import Refused
from gateway.accounts.sessions import ID_LENGTH, Entered, browser_of, end, end_all, open_sessions
from gateway.api.cookie import take_cookie
from gateway.api.deps import Deps, permitted
from gateway.api.login import Agent, BegunJson, CameInJson, Ceremony, known, limited, page
from gateway.api.problems import NotHere, Problem
from gateway.contacts import people
from gateway.contacts.address import clean_name
from gateway.contacts.away import LONGEST_US, away, back
from gateway.contacts.config import QuietConfig
from gateway.contacts.desk import Desk
from gateway.contacts.listed import require_json
from gateway.notify.message import Language
from gateway.policy import Actor, has
from gateway.words import LANGUAGES

Owner = Annotated[Actor, Depends(permitted("account.own", enters=True))]
PasskeyPath = Annotated[str, Path(max_length=1400)]
SessionPath = Annotated[str, Path(pattern=rf"^[0-9a-f]{{{ID_LENGTH}}}$")]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]


class PasskeyJson(TypedDict):
    """One passkey. `used_us` null: never. `copied`: it was found to be in two places, and opens nothing any more."""

    id: str
    name: str
    created_us: int
    used_us: int | None
    copied: bool


class SessionJson(TypedDict):
    """One session that goes on. `here`: the one that asks."""

    id: str
    how: str
    browser: str
    opened_us: int
    used_us: int
    ends_us: int
    here: bool


class MeJson(TypedDict):
    """Who asks, as what they came in, and what is theirs. `account` null: a token, which has neither passkeys nor sessions."""

    account: str | None
    name: str
    roles: list[str]
    groups: list[str]
    passkeys: list[PasskeyJson]
    sessions: list[SessionJson]


class OwnAddressJson(TypedDict):
    """One way to reach me. `ends`: its end, by which I know it: four digits, or of a mail address what follows the name.

    `state`: new (never answered), proved, or unreachable, then with `why`. `heard_us`: when I last answered over it.
    """

    channel: str
    ends: str
    state: str
    why: str | None
    heard_us: int | None


class OwnContactJson(TypedDict):
    """How I am told of things. `quiet` null: the hours of my groups, which are not mine to change.

    `deputy`: the name of who is told while I am away (null: nobody is); while I am there, of whom I named. `push_url`: the page
    that takes messages in this browser; null where there are none.
    """

    name: str
    language: str
    quiet: list[dict[str, Any]] | None
    away_until_us: int | None
    deputy: str | None
    reachable: bool
    addresses: list[OwnAddressJson]
    push_url: str | None


class OwnChange(BaseModel):
    """What changes; what is not said stays."""

    model_config = ConfigDict(extra="forbid")

    language: Language | None = None
    quiet: Annotated[
        list[QuietConfig] | None, Field(max_length=20, description="My own quiet hours; null: those of my groups.")
    ] = None
    away_until_us: Annotated[
        int | None, Field(ge=1, lt=2**53, description="I am away until then, a year at most; null: I am there again.")
    ] = None


class Rename(BaseModel):
    """What a passkey is called."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200)]


def routes(deps: Deps) -> APIRouter:
    """GET /account; GET, PATCH /account/contact; POST /account/passkeys/begin, /account/passkeys; PATCH, DELETE of a passkey;

    DELETE of sessions.
    """
    router = APIRouter()

    @router.get("/account")
    def me(request: Request, actor: Owner) -> MeJson:
        """Who I am here, and what is mine. A token's holder hears its name and roles."""
        if actor.account is None:
            roles, groups = sorted(actor.roles), sorted(actor.groups)
            return {"account": None, "name": actor.name, "roles": roles, "groups": groups, "passkeys": [], "sessions": []}
        accounts, now_us = known(deps), deps.now_us()
        with deps.state.read() as connection:
            account = _mine(accounts, connection, actor)
            return {
                "account": account.id,
                "name": account.name,
                "roles": sorted(actor.roles),
                "groups": sorted(actor.groups),
                "passkeys": passkeys_json(connection, account.id),
                "sessions": sessions_json(connection, account.id, now_us, _session(request)),
            }

    @router.post("/account/passkeys/begin")
    def begin(request: Request, actor: Owner) -> BegunJson:
        """A challenge for a new passkey. 403 for who came in by a link, and would have more by a passkey."""
        accounts = known(deps)
        limited(accounts, request, "begin")
        with deps.state.write() as connection:
            account = _mine(accounts, connection, actor)
            _may_add(accounts, account, request)
            try:
                begun = accounts.begin_register(connection, account, deps.now_us())
            except Refused as error:
                raise Problem(409, "why.passkeys_many", {"n": passkeys.MOST_PASSKEYS}) from error
        return {"ticket": begun.ticket, "options": begun.options}

    @router.post("/account/passkeys", status_code=201)
    def add(request: Request, actor: Owner, said: Ceremony, agent: Agent) -> CameInJson:
        """Keeps the passkey. 422 for what proves none."""
        accounts = known(deps)
        limited(accounts, request, "finish")
        with deps.state.read() as connection:
            account = _mine(accounts, connection, actor)
            _may_add(accounts, account, request)
        if accounts.register(account.id, said.ticket, said.credential, browser_of(agent)) is None:
            raise Problem(422, "why.no_passkey_made")
        return {"next": "/account"}

    @router.patch("/account/passkeys/{id}")
    def rename(actor: Owner, id: PasskeyPath, wanted: Rename) -> PasskeyJson:  # noqa: A002 - the word of the path
        """Another name."""
        name = clean_name(wanted.name)
        if name is None:
            raise Problem(422, "why.name")
        with deps.state.write() as connection:
            account = _mine(known(deps), connection, actor)
            if not passkeys.rename(connection, account.id, id, name):
                raise Problem(404, "why.no_passkey")
            return next(one for one in passkeys_json(connection, account.id) if one["id"] == id)

    @router.delete("/account/passkeys/{id}", status_code=204, response_class=Response)
    def remove(actor: Owner, id: PasskeyPath) -> Response:  # noqa: A002 - the word of the path
        """Nobody comes in by it any more."""
        with deps.state.write() as connection:
            account = _mine(known(deps), connection, actor)
            if not _remove(connection, account.id, id, deps.now_us()):
                raise Problem(404, "why.no_passkey")
        return Response(status_code=204)

    @router.delete("/account/sessions/{id}", status_code=204, response_class=Response)
    def end_one(actor: Owner, id: SessionPath) -> Response:  # noqa: A002 - the word of the path
        """Ends one of my sessions, this one too."""
        with deps.state.write() as connection:
            account = _mine(known(deps), connection, actor)
            if not _end(connection, account.id, id, deps.now_us()):
                raise Problem(404, "why.no_session")
        return Response(status_code=204)

    _add_contact(router, deps)
    return router


def _add_contact(router: APIRouter, deps: Deps) -> None:
    @router.get("/account/contact")
    def contact(actor: Owner) -> OwnContactJson:
        """How I am told of things. 404 for an account that nobody is told by."""
        with deps.state.read() as connection:
            return _own_contact(deps, connection, _contact_of(deps, connection, actor))

    @router.patch("/account/contact")
    def change(actor: Annotated[Actor, Depends(permitted("account.own"))], wanted: OwnChange) -> OwnContactJson:
        """Changes what is said of my language, my quiet hours and my absence. Who stands in for me stays."""
        said, now_us = wanted.model_fields_set, deps.now_us()
        if "language" in said and wanted.language is None:
            raise Problem(422, "why.not_taken_away")
        with deps.state.write() as connection:
            mine = _contact_of(deps, connection, actor)
            people.change(connection, mine, {key: getattr(wanted, key) for key in ("language", "quiet") if key in said})
            if wanted.away_until_us is not None:
                if not now_us < wanted.away_until_us <= now_us + LONGEST_US:
                    raise Problem(422, "why.away_until")
                away(connection, _desk(deps).book, mine, wanted.away_until_us, now_us)
            elif "away_until_us" in said:
                back(connection, mine)
            return _own_contact(deps, connection, mine)


def _desk(deps: Deps) -> Desk:
    if deps.desk is None:
        raise NotHere("[people]")
    return deps.desk


def _contact_of(deps: Deps, connection: Connection, actor: Actor) -> str:
    account = _mine(known(deps), connection, actor)
    if account.contact is None:
        raise Problem(404, "why.no_contact_of_account")
    return account.contact


def _own_contact(deps: Deps, connection: Connection, contact: str) -> OwnContactJson:
    now_us, book = deps.now_us(), _desk(deps).book
    shown = require_json(connection, contact, now_us)
    deputy = None if shown["deputy"] is None else book.name_of(connection, shown["deputy"])
    if shown["away_until_us"] is not None:
        person = book.deputy(connection, contact, now_us)
        deputy = None if person is None else person.name
    return {
        "name": shown["name"],
        "language": shown["language"],
        "quiet": shown["quiet"],
        "away_until_us": shown["away_until_us"],
        "deputy": deputy,
        "reachable": shown["reachable"],
        "addresses": [
            {"channel": one["channel"], "ends": _end_of(one["channel"], one["address"]), "state": one["state"], "why": one["why"],
             "heard_us": one["heard_us"]}
            for one in shown["addresses"]
        ],
        "push_url": deps.answer_page.push_url(contact, now_us) if deps.answer_page and deps.answer_page.push_url else None,
    }  # fmt: skip


def _end_of(channel: str, address: str) -> str:
    """Enough for whose it is, and nothing that could be written to."""
    if channel in ("sms", "voice"):
        return address[-4:]
    if channel == "mail":
        return address[address.rfind("@") :]
    return address if channel == "push" else ""  # of a browser the name of its maker's service is shown


def pages(deps: Deps, accounts: Accounts, zone: ZoneInfo) -> APIRouter:
    """GET /account, and the POSTs of its forms. Who has no session is led to /login."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/account", methods=["GET", "HEAD"])
    def mine(request: Request) -> Response:
        """My passkeys, my sessions, the way out."""
        entered = _entered(request)
        if entered is None:
            return _to("/login")
        now_us = deps.now_us()
        with deps.state.read() as connection:
            account = accounts.account_of(connection, entered.actor)
            if account is None:
                return _to("/login")
            language: Language = next((one for one in LANGUAGES if one == account.language), "ja")
            return page(
                "account.html",
                language,
                zone,
                name=account.name,
                sees_town=has(entered.actor, "stream.read"),
                weak=not accounts.may_add_passkey(account, entered.how),
                passkeys=passkeys.of_account(connection, account.id),
                sessions=open_sessions(connection, account.id, now_us),
                here=entered.session[:ID_LENGTH],
                unknown=browser_of(""),
            )

    @router.post("/account/passkeys/{id}/rename")
    def rename(
        request: Request,
        id: PasskeyPath,  # noqa: A002 - the word of the path
        name: Annotated[str, Form(max_length=200)] = "",
    ) -> Response:
        """Another name; one that is none changes nothing."""
        called = clean_name(name)
        return _done(request, lambda connection, account: called and passkeys.rename(connection, account, id, called))

    @router.post("/account/passkeys/{id}/remove")
    def remove(request: Request, id: PasskeyPath) -> Response:  # noqa: A002 - the word of the path
        """Nobody comes in by it any more."""
        return _done(request, lambda connection, account: _remove(connection, account, id, deps.now_us()))

    @router.post("/account/sessions/{id}/end")
    def end_one(request: Request, id: SessionPath) -> Response:  # noqa: A002 - the word of the path
        """Out, over there."""
        return _done(request, lambda connection, account: _end(connection, account, id, deps.now_us()))

    @router.post("/account/sign-out")
    def sign_out(request: Request) -> Response:
        """Out, here."""
        entered = _entered(request)
        here = entered.session if entered is not None else ""
        return _out(request, lambda connection, account: end(connection, account, here, deps.now_us()))

    @router.post("/account/sign-out-everywhere")
    def sign_out_everywhere(request: Request) -> Response:
        """Out, everywhere."""
        return _out(request, lambda connection, account: end_all(connection, account, deps.now_us()))

    def _done(request: Request, change: Any) -> Response:
        entered = _entered(request)
        if entered is None or entered.actor.account is None:
            return _to("/login")
        with deps.state.write() as connection:
            change(connection, entered.actor.account)
        return _to("/account")

    def _out(request: Request, change: Any) -> Response:
        _done(request, change)
        answer = _to("/login")
        take_cookie(answer, accounts.https)
        return answer

    return router


def passkeys_json(connection: Connection, account: str) -> list[PasskeyJson]:
    """The account's, the oldest first."""
    return [
        {"id": one.id, "name": one.name, "created_us": one.created_us, "used_us": one.used_us, "copied": one.copied}
        for one in passkeys.of_account(connection, account)
    ]


def sessions_json(connection: Connection, account: str, now_us: int, here: str | None = None) -> list[SessionJson]:
    """Those of the account that go on. `here`: the SHA-256 of the one that asks."""
    return [
        {**one._asdict(), "here": here is not None and here.startswith(one.id)}  # type: ignore[typeddict-item]
        for one in open_sessions(connection, account, now_us)
    ]


def _remove(connection: Connection, account: str, id_: str, now_us: int) -> bool:
    if not passkeys.remove(connection, account, id_):
        return False
    audit.record(connection, f"account:{account}", "passkey.remove", f"account/{account}", now_us)
    return True


def _end(connection: Connection, account: str, id_: str, now_us: int) -> bool:
    """Ends one of their own sessions; the trail says so, for it may be somebody else who sits there."""
    if not end(connection, account, id_, now_us):
        return False
    audit.record(connection, f"account:{account}", "session.end", f"account/{account}", now_us)
    return True


def _mine(accounts: Accounts, connection: Connection, actor: Actor) -> Account:
    account = accounts.account_of(connection, actor)
    if account is None:
        raise Problem(409, "why.no_account")
    return account


def _may_add(accounts: Accounts, account: Account, request: Request) -> None:
    entered = _entered(request)
    if entered is None or not accounts.may_add_passkey(account, entered.how):
        raise Problem(403, "why.needs_passkey")


def _entered(request: Request) -> Entered | None:
    entered: Entered | None = getattr(request.state, "entered", None)
    return entered


def _session(request: Request) -> str | None:
    entered = _entered(request)
    return None if entered is None else entered.session


def _to(where: str) -> Response:
    return RedirectResponse(where, 303, {"Cache-Control": "no-store"})
