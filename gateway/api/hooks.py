"""POST /hooks/line: what LINE tells us. Checked by its signature, kept, answered at once; worked on afterwards (`gateway.inbox`).

LINE may send several events in one call, the same event again, an event after a later one, and kinds of event that did not exist
when this was written. https://developers.line.biz/en/reference/messaging-api/#webhooks
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.api.bodies import mended
from gateway.api.deps import Deps
from gateway.api.problems import NotHere, Problem
from gateway.inbox import Arrival

LINE = "/hooks/line"
MOST_EVENTS = 1000
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def routes(deps: Deps) -> APIRouter:
    """POST /hooks/line."""
    router = APIRouter()

    @router.post(LINE, include_in_schema=False)
    async def line(request: Request) -> Response:
        """Open to all, and does nothing without LINE's signature. 200 once every event is durable."""
        if deps.line_secret is None or deps.inbox is None:
            raise NotHere("[channel.line]")
        body = await request.body()
        if not is_signed(deps.line_secret, body, request.headers.get("X-Line-Signature", "")):
            raise Problem(401, "X-Line-Signature is not that of this channel's secret.")
        now_us = deps.now_us()
        arrivals = arrivals_of(body, now_us)
        if arrivals:
            # In a thread: it waits for the disk.
            await run_in_threadpool(deps.inbox.keep, "line", arrivals, now_us)
        return Response(status_code=200)

    return router


def is_signed(secret: str, body: bytes, signature: str) -> bool:
    """Whether the signature is the base64 of the body's HMAC-SHA256 with the secret; takes as long for any wrong one."""
    wanted = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest())
    return hmac.compare_digest(wanted, signature.encode("utf-8", "replace"))


def arrivals_of(body: bytes, now_us: int) -> list[Arrival]:
    """The events of a webhook. Problem 400 for what is no webhook; an event without an id gets one of what it says."""
    try:
        document = mended(json.loads(body))
        events = document["events"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Problem(400, "The body is no webhook of LINE: JSON with `events` was expected.") from error
    if not isinstance(events, list) or len(events) > MOST_EVENTS or not all(isinstance(event, dict) for event in events):
        raise Problem(400, f"`events` is no list of at most {MOST_EVENTS} objects.")
    return [Arrival(_id_of(event), event, _time_of(event, now_us)) for event in events]


def _id_of(event: Mapping[str, Any]) -> str:
    said = event.get("webhookEventId")
    if isinstance(said, str) and _ID.fullmatch(said):
        return said
    same = {name: value for name, value in event.items() if name != "deliveryContext"}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _time_of(event: Mapping[str, Any], now_us: int) -> int:
    said = event.get("timestamp")
    return said * 1000 if isinstance(said, int) and 0 <= said < 2**53 else now_us
