"""The installer's phone as a device: its camera before a QR, its worker after the page is closed, a job that ended meanwhile.

The camera is Chromium's own, which plays a film of the QR instead of looking at one; the event that wakes the
worker is given by the browser's debugger, as a network that comes back would.
"""

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import segno
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect

from gateway import jobs
from gateway.nodes.claims import qr_text
from tests.gateway.api.conftest import NOW_US, gateway
from tests.services import require_binary
from tests.web.axe import violations
from tests.web.conftest import HOUR_US, browser
from tests.web.test_install_browser import (
    CONTROLLED,
    DEVICE,
    NODE,
    Place,
    install_offline,
    open_page,
    phone,
    place,
    press,
    shoot,
    sign_in,
)

__all__ = ["browser", "gateway", "phone", "place"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "locale": "ja-JP"}
Filming = Callable[[str], BrowserContext]


def film(text: str, path: Path) -> Path:
    """What a camera sees that is held before this QR: some frames of Motion JPEG, 640x480."""
    drawn = io.BytesIO()
    segno.make(text, error="m").save(drawn, kind="png", scale=8, border=4)
    code = Image.open(drawn).convert("RGB").resize((300, 300))
    seen = Image.new("RGB", (640, 480), (150, 160, 140))
    seen.paste(code, (170, 90))
    frame = io.BytesIO()
    seen.save(frame, "JPEG", quality=90)
    path.write_bytes(frame.getvalue() * 5)
    return path


@pytest.fixture
def filming(browser: Browser, tmp_path: Path) -> Iterator[Filming]:
    """A phone that may use its camera, which sees the QR of the text."""
    running: list[Browser] = []

    def before(text: str) -> BrowserContext:
        file = film(text, tmp_path / f"{len(running)}.mjpeg")
        camera = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={file}"]
        seeing = browser.browser_type.launch(executable_path=require_binary("chromium"), args=["--no-sandbox", *camera])
        running.append(seeing)
        return seeing.new_context(**PHONE, permissions=["camera"])  # type: ignore[arg-type]  # a mapping is what it takes

    yield before
    for one in running:
        one.close()


def begin(context: BrowserContext, place: Place) -> Page:
    """At the first step, with the jobs there."""
    page = open_page(context, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    press(page, "設置を始める")
    expect(page.get_by_role("heading", level=1, name="どの機器ですか")).to_be_visible()
    return page


def test_the_camera_reads_the_box_and_its_devices_stand_there_to_choose_from(place: Place, filming: Filming) -> None:
    with place.gateway.state.write() as connection:
        jobs.add(connection, jobs.Job(place.sato, "沢口 1基", ["sawaguchi-01"], NOW_US + HOUR_US), "test", NOW_US)
    page = begin(filming(qr_text("https://nodes.example:8443", "7K3M9QXW", NODE)), place)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    assert page.get_by_role("radio").count() == 4
    press(page, "QRコードを読み取る")
    expect(page.get_by_text(f"箱「{NODE}」を読み取りました。機器を選んでください。")).to_be_visible(timeout=20_000)
    expect(page.locator("video")).to_have_count(0)
    expect(page.get_by_role("radio")).to_have_count(3)
    shoot(page, "qr-read")
    assert violations(page) == []
    page.get_by_role("radio", name="北尾根 3番").check()
    press(page, "次へ")
    expect(page.get_by_role("heading", level=1, name="どこに付けますか")).to_be_visible()
    expect(page.get_by_text("2 / 5 · 北尾根 3番")).to_be_visible()
    assert faults == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://next-town.example/v/kitayama-03/trap-11/x.y", "これは、この町の機器のQRコードではありません。"),
        ("https://shop.example/coupon", "これは、この町の機器のQRコードではありません。"),
        ("WIFI:S:inn;T:nopass;;", "このQRコードには機器の名前がありません。"),
        (qr_text("https://nodes.example:8443", "7K3M9QXW", "nowhere-01"), "箱「nowhere-01」は、保存した仕事にありません。"),
    ],
)
def test_a_qr_of_something_else_says_what_it_is_not(place: Place, filming: Filming, text: str, said: str) -> None:
    page = begin(filming(text), place)
    press(page, "QRコードを読み取る")
    expect(page.get_by_role("alert").filter(has_text=said)).to_be_visible(timeout=20_000)
    expect(page.get_by_role("radio").first).to_be_visible()
    page.get_by_role("radio", name="北尾根 3番").check()
    expect(page.get_by_role("button", name="次へ")).to_be_enabled()


def test_where_the_camera_is_refused_the_name_is_typed(place: Place, phone: BrowserContext) -> None:
    page = begin(phone, place)  # a phone that has allowed its place, and no camera
    press(page, "QRコードを読み取る")
    expect(
        page.get_by_role("alert").filter(has_text="カメラを使えません。一覧から選ぶか、名前を入力してください。")
    ).to_be_visible()
    shoot(page, "no-camera")
    page.get_by_text("名前を入力する").click()
    page.get_by_label("箱の名前").fill(NODE)
    page.get_by_label("機器の名前").fill(DEVICE)
    press(page, "次へ")
    expect(page.get_by_text("2 / 5 · 北尾根 3番")).to_be_visible()


class Worker:
    """The page's worker by Chromium's debugger, from another tab: it can be woken without the page."""

    def __init__(self, context: BrowserContext) -> None:
        self._tab = context.new_page()
        self._session: CDPSession = self._tab.context.new_cdp_session(self._tab)
        self._known: dict[str, str] = {}
        self._session.on("ServiceWorker.workerRegistrationUpdated", self._update)
        self._session.send("ServiceWorker.enable")

    def _update(self, said: dict[str, list[dict[str, str]]]) -> None:
        self._known |= {one["scopeURL"]: one["registrationId"] for one in said["registrations"]}

    def wake(self, origin: str) -> None:
        """There is a network: the browser's own word to a worker that asked to be told."""
        while f"{origin}/install" not in self._known:
            self._tab.wait_for_timeout(50)
        about = {"origin": origin, "registrationId": self._known[f"{origin}/install"], "tag": "send", "lastChance": False}
        self._session.send("ServiceWorker.dispatchSyncEvent", about)

    def wait_until(self, so: Callable[[], bool]) -> None:
        for _ in range(200):
            if so():
                return
            self._tab.wait_for_timeout(100)
        raise AssertionError("the worker has not done it within 20 s")


def test_a_closed_page_sends_what_it_kept_once_there_is_a_network(place: Place, phone: BrowserContext) -> None:
    page = install_offline(phone, place)
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    page.close()
    worker = Worker(phone)
    phone.set_offline(False)
    assert place.kept() == []
    worker.wake(place.house.url)
    worker.wait_until(lambda: place.door.puts() != [])
    assert ([row.device for row in place.kept()], place.door.puts()) == ([DEVICE], [201])

    again = phone.new_page()
    again.goto(f"{place.house.url}/install")
    expect(again.get_by_text("未送信はありません。")).to_be_visible()
    expect(again.get_by_text("通信確認待ち")).to_be_visible()
    assert place.door.puts() == [201], "the page knows what the worker has done"


def test_page_and_worker_at_once_leave_one_record(place: Place, phone: BrowserContext) -> None:
    """Where a browser has no locks both send; here the page has none, and the gateway answers neither before both have asked."""
    phone.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })")
    both, here = asyncio.Event(), [0]

    async def meet() -> None:
        here[0] += 1
        if here[0] == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 20)

    place.door.meeting = meet
    page = install_offline(phone, place)
    worker = Worker(phone)
    phone.set_offline(False)
    worker.wake(place.house.url)
    worker.wait_until(lambda: len(place.door.puts()) == 2)
    assert sorted(place.door.puts()) == [200, 201]
    assert len(place.kept()) == 1
    expect(page.get_by_text("未送信はありません。")).to_be_visible()


def test_a_record_of_a_job_that_ended_stays_through_logout_and_update_and_goes_by_itself_once_it_is_open(
    place: Place, phone: BrowserContext
) -> None:
    page = install_offline(phone, place)
    with place.gateway.state.write() as connection:
        assert jobs.end(connection, place.job, "test", NOW_US)
    phone.set_offline(False)
    press(page, "一覧に戻る")
    expect(page.get_by_text("仕事が開くのを待っています")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("この機器の仕事が開いていません。市役所に、仕事をもう一度開くように頼んでください。")).to_be_visible()
    expect(page.get_by_text("記録は残っています。仕事が開くと、自動で送ります。")).to_be_visible()
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    shoot(page, "shut")
    assert violations(page) == []

    page.goto(f"{place.house.url}/account")
    page.get_by_role("button", name="ログアウト", exact=True).click()
    expect(page).to_have_url(re.compile("/login"))
    back = sign_in(phone, place, place.sato)
    page.close()
    back.goto(f"{place.house.url}/install")
    back.evaluate(CONTROLLED)
    expect(back.get_by_text("仕事が開くのを待っています")).to_be_visible()
    place.door.newer = True
    back.evaluate("navigator.serviceWorker.getRegistration('/install').then(one => one.update())")
    with back.expect_navigation():
        press(back, "新しい版にする")
    expect(back.get_by_text("仕事が開くのを待っています")).to_be_visible()
    assert place.kept() == []

    with place.gateway.state.write() as connection:
        jobs.add(connection, jobs.Job(place.sato, "北尾根 2基", [NODE], NOW_US + HOUR_US), "test", NOW_US)
    back.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(back.get_by_text("未送信はありません。")).to_be_visible(timeout=20_000)
    assert [row.account for row in place.kept()] == [place.sato]


def test_what_was_sent_is_marked_to_be_revisited_by_a_record_of_its_own_also_without_a_network(
    place: Place, phone: BrowserContext
) -> None:
    page = install_offline(phone, place)
    phone.set_offline(False)
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    press(page, "一覧に戻る")
    expect(page.get_by_text("通信確認待ち")).to_be_visible(timeout=15_000)
    phone.set_offline(True)
    page.get_by_text("もう一度来る必要があるとき").click()
    end = page.get_by_role("button", name="要再訪として終わる")
    expect(end).to_be_disabled()
    page.get_by_label("なぜ、もう一度来る必要がありますか").fill("板が外れた")
    shoot(page, "revisit-after")
    assert violations(page) == []
    end.click()
    expect(page.get_by_role("heading", level=1, name="要再訪")).to_be_visible()
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    page.reload()
    phone.set_offline(False)
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("あとから要再訪にしました")).to_be_visible()
    expect(page.get_by_text("要再訪", exact=True)).to_be_visible()
    expect(page.get_by_text("もう一度来る必要があるとき")).to_have_count(0)
    shoot(page, "revisited")
    first, after = sorted(place.kept(), key=lambda row: row.begun_us)
    assert (first.state, first.device) == ("waiting", DEVICE)
    assert (after.state, after.device, after.why) == ("revisit", DEVICE, "板が外れた")
