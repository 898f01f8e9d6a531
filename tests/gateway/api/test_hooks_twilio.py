"""What Twilio tells and asks: a call from its ring to what is said back, keys that come twice, and who is not Twilio."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import OperationalError

from gateway.api.hooks_twilio import TwilioHooks, routes, taking
from gateway.api.problems import add_problem_handlers
from gateway.notify.message import Answer, Button, Message
from gateway.notify.twilio import Account, Sms, TwilioConfig, Voice
from gateway.paging import Answered, NotTaken, Standing
from gateway.state import State, tables
from gateway.words import text
from simulators.twilio import Call, TwilioService
from tests.gateway.api.conftest import NOW_US, Gateway

SID, TOKEN = "AC" + "0" * 31 + "1", "token-for-tests"
PUBLIC = "https://gateway.example.jp"
ID = "6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
TEST = "7f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
OURS, THEIRS = "+815000000001", "+815000000002"
GOING = (Button(answer="going", label="行きます"), Button(answer="cannot", label="行けません"))
ASKED = "里山市です。北尾根、3番のわなが動きました。行ける方は1を、行けない方は2を押してください。"


class Town:
    """A gateway with its hooks, somebody whose telephone rings, and the Twilio between them."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.said: list[tuple[str, Answer]] = []
        self.lost: list[tuple[str, str]] = []
        self.refuses: Literal["closed"] | None = None
        self.fails: Exception | None = None
        hooks = TwilioHooks(
            gateway.state, TOKEN, PUBLIC, "里山市", lambda: gateway.now_us, taking(self.answer_to),
            lambda _, address, why, now_us: self.lost.append((address, why)),
        )  # fmt: skip
        self.client = gateway.client(None, twilio=hooks)
        self.twilio = TwilioService(SID, TOKEN, [OURS], public_url=PUBLIC, client=self.client, now_us=lambda: gateway.now_us)
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        self.folder = folder

    def __enter__(self) -> "Town":
        self.twilio.__enter__()
        config: dict[str, Any] = {"account_sid": SID, "auth_token_file": self.folder / "token", "url": self.twilio.url}
        self.account = Account(TwilioConfig(**{**config, "from": OURS}), PUBLIC)
        return self

    def __exit__(self, *_: object) -> None:
        self.account.close()
        self.twilio.__exit__()

    def answer_to(self, connection: Any, id_: str, answer: Answer, via: Literal["keypad"], now_us: int) -> Answered | NotTaken:
        """As gateway.paging.answers.Answers.answer_to."""
        if self.fails is not None:
            raise self.fails
        if self.refuses:
            return NotTaken(self.refuses)
        repeated = bool(self.said and self.said[-1][1] == answer)
        self.said.append((id_, answer))
        connection.execute(update(tables.notifications).where(tables.notifications.c.id == id_).values(state="answered"))
        return Answered(answer, repeated, Standing("p-1", "trap", "asking", ("田中",), 1))

    def queue(self, channel: str = "voice", *, id_: str = ID, page: str | None = "p-1", buttons: Any = GOING) -> Message:
        """A message on its way: its intent is committed, and what came of it is not known."""
        message = Message(
            id=id_,
            severity="critical",
            title="わな作動",
            body="北尾根 3番",
            buttons=buttons,
            spoken="北尾根、3番のわなが動きました。",
        )
        with self.gateway.state.write() as connection:
            if connection.scalar(select(func.count()).select_from(tables.contacts)) == 0:
                connection.execute(insert(tables.contacts).values(id="c1", name="田中", created_us=1, created_by="office"))
                connection.execute(
                    insert(tables.addresses).values(
                        id="a1", contact="c1", channel=channel, address=THEIRS, rank=0, state="new", created_us=1
                    )
                )
                connection.execute(
                    insert(tables.pages).values(
                        id="p-1", route="main", group_key="x", severity="critical", kind="trap", state="asking", needed=2,
                        step=1, opened_us=1, changed=False, version=1,
                    )
                )  # fmt: skip
            connection.execute(
                insert(tables.notifications).values(
                    id=id_, page=page, kind="alert" if page else "test", contact="c1", address="a1", channel=channel,
                    state="queued", severity_rank=0, body=message.model_dump_json(), created_us=1, due_us=1, attempts=0,
                    intent_us=NOW_US,
                )
            )  # fmt: skip
        return message

    def ring(self, **how: Any) -> Call:
        """The call, once the gateway was told that it has begun."""
        message = self.queue(**how)
        Voice(self.account, "里山市").send(message.id, THEIRS, message)
        call = self.twilio.calls[-1]
        self.twilio.wait_for(lambda _: call.asked)
        _joined("sim-twilio-ring")
        return call

    def row(self, id_: str = ID) -> Any:
        with self.gateway.state.read() as connection:
            return connection.execute(select(tables.notifications).where(tables.notifications.c.id == id_)).one()

    def changed(self) -> bool:
        with self.gateway.state.read() as connection:
            return bool(connection.scalar(select(tables.pages.c.changed)))

    def kept(self) -> int:
        with self.gateway.state.read() as connection:
            return int(connection.scalar(select(func.count()).select_from(tables.inbox)) or 0)


def _joined(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(10)


@pytest.fixture
def town(gateway: Gateway, tmp_path: Path) -> Iterator[Town]:
    with Town(gateway, tmp_path) as made:
        yield made


# --- A call -----------------------------------------------------------------------------------------


def test_who_presses_1_goes_and_hears_that_it_was_understood(town: Town) -> None:
    call = town.ring()
    assert town.twilio.take(call) == [ASKED, ASKED]
    (confirmed,) = town.twilio.press(call, "1")
    assert confirmed.startswith("「行きます」")
    assert town.said == [(ID, "going")]
    assert call.status == "completed"
    assert (town.row().state, town.row().error) == ("answered", None)


def test_keys_follow_the_order_of_the_buttons(town: Town) -> None:
    call = town.ring()
    town.twilio.take(call)
    town.twilio.press(call, "2")
    assert town.said == [(ID, "cannot")]


@pytest.mark.parametrize("key", ["", "5", "*", "0"])
def test_who_presses_nothing_or_a_wrong_key_is_asked_again_twice_and_then_others_are(town: Town, key: str) -> None:
    call = town.ring()
    town.twilio.take(call)
    for _ in range(2):
        again = town.twilio.press(call, key)
        assert again[0] == text("ja", "voice.nothing")
        assert again[1:] == [ASKED, ASKED]
    (goodbye,) = town.twilio.press(call, key)
    assert goodbye == text("ja", "voice.goodbye")
    assert call.status == "completed"
    assert (town.row().state, town.row().error) == ("sent", "the call was taken, but no key was pressed")
    assert town.changed()
    assert town.said == []


def test_a_key_at_the_second_asking_counts(town: Town) -> None:
    call = town.ring()
    town.twilio.take(call)
    town.twilio.press(call, "")
    town.twilio.press(call, "1")
    assert town.said == [(ID, "going")]


def test_an_answer_that_can_not_be_taken_says_why(town: Town) -> None:
    town.refuses = "closed"
    call = town.ring()
    town.twilio.take(call)
    (said,) = town.twilio.press(call, "1")
    assert "「行きます」" not in said
    assert said


def test_the_test_of_a_landline_is_answered_by_a_key_and_proves_it(town: Town) -> None:
    call = town.ring(id_=TEST, page=None, buttons=(Button(answer="seen", label="届きました"),))
    town.twilio.take(call)
    town.twilio.press(call, "1")
    assert town.row(TEST).state == "answered"
    with town.gateway.state.read() as connection:
        address = connection.execute(select(tables.addresses)).one()
    assert (address.state, address.heard_us) == ("proved", NOW_US)


def test_while_the_database_is_locked_the_call_says_so_in_words_and_nothing_is_kept(town: Town) -> None:
    town.fails = OperationalError("UPDATE", None, Exception("database is locked"))
    call = town.ring()
    town.twilio.take(call)
    before = town.kept()
    (said,) = town.twilio.press(call, "1")
    assert said == text("ja", "voice.not_kept"), "not that the message is unknown: it is not"
    assert town.kept() == before + 1  # `completed`, and no key


def test_a_call_of_something_that_is_not_known_any_more_says_so(town: Town) -> None:
    call = town.ring()
    town.twilio.take(call)
    call.waiting = f"{PUBLIC}/hooks/twilio/keypad/{'0' * 36}?round=1"
    assert town.twilio.press(call, "1")
    assert town.said == []


# --- What became of it ------------------------------------------------------------------------------


def test_a_call_that_has_begun_is_sent_whatever_became_of_the_attempt(town: Town) -> None:
    call = town.ring()
    row = town.row()
    assert (row.state, row.provider_id, row.sent_us, row.intent_us) == ("sent", call.sid, NOW_US, None)


@pytest.mark.parametrize("end", ["busy", "no-answer", "failed"])
def test_a_call_that_nobody_takes_stays_sent_and_its_page_is_thought_over(town: Town, end: str) -> None:
    call = town.ring()
    town.twilio.fail(call, end)
    assert (town.row().state, town.row().error) == ("sent", f"nobody took the call: {end}")
    assert town.changed()


def test_who_hangs_up_without_a_key_has_not_answered(town: Town) -> None:
    call = town.ring()
    town.twilio.take(call)
    town.twilio.hang_up(call)
    assert (town.row().error, town.changed()) == ("the call was taken, but no key was pressed", True)


def test_a_call_that_asked_nothing_and_was_heard_is_well(town: Town) -> None:
    call = town.ring(buttons=())
    town.twilio.take(call)
    assert (call.status, town.row().error, town.changed()) == ("completed", None, False)


def test_a_short_message_that_was_not_delivered_is_told_and_its_number_lost_where_there_is_none(town: Town) -> None:
    message = town.queue("sms")
    Sms(town.account).send(ID, THEIRS, message)
    (sms,) = town.twilio.messages
    assert town.twilio.deliver(sms, "sent") == 204
    assert town.row().state == "sent"
    town.twilio.deliver(sms, "undelivered", 30008)
    assert (town.lost, town.row().error) == ([], "not delivered: undelivered, Twilio's error 30008")
    town.twilio.deliver(sms, "undelivered", 30003)
    assert town.lost == [], "switched off, or on a mountain: it is there again tomorrow"
    town.twilio.deliver(sms, "failed", 30005)
    assert (town.lost, town.row().state) == ([("a1", "number")], "queued")  # so that the next address is tried
    assert town.changed()


# --- Once, and from Twilio only ---------------------------------------------------------------------


def keypad(town: Town, call: Call, digit: str, signature: str | None = None, **changed: str) -> tuple[int, str]:
    form = {**town.twilio._form(call), "Digits": digit, **changed}
    return town.twilio.post(f"{PUBLIC}/hooks/twilio/keypad/{ID}?round=1", form, signature=signature)


def test_a_key_that_comes_twice_is_one_answer_and_is_told_the_same(town: Town) -> None:
    call = town.ring()
    first = keypad(town, call, "1")
    kept = town.kept()
    assert keypad(town, call, "1") == first
    assert town.said == [(ID, "going")]
    assert town.kept() == kept


def test_a_key_of_yesterday_played_again_changes_nothing_that_was_said_since(town: Town) -> None:
    call = town.ring()
    keypad(town, call, "1")
    town.said.append((ID, "cannot"))  # over LINE
    keypad(town, call, "1")
    assert town.said == [(ID, "going"), (ID, "cannot")]


def test_a_status_that_comes_twice_is_noted_once(town: Town) -> None:
    call = town.ring()
    for _ in range(2):
        town.twilio.fail(call)
    with town.gateway.state.write() as connection:
        connection.execute(update(tables.pages).values(changed=False))
    town.twilio.fail(call)
    assert not town.changed()


def everything(state: State) -> str:
    with state.read() as connection:
        rows = [connection.execute(select(table)).all() for table in (tables.notifications, tables.inbox, tables.pages)]
        return repr(rows)


@pytest.mark.parametrize("signature", ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "é"])
def test_what_twilio_did_not_sign_is_refused_without_side_effects(town: Town, signature: str) -> None:
    call = town.ring()
    before = everything(town.gateway.state)
    url = f"/hooks/twilio/keypad/{ID}?round=1"
    answer = town.client.post(url, data={"Digits": "1", "CallSid": call.sid}, headers={"X-Twilio-Signature": signature.encode()})
    assert (answer.status_code, answer.json()["status"]) == (403, 403)
    assert everything(town.gateway.state) == before
    assert town.said == []


def test_a_signature_is_good_for_its_own_message_and_fields_only(town: Town) -> None:
    call = town.ring()
    form = {**town.twilio._form(call), "Digits": "2"}
    good = town.twilio.signature(f"{PUBLIC}/hooks/twilio/keypad/{ID}?round=1", form)
    assert keypad(town, call, "1", good)[0] == 403
    assert keypad(town, call, "2", good, Extra="1")[0] == 403
    other = town.twilio.post(f"{PUBLIC}/hooks/twilio/keypad/{TEST}?round=1", form, signature=good)
    assert other[0] == 403
    assert keypad(town, call, "2", good)[0] == 200


def test_without_twilio_there_is_no_hook(gateway: Gateway) -> None:
    assert gateway.client(None).post(f"/hooks/twilio/keypad/{ID}").status_code == 404


def test_a_status_that_names_nothing_is_refused(town: Town) -> None:
    assert town.twilio.post(f"{PUBLIC}/hooks/twilio/status/{ID}", {"Foo": "1"})[0] == 400
    assert town.kept() == 0


def bare() -> TestClient:
    """The hooks alone, without a database: whoever gets past the signature would fail on it."""
    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(routes(TwilioHooks(None, TOKEN, PUBLIC, "", lambda: 0, None, None)))  # type: ignore[arg-type]
    return TestClient(app, raise_server_exceptions=False)


BARE = bare()


@given(body=st.binary(max_size=200), path=st.sampled_from(["keypad", "status"]), signature=st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused(body: bytes, path: str, signature: str) -> None:
    headers = {"X-Twilio-Signature": signature.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")}
    answer = BARE.post(f"/hooks/twilio/{path}/{ID}", content=body, headers=headers)
    assert answer.status_code in (400, 403)
    assert json.loads(answer.content)["detail"]
