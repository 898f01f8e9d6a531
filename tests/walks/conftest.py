"""The walks: each person's first five minutes, in their own browser, before the running demo. Here is what they share.

One demo serves all walks of a worker, one after the other, so a walk may count neither on being first nor on being alone: the
town plays its scenes meanwhile. A demo that lost a record or stored one twice fails the last walk that used it.
"""

import html
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from simulators.town import beside_python
from tests.web.conftest import SCREENSHOTS, browser, built_pages

__all__ = ["browser", "built_pages"]

PICTURES = "SATOMORI_PICTURES"
"""`docs`: the pictures that docs/people.md shows are taken anew (`make pictures`)."""
MOST_BYTES = 200_000
START_S, END_S, LASTS_S = 180, 120, 900
SEEN_MS = 45_000
"""A page shows within this what has happened: much, because the machine may be busy."""
_ADDRESS = re.compile(r"the (guide|map|phones): +(http\S+)")
_FRAME = re.compile(r'<iframe title="([^"]+)" src="([^"]+)"')


class Demo:
    """The demo as who sits at the desk has it: `guide`, `map` (with the desk's token) and `phones` are the addresses it told."""

    def __init__(self) -> None:
        self._told, self._counted = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115 - until end()
        argv = [str(beside_python("satomori-sim")), "demo", "--quiet-people", "--json", "--for", str(LASTS_S), "--no-browser"]
        env = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"} | {"COLUMNS": "400"}
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._counted, stderr=self._told, env=env)
        deadline, found = time.monotonic() + START_S, dict[str, str]()
        while len(found) < 3:
            try:
                self._process.wait(0.2)  # the pause between two looks; ends early when the demo does
            except subprocess.TimeoutExpired:
                pass
            found = dict(_ADDRESS.findall(self._story()))
            if len(found) < 3 and (self._process.returncode is not None or time.monotonic() > deadline):
                self._process.kill()
                self._process.wait()
                with self._told, self._counted:
                    pytest.fail(f"the demo did not start within {START_S} s; it told:\n{self._story()[-4000:]}")
        self.guide, self.map, self.phones = (found[name] for name in ("guide", "map", "phones"))
        self.url, _, self.token = self.map.partition("/map#token=")

    def press(self, what: str) -> None:
        """Presses a button of the guide: `spring`, `set`, `bear`, `leave`, `home`, `crowd`, `silence` or `speak`."""
        said = httpx.post(f"{self.guide}do/{what}", headers={"Origin": self.guide.rstrip("/")}, timeout=30, trust_env=False)
        assert said.is_success, said.text

    def go(self, who: str) -> str:
        """Where this person comes in, and on to their page."""
        return f"{self.guide}go/{quote(who)}"

    def page_of(self, name: str) -> str:
        """The address of this person's phone."""
        shown = httpx.get(self.phones, timeout=30, trust_env=False).text
        return urljoin(self.phones, html.unescape(dict(_FRAME.findall(shown))[html.escape(name)]))

    def get(self, path: str) -> Any:
        """What the API says to the desk."""
        said = httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=30, trust_env=False)
        said.raise_for_status()
        return said.json()

    def end(self) -> None:
        """Ends it, and fails when a record was lost or stored twice."""
        self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        with self._told, self._counted:
            story = self._story()[-4000:]
            self._counted.seek(0)
            counted = json.loads(self._counted.read() or "{}")
        assert code == 0, f"the demo did not end well; it told:\n{story}"
        assert (counted["records_lost"], counted["duplicates_stored"]) == (0, 0)

    def _story(self) -> str:
        at = os.fstat(self._told.fileno()).st_size
        return os.pread(self._told.fileno(), at, 0).decode("utf-8", "replace")


_DEMO = pytest.StashKey[Demo]()


@pytest.fixture
def demo(request: pytest.FixtureRequest, built_pages: None) -> Demo:
    """Started by the first walk that wants it."""
    stash = request.session.stash
    if _DEMO not in stash:
        stash[_DEMO] = Demo()
    return stash[_DEMO]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the demo after this worker's last walk: ten processes of a town are no company for other tests."""
    walks = Path(__file__).parent
    if _DEMO in item.session.stash and (nextitem is None or walks not in nextitem.path.parents):
        demo = item.session.stash[_DEMO]
        del item.session.stash[_DEMO]
        demo.end()


@dataclass
class Person:
    """Somebody with a browser of their own, their own session in it."""

    name: str
    demo: Demo
    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    def opens(self, url: str) -> Page:
        """A new tab."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self.faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(url)
        return page

    def comes_in(self) -> Page:
        """By the link that the guide hands out; the page that is for them opens."""
        page = self.opens(self.demo.go(self.name))
        page.get_by_role("button", name="ログインする").click()
        expect(page).not_to_have_url(re.compile("/login"))
        return page

    def phone(self) -> Page:
        """Their own phone, as it shows the conversation."""
        return self.opens(self.demo.page_of(self.name))


def length(phone: Page) -> int:
    """How long the conversation on a LINE phone is by now: what comes is after this."""
    return phone.locator("article").count()


def message(phone: Page, text: str | re.Pattern[str], *, after: int = 0) -> Locator:
    """The newest message on a LINE phone that says this, of those after the first so many."""
    return phone.locator(f"article:nth-of-type(n + {after + 1}):not(.said)").filter(has_text=text).last


def until(ask: Callable[[], Any], what: str) -> Any:
    """What it gives once it gives something; fails when it does not within SEEN_MS."""
    deadline, pause = time.monotonic() + SEEN_MS / 1000, threading.Event()
    while (found := ask()) is None:
        if time.monotonic() > deadline:
            pytest.fail(f"not within {SEEN_MS / 1000:.0f} s: {what}")
        pause.wait(0.2)
    return found


def comes_of(demo: Demo, press: str, summary: str, *, after: str) -> Any:
    """The alert that comes of pressing this, after pressing `after` has ended all like it: two of a place are one, told once."""

    def alerts() -> list[Any]:
        said = demo.get("/api/v1/alerts?limit=1000")["alerts"]
        return [one for one in said if one["summary"].startswith(summary) and one["fired_us"]]

    demo.press(after)
    until(lambda: all(one["resolved_us"] for one in alerts()) or None, f"{after!r} ends every {summary!r}")
    known = {one["id"] for one in alerts()}
    demo.press(press)
    return until(lambda: next((one for one in alerts() if one["id"] not in known), None), f"a {summary!r} comes of {press!r}")


def shoot(page: Page, name: str, docs: str | None = None) -> None:
    """Keeps a picture of what is on the screen, for people to look at. `docs`: its name in docs/, where it is one to show."""
    page.mouse.move(0, 0)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"walk-{name}.png", animations="disabled")
    if docs is None or os.environ.get(PICTURES) != "docs":
        return
    picture = page.screenshot(path=f"docs/{docs}.png", animations="disabled", scale="css")
    assert len(picture) <= MOST_BYTES, f"docs/{docs}.png has {len(picture)} bytes; a page should not load more than {MOST_BYTES}"


@pytest.fixture
def person(demo: Demo, browser: Browser) -> Iterator[Callable[..., Person]]:
    """`person("田中")` has a phone of 390 x 844, `person("役場の係", desk=True)` a screen of 1280 x 800."""
    came: list[Person] = []
    expect.set_options(timeout=SEEN_MS)

    def comes(name: str, *, desk: bool = False, **more: Any) -> Person:
        size = {"width": 1280, "height": 800} if desk else {"width": 390, "height": 844}
        context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]  # a mapping is what it takes
            device_scale_factor=1 if desk else 2, has_touch=not desk, locale="ja-JP", **more,
        )  # fmt: skip
        came.append(Person(name, demo, context))
        return came[-1]

    yield comes
    expect.set_options(timeout=5_000)
    for one in came:
        one.context.close()
    assert [fault for one in came for fault in one.faults] == []
