"""The catalogues: every sentence in every language, read from `locale/*/messages.po` when the language is first spoken. Nothing
here knows what is said.

Their ids are symbols (`alert.trap_sprung.title`), so a sentence may change in one language without the others noticing.
`{where}` stands for a fact, `{when:clock}` for one written by `gateway.words.times`, `{late?}` for one that may be absent. The
one fact that nobody has to give is `{office}`: what the town calls its office.
An entry with plural forms chooses by the fact `n`.
"""

import importlib.resources
import re
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from typing import NamedTuple, get_args
from zoneinfo import ZoneInfo

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from gateway.notify.message import Language
from gateway.words.times import FORMATS, Value, number

LANGUAGES: tuple[Language, ...] = get_args(Language)

PLACEHOLDER = re.compile(r"\{(?P<fact>[a-z_]+)(?::(?P<kind>[a-z]+))?(?P<optional>\?)?\}")


class Entry(NamedTuple):
    """One id in one language: its forms (one, unless it has a plural) and which of them fits a number."""

    forms: tuple[str, ...]
    form_for: Callable[[int], int]


def read_catalogue(language: Language) -> Catalog:
    """The catalogue as it stands in its file."""
    file = importlib.resources.files("gateway.words") / "locale" / language / "messages.po"
    return read_po(BytesIO(file.read_bytes()), abort_invalid=True)


@cache  # and not at import: what most commands print is in none of them, and to read all takes 90 ms
def _catalogue(language: Language) -> Mapping[str, Entry]:
    choose = _english if language == "en" else _always_first
    entries = {}
    for message in read_catalogue(language):
        if message.id:
            key = message.id if isinstance(message.id, str) else message.id[0]
            forms = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
            entries[key] = Entry(forms, choose)
    return entries


def _english(count: int) -> int:
    return 0 if count == 1 else 1


def _always_first(_: int) -> int:
    return 0


def has(id_: str) -> bool:
    """Whether there is such an id. The catalogues agree in that: a test holds them to it."""
    return id_ in _catalogue("ja")


def ids() -> frozenset[str]:
    """All of them."""
    return frozenset(_catalogue("ja"))


_OFFICES = ("city", "town", "village", "ward")
_office = {"name": ""}
"""What the office is called here: one for the process, as the catalogues are. Every page and message may speak of it."""


def call_office(name: str) -> None:
    """From now on `{office}` is this. One of 市役所, 町役場, 村役場 and 区役所 is said in each language; another as it is."""
    _office["name"] = name


def office_in(language: Language) -> str:
    """What the office is called."""
    name = _office["name"]
    known = {text("ja", f"office.{one}"): text(language, f"office.{one}") for one in _OFFICES}
    return known.get(name, name) or text(language, "office.city")


def text(language: Language, id_: str, /, zone: ZoneInfo | None = None, **facts: object) -> str:
    """The sentence with its facts. LookupError names the id and what is missing; `zone` is needed where a time is written."""
    entry = _catalogue(language).get(id_)
    if entry is None:
        raise LookupError(f"there are no words for {id_!r}")
    form = entry.forms[0]
    if len(entry.forms) > 1:
        count = facts.get("n")
        if not isinstance(count, int):
            raise LookupError(f"{id_}: its forms are chosen by the fact n, which is {count!r}")
        form = entry.forms[entry.form_for(count)]

    def written(found: re.Match[str]) -> str:
        fact = facts.get(found["fact"])
        if fact is None and found["fact"] == "office":
            fact = office_in(language)
        if fact is None:
            if found["optional"]:
                return ""
            raise LookupError(f"{id_}: the fact {found['fact']} is missing")
        if isinstance(fact, str) and found["kind"] not in ("names", "spoken"):
            return fact
        if found["kind"] is None:
            return number(fact, language) if isinstance(fact, int | float) and not isinstance(fact, bool) else str(fact)
        try:
            return FORMATS[found["kind"]](Value(fact, language, zone))
        except LookupError as error:
            raise LookupError(f"{id_}: {found['fact']}: {error}") from error

    said = PLACEHOLDER.sub(written, form)
    is_heard = language == "ja-easy" and id_.startswith("voice.")  # what stands in it may have its reading in brackets
    return _tidy(language, said, "spoken" if is_heard else id_.rpartition(".")[2])


def _tidy(language: Language, said: str, part: str) -> str:
    """Mends what facts do to a text: gaps that absent ones leave, small first letters, readings that a voice would say twice."""
    if part not in ("title", "body", "spoken"):
        return said
    if language == "en":
        said = re.sub(r" +(?=[ .,\n]|$)", "", said).lstrip(" ")
        return said[:1].upper() + said[1:]
    return re.sub(r"（[ぁ-んー]+）| ", "", said) if language == "ja-easy" and part == "spoken" else said
