"""The family's and the helpers' page on a phone, in a real browser without scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from gateway.api.server import serve
from gateway.state import tables
from tests.gateway.api.test_family_page import at_home, helpers, page
from tests.gateway.mimamori.searching import Searching
from tests.gateway.paged import MINUTE_US
from tests.web.conftest import SCREENSHOTS
from tests.web.test_answer_page_browser import fits
from tests.wire import in_thread

pytestmark = pytest.mark.browser


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True, java_script_enabled=False
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(("language", "search", "found"), [("ja", "さがす", "見つかりました"), ("en", "Search", "Found")])
def test_on_a_phone_a_search_is_opened_seen_and_ended(
    tmp_path: Path, phone: Page, language: str, search: str, found: str
) -> None:
    with Searching(tmp_path) as town:
        with town.state.write() as connection:
            connection.execute(update(tables.contacts).values(language=language))
        at_home(town, alive_ago_us=0)
        town.client()
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        with in_thread(serve(town.app, "127.0.0.1", 0)) as port:

            def looks(path: str, name: str) -> None:
                phone.goto(f"http://127.0.0.1:{port}{path}")
                phone.screenshot(path=SCREENSHOTS / f"{name}-{language}.png", full_page=True)
                fits(phone)

            looks(page(), "family")
            phone.locator("input[name=reason]").fill("散歩から戻らない")
            phone.get_by_role("button", name=search, exact=True).tap()
            expect(phone.locator("button")).to_have_count(2)
            town.sent()
            town.heard("kominkan")
            town.now_us += MINUTE_US
            town.tick()
            looks(page(), "family-search")
            looks(helpers("ichi", town.case()["id"]), "helper-search")
            phone.goto(f"http://127.0.0.1:{port}{page()}")
            phone.get_by_role("button", name=found, exact=True).tap()
            expect(phone.locator("input[name=reason]")).to_be_visible()
            assert town.case()["state"] == "found"
            looks(helpers("ichi", town.case()["id"]), "helper-over")
