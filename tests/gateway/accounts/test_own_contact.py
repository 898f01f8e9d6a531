"""How I am told of things: seen and changed by me, without a number that anybody could write to."""

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from gateway.api.answer import AnswerPage
from gateway.notify.links import Links
from gateway.state import tables
from tests.gateway.accounts.conftest import ZONE, House
from tests.gateway.api.conftest import NOW_US

HANA, DEPUTY = "ab" * 8, "cd" * 8
PATH = "/api/v1/account/contact"
DAY_US = 86_400_000_000


@pytest.fixture
def mine(house: House) -> TestClient:
    """Signed in as a farmer with a mail address, a telephone and a browser."""
    house.person(HANA, "farmers", mail="hana@example.jp")
    house.person(DEPUTY, "farmers", mail="deputy@example.jp")
    browser = json.dumps({"endpoint": "https://push.example/secret-key", "keys": {"auth": "x", "p256dh": "y"}})
    with house.state.write() as connection:
        for rank, (channel, to) in enumerate((("voice", "+819000001234"), ("line", "U1234567"), ("push", browser)), 1):
            row = {"id": f"{rank}" * 16, "contact": HANA, "channel": channel, "address": to, "rank": rank, "state": "new"}
            connection.execute(insert(tables.addresses), {**row, "created_us": NOW_US})
        connection.execute(update(tables.contacts).where(tables.contacts.c.id == HANA).values(deputy=DEPUTY))
    return house.signed_in(house.staff(name="", contact=HANA))


def said(client: TestClient, body: Any, status: int = 200) -> Any:
    answer = client.patch(PATH, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_i_see_how_i_am_reached_and_no_address_that_could_be_written_to(mine: TestClient) -> None:
    answer = mine.get(PATH)
    shown = answer.json()
    assert (shown["language"], shown["quiet"], shown["away_until_us"], shown["reachable"]) == ("ja", None, None, True)
    assert [(one["channel"], one["ends"], one["state"]) for one in shown["addresses"]] == [
        ("mail", "@example.jp", "proved"), ("voice", "1234", "new"), ("line", "", "new"), ("push", "push.example", "new"),
    ]  # fmt: skip
    for secret in ("hana@", "+8190", "U1234567", "secret-key", HANA, DEPUTY):
        assert secret not in answer.text, secret


def test_i_see_where_this_browser_is_subscribed_only_where_browsers_are_told(house: House, mine: TestClient) -> None:
    assert mine.get(PATH).json()["push_url"] is None
    links = Links("https://gateway.example", bytes(32))
    told = AnswerPage(
        house.state, links, ZONE, house.now_us, lambda _, contact: contact, lambda *_: None,
        push_url=lambda contact, now_us: links.push_url(contact, now_us + DAY_US),
    )  # fmt: skip
    account = house.staff(name="", contact=DEPUTY)
    house.gateway.deps = replace(house.gateway.deps, answer_page=told)
    del house.app
    url = house.signed_in(account).get(PATH).json()["push_url"]
    assert links.read_contact(url.removeprefix("https://gateway.example/push/"), NOW_US) == DEPUTY


def test_i_choose_my_language_and_my_quiet_hours_and_what_i_do_not_say_stays(mine: TestClient) -> None:
    quiet = [{"from": "21:00", "to": "06:30"}]
    assert said(mine, {"quiet": quiet})["quiet"][0]["from"] == "21:00"
    changed = said(mine, {"language": "ja-easy"})
    assert (changed["language"], changed["quiet"][0]["to"]) == ("ja-easy", "06:30")
    assert said(mine, {"quiet": None})["quiet"] is None, "those of the group again"
    assert said(mine, {}) == mine.get(PATH).json()


def test_i_am_away_and_back_and_see_who_stands_in(mine: TestClient) -> None:
    away = said(mine, {"away_until_us": NOW_US + DAY_US})
    assert (away["away_until_us"], away["deputy"]) == (NOW_US + DAY_US, f"名前{DEPUTY[:2]}")
    assert said(mine, {"away_until_us": None})["away_until_us"] is None


@pytest.mark.parametrize("wrong", [
    {"away_until_us": NOW_US - 1}, {"away_until_us": NOW_US + 400 * DAY_US}, {"language": None}, {"language": "la"},
    {"quiet": [{"from": "25:00", "to": "06:00"}]}, {"deputy": DEPUTY}, {"name": "x"},
])  # fmt: skip
def test_what_can_not_be_is_refused_and_changes_nothing(mine: TestClient, wrong: Any) -> None:
    before = mine.get(PATH).json()
    said(mine, {"language": "en", **wrong} if "language" not in wrong else wrong, 422)
    assert mine.get(PATH).json() == before


def test_an_account_without_a_contact_is_told_so(house: House) -> None:
    client = house.signed_in(house.staff("officer"))
    for answer in (client.get(PATH), client.patch(PATH, json={"language": "en"})):
        assert answer.status_code == 404
        assert "連絡先がありません" in answer.json()["detail"]


def test_a_change_stands_in_the_trail_by_whose_it_is(house: House, mine: TestClient) -> None:
    said(mine, {"language": "en"})
    with house.state.read() as connection:
        rows = connection.execute(tables.audit_details.select()).all()
    [row] = [row for row in rows if row.action == "account.own" and "contact" in row.more]
    assert row.who.startswith("account:")
