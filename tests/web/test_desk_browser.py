"""The office's desk in a real browser: what is handed over, who is in, who will be told, and who finds what."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.words import call_office
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import gateway
from tests.gateway.mimamori.searching import Searching
from tests.web.axe import LANGUAGES, has_its_values, violations
from tests.web.conftest import OPERATOR, VIEWER, browser
from tests.web.test_office_browser import come_in, house, missing, shoot, size

__all__ = ["browser", "come_in", "gateway", "house", "missing", "size"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

SCANNER = Path(__file__).parents[2] / "dashboards" / "web" / "node_modules" / "qr-scanner" / "qr-scanner.legacy.min.js"


def scanned(page: Page) -> str:
    """What a phone's camera reads off the dialog as it stands on the screen."""
    shown = page.get_by_role("dialog").get_by_role("img", name="QRコード")
    shown.scroll_into_view_if_needed()
    seen = list(page.get_by_role("dialog").screenshot())
    reader = page.context.new_page()
    reader.add_script_tag(path=SCANNER)
    said: str = reader.evaluate(
        """async (bytes) => {
      const picture = new Blob([new Uint8Array(bytes)], { type: "image/png" });
      return (await QrScanner.scanImage(picture, { returnDetailedScanResult: true })).data;
    }""",
        seen,
    )
    reader.close()
    return said


def test_a_sign_in_link_is_read_off_the_screen_and_printed_with_its_code(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", at="office/accounts")
    page.get_by_role("button", name="利用者を加える").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("名前").fill("鈴木")
    dialog.get_by_label("設置担当").check()
    dialog.get_by_role("button", name="利用者を加える").click()
    page.get_by_role("row", name="鈴木").get_by_role("button", name="ログインのリンクを作る").click()
    dialog.get_by_role("button", name="ログインのリンクを作る").click()
    link = dialog.get_by_label("リンク", exact=True).input_value()
    assert scanned(page) == link
    shoot(page, "qr", size)
    assert violations(page) == []
    page.emulate_media(media="print")
    assert scanned(page) == link


def test_an_invitation_is_read_off_the_screen(come_in: Callable[..., Page], size: str) -> None:
    page = come_in("officer", at="office/contacts")
    page.get_by_role("button", name="招待を作る").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("グループ").select_option("北山のわな番")
    dialog.get_by_role("button", name="招待を作る").click()
    assert scanned(page) == dialog.get_by_label("リンク", exact=True).input_value()
    shoot(page, "invitation", size)


def test_an_officer_ends_one_session_of_somebody_and_no_other(come_in: Callable[..., Page], house: House, size: str) -> None:
    account = house.staff("viewer", name="画面")
    first, second = house.signed_in(account), house.signed_in(account)
    page = come_in("officer", at="office/accounts")
    page.get_by_role("row", name="画面").get_by_role("link", name="画面さんがログイン中の端末").click()
    expect(page.get_by_role("heading", name="画面さんがログイン中の端末")).to_be_visible()
    buttons = page.get_by_role("button", name="この端末をログアウトさせる")
    expect(buttons).to_have_count(2)
    shoot(page, "sessions", size)
    assert violations(page) == []
    buttons.first.click()
    page.get_by_role("dialog").get_by_role("button", name="この端末をログアウトさせる").click()
    expect(page.locator("#told")).to_contain_text("この端末をログアウトさせました")
    expect(buttons).to_have_count(1)
    assert sorted(one.get("/api/v1/devices").status_code for one in (first, second)) == [200, 401]
    page.goto(page.url.split("#")[0] + "#/office/audit")
    row = page.get_by_role("row", name="端末をログアウトさせました")
    expect(row.get_by_text("session.end")).to_be_visible()
    shoot(page, "acts", size)


def test_a_token_finds_only_what_it_may_do(house: House, browser: Browser) -> None:
    for token, parts in ((OPERATOR, ["警報", "機器", "人の流れ", "事務"]), (VIEWER, ["警報", "機器", "人の流れ"])):
        page = browser.new_page(locale="ja-JP")
        page.add_init_script(f"sessionStorage.setItem('token', '{token}')")
        with page.expect_response("**/api/v1/account") as answer:
            page.goto(f"{house.url}/map")
        assert answer.value.status == 200
        links = page.get_by_role("navigation").first.get_by_role("link")
        expect(links).to_have_count(len(parts))
        page.close()


def test_who_signs_in_comes_back_to_what_was_open(house: House, browser: Browser) -> None:
    page = browser.new_page(locale="ja-JP")
    page.goto(f"{house.url}/map#/office/audit")
    page.get_by_role("link", name="ログインする").first.click()
    expect(page).to_have_url(re.compile(r"/login\?next=%2Fmap%23%2Foffice%2Faudit$"))
    assert page.locator("#passkey").get_attribute("data-next") == "/map#/office/audit"
    page.goto(house.url + house.link(house.staff("officer")) + "?next=%2Fmap%23%2Foffice%2Faudit")
    page.get_by_role("button", name="ログインする").click()
    expect(page).to_have_url(f"{house.url}/map#/office/audit")
    expect(page.get_by_role("heading", level=2, name="操作の記録")).to_be_visible()
    page.close()


@pytest.fixture
def called() -> Iterator[None]:
    """The office of a town whose configuration calls it so."""
    call_office("霧沢町 福祉課")
    yield
    call_office("")


@pytest.mark.usefixtures("called")
def test_before_a_search_is_opened_it_says_how_many_it_tells_and_calls_the_office_by_its_name(
    missing: tuple[Searching, Page], size: str
) -> None:
    town, page = missing
    page.reload()
    page.get_by_role("row", name="ハナさん").get_by_role("button", name="捜索を始める").click()
    told = page.get_by_role("dialog").get_by_role("status")
    expect(told).to_contain_text("家族2人、霧沢町 福祉課 1人、協力者3人にすぐ知らせます")
    shoot(page, "search-audience", size)
    assert violations(page) == []
    assert town.client("operator").get("/api/v1/searches").json()["searches"] == []


@pytest.mark.parametrize("size", ["phone"], indirect=True)
@pytest.mark.parametrize("language", LANGUAGES)
def test_sessions_and_acts_stand_in_nobodys_way(come_in: Callable[..., Page], house: House, language: str) -> None:
    account = house.staff("viewer", name="画面")
    house.signed_in(account)
    page = come_in("officer")
    page.evaluate(f"localStorage.setItem('language', {json.dumps(language)})")
    page.reload()
    for part in (f"accounts/{account}", "audit"):
        page.goto(f"{house.url}/map#/office/{part}")
        expect(page.locator("main h2").first).to_be_visible()
        has_its_values(page, language)
        expect(page.get_by_role("table").first).to_be_visible()
        assert violations(page) == [], part
