"""The family's page and the helpers': one sentence with its age, a search and its buttons; who may not look is told so."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from gateway.notify.links import Links
from gateway.pages.ruby import with_ruby
from gateway.state import tables
from tests.gateway.mimamori.searching import HANA, IDS, LINKS, Searching
from tests.gateway.paged import HOUR_US, MINUTE_US, NOW_US


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        yield made


@pytest.fixture
def phone(town: Searching) -> TestClient:
    return town.client()


def page(who: str = "haruka") -> str:
    return LINKS.family_url(HANA, IDS[who], NOW_US + 24 * HOUR_US).removeprefix("https://gateway.example")


def helpers(who: str, case: str) -> str:
    return LINKS.search_url(case, IDS[who], NOW_US + 24 * HOUR_US).removeprefix("https://gateway.example")


def said(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


# --- The sentence -------------------------------------------------------------------------------------


def at_home(town: Searching, *, alive_ago_us: int) -> None:
    heard_us = town.now_us - 3 * MINUTE_US
    town.remembers(
        seen_us=heard_us, seen_at="tsubaki/tags", alive={"tsubaki/tags": town.now_us - alive_ago_us},
        at={"tsubaki/tags": {"near": True, "heard_us": heard_us}},
    )  # fmt: skip


def test_at_home_speaks_of_the_tag_and_not_of_the_person(town: Searching, phone: TestClient) -> None:
    at_home(town, alive_ago_us=0)
    assert "タグは家にあります（ご本人の在宅は確認できません。3分前の確認）。" in said(phone.get(page()).text)


def test_a_receiver_that_is_down_is_no_tag_at_home(town: Searching, phone: TestClient) -> None:
    at_home(town, alive_ago_us=HOUR_US)
    text = said(phone.get(page()).text)
    assert "受信機が止まっているため、今の様子は分かりません（最後の確認は3分前、つばきの家の近く。" in text
    assert "家にあります" not in text


def test_away_says_where_it_was_with_its_age(town: Searching, phone: TestClient) -> None:
    town.remembers(seen_us=town.now_us - 12 * MINUTE_US, seen_at="kominkan/tags", alive={"tsubaki/tags": town.now_us})
    assert "（最後の確認は12分前、中央公民館の近く。今の場所ではありません）" in said(phone.get(page()).text)


def test_never_heard_is_said_and_so_is_what_was_forgotten(town: Searching, phone: TestClient) -> None:
    assert "タグはまだ一度も確認されていません。" in said(phone.get(page()).text)
    town.remembers(seen_us=town.now_us - 15 * 24 * HOUR_US)
    assert "場所の記録はもう残っていません。" in said(phone.get(page()).text)


@pytest.mark.parametrize(("language", "word"), [("ja", "続けます"), ("ja-easy", "続（つづ）けます"), ("en", "Go on")])
def test_in_each_language_it_is_small_and_without_a_script(town: Searching, phone: TestClient, language: str, word: str) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.contacts).values(language=language))
    at_home(town, alive_ago_us=0)
    case = town.opened()
    for path in (page(), helpers("ichi", case)):
        answer = phone.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 30 * 1024
        assert "<script" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    assert f">{with_ruby(word)}</button>" in phone.get(page()).text


# --- The buttons --------------------------------------------------------------------------------------


def test_looking_changes_nothing(town: Searching, phone: TestClient) -> None:
    before = (town.rows(tables.search_cases), town.ledger())
    phone.get(page())
    phone.head(page())
    assert (town.rows(tables.search_cases), town.ledger()) == before


def test_a_program_that_only_tries_the_link_has_not_looked(town: Searching, phone: TestClient) -> None:
    def looks() -> int:
        return sum(row["action"] == "look" for row in town.rows(tables.audit_details))

    assert (phone.head(page()).status_code, looks()) == (200, 0)
    assert (phone.get(page()).status_code, looks()) == (200, 1)


def test_search_needs_a_reason_and_tells_everybody(town: Searching, phone: TestClient) -> None:
    answer = phone.post(page(), data={"act": "search", "reason": " "})
    assert (answer.status_code, "理由を書いてください。" in answer.text) == (422, True)
    assert town.rows(tables.search_cases) == []
    answer = phone.post(page(), data={"act": "search", "reason": "<b>散歩</b>から戻らない"})
    assert answer.status_code == 200
    assert "&lt;b&gt;散歩&lt;/b&gt;から戻らない" in answer.text
    assert set(town.told()) == {"haruka", "minoru", "yakuba", "ichi", "ni", "san"}
    assert phone.post(page("minoru"), data={"act": "search", "reason": "まだ"}).status_code == 200
    assert len(town.rows(tables.search_cases)) == 1


def test_found_ends_it_and_pressed_again_says_how_it_stands(town: Searching, phone: TestClient) -> None:
    town.opened()
    assert "見つかりました。捜索は終わりです。" in said(phone.post(page("minoru"), data={"act": "found"}).text)
    assert phone.post(page("minoru"), data={"act": "found"}).status_code == 409
    assert town.history() == [("haruka", "opened"), ("minoru", "found")]


def test_paused_it_asks_and_goes_on(town: Searching, phone: TestClient) -> None:
    case = town.opened()
    town.wait(2 * HOUR_US, 30 * MINUTE_US)
    assert "捜索は一時停止中です。" in said(phone.get(page()).text)
    phone.post(page(), data={"act": "renew"})
    assert town.case()["state"] == "open"
    assert phone.get(helpers("ichi", case)).status_code == 200


@pytest.mark.parametrize("act", ["", "close", "open", "../found"])
def test_another_act_is_refused(town: Searching, phone: TestClient, act: str) -> None:
    town.opened()
    assert phone.post(page(), data={"act": act}).status_code == 422
    assert town.case()["state"] == "open"


# --- Who may look -------------------------------------------------------------------------------------


def test_the_link_in_a_message_opens_the_page(town: Searching, phone: TestClient) -> None:
    town.misses()
    town.tick()
    assert "ハナさんの見守り" in phone.get(town.link("haruka")).text
    town.opened()
    assert "ハナさんのタグ" in phone.get(town.link("ichi")).text


def test_who_left_the_family_sees_nothing_any_more(town: Searching, phone: TestClient) -> None:
    at_home(town, alive_ago_us=0)
    with town.state.write() as connection:
        connection.execute(delete(tables.memberships).where(tables.memberships.c.contact == IDS["minoru"]))
    for answer in (phone.get(page("minoru")), phone.post(page("minoru"), data={"act": "search", "reason": "x"})):
        assert answer.status_code == 403
        assert "ハナ" not in answer.text
        assert "家にあります" not in answer.text
    assert town.rows(tables.search_cases) == []


def test_helpers_see_it_while_it_is_open_and_only_then(town: Searching, phone: TestClient) -> None:
    case = town.opened()
    town.heard("eki")
    town.tick()
    assert "駅前の近く" in phone.get(helpers("ichi", case)).text
    assert "<button" not in phone.get(helpers("ichi", case)).text
    answers = LINKS.answer_url(town.last("ichi").id, town.now_us + 9 * HOUR_US).removeprefix("https://gateway.example")
    assert phone.get(answers).status_code == 200
    town.wait(2 * HOUR_US, 30 * MINUTE_US)
    for answer in (phone.get(helpers("ichi", case)), phone.get(answers), phone.post(answers, data={"answer": "going"})):
        assert (answer.status_code, "捜索は一時停止中です" in answer.text) == (403, True)
        assert "駅前" not in answer.text
        assert "ハナ" not in answer.text
    town.does("found", case, "haruka")
    answer = phone.get(helpers("ichi", case))
    assert (answer.status_code, "捜索は終わりました" in answer.text, "ハナ" in answer.text) == (410, True, False)


def test_who_was_not_asked_sees_no_search(town: Searching, phone: TestClient) -> None:
    case = town.opened()
    assert phone.get(helpers("yon", case)).status_code == 404
    assert phone.get(helpers("ichi", "00000000-0000-4000-8000-000000000000")).status_code == 410


def test_a_link_ends_and_opens_nothing_else(town: Searching, phone: TestClient) -> None:
    case = town.opened()
    old = LINKS.family_url(HANA, IDS["haruka"], NOW_US - 1_000_000).removeprefix("https://gateway.example")
    assert phone.get(old).status_code == 410
    token = page().removeprefix("/m/")
    for path in (f"/s/{token}", f"/a/{token}", f"/m/{helpers('ichi', case)[3:]}", f"/m/{token[:-1]}", "/m/x"):
        assert phone.get(path).status_code == 404, path
    foreign = Links("https://gateway.example", bytes(32)).family_url(HANA, IDS["haruka"], NOW_US + HOUR_US)
    assert phone.get(foreign.removeprefix("https://gateway.example")).status_code == 404


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=100))
def test_no_text_is_taken_for_a_link(token: str) -> None:
    assert not isinstance(LINKS.read_family(token, NOW_US), tuple)
    assert not isinstance(LINKS.read_search(token, NOW_US), tuple)
