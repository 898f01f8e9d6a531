"""The simulated LINE refuses what LINE refuses, and shows each person what LINE would show them."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.line import LinePlatform, sign, user_id
from simulators.line_rules import request_faults

START_US = 1_780_434_725_000_000
TANAKA = user_id("田中")


class Clock:
    """The simulator's time, in the test's hand."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


class Gateway:
    """Takes webhooks as a gateway would."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self.status = 200

    def __call__(self, body: bytes, headers: Any) -> int:
        self.got.append((body, dict(headers)))
        return self.status

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for body, _ in self.got for event in json.loads(body)["events"]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def line(clock: Clock, gateway: Gateway) -> Iterator[LinePlatform]:
    with LinePlatform(gateway, limit=3, now_us=clock) as opened:
        opened.follow("田中")
        yield opened


def text(words: str = "こんにちは") -> dict[str, Any]:
    return {"type": "text", "text": words}


def flex(**changed: Any) -> dict[str, Any]:
    button = {
        "type": "button",
        "action": {"type": "postback", "label": "行きます", "data": "a=going&n=1", "displayText": "行きます"},
    }
    body = {"type": "box", "layout": "vertical", "contents": [{"type": "text", "text": "北尾根 3番", "wrap": True}]}
    footer = {"type": "box", "layout": "vertical", "contents": [button | changed.pop("button", {})]}
    bubble = {"type": "bubble", "body": body | changed.pop("body", {}), "footer": footer} | changed.pop("bubble", {})
    return {"type": "flex", "altText": "わな作動", "contents": bubble} | changed


def push(
    line: LinePlatform, *messages: Any, key: str | None = None, to: str = TANAKA, token: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or line.token}", **({"X-Line-Retry-Key": key} if key else {})}
    body = {"to": to, "messages": list(messages or [text()])}
    return httpx.post(f"{line.url}/v2/bot/message/push", json=body, headers=headers, timeout=5, trust_env=False)


def reply(line: LinePlatform, token: str, **headers: str) -> httpx.Response:
    headers |= {"Authorization": f"Bearer {line.token}"}
    body = {"replyToken": token, "messages": [text()]}
    return httpx.post(f"{line.url}/v2/bot/message/reply", json=body, headers=headers, timeout=5, trust_env=False)


def test_a_push_is_shown_once_with_its_buttons(line: LinePlatform) -> None:
    assert push(line, flex()).status_code == 200
    (shown,) = line.phone("田中").messages
    assert (shown.how, shown.body, shown.labels) == ("push", "北尾根 3番", ["行きます"])


def test_a_repeated_retry_key_is_409_with_the_first_requests_id_for_a_day(line: LinePlatform, clock: Clock) -> None:
    key = str(uuid.uuid4())
    push(line, key=key)
    again = push(line, key=key)
    assert (again.status_code, again.json()["message"]) == (409, "The retry key is already accepted")
    assert len(again.headers["x-line-accepted-request-id"]) == 36
    assert line.times() == {key: 1}
    clock.now_us += 24 * 3600 * 1_000_000
    assert push(line, key=key).status_code == 200


@pytest.mark.parametrize("key", ["1", "not-a-uuid", "0" * 32, "g" * 8 + "-0000-0000-0000-000000000000"])
def test_a_retry_key_is_a_uuid(line: LinePlatform, key: str) -> None:
    assert push(line, key=key).status_code == 400


def test_without_a_key_a_repetition_is_a_second_message(line: LinePlatform) -> None:
    push(line)
    push(line)
    assert len(line.phone("田中").messages) == 2


def test_a_wrong_token_is_401(line: LinePlatform) -> None:
    assert push(line, token="wrong").status_code == 401
    assert line.phone("田中").messages == []


def test_who_blocked_the_account_is_answered_200_sees_nothing_and_costs_nothing(line: LinePlatform) -> None:
    line.block("田中")
    assert push(line).status_code == 200
    assert line.phone("田中").messages == []
    assert line.used == 0


def test_after_the_months_limit_nothing_is_sent(line: LinePlatform) -> None:
    assert [push(line).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert push(line).json() == {"message": "You have reached your monthly limit."}
    headers = {"Authorization": f"Bearer {line.token}"}
    quota = httpx.get(f"{line.url}/v2/bot/message/quota", headers=headers, trust_env=False).json()
    used = httpx.get(f"{line.url}/v2/bot/message/quota/consumption", headers=headers, trust_env=False).json()
    assert (quota, used) == ({"type": "limited", "value": 3}, {"totalUsage": 3})


def test_too_many_calls_are_429_with_another_text(line: LinePlatform) -> None:
    line.rate_limited()
    answer = push(line)
    assert answer.status_code == 429
    assert "monthly" not in answer.text


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"type": "text"}, "messages[0].text"),
        (text("x" * 5001), "messages[0].text"),
        (text("😀" * 2501), "messages[0].text"),
        ({"type": "sticker", "packageId": "1", "stickerId": "1"}, "messages[0].type"),
        (flex(altText=""), "messages[0].altText"),
        (flex(altText="あ" * 401), "messages[0].altText"),
        (flex(contents={"type": "card"}), "messages[0].contents.type"),
        (flex(bubble={"size": "huge"}), "messages[0].contents.size"),
        (flex(bubble={"colour": "#FFFFFF"}), "messages[0].contents.colour"),
        (flex(body={"layout": "diagonal"}), "messages[0].contents.body.layout"),
        (flex(body={"backgroundColor": "red"}), "messages[0].contents.body.backgroundColor"),
        (flex(body={"paddingAll": "huge"}), "messages[0].contents.body.paddingAll"),
        (flex(body={"contents": [{"type": "text", "text": ""}]}), "messages[0].contents.body.contents[0].text"),
        (flex(body={"contents": [{"type": "table"}]}), "messages[0].contents.body.contents[0].type"),
        (flex(button={"style": "big"}), "messages[0].contents.footer.contents[0].style"),
        (flex(button={"action": {"type": "call"}}), "messages[0].contents.footer.contents[0].action"),
        (
            flex(button={"action": {"type": "postback", "label": "x" * 21, "data": "a"}}),
            "messages[0].contents.footer.contents[0].action.label",
        ),
        (
            flex(button={"action": {"type": "postback", "label": "x", "data": "a" * 301}}),
            "messages[0].contents.footer.contents[0].action.data",
        ),
        (
            flex(button={"action": {"type": "uri", "label": "x", "uri": "javascript:alert(1)"}}),
            "messages[0].contents.footer.contents[0].action.uri",
        ),
        (flex(body={"contents": [{"type": "text", "text": "あ" * 6000}]}), "messages[0].contents"),
        (text() | {"quickReply": {"items": []}}, "messages[0].quickReply.items"),
    ],
)
def test_what_line_does_not_take_is_400_and_says_where(line: LinePlatform, message: dict[str, Any], where: str) -> None:
    answer = push(line, message)
    assert answer.status_code == 400
    assert where in [detail["property"] for detail in answer.json()["details"]]
    assert line.phone("田中").messages == []


def test_at_most_five_messages_go_at_once(line: LinePlatform) -> None:
    assert push(line, *[text()] * 6).status_code == 400
    assert push(line, *[text()] * 5).status_code == 200


def test_an_id_of_another_account_and_somebody_unknown(line: LinePlatform) -> None:
    assert "'to'" in push(line, to="田中").json()["message"]
    assert push(line, to="U" + "0" * 32).json() == {"message": "Failed to send messages"}


def test_a_reply_token_is_good_once_and_for_a_minute(line: LinePlatform, gateway: Gateway, clock: Clock) -> None:
    line.write("田中", "1")
    line.write("田中", "2")
    first, second = (event["replyToken"] for event in gateway.events[-2:])
    assert reply(line, first).status_code == 200
    assert reply(line, first).json() == {"message": "Invalid reply token"}
    clock.now_us += 60 * 1_000_000
    assert reply(line, second).status_code == 400
    assert line.used == 0


def test_a_reply_takes_no_retry_key(line: LinePlatform, gateway: Gateway) -> None:
    line.write("田中", "1")
    assert reply(line, gateway.events[-1]["replyToken"], **{"X-Line-Retry-Key": str(uuid.uuid4())}).status_code == 400


def test_what_people_do_comes_as_signed_webhooks(line: LinePlatform, gateway: Gateway) -> None:
    push(line, flex())
    line.tap("田中", "行きます")
    line.write("田中", "ヘルプ")
    line.block("田中")
    assert [event["type"] for event in gateway.events] == ["follow", "postback", "message", "unfollow"]
    assert gateway.events[1]["postback"] == {"data": "a=going&n=1"}
    assert all(event["source"] == {"type": "user", "userId": TANAKA} for event in gateway.events)
    assert len({event["webhookEventId"] for event in gateway.events}) == 4
    for body, headers in gateway.got:
        assert headers["X-Line-Signature"] == sign(line.secret, body)


def test_a_webhook_that_was_not_taken_comes_again_as_the_same(line: LinePlatform, gateway: Gateway) -> None:
    gateway.status = 500
    assert line.write("田中", "1") == 500
    line.again()
    first, second = gateway.events[-2:]
    assert first["webhookEventId"] == second["webhookEventId"]
    assert second["deliveryContext"] == {"isRedelivery": True}


def test_a_button_that_is_not_there_can_not_be_pressed(line: LinePlatform) -> None:
    with pytest.raises(LookupError, match="行けません"):
        line.tap("田中", "行けません")


@pytest.mark.parametrize("misbehave", ["drop", "garbage"])
def test_a_message_whose_answer_was_lost_was_seen_all_the_same(line: LinePlatform, misbehave: str) -> None:
    getattr(line, misbehave)()
    key = str(uuid.uuid4())
    try:
        assert push(line, key=key).headers["content-type"].startswith("text/html")
    except httpx.RemoteProtocolError:
        assert misbehave == "drop"
    line.well()
    assert push(line, key=key).status_code == 409
    assert line.times() == {key: 1}


def test_out_of_reach_and_back_under_its_number(line: LinePlatform) -> None:
    line.refuse()
    with pytest.raises(httpx.ConnectError):
        push(line)
    line.well()
    assert push(line).status_code == 200


def test_the_page_shows_the_phone_and_its_buttons_work(line: LinePlatform, gateway: Gateway) -> None:
    push(line, flex(), text("<script>alert(1)</script>"))
    page = httpx.get(f"{line.url}/phones/田中", trust_env=False).text
    assert "北尾根 3番" in page
    assert '<button name="press" value="0.0" class="first">行きます</button>' in page
    assert "<script>alert" not in page
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        after = browser.post(f"{line.url}/phones/田中", data={"press": "0.0"})
        assert after.status_code == 200
        assert browser.post(f"{line.url}/phones/田中", data={"press": "9.9"}).status_code == 400
        browser.post(f"{line.url}/phones/田中", data={"text": "ヘルプ"})
        assert "田中" in browser.get(f"{line.url}/phones").text
    assert [event["type"] for event in gateway.events] == ["follow", "postback", "message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "contents", "body", "text"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(messages=json_values, container=json_values)
def test_any_request_gets_a_verdict(messages: Any, container: Any) -> None:
    flexes = [{"type": "flex", "altText": "x", "contents": {"type": "bubble", "body": container}}]
    for document in ({"to": TANAKA, "messages": messages}, {"to": TANAKA, "messages": flexes}):
        for where, why in request_faults(document):
            assert where
            assert why
