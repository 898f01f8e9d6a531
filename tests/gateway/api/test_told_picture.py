"""The picture behind a message: seen by who got the message, when it is here, as long as nobody saw a person in it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from gateway.alerting.escalation import Tell
from gateway.alerting.lifecycle import Alert
from gateway.api.answer import AnswerPage
from gateway.contacts.person import Person
from gateway.deployments import Deployments
from gateway.notify.links import Links
from gateway.notify.message import Message
from gateway.state import tables
from gateway.telling import About, Teller
from tests.gateway.api.conftest import BEARER, MINUTE_US, NOW_US, Gateway

LINKS = Links("https://gateway.example", b"k" * 32)
BYTES = b"\xff\xd8\xff\xda\0\2 a boar \xff\xd9"
SHA = hashlib.sha256(BYTES).hexdigest()
ID = "7d2f3c1e-0000-4000-8000-000000000001"
PAGE = LINKS.answer_url(ID, NOW_US + 60 * MINUTE_US).removeprefix("https://gateway.example")
PICTURE = f"{PAGE}/picture"


@pytest.fixture
def phone(gateway: Gateway) -> TestClient:
    """Of who was told of a boar; the picture is on its way. No token."""
    gateway.insert(tables.alerts, kind="camera", summary="detection", facts=json.dumps({"content": "animal", "media": SHA}))
    gateway.insert(tables.notifications, id=ID, body=Message(id=ID, title="【カメラ】", body="写りました。").model_dump_json())
    gateway.insert(tables.pictures, sha256=SHA, content="animal")
    page = AnswerPage(gateway.state, LINKS, ZoneInfo("Asia/Tokyo"), lambda: gateway.now_us, lambda _, name: name, lambda *_: None)
    return Gateway(replace(gateway.deps, answer_page=page), gateway.state, gateway.store).client(None)


def arrive(gateway: Gateway) -> None:
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(BYTES)), "Content-Type": "image/jpeg", **BEARER["node"]}
    assert gateway.client("node").patch(f"/api/v1/media/{SHA}", content=BYTES, headers=headers).status_code == 200


def test_text_goes_first_and_the_picture_is_on_the_same_page_when_it_has_arrived(gateway: Gateway, phone: TestClient) -> None:
    assert "写真はまだ届いていません" in phone.get(PAGE).text
    assert phone.get(PICTURE).status_code == 404
    arrive(gateway)
    assert f'<img class="picture" src="{PICTURE}"' in phone.get(PAGE).text
    got = phone.get(PICTURE)
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, BYTES, "image/jpeg")
    assert "no-store" in got.headers["cache-control"]


@pytest.mark.parametrize(
    "closes",
    [
        lambda gateway: gateway.client().post(f"/api/v1/media/{SHA}/confirm", json={"content": "person_or_vehicle"}),
        lambda gateway: gateway.insert(tables.pictures, sha256=SHA, node="minami-01", content="unsure"),
    ],
)
def test_one_in_which_somebody_may_be_is_taken_from_who_was_told_already(
    gateway: Gateway, phone: TestClient, closes: Callable[[Gateway], object]
) -> None:
    arrive(gateway)
    closes(gateway)
    assert phone.get(PICTURE).status_code == 404
    assert "picture" not in phone.get(PAGE).text.partition("</style>")[2]


def test_a_link_that_ended_or_is_none_shows_nothing(gateway: Gateway, phone: TestClient) -> None:
    arrive(gateway)
    forged = (
        Links("https://gateway.example", b"x" * 32).answer_url(ID, NOW_US + MINUTE_US).removeprefix("https://gateway.example")
    )
    assert phone.get(f"{forged}/picture").status_code == 404
    gateway.now_us += 61 * MINUTE_US
    assert phone.get(PICTURE).status_code == 404


def test_a_message_about_a_picture_has_a_link_to_it_and_others_have_none() -> None:
    teller = Teller(Deployments([]), ZoneInfo("Asia/Tokyo"), answer_url=LINKS.answer_url)
    person = Person(contact="c" * 16, name="Example Taro", language="ja", addresses=())
    for facts, labels in (({"content": "animal", "media": SHA}, ["写真"]), ({"content": "unsure", "media_all": [SHA]}, [])):
        alert = Alert("a", "cam", "camera", "warning", "kitayama-04", "cam-02", "o", "firing", NOW_US, late=False,
                      summary="detection", facts=json.dumps(facts))  # fmt: skip
        about = About("p", "camera", "warning", NOW_US, [alert])
        message = teller.message(ID, person, Tell("c" * 16, "alert", "alert", "k", asks=True), about, NOW_US)
        assert [link.label for link in message.links] == labels
