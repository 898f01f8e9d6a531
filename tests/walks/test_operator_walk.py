"""The first five minutes of an operator at a desk: a node fell silent, a message never arrived, a device cries wolf."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from simulators.kirisawa import FARMER, OFFICER
from tests.walks.conftest import Demo, Person, message, shoot
from tests.walks.test_officer_walk import asked, new_alert

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

MAILED = "佐藤"
"""A farmer who is told by mail."""
TRAP = "北尾根 1番"
"""The one that springs when the guide's button is pressed while all are set."""


def test_a_silent_node_is_unknown_says_why_and_since_when_and_comes_back(demo: Demo, person: Callable[..., Person]) -> None:
    demo.press("set")  # an alert that is open would stand before everything else
    page = person(OFFICER, desk=True).comes_in()
    page.get_by_role("link", name="機器", exact=True).click()
    trap = page.get_by_role("main").get_by_role("link", name=re.compile("^烏岩 6番 "))
    expect(trap).to_contain_text("通信中")
    demo.press("silence")
    expect(trap).to_contain_text("親機と通信できません。今の様子は分かりません。")
    expect(trap).to_contain_text("不明")
    expect(trap).not_to_contain_text("通信中")
    expect(page.get_by_role("link", name=re.compile(r"様子の分からない機器 \d+台"))).not_to_have_text("様子の分からない機器 0台")
    trap.click()
    device = page.get_by_role("article", name="烏岩 6番")
    expect(device.get_by_role("heading", level=2)).to_contain_text("不明")
    expect(device.get_by_text("親機と通信できません。今の様子は分かりません。")).to_be_visible()
    expect(device.get_by_text(re.compile(r"最後の通信 \d+月\d+日 午[前後]\d+時\d+分・\d+(秒|分)前"))).to_be_visible()
    shoot(page, "operator-silent", docs="operator-1")
    demo.press("speak")
    expect(device.get_by_role("heading", level=2)).to_contain_text("通信中")
    expect(device.get_by_text("親機と通信できません")).to_have_count(0)


def test_a_message_that_never_arrived_is_sent_again(demo: Demo, person: Callable[..., Person]) -> None:
    mailbox = person(MAILED).phone()
    mailbox.get_by_role("button", name="受信箱をいっぱいにする").click()
    expect(mailbox.get_by_text("受信箱がいっぱいです。")).to_be_visible()
    demo.press("set")
    page = person(OFFICER, desk=True).comes_in()
    expect(page.get_by_text("件を表示しています")).to_be_visible()
    alert = new_alert(page, demo, "spring", f"わな作動　{TRAP}")
    alert.click()
    expect(page.get_by_role("listitem").filter(has_text=f"{MAILED}：届けられませんでした")).to_be_visible()

    page.get_by_role("link", name="事務").click()
    page.get_by_role("link", name="配信の記録").click()
    row = page.get_by_role("row", name=MAILED).first
    expect(row).to_contain_text("届きませんでした")
    expect(row).to_contain_text("Mailbox full")
    shoot(page, "operator-dead-letter")
    arrived = mailbox.locator("article").filter(has_text=TRAP)
    before = arrived.count()
    mailbox.get_by_role("button", name="受信箱を空ける").click()
    expect(mailbox.get_by_role("button", name="受信箱をいっぱいにする")).to_be_visible()
    asked(page, row.get_by_role("button", name="もう一度送る")).get_by_role("button", name="もう一度送る").click()
    expect(page.locator("#told")).to_contain_text("送る列に戻しました。")
    expect(arrived).to_have_count(before + 1)
    page.get_by_label("状態").select_option("送信済み（未確認）")
    expect(page.get_by_role("row", name=MAILED).first).to_contain_text("送信済み（未確認）")
    demo.press("set")


def test_what_is_silenced_wakes_nobody_and_is_told_again_once_that_ends(demo: Demo, person: Callable[..., Person]) -> None:
    demo.press("set")
    page = person(OFFICER, desk=True).comes_in()
    page.get_by_role("link", name="事務").click()
    page.get_by_role("link", name="知らせの停止").click()
    dialog = asked(page, page.get_by_role("button", name="知らせを止める"), 理由="扉が風で動くため")
    dialog.get_by_role("combobox", name="機器", exact=True).select_option(TRAP)
    dialog.get_by_label("期間").select_option("1時間")
    dialog.get_by_role("button", name="知らせを止める").click()
    silence = page.get_by_role("row", name=TRAP)
    expect(silence).to_contain_text("停止中")
    shoot(page, "operator-silence")

    phone = person(FARMER).phone()
    told = phone.locator("article:not(.said)").filter(has_text=f"【わな作動】{TRAP}")
    before = told.count()
    page.get_by_role("link", name="知らせ", exact=True).click()
    page.get_by_label("対応").select_option("すべて")
    new_alert(page, demo, "spring", f"わな作動　{TRAP}").click()
    expect(page.get_by_role("heading", level=2, name=re.compile(TRAP))).to_be_visible()
    expect(page.get_by_text("知らせを止めています", exact=True)).to_be_visible()
    expect(page.get_by_text("まだ誰にも知らせていません。")).to_be_visible()
    phone.reload()
    expect(told).to_have_count(before)

    page.get_by_role("link", name="事務").click()
    page.get_by_role("link", name="知らせの停止").click()
    asked(page, silence.get_by_role("button", name="停止を終わる")).get_by_role("button", name="停止を終わる").click()
    expect(silence).to_have_count(0)
    expect(message(phone, f"【わな作動】{TRAP}")).to_be_visible()
    expect(told).to_have_count(before + 1)
    demo.press("set")
