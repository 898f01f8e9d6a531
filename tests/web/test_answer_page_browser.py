"""The answer page on a phone, in a real browser without scripts: it can be read, pressed with a thumb, and says what happened."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from gateway.api.server import serve
from gateway.feed import Feed
from gateway.state import tables
from tests.gateway.api.answering import Answering
from tests.gateway.paged import MINUTE_US
from tests.web.conftest import SCREENSHOTS
from tests.wire import in_thread

pytestmark = pytest.mark.browser

CONTRAST = """() => {
    const light = text => {
        const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = text.match(/[0-9.]+/g).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
        for (let one = node; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!/, 0\\)$/.test(colour) && colour !== "transparent") return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const poor = [];
    for (const node of document.querySelectorAll("h1, h2, p, button, a, header")) {
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.outerHTML);
    }
    return poor;
}"""
"""Elements whose text has less contrast than WCAG's AA wants."""


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True, java_script_enabled=False
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Answering]:
    with Answering(tmp_path) as made:
        yield made


def name(town: Answering, who: str, called: str) -> None:
    with town.state.write() as connection:
        connection.execute(update(tables.contacts).where(tables.contacts.c.id == who).values(name=called))


@pytest.mark.parametrize(("language", "going"), [("ja", "行きます"), ("ja-easy", "行（い）きます"), ("en", "I will go")])
def test_on_a_phone_it_is_read_and_answered(town: Answering, phone: Page, language: str, going: str) -> None:
    name(town, "sato", "佐藤")
    name(town, "tanaka", "田中")
    town.speaks("tanaka", language)
    town.fire(likely="capture", media="a" * 64)
    town.sent()
    town.answer("sato", "going")
    link = town.link("tanaka")
    town.now_us += 7 * MINUTE_US
    town.app.state.feed = Feed()
    with in_thread(serve(town.app, "127.0.0.1", 0)) as port:
        phone.goto(f"http://127.0.0.1:{port}{link}")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        phone.screenshot(path=SCREENSHOTS / f"answer-{language}.png", full_page=True)
        fits(phone)
        phone.locator("button").filter(has_text=re.compile(rf"^\s*{going}\s*$")).tap()  # also where a reading stands above
        expect(phone.locator("h1")).to_be_visible()
        expect(phone.locator("button")).to_have_count(0)
        phone.screenshot(path=SCREENSHOTS / f"answered-{language}.png", full_page=True)
        fits(phone)
        assert {(one["contact"], one["answer"]) for one in town.rows(tables.answers)} == {("sato", "going"), ("tanaka", "going")}
        phone.locator("main a.link").tap()
        expect(phone.locator('button[aria-pressed="true"]')).to_have_text(going)
        phone.goto(f"http://127.0.0.1:{port}{link[:-2]}")
        phone.screenshot(path=SCREENSHOTS / f"answer-forged-{language}.png", full_page=True)
        fits(phone)


def fits(phone: Page) -> None:
    """The width of the screen, room for a thumb, and colours that can be read."""
    # What a page's own script may not do, the test may: its own world is not the page's.
    overflow = phone.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    for target in phone.locator("button, a.link").all():
        box = target.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 44
    assert phone.evaluate(CONTRAST) == []
