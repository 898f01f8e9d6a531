"""The first five minutes of an officer at a desk: what the town says by itself, what they do about it, what they take along."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from pypdf import PdfReader

from simulators.kirisawa import FARMER, OFFICER
from tests.walks.conftest import Demo, Person, message, shoot

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

AGREE_MS = 12_000
"""The page reads everything anew within this: the town goes on meanwhile, and what the API said may be old by then."""


def numbers_of(demo: Demo) -> list[str]:
    """The three numbers, as they follow from what the API says in its lists."""
    alerts = demo.get("/api/v1/alerts?state=firing&state=acknowledged&limit=1000")["alerts"]
    silent = [one for one in demo.get("/api/v1/devices")["devices"] if one["unknown_why"] is not None]
    lines = [line for area in demo.get("/api/v1/areas")["areas"] for line in area["lines"]]
    came = sum(line["came_today"] for line in lines if line["came_today"] is not None)
    more = "以上" if any(line["silent"] for line in lines) else ""
    return [f"対応中の知らせ {len(alerts)}件", f"様子の分からない機器 {len(silent)}台", f"今日 来た人 {came:,}人{more}"]


def agree(page: Page, demo: Demo) -> None:
    """The page comes to show what the API says. Of a town that goes on this is asked more than once."""
    numbers = page.get_by_role("region", name="今の数").get_by_role("status")
    for turn in range(6):
        try:
            expect(numbers).to_contain_text(numbers_of(demo), timeout=AGREE_MS)
        except AssertionError:
            if turn == 5:
                raise
        else:
            return


def new_alert(page: Page, demo: Demo, press: str, says: str) -> Locator:
    """The alert that comes onto the list, without a reload, once this was pressed on the guide."""
    known = demo.get("/api/v1/alerts?limit=1000")["alerts"]
    demo.press(press)
    other = "".join(f':not([href$="{one["id"]}"])' for one in known)
    found = page.locator(f'main li a[href^="#/alerts/"]{other}').filter(has_text=says).first
    expect(found).to_be_visible()
    return found


def people_in(shown: Locator) -> int:
    """The number in a sentence that has one."""
    return int(re.sub(r"\D", "", shown.inner_text()))


def asked(page: Page, button: Locator, **fields: str) -> Locator:
    """Opens what the button asks, fills it in by its labels, and gives the dialog."""
    button.click()
    dialog = page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(label).fill(value)
    return dialog


def test_a_trap_springs_and_the_officer_sees_who_was_told_and_says_so(demo: Demo, person: Callable[..., Person]) -> None:
    page = person(OFFICER, desk=True).comes_in()
    expect(page.get_by_role("heading", level=1, name="町の様子")).to_be_visible()
    expect(page.get_by_text("件を表示しています")).to_be_visible()
    agree(page, demo)

    alert = new_alert(page, demo, "spring", "わな作動")
    [where] = re.findall(r"わな作動　(\S+ \S+)", alert.inner_text())
    expect(page.get_by_title(re.compile("：.*知らせあり")).first).to_be_visible()
    shoot(page, "officer-alert", docs="demo")

    alert.click()
    expect(page.get_by_role("heading", level=2, name=re.compile(where))).to_contain_text("緊急")
    expect(page.get_by_role("listitem").filter(has_text=f"{FARMER}：送信済み")).to_be_visible()
    phone = person(FARMER).phone()
    message(phone, where).get_by_role("button", name="行きます").click()
    expect(page.get_by_text(re.compile(f"{FARMER}さんが向かっています"))).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text=f"{FARMER}：行きます（")).to_be_visible()

    page.get_by_label("理由・メモ").fill("電話で様子を聞いています")
    page.get_by_role("button", name="確認しました").click()
    expect(page.get_by_text("記録しました。")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="「電話で様子を聞いています」")).to_contain_text(OFFICER)
    shoot(page, "officer-answered")

    page.get_by_role("link", name="事務").click()
    page.get_by_role("link", name="見回りと捕獲").click()
    demo.press("set")  # somebody has been there, and says that something was caught
    visits = page.get_by_role("table", name="見回りの記録")
    page.get_by_role("button", name="最新にする 見回りの記録").click()
    expect(visits.get_by_role("row", name=where).first).to_contain_text("捕獲")
    page.get_by_role("button", name="最新にする 捕獲の書類").click()
    expect(page.get_by_role("table", name="捕獲の書類").get_by_role("row", name=where).first).to_contain_text("不足 獣種")


def test_a_crowd_comes_and_a_count_of_heads_sets_the_reckoning_right(
    demo: Demo, person: Callable[..., Person], tmp_path: Path
) -> None:
    page = person(OFFICER, desk=True).comes_in()
    page.get_by_role("link", name="人の流れ", exact=True).click()
    area = page.get_by_role("region", name="朝市広場", exact=True)
    shown = area.get_by_text(re.compile(r"^今いる人 およそ[\d,]+人$"))
    before = people_in(shown)
    demo.press("crowd")
    steps = [before]
    while steps[-1] < before + 1000:
        expect(shown).not_to_have_text(f"今いる人 およそ{steps[-1]:,}人")  # it goes on by itself
        steps.append(people_in(shown))
        assert len(steps) < 60, steps
    expect(area.locator(".u-wrap canvas")).to_be_visible()
    shoot(page, "officer-flow", docs="officer-2")
    page.get_by_role("link", name="知らせ", exact=True).click()
    expect(page.get_by_role("link", name=re.compile(r"緊急 混雑\s朝市広場 ")).first).to_be_visible()

    page.get_by_role("link", name="人の流れ", exact=True).click()
    area.get_by_text("数え直し", exact=True).click()
    area.get_by_label("数えた人数").fill("1500")
    area.get_by_role("button", name="この人数に直す").click()
    expect(area.get_by_text(re.compile(r"1,500人に直しました。 ずれは[\d.]+％でした。"))).to_be_visible()
    expect(area.get_by_text(re.compile(r"最後の数え直し .*実際1,?500人"))).to_be_visible()

    with page.expect_download() as saved:
        page.get_by_role("button", name="30日分の人の流れを保存（CSV）").click()
    saved.value.save_as(tmp_path / "flow.csv")
    table = (tmp_path / "flow.csv").read_text(encoding="utf-8-sig").splitlines()
    assert table[0] == "area,hour,came,left,coverage_percent"
    assert any(re.match(r"hiroba,[^,]+,[1-9]\d*,", row) for row in table)


def test_the_month_is_taken_along_as_pdf_and_as_a_spreadsheet(demo: Demo, person: Callable[..., Person], tmp_path: Path) -> None:
    page = person(OFFICER, desk=True).comes_in()
    page.get_by_role("link", name="事務").click()
    page.get_by_role("link", name="報告書").click()
    month = page.get_by_label("月", exact=True)
    month.select_option(index=0)
    this_month = month.input_value()
    for watch, place in (("わなと捕獲", "北尾根"), ("人の流れ", "朝市広場")):
        with page.expect_download() as saved:
            page.get_by_role("link", name=f"XLSX {watch}").click()
        saved.value.save_as(tmp_path / "month.xlsx")
        with zipfile.ZipFile(tmp_path / "month.xlsx") as sheet:
            assert place in sheet.read("xl/sharedStrings.xml").decode()
        link = page.get_by_role("link", name=f"PDF {watch}")
        assert this_month in str(link.get_attribute("href"))
        said = page.context.request.get(demo.url + str(link.get_attribute("href")))
        assert said.headers["content-type"] == "application/pdf"
        assert place in "".join(one.extract_text() for one in PdfReader(io.BytesIO(said.body())).pages)


def test_the_desk_opens_a_search_switches_the_town_and_lets_people_in(demo: Demo, person: Callable[..., Person]) -> None:
    page = person(OFFICER, desk=True).comes_in()
    page.get_by_role("link", name="事務").click()
    part = page.get_by_role("navigation", name="事務")

    part.get_by_role("link", name="見守り").click()
    row = page.get_by_role("row", name="トメさん")
    dialog = asked(page, row.get_by_role("button", name="捜索を始める"), 理由="散歩から戻らない")
    dialog.get_by_role("button", name="捜索を始める").click()
    expect(page.locator("#told")).to_contain_text("捜索を開始しました")
    part.get_by_role("link", name="捜索").click()
    page.get_by_role("link", name="トメさん").first.click()
    expect(page.get_by_text("協力者 1/1人に届きました。")).to_be_visible()
    expect(page.get_by_text("今の場所ではありません。危険なときは110番へ。")).to_be_visible()
    asked(page, page.get_by_role("button", name="見つかりました")).get_by_role("button", name="見つかりました").click()
    expect(page.get_by_role("heading", level=3, name="トメさん")).to_contain_text("発見")

    part.get_by_role("link", name="災害モード").click()
    for button, why, shown in (
        ("災害モードにする", "大雨のため", "災害モードです。"),
        ("平常に戻す", "雨がやんだため", "平常です。"),
    ):
        dialog = asked(page, page.get_by_role("button", name=button), 理由=why)
        dialog.get_by_role("button", name=button).click()
        expect(dialog.get_by_role("alert").first).to_contain_text("本当に")
        dialog.get_by_role("button", name=button).click()
        expect(page.get_by_text(shown, exact=True)).to_be_visible()
        expect(page.locator("main").get_by_text(why)).to_be_visible()
    expect(page.get_by_text("災害時の運用中です。")).to_have_count(0)

    part.get_by_role("link", name="利用者と権限").click()
    expect(page.get_by_role("row", name=OFFICER)).to_contain_text("市の担当")
    expect(page.get_by_role("row", name=FARMER)).to_contain_text("農家")
    part.get_by_role("link", name="連絡先").click()
    dialog = asked(page, page.get_by_role("button", name="招待を作る"))
    dialog.get_by_label("グループ").select_option("北山のわな番")
    dialog.get_by_role("button", name="招待を作る").click()
    expect(dialog.get_by_role("img", name=re.compile("^QRコード"))).to_be_visible()
    expect(dialog.get_by_text("ここで一度だけ表示します")).to_be_visible()
    shoot(page, "officer-invitation")
    dialog.get_by_role("button", name="閉じる").click()
    invitations = page.get_by_role("table", name="招待")
    expect(invitations.get_by_role("row", name="北山のわな番").first).to_be_visible()
