"""The live stream: the feed behind it, and the stream itself over a real server."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.api.stream import sse
from gateway.errors import ConfigError
from gateway.feed import Feed, Listener, Said
from simulators.ports import free_port
from tests.gateway.api.conftest import BEARER, DEFAULTS, NOW_US, Gateway

PATIENCE_S = 10

# ---- the feed --------------------------------------------------------------------------------------


async def hear_all(listener: Listener) -> list[Said]:
    found = []
    while said := await listener.hear(0):
        found.append(said)
    return found


def test_what_is_said_on_any_thread_is_heard_in_order() -> None:
    feed = Feed()

    def say_fifty() -> None:
        for n in range(50):
            feed.say("event", {"n": n})

    async def scene() -> list[Said]:
        with feed.listen() as one:
            threads = [threading.Thread(target=say_fifty) for _ in range(4)]
            for thread in threads:
                thread.start()
            heard: list[Said] = []
            while len(heard) < 200:
                said = await one.hear(PATIENCE_S)
                assert said is not None
                heard.append(said)
            for thread in threads:
                thread.join()
            return heard

    assert [said.id for said in asyncio.run(scene())] == list(range(1, 201))


def test_what_takes_long_to_make_is_made_where_somebody_listens_and_once() -> None:
    feed, made = Feed(), []

    def body() -> dict[str, int]:
        made.append(1)
        return {"n": len(made)}

    async def scene() -> list[list[Said]]:
        feed.say("latest", body)
        assert not made
        with feed.listen() as one, feed.listen() as other:
            feed.say("latest", body)
            return [await hear_all(one), await hear_all(other)]

    assert asyncio.run(scene()) == [[Said(2, "latest", {"n": 1})]] * 2


def test_a_wake_up_for_what_was_heard_already_ends_no_later_wait() -> None:
    feed = Feed()

    async def scene() -> None:
        with feed.listen() as listener:
            feed.say("event", {"n": 1})
            assert (await listener.hear(0)) is not None  # taken before the loop could turn
            asyncio.get_running_loop().call_later(0.02, feed.say, "event", {"n": 2})
            said = await listener.hear(PATIENCE_S)
            assert said is not None
            assert said.body == {"n": 2}

    asyncio.run(scene())


def test_a_slow_listener_gets_one_resync_and_then_what_is_new() -> None:
    feed = Feed(queue_limit=3)

    async def scene() -> tuple[list[Said], list[Said]]:
        with feed.listen() as slow, feed.listen() as quick:
            quick_heard = []
            for n in range(1, 6):
                feed.say("event", {"n": n})
                quick_heard += await hear_all(quick)
            return await hear_all(slow), quick_heard

    slow, quick = asyncio.run(scene())
    assert [(said.id, said.kind) for said in slow] == [(4, "resync"), (5, "event")]
    assert [said.id for said in quick] == [1, 2, 3, 4, 5]


def test_saying_goes_on_when_nobody_can_listen_any_more() -> None:
    feed = Feed(queue_limit=3)
    left_behind = feed.listen()

    async def scene() -> None:
        left_behind.__enter__()  # never left, as when a loop is torn down

    async def later() -> list[Said]:
        with feed.listen() as listener:
            feed.say("event", {"n": 10})
            return await hear_all(listener)

    asyncio.run(scene())
    assert feed.listeners == 1
    for n in range(10):
        feed.say("event", {"n": n})
    assert [said.body for said in asyncio.run(later())] == [{"n": 10}]


def test_a_stuck_loop_collects_neither_messages_nor_callbacks() -> None:
    feed = Feed(queue_limit=3)

    async def scene() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        with feed.listen() as listener:
            for n in range(1000):  # the loop has no chance to run in between
                feed.say("event", {"n": n})
            return len(listener._queue), len(loop._ready)  # type: ignore[attr-defined]

    queued, callbacks = asyncio.run(scene())
    assert queued <= 3
    assert callbacks <= 2


def test_the_end_of_the_feed_wakes_who_waits_and_meets_who_comes_later() -> None:
    feed = Feed()

    async def scene() -> None:
        with feed.listen() as listener:
            waiting = asyncio.create_task(listener.hear(PATIENCE_S))
            await asyncio.sleep(0)
            feed.end()
            assert await waiting is None
            assert listener.ended
        with feed.listen() as late:
            assert await late.hear(PATIENCE_S) is None
        assert feed.listeners == 0

    asyncio.run(asyncio.wait_for(scene(), 2))


@given(st.lists(st.one_of(st.just("say"), st.just("hear")), max_size=60), st.integers(1, 5))
@settings(deadline=None)
def test_a_listener_never_misses_anything_without_being_told(steps: list[str], limit: int) -> None:
    async def scene() -> None:
        feed = Feed(queue_limit=limit)
        said_so_far, heard_up_to = 0, 0
        with feed.listen() as listener:
            for step in [*steps, *["hear"] * (limit + 1)]:
                if step == "say":
                    said_so_far += 1
                    feed.say("event", {})
                elif (said := await listener.hear(0)) is not None:
                    assert said.id == heard_up_to + 1 or said.kind == "resync"
                    heard_up_to = said.id
        assert heard_up_to == said_so_far

    asyncio.run(scene())


# ---- the stream ------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), st.text()))
def test_no_text_breaks_out_of_its_event(body: dict[str, str]) -> None:
    lines = sse(7, "event", body).decode().split("\n")
    assert lines[:2] == ["id: 7", "event: event"]
    assert json.loads(lines[2].removeprefix("data: ")) == body
    assert lines[3:] == ["", ""]


class Stream:
    """What a client reads."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next event or comment (under ""), field by field."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(": ")
            fields[name] = value
        raise EOFError

    async def event(self) -> tuple[str, Any]:
        while True:
            block = await self.block()
            if "event" in block:
                return block["event"], json.loads(block["data"])


@asynccontextmanager
async def streaming(gateway: Gateway, role: str = "operator", **changed: Any) -> AsyncIterator[Stream]:
    app = create_app(replace(gateway.deps, **changed))
    async with (
        serve(app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/api/v1/stream", headers=BEARER[role]) as response,
    ):
        stream = Stream(response)
        assert await stream.block() == {"": "here"}
        yield stream


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))


EVENT = {
    "node": "kitayama-03", "epoch": "0" * 16, "seq": 1, "device": "trap-11", "type": "trap_sprung", "class_": "alarm",
    "time_us": NOW_US, "node_time_us": NOW_US, "received_us": NOW_US, "late": False, "clock_trusted": True,
    "body": '{"folded": 0}',
}  # fmt: skip
ALERT = {
    "id": "a-1", "rule": "sprung", "kind": "trap", "severity": "critical", "node": "kitayama-03", "device": "trap-11",
    "opening": "x", "state": "firing", "since_us": NOW_US, "late": False, "summary": "trap_sprung", "fired_us": NOW_US,
    "acknowledged_us": None, "acknowledged_by": None, "resolved_us": None, "version": 1,
    "facts": "{}", "count": 1, "shelved_until_us": None, "suppressed_by": None,
}  # fmt: skip
LATEST = {
    "node": "kitayama-03", "device": "trap-11", "metric": "battery_voltage", "time_us": NOW_US, "received_us": NOW_US,
    "value": 12.5,
}  # fmt: skip


def test_events_alerts_and_latest_values_arrive_as_the_lists_show_them(gateway: Gateway) -> None:
    async def scene() -> None:
        async with streaming(gateway) as stream:
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            assert stream.response.headers["Cache-Control"] == "no-store"
            gateway.deps.feed.say("event", EVENT)
            kind, body = await stream.event()
            assert (kind, body["class"], body["body"], body["place"]) == ("event", "alarm", {"folded": 0}, "北尾根")
            gateway.deps.feed.say("alert", ALERT)
            kind, body = await stream.event()
            assert (kind, body["id"], body["label"]) == ("alert", "a-1", "3番")
            assert "opening" not in body
            gateway.deps.feed.say("latest", {"rows": [LATEST]})
            assert await stream.event() == ("latest", {"rows": [{**LATEST, "unit": "V"}]})

    play(scene)


def test_ids_grow(gateway: Gateway) -> None:
    async def scene() -> None:
        async with streaming(gateway) as stream:
            for _ in range(3):
                gateway.deps.feed.say("alert", ALERT)
            assert [(await stream.block())["id"] for _ in range(3)] == ["1", "2", "3"]

    play(scene)


def test_a_silent_stream_says_that_it_is_alive(gateway: Gateway) -> None:
    async def scene() -> None:
        async with streaming(gateway, heartbeat_s=0.05) as stream:
            assert await stream.block() == {"": "alive"}
            assert await stream.block() == {"": "alive"}

    play(scene)


def test_the_default_heartbeat_lets_a_page_notice_silence_within_ten_seconds(gateway: Gateway) -> None:
    assert gateway.deps.heartbeat_s * 2 < 10


def test_a_viewer_hears_no_sightings_but_hears_that_the_stream_lives(gateway: Gateway) -> None:
    async def scene() -> None:
        async with streaming(gateway, "viewer", heartbeat_s=0.05) as stream:
            done = asyncio.Event()

            async def talk() -> None:
                while not done.is_set():
                    gateway.deps.feed.say("event", {**EVENT, "type": "tag_seen", "class_": "sighting"})
                    gateway.deps.feed.say("event", {**EVENT, "type": "button_pressed"})
                    gateway.deps.feed.say("alert", {**DEFAULTS["alerts"](NOW_US), "node": "watched", "kind": "watched"})
                    await asyncio.sleep(0.01)

            talking = asyncio.create_task(talk())
            assert await stream.block() == {"": "alive"}
            gateway.deps.feed.say("event", EVENT)
            _, body = await stream.event()
            assert body["type"] == "trap_sprung"
            done.set()
            await talking

    play(scene)


def test_who_leaves_is_forgotten(gateway: Gateway) -> None:
    async def scene() -> None:
        app = create_app(replace(gateway.deps, heartbeat_s=0.05))
        async with serve(app, "127.0.0.1", 0) as port:
            async with (
                httpx.AsyncClient() as client,
                client.stream("GET", f"http://127.0.0.1:{port}/api/v1/stream", headers=BEARER["viewer"]) as response,
            ):
                await Stream(response).block()
                assert gateway.deps.feed.listeners == 1
            while gateway.deps.feed.listeners:  # noqa: ASYNC110 - nothing tells when the server has noticed
                await asyncio.sleep(0.01)

    play(scene)


def test_too_many_streams_are_told_to_come_later(gateway: Gateway) -> None:
    answer = gateway.client(feed=Feed(listeners_limit=0)).get("/api/v1/stream")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_the_server_stops_at_once_though_a_stream_is_open(gateway: Gateway) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            async with serve(create_app(gateway.deps), "127.0.0.1", 0) as port:
                request = client.build_request("GET", f"http://127.0.0.1:{port}/api/v1/stream", headers=BEARER["viewer"])
                response = await client.send(request, stream=True)
                stream = Stream(response)
                await stream.block()
                began = loop.time()
            assert loop.time() - began < 3
            with pytest.raises(EOFError):
                await stream.event()
            await response.aclose()

    play(scene)


def test_a_port_that_is_taken_is_a_config_error(gateway: Gateway) -> None:
    async def scene() -> None:
        app, port = create_app(gateway.deps), free_port()
        async with serve(app, "127.0.0.1", port) as bound:
            assert bound == port
            with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} can't be had"):
                async with serve(app, "127.0.0.1", port):
                    pass

    play(scene)
