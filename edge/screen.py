"""What was found, as a person reads it: one screen of an old terminal, in Japanese or English, the worst first; or JSON.

Each finding says what is so and, unless it is good, what to do. No I/O but a look at the environment's language.
"""

import json
import os
from typing import Literal, NamedTuple
from unicodedata import east_asian_width

LANGUAGES = ("ja", "en")
LINES, COLUMNS = 24, 80


class Text(NamedTuple):
    """One sentence in both languages."""

    ja: str
    en: str


class Finding(NamedTuple):
    """One line of the screen. Bad is red: the node does not do its work; weak and unknown are for a person to judge."""

    what: str
    state: Literal["ok", "weak", "bad", "unknown"]
    said: Text
    do: Text | None = None
    setting: bool = False
    """Whether what is bad is a setting: `what` names it then, and the exit code is 2."""

    @property
    def is_bad(self) -> bool:
        """Whether it is red."""
        return self.state == "bad"


def language() -> str:
    """The person's, by the environment: Japanese when it says so, else English."""
    said = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
    return "ja" if said.startswith("ja") else "en"


_MARKS = {"ok": "OK", "weak": "! ", "bad": "NG", "unknown": "? "}
_ORDER = ("bad", "weak", "unknown", "ok")


def screen(found: list[Finding], language: str) -> str:
    """At most 24 lines of 80 columns, the worst first; what is good is counted where there is no room to name it."""
    lines: list[str] = []
    # An advice in full where there is room for all of them.
    fits = (most for most in (5, 4, 3) if sum(map(len, (_lines(one, language, most) for one in found))) < LINES)
    most = next(fits, 2)
    ordered = sorted(found, key=lambda one: _ORDER.index(one.state))
    for number, one in enumerate(ordered):
        own = _lines(one, language, most)
        rest = len(ordered) - number - 1
        if len(lines) + len(own) > LINES - (2 if rest else 1):  # the last line is the verdict, the one before may count the rest
            more = sum(other.state != "ok" for other in ordered[number:])
            lines.append(
                {"ja": f"… ほか{rest + 1}項目、うち要確認 {more}", "en": f"... and {rest + 1} more, {more} of them not good"}[
                    language
                ]
            )
            break
        lines += own
    return "\n".join([*lines, getattr(_verdict(found), language)])


def _verdict(found: list[Finding]) -> Text:
    """Nobody leaves before the gateway has answered."""
    if bad := sum(one.is_bad for one in found):
        return Text(f"直すところが {bad} か所あります", f"{bad} to be mended")
    if any(one.what == "gateway" and one.state == "unknown" for one in found):
        return Text("通信確認待ちです", "waiting for the gateway's answer")
    return Text("ここに設置できます", "good to go")


def _lines(one: Finding, language: str, most: int) -> list[str]:
    """What is so, and under it what to do about it in `most` lines."""
    lines = [_cut(f"{_MARKS[one.state]} {one.what}  {getattr(one.said, language)}", COLUMNS)]
    if one.do is not None:
        parts = _wrapped(getattr(one.do, language), COLUMNS - 6, most)
        lines += [("   → " if number == 0 else "     ") + part for number, part in enumerate(parts)]
    return lines


def as_json(found: list[Finding], language: str) -> str:
    """One object: whether nothing is bad, and all findings."""
    return json.dumps(
        {
            "ok": not any(one.is_bad for one in found),
            "findings": [
                {
                    "what": one.what, "state": one.state, "said": getattr(one.said, language),
                    "do": getattr(one.do, language) if one.do else None,
                }
                for one in found
            ],
        },
        ensure_ascii=False,
    )  # fmt: skip


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WFA" else 1 for character in text)


def _cut(text: str, columns: int) -> str:
    """The beginning, as far as it fits."""
    while _width(text) > columns:
        text = text[:-2] + "…"
    return text


def _wrapped(text: str, columns: int, most: int) -> list[str]:
    """In lines that fit: Japanese is broken anywhere, and no other word unless it is too long; the last one is cut."""
    text = " ".join(text.split())
    lines: list[str] = []
    while text and len(lines) < most - 1 and _width(text) > columns:
        end = next(end for end in range(len(text), 0, -1) if _width(text[:end]) <= columns)
        begins = end
        while begins > 0 and not (text[begins - 1].isspace() or text[begins].isspace() or _width(text[begins - 1]) == 2):
            begins -= 1
        end = begins if begins > columns // 4 else end
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, _cut(text, columns)]
