"""A web side on a real socket, in a thread, for tests that ask it as a stranger would."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from gateway.api.server import serve


@contextmanager
def served(app: FastAPI, **how: Any) -> Iterator[int]:
    """The port, while the block runs. `how`: of `serve`."""
    ready, over = threading.Event(), asyncio.Event()
    ports: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with serve(app, "127.0.0.1", 0, **how) as port:
            ports.append(port)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(20), "the web side does not come up"
    try:
        yield ports[0]
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(20)
