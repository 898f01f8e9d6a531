"""Words as nobody hopes for them in everything that people may type: no page of the gateway runs them, in a real browser."""

import csv
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Connection, insert, update

from gateway.contacts import people
from gateway.mimamori import labels
from gateway.notify.links import Links, open_link_key
from gateway.notify.message import Button, Message
from gateway.state import tables
from simulators.fuzz import everything
from tests.gateway.api import policed
from tests.gateway.api.conftest import DEFAULTS

pytestmark = pytest.mark.browser

PLACE = "\"'><script>alert(1)</script><i onclick=1"
WORDS = f"=cmd|'/c calc'!A0{PLACE}<img src=x onerror=alert(1)>\u202egnp.{{{{7*7}}}}"
LONG = WORDS * 100  # some 10 kB
TYPED: Mapping[str, Mapping[str, str]] = {
    "accounts": {"name": WORDS}, "alerts": {"summary": WORDS}, "captures": {"species": WORDS, "note": LONG},
    "contacts": {"name": WORDS}, "jobs": {"label": WORDS}, "search_cases": {"reason": LONG},
    "visits": {"who": WORDS, "note": LONG}, "watched": {"name": WORDS},
}  # fmt: skip
"""Columns with what somebody typed, and what they typed."""
MESSAGE = "55555555-5555-4555-8555-555555555555"
WHILE_OPEN_US = 86_400_000_000


class Town(NamedTuple):
    url: str
    officer: Mapping[str, str]
    pages: Mapping[str, str]
    """Every page by its name: where it is."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    now_us = time.time_ns() // 1000
    ids: list[str] = []

    def fill(connection: Connection) -> None:
        policed.fill(connection)
        silence = {"match": "{}", "from_us": now_us, "until_us": now_us + WHILE_OPEN_US, "why": LONG}
        connection.execute(insert(tables.silences), {**silence, "created_us": now_us, "created_by": WORDS})
        connection.execute(insert(tables.tags), {"tag": "tag-of-hana", "watched": policed.HANA, "enrolled_us": 0,
                                                 "enrolled_by": WORDS})  # fmt: skip
        ids.append(people.add(connection, "名前", "ja", ["family-hana", "helpers"], "test", now_us))
        ids.append(labels.make(connection, "tag-of-hana", "test", now_us))
        connection.execute(insert(tables.label_reports), {"label": ids[1], "what": "misuse", "at_us": now_us, "words": LONG,
                                                          "reach": WORDS, "state": "open"})  # fmt: skip
        said = Message(id=MESSAGE, title=WORDS, body=LONG, buttons=(Button(answer="going", label=PLACE[3:23]),))
        for id_, about in ((MESSAGE, {"alert": "a-mine", "page": "p-mine"}), ("n-helper", {"alert": None, "page": "help-hana"})):
            row = {**DEFAULTS["notifications"](now_us), **about, "id": id_, "contact": ids[0], "body": said.model_dump_json()}
            connection.execute(insert(tables.notifications), row)
        connection.execute(update(tables.search_cases).values(opened_us=now_us, renewed_us=now_us))
        for table, values in TYPED.items():
            connection.execute(update(tables.metadata.tables[table]).values(values))

    with everything(folder, fill, called=PLACE) as gateway:
        officer = gateway.officer()
        links = Links(gateway.url, open_link_key(folder / "people"))
        until_us = now_us + WHILE_OPEN_US

        def made(path: str, **body: object) -> dict[str, str]:
            answer = httpx.post(f"{gateway.url}/api/v1/{path}", json=body, headers=officer, trust_env=False)
            assert answer.status_code == 201, answer.text
            got: dict[str, str] = answer.json()
            return got

        pages = {
            "desk": f"{gateway.url}/",
            "message": links.answer_url(MESSAGE, until_us),
            "visit": links.visit_url(*policed.TRAP),
            "join": f"{gateway.url}/join/{made('invitations', group='farmers')['code']}",
            "push": links.push_url(ids[0], until_us),
            "family": links.family_url(policed.HANA, ids[0], until_us),
            "helper": links.search_url(policed.CASE, ids[0], until_us),
            "consent": links.consent_url(policed.HANA, ids[0], until_us),
            "label": links.label_url(labels.shown(ids[1])),
            "slip": f"{gateway.url}/labels/{labels.shown(ids[1])}",
            "reports": f"{gateway.url}/labels",
            "open data": f"{gateway.url}/open/",
            "account": f"{gateway.url}/account",
            "coming in": f"{gateway.url}/login",
            **{name: f"{gateway.url}/{name}" for name in ("map", "mimamori", "install")},
        }
        yield Town(gateway.url, officer, pages)


@pytest.fixture
def page(browser: Browser, town: Town) -> Iterator[Page]:
    """With an officer's session. In the end nothing had run, and nothing had been held back that tried to."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="ja-JP")
    name, _, value = town.officer["Cookie"].partition("=")
    context.add_cookies([{"name": name, "value": value, "url": town.url}])
    page, faults = context.new_page(), list[str]()
    page.on("dialog", lambda dialog: faults.append(f"ran: {dialog.message}"))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert faults == []


SHOWN = {"desk": PLACE, "message": WORDS, "visit": PLACE, "join": PLACE, "family": WORDS, "helper": WORDS, "consent": WORDS,
         "account": PLACE, "reports": WORDS}  # fmt: skip
"""Pages that show what somebody typed."""


def test_no_page_runs_what_somebody_typed(town: Town, page: Page) -> None:
    for name, url in town.pages.items():
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 200, (name, answer.text()[:300])
        if name in SHOWN:
            page.wait_for_function("words => document.body.innerText.includes(words)", arg=SHOWN[name][:30])
        for made in ("[onclick]", "[onerror]", "img[src='x']", "script:not([src])"):
            assert page.locator(made).count() == 0, (name, made)


def test_no_table_holds_a_formula(town: Town) -> None:
    with httpx.Client(base_url=town.url, headers=dict(town.officer), trust_env=False) as client:
        paths = [path for path in client.get("/api/v1/openapi.json").json()["paths"] if path.endswith(".csv")]
        assert {"/api/v1/export/visits.csv", "/api/v1/export/captures.csv", "/open/captures.csv"} <= set(paths)
        typed = 0
        for path in paths:
            answer = client.get(
                path, params={"area": "square", "until_us": 2**52, "from_us": 2**52 - 1} if "flow" in path else {}
            )
            assert answer.status_code == 200, (path, answer.text)
            cells = [cell for row in csv.reader(answer.content.decode("utf-8-sig").splitlines()) for cell in row]
            typed += sum("=cmd" in cell for cell in cells)
            assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
        assert typed > 0
