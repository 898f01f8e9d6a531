"""Reports and dossiers as they leave: the same figures in each form, for whom they are, and nothing that runs or is fetched."""

import hashlib
import html
import io
import re
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pypdf
import pytest
from PIL import Image

from gateway.deployments import Deployment, Deployments
from gateway.flow.config import AreaConfig
from gateway.reports import press
from gateway.reports.press import Press, PressBusy
from gateway.state import tables
from tests.gateway.api.conftest import NOW_US, Gateway
from tests.gateway.api.policed import DOSSIER, OTHER_DOSSIER, Town

MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
MAY_US = 1_777_561_200_000_000  # 1 May 2026, 00:00 in Japan
PLACES = ("北尾根", "=南沢")
SENTENCE = "5月：捕獲通知5件、確認まで中央値14分、未対応1件"
BOUND_BYTES = 30_000


@pytest.fixture
def town(gateway: Gateway) -> Gateway:
    """Five alerts in May; a trap that is heard each hour but for the 20th day."""
    stand = [Deployment(node="kitayama-03", device=f"trap-{11 + n}", kind="trap", place=place, label=f"{n + 1}番",
                        at=(36.1 + n / 100, 140.08)) for n, place in enumerate(PLACES)]  # fmt: skip
    for number, (day, wait) in enumerate(((0, 3), (0, 14), (9, 15), (30, None), (30, 14))):
        told_us = MAY_US + day * DAY_US + HOUR_US
        gateway.insert(
            tables.alerts, id=f"a-{number}", opening=f"0:{number}", device="trap-11" if number else "trap-12", fired_us=told_us,
            acknowledged_us=None if wait is None else told_us + wait * MINUTE_US,
        )  # fmt: skip
    gateway.insert(tables.alerts, id="a-late", opening="0:9", fired_us=MAY_US + 31 * DAY_US)
    gateway.insert(tables.alerts, id="a-muted", opening="0:10", fired_us=None)
    trap = {"node": "kitayama-03", "device": "trap-11"}
    with gateway.state.write() as connection:
        connection.execute(tables.visits.insert().values(
            id="v-1", **trap, at_us=MAY_US + HOUR_US, who="田中", via="qr", result="capture", recorded_us=NOW_US
        ))  # fmt: skip
        connection.execute(tables.captures.insert().values(
            id=DOSSIER, **trap, visit="v-1", species="=1+1", opened_us=NOW_US, sprung_us=MAY_US
        ))  # fmt: skip
    beats = [MAY_US + hour * HOUR_US for hour in range(31 * 24) if not 19 * 24 <= hour < 20 * 24]
    gateway.store.write([(("kitayama-03", "trap-11", "heartbeat"), at_us // 1000, 1.0) for at_us in beats])
    deps = replace(gateway.deps, deployments=Deployments(stand), stale_after_s=2 * 3600)
    return Gateway(deps, gateway.state, gateway.store)


def rows_of_page(page: str) -> list[list[str]]:
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


def rows_of_book(content: bytes) -> list[list[str]]:
    """Of every worksheet, as a reader of the format finds them."""
    name = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    found = []
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        shared = ["".join(one.itertext()) for one in ET.fromstring(book.read("xl/sharedStrings.xml"))]  # noqa: S314
        for part in sorted(one for one in book.namelist() if one.startswith("xl/worksheets/sheet")):
            for row in ET.fromstring(book.read(part)).iter(f"{name}row"):  # noqa: S314 - made a line above
                cells = []
                for cell in row:
                    value = cell.find(f"{name}v")
                    assert cell.find(f"{name}f") is None, "a formula"
                    assert value is not None
                    assert value.text is not None
                    cells.append(shared[int(value.text)] if cell.get("t") == "s" else f"{float(value.text):g}")
                found.append(cells)
    return found


def words_of_pdf(content: bytes) -> str:
    return re.sub(r"\s", "", "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages))


def test_page_pdf_and_spreadsheet_say_the_same(town: Gateway) -> None:
    web = town.client()
    page = web.get("/reports/traps/2026-05", headers={"Accept-Language": "ja"})
    assert page.status_code == 200, page.text
    assert len(page.content) <= BOUND_BYTES
    assert "<script" not in page.text
    book, pdf = (web.get(f"/reports/traps/2026-05.{kind}") for kind in ("xlsx", "pdf"))
    assert SENTENCE in html.unescape(page.text)
    said, printed = rows_of_book(book.content), words_of_pdf(pdf.content)
    assert [SENTENCE] in said
    assert SENTENCE in printed
    rows = rows_of_page(page.text)
    assert ["北尾根", "4", "14", "15", "1", "1", "1"] in rows
    assert ["5月10日", "1", "15", "15", "0", "0", "0"] in rows
    assert ["5月2日", "0", "―", "―", "0", "0", "0"] in rows
    assert ["=1+1", "1"] in rows
    assert ["北尾根 1番", "24.5", "96.7"] in rows
    assert ["=南沢 2番", "不明", "不明"] in rows
    for row in rows:
        assert row in said, row
        assert re.sub(r"\s", "", "".join(row)) in printed, row


def test_a_report_is_in_the_readers_language_and_has_the_japanese_year_beside_ours(town: Gateway) -> None:
    web = town.client()
    assert "2026年（令和8年）5月" in web.get("/reports/traps/2026-05?lang=ja").text
    assert "May 2026 (Reiwa 8)" in web.get("/reports/traps/2026-05?lang=en").text
    assert "れいわ 8年" in web.get("/reports/traps/2026-05?lang=ja-easy").text


def test_recounts_stand_beside_the_counters_in_each_form(town: Gateway) -> None:
    areas = {
        name: AreaConfig.model_validate({"label": label, "line": [{"node": "hiroba", "device": name}]})
        for name, label in (("hiroba", "朝市広場"), ("east", "東小学校"))
    }
    for counted, reckoned in ((100, 120), (200, 190), (50, None)):
        told = {"area": "hiroba", "at_us": MAY_US + DAY_US, "counted": counted, "reckoned": reckoned, "who": "田中"}
        with town.state.write() as connection:
            connection.execute(tables.recounts.insert().values(told))
    web = town.client(areas=areas)
    page, book, pdf = (web.get(f"/reports/flow/2026-05{kind}") for kind in ("", ".xlsx", ".pdf"))
    printed = words_of_pdf(pdf.content)
    for row in (["朝市広場", "3", "12.5", "20"], ["東小学校", "0", "この月は数え直していません", "―"]):
        assert row in rows_of_page(page.text)
        assert row in rows_of_book(book.content)
        assert "".join(row) in printed
    assert "田中" not in page.text
    assert "数え直し" not in web.get("/reports/traps/2026-05").text


@pytest.mark.parametrize("watch", ["traps", "cameras", "tags", "flow"])
def test_every_watch_has_its_report_even_of_a_month_in_which_nothing_was(town: Gateway, watch: str) -> None:
    for kind in ("", ".xlsx"):
        assert town.client().get(f"/reports/{watch}/2026-04{kind}").status_code == 200


def test_a_month_that_is_to_come_or_forgotten_is_no_month_without_alerts(town: Gateway) -> None:
    web = town.client()
    assert "まだ終わっていません" in web.get("/reports/traps/2026-06").text
    assert web.get("/reports/traps/2026-07").status_code == 404
    assert web.get("/reports/traps/2024-05").status_code == 410
    for wrong in ("2026-13", "1999-01", "yesterday", "2026-05.exe"):
        assert web.get(f"/reports/traps/{wrong}").status_code == 422


def test_the_largest_report_fits_its_page(town: Gateway) -> None:
    stand = [Deployment(node=f"node-{n}", device="trap-1", kind="trap", place=f"長い名前の沢の奥の尾根{n}", label=f"{n}番")
             for n in range(120)]  # fmt: skip
    for n in range(120):
        town.insert(
            tables.alerts, id=f"b-{n}", opening=f"1:{n}", node=f"node-{n}", device="trap-1", fired_us=MAY_US + n * HOUR_US
        )
    page = town.client(deployments=Deployments(stand)).get("/reports/traps/2026-05")
    assert len(page.content) <= BOUND_BYTES
    assert "その他" in page.text


def test_farmers_get_the_report_of_their_own_traps_and_only_an_officer_that_of_tags(gateway: Gateway) -> None:
    town = Town(gateway)
    month = "2026-06"
    officers, farmers = (town.client(role).get(f"/reports/traps/{month}").text for role in ("officer", "farmer"))
    assert "南沢" in officers
    assert "南沢" not in farmers
    assert "北尾根" in farmers
    for role, status in (("officer", 200), ("operator", 403), ("farmer", 403), ("family", 403)):
        assert town.client(role).get(f"/reports/tags/{month}").status_code == status
    tags = town.client("officer").get(f"/reports/tags/{month}").text
    assert not [word for word in ("花子", "太郎", "北尾根", "南沢") if word in tags]
    assert town.client("farmer").get(f"/reports/captures/{DOSSIER}").status_code == 200
    assert town.client("farmer").get(f"/reports/captures/{OTHER_DOSSIER}").status_code == 403


def test_a_dossier_is_printed_with_its_photos_and_what_it_lacks(town: Gateway, tmp_path: Path) -> None:
    sha256 = shelved(town)
    town.insert(tables.pictures, sha256=sha256, content="animal")
    with town.state.write() as connection:
        connection.execute(tables.capture_photos.insert().values(
            sha256=sha256, capture=DOSSIER, item="whole", added_us=NOW_US, added_by="田中"
        ))  # fmt: skip
    web = town.client()
    page, pdf = web.get(f"/reports/captures/{DOSSIER}"), web.get(f"/reports/captures/{DOSSIER}.pdf")
    assert len(page.content) <= BOUND_BYTES
    assert f'src="/api/v1/media/{sha256}"' in page.text
    printed = words_of_pdf(pdf.content)
    for words in (
        "北尾根1番",
        "2026年（令和8年）5月1日午前0時0分",
        "田中",
        "足りないもの：性別、体重",
        "尾の写真",
        "市役所の確認",
    ):
        assert words in printed, words
        assert words in re.sub(r"\s", "", html.unescape(page.text)), words
    pages = pypdf.PdfReader(io.BytesIO(pdf.content)).pages
    assert sum(len(one.images) for one in pages) == 1


def shelved(town: Gateway) -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 90, 60)).save(file, "JPEG")
    content = file.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    answer = town.client("node").patch(
        f"/api/v1/media/{sha256}", content=content,
        headers={"Upload-Offset": "0", "Upload-Length": str(len(content)), "Content-Type": "image/jpeg"},
    )  # fmt: skip
    assert answer.status_code == 200
    return sha256


# --- The press ----------------------------------------------------------------------------------------


def test_japanese_is_printed_with_a_font_that_is_in_the_file(town: Gateway) -> None:
    reader = pypdf.PdfReader(io.BytesIO(town.client().get("/reports/traps/2026-05.pdf").content))
    fonts = [one.get_object() for page in reader.pages for one in page["/Resources"]["/Font"].values()]  # type: ignore[index]
    names = {str(font["/BaseFont"]) for font in fonts}
    assert any("CJK" in name or "Gothic" in name or "Sans" in name for name in names), names
    for font in fonts:
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        assert {"/FontFile2", "/FontFile3"} & set(descriptor), "a reader without the font sees boxes"


def test_nothing_is_fetched_for_a_pdf(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9), (255, 0, 0)).save(secret)
    url = f"http://127.0.0.1:{server.server_port}/x"
    page = (
        f'<link rel="stylesheet" href="{url}.css"><style>@import "{url}2.css"; p {{ background: url({url}.png) }}</style>'
        f'<img src="{url}"><img src="{secret.as_uri()}"><object data="{url}"></object><p>a</p>'
        f'<a rel="attachment" href="{secret.as_uri()}">a</a>'
    )
    pdf = pypdf.PdfReader(io.BytesIO(Press().pdf(page)))
    server.shutdown()
    server.server_close()
    assert asked == []
    assert [one for part in pdf.pages for one in part.images] == []
    assert not pdf.attachments


def test_a_press_that_is_busy_says_so_instead_of_keeping_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def slow(*_: Any) -> bytes:
        goes_on.wait(20)
        return b"%PDF"

    monkeypatch.setattr(press, "_make", slow)
    made = Press(within_s=0.05)
    for _ in range(press.MOST_WAITING):
        with pytest.raises(PressBusy):
            made.pdf("a")
    with pytest.raises(PressBusy):
        made.pdf("a")
    goes_on.set()
    with pytest.raises(ValueError, match="too large"):
        made.pdf("a" * (press.LARGEST_PAGE_BYTES + 1))


def test_a_gateway_without_the_library_says_what_to_do(town: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    answer = town.client().get("/reports/traps/2026-05.pdf", headers={"Accept-Language": "en"})
    assert answer.status_code == 501
    assert "libpango" in answer.json()["detail"]
