"""Alerts, and what a person does to them: acknowledge, shelve, resolve, once, by name, written into the history."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from gateway.feed import Said
from gateway.flow.config import AreaConfig
from gateway.state import tables
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway


def acknowledge(gateway: Gateway, body: dict[str, Any] | None = None, role: str = "operator") -> Any:
    return gateway.client(role).post("/api/v1/alerts/a-1/acknowledge", json=body)


def test_alerts_newest_first_by_state(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, id="old", opening="1", since_us=NOW_US - 2, state="resolved")
    gateway.insert(tables.alerts, id="new", opening="2", since_us=NOW_US - 1)
    client = gateway.client()
    assert [one["id"] for one in client.get("/api/v1/alerts").json()["alerts"]] == ["new", "old"]
    assert [one["id"] for one in client.get("/api/v1/alerts?state=firing").json()["alerts"]] == ["new"]
    both = client.get("/api/v1/alerts?state=firing&state=resolved").json()["alerts"]
    assert [(one["id"], one["place"], one["label"]) for one in both] == [
        ("new", "北尾根", "3番"),
        ("old", "北尾根", "3番"),
    ]
    assert client.get("/api/v1/alerts?state=loud").status_code == 422


def test_an_alert_of_an_area_says_the_place_as_its_people_call_it(gateway: Gateway) -> None:
    hiroba = AreaConfig.model_validate({"label": "朝市広場", "m2": 500, "line": [{"node": "hiroba", "device": "counter-east"}]})
    gateway.deps = replace(gateway.deps, areas={"hiroba": hiroba})
    gateway.insert(tables.alerts, kind="area", node="area", device="hiroba", summary="crowd 3.6")
    [alert] = gateway.client().get("/api/v1/alerts").json()["alerts"]
    assert (alert["place"], alert["label"]) == ("朝市広場", "")
    assert acknowledge(gateway).json()["place"] == "朝市広場"
    since = NOW_US - 3_600_000_000
    assert "朝市広場" in gateway.client().get(f"/api/v1/export/alerts.csv?from_us={since}").text


def test_that_somebodys_tag_left_home_is_not_for_the_board_in_the_hall(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, id="trap", opening="1")
    gateway.insert(tables.alerts, id="tag", opening="2", kind="watched", node="watched", device="ab" * 8, summary="left home")
    viewer, operator = gateway.client("viewer"), gateway.client()
    assert [one["id"] for one in viewer.get("/api/v1/alerts").json()["alerts"]] == ["trap"]
    assert len(operator.get("/api/v1/alerts").json()["alerts"]) == 2
    assert operator.get("/api/v1/alerts/tag").status_code == 200
    tag, unknown = viewer.get("/api/v1/alerts/tag"), viewer.get("/api/v1/alerts/none")
    assert (tag.status_code, tag.json()) == (unknown.status_code, unknown.json()) == (403, tag.json())


def test_one_alert_with_its_history_and_messages(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    gateway.insert(tables.alert_history)
    gateway.insert(tables.notifications, body='{"phone": "000-0000-0000"}')
    answer = gateway.client().get("/api/v1/alerts/a-1")
    found = answer.json()
    assert found["state"] == "firing"
    assert found["history"] == [
        {"at_us": NOW_US - MINUTE_US, "before": None, "after": "firing", "who": "rule", "why": "trap_sprung"}
    ]
    assert [(one["contact"], one["state"]) for one in found["notifications"]] == [("farmers-kitayama", "sent")]
    assert "000-0000" not in answer.text
    assert gateway.client().get("/api/v1/alerts/none").status_code == 404


def test_acknowledging_says_who_when_and_why(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)

    answer = acknowledge(gateway, {"version": 1, "why": "見に行きます"})

    assert answer.status_code == 200
    found = gateway.client().get("/api/v1/alerts/a-1").json()
    assert (found["state"], found["version"]) == ("acknowledged", 2)
    assert (found["acknowledged_by"], found["acknowledged_us"]) == ("tanaka", NOW_US)
    assert found["history"] == [
        {"at_us": NOW_US, "before": "firing", "after": "acknowledged", "who": "tanaka", "why": "見に行きます"}
    ]


def test_acknowledging_needs_neither_version_nor_reason(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, version=7)
    assert gateway.client().post("/api/v1/alerts/a-1/acknowledge").status_code == 200


def test_acknowledging_is_said_to_the_feed(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)

    async def scene() -> Said | None:
        with gateway.deps.feed.listen() as listener:
            await asyncio.to_thread(acknowledge, gateway)
            return await listener.hear(5)

    said = asyncio.run(scene())
    assert said is not None
    assert (said.kind, said.body["state"], said.body["acknowledged_by"]) == ("alert", "acknowledged", "tanaka")


def test_who_saw_an_older_version_is_told_so(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, version=3)
    answer = acknowledge(gateway, {"version": 2})
    assert answer.status_code == 409
    assert (answer.json()["version"], answer.json()["state"]) == (3, "firing")
    assert gateway.client().get("/api/v1/alerts/a-1").json()["state"] == "firing"


@pytest.mark.parametrize("state", ["pending", "acknowledged", "resolved"])
def test_only_a_firing_alert_is_acknowledged(gateway: Gateway, state: str) -> None:
    gateway.insert(tables.alerts, state=state, acknowledged_by="sato")
    answer = acknowledge(gateway)
    assert answer.status_code == 409
    assert answer.json()["acknowledged_by"] == "sato"
    assert ("sato" if state == "acknowledged" else state) in answer.json()["detail"]
    assert gateway.client().get("/api/v1/alerts/a-1").json()["history"] == []


def test_of_many_at_once_one_is_the_one(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    client = gateway.client()
    statuses: list[int] = []

    def press() -> None:
        statuses.append(client.post("/api/v1/alerts/a-1/acknowledge", json={"version": 1}).status_code)

    threads = [threading.Thread(target=press) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409, 409]
    with gateway.state.read() as connection:
        assert len(connection.execute(select(tables.alert_history)).all()) == 1


@pytest.mark.parametrize("body", [{"why": "x" * 201}, {"version": 0}, {"who": "somebody else"}, [1], "x"])
def test_a_wrong_body_is_a_problem(gateway: Gateway, body: Any) -> None:
    gateway.insert(tables.alerts)
    answer = acknowledge(gateway, body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert gateway.client().get("/api/v1/alerts/a-1").json()["state"] == "firing"


def test_an_alert_that_does_not_exist(gateway: Gateway) -> None:
    assert acknowledge(gateway).status_code == 404


# ---- shelve, unshelve, resolve ------------------------------------------------------------------------------

HOUR_US = 60 * MINUTE_US


def say(gateway: Gateway, what: str, body: dict[str, Any] | None = None, role: str = "operator") -> Any:
    return gateway.client(role).post(f"/api/v1/alerts/a-1/{what}", json=body)


def test_shelving_says_until_when_and_the_history_says_who_and_why(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    answer = say(gateway, "shelve", {"until_us": NOW_US + HOUR_US, "why": "雨がやんでから", "version": 1})
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["shelved_until_us"]) == ("shelved", NOW_US + HOUR_US)
    found = gateway.client().get("/api/v1/alerts/a-1").json()
    assert found["history"] == [
        {"at_us": NOW_US, "before": "firing", "after": "shelved", "who": "tanaka", "why": "雨がやんでから"}
    ]
    assert [one["id"] for one in gateway.client().get("/api/v1/alerts?state=shelved").json()["alerts"]] == ["a-1"]


@pytest.mark.parametrize("until_us", [NOW_US, NOW_US - 1, NOW_US + 32 * 24 * HOUR_US])
def test_nothing_is_shelved_into_the_past_or_for_ever(gateway: Gateway, until_us: int) -> None:
    gateway.insert(tables.alerts)
    assert say(gateway, "shelve", {"until_us": until_us}).status_code == 422
    assert gateway.client().get("/api/v1/alerts/a-1").json()["state"] == "firing"


@pytest.mark.parametrize("what", ["acknowledge", "shelve", "unshelve", "resolve"])
def test_an_old_tap_moves_nothing_newer(gateway: Gateway, what: str) -> None:
    gateway.insert(tables.alerts, state="shelved", shelved_until_us=NOW_US + HOUR_US, version=3)
    body = {"version": 2, "why": "x", **({"until_us": NOW_US + 1} if what == "shelve" else {})}
    answer = say(gateway, what, body)
    assert answer.status_code == 409
    assert (answer.json()["version"], answer.json()["state"]) == (3, "shelved")
    assert gateway.client().get("/api/v1/alerts/a-1").json()["history"] == []


def test_taking_it_off_the_shelf_lets_the_next_tick_decide(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, state="shelved", shelved_until_us=NOW_US + HOUR_US)
    answer = say(gateway, "unshelve")
    assert (answer.status_code, answer.json()["shelved_until_us"]) == (200, NOW_US)
    assert say(gateway, "resolve", {"why": "x"}).status_code == 200
    assert say(gateway, "unshelve").status_code == 409


def test_resolving_needs_a_reason_and_is_final(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, state="acknowledged", acknowledged_by="sato")
    assert say(gateway, "resolve").status_code == 422
    assert say(gateway, "resolve", {"why": ""}).status_code == 422
    answer = say(gateway, "resolve", {"why": "見に行った。いのししはいない"})
    assert (answer.status_code, answer.json()["state"], answer.json()["resolved_us"]) == (200, "resolved", NOW_US)
    for what, body in (("resolve", {"why": "x"}), ("acknowledge", None), ("shelve", {"until_us": NOW_US + 1})):
        assert say(gateway, what, body).status_code == 409, what


@pytest.mark.parametrize(("what", "body"), [("shelve", {"until_us": NOW_US + 1}), ("unshelve", None), ("resolve", {"why": "x"})])
def test_who_may_only_look_moves_nothing(gateway: Gateway, what: str, body: Any) -> None:
    gateway.insert(tables.alerts, state="shelved", shelved_until_us=NOW_US + HOUR_US)
    assert say(gateway, what, body, role="viewer").status_code == 403
    assert gateway.client().get("/api/v1/alerts/a-1").json()["history"] == []


def test_what_follows_from_a_move_is_told_in_its_transaction(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    told: list[Any] = []

    def moved(connection: Any, move: Any, now_us: int) -> None:
        told.append((move.before, move.alert.state, move.who, connection.in_transaction()))
        raise ValueError("what follows can't be written")

    answer = gateway.client(moved=moved).post("/api/v1/alerts/a-1/acknowledge")
    assert answer.status_code == 500
    assert told == [("firing", "acknowledged", "tanaka", True)]
    assert gateway.client().get("/api/v1/alerts/a-1").json()["state"] == "firing", "all of it or nothing"
