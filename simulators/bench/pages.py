"""When a page says something: /install, /mimamori and /map in Chromium on a slow phone's terms, beside the same without them.

The terms are Lighthouse's for phones: a processor four times slower and "Slow 4G", 150 ms, 1.6 Mbit/s down, 750 kbit/s up
(https://github.com/GoogleChrome/lighthouse/blob/main/docs/throttling.md). Chromium adds the 150 ms to each request, not to each
packet, so a handshake costs nothing here. The gateway is a process of its own on loopback, and each visit has an empty cache.

Three times from the start of the navigation: until anything with content is painted (First Contentful Paint), until the page's
script has put the page's own sentences in place of the HTML's, and the first again with no script let through, for the first
content must stand in the HTML itself.
"""

import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.bench.figures import Figure
from simulators.broker import nats
from simulators.phone import Phone
from simulators.town import Town
from simulators.world import World

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGES = ("/install", "/mimamori", "/map")
SLOWER = 4
"""Times that the processor is slower."""
SLOW_4G = {"offline": False, "latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = 60_000

_NOTE_OWN = """
window.satomoriOwn = new Promise((done) => {
  new MutationObserver((_, all) => {
    const page = document.getElementById("page");
    if (page === null || page.childElementCount === 0 || page.querySelector("noscript") !== null) return;
    all.disconnect();
    done(performance.now());
  }).observe(document, { childList: true, subtree: true });
});
"""
"""Only the HTML has a `noscript` in its place for content."""
_FIRST = """new Promise((done) => {
  new PerformanceObserver((all, me) => {
    const [one] = all.getEntriesByName("first-contentful-paint");
    if (one === undefined) return;
    me.disconnect();
    done(one.startTime);
  }).observe({ type: "paint", buffered: true });
})"""
_WITHIN = "Promise.race([%s, new Promise((_, fail) => setTimeout(() => fail(new Error('not within a minute')), 60000))])"


def lacking() -> str | None:
    """Why it can't be measured here; None: it can."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed; it is of the `dev` extra, which `make test` installs"
    if _chromium() is None:
        return "there is no Chromium in PATH; get it with: apt-get install chromium fonts-noto-cjk"
    return None


def measure(folder: Path, rounds: int) -> list[Figure]:
    """Milliseconds, a row for each page and time. RuntimeError where a page does not open, or says nothing without its script."""
    if (why := lacking()) is not None:
        raise RuntimeError(f"pages: {why}")
    from playwright.sync_api import Error, sync_playwright

    folder.mkdir(parents=True)
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (
        Phone() as phone,
        Town(folder / "town", nats(folder / "broker"), phone, World(1), nodes=0, rules={}) as town,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        try:
            for number in range(rounds + 1):
                for page in PAGES:
                    for slow in (False, True) if number % 2 == 0 else (True, False):
                        seen = _visit(browser, town.url + page, slow=slow, script=True)
                        seen |= {"bare": _visit(browser, town.url + page, slow=slow, script=False)["first"]}
                        for what, ms in seen.items() if number > 0 else ():  # the first round warms gateway and browser
                            took[page, f"{what} {'slow' if slow else 'fast'}"].append(ms)
        except Error as error:
            raise RuntimeError(f"pages: {error}") from error
        finally:
            browser.close()
    return [figure for page in PAGES for figure in _figures(page, {what: took[page, what] for of, what in took if of == page})]


def _figures(page: str, took: Mapping[str, list[float]]) -> list[Figure]:
    at_once = "on a desk, unthrottled"
    return [
        Figure(f"{page} first content, slow phone", "ms", took["first slow"], at_once, took["first fast"], less_is_better=True),
        Figure(f"{page} its own words, slow phone", "ms", took["own slow"], at_once, took["own fast"], less_is_better=True),
        Figure(f"{page} first content without script", "ms", took["bare slow"], at_once, took["bare fast"], less_is_better=True),
    ]


def _visit(browser: "Browser", url: str, *, slow: bool, script: bool) -> dict[str, float]:
    """`first` and, with its script, `own`, in ms since the navigation began. Its cache is its own, and empty."""
    context = browser.new_context(viewport=PHONE, device_scale_factor=2, locale="ja-JP")  # type: ignore[arg-type]  # a mapping will do
    try:
        page = context.new_page()
        wire = context.new_cdp_session(page)
        wire.send("Network.enable")
        if slow:
            wire.send("Network.emulateNetworkConditions", SLOW_4G)
            wire.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        if script:
            page.add_init_script(_NOTE_OWN)
        else:
            wire.send("Network.setBlockedURLs", {"urls": ["*.js"]})
        answer = page.goto(url, wait_until="load", timeout=PATIENCE_MS)
        if answer is None or not answer.ok:
            raise RuntimeError(f"{url}: {'no answer' if answer is None else answer.status}; without built pages run `make web`")
        first = float(page.evaluate(_WITHIN % _FIRST))
        if script:
            return {"first": first, "own": float(page.evaluate(_WITHIN % "window.satomoriOwn"))}
        if not page.locator("h1").inner_text(timeout=PATIENCE_MS).strip():
            raise RuntimeError(f"{url} says nothing before its script does")
        return {"first": first}
    finally:
        context.close()


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
