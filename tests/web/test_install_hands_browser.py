"""The installer's page under a hand that taps twice, leaves a step before it has ended, or turns to something else in between."""

import re
import threading

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from gateway.installations import Installed, enter
from tests.gateway.api.conftest import MINUTE_US, NOW_US, gateway
from tests.web.conftest import browser
from tests.web.test_install_browser import (
    DEVICE,
    NODE,
    Place,
    choose_and_place,
    install_offline,
    open_page,
    phone,
    photograph,
    place,
    press,
)

__all__ = ["browser", "gateway", "phone", "place"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

DRAFT = "書きかけ"


def tap_twice(page: Page, name: str) -> None:
    """As a finger that shakes: the second tap comes before anything has ended that the first began."""
    page.get_by_role("button", name=name).evaluate("button => { button.click(); setTimeout(() => button.click()); }")


def opened(place: Place, phone: BrowserContext) -> tuple[Page, list[str]]:
    """The app with its list of boxes, and what goes wrong in it from here on."""
    page = open_page(phone, place, place.sato)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    return page, faults


def test_a_test_alarm_that_was_left_ends_no_other_record(place: Place, phone: BrowserContext) -> None:
    page, faults = opened(place, phone)
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    press(page, "これを飛ばして次へ")
    answered = threading.Event()
    place.answers = lambda _: answered.wait(20)
    press(page, "試験の知らせを送る")
    expect(page.get_by_text("送っています。機器の返事を待っています。")).to_be_visible()
    press(page, "中断して一覧へ")
    press(page, "設置を始める")
    expect(page.get_by_role("heading", level=1, name="どの機器ですか")).to_be_visible()
    with page.expect_response(re.compile(r"/commands$")) as said:
        answered.set()
    said.value.finished()
    page.get_by_role("radio", name="北尾根 3番").check()
    press(page, "次へ")
    expect(page.get_by_text("2 / 5 · 北尾根 3番")).to_be_visible()
    press(page, "中断して一覧へ")
    expect(page.get_by_text(DRAFT)).to_have_count(2)
    assert (place.kept(), faults) == ([], [])


def test_what_is_tapped_twice_is_said_once(place: Place, phone: BrowserContext) -> None:
    page, faults = opened(place, phone)
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    press(page, "ここには電波がない")
    page.get_by_role("radio", name="長く光った").check()
    press(page, "次へ")
    tap_twice(page, "保存して終わる")
    expect(page.get_by_role("heading", level=1, name="通信確認待ち")).to_be_visible()
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    press(page, "一覧に戻る")
    page.get_by_text("もう一度来る必要があるとき").click()
    page.get_by_label("なぜ、もう一度来る必要がありますか").fill("板が外れた")
    tap_twice(page, "要再訪として終わる")
    expect(page.get_by_role("heading", level=1, name="要再訪")).to_be_visible()
    expect(page.get_by_text("要再訪として市役所に届きました。")).to_be_visible(timeout=15_000)
    assert sorted(row.state for row in place.kept()) == ["revisit", "waiting"]
    assert faults == []


def test_another_language_and_practice_end_at_the_list_though_a_record_waits_there(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    press(page, "設置を始める")
    choose_and_place(page)
    press(page, "中断して一覧へ")
    page.get_by_text("表示とことば").click()
    page.locator(".reading select").first.select_option("en")
    expect(page.get_by_role("heading", level=2, name="Records on this phone")).to_be_visible()
    expect(page.get_by_role("heading", level=1, name="Installing devices")).to_be_visible()
    page.locator(".reading select").first.select_option("ja")
    press(page, "機内モードで試す")
    press(page, "練習をやめる")
    expect(page.get_by_text(DRAFT)).to_be_visible()
    expect(page.get_by_role("heading", level=1, name="機器の設置")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", level=1, name="写真")).to_be_visible()


def test_who_waits_for_an_answer_hears_that_a_colleague_found_it_to_be_revisited(place: Place, phone: BrowserContext) -> None:
    page = install_offline(phone, place)
    phone.set_offline(False)
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("誰かが答えると、自動で完了になります。")).to_be_visible(timeout=15_000)
    later_us = NOW_US + MINUTE_US
    said = Installed("33333333-3333-4333-8333-333333333333", NODE, DEVICE, later_us, revisit="板が外れた")
    with place.gateway.state.write() as connection:
        assert enter(connection, said, "鈴木", place.suzuki, later_us)
    expect(page.get_by_role("heading", level=1, name="要再訪")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("誰かが答えると、自動で完了になります。")).to_have_count(0)
    press(page, "一覧に戻る")
    expect(page.get_by_text("あとから要再訪にしました")).to_be_visible()
