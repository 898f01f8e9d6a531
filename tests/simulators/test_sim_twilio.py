"""The simulated Twilio: it wants what the real one wants, and its telephones can be taken and answered."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from twilio.request_validator import RequestValidator

from simulators.twilio import TwilioService, read_twiml

SID, TOKEN = "AC" + "0" * 31 + "1", "token-for-tests"
OURS, THEIRS = "+815000000001", "+815000000002"
SMS = {"To": THEIRS, "From": OURS, "Body": "わなが動きました。 https://gateway.example.jp/a/x"}
ASKING = (
    '<Response><Gather action="https://gateway.example.jp/k" numDigits="1"><Say language="ja-JP">1か2を</Say></Gather>'
    '<Say language="ja-JP">さようなら</Say></Response>'
)
CALL = {"To": THEIRS, "From": OURS, "Twiml": ASKING}


class Gateway:
    """Answers hooks as the test says, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.twiml = '<Response><Say language="ja-JP">わかりました</Say><Hangup/></Response>'
        self.client = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(200, text=self.twiml)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def service(gateway: Gateway) -> Iterator[TwilioService]:
    with TwilioService(SID, TOKEN, [OURS], client=gateway.client) as opened:
        yield opened


def post(service: TwilioService, kind: str, form: dict[str, Any], password: str = TOKEN) -> httpx.Response:
    url = f"{service.url}/2010-04-01/Accounts/{SID}/{kind}.json"
    return httpx.post(url, data=form, auth=(SID, password), timeout=10, trust_env=False)


def test_a_short_message_can_be_read_and_is_listed(service: TwilioService) -> None:
    made = post(service, "Messages", SMS)
    assert (made.status_code, made.json()["sid"]) == (201, service.messages[0].sid)
    assert service.inbox(THEIRS) == [SMS["Body"]]
    url = f"{service.url}/2010-04-01/Accounts/{SID}/Messages.json"
    listed = httpx.get(url, params={"To": THEIRS}, auth=(SID, TOKEN), trust_env=False).json()
    assert [one["body"] for one in listed["messages"]] == [SMS["Body"]]
    assert httpx.get(url, params={"To": OURS}, auth=(SID, TOKEN), trust_env=False).json()["messages"] == []


@pytest.mark.parametrize(
    ("kind", "changed", "status", "code"),
    [
        ("Messages", {"To": "0500000002"}, 400, 21211),
        ("Messages", {"To": ""}, 400, 21201),
        ("Messages", {"From": "+815000000009"}, 400, 21212),
        ("Messages", {"From": ""}, 400, 21603),
        ("Messages", {"Body": ""}, 400, 21602),
        ("Messages", {"Body": "あ" * 1601}, 400, 21617),
        ("Messages", {"StatusCallback": "gateway/x"}, 400, 21609),
        ("Calls", {"Twiml": ""}, 400, 21205),
        ("Calls", {"Twiml": "<Response>" + " " * 4000 + "</Response>"}, 400, 21218),
        ("Calls", {"Twiml": "<Response><Shout>x</Shout></Response>"}, 400, 12100),
        ("Calls", {"StatusCallbackEvent": ["finished"]}, 400, 21626),
        ("Faxes", {}, 404, 20404),
    ],
)
def test_what_the_real_one_refuses_is_refused(
    service: TwilioService, kind: str, changed: dict[str, Any], status: int, code: int
) -> None:
    answer = post(service, kind, {**(SMS if kind == "Messages" else CALL), **changed})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (service.messages, service.calls) == ((), ())


def test_a_wrong_password_is_refused(service: TwilioService) -> None:
    assert post(service, "Messages", SMS, "wrong").json()["code"] == 20003


def test_a_call_is_taken_answered_by_a_key_and_ends(service: TwilioService, gateway: Gateway) -> None:
    post(service, "Calls", CALL)
    (call,) = service.rings(THEIRS)
    assert service.take(call) == ["1か2を"]
    assert service.press(call, "1") == ["わかりました"]
    assert call.status == "completed"
    assert b"Digits=1" in gateway.asked[-1].content


def test_hooks_are_signed_as_twilios_own_library_checks_it(service: TwilioService, gateway: Gateway) -> None:
    post(service, "Calls", CALL)
    service.take(service.calls[0])
    service.press(service.calls[0], "2")
    request = gateway.asked[-1]
    form = dict(httpx.QueryParams(request.content.decode()))
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator(TOKEN).validate("https://gateway.example.jp/k", form, signature)
    assert not RequestValidator("other").validate("https://gateway.example.jp/k", form, signature)


def test_only_the_events_that_were_asked_for_are_told(service: TwilioService, gateway: Gateway) -> None:
    post(service, "Calls", {**CALL, "StatusCallback": "https://gateway.example.jp/s", "StatusCallbackEvent": ["completed"]})
    service.fail(service.calls[0], "busy")
    assert [b"CallStatus=busy" in request.content for request in gateway.asked] == [True]


def test_what_was_dropped_is_there_all_the_same(service: TwilioService) -> None:
    service.drop()
    with pytest.raises(httpx.RemoteProtocolError):
        post(service, "Messages", SMS)
    assert len(service.messages) == 1


@pytest.mark.parametrize(
    "twiml",
    [
        "<Response>",
        "<Hello/>",
        "<Response><Say/></Response>",
        '<Response><Say language="ja">x</Say></Response>',
        '<Response><Say tone="1">x</Say></Response>',
        "<Response><Say><Say>x</Say></Say></Response>",
        '<Response><Gather numDigits="0"/></Response>',
    ],
)
def test_twiml_that_is_wrong_is_not_read(twiml: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_twiml(twiml)


def test_a_telephone_has_a_page_whose_keys_work(service: TwilioService) -> None:
    post(service, "Messages", SMS)
    post(service, "Calls", CALL)
    page = f"{service.url}/phones/{THEIRS}"
    shown = httpx.get(page, trust_env=False).text
    assert 'href="https://gateway.example.jp/a/x"' in shown
    assert "着信中" in shown
    sid = service.calls[0].sid
    for form in ({"do": "take"}, {"digit": "1"}):
        assert httpx.post(page, data={"call": sid, **form}, trust_env=False).status_code == 303
    shown = httpx.get(page, trust_env=False).text
    assert "わかりました" in shown
    assert "通話終了" in shown
