"""Readings above their kanji on the gateway's own pages: what becomes ruby, and that nothing else changes."""

import re
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.pages import render
from gateway.pages.ruby import with_ruby

ZONE = ZoneInfo("Asia/Tokyo")
IN_RUBY = re.compile(r"<ruby>([^<]+)<rp>（</rp><rt>([^<]+)</rt><rp>）</rp></ruby>")


def read(base: str, reading: str) -> str:
    return f"<ruby>{base}<rp>（</rp><rt>{reading}</rt><rp>）</rp></ruby>"


def test_kanji_with_their_reading_in_brackets_become_ruby() -> None:
    assert with_ruby("<p>家（いえ）を 出（で）た</p>") == f"<p>{read('家', 'いえ')}を {read('出', 'で')}た</p>"
    assert with_ruby("お知（し）らせ") == f"お{read('知', 'し')}らせ"


@pytest.mark.parametrize(
    ("said", "base", "reading"),
    [("2人（ふたり）", "2人", "ふたり"), ("6月3日（みっか）", "3日", "みっか"), ("12人（にん）", "人", "にん"),
     ("15日（にち）", "日", "にち"), ("1日中（いちにちじゅう）", "1日中", "いちにちじゅう"),
     ("26時間（じかん）", "時間", "じかん")],
)  # fmt: skip
def test_a_number_is_read_together_with_its_counter_only_where_the_reading_holds_both(said: str, base: str, reading: str) -> None:
    assert read(base, reading) in with_ruby(said)


@pytest.mark.parametrize(
    "said",
    [
        "わな（1台）",
        "写真（2枚）",
        "送りました（とどいたかは わかりません）",
        "家（house）",
        "家(いえ)",
        "（いえ）",
        "家（）",
        "家 （いえ）",
    ],
)
def test_other_brackets_stay_as_they_are(said: str) -> None:
    assert with_ruby(said) == said


@pytest.mark.parametrize(
    "html",
    ['<input placeholder="名前（なまえ）">', "<title>町（まち）</title>", "<option value=1>町（まち）</option>",
     "<textarea>町（まち）</textarea>", "<style>町（まち）{}</style>", "<svg><text>町（まち）</text></svg>"],
)  # fmt: skip
def test_what_may_hold_no_element_keeps_its_brackets(html: str) -> None:
    assert with_ruby(html) == html


@given(st.text(alphabet=st.sampled_from("町家々人日3 aいえー（）()&;<>「\n"), max_size=60))
@example("家（いえ）（いえ）")
def test_nothing_is_lost_and_nothing_added_but_ruby(said: str) -> None:
    escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    made = with_ruby(escaped)
    assert IN_RUBY.sub(r"\1（\2）", made) == escaped
    assert re.findall(r"<(?!/?(?:ruby|rp|rt)>)", made) == []


def test_a_page_shows_readings_in_easy_japanese_only_and_never_makes_html_of_what_somebody_wrote() -> None:
    wrote = "<b>田中（たなか）</b>"
    easy = bytes(render("problem.html", "ja-easy", ZONE, title=wrote, body="家（いえ）", phone=None).body).decode()
    assert f"<p>{read('家', 'いえ')}</p>" in easy
    assert f"&lt;b&gt;{read('田中', 'たなか')}&lt;/b&gt;" in easy
    assert "<title>&lt;b&gt;田中（たなか）&lt;/b&gt;</title>" in easy
    plain = bytes(render("problem.html", "ja", ZONE, title=wrote, body="家（いえ）", phone=None).body).decode()
    assert "<ruby>" not in plain
    assert "家（いえ）" in plain
