"""A real browser before a real gateway: Chromium, a loopback server, and a wire between them that can break."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gateway.api.app import create_app
from gateway.api.built import lacking
from gateway.api.server import serve
from gateway.deployments import Deployment, Deployments
from gateway.state import tables
from tests.gateway.api.conftest import MINUTE_US, NOW_US, TOKENS, Gateway, gateway
from tests.services import REQUIRE, require_binary
from tests.wire import Wire, in_thread

__all__ = ["gateway"]

SCREENSHOTS = Path("build/screenshots")
OPERATOR = next(token for token, actor in TOKENS.items() if "operator" in actor.roles)
VIEWER = next(token for token, actor in TOKENS.items() if "viewer" in actor.roles)
NODE = next(token for token, actor in TOKENS.items() if "node" in actor.roles)

HOUR_US = 60 * MINUTE_US
PLACES = [
    Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番"),
    Deployment(node="kitayama-03", device="trap-12", kind="trap", place="北尾根", label="4番"),
    Deployment(node="kitayama-03", device="cam-02", kind="camera", place="沢口", label="カメラ"),
    Deployment(node="sawaguchi-01", device="trap-21", kind="trap", place="沢口の林道入口から二つめの曲がり角", label="1番"),
    Deployment(node="kominkan-01", device="tags-01", kind="tags", place="中央公民館", label="受信機"),
    Deployment(node="hashi-01", device="flow-01", kind="flow", place="観音橋", label="東側"),
]


@dataclass
class Town:
    """A gateway with a small town in it, and how a page reaches it."""

    gateway: Gateway
    wire: Wire
    url: str

    def now_us(self) -> int:
        """The gateway's clock."""
        return self.gateway.deps.now_us()

    def fire(self, **values: Any) -> None:
        """An alert is written and said, as the pipeline does."""
        row = {"since_us": self.now_us(), "fired_us": self.now_us(), "acknowledged_us": None, "acknowledged_by": None,
               "resolved_us": None, "id": "a-new", "rule": "sprung", "kind": "trap", "severity": "critical",
               "node": "kitayama-03", "device": "trap-11", "opening": "new", "state": "firing", "late": False,
               "summary": "trap_sprung", "version": 1, "facts": "{}", "count": 1, "shelved_until_us": None,
               "suppressed_by": None, **values}  # fmt: skip
        self.gateway.insert(tables.alerts, **row)
        self.gateway.deps.feed.say("alert", row)

    def read(self, device: str, metric: str, value: float) -> None:
        """A reading arrives and is said."""
        node = next(one.node for one in PLACES if one.device == device)
        now_us = self.now_us()
        row = {"node": node, "device": device, "metric": metric, "value": value, "time_us": now_us, "received_us": now_us}
        self.gateway.deps.feed.say("latest", {"rows": [row]})


def settle(gateway: Gateway) -> None:
    """What is known of the town when the page is opened."""
    for node, online, reason in (
        ("kitayama-03", True, None),
        ("sawaguchi-01", True, None),
        ("kominkan-01", False, "lost"),
        ("hashi-01", True, None),
    ):
        gateway.insert(tables.nodes, node=node, online=online, offline_reason=reason)
    for one in PLACES:
        gateway.insert(tables.devices, node=one.node, device=one.device, kind=one.kind)
    for device, metric, value, age_us in (
        ("trap-11", "trap_closed", 0, 3 * MINUTE_US),
        ("trap-11", "battery_voltage", 12.43, 3 * MINUTE_US),
        ("trap-12", "trap_closed", 1, 2 * MINUTE_US),
        ("trap-21", "trap_closed", 0, 26 * HOUR_US),
        ("tags-01", "tags_near", 4, 2 * MINUTE_US),
        ("flow-01", "count_in", 1843, 4_000_000),
        ("flow-01", "count_out", 1790, 4_000_000),
        ("flow-01", "heartbeat", 93_784, 4_000_000),
    ):
        node = next(one.node for one in PLACES if one.device == device)
        heard_us = NOW_US - age_us
        gateway.insert(
            tables.latest, node=node, device=device, metric=metric, value=value, time_us=heard_us, received_us=heard_us
        )
    gateway.insert(tables.alerts, device="trap-12", since_us=NOW_US - 2 * MINUTE_US, fired_us=NOW_US - 2 * MINUTE_US)
    gateway.insert(
        tables.alerts, id="a-2", opening="2", rule="silent", severity="warning", node="sawaguchi-01", device="trap-21",
        summary="no heartbeat for 26h", state="acknowledged", acknowledged_by="田中", acknowledged_us=NOW_US - HOUR_US,
        since_us=NOW_US - 2 * HOUR_US,
    )  # fmt: skip


@pytest.fixture
def town(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Town]:
    """`@pytest.mark.parametrize("town", [{...}], indirect=True)` changes the deps."""
    began = time.monotonic_ns()
    changed = {"deployments": Deployments(PLACES), **getattr(request, "param", {})}
    gateway.deps = replace(gateway.deps, now_us=lambda: NOW_US + (time.monotonic_ns() - began) // 1000, heartbeat_s=1, **changed)
    settle(gateway)
    with in_thread(serve(create_app(gateway.deps), "127.0.0.1", 0)) as port, in_thread(Wire(port)) as wire:
        yield Town(gateway, wire, f"http://127.0.0.1:{wire.near_port}/")


@pytest.fixture
def built_pages() -> None:
    """For files that test the pages of dashboards/web: without them the test is skipped, or fails where services are required."""
    if lacking():
        said = "the pages are not built, so what this test promises is NOT CHECKED: run `make web`"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)


@pytest.fixture(scope="module")  # no longer: while it lives, Playwright runs an event loop in the tests' own thread
def browser() -> Iterator[Browser]:
    chromium = require_binary("chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Window:
    """A browser window, and what went wrong in it."""

    page: Page
    faults: list[str]
    name: str

    def shoot(self, what: str) -> None:
        """Keeps a picture of what is in sight, for people to look at. Of the whole page it would resize the window meanwhile."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{what}-{self.name}.png")


@pytest.fixture(params=["phone", "desktop"])
def window(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Window]:
    phone = request.param == "phone"
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
        device_scale_factor=2 if phone else 1,
        has_touch=phone,
        locale="ja-JP",
        timezone_id="Europe/Paris",  # the town's clock counts, not the reader's
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    yield Window(page, faults, request.param)
    context.close()
    assert faults == []


@pytest.fixture
def desktop(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="ja-JP")
    yield context.new_page()
    context.close()
