"""What every answer says to the browser, whichever route gave it: they are read off the application."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gateway.accounts.desk import Accounts
from gateway.api.app import create_app
from gateway.api.built import PAGES
from gateway.api.cookie import cookie_name
from gateway.api.described import rules_of
from gateway.api.problems import HSTS, SECURITY_HEADERS
from gateway.api.web import LICENCES, WORKER
from tests.gateway.api.conftest import BEARER, Gateway
from tests.gateway.api.office import Office
from tests.gateway.api.policed import Town

ENDLESS = "/api/v1/stream"
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|\son[a-z]+\s*=|javascript:|\sstyle\s*=", re.IGNORECASE)
WITHOUT_DATA = {"/", "/page.js", "/page.css", "/icon.svg", "/push.js", "/push-worker.js", "/passkey.js", WORKER, LICENCES, *PAGES}
WITHOUT_DATA |= {f"{page}/" for page in PAGES}
"""Files of the pages, the same for everybody."""
TAKES_PICTURES = {f"{method} {path}: 200" for method in ("GET", "HEAD") for path in ("/install", "/install/")}
"""The one page that may use the camera, say where it is, and run and show what it has itself made."""
OF_ITS_OWN = {"img-src": {"blob:", "data:"}, "worker-src": {"blob:"}}
SHOWS_PICTURES = {one.replace("/install", "/map") for one in TAKES_PICTURES}
"""The one that shows pictures it has read itself."""


@pytest.fixture
def app(gateway: Gateway, tmp_path: Path) -> FastAPI:
    """All of it: people, accounts and pages too."""
    office = Office(gateway, tmp_path / "people")
    town = Town(gateway)
    deps = town.gateway.deps
    accounts = Accounts(gateway.state, {}, "https://gateway.example", deps.now_us, office.desk.book)
    return create_app(replace(gateway.deps, desk=office.desk, accounts=accounts, tokens=gateway.deps.tokens))


def asked(app: FastAPI) -> list[tuple[str, str]]:
    found = {(rule.method, re.sub(r"\{[^}]*\}", "a", rule.path)) for rule in rules_of(app)}
    extra = {
        ("GET", "/nothing"),
        ("GET", "/api/v1/nothing"),
        ("PUT", "/"),
        ("GET", "/api/v1/events?limit=0"),
        ("GET", "/a/%2e%2e"),
    }
    return sorted(one for one in found | extra if one[1] != ENDLESS)


def test_every_answer_of_every_route_is_guarded(app: FastAPI) -> None:
    bare = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
    walked = asked(app)
    assert len(walked) > 60
    seen = set()
    for method, path in walked:
        for headers in ({}, BEARER["operator"], {"Cookie": f"{cookie_name(https=True)}=nobodys"}):
            answer = bare.request(method, path, headers=headers)
            seen.add(answer.status_code)
            assert answer.status_code < 500 or answer.status_code in (501, 503), (method, path, answer.text)
            where = f"{method} {path}: {answer.status_code}"
            wanted = {**SECURITY_HEADERS, **HSTS}
            if where in TAKES_PICTURES:
                shut = wanted["Permissions-Policy"]
                wanted["Permissions-Policy"] = re.sub(r"(camera|geolocation)=\(\)", r"\1=(self)", shut)
            for name, value in wanted.items():
                if name not in ("Content-Security-Policy", "Referrer-Policy"):
                    assert answer.headers.get_list(name) == [value], (where, name)
            # With same-origin, a browser says where a form of ours comes from; either way no link of ours is told to others.
            assert answer.headers["Referrer-Policy"] in ("no-referrer", "same-origin"), where
            _policy(answer.headers["Content-Security-Policy"], where)
            if path.partition("?")[0] not in WITHOUT_DATA or answer.status_code >= 400:
                assert "no-store" in answer.headers["Cache-Control"], where
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                assert INLINE.findall(answer.text) == [], where
            assert "server" not in answer.headers, where
            for cookie in answer.headers.get_list("set-cookie"):
                for flag in ("Secure", "HttpOnly", "SameSite", "Path=/"):
                    assert flag.lower() in cookie.lower(), (where, flag)
    assert {200, 401, 404, 405, 422} <= seen


def _policy(policy: str, where: str) -> None:
    directives = {one.split()[0]: one.split()[1:] for one in policy.split(";") if one.strip()}
    assert directives["frame-ancestors"] == ["'none'"], where
    assert directives["base-uri"] == ["'none'"], where
    assert "form-action" in directives, where
    assert directives["default-src"] in (["'self'"], ["'none'"]), where
    for name, sources in directives.items():
        for source in sources:
            if where in TAKES_PICTURES and source in OF_ITS_OWN.get(name, ()):
                continue
            if where in SHOWS_PICTURES and (name, source) == ("img-src", "blob:"):
                continue
            assert source in ("'self'", "'none'") or source.startswith("'sha256-"), (where, name, source)


def test_over_plain_http_nothing_promises_https(gateway: Gateway) -> None:
    assert "Strict-Transport-Security" not in gateway.client().get("/api/v1/health").headers


@pytest.mark.parametrize("name", ["index.html", "page.js", "page.css", "icon.svg"])
def test_the_town_page_has_nothing_inline(name: str) -> None:
    page = Path("dashboards/plain") / name
    written = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    assert INLINE.findall(written) == [] or not name.endswith(".html")
    assert "eval(" not in written
    assert ".innerHTML" not in written
