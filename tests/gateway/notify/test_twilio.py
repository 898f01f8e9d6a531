"""Short messages and calls, against a Twilio that wants what the real one wants."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.notify.message import Button, Message
from gateway.notify.outcome import Delivered, Gone, Refused, Retry, Unknown
from gateway.notify.twilio import Account, Sms, TwilioConfig, Voice, asking, call_words, sms_text, units
from simulators.twilio import TwilioService, read_twiml

SID = "AC" + "0" * 31 + "1"
TOKEN = "token-for-tests"
NOW_US = 1_780_434_720_000_000
NONE: frozenset[str] = frozenset()
ID = "6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
OURS, THEIRS = "+815000000001", "+815000000002"
PUBLIC = "https://gateway.example.jp"
KEYPAD_URL = f"{PUBLIC}/hooks/twilio/keypad/{ID}"
GOING = (Button(answer="going", label="行きます"), Button(answer="cannot", label="行けません"))


def sprung(**changed: Any) -> Message:
    return Message(
        **{
            "id": ID,
            "severity": "critical",
            "title": "【わな作動】北尾根 3番",
            "body": "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
            "spoken": "北尾根、3番のわなが動きました。",
            "buttons": GOING,
            "answer_url": f"{PUBLIC}/a/abc",
            **changed,
        }
    )


@pytest.fixture
def service() -> Iterator[TwilioService]:
    with TwilioService(SID, TOKEN, [OURS], now_us=lambda: NOW_US) as opened:
        yield opened


@pytest.fixture
def account(service: TwilioService, tmp_path: Path) -> Iterator[Account]:
    made = open_account(service, tmp_path)
    yield made
    made.close()


def open_account(service: TwilioService, folder: Path, token: str = TOKEN, **changed: Any) -> Account:
    (folder / "token").write_text(token + "\n")
    (folder / "token").chmod(0o600)
    said = {"account_sid": SID, "auth_token_file": folder / "token", "from": OURS, "url": service.url, "timeout_s": 5}
    return Account(TwilioConfig(**{**said, **changed}), PUBLIC)


# --- Short messages ---------------------------------------------------------------------------------


def test_a_short_message_says_what_happened_and_where_to_answer(service: TwilioService, account: Account) -> None:
    assert Sms(account).send(ID, THEIRS, sprung()) == Delivered(service.messages[0].sid)
    (text,) = service.inbox(THEIRS)
    assert text.splitlines() == [
        "【わな作動】北尾根 3番",
        "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。",
        f"{PUBLIC}/a/abc",
    ]
    assert service.messages[0].callback == f"{PUBLIC}/hooks/twilio/status/{ID}"


def test_a_long_text_loses_its_end_and_never_its_link() -> None:
    text = sms_text(sprung(body="あ" * 5000))
    assert units(text) == 670
    assert text.endswith(f"…\n{PUBLIC}/a/abc")


@given(st.text(max_size=900), st.text(max_size=900), st.none() | st.just(f"{PUBLIC}/a/abc"))
@settings(max_examples=150, deadline=None)
def test_any_text_fits_into_ten_parts(title: str, body: str, url: str | None) -> None:
    text = sms_text(sprung(title=title, body=body, answer_url=url))
    assert len(text.encode("utf-16-le")) // 2 == units(text) <= 670
    assert url is None or text.endswith(url)


def test_the_sender_may_be_a_name(service: TwilioService, tmp_path: Path) -> None:
    account = open_account(service, tmp_path, sms_from="SATOMORI")
    outcome = Sms(account).send(ID, THEIRS, sprung())
    account.close()
    assert isinstance(outcome, Refused)  # this account has no such name
    assert "21212" in outcome.reason


def test_what_was_sent_before_a_crash_is_found_and_nothing_else_is(service: TwilioService, account: Account) -> None:
    sms = Sms(account)
    assert sms.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) is None
    sms.send("other", THEIRS, sprung(answer_url=f"{PUBLIC}/a/other"))
    assert sms.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) is None
    service.drop()
    assert isinstance(sms.send(ID, THEIRS, sprung()), Unknown)
    assert sms.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) == Delivered(service.messages[1].sid)
    known = {service.messages[1].sid}
    assert sms.find(ID, THEIRS, sprung(), NOW_US, known.__contains__) is None, "the same words, of another notification"
    assert sms.find(ID, "+815000000009", sprung(), NOW_US, NONE.__contains__) is None
    assert sms.find(ID, THEIRS, sprung(), NOW_US + 3600 * 1_000_000, NONE.__contains__) is None, (
        "of an earlier attempt, an hour ago"
    )


def test_a_message_that_failed_at_twilio_is_not_one_that_was_sent(service: TwilioService, account: Account) -> None:
    sms = Sms(account)
    sms.send(ID, THEIRS, sprung())
    service.messages[0].status = "failed"
    assert sms.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) is None


# --- Calls ------------------------------------------------------------------------------------------


def test_a_call_says_who_calls_and_what_and_which_keys_twice_and_waits(service: TwilioService, account: Account) -> None:
    assert isinstance(Voice(account, "里山市").send(ID, THEIRS, sprung()), Delivered)
    (call,) = service.rings(THEIRS)
    said = service.take(call)
    whole = "里山市です。北尾根、3番のわなが動きました。行ける方は1を、行けない方は2を押してください。"
    assert said == [whole, whole]
    assert call.waiting == f"{KEYPAD_URL}?round=1"


def test_a_call_that_asks_nothing_says_it_twice_and_hangs_up(service: TwilioService, account: Account) -> None:
    Voice(account, "").send(ID, THEIRS, sprung(buttons=()))
    (call,) = service.rings(THEIRS)
    assert service.take(call) == ["北尾根、3番のわなが動きました。"] * 2
    assert call.status == "completed"


def test_what_has_no_spoken_sentence_is_read_without_its_signs() -> None:
    assert (
        call_words(sprung(spoken="", buttons=()), "")
        == "わな作動、北尾根 3番。6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。"
    )


def test_keys_that_were_said_already_are_not_said_twice() -> None:
    whole = call_words(sprung(), "里山市")
    assert call_words(sprung(spoken=whole), "里山市") == whole


def test_english_is_spoken_by_an_english_voice() -> None:
    twiml = asking(sprung(language="en", spoken="The trap has sprung."), "Satoyama", KEYPAD_URL, 1)
    assert 'language="en-US"' in twiml
    assert "Press 1 if you can go" in twiml


@given(st.text(max_size=4000), st.text(max_size=100), st.sampled_from([GOING, (), GOING[:1] * 9]))
@settings(max_examples=80, deadline=None)
def test_any_message_is_a_call_that_twilio_takes(said: str, title: str, buttons: tuple[Button, ...]) -> None:
    twiml = asking(sprung(spoken=said, title=title, body="x", buttons=buttons), "里山市", KEYPAD_URL, 1)
    assert len(twiml) <= 4000
    read_twiml(twiml)
    assert not buttons or "1を" in twiml


def test_the_call_that_was_begun_before_a_crash_is_found(service: TwilioService, account: Account) -> None:
    voice = Voice(account, "")
    assert voice.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) is None
    service.garbage()
    assert isinstance(voice.send(ID, THEIRS, sprung()), Unknown)
    assert voice.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) == Delivered(service.calls[0].sid)


def test_a_call_about_something_else_is_not_taken_for_this_one(service: TwilioService, account: Account) -> None:
    voice = Voice(account, "")
    voice.send("other", THEIRS, sprung())
    service.calls[0].asked.append(f"{PUBLIC}/hooks/twilio/status/other")
    assert voice.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) is None
    service.calls[0].asked.append(f"{KEYPAD_URL}?round=1")
    assert voice.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__) == Delivered(service.calls[0].sid)


def test_a_provider_that_can_not_be_asked_is_no_no(service: TwilioService, account: Account) -> None:
    service.refuse()
    for channel in (Sms(account), Voice(account, "")):
        with pytest.raises(Exception, match="refused"):
            channel.find(ID, THEIRS, sprung(), NOW_US, NONE.__contains__)


# --- What goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [21211, 21614, 21610])
def test_a_number_that_can_not_be_reached_leads_nowhere_and_is_not_repeated(
    service: TwilioService, account: Account, code: int
) -> None:
    service.knows_not(THEIRS, code)
    for channel in (Sms(account), Voice(account, "")):
        outcome = channel.send(ID, THEIRS, sprung())
        assert isinstance(outcome, Gone)
        assert str(code) in outcome.reason
        assert THEIRS not in outcome.reason


@pytest.mark.parametrize("to", ["0500000001", "+81 50", "+81500000000x", "", "+815000000002\r\nx"])
def test_what_is_no_number_is_never_handed_over(service: TwilioService, account: Account, to: str) -> None:
    for channel in (Sms(account), Voice(account, "")):
        assert isinstance(channel.send(ID, to, sprung()), Gone)
    assert (service.messages, service.calls) == ((), ())


def test_too_many_at_once_are_tried_again_when_twilio_wants(service: TwilioService, account: Account) -> None:
    service.answer(429, retry_after="7")
    assert Sms(account).send(ID, THEIRS, sprung()) == Retry("answered 429", 7)
    assert Voice(account, "").send(ID, THEIRS, sprung()) == Retry("answered 429", 7)


@pytest.mark.parametrize(("status", "kind"), [(500, Retry), (503, Retry), (502, Unknown), (400, Refused)])
def test_an_answer_of_an_error_says_what_can_be_done(service: TwilioService, account: Account, status: int, kind: type) -> None:
    service.answer(status)
    assert isinstance(Sms(account).send(ID, THEIRS, sprung()), kind)


def test_a_wrong_password_is_no_reason_to_give_up_but_says_what_to_look_at(service: TwilioService, tmp_path: Path) -> None:
    account = open_account(service, tmp_path, token="wrong")
    outcome = Sms(account).send(ID, THEIRS, sprung())
    account.close()
    assert isinstance(outcome, Retry)
    assert "check channel.twilio.account_sid and auth_token_file" in outcome.reason


def test_twilio_out_of_reach_is_tried_again(service: TwilioService, account: Account) -> None:
    service.refuse()
    assert isinstance(Sms(account).send(ID, THEIRS, sprung()), Retry)


def test_a_slow_twilio_holds_a_thread_no_longer_than_the_timeout(service: TwilioService, tmp_path: Path) -> None:
    service.slow(30)
    account = open_account(service, tmp_path, timeout_s=0.2)
    assert isinstance(Sms(account).send(ID, THEIRS, sprung()), Unknown)
    account.close()
    assert len(service.messages) == 1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"from": "0500000001"}, "is no number like"),
        ({"sms_from": "+81"}, "is neither a number"),
        ({"sms_from": "SATOMORI TOWN"}, "is neither a number"),
        ({"account_sid": "AC1"}, "account_sid"),
    ],
)
def test_settings_that_can_not_be_right_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TwilioConfig(**{"account_sid": SID, "auth_token_file": "x", "from": OURS, **changed})


def test_a_token_that_can_not_be_read_names_its_setting(tmp_path: Path) -> None:
    said: dict[str, Any] = {"account_sid": SID, "auth_token_file": tmp_path / "none", "from": OURS}
    config = TwilioConfig(**said)
    with pytest.raises(ConfigError, match=r"channel\.twilio\.auth_token_file: .* can't be read"):
        Account(config, PUBLIC)


def test_without_the_extra_the_error_says_what_to_install(
    service: TwilioService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "twilio.rest", None)
    with pytest.raises(ConfigError, match=r"pip install 'satomori\[voice\]'"):
        open_account(service, tmp_path)
