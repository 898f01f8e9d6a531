"""The built pages in a real browser before a real gateway: first words, a live number, and honest words where there is none."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gateway.api.conftest import gateway
from tests.web.conftest import OPERATOR, VIEWER, Town, Window, browser, town, window

__all__ = ["browser", "gateway", "town", "window"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

FIRST = {"install": "機器の設置", "mimamori": "見守り", "map": "町の様子"}
WORKER_IS_THERE = """() => new Promise((done, fail) => {
    setTimeout(() => fail(new Error("no worker within 10 s")), 10_000);
    navigator.serviceWorker.ready.then(({ active }) => {
        const look = () => active.state === "activated" && done();
        active.addEventListener("statechange", look);
        look();
    });
})"""
NUMBER = {"mimamori": "対応中の知らせ 2件", "map": "対応中の知らせ 2件"}


def come_in(page: Page, town: Town, token: str) -> None:
    """As at a desk: the token is in the tab, as the page at `/` leaves it."""
    page.add_init_script(f"sessionStorage.setItem('token', '{token}')")


@pytest.mark.parametrize("name", NUMBER)
def test_a_page_shows_its_first_words_and_then_a_number_of_the_gateways_with_its_age(
    town: Town, window: Window, name: str
) -> None:
    come_in(window.page, town, OPERATOR)
    window.page.goto(f"{town.url}{name}")
    expect(window.page.get_by_role("heading", level=1, name=FIRST[name])).to_be_visible()
    shown = window.page.get_by_role("status").first
    expect(shown).to_contain_text(NUMBER[name])
    expect(shown).to_contain_text(re.compile(r"\d+秒前"))
    window.shoot(f"web-{name}")


@pytest.mark.parametrize("name", FIRST)
def test_the_first_words_stand_in_the_page_itself(town: Town, browser: Browser, name: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{town.url}{name}")
    expect(page.get_by_role("heading", level=1, name=FIRST[name])).to_be_visible()
    context.close()


def test_who_is_not_in_is_led_to_where_people_come_in_and_sees_no_number(town: Town, window: Window) -> None:
    window.page.goto(f"{town.url}map")
    expect(window.page.get_by_role("link", name="ログインする").first).to_have_attribute("href", "/login?next=%2Fmap")
    expect(window.page.get_by_text(re.compile(r"\d+件"))).to_have_count(0)


def test_a_lost_connection_leaves_no_number_standing_as_if_it_were_so(town: Town, window: Window) -> None:
    window.page.clock.install()
    come_in(window.page, town, VIEWER)
    window.page.goto(f"{town.url}map")
    window.page.clock.run_for(100)
    expect(window.page.get_by_role("status").first).to_contain_text("対応中の知らせ")
    window.page.context.set_offline(True)
    window.page.clock.run_for(11_000)
    expect(window.page.get_by_role("status").first).to_have_text(re.compile("今の様子は分かりません"))


def test_the_reader_chooses_the_language_and_it_is_kept(town: Town, window: Window) -> None:
    come_in(window.page, town, OPERATOR)
    window.page.goto(f"{town.url}map")
    window.page.get_by_text("表示とことば").click()
    window.page.get_by_label("ことば").select_option("English")
    expect(window.page.get_by_role("heading", level=1, name="The town now")).to_be_visible()
    expect(window.page.get_by_role("status").first).to_contain_text("2 open alerts")
    assert window.page.locator("html").get_attribute("lang") == "en"
    window.page.reload()
    expect(window.page.get_by_role("heading", level=1, name="The town now")).to_be_visible()
    window.page.get_by_text("Display and language").click()
    window.page.get_by_label("Language").select_option("ja-easy")
    expect(window.page.get_by_role("heading", level=1)).to_contain_text("町（まち）の 様子（ようす）")
