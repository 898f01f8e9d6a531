"""The simulated phone: keeps what came, shows what a person would see, misbehaves on demand."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.phone import Phone, clock_words

SPRUNG: dict[str, Any] = {
    "id": "n-1",
    "alert": "a-1",
    "kind": "firing",
    "severity": "critical",
    "title": "【わな作動】北尾根 3番",
    "body": "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
    "late": False,
}
AT_US = 1_780_434_725_000_000  # 2026-06-03 06:12:05 in Japan


@pytest.fixture
def phone() -> Iterator[Phone]:
    with Phone(now_us=lambda: AT_US) as opened:
        yield opened


def post(phone: Phone, message: object = SPRUNG, **headers: str) -> int:
    return httpx.post(phone.url, json=message, headers=headers, timeout=10, trust_env=False).status_code


def page(phone: Phone) -> str:
    return httpx.get(phone.url, timeout=10, trust_env=False).text


def test_a_message_is_kept_with_its_time_key_and_answer(phone: Phone) -> None:
    assert post(phone, **{"Idempotency-Key": "k-1"}) == 200
    (one,) = phone.received
    assert one.message == SPRUNG
    assert (one.at_us, one.key, one.answer, one.id) == (AT_US, "k-1", 200, "n-1")


def test_messages_keep_their_order(phone: Phone) -> None:
    for number in range(10):
        post(phone, {"id": f"n-{number}"})
    assert [one.id for one in phone.received] == [f"n-{number}" for number in range(10)]


def test_many_senders_at_once_lose_nothing(phone: Phone) -> None:
    with ThreadPoolExecutor(8) as senders:
        assert set(senders.map(lambda number: post(phone, {"id": f"n-{number}"}), range(40))) == {200}
    assert sorted(phone.times()) == sorted(f"n-{number}" for number in range(40))


def test_who_is_woken_twice_is_counted(phone: Phone) -> None:
    post(phone)
    post(phone, {"id": "n-2"})
    post(phone)
    assert phone.times() == {"n-1": 2, "n-2": 1}
    assert [one.id for one in phone.seen()] == ["n-1", "n-2"]


def test_without_an_id_the_idempotency_key_tells_what_is_the_same(phone: Phone) -> None:
    for _ in range(2):
        post(phone, {"title": "x"}, **{"Idempotency-Key": "k-7"})
    assert phone.times() == {"k-7": 2}


def test_a_refused_message_was_not_seen_and_may_come_again(phone: Phone) -> None:
    phone.answer(503)
    assert post(phone) == 503
    phone.answer(200)
    assert post(phone) == 200
    assert [one.answer for one in phone.received] == [503, 200]
    assert phone.times() == {"n-1": 1}


@pytest.mark.parametrize("misbehave", ["drop", "garbage"])
def test_a_message_whose_answer_never_came_was_seen_all_the_same(phone: Phone, misbehave: str) -> None:
    getattr(phone, misbehave)()
    with pytest.raises(httpx.RemoteProtocolError):
        post(phone)
    phone.answer(200)
    post(phone)
    assert [one.answer for one in phone.received] == [None, 200]
    assert phone.times() == {"n-1": 2}


def test_a_slow_phone_has_the_message_before_it_answers(phone: Phone) -> None:
    phone.slow(30)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(phone.url, json=SPRUNG, timeout=0.2, trust_env=False)
    assert [one.id for one in phone.wait_for(len)] == ["n-1"]


def test_a_phone_out_of_reach_refuses_and_comes_back_under_its_number(phone: Phone) -> None:
    url = phone.url
    phone.refuse()
    with pytest.raises(httpx.ConnectError):
        post(phone)
    phone.answer(200)
    assert phone.url == url
    assert post(phone) == 200


def test_waiting_in_vain_says_what_did_come(phone: Phone) -> None:
    post(phone)
    with pytest.raises(TimeoutError, match=r"in vain; \(id, answer\) came: \[\('n-1', 200\)\]"):
        phone.wait_for(lambda received: len(received) > 1, timeout_s=0.01)


@pytest.mark.parametrize(
    ("content", "status"), [(b"not json", 400), (b"[1]", 400), (b"[" * 100_000, 400), (bytes(1024 * 1024 + 1), 413)]
)
def test_what_is_no_notification_is_refused_with_a_reason(phone: Phone, content: bytes, status: int) -> None:
    answer = httpx.post(phone.url, content=content, timeout=10, trust_env=False)
    assert answer.status_code == status
    assert answer.text
    assert phone.received == ()


def test_a_body_without_a_length_is_refused(phone: Phone) -> None:
    answer = httpx.post(phone.url, content=iter([b"{}"]), timeout=10, trust_env=False)
    assert answer.status_code == 411


def test_any_body_is_answered_and_a_good_one_is_taken_after_it() -> None:
    with Phone() as phone, httpx.Client(timeout=10, trust_env=False) as client:

        @given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
        @settings(max_examples=60, deadline=None)
        def body(content: bytes) -> None:
            assert client.post(phone.url, content=content).status_code in {200, 400}
            before = len(phone.received)
            assert client.post(phone.url, json={"id": "n"}).status_code == 200
            assert len(phone.received) == before + 1

        body()


# --- the page ---------------------------------------------------------------------------------------


def test_an_empty_phone_says_so(phone: Phone) -> None:
    assert "まだ何も届いていません。" in page(phone)


def test_the_page_shows_what_a_person_would_see_the_newest_first(phone: Phone) -> None:
    post(phone)
    post(phone, {"id": "n-2", "severity": "info", "title": "田中さんが向かっています", "late": True})
    shown = page(phone)
    for text in (SPRUNG["title"], SPRUNG["body"], "緊急", "遅れて届きました", "6月3日 午前6時12分 に届きました"):
        assert text in shown
    assert shown.index("田中さん") < shown.index("わな作動")
    assert 'lang="ja"' in shown
    assert 'http-equiv="refresh"' in shown


def test_the_page_shows_a_repeat_once_and_counts_it(phone: Phone) -> None:
    post(phone)
    post(phone)
    shown = page(phone)
    assert shown.count("わな作動") == 1
    assert "同じ知らせが2回届きました" in shown


def test_the_page_does_not_show_what_was_refused(phone: Phone) -> None:
    phone.answer(500)
    post(phone)
    assert "わな作動" not in page(phone)


def test_text_can_not_become_markup(phone: Phone) -> None:
    post(phone, {"id": "<i>", "title": "<script>alert(1)</script>", "body": '"><img src=x>', "severity": "<b>"})
    shown = page(phone)
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown


def test_other_pages_are_not_there(phone: Phone) -> None:
    assert httpx.get(phone.url + "etc", timeout=10, trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("t_us", "words"),
    [
        (AT_US, "6月3日 午前6時12分"),
        (AT_US + 8 * 3_600_000_000, "6月3日 午後2時12分"),
        (AT_US + 6 * 3_600_000_000, "6月3日 午後0時12分"),
        (AT_US - 6 * 3_600_000_000, "6月3日 午前0時12分"),
    ],
)
def test_times_are_said_as_people_say_them(t_us: int, words: str) -> None:
    assert clock_words(t_us) == words
