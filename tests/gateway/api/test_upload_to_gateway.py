"""The edge's uploader against the real gateway over HTTP: nothing is deleted before it is there, one bad file stops no other."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.clock import Instant
from edge.errors import ConfigError
from edge.media import MediaFolder
from edge.upload import CHUNK_BYTES, Uploader
from gateway.api.app import create_app
from gateway.api.server import serve
from simulators.ports import free_port
from tests.gateway.api.conftest import TOKENS, Gateway
from tests.wire import Wire

TOKEN = next(token for token, actor in TOKENS.items() if "node" in actor.roles)
PICTURE = b"\xff\xd8\xff\xda\0\2" + random.Random(1).randbytes(CHUNK_BYTES * 2 + 1000).replace(b"\xff", b"\0") + b"\xff\xd9"
SHA = hashlib.sha256(PICTURE).hexdigest()
SMALL = b"\xff\xd8\xff\xda\0\2 small \xff\xd9"


class Clock:
    """Sleeps cost nothing and are written down; after `naps` of them the uploader is stopped."""

    def __init__(self, naps: int = 1) -> None:
        self.slept: list[float] = []
        self._naps = naps

    def now(self) -> Instant:
        return Instant(0, 0)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._naps:
            raise asyncio.CancelledError


@pytest.fixture
def shelf(tmp_path: Path) -> MediaFolder:
    return MediaFolder(tmp_path / "edge-media", reserve_bytes=0)


def waiting(shelf: MediaFolder) -> list[str]:
    return [item.sha256 for item in shelf.waiting()]


def run(
    gateway: Gateway,
    shelf: MediaFolder,
    scene: Callable[[Uploader], Any] | None = None,
    *,
    token: str = TOKEN,
    wrap: Callable[[ASGIApp], ASGIApp] | None = None,
    **changed: Any,
) -> list[bool]:
    """Serves the gateway and lets an uploader try once (or as `scene` says); the results of its tries."""

    async def play() -> list[bool]:
        app = create_app(replace(gateway.deps, **changed))
        if wrap:
            app.add_middleware(wrap)
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(serve(app, "127.0.0.1", 0))
            uploader = Uploader(shelf, f"http://127.0.0.1:{port}", token, Clock(), random.Random(0))
            if scene:
                return list(await scene(uploader))
            return [await uploader.send_all()]

    return asyncio.run(asyncio.wait_for(play(), 30))


def test_pictures_arrive_and_leave_the_shelf(gateway: Gateway, shelf: MediaFolder) -> None:
    shelf.keep(PICTURE, "image/jpeg")
    shelf.keep(SMALL, "image/jpeg")

    assert run(gateway, shelf) == [True]

    assert waiting(shelf) == []
    assert gateway.client().get(f"/api/v1/media/{SHA}").content == PICTURE


def test_it_goes_on_where_it_broke_off(gateway: Gateway, shelf: MediaFolder) -> None:
    shelf.keep(PICTURE, "image/jpeg")
    gateway.deps.media.append(SHA, 0, len(PICTURE), PICTURE[:300_000])
    taken: list[int] = []

    assert run(gateway, shelf, wrap=lambda app: Counting(app, taken)) == [True]

    assert sum(taken) == len(PICTURE) - 300_000
    assert gateway.deps.media.find(SHA) is not None


def test_a_picture_the_gateway_has_already_is_not_sent_again(gateway: Gateway, shelf: MediaFolder) -> None:
    run(gateway, shelf)
    shelf.keep(PICTURE, "image/jpeg")
    assert run(gateway, shelf) == [True]
    shelf.keep(PICTURE, "image/jpeg")
    taken: list[int] = []
    assert run(gateway, shelf, wrap=lambda app: Counting(app, taken)) == [True]
    assert taken == []
    assert waiting(shelf) == []


class Counting:
    """ASGI: notes the body bytes that come in."""

    def __init__(self, app: ASGIApp, taken: list[int]) -> None:
        self._app, self._taken = app, taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            message = await receive()
            if body := message.get("body"):
                self._taken.append(len(body))
            return message

        await self._app(scope, counted, send)


def test_every_byte_that_arrived_before_a_break_counts(gateway: Gateway, shelf: MediaFolder) -> None:
    shelf.keep(PICTURE, "image/jpeg")
    offsets: list[int] = []

    async def scene() -> None:
        async with (
            serve(create_app(gateway.deps), "127.0.0.1", 0) as port,
            Wire(port, cut_after=100_000) as wire,  # less than one chunk
        ):
            uploader = Uploader(shelf, f"http://127.0.0.1:{wire.near_port}", TOKEN, Clock(), random.Random(0))
            while not await uploader.send_all():
                offsets.append(gateway.deps.media.offset(SHA))

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert len(offsets) > 4
    assert offsets == sorted(set(offsets)), "no try was for nothing"
    assert waiting(shelf) == []


def test_a_picture_is_kept_while_the_gateway_is_away_and_the_log_says_so_once(
    gateway: Gateway, shelf: MediaFolder, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.keep(SMALL, "image/jpeg")
    port = free_port()
    uploader = Uploader(shelf, f"http://127.0.0.1:{port}", TOKEN, Clock(), random.Random(0))

    async def scene() -> None:
        assert await uploader.send_all() is False
        assert await uploader.send_all() is False
        assert len(waiting(shelf)) == 1
        async with serve(create_app(gateway.deps), "127.0.0.1", port):
            assert await uploader.send_all() is True
            assert await uploader.send_all() is True

    with caplog.at_level(logging.INFO, "edge.upload"):
        asyncio.run(scene())
    assert waiting(shelf) == []
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "can't be reached" in said[0]
    assert "again" in said[1]


def test_a_wrong_token_keeps_everything(gateway: Gateway, shelf: MediaFolder, caplog: pytest.LogCaptureFixture) -> None:
    shelf.keep(SMALL, "image/jpeg")
    for token in ("a-token-that-nobody-knows", "viewer-token-for-tests-1"):
        assert run(gateway, shelf, token=token) == [False]
    assert len(waiting(shelf)) == 1
    assert "media.token_file" in caplog.text


def test_a_refused_picture_is_put_aside_and_the_others_go(
    gateway: Gateway, shelf: MediaFolder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    gateway.deps.media.limit_bytes = 100
    shelf.keep(PICTURE, "image/jpeg")
    shelf.keep(SMALL, "image/jpeg")

    assert run(gateway, shelf) == [True]

    assert waiting(shelf) == []
    assert [path.name for path in (tmp_path / "edge-media" / "refused").iterdir()] == [f"{SHA}.jpg"]
    assert "413" in caplog.text
    assert gateway.deps.media.find(hashlib.sha256(SMALL).hexdigest())


def test_a_picture_that_rotted_on_the_card_is_put_aside(gateway: Gateway, shelf: MediaFolder, tmp_path: Path) -> None:
    shelf.keep(b"right", "image/jpeg")
    shelf.waiting()[0].path.write_bytes(b"wrong")
    assert run(gateway, shelf) == [True]
    assert waiting(shelf) == []
    assert [path.read_bytes() for path in (tmp_path / "edge-media" / "refused").iterdir()] == [b"wrong"]


def test_a_part_that_rotted_in_the_gateway_costs_a_second_try_not_the_picture(gateway: Gateway, shelf: MediaFolder) -> None:
    shelf.keep(PICTURE, "image/jpeg")
    gateway.deps.media.append(SHA, 0, len(PICTURE), bytes(1000))

    async def scene(uploader: Uploader) -> list[bool]:
        return [await uploader.send_all(), await uploader.send_all()]

    assert run(gateway, shelf, scene) == [False, True]
    assert waiting(shelf) == []
    assert gateway.deps.media.find(SHA)


def test_trouble_with_one_picture_holds_up_no_other(gateway: Gateway, shelf: MediaFolder) -> None:
    shelf.keep(PICTURE, "image/jpeg")
    shelf.keep(SMALL, "image/jpeg")

    class Broken:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if SHA in scope.get("path", ""):
                await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body"})
                return
            await self._app(scope, receive, send)

    assert run(gateway, shelf, wrap=Broken) == [False]
    assert waiting(shelf) == [SHA]


def test_it_waits_longer_each_time_with_full_jitter(shelf: MediaFolder) -> None:
    shelf.keep(SMALL, "image/jpeg")
    clock = Clock(naps=12)
    uploader = Uploader(shelf, f"http://127.0.0.1:{free_port()}", TOKEN, clock, random.Random(4), backoff_cap_s=60)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(uploader.run())
    ceilings = [min(60, 2**n) for n in range(1, 13)]
    assert all(0 <= slept <= ceiling for slept, ceiling in zip(clock.slept, ceilings, strict=True))
    assert max(clock.slept) > 30
    assert len({round(slept / ceiling, 3) for slept, ceiling in zip(clock.slept, ceilings, strict=True)}) > 6


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 204 x\r\nUpload-Offset: -1\r\n\r\n",
        b"HTTP/1.1 204 x\r\nUpload-Offset: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 x\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_no_answer_but_the_right_one_deletes_a_picture(shelf: MediaFolder, answer: bytes) -> None:
    shelf.keep(SMALL, "image/jpeg")

    async def scene() -> bool:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await Uploader(shelf, f"http://127.0.0.1:{port}", TOKEN, Clock(), random.Random(0)).send_all()

    assert asyncio.run(asyncio.wait_for(scene(), 20)) is False
    assert len(waiting(shelf)) == 1


@pytest.mark.parametrize(
    ("url", "token", "names"),
    [
        ("gateway.local:8080", TOKEN, "media.url"),
        ("ftp://gateway.local", TOKEN, "media.url"),
        ("http://", TOKEN, "media.url"),
        ("http://h:99999", TOKEN, "media.url"),
        ("http://user:pass@h", TOKEN, "media.url"),
        ("http://h", "", "media.token_file"),
        ("http://h", "two words", "media.token_file"),
        ("http://h", "line\nbreak", "media.token_file"),
    ],
)
def test_a_wrong_setting_is_named(shelf: MediaFolder, url: str, token: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        Uploader(shelf, url, token, Clock(), random.Random(0))
