"""GET, POST contacts; GET, PATCH, DELETE contacts/{id}, its addresses, away; GET, POST, DELETE invitations; GET groups.

Who is told, and how they come in. Names and addresses are personal data: they are answered to who may read contacts, and are
in no log and no error's text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.names import Name
from gateway.accounts.account import NotDone as AccountNotDone
from gateway.accounts.account import check_erasure
from gateway.api import things
from gateway.api.deps import Deps, NameQuery, permitted, sifted
from gateway.api.problems import NotHere, Problem
from gateway.api.qr import qr_svg
from gateway.audit import who_of
from gateway.contacts import people
from gateway.contacts.address import MOST_BYTES, AddressChannel, clean_name
from gateway.contacts.away import SAME, away, back
from gateway.contacts.config import QuietConfig
from gateway.contacts.desk import Desk
from gateway.contacts.join import LONGEST_DAYS, MOST_USES, open_invitations
from gateway.contacts.listed import (
    ContactJson,
    ContactsJson,
    GroupsJson,
    InvitationsJson,
    contacts_json,
    groups_json,
    invitations_json,
    require_json,
)
from gateway.keeping.erase import erase_contact
from gateway.notify.message import Language
from gateway.policy import Actor, extent, refusal
from gateway.words.refusal import Refusal

PEOPLE = "[people]"
IdPath = Annotated[str, Path(pattern=r"^[0-9a-f-]{1,40}$")]
_STATUS = {"unknown": 404, "taken": 409, "full": 409, "wrong": 422}

Reader = Annotated[Actor, Depends(permitted("contact.read"))]
Manager = Annotated[Actor, Depends(permitted("contact.manage", things.contact))]
"""Of who is in a family or helps to search: an officer only, as whoever writes an address there may come in by it."""
Adder = Annotated[Actor, Depends(sifted("contact.manage"))]


def _is_a_name(text: str) -> str:
    name = clean_name(text)
    if name is None:
        raise Refusal("why.name")
    return name


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @field_validator("name", check_fields=False)
    @classmethod
    def _name(cls, text: str | None) -> str | None:
        return None if text is None else _is_a_name(text)


class NewAddress(BaseModel):
    """One way to reach somebody, as an officer enters it."""

    model_config = ConfigDict(extra="forbid")

    channel: AddressChannel
    address: Annotated[str, Field(min_length=1, max_length=MOST_BYTES)]


class NewContact(_Named):
    """Somebody whom an officer enters."""

    name: Annotated[str, Field(max_length=200, description="What others are told of them.")]
    language: Language = "ja"
    groups: Annotated[list[Name], Field(max_length=50)] = []
    addresses: Annotated[list[NewAddress], Field(max_length=people.MOST_ADDRESSES)] = []


class Change(_Named):
    """What changes of a contact; what is not said stays."""

    name: Annotated[str | None, Field(max_length=200)] = None
    language: Language | None = None
    groups: Annotated[list[Name] | None, Field(max_length=50, description="All groups they are in from now on.")] = None
    quiet: Annotated[
        list[QuietConfig] | None, Field(max_length=20, description="Their own quiet hours; null: those of their groups.")
    ] = None
    deputy: Annotated[str | None, Field(max_length=40, description="The contact who is told while they are away.")] = None
    order: Annotated[
        list[str] | None, Field(max_length=people.MOST_ADDRESSES, description="Ids of their addresses, first the first tried.")
    ] = None


class Absence(BaseModel):
    """留守にします."""

    model_config = ConfigDict(extra="forbid")

    until_us: Annotated[int, Field(ge=1, le=2**53)]
    deputy: Annotated[str | None, Field(max_length=40, description="Who is told meanwhile; the one of before when absent.")] = (
        None
    )


class NewInvitation(_Named):
    """A code for a group."""

    group: Name
    uses: Annotated[int, Field(ge=1, le=MOST_USES)] = 1
    days: Annotated[int, Field(ge=1, le=LONGEST_DAYS)] = 7
    name: Annotated[str | None, Field(max_length=200, description="Of who is expected; for one use.")] = None


class CodeJson(TypedDict):
    """A code, shown this once. `qr`: what a QR of it says; `svg`: that QR."""

    id: str
    group: str
    code: str
    qr: str
    svg: str
    uses: int
    expires_us: int


class AbsenceJson(TypedDict):
    """`deputy`: who is told meanwhile, by the chain of deputies; null: nobody."""

    away_until_us: int
    deputy: str | None


def routes(deps: Deps) -> APIRouter:
    """All of them."""
    router = APIRouter()
    for group in (_contacts, _one, _addresses, _invitations, _groups):
        group(deps, router)
    return router


def _desk(deps: Deps) -> Desk:
    if deps.desk is None:
        raise NotHere(PEOPLE)
    return deps.desk


@contextmanager
def _refusing() -> Iterator[None]:
    """What can't be done, as a problem."""
    try:
        yield
    except people.NotDone as error:
        raise Problem(_STATUS[error.why], error) from error
    except AccountNotDone as error:
        raise Problem(409 if error.why == "last" else 403, error) from error


def _contacts(deps: Deps, router: APIRouter) -> None:
    @router.get("/contacts")
    def contacts(_: Reader, group: NameQuery | None = None, reachable: Annotated[bool | None, Query()] = None) -> ContactsJson:
        """Everybody, or those of a group, or those who can (not) be reached."""
        now_us = deps.now_us()
        with deps.state.read() as connection:
            return {"now_us": now_us, "contacts": contacts_json(connection, now_us, group=group, reachable=reachable)}

    @router.post("/contacts", status_code=201)
    def add(actor: Adder, wanted: NewContact) -> ContactJson:
        """Enters somebody; each address gets a test, and is used when that is answered. 409 for an address of somebody else."""
        desk, now_us = _desk(deps), deps.now_us()
        with _refusing(), deps.state.write() as connection:
            _check_groups(deps, connection, actor, wanted.groups)
            id_ = people.add(connection, wanted.name, wanted.language, wanted.groups, actor.name, now_us)
            for one in wanted.addresses:
                desk.add_address(connection, id_, one.channel, one.address, now_us)
            return require_json(connection, id_, now_us)


def _one(deps: Deps, router: APIRouter) -> None:
    @router.get("/contacts/{id}")
    def contact(_: Reader, id: IdPath) -> ContactJson:  # noqa: A002 - the word of the path
        """One contact."""
        with _refusing(), deps.state.read() as connection:
            return require_json(connection, id, deps.now_us())

    @router.patch("/contacts/{id}")
    def change(actor: Manager, id: IdPath, wanted: Change) -> ContactJson:  # noqa: A002 - the word of the path
        """Changes what is said, and nothing else."""
        said = wanted.model_fields_set
        values: dict[str, Any] = {key: getattr(wanted, key) for key in ("name", "language", "deputy", "quiet") if key in said}
        if any(key in said and values[key] is None for key in ("name", "language")):
            raise Problem(422, "why.not_taken_away")
        with _refusing(), deps.state.write() as connection:
            people.change(connection, id, values)
            if wanted.groups is not None:
                _move(deps, connection, actor, id, wanted.groups)
            if wanted.order is not None:
                people.prefer(connection, id, wanted.order)
            return require_json(connection, id, deps.now_us())

    @router.delete("/contacts/{id}", status_code=204)
    def remove(actor: Manager, id: IdPath) -> Response:  # noqa: A002 - the word of the path
        """Erases them: name, addresses, groups, account, and what they were told."""
        with _refusing(), deps.state.write() as connection:
            people.require(connection, id)
            check_erasure(connection, id, actor.roles)
            erase_contact(connection, id, who_of(actor), deps.now_us())
        deps.state.empty_log()
        return Response(status_code=204)

    @router.put("/contacts/{id}/away")
    def go_away(_: Manager, id: IdPath, wanted: Absence) -> AbsenceJson:  # noqa: A002 - the word of the path
        """Their deputy is told in their place until then."""
        deputy = wanted.deputy if "deputy" in wanted.model_fields_set else SAME
        with _refusing(), deps.state.write() as connection:
            noted = away(connection, _desk(deps).book, id, wanted.until_us, deps.now_us(), deputy)
        return {"away_until_us": noted.until_us, "deputy": noted.deputy}

    @router.delete("/contacts/{id}/away", status_code=204)
    def come_back(_: Manager, id: IdPath) -> Response:  # noqa: A002 - the word of the path
        """They are there again."""
        with _refusing(), deps.state.write() as connection:
            back(connection, id)
        return Response(status_code=204)


def _check_groups(deps: Deps, connection: Connection, actor: Actor, groups: Sequence[str]) -> None:
    """That there are these groups, and that `actor` may have somebody in them."""
    for group in groups:
        _desk(deps).joining.check_group(connection, group)
    theirs = extent(actor, "contact.manage", deps.world)
    if not all(map(theirs.covers, things.groups_things(deps, connection, groups))):
        raise refusal(actor, "contact.manage")


def _move(deps: Deps, connection: Connection, actor: Actor, contact: str, groups: list[str]) -> None:
    """Into these groups and out of all others. Who is in a group that is configured no more may stay there."""
    now_in = set(_desk(deps).book.groups_of(connection, contact))
    new = sorted(set(groups) - now_in)
    _check_groups(deps, connection, actor, new)
    for group in new:
        people.enter(connection, contact, group)
    for group in now_in - set(groups):
        people.leave(connection, contact, group)


def _addresses(deps: Deps, router: APIRouter) -> None:
    @router.post("/contacts/{id}/addresses", status_code=201)
    def add(_: Manager, id: IdPath, wanted: NewAddress) -> ContactJson:  # noqa: A002 - the word of the path
        """One more address, tried after the others. It gets a test, and is used when that is answered."""
        now_us = deps.now_us()
        with _refusing(), deps.state.write() as connection:
            _desk(deps).add_address(connection, id, wanted.channel, wanted.address, now_us)
            return require_json(connection, id, now_us)

    @router.delete("/contacts/{id}/addresses/{address}", status_code=204)
    def remove(_: Manager, id: IdPath, address: IdPath) -> Response:  # noqa: A002 - the word of the path
        """Forgets it."""
        with _refusing(), deps.state.write() as connection:
            people.remove_address(connection, id, address)
        return Response(status_code=204)

    @router.post("/contacts/{id}/addresses/{address}/test", status_code=202)
    def test(_: Manager, id: IdPath, address: IdPath) -> ContactJson:  # noqa: A002 - the word of the path
        """Sends a test now. 202: whether it was answered stands in `heard_us`."""
        now_us = deps.now_us()
        with _refusing(), deps.state.write() as connection:
            shown = require_json(connection, id, now_us)
            if address not in [one["id"] for one in shown["addresses"]]:
                raise Problem(404, "why.no_address")
            _desk(deps).proof.test(connection, address, now_us)
            return require_json(connection, id, now_us)


def _invitations(deps: Deps, router: APIRouter) -> None:
    @router.get("/invitations")
    def invitations(_: Reader) -> InvitationsJson:
        """Invitations that can still be used, without their codes."""
        now_us = deps.now_us()
        with deps.state.read() as connection:
            return {"now_us": now_us, "invitations": invitations_json(open_invitations(connection, now_us))}

    @router.post("/invitations", status_code=201)
    def invite(actor: Adder, wanted: NewInvitation) -> CodeJson:
        """Makes a code for a group. It is answered this once and kept as a hash."""
        with _refusing(), deps.state.write() as connection:
            _check_groups(deps, connection, actor, [wanted.group])
            made = _desk(deps).joining.invite(
                connection, wanted.group, actor.name, deps.now_us(), uses=wanted.uses, days=wanted.days, name=wanted.name
            )
        return {
            "id": made.id,
            "group": made.group,
            "code": made.shown,
            "qr": made.url,
            "svg": qr_svg(made.url),
            "uses": made.uses,
            "expires_us": made.expires_us,
        }

    @router.delete("/invitations/{id}", status_code=204)
    def end(_: Adder, id: IdPath) -> Response:  # noqa: A002 - the word of the path
        """Nobody comes in by it any more."""
        with _refusing(), deps.state.write() as connection:
            _desk(deps).joining.end(connection, id, deps.now_us())
        return Response(status_code=204)


def _groups(deps: Deps, router: APIRouter) -> None:
    @router.get("/groups")
    def groups(_: Reader) -> GroupsJson:
        """Each group: how many are in it, can be reached, are away, and would be told now."""
        desk, now_us = _desk(deps), deps.now_us()
        with deps.state.read() as connection:
            return {"now_us": now_us, "groups": groups_json(connection, desk.book, desk.joining.groups, now_us)}
