"""The channel `line` against a LINE as strict as the real one: what arrives, and what each of its answers means."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.notify.line import Line, LineConfig, cut, outcome_of, postback, read_postback, retry_key, shaped
from gateway.notify.message import Button, Link, Message
from gateway.notify.outcome import Delivered, Gone, NoQuota, Refused, Retry
from gateway.notify.quota import Quota
from gateway.state import State, open_state
from simulators.line import LinePlatform, user_id
from simulators.line_rules import request_faults

NOW_US = 1_780_434_720_000_000  # 3 June 2026, 06:12 in Japan
SECOND_US = 1_000_000
TANAKA = user_id("田中")

SPRUNG = Message(
    id="7d3c2b1a-0000-4000-8000-000000000001",
    severity="critical",
    title="【わな作動】北尾根 3番",
    body="6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
    buttons=(Button(answer="going", label="行きます"), Button(answer="cannot", label="行けません")),
    links=(Link(label="地図", url="https://maps.example.jp/?q=1"), Link(label="電話する", url="tel:+815000000001")),
)


class Desk:
    """A channel to a simulated LINE; only the clock is the test's."""

    def __init__(self, folder: Path, state: State) -> None:
        self.now_us = NOW_US
        self.platform = LinePlatform(lambda _body, _headers: 200, limit=None, now_us=lambda: self.now_us)
        self.platform.__enter__()
        (folder / "secret").write_text(self.platform.secret + "\n")
        (folder / "secret").chmod(0o600)
        (folder / "token").write_text(self.platform.token + "\n")
        (folder / "token").chmod(0o600)
        self.config = LineConfig.model_validate(
            {
                "channel_secret_file": folder / "secret",
                "access_token_file": folder / "token",
                "url": self.platform.url,
                "timeout_s": 2,
            }
        )
        self.quota = Quota(state, "line", ZoneInfo("Asia/Tokyo"), 0.2, lambda *_: None)
        self.line = Line(self.config, self.quota, lambda: self.now_us)
        self.platform.follow("田中")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def desk(tmp_path: Path, state: State) -> Iterator[Desk]:
    made = Desk(tmp_path, state)
    yield made
    made.line.close()
    made.platform.__exit__()


def fresh(message: Message = SPRUNG, **changed: object) -> Message:
    return message.model_copy(update={"id": str(uuid.uuid4()), **changed})


# ---- what arrives ---------------------------------------------------------------------------------------


def test_a_page_arrives_with_its_buttons_and_links(desk: Desk) -> None:
    outcome = desk.line.send(SPRUNG.id, TANAKA, SPRUNG)
    (shown,) = desk.platform.phone("田中").messages
    assert outcome == Delivered(shown.id)
    assert (shown.how, shown.title, shown.body) == ("push", SPRUNG.title, SPRUNG.body)
    assert shown.labels == ["行きます", "行けません", "地図", "電話する"]
    assert [action.type for action in shown.actions] == ["postback", "postback", "uri", "uri"]
    assert read_postback(shown.actions[0].value) == ("going", SPRUNG.id)


def test_the_header_says_how_urgent_it_is_and_that_it_is_over(desk: Desk) -> None:
    for changed in ({}, {"severity": "info"}, {"over": True}, {"kind": "over"}):
        message = fresh(**changed)
        desk.line.send(message.id, TANAKA, message)
    colours = [one.colour for one in desk.platform.phone("田中").messages]
    assert len(set(colours)) == 3
    assert colours[2] == colours[3], "what is over is calm, also where it rang before"


def test_sent_again_under_the_same_id_it_is_seen_once(desk: Desk) -> None:
    first = desk.line.send(SPRUNG.id, TANAKA, SPRUNG)
    assert desk.line.send(SPRUNG.id, TANAKA, SPRUNG) == first
    assert desk.platform.times("田中") == {SPRUNG.id: 1}


@pytest.mark.parametrize("misbehave", ["drop", "garbage"])
def test_an_attempt_whose_answer_was_lost_is_repeated_and_seen_once(desk: Desk, misbehave: str) -> None:
    getattr(desk.platform, misbehave)()
    assert isinstance(desk.line.send(SPRUNG.id, TANAKA, SPRUNG), Retry)
    desk.platform.well()
    assert isinstance(desk.line.send(SPRUNG.id, TANAKA, SPRUNG), Delivered)
    assert desk.platform.times("田中") == {SPRUNG.id: 1}


def test_a_notification_whose_id_is_no_uuid_has_one_key_all_the_same() -> None:
    assert retry_key("n-1") == retry_key("n-1") != retry_key("n-2")
    assert str(uuid.UUID(retry_key("n-1"))) == retry_key("n-1")
    assert retry_key(SPRUNG.id) == SPRUNG.id


# ---- a conversation -------------------------------------------------------------------------------------


def answer_to(token: str, until_us: int = NOW_US + 50 * SECOND_US) -> Message:
    data = {"reply_token": token, "reply_until_us": until_us, "quick": [["今日", "留守 今日"]]}
    return Message.model_validate(
        {
            "id": str(uuid.uuid4()),
            "kind": "reply",
            "severity": "info",
            "title": "",
            "body": "いつまで留守にしますか。",
            "data": data,
        }
    )


def written(desk: Desk) -> str:
    """What the person's message can be answered with."""
    desk.platform.write("田中", "留守にします")
    return next(reversed(desk.platform._tokens))


def test_an_answer_within_a_minute_is_a_free_reply_in_plain_words(desk: Desk) -> None:
    assert isinstance(desk.line.send("", TANAKA, answer_to(written(desk))), Delivered)
    (shown,) = desk.platform.phone("田中").messages
    assert (shown.how, shown.body, shown.labels) == ("reply", "いつまで留守にしますか。", ["今日"])
    assert desk.platform.used == 0


def test_an_answer_that_comes_later_is_a_push(desk: Desk) -> None:
    message = answer_to(written(desk))
    desk.now_us += 50 * SECOND_US
    desk.line.send(message.id, TANAKA, message)
    assert [one.how for one in desk.platform.phone("田中").messages] == ["push"]


def test_a_reply_whose_answer_was_lost_is_not_said_twice(desk: Desk) -> None:
    message = answer_to(written(desk))
    desk.platform.drop()
    assert isinstance(desk.line.send(message.id, TANAKA, message), Retry)
    desk.platform.well()
    assert desk.line.send(message.id, TANAKA, message) == Delivered()
    assert len(desk.platform.phone("田中").messages) == 1


# ---- what an answer of LINE's means ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (409, '{"message": "The retry key is already accepted", "sentMessages": [{"id": "9"}]}', Delivered, ""),
        (429, '{"message": "You have reached your monthly limit."}', NoQuota, "monthly limit"),
        (429, '{"message": "The API rate limit has been exceeded. Try again later."}', Retry, "rate limit"),
        (401, '{"message": "Authentication failed"}', Retry, "check channel.line.access_token_file"),
        (403, '{"message": "Access to this API is not available"}', Retry, "check channel.line.access_token_file"),
        (404, "<html>", Retry, "check channel.line.url"),
        (302, "", Retry, "check channel.line.url"),
        (500, '{"message": "Error"}', Retry, "answered 500"),
        (503, "", Retry, "answered 503"),
        (413, "", Refused, "answered 413"),
        (400, '{"message": "The request body has 1 error(s)", "details": [{"message": "May not be empty", "property": "x.y"}]}',
         Refused, "x.y: May not be empty"),
        (400, '{"message": "Failed to send messages"}', Refused, "Failed to send"),
        (400, '{"message": "The property, \'to\', in the request body is invalid (line: -, column: -)"}', Gone,
         "another account"),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, body: str, kind: type, says: str) -> None:
    outcome = outcome_of(status, {}, body)
    assert isinstance(outcome, kind)
    assert says in getattr(outcome, "reason", "")


def test_a_reason_holds_nobodys_id() -> None:
    outcome = outcome_of(400, {}, f'{{"message": "no {TANAKA}"}}')
    assert isinstance(outcome, Refused)
    assert TANAKA not in outcome.reason


def test_how_long_to_wait_is_believed(desk: Desk) -> None:
    assert outcome_of(503, {"retry-after": "30"}, "") == Retry("LINE answered 503", 30.0)


@pytest.mark.parametrize(
    "misbehave",
    [LinePlatform.refuse, lambda line: line.answer(500), LinePlatform.rate_limited, LinePlatform.drop, LinePlatform.garbage],
    ids=["nobody there", "500", "429", "no answer", "garbage"],
)
def test_line_in_trouble_is_tried_again(desk: Desk, misbehave: Callable[[LinePlatform], None]) -> None:
    misbehave(desk.platform)
    assert isinstance(desk.line.send(SPRUNG.id, TANAKA, SPRUNG), Retry)


def test_line_that_takes_too_long_is_tried_again(desk: Desk) -> None:
    desk.platform.slow(30)
    config = desk.config.model_copy(update={"timeout_s": 0.2})
    hasty = Line(config, desk.quota, lambda: NOW_US)
    assert isinstance(hasty.send(SPRUNG.id, TANAKA, SPRUNG), Retry)
    hasty.close()


def test_somebody_who_blocked_us_looks_delivered_which_is_why_their_unfollow_must_be_heard(desk: Desk) -> None:
    desk.platform.block("田中")
    assert isinstance(desk.line.send(SPRUNG.id, TANAKA, SPRUNG), Delivered)
    assert desk.platform.phone("田中").messages == []


def test_when_the_month_is_used_up_line_says_so(desk: Desk) -> None:
    desk.platform.limit = 0
    assert isinstance(desk.line.send(SPRUNG.id, TANAKA, SPRUNG), NoQuota)


def test_what_is_left_for_critical_messages_is_refused_to_others_without_asking_line(desk: Desk) -> None:
    desk.platform.limit, desk.platform.used = 100, 79
    desk.quota.run(desk.line.usage, NOW_US)
    warning = fresh(severity="warning")
    assert isinstance(desk.line.send(warning.id, TANAKA, warning), Delivered)  # the last above the reserve of 20
    calls = len(desk.platform.calls)
    assert isinstance(desk.line.send("", TANAKA, fresh(severity="warning")), NoQuota)
    assert len(desk.platform.calls) == calls
    assert isinstance(desk.line.send("", TANAKA, fresh(severity="critical")), Delivered)


def test_usage_is_what_line_says(desk: Desk) -> None:
    assert desk.line.usage() == (None, 0)
    desk.platform.limit, desk.platform.used = 5000, 4788
    assert desk.line.usage() == (5000, 4788)
    desk.platform.answer(500)
    with pytest.raises(OSError, match="answered 500"):
        desk.line.usage()


# ---- the configuration ----------------------------------------------------------------------------------


def test_a_token_that_can_not_be_read_names_its_setting(tmp_path: Path, desk: Desk) -> None:
    for text in (None, "", "two words"):
        path = tmp_path / "missing"
        if text is not None:
            path.write_text(text)
            path.chmod(0o600)
        with pytest.raises(ConfigError, match=r"channel\.line\.access_token_file"):
            Line(desk.config.model_copy(update={"access_token_file": path}), desk.quota, lambda: NOW_US)


def test_the_url_is_a_host(tmp_path: Path) -> None:
    for url in ("https://api.line.me/v2", "ftp://api.line.me", "https://api.line.me/?x"):
        with pytest.raises(ValidationError):
            LineConfig.model_validate({"channel_secret_file": tmp_path, "access_token_file": tmp_path, "url": url})


# ---- sizes ----------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), max_size=40).flatmap(
    lambda some: st.integers(1, 200).map(lambda times: some * times)
)
labels = st.text(
    st.characters(codec="utf-8", exclude_categories=("Zs", "Cc", "Zl", "Zp", "Cf"), max_codepoint=0xFFFF), min_size=1, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(
    title=words,
    body=words,
    kind=st.sampled_from(["alert", "reply"]),
    label=labels,
    buttons=st.integers(0, 5),
    links=st.integers(0, 8),
)
def test_line_takes_every_message_that_we_can_make(
    title: str, body: str, kind: str, label: str, buttons: int, links: int
) -> None:
    message = Message.model_validate(
        {
            "id": str(uuid.uuid4()),
            "kind": kind,
            "title": title,
            "body": body,
            "buttons": [{"answer": "going", "label": label}] * buttons,
            "links": [{"label": label, "url": "https://gateway.example.jp/" + "x" * 900}] * links,
        }
    )
    assert request_faults({"to": TANAKA, "messages": [shaped(message)]}) == []


@given(st.text(max_size=300), st.integers(1, 100))
def test_cutting_counts_as_line_does_and_splits_no_sign(text: str, units: int) -> None:
    short = cut(text, units)
    assert len(short.encode("utf-16-le", "surrogatepass")) // 2 <= units
    assert short == text or short.endswith("…")


@given(st.text(max_size=400))
def test_any_postback_is_read_or_is_none_of_ours(data: str) -> None:
    found = read_postback(data)
    assert found is None or len(found) == 2


def test_a_button_of_ours_is_read_back() -> None:
    assert read_postback(postback("with_her", SPRUNG.id)) == ("with_her", SPRUNG.id)
    assert len(postback("false_alarm", SPRUNG.id)) <= 300
