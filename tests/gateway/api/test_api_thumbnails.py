"""A picture's small one: for whom the picture opens to and nobody else, made once, gone with it, no error where there is none."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from gateway import thumbnails
from gateway.media import MediaShelf
from gateway.state import tables
from tests.gateway.api.conftest import Gateway
from tests.gateway.images import MP4, saved

PICTURE = saved("JPEG", (800, 600))
SHA = hashlib.sha256(PICTURE).hexdigest()
PATH = f"/api/v1/media/{SHA}"
SMALL = f"{PATH}/thumbnail"


def comes(gateway: Gateway, content: bytes = PICTURE, content_type: str = "image/jpeg", says: str | None = "animal") -> str:
    """The path of its small one."""
    sha256 = hashlib.sha256(content).hexdigest()
    gateway.deps.media.keep(sha256, content, content_type)
    if says:
        gateway.insert(tables.pictures, sha256=sha256, content=says)
    return f"/api/v1/media/{sha256}/thumbnail"


def folder(gateway: Gateway) -> Path:
    return gateway.deps.media._folder


def beside(gateway: Gateway) -> set[str]:
    return {path.name.removeprefix(SHA) for path in folder(gateway).iterdir()}


def status(client: TestClient) -> int:
    return int(client.get(SMALL).status_code)


def test_it_is_the_picture_small_as_a_jpeg(gateway: Gateway) -> None:
    comes(gateway)
    answer = gateway.client("viewer").get(SMALL)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert Image.open(io.BytesIO(answer.content)).size == (320, 240)


def test_it_is_made_once_and_nobody_fetches_it_twice(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    comes(gateway)
    client = gateway.client("viewer")
    first = client.get(SMALL)
    monkeypatch.setattr(thumbnails, "small", lambda *_: pytest.fail("it was made again"))
    assert client.get(SMALL).content == first.content
    again = client.get(SMALL, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["ETag"] != client.get(PATH).headers["ETag"]


@pytest.mark.parametrize("says", ["unclassified", "unsure", "person_or_vehicle", None])
def test_where_a_person_may_be_in_it_it_opens_to_few(gateway: Gateway, says: str | None) -> None:
    comes(gateway, says=says)
    assert status(gateway.client("operator")) == 200
    refused = gateway.client("viewer").get(SMALL)
    assert (refused.status_code, refused.headers["Content-Type"]) == (403, "application/problem+json")
    assert status(gateway.client("node")) == 403
    assert status(gateway.client(None)) == 401


def test_somebody_seen_in_it_closes_it_also_for_who_has_it(gateway: Gateway) -> None:
    comes(gateway)
    viewer = gateway.client("viewer")
    first = viewer.get(SMALL)
    assert first.headers["Cache-Control"] == "private, no-cache", "a browser asks anew each time"
    gateway.client("operator").post(f"{PATH}/confirm", json={"content": "person_or_vehicle"})
    assert viewer.get(SMALL, headers={"If-None-Match": first.headers["ETag"]}).status_code == 403


def test_who_may_not_see_it_does_not_learn_whether_it_is_here(gateway: Gateway) -> None:
    before = gateway.client("viewer").get(SMALL)
    comes(gateway, says="person_or_vehicle")
    after = gateway.client("viewer").get(SMALL)
    assert (before.status_code, before.content) == (after.status_code, after.content) == (403, after.content)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(MP4, "video/mp4"), (b"\xff\xd8\xff\xda\0\2 nothing to decode \xff\xd9", "image/jpeg")],
)
def test_a_film_and_a_broken_picture_have_none_and_that_is_no_error_of_the_gateway(
    gateway: Gateway, content: bytes, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = comes(gateway, content, content_type)
    answer = gateway.client("viewer").get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert "小さい画像" in answer.text
    monkeypatch.setattr(thumbnails, "small", lambda *_: pytest.fail("it was tried again"))
    assert gateway.client("viewer").get(path).status_code == 404


def test_it_goes_with_the_picture(gateway: Gateway) -> None:
    comes(gateway)
    assert status(gateway.client("viewer")) == 200
    assert beside(gateway) == {"", ".thumb1.jpg"}
    assert gateway.client().delete(PATH, params={"why": "who is in it asked for it"}).status_code == 204
    assert beside(gateway) == set()
    assert status(gateway.client()) == 404


def test_what_is_deleted_while_it_is_made_small_does_not_come_back(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    comes(gateway)
    make = thumbnails.small

    def deleted_meanwhile(*of: Any) -> bytes | None:
        gateway.client().delete(PATH, params={"why": "who is in it asked for it"})
        return make(*of)

    monkeypatch.setattr(thumbnails, "small", deleted_meanwhile)
    gateway.client().get(SMALL)
    assert not [path for path in folder(gateway).iterdir() if path.stat().st_size], "nothing of it lies there"


def test_on_a_full_disk_it_is_shown_and_not_kept(gateway: Gateway) -> None:
    comes(gateway)
    full = MediaShelf(folder(gateway), gateway.state, lambda: gateway.now_us, reserve_mib=2**40)
    assert gateway.client("viewer", media=full).get(SMALL).status_code == 200
    assert beside(gateway) == {""}
