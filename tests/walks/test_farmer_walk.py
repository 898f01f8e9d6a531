"""The farmer's first five minutes: a trap springs, he goes, the others hear of it, and a second comes along from a plain page."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Response, expect

from tests.walks.conftest import Demo, Person, comes_of, length, message, shoot

pytestmark = pytest.mark.browser

MOST_BYTES = 30_000
"""What a page opened from a message may load: it opens on a mountain."""


def test_a_farmer_goes_to_a_sprung_trap_and_the_others_know(demo: Demo, person: Callable[..., Person]) -> None:
    tanaka, suzuki = person("田中"), person("鈴木")
    page, phone, hunters = tanaka.comes_in(), tanaka.phone(), suzuki.phone()
    expect(page.get_by_role("heading", level=2, name="わな", exact=True)).to_be_visible()

    before = {one: length(one) for one in (phone, hunters)}
    trap = comes_of(demo, "spring", "trap_sprung", after="set")
    where = f"{trap['place']} {trap['label']}"
    told = message(phone, f"【わな作動】{where}", after=before[phone])
    expect(told).to_contain_text("まだ誰も向かっていません。")
    for button in ("行きます", "行けません"):
        expect(told.get_by_role("button", name=button)).to_be_visible()
    for link in ("地図", "電話する"):
        expect(told.get_by_role("link", name=link)).to_be_visible()
    told.scroll_into_view_if_needed()
    shoot(phone, "farmer-told", docs="farmer-1")
    told.get_by_role("button", name="行きます").click()
    expect(message(phone, "「行きます」とほかの人に伝えます。", after=before[phone])).to_contain_text(
        "近づかず、必ず2人以上で確認してください。"
    )
    expect(message(hunters, f"【わな作動】{where}", after=before[hunters])).to_contain_text(
        "田中さんが行きます。あと1人必要です。"
    )
    shoot(hunters, "farmer-hunter-told")
    card = page.locator(".card", has_text=f"{where}のわなが動きました。")
    expect(card).to_contain_text("田中さんが行きます。あと1人必要です。")
    expect(card).to_contain_text("あなたの答え：「行きます」")
    card.scroll_into_view_if_needed()
    shoot(page, "farmer-page", docs="farmer-2")

    sato = person("佐藤", java_script_enabled=False)  # he has mail, and an old telephone
    mail = sato.phone()
    loaded: list[Response] = []
    sato.context.on("response", lambda one: loaded.append(one))  # noqa: PLW0108 - it wants one with a name
    letter = mail.locator("article", has_text=f"【わな作動】{where}").first.frame_locator("iframe")
    with sato.context.expect_page() as opened:
        letter.get_by_role("link", name="行きます").click()
    answer = opened.value
    expect(answer.get_by_role("heading", level=1)).to_contain_text(where)
    expect(answer.get_by_text("田中さん").first).to_be_visible()
    of_it = [one for one in loaded if one.frame.page == answer]
    assert sum(len(one.body()) for one in of_it) <= MOST_BYTES
    shoot(answer, "farmer-without-script")
    answer.get_by_role("button", name="行きます", exact=True).click()
    expect(answer.get_by_role("heading", level=1)).to_be_visible()
    expect(card).to_contain_text("佐藤さんが向かっています。")
    expect(message(phone, where, after=before[phone])).to_contain_text("佐藤さん")
