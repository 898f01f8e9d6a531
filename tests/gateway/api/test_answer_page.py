"""The page behind the link in a message: what it shows, what an answer does, and what a stranger or a preview can not."""

import base64
import hashlib
import html
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError

from gateway.notify.message import Button, Message
from gateway.state import tables
from tests.gateway.api.answering import LINKS, NAVIGATES, Answering
from tests.gateway.paged import HOUR_US, MINUTE_US


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Answering]:
    with Answering(tmp_path) as made:
        yield made


def without_ruby(answer: Response) -> str:
    """A word is one piece, with its reading in brackets."""
    return re.sub(r"</?(ruby|rp|rt)>", "", answer.text)


def text_of(answer: Response) -> str:
    """What is read on the page."""
    body = re.sub(r"<style>.*?</style>", "", without_ruby(answer), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def buttons_of(answer: Response) -> list[tuple[str, str]]:
    return [
        (value, html.unescape(label))
        for value, label in re.findall(r'<button name="answer" value="(\w+)"[^>]*>([^<]+)<', without_ruby(answer))
    ]


def everything(town: Answering) -> list[Any]:
    """All that a request could have changed."""
    return [town.rows(table) for table in (tables.notifications, tables.answers, tables.pages, tables.alerts, tables.addresses)]


# --- What it shows ----------------------------------------------------------------------------------


def test_it_shows_the_message_its_age_how_things_stand_and_what_can_be_answered(town: Answering) -> None:
    town.fire()
    town.sent()
    town.now_us += 10 * MINUTE_US
    page = town.client.get(town.link("tanaka"))
    shown = text_of(page)
    assert page.status_code == 200
    assert "【わな作動】北尾根 3番" in shown
    assert "10分前の知らせ（6月3日 午前6時12分）" in shown
    assert "今の状況（午前6時22分）" in shown
    assert "まだ誰も返事をしていません。 あと2人必要です。" in shown
    assert buttons_of(page) == [("going", "行きます"), ("cannot", "行けません")]


def test_who_goes_and_how_many_are_needed_is_as_it_is_now_and_not_as_it_was(town: Answering) -> None:
    town.fire()
    link = town.link("tanaka")
    town.answer("sato", "going")
    shown = text_of(town.client.get(link))
    assert "satoさんが行きます。 あと1人必要です。" in shown
    assert "まだ誰も向かっていません" not in shown
    town.answer("tanaka", "going")
    shown = text_of(town.client.get(link))
    assert "satoさん、tanakaさんが行きます。 人数がそろいました。" in shown
    assert "あなたの返事：行きます" in shown


def test_what_is_over_says_so_and_asks_nothing(town: Answering) -> None:
    alert = town.fire()
    link = town.link("tanaka")
    town.becomes(alert, "resolved")
    town.tick()
    page = town.client.get(link)
    assert "この知らせは終わっています" in text_of(page)
    assert buttons_of(page) == []
    assert "まだ誰も" not in text_of(page)


def test_an_old_message_says_that_things_may_have_changed(town: Answering) -> None:
    town.fire()
    town.sent()
    link = town.link("tanaka")
    assert "古い知らせです" not in text_of(town.client.get(link))
    town.now_us += HOUR_US
    assert "古い知らせです" in text_of(town.client.get(link))


@pytest.mark.parametrize(
    ("language", "lang", "button", "now"),
    [
        ("ja", "ja", "行きます", "今の状況"),
        ("ja-easy", "ja", "行（い）きます", "今（いま）の 様子（ようす）"),
        ("en", "en", "I will go", "How it stands now"),
    ],
)
def test_it_speaks_the_language_of_who_was_told(town: Answering, language: str, lang: str, button: str, now: str) -> None:
    town.speaks("tanaka", language)
    town.fire()
    page = town.client.get(town.link("tanaka"), headers={"Accept-Language": "fr"})
    assert f'<html lang="{lang}">' in page.text
    assert buttons_of(page)[0] == ("going", button)
    assert now in text_of(page)


def test_only_links_that_open_a_page_or_a_telephone_are_shown(town: Answering) -> None:
    town.fire()
    message = town.last("tanaka")
    links = [{"label": "地図", "url": "https://map.example/?q=1&z=2"}, {"label": "悪い", "url": "javascript:alert(1)"}]
    body = json.dumps({**message.model_dump(mode="json"), "links": links, "title": "<b>&"}, ensure_ascii=False)
    with town.state.write() as connection:
        connection.execute(update(tables.notifications).where(tables.notifications.c.id == message.id).values(body=body))
    page = town.client.get(town.link("tanaka"))
    assert 'href="https://map.example/?q=1&amp;z=2"' in page.text
    assert "javascript" not in page.text
    assert "&lt;b&gt;&amp;" in page.text
    assert "<b>" not in page.text


# --- What it is made of -----------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["ja", "ja-easy", "en"])
def test_it_is_small_needs_no_script_and_nothing_from_elsewhere(town: Answering, language: str) -> None:
    town.speaks("tanaka", language)
    town.fire()
    page = town.client.get(town.link("tanaka"))
    assert len(page.content) <= 30 * 1024
    assert "<script" not in page.text
    assert re.findall(r'(?:src|href|action)="(?!https://|tel:|/a/)', page.text) == []
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "script-src" not in policy


def test_nobody_keeps_it_shows_it_in_a_frame_or_learns_where_it_was(town: Answering) -> None:
    town.fire()
    headers = town.client.get(town.link("tanaka")).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "noindex" in headers["X-Robots-Tag"]


# --- GET changes nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{}, {"User-Agent": "facebookexternalhit/1.1;line-poker/1.0"}, {**NAVIGATES, "Sec-Purpose": "prefetch;prerender"},
     {**NAVIGATES, "Sec-Fetch-Dest": "iframe"}],
)  # fmt: skip
def test_a_preview_changes_nothing(town: Answering, headers: dict[str, str]) -> None:
    town.fire()
    town.sent()
    link, before = town.link("tanaka"), everything(town)
    assert town.client.get(link, headers=headers).status_code == 200
    assert town.client.head(link, headers=headers).status_code == 200
    assert everything(town) == before


def test_that_a_person_opened_it_is_noted_once_and_answers_nothing(town: Answering) -> None:
    town.fire()
    town.sent()
    link, opened_us = town.link("tanaka"), town.now_us + MINUTE_US
    town.now_us = opened_us
    town.client.get(link, headers=NAVIGATES)
    town.now_us += MINUTE_US
    town.client.get(link, headers=NAVIGATES)
    row = town.row("tanaka")
    assert (row["state"], row["seen_us"], row["answered_us"]) == ("seen", opened_us, None)
    assert town.rows(tables.answers) == []
    assert town.page()["state"] == "asking"


def test_it_opens_while_the_database_can_not_be_written(town: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    town.fire()
    link = town.link("tanaka")
    monkeypatch.setattr(type(town.state), "write", locked)
    assert town.client.get(link, headers=NAVIGATES).status_code == 200


def locked(*_: object) -> None:
    raise OperationalError("BEGIN IMMEDIATE", None, Exception("database is locked"))


# --- Answering --------------------------------------------------------------------------------------


def test_an_answer_is_taken_said_back_and_told_to_the_others(town: Answering) -> None:
    town.fire()
    town.new()
    page = town.client.post(town.link("tanaka"), data={"answer": "going"})
    shown = text_of(page)
    assert page.status_code == 200
    assert "返事を受け取りました" in shown
    assert "近づかず、必ず2人以上で確認してください。" in shown
    assert "tanakaさんが行きます。 あと1人必要です。" in shown
    assert ("sato", "update") in town.new()
    row = town.row("tanaka")
    assert (row["state"], row["answered_us"]) == ("answered", town.now_us)
    assert [(one["contact"], one["answer"], one["via"]) for one in town.rows(tables.answers)] == [("tanaka", "going", "link")]


def test_pressed_twice_it_is_one_answer_and_nobody_hears_it_twice(town: Answering) -> None:
    town.fire()
    link = town.link("tanaka")
    town.client.post(link, data={"answer": "going"})
    town.new()
    page = town.client.post(link, data={"answer": "going"})
    assert page.status_code == 200
    assert "返事を受け取りました" in text_of(page)
    assert len(town.rows(tables.answers)) == 1
    assert town.new() == []


def test_a_changed_mind_counts(town: Answering) -> None:
    town.fire()
    link = town.link("tanaka")
    town.client.post(link, data={"answer": "going"})
    assert "ほかの人に頼みます" in text_of(town.client.post(link, data={"answer": "cannot"}))
    assert "まだ誰も返事をしていません。 あと2人必要です。" in text_of(town.client.get(link))


def test_an_answer_to_what_is_over_is_not_taken_and_says_why(town: Answering) -> None:
    alert = town.fire()
    link = town.link("tanaka")
    town.becomes(alert, "resolved")
    town.tick()
    page = town.client.post(link, data={"answer": "going"})
    assert page.status_code == 409
    assert "この知らせはすでに終わっています。返事はもう要りません。" in text_of(page)
    assert town.rows(tables.answers) == []


@pytest.mark.parametrize("answer", ["found", "", "GOING", "going\n", "x" * 20])
def test_only_what_the_message_offers_can_be_answered(town: Answering, answer: str) -> None:
    town.fire()
    before = everything(town)
    page = town.client.post(town.link("tanaka"), data={"answer": answer})
    assert page.status_code == 422
    assert everything(town) == before


def test_an_answer_that_can_not_be_kept_says_so(town: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    town.fire()
    link = town.link("tanaka")
    monkeypatch.setattr(type(town.state), "write", locked)
    page = town.client.post(link, data={"answer": "going"})
    assert page.status_code == 503
    assert "返事を保存できませんでした。" in text_of(page)


def test_the_answer_to_a_test_proves_the_address(town: Answering) -> None:
    id_ = str(uuid.uuid4())
    message = Message(
        id=id_, kind="test", title="【連絡のテスト】", body="届きましたか。", buttons=(Button(answer="seen", label="届きました"),)
    )
    with town.state.write() as connection:
        connection.execute(update(tables.addresses).where(tables.addresses.c.id == "sato-line").values(state="new"))
        connection.execute(
            insert(tables.notifications),
            {"id": id_, "contact": "sato", "address": "sato-line", "channel": "line", "state": "sent", "kind": "test",
             "body": message.model_dump_json(), "created_us": town.now_us, "due_us": town.now_us, "attempts": 1},
        )  # fmt: skip
    link = LINKS.answer_url(id_, town.now_us + HOUR_US).removeprefix("https://gateway.example")
    assert buttons_of(town.client.get(link)) == [("seen", "届きました")]
    page = town.client.post(link, data={"answer": "seen"})
    assert "届いたことを確認しました。" in text_of(page)
    assert "https://gateway.example/push/of-sato" in page.text, "one more way, for who has just proved one"
    with town.state.read() as connection:
        address = connection.execute(select(tables.addresses).where(tables.addresses.c.id == "sato-line")).one()
    assert (address.state, address.heard_us) == ("proved", town.now_us)


# --- Links that lead nowhere ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_link_that_is_too_old_says_what_to_do_and_does_nothing(town: Answering, method: str) -> None:
    town.fire()
    link = town.link("tanaka", lasts_us=HOUR_US)
    town.now_us += HOUR_US
    before = everything(town)
    page = town.client.request(method, link, data={"answer": "going"} if method == "POST" else None, headers=NAVIGATES)
    assert page.status_code == 410
    assert "リンクの期限が過ぎています" in text_of(page)
    assert "市役所に電話してください。" in text_of(page)
    assert everything(town) == before


def test_a_forged_link_learns_nothing(town: Answering) -> None:
    town.fire()
    link = town.link("tanaka")
    forged = [link[:-1] + ("A" if link[-1] != "A" else "B"), "/a/x", f"/a/{'A' * 43}", f"/a/{town.last('tanaka').id}"]
    before = everything(town)
    for one in forged:
        for page in (town.client.get(one, headers=NAVIGATES), town.client.post(one, data={"answer": "going"})):
            assert page.status_code == 404
            assert "このリンクは使えません" in text_of(page)
            assert "北尾根" not in page.text
    assert everything(town) == before


def test_a_message_that_is_no_longer_kept_is_said_to_be_gone(town: Answering) -> None:
    link = LINKS.answer_url(str(uuid.uuid4()), town.now_us + HOUR_US).removeprefix("https://gateway.example")
    assert town.client.get(link).status_code == 404
    assert "この知らせは見つかりません" in text_of(town.client.post(link, data={"answer": "going"}))


def test_who_is_not_known_is_spoken_to_as_the_browser_asks(town: Answering) -> None:
    english = town.client.get("/a/x", headers={"Accept-Language": "en-GB,en;q=0.9,ja;q=0.1"})
    assert "This link cannot be used" in english.text
    assert '<html lang="en">' in english.text
    assert "このリンクは使えません" in town.client.get("/a/x", headers={"Accept-Language": "ja"}).text


@pytest.fixture(scope="module")
def quiet_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    with Answering(tmp_path_factory.mktemp("quiet")) as made:
        made.fire()
        yield made


@given(
    body=st.binary(max_size=60),
    kind=st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "a/b"]),
)
@settings(deadline=None)
def test_no_body_of_a_form_breaks_it_or_is_taken_for_an_answer(quiet_town: Answering, body: bytes, kind: str) -> None:
    page = quiet_town.client.post(quiet_town.link("tanaka"), content=body, headers={"Content-Type": kind})
    assert 400 <= page.status_code < 500
    assert quiet_town.rows(tables.answers) == []


def test_who_opens_the_link_of_a_message_that_stood_in_answers_the_one_that_arrived(town: Answering) -> None:
    town.fire()
    link = town.link("tanaka")
    first = next(row for row in town.rows(tables.notifications) if row["contact"] == "tanaka")
    with town.state.write() as connection:
        mine = tables.notifications.c.id == first["id"]
        connection.execute(update(tables.notifications).where(mine).values(state="failed_over", sent_us=None))
        row = {**first, "id": str(uuid.UUID(int=7)), "state": "sent", "sent_us": town.now_us, "failed_over_from": first["id"]}
        connection.execute(insert(tables.notifications), row)
    town.client.get(link, headers=NAVIGATES)
    town.client.post(link, data={"answer": "going"})
    states = {row["id"]: (row["state"], row["seen_us"]) for row in town.rows(tables.notifications) if row["contact"] == "tanaka"}
    assert states[first["id"]] == ("failed_over", None)
    assert states[str(uuid.UUID(int=7))] == ("answered", town.now_us)
