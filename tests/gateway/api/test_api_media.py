"""Pictures come in piece by piece, survive every kind of interruption, and are given out safely."""

import fcntl
import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from gateway.errors import ConfigError
from gateway.keeping.retention import replay
from gateway.media import MediaShelf, WrongContent, WrongOffset
from gateway.state import tables
from tests.gateway.api.conftest import NOW_US, Gateway

PICTURE = b"\xff\xd8\xff\xda\0\2" + bytes(range(256)) * 400 + b"\xff\xd9"  # a JPEG, as far as its bytes go: 102,408 of them
SHA = hashlib.sha256(PICTURE).hexdigest()
PATH = f"/api/v1/media/{SHA}"


def send(client: TestClient, offset: int, piece: bytes, **changed: str) -> Any:
    headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(PICTURE)), "Content-Type": "image/jpeg"}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    return client.patch(changed.get("path", PATH), content=piece, headers=headers)


def files(gateway: Gateway) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in gateway.deps.media._folder.iterdir()}


def how_far(client: TestClient) -> tuple[int, str, str]:
    answer = client.head(PATH)
    return answer.status_code, answer.headers["Upload-Offset"], answer.headers["Upload-Complete"]


def test_a_picture_in_three_pieces(gateway: Gateway) -> None:
    node = gateway.client("node")
    assert how_far(node) == (204, "0", "?0")

    for offset in (0, 40_000):
        answer = send(node, offset, PICTURE[offset : offset + 40_000])
        assert (answer.status_code, answer.headers["Upload-Complete"]) == (204, "?0")
        assert how_far(node) == (204, str(offset + 40_000), "?0")
    answer = send(node, 80_000, PICTURE[80_000:])

    assert (answer.status_code, answer.headers["Upload-Complete"]) == (200, "?1")
    assert how_far(node) == (200, str(len(PICTURE)), "?1")
    assert files(gateway) == {SHA: len(PICTURE)}


def test_a_whole_picture_is_given_out_so_that_no_browser_runs_it(gateway: Gateway) -> None:
    send(gateway.client("node"), 0, PICTURE)
    answer = gateway.client().get(PATH)
    assert answer.content == PICTURE
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{SHA[:16]}.jpg"'


def test_a_part_is_not_given_out(gateway: Gateway) -> None:
    send(gateway.client("node"), 0, PICTURE[:10])
    assert gateway.client().get(PATH).status_code == 404


def test_a_wrong_offset_is_answered_with_the_right_one(gateway: Gateway) -> None:
    node = gateway.client("node")
    send(node, 0, PICTURE[:1000])
    for wrong in (0, 999, 1001):
        answer = send(node, wrong, PICTURE[wrong : wrong + 10])
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "1000")
    assert how_far(node) == (204, "1000", "?0")


def test_wrong_bytes_are_refused_and_removed_and_the_right_ones_come_in_afterwards(gateway: Gateway) -> None:
    node = gateway.client("node")
    assert send(node, 0, b"x" + PICTURE[1:]).status_code == 422
    assert files(gateway) == {}
    assert send(node, 0, PICTURE).status_code == 200


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Upload_Length": str(4 * 1024 * 1024 + 1)}, 413),
        ({"Upload_Length": "5"}, 413),
        ({"Content_Type": "text/html"}, 415),
        ({"Content_Type": "image/svg+xml"}, 415),
        ({"Upload_Length": "-1"}, 422),
        ({"Upload_Offset": "x"}, 422),
        ({"Upload_Length": "9" * 30}, 422),
    ],
)
def test_what_is_never_taken(gateway: Gateway, changed: dict[str, str], status: int) -> None:
    answer = send(gateway.client("node"), 0, PICTURE, **changed)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert gateway.deps.media.offset(SHA) == 0


@pytest.mark.parametrize(
    "name", ["x", SHA.upper(), SHA + "0", SHA[:-1], "..%2F..%2Fstate.db", "%2e%2e%2fstate.db", SHA + "%00", SHA + "%0a"]
)
def test_no_name_but_a_sha256_reaches_the_disk(gateway: Gateway, name: str) -> None:
    path = f"/api/v1/media/{name}"
    client = gateway.client()
    assert client.head(path).status_code in (400, 404, 422)
    assert client.get(path).status_code in (400, 404, 422)
    assert send(client, 0, b"x", path=path).status_code in (400, 404, 422)
    assert files(gateway) == {}
    with pytest.raises(ValueError, match="not a SHA-256"):
        gateway.deps.media.offset(name)


def test_a_full_disk_is_said_as_such(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gateway.deps.media, "append", full)
    answer = send(gateway.client("node"), 0, PICTURE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (507, "600")


def test_pictures_leave_the_disk_s_last_room_to_alarms(gateway: Gateway) -> None:
    send(gateway.client("node"), 0, PICTURE[:50_000])
    full = MediaShelf(gateway.deps.media._folder, gateway.state, lambda: NOW_US, reserve_mib=2**40)
    answer = send(gateway.client("node", media=full), 50_000, PICTURE[50_000:])
    assert (answer.status_code, answer.headers["Retry-After"]) == (507, "600")
    assert full.offset(SHA) == 50_000
    assert send(gateway.client("node"), 50_000, PICTURE[50_000:]).status_code == 200
    assert send(gateway.client("node", media=full), 0, PICTURE).status_code == 200, "what is here already takes no room"


def test_a_restart_keeps_the_offset(gateway: Gateway) -> None:
    send(gateway.client("node"), 0, PICTURE[:50_000])
    again = MediaShelf(gateway.deps.media._folder, gateway.state, lambda: NOW_US)
    assert again.offset(SHA) == 50_000
    assert send(gateway.client("node", media=again), 50_000, PICTURE[50_000:]).status_code == 200


def test_a_crash_between_disk_and_record_is_mended_by_asking_to_finish_again(gateway: Gateway) -> None:
    node = gateway.client("node")
    send(node, 0, PICTURE)
    with gateway.state.write() as connection:
        connection.execute(delete(tables.media))

    assert how_far(node) == (204, str(len(PICTURE)), "?0")
    assert send(node, len(PICTURE), b"").status_code == 200
    assert how_far(node)[0] == 200
    assert files(gateway) == {SHA: len(PICTURE)}


def test_what_was_deleted_at_somebodys_request_is_deleted_again_in_an_older_database_that_is_put_back(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.state.erasures_file = tmp_path / "erased"
    send(gateway.client("node"), 0, PICTURE)
    with gateway.state.read() as connection:
        before = connection.execute(select(tables.media)).one()._asdict()
    assert gateway.client().delete(PATH, params={"why": "who is in it asked for it"}).status_code == 204
    with gateway.state.write() as connection:  # as it was
        connection.execute(delete(tables.erasures))
        connection.execute(insert(tables.media), before)
    assert replay(gateway.state, NOW_US) == 1
    with gateway.state.read() as connection:
        assert connection.execute(select(tables.media)).all() == []
    assert replay(gateway.state, NOW_US) == 0, "once"


def test_a_picture_whose_deletion_cannot_be_noted_stays(gateway: Gateway, tmp_path: Path) -> None:
    """Else it would come back some day, and nobody would know."""
    gateway.state.erasures_file = tmp_path / "no folder" / "erased"
    send(gateway.client("node"), 0, PICTURE)
    assert gateway.client().delete(PATH, params={"why": "who is in it asked for it"}).status_code == 503
    assert how_far(gateway.client("node"))[0] == 200


def test_a_form_that_was_sent_twice_at_once_keeps_its_photo_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever taps twice sees the second answer."""
    shelf, check = gateway.deps.media, MediaShelf.check
    first = MediaShelf(shelf._folder, gateway.state, lambda: NOW_US)

    def meanwhile(self: MediaShelf, *of: Any) -> None:
        check(self, *of)
        if self is shelf:
            first.keep(SHA, PICTURE, "image/jpeg")

    monkeypatch.setattr(MediaShelf, "check", meanwhile)
    assert shelf.keep(SHA, PICTURE, "image/jpeg").size == len(PICTURE)
    assert files(gateway) == {SHA: len(PICTURE)}


@pytest.mark.parametrize("damaged", [PICTURE[:9], PICTURE + b"more"])
def test_a_damaged_file_off_the_record_is_an_error_and_no_endless_loop(gateway: Gateway, damaged: bytes) -> None:
    shelf = gateway.deps.media
    (shelf._folder / SHA).write_bytes(damaged)
    with pytest.raises(WrongContent):
        shelf.keep(SHA, PICTURE, "image/jpeg")


def test_a_record_without_its_file_is_not_called_whole(gateway: Gateway) -> None:
    node = gateway.client("node")
    send(node, 0, PICTURE)
    (gateway.deps.media._folder / SHA).unlink()
    assert how_far(node) == (204, "0", "?0")
    assert gateway.client().get(PATH).status_code == 404
    assert send(node, 0, PICTURE).status_code == 200


def test_a_part_begun_under_a_wrong_length_does_not_block_the_right_one(gateway: Gateway) -> None:
    node = gateway.client("node")
    send(node, 0, PICTURE + b"more", Upload_Length=str(len(PICTURE) + 10))
    longer = len(PICTURE) + 4
    assert how_far(node) == (204, str(longer), "?0")
    answer = send(node, longer, b"")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "0")
    assert send(node, 0, PICTURE).status_code == 200


def test_many_senders_of_one_picture(gateway: Gateway) -> None:
    def upload() -> None:
        shelf = MediaShelf(gateway.deps.media._folder, gateway.state, lambda: NOW_US)
        while shelf.find(SHA) is None:
            try:
                offset = shelf.offset(SHA)
                while offset < len(PICTURE):
                    offset = shelf.append(SHA, offset, len(PICTURE), PICTURE[offset : offset + 5_000])
                shelf.finish(SHA, len(PICTURE), "image/jpeg")
            except WrongOffset:
                pass

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert files(gateway) == {SHA: len(PICTURE)}
    assert gateway.client().get(PATH).content == PICTURE


def test_a_part_removed_while_its_lock_was_awaited_is_begun_anew(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock
    removals = iter([True])

    def lock_won_by_another_first(file: Any, operation: int) -> None:
        if next(removals, False):
            (gateway.deps.media._folder / f"{SHA}.part").unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_won_by_another_first)
    assert send(gateway.client("node"), 0, PICTURE[:500]).status_code == 204
    assert gateway.deps.media.offset(SHA) == 500


@given(data=st.data(), picture=st.binary(min_size=0, max_size=2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_however_it_is_cut_and_repeated_the_picture_arrives_whole(gateway: Gateway, data: st.DataObject, picture: bytes) -> None:
    picture = b"\x1f\x8b" + picture  # what need not be an image to be taken
    sha = hashlib.sha256(picture).hexdigest()
    shelf = MediaShelf(Path(tempfile.mkdtemp(dir=gateway.deps.media._folder)), gateway.state, lambda: NOW_US)
    offset = 0
    for _ in range(data.draw(st.integers(0, 12))):
        claimed = data.draw(st.one_of(st.just(offset), st.integers(0, len(picture))))
        end = data.draw(st.integers(claimed, len(picture)))
        try:
            offset = shelf.append(sha, claimed, len(picture), picture[claimed:end])
        except WrongOffset as wrong:
            assert wrong.offset == offset != claimed  # noqa: PT017 - both paths are checked
    if offset < len(picture):
        shelf.append(sha, offset, len(picture), picture[offset:])
    assert shelf.finish(sha, len(picture), "application/gzip").path.read_bytes() == picture


@given(offset=st.text(max_size=20), length=st.text(max_size=20), kind=st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_no_header_breaks_the_gateway(gateway: Gateway, offset: str, length: str, kind: str) -> None:
    headers = {
        name.encode(): value.encode()
        for name, value in (("Upload-Offset", offset), ("Upload-Length", length), ("Content-Type", kind))
    }
    answer = gateway.client("node").patch(PATH, content=b"abc", headers=headers)
    assert 400 <= answer.status_code < 500


def test_a_folder_that_cannot_be_used_is_a_config_error(gateway: Gateway, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"media\.folder"):
        MediaShelf(blocked / "media", gateway.state, lambda: NOW_US)


def test_the_part_is_on_disk_before_the_offset_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    send(gateway.client("node"), 0, PICTURE[:777])
    assert synced == [777]
