"""Who finds a tag learns whether it is ours and what to do, never whose it is; and can have it stopped."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Consents
from gateway.mimamori.enrolled import Enrolled
from gateway.mimamori.labels import ALPHABET, LENGTH, Labels, Mistyped, check_of, make, read, shown
from gateway.notify.links import Links
from gateway.notify.message import Message
from gateway.state import tables
from tests.gateway.keeping.erased import looked_through
from tests.gateway.mimamori.searching import HANA, IDS, LINKS, TAG, Searching, everything
from tests.gateway.paged import HOUR_US, MINUTE_US

DAY_US = 24 * HOUR_US
EIGHT = st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH)


class Town(Searching):
    """With a label on ハナさん's tag."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.enrolled = Enrolled()
        self.labels = Labels(lambda: self.paging.notices, office="office", town="里山市", learn=self.learn)
        self.consents = Consents(self.state, MimamoriConfig(), lambda: self.paging.notices, office="office", learn=self.learn)
        with self.state.write() as connection:
            self.label = make(connection, TAG, "tanaka", self.now_us)
        self.told()
        self.learn()

    def learn(self) -> None:
        with self.state.read() as connection:
            self.enrolled.read(connection)

    def phone(self) -> TestClient:
        return self.client(labels=self.labels, enrolled=self.enrolled, consents=self.consents)

    def desk(self) -> TestClient:
        return self.client("officer", labels=self.labels, enrolled=self.enrolled, consents=self.consents)

    @property
    def path(self) -> str:
        return f"/f/{shown(self.label)}"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    with made:
        yield made


def said(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


# --- Labels -------------------------------------------------------------------------------------------


@given(EIGHT, st.integers(0, LENGTH), st.sampled_from(ALPHABET))
def test_a_wrong_character_is_always_found(eight: str, at: int, other: str) -> None:
    label = eight + check_of(eight)
    wrong = label[:at] + other + label[at + 1 :]
    if wrong == label:
        assert read(wrong) == label
    else:
        with pytest.raises(Mistyped):
            read(wrong)


@given(EIGHT, st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_two_characters_that_changed_places_are_always_found(eight: str, one: int, two: int) -> None:
    signs = list(eight + check_of(eight))
    label, (signs[one], signs[two]) = "".join(signs), (signs[two], signs[one])
    wrong = "".join(signs)
    if wrong != label:
        with pytest.raises(Mistyped):
            read(wrong)


@given(EIGHT)
def test_it_may_be_typed_as_people_type(eight: str) -> None:
    label = eight + check_of(eight)
    wide = "".join(chr(ord(one) + 0xFEE0) for one in label)
    for typed in (label.lower(), shown(label), f" {label[:4]} {label[4:]} ", wide, f"{label[:4]}ー{label[4:]}"):
        assert read(typed) == label


@given(st.text())
@settings(max_examples=200)
def test_whatever_is_typed_is_a_label_or_none(typed: str) -> None:
    try:
        assert len(read(typed)) == LENGTH + 1
    except Mistyped:
        pass


# --- Is it ours ---------------------------------------------------------------------------------------


def test_a_scan_says_that_it_is_ours_what_to_do_and_not_whose(town: Town) -> None:
    answer = town.phone().get(town.path)
    assert answer.status_code == 200
    text = said(answer.text)
    assert "このタグは、里山市の見守りタグです。" in text
    assert "お困りですか" in text
    assert "110番" in text
    for secret in ("ハナ", HANA, TAG, "family", "はるか"):
        assert secret not in answer.text
    assert len(answer.content) < 30 * 1024
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_typed_it_leads_to_the_same_page(town: Town) -> None:
    answer = town.phone().post("/f", data={"label": town.label.lower()})
    assert (answer.status_code, answer.url.path) == (200, town.path)


def test_a_typing_error_is_said_to_be_one(town: Town) -> None:
    wrong = ("2" if town.label[0] != "2" else "3") + town.label[1:]
    answer = town.phone().post("/f", data={"label": wrong})
    assert answer.status_code == 422
    assert "番号がどこか違うようです" in said(answer.text)
    assert f'value="{wrong}"' in answer.text


def test_one_that_is_not_ours_is_said_not_to_be(town: Town) -> None:
    answer = town.phone().post("/f", data={"label": "22222222" + check_of("22222222")})
    assert answer.status_code == 404
    assert "里山市のタグの番号ではありません" in said(answer.text)


def test_the_page_is_the_same_whatever_became_of_the_tag(town: Town) -> None:
    phone = town.phone()
    before = phone.get(town.path).content
    with town.state.write() as connection:
        connection.execute(update(tables.tags).values(stopped_us=town.now_us))
    assert phone.get(town.path).content == before
    with town.state.write() as connection:
        town.consents.revoke(connection, HANA, "tanaka", town.now_us)
    assert phone.get(town.path).content == before


@pytest.mark.parametrize(("language", "words"), [("en", "This is a watch tag of 里山市."), ("ja", "見守りタグです")])
def test_it_speaks_the_languages_of_finders(town: Town, language: str, words: str) -> None:
    assert words in said(town.phone().get(town.path, headers={"Accept-Language": language}).text)


def test_another_language_is_one_tap_away_and_stays(town: Town) -> None:
    phone = town.phone()
    for path in ("/f", town.path):
        assert re.findall(r'href="(\?lang=[a-z-]+)"', phone.get(path).text) == ["?lang=ja-easy", "?lang=en"]
        assert f'action="{path}?lang=en"' in phone.get(f"{path}?lang=en").text
    typed = phone.post("/f?lang=en", data={"label": town.label}, follow_redirects=False)
    assert typed.headers["Location"] == f"{town.path}?lang=en"
    assert "Thank you" in phone.post(f"{town.path}?lang=en", data={"what": "found"}).text


# --- Guessing -----------------------------------------------------------------------------------------


def test_one_asker_can_not_try_on_and_on_and_hears_when_again(town: Town) -> None:
    phone = town.phone()
    answers = [phone.get(town.path) for _ in range(61)]
    assert [one.status_code for one in answers] == [200] * 60 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3600
    assert "少し待" in said(answers[-1].text)
    town.now_us += HOUR_US
    assert phone.get(town.path).status_code == 200


def test_many_guessers_can_not_shut_out_who_really_holds_a_tag(town: Town) -> None:
    town.phone()
    miss = "/f/22222222" + check_of("22222222")
    statuses = []
    for number in range(302):
        asker = TestClient(town.app, client=(f"192.0.2.{number % 100}", 5000 + number))
        statuses.append(asker.get(miss).status_code)
    assert statuses[:300] == [404] * 300
    assert statuses[300:] == [429, 429]
    assert TestClient(town.app, client=("198.51.100.7", 5000)).get(town.path).status_code == 200


# --- Found --------------------------------------------------------------------------------------------


def test_a_find_reaches_office_and_family_and_changes_nothing(town: Town) -> None:
    answer = town.phone().post(town.path, data={"what": "found", "words": "公民館の前", "reach": "+81 50 0000 0001"})
    assert "ありがとうございます" in said(answer.text)
    assert set(town.told()) == {"haruka", "minoru", "yakuba"}
    assert "公民館" not in town.last("haruka").body
    assert town.enrolled.whose(TAG) == HANA
    [report] = town.desk().get("/api/v1/label-reports").json()["reports"]
    assert (report["what"], report["words"], report["reach"]) == ("found", "公民館の前", "+81 50 0000 0001")


# --- Misuse -------------------------------------------------------------------------------------------


def test_a_misuse_report_stops_the_tag_at_once(town: Town) -> None:
    answer = town.phone().post(town.path, data={"what": "misuse", "words": "かばんに入っていた"})
    assert "このタグの記録は止まっています" in said(answer.text)
    assert town.enrolled.whose(TAG) is None
    assert town.enrolled.heeded(HANA) is None
    told = town.told()
    assert set(told) == {"haruka", "minoru", "yakuba"}
    assert town.last("yakuba").severity == "critical"


def test_the_family_hears_that_it_stands_still_and_nothing_of_a_report(town: Town) -> None:
    town.phone().post(town.path, data={"what": "misuse", "words": "かばんに入っていた", "reach": "+81 50 0000 0001"})
    message = town.last("haruka")
    assert "記録を止めています" in message.title
    for word in ("届け出", "報告", "かばん", "覚えのない", "5000", "疑"):
        assert word not in message.title + message.body


def test_nobody_but_officers_sees_a_place_then(town: Town) -> None:
    town.remembers(seen_us=town.now_us, seen_at="kominkan/tags", alive={"tsubaki/tags": town.now_us})
    phone = town.phone()
    family = LINKS.family_url(HANA, IDS["haruka"], town.now_us + DAY_US).removeprefix("https://gateway.example")
    assert "中央公民館" in phone.get(family).text
    phone.post(town.path, data={"what": "misuse"})
    page = said(phone.get(family).text)
    assert "中央公民館" not in page
    assert "記録を止めています" in page
    town.told()
    town.opened()
    assert "中央公民館" not in town.last("haruka").body + town.last("ichi").body


def test_what_waits_to_be_sent_then_and_what_follows_says_no_place_and_still_asks(town: Town) -> None:
    town.sent()
    town.misses(place="中央公民館")
    waiting = {row["id"] for row in town.ledger() if row["state"] == "queued"}
    assert "中央公民館" in town.last("haruka").body
    with town.state.write() as connection:  # urgent, it would not be stopped
        connection.execute(update(tables.alerts).values(severity="warning"))
    town.phone().post(town.path, data={"what": "misuse"})
    assert waiting == {row["id"] for row in town.ledger() if row["state"] == "queued"} & waiting
    assert [row["body"] for row in town.ledger() if "中央公民館" in row["body"]] == []
    asked = [Message.model_validate_json(row["body"]) for row in town.ledger() if row["id"] in waiting]
    assert all(one.buttons and "タグの場所は、今は見られません" in one.body for one in asked)
    town.sent()
    town.wait(12 * MINUTE_US)
    assert {
        row["contact"] for row in town.ledger() if row["page"] in {one["page"] for one in town.ledger() if one["id"] in waiting}
    } == {IDS[name] for name in ("haruka", "minoru", "yakuba")}
    assert [row["body"] for row in town.ledger() if "中央公民館" in row["body"]] == []


def test_in_a_search_it_is_not_stopped_by_itself_and_the_reporter_is_not_told_otherwise(town: Town) -> None:
    town.opened()
    town.told()
    page = said(town.phone().post(town.path, data={"what": "misuse"}).text)
    assert "記録はまだ止まっていません" in page
    assert "捜索" not in page
    assert town.enrolled.whose(TAG) == HANA
    assert list(town.told()) == ["yakuba"]
    assert town.last("yakuba").severity == "critical"
    [report] = town.desk().get("/api/v1/label-reports").json()["reports"]
    answer = town.desk().post(f"/api/v1/label-reports/{report['id']}/settle", json={"how": "stop"})
    assert answer.json()["reports"][0]["stopped"] is True
    assert town.enrolled.whose(TAG) is None


def test_while_an_urgent_alert_of_theirs_is_open_it_is_not_stopped_by_itself(town: Town) -> None:
    with town.state.write() as connection:
        connection.execute(
            insert(tables.alerts).values(
                id="left-home", rule="left", kind="watched", severity="critical", node="watched", device=HANA, opening="o",
                state="acknowledged", since_us=town.now_us, late=False, summary="left_home", fired_us=town.now_us, version=2,
            )
        )  # fmt: skip
    town.phone().post(town.path, data={"what": "misuse"})
    assert town.enrolled.whose(TAG) == HANA
    assert "まだ止めていません" in town.last("yakuba").body
    with town.state.write() as connection:
        connection.execute(update(tables.alerts).values(state="resolved"))
    town.phone().post(town.path, data={"what": "misuse"})
    assert town.enrolled.whose(TAG) is None


def test_again_and_again_rings_three_times_and_then_it_is_enough(town: Town) -> None:
    phone, titles = town.phone(), []
    for number in range(22):
        asker = TestClient(town.app, client=(f"192.0.2.{number}", 5000))
        last = asker.post(town.path, data={"what": "misuse"})
        titles += town.told().get("yakuba", [])
    assert len(titles) == 3
    assert last.status_code == 429
    assert len(town.rows(tables.label_reports)) == 20
    del phone


def test_however_often_it_was_found_a_report_of_misuse_still_stops_it(town: Town) -> None:
    town.phone()
    for number in range(22):
        TestClient(town.app, client=(f"192.0.2.{number}", 5000)).post(town.path, data={"what": "found"})
    answer = TestClient(town.app, client=("192.0.2.99", 5000)).post(town.path, data={"what": "misuse"})
    assert answer.status_code == 200
    assert town.enrolled.whose(TAG) is None


def test_what_nobody_settles_the_office_hears_again_and_only_that(town: Town) -> None:
    def titles() -> list[str]:
        town.labels.remind(town.state, town.now_us)
        return [*town.told().get("yakuba", [])]

    town.phone().post(town.path, data={"what": "misuse"})
    town.told()
    assert titles() == []
    heard = []
    for _ in range(100):
        town.now_us += HOUR_US
        heard += titles()
    assert len(heard) == 6
    assert all("届け出" in title for title in heard)
    [report] = town.desk().get("/api/v1/label-reports").json()["reports"]
    town.desk().post(f"/api/v1/label-reports/{report['id']}/settle", json={"how": "resume"})
    town.told()
    town.now_us += 100 * HOUR_US
    assert titles() == []


# --- Settling -----------------------------------------------------------------------------------------


def reported(town: Town) -> int:
    town.phone().post(town.path, data={"what": "misuse", "words": "かばんに入っていた"})
    town.told()
    return int(town.rows(tables.label_reports)[0]["id"])


def test_an_officer_resumes_and_family_and_office_hear_it(town: Town) -> None:
    id_ = reported(town)
    assert town.desk().post(f"/api/v1/label-reports/{id_}/settle", json={"how": "resume"}).status_code == 200
    assert town.enrolled.whose(TAG) == HANA
    assert "記録を再開しました" in town.told()["haruka"][0]
    assert town.desk().post(f"/api/v1/label-reports/{id_}/settle", json={"how": "resume"}).status_code == 409


def test_an_officer_ends_it_and_where_it_was_is_gone(town: Town) -> None:
    town.heard("kominkan")
    id_ = reported(town)
    town.heard("kominkan")
    with looked_through() as behind:
        assert town.desk().post(f"/api/v1/label-reports/{id_}/settle", json={"how": "revoke"}).status_code == 200
    assert set(behind) == {2}  # the largest table was gone through before alarms had to wait
    assert TAG not in everything(town)
    assert "かばん" not in everything(town)
    assert [row["name"] for row in town.rows(tables.watched)] == ["ハナさん"]
    assert "終わりにしました" in town.told()["haruka"][0]


def test_who_is_no_officer_neither_reads_nor_settles(town: Town) -> None:
    id_ = reported(town)
    for client in (town.client("viewer", labels=town.labels), town.phone()):
        assert client.get("/api/v1/label-reports").status_code in (401, 403)
        assert client.get("/labels").status_code in (401, 403)
        assert client.post(f"/api/v1/label-reports/{id_}/settle", json={"how": "resume"}).status_code in (401, 403)
        assert client.post("/labels", data={"report": id_, "how": "resume"}).status_code in (401, 403)
    assert town.enrolled.whose(TAG) is None


def test_the_officers_page_decides_without_a_script(town: Town) -> None:
    id_ = reported(town)
    page = town.desk().get("/labels")
    assert "かばんに入っていた" in page.text
    assert "<script" not in page.text
    assert len(page.content) < 30 * 1024
    after = town.desk().post("/labels", data={"report": id_, "how": "resume"})
    assert "決めることは、今はありません" in after.text
    assert town.enrolled.whose(TAG) == HANA


def test_the_officers_page_asks_before_it_erases(town: Town) -> None:
    id_ = reported(town)
    asked = town.desk().post("/labels", data={"report": id_, "how": "revoke"})
    assert "元には戻せません" in asked.text
    assert "<script" not in asked.text
    assert [row["tag"] for row in town.rows(tables.tags)] == [TAG]
    assert town.rows(tables.label_reports)[0]["state"] == "open"
    town.desk().post("/labels", data={"report": id_, "how": "revoke", "sure": "yes"})
    assert town.rows(tables.tags) == []


def test_what_a_finder_writes_is_shown_as_they_wrote_it(town: Town) -> None:
    town.phone().post(town.path, data={"what": "found", "words": "<script>alert(1)</script>"})
    assert "<script>" not in town.desk().get("/labels").text


# --- Printing -----------------------------------------------------------------------------------------


def test_a_label_is_made_once_and_printed_in_two_languages_with_its_qr(town: Town) -> None:
    desk = town.desk()
    made = desk.put(f"/api/v1/watched/{HANA}/tags/{TAG}/label").json()
    assert made == {"label": shown(town.label), "url": f"https://gateway.example{town.path}"}
    page = desk.get(f"/labels/{made['label']}")
    assert made["label"] in page.text
    assert "このタグは里山市の見守りタグです。" in page.text
    assert "This is a watch tag of" in page.text
    assert "<svg" in page.text
    assert "ハナ" not in page.text
    assert desk.put(f"/api/v1/watched/{HANA}/tags/ibeacon:9/label").status_code == 404


# --- The page behind the question -----------------------------------------------------------------------


def question(who: str = "haruka", links: Links = LINKS, days: int = 30) -> str:
    return links.consent_url(HANA, IDS[who], 1_800_000_000_000_000 + days * DAY_US).removeprefix("https://gateway.example")


def agreed(town: Town) -> None:
    with town.state.write() as connection:
        connection.execute(
            insert(tables.consents),
            {"watched": HANA, "basis": "representative", "given_by": "はるか", "relation": "長女", "entitled": "後見人",
             "given_us": 0, "entered_us": 0, "entered_by": "tanaka", "confirm_by_us": town.now_us - DAY_US},
        )  # fmt: skip


def test_a_look_at_the_question_answers_nothing(town: Town) -> None:
    agreed(town)
    page = town.phone().get(question())
    assert "見守りを続けますか" in page.text
    assert "急には止めません" in page.text
    assert len(town.rows(tables.consents)) == 1
    assert len(page.content) < 30 * 1024


def test_go_on_is_kept_and_thanked_for(town: Town) -> None:
    agreed(town)
    page = town.phone().post(question(), data={"act": "go_on"})
    assert "ありがとうございます。見守りを続けます。" in said(page.text)
    assert town.rows(tables.consents)[-1]["entered_by"] == f"contact:{IDS['haruka']}"


def test_stop_is_asked_twice_and_then_done(town: Town) -> None:
    agreed(town)
    phone = town.phone()
    page = phone.post(question(), data={"act": "stop"})
    assert "元には戻せません" in page.text
    assert town.rows(tables.watched) != []
    page = phone.post(question(), data={"act": "really"})
    assert "見守りを終わりました" in page.text
    assert town.rows(tables.watched) == []
    assert town.enrolled.of(HANA) is None
    assert phone.post(question(), data={"act": "really"}).status_code == 403


def test_in_a_search_it_can_not_be_stopped(town: Town) -> None:
    agreed(town)
    town.opened()
    page = town.phone().post(question(), data={"act": "really"})
    assert page.status_code == 409
    assert "先に、捜索を終わりにしてください" in page.text
    assert town.rows(tables.watched) != []


def test_who_is_not_family_or_office_may_not(town: Town) -> None:
    agreed(town)
    phone = town.phone()
    assert phone.get(question("ichi")).status_code == 403
    assert phone.post(question("ichi"), data={"act": "really"}).status_code == 403
    assert phone.get(question(links=Links("https://gateway.example", bytes(32)))).status_code == 404
    family = LINKS.family_url(HANA, IDS["haruka"], town.now_us + DAY_US).rpartition("/")[2]
    assert phone.get(f"/c/{family}").status_code == 404
