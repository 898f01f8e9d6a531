"""The agent on virtual time, with a link that the test holds in its hand: what a town sees of a node, second by second."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.agent import Agent, Driver
from edge.contract.broker import BrokerConfig
from edge.contract.events import TagLeft, TagSeen, TrapSprung
from edge.contract.messages import SEQ_REUSED, Ack, Batch, Birth, State, encode
from edge.contract.topics import Channel, parse
from edge.errors import DeviceError, OutboxError
from edge.outbox import Outbox
from edge.records import Happened, Reading, Record
from edge.uplink import LinkWords, Listener
from simulators.clock import VirtualClock, settle

BOOT = "00000000000000b0"


class Device:
    """A driver that says what the test gives it, and notes when it is asked for more."""

    def __init__(self) -> None:
        self.gives: asyncio.Queue[Record | Exception | None] = asyncio.Queue()
        self.opened = self.closed = 0
        self.asked: list[int] = []
        self.committed: Callable[[], int] = lambda: 0

    async def records(self) -> AsyncIterator[Record]:
        self.opened += 1
        try:
            while True:
                self.asked.append(self.committed())
                given = await self.gives.get()
                if given is None:
                    return
                if isinstance(given, Exception):
                    raise given
                yield given
        finally:
            self.closed += 1


class FakeLink:
    """A connection that is up when the test says so; keeps what was published."""

    def __init__(self, words: LinkWords, listener: Listener) -> None:
        self.words, self.listener = words, listener
        self.up = self.started = self.stopped = False
        self.used: list[BrokerConfig] = []
        self.said: list[tuple[Channel, bytes, bool]] = []

    def start(self) -> None:
        self.started = True

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if self.up:
            self.said.append((parse(topic).channel, payload, retain))

    def use(self, config: BrokerConfig) -> None:
        self.used.append(config)

    def stop(self) -> None:
        self.stopped = True

    def connect(self) -> None:
        self.up = True
        self.listener.link_up()

    def lose(self, reason: str = "gone") -> None:
        self.up = False
        self.listener.link_down(reason)

    def batches(self) -> list[Batch]:
        return [
            Batch.model_validate_json(payload) for channel, payload, _ in self.said if channel in (Channel.LIVE, Channel.BACKLOG)
        ]

    def events(self) -> list[str]:
        """`type` or `type: reason` of every event sent, in order, each once."""
        said = {(batch.epoch, event.seq): event for batch in self.batches() for event in batch.events}
        return [f"{event.type}: {event.reason}" if event.type == "device_down" else event.type for event in said.values()]

    def readings(self) -> list[float]:
        """The values sent, in order, each once."""
        said = {(batch.epoch, row[0]): row[4] for batch in self.batches() for row in batch.readings}
        return list(said.values())

    def births(self) -> list[Birth]:
        return [Birth.model_validate_json(payload) for channel, payload, _ in self.said if channel is Channel.BIRTH]

    def state(self) -> State:
        """The last one."""
        return [State.model_validate_json(payload) for channel, payload, _ in self.said if channel is Channel.STATE][-1]


class Node:
    """A running agent and all it touches."""

    def __init__(self, folder: Path, drivers: Mapping[str, Driver], outbox: Outbox | None = None) -> None:
        self.clock = VirtualClock(1_780_434_720_000_000, 90_000_000)
        self.outbox = outbox or Outbox(folder / "outbox.db", machine="pi-1", boot=BOOT)
        self.links: list[FakeLink] = []
        self.agent = Agent(
            "kitayama-03",
            {device: ("reed-trap", driver) for device, driver in drivers.items()},
            self.outbox,
            self.clock,
            self._connect,
            boot=BOOT,
            clock_state=lambda: "sync",
            rng=random.Random(1),
        )
        for driver in drivers.values():
            if isinstance(driver, Device):
                driver.committed = lambda: self.outbox.next_seq - 1
        self.task = asyncio.ensure_future(self.agent.run())

    def _connect(self, words: LinkWords, listener: Listener) -> FakeLink:
        self.links.append(FakeLink(words, listener))
        return self.links[0]

    @property
    def link(self) -> FakeLink:
        return self.links[0]

    async def ack(self, ack: Ack) -> None:
        self.link.listener.received("satomori/v1/29/kitayama-03/down/ack", encode(ack))
        await settle()

    async def ack_all(self) -> None:
        await self.ack(Ack(epoch=self.outbox.epoch, upto=self.outbox.next_seq - 1))

    async def give(self, device: Device, *records: Record | Exception | None) -> None:
        for record in records:
            device.gives.put_nowait(record)
        await settle()

    def reading(self, value: float = 1.0) -> Reading:
        return Reading(self.clock.now(), "trap-11", "heartbeat", value)

    def sprung(self) -> Happened:
        return Happened(self.clock.now(), TrapSprung(device="trap-11"))


@asynccontextmanager
async def running(folder: Path, outbox: Outbox | None = None, connected: bool = True, **drivers: Driver) -> AsyncIterator[Node]:
    node = Node(folder, {name.replace("_", "-"): driver for name, driver in drivers.items()}, outbox)
    await settle()
    if connected:
        node.link.connect()
        await settle()
    try:
        yield node
    finally:
        node.link.lose()
        node.task.cancel()
        await asyncio.wait([node.task])
        node.outbox.close()


def story(test: Callable[[Path, pytest.LogCaptureFixture], Awaitable[None]]) -> Callable[[Path, pytest.LogCaptureFixture], None]:
    """Runs an async test."""

    def run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        asyncio.run(asyncio.wait_for(test(tmp_path, caplog), 10))

    run.__doc__, run.__name__ = test.__doc__, getattr(test, "__name__", "story")
    return run


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


# The connection


@story
async def test_each_connection_begins_with_birth_and_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, trap_11=Device()) as node:
        (birth,) = node.link.births()
        assert [(channel, retain) for channel, _, retain in node.link.said] == [(Channel.BIRTH, True), (Channel.STATE, True)]
        assert (birth.epoch, birth.boot, birth.first, birth.oldest, birth.next) == (node.outbox.epoch, BOOT, 1, 1, 1)
        assert [(device.device, device.kind) for device in birth.devices] == [("trap-11", "reed-trap")]
        assert node.link.state() == State(session=birth.session, online=True)
        will = State.model_validate_json(node.link.words.will)
        assert will == State(session=birth.session, online=False, reason="lost")
        assert node.link.words.listen == ("satomori/v1/29/kitayama-03/down/ack",)
        node.link.lose()
        node.link.connect()
        await settle()
        assert len(node.link.births()) == 2


@story
async def test_a_lost_connection_is_logged_once_and_so_is_its_return(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, trap_11=Device()) as node:
        for _ in range(5):
            node.link.lose("no route")
            await settle()
        assert told(caplog, "no connection (no route)") == 1
        node.link.connect()
        await settle()
        assert told(caplog, "connected again") == 1


@story
async def test_without_a_connection_all_waits_and_goes_when_it_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, connected=False, trap_11=device) as node:
        await node.give(device, node.reading(), node.sprung())
        await node.clock.advance(3600)
        assert node.outbox.waiting == 2
        node.link.connect()
        await settle()
        assert (node.link.events(), node.link.readings()) == (["trap_sprung"], [1.0])
        await node.ack_all()
        assert node.outbox.waiting == 0


# Records


@story
async def test_an_event_is_committed_and_sent_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung())
        assert node.link.events() == ["trap_sprung"]


@story
async def test_readings_are_gathered_for_a_second_and_no_longer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        for value in range(5):
            await node.give(device, node.reading(value))
            await node.clock.advance(0.15)
        assert node.link.readings() == []
        await node.clock.advance(0.25)
        assert node.link.readings() == [0, 1, 2, 3, 4]
        assert len(node.link.batches()) == 1


@story
async def test_a_driver_goes_on_only_when_its_event_is_committed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung(), node.sprung(), node.reading(), node.sprung())
        assert device.asked == [0, 1, 2, 2, 4]  # how many records were durable each time it was asked for the next


@story
async def test_summaries_of_tags_are_gathered_too_but_who_comes_and_goes_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two hundred tags near a station are two summaries a second, for years: each its own commit would wear out the card."""
    device = Device()
    async with running(tmp_path, tags=device) as node:
        now = node.clock.now()
        seen = TagSeen(device="tags", tag="ibeacon:0:1:2", rssi=-60, frames=120)
        await node.give(device, Happened(now, seen), Happened(now, seen))
        assert device.asked == [0, 0, 0]
        await node.give(device, Happened(now, TagLeft(device="tags", tag="ibeacon:0:1:3", rssi=-90)))
        assert node.link.events() == ["tag_seen", "tag_seen", "tag_left"]
        await node.give(device, Happened(now, seen))
        await node.clock.advance(1)
        assert node.outbox.waiting == 4


@story
async def test_a_flood_of_readings_does_not_wait_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        for value in range(1200):
            device.gives.put_nowait(node.reading(value))
        for _ in range(100):
            await settle()
        assert node.outbox.waiting == 1000


# Devices that fail


@story
async def test_a_device_that_fails_is_said_down_once_and_up_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = Device(), Device()
    async with running(tmp_path, trap_11=broken, trap_12=fine) as node:
        for _ in range(4):
            await node.give(broken, DeviceError("no such port: is it plugged in?"))
            await node.clock.advance(60)
        await node.give(fine, node.sprung())
        assert node.link.events() == ["device_down: no such port: is it plugged in?", "trap_sprung"]
        assert told(caplog, "trap-11 is down: no such port") == 1
        await node.give(broken, node.reading())
        await node.clock.advance(60)
        assert node.link.events()[2:] == ["device_up"]
        assert told(caplog, "trap-11 is back") == 1
        assert broken.opened == 5
        assert broken.closed == 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ValueError("a bug"), "its driver failed: ValueError('a bug')"),
        (None, "its driver ended"),
        (OSError(), "OSError"),
        (DeviceError("x" * 1000), "x" * 300),
        (DeviceError("/media/cam/\udce5.jpg"), r"/media/cam/\udce5.jpg"),
    ],
    ids=["bug", "end", "no text", "long", "no Unicode"],
)
def test_whatever_a_driver_does_it_is_down_and_the_agent_is_not(
    fault: Exception | None, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        device = Device()
        async with running(tmp_path, trap_11=device) as node:
            await node.give(device, fault)
            assert node.link.events() == [f"device_down: {reason}"]
            await node.clock.advance(1)
            assert device.opened == 2

    story(tale)(tmp_path, caplog)


@story
async def test_a_reading_that_is_no_number_takes_nothing_else_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device, other = Device(), Device()
    async with running(tmp_path, trap_11=device, trap_12=other) as node:
        await node.give(other, node.reading(5))
        await node.give(device, node.reading(7), node.reading(float("nan")))
        await node.clock.advance(1)
        assert sorted(node.link.readings()) == [5, 7]
        assert node.link.events() == ["device_down: its driver failed: ValueError('heartbeat is nan')"]
        assert not node.task.done()


@story
async def test_a_device_that_comes_and_goes_is_tried_ever_more_rarely(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One word each time, or a loose plug would fill the disk with device_down and device_up."""
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        for _ in range(600):
            if device.gives.empty():
                await node.give(device, node.reading(), DeviceError("loose plug"))
            await node.clock.advance(1)
            await node.ack_all()
        assert 10 <= device.opened <= 30


@story
async def test_a_device_that_ran_well_for_long_is_tried_again_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        for _ in range(8):
            await node.give(device, DeviceError("no"))
            await node.clock.advance(60)
        await node.give(device, node.reading())
        await node.clock.advance(600)
        opened = device.opened
        await node.give(device, DeviceError("no"))
        await node.clock.advance(1)
        assert device.opened == opened + 1


# What ends the agent


def full(outbox: Outbox) -> None:
    outbox._db.execute("PRAGMA query_only = ON")


@story
async def test_an_outbox_that_takes_nothing_ends_the_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        full(node.outbox)
        await node.give(device, node.sprung())
        assert isinstance(node.task.exception(), OutboxError)
        assert told(caplog, "driver failed") == 0  # it is not the driver's fault
        assert node.link.state() == State(session=node.link.births()[0].session, online=False, reason="lost")
        assert node.link.stopped
        assert device.closed == 1


@story
async def test_so_does_one_that_cannot_take_an_ack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung())
        full(node.outbox)
        await node.ack_all()
        assert isinstance(node.task.exception(), OutboxError)


@story
async def test_an_end_on_request_commits_sends_and_says_goodbye(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.reading(42))
        node.task.cancel()
        await settle()
        assert node.link.readings() == [42]
        await node.ack_all()
        assert node.task.cancelled()
        assert node.outbox.waiting == 0
        assert node.link.state() == State(session=node.link.births()[0].session, online=False, reason="clean")
        assert node.link.said[-1][0] is Channel.STATE
        assert node.link.said[-1][2] is True
        assert node.link.stopped
        assert device.closed == 1


@story
async def test_a_gateway_that_does_not_answer_holds_up_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung())
        node.task.cancel()
        await node.clock.advance(3)
        assert node.task.cancelled()
        assert node.outbox.waiting == 1


@story
async def test_a_commit_that_fails_at_the_end_is_not_a_clean_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.reading())
        full(node.outbox)
        node.task.cancel()
        await settle()
        assert isinstance(node.task.exception(), OutboxError)
        assert node.link.state().reason == "lost"


# What comes down


@story
async def test_a_late_ack_for_an_earlier_epoch_frees_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung())
        await node.ack(Ack(epoch="0123456789abcdef", upto=1))
        assert node.outbox.waiting == 1


@story
async def test_reused_numbers_bring_a_new_epoch_a_new_birth_and_everything_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device()
    async with running(tmp_path, trap_11=device) as node:
        await node.give(device, node.sprung())
        await node.ack(Ack(epoch=node.outbox.epoch, upto=1, rejected=[(1, SEQ_REUSED)]))
        first, second = node.link.births()
        assert first.epoch != second.epoch == node.outbox.epoch
        assert (second.first, second.oldest, second.next) == (1, 1, 2)
        assert [batch.epoch for batch in node.link.batches()] == [first.epoch, second.epoch]
        assert told(caplog, "new epoch begun") == 1


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b'{"v":1,"epoch":"0123456789abcdef","upto":1,"ranges":[[9,7]]}'])
def test_an_ack_that_cannot_be_read_is_logged_and_changes_nothing(
    payload: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        device = Device()
        async with running(tmp_path, trap_11=device) as node:
            await node.give(device, node.sprung())
            node.link.listener.received("satomori/v1/29/kitayama-03/down/ack", payload)
            node.link.listener.received("satomori/v1/29/kitayama-03/down/else", b"")
            await settle()
            assert told(caplog, "an ack that can't be read") == 1
            assert told(caplog, "which this version does not know") == 1
            assert not node.task.done()
            assert node.outbox.waiting == 1

    story(tale)(tmp_path, caplog)


@story
async def test_what_the_link_says_after_the_end_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, trap_11=Device()) as node:
        pass
    loop = asyncio.new_event_loop()
    loop.close()
    node.agent._loop = loop
    node.link.lose()
