"""Who may open a picture: everybody who may see pictures where no person is in it, and nobody else before somebody has looked."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from gateway.state import tables
from tests.gateway.api.conftest import NOW_US, Gateway
from tests.gateway.town import NODE, Killed, Town, batch, event

PICTURE = b"\xff\xd8\xff\xda\0\2 a picture \xff\xd9"
SHA = hashlib.sha256(PICTURE).hexdigest()
PATH = f"/api/v1/media/{SHA}"
CLEAR = f"{PATH}/clear"


def upload(gateway: Gateway, content_type: str = "image/jpeg") -> int:
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(PICTURE)), "Content-Type": content_type}
    return int(gateway.client("node").patch(PATH, content=PICTURE, headers=headers).status_code)


def opens(client: TestClient) -> bool:
    answer = client.get(PATH)
    assert answer.status_code in (200, 403)
    assert (answer.content == PICTURE) == (answer.status_code == 200)
    return bool(answer.status_code == 200)


@pytest.mark.parametrize(
    ("content", "everybodys"), [("animal", True), ("unclassified", False), ("unsure", False), ("person_or_vehicle", False)]
)
def test_only_an_animal_opens_to_everybody_before_somebody_has_looked(gateway: Gateway, content: str, everybodys: bool) -> None:
    gateway.insert(tables.pictures, sha256=SHA, content=content)
    upload(gateway)
    assert opens(gateway.client("viewer")) is everybodys
    assert opens(gateway.client("operator"))
    assert gateway.client("node").get(PATH).status_code == 403


def test_a_picture_of_which_no_event_has_told_opens_to_few(gateway: Gateway) -> None:
    upload(gateway)
    assert not opens(gateway.client("viewer"))
    assert opens(gateway.client("operator"))


def test_where_two_nodes_told_differently_the_strictest_counts(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA, content="animal")
    gateway.insert(tables.pictures, sha256=SHA, node="minami-01", content="unsure")
    upload(gateway)
    assert not opens(gateway.client("viewer"))


def test_who_looked_opens_it_and_can_take_that_back(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA)
    gateway.insert(tables.pictures, sha256=SHA, node="minami-01", content="person_or_vehicle")
    upload(gateway)
    operator = gateway.client("operator")

    told = operator.post(CLEAR).json()["pictures"]
    assert {(one["node"], one["cleared_by"], one["cleared_us"], one["open"]) for one in told} == {
        ("kitayama-03", "tanaka", NOW_US, True), ("minami-01", "tanaka", NOW_US, True)
    }  # fmt: skip
    assert opens(gateway.client("viewer"))
    gateway.now_us += 1
    assert {one["cleared_us"] for one in operator.post(CLEAR).json()["pictures"]} == {NOW_US}, "who said so first stays"

    told = operator.delete(CLEAR).json()["pictures"]
    assert {(one["cleared_by"], one["cleared_us"], one["open"]) for one in told} == {(None, None, False)}
    assert not opens(gateway.client("viewer"))


def test_only_an_operator_says_so(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA)
    for role in ("viewer", "node"):
        assert gateway.client(role).post(CLEAR).status_code == 403
        assert gateway.client(role).delete(CLEAR).status_code == 403
    assert gateway.client().post(f"/api/v1/media/{'b' * 64}/clear").status_code == 404


def test_a_viewer_does_not_learn_whether_a_closed_picture_is_here(gateway: Gateway) -> None:
    viewer = gateway.client("viewer")

    def answers() -> list[Any]:
        return [(answer.status_code, answer.content) for answer in (viewer.get(PATH), viewer.head(PATH))]

    before = answers()
    gateway.insert(tables.pictures, sha256=SHA)
    upload(gateway)
    assert answers() == before
    assert {status for status, _ in before} == {403}


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("video/mp4", b"\0\0\0\x0cftypmp42"),
        ("video/quicktime", b"\0\0\0\x0cftypqt  "),
        ("video/x-msvideo", b"RIFF\4\0\0\0AVI "),
        ("application/gzip", b"\x1f\x8b"),
    ],
)
def test_videos_and_diagnostics_come_in_and_are_only_for_download(gateway: Gateway, content_type: str, content: bytes) -> None:
    path = f"/api/v1/media/{hashlib.sha256(content).hexdigest()}"
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(content)), "Content-Type": content_type}
    assert gateway.client("node").patch(path, content=content, headers=headers).status_code == 200
    answer = gateway.client().get(path)
    assert answer.content == content
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert gateway.client("viewer").get(path).status_code == 403


# --- What the events say ----------------------------------------------------------------------------


def captured(seq: int, content: str, *, withheld: bool = False, **more: Any) -> Any:
    return event(
        seq, 0, "media_captured", "cam-02", class_="evidence", media=SHA, size=len(PICTURE), content_type="image/jpeg",
        content=content, withheld=withheld, **more,
    )  # fmt: skip


def pictures(town: Town) -> list[tuple[Any, ...]]:
    return sorted((row["node"], row["device"], row["content"], row["withheld"]) for row in town.rows(tables.pictures))


def test_an_event_writes_down_what_its_picture_shows(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        acks = town.process(batch(events=[captured(1, "unsure", withheld=True)]))
        assert acks[0].upto == 1
        assert pictures(town) == [(NODE, "cam-02", "unsure", True)]
        assert [row["sha256"] for row in town.rows(tables.pictures)] == [SHA]
        town.process(batch(events=[captured(1, "unsure", withheld=True)]))
        assert pictures(town) == [(NODE, "cam-02", "unsure", True)], "the same event again changes nothing"


def test_a_picture_told_again_becomes_stricter_never_laxer(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        town.process(batch(events=[captured(1, "animal")]))
        town.process(batch(events=[captured(2, "person_or_vehicle", withheld=True)]))
        assert pictures(town) == [(NODE, "cam-02", "person_or_vehicle", True)]
        town.process(batch(events=[captured(3, "animal")], node="minami-01"), batch(events=[captured(4, "animal")]))
        assert pictures(town) == [(NODE, "cam-02", "person_or_vehicle", False), ("minami-01", "cam-02", "animal", False)]


def test_an_event_and_its_picture_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        town.steps.fail_at = len(town.steps.taken) + 1  # before the commit
        with pytest.raises(Killed):
            town.process(batch(events=[captured(1, "animal")]))
        assert (town.seqs(), pictures(town)) == ([], [])
        town.restart()
        town.process(batch(events=[captured(1, "animal")]))
        assert (town.seqs(), len(pictures(town))) == ([1], 1)


def test_events_say_as_text_what_a_picture_shows_to_who_may_not_open_it(gateway: Gateway) -> None:
    gateway.insert(
        tables.events,
        type="media_captured",
        class_="evidence",
        body=f'{{"media": "{SHA}", "content": "unsure", "withheld": true}}',
    )
    (shown,) = gateway.client("viewer").get("/api/v1/events").json()["events"]
    assert (shown["body"]["content"], shown["body"]["withheld"]) == ("unsure", True)


def test_no_tap_on_a_message_reopens_a_picture_in_which_a_person_was_said_to_be(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA, content="animal")
    upload(gateway)
    operator, viewer = gateway.client("operator"), gateway.client("viewer")
    operator.post(f"{PATH}/confirm", json={"content": "person_or_vehicle"})
    for content in ("animal", "no_animal"):
        gateway.now_us += 1
        operator.post(f"{PATH}/confirm", json={"content": content})
        assert not opens(viewer)
    gateway.now_us += 1
    operator.post(CLEAR)  # who may see such has looked, after that
    assert opens(viewer)


def test_a_person_said_to_be_in_a_cleared_picture_closes_it(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA)
    upload(gateway)
    gateway.client("operator").post(CLEAR)
    assert opens(gateway.client("viewer"))
    gateway.now_us += 1
    gateway.client("operator").post(f"{PATH}/confirm", json={"content": "person_or_vehicle"})
    assert not opens(gateway.client("viewer"))


def test_a_picture_leaves_without_where_it_was_taken_as_a_whole_or_a_part(gateway: Gateway) -> None:
    where = b"\xff\xe1\0\x14Exif\0\0 36.1, 140.0"
    content = PICTURE[:2] + where + PICTURE[2:] + b"36.1, 140.0"
    sha = hashlib.sha256(content).hexdigest()
    gateway.deps.media.keep(sha, content, "image/jpeg")
    gateway.insert(tables.pictures, sha256=sha, content="animal")
    client, path = gateway.client("viewer"), f"/api/v1/media/{sha}"

    whole = client.get(path)
    assert (whole.content, whole.headers["content-length"]) == (PICTURE, str(len(PICTURE)))
    etag = whole.headers["etag"]
    assert etag != f'"{sha}"', "the name is that of the original, and these are other bytes"
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304

    part = client.get(path, headers={"Range": "bytes=4-9"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, PICTURE[4:10], f"bytes 4-9/{len(PICTURE)}")
    assert client.get(path, headers={"Range": "bytes=-5"}).content == PICTURE[-5:]
    assert client.get(path, headers={"Range": "bytes=7-"}).content == PICTURE[7:]
    beyond = client.get(path, headers={"Range": f"bytes={len(content) - 1}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(PICTURE)}")
    assert client.get(path, headers={"Range": "bytes=0-3", "If-Range": '"another"'}).content == PICTURE


def test_the_original_is_for_officers_who_say_why_and_that_is_kept(gateway: Gateway) -> None:
    where = b"\xff\xe1\0\x14Exif\0\0 36.1, 140.0"
    content = PICTURE[:2] + where + PICTURE[2:]
    sha = hashlib.sha256(content).hexdigest()
    gateway.deps.media.keep(sha, content, "image/jpeg")
    gateway.insert(tables.pictures, sha256=sha, content="animal")
    path = f"/api/v1/media/{sha}/original"

    assert gateway.client("viewer").get(path, params={"why": "x"}).status_code == 403
    assert gateway.client().get(path).status_code == 422
    got = gateway.client().get(path, params={"why": "the prefecture asks for the camera's own time"})
    assert (got.status_code, got.content) == (200, content)
    entries = gateway.client().get("/api/v1/audit", params={"action": "media.original"}).json()["entries"]
    assert [(one["who"], one["thing"]) for one in entries] == [("token:tanaka", f"media/{sha}")]
    assert "the prefecture asks" in str(entries[0])


def test_an_officer_deletes_a_picture_for_good_and_says_why(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA, content="person_or_vehicle")
    upload(gateway)
    path = gateway.deps.media.find(SHA)
    assert path is not None
    assert gateway.client("viewer").delete(PATH, params={"why": "x"}).status_code == 403
    assert gateway.client().delete(PATH).status_code == 422
    assert gateway.client().delete(PATH, params={"why": "who is in it asked for it"}).status_code == 204
    assert not path.path.exists()
    assert gateway.client().get(PATH).status_code == 404
    assert gateway.client().delete(PATH, params={"why": "again"}).status_code == 404
    entries = gateway.client().get("/api/v1/audit", params={"action": "media.erase"}).json()["entries"]
    assert [(one["thing"], one["why"]) for one in entries] == [(f"media/{SHA}", "who is in it asked for it")]


def test_a_picture_of_a_captures_papers_stays(gateway: Gateway) -> None:
    gateway.insert(tables.pictures, sha256=SHA, content="animal")
    upload(gateway)
    trap = {"node": "kitayama-03", "device": "trap-11"}
    with gateway.state.write() as connection:
        connection.execute(
            insert(tables.visits),
            {**trap, "id": "v", "at_us": 1, "who": "", "via": "button", "result": "capture", "recorded_us": 1},
        )
        connection.execute(insert(tables.captures), {**trap, "id": "c", "visit": "v", "opened_us": 1})
        connection.execute(
            insert(tables.capture_photos), {"sha256": SHA, "capture": "c", "item": "tail", "added_us": 1, "added_by": ""}
        )
    assert gateway.client().delete(PATH, params={"why": "x"}).status_code == 409
    assert gateway.client().get(PATH).status_code == 200


def test_what_is_no_picture_is_not_given_out_as_one(gateway: Gateway) -> None:
    """A film with a track of positions, say: it is taken as evidence, and nothing of it can leave."""
    content = b"\0\0\0\x30moov\0\0\0\x28trak\0\0\0\x20mdia\0\0\0\x18hdlr" + bytes(8) + b"text" + bytes(4)
    sha = hashlib.sha256(content).hexdigest()
    gateway.deps.media.keep(sha, content, "video/quicktime")
    answer = gateway.client().get(f"/api/v1/media/{sha}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "壊れている" in answer.text
