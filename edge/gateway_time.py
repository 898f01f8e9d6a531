"""The gateway's clock, for a node that nothing else gives the time: asked over TLS, and carried on by the time since boot.

A node without internet, and without NTP from its router, would be unsync for ever: its records would get their time from the
gateway all the same, but it could not tell an expired command from a good one. NTP is better, and comes first where there is any.
"""

import asyncio
import http.client
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from edge.clock import Clock, Instant, kernel_is_disciplined
from edge.contract.messages import MAX_TIME_US
from edge.errors import ConfigError
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
        self, clock: Clock, url: str, ca_file: Path, rng: random.Random, kernel: Callable[[], bool] = kernel_is_disciplined
    ) -> None:
        """`url` is the gateway's node listener, `ca_file` who must vouch for it. Asks nothing before `run`."""
        self._clock, self._url, self._ca_file, self._rng, self._kernel = clock, url, ca_file, rng, kernel
        self._zero_us: int | None = None
        self._asked_us = 0
        self._down = False

    def now(self) -> Instant:
        """This moment."""
        now = self._clock.now()
        return now if self._zero_us is None else now._replace(utc_us=self._zero_us + now.mono_us)

    async def sleep(self, seconds: float) -> None:
        """As the machine's clock."""
        await self._clock.sleep(seconds)

    def disciplined(self) -> bool:
        """Whether UTC is right: by NTP, or by an answer of the gateway that is not too old."""
        if self._kernel():
            self._zero_us = None
            return True
        return self._zero_us is not None and self._clock.now().mono_us - self._asked_us < GOOD_FOR_US

    @property
    def guides(self) -> bool:
        """Whether the machine's own clock is another one: what goes by that, like TLS, must not trust it."""
        return self._zero_us is not None

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
        began_us = self._clock.now().mono_us
        try:
            answer_us = await asyncio.to_thread(_asked, self._url, self._ca_file)
            ended_us = self._clock.now().mono_us
            if ended_us - began_us > LONGEST_TRIP_US:
                raise OSError(f"the answer took {(ended_us - began_us) / 1e6:.1f} s, too long to tell the time by")
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self._down:
                log.warning("nothing gives this node the time, and the gateway can't be asked: %s", error)
            self._down = True
            return False
        if self._zero_us is None:
            log.info("nothing gives this node the time: it goes by the gateway's")
        self._zero_us, self._asked_us, self._down = answer_us - (began_us + ended_us) // 2, ended_us, False
        return True


def _asked(url: str, ca_file: Path) -> int:
    """UTC µs by the gateway. OSError or ValueError when it can't be had."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(f"remote.url: {url!r} is not https://host:port")
    # The clock is what is asked for, so it can't judge dates.
    context = client_context("remote", ca_file, clock="unsync")
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/v1/time")
        response = connection.getresponse()
        body = response.read(1000)
    finally:
        connection.close()
    said = json.loads(body) if response.status == 200 else None
    now_us = said.get("now_us") if isinstance(said, dict) else None
    if type(now_us) is not int or not 0 < now_us <= MAX_TIME_US:
        raise ValueError(f"{url} answered {response.status} and no time")
    return now_us
