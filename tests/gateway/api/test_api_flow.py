"""Areas over HTTP: how full, what that rests on, a recount with its published error, the town's mode."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from gateway.flow.config import AreaConfig
from gateway.state.tables import events, rule_states
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway

HIROBA = AreaConfig.model_validate(
    {
        "label": "朝市広場",
        "m2": 100,
        "line": [{"node": "hiroba", "device": "east", "label": "東口"}, {"node": "hiroba", "device": "south", "turned": True}],
    }
)
MEMORY = {
    "inside": 120,
    "drift": -3,
    "lines": {"hiroba/east": {"in": 500, "in0": 300, "out": 90, "out0": 10, "heard_us": NOW_US - MINUTE_US}},
    "crowd": {"inside": 120, "density": 1.2, "share": None, "level": 0, "rising": False, "shelter": False},
    "correction": {"at_us": NOW_US - 60 * MINUTE_US, "how": "night", "reckoned": 14, "true": 0},
}


@pytest.fixture
def desk(gateway: Gateway) -> TestClient:
    with gateway.state.write() as connection:
        for rule in ("crowded", "dangerous"):
            connection.execute(insert(rule_states).values(rule=rule, node="area", device="hiroba", body=json.dumps(MEMORY)))
    return gateway.client(areas={"hiroba": HIROBA})


def facts(gateway: Gateway) -> list[tuple[str, str, Any]]:
    with gateway.state.read() as connection:
        return [(row.device, row.type, json.loads(row.body)) for row in connection.execute(select(events).order_by(events.c.id))]


def test_an_area_says_how_full_it_is_and_what_that_rests_on(desk: TestClient) -> None:
    found = desk.get("/api/v1/areas").json()
    assert found["mode"] == "normal"
    [area] = found["areas"]
    assert (area["inside"], area["density"], area["alive"], area["drift"]) == (120, 1.2, 1, -3)
    assert area["correction"] == {"at_us": NOW_US - 60 * MINUTE_US, "how": "night", "reckoned": 14, "true": 0, "error": 14}
    east, south = area["lines"]
    assert (east["came_today"], east["left_today"], east["silent"]) == (200, 80, False)
    assert (south["came_today"], south["left_today"], south["silent"]) == (None, None, True)  # never heard: not zero


def test_who_came_this_hour_stands_beside_what_is_usual(gateway: Gateway) -> None:
    memory = {**MEMORY, "hour": {"hour": NOW_US // 1_000_000 - 720, "kind": "wed-06", "came": 40, "whole": True},
              "usual": {"wed-06": [90, 100, 400], "thu-06": [1, 2, 3]}}  # fmt: skip
    with gateway.state.write() as connection:
        connection.execute(insert(rule_states).values(rule="crowded", node="area", device="hiroba", body=json.dumps(memory)))
    desk = gateway.client(areas={"hiroba": HIROBA})
    [area] = desk.get("/api/v1/areas").json()["areas"]
    assert (area["came_this_hour"], area["usual_this_hour"]) == (40, 100.0)
    gateway.now_us += 60 * MINUTE_US
    [area] = desk.get("/api/v1/areas").json()["areas"]
    assert (area["came_this_hour"], area["usual_this_hour"]) == (None, None)


def test_an_area_nobody_ever_counted_is_null_not_empty(gateway: Gateway) -> None:
    [area] = gateway.client(areas={"hiroba": HIROBA}).get("/api/v1/areas").json()["areas"]
    assert (area["inside"], area["level"], area["alive"]) == (None, None, 0)


def test_a_recount_publishes_its_error_and_becomes_a_fact_for_the_rules(gateway: Gateway, desk: TestClient) -> None:
    answer = desk.post("/api/v1/areas/hiroba/recounts", json={"counted": 100})
    assert answer.status_code == 201
    assert answer.json() == {"at_us": NOW_US, "counted": 100, "reckoned": 120, "error_percent": 20.0, "who": "tanaka"}
    assert facts(gateway) == [("hiroba", "area_recounted", {"counted": 100})]
    [kept] = desk.get("/api/v1/areas/hiroba/recounts").json()["recounts"]
    assert kept == answer.json()


def test_an_empty_square_has_no_percentage(desk: TestClient) -> None:
    assert desk.post("/api/v1/areas/hiroba/recounts", json={"counted": 0}).json()["error_percent"] is None


@pytest.mark.parametrize("body", [{"counted": -1}, {"counted": 1.5}, {"counted": "many"}, {}, {"counted": 1, "area": "x"}])
def test_a_count_that_is_none_changes_nothing(gateway: Gateway, desk: TestClient, body: dict[str, Any]) -> None:
    assert desk.post("/api/v1/areas/hiroba/recounts", json=body).status_code == 422
    assert facts(gateway) == []


def test_an_area_that_is_not_configured_is_not_found(desk: TestClient) -> None:
    assert desk.get("/api/v1/areas/nowhere/recounts").status_code == 404
    assert desk.post("/api/v1/areas/nowhere/recounts", json={"counted": 1}).status_code == 404


def test_the_mode_is_switched_once_and_says_who_and_why(gateway: Gateway, desk: TestClient) -> None:
    assert desk.get("/api/v1/town/mode").json() == {"mode": "normal", "since_us": None, "who": None, "why": None}
    said = desk.post("/api/v1/town/mode", json={"mode": "disaster", "why": "大雨警報"})
    assert said.json() == {"mode": "disaster", "since_us": NOW_US, "who": "tanaka", "why": "大雨警報"}
    again = desk.post("/api/v1/town/mode", json={"mode": "disaster", "why": "大雨警報"})
    assert again.status_code == 409
    assert facts(gateway) == [("mode", "town_mode", {"mode": "disaster"})]
    assert desk.get("/api/v1/areas").json()["mode"] == "disaster"


def test_a_viewer_looks_and_changes_nothing(gateway: Gateway, desk: TestClient) -> None:
    viewer = gateway.client("viewer", areas={"hiroba": HIROBA})
    assert viewer.get("/api/v1/areas").status_code == 200
    assert viewer.post("/api/v1/areas/hiroba/recounts", json={"counted": 1}).status_code == 403
    assert viewer.post("/api/v1/town/mode", json={"mode": "disaster", "why": "x"}).status_code == 403
    assert facts(gateway) == []


def test_the_hours_of_an_area_are_told_with_those_of_each_line(gateway: Gateway, desk: TestClient) -> None:
    """What was not heard is null; the counter that hangs the other way round counts the other way."""
    hour_us = 60 * MINUTE_US
    start_us = NOW_US - NOW_US % hour_us - 2 * hour_us
    for at_us in range(start_us - hour_us, start_us + 2 * hour_us, MINUTE_US):
        grown = max(at_us - start_us, 0) // MINUTE_US
        gateway.store.write([(("hiroba", "east", "count_in"), at_us // 1000, float(grown)),
                             (("hiroba", "east", "count_out"), at_us // 1000, 7.0)])  # fmt: skip
        if at_us < start_us + hour_us:
            gateway.store.write([(("hiroba", "south", "count_in"), at_us // 1000, float(2 * grown)),
                                 (("hiroba", "south", "count_out"), at_us // 1000, 0.0)])  # fmt: skip

    answer = desk.get(f"/api/v1/areas/hiroba/hours?from_us={start_us}&until_us={start_us + 2 * hour_us}")
    told = answer.json()
    assert [(one["device"], one["label"]) for one in told["lines"]] == [("east", "東口"), ("south", "")]
    assert told["hours"] == [
        {"start_us": start_us, "came": 59, "left": 118, "coverage_percent": 100,
         "lines": [{"came": 59, "left": 0}, {"came": 0, "left": 118}]},
        {"start_us": start_us + hour_us, "came": 60, "left": 0, "coverage_percent": 50,
         "lines": [{"came": 60, "left": 0}, {"came": None, "left": None}]},
    ]  # fmt: skip


def test_hours_are_of_two_months_at_most_and_of_an_area_that_there_is(desk: TestClient) -> None:
    day_us = 24 * 60 * MINUTE_US
    whole = f"/api/v1/areas/hiroba/hours?from_us={NOW_US - 62 * day_us}&until_us={NOW_US - 60 * MINUTE_US}"
    assert desk.get(whole).status_code == 200
    long = desk.get(f"/api/v1/areas/hiroba/hours?from_us={NOW_US - 63 * day_us}")
    assert (long.status_code, "62日" in long.json()["detail"]) == (422, True)
    assert desk.get(f"/api/v1/areas/nowhere/hours?from_us={NOW_US}").status_code == 404
    assert desk.get("/api/v1/areas/hiroba/hours").status_code == 422
