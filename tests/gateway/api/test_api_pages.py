"""Pages as the office sees them: who was asked, who goes, and an answer taken down for somebody who called."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from gateway.alerting.lifecycle import Alert, Move
from gateway.alerting.route import RouteConfig
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.paging import Paging
from gateway.state import tables
from gateway.telling import Teller
from tests.gateway.api.conftest import NOW_US, Gateway

ROUTE = RouteConfig.model_validate({"to": "farmers", "needed": 2})
ALERT = Alert(
    "00000000-0000-4000-8000-000000000001", "sprung", "trap", "critical", "kitayama-03", "trap-11", "o", "firing", NOW_US, False,
    "trap_sprung", fired_us=NOW_US,
)  # fmt: skip


@pytest.fixture
def paging(gateway: Gateway) -> Paging:
    """One trap has sprung, and Sato and Suzuki were told."""
    with gateway.state.write() as connection:
        for name in ("sato", "suzuki"):
            connection.execute(insert(tables.contacts), {"id": name, "name": name.title(), "created_us": 0, "created_by": "test"})
            address = {"id": name, "contact": name, "channel": "line", "address": f"U-{name}", "rank": 0, "state": "proved"}
            connection.execute(insert(tables.addresses), {**address, "created_us": 0})
            connection.execute(insert(tables.memberships), {"team": "farmers", "contact": name})
    book = Book({"farmers": GroupConfig(label="わな番")}, [], ZoneInfo("Asia/Tokyo"))
    deployments = gateway.deps.deployments
    made = Paging(gateway.state, [ROUTE], deployments, book, Teller(deployments, ZoneInfo("Asia/Tokyo")))
    gateway.insert(tables.alerts, id=ALERT.id)
    with gateway.state.write() as connection:
        made.moved(connection, Move(ALERT, None, "trap_sprung", tell=True), NOW_US)
    return made


@pytest.fixture
def client(gateway: Gateway, paging: Paging) -> TestClient:
    return gateway.client(paging=paging)


def only(client: TestClient) -> Any:
    [page] = client.get("/api/v1/pages").json()["pages"]
    return page


def test_pages_say_how_far_they_are_and_who_goes(client: TestClient) -> None:
    page = only(client)
    assert (page["state"], page["needed"], page["missing"], page["going"], page["step"]) == ("asking", 2, 2, [], 1)
    assert client.get("/api/v1/pages?state=closed").json()["pages"] == []
    assert client.get("/api/v1/pages?state=loud").status_code == 422


def test_one_page_with_its_alerts_answers_and_deliveries_and_no_address(client: TestClient) -> None:
    id_ = only(client)["id"]
    client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "going", "contact": "sato"})
    shown = client.get(f"/api/v1/pages/{id_}")
    page = shown.json()
    assert [(one["alert"], one["told_us"]) for one in page["alerts"]] == [(ALERT.id, NOW_US)]
    assert [(one["name"], one["answer"], one["via"]) for one in page["answers"]] == [("Sato", "going", "api")]
    assert sorted((one["contact"], one["kind"]) for one in page["deliveries"]) == [
        ("sato", "alert"), ("suzuki", "alert"), ("suzuki", "update"),
    ]  # fmt: skip
    assert "U-sato" not in shown.text


def test_one_reads_what_one_said_last_oneself(client: TestClient) -> None:
    id_ = only(client)["id"]
    client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "going", "contact": "sato"})
    assert client.get(f"/api/v1/pages/{id_}").json()["mine"] is None, "that was Sato"
    for answer in ("going", "cannot"):
        client.post(f"/api/v1/pages/{id_}/answer", json={"answer": answer})
    assert client.get(f"/api/v1/pages/{id_}").json()["mine"] == "cannot"


def test_what_somebody_said_by_telephone_counts_as_theirs_once(client: TestClient) -> None:
    id_ = only(client)["id"]
    answers = [client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "going", "contact": "sato"}).json() for _ in range(2)]
    assert [one["repeated"] for one in answers] == [False, True]
    assert (answers[0]["page"]["going"], answers[0]["page"]["missing"]) == (["Sato"], 1)


def test_the_staff_answers_for_itself_and_stands_in_the_history_by_name(client: TestClient, gateway: Gateway) -> None:
    id_ = only(client)["id"]
    said = client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "false_alarm"})
    assert said.json()["page"]["state"] == "closed"
    with gateway.state.read() as connection:
        row = connection.execute(select(tables.alert_history).where(tables.alert_history.c.after == "resolved")).one()
    assert (row.who, row.why) == ("staff:tanaka", "false_alarm")
    assert client.get(f"/api/v1/pages/{id_}").json()["answers"][0]["name"] == "tanaka"


def test_an_answer_that_cannot_be_taken_is_refused_with_what_is_so(client: TestClient) -> None:
    id_ = only(client)["id"]
    stranger = client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "going", "contact": "ito"})
    assert (stranger.status_code, stranger.json()["state"]) == (409, "asking")
    client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "false_alarm"})
    late = client.post(f"/api/v1/pages/{id_}/answer", json={"answer": "going", "contact": "sato"})
    assert (late.status_code, late.json()["state"]) == (409, "closed")
    assert late.headers["Content-Type"] == "application/problem+json"
    assert client.get("/api/v1/pages/none").status_code == 404
    assert client.post("/api/v1/pages/none/answer", json={"answer": "going"}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"answer": "perhaps"}, {"answer": "going", "who": "x"}, {"answer": "going", "contact": 1}])
def test_a_wrong_body_changes_nothing(client: TestClient, body: Any) -> None:
    id_ = only(client)["id"]
    assert client.post(f"/api/v1/pages/{id_}/answer", json=body).status_code == 422
    assert client.get(f"/api/v1/pages/{id_}").json()["answers"] == []


@pytest.mark.parametrize("role", ["viewer", "node"])
def test_only_operators_see_who_was_asked(gateway: Gateway, paging: Paging, role: str) -> None:
    client = gateway.client(role, paging=paging)
    assert client.get("/api/v1/pages").status_code == 403
    assert client.post("/api/v1/pages/x/answer", json={"answer": "going"}).status_code == 403


def test_an_alert_names_the_page_that_it_is_told_in(client: TestClient) -> None:
    assert client.get(f"/api/v1/alerts/{ALERT.id}").json()["page"] == only(client)["id"]


def test_who_may_not_read_pages_is_told_of_none(gateway: Gateway, paging: Paging) -> None:
    viewer = gateway.client("viewer", paging=paging)
    assert viewer.get(f"/api/v1/alerts/{ALERT.id}").json()["page"] is None
