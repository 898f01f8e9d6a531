"""What is said around an alert: who goes, what a keypad offers, what is over; and that every sentence can be said at all."""

import re
from zoneinfo import ZoneInfo

import pytest

from gateway.notify.message import Answer, Kind, Language
from gateway.words import (
    LANGUAGES,
    acknowledged,
    buttons_for,
    call_office,
    keypad,
    lasting,
    not_taken,
    over,
    span,
    spoken,
    text,
    words,
)
from gateway.words.catalogue import PLACEHOLDER, ids, read_catalogue
from tests.gateway.town import HOUR_US, MINUTE_US, NOW_US

ZONE = ZoneInfo("Asia/Tokyo")
GIVEN = {"at": NOW_US, "clock": NOW_US, "day": NOW_US, "month": NOW_US, "span": MINUTE_US, "lasting": MINUTE_US, "people": 2,
         "number": 3.6, "names": ["田中", "鈴木"], "spoken": "北尾根 3番", None: "何か"}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("ja", "田中さんが行きます。あと1人必要です。"),
        ("ja-easy", "田中さんが 行（い）きます。あと 1人（ひとり） 必要（ひつよう）です。"),
        ("en", "田中 will go. 1 person more needed."),
    ],
)
def test_who_goes_and_how_many_more_are_needed(language: Language, said: str) -> None:
    assert words(language, "page.more", name="田中", needed=1, title="【わな作動】", where="北尾根").body == said


def test_near_a_trap_who_goes_is_told_not_to_be_alone() -> None:
    for kind, warned in (("trap", True), ("camera", False), (None, False)):
        said = words("ja", "page.going", kind=kind, zone=ZONE, name="田中", when=NOW_US, title="x")
        assert ("必ず2人以上で確認してください。" in said.body) is warned
        assert ("必ず2人以上で確認してください。" in acknowledged("going", "ja", kind)) is warned


def test_a_call_says_who_calls_what_happened_and_which_digit_means_what() -> None:
    said = "北尾根、3番のわなが動きました。"
    assert spoken("里山市", said, ("going", "cannot"), "ja") == (
        "里山市です。北尾根、3番のわなが動きました。行ける方は1を、行けない方は2を押してください。"
    )
    assert keypad(("with_her", "going", "search"), "en") == ("Press 1 if you are together, 2 if you can go, 3 to begin a search.")
    assert spoken("", said, (), "ja") == said


@pytest.mark.parametrize(
    ("kind", "message", "answers"),
    [
        ("trap", "alert", ["going", "cannot"]),
        ("trap", "result", ["done", "false_alarm", "cannot"]),
        ("watched", "alert", ["with_her", "going", "search"]),
        ("camera", "alert", ["animal", "no_animal", "bear"]),
        ("search", "alert", ["found", "search"]),
        ("search", "update", ["found", "search"]),
        ("search_help", "alert", ["going", "cannot"]),
        ("trap", "test", ["seen"]),
        ("trap", "over", []),
        ("trap", "digest", []),
        ("trap", "reply", []),
    ],
)
def test_each_message_offers_the_answers_that_fit_it(kind: str, message: Kind, answers: list[Answer]) -> None:
    for language in LANGUAGES:
        assert [button.answer for button in buttons_for(kind, message, language)] == answers


def test_a_button_says_what_going_means_here() -> None:
    assert [buttons_for("trap", "alert", "ja")[0].label, buttons_for("watched", "alert", "ja")[1].label] == [
        "行きます",
        "確認に行きます",
    ]


@pytest.mark.parametrize(
    ("language", "title", "body"),
    [
        ("ja", "（解除済み）題", "6月3日。この知らせはすでに終わっています。"),
        ("ja-easy", "（終（お）わりました）題", "6月3日。この お知（し）らせは もう 終（お）わりました。"),
        ("en", "(Over) 題", "6月3日. This is already over."),
    ],
)
def test_what_is_over_waits_for_nobody(language: Language, title: str, body: str) -> None:
    stop = "." if language == "en" else "。"
    assert over("題", f"6月3日{stop}{text(language, 'part.nobody_goes')}", language) == (title, body)


def test_why_an_answer_was_not_taken() -> None:
    assert not_taken("closed", "ja") == "この知らせはすでに終わっています。返事はもう要りません。"
    assert not_taken("never heard of", "en") == "There is no such message."


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(0, "1分"), (1.9, "1分"), (119, "119分"), (120, "2時間"), (71.9 * 60, "71時間"), (72 * 60, "3日"), (200 * 60, "8日")],
)
def test_a_duration_is_one_unit_rounded_down(minutes: float, said: str) -> None:
    assert span(int(minutes * MINUTE_US)) == said


@pytest.mark.parametrize(
    ("language", "minutes", "said"),
    [("ja", 45, "45分間"), ("ja", 27 * 60, "27時間"), ("ja", 80 * 60, "3日間"), ("ja-easy", 45, "45分間（ふんかん）"),
     ("ja-easy", 80 * 60, "3日間（みっかかん）"), ("en", 1, "1 minute"), ("en", 80 * 60, "3 days")],
)  # fmt: skip
def test_how_long(language: Language, minutes: int, said: str) -> None:
    assert lasting(minutes * MINUTE_US, language) == said


def test_a_time_without_its_zone_is_a_mistake_that_is_named() -> None:
    with pytest.raises(LookupError, match=r"page\.going\.body: when: a time needs its zone"):
        words("ja", "page.going", name="田中", when=NOW_US, title="x")
    with pytest.raises(LookupError, match=r"there are no words for 'page\.gone\.title'"):
        words("ja", "page.gone")


@pytest.mark.parametrize(
    ("hour", "ja", "en"), [(0, "午前0時12分", "12:12 am"), (12, "午後0時12分", "12:12 pm"), (23, "午後11時12分", "11:12 pm")]
)
def test_midnight_noon_and_late(hour: int, ja: str, en: str) -> None:
    when = NOW_US + (hour - 6) * HOUR_US
    said = [text(language, "screen.now", ZONE, when=when) for language in ("ja", "en")]
    assert (said[0], said[1]) == (f"今の状況（{ja}）", f"How it stands now ({en})")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_can_be_said_with_and_without_what_may_be_absent(language: Language) -> None:
    entries = {(entry.id if isinstance(entry.id, str) else entry.id[0]): entry for entry in read_catalogue(language) if entry.id}
    for id_ in sorted(ids()):
        form = entries[id_].string
        found = list(PLACEHOLDER.finditer(form if isinstance(form, str) else form[0]))  # type: ignore[index]
        needed = {one["fact"]: 1 if one["fact"] == "n" else GIVEN[one["kind"]] for one in found if not one["optional"]}
        every = {**needed, **{one["fact"]: "一文。" for one in found if one["optional"]}}
        for facts in (every, needed):
            said = text(language, id_, ZONE, **{"n": 1, **facts})
            assert said, id_
            assert not re.search(r"[{}]", said), id_
            if language == "en" and id_.endswith((".title", ".body", ".spoken")):
                assert not re.search(r"  | \.|^ | $", said), (id_, said)


@pytest.mark.parametrize(
    ("name", "ja", "easy", "en"),
    [
        ("", "市役所", "市役所（しやくしょ）", "the town office"),
        ("町役場", "町役場", "町役場（まちやくば）", "the town office"),
        ("村役場", "村役場", "村役場（むらやくば）", "the village office"),
        ("霧沢センター", "霧沢センター", "霧沢センター", "霧沢センター"),
    ],
)
def test_the_office_is_called_as_the_town_calls_it(name: str, ja: str, easy: str, en: str) -> None:
    call_office(name)
    try:
        assert words("ja", "page.nobody", where="北尾根").body == f"北尾根：連絡のつく人がいません。{ja}に引き継ぎました。"
        assert easy in words("ja-easy", "page.nobody", where="北尾根").body
        assert words("en", "page.nobody", where="Kitaone").body == f"Kitaone: nobody can be reached. It was handed to {en}."
        assert "（" not in text("ja-easy", "voice.not_kept"), "a voice would say the reading twice"
    finally:
        call_office("")


def test_a_name_that_was_entered_with_its_title_gets_no_other() -> None:
    assert text("ja", "part.tag_of", name="ハナ") == text("ja", "part.tag_of", name="ハナさん") == "ハナさんのタグ"
    assert text("ja", "part.tag_of", name="ハナちゃん") == "ハナちゃんのタグ"
    assert text("en", "part.tag_of", name="Hana") == "Hana's tag"
