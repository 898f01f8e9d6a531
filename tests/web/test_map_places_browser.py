"""The town's map in a real browser before a real gateway: its ground, marks that meet, the keyboard, pictures."""

import hashlib
import json
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from gateway.deployments import Deployment, Deployments
from gateway.state import tables
from gateway.tiles import FileTiles, GsiTiles
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway, gateway
from tests.web.axe import LANGUAGES, has_its_values, violations
from tests.web.conftest import OPERATOR, PLACES, VIEWER, Town, Window, browser, built_pages, town, window

__all__ = ["browser", "built_pages", "gateway", "town", "window"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]

AT = {"trap-11": (36.105, 140.085), "trap-12": (36.106, 140.088), "cam-02": (36.11, 140.08), "trap-21": (36.12, 140.1),
      "tags-01": (36.098, 140.095), "flow-01": (36.1, 140.09)}  # fmt: skip
STANDING = {"deployments": Deployments([one.model_copy(update={"at": AT[one.device]}) for one in PLACES])}
on_the_map = pytest.mark.parametrize("town", [STANDING], indirect=True)
GSI_TERMS = "https://maps.gsi.go.jp/development/ichiran.html"
COAST = "地図の画像が届かないため、海岸線だけを描いています。"


def image(colour: tuple[int, int, int], side: int = 256) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes(colour) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Gsi:
    """A stand-in for GSI's server: what it was asked for, and what it answers now."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_down = False
        gsi, tile = self, image((232, 240, 224))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gsi.asked.append(self.path)
                body = b"" if gsi.is_down else tile
                self.send_response(503 if gsi.is_down else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/xyz"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def gsi(gateway: Gateway, tmp_path: Path) -> Iterator[Gsi]:
    """The gateway's tiles come from it. Asked for before `town`."""
    made = Gsi()
    tiles = GsiTiles(tmp_path / "tiles", lambda: gateway.now_us, 10**8, made.url)
    gateway.deps = replace(gateway.deps, tiles=tiles)
    yield made
    tiles.close()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def own_file(gateway: Gateway, tmp_path: Path) -> None:
    """The gateway has a file of the town's own. Asked for before `town`."""
    path = tmp_path / "town.pmtiles"
    with path.open("wb") as file:
        writer: Any = Writer(file)  # type: ignore[no-untyped-call]  # it ships annotations for a part of itself
        # The tiles of zoom 12 and 13 around the town, in the order in which the format wants them.
        tiles = [(12, x, y) for x in range(3636, 3644) for y in range(1603, 1613)]
        tiles += [(13, x, y) for x in range(7272, 7288) for y in range(3206, 3226)]
        for number in sorted(zxy_to_tileid(*one) for one in tiles):
            writer.write_tile(number, image((224, 232, 240)))
        header = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": 12, "max_zoom": 13,
                  "min_lon_e7": 0, "min_lat_e7": 0, "max_lon_e7": 0, "max_lat_e7": 0, "center_zoom": 12,
                  "center_lon_e7": 0, "center_lat_e7": 0}  # fmt: skip
        writer.finalize(header, {"attribution": "© 見本町 都市計画課"})
    gateway.deps = replace(gateway.deps, tiles=FileTiles(path))


def come_in(page: Page, town: Town, token: str = OPERATOR, path: str = "") -> Locator:
    """Opens the page with its map to be seen. Returns the map."""
    page.add_init_script(f"sessionStorage.setItem('token', '{token}')")
    page.goto(f"{town.url}map{path}")
    shown = page.get_by_role("region", name=re.compile("機器の地図"))
    choice = page.get_by_role("button", name="地図", exact=True)
    expect(shown.or_(choice).first).to_be_visible()
    if choice.count():
        choice.click()
    expect(shown).to_be_visible()
    return shown


def drawn(shown: Locator) -> None:
    """Waits until a tile of the map has come, as an image with pixels in it."""
    expect(shown.locator(".leaflet-tile-loaded").first).to_be_visible()
    assert shown.locator(".leaflet-tile-loaded").first.evaluate("one => one.naturalWidth") == 256


# --- What it stands upon ----------------------------------------------------------------------------


@on_the_map
def test_gsis_tiles_appear_with_their_source_linked_upon_them(gsi: Gsi, town: Town, window: Window) -> None:
    shown = come_in(window.page, town)
    drawn(shown)
    link = window.page.get_by_role("link", name="出典：国土地理院")
    expect(link).to_have_attribute("href", GSI_TERMS)
    link.scroll_into_view_if_needed()
    expect(link).to_be_in_viewport(ratio=1)
    of, on = link.bounding_box(), shown.bounding_box()
    assert of
    assert on
    assert on["x"] <= of["x"]
    assert of["y"] + of["height"] <= on["y"] + on["height"] + 1, "it stands on the map itself"
    assert of["height"] >= 44
    at = {"x": of["x"] + of["width"] / 2, "y": of["y"] + of["height"] - 8}
    assert link.evaluate("(one, {x, y}) => one.contains(document.elementFromPoint(x, y))", at), "nothing lies upon it"
    window.page.wait_for_function("() => [...document.querySelectorAll('.leaflet-tile')].every(one => one.complete)")
    window.shoot("map-tiles")
    assert violations(window.page) == []


@on_the_map
def test_the_map_is_pale_until_somebody_wants_the_other_and_stays_so(gsi: Gsi, town: Town, window: Window) -> None:
    shown = come_in(window.page, town)
    drawn(shown)
    assert all(path.startswith("/xyz/pale/") for path in gsi.asked)
    expect(window.page.get_by_role("button", name="淡い地図")).to_have_attribute("aria-pressed", "true")
    window.page.get_by_role("button", name="標準の地図").click()
    expect(shown.locator("img[src*='/tiles/std/'].leaflet-tile-loaded").first).to_be_visible()
    expect(shown.locator("img[src*='/tiles/pale/']")).to_have_count(0)
    window.page.reload()
    drawn(come_in(window.page, town))
    expect(window.page.get_by_role("button", name="標準の地図")).to_have_attribute("aria-pressed", "true")


@on_the_map
def test_two_windows_cost_gsi_one_question_for_each_tile(gsi: Gsi, town: Town, browser: Browser) -> None:
    pages = [browser.new_page(viewport={"width": 1280, "height": 800}, locale="ja-JP") for _ in range(2)]
    for page in pages:
        drawn(come_in(page, town))
    for page in pages:
        page.wait_for_function("() => [...document.querySelectorAll('.leaflet-tile')].every(one => one.complete)")
        page.close()
    assert len(gsi.asked) > 5
    assert sorted(gsi.asked) == sorted(set(gsi.asked))


@on_the_map
def test_while_gsi_cant_be_reached_the_coast_is_drawn_and_said_once(gsi: Gsi, town: Town, window: Window) -> None:
    page, failures = window.page, []
    page.on("response", lambda one: failures.append(one.url) if one.status == 503 else None)
    page.clock.install()
    gsi.is_down = True
    shown = come_in(page, town)
    expect(page.get_by_role("status").filter(has_text=COAST)).to_be_visible()
    expect(page.get_by_text("海岸線：Natural Earth")).to_be_visible()
    expect(page.get_by_role("link", name="出典：国土地理院")).to_have_count(0)
    expect(shown.locator("canvas").first).to_be_visible()
    window.shoot("map-coast")
    for _ in range(5):
        shown.focus()
        page.keyboard.press("ArrowRight")
        page.clock.run_for(1000)
    assert len(failures) == 1, "one tile was tried, and no other"
    gsi.is_down = False
    page.clock.run_for(3 * 60_000)
    # The gateway leaves GSI alone for half a minute of its own clock, which here is a real one: so its pause is ended by hand.
    town.gateway.deps.tiles._down_until_us = 0  # type: ignore[union-attr]
    page.clock.run_for(3 * 60_000)
    drawn(shown)
    expect(page.get_by_text(COAST)).to_have_count(0)
    expect(page.get_by_role("link", name="出典：国土地理院")).to_be_visible()


@on_the_map
def test_a_coast_that_could_not_be_loaded_is_drawn_once_it_can(town: Town, window: Window) -> None:
    page, coast = window.page, re.compile("/assets/coast-")
    page.route(coast, lambda one: one.abort())
    with page.expect_event("requestfailed", lambda one: coast.search(one.url) is not None):
        shown = come_in(page, town)
    expect(shown.get_by_title("北尾根 4番：知らせあり")).to_be_visible()
    page.unroute(coast)
    page.get_by_role("button", name="縮小").click()
    expect(shown.locator("canvas").first).to_be_visible()


@on_the_map
@pytest.mark.parametrize("window", ["desktop"], indirect=True)
def test_a_device_that_is_opened_again_is_brought_into_sight_again(town: Town, window: Window) -> None:
    page = window.page
    shown = come_in(page, town)
    mark = shown.get_by_title("北尾根 3番：通信中")
    for _ in range(2):
        page.evaluate("location.hash = '#/devices/kitayama-03/trap-11'")
        expect(mark).to_be_in_viewport()
        page.evaluate("location.hash = '#/devices'")
        shown.focus()
        for _ in range(4):
            page.keyboard.press("Shift+ArrowRight")
            page.wait_for_timeout(300)
        expect(mark).not_to_be_in_viewport()


@on_the_map
def test_tiles_that_stop_coming_give_way_to_the_coast_after_a_few(gsi: Gsi, town: Town, window: Window) -> None:
    page, failures = window.page, []
    shown = come_in(page, town)
    drawn(shown)
    page.wait_for_function("() => [...document.querySelectorAll('.leaflet-tile')].every(one => one.complete)")
    page.on("response", lambda one: failures.append(one.url) if one.status == 503 else None)
    gsi.is_down = True
    shown.focus()
    for _ in range(12):
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(100)
    expect(page.get_by_role("status").filter(has_text=COAST)).to_be_visible()
    many = len(failures)
    assert many < 12
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    expect(page.get_by_text(COAST)).to_have_count(1)
    assert len(failures) == many


@on_the_map
def test_a_file_of_the_towns_own_is_its_map_and_says_whose_it_is(own_file: None, town: Town, window: Window) -> None:
    shown = come_in(window.page, town)
    drawn(shown)
    expect(window.page.get_by_text("© 見本町 都市計画課")).to_be_visible()
    expect(window.page.get_by_role("group", name="地図の種類")).to_have_count(0)
    shown.focus()
    for _ in range(4):  # further out than the file goes
        window.page.keyboard.press("-")
        window.page.wait_for_timeout(300)
    expect(window.page.get_by_text("海岸線：Natural Earth")).to_be_visible()
    expect(window.page.get_by_text(COAST)).to_have_count(0)


# --- Marks that meet ----------------------------------------------------------------------------------


def where(count: int, at: Callable[[int], tuple[float, float]], place: Callable[[int], str]) -> dict[str, Any]:
    return {"deployments": Deployments([Deployment(node="kitayama-03", device=f"d-{n}", kind="trap", place=place(n),
                                                   label=f"{n}番", at=at(n)) for n in range(count)])}  # fmt: skip


TOGETHER = where(4, lambda n: (36.105 + (n == 3) * 0.02, 140.085), lambda n: "寺の下" if n < 3 else "峠")
NEARLY = where(3, lambda n: (36.105 + (0.0004 * n if n < 2 else 0.05), 140.085), lambda n: "寺の下" if n < 2 else "峠")
MANY = where(2000, lambda n: (36 + (n * 7919 % 2000) / 9000, 140 + (n * 104729 % 2000) / 9000), lambda n: f"{n % 40}区")


@pytest.mark.parametrize("town", [TOGETHER], indirect=True)
def test_devices_at_one_place_are_one_mark_with_the_worst_on_top_and_open_as_a_list(town: Town, window: Window) -> None:
    town.gateway.insert(tables.latest, device="d-0", time_us=NOW_US, received_us=NOW_US)
    town.fire(device="d-1")
    page = window.page
    shown = come_in(page, town)
    mark = shown.get_by_role("button", name="寺の下 3台：知らせあり、不明な機器もあり")
    expect(mark).to_have_text("3!?")
    mark.click()
    listed = page.get_by_role("region", name="この場所の機器 3台")
    expect(listed.get_by_role("heading")).to_be_focused()
    expect(listed.get_by_role("listitem")).to_have_text([re.compile("寺の下 0番 通信中"), re.compile("寺の下 1番 知らせあり"),
                                                         re.compile("寺の下 2番 不明")])  # fmt: skip
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(listed).to_have_count(0)
    expect(mark).to_be_focused()
    page.keyboard.press("Enter")
    listed.get_by_role("link", name="寺の下 1番").click()
    expect(page.get_by_role("heading", level=2, name="寺の下 1番")).to_be_visible()


@pytest.mark.parametrize("town", [NEARLY], indirect=True)
def test_devices_near_each_other_part_when_their_mark_is_pressed(town: Town, window: Window) -> None:
    shown = come_in(window.page, town)
    shown.get_by_role("button", name="寺の下 2台：不明").click()
    expect(shown.get_by_role("link", name="寺の下 0番：不明")).to_be_visible()
    expect(shown.get_by_role("link", name="寺の下 1番：不明")).to_be_visible()


@pytest.mark.parametrize("town", [MANY], indirect=True)
def test_two_thousand_devices_are_marks_that_can_be_told_apart_with_the_alert_on_top(town: Town, window: Window) -> None:
    town.fire(device="d-1000")
    page = window.page
    shown = come_in(page, town)
    expect(shown.get_by_role("button", name=re.compile("知らせあり"))).to_have_count(1)
    expect(shown.locator(".place").nth(5)).to_be_attached()  # once the map has turned to them all
    window.shoot("map-2000")
    assert shown.locator(".place").count() < 250
    counts = [int(re.sub(r"\D", "", one) or 1) for one in shown.locator(".place").all_inner_texts()]
    assert sum(counts) > 1500
    height = "all => all.map(one => [Number(one.style.zIndex), one.innerHTML.includes('mark alert')])"
    assert max(shown.locator(".place").evaluate_all(height))[1], "what lies on top of all is the alert"
    assert violations(page) == []


# --- The keyboard -------------------------------------------------------------------------------------


def centre_of(mark: Locator) -> tuple[float, float]:
    box = mark.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@on_the_map
def test_the_map_is_reached_moved_and_zoomed_by_keyboard(town: Town, window: Window) -> None:
    page = window.page
    page.emulate_media(reduced_motion="reduce")
    shown = come_in(page, town)
    first, second = shown.get_by_title("沢口 カメラ"), shown.get_by_title("観音橋 東側")
    expect(first).to_be_visible()
    for _ in range(40):
        if shown.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(shown).to_be_focused()
    assert shown.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    expect(page.get_by_text("矢印キーで動かします。")).to_be_visible()
    before = centre_of(first)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => { const box = document.querySelector('[title^=\"沢口 カメラ\"]').getBoundingClientRect();"
                           " return box.x + box.width / 2 < before - 70; }", arg=before[0])  # fmt: skip
    apart = abs(centre_of(first)[1] - centre_of(second)[1])
    page.keyboard.press("-")
    expect(shown.get_by_role("button").first).to_be_visible()
    page.keyboard.press("+")
    expect(first).to_be_visible()
    assert abs(centre_of(first)[1] - centre_of(second)[1]) == pytest.approx(apart, abs=2)
    window.shoot("map-keys")


@on_the_map
def test_marks_are_reached_by_tab_the_worst_first_and_enter_opens(town: Town, window: Window) -> None:
    page = window.page
    shown = come_in(page, town)
    expect(shown.get_by_title("北尾根 4番：知らせあり")).to_be_visible()
    shown.focus()
    reached = []
    for _ in PLACES:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.title"))
    assert "沢口の林道入口から二つめの曲がり角 1番：知らせあり、今の様子は不明" in reached, "it is silent besides"
    states = [one.split("：")[-1].split("、")[0] for one in reached]
    assert states == sorted(states, key=["知らせあり", "不明", "通信中"].index)
    assert {one.split("：")[0] for one in reached} == {f"{one.place} {one.label}" for one in PLACES}
    mark = shown.get_by_title("北尾根 3番：通信中")
    shown.focus()
    for _ in range(1 + reached.index("北尾根 3番：通信中")):
        page.keyboard.press("Tab")
    expect(mark).to_be_focused()
    assert mark.evaluate("one => getComputedStyle(one).outlineWidth") == "4px"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="北尾根 3番")).to_be_visible()


@on_the_map
def test_news_of_the_town_take_the_focus_from_nobody(town: Town, window: Window) -> None:
    page = window.page
    shown = come_in(page, town)
    mark = shown.get_by_title("北尾根 3番：通信中")
    expect(mark).to_be_visible()
    mark.evaluate("one => { window.held = one; one.focus(); one.onfocus = () => (window.again = true); }")
    town.fire(device="cam-02", id="a-8")  # another mark comes to stand before it
    expect(shown.get_by_title("沢口 カメラ：知らせあり")).to_be_visible()
    assert page.evaluate("document.activeElement === window.held")
    town.fire(device="trap-11", id="a-9")  # and now itself
    expect(shown.get_by_title("北尾根 3番：知らせあり")).to_be_visible()
    assert page.evaluate("document.activeElement === window.held && window.held.isConnected && !window.again"), (
        "nor is it given back"
    )
    order = shown.locator(".place > *").evaluate_all("all => all.map(one => one.title.split('：')[1].split('、')[0])")
    assert order == sorted(order, key=["知らせあり", "不明", "通信中"].index)


@on_the_map
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_map_stands_in_nobodys_way(gsi: Gsi, town: Town, window: Window, language: str) -> None:
    window.page.add_init_script(f"localStorage.setItem('language', '{language}'); sessionStorage.setItem('token', '{OPERATOR}')")
    window.page.goto(f"{town.url}map")
    has_its_values(window.page, language)
    if window.name == "phone":
        window.page.locator(".choice button").nth(1).click()
    expect(window.page.locator(".leaflet-tile-loaded").first).to_be_visible()
    assert violations(window.page) == []
    window.page.evaluate("document.documentElement.style.fontSize = '36px'")
    assert window.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    window.shoot(f"map-large-{language}")


# --- Pictures of an alert -----------------------------------------------------------------------------


def taken(town: Town, seq: int, content: str, *, keep: bool = True) -> str:
    """A camera at the alert's node took a picture two minutes ago. Returns its name, the SHA-256."""
    shot = image((90, 130, seq * 20), 64)
    sha256 = hashlib.sha256(shot).hexdigest()
    body = json.dumps({"media": sha256, "size": len(shot), "content_type": "image/png", "content": content, "withheld": False})
    at_us = NOW_US - 2 * MINUTE_US - seq * 1_000_000
    town.gateway.insert(
        tables.events, seq=seq, device="cam-02", type="media_captured", class_="evidence", body=body, time_us=at_us
    )
    town.gateway.insert(tables.pictures, sha256=sha256, content=content)
    if keep:
        town.gateway.deps.media.keep(sha256, shot, "image/png")
    return sha256


def test_an_alert_shows_its_pictures_small_and_opens_them_whole(town: Town, window: Window) -> None:
    sha256 = taken(town, 1, "animal")
    page = window.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/media/")[2]))
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")
    page.goto(f"{town.url}map#/alerts/a-1")
    picture = page.get_by_role("img", name="6月3日 午前6時9分 の写真")
    expect(picture).to_be_visible()
    pixel = "one => [...one.getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert picture.locator("canvas").evaluate(pixel) == pytest.approx([90, 130, 20, 255], abs=3), "no empty frame"
    assert set(asked) - {""} == {f"{sha256}/thumbnail"}, "a phone on a thin link does not pay for what nobody opens"
    heads = page.get_by_role("article").get_by_role("heading", level=3)
    expect(heads).to_have_text(["知らせた人と返事", "写真", "これまでの経過"])
    page.get_by_role("button", name="大きく見る").click()
    large = page.get_by_role("dialog", name="写真")
    box, size = large.bounding_box(), page.viewport_size
    assert box
    assert size
    assert (box["width"], box["height"]) == (size["width"], size["height"])
    whole = large.get_by_role("img", name="6月3日 午前6時9分 の写真")
    expect(whole).to_be_visible()
    assert whole.locator("canvas").evaluate(pixel) == [90, 130, 20, 255]
    assert set(asked) - {""} == {sha256, f"{sha256}/thumbnail"}
    window.shoot("map-picture")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(page.get_by_role("button", name="大きく見る")).to_be_focused()


@pytest.mark.parametrize("window", ["phone"], indirect=True)
def test_a_phone_of_six_years_ago_shows_them_too(town: Town, window: Window) -> None:
    taken(town, 1, "animal")
    page = window.page
    page.add_init_script(f"""sessionStorage.setItem('token', '{OPERATOR}'); delete window.createImageBitmap;
        delete HTMLDialogElement.prototype.showModal; delete HTMLDialogElement.prototype.close;""")
    page.goto(f"{town.url}map#/alerts/a-1")
    button = page.get_by_role("button", name="大きく見る")
    button.click()
    large = page.get_by_role("dialog", name="写真")
    seen = large.locator("canvas").evaluate("one => [...one.getContext('2d').getImageData(5, 5, 1, 1).data]")
    assert seen == [90, 130, 20, 255]
    box, size = large.bounding_box(), page.viewport_size
    assert box
    assert size
    assert (box["width"], box["height"]) == (size["width"], size["height"])
    large.get_by_role("button", name="閉じる").click()
    expect(large).to_have_count(0)
    expect(button).to_be_focused()


@pytest.mark.parametrize("window", ["phone"], indirect=True)
def test_one_that_can_not_be_made_small_is_shown_whole(town: Town, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.thumbnails.small", lambda *_: None)
    taken(town, 1, "animal")
    page = window.page
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")
    page.goto(f"{town.url}map#/alerts/a-1")
    expect(page.get_by_role("img", name="6月3日 午前6時9分 の写真")).to_be_visible()


@pytest.mark.parametrize("window", ["phone"], indirect=True)
def test_one_that_went_while_it_was_small_says_so_when_it_is_opened(town: Town, window: Window) -> None:
    sha256 = taken(town, 1, "animal")
    page = window.page
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")
    page.goto(f"{town.url}map#/alerts/a-1")
    expect(page.get_by_role("img", name=re.compile("の写真"))).to_be_visible()
    town.gateway.client().delete(f"/api/v1/media/{sha256}", params={"why": "本人の希望"})
    page.get_by_role("button", name="大きく見る").click()
    large = page.get_by_role("dialog", name="写真")
    expect(large).to_contain_text("この写真は今ありません。")
    assert violations(page) == []
    large.get_by_role("button", name="閉じる").click()
    expect(large).to_have_count(0)


def test_a_picture_that_is_gone_says_so(town: Town, window: Window) -> None:
    taken(town, 1, "animal")
    deleted = taken(town, 2, "animal")
    town.gateway.client().delete(f"/api/v1/media/{deleted}", params={"why": "本人の希望"})
    page = window.page
    page.add_init_script(f"sessionStorage.setItem('token', '{OPERATOR}')")
    page.goto(f"{town.url}map#/alerts/a-1")
    expect(page.get_by_text("この写真は今ありません。まだ届いていないか、もう消されています。")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("の写真"))).to_have_count(1)


def test_a_picture_in_which_a_person_may_be_opens_to_nobody_who_may_not_see_such(town: Town, window: Window) -> None:
    taken(town, 1, "unsure")
    page = window.page
    page.add_init_script(f"sessionStorage.setItem('token', '{VIEWER}')")
    page.goto(f"{town.url}map#/alerts/a-1")
    expect(page.get_by_text("人が写っているかもしれない写真は、ここでは見られません。")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("の写真"))).to_have_count(0)
