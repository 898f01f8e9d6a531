"""Traps over HTTP: how they stand, visits that may be sent again, dossiers, and what people say of pictures."""

import hashlib
from typing import Any

import pytest

from gateway.state import tables
from tests.gateway.api.conftest import BEARER, MINUTE_US, NOW_US, Gateway

ID = "7d2f3c1e-0000-4000-8000-000000000001"
VISIT = {"id": ID, "node": "kitayama-03", "device": "trap-11", "result": "set"}
FIELDS: dict[str, Any] = {"species": "boar", "sex": "female", "weight_kg": 42.5, "disposal": "buried", "note": ""}


def photo_of(item: str) -> bytes:
    """A JPEG, as far as its bytes go."""
    return b"\xff\xd8\xff\xda\0\2 a picture of " + item.encode() + b" \xff\xd9"


def send_picture(gateway: Gateway, content: bytes, content_type: str = "image/jpeg") -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    answer = gateway.client().patch(
        f"/api/v1/media/{sha256}",
        content=content,
        headers={"Upload-Offset": "0", "Upload-Length": str(len(content)), "Content-Type": content_type, **BEARER["operator"]},
    )
    assert answer.status_code == 200
    return sha256


def open_dossier(gateway: Gateway, id_: str = ID) -> str:
    answer = gateway.client().post("/api/v1/visits", json={**VISIT, "id": id_, "result": "capture"})
    assert answer.status_code == 201
    capture: str = answer.json()["capture"]
    return capture


def rows(gateway: Gateway, table: Any) -> list[Any]:
    with gateway.state.read() as connection:
        return list(connection.execute(table.select()))


def test_a_trap_that_nobody_has_heard_is_unknown_and_says_so(gateway: Gateway) -> None:
    said = gateway.client("viewer").get("/api/v1/traps").json()
    assert said["now_us"] == NOW_US
    [trap] = said["traps"]
    assert (trap["place"], trap["label"], trap["state"], trap["heard_age_s"], trap["overdue"]) == (
        "北尾根", "3番", "unknown", None, None
    )  # fmt: skip


def test_a_trap_that_was_heard_says_how_long_ago(gateway: Gateway) -> None:
    gateway.insert(tables.latest, received_us=NOW_US - MINUTE_US)
    [trap] = gateway.client().get("/api/v1/traps").json()["traps"]
    assert (trap["state"], trap["heard_age_s"], trap["switch"]) == ("set", 60.0, "set")
    assert gateway.client().get("/api/v1/traps?overdue=true").json()["traps"] == []


def test_a_visit_is_entered_once_however_often_it_is_sent(gateway: Gateway) -> None:
    first = gateway.client().post("/api/v1/visits", json=VISIT)
    assert (first.status_code, first.json()["who"], first.json()["at_us"]) == (201, "tanaka", NOW_US)
    gateway.now_us += MINUTE_US
    assert gateway.client().post("/api/v1/visits", json=VISIT).json() == first.json()
    assert gateway.client().get("/api/v1/visits").json()["visits"] == [first.json()]
    assert [row.type for row in rows(gateway, tables.events)] == ["trap_visited"]


def test_the_live_stream_hears_of_a_visit_but_not_who_it_was(gateway: Gateway) -> None:
    heard: list[Any] = []
    gateway.deps.feed.say = lambda kind, body: heard.append((kind, body))  # type: ignore[method-assign]
    gateway.client().post("/api/v1/visits", json={**VISIT, "who": "Example Hanako"})
    [(kind, body)] = heard
    assert (kind, body["type"]) == ("event", "trap_visited")
    assert "Example" not in str(body)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"id": "7"}, 422),
        ({"device": "Trap 11"}, 422),
        ({"device": "trap-99"}, 404),
        ({"result": "caught"}, 422),
        ({"at_us": NOW_US + 60 * MINUTE_US}, 409),
        ({"at_us": NOW_US - 40 * 24 * 60 * MINUTE_US}, 409),
        ({"colour": "red"}, 422),
    ],
)
def test_a_visit_that_can_not_be_is_refused_plainly_and_nothing_is_entered(
    gateway: Gateway, changed: dict[str, Any], status: int
) -> None:
    answer = gateway.client().post("/api/v1/visits", json={**VISIT, **changed})
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert rows(gateway, tables.visits) == rows(gateway, tables.events) == []


def test_another_visit_under_the_same_id_is_refused(gateway: Gateway) -> None:
    gateway.client().post("/api/v1/visits", json=VISIT)
    assert gateway.client().post("/api/v1/visits", json={**VISIT, "result": "capture"}).status_code == 409
    assert rows(gateway, tables.captures) == []


def test_a_capture_becomes_a_whole_dossier(gateway: Gateway) -> None:
    client, id_ = gateway.client(), open_dossier(gateway)
    for item in ("whole", "board", "tail"):
        sha256 = send_picture(gateway, photo_of(item))
        assert client.post(f"/api/v1/captures/{id_}/photos", json={"sha256": sha256, "item": item}).status_code == 201
    early = client.put(f"/api/v1/captures/{id_}", json={**FIELDS, "weight_kg": None, "complete": True})
    assert (early.status_code, early.json()["missing"]) == (409, "weight_kg")
    done = client.put(f"/api/v1/captures/{id_}", json={**FIELDS, "complete": True})
    assert (done.status_code, done.json()["missing"], done.json()["completed_by"]) == (200, [], "tanaka")
    assert client.put(f"/api/v1/captures/{id_}", json=FIELDS).status_code == 409
    assert [one["id"] for one in client.get("/api/v1/captures?complete=true").json()["captures"]] == [id_]
    assert client.get("/api/v1/captures?complete=false").json()["captures"] == []


def test_a_picture_of_another_capture_is_refused_and_so_is_one_that_is_not_here(gateway: Gateway) -> None:
    client, first, second = gateway.client(), open_dossier(gateway), open_dossier(gateway, ID[:-1] + "2")
    assert first != second
    sha256 = send_picture(gateway, photo_of("whole"))
    photo = {"sha256": sha256, "item": "whole"}
    assert client.post(f"/api/v1/captures/{first}/photos", json=photo).status_code == 201
    assert client.post(f"/api/v1/captures/{first}/photos", json=photo).status_code == 201
    refused = client.post(f"/api/v1/captures/{second}/photos", json=photo)
    assert (refused.status_code, first in refused.text) == (409, False)
    assert client.post(f"/api/v1/captures/{second}/photos", json={**photo, "sha256": "0" * 64}).status_code == 404
    video = send_picture(gateway, b"\0\0\0\x0cftypmp42", "video/mp4")
    assert client.post(f"/api/v1/captures/{second}/photos", json={**photo, "sha256": video}).status_code == 404


def test_who_looked_at_an_older_dossier_is_told_so(gateway: Gateway) -> None:
    client, id_ = gateway.client(), open_dossier(gateway)
    seen = client.get(f"/api/v1/captures/{id_}").json()["seen"]
    assert client.put(f"/api/v1/captures/{id_}", json={**FIELDS, "seen": seen}).status_code == 200
    assert client.put(f"/api/v1/captures/{id_}", json={**FIELDS, "species": "deer", "seen": seen}).status_code == 409
    assert client.get(f"/api/v1/captures/{id_}").json()["species"] == "boar"


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "-1", "0", "5000"])
def test_a_weight_that_is_none_is_refused(gateway: Gateway, weight: str) -> None:
    id_ = open_dossier(gateway)
    answer = gateway.client().put(
        f"/api/v1/captures/{id_}", content=f'{{"weight_kg": {weight}}}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_a_dossier_that_is_none(gateway: Gateway) -> None:
    for method, path in (("get", ""), ("put", "")):
        answer = gateway.client().request(method, f"/api/v1/captures/{ID}{path}", json=FIELDS if method == "put" else None)
        assert answer.status_code == 404


def test_what_a_person_says_of_a_picture_is_kept_beside_the_models_word(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, content="animal", species="boar")
    said = gateway.client().post(f"/api/v1/media/{'a' * 64}/confirm", json={"content": "animal", "species": "bear"})
    [correction] = said.json()["corrections"]
    assert (correction["species"], correction["confirmed_species"], correction["confirmed_by"]) == ("boar", "bear", "tanaka")
    assert gateway.client().get("/api/v1/corrections?wrong=true").json()["corrections"] == [correction]
    gateway.client().post(f"/api/v1/media/{'a' * 64}/confirm", json={"content": "animal", "species": "boar"})
    assert gateway.client().get("/api/v1/corrections?wrong=true").json()["corrections"] == []
    assert len(gateway.client().get("/api/v1/corrections").json()["corrections"]) == 1
    assert gateway.client().post(f"/api/v1/media/{'b' * 64}/confirm", json={"content": "animal"}).status_code == 404


@pytest.mark.parametrize("role", ["viewer", "node"])
def test_names_and_papers_are_for_operators(gateway: Gateway, role: str) -> None:
    client = gateway.client(role)
    for method, path in (
        ("GET", "/visits"), ("POST", "/visits"), ("GET", "/captures"), ("GET", f"/captures/{ID}"), ("PUT", f"/captures/{ID}"),
        ("POST", f"/captures/{ID}/photos"), ("POST", f"/media/{'a' * 64}/confirm"), ("GET", "/corrections"),
    ):  # fmt: skip
        assert client.request(method, f"/api/v1{path}", json={}).status_code == 403, path
