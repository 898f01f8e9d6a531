"""How many bytes of pictures a node may send: a day's allowance at once, then as it refills. Memory only: a restart begins anew.

A node whose allowance is used up is told to wait and keeps its pictures; nobody else's wait for them.
"""

import math
import threading
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import problem

DAY_BYTES = 2 * 1024**3
"""A camera's busiest day: 2,000 pictures of 1 MB."""
_DAY_US = 86_400 * 1_000_000
_REMEMBERED = 10_000

Note = Callable[[str, str, int], object]


class PictureQuota:
    """ASGI, behind the gate: counts what an upload's body holds for the node that sends it."""

    def __init__(self, app: ASGIApp, now_us: Callable[[], int], note: Note = lambda *_: None) -> None:
        """`note` hears of each upload that has to wait; see gateway.nodes.conduct."""
        self._app, self._now_us, self._note = app, now_us, note
        self._left: dict[str, tuple[float, int]] = {}  # bytes, as of when
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """429 with Retry-After for an upload beyond the allowance."""
        actor = scope.get("state", {}).get("actor") if scope["type"] == "http" and scope["method"] == "PATCH" else None
        if actor is None:
            await self._app(scope, receive, send)
            return
        node, now_us = actor.name, self._now_us()
        if (left := self._take(node, 0, now_us)) <= 0:
            self._note(node, "pictures", now_us)
            wait_s = max(math.ceil((1 - left) * 86_400 / DAY_BYTES), 60)
            said = f"This node has sent its allowance of pictures. Try again in {wait_s} s."
            await problem(429, said, {"Retry-After": str(wait_s)})(scope, receive, send)
            return

        async def counted() -> Message:
            message = await receive()
            if body := message.get("body"):
                self._take(node, len(body), now_us)
            return message

        await self._app(scope, counted, send)

    def _take(self, node: str, size: int, now_us: int) -> float:
        """What is left of a node's allowance after `size` bytes more."""
        with self._lock:
            if len(self._left) >= _REMEMBERED and node not in self._left:
                self._left.clear()
            left, at_us = self._left.get(node, (float(DAY_BYTES), now_us))
            left = min(DAY_BYTES, left + max(now_us - at_us, 0) * DAY_BYTES / _DAY_US) - size
            self._left[node] = (left, now_us)
            return left
