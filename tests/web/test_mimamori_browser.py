"""The page /mimamori in real browsers: what families and farmers see of what is theirs, what they answer, and who hears it."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, Route, expect
from sqlalchemy import delete, insert, select, update

from gateway.accounts import account as rows
from gateway.accounts.account import role_of
from gateway.accounts.desk import Accounts
from gateway.accounts.links import make
from gateway.alerting.lifecycle import Alert
from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joining
from gateway.contacts.proof import Proof
from gateway.deployments import Deployment
from gateway.mimamori import consent
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Given
from gateway.mimamori.enrolled import Enrolled
from gateway.relations import Relations
from gateway.state import tables
from tests.gateway.api.test_family_page import at_home
from tests.gateway.mimamori.searching import HANA, IDS, Searching
from tests.gateway.paged import MINUTE_US, ZONE
from tests.web.axe import LANGUAGES, violations
from tests.web.conftest import SCREENSHOTS, browser
from tests.wire import Wire, in_thread

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
ASKS = {"見つかりました"}
"""Buttons that ask once more before anything is done."""
FARMERS = {"tanaka": "f1" * 8, "sato": "f2" * 8}
ROLES = {
    "family-hana": GroupConfig(label="ハナさんの家族", role="family"),
    "farmers": GroupConfig(label="北山のわな番", role="farmer"),
}
ROUTES: Sequence[Mapping[str, Any]] = [
    {"name": "traps", "match": {"kind": "trap"}, "needed": 2, "tell_end": True, "steps": [{"to": "farmers"}]},
    {"name": "people", "match": {"kind": "watched"}, "needed": 1, "steps": [{"to": "family"}, {"after": "10m", "to": "office"}]},
    {"to": ["office"]},
]


class Said(list[tuple[str, dict[str, Any]]]):
    """What paging says goes on the stream."""

    def __init__(self, village: "Village") -> None:
        super().__init__()
        self._village = village

    def append(self, said: tuple[str, dict[str, Any]]) -> None:
        if hasattr(self._village, "deps"):
            self._village.deps.feed.say(*said)


class Village(Searching):
    """ハナさん, who watches over her, and two farmers with three traps; served to browsers, over a wire that can break."""

    MORE = tuple(
        Deployment(node="kitayama-03", device=f"trap-{n}", kind="trap", place="北尾根", label=f"{n}番", groups=["farmers"])
        for n in (1, 2, 3)
    )

    def begin(self, folder: Path, routes: Sequence[Mapping[str, Any]], office: str | None = "office", **paging: Any) -> None:
        super().begin(folder, ROUTES, office, **paging)
        self.began_ns = time.monotonic_ns()
        with self.state.write() as connection:
            for name, id_ in FARMERS.items():
                self.add(connection, "farmers", id_)
                connection.execute(update(tables.contacts).where(tables.contacts.c.id == id_).values(name=name))

    def _open(self) -> None:
        super()._open()
        self.groups |= {"farmers": ROLES["farmers"]}
        self.said = Said(self)

    def __enter__(self) -> "Village":
        return self

    def clock_us(self) -> int:
        return self.now_us + (time.monotonic_ns() - self.began_ns) // 1000

    def web(self) -> FastAPI:
        """Its web side."""
        self.client()
        enrolled = Enrolled()
        with self.state.read() as connection:
            enrolled.read(connection)
        people = PeopleConfig(public_url="http://localhost", folder=self.folder, office="office")
        proving = Proof(self.state, self.book, people, ZONE)
        self.deps = replace(
            self.deps,
            now_us=self.clock_us,
            heartbeat_s=1,
            enrolled=enrolled,
            world=Relations(self.state, self.deployments, enrolled, self.clock_us),
            accounts=Accounts(self.state, role_of(ROLES), "http://localhost", self.clock_us, self.book, office="office"),
            desk=Desk(self.book, proving, Joining(self.groups, people, proving), ZONE),
        )
        return create_app(self.deps)

    def trap_says(self, n: int, closed: float, ago_us: int = 0) -> None:
        """Its switch, as it was heard last."""
        heard_us = self.now_us - ago_us
        row = {"node": "kitayama-03", "device": f"trap-{n}", "metric": "trap_closed", "value": closed, "seq": n}
        with self.state.write() as connection:
            connection.execute(insert(tables.latest).values(**row, time_us=heard_us, received_us=heard_us))

    def tells(self, alert: Alert) -> None:
        """As the pipeline does: it is paged, and said on the stream."""
        self.now_us = self.clock_us()
        self.began_ns = time.monotonic_ns()
        self.tick()
        self.sent()
        self.deps.feed.say("alert", next(row for row in self.rows(tables.alerts) if row["id"] == alert.id))

    def answers(self) -> list[tuple[str, str]]:
        names = {id_: name for name, id_ in (IDS | FARMERS).items()}
        return [(names[row["contact"]], row["answer"]) for row in self.rows(tables.answers)]


@dataclass
class Person:
    """One person's browser, and what went wrong in it."""

    page: Page
    faults: list[str]

    def opens(self, url: str) -> None:
        self.page.goto(f"{url}/mimamori")

    def card(self, text: str) -> Locator:
        return self.page.locator(".card", has_text=text).first

    def does(self, button: str, within: str) -> None:
        """Presses it, and presses it again where it is one that asks."""
        self.card(within).get_by_role("button", name=button).first.click()
        if button in ASKS:
            self.page.get_by_role("dialog").get_by_role("button", name=button).click()

    def shoot(self, what: str) -> None:
        """Keeps a picture of the whole page for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"mimamori-{what}.png", full_page=True)


@dataclass
class Place:
    """The village, how it is reached, and who comes."""

    village: Village
    wire: Wire
    url: str
    browser: Browser
    came: list[Person]

    def comes(self, name: str, size: Mapping[str, int] = PHONE) -> Person:
        """Somebody signs in on their own phone, and opens the page."""
        contact = (IDS | FARMERS)[name]
        with self.village.state.write() as connection:
            known = connection.scalar(select(tables.accounts.c.id).where(tables.accounts.c.contact == contact))
            account = known or rows.add(connection, "", (), "test", 0, contact)
            token = make(connection, account, "hand", self.village.clock_us())
        context = self.browser.new_context(
            viewport={"width": size["width"], "height": size["height"]}, locale="ja-JP", timezone_id="Europe/Paris"
        )  # the town's clock counts, not the reader's
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"{self.url}/login/link/{token}")
        page.get_by_role("button", name="ログインする").click()
        expect(page).to_have_url(f"{self.url}/account")
        person = Person(page, faults)
        self.came.append(person)
        person.opens(self.url)
        expect(page.get_by_role("status").first).to_contain_text("対応中の知らせ")
        return person


@pytest.fixture
def place(tmp_path: Path, browser: Browser) -> Iterator[Place]:
    with Village(tmp_path) as village:
        at_home(village, alive_ago_us=0)
        for n, closed, ago_us in ((1, 0.0, MINUTE_US), (2, 0.0, 2 * MINUTE_US)):
            village.trap_says(n, closed, ago_us)
        expect.set_options(timeout=15_000)
        with in_thread(serve(village.web(), "127.0.0.1", 0)) as port, in_thread(Wire(port)) as wire:
            came: list[Person] = []
            yield Place(village, wire, f"http://127.0.0.1:{wire.near_port}", browser, came)
            for one in came:
                one.page.context.close()
            expect.set_options(timeout=5_000)
            assert [one.faults for one in came if one.faults] == []


def test_a_family_sees_where_the_tag_is_as_far_as_it_says_and_when(place: Place) -> None:
    haruka = place.comes("haruka")
    card = haruka.card("ハナさん")
    expect(card).to_contain_text("ハナさんのタグは家にあります（ご本人の在宅は確認できません）。")
    expect(card).to_contain_text("午前6時9分・3分前")
    expect(haruka.page.get_by_role("heading", name="わな")).to_have_count(0)
    haruka.shoot("family")


def test_of_a_night_exit_the_other_of_the_family_sees_who_goes_and_an_answer_can_be_changed(place: Place) -> None:
    haruka, minoru = place.comes("haruka"), place.comes("minoru")
    place.village.tells(place.village.misses())
    for one in (haruka, minoru):
        expect(one.card("外出のお知らせ")).to_contain_text("ハナさんのタグがご自宅を離れた可能性があります。")
        expect(one.card("外出のお知らせ")).to_contain_text("まだ誰も向かっていません。")
    haruka.shoot("night-exit")
    haruka.does("確認に行きます", within="外出のお知らせ")
    expect(minoru.card("外出のお知らせ")).to_contain_text("harukaさんが向かっています。")
    expect(haruka.card("外出のお知らせ")).to_contain_text("あなたの答え：「確認に行きます」")
    expect(minoru.card("外出のお知らせ")).not_to_contain_text("あなたの答え")
    haruka.does("一緒にいます", within="外出のお知らせ")
    for one in (haruka, minoru):
        expect(one.page.get_by_role("status").first).to_contain_text("対応中の知らせ 0件")
    assert place.village.answers() == [("haruka", "going"), ("haruka", "with_her")]


def test_a_search_is_asked_for_once_more_tells_whom_it_reached_and_ends_when_she_is_found(place: Place) -> None:
    haruka, minoru = place.comes("haruka"), place.comes("minoru")
    place.village.tells(place.village.misses())
    haruka.card("外出のお知らせ").get_by_role("button", name="さがす").click()
    dialog = haruka.page.get_by_role("dialog")
    expect(dialog).to_contain_text("本当にハナさんをさがしますか。")
    assert place.village.rows(tables.search_cases) == [], "asked, and not done"
    haruka.shoot("search-asked")
    dialog.get_by_role("button", name="さがす").click()
    expect(haruka.card("捜索中")).to_be_visible()
    place.village.tick()
    expect(minoru.card("捜索中")).to_contain_text("理由：姿が見えません")
    place.village.sent()
    place.village.heard("eki")
    place.village.tick()
    expect(minoru.card("捜索中")).to_contain_text("市役所 1/1、協力者 3/3人に届きました。")
    expect(minoru.card("捜索中")).to_contain_text("駅前の近く")
    minoru.shoot("searching")
    minoru.does("見つかりました", within="捜索中")
    expect(minoru.card("捜索中")).to_have_count(0)
    place.village.tick()
    expect(haruka.card("ハナさん")).to_contain_text("見つかりました。捜索は終わりました。")
    expect(haruka.page.get_by_role("status").first).to_contain_text("対応中の知らせ 0件")
    assert place.village.case()["state"] == "found"


def test_of_a_sprung_trap_farmers_see_who_goes_and_how_many_more_are_needed(place: Place) -> None:
    tanaka, sato = place.comes("tanaka"), place.comes("sato")
    place.village.trap_says(3, 1.0)
    place.village.tells(place.village.fire("trap-3"))
    expect(sato.card("わな作動")).to_contain_text("北尾根 3番のわなが動きました。")
    tanaka.does("行きます", within="わな作動")
    expect(sato.card("わな作動")).to_contain_text("tanakaさんが行きます。あと1人必要です。")
    sato.does("行きます", within="わな作動")
    expect(tanaka.card("わな作動")).to_contain_text("tanakaさん、satoさんが向かっています。")
    expect(tanaka.page.locator("li.card h3").first).to_have_text("北尾根 3番")
    tanaka.shoot("traps")


def test_a_trap_that_was_never_heard_is_unknown_and_comes_before_those_that_are_set(place: Place) -> None:
    tanaka = place.comes("tanaka")
    expect(tanaka.page.locator("li.card h3")).to_have_text(["北尾根 3番", "北尾根 1番", "北尾根 2番"])
    expect(tanaka.card("北尾根 3番")).to_contain_text("通信なし")
    expect(tanaka.card("北尾根 3番")).to_contain_text("今の様子は分かりません。")
    expect(tanaka.page.get_by_role("heading", name="見守っている方")).to_have_count(0)


def test_a_visit_is_recorded_once_and_a_capture_wants_its_papers(place: Place) -> None:
    tanaka = place.comes("tanaka")
    tanaka.card("北尾根 1番").get_by_role("button", name="見回りました").click()
    dialog = tanaka.page.get_by_role("dialog")
    dialog.get_by_label("様子").select_option(label="獲物がかかっている")
    tanaka.page.route("**/api/v1/visits", taken_and_not_answered, times=1)
    dialog.get_by_role("button", name="見回りました").click()
    expect(dialog.get_by_role("alert")).not_to_be_empty()
    assert len(place.village.rows(tables.visits)) == 1, "it was taken, and the phone does not know"
    dialog.get_by_role("button", name="見回りました").click()
    expect(tanaka.page.get_by_text("見回りを記録しました。")).to_be_visible()
    [visit] = place.village.rows(tables.visits)
    assert (visit["who"], visit["result"]) == ("tanaka", "capture")
    expect(tanaka.page.get_by_role("heading", name="書類がまだの捕獲")).to_be_visible()
    expect(tanaka.page.get_by_text("足りないもの：")).to_contain_text("体重")


def taken_and_not_answered(route: Route) -> None:
    """The gateway has it, and the phone does not hear so."""
    route.fetch(headers={**route.request.headers, "sec-fetch-site": "same-origin"})
    route.abort()


def test_a_lost_connection_is_said_within_ten_seconds_and_what_happened_meanwhile_is_caught_up_with(place: Place) -> None:
    haruka = place.comes("haruka")
    state = haruka.page.get_by_role("status").first
    place.wire.silence()
    expect(state).to_have_text("接続が切れました。午前6時12分の内容です。", timeout=10_000)
    expect(haruka.card("ハナさん")).to_contain_text("午前6時12分の内容。今は分かりません")
    haruka.shoot("lost")
    place.village.tells(place.village.misses())
    place.wire.mend()
    expect(haruka.card("外出のお知らせ")).to_be_visible()
    expect(state).to_contain_text("対応中の知らせ 1件")


def test_a_hundred_events_a_second_are_kept_up_with_and_nothing_grows(place: Place) -> None:
    tanaka = place.comes("tanaka")
    expect(tanaka.card("北尾根 3番")).to_contain_text("通信なし")
    asked: list[str] = []
    tanaka.page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/api/v1/traps") else None)
    nodes = tanaka.page.evaluate("document.querySelectorAll('*').length")
    began = time.monotonic()
    for at in range(500):
        now_us = place.village.clock_us()
        place.village.deps.feed.say("event", {
            "node": "kitayama-03", "device": "trap-1", "type": "vibration", "class_": "sighting", "seq": at, "body": "{}",
            "time_us": now_us, "received_us": now_us, "late": False, "clock_trusted": True,
        })  # fmt: skip
        time.sleep(max(0.0, began + at / 100 - time.monotonic()))  # the pace is what is tested
    place.village.trap_says(3, 1.0)
    place.village.tells(place.village.fire("trap-3"))
    expect(tanaka.card("わな作動")).to_contain_text("北尾根 3番のわなが動きました。", timeout=5_000)
    assert 0 < len(asked) < 2 * (time.monotonic() - began) + 2
    assert tanaka.page.evaluate("document.querySelectorAll('*').length") < nodes + 100


def test_an_answer_that_did_not_get_through_is_not_said_to_have(place: Place) -> None:
    haruka = place.comes("haruka")
    place.village.tells(place.village.misses())
    card = haruka.card("外出のお知らせ")
    expect(card).to_be_visible()
    place.wire.cut()
    card.get_by_role("button", name="確認に行きます").click()
    expect(card.get_by_role("alert")).not_to_be_empty()
    expect(haruka.page.get_by_text("と答えました")).to_have_count(0)
    assert place.village.answers() == []


def test_who_looked_on_whose_word_and_how_i_am_told_stand_on_the_page(place: Place) -> None:
    with place.village.state.write() as connection:
        consent.enter(connection, HANA, Given("self", "ハナ"), "test", place.village.now_us, MimamoriConfig())
    haruka = place.comes("haruka")
    haruka.page.get_by_text("見た人の記録").click()
    expect(haruka.card("ハナさん")).to_contain_text("harukaさん（ご家族）：最後の場所を見ました。")
    haruka.page.get_by_text("見守りの同意").click()
    expect(haruka.card("ハナさん")).to_contain_text("同意した人：ハナさん（2026年6月3日）。")
    expect(haruka.page.get_by_role("link", name="続けます・やめます")).to_have_attribute("href", re.compile("^/c/"))

    haruka.page.get_by_role("button", name="時間を決める").click()
    haruka.page.get_by_label("始まり").fill("22:30")
    haruka.page.get_by_role("dialog").get_by_role("button", name="時間を決める").click()
    expect(haruka.page.get_by_text("22:30から06:00まで、急がない知らせは届きません。")).to_be_visible()
    haruka.page.get_by_role("button", name="留守にします").click()
    haruka.page.get_by_role("dialog").get_by_role("button", name="留守にします").click()
    expect(haruka.page.get_by_text("6月4日 午後11時59分まで留守です。")).to_be_visible()
    haruka.shoot("receiving")
    haruka.page.get_by_role("button", name="戻りました").click()
    haruka.page.get_by_role("dialog").get_by_role("button", name="戻りました").click()
    expect(haruka.page.get_by_text("まで留守です。")).to_have_count(0)


def test_who_is_not_signed_in_is_led_to_the_login_and_back_here(place: Place) -> None:
    page = place.browser.new_context(locale="ja-JP").new_page()
    page.goto(f"{place.url}/mimamori")
    expect(page.get_by_role("link", name="ログインする")).to_have_attribute("href", "/login?next=/mimamori")
    expect(page.locator(".card")).to_have_count(0)
    page.context.close()


def test_who_is_signed_out_elsewhere_keeps_nothing_on_the_screen(place: Place) -> None:
    haruka = place.comes("haruka")
    with place.village.state.write() as connection:
        connection.execute(delete(tables.sessions))
    place.wire.mend()  # the stream comes back, and is asked who it is
    expect(haruka.page.get_by_role("link", name="ログインする")).to_be_visible()
    expect(haruka.page.get_by_text("ハナさん")).to_have_count(0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_stands_in_nobodys_way_who_reads_it_otherwise(place: Place, language: str) -> None:
    one = place.comes("haruka")
    place.village.tells(place.village.misses())
    expect(one.card("外出のお知らせ")).to_be_visible()
    one.page.evaluate(f"localStorage.setItem('language', '{language}')")
    one.opens(place.url)
    expect(one.page.locator(".card").nth(1)).to_be_visible()
    assert violations(one.page) == []
    one.page.locator(".card").first.get_by_role("button").nth(2).click()  # さがす: asks first
    expect(one.page.get_by_role("dialog")).to_be_visible()
    assert violations(one.page) == [], "the question"
