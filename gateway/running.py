"""A gateway at work: what who runs it is told, and how he hears that a thread of it failed."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)


class Running(NamedTuple):
    """A gateway at work."""

    port: int
    """Of the API."""
    failed: asyncio.Event
    """Set when a part of it ended by an error: stop, and start anew. Half a gateway would look alive and be deaf."""
    telemetry: Telemetry
    node_port: int | None = None
    """Of the node listener; None without `[nodes]`."""


def thread_of(name: str, run: Callable[[], None], loop: asyncio.AbstractEventLoop, failed: asyncio.Event) -> threading.Thread:
    """A thread whose failure is told to who runs the gateway."""

    def guarded() -> None:
        try:
            run()
        except BaseException:
            log.exception("the %s thread failed; the gateway must be started again", name)
            loop.call_soon_threadsafe(failed.set)

    return threading.Thread(target=guarded, name=name, daemon=True)
