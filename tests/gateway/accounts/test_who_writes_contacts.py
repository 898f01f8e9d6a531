"""Whoever writes an address into a contact, or puts somebody in a group, decides who comes in as them: who may, and how far."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from gateway.state import tables
from tests.gateway.accounts.authenticator import Authenticator
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import NOW_US

KEI, FARMER = "cd" * 8, "ab" * 8
CONTACTS = "/api/v1/contacts"


@pytest.fixture
def operator(house: House) -> TestClient:
    """Signed in as an operator who is no officer, in a town that watches over Hana, whose family is Kei."""
    with house.state.write() as connection:
        connection.execute(
            insert(tables.watched).values(
                id="fa" * 8, name="花子", family="family-hana", homes="[]", created_us=NOW_US, created_by="test"
            )
        )
    house.person(KEI, "family-hana", mail="kei@example.jp")
    house.person(FARMER, "farmers", mail="farmer@example.jp")
    house.staff("officer")
    return house.signed_in(house.staff("operator", name="技術"))


def state_of_people(house: House) -> Any:
    with house.state.read() as connection:
        return [
            connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            for table in (tables.contacts, tables.addresses, tables.memberships, tables.invitations)
        ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{CONTACTS}/{KEI}/addresses", {"channel": "mail", "address": "operator@example.jp"}),
        ("POST", f"{CONTACTS}/{KEI}/addresses/{KEI[:15]}a/test", None),
        ("DELETE", f"{CONTACTS}/{KEI}/addresses/{KEI[:15]}a", None),
        ("PATCH", f"{CONTACTS}/{KEI}", {"deputy": FARMER}),
        ("PUT", f"{CONTACTS}/{KEI}/away", {"until_us": NOW_US + 1_000_000, "deputy": FARMER}),
        ("PATCH", f"{CONTACTS}/{FARMER}", {"groups": ["farmers", "family-hana"]}),
        ("PATCH", f"{CONTACTS}/{FARMER}", {"groups": ["helpers"]}),
        ("POST", CONTACTS, {"name": "技術", "groups": ["family-hana"]}),
        ("POST", CONTACTS, {"name": "技術", "groups": ["helpers"]}),
        ("POST", "/api/v1/invitations", {"group": "family-hana"}),
        ("POST", "/api/v1/invitations", {"group": "helpers"}),
        ("DELETE", f"{CONTACTS}/{KEI}", None),
    ],
)
def test_who_may_not_see_people_makes_nobody_somebody_who_may(
    house: House, operator: TestClient, method: str, path: str, body: Any
) -> None:
    before = state_of_people(house)
    assert operator.request(method, path, json=body).status_code == 403
    assert state_of_people(house) == before
    officer = house.signed_in(house.staff("officer", name="鈴木"))
    assert officer.request(method, path, json=body).status_code < 300


def test_of_all_others_an_operator_keeps_the_addresses(operator: TestClient) -> None:
    new = {"channel": "mail", "address": "new@example.jp"}
    assert operator.post(f"{CONTACTS}/{FARMER}/addresses", json=new).status_code == 201
    assert operator.patch(f"{CONTACTS}/{FARMER}", json={"groups": ["choir"]}).status_code == 200
    assert operator.post(CONTACTS, json={"name": "佐藤", "groups": ["farmers"]}).status_code == 201
    assert operator.post("/api/v1/invitations", json={"group": "farmers"}).status_code == 201
    assert operator.post(f"{CONTACTS}/{'0' * 16}/addresses", json=new).status_code == 403  # as of a family's


def test_nobody_ends_an_officers_account_by_erasing_their_contact(house: House, operator: TestClient) -> None:
    desk = house.person("ef" * 8, "office")
    account = house.staff("officer", name="鈴木", contact=desk)
    assert operator.delete(f"{CONTACTS}/{desk}").status_code == 403
    assert house.account(account).own == {"officer"}
    officer = house.signed_in(house.staff("officer", name="佐藤"))
    assert officer.delete(f"{CONTACTS}/{desk}").status_code == 204


def test_a_passkey_made_by_mail_is_none_of_who_becomes_staff(house: House, operator: TestClient) -> None:
    """It may be of whoever could read that mail."""
    house.person("ef" * 8, "farmers", mail="tanaka@example.jp")
    reader, device = house.browser(), Authenticator(house.url)
    reader.post(house.sent_link("tanaka@example.jp"))
    assert house.register(reader, device).status_code == 201
    account = reader.get("/api/v1/account").json()["account"]

    officer = house.signed_in(house.staff("officer", name="鈴木"))
    assert officer.patch(f"/api/v1/accounts/{account}", json={"roles": ["officer"]}).json()["passkeys"] == 0

    assert reader.get("/api/v1/account").status_code == 401
    assert house.login(device).status_code == 401
    strong, mine = house.with_passkey(account)
    assert officer.patch(f"/api/v1/accounts/{account}", json={"roles": ["officer", "viewer"]}).json()["passkeys"] == 1
    assert strong.get("/api/v1/account").status_code == 200
    assert house.login(mine).status_code == 200


def test_a_new_passkey_is_told_to_its_owner_and_staffs_to_the_office_too(house: House, operator: TestClient) -> None:
    house.person("0f" * 8, "office", mail="office@example.jp")
    browser = house.browser()
    browser.post(house.sent_link("farmer@example.jp"))
    house.register(browser, Authenticator(house.url))
    assert _told(house) == [(FARMER, "【新しいパスキー】")]

    house.with_passkey(house.staff("viewer", name="画面"))
    assert _told(house) == [(FARMER, "【新しいパスキー】"), ("0f" * 8, "【新しいパスキー】")]
    with house.state.read() as connection:
        bodies = list(connection.scalars(select(tables.notifications.c.body)))
    assert "画面" in json.loads(bodies[-1])["body"]


def _told(house: House) -> list[tuple[str, str]]:
    with house.state.read() as connection:
        rows = connection.execute(select(tables.notifications.c.contact, tables.notifications.c.body))
        return [(row.contact, json.loads(row.body)["title"]) for row in rows if "パスキー" in json.loads(row.body)["title"]]
