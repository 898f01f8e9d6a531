"""Web Push, against a push service that checks what a real one checks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.notify.message import Button, Link, Message
from gateway.notify.outcome import Delivered, Gone, Refused, Retry, Unknown
from gateway.notify.push import (
    MOST_BYTES,
    BadSubscription,
    Push,
    PushConfig,
    open_vapid,
    payload,
    read_subscription,
    retry_after_s,
    topic,
)
from simulators.push_service import PushService

NOW_US = 1_780_434_720_000_000
HOUR_US = 3_600_000_000
ID = "6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
OFFICE = "mailto:office@example.jp"


def sprung(**changed: Any) -> Message:
    return Message(
        **{
            "id": ID,
            "severity": "critical",
            "title": "【わな作動】北尾根 3番",
            "body": "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
            "buttons": (Button(answer="going", label="行きます"), Button(answer="cannot", label="行けません")),
            "links": (Link(label="地図", url="https://maps.example.jp/3"),),
            "answer_url": "https://gateway.example.jp/a/abc",
            **changed,
        }
    )


@dataclass
class Sender:
    """The channel with a key of its own, and the service that its messages go to."""

    service: PushService
    folder: Path
    now_us: int = NOW_US
    made: list[Push] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vapid = open_vapid(self.folder, OFFICE)
        self.channel = Push(PushConfig(contact=OFFICE, timeout_s=5, allow_loopback=True), self.vapid, lambda: self.now_us)
        self.to = self.service.subscribe("tanaka", self.vapid.public_key)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    with PushService(now_us=lambda: made.now_us) as service:
        made = Sender(service, tmp_path / "people")
        yield made
        made.channel.close()


def test_a_message_arrives_decrypted_with_its_buttons_and_the_page_to_answer(sender: Sender) -> None:
    assert isinstance(sender.channel.send(ID, sender.to, sprung()), Delivered)
    (shown,) = sender.service.seen("tanaka")
    assert (shown["title"], shown["body"]) == (
        "【わな作動】北尾根 3番",
        "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
    )
    assert [button["label"] for button in shown["buttons"]] == ["行きます", "行けません"]
    assert shown["answer_url"] == "https://gateway.example.jp/a/abc"


def test_the_service_learns_how_urgent_it_is_and_not_a_word_of_it(sender: Sender) -> None:
    sender.channel.send(ID, sender.to, sprung())
    (one,) = sender.service.pushed
    assert (one.headers["urgency"], one.headers["ttl"]) == ("high", "86400")
    assert "北尾根" not in json.dumps(one.headers, ensure_ascii=False)


def test_what_can_wait_says_so(sender: Sender) -> None:
    sender.channel.send(ID, sender.to, sprung(severity="info"))
    assert sender.service.pushed[0].headers["urgency"] == "low"


def test_a_repeated_attempt_rings_once(sender: Sender) -> None:
    for _ in range(2):
        sender.channel.send(ID, sender.to, sprung())
    assert len(sender.service.pushed) == 2
    assert sender.service.rang("tanaka") == [ID]


def test_a_repeated_attempt_to_a_phone_that_is_off_is_one_message(sender: Sender) -> None:
    sender.service.away("tanaka")
    for _ in range(2):
        sender.channel.send(ID, sender.to, sprung())
    sender.service.back("tanaka")
    assert sender.service.rang("tanaka") == [ID]


def test_another_message_has_another_topic() -> None:
    assert topic(ID) == topic(ID) != topic("other")
    assert len(topic(ID)) == 32


def test_a_subscription_that_ended_leads_nowhere(sender: Sender) -> None:
    sender.service.end("tanaka")
    assert isinstance(sender.channel.send(ID, sender.to, sprung()), Gone)


def test_a_subscription_that_nobody_knows_leads_nowhere(sender: Sender) -> None:
    assert isinstance(sender.channel.send(ID, sender.to.replace("/tanaka", "/nobody"), sprung()), Gone)


def test_a_service_that_takes_less_gets_a_shorter_message_once(sender: Sender) -> None:
    sender.service.take_at_most(2000)
    assert isinstance(sender.channel.send(ID, sender.to, sprung(body="あ" * 1200)), Delivered)
    assert [one.status for one in sender.service.pushed] == [413, 201]
    assert sender.service.seen("tanaka")[0]["body"].endswith("…")
    sender.service.take_at_most(100)
    assert isinstance(sender.channel.send(ID, sender.to, sprung()), Refused)


@pytest.mark.parametrize(
    ("status", "says", "after_s"), [(429, "120", 120.0), (503, "", None), (500, "soon", None), (429, "99999", 3600)]
)
def test_a_busy_or_broken_service_is_asked_again_when_it_wants(
    sender: Sender, status: int, says: str, after_s: float | None
) -> None:
    sender.service.answer(status, retry_after=says)
    assert sender.channel.send(ID, sender.to, sprung()) == Retry(f"answered {status}", after_s)


def test_retry_after_may_be_a_date() -> None:
    assert retry_after_s("Tue, 02 Jun 2026 21:14:00 GMT", NOW_US) == 120  # 21:12 is now
    assert retry_after_s("Tue, 02 Jun 2026 20:00:00 GMT", NOW_US) == 0


def test_a_service_out_of_reach_is_tried_again(sender: Sender) -> None:
    sender.service.refuse()
    assert isinstance(sender.channel.send(ID, sender.to, sprung()), Retry)


@pytest.mark.parametrize("misbehave", ["drop", "garbage"])
def test_a_message_whose_answer_never_came_may_have_arrived(sender: Sender, misbehave: str) -> None:
    getattr(sender.service, misbehave)()
    assert isinstance(sender.channel.send(ID, sender.to, sprung()), Unknown)
    assert sender.service.rang("tanaka") == [ID]


def test_a_slow_service_holds_a_thread_no_longer_than_the_timeout(sender: Sender) -> None:
    sender.service.slow(30)
    channel = Push(PushConfig(contact=OFFICE, timeout_s=0.2, allow_loopback=True), sender.vapid, lambda: NOW_US)
    assert isinstance(channel.send(ID, sender.to, sprung()), Unknown)
    channel.close()


def test_a_new_key_is_no_reason_to_give_subscriptions_up_but_says_what_to_look_at(sender: Sender, tmp_path: Path) -> None:
    other = Push(PushConfig(contact=OFFICE, allow_loopback=True), open_vapid(tmp_path / "other", OFFICE), lambda: NOW_US)
    outcome = other.send(ID, sender.to, sprung())
    other.close()
    assert outcome == Retry("answered 403: check people.folder/vapid.pem and this machine's clock")


def test_one_token_serves_for_hours_and_a_new_one_comes_before_its_end(sender: Sender) -> None:
    for later_us in (0, 10 * HOUR_US, 12 * HOUR_US):
        sender.now_us = NOW_US + later_us
        assert isinstance(sender.channel.send(ID, sender.to, sprung()), Delivered)
    first, second, third = (one.headers["authorization"] for one in sender.service.pushed)
    assert first == second != third


def test_a_clock_that_is_set_back_makes_a_new_token(sender: Sender) -> None:
    for earlier_us in (0, 30 * HOUR_US):
        sender.now_us = NOW_US - earlier_us
        assert isinstance(sender.channel.send(ID, sender.to, sprung()), Delivered)


@pytest.mark.parametrize(
    "endpoint",
    ["https://127.0.0.1/x", "https://169.254.169.254/latest", "http://push.example.jp/x", "https://[::1]/", "ftp://x/yyyyyyy"],
)
def test_a_subscription_never_leads_into_our_own_network(sender: Sender, endpoint: str) -> None:
    subscription = {**json.loads(sender.to), "endpoint": endpoint}
    strict = Push(PushConfig(contact=OFFICE), sender.vapid, lambda: NOW_US)
    assert isinstance(strict.send(ID, json.dumps(subscription), sprung()), (Refused, Gone))
    strict.close()


# --- The key ----------------------------------------------------------------------------------------


def test_the_key_is_made_once_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    first = open_vapid(folder, OFFICE)
    assert (folder / "vapid.pem").stat().st_mode & 0o777 == 0o600
    assert open_vapid(folder, OFFICE).public_key == first.public_key
    assert [path.name for path in folder.iterdir()] == ["vapid.pem"]


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "vapid.pem").write_text("nonsense")
    (tmp_path / "vapid.pem").chmod(0o600)
    with pytest.raises(ConfigError, match="no private key in PEM: restore it"):
        open_vapid(tmp_path, OFFICE)
    assert (tmp_path / "vapid.pem").read_text() == "nonsense"


@pytest.mark.parametrize("contact", ["office@example.jp", "mailto:office", "mailto: office@example.jp", "http://example.jp"])
def test_a_contact_that_no_service_takes_is_refused(contact: str) -> None:
    with pytest.raises(ValueError, match="is neither mailto:name@host nor https"):
        PushConfig(contact=contact)


# --- Whatever comes ---------------------------------------------------------------------------------


def test_a_subscription_is_stored_in_one_form(sender: Sender) -> None:
    given_ = json.loads(sender.to)
    swapped = json.dumps(dict(reversed(given_.items())))
    assert read_subscription(sender.to).address() == read_subscription(swapped).address()
    assert read_subscription(read_subscription(sender.to).address()) == read_subscription(sender.to)


@pytest.mark.parametrize(
    ("field_", "value", "why"),
    [
        ("auth", "AAAA" * 6, "keys.auth is not 16 bytes"),
        ("auth", "!" * 22, "keys.auth is not 16 bytes"),
        ("p256dh", "A" * 87, "keys.p256dh is no uncompressed point"),
        ("p256dh", "short", "keys.p256dh"),
    ],
)
def test_keys_that_no_browser_made_are_refused(sender: Sender, field_: str, value: str, why: str) -> None:
    subscription = json.loads(sender.to)
    subscription["keys"][field_] = value
    with pytest.raises(BadSubscription, match=why):
        read_subscription(json.dumps(subscription))


@given(
    st.binary(max_size=300)
    | st.text(max_size=300)
    | st.builds(json.dumps, st.recursive(st.none() | st.text(max_size=9), st.lists))
)
@settings(max_examples=200)
def test_any_bytes_are_a_subscription_or_refused(data: bytes | str) -> None:
    with pytest.raises(BadSubscription):
        read_subscription(data)


@given(st.text(max_size=6000), st.text(max_size=5000), st.integers(1000, MOST_BYTES))
@settings(max_examples=60, deadline=None)
def test_a_message_always_fits_and_is_json_with_its_page_to_answer(title: str, body: str, most: int) -> None:
    data = payload(ID, sprung(title=title, body=body), most)
    shown = json.loads(data)
    assert len(data) <= most
    assert shown["answer_url"] == "https://gateway.example.jp/a/abc"
    assert len(shown["buttons"]) == 2


@given(st.text(max_size=60))
def test_any_retry_after_is_a_pause_of_an_hour_at_most_or_none(text: str) -> None:
    after_s = retry_after_s(text, NOW_US)
    assert after_s is None or 0 <= after_s <= 3600
