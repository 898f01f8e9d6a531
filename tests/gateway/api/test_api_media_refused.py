"""What is no picture, or a bomb for who opens it, is refused; what finds no room waits. The node keeps it either way."""

import asyncio
import hashlib
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from edge.clock import SystemClock
from edge.media import MediaFolder
from edge.upload import Uploader
from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.media import MediaShelf
from gateway.state import tables
from tests.gateway.api.conftest import TOKENS, Gateway
from tests.gateway.images import MP4, bomb, saved, saying

TOKEN = next(token for token, actor in TOKENS.items() if "node" in actor.roles)
JPEG = saved("JPEG")
GIB = 2**30


def send(gateway: Gateway, content: bytes, content_type: str = "image/jpeg", media: MediaShelf | None = None) -> Any:
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(content)), "Content-Type": content_type}
    client = gateway.client("node", media=media or gateway.deps.media)
    return client.patch(f"/api/v1/media/{hashlib.sha256(content).hexdigest()}", content=content, headers=headers)


def folder(gateway: Gateway) -> Path:
    return gateway.deps.media._folder


def shelf(gateway: Gateway, **how: Any) -> MediaShelf:
    return MediaShelf(folder(gateway), gateway.state, lambda: gateway.now_us, reserve_mib=0, **how)


def uploads(gateway: Gateway, content: bytes, content_type: str, tmp_path: Path, media: MediaShelf | None = None) -> MediaFolder:
    """What a real node has left after a try over HTTP."""
    node = MediaFolder(tmp_path / "node", reserve_bytes=0)
    node.keep(content, content_type)

    async def play() -> None:
        async with AsyncExitStack() as stack:
            app = create_app(replace(gateway.deps, media=media or gateway.deps.media))
            port = await stack.enter_async_context(serve(app, "127.0.0.1", 0))
            await Uploader(node, f"http://127.0.0.1:{port}", TOKEN, SystemClock(), random.Random(0)).send_all()

    asyncio.run(asyncio.wait_for(play(), 30))
    return node


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (saved("GIF", mode="P"), "image/jpeg"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "image/png"),
        (b"<html>" + JPEG, "image/jpeg"),
        (b"MZ\x90\0" + bytes(60) + b"PE\0\0", "video/mp4"),
        (JPEG, "video/mp4"),
    ],
)
def test_what_is_something_else_than_it_is_said_to_be_is_refused_for_good(
    gateway: Gateway, content: bytes, content_type: str
) -> None:
    answer = send(gateway, content, content_type)
    assert (answer.status_code, answer.headers["Content-Type"]) == (415, "application/problem+json")
    assert "種類と違います" in answer.json()["detail"]
    assert list(folder(gateway).iterdir()) == []


@pytest.mark.parametrize(("content", "content_type"), [(bomb(30_000), "image/png"), (saying(JPEG, 60_000, 60_000), "image/jpeg")])
def test_a_few_bytes_that_say_they_are_a_huge_picture_are_refused(gateway: Gateway, content: bytes, content_type: str) -> None:
    answer = send(gateway, content, content_type)
    assert (answer.status_code, "120百万画素" in answer.json()["detail"]) == (413, True)
    assert list(folder(gateway).iterdir()) == []


@pytest.mark.parametrize(("megapixels", "status"), [(1, 413), (2, 200)])
def test_how_large_a_picture_may_be_is_a_setting(gateway: Gateway, megapixels: int, status: int) -> None:
    media = shelf(gateway, most_megapixels=megapixels)
    assert send(gateway, saying(JPEG, 1200, 1000), media=media).status_code == status


def test_a_panorama_and_a_picture_that_was_cut_off_are_evidence(gateway: Gateway) -> None:
    assert send(gateway, saying(JPEG, 16_000, 3900)).status_code == 200
    assert send(gateway, saved("JPEG", (300, 200))[:-300]).status_code == 200


@pytest.mark.parametrize(
    ("content", "content_type"), [(saved("GIF", mode="P"), "image/jpeg"), (saying(JPEG, 60_000, 60_000), "image/jpeg")]
)
def test_a_node_keeps_what_was_refused_where_a_person_finds_it_and_sends_it_once(
    gateway: Gateway, content: bytes, content_type: str, tmp_path: Path
) -> None:
    node = uploads(gateway, content, content_type, tmp_path)
    assert node.waiting() == []
    assert [path.read_bytes() for path in (tmp_path / "node" / "refused").iterdir()] == [content]


def test_what_hides_behind_a_picture_stays_in_the_gateway(gateway: Gateway) -> None:
    for content, content_type in ((JPEG, "image/jpeg"), (saved("PNG"), "image/png"), (MP4, "video/mp4")):
        both = content + b"PK\3\4<html><script>1</script></html>MZ\x90\0PE\0\0"
        assert send(gateway, both, content_type).status_code == 200
        given = gateway.client().get(f"/api/v1/media/{hashlib.sha256(both).hexdigest()}")
        assert given.status_code == 200
        assert b"script" not in given.content
        assert b"PE\0\0" not in given.content


# --- Room -----------------------------------------------------------------------------------------------


def fill(gateway: Gateway, gib: int) -> None:
    row = {"sha256": "f" * 64, "size": gib * GIB, "content_type": "video/mp4", "received_us": gateway.now_us}
    with gateway.state.write() as connection:
        connection.execute(tables.media.insert(), row)


def test_more_than_all_pictures_may_have_waits_on_its_node(gateway: Gateway, tmp_path: Path) -> None:
    fill(gateway, 2)
    full = shelf(gateway, total_gib=2)
    answer = send(gateway, JPEG, media=full)
    assert (answer.status_code, answer.headers["Retry-After"]) == (507, "600")
    assert "写真を保存する分の場所" in answer.json()["detail"]
    assert "media.total_gib is 2" in str(full.full()), "what the operator is told"

    node = uploads(gateway, JPEG, "image/jpeg", tmp_path, full)
    assert [item.path.read_bytes() for item in node.waiting()] == [JPEG]
    assert not (tmp_path / "node" / "refused").exists()


def test_when_older_ones_have_gone_it_is_taken(gateway: Gateway) -> None:
    fill(gateway, 2)
    assert send(gateway, JPEG, media=shelf(gateway, total_gib=2)).status_code == 507
    with gateway.state.write() as connection:
        connection.execute(delete(tables.media))
    again = shelf(gateway, total_gib=2)
    assert again.full() is None
    assert send(gateway, JPEG, media=again).status_code == 200


def test_without_the_setting_only_the_disk_s_reserve_counts(gateway: Gateway) -> None:
    fill(gateway, 100_000)
    assert send(gateway, JPEG, media=shelf(gateway)).status_code == 200
