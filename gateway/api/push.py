"""Subscribing a browser to push messages: GET push/key, POST push/subscriptions, POST push/unsubscribe.

No login: the token is a signed link's, and says whose browser it is (gateway.notify.links). What is subscribed is proved like any
other address, by an answered test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api.problems import NotHere, Problem
from gateway.contacts.people import NotDone, remove_address, require
from gateway.notify.guard import Blocked, Guard
from gateway.notify.links import Expired, Forged
from gateway.notify.push import BadSubscription, Subscription, check
from gateway.state import State
from gateway.state.tables import addresses

KEY, SUBSCRIPTIONS, UNSUBSCRIBE = "/push/key", "/push/subscriptions", "/push/unsubscribe"
BY_LINK = {"x-open": "the token of a signed link, in the body, says whose browser it is"}


@dataclass(frozen=True, slots=True)
class PushDoor:
    """What the routes work with."""

    state: State
    public_key: str
    """`Vapid.public_key`."""
    who: Callable[[str, int], str | Expired | Forged]
    """who(token, now_us): whose browser it is. `Links.read_contact`."""
    add: Callable[[Connection, str, Literal["push"], str, int], str]
    """add(connection, contact, "push", subscription, now_us): the address's id; NotDone. gateway.contacts.people.add_address."""
    test: Callable[[Connection, str, int], object]
    """test(connection, address, now_us): asks whether it arrives. `Proof.test`."""
    now_us: Callable[[], int]
    allow_loopback: bool = False


class KeyJson(TypedDict):
    """What a page hands to `pushManager.subscribe`."""

    key: str


class SubscribedJson(TypedDict):
    """A browser that was subscribed, or was already."""

    address: str
    state: str


Token = Annotated[str, Field(max_length=100)]


class Subscribing(BaseModel):
    """Whose browser, and what `PushSubscription.toJSON()` says."""

    model_config = ConfigDict(extra="forbid")

    token: Token
    subscription: Subscription


class Unsubscribing(BaseModel):
    """Whose browser, and its endpoint."""

    model_config = ConfigDict(extra="forbid")

    token: Token
    endpoint: Annotated[str, Field(max_length=1500)]


def routes(door: PushDoor | None) -> APIRouter:
    """GET /push/key, POST /push/subscriptions, POST /push/unsubscribe."""
    router = APIRouter()

    @router.get(KEY, openapi_extra={"x-open": "a public key"})
    def key() -> KeyJson:
        """The key that subscriptions are made for."""
        return {"key": _configured(door).public_key}

    @router.post(SUBSCRIPTIONS, status_code=201, openapi_extra=BY_LINK)
    def subscribe(said: Subscribing) -> SubscribedJson:
        """Adds the browser to its contact, and sends it a test. The same one again changes nothing."""
        known = _configured(door)
        now_us = known.now_us()
        contact = _contact(known, said.token, now_us)
        _checked(known, said.subscription)
        try:
            with known.state.write() as connection:
                require(connection, contact)
                address = known.add(connection, contact, "push", said.subscription.address(), now_us)
                state = connection.scalar(select(addresses.c.state).where(addresses.c.id == address))
                if state != "proved":
                    known.test(connection, address, now_us)
        except NotDone as error:
            raise Problem(404 if error.why == "unknown" else 409, error) from error
        return {"address": address, "state": str(state)}

    @router.post(UNSUBSCRIBE, status_code=204, response_class=Response, openapi_extra=BY_LINK)
    def unsubscribe(said: Unsubscribing) -> Response:
        """Forgets the browser. 204 also where it was not known."""
        known = _configured(door)
        contact = _contact(known, said.token, known.now_us())
        with known.state.write() as connection:
            mine = select(addresses.c.id, addresses.c.address).where(
                addresses.c.contact == contact, addresses.c.channel == "push"
            )
            for row in connection.execute(mine).all():
                if Subscription.model_validate_json(row.address).endpoint == said.endpoint:
                    remove_address(connection, contact, row.id)
        return Response(status_code=204)

    return router


def _configured(door: PushDoor | None) -> PushDoor:
    if door is None:
        raise NotHere("[channel.push]")
    return door


def _contact(door: PushDoor, token: str, now_us: int) -> str:
    match door.who(token, now_us):
        case str(contact):
            return contact
        case Expired():
            raise Problem(410, "why.push_link_over")
        case Forged():
            raise Problem(403, "why.push_link_wrong")


def _checked(door: PushDoor, subscription: Subscription) -> None:
    """Problem 422 for what no browser made, or what leads where the gateway does not go."""
    try:
        check(subscription)
        Guard(allow_loopback=door.allow_loopback).target(subscription.endpoint)
    except BadSubscription as error:
        raise Problem(422, f"subscription: {error}.") from error
    except Blocked as error:
        raise Problem(422, f"subscription.endpoint: {error}.") from error
    except OSError as error:
        raise Problem(422, "why.push_host") from error
