"""The agent, on one page: drivers -> outbox -> lanes -> link, and acks back. The edge's wiring stands here only.

    driver ──records──▶ _collect ──commit──▶ Outbox ──rows──▶ Lanes.poll ──▶ Link.publish
                                               ▲                                 │
                                               └──────── Lanes.on_ack ◀── Ack ───┤
                                                    Care ◀── everything else ────┘

One asyncio loop; the link's thread and gpiozero's only post into it, and what the link posts is done by the task that sends, so
that an error there ends the agent as any other would. Events are committed and sent at once, readings and summaries of tags
gathered for a second. A driver resumes after its event is committed. What is asked from afar is `edge.care`'s: it decides, and
uses `exchange`, `restart` and `use_broker` here.
"""

import asyncio
import logging
import math
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Literal, Protocol, TypeVarTuple

from pydantic import ValidationError

from edge.clock import Clock
from edge.config import CLOCK
from edge.contract.broker import BrokerConfig
from edge.contract.events import AlarmTest, DeviceDown, DeviceUp, RecordClass, TagSeen
from edge.contract.messages import MAX_RECORDS, Ack, Applied, Birth, BornDevice, State, encode
from edge.contract.topics import Channel, Topic, down_filter, parse, topic_for
from edge.errors import OutboxError
from edge.lanes import Lanes
from edge.outbox import Outbox
from edge.records import Happened, Reading, Record
from edge.uplink import LinkWords, Listener

log = logging.getLogger(__name__)

_Args = TypeVarTuple("_Args")

VERSION = "0.1.0"
COMMIT_S = 1.0
FAREWELL_S = 2.0
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Driver(Protocol):
    """What every driver is; see edge.drivers."""

    def records(self) -> AsyncIterator[Record]:
        """What the device says, until cancelled. DeviceError when it can't be read."""
        ...


class Link(Protocol):
    """What the agent needs of a connection; edge.uplink.MqttLink is one."""

    def start(self) -> None:
        """Begins connecting."""
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Sends, or drops when there is no connection."""
        ...

    def use(self, config: BrokerConfig) -> None:
        """From now on this broker, over a new connection."""
        ...

    def stop(self) -> None:
        """Says what is queued and ends."""
        ...


class Care(Protocol):
    """Who hears what the gateway says besides acks; edge.care.RemoteCare is one. Called in the agent's loop."""

    hears: Sequence[Channel]

    @property
    def applied(self) -> Applied | None:
        """What a birth says of the configuration."""
        ...

    def children(self) -> Iterable[BornDevice]:
        """Devices that speak through another one."""
        ...

    def link_up(self) -> None:
        """Connected; birth was said."""
        ...

    def acked(self) -> None:
        """The gateway answered something."""
        ...

    def heard(self, topic: Topic, payload: bytes) -> None:
        """A message on a channel of `hears`."""
        ...

    async def run(self) -> None:
        """Does what was asked, until cancelled."""
        ...


class Agent(Listener):
    """One node. `run` is the whole of it."""

    care: Care | None = None
    """Who does what is asked from afar. Set before `run`."""

    def __init__(
        self,
        node: str,
        drivers: Mapping[str, tuple[str, Driver]],
        outbox: Outbox,
        clock: Clock,
        connect: Callable[[LinkWords, Listener], Link],
        *,
        boot: str,
        clock_state: Callable[[], str],
        rng: random.Random,
    ) -> None:
        """`drivers` maps a device's name to its kind and driver. Nothing runs before `run`."""
        self._node, self._outbox, self._clock, self._connect = node, outbox, clock, connect
        self.drivers = dict(drivers)
        self._boot, self._clock_state, self._rng = boot, clock_state, rng
        self._lanes = Lanes(outbox, rng)
        self._session = secrets.token_hex(8)
        self.up = False
        self.failing: dict[str, str] = {}
        """Devices that can't be read now, with the reason."""
        self._collecting: dict[str, asyncio.Task[None]] = {}
        self._was_down = False
        self._answered_us: int | None = None
        self._pending: list[Record] = []
        self._wake = asyncio.Event()
        self._told: deque[Callable[[], None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Until cancelled; then commits what is pending and says goodbye. OutboxError when nothing can be promised any more.

        ConfigError when a file of the broker's settings can't be used.
        """
        hears = (Channel.ACK, *(self.care.hears if self.care else ()))
        will = encode(State(session=self._session, online=False, reason="lost"))
        listen = tuple(down_filter(self._node, channel) for channel in hears)
        self._link = self._connect(LinkWords(self._node, listen, self._topic(Channel.STATE), will), self)
        self._link.start()
        reason: Literal["clean", "lost"] = "lost"
        try:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    for device in self.drivers:
                        self._begin(device)
                    self._tasks.create_task(self._commit_forever(), name="commit")
                    self._tasks.create_task(self._send_forever(), name="send")
                    if self.care:
                        self._tasks.create_task(self.care.run(), name="care")
            except ExceptionGroup as group:
                raise group.exceptions[0] from group  # the first one says why; the other tasks were cancelled
            finally:
                self._commit()
        except asyncio.CancelledError:
            await self._send_last()
            reason = "clean"
            raise
        finally:
            self._leave(reason)
            self._link.stop()

    # What `care` and the self-test use, while the agent runs.

    async def exchange(self, drivers: Mapping[str, tuple[str, Driver]]) -> None:
        """From now on these devices. One whose driver is the same object goes on undisturbed; the others are closed before any
        new one is opened, for they may use the same pin.
        """
        leaving = [device for device, (_, driver) in self.drivers.items() if drivers.get(device, ("", None))[1] is not driver]
        await self._end(leaving)
        self.drivers = dict(drivers)
        for device in self.drivers.keys() - self._collecting.keys():
            self._begin(device)
        self.failing = {device: reason for device, reason in self.failing.items() if device in drivers}

    async def restart(self, device: str) -> None:
        """Closes a device of `drivers` and opens it again."""
        await self._end([device])
        self._begin(device)

    def devices(self) -> list[BornDevice]:
        """Those that somebody installed, and those that speak through them, as a birth says them."""
        return [*born(self.drivers), *(self.care.children() if self.care else ())]

    def test_alarm(self, device: str, token: str) -> int:
        """Makes a test alarm durable, which then goes the way of every alarm; its seq. OutboxError when it can't be written."""
        self._take(Happened(self._clock.now(), AlarmTest(device=device, token=token)))
        return self._outbox.next_seq - 1

    def waits(self, seq: int) -> bool:
        """Whether the gateway has not answered for this record yet."""
        return bool(self._outbox.rows([seq]))

    def use_broker(self, config: BrokerConfig) -> None:
        """Says goodbye to the present broker and connects by this configuration."""
        self._leave("clean")
        self._link.use(config)

    def say(self, channel: Channel, payload: bytes, id_: str | None = None, *, retain: bool = False) -> None:
        """Publishes, or drops when there is no connection."""
        self._link.publish(self._topic(channel, id_), payload, retain=retain)

    def _begin(self, device: str) -> None:
        self._collecting[device] = self._tasks.create_task(self._collect(device, self.drivers[device][1]), name=device)

    async def _end(self, devices: Iterable[str]) -> None:
        # One that is missing was ended already, by a call that was cut short.
        ending = [task for device in devices if (task := self._collecting.pop(device, None))]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)

    def _leave(self, reason: Literal["clean", "lost"]) -> None:
        if self.up:
            self.say(Channel.STATE, encode(State(session=self._session, online=False, reason=reason)), retain=True)

    def _topic(self, channel: Channel, id_: str | None = None) -> str:
        return topic_for(Topic(self._node, channel, id_))

    async def _send_last(self) -> None:
        """Before a clean end: sends what waits, for as long as acks keep coming. The rest stays in the outbox."""
        waiting = None
        self._hear()
        while self.up and self._outbox.waiting and self._outbox.waiting != waiting:
            waiting = self._outbox.waiting
            self._wake.clear()
            self._send()
            patience = asyncio.ensure_future(self._clock.sleep(FAREWELL_S))
            woken = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait((patience, woken), return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()
            woken.cancel()
            self._hear()

    async def _collect(self, device: str, driver: Driver) -> None:
        """One device, for ever: a failure is said once, tried again with growing pauses, and its end said once."""
        failures = 0
        while True:
            opened_us = self._clock.now().mono_us
            try:
                async with aclosing(driver.records()) as records:  # type: ignore[type-var]  # async generators all
                    async for record in records:
                        _refuse_no_number(record)
                        if self.failing.pop(device, None):
                            log.info("%s is back", device)
                            self._take(Happened(self._clock.now(), DeviceUp(device=device)))
                        self._take(record)
                reason = "its driver ended"
            except OutboxError:
                raise  # nothing can be promised any more: the service ends and is started again
            except OSError as error:
                reason = str(error) or type(error).__name__
            except Exception as error:
                reason = f"its driver failed: {error!r}"
                if device not in self.failing:
                    log.exception("%s: its driver failed", device)
            reason = reason.encode(errors="backslashreplace").decode()  # a file's name may be no Unicode
            known, self.failing[device] = device in self.failing, reason
            if not known:
                log.error("%s is down: %s", device, reason)
                self._take(Happened(self._clock.now(), DeviceDown(device=device, reason=reason[:300])))
            if self._clock.now().mono_us - opened_us > LONGEST_RETRY_S * 1e6:
                failures = 0  # it ran well for a while; one that comes and goes is tried ever more rarely
            failures += 1
            await self._clock.sleep(min(FIRST_RETRY_S * 2 ** min(failures - 1, 10), LONGEST_RETRY_S) * self._rng.uniform(0.5, 1))

    def _take(self, record: Record) -> None:
        self._pending.append(record)
        if not _can_wait(record) or len(self._pending) >= MAX_RECORDS:
            self._commit()

    def _commit(self) -> None:
        if self._pending:
            self._outbox.put(self._pending, self._clock_state())
            self._pending.clear()
            self._wake.set()

    async def _commit_forever(self) -> None:
        while True:
            await self._clock.sleep(COMMIT_S)
            self._commit()

    async def _send_forever(self) -> None:
        """Publishes what the lanes say, whenever something was committed, acked, connected or is overdue."""
        while True:
            self._wake.clear()
            self._send()
            due_us = self._lanes.next_due_us() if self.up else None
            pause_s = 1.0 if due_us is None else max((due_us - self._clock.now().mono_us) / 1e6, 0.05)
            timer = asyncio.ensure_future(self._clock.sleep(pause_s))
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((timer, woken), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                woken.cancel()

    def _send(self) -> None:
        """Publishes what is due."""
        self._hear()
        if self.up:
            for channel, payload in self._lanes.poll(self._clock.now()):
                self.say(channel, payload)

    def _hear(self) -> None:
        """Does what the link told since the last time."""
        while self._told:
            self._told.popleft()()

    # What the link tells, from its own thread.

    def link_up(self) -> None:
        """Connected: says birth and begins to send."""
        self._post(self._on_up)

    def link_down(self, reason: str) -> None:
        """Not connected: everything waits in the outbox."""
        self._post(self._on_down, reason)

    def received(self, topic: str, payload: bytes) -> None:
        """An ack, something for `care`, or something that this version does not know."""
        self._post(self._on_message, topic, payload)

    def _post(self, call: Callable[[*_Args], None], *args: *_Args) -> None:
        self._told.append(partial(call, *args))
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed: the agent has ended, and waits for no one
            pass

    def _on_up(self) -> None:
        if self._was_down:
            log.info("connected again; %d records wait", self._outbox.waiting)
        self.up, self._was_down = True, False
        self._lanes.connected()
        self.birth()
        if self.care:
            self.care.link_up()

    def _on_down(self, reason: str) -> None:
        self.up = False
        if not self._was_down:
            self._was_down = True
            log.warning("no connection (%s); records wait in the outbox", reason)

    def answered_s(self) -> float | None:
        """Seconds since the gateway answered last; None when it never did."""
        return None if self._answered_us is None else (self._clock.now().mono_us - self._answered_us) / 1e6

    def birth(self) -> None:
        """Says who this node is; the gateway answers with an ack."""
        outbox = self._outbox
        birth = Birth(
            epoch=outbox.epoch,
            session=self._session,
            boot=self._boot,
            agent=f"satomori-edge {VERSION}",
            sent=self._clock.now().utc_us,
            first=outbox.first_seq,
            oldest=outbox.oldest_seq,
            next=outbox.next_seq,
            devices=self.devices(),
            config=self.care.applied if self.care else None,
        )
        self.say(Channel.BIRTH, encode(birth), retain=True)
        self.say(Channel.STATE, encode(State(session=self._session, online=True)), retain=True)

    def _on_message(self, topic: str, payload: bytes) -> None:
        try:
            said = parse(topic)
        except ValueError as error:
            log.warning("a message on %r, which this version does not know (%s); ignored", topic[:100], error)
            return
        if self.care and said.channel in self.care.hears:
            self.care.heard(said, payload)
        elif said.channel is Channel.ACK:
            self._on_ack(payload)
        else:
            log.warning("a message on %s, which this version does not know; ignored", topic)

    def _on_ack(self, payload: bytes) -> None:
        try:
            ack = Ack.model_validate_json(payload)
        except ValidationError as error:
            log.warning("an ack that can't be read: %s", error.errors(include_url=False)[0]["msg"])
            return
        if self._lanes.on_ack(ack, self._clock.now()):
            log.error("the gateway knows other content under this outbox's numbers (an old copy?); new epoch begun")
            self._lanes.connected()
            self.birth()
        elif ack.epoch == self._outbox.epoch:
            self._answered_us = self._clock.now().mono_us
            if self.care:
                self.care.acked()


def born(drivers: Mapping[str, tuple[str, Driver]]) -> list[BornDevice]:
    """The devices as a birth says them. The agent's own clock is none that anybody installed, and is not shown as one."""
    return [
        BornDevice(device=device, kind=kind, metrics=list(getattr(driver, "metrics", ())))
        for device, (kind, driver) in drivers.items()
        if device != CLOCK
    ]


def _can_wait(record: Record) -> bool:
    """Readings and summaries are committed each second: nobody is woken by one, and two hundred tags would wear out a card."""
    return record.rank is RecordClass.READING or (isinstance(record, Happened) and isinstance(record.event, TagSeen))


def _refuse_no_number(record: Record) -> None:
    """ValueError for a reading that can't be written down; one that is merely impossible is the gateway's to refuse."""
    if isinstance(record, Reading) and not math.isfinite(record.value):
        raise ValueError(f"{record.metric} is {record.value}")
