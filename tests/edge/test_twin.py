"""Which configuration a node runs when another is asked for from afar: the decisions, and the agent that follows them."""

import asyncio
import base64
import errno
import json
import logging
import os
import pty
import random
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.agent import Agent, Driver
from edge.care import Means, RemoteCare
from edge.commands import Commands
from edge.config import EdgeConfig, checked
from edge.contract.messages import Ack, Birth, State, encode
from edge.contract.remote import Desired, RemoteBroker, Reported
from edge.contract.topics import Channel, Topic, topic_for
from edge.drivers import make_driver
from edge.errors import ConfigError
from edge.expected import ExpectedTags
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from edge.twin import MAX_ATTEMPTS, Document, Memory, Twin, merged
from edge.uplink import LinkWords, Listener
from gateway.nodes.signing import Signer
from simulators.clock import VirtualClock, settle
from tests.edge.test_agent import FakeLink

NODE = "kitayama-03"
BOOT = "00000000000000b0"
HEALTH = {"type": "node_health", "interval_s": 60}


def base(folder: Path, **changes: Any) -> EdgeConfig:
    return checked(
        {
            "node": {"name": NODE, "state": str(folder)},
            "broker": {"url": "mqtt://one.example"},
            "remote": {"keys_file": str(folder / "keys.json"), "url": "https://gateway.example:8443"},
            "device": {"health": HEALTH},
        }
        | changes
    )


def document(revision: int, **device: Any) -> Document:
    return Document(
        sha256=f"{revision:064x}", statement=Desired(node=NODE, revision=revision, device=device or {"health": HEALTH})
    )


def full_disk(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# The decisions


def test_a_node_nobody_asked_anything_of_runs_its_own_file(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    assert twin.start(base(tmp_path)) == base(tmp_path)
    assert (twin.applied, twin.memory.told(), twin.memory.seen) == (None, None, 0)


def test_what_was_applied_runs_after_a_restart(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    twin.try_out(document(3, other=HEALTH))
    twin.confirm()
    again = Twin(tmp_path / "twin.json")
    assert list(again.start(base(tmp_path)).device) == ["other"]
    assert again.memory.told() == Reported(revision=3, sha256=f"{3:064x}", outcome="applied", running=3)


def test_what_somebody_took_back_at_the_box_does_not_return_and_the_next_one_may(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    assert twin.take_back() is None
    twin.try_out(document(3, other=HEALTH))
    twin.confirm()
    assert twin.take_back() == document(3, other=HEALTH)
    again = Twin(tmp_path / "twin.json")
    assert list(again.start(base(tmp_path)).device) == ["health"]
    assert again.memory.seen == 3
    told = again.memory.told()
    assert told is not None
    assert (told.revision, told.outcome, told.running, told.reason) == (3, "failed", 0, "taken back at the box: edge.toml runs")
    again.try_out(document(4, four=HEALTH))
    again.confirm()
    assert again.memory.told() == Reported(revision=4, sha256=f"{4:064x}", outcome="applied", running=4)


def test_a_trial_outlives_a_restart_but_not_many(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    twin.try_out(document(3, other=HEALTH))
    for _ in range(MAX_ATTEMPTS - 1):
        assert list(Twin(tmp_path / "twin.json").start(base(tmp_path)).device) == ["other"]
    last = Twin(tmp_path / "twin.json")
    assert list(last.start(base(tmp_path)).device) == ["health"]
    told = last.memory.told()
    assert told is not None
    assert (told.revision, told.outcome, told.running) == (3, "failed", 0)
    assert "started 3 times" in str(told.reason)


def test_a_trial_whose_attempts_cannot_be_counted_is_over_and_the_agent_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The card is full: it could be the one that the agent does not survive, and would be tried for ever. Traps must ring."""
    Twin(tmp_path / "twin.json").try_out(document(3, other=HEALTH))
    monkeypatch.setattr(os, "fsync", full_disk)
    twin = Twin(tmp_path / "twin.json")
    assert list(twin.start(base(tmp_path)).device) == ["health"]
    told = twin.memory.told()
    assert told is not None
    assert (told.revision, told.outcome) == (3, "failed")
    assert "No space left" in str(told.reason)


def test_a_failed_one_goes_back_to_the_last_that_was_applied(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    twin.try_out(document(3, three=HEALTH))
    twin.confirm()
    twin.try_out(document(4, four=HEALTH))
    twin.roll_back("x" * 500)
    assert list(twin.former(base(tmp_path)).device) == ["three"]
    told = twin.memory.told()
    assert told is not None
    assert (told.revision, told.outcome, told.running, len(str(told.reason))) == (4, "failed", 3, 200)
    assert twin.memory.seen == 4


def test_an_applied_one_that_this_version_cannot_run_gives_way_to_the_file(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    twin.try_out(document(3, trap={"type": "of_the_past"}))
    twin.confirm()
    assert list(Twin(tmp_path / "twin.json").start(base(tmp_path)).device) == ["health"]


def test_a_file_that_does_not_want_remote_care_counts(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "twin.json")
    twin.try_out(document(3, other=HEALTH))
    twin.confirm()
    assert list(Twin(tmp_path / "twin.json").start(base(tmp_path, remote=None)).device) == ["health"]


@settings(max_examples=60)
@given(content=st.binary(max_size=200) | st.sampled_from([b"{}", b'{"trial": 7}', b'{"applied": null}']))
def test_a_damaged_memory_is_set_aside_and_the_file_runs(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("twin")
    (folder / "twin.json").write_bytes(content)
    assert list(Twin(folder / "twin.json").start(base(folder)).device) == ["health"]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ({"device": {"trap-11": {"type": "reed_trap", "pin": 99}}}, "device.trap-11.pin: must be a whole number from 0 to 27"),
        ({"device": {"clock": HEALTH}}, "device.clock: the agent speaks"),
        (
            {"device": {"a": {"type": "reed_trap", "pin": 17}, "b": {"type": "reed_trap", "pin": 17}}},
            "device.b.pin: 17 belongs to device.a",
        ),
        ({"device": {"health": HEALTH}, "broker": {"url": "gateway"}}, "broker.url: 'gateway' is not mqtt://host:port"),
    ],
)
def test_what_cannot_be_names_the_setting(statement: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        merged(base(tmp_path), Desired.model_validate({"node": NODE, "revision": 1, **statement}))
    assert text in str(refused.value)


def test_nobody_can_take_the_encryption_away_from_afar(tmp_path: Path) -> None:
    own = base(tmp_path, broker={"url": "mqtts://one.example", "ca_file": str(tmp_path / "ca.pem")})
    with pytest.raises(ConfigError, match="nothing would be encrypted"):
        merged(own, Desired(node=NODE, revision=1, device={"health": HEALTH}, broker=RemoteBroker(url="mqtt://one.example")))


@settings(max_examples=80)
@given(steps=st.lists(st.sampled_from(["try", "confirm", "roll back", "restart", "refuse"]), max_size=12))
def test_it_never_runs_what_failed_and_never_forgets_what_it_saw(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("twin")
    own, twin, revision = base(folder), Twin(folder / "twin.json"), 0
    for step in steps:
        before = twin.memory
        if step in {"try", "refuse"}:
            revision += 1
        if step == "try":
            twin.try_out(document(revision))
        elif step == "confirm":
            twin.confirm()
        elif step == "roll back":
            twin.roll_back("no")
        elif step == "refuse":
            twin.refuse(document(revision), "no")
        else:
            twin = Twin(folder / "twin.json")
            twin.start(own)
        memory: Memory = twin.memory
        assert memory.seen >= before.seen
        assert not memory.failed or not memory.running or memory.running.revision != memory.failed.revision
        told = memory.told()
        assert told is None or told.running == (memory.applied.revision if memory.applied else 0)
        assert Twin(folder / "twin.json").memory == memory


# The agent that follows them


class Town:
    """A running agent with real drivers, a link in the test's hand, and the gateway's key."""

    def __init__(self, folder: Path, own: EdgeConfig, signer: Signer) -> None:
        self.folder, self.own, self.signer = folder, own, signer
        self.clock = VirtualClock(1_780_434_720_000_000, 90_000_000)
        self.clock_state = "sync"
        self.outbox = Outbox(folder / "outbox.db", machine="pi-1", boot=BOOT)
        self.media = MediaFolder(folder / "media", reserve_bytes=0)
        self.twin = Twin(folder / "twin.json")
        self.built: list[str] = []
        self.links: list[FakeLink] = []
        config = self.twin.start(own)
        self.agent = Agent(
            NODE,
            {device: self.build(config, device) for device in config.device},
            self.outbox,
            self.clock,
            self._connect,
            boot=BOOT,
            clock_state=lambda: self.clock_state,
            rng=random.Random(1),
        )
        means = Means(self.clock, lambda: self.clock_state, lambda: [signer.public], self.build, self.shelve)
        self.care = RemoteCare(
            self.agent, means, own, config, self.twin, Commands(folder / "commands.json"), ExpectedTags(folder / "expected.json")
        )
        self.agent.care = self.care
        self.task = asyncio.ensure_future(self.agent.run())

    def _connect(self, words: LinkWords, listener: Listener) -> FakeLink:
        self.links.append(FakeLink(words, listener))
        return self.links[0]

    def shelve(self) -> str:
        return self.media.keep(b"diagnostics", "application/gzip")

    def build(self, config: EdgeConfig, device: str) -> tuple[str, Driver]:
        self.built.append(device)
        folder = self.folder / "devices" / device
        folder.mkdir(parents=True, exist_ok=True)
        one = config.device[device]
        return one.type.replace("_", "-"), make_driver(device, one, Site(self.clock, self.media, folder, self.outbox.epoch))

    @property
    def link(self) -> FakeLink:
        return self.links[0]

    async def hear(self, channel: Channel, payload: bytes, id_: str | None = None) -> None:
        self.link.listener.received(topic_for(Topic(NODE, channel, id_)), payload)
        await settle()

    async def ask(self, revision: int, broker: RemoteBroker | None = None, **device: Any) -> None:
        desired = Desired(node=NODE, revision=revision, device=device or {"health": HEALTH}, broker=broker)
        await self.hear(Channel.DESIRED, self.signer.sign(desired).payload)

    async def answer(self) -> None:
        await self.hear(Channel.ACK, encode(Ack(epoch=self.outbox.epoch, upto=0)))

    async def answer_births(self, seconds: float) -> None:
        """As the gateway does: one ack for each birth, for so long."""
        for _ in range(int(seconds)):
            before = len(self.link.births())
            await self.clock.advance(1)
            if len(self.link.births()) > before:
                await self.answer()
        await self.clock.advance(1.1)

    def reports(self) -> list[Reported]:
        said = (payload for channel, payload, _ in self.link.said if channel is Channel.REPORTED)
        return [Reported.model_validate_json(payload) for payload in said]

    def birth(self) -> Birth:
        return self.link.births()[-1]


@asynccontextmanager
async def town(folder: Path, own: EdgeConfig | None = None) -> AsyncIterator[Town]:
    key = folder / "signing.pem"
    one = Town(folder, own or base(folder), Signer.read(key) if key.exists() else Signer.make(key))
    await settle()
    one.link.connect()
    await settle()
    try:
        yield one
    finally:
        one.link.up = False
        one.agent.up = False
        one.task.cancel()
        await asyncio.wait([one.task])
        one.outbox.close()


def story(test: Callable[[Path, pytest.LogCaptureFixture], Awaitable[None]]) -> Callable[[Path, pytest.LogCaptureFixture], None]:
    def run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        asyncio.run(asyncio.wait_for(test(tmp_path, caplog), 20))

    run.__doc__, run.__name__ = test.__doc__, getattr(test, "__name__", "story")
    return run


@story
async def test_it_listens_to_its_own_channels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        root = "satomori/v1/29/kitayama-03/down/"
        assert node.link.words.listen == (root + "ack", root + "desired", root + "command/+", root + "expected")


@story
async def test_a_new_configuration_is_applied_once_the_gateway_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        assert node.birth().config is None
        await node.ask(1, health=HEALTH, more=HEALTH)
        await node.answer()  # to something that was said before: proves nothing
        await node.clock.advance(2)
        assert node.twin.memory.applied is None
        await node.answer_births(5)
        assert [(one.revision, one.outcome, one.running) for one in node.reports()] == [(1, "applied", 1)]
        assert [one.device for one in node.birth().devices] == ["health", "more"]
        assert node.birth().config is not None
        assert node.birth().config == node.twin.applied
        retained = [retain for channel, _, retain in node.link.said if channel is Channel.REPORTED]
        assert retained == [True]


@story
async def test_a_birth_says_what_each_device_can_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        (health,) = node.birth().devices
        assert health.kind == "node-health"
        assert "cpu_temperature" in health.metrics


@story
async def test_without_an_answer_it_goes_back_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, other=HEALTH)
        node.link.lose()
        await node.clock.advance(290)
        assert list(node.agent.drivers) == ["other"]
        await node.clock.advance(20)
        assert list(node.agent.drivers) == ["health"]
        node.link.connect()
        await settle()
        (report,) = node.reports()
        assert (report.revision, report.outcome, report.running) == (1, "failed", 0)
        assert report.reason == "the link did not return within 300 s"
        assert [one.device for one in node.birth().devices] == ["health"]
        await node.ask(1, other=HEALTH)  # the broker keeps it, and says it at each connection
        await node.clock.advance(5)
        assert list(node.agent.drivers) == ["health"]


@story
async def test_a_gateway_that_hears_and_does_not_answer_is_no_proof(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, other=HEALTH)
        await node.clock.advance(305)
        assert node.reports()[-1].reason == "the gateway did not answer within 300 s"


@story
async def test_only_what_changed_is_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A serial port with a real pty behind it: closed and opened again, the other side would see it hang up."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    gate = {"type": "people_counter", "port": os.ttyname(theirs)}
    os.close(theirs)
    own = base(tmp_path, device={"gate": gate, "health": HEALTH})
    async with town(tmp_path, own) as node:
        driver, task = node.agent.drivers["gate"][1], node.agent._collecting["gate"]
        waiting, node.built = node.outbox.waiting, []
        await node.ask(1, gate=gate, health=HEALTH | {"interval_s": 5}, third=HEALTH)
        await node.answer_births(5)
        assert node.reports()[-1].outcome == "applied"
        assert node.built == ["health", "third"]
        assert node.agent.drivers["gate"][1] is driver
        assert node.agent._collecting["gate"] is task
        assert not task.done()
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):  # a port that nobody holds open says EIO
            os.read(ours, 1)
        assert "gate is down" not in caplog.text
        assert node.outbox.waiting >= waiting
        assert node.link.used == []  # and the link stayed
    os.close(ours)


@story
async def test_a_pin_can_move_from_one_device_to_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one is closed before the other is opened, which a port that is locked proves."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    gate = {"type": "people_counter", "port": os.ttyname(theirs)}
    os.close(theirs)
    async with town(tmp_path, base(tmp_path, device={"old": gate})) as node:
        await node.ask(1, new=gate)
        await node.answer_births(5)
        assert node.reports()[-1].outcome == "applied"
        assert node.agent.failing == {}
    os.close(ours)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ({"trap-11": {"type": "reed_trap", "pin": 99}}, "device.trap-11.pin: must be a whole number from 0 to 27; it is 99"),
        (
            {"trap-11": {"type": "of_next_year"}},
            'device.trap-11.type: there is no "of_next_year"; it is one of beam_pair, ble_tags, ',
        ),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_setting_and_nothing_changes(
    device: dict[str, Any], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            before = node.agent.drivers
            await node.ask(7, **device)
            (report,) = node.reports()
            assert (report.revision, report.outcome, report.running) == (7, "failed", 0)
            assert str(report.reason).startswith(reason)
            assert node.agent.drivers == before

    story(tale)(tmp_path, caplog)


@story
async def test_a_device_that_cannot_be_opened_is_down_and_no_reason_to_go_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, gate={"type": "people_counter", "port": str(tmp_path / "none")})
        await node.answer_births(5)
        assert node.reports()[-1].outcome == "applied"
        assert "gate" in node.agent.failing
        assert [event for event in node.link.events() if event.startswith("device_down")]


@story
async def test_another_broker_is_tried_and_left_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, RemoteBroker(url="mqtt://two.example"))
        assert [config.url for config in node.link.used] == ["mqtt://two.example"]
        assert node.link.state() == State(session=node.birth().session, online=False, reason="clean")  # at the old one
        node.link.lose()
        await node.clock.advance(305)
        assert [config.url for config in node.link.used] == ["mqtt://two.example", "mqtt://one.example"]


@story
async def test_an_answer_that_was_queued_for_the_old_life_of_the_link_is_no_proof(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, RemoteBroker(url="mqtt://two.example"))
        node.link.lose()
        await settle()
        node.link.connect()
        await node.answer()
        await node.clock.advance(2)
        assert node.twin.memory.trial is not None
        await node.answer_births(5)
        assert node.reports()[-1].outcome == "applied"


@story
async def test_an_older_one_is_a_replay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(5, five=HEALTH)
        await node.answer_births(5)
        for _ in range(3):
            await node.ask(4, four=HEALTH)
            await node.ask(5, five=HEALTH)
        assert list(node.agent.drivers) == ["five"]
        assert caplog.text.count("revision 4 is older than 5; ignored") == 1


@story
async def test_a_newer_one_takes_the_place_of_a_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, one=HEALTH)
        await node.clock.advance(1)
        await node.ask(2, two=HEALTH)
        await node.answer_births(5)
        assert list(node.agent.drivers) == ["two"]
        assert [(one.revision, one.outcome) for one in node.reports()] == [(2, "applied")]
        await node.clock.advance(400)
        assert list(node.agent.drivers) == ["two"]


@story
async def test_a_refused_newer_one_leaves_the_trial_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, one=HEALTH)
        await node.ask(2, two={"type": "none"})
        await node.answer_births(5)
        assert list(node.agent.drivers) == ["one"]
        assert (node.reports()[-1].revision, node.reports()[-1].outcome, node.reports()[-1].running) == (2, "failed", 1)


@story
async def test_a_power_cut_in_a_trial_goes_on_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1, one=HEALTH)
    async with town(tmp_path) as node:
        assert list(node.agent.drivers) == ["one"]
        await node.answer_births(5)
        assert node.reports()[-1].outcome == "applied"


@story
async def test_the_last_report_is_said_again_at_each_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await node.ask(1)
        await node.answer_births(5)
    async with town(tmp_path) as node:
        assert [(one.revision, one.outcome) for one in node.reports()] == [(1, "applied")]


def tampered(signer: Signer) -> bytes:
    said = json.loads(signer.sign(Desired(node=NODE, revision=1, device={"a": HEALTH})).payload)
    said["statement"]["device"]["b"] = HEALTH
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (tampered, "its signature is wrong"),
        (lambda signer: signer.sign(Desired(node="other", revision=1, device={"a": HEALTH})).payload, "for another node"),
        (lambda signer: b"", "no signed message"),
        (lambda signer: b"\xff" * 100, "no signed message"),
        (lambda signer: base64.b64encode(b"x" * 1000), "no signed message"),
    ],
)
def test_what_is_not_believed_changes_nothing_and_is_said_once(
    make: Callable[[Signer], bytes], text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            for _ in range(3):
                await node.hear(Channel.DESIRED, make(node.signer))
            assert caplog.text.count("is not believed") == 1
            assert text in caplog.text
            assert (node.reports(), list(node.agent.drivers)) == ([], ["health"])
            await node.ask(1, other=HEALTH)  # a good one still is
            assert list(node.agent.drivers) == ["other"]

    story(tale)(tmp_path, caplog)


@story
async def test_a_full_disk_leaves_everything_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        (tmp_path / "twin.json.new").mkdir()  # so that nothing can be written there
        await node.ask(1, other=HEALTH)
        assert list(node.agent.drivers) == ["health"]
        assert "can't be kept, so it is not tried" in caplog.text
        assert not node.task.done()
