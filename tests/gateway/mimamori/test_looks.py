"""Every look at where somebody's tag was is written down before it is answered, with who and why; the family reads it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, update

from gateway.audit import record
from gateway.audit.acts import WITH
from gateway.mimamori.enrolled import Enrolled
from gateway.mimamori.looks import EVERY_US, log_of, looked
from gateway.state import tables
from tests.gateway.mimamori.searching import HANA, IDS, LINKS, TAG, Searching
from tests.gateway.paged import HOUR_US, NOW_US

MINUTE_US = 60_000_000


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        made.remembers(seen_us=made.now_us - 12 * MINUTE_US, seen_at="kominkan/tags", alive={"tsubaki/tags": made.now_us})
        yield made


@pytest.fixture
def officer(town: Searching) -> TestClient:
    enrolled = Enrolled()
    with town.state.read() as connection:
        enrolled.read(connection)
    return town.client("officer", enrolled=enrolled)


def looks(town: Searching) -> list[tuple[str, str, str]]:
    """(who, how, why), the oldest first."""
    details = tables.audit_details
    with town.state.read() as connection:
        rows = connection.execute(select(details).where(details.c.action == "look").order_by(details.c.id)).all()
    assert all(row.thing == f"watched/{HANA}" for row in rows)
    return [(row.who, json.loads(row.more)["what"], row.why) for row in rows]


def page(who: str = "haruka", more: str = "") -> str:
    return LINKS.family_url(HANA, IDS[who], NOW_US + 24 * HOUR_US).removeprefix("https://gateway.example") + more


def helpers(who: str, case: str) -> str:
    return LINKS.search_url(case, IDS[who], NOW_US + 24 * HOUR_US).removeprefix("https://gateway.example")


def said(html: str) -> str:
    html = re.sub(r"</?(ruby|rp|rt)>", "", html)  # within a word
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


# --- Staff ------------------------------------------------------------------------------------------------


def test_an_officer_says_why_and_that_is_written_down(town: Searching, officer: TestClient) -> None:
    answer = officer.get("/api/v1/watched")
    assert (answer.status_code, answer.json()["title"]) == (400, "見る理由を書いてください。")
    assert ("?why=" in answer.json()["detail"], "中央公民館" in answer.text) == (True, False)
    assert looks(town) == []
    answer = officer.get("/api/v1/watched", params={"why": "家族からの電話"})
    assert answer.json()["watched"][0]["place"] == "中央公民館"
    assert looks(town) == [("token:tanaka", "place", "家族からの電話")]


def test_nobody_can_write_a_search_for_a_reason_that_there_is_not(officer: TestClient) -> None:
    assert officer.get("/api/v1/watched", params={"why": "search/x"}).status_code == 400
    assert officer.get("/api/v1/watched", params={"why": "  "}).status_code == 400


def test_without_places_there_is_no_place_and_no_look(town: Searching, officer: TestClient) -> None:
    [one] = officer.get("/api/v1/watched?places=false").json()["watched"]
    assert [one[name] for name in ("name", "state", "place", "seen_us", "age_s")] == ["ハナさん", None, None, None, None]
    assert looks(town) == []


def test_a_change_answers_without_the_place(officer: TestClient) -> None:
    told = {"name": "ハナさん", "family": "family-hana", "homes": ["tsubaki/tags"]}
    answer = officer.put(f"/api/v1/watched/{HANA}", json=told)
    assert (answer.status_code, answer.json()["place"], answer.json()["state"]) == (200, None, None)


def test_a_search_or_an_alert_is_reason_enough(town: Searching, officer: TestClient) -> None:
    alert = town.misses()
    assert officer.get("/api/v1/watched").status_code == 200
    case = town.opened()
    town.now_us += EVERY_US
    assert officer.get("/api/v1/watched").status_code == 200
    assert looks(town) == [("token:tanaka", "place", f"alert/{alert.id}"), ("token:tanaka", "place", f"search/{case}")]


def test_looks_in_a_row_are_one_and_another_way_of_looking_another(town: Searching, officer: TestClient) -> None:
    case = town.opened()
    for _ in range(3):
        officer.get(f"/api/v1/searches/{case}")
        town.now_us += EVERY_US // 4
    officer.get("/api/v1/watched")
    assert [what for _, what, _ in looks(town)] == ["search", "place"]
    town.now_us += EVERY_US
    officer.get(f"/api/v1/searches/{case}")
    assert [what for _, what, _ in looks(town)] == ["search", "place", "search"]


def test_who_changes_a_search_sees_places_in_the_answer(town: Searching, officer: TestClient) -> None:
    case = town.opened()
    officer.post(f"/api/v1/searches/{case}/renew")
    assert looks(town) == [("token:tanaka", "search", f"search/{case}")]


def test_alerts_about_somebody_are_looks(town: Searching, officer: TestClient) -> None:
    alert = town.misses()
    officer.get("/api/v1/alerts")
    officer.get(f"/api/v1/alerts/{alert.id}")
    assert [look[1:] for look in looks(town)] == [("alerts", f"alert/{alert.id}"), ("alert", f"alert/{alert.id}")]


def test_an_alert_that_is_over_is_shown_to_staff_with_a_reason_only(town: Searching, officer: TestClient) -> None:
    alert = town.misses()
    town.becomes(alert, "resolved")
    one = f"/api/v1/alerts/{alert.id}"
    assert officer.get("/api/v1/alerts").json()["alerts"] == []
    refused = officer.get(one)
    assert (refused.status_code, "left home" in refused.text, "?why=" in refused.text) == (400, False, True)
    assert officer.get("/api/v1/alerts?why=alert/x").status_code == 400
    assert looks(town) == []
    why = {"why": "家族からの電話"}
    assert [row["id"] for row in officer.get("/api/v1/alerts", params=why).json()["alerts"]] == [alert.id]
    assert officer.get(one, params=why).json()["summary"] == "left home"
    assert looks(town) == [("token:tanaka", what, "家族からの電話") for what in ("alerts", "alert")]


def test_an_answer_that_shows_an_alert_is_a_look(town: Searching, officer: TestClient) -> None:
    alert = town.misses()
    acts: list[tuple[str, dict[str, Any]]] = [
        ("acknowledge", {}), ("shelve", {"until_us": town.now_us + 24 * HOUR_US}), ("unshelve", {}),
        ("resolve", {"why": "会えた"}),
    ]  # fmt: skip
    for number, (act, more) in enumerate(acts, 1):
        town.now_us += EVERY_US
        answer = officer.post(f"/api/v1/alerts/{alert.id}/{act}", json=more)
        assert (answer.status_code, answer.json().get("summary")) == (200, "left home"), act
        assert looks(town) == [("token:tanaka", "alert", f"alert/{alert.id}")] * number
    assert officer.post(f"/api/v1/alerts/{alert.id}/acknowledge").status_code == 409
    assert len(looks(town)) == len(acts)


def test_every_sighting_in_its_order_is_shown_in_a_search_only(town: Searching, officer: TestClient) -> None:
    for place in ("tsubaki", "kominkan", "eki"):
        town.heard(place)
    town.heard("eki", tag="ibeacon:0f:9:9")  # nobody's

    def heard() -> list[str]:
        return [one["node"] for one in officer.get("/api/v1/events").json()["events"]]

    assert heard() == []
    case = town.opened()
    assert heard() == ["eki", "kominkan", "tsubaki"]
    assert looks(town) == [("token:tanaka", "trail", f"search/{case}")]
    town.does("found", case, "haruka")
    assert heard() == []


def test_what_was_left_out_does_not_end_the_pages(town: Searching, officer: TestClient) -> None:
    for _ in range(3):
        town.heard("tsubaki")
    answer = officer.get("/api/v1/events?limit=2").json()
    assert (answer["events"], answer["next_before"]) == ([], 2)


# --- Family and helpers -----------------------------------------------------------------------------------


def test_family_needs_no_reason_and_is_written_down_too(town: Searching) -> None:
    assert town.client().get(page()).status_code == 200
    assert looks(town) == [(f"contact:{IDS['haruka']}", "page", "")]


def test_office_sees_the_page_in_a_search_or_for_an_alert_only(town: Searching) -> None:
    phone = town.client()
    answer = phone.get(page("yakuba"))
    assert (answer.status_code, "中央公民館" in answer.text) == (403, False)
    assert "理由を書いてください" in said(answer.text)
    assert looks(town) == []
    case = town.opened()
    assert phone.get(page("yakuba")).status_code == 200
    assert looks(town) == [(f"contact:{IDS['yakuba']}", "page", f"search/{case}")]


def test_who_helps_is_written_down(town: Searching) -> None:
    case = town.opened()
    assert town.client().get(helpers("ichi", case)).status_code == 200
    assert looks(town) == [(f"contact:{IDS['ichi']}", "help", f"search/{case}")]


def test_a_refused_look_is_none(town: Searching) -> None:
    assert town.client().get(page("ichi")).status_code == 403
    assert looks(town) == []


def test_who_opens_a_message_about_somebody_is_written_down(town: Searching) -> None:
    town.misses()
    case = town.opened()
    phone = town.client()
    for who in ("haruka", "ichi"):
        link = town.last(who).answer_url
        assert link is not None
        assert phone.get(link.removeprefix("https://gateway.example")).status_code == 200
    assert looks(town) == [(f"contact:{IDS[who]}", "message", f"search/{case}") for who in ("haruka", "ichi")]


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, {"X-Moz": "prefetch"}])
def test_what_a_program_fetches_ahead_shows_nothing_and_is_no_look(town: Searching, headers: dict[str, str]) -> None:
    town.misses()
    case, phone = town.opened(), town.client()
    message = (town.last("haruka").answer_url or "").removeprefix("https://gateway.example")
    for path in (message, page(), helpers("ichi", case)):
        ahead = phone.get(path, headers=headers)
        assert (ahead.status_code, ahead.text) == (503, "")
        assert phone.head(path).status_code == 200
    assert looks(town) == []
    for path in (message, page(), helpers("ichi", case)):
        assert phone.get(path).status_code == 200
    assert [what for _, what, _ in looks(town)] == ["message", "page", "help"]


# --- While a tag is stopped -------------------------------------------------------------------------------


def stop(town: Searching) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.tags).where(tables.tags.c.tag == TAG).values(stopped_us=town.now_us))


def test_a_message_of_before_shows_no_place_any_more_and_can_still_be_answered(town: Searching) -> None:
    town.misses(place="中央公民館")
    case, phone = town.opened(), town.client()
    links = [(town.last(who).answer_url or "").removeprefix("https://gateway.example") for who in ("haruka", "ichi", "yakuba")]
    assert all("中央公民館" in phone.get(link).text for link in links)
    before = looks(town)
    stop(town)
    town.now_us += EVERY_US
    for link in links:
        shown = phone.get(link)
        assert (shown.status_code, "中央公民館" in shown.text, "ハナ" in shown.text) == (200, False, False)
        assert "タグの場所は、今は見られません" in said(shown.text)
    assert looks(town) == before
    taken = phone.post(links[1], data={"answer": "going"})
    assert (taken.status_code, "中央公民館" in taken.text) == (200, False)
    assert [row["answer"] for row in town.rows(tables.answers)] == ["going"]
    assert town.case()["id"] == case


# --- Who reads of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "ja",
            [
                "市役所のyakubaさん 見守りの画面が、メッセージのリンクから開かれました。理由：捜索",
                "harukaさん（ご家族）",
                "（捜索の協力者）",
                "理由：「家族からの電話」",
            ],
        ),
        ("ja-easy", ["理由（りゆう）：捜索（そうさく）", "家族（かぞく）"]),
        ("en", ["haruka (family)", "helping in the search", "Reason: a search."]),
    ],
)
def test_the_family_reads_who_looked_and_why_and_no_place(
    town: Searching, officer: TestClient, language: str, words: list[str]
) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.contacts).values(language=language))
    phone = town.client()
    officer.get("/api/v1/watched", params={"why": "家族からの電話"})
    phone.get(page())
    case = town.opened()
    phone.get(page("yakuba"))
    phone.get(helpers("ichi", case))
    assert f'href="{page()}/looks"' in phone.get(page()).text
    answer = phone.get(page(more="/looks"))
    text = said(answer.text).replace("　", " ")
    assert answer.status_code == 200
    assert [one for one in words if one not in text] == []
    assert "中央公民館" not in text
    before = len(looks(town))
    phone.get(page(more="/looks"))
    assert len(looks(town)) == before  # to read the log is no look


def test_only_family_and_office_read_it(town: Searching) -> None:
    phone = town.client()
    assert phone.get(page("ichi", "/looks")).status_code == 403
    assert phone.get(page()[:-3] + "AAA/looks").status_code == 404


def test_a_long_log_is_read_page_by_page(town: Searching) -> None:
    with town.state.write() as connection:
        for at in range(60):
            looked(connection, f"contact:{IDS['yakuba']}", HANA, "page", "<b>x</b>", town.now_us + at * EVERY_US)
    first = town.client().get(page(more="/looks"))
    assert (first.text.count("<li>"), "<b>x</b>" in first.text, len(first.content) < 30 * 1024) == (50, False, True)
    earlier = re.search(r'href="([^"]+before=\d+)"', first.text)
    assert earlier is not None
    assert town.client().get(earlier[1]).text.count("<li>") == 10


def test_the_log_over_the_api(town: Searching, officer: TestClient) -> None:
    officer.get("/api/v1/watched", params={"why": "家族からの電話"})
    answer = officer.get(f"/api/v1/watched/{HANA}/looks").json()
    [one] = answer["looks"]
    wanted: dict[str, Any] = {"who": "token:tanaka", "name": "tanaka", "by": "program", "what": "place", "why": "家族からの電話"}
    assert {name: one[name] for name in wanted} == wanted
    assert officer.get(f"/api/v1/watched/{'0' * 16}/looks").status_code == 404
    assert town.client("viewer").get(f"/api/v1/watched/{HANA}/looks").status_code == 403


def test_staff_with_an_account_is_called_by_its_name_and_who_was_erased_by_none(town: Searching) -> None:
    with town.state.write() as connection:
        connection.execute(insert(tables.accounts).values(
            id="0123456789abcdef", name="佐藤", roles="officer", created_us=0, created_by="test"))  # fmt: skip
        looked(connection, "account:0123456789abcdef", HANA, "place", "見回り", town.now_us)
        looked(connection, "account:ffffffffffffffff", HANA, "place", "見回り", town.now_us)
        found = log_of(connection, HANA, "family-hana", "office")
    assert [(one.name, one.by) for one in found] == [(None, "gone"), ("佐藤", "officer")]
    assert "市役所の佐藤さん（見守りの担当）" in said(town.client().get(page(more="/looks")).text)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("ja", "市役所の端末「tanaka」 ご家族として入れるリンクを渡しました。"),
        ("ja-easy", "家族（かぞく）として 入（はい）る リンクを 渡（わた）しました。"),
        ("en", "handed out a link to come in as family."),
    ],
)
def test_the_family_reads_of_a_link_by_which_somebody_may_come_in_as_one_of_them(
    town: Searching, language: str, words: str
) -> None:
    with town.state.write() as connection:
        for person, account in ((HANA, "1" * 16), ("cd" * 8, "2" * 16)):
            record(
                connection, "cli:tanaka", "account.link", f"account/{account}", town.now_us, more={WITH: [f"watched/{person}"]}
            )
        record(connection, "cli:tanaka", "account.link", "account/" + "3" * 16, town.now_us)
        assert [(one.what, one.by) for one in log_of(connection, HANA, "family-hana", "office")] == [("link", "program")]
        connection.execute(update(tables.contacts).where(tables.contacts.c.id == IDS["haruka"]).values(language=language))
    assert words in said(town.client().get(page(more="/looks")).text).replace("　", " ")


def test_a_clock_that_was_ahead_hides_no_look(town: Searching) -> None:
    for at_us in (NOW_US + 365 * 24 * HOUR_US, NOW_US, NOW_US + MINUTE_US):
        with town.state.write() as connection:
            looked(connection, "token:tanaka", HANA, "place", "家族からの電話", at_us)
    assert len(looks(town)) == 2
