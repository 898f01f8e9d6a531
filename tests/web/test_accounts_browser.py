"""Coming in with a real browser and its own authenticator: a passkey is made, used, and its session ended from elsewhere."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.deployments import Deployments
from simulators.ports import free_port
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import Gateway, gateway
from tests.web.conftest import PLACES, settle
from tests.wire import in_thread

__all__ = ["gateway"]

pytestmark = pytest.mark.browser


@pytest.fixture
def house(gateway: Gateway, tmp_path: Path) -> Iterator[House]:
    port = free_port()
    gateway.deps = replace(gateway.deps, deployments=Deployments(PLACES), heartbeat_s=1)
    # A passkey belongs to a name; loopback's is the one that needs no TLS.
    made = House(gateway, tmp_path, f"http://localhost:{port}")
    settle(gateway)
    with in_thread(serve(create_app(gateway.deps), "127.0.0.1", port)):
        yield made


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="ja-JP")
    yield context
    context.close()


def opened(context: BrowserContext) -> tuple[Page, list[str]]:
    """A page whose browser has an authenticator, and what its policy forbade."""
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    wire = context.new_cdp_session(page)
    options: dict[str, Any] = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    wire.send("WebAuthn.enable")
    wire.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return page, faults


def test_a_passkey_is_made_used_and_its_session_ended_from_elsewhere(
    house: House, context: BrowserContext, browser: Browser
) -> None:
    account = house.staff("officer", "operator")
    page, faults = opened(context)

    page.goto(house.url + house.link(account))
    page.get_by_role("button", name="ログインする").click()
    expect(page).to_have_url(f"{house.url}/account")
    page.get_by_role("button", name="この端末のパスキーを作る").click()
    expect(page.get_by_role("heading", name="Linux, Chrome", exact=True)).to_be_visible()
    page.screenshot(path=shot("account"), full_page=True)

    page.get_by_label("名前").fill("役場のスマホ")
    page.get_by_role("button", name="名前を変える").click()
    expect(page.get_by_role("heading", name="役場のスマホ")).to_be_visible()

    page.get_by_role("button", name="ログアウト", exact=True).click()
    expect(page).to_have_url(f"{house.url}/login")
    page.screenshot(path=shot("login"), full_page=True)
    page.goto(f"{house.url}/account")
    expect(page).to_have_url(f"{house.url}/login")

    page.get_by_role("button", name="パスキーでログイン").click()
    expect(page).to_have_url(f"{house.url}/")
    expect(page.get_by_role("heading", name="機器の様子")).to_be_visible()
    expect(page.locator("#devices li")).to_have_count(len(PLACES))
    page.get_by_role("button", name="を確認しました").first.click()  # what changes something goes by the cookie too
    expect(page.get_by_text("田中さんが確認しました").first).to_be_visible()
    assert [cookie["name"] for cookie in context.cookies() if cookie["httpOnly"]] == ["satomori"]

    elsewhere = browser.new_context(locale="ja-JP")
    other = elsewhere.new_page()
    other.goto(house.url + house.link(account))
    other.get_by_role("button", name="ログインする").click()
    other.get_by_role("button", name="この端末をログアウトさせる").click()
    expect(other.get_by_role("button", name="この端末をログアウトさせる")).to_have_count(0)
    elsewhere.close()

    expect(page.get_by_role("link", name="パスキーやメールでログイン")).to_be_visible(timeout=15_000)
    expect(page.locator("#town")).to_be_hidden()
    assert faults == []


def test_a_browser_without_its_passkey_is_told_so_and_offered_the_other_ways(house: House, context: BrowserContext) -> None:
    page, faults = opened(context)
    page.goto(f"{house.url}/login")
    page.get_by_role("button", name="パスキーでログイン").click()
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("ログインできませんでした", timeout=15_000)

    page.get_by_label("メールアドレス").fill("hanako@example.jp")
    page.get_by_role("button", name="メールでリンクを受け取る").click()
    expect(page.get_by_role("heading", name="メールをご確認ください")).to_be_visible()
    assert faults == []


def test_without_scripts_a_link_still_lets_in_and_out(house: House, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False, locale="ja-JP")
    page = context.new_page()
    page.goto(house.url + house.link(house.staff("viewer", name="画面")))
    page.get_by_role("button", name="ログインする").click()
    expect(page.get_by_role("heading", name="画面", exact=True)).to_be_visible()
    page.get_by_role("button", name="ログアウト", exact=True).click()
    expect(page).to_have_url(f"{house.url}/login")
    context.close()


def shot(what: str) -> Path:
    folder = Path("build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{what}-phone.png"
