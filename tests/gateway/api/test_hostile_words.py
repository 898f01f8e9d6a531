"""Names and notes as nobody hopes for them, through every page, message and table: shown as they were typed, never run."""

import email
import json
from email import policy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from gateway.contacts.config import GroupConfig
from gateway.notify import line, mail, twilio
from gateway.notify.message import Button, Link, Message
from gateway.pages import render
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.office import GROUPS, Office

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raise %}",
    "\u202etnatropmi\u2066",
    "𠮷野家🐗",
    "北尾根\r\nBcc: everybody@example.jp",
    '=HYPERLINK("https://evil.example")',
    "javascript:alert(1)",
    "]]>&lt;Say&gt;&amp;",
]
ZONE = ZoneInfo("Asia/Tokyo")


class Elements(HTMLParser):
    """The elements of a page, and the attributes that could run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.running: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.running += [
            name for name, value in attrs if name.startswith("on") or (value or "").lower().startswith("javascript:")
        ]


def elements(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    return found


def verbs(twiml: str) -> set[str]:
    return {one.tag for one in ET.fromstring(twiml).iter()}  # noqa: S314 - our own


def message(text: str, **changed: Any) -> Message:
    return Message(id="n-1", title=text, body=text, buttons=(Button(answer="going", label="行きます"),),
                   links=(Link(label="地図", url="https://gateway.example/a/x"),), **changed)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("template", ["problem.html"])
def test_what_was_typed_is_shown_and_never_run(template: str, text: str) -> None:
    plain = elements(bytes(render(template, "ja", ZONE, title="x", body="x", phone=None).body).decode())
    page = elements(bytes(render(template, "ja", ZONE, title=text, body=text, phone=None).body).decode())
    assert (page.tags, page.running) == (plain.tags, [])


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_to_join_by_shows_a_groups_name_as_text(gateway: Gateway, tmp_path: Path, text: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(GROUPS, "farmers", GroupConfig(label=text))
    office = Office(gateway, tmp_path / "people")
    made = office.ask("POST", "invitations", {"group": "farmers"}, 201)
    page = gateway.client(None, desk=office.desk).get(f"/join/{made['code']}")
    found = elements(page.text)
    assert page.status_code == 200
    assert found.running == []
    assert not {"script", "img", "svg"} & set(found.tags)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_contacts_name_goes_into_the_api_and_comes_out_as_json(gateway: Gateway, tmp_path: Path, text: str) -> None:
    office = Office(gateway, tmp_path / "people")
    answer = office.client.post("/api/v1/contacts", json={"name": text, "groups": ["farmers"], "addresses": []})
    assert answer.status_code in (201, 422)
    assert answer.headers["Content-Type"].startswith("application/")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.status_code == 201:
        assert office.ask("GET", f"contacts/{answer.json()['id']}")["name"] in (
            text,
            " ".join(text.split()),
            text.strip("\u202e\u2066"),
        )
    json.loads(answer.content)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_mail_is_one_mail_to_one_person_and_its_page_holds_only_our_elements(text: str) -> None:
    config = mail.MailConfig.model_validate({"host": "127.0.0.1", "from": "satomori@example.jp"})
    raw = mail.compose("n-1", "tanaka@example.jp", message(text), config, 1_780_434_720_000_000).as_bytes()
    read = email.message_from_bytes(raw, policy=policy.default)
    assert (read["To"], read["Bcc"], len(read.get_all("Subject", []))) == ("tanaka@example.jp", None, 1)
    page = read.get_body(("html",))
    assert page is not None
    plain = mail.compose("n-1", "tanaka@example.jp", message("x"), config, 1_780_434_720_000_000).get_body(("html",))
    assert plain is not None
    found, wanted = elements(page.get_content()), elements(plain.get_content())
    assert (set(found.tags) - {"br"}, found.running) == (set(wanted.tags) - {"br"}, [])


@pytest.mark.parametrize("text", HOSTILE)
def test_a_call_says_it_and_is_told_nothing_by_it(text: str) -> None:
    asks = twilio.asking(message(text), text, "https://gateway.example/k", 1)
    assert verbs(asks) == {"Response", "Gather", "Say", "Pause"}
    assert verbs(twilio.saying(text, "ja")) == {"Response", "Say", "Hangup"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_bubble_has_the_words_as_words_and_no_address_of_theirs(text: str) -> None:
    def addresses(value: Any) -> set[str]:
        if isinstance(value, dict):
            here = {value["uri"]} if "uri" in value else set()
            return here.union(*map(addresses, value.values()))
        return set().union(*map(addresses, value)) if isinstance(value, list) else set()

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(one) for name, one in value.items()}
        return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__

    made, plain = line.shaped(message(text)), line.shaped(message("x"))
    assert shape(made) == shape(plain)
    assert addresses(made) == addresses(plain)
    json.dumps(made, ensure_ascii=False).encode()
