"""A browser subscribes by a signed link, is tested like any address, and can be forgotten again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from gateway.api.push import PushDoor
from gateway.contacts.people import add_address
from gateway.notify.links import Links
from gateway.notify.push import open_vapid
from gateway.state import tables
from simulators.push_service import PushService
from tests.gateway.api.conftest import NOW_US, Gateway

LINKS = Links("https://gateway.example.jp", bytes(range(32)))
TANAKA, SUZUKI = "00000000000000a1", "00000000000000b2"
HOUR_US = 3_600_000_000


class Town:
    """A gateway with two contacts, and the push service of their browsers."""

    def __init__(self, gateway: Gateway, service: PushService, folder: Path) -> None:
        self.gateway, self.service = gateway, service
        self.vapid = open_vapid(folder / "people", "mailto:office@example.jp")
        self.tested: list[str] = []
        with gateway.state.write() as connection:
            for contact, name in ((TANAKA, "田中"), (SUZUKI, "鈴木")):
                connection.execute(insert(tables.contacts).values(id=contact, name=name, created_us=1, created_by="office"))
        self.door = PushDoor(
            gateway.state, self.vapid.public_key, LINKS.read_contact, add_address,
            lambda _, address, now_us: self.tested.append(address), lambda: gateway.now_us, allow_loopback=True,
        )  # fmt: skip
        self.client: TestClient = gateway.client(None, push=self.door)

    def subscribe(self, contact: str = TANAKA, subscription: str | None = None, **changed: Any) -> Any:
        if subscription is None:
            subscription = self.service.subscribe(contact, self.vapid.public_key)
        token = LINKS.contact_token(contact, NOW_US + HOUR_US)
        body = {"token": token, "subscription": json.loads(subscription), **changed}
        return self.client.post("/api/v1/push/subscriptions", json=body)

    def addresses(self) -> list[tuple[str, str, str]]:
        with self.gateway.state.read() as connection:
            rows = connection.execute(select(tables.addresses)).all()
        return [(row.contact, row.channel, row.state) for row in rows]


@pytest.fixture
def town(gateway: Gateway, tmp_path: Path) -> Iterator[Town]:
    with PushService(now_us=lambda: NOW_US) as service:
        yield Town(gateway, service, tmp_path)


def test_the_key_is_everybodys(town: Town) -> None:
    assert town.client.get("/api/v1/push/key").json() == {"key": town.vapid.public_key}


def test_who_has_the_link_subscribes_and_is_tested(town: Town) -> None:
    answer = town.subscribe()
    assert (answer.status_code, answer.json()["state"]) == (201, "new")
    assert town.addresses() == [(TANAKA, "push", "new")]
    assert town.tested == [answer.json()["address"]]


def test_the_same_browser_again_is_one_address_and_no_test_once_it_is_proved(town: Town) -> None:
    subscription = town.service.subscribe("x", town.vapid.public_key)
    town.subscribe(subscription=subscription)
    with town.gateway.state.write() as connection:
        connection.execute(update(tables.addresses).values(state="proved"))
    assert town.subscribe(subscription=subscription).json()["state"] == "proved"
    assert len(town.addresses()) == len(town.tested) == 1


def test_a_browser_of_somebody_else_is_refused(town: Town) -> None:
    subscription = town.service.subscribe("x", town.vapid.public_key)
    town.subscribe(TANAKA, subscription)
    assert town.subscribe(SUZUKI, subscription).status_code == 409
    assert town.addresses() == [(TANAKA, "push", "new")]


def test_a_link_that_has_ended_or_was_made_up_or_is_for_something_else_adds_nothing(town: Town) -> None:
    ended = LINKS.contact_token(TANAKA, NOW_US)
    to_answer = LINKS.answer_url("6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d", NOW_US + HOUR_US).rpartition("/")[2]
    assert town.subscribe(token=ended).status_code == 410
    assert [town.subscribe(token=one).status_code for one in ("", "x", to_answer)] == [403, 403, 403]
    assert (town.addresses(), town.tested) == ([], [])


def test_a_contact_who_was_removed_is_not_there(town: Town) -> None:
    with town.gateway.state.write() as connection:
        connection.execute(update(tables.contacts).values(removed_us=1))
    assert town.subscribe().status_code == 404
    assert town.addresses() == []


@pytest.mark.parametrize(
    "endpoint",
    ["https://127.0.0.1:1/x", "http://192.0.2.7/x", "https://169.254.169.254/x", "file:///etc/passwd", "https://10.0.0.1/x"],
)
def test_an_endpoint_that_leads_into_our_network_is_refused(town: Town, endpoint: str) -> None:
    subscription = {**json.loads(town.service.subscribe("x", town.vapid.public_key)), "endpoint": endpoint}
    strict = town.gateway.client(None, push=PushDoor(**{**_fields(town.door), "allow_loopback": False}))
    body = {"token": LINKS.contact_token(TANAKA, NOW_US + HOUR_US), "subscription": subscription}
    assert strict.post("/api/v1/push/subscriptions", json=body).status_code == 422
    assert town.addresses() == []


def _fields(door: PushDoor) -> dict[str, Any]:
    return {name: getattr(door, name) for name in door.__slots__}


def test_keys_that_no_browser_made_are_refused_by_name(town: Town) -> None:
    subscription = json.loads(town.service.subscribe("x", town.vapid.public_key))
    subscription["keys"]["auth"] = "A" * 24
    answer = town.subscribe(subscription=json.dumps(subscription))
    assert (answer.status_code, answer.json()["detail"]) == (422, "subscription: keys.auth is not 16 bytes in base64url.")


def test_who_unsubscribes_is_forgotten_and_nobody_else(town: Town) -> None:
    town.subscribe(TANAKA)
    town.subscribe(SUZUKI)
    endpoint = f"{town.service.url}/push/{TANAKA}"
    for contact in (SUZUKI, TANAKA, TANAKA):
        token = LINKS.contact_token(contact, NOW_US + HOUR_US)
        answer = town.client.post("/api/v1/push/unsubscribe", json={"token": token, "endpoint": endpoint})
        assert answer.status_code == 204
    assert town.addresses() == [(SUZUKI, "push", "new")]


def test_without_push_there_is_nothing_to_subscribe_to(gateway: Gateway) -> None:
    client = gateway.client(None)
    assert client.get("/api/v1/push/key").status_code == 404
    body = {"token": "x", "endpoint": "x"}
    assert client.post("/api/v1/push/unsubscribe", json=body).status_code == 404


# One gateway for all examples: nothing that comes in may change anything.
@given(
    st.binary(max_size=200)
    | st.builds(lambda x: json.dumps({"token": x, "subscription": {"endpoint": x, "keys": x}}).encode(), st.text())
)
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_refused(body: bytes) -> None:
    answer = BARE.post("/push/subscriptions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 403, 422)


def bare() -> TestClient:
    """The routes alone, without a database."""
    from fastapi import FastAPI

    from gateway.api.problems import add_problem_handlers
    from gateway.api.push import routes

    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(routes(PushDoor(None, "", LINKS.read_contact, None, None, lambda: 0)))  # type: ignore[arg-type]
    return TestClient(app, raise_server_exceptions=False)


BARE = bare()
