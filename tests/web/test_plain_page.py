"""The plain page as people meet it, in a real browser: what they see, what they press, and what it says when it knows nothing."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select, update

from gateway.deployments import Deployment, Deployments
from gateway.state import tables
from tests.web.conftest import NODE, OPERATOR, VIEWER, Town, Window

pytestmark = pytest.mark.browser

SOON_MS = 5_000
GREY = "rgb(92, 96, 104)"
NOTICED_MS = 10_000  # the promise about a lost connection


def enter(page: Page, town: Town, token: str = OPERATOR) -> None:
    page.goto(f"{town.url}#token={token}")
    expect(page.locator("#town")).to_be_visible(timeout=SOON_MS)


def device(page: Page, name: str) -> Locator:
    return page.locator(f'#devices > li[data-device$="/{name}"]')


def alert(page: Page, id_: str) -> Locator:
    return page.locator(f'#alerts > li[data-id="{id_}"]')


def test_devices_with_place_state_values_and_ages(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)

    trap = device(page, "trap-11")
    expect(trap).to_contain_text("北尾根 3番")
    expect(trap).to_have_class("ok")
    expect(trap.locator(".state")).to_have_text("作動していません")
    voltage = trap.locator('[data-metric="battery_voltage"]')
    expect(voltage.locator("dd").first).to_have_text("12.43 V")
    expect(voltage.locator(".age")).to_have_text("3分前")
    flow = device(page, "flow-01")
    expect(flow.locator('[data-metric="count_in"] dd').first).to_have_text("1,843人")
    expect(flow.locator('[data-metric="heartbeat"] dd').first).to_have_text("26時間")
    expect(page.locator("#clock")).to_contain_text("6月3日 午前6時12分")
    window.shoot("devices")


def test_what_is_unknown_is_shown_as_unknown(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    for name, why in (
        ("cam-02", "まだ一度も通信がありません。"),
        ("tags-01", "親機と通信できません。今の様子は分かりません。 最後の通信 2分前"),
    ):
        expect(device(page, name)).to_have_class("unknown")
        expect(device(page, name).locator(".state")).to_have_text("不明")
        expect(device(page, name).locator(".why")).to_have_text(why)
    silent = device(page, "trap-21")  # its alert stays, and yet nobody knows how it is now
    expect(silent).to_have_class("alert")
    expect(silent.locator(".state")).to_have_text("不明")
    expect(silent.locator(".why")).to_have_text(
        "わなと26時間 通信できません。作動しても知らせが届きません。見回りをお願いします。"
    )
    assert silent.locator(".state").evaluate("node => getComputedStyle(node).color") == GREY


def test_open_alerts_stand_on_top_the_unanswered_first(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    expect(page.locator("#alerts > li h3")).to_have_text(
        ["【わな作動】北尾根 4番", "【通信なし】沢口の林道入口から二つめの曲がり角 1番"]
    )
    expect(alert(page, "a-1")).to_contain_text("6月3日 午前6時10分")
    expect(alert(page, "a-1")).to_contain_text("まだ誰も確認していません。")
    expect(alert(page, "a-2")).to_contain_text("作動しても知らせが届きません。見回りをお願いします。")
    expect(alert(page, "a-2")).to_contain_text("田中さんが確認しました（午前5時12分）。")
    expect(page).to_have_title("(1) 里守り")
    alerts_box, devices_box = page.locator("#alerts").bounding_box(), page.locator("#devices").bounding_box()
    assert alerts_box is not None
    assert devices_box is not None
    assert alerts_box["y"] + alerts_box["height"] <= devices_box["y"]


def test_it_fits_the_screen_and_the_thumb(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    buttons = page.locator("button:visible").all()
    assert len(buttons) == 2
    for button in buttons:
        box = button.bounding_box()
        assert box is not None
        assert box["width"] >= 44
        assert box["height"] >= 44


def test_a_new_alert_appears_without_a_reload_and_is_acknowledged(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    page.evaluate("window.same = true")

    town.fire()

    fresh = alert(page, "a-new")
    expect(fresh).to_contain_text("【わな作動】北尾根 3番", timeout=SOON_MS)
    expect(device(page, "trap-11")).to_have_class("alert", timeout=SOON_MS)
    window.shoot("alert")
    fresh.get_by_role("button", name="北尾根 3番 を確認しました").press("Enter")
    expect(fresh).to_contain_text("tanakaさんが確認しました（午前6時12分）。", timeout=SOON_MS)
    expect(fresh.get_by_role("button")).to_have_count(0)
    assert page.evaluate("window.same") is True
    with town.gateway.state.read() as connection:
        row = connection.execute(select(tables.alerts).where(tables.alerts.c.id == "a-new")).one()
    assert (row.state, row.acknowledged_by) == ("acknowledged", "tanaka")
    window.shoot("acknowledged")


def test_the_stream_alone_brings_an_alert_when_the_lists_fail(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    desktop.route("**/api/v1/alerts?**", lambda route: route.abort())
    town.fire()
    expect(alert(desktop, "a-new")).to_be_visible(timeout=SOON_MS)
    expect(desktop.locator("#lost")).to_be_hidden()


def test_an_alert_that_is_over_leaves(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    with town.gateway.state.write() as connection:
        connection.execute(update(tables.alerts).where(tables.alerts.c.id == "a-1").values(state="resolved", version=2))
        row = connection.execute(select(tables.alerts).where(tables.alerts.c.id == "a-1")).mappings().one()
    town.gateway.deps.feed.say("alert", dict(row))
    expect(alert(desktop, "a-1")).to_have_count(0, timeout=SOON_MS)
    expect(alert(desktop, "a-2")).to_have_count(1)


def test_who_is_second_is_told_and_sees_who_was_first(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    with town.gateway.state.write() as connection:  # unsaid, as if the word of it were still on its way
        connection.execute(
            update(tables.alerts)
            .where(tables.alerts.c.id == "a-1")
            .values(state="acknowledged", acknowledged_by="佐藤", acknowledged_us=town.now_us(), version=2)
        )
    alert(desktop, "a-1").get_by_role("button").click()
    expect(alert(desktop, "a-1")).to_contain_text("ほかの人が先に確認したか、状態が変わりました。", timeout=SOON_MS)
    expect(alert(desktop, "a-1")).to_contain_text("佐藤さんが確認しました", timeout=SOON_MS)


def test_who_may_only_look_is_told_so(town: Town, desktop: Page) -> None:
    enter(desktop, town, VIEWER)
    alert(desktop, "a-1").get_by_role("button").click()
    expect(alert(desktop, "a-1")).to_contain_text("このトークンでは、確認の操作はできません。", timeout=SOON_MS)
    expect(alert(desktop, "a-1")).to_have_class("firing")


def test_values_change_and_ages_count_by_themselves(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    row = device(desktop, "flow-01").locator('[data-metric="count_in"]')
    town.read("flow-01", "count_in", 2000)
    expect(row.locator("dd").first).to_have_text("2,000人", timeout=SOON_MS)
    expect(row.locator(".age")).to_have_text("たった今")
    expect(row.locator(".age")).to_have_text("6秒前", timeout=8_000)


@pytest.mark.parametrize("town", [{"stale_after_s": 7}], indirect=True)
def test_a_device_turns_unknown_by_silence_alone(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    expect(device(desktop, "flow-01")).to_have_class("ok")
    expect(device(desktop, "flow-01")).to_have_class("unknown", timeout=SOON_MS)
    town.read("flow-01", "count_in", 2000)
    expect(device(desktop, "flow-01")).to_have_class("ok", timeout=SOON_MS)


def test_a_silent_line_is_noticed_within_ten_seconds_and_caught_up_with(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    expect(page.locator("#lost")).to_be_hidden()

    town.wire.silence()

    banner = page.locator("#lost")
    expect(banner).to_have_text("接続が切れました。午前6時12分 時点の値です", timeout=NOTICED_MS)
    expect(page.locator("body")).to_have_class("lost")
    green = page.evaluate("getComputedStyle(document.querySelector('#devices .ok .state')).color")
    assert green == GREY  # nothing is known to be well now
    window.shoot("lost")

    town.fire()  # nobody hears it
    expect(alert(page, "a-new")).to_have_count(0)
    town.wire.mend()
    expect(banner).to_be_hidden(timeout=20_000)
    expect(alert(page, "a-new")).to_be_visible()
    expect(page.locator("body")).not_to_have_class("lost")


def test_a_cut_line_is_noticed_and_mends(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    town.wire.cut()
    expect(desktop.locator("#lost")).to_be_visible(timeout=SOON_MS)
    town.wire.mend()
    expect(desktop.locator("#lost")).to_be_hidden(timeout=20_000)


def test_a_page_opened_without_a_connection_promises_nothing(town: Town, desktop: Page) -> None:
    desktop.route("**/api/**", lambda route: route.abort())
    desktop.goto(f"{town.url}#token={OPERATOR}")
    expect(desktop.locator("#lost")).to_have_text("接続できません。つながるまで、様子は分かりません。", timeout=SOON_MS)
    expect(desktop.locator("#town")).to_be_hidden()


def test_the_token_leaves_the_address_bar_and_stays_for_the_session(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    assert desktop.url == town.url
    desktop.reload()
    expect(desktop.locator("#town")).to_be_visible(timeout=SOON_MS)
    assert desktop.evaluate("localStorage.length") == 0
    assert desktop.context.cookies() == []


def test_without_a_token_the_page_asks_for_it(town: Town, window: Window) -> None:
    page = window.page
    page.goto(town.url)
    expect(page.get_by_label("トークン")).to_be_focused()
    window.shoot("token")
    page.keyboard.type("not-a-token-of-anybody")
    page.keyboard.press("Enter")
    expect(page.locator("#token-fault")).to_have_text("このトークンは使えません。入力し直してください。", timeout=SOON_MS)
    page.get_by_label("トークン").fill(OPERATOR)
    page.get_by_role("button", name="開く").click()
    expect(page.locator("#town")).to_be_visible(timeout=SOON_MS)
    expect(page.locator("#token-form")).to_be_hidden()


def test_a_token_without_the_right_is_told_so(town: Town, desktop: Page) -> None:
    desktop.goto(f"{town.url}#token={NODE}")
    expect(desktop.locator("#token-fault")).to_have_text("このトークンでは、この画面を見られません。", timeout=SOON_MS)


HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


@pytest.mark.parametrize(
    "town",
    [{"deployments": Deployments([Deployment.model_construct(
        node="kitayama-03", device="trap-11", kind="trap", place=HOSTILE, label="'\"&lt;")])}],
    indirect=True,
)  # fmt: skip
def test_text_stays_text(town: Town, desktop: Page) -> None:
    enter(desktop, town)
    town.fire(summary=HOSTILE, kind="other")
    expect(alert(desktop, "a-new")).to_contain_text(f"【お知らせ】{HOSTILE}", timeout=SOON_MS)
    expect(device(desktop, "trap-11")).to_contain_text(HOSTILE)
    assert desktop.locator("main img, main script").count() == 0
    assert desktop.evaluate("window.hacked") is None


def test_in_english_too_and_it_is_remembered(town: Town, window: Window) -> None:
    page = window.page
    enter(page, town)
    page.get_by_role("button", name="English").click()
    expect(page.locator("#alerts > li h3").first).to_have_text("【Trap sprung】北尾根 4番")
    expect(device(page, "cam-02").locator(".state")).to_have_text("Unknown")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#clock")).to_have_text(re.compile(r"3 Jun 06:1[2-9]"))
    window.shoot("english")
    page.reload()
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=SOON_MS)
