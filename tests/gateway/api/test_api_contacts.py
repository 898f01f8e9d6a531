"""Contacts, groups and invitations over HTTP, as an office works with them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contacts import people, proof
from gateway.contacts.join import Joined
from gateway.words import LANGUAGES, text
from tests.gateway.api.conftest import NOW_US, Gateway
from tests.gateway.api.office import TANAKA, Office

DAY_US = 86_400_000_000


@pytest.fixture
def office(gateway: Gateway, tmp_path: Path) -> Iterator[Office]:
    made = Office(gateway, tmp_path)
    yield made
    made.client.close()


def test_who_is_entered_gets_a_test_and_is_told_nothing_before(office: Office) -> None:
    made = office.add(addresses=[*TANAKA["addresses"], {"channel": "voice", "address": "050-0000-0001"}])
    assert (made["name"], made["groups"], made["reachable"], made["created_by"]) == ("田中", ["farmers"], False, "tanaka")
    assert [(one["channel"], one["address"], one["state"]) for one in made["addresses"]] == [
        ("mail", "tanaka@example.jp", "new"),
        ("voice", "+815000000001", "new"),
    ]
    assert sorted(office.tests()) == [("mail", "queued"), ("voice", "queued")]
    assert office.ask("GET", f"contacts/{made['id']}") == made
    office.prove(made)
    assert office.ask("GET", f"contacts/{made['id']}")["reachable"]


def test_the_office_sees_who_cannot_be_reached(office: Office) -> None:
    tanaka = office.add()
    office.prove(tanaka)
    office.add(name="鈴木", groups=["hunters"], addresses=[])
    assert office.names("?reachable=false") == ["鈴木"]
    assert office.names("?reachable=true") == ["田中"]
    assert office.names("?group=hunters") == ["鈴木"]
    assert sorted(office.names()) == sorted(["田中", "鈴木"])
    with office.gateway.state.write() as connection:
        proof.lost(connection, tanaka["addresses"][0]["id"], "bounced", NOW_US)
    shown = office.ask("GET", "contacts?reachable=false&group=farmers")["contacts"]
    assert [(one["name"], one["addresses"][0]["why"]) for one in shown] == [("田中", "bounced")]


def test_what_is_changed_is_what_is_said(office: Office) -> None:
    made, deputy = office.add(), office.add(name="鈴木", addresses=[])
    path = f"contacts/{made['id']}"
    assert office.ask("PATCH", path, {"name": " 田中 太郎 "})["name"] == "田中 太郎"
    changed = office.ask("PATCH", path, {"language": "en", "groups": ["hunters"], "deputy": deputy["id"]})
    assert (changed["name"], changed["language"], changed["groups"], changed["deputy"]) == (
        "田中 太郎", "en", ["hunters"], deputy["id"],
    )  # fmt: skip
    hours = [{"from": "22:00", "to": "05:30", "days": ["sat"], "zone": None}]
    assert office.ask("PATCH", path, {"quiet": hours})["quiet"] == hours
    assert office.ask("PATCH", path, {"quiet": []})["quiet"] == []
    assert office.ask("PATCH", path, {"quiet": None})["quiet"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": None}, 422),
        ({"name": "\n"}, 422),
        ({"colour": "blue"}, 422),
        ({"language": "fr"}, 422),
        ({"groups": ["farmer"]}, 404),
        ({"groups": ["hunters", "farmer"], "name": "鈴木"}, 404),
        ({"deputy": "0" * 16}, 404),
        ({"quiet": [{"from": "21:00", "to": "21:00"}]}, 422),
        ({"order": ["0" * 16]}, 422),
    ],
)
def test_a_change_that_cannot_be_changes_nothing(office: Office, body: Any, status: int) -> None:
    made = office.add()
    answer = office.ask("PATCH", f"contacts/{made['id']}", body, status)
    assert answer["detail"]
    assert office.ask("GET", f"contacts/{made['id']}") == made


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_is_said_in_the_readers_language(office: Office, language: Any) -> None:
    path = f"contacts/{office.add()['id']}"
    for body, status, sentence in (
        ({"deputy": "0" * 16}, 404, text(language, "why.no_contact")),
        ({"order": ["0" * 16]}, 422, text(language, "why.address_order")),
        ({"name": "\n"}, 422, f"body.name: {text(language, 'why.name')}"),
        ({"quiet": [{"from": "21:00", "to": "21:00"}]}, 422, f"body.quiet.0: {text(language, 'why.quiet_same', at='21:00')}"),
    ):
        assert office.ask("PATCH", f"{path}?lang={language}", body, status)["detail"] == sentence
    mail = {"channel": "mail", "address": "not an address"}
    said = office.ask("POST", f"{path}/addresses?lang={language}", mail, 422)["detail"]
    assert said == text(language, "why.address_mail")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"addresses": [{"channel": "mail", "address": "not an address"}]}, 422),
        ({"addresses": [{"channel": "mail", "address": "tanaka@example.jp"}]}, 409),
        ({"groups": ["farmer"]}, 404),
        ({"addresses": [{"channel": "pigeon", "address": "x"}]}, 422),
    ],
)
def test_somebody_who_cannot_be_entered_leaves_no_half(office: Office, body: Any, status: int) -> None:
    office.add()
    refused = office.ask("POST", "contacts", {**TANAKA, "name": "鈴木", **body}, status)
    assert "not an address" not in refused["detail"]
    assert office.names() == ["田中"]
    assert len(office.tests()) == 1


def test_addresses_come_are_put_in_order_are_tested_and_go(office: Office) -> None:
    made = office.add()
    path = f"contacts/{made['id']}"
    more = office.ask("POST", f"{path}/addresses", {"channel": "sms", "address": "+815000000002"}, 201)
    mail, sms = (one["id"] for one in more["addresses"])
    shown = office.ask("PATCH", path, {"order": [sms, mail]})
    assert [one["id"] for one in shown["addresses"]] == [sms, mail]

    office.gateway.now_us += DAY_US
    assert len(office.tests()) == 2
    tested = office.ask("POST", f"{path}/addresses/{mail}/test", status=202)
    assert next(one["tested_us"] for one in tested["addresses"] if one["id"] == mail) == office.gateway.now_us
    assert len(office.tests()) == 3

    office.ask("DELETE", f"{path}/addresses/{mail}", status=204)
    assert [one["id"] for one in office.ask("GET", path)["addresses"]] == [sms]
    office.ask("DELETE", f"{path}/addresses/{mail}", status=404)
    office.ask("POST", f"{path}/addresses/{mail}/test", status=404)
    other = office.add(name="鈴木", addresses=[])
    office.ask("POST", f"contacts/{other['id']}/addresses/{sms}/test", status=404)
    office.ask("DELETE", f"contacts/{other['id']}/addresses/{sms}", status=404)


def test_the_keys_of_a_push_subscription_are_not_shown(office: Office) -> None:
    made = office.add(addresses=[])
    subscription = json.dumps({"endpoint": "https://push.example.jp/abc", "keys": {"auth": "secret-1", "p256dh": "secret-2"}})
    with office.gateway.state.write() as connection:
        people.add_address(connection, made["id"], "push", subscription, NOW_US)  # as a browser that subscribes
    shown = office.ask("GET", f"contacts/{made['id']}")
    assert shown["addresses"][0]["address"] == "push.example.jp"
    assert "secret" not in json.dumps(shown)


def test_who_is_removed_is_gone(office: Office) -> None:
    made = office.add()
    office.ask("DELETE", f"contacts/{made['id']}", status=204)
    assert office.names() == []
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("DELETE", "/away")):
        office.ask(method, f"contacts/{made['id']}{path}", {} if method == "PATCH" else None, 404)
    assert office.tests() == [("mail", "dropped")]
    office.add()  # the address is free again


def test_somebody_is_away_and_comes_back(office: Office) -> None:
    made, deputy = office.add(), office.add(name="鈴木", groups=[], addresses=[{"channel": "mail", "address": "s@example.jp"}])
    office.prove(made)
    until_us = NOW_US + DAY_US
    noted = office.ask("PUT", f"contacts/{made['id']}/away", {"until_us": until_us, "deputy": deputy["id"]})
    assert noted == {"away_until_us": until_us, "deputy": None}, "the deputy can't be reached, so nobody is told"
    office.prove(deputy)
    assert office.ask("PUT", f"contacts/{made['id']}/away", {"until_us": until_us})["deputy"] == deputy["id"], (
        "the same as before"
    )
    assert office.ask("GET", f"contacts/{made['id']}")["away_until_us"] == until_us
    assert office.ask("GET", "groups")["groups"][0]["away"] == 1
    office.ask("DELETE", f"contacts/{made['id']}/away", status=204)
    assert office.ask("GET", f"contacts/{made['id']}")["away_until_us"] is None
    office.ask("PUT", f"contacts/{made['id']}/away", {"until_us": NOW_US - 1}, 422)


def test_each_group_says_who_would_be_told(office: Office) -> None:
    office.prove(office.add())
    office.add(name="鈴木", addresses=[])
    farmers, hunters = office.ask("GET", "groups")["groups"]
    assert farmers == {
        "group": "farmers", "label": "北山のわな番", "configured": True, "members": 2, "reachable": 1, "away": 0, "told": 1,
    }  # fmt: skip
    assert (hunters["members"], hunters["told"]) == (0, 0)


def test_an_invitation_is_made_used_listed_and_ended(office: Office) -> None:
    made = office.ask("POST", "invitations", {"group": "farmers", "uses": 2, "days": 3}, 201)
    assert made["qr"] == f"https://gateway.example/join/{made['code'].replace('-', '')}"
    assert made["expires_us"] == NOW_US + 3 * DAY_US
    with office.gateway.state.write() as connection:
        joined = office.desk.joining.join(connection, made["code"], "line", "U" + "1" * 32, "花子", None, NOW_US)
    assert isinstance(joined, Joined)
    (listed,) = office.ask("GET", "invitations")["invitations"]
    assert (listed["id"], listed["uses_left"]) == (made["id"], 1)
    assert "code" not in listed
    office.ask("DELETE", f"invitations/{made['id']}", status=204)
    office.ask("DELETE", f"invitations/{made['id']}", status=404)
    assert office.ask("GET", "invitations")["invitations"] == []
    office.ask("POST", "invitations", {"group": "farmer"}, 404)
    office.ask("POST", "invitations", {"group": "farmers", "uses": 2, "name": "花子"}, 422)


def test_names_and_addresses_are_for_operators(office: Office) -> None:
    made = office.add()
    for role in ("viewer", "node"):
        client = office.gateway.client(role, desk=office.desk)
        for path in ("contacts", f"contacts/{made['id']}", "groups", "invitations"):
            assert client.get(f"/api/v1/{path}").status_code == 403, (role, path)
        assert client.delete(f"/api/v1/contacts/{made['id']}").status_code == 403
        assert client.post("/api/v1/invitations", json={"group": "farmers"}).status_code == 403


def test_a_gateway_without_people_says_so(gateway: Gateway) -> None:
    answer = gateway.client().post("/api/v1/contacts", json=TANAKA)
    assert answer.status_code == 404
    assert "[people]" in answer.json()["detail"]
