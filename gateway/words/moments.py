"""A moment's words: what `words` gives, and how the words of a kind of alert go before the general ones."""

from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.notify.message import Language
from gateway.words.catalogue import has, text


class Words(NamedTuple):
    """A message's text. `spoken` is empty where no voice is meant to say it otherwise than title and body."""

    title: str
    body: str
    spoken: str = ""


def words(language: Language, about: str, /, *, kind: str | None = None, zone: ZoneInfo | None = None, **facts: object) -> Words:
    """The words of a moment (`page.going`) with its facts. LookupError names what is missing.

    Facts are raw: times in UTC µs (then `zone` is needed), durations in µs, counts as numbers, names as they are. `kind` is an
    alert's kind: where the catalogue has `page.going.trap.body`, that goes before `page.going.body`.
    """

    def said(part: str) -> str:
        return text(language, special(f"{about}.{part}", kind), zone, **facts)

    return Words(said("title"), said("body"), said("spoken") if has(special(f"{about}.spoken", kind)) else "")


def special(id_: str, kind: str | None) -> str:
    """The id for that kind of alert where there is one, `page.going.trap.body`; else the id itself."""
    stem, _, part = id_.rpartition(".")
    own = f"{stem}.{kind}.{part}"
    return own if kind is not None and has(own) else id_


def without_waiting(body: str, language: Language) -> str:
    """A message's body without that nobody goes yet: where somebody does, or where it is over."""
    for waiting in ("part.nobody_goes", "part.nobody_looked"):
        body = body.removesuffix(text(language, waiting)).rstrip()
    return body


def over(title: str, body: str, language: Language = "ja") -> tuple[str, str]:
    """Title and body of the same message, where it is over before it could be delivered."""
    body = without_waiting(body, language)
    stop, gap = (".", " ") if language == "en" else ("。", "")
    if body and not body.endswith((stop, "」", ")")):
        body += stop
    return text(language, "page.over.title", title=title), f"{body}{gap}{text(language, 'page.over.body')}".strip()
