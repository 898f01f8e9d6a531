"""The family's first five minutes: somebody leaves home, is searched for, and found; all who were asked hear that it is over."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.walks.conftest import Demo, Person, comes_of, length, message, shoot

pytestmark = pytest.mark.browser


def test_a_family_searches_and_all_hear_that_she_is_found(demo: Demo, person: Callable[..., Person]) -> None:
    maria, nakamura, office = person("マリア"), person("中村"), person("役場の係")
    page, phone, helper, desk = maria.comes_in(), maria.phone(), nakamura.phone(), office.phone()
    expect(page.locator(".card", has_text="ハナさん").first).to_be_visible()

    before = {one: length(one) for one in (phone, helper, desk)}
    comes_of(demo, "leave", "left home", after="home")
    told = message(phone, "家（いえ）を 出（で）たかもしれません", after=before[phone])
    expect(told).to_contain_text("今（いま）の 場所（ばしょ）では ありません。")
    told.scroll_into_view_if_needed()
    shoot(phone, "family-told", docs="family-1")
    told.get_by_role("button", name="さがす").click()
    expect(message(phone, "さがし始（はじ）めます。", after=before[phone])).to_contain_text("110番（ばん）")
    for one in (helper, desk):
        expect(message(one, "【捜索のお願い】ハナさんのタグ", after=before[one])).to_contain_text("捜索を開始しました。")

    search = page.locator(".card", has_text="捜索中")
    expect(search).to_contain_text("役場 1/1、協力者 1/1人に届きました。")
    sighting = search.get_by_role("listitem").filter(has_text=re.compile("の近く（.*前）"))
    expect(sighting.first).to_be_visible()
    expect(search).to_contain_text("タグが確認された場所です。今の場所ではありません。")
    expect(message(desk, "の近くで確認されました", after=before[desk])).to_contain_text("今の場所ではありません。")
    search.scroll_into_view_if_needed()
    shoot(page, "family-searching", docs="family-2")

    search.get_by_role("button", name="見つかりました").click()
    page.get_by_role("dialog").get_by_role("button", name="見つかりました").click()
    expect(search).to_have_count(0)
    hana = page.locator(".card", has_text="ハナさん").last
    expect(hana).to_contain_text("見つかりました。捜索は終わりました。")
    for one in (helper, desk):
        expect(message(one, "【見つかりました】ハナさんのタグ", after=before[one])).to_contain_text("捜索は終わりです。")

    hana.get_by_text("見た人の記録").click()
    expect(hana).to_contain_text("マリアさん（ご家族）")
    hana.scroll_into_view_if_needed()
    shoot(page, "family-over")
    demo.press("home")
