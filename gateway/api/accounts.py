"""Who may come in, for who answers for that: list, make, change, shut and open accounts, end their sessions, hand over a link."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway import audit
from gateway.accounts import account as rows
from gateway.accounts import passkeys, sessions
from gateway.accounts.account import Account, NotDone
from gateway.accounts.desk import Accounts
from gateway.accounts.links import LASTS_US
from gateway.accounts.sessions import ID_LENGTH, end, end_all
from gateway.api.account import SessionJson, sessions_json
from gateway.api.deps import Deps, LimitQuery, permitted
from gateway.api.login import known
from gateway.api.problems import Problem
from gateway.api.qr import qr_svg
from gateway.audit.acts import who_of
from gateway.contacts.address import clean_name
from gateway.policy import Actor

Reader = Annotated[Actor, Depends(permitted("account.read"))]
Manager = Annotated[Actor, Depends(permitted("account.manage", enters=True))]
IdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
SessionPath = Annotated[str, Path(pattern=rf"^[0-9a-f]{{{ID_LENGTH}}}$")]
AfterQuery = Annotated[str | None, Query(pattern=r"^[0-9a-f]{16}$", description="Only those made after this one: the next page.")]
Roles = Annotated[list[Annotated[str, Field(max_length=40)]], Field(max_length=20)]

_STATUS = {"unknown": 404, "taken": 409, "forbidden": 403, "last": 409, "wrong": 422}


class AccountJson(TypedDict):
    """One account. `roles`: its own; `by_groups`: those that come of its contact's groups. `disabled_us` null: it is open."""

    id: str
    name: str
    roles: list[str]
    by_groups: list[str]
    contact: str | None
    passkeys: int
    sessions: int
    created_us: int
    created_by: str
    disabled_us: int | None


class AccountsJson(TypedDict):
    """One page, in the order in which they were made; `next_after` asks for the following one."""

    now_us: int
    accounts: list[AccountJson]
    next_after: str | None


class OneAccountJson(AccountJson):
    """With its sessions."""

    open_sessions: list[SessionJson]


class LinkJson(TypedDict):
    """A one-time link to hand over, shown this once. `svg`: the same as a QR."""

    url: str
    svg: str
    expires_us: int


class NewAccount(BaseModel):
    """Somebody who is to come in."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200, description="What the history of an alert says.")]
    roles: Annotated[Roles, Field(description="Roles of their own.")] = []
    contact: Annotated[str | None, Field(max_length=16, description="Who they are among those who are told.")] = None


class Change(BaseModel):
    """What changes; what is not said stays."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str | None, Field(max_length=200)] = None
    roles: Annotated[Roles | None, Field(description="All roles of their own from now on.")] = None
    enabled: Annotated[bool | None, Field(description="true opens one that was shut, false shuts it.")] = None


def routes(deps: Deps) -> APIRouter:
    """GET, POST /accounts; GET, PATCH, DELETE /accounts/{id}; POST /accounts/{id}/link; DELETE of its sessions."""
    router = APIRouter()

    @router.get("/accounts")
    def accounts(_: Reader, after: AfterQuery = None, limit: LimitQuery = 200) -> AccountsJson:
        """Everybody who may come in, or might."""
        with _refusing(), deps.state.read() as connection:
            found = rows.listed(connection, known(deps).group_roles, after=after, limit=limit)
            return _page(connection, found, limit, deps.now_us())

    @router.post("/accounts", status_code=201)
    def add(actor: Manager, wanted: NewAccount) -> AccountJson:
        """Makes one. It comes in by a link that is handed over, and then by a passkey."""
        desk, now_us = known(deps), deps.now_us()
        with _refusing(), deps.state.write() as connection:
            rows.may_give(wanted.roles, actor.roles)
            id_ = rows.add(connection, _name(wanted.name), wanted.roles, who_of(actor), now_us, wanted.contact)
            _audited(connection, actor, "account.add", id_, now_us, roles=sorted(wanted.roles))
            return _json(connection, [_one(desk, connection, id_)], now_us)[0]

    @router.get("/accounts/{id}")
    def account(_: Reader, id: IdPath) -> OneAccountJson:  # noqa: A002 - the word of the path
        """One, with its sessions."""
        now_us = deps.now_us()
        with _refusing(), deps.state.read() as connection:
            one = _one(known(deps), connection, id)
            return {**_json(connection, [one], now_us)[0], "open_sessions": sessions_json(connection, id, now_us)}

    @router.patch("/accounts/{id}")
    def change(actor: Manager, id: IdPath, wanted: Change) -> AccountJson:  # noqa: A002 - the word of the path
        """Changes name or roles, shuts or opens it. 403: one's own, or roles that one may not give; 409: the last officer."""
        desk, now_us = known(deps), deps.now_us()
        with _refusing(), deps.state.write() as connection:
            one = _other(desk, connection, actor, id)
            said = {name: value for name, value in wanted.model_dump().items() if value is not None}
            if "name" in said:
                said["name"] = _name(said["name"])
            rows.change(connection, one, said, actor.roles)
            now = _one(desk, connection, id)
            if wanted.enabled is True:
                rows.enable(connection, now, actor.roles)
            elif wanted.enabled is False:
                rows.disable(connection, now, now_us)
            _audited(connection, actor, "account.change", id, now_us, **{k: v for k, v in said.items() if k != "name"})
            return _json(connection, [_one(desk, connection, id)], now_us)[0]

    @router.delete("/accounts/{id}", status_code=204, response_class=Response)
    def shut(actor: Manager, id: IdPath) -> Response:  # noqa: A002 - the word of the path
        """Shuts it, and ends all its sessions. 403 for one's own; 409: the last officer."""
        with _refusing(), deps.state.write() as connection:
            rows.disable(connection, _other(known(deps), connection, actor, id), deps.now_us())
            _audited(connection, actor, "account.disable", id, deps.now_us())
        return Response(status_code=204)

    @router.post("/accounts/{id}/link", status_code=201)
    def link(actor: Manager, id: IdPath) -> LinkJson:  # noqa: A002 - the word of the path
        """A one-time link to hand over. 403 for who may not give every role of the account: it would be a way to them."""
        desk, now_us = known(deps), deps.now_us()
        with _refusing(), deps.state.write() as connection:
            one = _other(desk, connection, actor, id)
            rows.may_give(one.own, actor.roles)
            if one.disabled_us is not None or not (one.own | one.by_groups):
                raise Problem(409, "why.account_shut")
            url = desk.hand_link(connection, id, who_of(actor), now_us)
        return {"url": url, "svg": qr_svg(url), "expires_us": now_us + LASTS_US}

    @router.delete("/accounts/{id}/sessions", status_code=204, response_class=Response)
    def end_sessions(actor: Manager, id: IdPath) -> Response:  # noqa: A002 - the word of the path
        """Ends all sessions of an account."""
        with _refusing(), deps.state.write() as connection:
            _one(known(deps), connection, id)
            end_all(connection, id, deps.now_us())
            _audited(connection, actor, "session.end", id, deps.now_us())
        return Response(status_code=204)

    @router.delete("/accounts/{id}/sessions/{session}", status_code=204, response_class=Response)
    def end_session(actor: Manager, id: IdPath, session: SessionPath) -> Response:  # noqa: A002 - the word of the path
        """Ends one session of an account."""
        with _refusing(), deps.state.write() as connection:
            if not end(connection, id, session, deps.now_us()):
                raise Problem(404, "why.no_session")
            _audited(connection, actor, "session.end", id, deps.now_us())
        return Response(status_code=204)

    return router


@contextmanager
def _refusing() -> Iterator[None]:
    """What can't be done, as a problem."""
    try:
        yield
    except NotDone as error:
        raise Problem(_STATUS[error.why], error) from error


def _audited(connection: Connection, actor: Actor, action: str, id_: str, now_us: int, **more: object) -> None:
    audit.record(connection, who_of(actor), action, f"account/{id_}", now_us, more=more)


def _one(desk: Accounts, connection: Connection, id_: str) -> Account:
    found = rows.get(connection, id_, desk.group_roles)
    if found is None:
        raise NotDone("unknown", "why.account_unknown")
    return found


def _other(desk: Accounts, connection: Connection, actor: Actor, id_: str) -> Account:
    if actor.account == id_:
        raise NotDone("forbidden", "why.own_account")
    return _one(desk, connection, id_)


def _name(text: str) -> str:
    name = clean_name(text)
    if name is None:
        raise NotDone("wrong", "why.name")
    return name


def _page(connection: Connection, found: Sequence[Account], limit: int, now_us: int) -> AccountsJson:
    next_after = found[-1].id if len(found) == limit else None
    return {"now_us": now_us, "accounts": _json(connection, found, now_us), "next_after": next_after}


def _json(connection: Connection, found: Sequence[Account], now_us: int) -> list[AccountJson]:
    ids = [one.id for one in found]
    keys, opened = passkeys.counted(connection, ids), sessions.counted(connection, ids, now_us)
    return [
        {
            "id": one.id,
            "name": one.name,
            "roles": sorted(one.own),
            "by_groups": sorted(one.by_groups),
            "contact": one.contact,
            "passkeys": keys.get(one.id, 0),
            "sessions": opened[one.id],
            "created_us": one.created_us,
            "created_by": one.created_by,
            "disabled_us": one.disabled_us,
        }
        for one in found
    ]
