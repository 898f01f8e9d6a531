"""The gateway's clock, for a node that nothing else gives the time: asked over TLS, and carried on by the time since boot.

A node without internet, and without NTP from its router, would be unsync for ever: its records would get their time from the
gateway all the same, but it could not tell an expired command from a good one. NTP is better, and comes first where there is any.
"""

import http.client
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from edge.apart import apart
from edge.clock import Clock, Instant, kernel_is_disciplined
from edge.contract.messages import MAX_TIME_US
from edge.errors import ConfigError
from edge.timekeeper import image_time_us
from edge.tls import client_context

log = logging.getLogger(__name__)

ASK_S = 3600.0
FIRST_RETRY_S, LONGEST_RETRY_S = 30.0, 600.0
TIMEOUT_S = 10.0
LONGEST_TRIP_US = 4_000_000
"""The answer is true somewhere within its round trip: one that took longer could be wrong by more than 2 s."""
GOOD_FOR_US = 9 * 3600 * 1_000_000
"""A Pi's crystal is off by some 50 millionths at the worst: by then, a second and a half. As long as the kernel believes NTP."""


class GatewayTime:
    """The machine's clock (`edge.clock.Clock`), with the gateway's UTC while nothing else disciplines it."""

    def __init__(
        self,
        clock: Clock,
        url: str,
        ca_file: Path,
        rng: random.Random,
        kernel: Callable[[], bool] = kernel_is_disciplined,
        *,
        image_us: int | None = None,
    ) -> None:
        """`url` is the gateway's node listener, `ca_file` who must vouch for it; `image_us` (UTC) is when this installation was
        made, which no true answer is before. Asks nothing before `run`.
        """
        self._clock, self._url, self._ca_file, self._rng, self._kernel = clock, url, ca_file, rng, kernel
        self._image_us = image_time_us() if image_us is None else image_us
        self._zero_us: int | None = None
        self._asked_us = 0
        self._down = False

    def now(self) -> Instant:
        """This moment."""
        now, zero_us = self._clock.now(), self._zero_us  # once: threads ask too, and NTP may come in between
        return now if zero_us is None else now._replace(utc_us=zero_us + now.mono_us)

    async def sleep(self, seconds: float) -> None:
        """As the machine's clock."""
        await self._clock.sleep(seconds)

    def disciplined(self) -> bool:
        """Whether UTC is right: by NTP, or by an answer of the gateway that is not too old."""
        if self._kernel():
            self._zero_us = None
            return True
        return self._zero_us is not None and self._clock.now().mono_us - self._asked_us < GOOD_FOR_US

    async def run(self) -> None:
        """Asks while nothing else gives the time: at once, then each hour."""
        failures = 0
        while True:
            if self._kernel():
                failures = 0
            else:
                failures = 0 if await self.ask() else failures + 1
            pause_s = min(FIRST_RETRY_S * 2 ** min(failures - 1, 10), LONGEST_RETRY_S) if failures else ASK_S
            await self._clock.sleep(pause_s * self._rng.uniform(0.75, 1.25))

    async def ask(self) -> bool:
        """One question. Whether the answer can be used; why not is said once."""
        try:
            said = await apart(_asked, self._url, self._ca_file, self._clock)
            took_us = said.ended_us - said.began_us
            if took_us > LONGEST_TRIP_US:
                raise OSError(f"the answer took {took_us / 1e6:.1f} s, too long to tell the time by")
            if said.utc_us < self._image_us:
                # A gateway without a battery for its clock, or without NTP itself.
                raise ValueError(f"{self._url} says a time before this software was made: is the gateway's own clock right?")
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self._down:
                log.warning("nothing gives this node the time, and the gateway can't be asked: %s", error)
            self._down = True
            return False
        if self._zero_us is None:
            log.info("nothing gives this node the time: it goes by the gateway's")
        least_us, most_us = said.utc_us - said.ended_us, said.utc_us - said.began_us
        if self._zero_us is None or not least_us <= self._zero_us <= most_us:
            self._zero_us = (least_us + most_us) // 2
        self._asked_us, self._down = said.ended_us, False
        return True


class _Said(NamedTuple):
    """The gateway's UTC, true at a moment between these two of the time since boot."""

    began_us: int
    utc_us: int
    ended_us: int


def _asked(url: str, ca_file: Path, clock: Clock) -> _Said:
    """One question over a new connection. OSError, ValueError or HTTPException when the time can't be had."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(f"remote.url: {url!r} is not https://host:port")
    # The clock is what is asked for, so it can't judge dates.
    context = client_context("remote", ca_file, clock="unsync")
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()  # two round trips of their own, before the gateway looks at its clock
        began_us = clock.now().mono_us
        connection.request("GET", f"{parts.path.rstrip('/')}/api/v1/time")
        response = connection.getresponse()
        body = response.read(1000)
        ended_us = clock.now().mono_us
    finally:
        connection.close()
    try:
        said = json.loads(body) if response.status == 200 else None
    except RecursionError:
        said = None
    now_us = said.get("now_us") if isinstance(said, dict) else None
    if type(now_us) is not int or not 0 < now_us <= MAX_TIME_US:
        raise ValueError(f"{url} answered {response.status} and no time")
    return _Said(began_us, now_us, ended_us)
