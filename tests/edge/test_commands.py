"""Commands from afar: done at most once whatever happens, and answered for as long as somebody asks."""

import asyncio
import gzip
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import Instant
from edge.commands import KEEP_US, MAX_KNOWN, Commands
from edge.contract.events import RecordClass
from edge.contract.remote import Command, Expected, Result
from edge.contract.topics import Channel, parse
from edge.diagnostics import MAX_BYTES, RecentLog, bundle
from edge.hardware import machine
from edge.outbox import Outbox
from edge.records import Reading, Record
from gateway.nodes.signing import Signer
from simulators.clock import settle
from tests.edge.test_twin import HEALTH, NODE, Town, base, full_disk, story, town

NOW = Instant(1_780_434_720_000_000, 1)


def order(id_: str = "c-1", ttl_s: float = 300, now: Instant = NOW, **fields: Any) -> Command:
    fields = {"name": "identify"} | fields
    return Command(node=NODE, id=id_, issued=now.utc_us, expires=now.utc_us + int(ttl_s * 1e6), **fields)


def later(seconds: float) -> Instant:
    return Instant(NOW.utc_us + int(seconds * 1e6), NOW.mono_us + int(seconds * 1e6))


DONE = Result(state="done")


# The book


def test_a_command_is_begun_once_and_answered_ever_after(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "commands.json")
    assert commands.begin(order(), NOW, "sync") is None
    commands.done("c-1", DONE)
    assert commands.begin(order(), NOW, "sync") == DONE
    assert Commands(tmp_path / "commands.json").begin(order(), later(10_000), "unsync") == DONE


def test_one_that_was_cut_short_is_not_begun_again(tmp_path: Path) -> None:
    assert Commands(tmp_path / "commands.json").begin(order(), NOW, "sync") is None
    cut = Commands(tmp_path / "commands.json").begin(order(), NOW, "sync")
    assert cut == Result(state="failed", reason="the node restarted while doing it")


def test_a_full_card_keeps_no_agent_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the command that was cut short it is known all the same that it must not be begun again."""
    assert Commands(tmp_path / "commands.json").begin(order(), NOW, "sync") is None
    monkeypatch.setattr(os, "fsync", full_disk)
    cut = Commands(tmp_path / "commands.json").begin(order(), NOW, "sync")
    assert cut == Result(state="failed", reason="the node restarted while doing it")


@pytest.mark.parametrize("clock", ["sync", "holdover"])
def test_an_expired_one_is_refused(clock: str, tmp_path: Path) -> None:
    refused = Commands(tmp_path / "commands.json").begin(order(ttl_s=300), later(302), clock)
    assert refused == Result(state="refused", reason="it expired 2 s ago")


def test_a_node_whose_clock_is_not_right_refuses_rather_than_guesses(tmp_path: Path) -> None:
    refused = Commands(tmp_path / "commands.json").begin(order(), NOW, "unsync")
    assert refused is not None
    assert refused.state == "refused"
    assert "clock is not set" in str(refused.reason)


def test_old_ones_are_forgotten_and_expired_by_then(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "commands.json")
    for number in range(MAX_KNOWN):
        assert commands.begin(order(f"c-{number}"), NOW, "sync") is None
    full = commands.begin(order("one-more"), NOW, "sync")
    assert full is not None
    assert full.state == "refused"
    after = later(300 + KEEP_US / 1e6 + 1)
    assert commands.begin(order("tomorrow", now=after), after, "sync") is None
    assert len(json.loads((tmp_path / "commands.json").read_bytes())["known"]) == 1
    again = commands.begin(order("c-0"), after, "sync")
    assert again is not None
    assert again.state == "refused"


def test_a_clock_that_was_ahead_for_a_while_makes_no_old_command_good_again(tmp_path: Path) -> None:
    """Whoever holds the network can lie about the time, and say again what he once heard."""
    commands = Commands(tmp_path / "commands.json")
    assert commands.begin(order(), NOW, "sync") is None
    commands.done("c-1", DONE)
    ahead = later(300 + KEEP_US / 1e6 + 1)
    assert commands.begin(order("c-2", now=ahead), ahead, "sync") is None  # c-1 is forgotten
    for book in (commands, Commands(tmp_path / "commands.json")):
        again = book.begin(order(), NOW, "sync")
        assert again == Result(state="refused", reason="it is older than what this node remembers: perhaps it was done already")


@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_a_damaged_book_is_set_aside(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("book") / "commands.json"
    path.write_bytes(content)
    assert Commands(path).begin(order(), NOW, "sync") is None
    assert len(list(path.parent.glob("commands.json.damaged-*"))) == 1


# On the node


async def tell(node: Town, command: Command, topic_id: str | None = None) -> None:
    await node.hear(Channel.COMMAND, node.signer.sign(command).payload, topic_id or command.id)


def results(node: Town) -> list[Result]:
    return [Result.model_validate_json(payload) for channel, payload, _ in node.link.said if channel is Channel.RESULT]


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    led = tmp_path / "root/sys/class/leds/ACT"
    led.mkdir(parents=True)
    (led / "trigger").write_text("none timer [mmc0] heartbeat\n")
    (led / "brightness").write_text("0\n")
    for name in ("delay_on", "delay_off"):
        (led / name).write_text("500\n")
    monkeypatch.setattr(machine, "ROOT", tmp_path / "root")
    return led


def test_identify_blinks_for_ten_seconds_and_then_shows_what_it_showed(
    lamp: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            await tell(node, order(now=node.clock.now()))
            assert results(node) == [DONE]
            assert ((lamp / "trigger").read_text(), (lamp / "delay_on").read_text()) == ("timer", "100")
            await tell(node, order("c-2", now=node.clock.now()))  # while it blinks
            await node.clock.advance(9)
            assert (lamp / "trigger").read_text() == "timer"
            await node.clock.advance(2)
            assert (lamp / "trigger").read_text() == "mmc0"

    story(tale)(tmp_path, caplog)


def test_a_lamp_whose_pace_only_root_may_set_blinks_all_the_same(
    lamp: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """udev gives us `trigger` and `brightness`; `delay_on` comes into being with the trigger."""
    (lamp / "delay_on").unlink()
    (lamp / "delay_on").mkdir()  # can't be written, even by root

    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            await tell(node, order(now=node.clock.now()))
            assert results(node) == [DONE]
            assert (lamp / "trigger").read_text() == "timer"
        assert (lamp / "trigger").read_text() == "mmc0"

    story(tale)(tmp_path, caplog)


def test_the_lamp_is_left_alone_by_an_agent_that_ends(lamp: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            await tell(node, order(now=node.clock.now()))
        assert (lamp / "trigger").read_text() == "mmc0"

    story(tale)(tmp_path, caplog)


def test_a_board_without_a_lamp_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path / "nothing")

    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            await tell(node, order(now=node.clock.now()))
            (result,) = results(node)
            assert result.state == "failed"
            assert "no lamp of its own" in str(result.reason)

    story(tale)(tmp_path, caplog)


class Camera:
    """A driver that takes pictures on order."""

    metrics = ()

    def __init__(self) -> None:
        self.taken = self.opened = 0

    def take_picture(self) -> None:
        self.taken += 1

    async def records(self) -> AsyncIterator[Record]:
        self.opened += 1
        while True:
            await asyncio.Event().wait()
            yield Reading(NOW, "cam-02", "heartbeat", 1)


@story
async def test_a_picture_is_asked_of_who_can_take_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await tell(node, order("c-0", now=node.clock.now(), name="take_picture"))
        camera = Camera()
        node.agent.drivers["cam-02"] = ("trail-camera", camera)
        for number, device in enumerate((None, "cam-02", "health"), start=1):
            await tell(node, order(f"c-{number}", now=node.clock.now(), name="take_picture", device=device))
        assert [result.state for result in results(node)] == ["refused", "done", "done", "refused"]
        assert "none here can" in str(results(node)[0].reason)
        assert results(node)[3].reason == "health: takes no pictures on order; these can: cam-02"
        assert camera.taken == 2


@story
async def test_a_device_is_restarted_and_only_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path, base(tmp_path, device={"health": HEALTH, "other": HEALTH})) as node:
        before = dict(node.agent._collecting)
        await tell(node, order(now=node.clock.now(), name="restart_device", device="health"))
        assert results(node) == [DONE]
        assert before["health"].cancelled()
        assert not node.agent._collecting["health"].done()
        assert node.agent._collecting["other"] is before["other"]
        await tell(node, order("c-2", now=node.clock.now(), name="restart_device", device="none"))
        assert results(node)[-1] == Result(state="refused", reason="no device none; there are: health, other")


@story
async def test_a_device_that_is_down_stays_down_over_a_restart_of_it_and_says_once_that_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = tmp_path / "card"
    async with town(tmp_path, base(tmp_path, device={"cam-02": {"type": "trail_camera", "folder": str(card)}})) as node:
        await node.clock.advance(1)
        await tell(node, order(now=node.clock.now(), name="restart_device", device="cam-02"))
        await node.clock.advance(1)
        card.mkdir()
        await tell(node, order("c-2", now=node.clock.now(), name="restart_device", device="cam-02"))
        for _ in range(20):
            await node.clock.advance(3)
        assert [event.split(":")[0] for event in node.link.events()] == ["device_down", "device_up"]
        assert node.agent.failing == {}


def wireless(root: Path, monkeypatch: pytest.MonkeyPatch, dbm: int) -> None:
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/wireless").write_text(f"Inter-| sta-|\n face | tus |\n wlan0: 0000   54.  {dbm}.  -256        0\n")
    monkeypatch.setattr(machine, "ROOT", root)


def test_a_ping_is_answered_with_how_the_node_hears_its_network_whatever_its_clock_and_its_disk_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            wireless(tmp_path / "root", monkeypatch, -67)
            node.clock_state = "unsync"
            (tmp_path / "commands.json.new").mkdir()
            for number in range(MAX_KNOWN + 1):
                await tell(node, order(f"c-{number}", now=node.clock.now(), name="ping"))
            assert results(node) == [Result(state="done", rssi_dbm=-67)] * (MAX_KNOWN + 1)
            assert not (tmp_path / "commands.json").exists(), "an installer's day of pings leaves room for orders"

    story(tale)(tmp_path, caplog)


def test_a_modem_that_takes_its_time_holds_up_no_ping_and_is_heard_of_in_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def says() -> float:
        nonlocal asked
        asked += 1
        await modem.wait()
        return -91.4

    monkeypatch.setattr(machine, "ROOT", tmp_path / "nothing")
    modem = asyncio.Event()

    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            monkeypatch.setattr(node.care._modem, "rssi_dbm", says)
            for number in range(3):
                await tell(node, order(f"c-{number}", now=node.clock.now(), name="ping"))
            assert (results(node), asked) == ([DONE] * 3, 1)
            modem.set()
            await settle()
            await tell(node, order("c-3", now=node.clock.now(), name="ping"))
            assert results(node)[-1] == Result(state="done", rssi_dbm=-91)
            await node.clock.advance(31)  # the box may hang 3 m higher by now
            await tell(node, order("c-4", now=node.clock.now(), name="ping"))
            assert (results(node)[-1], asked) == (DONE, 2)

    story(tale)(tmp_path, caplog)


@story
async def test_a_test_alarm_goes_the_way_of_every_alarm_with_the_commands_id_as_its_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:
        command = order("00112233445566ff", now=node.clock.now(), name="test_alarm", device="health")
        for _ in range(2):
            await tell(node, command)
        assert results(node) == [DONE] * 2
        (row,) = node.outbox.events(1, 100, set(), 10)
        assert json.loads(row.body) == {
            "device": "health", "type": "test_alarm", "class": "alarm", "token": "00112233445566ff"
        }  # fmt: skip
        assert row.rank == RecordClass.ALARM
        await node.clock.advance(0.1)
        assert node.link.events() == ["test_alarm"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id_": "0" * 16, "device": "trap-99"}, "no device trap-99; there are: health"),
        ({"id_": "0" * 16}, "no device named; there are: health"),
        ({"id_": "0" * 16, "device": "clock"}, "no device clock; there are: health"),
        ({"id_": "c-1", "device": "health"}, "a test alarm's token is its command's id, so that has to be 16 hex digits"),
    ],
)
def test_no_test_alarm_is_sent_of_what_there_is_not(
    fields: dict[str, Any], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            await tell(node, order(now=node.clock.now(), name="test_alarm", **fields))
            assert results(node) == [Result(state="refused", reason=reason)]
            assert node.link.events() == []

    story(tale)(tmp_path, caplog)


@story
async def test_a_command_that_only_a_later_version_knows_is_refused_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:
        await tell(node, order(now=node.clock.now(), name="sing"))
        (result,) = results(node)
        assert result.state == "refused"
        assert str(result.reason) == "satomori-edge 0.1.0 knows no command sing; bring this node up to date"


@story
async def test_diagnostics_go_the_way_of_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await tell(node, order(now=node.clock.now(), name="upload_diagnostics"))
        (result,) = results(node)
        (waiting,) = node.media.waiting()
        assert (result.state, result.media, waiting.content_type) == ("done", waiting.sha256, "application/gzip")


@story
async def test_a_command_that_comes_again_is_answered_and_not_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:
        node.agent.drivers["cam-02"] = ("trail-camera", camera := Camera())
        command = order(now=node.clock.now(), name="take_picture", device="cam-02")
        for _ in range(3):
            await tell(node, command)
        assert results(node) == [DONE] * 3
        assert camera.taken == 1
    async with town(tmp_path) as node:
        node.agent.drivers["cam-02"] = ("trail-camera", camera)
        await tell(node, command)
        assert (results(node), camera.taken) == ([DONE], 1)


@story
async def test_an_id_is_durable_before_anything_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As kill -9 in the middle of it."""
    async with town(tmp_path) as node:
        known: list[Any] = []

        class Dies(Camera):
            def take_picture(self) -> None:
                known.append(json.loads((tmp_path / "commands.json").read_bytes())["known"]["c-1"])

        node.agent.drivers["cam-02"] = ("trail-camera", Dies())
        await tell(node, order(now=node.clock.now(), name="take_picture"))
        assert known == [{"expires": node.clock.now().utc_us + 300_000_000}]  # begun, no result yet


@story
async def test_one_that_cannot_be_written_down_is_not_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        node.agent.drivers["cam-02"] = ("trail-camera", camera := Camera())
        (tmp_path / "commands.json.new").mkdir()
        await tell(node, order(now=node.clock.now(), name="take_picture"))
        assert (results(node), camera.taken) == ([], 0)
        assert not node.task.done()


@story
async def test_an_order_on_another_orders_topic_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        await tell(node, order(now=node.clock.now()), "c-2")
        assert results(node) == []


@story
async def test_an_order_of_somebody_else_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        other = Signer.make(tmp_path / "other.pem").sign(order(now=node.clock.now())).payload
        await node.hear(Channel.COMMAND, other, "c-1")
        assert results(node) == []
        assert "which this node was never given" in caplog.text


@story
async def test_a_driver_that_fails_at_it_fails_the_command_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path) as node:

        class Broken(Camera):
            def take_picture(self) -> None:
                raise ValueError("lens cap")

        node.agent.drivers["cam-02"] = ("trail-camera", Broken())
        await tell(node, order(now=node.clock.now(), name="take_picture"))
        assert results(node) == [Result(state="failed", reason="ValueError('lens cap')")]
        assert not node.task.done()


@story
async def test_a_result_says_which_command_it_is_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        topics: list[str] = []
        publish = node.link.publish

        def note(topic: str, payload: bytes, *, retain: bool = False) -> None:
            topics.append(f"{topic} {retain}")
            publish(topic, payload, retain=retain)

        node.link.publish = note  # type: ignore[method-assign]
        await tell(node, order(now=node.clock.now(), name="restart_device", device="health"))
        assert "satomori/v1/29/kitayama-03/up/result/c-1 False" in topics


@story
async def test_expected_tags_are_taken_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with town(tmp_path) as node:
        now = node.clock.now()
        tags = [("0011223344556677", "tag-7", now.utc_us, now.utc_us + 60_000_000)]
        expected = Expected(node=NODE, revision=1, tags=tags)
        await node.hear(Channel.EXPECTED, node.signer.sign(expected).payload)
        assert node.care._expected.at(now) == {bytes.fromhex("0011223344556677"): "tag-7"}


def test_a_flood_of_orders_does_not_fill_the_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def tale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with town(tmp_path) as node:
            payload = node.signer.sign(order(now=node.clock.now())).payload
            for number in range(500):
                node.link.listener.received(f"satomori/v1/29/kitayama-03/down/command/c-{number}", payload)
            await settle()
            assert "can be done; a message on down/command is dropped" in caplog.text
            assert not node.task.done()

    story(tale)(tmp_path, caplog)


# Diagnostics


def test_a_bundle_tells_what_there_is_to_know_and_stays_small(tmp_path: Path) -> None:
    recent = RecentLog()
    logger = logging.getLogger("tests.diagnostics")
    logger.addHandler(recent)
    logger.setLevel(logging.INFO)
    for number in range(1000):
        logger.info("line %d %s", number, "あ" * 2000)
    logger.removeHandler(recent)
    secret = tmp_path / "password"
    secret.write_text("open sesame")
    own = base(tmp_path, broker={"url": "mqtt://one.example", "username": "x", "password_file": str(secret)})
    with closing(Outbox(tmp_path / "outbox.db", machine="m", boot="0" * 16)) as outbox:
        outbox.put([Reading(NOW, "a", "heartbeat", 1)] * 3, "sync")
        outbox.reject([(2, "too hot")])
        packed = bundle(own, outbox, {"up": True}, recent)
    said = json.loads(gzip.decompress(packed))
    assert len(gzip.decompress(packed)) < MAX_BYTES
    assert said["versions"]["satomori"]
    assert (said["outbox"]["waiting"], said["quarantine"][0][:2]) == (2, [2, "too hot"])
    assert said["log"][-1].split("あ")[0].endswith("line 999 ")
    assert "open sesame" not in gzip.decompress(packed).decode()


def test_results_travel_where_the_gateway_looks_for_them() -> None:
    assert parse("satomori/v1/29/kitayama-03/up/result/c-1").channel is Channel.RESULT
