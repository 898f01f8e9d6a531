"""What people and programs change through the API is in the trail before it is done; officers read it, and nobody else."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError

from gateway.audit.acts import things_in
from gateway.audit.verify import verify
from gateway.policy import Actor
from gateway.state import State, open_state, tables
from tests.gateway.api.conftest import NOW_US, Gateway


def trail(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = gateway.client().get(f"/api/v1/audit{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def test_an_act_stands_there_with_who_and_to_what_and_not_with_what_was_sent(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    assert gateway.client().post("/api/v1/alerts/a-1/acknowledge", json={"why": "向かいます"}).status_code == 200
    [one] = trail(gateway)
    assert (one["who"], one["action"], one["thing"]) == ("token:tanaka", "alert.acknowledge", "alert/a-1")
    assert (one["at_us"], one["more"]) == (NOW_US, {"route": "POST /alerts/{id}/acknowledge"})
    assert "向かいます" not in str(one)


def test_what_was_tried_and_failed_stands_there_too(gateway: Gateway) -> None:
    assert gateway.client().post("/api/v1/alerts/nothing/resolve", json={"why": "x"}).status_code == 404
    [one] = trail(gateway)
    assert (one["thing"], one["outcome"], one["status"]) == ("alert/nothing", "refused", 404)


def test_an_officer_reads_what_came_of_it(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.insert(tables.alerts)
    client = gateway.client()
    for body, status in (({"why": ""}, 422), ({"why": "向かいます"}, 200), ({"why": "向かいます"}, 409)):
        assert client.post("/api/v1/alerts/a-1/resolve", json=body).status_code == status

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("gateway.api.alerts.acknowledge", broken)
    gateway.insert(tables.alerts, id="a-2", opening="0:2")
    assert client.post("/api/v1/alerts/a-2/acknowledge").status_code == 500
    found = [(one["thing"], one["outcome"], one["status"]) for one in trail(gateway)]
    assert found == [
        ("alert/a-2", "failed", 500), ("alert/a-1", "refused", 409), ("alert/a-1", "done", 200), ("alert/a-1", "refused", 422),
    ]  # fmt: skip


def test_what_came_of_it_names_nobody_and_the_chain_holds_it(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    gateway.client().post("/api/v1/alerts/a-1/acknowledge")
    with gateway.state.read() as connection:
        rows = connection.execute(select(tables.audit_details).order_by(tables.audit_details.c.id)).all()
    assert [(row.who, row.action, row.thing) for row in rows][1:] == [("gateway", "outcome", "entry/1")]
    assert verify(gateway.state)[:2] == (2, 0)


def test_a_job_names_whose_it_is_and_which_nodes_it_opens(gateway: Gateway) -> None:
    with gateway.state.write() as connection:
        row = {"id": "1" * 16, "name": "小林", "roles": "installer", "created_us": 0, "created_by": "test"}
        connection.execute(insert(tables.accounts).values(row))
    wanted = {"account": "1" * 16, "label": "北山", "nodes": ["kita-2", "kita-1"], "until_us": NOW_US + 60_000_000}
    job = gateway.client().post("/api/v1/jobs", json=wanted).json()["id"]
    gateway.client().post(f"/api/v1/jobs/{job}/end")
    gateway.client().post(f"/api/v1/jobs/{job}/end")  # has ended: nothing is done, and nothing entered
    found = trail(gateway, "?thing=node/kita-1")
    assert [(one["who"], one["action"], one["thing"]) for one in found] == [
        ("token:tanaka", "job.end", f"job/{job}"), ("token:tanaka", "job.add", f"job/{job}"),
    ]  # fmt: skip
    assert found[1]["more"] == {"with": ["account/" + "1" * 16, "node/kita-1", "node/kita-2"]}
    assert (found[1]["outcome"], found[1]["status"]) == (None, None)


def test_what_is_refused_or_only_read_leaves_no_entry(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    assert gateway.client("viewer").post("/api/v1/alerts/a-1/acknowledge").status_code == 403
    gateway.client().get("/api/v1/alerts")
    gateway.client().head("/api/v1/alerts")
    assert trail(gateway) == []


def test_about_a_person_it_is_found_and_erased_by_the_person(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, id="a-2", node="watched", device="ab" * 8, kind="watched")
    gateway.client().post("/api/v1/alerts/a-2/acknowledge")
    [one] = trail(gateway, f"?thing=watched/{'ab' * 8}&action=alert.acknowledge")
    assert one["thing"] == "alert/a-2"


def test_an_act_that_can_not_be_written_down_is_not_done(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.insert(tables.alerts)

    def full(*_: object, **__: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk is full"))

    client = gateway.client()
    monkeypatch.setattr("gateway.api.deps.noted", full)
    assert client.post("/api/v1/alerts/a-1/acknowledge").status_code >= 500
    monkeypatch.undo()
    assert client.get("/api/v1/alerts/a-1").json()["state"] == "firing"


def test_it_is_read_page_by_page_and_by_who_and_what(gateway: Gateway) -> None:
    for at in range(5):
        gateway.client().post(f"/api/v1/alerts/a-{at}/acknowledge")
    first = gateway.client().get("/api/v1/audit?limit=2").json()
    assert [one["thing"] for one in first["entries"]] == ["alert/a-4", "alert/a-3"]
    rest = trail(gateway, f"?before={first['next_before']}")
    assert [one["thing"] for one in rest] == ["alert/a-2", "alert/a-1", "alert/a-0"]
    assert [one["id"] for one in trail(gateway, "?thing=alert/a-0")] == [rest[-1]["id"]]
    assert trail(gateway, "?who=token:somebody") == []
    assert len(trail(gateway, "?who=token:tanaka&action=alert.acknowledge")) == 5


@pytest.mark.parametrize("role", ["viewer", "node"])
def test_nobody_but_an_officer_reads_it(gateway: Gateway, role: str) -> None:
    assert gateway.client(role).get("/api/v1/audit").status_code == 403
    operator = Actor("op", frozenset({"operator"}))
    tokens = gateway.deps.tokens.__class__({"operators-own-token-12345": operator})
    client = gateway.client(None, tokens=tokens)
    assert client.get("/api/v1/audit", headers={"Authorization": "Bearer operators-own-token-12345"}).status_code == 403


def test_a_machine_that_hands_in_pictures_fills_no_trail(gateway: Gateway) -> None:
    gateway.client("node").put(f"/api/v1/media/{'a' * 64}", content=b"x")
    assert trail(gateway) == []


@pytest.mark.parametrize(
    ("path", "parameters", "things"),
    [
        ("/api/v1/alerts/{id}/acknowledge", {"id": "a-1"}, ["alert/a-1"]),
        ("/api/v1/watched/{id}/tags/{tag}", {"id": "ab", "tag": "x:1"}, ["watched/ab", "tag/x:1"]),
        ("/api/v1/traps/{node}/{device}/visits", {"node": "n", "device": "d"}, ["trap/n/d"]),
        ("/api/v1/deliveries/{id}/retry", {"id": "n-1"}, ["delivery/n-1"]),
        ("/api/v1/town/mode", {}, []),
    ],
)
def test_a_path_says_what_it_is_about(path: str, parameters: dict[str, str], things: list[str]) -> None:
    assert things_in(path, parameters) == things


KILLED = """
import os, signal, sys
from pathlib import Path
from unittest.mock import MagicMock
from fastapi.testclient import TestClient
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.policy import Actor
from gateway.state import open_state
from gateway.telemetry import Telemetry
import gateway.api.alerts as alerts

folder = Path(sys.argv[1])
state = open_state(f"sqlite:///{folder / 'state.db'}")
alerts.acknowledge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
deps = Deps(state=state, store=MagicMock(), feed=Feed(), media=MediaShelf(folder / "media", state, lambda: 1, 1),
            tokens=Tokens({"t" * 24: Actor("tanaka", frozenset({"operator"}))}), telemetry=Telemetry(), now_us=lambda: 1_000_000,
            health=dict)
TestClient(create_app(deps), headers={"Authorization": "Bearer " + "t" * 24}).post("/api/v1/alerts/a-1/acknowledge")
"""


@pytest.mark.sqlite_only("a process of its own opens the file")
def test_killed_in_the_act_there_is_the_entry_and_not_the_act(gateway: Gateway, tmp_path: Path) -> None:
    gateway.insert(tables.alerts)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], cwd=Path(__file__).parents[3], check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    again: State = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    try:
        found = verify(again)
        assert (found.entries, found.fault) == (1, None)
    finally:
        again.close()
    [one] = trail(gateway)
    assert (one["action"], one["thing"], one["outcome"]) == ("alert.acknowledge", "alert/a-1", "unknown")
    assert gateway.client().get("/api/v1/alerts/a-1").json()["state"] == "firing"
