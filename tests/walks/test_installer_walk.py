"""The installer's first five minutes: one trap where no telephone works, one where it does, until somebody answers its test.

Everything is real here but the pins: the box answers over its own broker link, and the farmer presses on his own phone.
"""

from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.walks.conftest import Demo, Person, length, message, shoot

pytestmark = pytest.mark.browser

HERE = {"latitude": 36.1105, "longitude": 140.0702, "accuracy": 8}
CONTROLLED = """new Promise((done) => {
    const all = navigator.serviceWorker;
    all.addEventListener("controllerchange", () => done(true), {once: true});
    if (all.controller !== null) done(true);
})"""
"""The page will open without a network too."""


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def place_and_photograph(page: Page) -> None:
    """The second and the third step."""
    expect(page.get_by_text("誤差 ±8m")).to_be_visible()
    press(page, "この場所にする")
    page.get_by_label("写真を撮る").set_input_files(FilePayload(name="trap.png", mimeType="image/png", buffer=page.screenshot()))
    expect(page.get_by_text("写真 1枚をこの端末に保存しました。")).to_be_visible()
    page.get_by_label("次に来る人へのメモ").fill("沢の手前、杉の根元")
    press(page, "次へ")


def test_an_installer_puts_up_a_trap_without_and_one_with_a_network(demo: Demo, person: Callable[..., Person]) -> None:
    watanabe = person("渡辺", permissions=["geolocation"], geolocation=HERE)
    page = watanabe.comes_in()
    expect(page.get_by_role("heading", level=1, name="機器の設置")).to_be_visible()
    expect(page.get_by_text("渡辺さんとして記録します。")).to_be_visible()
    expect(page.get_by_role("heading", level=3, name="北尾根 3基の付け替え")).to_be_visible()
    page.evaluate(CONTROLLED)
    shoot(page, "installer-job")

    watanabe.context.set_offline(True)  # on the mountain
    press(page, "設置を始める")
    page.get_by_text("名前を入力する").click()
    page.get_by_label("箱の名前").fill("kitaone")
    page.get_by_label("機器の名前").fill("trap-1")
    press(page, "次へ")
    place_and_photograph(page)
    expect(page.get_by_text("機器のボタンで確かめます")).to_be_visible()
    page.get_by_role("radio", name="長く光った").check()
    press(page, "次へ")
    press(page, "保存して終わる")
    unsent = page.get_by_text("未送信 1件。", exact=True)
    expect(unsent).to_be_visible()
    expect(page.get_by_text("この端末に保存しました。通信できるようになると送ります。")).to_be_visible()
    page.reload()
    expect(unsent).to_be_visible()
    shoot(page, "installer-unsent", docs="installer-1")

    watanabe.context.clear_cookies()  # signed out meanwhile
    watanabe.context.set_offline(False)
    expect(page.get_by_text("送るには、もう一度ログインしてください。記録は残っています。")).to_be_visible()
    expect(unsent).to_be_visible()
    page.close()
    page = watanabe.comes_in()
    expect(page.get_by_text("未送信はありません。")).to_be_visible()  # nobody pressed anything
    newest = demo.get("/api/v1/installations")["installations"][0]
    assert (newest["device"], newest["by"], newest["state"]) == ("trap-1", "渡辺", "waiting")

    press(page, "設置を始める")
    page.get_by_role("radio", name="北尾根 2番").check()
    press(page, "次へ")
    place_and_photograph(page)
    press(page, "通信テストを始める")
    expect(page.get_by_text("10回中10回成功")).to_be_visible()
    expect(page.get_by_text("ここに設置できます")).to_be_visible()
    shoot(page, "installer-signal")
    press(page, "次へ")
    tanaka = person("田中").phone()
    before = length(tanaka)
    press(page, "試験の知らせを送る")
    expect(page.get_by_role("heading", level=1, name="通信確認待ち")).to_be_visible()
    told = page.get_by_text("試験の知らせを送りました。答えを待っています。")
    expect(told).to_contain_text("田中")
    shoot(page, "installer-waiting")

    test = message(tanaka, "北尾根 2番", after=before).filter(has=tanaka.get_by_role("button", name="届きました"))
    expect(test).to_contain_text("【通信テスト】")
    shoot(tanaka, "installer-test-on-the-phone")
    test.get_by_role("button", name="届きました").click()
    expect(page.get_by_role("heading", level=1, name="完了")).to_be_visible()  # by itself
    expect(page.get_by_text("完了：田中さんが試験の知らせに答えました。")).to_be_visible()
    shoot(page, "installer-done", docs="installer-2")
