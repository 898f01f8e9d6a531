"""The installer's page in a real browser before a real gateway: a whole installation with and without a network, sent once.

What is not real here: the node, whose answers to commands are put where the gateway would have put them.
"""

import base64
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect
from sqlalchemy import select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.contract.remote import Result
from gateway import jobs
from gateway.api.app import create_app
from gateway.api.built import BUILT
from gateway.api.server import serve
from gateway.deployments import Deployments
from gateway.installations import Installations
from gateway.nodes.commands import commit_results
from gateway.state import tables
from gateway.tiles import GsiTiles
from simulators.ports import free_port
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway, gateway
from tests.gateway.test_tiles import Source
from tests.gateway.town import SIGNER
from tests.web.axe import LANGUAGES, violations
from tests.web.conftest import PLACES, SCREENSHOTS, browser, settle
from tests.wire import in_thread

__all__ = ["browser", "gateway"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

NODE, DEVICE = "kitayama-03", "trap-11"
CONTROLLED = """new Promise((done) => {
    const all = navigator.serviceWorker;
    all.addEventListener("controllerchange", () => done(true), {once: true});
    if (all.controller !== null) done(true);
})"""
"""The worker is there, and this page's requests go by it."""
LOSES_PHOTOS = """new Promise((done) => {
    indexedDB.open("satomori-install").onsuccess = ({target: {result: db}}) => {
        const tx = db.transaction("photos", "readwrite");
        tx.objectStore("photos").clear();
        tx.oncomplete = () => { db.close(); done(null); };
    };
})"""
"""What the phone kept of photos is gone; the records stay."""
AT = (36.2105, 137.9702)
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
"""A picture of one pixel, as a piece of the map."""
HERE = {"latitude": 36.2105, "longitude": 137.9702, "accuracy": 8}


class Door:
    """Before the gateway: notes what is asked, and can lose the answer to what the gateway has already done."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.loses = threading.Event()
        """Set: the next PUT is done, but what is between says that it does not know."""
        self.newer = False
        """Whether there is a newer version of the page."""
        self.meeting: Callable[[], Awaitable[None]] | None = None
        """What a PUT waits for before the gateway sees it."""
        self.worker = (BUILT / "install-worker.js").read_bytes()

    def before(self, app: ASGIApp) -> ASGIApp:
        async def through(scope: Scope, receive: Receive, send: Send) -> None:
            is_worker = self.newer and scope["path"] == "/install-worker.js"
            if is_worker:
                known = (b"if-none-match", b"accept-encoding")
                scope = {**scope, "headers": [one for one in scope["headers"] if one[0] not in known]}

            async def noted(message: Message) -> None:
                if is_worker and message["type"] == "http.response.start":
                    message = {**message, "headers": [one for one in message["headers"] if one[0] != b"content-length"]}
                elif is_worker and message["type"] == "http.response.body":
                    message = {**message, "body": self.worker + b"// of a newer version"}
                if message["type"] == "http.response.start" and scope["path"].startswith("/api/"):
                    self.asked.append((scope["method"], scope["path"], message["status"]))
                    if scope["method"] == "PUT" and self.loses.is_set():
                        message = {**message, "status": 502}
                await send(message)

            if self.meeting is not None and scope.get("method") == "PUT":
                await self.meeting()
            await app(scope, receive, noted)

        return through

    def puts(self) -> list[int]:
        """What the gateway said of installations, in order."""
        return [status for method, path, status in self.asked if method == "PUT" and "/installations/" in path]


class Place:
    """A gateway with two installers, one with a job, and its node."""

    def __init__(self, gateway: Gateway, folder: Path, port: int) -> None:
        self.door, self.gateway = Door(), gateway
        self.answers: Callable[[int], bool] = lambda _: True
        self.pings = 0
        places = [one.model_copy(update={"at": AT}) if one.device == DEVICE else one for one in PLACES]
        self.source = Source()
        self.source.answer = lambda _: (200, {"ETag": '"one"'}, DOT)
        self.tiles = GsiTiles(folder / "tiles", lambda: NOW_US, 10**7, self.source.url, timeout_s=20)
        gateway.deps = replace(
            gateway.deps, deployments=Deployments(places), signer=SIGNER, ring=self.ring, heartbeat_s=1, tiles=self.tiles
        )
        self.house = House(gateway, folder, f"http://localhost:{port}")
        settle(gateway)
        self.sato, self.suzuki = (self.house.staff("installer", name=name) for name in ("佐藤", "鈴木"))
        with gateway.state.write() as connection:
            job = jobs.Job(self.sato, "北尾根 2基", [NODE], NOW_US + 10_000 * MINUTE_US)
            self.job = jobs.add(connection, job, "test", NOW_US)
        self.app = create_app(gateway.deps)
        self.app.add_middleware(self.door.before)

    def ring(self) -> None:
        """The node does what it is told, and says so 420 ms later; where it does not hear well, it fails."""
        commands = tables.commands
        with self.gateway.state.write() as connection:
            for row in connection.execute(select(commands).where(commands.c.state == "waiting")).all():
                self.pings += 1
                said = Result(state="done", rssi_dbm=-97) if self.answers(self.pings) else Result(state="failed", reason="busy")
                commit_results(connection, [(row.id, said)], NOW_US + 420_000)

    def answer(self) -> None:
        """Somebody answers the test alarm on their phone."""
        self.gateway.insert(
            tables.alerts, id="a-test", rule="trial", kind="test", severity="warning", node=NODE, device=DEVICE, opening="t",
            state="acknowledged", since_us=NOW_US, acknowledged_by="田中", acknowledged_us=NOW_US,
        )  # fmt: skip
        Installations(self.gateway.state, lambda *_: None).close(NOW_US)

    def kept(self) -> list[Any]:
        with self.gateway.state.read() as connection:
            return list(connection.execute(select(tables.installations)).all())


@pytest.fixture
def place(gateway: Gateway, tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    made = Place(gateway, tmp_path, port)
    with in_thread(serve(made.app, "127.0.0.1", port)):
        yield made
    made.tiles.close()
    made.source.close()


@pytest.fixture
def phone(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True, locale="ja-JP", service_workers="allow",
        permissions=["geolocation"], geolocation=HERE,  # type: ignore[arg-type]  # a mapping is what it takes
    )  # fmt: skip
    yield context
    context.close()


def sign_in(context: BrowserContext, place: Place, account: str) -> Page:
    page = context.new_page()
    page.goto(place.house.url + place.house.link(account))
    page.get_by_role("button", name="ログインする").click()
    expect(page).to_have_url(f"{place.house.url}/account")
    return page


def open_page(context: BrowserContext, place: Place, account: str) -> Page:
    """Signed in, the page opened, its worker ready: all that an installer does at the office."""
    page = sign_in(context, place, account)
    page.goto(f"{place.house.url}/install")
    page.evaluate(CONTROLLED)
    return page


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"install-{name}.png", full_page=True)


def press(page: Page, name: str | re.Pattern[str]) -> None:
    page.get_by_role("button", name=name).click()


def choose_and_place(page: Page) -> None:
    """The first two steps."""
    expect(page.get_by_role("heading", level=1, name="どの機器ですか")).to_be_visible()
    page.get_by_role("radio", name="北尾根 3番").check()
    press(page, "次へ")
    expect(page.get_by_role("status").filter(has_text="誤差 ±8m")).to_be_visible()
    shoot(page, "where")
    press(page, "この場所にする")


def photograph(page: Page) -> None:
    expect(page.get_by_role("heading", level=1, name="写真")).to_be_visible()
    picture = FilePayload(name="trap.png", mimeType="image/png", buffer=page.screenshot())
    page.get_by_label("写真を撮る").set_input_files(picture)
    expect(page.get_by_text("写真 1枚をこの端末に保存しました。")).to_be_visible(timeout=15_000)
    page.get_by_label("次に来る人へのメモ").fill("沢の手前、杉の根元")
    shoot(page, "photo")
    press(page, "次へ")


def without_network(page: Page) -> None:
    """The last two steps where there is none."""
    expect(page.get_by_text("機器のボタンで確かめます")).to_be_visible()
    page.get_by_role("radio", name="長く光った").check()
    shoot(page, "lamp")
    press(page, "次へ")
    press(page, "保存して終わる")


def install_offline(phone: BrowserContext, place: Place) -> Page:
    """Sato opens the page, loses the network and installs a trap to the last step."""
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    phone.set_offline(True)
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    without_network(page)
    return page


def test_a_whole_installation_ends_once_somebody_answered_its_test_alarm(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    expect(page.get_by_text("佐藤さんとして記録します。")).to_be_visible()
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    shoot(page, "home")
    press(page, "設置を始める")
    shoot(page, "device")
    choose_and_place(page)
    photograph(page)
    press(page, "通信テストを始める")
    expect(page.get_by_text("通信テスト：良好（-97dBm・10回中10回成功）ここに設置できます")).to_be_visible(timeout=30_000)
    shoot(page, "signal")
    press(page, "次へ")
    press(page, "試験の知らせを送る")
    expect(page.get_by_role("heading", level=1, name="通信確認待ち")).to_be_visible()
    expect(page.get_by_text("未送信はありません。")).to_be_visible()
    shoot(page, "waiting")

    place.answer()
    expect(page.get_by_role("heading", level=1, name="完了")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("完了：田中さんが試験の知らせに答えました。")).to_be_visible()
    shoot(page, "done")

    (row,) = place.kept()
    assert (row.node, row.device, row.lat, row.lon, row.accuracy_m) == (NODE, DEVICE, 36.2105, 137.9702, 8)
    assert (row.state, row.account, row.note, row.tripped_us) == ("done", place.sato, "沢の手前、杉の根元", NOW_US)
    assert json.loads(row.signal) == [[420, -97]] * 10
    (photo,) = json.loads(row.photos)
    kept = place.gateway.deps.media.find(photo)
    assert kept is not None
    assert kept.content_type == "image/jpeg"
    assert b"Exif" not in kept.path.read_bytes()
    assert faults == []


def test_without_a_network_all_of_it_is_kept_over_a_reload_and_sent_once_when_there_is_one(
    place: Place, phone: BrowserContext
) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    phone.set_offline(True)
    page.reload()
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    expect(page.get_by_role("heading", level=1, name="通信テスト")).to_be_focused()  # the step before is kept
    page.reload()  # in the middle: the step that was reached opens again
    without_network(page)
    band = page.get_by_text("未送信 1件。")
    expect(band).to_be_visible()
    expect(
        page.get_by_text(re.compile(r"この端末に保存しました。\s+送信が終わるまでアプリを消さないでください。"))
    ).to_be_visible()
    expect(page.get_by_text("空きが足りなくなると、端末が消すことがあります。")).to_be_visible()  # this browser promises nothing
    shoot(page, "unsent")
    page.reload()
    expect(band).to_be_visible()
    assert place.kept() == []

    phone.set_offline(False)
    # A browser that was reloaded without a network may not notice that there is one again: the page looks every half minute.
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=45_000)
    page.reload()
    expect(page.get_by_text("通信確認待ち")).to_be_visible()
    (row,) = place.kept()
    assert (row.self_test, row.state, row.device) == ("good", "waiting", DEVICE)
    assert place.door.puts() == [201]


def test_who_prepared_has_the_map_of_the_place_where_there_is_no_network(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    press(page, "準備する")
    expect(page.get_by_text("機器 3台を保存しました")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("地図を保存しました（45/45枚）")).to_be_visible()
    expect(page.get_by_text("この画面は通信なしで開きます")).to_be_visible()
    shoot(page, "prepared")
    asked = len(place.source.asked)
    phone.set_offline(True)
    page.reload()
    press(page, "設置を始める")
    page.get_by_role("radio", name="北尾根 3番").check()
    press(page, "次へ")
    expect(page.locator(".leaflet-tile-loaded").first).to_be_visible()
    expect(page.get_by_role("link", name="国土地理院")).to_be_visible()
    expect(page.get_by_text("ここの地図は保存されていません。")).to_have_count(0)
    assert len(place.source.asked) == asked


def test_what_the_gateway_took_while_the_phone_lost_the_answer_is_there_once(place: Place, phone: BrowserContext) -> None:
    page = install_offline(phone, place)
    place.door.loses.set()
    with page.expect_response(re.compile("/installations/")):
        phone.set_offline(False)
    page.close()  # before it could try again
    place.door.loses.clear()
    assert len(place.kept()) == 1

    again = phone.new_page()
    again.goto(f"{place.house.url}/install")
    expect(again.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    assert len(place.kept()) == 1
    assert place.door.puts() == [201, 200]


def test_a_record_whose_photo_the_phone_has_lost_goes_without_it_and_says_so_and_the_later_ones_go(
    place: Place, phone: BrowserContext
) -> None:
    page = install_offline(phone, place)
    press(page, "一覧に戻る")
    press(page, "設置を始める")
    page.get_by_role("radio", name="北尾根 3番").check()
    press(page, "次へ")
    page.get_by_text("今日は設置できないとき").click()
    page.get_by_label("なぜ、もう一度来る必要がありますか").fill("板が外れた")
    press(page, "要再訪として終わる")
    expect(page.get_by_text("未送信 2件。")).to_be_visible()
    page.evaluate(LOSES_PHOTOS)
    phone.set_offline(False)
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=45_000)
    first, later = sorted(place.kept(), key=lambda row: row.begun_us)
    assert (first.photos, first.note, first.lat) == ("[]", "沢の手前、杉の根元", 36.2105)
    assert later.why == "板が外れた"
    press(page, "一覧に戻る")
    said = page.get_by_text("写真 1枚がこの端末から消えていました。記録にその写真は入りません。")
    expect(said).to_have_count(1)
    expect(said).to_be_visible()
    shoot(page, "photo-lost")
    assert violations(page) == []


def test_another_persons_records_wait_for_their_owner(place: Place, phone: BrowserContext) -> None:
    page = install_offline(phone, place)
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    page.close()
    phone.clear_cookies()
    phone.set_offline(False)

    other = sign_in(phone, place, place.suzuki)
    other.goto(f"{place.house.url}/install")
    expect(other.get_by_text("鈴木さんとして記録します。")).to_be_visible()
    expect(other.get_by_text("別の人の未送信 1件。")).to_be_visible()
    expect(other.get_by_role("heading", level=2, name="この端末の記録")).to_have_count(0)
    shoot(other, "others")
    assert place.kept() == []
    other.close()

    phone.clear_cookies()
    back = sign_in(phone, place, place.sato)
    back.goto(f"{place.house.url}/install")
    expect(back.get_by_text("通信確認待ち")).to_be_visible(timeout=15_000)
    (row,) = place.kept()
    assert row.account == place.sato


def test_who_was_signed_out_in_the_meantime_is_asked_in_and_loses_nothing(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    phone.clear_cookies()
    press(page, "ここには電波がない")
    without_network(page)
    expect(page.get_by_text("送るには、もう一度ログインしてください。記録は残っています。")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    page.close()
    back = sign_in(phone, place, place.sato)
    back.goto(f"{place.house.url}/install")
    expect(back.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    assert len(place.kept()) == 1


def test_who_has_no_job_there_hears_whom_to_ask_and_the_record_goes_once_there_is_one(
    place: Place, phone: BrowserContext
) -> None:
    page = open_page(phone, place, place.suzuki)  # who has no job at this node
    press(page, "設置を始める")
    page.get_by_label("箱の名前").fill(NODE)
    page.get_by_label("機器の名前").fill(DEVICE)
    press(page, "次へ")
    page.get_by_text("今日は設置できないとき").click()
    page.get_by_label("なぜ、もう一度来る必要がありますか").fill("橋が流されていて渡れない")
    press(page, "要再訪として終わる")
    press(page, "一覧に戻る")
    expect(page.get_by_text("仕事が開くのを待っています")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("未送信 1件。")).to_be_visible()
    with place.gateway.state.write() as connection:
        jobs.add(connection, jobs.Job(place.suzuki, "橋のむこう", [NODE], NOW_US + MINUTE_US), "test", NOW_US)
    press(page, "今すぐ送る")
    expect(page.get_by_text("未送信はありません。")).to_be_visible(timeout=15_000)
    (row,) = place.kept()
    assert (row.state, row.why) == ("revisit", "橋が流されていて渡れない")


def test_practice_walks_all_the_way_and_sends_nothing(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    page.wait_for_load_state("networkidle")
    place.door.asked.clear()
    press(page, "機内モードで試す")
    expect(page.get_by_text("練習中", exact=True)).to_be_visible()
    page.get_by_role("radio", name="練習の山 1番").check()
    press(page, "次へ")
    press(page, "この場所にする")
    photograph(page)
    press(page, "通信テストを始める")
    expect(page.get_by_text(re.compile("通信テスト：良好"))).to_be_visible(timeout=15_000)
    shoot(page, "practice")
    press(page, "次へ")
    press(page, "試験の知らせを送る")
    expect(page.get_by_role("heading", level=1, name="練習が終わりました")).to_be_visible()
    assert place.door.asked == []
    page.get_by_role("main").get_by_role("button", name="練習をやめる").last.click()
    expect(page.get_by_text("未送信はありません。")).to_be_visible()
    expect(page.get_by_role("heading", level=2, name="この端末の記録")).to_have_count(0)
    assert place.kept() == []


def test_a_weak_signal_says_what_to_try(place: Place, phone: BrowserContext) -> None:
    place.answers = lambda nth: nth % 2 == 0
    page = open_page(phone, place, place.sato)
    press(page, "設置を始める")
    choose_and_place(page)
    photograph(page)
    press(page, "通信テストを始める")
    expect(page.get_by_text("電波が弱いです（10回中5回成功）。2〜3m高い場所で試してください")).to_be_visible(timeout=15_000)
    shoot(page, "weak")


def test_a_newer_version_is_told_of_and_never_taken_in_the_middle_of_a_record(place: Place, phone: BrowserContext) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    press(page, "設置を始める")
    choose_and_place(page)
    page.get_by_label("次に来る人へのメモ").fill("書いている途中")
    page.evaluate("window.stillTheSame = true")
    place.door.newer = True
    page.evaluate("navigator.serviceWorker.getRegistration('/install').then(one => one.update())")
    expect(page.get_by_text("新しい版があります。")).to_be_visible(timeout=15_000)
    expect(page.get_by_role("button", name="新しい版にする")).to_have_count(0)
    expect(page.get_by_label("次に来る人へのメモ")).to_have_value("書いている途中")
    assert page.evaluate("window.stillTheSame") is True
    press(page, "中断して一覧へ")
    with page.expect_navigation():
        press(page, "新しい版にする")
    expect(page.get_by_role("heading", level=1, name="写真")).to_be_visible()  # the record goes on where it was left
    expect(page.get_by_text("新しい版があります。")).to_have_count(0)


def test_the_next_step_is_shown_once_the_one_before_is_kept(place: Place, phone: BrowserContext) -> None:
    """Something else, as the worker that sends, has the records until it is done with them."""
    page = open_page(phone, place, place.sato)
    press(page, "設置を始める")
    page.get_by_role("radio", name="北尾根 3番").check()
    page.evaluate(
        """() => new Promise(isHeld => {
            const open = indexedDB.open("satomori-install");
            open.onsuccess = () => {
                const held = open.result.transaction("records", "readwrite");
                held.oncomplete = () => open.result.close();
                window.letGo = false;
                const again = () => {
                    isHeld();
                    if (!window.letGo) held.objectStore("records").count().onsuccess = again;
                };
                again();
            };
        })"""
    )
    press(page, "次へ")
    painted = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.evaluate(painted)
    expect(page.get_by_role("heading", level=1)).to_have_text("どの機器ですか", timeout=1)
    page.evaluate("window.letGo = true")
    expect(page.get_by_role("heading", level=1)).to_have_text("どこに付けますか")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("どこに付けますか")


def test_what_is_written_while_a_photo_is_being_kept_names_no_photo_that_was_not(place: Place, phone: BrowserContext) -> None:
    """Such a record could never be sent, nor any that was written after it on this phone."""
    page = open_page(phone, place, place.sato)
    press(page, "設置を始める")
    choose_and_place(page)
    page.evaluate(
        """() => {
            const put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (...what) {
                const asked = put.apply(this, what);
                if (this.name === "photos") {
                    window.fails = false;
                    const wait = () => {
                        if (window.fails) this.transaction.abort();
                        else this.count().onsuccess = wait;
                    };
                    wait();
                }
                return asked;
            };
        }"""
    )
    picture = FilePayload(name="trap.png", mimeType="image/png", buffer=page.screenshot())
    page.get_by_label("写真を撮る").set_input_files(picture)
    is_asked = "() => new Promise(done => { const look = () => window.fails === false ? done() : setTimeout(look); look(); })"
    page.evaluate(is_asked)  # a photo is made smaller first
    note = page.get_by_label("次に来る人へのメモ")
    note.fill("沢の手前")
    note.blur()
    page.evaluate("window.fails = true")
    expect(page.get_by_text("写真を小さくしています。")).to_have_count(0)
    press(page, "次へ")
    expect(page.get_by_role("heading", level=1, name="通信テスト")).to_be_visible()
    press(page, "戻る")
    expect(page.get_by_label("次に来る人へのメモ")).to_have_value("沢の手前")
    expect(page.get_by_text("この端末に保存しました。")).to_have_count(0)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("QuotaExceededError", "この端末の空きが足りません。"),
        ("InvalidStateError", "最後の入力をこの端末に保存できませんでした。"),
    ],
)
def test_what_a_phone_does_not_keep_is_said_and_its_step_stays_on_the_screen(
    place: Place, phone: BrowserContext, why: str, said: str
) -> None:
    page = open_page(phone, place, place.sato)
    expect(page.get_by_role("heading", level=3, name="北尾根 2基")).to_be_visible()
    press(page, "設置を始める")
    choose_and_place(page)
    page.evaluate(
        f"""window.put = IDBObjectStore.prototype.put; window.refused = 0;
        IDBObjectStore.prototype.put = () => {{ window.refused += 1; throw new DOMException("no", "{why}"); }}; true"""
    )
    picture = FilePayload(name="trap.png", mimeType="image/png", buffer=page.screenshot())
    page.get_by_label("写真を撮る").set_input_files(picture)
    expect(page.get_by_role("alert")).to_contain_text(said, timeout=15_000)  # a photo is made smaller first
    expect(page.get_by_text("写真 1枚をこの端末に保存しました。")).to_have_count(0)
    page.get_by_label("次に来る人へのメモ").fill("沢の手前")
    refused = page.evaluate("window.refused")
    press(page, "次へ")
    page.wait_for_function("both => window.refused >= both", arg=refused + 2)  # the note is left, then the step
    page.evaluate("IDBObjectStore.prototype.put = window.put; true")
    expect(page.get_by_role("heading", level=1, name="写真")).to_be_visible()
    expect(page.get_by_label("次に来る人へのメモ")).to_have_value("沢の手前")
    press(page, "次へ")
    expect(page.get_by_role("heading", level=1, name="通信テスト")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_step_stands_in_the_way_of_who_reads_it_otherwise(place: Place, phone: BrowserContext, language: str) -> None:
    page = open_page(phone, place, place.sato)
    page.evaluate(f"localStorage.setItem('language', '{language}')")
    page.reload()
    begin = page.locator("button.main, button").filter(has_text=re.compile("設置を始める|はじめる|始|Start|Begin")).first
    expect(begin).to_be_visible()
    assert violations(page) == [], "home"
    begin.click()
    expect(page.get_by_role("radio").first).to_be_visible()
    assert violations(page) == [], "device"
    page.get_by_role("radio").first.check()
    page.get_by_role("button", name=re.compile("^(次へ|つぎ|次|Next)")).click()
    expect(page.locator(".leaflet-container")).to_be_visible()
    assert violations(page) == [], "where"
