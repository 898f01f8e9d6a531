"""The page behind a printed QR, as somebody with an old phone and no LINE meets it."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contacts.join import BURST
from tests.gateway.api.conftest import NOW_US, Gateway
from tests.gateway.api.office import Office

HANAKO = {"name": "花子", "channel": "mail", "address": "hanako@example.jp", "language": "ja"}


class Visitor:
    """Somebody without a token."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.office = Office(gateway, folder)
        self.office.desk = self.office.desk._replace(friend_url="https://lin.ee/example")
        self.client: TestClient = gateway.client(None, desk=self.office.desk)

    def code(self, group: str = "farmers", **more: Any) -> str:
        made: dict[str, str] = self.office.ask("POST", "invitations", {"group": group, **more}, 201)
        return made["code"]


@pytest.fixture
def visitor(gateway: Gateway, tmp_path: Path) -> Visitor:
    return Visitor(gateway, tmp_path)


def test_the_page_says_what_one_joins_and_how(visitor: Visitor) -> None:
    code = visitor.code(name="花子")
    answer = visitor.client.get(f"/join/{code.replace('-', '').lower()}")
    assert answer.status_code == 200
    assert len(answer.content) <= 30 * 1024
    assert "<script" not in answer.text
    page = html.unescape(answer.text)
    assert "北山のわな番に参加" in page
    assert code in page, "for LINE"
    assert 'href="https://lin.ee/example"' in page
    assert 'value="花子"' in page, "who is expected"
    assert 'lang="ja"' in page
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert visitor.office.names() == [], "looking changes nothing"
    assert "Join" in visitor.client.get(f"/join/{code}", headers={"Accept-Language": "en"}).text


def test_every_field_has_its_label_and_every_button_its_word(visitor: Visitor) -> None:
    page = visitor.client.get(f"/join/{visitor.code()}").text
    fields = re.findall(r"<(?:input|select)[^>]*>", page)
    assert len(fields) == 4
    for field in fields:
        assert re.search(rf"<label>[^<]+\s*{re.escape(field)}", page), field
    assert re.search(r"<button>[^<]+</button>", page)


def test_who_fills_it_in_gets_a_test(visitor: Visitor) -> None:
    answer = visitor.client.post(f"/join/{visitor.code()}", data=HANAKO)
    assert answer.status_code == 200
    assert "テスト" in answer.text
    (made,) = visitor.office.ask("GET", "contacts")["contacts"]
    assert (made["name"], made["language"], made["groups"], made["reachable"]) == ("花子", "ja", ["farmers"], False)
    assert visitor.office.tests() == [("mail", "queued")]


def test_a_telephone_number_is_taken_as_it_is_typed_and_the_page_speaks_the_chosen_language(visitor: Visitor) -> None:
    said = {**HANAKO, "channel": "voice", "address": "050-0000-0001", "language": "en"}
    answer = visitor.client.post(f"/join/{visitor.code()}", data=said)
    assert 'lang="en"' in answer.text
    (made,) = visitor.office.ask("GET", "contacts")["contacts"]
    assert (made["addresses"][0]["address"], made["language"]) == ("+815000000001", "en")


def test_nobody_learns_that_an_address_is_known(visitor: Visitor) -> None:
    known = visitor.office.add(name="田中", addresses=[{"channel": "mail", "address": "hanako@example.jp"}])
    visitor.office.prove(known)
    visitor.office.gateway.now_us += 86_400_000_000
    texts = [
        visitor.client.post(f"/join/{visitor.code('hunters')}", data={**HANAKO, "address": to}).text
        for to in ("hanako@example.jp", "new@example.jp")
    ]
    assert texts[0] == texts[1]
    assert "田中" not in texts[0]
    assert len(visitor.office.tests()) == 2, "its owner hears of it, and need not answer"
    assert visitor.office.ask("GET", f"contacts/{known['id']}")["name"] == "田中"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"address": "not an address"}, "確かめてください"),
        ({"address": ""}, "確かめてください"),
        ({"channel": "line", "address": "U" + "1" * 32}, "確かめてください"),
        ({"channel": "pigeon"}, "確かめてください"),
        ({"name": " "}, "1文字から40文字"),
        ({"name": "長" * 41}, "1文字から40文字"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(visitor: Visitor, changed: dict[str, str], said: str) -> None:
    code = visitor.code()
    answer = visitor.client.post(f"/join/{code}", data={**HANAKO, **changed})
    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{({**HANAKO, **changed})["address"]}"' in answer.text
    assert visitor.office.names() == []
    assert visitor.client.post(f"/join/{code}", data=HANAKO).status_code == 200, "the code is not used up"


def test_a_code_that_never_was_and_one_that_is_over_look_the_same(visitor: Visitor) -> None:
    code = visitor.code()
    visitor.client.post(f"/join/{code}", data=HANAKO)
    over, wrong = (visitor.client.get(f"/join/{one}") for one in (code, "22222222"))
    assert (over.status_code, wrong.status_code) == (404, 404)
    assert over.text == wrong.text
    assert "使えません" in over.text
    assert visitor.client.post("/join/22222222", data=HANAKO).status_code == 404


def test_guessing_is_slow(visitor: Visitor) -> None:
    code = visitor.code()
    for _ in range(BURST):
        assert visitor.client.get(f"/join/{code[:2]}222222").status_code == 404
    limited = visitor.client.get(f"/join/{code}")
    assert limited.status_code == 429
    visitor.office.gateway.now_us += int(limited.headers["Retry-After"]) * 1_000_000
    assert visitor.client.get(f"/join/{code}").status_code == 200
    assert visitor.office.gateway.now_us > NOW_US


def test_what_is_typed_cannot_become_part_of_the_page(visitor: Visitor) -> None:
    said = {**HANAKO, "name": '"><script>alert(1)</script>', "address": "'><img src=x>"}
    page = visitor.client.post(f"/join/{visitor.code()}", data=said).text
    assert "<script" not in page
    assert "<img" not in page


def test_a_gateway_without_people_has_no_such_page(gateway: Gateway) -> None:
    assert gateway.client(None).get("/join/22222222").status_code == 404


@given(body=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_no_body_breaks_it(visitor: Visitor, body: bytes) -> None:
    code = visitor.code()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert visitor.client.post(f"/join/{code}", content=body, headers=headers).status_code in (400, 422)
    assert visitor.office.names() == []
