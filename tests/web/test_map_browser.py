"""The officers' page in a real browser before a real gateway: its map, alerts and what is done to them, the flow of people."""

import json
import re
import time
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, Response, Route, expect
from sqlalchemy import insert

from gateway.alerting.lifecycle import Alert, Move
from gateway.alerting.route import RouteConfig
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.deployments import Deployments
from gateway.flow.config import AreaConfig
from gateway.paging import Paging
from gateway.state import tables
from gateway.telling import Teller
from gateway.tiles import LinkConfig
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway, gateway
from tests.web.axe import LANGUAGES, has_its_values, violations
from tests.web.conftest import OPERATOR, PLACES, VIEWER, Town, Window, browser, town, window

__all__ = ["browser", "gateway", "town", "window"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

HOUR_US = 60 * MINUTE_US
AT = {"trap-11": (36.105, 140.085), "trap-12": (36.106, 140.088), "cam-02": (36.11, 140.08), "trap-21": (36.12, 140.1),
      "tags-01": (36.098, 140.095), "flow-01": (36.1, 140.09)}  # fmt: skip
STANDING = [one.model_copy(update={"at": AT[one.device]}) for one in PLACES]
HASHI = AreaConfig.model_validate(
    {"label": "朝市広場", "m2": 100, "line": [{"node": "hashi-01", "device": "flow-01", "label": "東側"},
                                          {"node": "hashi-01", "device": "flow-02", "label": "西側"}]}
)  # fmt: skip
MEMORY = {
    "inside": 53,
    "lines": {"hashi-01/flow-01": {"in": 1843, "in0": 0, "out": 1790, "out0": 0, "heard_us": NOW_US - 4_000_000}},
    "crowd": {"inside": 53, "density": 0.5, "share": None, "level": 0, "rising": False, "shelter": False},
}
OWN = {"links": [LinkConfig(label=one, url="https://kirisawa.example/manual") for one in ("使い方", "よくある質問")]}
MAP = {"deployments": Deployments(STANDING), "areas": {"hashi": HASHI}}
on_the_map = pytest.mark.parametrize("town", [MAP], indirect=True)
on_a_phone = pytest.mark.parametrize("window", ["phone"], indirect=True)
on_a_desk = pytest.mark.parametrize("window", ["desktop"], indirect=True)
"""What does not look different elsewhere is looked at once."""
VIEWS = {"#/alerts": "main h2:not([id])", "#/alerts/a-1": "#alert-head", "#/devices": "main h2:not([id])",
         "#/devices/kitayama-03/trap-11": "#device-head", "#/flow": "main h2:not([id])"}  # fmt: skip
"""Each, and the heading that only it has: what was open before it may still stand there for a moment."""


@pytest.fixture
def counted(town: Town) -> Town:
    """Two days of counts at the market, and what is reckoned of it now."""
    with town.gateway.state.write() as connection:
        connection.execute(
            insert(tables.rule_states).values(rule="crowded", node="area", device="hashi", body=json.dumps(MEMORY))
        )
    came, points = 0, []
    for at_us in range(NOW_US - 48 * HOUR_US, NOW_US, MINUTE_US):
        came += at_us // HOUR_US * 7 % 5
        for name, value in (("count_in", came), ("count_out", came // 2)):
            points.append((("hashi-01", "flow-01", name), at_us // 1000, float(value)))
    town.gateway.store.write(points)
    return town


def come_in(page: Page, town: Town, token: str, path: str = "") -> None:
    page.add_init_script(f"sessionStorage.setItem('token', '{token}')")
    page.goto(f"{town.url}map{path}")


def turn_to(page: Page, town: Town, view: str, language: str) -> None:
    """Opens a view, and comes back once it stands there with its values."""
    page.goto(f"{town.url}map{view}")
    part = "/".join(view.split("/")[:2])
    expect(page.locator(f'nav a[aria-current="page"][href="{part}"]')).to_be_visible()
    expect(page.locator(VIEWS[view])).to_be_visible()
    has_its_values(page, language)


# --- The town at a glance ---------------------------------------------------------------------------


@on_the_map
def test_three_numbers_each_lead_to_their_list(counted: Town, window: Window) -> None:
    come_in(window.page, counted, OPERATOR)
    expect(window.page.get_by_role("status").filter(has_text="対応中の知らせ 2件")).to_contain_text(re.compile(r"\d+秒前"))
    expect(window.page.get_by_role("link", name="今日 来た人 1,843人以上")).to_have_attribute("href", "#/flow")
    window.shoot("map-alerts")
    window.page.get_by_role("link", name="様子の分からない機器 3台").click()
    expect(window.page.get_by_text("3台を表示しています")).to_be_visible()
    expect(window.page.get_by_role("link", name=re.compile("^中央公民館 受信機 "))).to_contain_text("親機と通信できません")
    window.shoot("map-silent")


@on_the_map
def test_a_mark_on_the_map_opens_its_device_with_values_and_their_ages(town: Town, window: Window) -> None:
    come_in(window.page, town, OPERATOR)
    if window.name == "phone":
        window.page.get_by_role("button", name="地図").click()
    expect(window.page.get_by_text("海岸線だけを描いています")).to_be_visible()  # this gateway has no tiles
    mark = window.page.get_by_title("北尾根 4番：知らせあり")
    expect(mark).to_be_visible()
    window.shoot("map-map")
    window.page.get_by_title("北尾根 3番：通信中").click()
    expect(window.page.get_by_role("heading", level=2, name="北尾根 3番")).to_contain_text("通信中")
    expect(window.page.get_by_role("row", name=re.compile("電池"))).to_contain_text(re.compile(r"12.43 V\s*3分前"))
    window.shoot("map-device")


@pytest.mark.parametrize("town", [OWN], indirect=True)
def test_pages_of_the_towns_own_stand_at_the_foot_and_open_beside_the_map(town: Town, window: Window) -> None:
    come_in(window.page, town, VIEWER)
    link = window.page.get_by_role("navigation", name="町のページ").get_by_role("link", name="使い方")
    expect(link).to_have_attribute("href", "https://kirisawa.example/manual")
    expect(link).to_have_attribute("rel", "noopener")
    expect(link).to_have_attribute("target", "_blank")
    expect(window.page.get_by_role("link", name="よくある質問")).to_be_visible()  # two names may lead to one page
    window.page.get_by_role("link", name="機器", exact=True).click()
    expect(link).to_be_visible()


def test_a_token_that_is_handed_over_leaves_the_address_and_the_part_that_was_meant_opens(town: Town, window: Window) -> None:
    window.page.goto(f"{town.url}map#token={OPERATOR}&part=devices")
    expect(window.page.get_by_role("link", name="北尾根 3番")).to_be_visible()
    assert window.page.url == f"{town.url}map#/devices"


@on_the_map
def test_what_moves_for_an_alert_stands_still_for_who_wants_no_motion(town: Town, browser: Browser) -> None:
    for wish, moves in (("no-preference", True), ("reduce", False)):
        page = browser.new_page(reduced_motion=wish, locale="ja-JP")  # type: ignore[arg-type]
        come_in(page, town, OPERATOR)
        sign = page.get_by_title("北尾根 4番：知らせあり").locator("svg")
        assert sign.evaluate("one => getComputedStyle(one).animationName !== 'none'") is moves
        page.close()


@on_the_map
def test_what_is_loaded_before_anything_is_opened_stays_light(town: Town, window: Window) -> None:
    """With the map and its library, as they travel; charts and the office come when they are opened."""
    page = window.page
    weight: dict[str, int] = {}

    def weigh(response: Response) -> None:
        if response.url.endswith(".js"):
            weight[response.url.rsplit("/", 1)[1]] = int(response.headers["content-length"])

    page.on("response", weigh)
    come_in(page, town, OPERATOR)
    expect(page.get_by_text("2件を表示しています")).to_be_visible()
    if window.name == "desktop":
        expect(page.locator(".place").first).to_be_visible()
    assert 10_000 < sum(weight.values()) < 160_000
    assert not any(name.startswith(("DayLine", "Office")) for name in weight)


# --- An alert and what is done to it ----------------------------------------------------------------


ALERT = Alert(
    "a-1", "sprung", "trap", "critical", "kitayama-03", "trap-12", "o", "firing", NOW_US, False, "trap_sprung", fired_us=NOW_US
)


@pytest.fixture
def paging(gateway: Gateway) -> Paging:
    """Two of the farmers are needed. Asked for before `town`, whose gateway has it then."""
    zone, deployments = ZoneInfo("Asia/Tokyo"), Deployments(PLACES)
    book = Book({"farmers": GroupConfig(label="わな番")}, [], zone)
    route = RouteConfig.model_validate({"to": "farmers", "needed": 2})
    made = Paging(gateway.state, [route], deployments, book, Teller(deployments, zone))
    gateway.deps = replace(gateway.deps, paging=made)
    return made


def test_an_officer_says_that_they_have_seen_it_and_the_history_says_so(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR)
    page.get_by_role("link", name=re.compile("わな作動 北尾根 4番")).click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("緊急")
    page.get_by_label("理由・メモ").fill("電話で確認中")
    page.get_by_role("button", name="確認しました").click()
    expect(page.get_by_text("記録しました。")).to_be_visible()
    expect(page.get_by_text(re.compile("確認：tanaka（午前6時"))).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="tanaka")).to_contain_text("「電話で確認中」")
    expect(page.get_by_role("button", name="確認しました")).to_have_count(0)
    window.shoot("map-alert")


@on_a_desk
def test_what_changed_meanwhile_is_not_overwritten_but_shown(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR, "#/alerts/a-1")
    expect(page.get_by_role("button", name="確認しました")).to_be_visible()

    def other_first(route: Route) -> None:
        """Somebody else ends it, and this page has not heard of that yet."""
        town.gateway.client().post("/api/v1/alerts/a-1/resolve", json={"why": "見回り済み"})
        route.continue_()

    page.route("**/api/v1/alerts/a-1/acknowledge", other_first)
    page.get_by_role("button", name="確認しました").click()
    expect(page.get_by_text(re.compile("その間に変わりました"))).to_be_visible()
    expect(page.get_by_text(re.compile("終わりました")).first).to_be_visible()


@on_a_phone
def test_nothing_can_be_done_before_the_gateways_clock_is_known(town: Town, window: Window) -> None:
    """A slow network: the alert itself comes at once, the town's lists do not; "an hour from now" has no now yet."""
    lists = re.compile(r"/api/v1/(devices|alerts\?.*)$")
    window.page.route(lists, lambda _: None)
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    with window.page.expect_response(re.compile(r"/Alerts-.*\.js$")) as part:
        come_in(window.page, town, OPERATOR, "#/alerts/a-1")
    part.value.finished()
    window.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(window.page.get_by_role("button", name="あとで知らせる")).to_have_count(0)
    assert not any(url.endswith("/alerts/a-1") for url in asked)
    window.page.unroute(lists)
    window.page.get_by_label("いつまで").select_option("1時間")
    window.page.get_by_role("button", name="あとで知らせる").click()
    expect(window.page.get_by_text(re.compile("午前7時1.分 まで知らせません"))).to_be_visible()


@on_a_phone
def test_it_is_put_off_and_ended_only_with_a_reason(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR, "#/alerts/a-1")
    page.get_by_label("いつまで").select_option("1時間")
    page.get_by_role("button", name="あとで知らせる").click()
    expect(page.get_by_text(re.compile("午前7時1.分 まで知らせません"))).to_be_visible()
    page.get_by_role("button", name="終わりにする").click()
    expect(page.get_by_text("終わりにするときは、理由が必要です。")).to_be_visible()
    page.get_by_label("理由・メモ").fill("わなを外しました")
    page.get_by_role("button", name="終わりにする").click()
    expect(page.get_by_text("「わなを外しました」")).to_be_visible()


@on_a_phone
def test_who_was_told_and_who_goes_stands_there(paging: Paging, town: Town, window: Window) -> None:
    with town.gateway.state.write() as connection:
        for name in ("佐藤", "鈴木"):
            person = {"id": f"c-{name}", "name": name, "created_us": 0, "created_by": "test"}
            connection.execute(insert(tables.contacts), person)
            address = {
                "id": name,
                "contact": person["id"],
                "channel": "line",
                "address": f"U-{name}",
                "rank": 0,
                "state": "proved",
            }
            connection.execute(insert(tables.addresses), {**address, "created_us": 0})
            connection.execute(insert(tables.memberships), {"team": "farmers", "contact": person["id"]})
        paging.moved(connection, Move(ALERT, None, "trap_sprung", tell=True), NOW_US)
    page = window.page
    come_in(page, town, OPERATOR, "#/alerts/a-1")
    expect(page.get_by_text("まだ誰も向かっていません。 あと2人必要です。")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="鈴木：送信待ち")).to_be_visible()
    [asked] = town.gateway.client().get("/api/v1/pages").json()["pages"]
    said = town.gateway.client().post(f"/api/v1/pages/{asked['id']}/answer", json={"answer": "going", "contact": "c-佐藤"})
    assert said.status_code == 200
    town.gateway.deps.feed.say("page", {"id": asked["id"], "state": "asking", "severity": "critical"})
    expect(page.get_by_text("佐藤さんが向かっています。 あと1人必要です。")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="佐藤：行きます（午前6時")).to_be_visible()
    window.shoot("map-told")


@on_a_desk
def test_who_may_only_look_is_told_so_in_place(town: Town, window: Window) -> None:
    come_in(window.page, town, VIEWER, "#/alerts/a-1")
    window.page.get_by_role("button", name="確認しました").click()
    expect(window.page.locator("#came-of-it.fault")).not_to_be_empty()


@on_a_desk
def test_alerts_are_chosen_by_state_topic_and_severity(town: Town, window: Window) -> None:
    town.fire(id="a-3", device="trap-11", state="shelved", shelved_until_us=NOW_US + HOUR_US)
    town.fire(id="a-4", device="flow-01", node="hashi-01", kind="flow", severity="info", summary="count_in 900 > 800")
    page = window.page
    come_in(page, town, OPERATOR)
    expect(page.get_by_text("3件を表示しています")).to_be_visible()
    page.get_by_label("種類").select_option("人の流れ")
    expect(page.get_by_text("1件を表示しています")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("混雑 観音橋 東側"))).to_be_visible()
    page.get_by_label("種類").select_option("すべて")
    page.get_by_label("対応").select_option("あとで知らせるもの")
    expect(page.get_by_role("link", name=re.compile("北尾根 3番"))).to_contain_text("まで知らせません")


# --- Live -------------------------------------------------------------------------------------------


@on_a_phone
def test_a_device_that_goes_silent_is_counted_and_shown_without_a_reload(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR, "#/devices/unknown")
    expect(page.get_by_text("3台を表示しています")).to_be_visible()
    down = {"node": "kitayama-03", "device": "trap-11", "type": "device_down", "class_": "reading", "seq": 9, "body": "{}",
            "time_us": town.now_us(), "received_us": town.now_us(), "late": False, "clock_trusted": True}  # fmt: skip
    town.gateway.insert(tables.events, **down)
    town.gateway.deps.feed.say("event", down)
    expect(page.get_by_role("link", name="様子の分からない機器 4台")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("北尾根 3番"))).to_contain_text("機器を読み取れません")


@on_a_phone
def test_a_lost_connection_is_said_within_ten_seconds_and_made_up_for_without_a_reload(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR)
    expect(page.get_by_text("2件を表示しています")).to_be_visible()
    town.wire.silence()
    expect(page.get_by_role("alert").filter(has_text=re.compile(r"接続が切れました。午前6時1\d分の値です。"))).to_be_visible(
        timeout=10_000
    )
    expect(page.get_by_role("status").first).to_contain_text("今の様子は分かりません")
    window.shoot("map-lost")
    town.fire(id="a-9", summary="tamper_opened")
    town.wire.mend()
    expect(page.get_by_role("link", name=re.compile("機器に異常"))).to_be_visible(timeout=15_000)
    expect(page.get_by_text(re.compile("接続が切れました"))).to_have_count(0)


@on_a_desk
@on_the_map
def test_while_nothing_is_heard_of_the_gateway_nothing_looks_green(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR, "#/devices")
    expect(page.get_by_title("北尾根 3番：通信中")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("^北尾根 3番 通信中"))).to_be_visible()
    paint = "all => all.map(one => getComputedStyle(one.querySelector('path')).fill)"
    green, red = "rgb(0, 81, 46)", "rgb(168, 0, 16)"
    assert {green, red} <= set(page.locator(".mark").evaluate_all(paint))
    town.wire.silence()
    expect(page.get_by_title("北尾根 3番：不明")).to_be_visible(timeout=10_000)
    expect(page.get_by_title("北尾根 4番：知らせあり、今の様子は不明")).to_have_text("!?")
    assert not {green, red} & set(page.locator(".mark").evaluate_all(paint))
    expect(page.get_by_role("link", name=re.compile("^北尾根 3番 不明"))).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="通信中").filter(has=page.get_by_role("link"))).to_have_count(0)
    assert violations(page) == []
    town.wire.mend()
    expect(page.get_by_title("北尾根 3番：通信中")).to_be_visible(timeout=15_000)
    assert {green, red} <= set(page.locator(".mark").evaluate_all(paint))


@on_a_phone
def test_a_hundred_events_a_second_are_kept_up_with_and_nothing_grows(town: Town, window: Window) -> None:
    page = window.page
    come_in(page, town, OPERATOR, "#/devices/kitayama-03/trap-11")
    expect(page.get_by_role("row", name=re.compile("電池"))).to_contain_text("12.43")
    page.evaluate("""() => {
        window.painted = 0;
        const all = {subtree: true, childList: true, characterData: true};
        new MutationObserver(() => window.painted++).observe(document.body, all);
    }""")
    nodes = page.evaluate("document.querySelectorAll('*').length")
    began = time.monotonic()
    for at in range(500):
        town.read("trap-11", "battery_voltage", 10 + at / 1000)
        town.fire(id=f"b-{at}", opening=f"{at}", state="resolved", resolved_us=NOW_US) if at % 5 == 0 else None
        time.sleep(max(0.0, began + at / 100 - time.monotonic()))  # the pace is what is tested
    expect(page.get_by_role("row", name=re.compile("電池"))).to_contain_text("10.5 V", timeout=2000)
    assert page.evaluate("document.querySelectorAll('*').length") < nodes + 200
    assert page.evaluate("window.painted") < 10 * (time.monotonic() - began + 1)


# --- People -----------------------------------------------------------------------------------------


@on_the_map
def test_an_area_shows_its_hours_and_a_recount_sets_it_right(counted: Town, window: Window) -> None:
    page = window.page
    come_in(page, counted, OPERATOR, "#/flow")
    area = page.get_by_role("region", name="朝市広場")
    expect(area).to_contain_text("今いる人 およそ53人")
    expect(area).to_contain_text("人数計 2台のうち1台が動いています")
    expect(area.get_by_role("row", name=re.compile("西側"))).to_contain_text("不明")  # never heard: not zero
    expect(area.locator(".u-wrap canvas")).to_be_visible()
    expect(area.get_by_role("table", name="時間と日ごとに入った人")).to_contain_text("6月2日")
    window.shoot("map-flow")
    area.get_by_text("数え直し", exact=True).click()
    area.get_by_label("数えた人数").fill("50")
    area.get_by_role("button", name="この人数に直す").click()
    expect(area).to_contain_text("50人に直しました。 ずれは6％でした。")


# --- For everybody ----------------------------------------------------------------------------------


@on_a_desk
@on_the_map
def test_it_is_used_by_keyboard_alone(counted: Town, window: Window) -> None:
    page = window.page
    come_in(page, counted, OPERATOR)
    page.get_by_role("navigation").get_by_role("link", name="機器").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.get_by_role("link", name=re.compile("^沢口 カメラ ")).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="沢口 カメラ")).to_be_visible()


@on_the_map
@on_a_phone
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_wider_than_a_phone_at_twice_the_text(counted: Town, window: Window, language: str) -> None:
    page = window.page
    page.add_init_script(f"localStorage.setItem('language', '{language}')")
    come_in(page, counted, OPERATOR)
    for view in VIEWS:
        turn_to(page, counted, view, language)
        page.evaluate("document.documentElement.style.fontSize = '36px'")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view


@on_the_map
@pytest.mark.parametrize(("window", "language"), [("phone", "ja"), ("phone", "ja-easy"), ("desktop", "en")], indirect=["window"])
def test_no_view_stands_in_the_way_of_who_reads_it_otherwise(counted: Town, window: Window, language: str) -> None:
    page = window.page
    page.add_init_script(f"localStorage.setItem('language', '{language}')")
    come_in(page, counted, OPERATOR)
    for view in VIEWS:
        turn_to(page, counted, view, language)
        assert violations(page) == [], view
