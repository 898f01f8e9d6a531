"""The office's desk in a real browser before a real gateway: what operators and officers do there, and what others never see."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import insert

from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.deployments import Deployments
from gateway.flow.config import AreaConfig
from gateway.state import tables
from simulators.ports import free_port
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway, gateway
from tests.gateway.mimamori.searching import Searching
from tests.gateway.town import SIGNER
from tests.web.axe import has_its_values, violations
from tests.web.conftest import OPERATOR, PLACES, SCREENSHOTS, browser, settle
from tests.wire import in_thread

__all__ = ["browser", "gateway"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
SHELTERS = {
    name: AreaConfig.model_validate(
        {"label": label, "m2": 400, "capacity": 200, "shelter": True, "line": [{"node": "hashi-01", "device": device}]}
    )
    for name, label, device in (("east", "東小学校", "flow-01"), ("west", "西小学校", "flow-02"))
}
DAY_US = 24 * 60 * MINUTE_US


@pytest.fixture
def house(gateway: Gateway, tmp_path: Path) -> Iterator[House]:
    """A town with a silent node, a message that never arrived, an overdue trap and a dossier that lacks nearly everything."""
    began, port = time.monotonic_ns(), free_port()
    gateway.deps = replace(
        gateway.deps,
        deployments=Deployments(PLACES),
        areas=SHELTERS,
        signer=SIGNER,
        heartbeat_s=1,
        now_us=lambda: NOW_US + (time.monotonic_ns() - began) // 1000,
    )
    made = House(gateway, tmp_path, f"http://localhost:{port}")
    settle(gateway)
    made.person("4" * 32, "farmers", mail="hanako@example.jp")
    made.person("5" * 32, "farmers", mail="taro@example.jp", state="unreachable")
    gateway.insert(
        tables.notifications, id="dead-1", alert=None, contact="4" * 32, channel="mail", state="dead", error="550 no such user",
        sent_us=None, attempts=8,
    )  # fmt: skip
    gateway.insert(tables.certificates, not_after_us=NOW_US + 40 * DAY_US + 60 * MINUTE_US)
    with gateway.state.write() as connection:
        for name, heard_us in (("east", NOW_US), ("west", NOW_US - DAY_US)):
            counter = {"in": 90, "in0": 0, "out": 8, "out0": 0, "heard_us": heard_us}
            crowd = {"inside": 82, "density": None, "share": 0.41, "level": 0, "rising": False, "shelter": True}
            body = {"inside": 82, "lines": {f"hashi-01/{SHELTERS[name].line[0].device}": counter}, "crowd": crowd}
            row = {"rule": "shelters", "node": "area", "device": name, "body": json.dumps(body)}
            connection.execute(insert(tables.rule_states).values(row))
    visit = {"id": "7d2f3c1e-0000-4000-8000-000000000001", "node": "kitayama-03", "device": "trap-12", "result": "capture"}
    assert gateway.client().post("/api/v1/visits", json=visit).status_code == 201
    with in_thread(serve(create_app(gateway.deps), "127.0.0.1", port)):
        yield made


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def come_in(house: House, browser: Browser, size: str) -> Iterator[Callable[..., Page]]:
    """Somebody of the staff, signed in, before the office's desk."""
    context = browser.new_context(viewport=SIZES[size], locale="ja-JP", timezone_id="Europe/Paris")  # type: ignore[arg-type]
    faults: list[str] = []

    def opened(*roles: str, at: str = "office") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(house.url + house.link(house.staff(*roles)))
        page.get_by_role("button", name="ログインする").click()
        expect(page).to_have_url(f"{house.url}/account")
        page.goto(f"{house.url}/map#/{at}")
        return page

    yield opened
    context.close()
    assert faults == []


def shoot(page: Page, what: str, size: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"office-{what}-{size}.png", full_page=True)


def test_an_operator_finds_the_silent_node_first_and_asks_one_that_is_there(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("operator")
    page.get_by_role("navigation", name="事務").get_by_role("link", name="ノードと設置").click()
    expect(page.get_by_role("heading", level=2, name="ノードと設置")).to_be_focused()
    nodes = page.get_by_role("table", name="ノード", exact=True).get_by_role("row")
    expect(nodes.nth(1)).to_contain_text("kominkan-01")
    expect(nodes.nth(1)).to_contain_text("通信なし")
    expect(nodes.nth(1)).to_contain_text("中央公民館")
    expect(page.get_by_role("row", name="kitayama-03")).to_contain_text("あと40日")
    shoot(page, "nodes", size)
    page.get_by_role("button", name="通信を試す kitayama-03").click()
    page.get_by_role("dialog").get_by_role("button", name="通信を試す").click()
    expect(page.locator("#told")).to_contain_text("ノードに頼みました")
    page.get_by_role("link", name="kitayama-03").click()
    expect(page.get_by_role("table", name="頼んだこと").get_by_role("row").nth(1)).to_contain_text("返事待ち")
    shoot(page, "node", size)


def test_an_operator_has_a_dead_letter_tried_again(come_in: Callable[..., Page], house: House, size: str) -> None:
    page = come_in("operator", at="office/deliveries")
    row = page.get_by_role("row", name="名前44")
    expect(row).to_contain_text("届きませんでした")
    shoot(page, "deliveries", size)
    row.get_by_role("button", name="もう一度送る").click()
    page.get_by_role("dialog").get_by_role("button", name="もう一度送る").click()
    expect(page.locator("#told")).to_contain_text("送る列に戻しました")
    expect(page.locator("#told")).to_be_focused()  # the button went with its row
    expect(page.get_by_text("この条件の配信はありません")).to_be_visible()
    assert house.gateway.client().get("/api/v1/deliveries?state=queued").json()["deliveries"][0]["id"] == "dead-1"


def test_what_somebody_else_settled_meanwhile_is_said_in_place_and_read_anew(come_in: Callable[..., Page], house: House) -> None:
    page = come_in("operator", at="office/deliveries")
    page.get_by_role("button", name="送らないことにする").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("理由").fill("退職した方です")
    assert house.gateway.client().post("/api/v1/deliveries/dead-1/retry").status_code == 200
    dialog.get_by_role("button", name="送らないことにする").click()
    expect(dialog.get_by_role("alert")).to_contain_text("その間に変わりました")
    dialog.get_by_role("button", name="やめる").click()
    expect(page.get_by_text("この条件の配信はありません")).to_be_visible()


def test_an_operator_silences_a_noisy_device_and_ends_it(come_in: Callable[..., Page], house: House, size: str) -> None:
    page = come_in("operator", at="office/silences")
    expect(page.get_by_text("止めている知らせはありません")).to_be_visible()
    page.get_by_role("button", name="知らせを止める").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox", name="機器", exact=True).select_option("北尾根 3番")
    dialog.get_by_label("期間").select_option("1日")
    dialog.get_by_label("理由").fill("扉が風で動く")
    shoot(page, "silence", size)
    dialog.get_by_role("button", name="知らせを止める").click()
    row = page.get_by_role("row", name="北尾根 3番")
    expect(row).to_contain_text("停止中")
    expect(row).to_contain_text("扉が風で動く")
    [made] = house.gateway.client().get("/api/v1/silences").json()["silences"]
    assert made["match"] == {"node": "kitayama-03", "device": "trap-11"}
    assert made["until_us"] - made["from_us"] == pytest.approx(DAY_US, abs=MINUTE_US)
    row.get_by_role("button", name="停止を終わる").click()
    page.get_by_role("dialog").get_by_role("button", name="停止を終わる").click()
    expect(page.get_by_text("止めている知らせはありません")).to_be_visible()


def test_a_silence_of_everything_is_refused_in_place(come_in: Callable[..., Page]) -> None:
    page = come_in("operator", at="office/silences")
    page.get_by_role("button", name="知らせを止める").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("理由").fill("静かにしたい")
    dialog.get_by_role("button", name="知らせを止める").click()
    expect(dialog.get_by_role("alert").get_by_role("strong")).not_to_be_empty()
    expect(dialog.get_by_label("理由")).to_have_value("静かにしたい")


def test_an_officer_gives_an_installer_a_job(come_in: Callable[..., Page], house: House, size: str) -> None:
    house.staff("installer", name="佐藤")
    page = come_in("officer", at="office/jobs")
    page.get_by_role("button", name="仕事を任せる").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("設置担当者").select_option("佐藤")
    dialog.get_by_label("仕事の名前").fill("沢口の交換")
    dialog.get_by_label("ノード").fill("sawaguchi-01、sawaguchi-02")
    shoot(page, "job", size)
    dialog.get_by_role("button", name="仕事を任せる").click()
    row = page.get_by_role("row", name="沢口の交換")
    expect(row).to_contain_text("佐藤")
    expect(row).to_contain_text("sawaguchi-01 · sawaguchi-02")
    row.get_by_role("button", name="仕事を終わらせる").click()
    page.get_by_role("dialog").get_by_role("button", name="仕事を終わらせる").click()
    expect(page.get_by_text("仕事はありません")).to_be_visible()


def test_an_officer_switches_to_disaster_mode_and_back_and_is_asked_twice(
    come_in: Callable[..., Page], house: House, size: str
) -> None:
    page = come_in("officer", at="office/disaster")
    expect(page.get_by_text("平常です。")).to_be_visible()
    expect(page.get_by_role("row", name="東小学校")).to_contain_text("82人定員に対して41%")
    expect(page.get_by_role("row", name="西小学校")).to_contain_text("不明。最後は82人定員に対して不明")  # its counter is silent

    def mode() -> str:
        said: str = house.gateway.client().get("/api/v1/town/mode").json()["mode"]
        return said

    for button, why, shown, came in (
        ("災害モードにする", "大雨のため", "災害モードです。", "disaster"),
        ("平常に戻す", "雨がやんだため", "平常です。", "normal"),
    ):
        before = mode()
        page.get_by_role("button", name=button).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("理由").fill(why)
        dialog.get_by_role("button", name=button).click()
        expect(dialog.get_by_role("alert").first).to_contain_text("本当に")
        assert mode() == before
        dialog.get_by_role("button", name=button).click()
        expect(page.get_by_text(shown, exact=True)).to_be_visible()
        expect(page.locator("main").get_by_text(why)).to_be_visible()
        shoot(page, f"mode-{came}", size)
        assert mode() == came


def test_an_officer_fills_in_a_dossier_that_says_what_it_lacks(come_in: Callable[..., Page], house: House, size: str) -> None:
    page = come_in("officer", at="office/visits")
    row = page.get_by_role("table", name="捕獲の書類").get_by_role("row", name="北尾根 4番")
    expect(row).to_contain_text("不足 獣種")
    shoot(page, "visits", size)
    row.get_by_role("button", name="記入する").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("獣種").fill("イノシシ")
    dialog.get_by_label("体重").fill("42.5")
    dialog.get_by_role("button", name="記入する").click()
    expect(page.locator("#told")).to_contain_text("保存しました")
    expect(row).to_contain_text("イノシシ")
    expect(row).not_to_contain_text("不足 獣種")
    [kept] = house.gateway.client().get("/api/v1/captures").json()["captures"]
    assert (kept["species"], kept["weight_kg"]) == ("イノシシ", 42.5)
    with page.expect_download() as saved:
        page.get_by_role("button", name="捕獲", exact=True).click()
    assert saved.value.suggested_filename == "captures.csv"


def test_an_officer_makes_an_account_whose_link_is_shown_this_once(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", at="office/accounts")
    page.get_by_role("button", name="利用者を加える").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("名前").fill("鈴木")
    dialog.get_by_label("設置担当").check()
    dialog.get_by_role("button", name="利用者を加える").click()
    row = page.get_by_role("row", name="鈴木")
    expect(row).to_contain_text("設置担当")
    row.get_by_role("button", name="ログインのリンクを作る").click()
    page.get_by_role("dialog").get_by_role("button", name="ログインのリンクを作る").click()
    shown = page.get_by_role("dialog").get_by_label("リンク", exact=True)
    assert "/login/link/" in shown.input_value()
    shoot(page, "link", size)
    page.get_by_role("button", name="閉じる").click()
    expect(page.locator("textarea[readonly]")).to_have_count(0)
    shoot(page, "accounts", size)


def test_an_officer_sees_first_who_can_not_be_reached_and_invites_somebody(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", at="office/contacts")
    rows = page.get_by_role("table", name="連絡先").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("名前55")
    expect(rows.nth(1)).to_contain_text("連絡不可")
    expect(rows.nth(2)).to_contain_text("連絡可")
    page.get_by_role("button", name="招待を作る").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("グループ").select_option("北山のわな番")
    dialog.get_by_role("button", name="招待を作る").click()
    expect(dialog.get_by_text("ここで一度だけ表示します")).to_be_visible()
    page.get_by_role("button", name="閉じる").click()
    expect(page.get_by_role("table", name="招待").get_by_role("row", name="北山のわな番")).to_be_visible()
    shoot(page, "contacts", size)


def test_an_officer_reads_who_did_what(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", at="office/disaster")
    page.get_by_role("button", name="災害モードにする").click()
    page.get_by_role("dialog").get_by_label("理由").fill("大雨のため")
    page.get_by_role("dialog").get_by_role("button", name="災害モードにする").click()
    page.get_by_role("dialog").get_by_role("button", name="災害モードにする").click()
    expect(page.locator("#told")).to_contain_text("災害モードにしました")
    page.goto(page.url.replace("disaster", "audit"))
    page.get_by_label("操作", exact=True).fill("town.switch")
    page.get_by_role("button", name="調べる").click()
    rows = page.get_by_role("table", name="操作の記録").get_by_role("row")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("人田中")
    shoot(page, "audit", size)


@pytest.mark.parametrize("size", ["desktop"], indirect=True)
def test_a_viewer_sees_none_of_it_and_an_operator_nothing_of_people(come_in: Callable[..., Page]) -> None:
    page = come_in("viewer", at="alerts")
    expect(page.get_by_role("link", name="機器", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="事務")).to_have_count(0)
    page.close()
    page = come_in("operator")
    links = page.get_by_role("navigation", name="事務").get_by_role("link")
    expect(links).to_have_text(["見回りと捕獲", "ノードと設置", "設置の仕事", "知らせの停止", "配信の記録", "連絡先", "報告書"])


def test_the_desk_lists_its_parts(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", "operator")
    expect(page.get_by_role("navigation", name="事務").get_by_role("link")).to_have_count(12)
    shoot(page, "desk", size)


# --- Where a person is ------------------------------------------------------------------------------


@pytest.fixture
def missing(tmp_path: Path, browser: Browser, size: str) -> Iterator[tuple[Searching, Page]]:
    """An officer before the office's desk of a town that watches over ハナさん."""
    context = browser.new_context(viewport=SIZES[size], locale="ja-JP")  # type: ignore[arg-type]
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")
    with Searching(tmp_path) as town:
        town.remembers(seen_us=town.now_us - 12 * MINUTE_US, seen_at="kominkan/tags", alive={"tsubaki/tags": town.now_us})
        town.client("operator")
        with in_thread(serve(town.app, "127.0.0.1", 0)) as port:
            page.goto(f"http://127.0.0.1:{port}/map#/office/watched")
            yield town, page
    context.close()


def test_where_a_tag_was_is_shown_to_who_says_why_and_the_look_is_kept(missing: tuple[Searching, Page], size: str) -> None:
    _, page = missing
    row = page.get_by_role("row", name="ハナさん")
    expect(row).to_contain_text("同意の記録なし")
    expect(page.get_by_text("中央公民館")).to_have_count(0)
    shoot(page, "watched", size)
    row.get_by_role("button", name="最後の場所を見る").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="最後の場所を見る").click()
    expect(page.get_by_text("中央公民館")).to_have_count(0)  # not without a reason
    dialog.get_by_label("理由").fill("家族から電話")
    dialog.get_by_role("button", name="最後の場所を見る").click()
    expect(dialog).to_contain_text("中央公民館")
    expect(dialog).to_contain_text("今の場所ではありません")
    dialog.get_by_role("button", name="閉じる").click()
    row.get_by_role("link", name="見た人の記録").click()
    expect(page.get_by_role("table", name="見た人の記録").get_by_role("row").nth(1)).to_contain_text("家族から電話")


def test_an_officer_opens_a_search_sees_whom_it_reached_and_says_that_they_are_found(
    missing: tuple[Searching, Page], size: str
) -> None:
    town, page = missing
    page.get_by_role("row", name="ハナさん").get_by_role("button", name="捜索を始める").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("理由").fill("散歩から戻らない")
    dialog.get_by_role("button", name="捜索を始める").click()
    expect(page.locator("#told")).to_contain_text("捜索を開始しました")
    town.sent()
    town.heard("eki", ago_us=MINUTE_US)
    town.tick()
    page.goto(page.url.replace("watched", "searches"))
    row = page.get_by_role("row", name="ハナさん")
    expect(row).to_contain_text("捜索中")
    expect(page.get_by_text("駅前")).to_have_count(0)
    row.get_by_role("link", name="ハナさん").click()
    expect(page.get_by_text("市役所 1/1、協力者 3/3人に届きました。")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="駅前")).to_contain_text("1分前")
    shoot(page, "search", size)
    page.get_by_role("button", name="見つかりました").click()
    page.get_by_role("dialog").get_by_role("button", name="見つかりました").click()
    expect(page.get_by_role("heading", level=3, name="ハナさん")).to_contain_text("発見")
    expect(page.get_by_role("button", name="見つかりました")).to_have_count(0)
    assert town.client("operator").get("/api/v1/searches").json()["searches"][0]["state"] == "found"


@pytest.mark.parametrize(("size", "language"), [("phone", "ja-easy"), ("desktop", "ja"), ("desktop", "en")], indirect=["size"])
def test_no_part_of_the_desk_stands_in_the_way_of_who_reads_it_otherwise(
    come_in: Callable[..., Page], house: House, size: str, language: str
) -> None:
    page = come_in("officer", "operator")
    page.evaluate(f"localStorage.setItem('language', '{language}')")
    page.reload()
    for part in ("visits", "searches", "watched", "disaster", "nodes", "jobs", "silences", "deliveries", "contacts", "accounts",
                 "reports", "audit"):  # fmt: skip
        page.goto(f"{house.url}/map#/office/{part}")
        expect(page.locator("main h2").first).to_be_visible()
        has_its_values(page, language)
        assert violations(page) == [], part
