"""What just happened, for whoever watches now: said from any thread, heard on asyncio, remembered by nobody.

The feed is a hint, never a record: the facts stand in the state database. So it may drop, and a listener that was too
slow is told so with one `resync`, upon which it reads the lists again.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

RESYNC = "resync"

Body = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What is said, or what makes it: called only where somebody listens."""


class Said(NamedTuple):
    """One message. `id` grows by one a message while the gateway runs; a `resync` has the id of what it stands for."""

    id: int
    kind: str
    body: Mapping[str, Any]


class Listener:
    """One subscriber's bounded queue; made by `Feed.listen`, used on the event loop that made it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, dropped: Callable[[int], object]) -> None:
        self._loop, self._limit, self._dropped = loop, limit, dropped
        self._queue: deque[Said] = deque()
        self._lock = threading.Lock()
        self._news = asyncio.Event()
        self._woken = False  # one wake-up under way is enough: a busy loop must not collect thousands of callbacks
        self._ended = False

    async def hear(self, within_s: float) -> Said | None:
        """The next message, or None when nothing was said in time or the feed has ended (see `ended`)."""
        if (said := self._take()) is None and not self._ended:
            try:
                await asyncio.wait_for(self._news.wait(), within_s)
            except TimeoutError:
                return None
            said = self._take()
        return said

    @property
    def ended(self) -> bool:
        """The gateway is stopping: nothing will be said any more."""
        return self._ended

    def _take(self) -> Said | None:
        with self._lock:
            said = self._queue.popleft() if self._queue else None
            if not self._queue:
                self._news.clear()
            return said

    def offer(self, said: Said | None) -> None:
        """Called by the feed, on any thread; None ends the feed."""
        with self._lock:
            if said is None:
                self._ended = True
            elif len(self._queue) >= self._limit:
                self._dropped(len(self._queue) + 1)
                self._queue.clear()
                self._queue.append(Said(said.id, RESYNC, {}))
            else:
                self._queue.append(said)
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass  # its loop is closed: nobody waits there, and `listen` takes this listener out as it unwinds

    def _wake(self) -> None:
        with self._lock:
            self._woken = False
            if self._queue or self._ended:  # else it was taken before this wake-up came round
                self._news.set()


class Feed:
    """`say` on one side, `listen` on the other."""

    def __init__(
        self, queue_limit: int = 500, listeners_limit: int = 200, dropped: Callable[[int], object] = lambda _: None
    ) -> None:
        """`dropped` hears how many messages a listener that was too slow will not hear."""
        self._queue_limit, self._listeners_limit, self.dropped = queue_limit, listeners_limit, dropped
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._count = 0
        self._ended = False

    def say(self, kind: str, body: Body) -> None:
        """Tells every listener; from any thread, never blocks, never fails. The body must not be changed afterwards."""
        with self._lock:
            self._count += 1
            if not self._listeners:
                return
            said = Said(self._count, kind, body() if callable(body) else body)
            # Offered under the lock, so that every listener hears the messages in the order of their ids.
            for listener in self._listeners:
                listener.offer(said)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Hears everything said from now on until the block ends; on a running event loop."""
        listener = Listener(asyncio.get_running_loop(), self._queue_limit, self.dropped)
        with self._lock:
            self._listeners.add(listener)
            if self._ended:
                listener.offer(None)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        with self._lock:
            return len(self._listeners)

    @property
    def full(self) -> bool:
        """As many listen as should; the next one had better come later."""
        return self.listeners >= self._listeners_limit

    def end(self) -> None:
        """Lets every listener finish, now and from now on: the server can only stop when its streams have ended."""
        with self._lock:
            self._ended = True
            for listener in self._listeners:
                listener.offer(None)
