"""POST /hooks/line: without LINE's signature nothing happens; with it, each event is kept once and answered at once."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from gateway.inbox import Came, Inbox
from gateway.state.tables import inbox
from simulators.line import LinePlatform
from tests.gateway.api.conftest import NOW_US, Gateway

SECRET = "channel-secret-for-tests"
DAY_US = 86_400_000_000


class Hook:
    """The route with a real inbox; what is worked on is noted."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.done, self.rung = gateway, list[Came](), 0

        def note(connection: Connection, came: Came, now_us: int) -> None:
            self.done.append(came)

        self.inbox = Inbox(gateway.state, {"line": note}, gateway.deps.telemetry, self.ring)
        self.client: TestClient = gateway.client(None, inbox=self.inbox, line_secret=SECRET)

    def ring(self) -> None:
        self.rung += 1

    def post(self, body: bytes, signature: str | bytes | None = None) -> int:
        headers = {"X-Line-Signature": sign(body) if signature is None else signature, "Content-Type": "application/json"}
        return int(self.client.post("/hooks/line", content=body, headers=headers).status_code)

    def kept(self) -> int:
        with self.gateway.state.read() as connection:
            return connection.scalar(select(func.count()).select_from(inbox)) or 0


@pytest.fixture
def hook(gateway: Gateway) -> Iterator[Hook]:
    made = Hook(gateway)
    yield made
    made.inbox.close()


def sign(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def event(id_: str = "01FZ74A0TDDPYRVKNK77XKC3ZR", **changed: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "message": {"type": "text", "id": "1", "text": "ヘルプ"},
        "timestamp": NOW_US // 1000,
        "source": {"type": "user", "userId": "U" + "0" * 32},
        "replyToken": "t",
        "mode": "active",
        "webhookEventId": id_,
        "deliveryContext": {"isRedelivery": False},
    } | changed


def webhook(*events: Any) -> bytes:
    return json.dumps({"destination": "U", "events": list(events)}).encode()


@given(st.text(st.sampled_from("a\0\ud800あ"), max_size=8))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_signs_that_no_database_keeps_keep_back_neither_their_event_nor_the_next(hook: Hook, said: str) -> None:
    """LINE sends again what is refused, with all that came along: so they are mended."""
    hook.done.clear()
    ids = [uuid.uuid4().hex for _ in range(2)]
    first = event(ids[0], message={"type": "text", "id": "1", "text": said}, **{said: said})
    assert hook.post(webhook(first, event(ids[1]))) == 200
    assert hook.inbox.step(NOW_US) == 2
    heard = {came.id.removeprefix("line:"): came.body["message"]["text"] for came in hook.done}
    assert heard == {ids[0]: said.replace("\0", "\ufffd").replace("\ud800", "\ufffd"), ids[1]: "ヘルプ"}


def test_a_signed_event_is_durable_before_the_answer_and_worked_on_after(hook: Hook) -> None:
    assert hook.post(webhook(event())) == 200
    assert (hook.kept(), hook.rung, hook.done) == (1, 1, [])
    assert hook.inbox.step(NOW_US) == 1
    assert hook.done[0].body["message"]["text"] == "ヘルプ"


def test_what_the_simulated_line_sends_is_taken(hook: Hook) -> None:
    def send(body: bytes, headers: Any) -> int:
        return int(hook.client.post("/hooks/line", content=body, headers=headers).status_code)

    with LinePlatform(send, secret=SECRET, now_us=lambda: NOW_US) as line:
        assert line.follow("田中") == 200
        assert line.write("田中", "ABCD-2345") == 200
        assert line.again() == 200
    assert hook.kept() == 2


@pytest.mark.parametrize(
    "signature", ["", "AAAA", sign(b"other"), sign(webhook(event()), "other-secret"), "é", "\N{SNOWMAN}".encode()]
)
def test_a_wrong_signature_is_401_and_leaves_nothing(hook: Hook, signature: str | bytes) -> None:
    signed: str | bytes = signature.encode("latin-1") if isinstance(signature, str) else signature
    assert hook.post(webhook(event()), signed) == 401
    assert (hook.kept(), hook.rung) == (0, 0)


def test_a_body_that_was_changed_on_the_way_is_401(hook: Hook) -> None:
    body = webhook(event())
    assert hook.post(body.replace(b"U000", b"U001"), sign(body)) == 401
    assert hook.kept() == 0


def test_the_same_event_again_is_200_and_changes_nothing(hook: Hook) -> None:
    hook.post(webhook(event()))
    hook.inbox.step(NOW_US)
    assert hook.post(webhook(event())) == 200
    assert hook.post(webhook(event(deliveryContext={"isRedelivery": True}))) == 200
    assert hook.inbox.step(NOW_US) == 0
    assert (hook.kept(), len(hook.done), hook.rung) == (1, 1, 1)


def test_several_events_of_one_webhook_are_kept_each_in_their_order(hook: Hook) -> None:
    assert hook.post(webhook(event("01B", type="follow"), event("01C"), event("01A"))) == 200
    assert hook.inbox.step(NOW_US) == 3


def test_events_without_an_id_are_told_apart_by_what_they_say(hook: Hook) -> None:
    bare = {"type": "follow", "timestamp": NOW_US // 1000}
    again = bare | {"deliveryContext": {"isRedelivery": True}}
    assert hook.post(webhook(bare, again, bare | {"type": "unfollow"})) == 200
    assert hook.kept() == 2


def test_lines_question_whether_we_are_there_is_200(hook: Hook) -> None:
    assert hook.post(webhook()) == 200
    assert (hook.kept(), hook.rung) == (0, 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"events": {}}', b'{"events": [1]}', b"\xff", b"[" * 100_000])
def test_what_is_no_webhook_is_400(hook: Hook, body: bytes) -> None:
    assert hook.post(body) == 400
    assert hook.kept() == 0


def test_a_body_that_is_too_long_is_413_unread(hook: Hook) -> None:
    assert hook.post(b" " * (1024 * 1024 + 1)) == 413


def test_a_busy_day_fits_into_one_webhook(hook: Hook) -> None:
    many = webhook(*(event(f"{number:026}") for number in range(300)))
    assert len(many) > 64 * 1024
    assert hook.post(many) == 200
    assert hook.kept() == 300


def test_an_old_event_is_late_and_a_replay_of_long_ago_is_nothing(hook: Hook) -> None:
    assert hook.post(webhook(event("1", timestamp=(NOW_US - 2 * DAY_US) // 1000))) == 200
    assert hook.post(webhook(event("2", timestamp=(NOW_US - 31 * DAY_US) // 1000))) == 200
    hook.inbox.step(NOW_US)
    assert [came.late for came in hook.done] == [True]


def test_without_a_line_account_there_is_no_such_route(gateway: Gateway) -> None:
    body = webhook(event())
    assert gateway.client(None).post("/hooks/line", content=body, headers={"X-Line-Signature": sign(body)}).status_code == 404


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
events = st.lists(
    st.fixed_dictionaries(
        {}, optional={"webhookEventId": anything, "timestamp": anything, "type": anything, "source": anything, "mode": anything}
    ),
    max_size=3,
)
bodies = (
    st.binary(max_size=60)
    | events.map(lambda some: json.dumps({"events": some}).encode())
    | anything.map(lambda some: json.dumps({"events": some}).encode())
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, signature=st.none() | st.binary(max_size=50).filter(lambda some: b"\n" not in some and b"\r" not in some))
def test_any_bytes_are_answered_and_without_the_signature_nothing_is_kept(
    hook: Hook, body: bytes, signature: bytes | None
) -> None:
    before = hook.kept()
    status = hook.post(body, signature)
    if signature is not None and signature != sign(body).encode():
        assert status == 401
        assert hook.kept() == before
    else:
        assert status in (200, 400)
