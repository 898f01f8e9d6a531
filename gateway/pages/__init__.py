"""Pages of the gateway for people without a login: Jinja templates, one style, no script. What they say stands in the catalogues.

Every page is one file of at most 30 KB, so that it opens over a thin link on a mountain: the style stands inside, allowed by
its hash.
A template says its words by `say("screen.now", when=...)`. In easy Japanese readings stand above their kanji (ruby.py).
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Callable
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gateway.notify.message import Language
from gateway.pages.ruby import with_ruby
from gateway.words import LANGUAGES, text

_STYLE = (importlib.resources.files("gateway.pages") / "pages.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}

_templates = Environment(
    loader=PackageLoader("gateway.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(
    template: str, language: Language, zone: ZoneInfo, *, status: int = 200, switch: bool = False, **facts: Any
) -> Response:
    """The page as an answer. `say` writes words in `language`, times as they are in `zone`.

    `switch`: it offers the other languages, as links to itself with `?lang=`; then its route takes the language from there.
    """
    say: Callable[..., str] = partial(text, language, zone=zone)
    page = _templates.get_template(template).render(
        say=say,
        lang="en" if language == "en" else "ja",
        reads=language,
        others=[(one, text(one, "screen.join_called")) for one in LANGUAGES if switch and one != language],
        style=Markup(_STYLE),  # noqa: S704 - our own file
        **facts,
    )
    return Response(with_ruby(page) if language == "ja-easy" else page, status, HEADERS, "text/html; charset=utf-8")


def language_of(accept: str | None) -> Language:
    """Of a reader of whom nothing is known but their browser's `Accept-Language`: Japanese, unless it asks for something else."""
    for one in (accept or "ja").lower().split(","):
        if one.strip().startswith("ja"):
            return "ja"
        if one.strip().startswith("en"):
            return "en"
    return "en"
