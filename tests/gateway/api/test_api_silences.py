"""Silences: who may make one, what is refused, and that its end is written down."""

from typing import Any

import pytest

from gateway import silences
from gateway.alerting.route import Match
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway

HOUR_US = 60 * MINUTE_US
PATH = "/api/v1/silences"


def made(gateway: Gateway, role: str = "operator", **changed: Any) -> Any:
    body = {"match": {"kind": "trap"}, "until_us": NOW_US + HOUR_US, "why": "わなの点検", **changed}
    return gateway.client(role).post(PATH, json=body)


def listed(gateway: Gateway, query: str = "") -> list[int]:
    return [one["id"] for one in gateway.client("viewer").get(PATH + query).json()["silences"]]


def test_a_silence_says_what_how_long_why_and_who(gateway: Gateway) -> None:
    answer = made(gateway)
    assert answer.status_code == 201
    [found] = gateway.client().get(PATH).json()["silences"]
    assert found == answer.json()
    [on_a_wall] = gateway.client("viewer").get(PATH).json()["silences"]
    assert on_a_wall == {**found, "created_by": "contact:"}, "a screen names nobody"
    assert {name: found[name] for name in ("match", "from_us", "until_us", "why", "created_by", "ended_us")} == {
        "match": {"kind": "trap"}, "from_us": NOW_US, "until_us": NOW_US + HOUR_US, "why": "わなの点検", "created_by": "tanaka",
        "ended_us": None,
    }  # fmt: skip


def test_it_is_in_effect_from_its_beginning_until_its_end(gateway: Gateway) -> None:
    id_ = made(gateway, from_us=NOW_US + MINUTE_US).json()["id"]

    def at(now_us: int) -> list[tuple[int, Match]]:
        with gateway.state.read() as connection:
            return [(one.id, one.match) for one in silences.in_effect(connection, now_us)]

    assert at(NOW_US) == []
    assert at(NOW_US + MINUTE_US) == [(id_, Match(kind="trap"))]
    assert at(NOW_US + HOUR_US) == []


def test_one_is_ended_once_by_name_and_stays_on_record(gateway: Gateway) -> None:
    first, second = (made(gateway).json()["id"] for _ in range(2))
    gateway.now_us += MINUTE_US
    answer = gateway.client().post(f"{PATH}/{first}/end")
    assert (answer.status_code, answer.json()["ended_us"], answer.json()["ended_by"]) == (200, NOW_US + MINUTE_US, "tanaka")
    assert gateway.client().post(f"{PATH}/{first}/end").status_code == 404
    assert listed(gateway) == [second]
    assert listed(gateway, "?all=true") == [second, first]
    gateway.now_us += HOUR_US
    assert listed(gateway) == []
    assert gateway.client().post(f"{PATH}/{second}/end").status_code == 404, "it is over"


@pytest.mark.parametrize(
    "changed",
    [
        {"match": {}},
        {"match": {"colour": "red"}},
        {"until_us": NOW_US},
        {"until_us": NOW_US + HOUR_US, "from_us": NOW_US + HOUR_US},
        {"until_us": NOW_US + 32 * 24 * HOUR_US},
        {"until_us": 2**63},
        {"why": ""},
        {"why": "x" * 201},
        {"who": "somebody else"},
    ],
)
def test_what_would_silence_everything_nothing_or_for_ever_is_refused(gateway: Gateway, changed: dict[str, Any]) -> None:
    answer = made(gateway, **changed)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert listed(gateway, "?all=true") == []


def test_who_may_only_look_silences_nothing(gateway: Gateway) -> None:
    assert made(gateway, "viewer").status_code == 403
    id_ = made(gateway).json()["id"]
    assert gateway.client("viewer").post(f"{PATH}/{id_}/end").status_code == 403
    assert gateway.client("node").get(PATH).status_code == 403
    assert listed(gateway) == [id_]


@pytest.mark.parametrize("id_", ["7", "0", "-1", "x", str(2**63)])
def test_there_is_no_such_silence(gateway: Gateway, id_: str) -> None:
    assert gateway.client().post(f"{PATH}/{id_}/end").status_code in (404, 422)
