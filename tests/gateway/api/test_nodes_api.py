"""Nodes over HTTP: how they do, what they should run, what they are told to do, which rotating tags there are."""

import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from edge.contract.remote import Desired, Reported, normal_code
from edge.signature import believed
from gateway.nodes.commands import MAX_WAITING
from gateway.nodes.desired import commit_reports
from gateway.nodes.outgoing import Outgoing
from gateway.state import tables
from gateway.words import text
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway
from tests.gateway.nodes.boxes import Box, town
from tests.gateway.town import SIGNER

NODE = "kitayama-03"
DEVICES = {"trap-11": {"type": "reed_trap", "pin": 17}}
DESIRED, COMMANDS = f"/api/v1/nodes/{NODE}/desired", f"/api/v1/nodes/{NODE}/commands"
TAG = "/api/v1/rotating-tags/tag-1"
ENROLLED = {"key": "00112233445566778899aabbccddeeff", "exponent": 12, "zero_us": NOW_US - MINUTE_US}


class Rung:
    """Counts how often the gateway was woken."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def rung() -> Rung:
    return Rung()


@pytest.fixture
def operator(gateway: Gateway, rung: Rung) -> TestClient:
    gateway.insert(tables.nodes, agent="1.2.3", born_us=NOW_US, config_revision=0)
    return gateway.client(signer=SIGNER, ring=rung)


def test_how_every_node_does(gateway: Gateway, operator: TestClient) -> None:
    gateway.insert(tables.certificates)
    gateway.insert(tables.certificates, serial="02", not_after_us=NOW_US + 9 * MINUTE_US, revoked_us=NOW_US)
    gateway.insert(tables.certificates, serial="03", node="minami-01")
    gateway.insert(tables.nodes, node="canary")  # the gateway's own, no box
    operator.put(DESIRED, json={"device": DEVICES})

    shown = gateway.client("viewer").get("/api/v1/nodes").json()

    assert shown["now_us"] == NOW_US
    first, second = shown["nodes"]
    asked = first.pop("desired")
    assert first == {
        "node": NODE, "online": True, "offline_reason": None, "seen_us": NOW_US, "born_us": NOW_US, "agent": "1.2.3",
        "running": 0, "certificate_not_after_us": NOW_US + MINUTE_US,
    }  # fmt: skip
    assert (asked["revision"], asked["created_by"], asked["outcome"]) == (1, "tanaka", None)
    assert (second["node"], second["online"], second["desired"]) == ("minami-01", None, None), "claimed, never heard"


def test_what_is_asked_over_http_goes_down_and_its_outcome_is_shown(gateway: Gateway, operator: TestClient, rung: Rung) -> None:
    answer = operator.put(DESIRED, json={"device": DEVICES, "broker": {"keepalive_s": 60}})

    assert (answer.status_code, answer.json(), rung.times) == (202, {"node": NODE, "revision": 1}, 1)
    (down,) = Outgoing(gateway.state, SIGNER).messages(NOW_US, anew=True)
    statement, sha256 = believed(down.payload, [SIGNER.public], Desired, NODE)
    assert statement.device == DEVICES
    failed = Reported(revision=1, sha256=sha256, outcome="failed", running=0, reason="device.trap-11.pin: 17 is taken")
    with gateway.state.write() as connection:
        commit_reports(connection, [(NODE, failed, True)], NOW_US + 5)
    shown = operator.get(DESIRED).json()
    assert shown == {
        "node": NODE, "revision": 1, "sha256": sha256, "created_us": NOW_US, "created_by": "tanaka", "outcome": "failed",
        "reason": "device.trap-11.pin: 17 is taken", "reported_us": NOW_US + 5, "device": DEVICES, "broker": {"keepalive_s": 60},
    }  # fmt: skip


def test_two_operators_do_not_undo_each_others_work_unseen(operator: TestClient) -> None:
    assert operator.put(DESIRED, json={"device": DEVICES, "after": 0}).status_code == 202
    answer = operator.put(DESIRED, json={"device": DEVICES, "after": 0})
    assert (answer.status_code, answer.json()["revision"]) == (409, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (DESIRED, {"device": {}}, 422, "names no device"),
        (DESIRED, {"device": {"trap-11": {"type": "reed_trap", "pin": None}}}, 422, "device.trap-11.pin: is null"),
        (DESIRED, {"device": DEVICES, "broker": {"password": "x"}}, 422, "broker.password"),
        (DESIRED, {"device": DEVICES, "broker": {"url": "http://x"}}, 422, "broker.url"),
        ("/api/v1/nodes/kitayama-33/desired", {"device": DEVICES}, 404, "There is no node"),
        (COMMANDS, {"name": "explode"}, 422, "name"),
        (COMMANDS, {"name": "take_picture"}, 422, "say which"),
        (COMMANDS, {"name": "identify", "ttl_s": 1}, 422, "ttl_s"),
        ("/api/v1/nodes/kitayama-33/commands", {"name": "identify"}, 404, "There is no node"),
        (TAG, {**ENROLLED, "key": "0011"}, 422, "key"),
        (TAG, {**ENROLLED, "exponent": 3}, 422, "exponent"),
        (TAG, {**ENROLLED, "zero_us": NOW_US + 1}, 422, "zero_us"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(
    operator: TestClient, rung: Rung, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = operator.request("POST" if path.endswith("commands") else "PUT", f"{path}?lang=en", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert body.get("key", "no key") not in answer.text
    assert rung.times == 0


def test_what_cannot_be_is_said_in_the_readers_language(operator: TestClient) -> None:
    unknown = operator.put("/api/v1/nodes/kitayama-33/desired", json={"device": DEVICES}).json()["detail"]
    assert unknown == "'kitayama-33' という親機はありません。名前を確かめてください。"
    assert operator.put(DESIRED, json={"device": {}}).json()["detail"] == text("ja", "why.devices_none")
    inside = operator.put(DESIRED, json={"device": DEVICES, "broker": {"url": "http://x"}}).json()["detail"]
    assert inside.startswith("この設定は親機に送れません。直してから、もう一度送ってください。直すところ：broker.url")


def test_a_command_given_and_seen(operator: TestClient, rung: Rung) -> None:
    given = operator.post(COMMANDS, json={"name": "take_picture", "device": "cam-02", "ttl_s": 60})
    assert (given.status_code, rung.times) == (202, 1)
    shown = operator.get(COMMANDS).json()["commands"]
    assert shown == [given.json()]
    assert {name: shown[0][name] for name in ("name", "device", "issued_by", "expires_us", "state")} == {
        "name": "take_picture", "device": "cam-02", "issued_by": "tanaka", "expires_us": NOW_US + MINUTE_US, "state": "waiting"
    }  # fmt: skip


def test_a_ping_is_shown_with_its_round_trip_and_the_radios_strength(operator: TestClient, gateway: Gateway) -> None:
    given = operator.post(COMMANDS, json={"name": "ping", "ttl_s": 10}).json()
    assert (given["round_trip_ms"], given["rssi_dbm"]) == (None, None)
    with gateway.state.write() as connection:
        connection.execute(update(tables.commands).values(state="done", answered_us=NOW_US + 43_000, rssi_dbm=-97))
    (shown,) = operator.get(COMMANDS).json()["commands"]
    assert (shown["state"], shown["round_trip_ms"], shown["rssi_dbm"]) == ("done", 43, -97)


def test_too_many_unanswered_commands_are_put_off(operator: TestClient) -> None:
    given = [operator.post(COMMANDS, json={"name": "identify"}) for _ in range(MAX_WAITING + 1)]
    assert [one.status_code for one in given] == [202] * MAX_WAITING + [429]
    assert given[-1].headers["Retry-After"]


def test_a_rotating_tag_comes_and_goes_and_its_key_is_never_shown(operator: TestClient, rung: Rung) -> None:
    shown = {"tag": "tag-1", "exponent": 12, "zero_us": ENROLLED["zero_us"]}
    assert operator.put(TAG, json=ENROLLED).json() == shown
    assert operator.get("/api/v1/rotating-tags").json() == {"tags": [shown]}
    assert operator.delete(TAG).status_code == 204
    assert operator.get("/api/v1/rotating-tags").json() == {"tags": []}
    assert operator.delete(TAG).status_code == 404
    assert rung.times == 2


def test_a_gateway_that_does_not_care_for_nodes_says_so(gateway: Gateway) -> None:
    gateway.insert(tables.nodes)
    client = gateway.client()
    answers = [
        client.put(DESIRED, json={"device": DEVICES}),
        client.post(COMMANDS, json={"name": "identify"}),
        client.put(TAG, json=ENROLLED),
    ]
    for answer in answers:
        assert answer.status_code == 404
        assert "[nodes]" in answer.json()["detail"]
    assert client.get("/api/v1/nodes").status_code == 200
    assert client.get(DESIRED).status_code == 404


def test_a_viewer_sees_how_nodes_do_and_changes_nothing(gateway: Gateway) -> None:
    viewer = gateway.client("viewer", signer=SIGNER)
    assert viewer.get("/api/v1/nodes").status_code == 200
    for method, path in (
        ("GET", DESIRED), ("PUT", DESIRED), ("GET", COMMANDS), ("POST", COMMANDS), ("GET", "/api/v1/rotating-tags"),
        ("PUT", TAG), ("DELETE", TAG),
    ):  # fmt: skip
        assert viewer.request(method, path).status_code == 403, (method, path)


@given(st.binary(max_size=60) | st.integers(100, 20_000).map(lambda deep: b'{"device":' + b"[" * deep))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_no_body_breaks_the_gateway(operator: TestClient, body: bytes) -> None:
    for method, path in (("PUT", DESIRED), ("POST", COMMANDS), ("PUT", TAG)):
        answer = operator.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500


# --- Who becomes a node, and who is one no longer -----------------------------------------------------


def test_a_code_from_the_page_makes_a_box_a_node_and_the_page_ends_it(gateway: Gateway, tmp_path: Path) -> None:
    with town(tmp_path / "town") as here:
        operator = gateway.client(claims=here.care.claims, taken_names=frozenset({"gateway.example"}))
        made = operator.post(f"/api/v1/nodes/{NODE}/claim", json={"hours": 1})
        assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
        assert made.json()["expires_us"] == here.now_us + 60 * MINUTE_US
        code = made.json()["code"]
        assert urllib.parse.parse_qs(made.json()["qr"].split("?")[1]) == {
            "u": ["https://localhost:8443"],
            "c": [normal_code(code)],
            "n": [NODE],
        }
        assert Box().claimed(here, normal_code(code)).node == NODE

        ended = operator.post(f"/api/v1/nodes/{NODE}/revoke", json={"why": "stolen"})
        assert (ended.status_code, ended.json()) == (200, {"node": NODE, "certificates": 1, "codes": 1, "fault": None})
        assert [row.revoked_why for row in here.rows(tables.certificates)] == ["tanaka: stolen"]
        crl = x509.load_pem_x509_crl((here.folder / "crl.pem").read_bytes())
        assert len(list(crl)) == 1, "the broker can know"
        assert operator.post(f"/api/v1/nodes/{NODE}/revoke", json={"why": "again"}).status_code == 404
        for taken in ("gateway.example", "gateway", "satomori-x"):
            assert operator.post(f"/api/v1/nodes/{taken}/claim", json={}).status_code == 422
        for role in ("viewer", "node"):
            client = gateway.client(role, claims=here.care.claims)
            assert client.post(f"/api/v1/nodes/{NODE}/claim", json={}).status_code == 403
            assert client.post(f"/api/v1/nodes/{NODE}/revoke", json={"why": "x"}).status_code == 403
    assert gateway.client().post(f"/api/v1/nodes/{NODE}/claim", json={}).status_code == 404
