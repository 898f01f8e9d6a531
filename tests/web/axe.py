"""What axe-core finds against WCAG 2.2 AA on a page as it stands: the rules of its maker, run inside the page."""

import json
from pathlib import Path

from playwright.sync_api import Page, expect

WEB = Path(__file__).parents[2] / "dashboards" / "web"
SOURCE = WEB / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LANGUAGES = ("ja", "ja-easy", "en")
_RUN = """async (tags) => {
  const found = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  const said = (one, node) => `${one.id}: ${one.help}: ${node.target} ${node.html.slice(0, 120)}`;
  return found.violations.flatMap((one) => one.nodes.map((node) => said(one, node)));
}"""


def has_its_values(page: Page, language: str) -> None:
    """Waits until no part of /map says that it still asks."""
    words = json.loads((WEB / "src" / "words" / f"map.{language}.json").read_text(encoding="utf-8"))
    for waiting in ("web_all.asking", "web_map.loading"):
        expect(page.get_by_text(words[waiting], exact=True)).to_have_count(0)


def violations(page: Page) -> list[str]:
    """One line for each place; empty is what is wanted. The script comes in past the page's own policy, as a debugger's does."""
    page.evaluate(SOURCE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(_RUN, TAGS)
    return found
