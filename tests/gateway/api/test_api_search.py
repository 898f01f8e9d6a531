"""The search over HTTP, for officers; and what somebody with less rights learns of it, which is not who or where."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from gateway.api.stream import _extents, _shown
from gateway.feed import Said
from gateway.policy import Actor
from gateway.state import tables
from tests.gateway.mimamori.searching import HANA, IDS, Searching
from tests.gateway.paged import HOUR_US, MINUTE_US

WHY = {"reason": "散歩から戻らない"}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        yield made


@pytest.fixture
def desk(town: Searching) -> TestClient:
    return town.client("operator")


def opened(desk: TestClient) -> dict[str, Any]:
    answer = desk.post(f"/api/v1/watched/{HANA}/search", json=WHY)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_officer_opens_one_and_sees_whom_it_reached(town: Searching, desk: TestClient) -> None:
    case = opened(desk)
    assert (case["state"], case["opened_by"], case["reason"]) == ("open", "tanaka", WHY["reason"])
    assert case["reached"] == {"office": 0, "office_all": 1, "helpers": 0, "helpers_all": 3}
    assert case["pauses_us"] == town.now_us + 2 * HOUR_US
    town.sent()
    town.heard("eki", ago_us=MINUTE_US)
    town.tick()
    town.now_us += 2 * MINUTE_US
    case = desk.get(f"/api/v1/searches/{case['id']}").json()
    assert case["reached"] == {"office": 1, "office_all": 1, "helpers": 3, "helpers_all": 3}
    assert [(one["place"], one["age_s"]) for one in case["sightings"]] == [("駅前", 180.0)]
    assert [(one["who"], one["what"]) for one in case["history"]] == [("tanaka", "opened")]


def test_who_is_about_to_open_one_hears_how_many_people_it_tells(town: Searching, desk: TestClient) -> None:
    def audience() -> dict[str, int]:
        found: dict[str, int] = desk.get(f"/api/v1/watched/{HANA}/search").json()
        return {group: found[group] for group in ("family", "office", "volunteers")}

    assert audience() == {"family": 2, "office": 1, "volunteers": 3}
    with town.state.write() as connection:
        gone = tables.addresses.c.contact == IDS["ichi"]
        connection.execute(update(tables.addresses).where(gone).values(state="unreachable"))
    assert audience() == {"family": 2, "office": 1, "volunteers": 2}, "who can't be reached is not told"
    assert desk.get("/api/v1/searches").json()["searches"] == []
    assert desk.get(f"/api/v1/watched/{'0' * 16}/search").status_code == 404
    assert town.client("viewer").get(f"/api/v1/watched/{HANA}/search").status_code == 403


def test_a_second_one_is_the_first(desk: TestClient) -> None:
    case = opened(desk)
    answer = desk.post(f"/api/v1/watched/{HANA}/search", json=WHY)
    assert (answer.status_code, answer.json()["id"]) == (200, case["id"])
    assert [one["id"] for one in desk.get("/api/v1/searches?state=open").json()["searches"]] == [case["id"]]


def test_paused_it_is_renewed_and_at_last_ended(town: Searching, desk: TestClient) -> None:
    case = opened(desk)
    town.wait(2 * HOUR_US, 30 * MINUTE_US)
    path = f"/api/v1/searches/{case['id']}"
    assert desk.get(path).json()["state"] == "paused"
    assert desk.post(f"{path}/renew").json()["state"] == "open"
    assert desk.post(f"{path}/close", json={"why": "病院にいました"}).json()["state"] == "closed"
    for again in (desk.post(f"{path}/renew"), desk.post(f"{path}/found"), desk.post(f"{path}/close", json={"why": "x"})):
        assert (again.status_code, again.json()["detail"]) == (409, "この捜索はもう終わっています。")


def test_bad_asking_is_refused_and_changes_nothing(town: Searching, desk: TestClient) -> None:
    assert desk.post(f"/api/v1/watched/{'00' * 8}/search", json=WHY).status_code == 404
    for body in ({}, {"reason": ""}, {"reason": " "}, {"reason": "x" * 201}, {"reason": "x", "more": 1}):
        assert desk.post(f"/api/v1/watched/{HANA}/search", json=body).status_code == 422, body
    assert desk.get("/api/v1/searches/00000000-0000-4000-8000-000000000000").status_code == 404
    assert town.ledger() == []


def test_who_is_searched_for_is_not_forgotten_meanwhile(desk: TestClient) -> None:
    case = opened(desk)
    assert desk.delete(f"/api/v1/watched/{HANA}").status_code == 409
    desk.post(f"/api/v1/searches/{case['id']}/found")
    assert desk.delete(f"/api/v1/watched/{HANA}").status_code == 204
    assert desk.get("/api/v1/searches").json()["searches"] == []


def test_a_viewer_learns_neither_who_nor_where(town: Searching, desk: TestClient) -> None:
    town.misses(place="つばきの家")
    town.heard("eki")
    case = opened(desk)
    town.tick()
    viewer = town.client("viewer")
    shown = [viewer.get(f"/api/v1/{path}") for path in ("alerts", "events", f"alerts/{town.rows_of_alerts()[0]}")]
    assert [answer.status_code for answer in shown] == [200, 200, 403]
    for path in ("pages", "deliveries", "watched", "searches", f"searches/{case['id']}"):
        shown.append(viewer.get(f"/api/v1/{path}"))
        assert shown[-1].status_code == 403, path
    shown.append(viewer.post(f"/api/v1/watched/{HANA}/search", json=WHY))
    assert shown[-1].status_code == 403
    everything = "".join(answer.text for answer in shown)
    for secret in ("ハナ", "つばき", "駅前", "eki", "haruka", "family-hana"):
        assert secret not in everything


def test_the_live_stream_says_neither_who_nor_where(town: Searching) -> None:
    town.misses(place="つばきの家")
    town.tick()
    town.client()
    [alert] = town.rows(tables.alerts)
    assert "つばき" in alert["facts"]
    theirs = _extents(town.deps, Actor("board", frozenset({"viewer"})))
    for kind, body in [*town.said, ("alert", alert)]:
        shown = json.dumps(asyncio.run(_shown(town.deps, Said(1, kind, body), theirs)), ensure_ascii=False)
        for secret in ("ハナ", "つばき", "family-hana"):
            assert secret not in shown
