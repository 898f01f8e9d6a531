"""GET stream: what happens, as it happens, as server-sent events (WHATWG HTML, section 9.2).

Kinds: `latest` {rows}, `event`, `alert`, and `resync` {}: something was missed, read the lists again. There is no
replay after a reconnect: whoever reads the lists once the first line of the stream is there has missed nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from gateway.api.authorize import Actor, may
from gateway.api.deps import Deps, permitted
from gateway.api.problems import Problem
from gateway.api.shapes import alert_json, concerns_person, event_json, unit_of
from gateway.feed import Said


def routes(deps: Deps) -> APIRouter:
    """GET /stream."""
    router = APIRouter()

    @router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
    async def stream(actor: Annotated[Actor, Depends(permitted("stream.read"))]) -> StreamingResponse:
        """The live stream. A comment comes at least every few seconds, so silence means a dead connection."""
        if deps.feed.full:
            raise Problem(503, "Too many streams are open. Try again later.", headers={"Retry-After": "30"})
        lines = _lines(deps, sightings=may(actor, "sighting.read"))
        return StreamingResponse(lines, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return router


async def _lines(deps: Deps, *, sightings: bool) -> AsyncIterator[bytes]:
    # Listening begins and ends in here: a generator that is never started must leave nothing behind.
    with deps.feed.listen() as listener:
        yield b": here\n\n"
        clock = asyncio.get_running_loop().time
        quiet_until = clock() + deps.heartbeat_s
        while True:
            said = await listener.hear(quiet_until - clock())
            if said is None and listener.ended:
                return
            body = _shown(deps, said, sightings=sightings) if said is not None else None
            if said is not None and body is not None:
                yield sse(said.id, said.kind, body)
            elif clock() >= quiet_until:
                yield b": alive\n\n"
            else:
                continue  # it was not for this listener, which still counts the seconds of silence
            quiet_until = clock() + deps.heartbeat_s


def _shown(deps: Deps, said: Said, *, sightings: bool) -> Any:
    """The body as the other routes would show it; None when it is not for this listener."""
    body = said.body
    match said.kind:
        case "event":
            if concerns_person(body) and not sightings:
                return None
            return event_json(body, deps.deployments.of(body["node"], body["device"]))
        case "alert":
            if concerns_person(body) and not sightings:
                return None
            return alert_json(body, deps.deployments.of(body["node"], body["device"]))
        case "latest":
            return {"rows": [{**row, "unit": unit_of(row["metric"])} for row in body["rows"]]}
        case _:
            return body


def sse(id_: int, kind: str, body: Any) -> bytes:
    """One event of the stream. JSON escapes line ends, so `data` is always one line."""
    return f"id: {id_}\nevent: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()
