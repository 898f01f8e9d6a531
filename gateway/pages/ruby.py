"""Readings above their kanji, on pages in easy Japanese. Pure; only what stands between tags is touched.

The catalogues write a reading in brackets, 家（いえ）, and so it stays in messages, mails and attributes. On a page the same
characters become ruby, brackets and all, for browsers that show no ruby. `src/ruby.ts` of dashboards/web has the same rule.
"""

import re

WITH_READING = re.compile(r"((?:[0-9]+(?=[人日][㐀-鿿]*（(?!に[んち])))?[㐀-鿿々〆ヵヶ]+)（([ぁ-ゖー]+)）")
"""Kanji, then hiragana in brackets. A number belongs to them where both are read as one: 2人（ふたり）, but not 10人（にん）."""

_TAG = re.compile(r"(<(style|script|title|option|textarea|svg)\b.*?</\2>|<[^>]*>)", re.DOTALL)
"""A tag, or an element whose content is no text or may hold no other element."""


def with_ruby(html: str) -> str:
    """The page with `<ruby>` for each reading. `html` is whole and escaped, as a template with autoescape gives it."""
    parts, at = [], 0
    for tag in _TAG.finditer(html):
        parts += [_in_ruby(html[at : tag.start()]), tag[0]]
        at = tag.end()
    return "".join([*parts, _in_ruby(html[at:])])


def _in_ruby(text: str) -> str:
    return WITH_READING.sub(r"<ruby>\1<rp>（</rp><rt>\2</rt><rp>）</rp></ruby>", text)
