"""The page that subscribes a browser, in a real one: its policy lets its own script work, and its worker shows what comes.

Chromium's own push service is elsewhere, so the subscription is the simulated service's, and the message is handed to the worker
as the browser itself would.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from gateway.api.app import create_app
from gateway.api.push import PushDoor
from gateway.api.server import serve
from gateway.contacts.people import add_address
from gateway.notify.message import Button, Message
from gateway.notify.push import open_vapid, payload
from simulators.push_service import PushService
from tests.gateway.api.conftest import Gateway, gateway
from tests.gateway.api.office import Office
from tests.gateway.api.test_push_page import HOUR_US, LINKS
from tests.wire import in_thread

__all__ = ["gateway"]

pytestmark = pytest.mark.browser


class Town:
    """A gateway with push messages on a loopback port, and a contact with the link of their page."""

    def __init__(self, gateway: Gateway, service: PushService, folder: Path) -> None:
        self.service, self.vapid = service, open_vapid(folder, "mailto:office@example.jp")
        self.office = Office(gateway, folder)
        self.contact = self.office.add(addresses=[])["id"]
        self.door = PushDoor(
            gateway.state, self.vapid.public_key, LINKS.read_contact, add_address, self.office.desk.proof.test,
            lambda: gateway.now_us, allow_loopback=True,
        )  # fmt: skip
        self.path = f"/push/{LINKS.contact_token(self.contact, gateway.now_us + HOUR_US)}"


@pytest.fixture
def town(gateway: Gateway, tmp_path: Path) -> Iterator[tuple[Town, str]]:
    with PushService(now_us=lambda: gateway.now_us) as service:
        made = Town(gateway, service, tmp_path)
        app = create_app(replace(gateway.deps, desk=made.office.desk, push=made.door))
        with in_thread(serve(app, "127.0.0.1", 0)) as port:
            yield made, f"http://127.0.0.1:{port}"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 360, "height": 740}, service_workers="allow")
    yield made
    made.close()


def opened(context: BrowserContext, town: Town, origin: str, *, subscribes: bool) -> tuple[Page, list[str]]:
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    subscription = json.loads(town.service.subscribe("x", town.vapid.public_key))
    gives = (
        f"Promise.resolve({{toJSON: () => ({json.dumps(subscription)})}})" if subscribes else "Promise.reject(new Error('no'))"
    )
    page.add_init_script(
        f"PushManager.prototype.subscribe = (wanted) => {{ window.asked = wanted.applicationServerKey.length; return {gives}; }};"
    )
    context.grant_permissions(["notifications"], origin=origin)
    page.goto(origin + town.path)
    return page, faults


def test_one_press_subscribes_and_the_worker_shows_the_message_with_its_page(
    town: tuple[Town, str], context: BrowserContext
) -> None:
    made, origin = town
    page, faults = opened(context, made, origin, subscribes=True)
    page.get_by_role("button", name="ここで受け取る").click()
    expect(page.get_by_role("status")).to_contain_text("登録しました")
    assert page.evaluate("window.asked") == 65
    assert made.office.tests() == [("push", "queued")]
    shown = hand_over(context, page, origin, _message(origin))
    assert [(one["title"], one["body"], one["tag"], one["url"]) for one in shown] == [
        ("【わな作動】北尾根 3番", "まだ誰も向かっていません。", "n-1", f"{origin}/a/x")
    ]
    assert faults == []


def test_a_page_of_elsewhere_is_not_opened_and_what_can_not_be_read_is_still_shown(
    town: tuple[Town, str], context: BrowserContext
) -> None:
    made, origin = town
    page, _ = opened(context, made, origin, subscribes=True)
    page.get_by_role("button", name="ここで受け取る").click()
    expect(page.get_by_role("status")).to_be_visible()
    elsewhere = _message(origin).model_copy(update={"answer_url": "https://elsewhere.example/a/x"})
    (first,) = hand_over(context, page, origin, elsewhere)
    assert first["url"] is None
    shown = hand_over(context, page, origin, "no json")
    assert {one["title"] for one in shown} == {"【わな作動】北尾根 3番", "里守り"}


def test_a_browser_that_can_not_says_so_and_the_button_stays(town: tuple[Town, str], context: BrowserContext) -> None:
    made, origin = town
    page, _ = opened(context, made, origin, subscribes=False)
    page.get_by_role("button", name="ここで受け取る").click()
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("登録できませんでした")
    expect(page.get_by_role("button", name="ここで受け取る")).to_be_enabled()
    assert made.office.tests() == []


def _message(origin: str) -> Message:
    return Message(
        id="n-1", severity="critical", title="【わな作動】北尾根 3番", body="まだ誰も向かっていません。",
        buttons=(Button(answer="going", label="行きます"),), answer_url=f"{origin}/a/x",
    )  # fmt: skip


def hand_over(context: BrowserContext, page: Page, origin: str, message: Message | str) -> list[dict[str, Any]]:
    """What is shown after the browser got this push message."""
    said = message if isinstance(message, str) else payload(message.id, message).decode()
    wire = context.new_cdp_session(page)
    registered: list[str] = []
    wire.on("ServiceWorker.workerRegistrationUpdated", lambda event: registered.extend(
        one["registrationId"] for one in event["registrations"]))  # fmt: skip
    wire.send("ServiceWorker.enable")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    wire.send("ServiceWorker.deliverPushMessage", {"origin": origin, "registrationId": registered[-1], "data": said})
    ask = """(text) => navigator.serviceWorker.ready.then((one) => one.getNotifications()).then((all) =>
        all.map((one) => ({title: one.title, body: one.body, tag: one.tag, url: one.data.url})))"""
    for _ in range(100):
        found: list[dict[str, Any]] = page.evaluate(ask, "")
        wanted = "里守り" if isinstance(message, str) else message.title
        if any(one["title"] == wanted for one in found):
            return found
        page.wait_for_timeout(50)
    raise AssertionError("nothing was shown")
