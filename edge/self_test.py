"""A node that tests itself where there is no network: somebody presses a button, and the board's lamp says how it is.

Good means: every device can be read, the disk has room, and a test alarm stands in the outbox. Whether the gateway has that alarm
too is the other thing that the lamp says; it goes the way of every alarm, and rings when there is a network. What the lamp can't
say (the clock, the signal, why it is bad) stands in the log.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edge.agent import Agent
from edge.clock import Clock
from edge.config import SelfTestConfig
from edge.errors import DeviceError, OutboxError
from edge.hardware import led, machine
from edge.hardware.modem import Modem
from edge.hardware.pins import open_switch
from edge.outbox import LEAST_BYTES

log = logging.getLogger(__name__)

SHORTEST_US, LONGEST_US = 1_000_000, 5_000_000
"""A press: shorter is a touch, longer is something that leans on the button."""

BOUNCE_S = 0.05
ACK_S, LOOK_EVERY_S = 10.0, 0.5
AGAIN_US = 60_000_000
"""Who tests again so soon looks at the same test alarm: it rings once."""

RETRY_S = 60.0


class Outcome(NamedTuple):
    """What was found, and how the lamp says it: seconds of light, each after a pause in the dark."""

    said: str
    lights_s: Sequence[float]


GOOD = Outcome("good, and the gateway has the test alarm", (3,))
UNLINKED = Outcome("good, but no link to the gateway yet: the test alarm is kept here, and will be sent", (3, 0.3, 0.3))
BAD = Outcome("bad", (0.3,) * 5)
DARK_S, PAUSE_S = 1.0, 0.4
"""Before the first light and after the last; between two."""


class SelfTest:
    """Waits for the button as long as the agent runs."""

    def __init__(
        self, config: SelfTestConfig, agent: Agent, clock: Clock, state: Path, clock_state: Callable[[], str],
        waiting: Callable[[], int],
    ) -> None:  # fmt: skip
        """`state` is the folder whose disk is looked at; `waiting` tells how many records wait. `run` opens the pin."""
        self._config, self._agent, self._clock, self._state = config, agent, clock, state
        self._clock_state, self._waiting = clock_state, waiting
        self._modem = Modem()
        self._edge = asyncio.Event()
        self._alarm: tuple[int, int] | None = None  # seq of the last test alarm, and when: time since boot, µs

    async def run(self) -> None:
        """Until cancelled. OutboxError when nothing can be promised any more: the lamp has said so by then."""
        loop, down = asyncio.get_running_loop(), False
        while True:
            try:
                with open_switch(self._config.pin, lambda: loop.call_soon_threadsafe(self._edge.set)) as is_down:
                    if down:
                        log.warning("the self-test's button can be read again")
                    down = False
                    while True:
                        await self._pressed(is_down)
                        await self._test()
            except DeviceError as error:
                if not down:
                    log.error("the self-test has no button: self_test.pin: %s", error)
                down = True
            await self._clock.sleep(RETRY_S)

    async def _pressed(self, is_down: Callable[[], bool]) -> None:
        """Until somebody has pressed, and let go. A button that is found pressed is jammed until it was let go."""
        while is_down():
            await self._moved()
        while True:
            while not is_down():
                await self._moved()
            down_us = up_us = self._clock.now().mono_us  # it may bounce open before the next look
            while is_down():
                await self._moved()
                up_us = self._clock.now().mono_us
                if not is_down():
                    await self._clock.sleep(BOUNCE_S)
            if SHORTEST_US <= up_us - down_us <= LONGEST_US:
                return

    async def _moved(self) -> None:
        await self._edge.wait()
        self._edge.clear()

    async def _test(self) -> None:
        """Looks, writes the test alarm where all is well, and says it."""
        trouble = self._trouble()
        if trouble is not None:
            await self._say(BAD, trouble)
            return
        try:
            seq = self._ring()
        except OutboxError as error:
            await self._say(BAD, str(error))
            raise
        await self._say(GOOD if await self._is_answered(seq) else UNLINKED)

    def _trouble(self) -> str | None:
        """What keeps this node from its work; None where nothing does. The way to the gateway is not asked here."""
        for device, reason in self._agent.failing.items():
            return f"{device}: {reason}"
        free = machine.disk_free_bytes(self._state)
        if free is not None and free < LEAST_BYTES:
            return f"the disk is nearly full: {free // 2**20:.0f} MiB are left"
        return None

    def _ring(self) -> int:
        """Writes the test alarm, or finds the one just written; its seq. OutboxError."""
        now_us = self._clock.now().mono_us
        if self._alarm is None or now_us - self._alarm[1] >= AGAIN_US:
            self._alarm = self._agent.test_alarm(self._device(), secrets.token_hex(8)), now_us
        return self._alarm[0]

    def _device(self) -> str:
        """Whose test alarm: the device that was named, else the first trap, else the first of all."""
        devices = self._agent.devices()
        names = [one.device for one in devices]
        wanted = self._config.device
        if wanted in names:
            return wanted
        first = next((one.device for one in devices if one.kind.endswith("-trap")), names[0])
        if wanted is not None:
            log.warning("self_test.device: there is no %s; there are %s. %s is tested", wanted, ", ".join(names), first)
        return first

    async def _is_answered(self, seq: int) -> bool:
        """Whether the gateway has the record, within the time that somebody waits at a box."""
        until_us = self._clock.now().mono_us + int(ACK_S * 1e6)
        while self._agent.waits(seq):
            if not self._agent.up or self._clock.now().mono_us >= until_us:
                return False
            await self._clock.sleep(LOOK_EVERY_S)
        return True

    async def _say(self, outcome: Outcome, why: str = "") -> None:
        """By the lamp, if there is one, and in the log."""
        log.log(logging.ERROR if why else logging.INFO, "self-test: %s", ": ".join(filter(None, (outcome.said, why))))
        try:
            await self._shine(outcome.lights_s)
        except OSError as error:
            log.error("self-test: the lamp can't say it: %s", error)
        wifi_dbm = machine.wifi_rssi_dbm()
        dbm = await self._modem.rssi_dbm() if wifi_dbm is None else wifi_dbm
        signal = "not known" if dbm is None else f"{dbm:.0f} dBm"
        log.info("self-test: clock %s, signal %s, %d records wait", self._clock_state(), signal, self._waiting())

    async def _shine(self, lights_s: Sequence[float]) -> None:
        while True:
            try:
                with led.by_hand() as light:
                    await self._clock.sleep(DARK_S)
                    for number, seconds in enumerate(lights_s):
                        await self._clock.sleep(PAUSE_S if number else 0)
                        light(True)
                        await self._clock.sleep(seconds)
                        light(False)
                    await self._clock.sleep(DARK_S)
                return
            except led.LampInUse:  # by somebody who looks for this node
                await self._clock.sleep(1)
