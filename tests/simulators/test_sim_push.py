"""The simulated push service: it takes what a real one takes, and shows what a browser would."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02
from pywebpush import WebPusher

from gateway.notify.push import Vapid
from simulators.push_service import PushService

NOW_US = 1_780_434_720_000_000
NOW_S = NOW_US // 1_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
OURS = Vapid(KEY, "mailto:office@example.jp").public_key


@pytest.fixture
def service() -> Iterator[PushService]:
    with PushService(now_us=lambda: NOW_US) as opened:
        yield opened


def post(
    service: PushService,
    message: object = None,
    *,
    claims: dict[str, Any] | None = None,
    key: ec.EllipticCurvePrivateKey = KEY,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    to: str | None = None,
) -> tuple[int, str]:
    subscription = json.loads(to or service.subscribe("tanaka", OURS))
    said = {"aud": service.url, "exp": NOW_S + 3600, "sub": "mailto:office@example.jp", **(claims or {})}
    sent: dict[str, str | None] = {"TTL": "60", "Content-Encoding": "aes128gcm", **Vapid02(key).sign(said), **(headers or {})}
    if body is None:
        text = json.dumps(message or {"title": "わな", "tag": "n-1"})
        body = WebPusher(subscription).encode(text.encode(), "aes128gcm")["body"]
    given = {name: value for name, value in sent.items() if value is not None}
    answer = httpx.post(subscription["endpoint"], content=body, headers=given, timeout=10, trust_env=False)
    return answer.status_code, answer.text


def test_a_right_message_is_taken_and_shown(service: PushService) -> None:
    assert post(service) == (201, "")
    assert [one["title"] for one in service.seen("tanaka")] == ["わな"]
    assert "わな" in httpx.get(service.url + "/", trust_env=False).text


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "https://push.example.jp"}, "the token is for https://push.example.jp"),
        ({"exp": NOW_S + 86_401}, "ends later than in 24 h"),
        ({"exp": NOW_S - 1}, "the token has ended"),
    ],
)
def test_a_token_that_a_real_service_refuses_is_refused(service: PushService, claims: dict[str, Any], why: str) -> None:
    status, text = post(service, claims=claims)
    assert (status, service.seen("tanaka")) == (403, [])
    assert why in text


def test_a_token_of_another_server_is_refused(service: PushService) -> None:
    status, text = post(service, key=ec.generate_private_key(ec.SECP256R1()))
    assert (status, text) == (403, "the subscription was made for another key")


def test_a_token_that_was_changed_is_refused(service: PushService) -> None:
    good = Vapid02(KEY).sign({"aud": service.url, "exp": NOW_S + 3600, "sub": "mailto:office@example.jp"})["Authorization"]
    other = Vapid02(KEY).sign({"aud": service.url, "exp": NOW_S + 60, "sub": "mailto:office@example.jp"})["Authorization"]
    head, signature = good.partition(",")[0].rpartition(".")[0], other.partition(",")[0].rpartition(".")[2]
    status, text = post(service, headers={"Authorization": f"{head}.{signature},{good.partition(',')[2]}"})
    assert (status, text) == (403, "the token is not signed by the key")


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"TTL": None}, "TTL is needed"),
        ({"Content-Encoding": "aesgcm"}, "Content-Encoding"),
        ({"Urgency": "critical"}, "Urgency"),
        ({"Topic": "x" * 33}, "Topic"),
        ({"Topic": "a.b"}, "Topic"),
    ],
)
def test_headers_must_be_right(service: PushService, headers: dict[str, str | None], why: str) -> None:
    status, text = post(service, headers=headers)
    assert status == 400
    assert why in text


def test_more_than_4096_bytes_are_too_many(service: PushService) -> None:
    assert post(service, {"title": "x" * 3970})[0] == 201
    assert post(service, {"title": "x" * 4000})[0] == 413


def test_what_the_browser_can_not_read_is_told(service: PushService) -> None:
    status, text = post(service, body=b"\x00" * 200)
    assert status == 400
    assert "can't decrypt" in text


def test_one_tag_rings_once_and_two_ring_twice(service: PushService) -> None:
    subscription = service.subscribe("suzuki", OURS)
    for tag in ("n-1", "n-1", "n-2"):
        post(service, {"title": "x", "tag": tag}, to=subscription)
    assert service.rang("suzuki") == ["n-1", "n-2"]


def test_waiting_in_vain_says_what_did_come(service: PushService) -> None:
    post(service)
    with pytest.raises(TimeoutError, match=r"\('tanaka', 201, ''\)"):
        service.wait_for(lambda pushed: len(pushed) > 1, timeout_s=0.01)
