"""Blocking calls to the network, out of the loop's way: the one thread that the end of the agent does not wait for."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


async def apart(call: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
    """The call's result, or what it raises; as asyncio.to_thread, but a cancelled one is left behind.

    asyncio's own threads are waited for at the end: a gateway that takes a connection and says nothing would hold up each stop of
    the agent for a minute, and the service manager would kill it. What is left behind must bear that.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(result: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else result())
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    def run() -> None:
        try:
            result = call(*args)
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            failure = error  # the name `error` ends with this block
            settle(lambda: done.set_exception(failure))
        else:
            settle(lambda: done.set_result(result))

    threading.Thread(target=run, name=getattr(call, "__name__", "apart"), daemon=True).start()
    return await done
