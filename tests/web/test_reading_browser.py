"""How somebody reads the pages: text size, contrast, language, readings above kanji; and the page as an app on a home screen."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.gateway.api.conftest import gateway
from tests.services import require_binary
from tests.web.axe import violations
from tests.web.conftest import OPERATOR, SCREENSHOTS, Town, Window, browser, town, window

__all__ = ["browser", "gateway", "town", "window"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

PAGES = ("install", "mimamori", "map")


def come_in(page: Page) -> None:
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")


def letters_px(page: Page) -> float:
    px: float = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.lead, .as-of')).fontSize)")
    return px


def wider_than_the_screen_px(page: Page) -> int:
    px: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return px


@pytest.mark.parametrize("window", ["phone"], indirect=True)
def test_what_was_chosen_shows_at_once_survives_a_reload_and_holds_on_the_other_pages(town: Town, window: Window) -> None:
    page = window.page
    come_in(page)
    page.goto(f"{town.url}mimamori")
    expect(page.get_by_text("表示とことば")).to_be_visible()
    usual = letters_px(page)
    page.get_by_text("表示とことば").click()
    page.get_by_label("文字の大きさ").select_option("とても大きい")
    page.get_by_label("色の濃さ").select_option("はっきり")
    assert letters_px(page) == pytest.approx(1.5 * usual)
    quiet = "getComputedStyle(document.querySelector('.lead, .as-of')).color"
    assert page.evaluate(quiet) == "rgb(0, 0, 0)"
    for name in ("mimamori", "map", "install"):
        page.goto(f"{town.url}{name}")
        page.get_by_text("表示とことば").click()
        expect(page.get_by_label("文字の大きさ")).to_have_value("largest")
        assert letters_px(page) == pytest.approx(1.5 * usual)
        assert page.evaluate(quiet) == "rgb(0, 0, 0)"
        window.shoot(f"largest-{name}")
        assert wider_than_the_screen_px(page) <= 0, name
        assert violations(page) == [], name


def test_contrast_follows_the_device_until_somebody_chooses(town: Town, browser: Browser) -> None:
    context = browser.new_context(locale="ja-JP", contrast="more")
    page = context.new_page()
    page.goto(f"{town.url}map")
    page.get_by_text("表示とことば").click()
    expect(page.get_by_label("色の濃さ")).to_have_value("clear")
    page.get_by_label("色の濃さ").select_option("普通")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-contrast", "usual")
    context.close()


@pytest.mark.parametrize("window", ["desktop"], indirect=True)
def test_who_goes_through_the_languages_by_keys_keeps_their_place(town: Town, window: Window) -> None:
    page = window.page
    come_in(page)
    page.goto(f"{town.url}mimamori")
    page.get_by_text("表示とことば").press("Enter")
    for language in ("ja-easy", "en"):
        page.locator("details select").first.select_option(language)
        expect(page.locator(f"html[data-words={language}] details select").first).to_be_focused()


@pytest.mark.parametrize("window", ["desktop"], indirect=True)
def test_of_two_languages_the_one_chosen_last_shows_however_late_the_words_of_the_other_come(town: Town, window: Window) -> None:
    page = window.page
    come_in(page)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile(r"/assets/mimamori\.en-"), hold)
    page.goto(f"{town.url}mimamori")
    page.get_by_text("表示とことば").click()
    with page.expect_request(re.compile(r"/assets/mimamori\.en-")) as asked:
        page.locator("details select").first.select_option("en")
    page.locator("details select").first.select_option("ja-easy")
    expect(page.locator("h1 ruby").first).to_be_visible()
    held[0].continue_()
    page.evaluate("url => import(url).then(() => true)", asked.value.url)
    expect(page.locator("html[data-words=ja-easy] h1 ruby").first).to_be_visible()
    expect(page.locator("h1")).to_have_count(1)


@pytest.mark.parametrize("window", ["phone"], indirect=True)
@pytest.mark.parametrize("name", PAGES)
def test_easy_japanese_stands_with_its_readings_above_it_and_other_japanese_without(
    town: Town, window: Window, name: str
) -> None:
    page = window.page
    come_in(page)
    page.goto(f"{town.url}{name}")
    expect(page.locator("html[data-words=ja] .reading")).to_be_visible()
    expect(page.locator("ruby")).to_have_count(0)
    page.evaluate("localStorage.setItem('language', 'ja-easy')")
    page.reload()
    expect(page.locator("h1 ruby rt").first).to_be_visible()
    expect(page.locator("h1 ruby rp").first).to_be_hidden()
    window.shoot(f"easy-{name}")
    assert wider_than_the_screen_px(page) <= 0
    assert violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_largest_choice_fits_a_narrow_phone_whose_own_letters_are_twice_as_large(
    town: Town, browser: Browser, tmp_path: Path, name: str
) -> None:
    context = browser.browser_type.launch_persistent_context(
        tmp_path, executable_path=require_binary("chromium"), locale="ja-JP", viewport={"width": 390, "height": 844},
        args=["--no-sandbox", "--blink-settings=defaultFontSize=32"],
    )  # fmt: skip
    page = context.new_page()
    come_in(page)
    page.add_init_script("localStorage.setItem('text-size', 'largest')")
    page.goto(f"{town.url}{name}")
    page.get_by_text("表示とことば").click()
    expect(page.get_by_label("文字の大きさ")).to_be_visible()
    assert letters_px(page) == pytest.approx(18 * 1.5 * 2)
    page.screenshot(path=SCREENSHOTS / f"twice-{name}.png", full_page=True)
    assert wider_than_the_screen_px(page) <= 0
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_may_put_each_page_on_its_home_screen(town: Town, browser: Browser, tmp_path: Path, name: str) -> None:
    context = browser.browser_type.launch_persistent_context(  # nothing can be installed from a private window
        tmp_path, executable_path=require_binary("chromium"), args=["--no-sandbox"], locale="en-US"
    )
    page = context.new_page()
    page.goto(f"{town.url}{name}")
    asked = context.new_cdp_session(page)
    found = asked.send("Page.getAppManifest")
    assert found["errors"] == []
    said = json.loads(found["data"])
    assert (said["start_url"], said["scope"], said["display"]) == (f"/{name}", f"/{name}", "standalone")
    assert said["short_name"]
    assert asked.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    for icon in said["icons"]:
        answer = page.request.get(f"{town.url.rstrip('/')}{icon['src']}")
        assert (answer.headers["content-type"], "immutable" in answer.headers["cache-control"]) == ("image/png", True)
    touch = page.locator("link[rel=apple-touch-icon]").get_attribute("href")
    assert page.request.get(f"{town.url.rstrip('/')}{touch}").ok
    context.close()
