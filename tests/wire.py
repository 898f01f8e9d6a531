"""A bad network between a client and a server on loopback: cut, or silent without being cut."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Self, TypeVar

T = TypeVar("T")


class Wire:
    """Relays TCP to `port`; switched from any thread. `cut_after`: each connection dies after so many bytes upwards."""

    def __init__(self, port: int, cut_after: int | None = None) -> None:
        self._target, self._cut_after = port, cut_after
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._refusing = False
        self._relays: set[asyncio.Task[None]] = set()
        self.near_port = 0
        """Where to connect to, once it is entered."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._flowing.set()
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.near_port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def silence(self) -> None:
        """From now on nothing passes, and nobody is told: the far side of a hill."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def cut(self) -> None:
        """Drops all connections and takes no new ones."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._drop)

    def mend(self) -> None:
        """Everything passes again; what was silent is dropped, as a router that restarted does."""
        self._refusing = False
        self._loop.call_soon_threadsafe(self._drop)
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, up_writer}
        try:
            await asyncio.gather(self._pump(reader, up_writer, self._cut_after), self._pump(up_reader, writer, None))
        finally:
            self._writers -= {writer, up_writer}
            writer.transport.abort()
            up_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        try:
            while data := await reader.read(16_384):
                await self._flowing.wait()
                if left is not None and (left := left - len(data)) < 0:
                    await asyncio.sleep(0.05)  # what was passed on before gets there
                    self._drop()
                    return
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            pass


@contextmanager
def in_thread(opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """An async context manager on an event loop and thread of its own, for tests that are not on a loop."""
    ready: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with opened as value:
            ready.set_result((value, asyncio.get_running_loop(), stop))
            await stop.wait()

    def guarded() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=guarded, name="loop of a test")
    thread.start()
    value, loop, stop = ready.result(10)
    try:
        yield value
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
