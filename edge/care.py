"""What the gateway asks of this node, done: configurations tried out, commands carried out, expected tags taken in.

What is believed is `edge.signature`'s to decide, what becomes of it `edge.twin`'s and `edge.commands`'s; the doing is here, with
the agent's own hands.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from edge.agent import VERSION, Agent, Driver
from edge.clock import Clock
from edge.commands import Commands, failed
from edge.config import EdgeConfig
from edge.contract.messages import Applied, BornDevice, encode
from edge.contract.metrics import METRICS
from edge.contract.names import is_hex16
from edge.contract.remote import Command, Desired, Expected, Result
from edge.contract.topics import Channel, Topic
from edge.errors import ConfigError, OutboxError
from edge.expected import ExpectedTags
from edge.hardware import machine
from edge.hardware.led import blinking
from edge.hardware.modem import Modem
from edge.signature import Distrusted, believed
from edge.twin import Document, Twin, merged

log = logging.getLogger(__name__)

SETTLE_S = 3.0
"""Before the gateway is asked to answer a trial: acks of earlier messages have arrived by then and prove nothing."""

ASK_AGAIN_S = 10.0
IDENTIFY_S = 10.0
MODEM_US = 30_000_000
"""So long a modem's signal is as good as new: it measures no more often."""
PICTURE_S = 30.0

_Statement = TypeVar("_Statement", bound=BaseModel)
Build = Callable[[EdgeConfig, str], tuple[str, Driver]]
"""Kind and driver of one device of a configuration; opens nothing. ConfigError that names the setting."""


class Means(NamedTuple):
    """What the doing needs besides the agent."""

    clock: Clock
    clock_state: Callable[[], str]
    keys: Callable[[], list[bytes]]
    """The gateway's public keys. ConfigError when they can't be read."""
    build: Build
    shelve: Callable[[], str]
    """Makes a bundle of diagnostics and puts it on the shelf; its SHA-256. OSError when there is no room or no shelf."""


class RemoteCare:
    """`edge.agent.Care`. `config` is what the twin said to start with, and what the agent's drivers were built of."""

    def __init__(
        self, agent: Agent, means: Means, base: EdgeConfig, config: EdgeConfig, twin: Twin, commands: Commands,
        expected: ExpectedTags,
    ) -> None:  # fmt: skip
        """`base` is edge.toml. Without `[remote]` in it nothing is heard, and nobody believed."""
        self.hears: Sequence[Channel] = (Channel.DESIRED, Channel.COMMAND, Channel.EXPECTED) if base.remote else ()
        self.config = config
        self._agent, self._means, self._base = agent, means, base
        self._twin, self._commands, self._expected = twin, commands, expected
        self._own = {device: drivers for device, drivers in agent.drivers.items() if device not in config.device}
        self._came: asyncio.Queue[tuple[Topic, bytes]] = asyncio.Queue(maxsize=100)
        self._trial: asyncio.Task[None] | None = None
        self._asked = self._answered = False
        self._ask_us = 0
        self._distrusted: set[Channel] = set()
        self._old = 0
        self._blinking = False
        self._modem = Modem()
        self._modem_said: tuple[float | None, int] | None = None  # dBm, and when: time since boot, µs
        self._asking_modem: asyncio.Task[None] | None = None

    # What the agent tells

    @property
    def applied(self) -> Applied | None:
        """The revision that runs; None is the node's own file."""
        return self._twin.applied

    def children(self) -> Iterator[BornDevice]:
        """Devices that speak through another one, as its configuration names them."""
        return children(self.config, self._agent.drivers)

    def link_up(self) -> None:
        """Says again what became of the last desired document: the broker may have lost it."""
        self._asked, self._ask_us = False, self._means.clock.now().mono_us + int(SETTLE_S * 1e6)
        self._report()

    def acked(self) -> None:
        """The gateway answered: what a trial waits for, if it was asked."""
        self._answered = self._answered or self._asked

    def heard(self, topic: Topic, payload: bytes) -> None:
        """Keeps it for `run`; more than it can do are dropped, for the gateway says them again."""
        try:
            self._came.put_nowait((topic, payload))
        except asyncio.QueueFull:
            log.warning("more is asked from afar than can be done; a message on %s is dropped", topic.channel)

    async def run(self) -> None:
        """Does what was asked, in order; a trial goes on beside it."""
        async with asyncio.TaskGroup() as self._tasks:
            if self._twin.memory.trial:
                self._trial = self._tasks.create_task(self._prove())
            while True:
                topic, payload = await self._came.get()
                if topic.channel is Channel.DESIRED:
                    await self._on_desired(payload)
                elif topic.channel is Channel.COMMAND:
                    await self._on_command(topic, payload)
                elif (said := self._believed(topic.channel, payload, Expected)) is not None:
                    self._on_expected(said[0])

    def _believed(self, channel: Channel, payload: bytes, model: type[_Statement]) -> tuple[_Statement, str] | None:
        try:
            said = believed(payload, self._means.keys(), model, self._base.node.name)
        except (Distrusted, ConfigError) as error:
            if channel not in self._distrusted:
                self._distrusted.add(channel)
                log.error("what came on %s is not believed: %s. Nothing is changed by it.", channel, error)  # and no more words
            return None
        self._distrusted.discard(channel)
        return said

    # Configuration

    async def _on_desired(self, payload: bytes) -> None:
        if (said := self._believed(Channel.DESIRED, payload, Desired)) is None:
            return
        document = Document(statement=said[0], sha256=said[1])
        memory = self._twin.memory
        if document.revision <= memory.seen:
            # The retained one comes at every connection; one that is older than that was kept back by somebody.
            if document.revision < memory.seen and self._old != document.revision:
                self._old = document.revision
                log.warning("configuration revision %d is older than %d; ignored", document.revision, memory.seen)
            return
        try:
            config = merged(self._base, document.statement)
            drivers = self._drivers(config)
        except (ConfigError, OSError) as error:
            self._twin.refuse(document, str(error))
            self._report()
            return
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.wait([self._trial])
            drivers = self._drivers(config)  # the trial may have changed devices meanwhile
        try:
            self._twin.try_out(document)
        except OSError as error:
            log.error("configuration revision %d can't be kept, so it is not tried: %s", document.revision, error)
            return
        log.info("configuration revision %d is tried out", document.revision)
        self._trial = self._tasks.create_task(self._try(config, drivers))

    async def _try(self, config: EdgeConfig, drivers: Mapping[str, tuple[str, Driver]]) -> None:
        try:
            await self._switch(config, drivers)
        except ConfigError as error:
            await self._roll_back(str(error))
            return
        await self._prove()

    async def _prove(self) -> None:
        """The trial ends well when the gateway answers a birth said after it began; else the former configuration returns."""
        remote = self._base.remote
        within_s = remote.link_back_s if remote else 0
        if await self._is_answered(within_s):
            self._twin.confirm()
            running = self._twin.memory.applied
            log.info("configuration revision %d is applied", running.revision if running else 0)
            self._report()
        else:
            what = "the gateway did not answer" if self._agent.up else "the link did not return"
            await self._roll_back(f"{what} within {within_s:g} s")

    async def _is_answered(self, within_s: float) -> bool:
        clock = self._means.clock
        now_us = clock.now().mono_us
        end_us = now_us + int(within_s * 1e6)
        self._asked = self._answered = False
        self._ask_us = now_us + int(SETTLE_S * 1e6)
        while not self._answered and (now_us := clock.now().mono_us) < end_us:
            if self._agent.up and now_us >= self._ask_us:
                self._agent.birth()
                self._asked, self._ask_us = True, now_us + int(ASK_AGAIN_S * 1e6)
            await clock.sleep(1)
        return self._answered

    async def _roll_back(self, reason: str) -> None:
        self._twin.roll_back(reason)
        config = self._twin.former(self._base)
        await self._switch(config, self._drivers(config))
        if self._agent.up:
            self._agent.birth()
        self._report()

    async def _switch(self, config: EdgeConfig, drivers: Mapping[str, tuple[str, Driver]]) -> None:
        """Only what differs is touched: a device whose settings stay is not even closed, the outbox not at all."""
        await self._agent.exchange({**drivers, **self._own})
        before, self.config = self.config, config
        if config.broker != before.broker:
            self._agent.use_broker(config.broker)

    def _drivers(self, config: EdgeConfig) -> dict[str, tuple[str, Driver]]:
        """The driver that runs, where a device's settings are the same; else a new one."""
        running = self.config.device
        return {
            device: self._agent.drivers[device] if running.get(device) == settings else self._means.build(config, device)
            for device, settings in config.device.items()
        }

    def _report(self) -> None:
        if (told := self._twin.memory.told()) is not None:
            self._agent.say(Channel.REPORTED, encode(told), retain=True)

    # Commands

    async def _on_command(self, topic: Topic, payload: bytes) -> None:
        if (said := self._believed(Channel.COMMAND, payload, Command)) is None:
            return
        command = said[0]
        if command.id != topic.id:
            log.error("command %s came on the topic of %s; ignored", command.id, topic.id)
            return
        if command.name == "ping":  # it changes nothing: no memory and no clock need to vouch for it, and no disk holds it up
            self._agent.say(Channel.RESULT, encode(Result(state="done", rssi_dbm=self._rssi_dbm())), command.id)
            return
        try:
            result = self._commands.begin(command, self._means.clock.now(), self._means.clock_state())
        except OSError as error:  # it was not begun, and comes again
            log.error("command %s can't be begun: %s", command.id, error)
            return
        if result is None:
            result = await self._do(command)
            try:
                self._commands.done(command.id, result)
            except OSError as error:
                log.error("the result of command %s can't be kept: %s", command.id, error)
            what = f"{command.name} {command.device or ''}".strip()
            log.info("command %s (%s): %s %s", command.id, what, result.state, result.reason or "")
        self._agent.say(Channel.RESULT, encode(result), command.id)

    async def _do(self, command: Command) -> Result:
        try:
            match command.name:
                case "identify":
                    return self._identify()
                case "test_alarm":
                    return self._test_alarm(command)
                case "take_picture":
                    return await self._take_picture(command.device)
                case "restart_device":
                    return await self._restart(command.device)
                case "upload_diagnostics":
                    return Result(state="done", media=self._means.shelve())
                case _:
                    reason = f"satomori-edge {VERSION} knows no command {command.name}; bring this node up to date"
                    return Result(state="refused", reason=reason)
        except OutboxError:
            raise
        except OSError as error:
            return failed(str(error))
        except Exception as error:
            log.exception("command %s failed", command.id)
            return failed(repr(error))

    def _rssi_dbm(self) -> int | None:
        """How the node hears its network, at once. A modem is asked beside that, for the pings that follow: it takes its time."""
        dbm = machine.wifi_rssi_dbm()
        if dbm is None:
            now_us = self._means.clock.now().mono_us
            if self._modem_said is not None and now_us - self._modem_said[1] < MODEM_US:
                dbm = self._modem_said[0]
            elif self._asking_modem is None or self._asking_modem.done():
                self._asking_modem = self._tasks.create_task(self._ask_modem())
        metric = METRICS["uplink_rssi"]
        return round(dbm) if dbm is not None and metric.low <= dbm <= metric.high else None

    async def _ask_modem(self) -> None:
        dbm = await self._modem.rssi_dbm()
        self._modem_said = (dbm, self._means.clock.now().mono_us)

    def _test_alarm(self, command: Command) -> Result:
        there_are = [one.device for one in self._agent.devices()]
        if command.device not in there_are:
            return Result(
                state="refused", reason=f"no device {command.device or 'named'}; there are: {', '.join(there_are)}"[:200]
            )
        if not is_hex16(command.id):
            return Result(state="refused", reason="a test alarm's token is its command's id, so that has to be 16 hex digits")
        self._agent.test_alarm(command.device, command.id)
        return Result(state="done")

    def _identify(self) -> Result:
        if not self._blinking:
            with ExitStack() as lamp:
                lamp.enter_context(blinking())
                self._tasks.create_task(self._stop_blinking(lamp.pop_all()))
                self._blinking = True
        return Result(state="done")

    async def _stop_blinking(self, lamp: ExitStack) -> None:
        try:
            with lamp:
                await self._means.clock.sleep(IDENTIFY_S)
        except OSError as error:
            log.warning("the lamp can't be switched back: %s", error)
        finally:
            self._blinking = False

    async def _take_picture(self, device: str | None) -> Result:
        drivers = ((name, driver) for name, (_, driver) in self._agent.drivers.items())
        able = {name: take for name, driver in drivers if (take := getattr(driver, "take_picture", None))}
        if device is None and len(able) == 1:
            (device,) = able
        if device not in able:
            those = f"these can: {', '.join(able)}" if able else "none here can"
            return Result(state="refused", reason=f"{device or 'no device named'}: takes no pictures on order; {those}"[:200])
        asked = able[device]()
        if inspect.isawaitable(asked):
            async with asyncio.timeout(PICTURE_S):
                await asked
        return Result(state="done")

    async def _restart(self, device: str | None) -> Result:
        if device is None or device not in self._agent.drivers:
            there_are = ", ".join(self._agent.drivers)
            return Result(state="refused", reason=f"no device {device or 'named'}; there are: {there_are}"[:200])
        await self._agent.restart(device)
        return Result(state="done")

    def _on_expected(self, expected: Expected) -> None:
        try:
            if self._expected.update(expected):
                tags = {tag for _, tag, _, _ in expected.tags}
                log.info("%d rotating tags are expected (revision %d)", len(tags), expected.revision)
        except OSError as error:
            log.error("the expected tags can't be kept over a restart: %s", error)


def children(config: EdgeConfig, drivers: Mapping[str, tuple[str, Driver]]) -> Iterator[BornDevice]:
    """The devices that speak through those of the configuration, as a birth says them."""
    for device, settings in config.device.items():
        metrics = list(getattr(drivers[device][1], "metrics", ()))
        for child, kind in getattr(settings, "children", {}).items():
            yield BornDevice(device=child, kind=kind, metrics=metrics)
