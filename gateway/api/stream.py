"""GET stream: what happens, as it happens, as server-sent events (WHATWG HTML, section 9.2).

Kinds: `latest` {rows}, `event`, `alert`, and `resync` {}: something was missed, read the lists again. There is no
replay after a reconnect: whoever reads the lists once the first line of the stream is there has missed nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from gateway.api import things
from gateway.api.deps import Deps, sifted
from gateway.api.looking import look_for, shown
from gateway.api.problems import Problem
from gateway.api.shapes import alert_json, concerns_person, event_json, unit_of
from gateway.feed import RESYNC, Said
from gateway.mimamori.enrolled import WATCHED
from gateway.policy import Actor, Extent, Thing, extent

READ_BY = {"latest": "reading.read", "event": "event.read", "alert": "alert.read", "page": "page.read", "mode": "area.read"}
"""kind -> who may read it, as of the lists. A kind that has no line is told to nobody."""
MOST_OF_ONE = 10
"""Streams of one account at once: there is an end to all streams, and nobody is to take them from the others."""
ASK_EVERY_S = 10
"""So often it is asked anew what is theirs: a job ends, a family changes."""


def routes(deps: Deps) -> APIRouter:
    """GET /stream."""
    router = APIRouter()

    mine: Counter[str] = Counter()

    @router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
    async def stream(actor: Annotated[Actor, Depends(sifted("stream.read"))]) -> StreamingResponse:
        """The live stream, of what the caller may read. A comment comes every few seconds, so silence means a dead connection."""
        if deps.feed.full:
            raise Problem(503, "why.streams", headers={"Retry-After": "30"})
        if actor.account is not None and mine[actor.account] >= MOST_OF_ONE:
            raise Problem(429, "why.your_streams", headers={"Retry-After": "30"})
        lines = _lines(deps, actor, mine)
        return StreamingResponse(lines, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return router


@contextmanager
def _counted(mine: Counter[str], account: str | None) -> Iterator[None]:
    mine[account or ""] += 1
    try:
        yield
    finally:
        mine[account or ""] -= 1
        if not mine[account or ""]:
            del mine[account or ""]


async def _lines(deps: Deps, actor: Actor, mine: Counter[str]) -> AsyncIterator[bytes]:
    # Listening begins and ends in here: a generator that is never started must leave nothing behind.
    with deps.feed.listen() as listener, _counted(mine, actor.account):
        clock = asyncio.get_running_loop().time
        theirs, asked = await run_in_threadpool(_extents, deps, actor), clock()
        yield b": here\n\n"
        quiet_until = clock() + deps.heartbeat_s
        while True:
            said = await listener.hear(quiet_until - clock())
            if said is None and listener.ended:
                return
            if clock() >= asked + ASK_EVERY_S:
                theirs, asked = await run_in_threadpool(_extents, deps, actor), clock()
            body = await _shown(deps, said, theirs) if said is not None else None
            if said is not None and body is not None:
                if said.kind == "alert" and body["node"] == WATCHED:
                    await run_in_threadpool(look_for, deps, actor, {body["device"]: f"alert/{body['id']}"}, "alerts")
                yield sse(said.id, said.kind, body)
            elif clock() >= quiet_until:
                yield b": alive\n\n"
            else:
                continue  # it was not for this listener, which still counts the seconds of silence
            quiet_until = clock() + deps.heartbeat_s


def _extents(deps: Deps, actor: Actor) -> Mapping[str, Extent]:
    return {action: extent(actor, action, deps.world) for action in (*READ_BY.values(), "page.history")}


async def _shown(deps: Deps, said: Said, extents: Mapping[str, Extent]) -> Any:
    """The body as the other routes would show it; None when it is not for this listener."""
    body = said.body
    if said.kind == RESYNC:
        return body
    if said.kind not in READ_BY:
        return None
    theirs = extents[READ_BY[said.kind]]
    match said.kind:
        case "event" | "alert":
            if not await _reaches(deps, said.kind, body, theirs):
                return None
            deployment, thing = deps.stands(body["node"], body["device"]), Thing(body["node"], body["device"])
            is_event, names = said.kind == "event", extents["page.history"].covers(thing)
            return event_json(body, deployment) if is_event else alert_json(body, deployment, names)
        case "latest":
            rows = [
                {**row, "unit": unit_of(row["metric"])}
                for row in body["rows"]
                if theirs.covers(Thing(row["node"], row["device"]))
            ]
            return {"rows": rows} if rows else None
        case "page" if not theirs.everything:
            if theirs == Extent():
                return None
            about = await run_in_threadpool(things.page_things, deps, body["id"])
            return body if any(map(theirs.covers, about)) else None
        case _:
            return body if theirs.everything else None


async def _reaches(deps: Deps, kind: str, body: Any, theirs: Extent) -> bool:
    """Where a tag is goes to nobody as it happens: a dot that moves is nobody's business, and a search tells places.

    Of alerts about people family hears those that its list has: none while a tag is stopped.
    """
    if not theirs.covers(Thing(body["node"], body["device"])) or (kind == "event" and concerns_person(body)):
        return False
    if kind == "event" or body["node"] != WATCHED or theirs.everything:
        return True
    return bool(await run_in_threadpool(shown, deps, theirs, None, [body["device"]]))


def sse(id_: int, kind: str, body: Any) -> bytes:
    """One event of the stream. JSON escapes line ends, so `data` is always one line."""
    return f"id: {id_}\nevent: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()
