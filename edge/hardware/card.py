"""A folder that something else writes to, perhaps on a card: seen by the kernel's inotify, and read without holding up others."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

from edge.errors import DeviceError

log = logging.getLogger(__name__)

AT_ONCE_S = 0.05
"""A card answers within this, for which all others wait, or they go on without it: a trap must not stand behind many pictures."""

PATIENCE_S = 120.0
"""A card that takes longer for one thing hangs. Copying a long video from a slow one takes less."""

_Result = TypeVar("_Result")

# It tells each change on its own logger, at a level that is a journal's.
logging.getLogger("watchfiles").setLevel(logging.WARNING)


class Changes:
    """What is known of a watched folder: `wakeup` is set when something in it changed; `watched` whether that works."""

    def __init__(self) -> None:
        self.wakeup = asyncio.Event()
        self.watched = False


@contextmanager
def changes_in(folder: Path, device: str, *, wanted: bool) -> Iterator[Changes]:
    """Watches a folder and those in it, if wanted. Where that can't be had it is said once, and `watched` stays False."""
    changes, stop, loop = Changes(), Event(), asyncio.get_running_loop()

    def watch() -> None:
        from watchfiles import watch

        try:
            changes.watched = True
            for _ in watch(
                folder, watch_filter=None, debounce=500, step=100, stop_event=stop, force_polling=False,
                raise_interrupt=False, ignore_permission_denied=True,
            ):  # fmt: skip
                loop.call_soon_threadsafe(changes.wakeup.set)
        except (OSError, RuntimeError) as error:
            if not stop.is_set():  # else the loop has ended, and waits for no one
                log.warning("%s: %s can't be watched (%s); it is looked through again and again instead", device, folder, error)
        finally:
            changes.watched = False

    if wanted:
        Thread(target=watch, name=f"{device}-watch", daemon=True).start()
    try:
        yield changes
    finally:
        stop.set()


class CardReader:
    """Runs one thing after the other on a card, in a thread of its own: a card that hangs stops its own device only."""

    def __init__(self, what: str) -> None:
        """`what` is said to hang when it does; a Pi's camera can as well as a card."""
        self._what = what
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="card")
        self._last: Future[object] | None = None

    async def run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """What `work` returns or raises. What is done soon is waited for, so that it happens at the instant it was asked for.

        DeviceError when it hangs, at once as long as it goes on hanging.
        """
        if self._last is not None and not self._last.done():
            raise DeviceError(f"{self._what} still does not answer: take it out and put it back in, or change it")
        future = self._threads.submit(work, *arguments)
        self._last = future  # type: ignore[assignment]  # only asked whether it is done
        try:
            return future.result(AT_ONCE_S)
        except NotYet:
            if future.done():
                raise  # it was the work's own
        done, _ = await asyncio.wait((asyncio.wrap_future(future),), timeout=PATIENCE_S)
        if not done:
            raise DeviceError(f"{self._what} has not answered for {PATIENCE_S:g} s: take it out and put it back in, or change it")
        return done.pop().result()


def free_bytes(folder: Path) -> int | None:
    """Room on the file system that a folder is on, for others than root; None where it keeps no count. OSError from the card."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize if found.f_blocks else None
