"""What an installer's phone tells over the API: kept once, shown to whom it concerns, with photos that lead to nothing else."""

import hashlib
from typing import Any

import pytest
from limits import parse
from sqlalchemy import insert, update

from gateway.accounts.limits import RULES, UPLOAD_BYTES
from gateway.state import tables
from tests.gateway.api import policed
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway
from tests.gateway.api.policed import HOUR_US, JOB, NODE, OTHER_NODE, PICTURE, STRANGERS, Town

ID, OTHER_ID = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PHOTO = b"\xff\xd8\xff\xda\0\2 a photo of a trap \xff\xd9"
SHA = hashlib.sha256(PHOTO).hexdigest()
WHOLE: dict[str, Any] = {
    "device": "trap-11", "begun_us": NOW_US - MINUTE_US, "lat": 36.1046, "lon": 140.0846, "accuracy_m": 4.5, "note": "杉の北側",
    "signal": [[212.5, -97], [None, None]], "self_test": "good", "tripped_us": NOW_US,
}  # fmt: skip


@pytest.fixture
def town(gateway: Gateway) -> Town:
    return Town(gateway)


def put(town: Town, role: Any = "installer", node: str = NODE, id_: str = ID, **changed: Any) -> Any:
    return town.client(role).put(f"/api/v1/nodes/{node}/installations/{id_}", json={**WHOLE, **changed})


def seen_by(town: Town, role: Any, query: str = "") -> set[str]:
    return {one["id"] for one in town.get(role, f"installations{query}")["installations"]}


def send(town: Town, role: str, content: bytes = PHOTO, kind: str = "image/jpeg") -> int:
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(content)), "Content-Type": kind}
    path = f"/api/v1/media/{hashlib.sha256(content).hexdigest()}"
    return int(town.client(role).patch(path, content=content, headers=headers).status_code)


def opens(town: Town, role: Any, sha256: str = SHA) -> bool:
    status = town.client(role).get(f"/api/v1/media/{sha256}").status_code
    assert status in (200, 403)
    return bool(status == 200)


def test_what_is_sent_again_is_kept_once_and_never_changed(town: Town) -> None:
    first, again = put(town), put(town)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert {**first.json(), "told": []} == {
        "id": ID, "node": NODE, "device": "trap-11", "place": "北尾根", "label": "3番", "state": "waiting", "by": "kobayashi",
        "begun_us": NOW_US - MINUTE_US, "received_us": NOW_US, "ended_us": None, "at": [36.1046, 140.0846], "accuracy_m": 4.5,
        "note": "杉の北側", "photos": [], "signal": [[212.5, -97], [None, None]], "self_test": "good", "tripped_us": NOW_US,
        "why": "", "told": [], "answered_by": None, "superseded_by": None,
    }  # fmt: skip
    for other in (put(town, note="杉の南側"), put(town, "operator")):
        assert other.status_code == 409
        assert "別の内容" in other.json()["detail"]
    assert town.get("installer", "installations")["installations"] == [first.json()]


def test_a_later_word_of_the_same_device_stands_beside_the_earlier_one_and_supersedes_it(town: Town) -> None:
    put(town)
    again: dict[str, Any] = {
        "begun_us": NOW_US - MINUTE_US // 2, "tripped_us": None, "signal": [], "self_test": None, "lat": None, "lon": None,
        "accuracy_m": None, "note": "", "revisit": "板が外れた",
    }  # fmt: skip
    assert put(town, id_=OTHER_ID, **again).status_code == 201
    assert put(town, node=NODE, id_="33333333-3333-4333-8333-333333333333", **{**again, "device": "trap-12"}).status_code == 201
    said = {one["id"][0]: one for one in town.get("installer", "installations")["installations"]}
    assert (said["1"]["state"], said["1"]["superseded_by"]) == ("waiting", OTHER_ID)
    assert (said["2"]["state"], said["2"]["why"], said["2"]["superseded_by"]) == ("revisit", "板が外れた", None)
    assert put(town).json() == said["1"], "what was sent first still is what it was"


def test_an_installer_records_at_the_nodes_of_her_job_only(town: Town) -> None:
    assert put(town, node=OTHER_NODE).status_code == 403
    assert put(town, STRANGERS["installer"]).status_code == 403
    assert put(town, "farmer").status_code == 403
    assert put(town, "officer", OTHER_NODE).status_code == 201
    assert seen_by(town, "installer") == set(), "that node is none of hers"


def test_who_sees_what_was_put_up(town: Town) -> None:
    put(town)
    put(town, "operator", OTHER_NODE, OTHER_ID, revisit="雪が深い")
    assert seen_by(town, "officer") == seen_by(town, "operator") == {ID, OTHER_ID}
    assert seen_by(town, "installer") == {ID}
    assert seen_by(town, STRANGERS["installer"]) == set()
    assert town.client("viewer").get("/api/v1/installations").status_code == 403
    assert (seen_by(town, "officer", "?state=revisit"), seen_by(town, "officer", "?state=done")) == ({OTHER_ID}, set())
    assert town.client("officer").get("/api/v1/installations?state=perhaps").status_code == 422

    with town.write() as connection:
        connection.execute(update(tables.jobs).values(ended_us=NOW_US))
    assert seen_by(town, "installer") == {ID}, "her own stays in her sight"
    assert put(town, id_=OTHER_ID.replace("2", "3")).status_code == 403
    assert put(town).status_code == 200, "a phone that has not heard that it is kept hears it now"
    assert put(town, STRANGERS["installer"]).status_code == 403


@pytest.mark.parametrize("wrong", [
    {"lat": 91.0}, {"lon": None}, {"lat": "36"}, {"accuracy_m": -1.0}, {"device": "Trap 11"}, {"begun_us": 0}, {"begun_us": True},
    {"photos": ["x"]}, {"photos": [SHA] * 9}, {"signal": [[1.0, 1]] * 31}, {"signal": [[-1.0, None]]}, {"signal": [[1.0]]},
    {"self_test": "perhaps"}, {"note": "x" * 1001}, {"state": "done"}, {"told": ["田中"]},
])  # fmt: skip
def test_a_wrong_body_is_refused_and_nothing_of_it_kept(town: Town, wrong: dict[str, Any]) -> None:
    answer = put(town, **wrong)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert seen_by(town, "officer") == set()


def test_an_id_is_a_uuid_and_a_node_no_person(town: Town) -> None:
    assert put(town, id_="mine").status_code == 422
    assert put(town, "officer", "watched").status_code == 422
    assert seen_by(town, "officer") == set()


def test_a_photo_is_sent_first_and_opens_to_who_may_see_the_installation(town: Town) -> None:
    unsent = put(town, photos=[SHA])
    assert (unsent.status_code, seen_by(town, "officer")) == (409, set())
    assert "先に写真" in unsent.json()["detail"]

    assert send(town, "installer") == 200
    assert not opens(town, "installer"), "nothing says yet what it is of"
    assert put(town, photos=[SHA]).status_code == 201
    assert put(town, photos=[SHA]).status_code == 200
    assert all(opens(town, role) for role in ("installer", "operator", "officer"))
    assert not any(opens(town, role) for role in ("viewer", "farmer", STRANGERS["installer"], STRANGERS["farmer"]))

    with town.write() as connection:
        connection.execute(update(tables.jobs).values(ended_us=NOW_US))
    assert opens(town, "installer"), "who took it sees it after the job"
    assert not opens(town, STRANGERS["installer"])


def test_a_node_s_diagnostics_are_no_photo(town: Town) -> None:
    diagnostics = b"\x1f\x8b invented"
    assert send(town, "node", diagnostics, kind="application/gzip") == 200
    assert put(town, photos=[hashlib.sha256(diagnostics).hexdigest()]).status_code == 422
    assert seen_by(town, "officer") == set()


def test_nobody_opens_a_camera_s_picture_by_calling_it_a_photo_of_theirs(town: Town) -> None:
    """Of the picture the events tell its number, and a person may be in it."""
    assert send(town, "node") == 200
    with town.write() as connection:
        row = {"sha256": SHA, "node": NODE, "device": "cam-02", "content": "unsure", "withheld": False, "captured_us": NOW_US}
        connection.execute(insert(tables.pictures), row)
    claimed = put(town, photos=[SHA])
    assert (claimed.status_code, seen_by(town, "officer")) == (422, set())
    assert not opens(town, "installer")


def test_a_picture_of_which_a_camera_tells_later_is_that_camera_s(town: Town) -> None:
    send(town, "node")
    assert put(town, photos=[SHA]).status_code == 201
    assert opens(town, "installer")
    with town.write() as connection:
        row = {"sha256": SHA, "node": NODE, "device": "cam-02", "content": "unsure", "withheld": False, "captured_us": NOW_US}
        connection.execute(insert(tables.pictures), row)
    assert not opens(town, "installer")
    assert opens(town, "officer")


@pytest.mark.parametrize(("role", "may"), [
    ("installer", True), ("farmer", True), ("hunter", True), ("officer", True), ("operator", True), ("node", True),
    ("family", False), ("volunteer", False), ("viewer", False),
])  # fmt: skip
def test_who_takes_photos_sends_them_and_not_more_than_a_picture_has(town: Town, role: str, may: bool) -> None:
    assert send(town, role) == (200 if may else 403)
    assert send(town, role, b"\xff" * (town.gateway.deps.media.limit_bytes + 1)) == (413 if may else 403)


def test_nobody_fills_the_disk_in_a_day_and_a_node_s_pictures_are_no_person_s(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RULES["upload"].amount * UPLOAD_BYTES == 500 * 2**20
    monkeypatch.setitem(RULES, "upload", parse("4/1 day"))
    photos = [PHOTO + bytes([number]) * UPLOAD_BYTES for number in range(4)]  # two shares each
    assert [send(town, "installer", photo) for photo in photos] == [200, 200, 429, 429]
    assert send(town, "installer", photos[0]) == 200, "what is here need not be sent"
    assert [send(town, role, photos[2]) for role in ("farmer", "operator", "node")] == [200, 200, 200]

    headers = {"Upload-Offset": "0", "Upload-Length": "1", "Content-Type": "image/jpeg"}
    refused = town.client("installer").patch(f"/api/v1/media/{'d' * 64}", content=b"x", headers=headers)
    assert refused.headers["Retry-After"] == "86400"
    assert "明日もう一度" in refused.json()["detail"]
    town.gateway.now_us += 24 * HOUR_US
    assert send(town, "installer", photos[3]) == 200


def test_more_than_is_left_is_taken_once_and_then_no_more(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request brings is known at its end: it spends what is left, and does not go uncounted."""
    monkeypatch.setitem(RULES, "upload", parse("3/1 day"))
    photos = [PHOTO + bytes([number]) * UPLOAD_BYTES for number in range(3)]
    assert [send(town, "installer", photo) for photo in photos] == [200, 200, 429]


def test_what_does_not_have_the_number_it_was_sent_under_is_not_taken(town: Town) -> None:
    headers = {"Upload-Offset": "0", "Upload-Length": "5", "Content-Type": "image/jpeg"}
    answer = town.client("installer").patch(f"/api/v1/media/{PICTURE}", content=b"wrong", headers=headers)
    assert answer.status_code == 422
    assert town.gateway.deps.media.find(PICTURE) is None


def test_a_device_stands_where_it_was_measured_last_else_where_it_was_meant_to(town: Town) -> None:
    def at(device: str) -> Any:
        [found] = [one for one in town.get("installer", "devices")["devices"] if one["device"] == device]
        return found["at"]

    assert at("trap-11") is None
    assert put(town, begun_us=NOW_US - 2 * MINUTE_US).status_code == 201
    assert put(town, id_=OTHER_ID, lat=36.2, lon=140.1).status_code == 201
    assert put(town, id_=OTHER_ID.replace("2", "3"), begun_us=NOW_US, lat=None, lon=None).status_code == 201
    assert (at("trap-11"), at("cam-02")) == ([36.2, 140.1], None), "one without a place changes none"

    assert put(town, id_=OTHER_ID.replace("2", "4"), begun_us=NOW_US + 9999 * MINUTE_US).status_code == 201
    town.gateway.now_us += MINUTE_US
    assert put(town, id_=OTHER_ID.replace("2", "5"), begun_us=NOW_US + MINUTE_US, lat=36.3, lon=140.2).status_code == 201
    assert at("trap-11") == [36.3, 140.2], "a phone whose clock was ahead is not the newest for ever"


def test_a_job_carries_what_is_to_stand_at_its_nodes(town: Town) -> None:
    put(town)
    [job] = town.get("installer", "jobs")["jobs"]
    assert job["id"] == JOB
    assert job["devices"] == [
        {"node": NODE, "device": "trap-11", "kind": "trap", "place": "北尾根", "label": "3番", "at": [36.1046, 140.0846]},
        {"node": NODE, "device": "cam-02", "kind": "camera", "place": "北尾根", "label": "", "at": None},
    ]
    assert policed.OTHER_TRAP[1] not in str(job)
