"""Waiting for a device or for the clock, whichever comes first."""

import asyncio

from edge.clock import Clock


async def woken_within(wakeup: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Waits until `wakeup` is set or `seconds` have passed by `clock`; tells whether it was set, and clears it."""
    woken, slept = asyncio.ensure_future(wakeup.wait()), asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((woken, slept), return_when=asyncio.FIRST_COMPLETED)
        if slept.done():
            slept.result()  # a clock that fails must be heard
    finally:
        woken.cancel()
        slept.cancel()
    was_set = wakeup.is_set()
    wakeup.clear()
    return was_set
