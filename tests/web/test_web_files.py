"""What a browser gets of the built pages, and what it is told where nothing was built."""

import gzip
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gateway import check
from gateway.api import built as built_pages
from gateway.api import web
from gateway.api.built import PAGES
from gateway.api.deps import Deps
from gateway.api.gate import Gate
from gateway.api.problems import add_problem_handlers
from gateway.words import call_office
from tests.gateway.api.conftest import Gateway, gateway

__all__ = ["gateway"]

SCRIPT = b"export const told = 1;\n" * 100


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """As the build leaves it: pages, the installer's worker, and assets with what they weigh in transit beside them."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    for name in PAGES.values():
        (folder / name).write_text(f"<!doctype html><h1>{name}</h1>", encoding="utf-8")
    (folder / "install-worker.js").write_text("self.skipWaiting()", encoding="utf-8")
    (folder / "assets" / "map-abc.js").write_bytes(SCRIPT)
    (folder / "assets" / "map-abc.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "LICENSES.txt").write_text("someone 1.0.0\nMIT\n", encoding="utf-8")
    (folder / "built-from").write_text("0" * 64, encoding="utf-8")
    return folder


def browser(deps: Deps, folder: Path) -> TestClient:
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(Gate, tokens=deps.tokens)
    app.include_router(web.routes(deps.zone, folder))
    return TestClient(app, raise_server_exceptions=False, headers={"Accept-Encoding": "identity"})


@pytest.mark.parametrize("path", [*PAGES, *(f"{page}/" for page in PAGES)])
def test_a_page_opens_without_a_token_and_is_loaded_again_only_when_it_changed(gateway: Gateway, built: Path, path: str) -> None:
    asked = browser(gateway.deps, built)
    answer = asked.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == f"<!doctype html><h1>{PAGES[path.rstrip('/')]}</h1>"
    assert answer.headers["Cache-Control"] == "no-cache"

    again = asked.get(path, headers={"If-None-Match": f'"other", {answer.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert asked.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_asset_is_kept_for_ever_and_travels_packed_to_who_can_unpack_it(gateway: Gateway, built: Path) -> None:
    asked = browser(gateway.deps, built)
    plain = asked.get("/web/assets/map-abc.js")
    assert plain.content == SCRIPT
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert plain.headers["Content-Type"].startswith("text/javascript")

    packed = asked.get("/web/assets/map-abc.js", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == SCRIPT
    assert int(packed.headers["Content-Length"]) < len(SCRIPT) / 4
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in asked.get("/web/assets/map-abc.js", headers={"Accept-Encoding": "gzip;q=0"}).headers


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fbuilt-from", "%2e%2e/built-from", "map-abc.js.gz", "../built-from"])
def test_nothing_but_assets_is_below_their_path(gateway: Gateway, built: Path, name: str) -> None:
    answer = browser(gateway.deps, built).get(f"/web/assets/{name}")
    assert answer.status_code in (401, 404)
    assert "immutable" not in answer.headers["Cache-Control"]


def test_the_worker_stands_where_it_may_serve_the_installers_page(gateway: Gateway, built: Path) -> None:
    answer = browser(gateway.deps, built).get("/install-worker.js")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("called", "said"),
    [
        ("村役場", {"ja": "村役場", "ja-easy": "村役場（むらやくば）", "en": "the village office"}),
        ('"桐沢" <&', dict.fromkeys(("ja", "ja-easy", "en"), '"桐沢" <&')),
    ],
)
def test_a_page_says_what_the_office_is_called_here_packed_or_not_and_anew_once_it_is_called_otherwise(
    gateway: Gateway, built: Path, called: str, said: dict[str, str]
) -> None:
    page = "<!doctype html><head><title>one</title></head><h1>map</h1>"
    (built / "map.html").write_text(page, encoding="utf-8")
    (built / "map.html.gz").write_bytes(gzip.compress(page.encode()))
    before = browser(gateway.deps, built).get("/map").headers["ETag"]
    call_office(called)
    try:
        asked = browser(gateway.deps, built)
    finally:
        call_office("")
    plain, packed = asked.get("/map"), asked.get("/map", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.text == packed.text
    assert plain.headers["ETag"] != before
    head, meta, rest = re.split(r'<meta name="office" content="([^"]*)">', plain.text)
    assert (head + rest, json.loads(html.unescape(meta))) == (page, said)


def test_the_licences_of_what_the_pages_are_made_of_can_be_read_by_anybody(gateway: Gateway, built: Path) -> None:
    answer = browser(gateway.deps, built).get("/licences")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text == "someone 1.0.0\nMIT\n"


def test_only_the_installers_page_may_ask_for_the_camera_and_the_place(gateway: Gateway, built: Path) -> None:
    asked = browser(gateway.deps, built)
    first = asked.get("/install")
    again = asked.get("/install", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    for answer in (first, again):  # what is not changed still says what is allowed: a browser takes the newest headers
        allowed = answer.headers["Permissions-Policy"]
        assert "camera=(self)" in allowed
        assert "geolocation=(self)" in allowed
        assert "microphone=()" in allowed
    assert "camera=()" in asked.get("/mimamori").headers["Permissions-Policy"]


def test_a_gateway_without_its_pages_says_so_and_serves_the_rest(gateway: Gateway, tmp_path: Path) -> None:
    asked = browser(replace(gateway.deps), tmp_path / "nothing")
    for path in PAGES:
        answer = asked.get(path, headers={"Accept-Language": "ja"})
        assert answer.status_code == 503
        assert "この画面はまだ使えません" in answer.text
        assert answer.headers["Cache-Control"] == "no-store"
    assert built_pages.lacking(tmp_path / "nothing") == list(PAGES)


def test_what_is_built_lacks_nothing(built: Path) -> None:
    assert built_pages.lacking(built) == []
    (built / "map.html").unlink()
    assert built_pages.lacking(built) == ["/map"]


def test_check_says_which_pages_a_gateway_was_installed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_pages, "lacking", lambda: ["/install", "/map"])
    [said] = check._pages()
    assert said.startswith("pages: this gateway was installed without /install, /map.")
    assert "make wheel" in said
    monkeypatch.setattr(built_pages, "lacking", list)
    assert check._pages() == []
