"""How somebody comes to the page that subscribes their browser, and what it holds."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from gateway.api.push import PushDoor
from gateway.contacts.people import add_address
from gateway.notify.links import Links
from gateway.notify.push import open_vapid
from gateway.state import tables
from simulators.push_service import PushService
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.office import Office

LINKS = Links("https://gateway.example", bytes(range(32)))
HOUR_US = 3_600_000_000


class Visitor:
    """Somebody without a token, before a gateway that has push messages."""

    def __init__(self, gateway: Gateway, service: PushService, folder: Path) -> None:
        self.service, self.vapid = service, open_vapid(folder, "mailto:office@example.jp")
        self.office = Office(gateway, folder)
        desk = self.office.desk._replace(
            push_url=lambda contact, now_us: LINKS.push_url(contact, now_us + HOUR_US), phone="050-0000-0009"
        )
        door = PushDoor(
            gateway.state, self.vapid.public_key, LINKS.read_contact, add_address, desk.proof.test, lambda: gateway.now_us,
            allow_loopback=True,
        )  # fmt: skip
        self.client: TestClient = gateway.client(None, desk=desk, push=door)

    def code(self) -> str:
        made: dict[str, str] = self.office.ask("POST", "invitations", {"group": "farmers"}, 201)
        return made["code"]


@pytest.fixture
def visitor(gateway: Gateway, tmp_path: Path) -> Iterator[Visitor]:
    with PushService(now_us=lambda: gateway.now_us) as service:
        yield Visitor(gateway, service, tmp_path)


def test_who_joins_by_a_code_and_has_nothing_but_a_browser_is_tested_in_it(visitor: Visitor) -> None:
    said = {"name": "花子", "channel": "push", "address": "", "language": "ja-easy"}
    answer = visitor.client.post(f"/join/{visitor.code()}", data=said, follow_redirects=False)
    assert answer.status_code == 303
    path = answer.headers["Location"].removeprefix("https://gateway.example")
    page = visitor.client.get(path)
    assert page.status_code == 200
    assert "押<rp>（</rp><rt>お</rt>" in page.text, "in the language that was chosen"
    held = dict(re.findall(r'data-(key|token|door)="([^"]*)"', page.text))
    assert held["key"] == visitor.vapid.public_key
    subscription = json.loads(visitor.service.subscribe("hanako", held["key"]))
    made = visitor.client.post(held["door"], json={"token": held["token"], "subscription": subscription})
    assert made.status_code == 201
    assert visitor.office.tests() == [("push", "queued")]
    (contact,) = visitor.office.ask("GET", "contacts")["contacts"]
    assert (contact["name"], contact["groups"], contact["reachable"]) == ("花子", ["farmers"], False)


def test_somebody_elses_address_never_opens_the_way_into_their_messages(visitor: Visitor) -> None:
    """Only who is new gets the link: whoever types a known address must not subscribe a browser to its owner's messages."""
    known = visitor.office.add(addresses=[{"channel": "mail", "address": "tanaka@example.jp"}])
    visitor.office.prove(known)
    said = {"name": "誰か", "channel": "mail", "address": "tanaka@example.jp", "language": "ja"}
    answer = visitor.client.post(f"/join/{visitor.code()}", data=said, follow_redirects=False)
    assert answer.status_code == 200
    assert "/push/" not in answer.text


def test_the_page_has_one_script_of_its_own_and_nothing_from_elsewhere(visitor: Visitor) -> None:
    contact = visitor.office.add()["id"]
    page = visitor.client.get(f"/push/{LINKS.contact_token(contact, visitor.office.gateway.now_us + HOUR_US)}")
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert re.findall(r"<script[^>]*>", page.text) == ['<script src="/push.js" defer>']
    assert not re.search(r"https?://", html.unescape(page.text))
    assert page.headers["Cache-Control"] == "no-store"
    for path in ("/push.js", "/push-worker.js"):
        assert "javascript" in visitor.client.get(path).headers["Content-Type"]
    (manifest,) = re.findall(r'rel="manifest" href="([^"]+)"', page.text)
    said = visitor.client.get(manifest).json()
    assert visitor.client.get(said["start_url"]).status_code == 200
    assert said["display"] == "standalone", "or an iPhone takes no messages"


def test_a_link_that_has_ended_or_was_made_up_says_what_to_do_and_whom_to_call(visitor: Visitor) -> None:
    contact, now_us = visitor.office.add()["id"], visitor.office.gateway.now_us
    ended = visitor.client.get(f"/push/{LINKS.contact_token(contact, now_us)}")
    forged = visitor.client.get("/push/x")
    assert (ended.status_code, forged.status_code) == (410, 404)
    assert 'href="tel:050-0000-0009"' in ended.text
    with visitor.office.gateway.state.write() as connection:
        connection.execute(update(tables.contacts).values(removed_us=now_us))
    assert visitor.client.get(f"/push/{LINKS.contact_token(contact, now_us + HOUR_US)}").status_code == 404


def test_a_gateway_without_push_has_no_such_page_and_offers_none(gateway: Gateway, tmp_path: Path) -> None:
    office = Office(gateway, tmp_path)
    client = gateway.client(None, desk=office.desk)
    code = office.ask("POST", "invitations", {"group": "farmers"}, 201)["code"]
    assert 'value="push"' not in client.get(f"/join/{code}").text
    said = {"name": "花子", "channel": "push", "address": "x"}
    assert client.post(f"/join/{code}", data=said).status_code == 422
    assert client.get("/push/x").status_code == 404
    assert client.get("/push.js").status_code == 404
