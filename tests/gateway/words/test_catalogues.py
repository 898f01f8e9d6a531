"""Catalogues and code agree: no sentence is missing in a language, none is said by nobody, and none stands in the code."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from babel.messages.catalog import Message as Entry

import gateway
from gateway.api.page import FILES
from gateway.notify.links import KEY_FILE
from gateway.notify.message import Answer, Language
from gateway.policy import POLICY
from gateway.words.catalogue import LANGUAGES, PLACEHOLDER, ids, read_catalogue
from gateway.words.times import FORMATS

GATEWAY = Path(gateway.__file__).parent
FAMILIES = sorted({id_.partition(".")[0] for id_ in ids()})
LOOKS_LIKE_AN_ID = re.compile(rf"({'|'.join(FAMILIES)})(\.[a-z0-9_*-]+)+")
PARTS = ("title", "body", "spoken")
JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-鿿]")

MAY_SPEAK_JAPANESE = {
    "logs.py": "the words that stand before a place which no log may hold",
    "notify/mail.py": "a setting's default, and a subject for what can't be one",
    "contacts/config.py": "a setting's default",
    "keeping/cli.py": "the name of a Japanese form, in the help",
    "keeping/kinds.py": "what that form calls each kind",
    "keeping/register.py": "the form of the law itself, in Japanese only",
    "keeping/sign.py": "a printed sign in both languages at once",
    "open_data.py": "the names of animals, as open data has them in any language",
    "pages/ruby.py": "the rule that tells a reading from other brackets",
    "tiles.py": "whose map it is, as GSI wants it to be said in any language",
}
"""Files of the gateway that hold Japanese outside of the catalogues, and why."""


def entries(language: Language) -> dict[str, Entry]:
    return {key(entry): entry for entry in read_catalogue(language) if entry.id}


def key(entry: Entry) -> str:
    return entry.id if isinstance(entry.id, str) else entry.id[0]


def forms(entry: Entry) -> tuple[str, ...]:
    return (entry.string,) if isinstance(entry.string, str) else tuple(entry.string or ())


def placeholders(text: str) -> set[tuple[str, bool]]:
    return {(found["fact"], bool(found["optional"])) for found in PLACEHOLDER.finditer(text)}


# --- Among each other -------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_every_sentence_once_and_none_is_empty_or_doubtful(language: Language) -> None:
    text = (GATEWAY / "words" / "locale" / language / "messages.po").read_text(encoding="utf-8")
    times = Counter(re.findall(r'^msgid "(.+)"$', text, re.MULTILINE))
    assert [id_ for id_, count in times.items() if count > 1] == []
    found = entries(language)
    assert set(found) == ids()
    assert [id_ for id_, entry in found.items() if not all(form.strip() for form in forms(entry)) or not forms(entry)] == []
    assert [id_ for id_, entry in found.items() if entry.fuzzy] == []
    assert list(read_catalogue(language).obsolete) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_has_the_same_facts_in_every_language(language: Language) -> None:
    reference, found = entries("ja"), entries(language)
    for id_, entry in found.items():
        wanted = placeholders(forms(reference[id_])[0])
        for form in forms(entry):
            braces = re.sub(PLACEHOLDER, "", form)
            assert "{" not in braces, f"{language}: {id_}: a brace that is no placeholder"
            assert "}" not in braces, f"{language}: {id_}: a brace that is no placeholder"
            left_out = wanted - placeholders(form)
            assert placeholders(form) <= wanted, id_
            # A voice in easy Japanese may say less.
            assert left_out == set() or (id_.endswith(".spoken") and language == "ja-easy"), (id_, left_out)


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_written_in_a_way_that_exists(language: Language) -> None:
    for id_, entry in entries(language).items():
        for form in forms(entry):
            assert {found["kind"] for found in PLACEHOLDER.finditer(form)} <= {None, *FORMATS}, id_


@pytest.mark.parametrize("language", LANGUAGES)
def test_plurals_have_the_forms_of_their_language(language: Language) -> None:
    plural = {id_ for id_, entry in entries("ja").items() if not isinstance(entry.id, str)}
    for id_, entry in entries(language).items():
        assert len(forms(entry)) == (2 if id_ in plural and language == "en" else 1), id_
        assert (not isinstance(entry.id, str)) == (id_ in plural), id_


def test_every_moment_has_a_title_and_a_body() -> None:
    stems = {id_.rpartition(".")[0] for id_ in ids() if id_.endswith((".title", ".body", ".spoken"))}
    kinds = {stem for stem in stems if stem.count(".") == 2}  # page.going.trap: its title is page.going's
    assert {stem for stem in stems - kinds if not {f"{stem}.title", f"{stem}.body"} <= ids()} == set()
    assert {stem for stem in kinds if f"{stem.rpartition('.')[0]}.body" not in ids()} == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_buttons_and_links_fit_their_twenty_characters(language: Language) -> None:
    labels = {id_: forms(entry)[0] for id_, entry in entries(language).items() if id_.startswith(("button.", "link."))}
    assert {id_: label for id_, label in labels.items() if len(label) > 20} == {}


@pytest.mark.parametrize("answer", get_args(Answer))
def test_every_answer_has_its_button_its_digit_and_its_acknowledgement(answer: str) -> None:
    assert {f"button.{answer}", f"voice.choice.{answer}", f"answered.{answer}"} <= ids()


def test_easy_japanese_gives_the_reading_of_every_kanji() -> None:
    """Each run of kanji is followed by its reading in brackets, but in what a voice says, and in what people type."""
    for id_, entry in entries("ja-easy").items():
        if id_.endswith(".spoken") or id_.startswith(("voice.", "heard.")):
            continue
        bare = re.sub(r"[一-鿿々]+[0-9]*（[ぁ-んー]+）|[0-9]+[一-鿿]*（[ぁ-んー]+）", "", forms(entry)[0])
        assert re.findall(r"[一-鿿]+", bare) == [], f"{id_}: {forms(entry)[0]}"


def test_what_a_voice_says_has_no_signs() -> None:
    for language in LANGUAGES:
        for id_, entry in entries(language).items():
            if id_.endswith(".spoken"):
                assert re.findall(r"[【】〔〕（）()/・\n]", PLACEHOLDER.sub("", forms(entry)[0])) == [], id_


# --- With the code ----------------------------------------------------------------------------------


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    files = sorted(GATEWAY.rglob("*.py"))
    return [(file.relative_to(GATEWAY).as_posix(), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def literals(tree: ast.AST) -> Iterator[str]:
    """Strings of the code; in an f-string, `*` for what is put in. Not the docstrings."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents | inside:
            yield node.value


@functools.cache
def said_in_code() -> set[str]:
    other = frozenset(POLICY) | {name for name, _ in FILES.values()}
    found = {text for _, tree in sources() for text in literals(tree) if LOOKS_LIKE_AN_ID.fullmatch(text)}
    for page in (GATEWAY / "pages" / "templates").glob("*.html"):
        found |= set(re.findall(r"""say\(\s*["']([^"']+)["']""", page.read_text(encoding="utf-8")))
    web = GATEWAY.parent / "dashboards" / "web"
    for source in (*web.glob("*.html"), *(one for kind in ("ts", "svelte") for one in (web / "src").rglob(f"*.{kind}"))):
        if not source.name.endswith((".d.ts", ".test.ts")):
            found |= set(re.findall(r"web_[a-z_]+\.[a-z0-9_]+", source.read_text(encoding="utf-8")))
    return found - other - {KEY_FILE, "contact.*.secret_file"}  # a file, a setting


@functools.cache
def meant(said: str) -> set[str]:
    """The ids that a string in the code may stand for: itself, its title and so on, and what its `*` can be."""
    pattern = re.compile(re.escape(said).replace(r"\*", ".+") + rf"(\.[a-z_]+)?(\.({'|'.join(PARTS)}))?")
    return {id_ for id_ in ids() if pattern.fullmatch(id_)}


def test_whatever_the_code_says_stands_in_the_catalogues() -> None:
    assert {said for said in said_in_code() if not meant(said)} == set()


def test_whatever_stands_in_the_catalogues_is_said() -> None:
    said = set().union(*(meant(one) for one in said_in_code() if not one.startswith("*")))
    unsaid = {re.sub(r"\.(title|body|spoken)$", "", id_) for id_ in ids() - said}
    assert unsaid == set()


def test_no_sentence_stands_in_the_code() -> None:
    speaking = {}
    for name, tree in sources():
        described = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.keyword) and one.arg == "description"}
        documents = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
        speaking[name] = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and JAPANESE.search(node.value)
            and id(node) not in described | documents
        ]
    found = {name: said for name, said in speaking.items() if said and name not in MAY_SPEAK_JAPANESE}
    assert {name: said for name, said in found.items() if not name.startswith("words/")} == {}
