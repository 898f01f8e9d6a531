"""A node without a network, a person without a screen: one press, and the lamp says how it is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from edge.config import SelfTestConfig
from edge.contract.events import AlarmTest
from edge.contract.messages import Ack, encode
from edge.contract.topics import Channel
from edge.errors import ConfigError, OutboxError
from edge.hardware import led, machine
from edge.hardware.pins import open_switch
from edge.self_test import SelfTest
from simulators.clock import VirtualClock, settle
from tests.edge.test_commands import order, results, tell
from tests.edge.test_twin import HEALTH, Town, base, town

BUTTON, TRAP = 26, 17
DEVICES = {"health": HEALTH, "trap-11": {"type": "reed_trap", "pin": TRAP}, "trap-12": {"type": "reed_trap", "pin": 27}}
LONG, SHORT = 3.0, 0.3


class Lamp:
    """The board's lamp, which writes down for how long it shone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "trigger").write_text("none timer [mmc0] heartbeat\n")
        (folder / "brightness").write_text("0\n")
        self.lights: list[float] = []

    async def watch(self, clock: VirtualClock, seconds: float) -> list[float]:
        """The lights within so many seconds, each in seconds."""
        lights, since = [], None
        for _ in range(round(seconds * 10)):
            on = (self.folder / "trigger").read_text() == "none" and (self.folder / "brightness").read_text() == led.BRIGHTEST
            if (self.folder / "trigger").read_text() == "mmc0":  # as the kernel shows it
                (self.folder / "trigger").write_text("none timer [mmc0] heartbeat\n")
            now_us = clock.now().mono_us
            if on and since is None:
                since = now_us
            elif not on and since is not None:
                lights.append(round((now_us - since) / 1e6, 1))
                since = None
            await clock.advance(0.1)
        return lights

    @property
    def is_left_alone(self) -> bool:
        """Shows the card again, as Raspberry Pi OS has it."""
        return "mmc0" in (self.folder / "trigger").read_text()


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lamp:
    monkeypatch.setattr(machine, "ROOT", tmp_path / "root")
    return Lamp(tmp_path / "root/sys/class/leds/ACT")


class Box:
    """A node on its post, and whoever stands before it."""

    def __init__(self, node: Town, pins: MockFactory, device: str | None) -> None:
        self.node, self.clock, self.button = node, node.clock, pins.pin(BUTTON)
        assert isinstance(self.button, MockPin)
        config = SelfTestConfig(pin=BUTTON, device=device)
        self.test = SelfTest(config, node.agent, node.clock, node.folder, lambda: "unsync", lambda: node.outbox.waiting)
        self.task = asyncio.ensure_future(self.test.run())

    async def press(self, seconds: float = 2.0) -> None:
        self.button.drive_low()
        await self.clock.advance(seconds)
        self.button.drive_high()
        await settle()

    def alarms(self) -> list[str]:
        """The devices whose test alarms stand in the outbox."""
        rows = self.node.outbox.events(1, 10_000, set(), 100)
        tests = [AlarmTest.model_validate_json(row.body) for row in rows if '"test_alarm"' in row.body]
        assert len({one.token for one in tests}) == len(tests)
        return [one.device for one in tests]

    async def gateway_answers(self) -> None:
        last = max(event.seq for batch in self.node.link.batches() for event in batch.events)
        await self.node.hear(Channel.ACK, encode(Ack(epoch=self.node.outbox.epoch, upto=last)))


@asynccontextmanager
async def box(
    folder: Path, pins: MockFactory, *, linked: bool = False, device: str | None = None, **changes: Any
) -> AsyncIterator[Box]:
    async with town(folder, base(folder, device=DEVICES, **changes)) as node:
        if not linked:
            node.link.lose("no network")
        await node.clock.advance(3)
        one = Box(node, pins, device)
        await settle()
        try:
            yield one
        finally:
            one.task.cancel()
            await asyncio.wait([one.task])


def play(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


# --- What the lamp says -------------------------------------------------------------------------------


def test_one_long_light_means_good_and_the_gateway_has_the_test_alarm(tmp_path: Path, pins: MockFactory, lamp: Lamp) -> None:
    async def story() -> None:
        async with box(tmp_path, pins, linked=True) as one:
            await one.press()
            await one.clock.advance(2)
            assert one.node.link.events()[-1] == "test_alarm"
            await one.gateway_answers()
            assert await lamp.watch(one.clock, 12) == [LONG]
            assert lamp.is_left_alone

    play(story())


@pytest.mark.parametrize("linked", [False, True])
def test_a_long_and_two_short_ones_mean_good_but_the_gateway_has_not_answered(
    linked: bool, tmp_path: Path, pins: MockFactory, lamp: Lamp
) -> None:
    """Also where a broker is there and nobody behind it."""

    async def story() -> None:
        async with box(tmp_path, pins, linked=linked) as one:
            await one.press()
            assert await lamp.watch(one.clock, 20) == [LONG, SHORT, SHORT]
            assert one.alarms() == ["trap-11"], "it waits, and rings when there is a network"
            assert lamp.is_left_alone

    play(story())


def test_five_short_ones_mean_that_a_device_cannot_be_read_and_nobody_is_rung(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with box(tmp_path, pins, linked=True) as one:
            one.node.agent.failing["trap-12"] = "GPIO pin 27 can't be opened"
            await one.press()
            assert await lamp.watch(one.clock, 12) == [SHORT] * 5
            assert one.alarms() == []
            assert "self-test: bad: trap-12: GPIO pin 27 can't be opened" in caplog.text

    play(story())


def test_five_short_ones_mean_a_full_disk(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "disk_free_bytes", lambda _: 5 * 2**20)

    async def story() -> None:
        async with box(tmp_path, pins) as one:
            await one.press()
            assert await lamp.watch(one.clock, 12) == [SHORT] * 5
            assert "5 MiB are left" in caplog.text

    play(story())


def test_an_outbox_that_takes_nothing_is_said_before_the_agent_ends(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with box(tmp_path, pins) as one:

            def full(*_: object) -> None:
                raise OutboxError("outbox can't be written")

            with monkeypatch.context() as broken:
                broken.setattr(one.node.outbox, "put", full)
                await one.press()
                assert await lamp.watch(one.clock, 8) == [SHORT] * 5
                await settle()
            with pytest.raises(OutboxError, match="can't be written"):
                one.task.result()

    play(story())


# --- Whose test alarm, and how often ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "tested"), [(None, "trap-11"), ("trap-12", "trap-12"), ("health", "health"), ("gone", "trap-11")]
)
def test_the_test_alarm_is_of_the_device_that_was_named_or_of_the_first_trap(
    wanted: str | None, tested: str, tmp_path: Path, pins: MockFactory, lamp: Lamp, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that the gateway took away since is no reason to call a good node bad."""

    async def story() -> None:
        async with box(tmp_path, pins, device=wanted) as one:
            await one.press()
            assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]
            assert one.alarms() == [tested]
            assert ("self_test.device: there is no gone" in caplog.text) is (wanted == "gone")

    play(story())


def test_who_presses_again_to_be_sure_sees_it_again_and_rings_nobody_twice(tmp_path: Path, pins: MockFactory, lamp: Lamp) -> None:
    async def story() -> None:
        async with box(tmp_path, pins) as one:
            for _ in range(3):
                await one.press()
                assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]
            assert one.alarms() == ["trap-11"]
            await one.clock.advance(60)
            await one.press()
            await lamp.watch(one.clock, 12)
            assert one.alarms() == ["trap-11"] * 2

    play(story())


# --- The button, the lamp and their faults ------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.2, 0.9, 5.5, 60])
def test_a_touch_or_something_that_leans_on_the_button_is_no_press(
    seconds: float, tmp_path: Path, pins: MockFactory, lamp: Lamp
) -> None:
    async def story() -> None:
        async with box(tmp_path, pins) as one:
            await one.press(seconds)
            assert await lamp.watch(one.clock, 12) == []
            assert one.alarms() == []
            await one.press()
            assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]

    play(story())


def test_a_button_that_bounces_was_pressed_once_and_as_long_as_it_was(tmp_path: Path, pins: MockFactory, lamp: Lamp) -> None:
    async def story() -> None:
        async with box(tmp_path, pins) as one:
            for _ in range(3):  # 1.8 s in all, and never a whole second
                one.button.drive_low()
                await one.clock.advance(0.6)
                one.button.drive_high()
                await one.clock.advance(0.01)
            assert await lamp.watch(one.clock, 15) == [LONG, SHORT, SHORT]

    play(story())


def test_a_contact_that_opens_between_two_looks_ends_nothing(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounces: list[bool] = []

    @contextmanager
    def bouncing(pin: int, on_edge: Callable[[], object]) -> Iterator[Callable[[], bool]]:
        with open_switch(pin, on_edge) as is_down:
            yield lambda: bounces.pop(0) if bounces else is_down()

    monkeypatch.setattr("edge.self_test.open_switch", bouncing)

    async def story() -> None:
        async with box(tmp_path, pins) as one:
            bounces[:] = [True, False]
            await one.press(0.01)
            assert (bounces, one.task.done()) == ([], False)
            await one.press()
            assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]

    play(story())


def test_a_button_that_is_found_pressed_is_jammed_until_it_is_let_go(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def pressed(pin: int, on_edge: Callable[[], object]) -> Iterator[Callable[[], bool]]:
        with open_switch(pin, on_edge) as is_down:
            pins.pin(pin).drive_low()  # gpiozero's stand-in for a pin lets go when it is opened
            yield is_down

    monkeypatch.setattr("edge.self_test.open_switch", pressed)

    async def story() -> None:
        async with box(tmp_path, pins) as one:
            await one.clock.advance(2)
            one.button.drive_high()
            assert await lamp.watch(one.clock, 12) == []
            await one.press()
            assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]

    play(story())


def test_the_lamp_says_one_thing_at_a_time(tmp_path: Path, pins: MockFactory, lamp: Lamp) -> None:
    """`identify` and the self-test would each put back what the other one shows, and leave a dark lamp."""

    async def story() -> None:
        async with box(tmp_path, pins, linked=True) as one:
            await one.press()
            await one.clock.advance(3)
            await tell(one.node, order(now=one.clock.now()))
            assert await lamp.watch(one.clock, 10) == [], "somebody looks for this node: the self-test waits"
            assert await lamp.watch(one.clock, 4.3) == [LONG]
            await tell(one.node, order("c-2", now=one.clock.now()))
            assert results(one.node)[-1].state == "failed"
            assert "says something else just now" in str(results(one.node)[-1].reason)
            assert await lamp.watch(one.clock, 10) == [SHORT, SHORT]
            assert lamp.is_left_alone

    play(story())


def test_a_board_without_a_lamp_says_it_in_the_log(
    tmp_path: Path, pins: MockFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path / "nothing")

    async def story() -> None:
        caplog.set_level("INFO")
        async with box(tmp_path, pins) as one:
            await one.press()
            await one.clock.advance(12)
            assert "self-test: good, but no link to the gateway yet" in caplog.text
            assert "self-test: clock unsync, signal not known, " in caplog.text
            assert "no lamp of its own" in caplog.text
            assert one.alarms() == ["trap-11"]

    play(story())


def test_a_pin_that_cannot_be_had_is_said_once_and_tried_again(
    tmp_path: Path, pins: MockFactory, lamp: Lamp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = True

    def opened(*what: Any) -> Any:
        return open_switch(TRAP if taken else what[0], what[1])

    monkeypatch.setattr("edge.self_test.open_switch", opened)

    async def story() -> None:
        nonlocal taken
        async with box(tmp_path, pins) as one:
            await one.clock.advance(200)
            assert caplog.text.count("the self-test has no button: self_test.pin: GPIO pin 17 can't be opened") == 1
            taken = False
            await one.clock.advance(60)
            assert "can be read again" in caplog.text
            await one.press()
            assert await lamp.watch(one.clock, 12) == [LONG, SHORT, SHORT]

    play(story())


def test_a_device_cannot_have_the_buttons_pin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device.trap-11.pin: 17 belongs to self_test already"):
        base(tmp_path, device=DEVICES, self_test={"pin": TRAP})
