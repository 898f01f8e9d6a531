"""The delivery ledger as operators read it, and what they may do with a dead letter."""

from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.state import tables
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway


def row(gateway: Gateway, id_: str, **changed: Any) -> None:
    gateway.insert(tables.notifications, id=id_, alert=None, **changed)


def stored(gateway: Gateway, id_: str) -> dict[str, Any]:
    with gateway.state.read() as connection:
        found = connection.execute(select(tables.notifications).where(tables.notifications.c.id == id_)).mappings().one()
        return dict(found)


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["deliveries"]]


def test_the_newest_first_each_with_its_age(gateway: Gateway) -> None:
    row(gateway, "n-1", created_us=NOW_US - 2 * MINUTE_US)
    row(gateway, "n-2", created_us=NOW_US - MINUTE_US)
    answer = gateway.client().get("/api/v1/deliveries")
    assert ids(answer) == ["n-2", "n-1"]
    assert [one["age_s"] for one in answer.json()["deliveries"]] == [60, 120]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("state=dead", ["n-2"]),
        ("state=dead&state=queued", ["n-2", "n-3"]),
        ("contact=c-3", ["n-3"]),
        ("channel=line", ["n-2"]),
        ("page=p-1", ["n-1"]),
        ("state=dead&contact=c-3", []),
        ("limit=2", ["n-1", "n-2"]),
        ("limit=2&before=n-2", ["n-3"]),
    ],
)
def test_it_can_be_asked_for_some(gateway: Gateway, query: str, wanted: list[str]) -> None:
    with gateway.state.write() as connection:
        connection.execute(insert(tables.pages), PAGE)
    row(gateway, "n-1", page="p-1")
    row(gateway, "n-2", state="dead", channel="line")
    row(gateway, "n-3", state="queued", contact="c-3")
    assert ids(gateway.client().get(f"/api/v1/deliveries?{query}")) == wanted


PAGE = {"id": "p-1", "route": "main", "group_key": "g", "severity": "critical", "kind": "trap", "state": "asking", "needed": 2,
        "step": 1, "opened_us": NOW_US, "version": 1}  # fmt: skip


@pytest.mark.parametrize("query", ["state=lost", "channel=pigeon", "limit=0", "state=" + "&state=".join(["dead"] * 8)])
def test_a_question_that_makes_no_sense_is_refused(gateway: Gateway, query: str) -> None:
    assert gateway.client().get(f"/api/v1/deliveries?{query}").status_code == 422


def test_it_says_in_words_that_something_may_have_come_twice_or_came_after_all(gateway: Gateway) -> None:
    row(gateway, "n-1", possibly_twice=True)
    row(gateway, "n-2", state="failed_over", sent_us=NOW_US)
    row(gateway, "n-3", state="failed_over", sent_us=None)
    said = {one["id"]: one["said"] for one in gateway.client().get("/api/v1/deliveries").json()["deliveries"]}
    assert "may have arrived twice" in said["n-1"]
    assert "arrived after all" in said["n-2"]
    assert said["n-3"] == ""


def test_a_message_text_is_not_in_it(gateway: Gateway) -> None:
    row(gateway, "n-1", body='{"title": "a secret"}')
    assert "a secret" not in gateway.client().get("/api/v1/deliveries").text


def test_a_dead_letter_is_tried_again(gateway: Gateway) -> None:
    row(gateway, "n-1", state="dead", attempts=600, error="answered 503")
    answer = gateway.client().post("/api/v1/deliveries/n-1/retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert {name: stored(gateway, "n-1")[name] for name in ("state", "due_us", "attempts")} == {
        "state": "queued", "due_us": NOW_US, "attempts": 0,
    }  # fmt: skip


def test_a_dead_letter_is_put_away_with_who_and_why(gateway: Gateway) -> None:
    row(gateway, "n-1", state="dead", error="answered 410")
    answer = gateway.client().post("/api/v1/deliveries/n-1/dismiss", json={"why": "電話で伝えました"})
    assert (answer.status_code, answer.json()["state"]) == (200, "dropped")
    assert stored(gateway, "n-1")["error"] == "dismissed by tanaka: 電話で伝えました (was: answered 410)"


@pytest.mark.parametrize("state", ["queued", "sent", "seen", "answered", "failed_over", "dropped"])
@pytest.mark.parametrize("what", ["retry", "dismiss"])
def test_nothing_but_a_dead_letter_can_be_moved(gateway: Gateway, state: str, what: str) -> None:
    row(gateway, "n-1", state=state)
    before = stored(gateway, "n-1")
    answer = gateway.client().post(f"/api/v1/deliveries/n-1/{what}", json={"why": "x"})
    assert (answer.status_code, answer.json()["state"], stored(gateway, "n-1")) == (409, state, before)


def test_two_who_do_it_at_once_do_it_once(gateway: Gateway) -> None:
    row(gateway, "n-1", state="dead")
    client = gateway.client()
    assert [client.post("/api/v1/deliveries/n-1/retry").status_code for _ in range(2)] == [200, 409]


@pytest.mark.parametrize("what", ["retry", "dismiss"])
def test_one_that_is_not_there(gateway: Gateway, what: str) -> None:
    assert gateway.client().post(f"/api/v1/deliveries/n-9/{what}", json={"why": "x"}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"why": ""}, {"why": "x" * 201}, {"why": "x", "more": 1}, [], None])
def test_who_puts_one_away_says_why(gateway: Gateway, body: Any) -> None:
    row(gateway, "n-1", state="dead")
    assert gateway.client().post("/api/v1/deliveries/n-1/dismiss", json=body).status_code == 422
    assert stored(gateway, "n-1")["state"] == "dead"


@pytest.mark.parametrize("role", ["viewer", "node", "role-without-rights"])
def test_who_was_told_what_is_for_operators(gateway: Gateway, role: str) -> None:
    row(gateway, "n-1", state="dead")
    client = gateway.client(role)
    answers = [
        client.get("/api/v1/deliveries"),
        client.post("/api/v1/deliveries/n-1/retry"),
        client.post("/api/v1/deliveries/n-1/dismiss", json={"why": "x"}),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert stored(gateway, "n-1")["state"] == "dead"
