"""The inputs a trap on pins may have besides its switch: a tamper loop, vibration, tilt."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin
from pydantic import ValidationError

from edge.contract.events import TamperClosed, TamperOpened, TrapMoved, TrapReset, TrapSprung, TrapVisited
from edge.drivers.paced import BURST
from edge.drivers.reed_trap import ReedTrap, ReedTrapConfig
from edge.errors import DeviceError
from edge.records import Happened, Reading, Record, Site
from simulators.clock import VirtualClock
from simulators.pin_factory import FilePins
from tests.edge.drivers.listening import Listener

SWITCH, LOOP, VIBRATION, TILT, BUTTON = 17, 22, 23, 24, 25


def trap(site: Site, **settings: object) -> Listener:
    config = {"type": "reed_trap", "pin": SWITCH, "debounce_ms": 200, "heartbeat_s": 60}
    return Listener(ReedTrap("trap-11", ReedTrapConfig.model_validate(config | settings), site))


def events(heard: Listener) -> list[object]:
    return [happened.event for happened in heard.events()]


def bumps(records: list[Record]) -> list[float]:
    return [record.value for record in records if isinstance(record, Reading) and record.metric == "bump"]


def play(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


async def shake(pin: MockPin, clock: VirtualClock, *, edges: int = 8) -> None:
    """What a spring sensor does: edges without a pause."""
    for _ in range(edges):
        pin.drive_low()
        pin.drive_high()
        await clock.advance(0.01)


# --- the tamper loop ----------------------------------------------------------------------------------


def test_a_cut_loop_rings_after_the_debounce_time_and_a_mended_one_says_so(
    pins: MockFactory, site: Site, clock: VirtualClock
) -> None:
    async def story() -> None:
        loop = pins.pin(LOOP)
        async with trap(site, tamper_pin=LOOP) as heard:
            loop.drive_low()  # the loop is whole
            await clock.advance(1)
            heard.so_far()
            cut_at = clock.now()
            loop.drive_high()
            await clock.advance(0.199)
            assert heard.so_far() == []
            await clock.advance(0.001)
            assert heard.so_far() == [Happened(cut_at, TamperOpened(device="trap-11"))]
            loop.drive_low()
            await clock.advance(1)
            assert events(heard) == [TamperClosed(device="trap-11")]

    play(story())


def test_a_loop_that_closes_when_the_lid_is_opened(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, tamper_pin=LOOP, tamper_when="closed") as heard:
            await clock.advance(1)
            assert events(heard) == []
            pins.pin(LOOP).drive_low()
            await clock.advance(1)
            assert events(heard) == [TamperOpened(device="trap-11")]

    play(story())


def test_what_was_told_of_the_loop_is_remembered_over_restarts(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        opened = TamperOpened(device="trap-11", found=True)
        lost = site._replace(epoch="cd" * 8)
        for one, told in ((site, [opened]), (site, []), (lost, [opened]), (lost, [])):
            async with trap(one, tamper_pin=LOOP) as heard:  # the pull-up alone: the loop is cut
                await clock.advance(1)
                assert events(heard) == told
        async with trap(lost, tamper_pin=LOOP, tamper_when="closed") as heard:  # mended while the node had no power
            await clock.advance(1)
            assert events(heard) == [TamperClosed(device="trap-11", found=True)]

    play(story())


def test_the_loop_and_the_switch_do_not_disturb_each_other(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, tamper_pin=LOOP, tamper_when="closed") as heard:
            await clock.advance(1)
            heard.so_far()
            pins.pin(SWITCH).drive_low()
            await clock.advance(0.1)
            pins.pin(LOOP).drive_low()
            await clock.advance(1)
            assert events(heard) == [TrapSprung(device="trap-11"), TamperOpened(device="trap-11")]
        async with trap(site, tamper_pin=LOOP, tamper_when="open") as heard:
            pins.pin(LOOP).drive_high()
            pins.pin(SWITCH).drive_high()
            await clock.advance(1)
            assert TrapReset(device="trap-11", found=True) in events(heard)

    play(story())


def test_a_loop_that_changes_for_ever_fills_no_disk(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        loop = pins.pin(LOOP)
        async with trap(site, tamper_pin=LOOP, tamper_when="closed") as heard:
            for _ in range(120):  # 2 minutes
                loop.drive_low()
                await clock.advance(0.5)
                loop.drive_high()
                await clock.advance(0.5)
            loop.drive_low()
            await clock.advance(120)
            told = events(heard)
            assert len(told) <= 4 * BURST
            assert isinstance(told[-1], TamperOpened)

    play(story())


# --- vibration and tilt -------------------------------------------------------------------------------


def test_a_shaken_trap_is_told_once_its_switch_has_had_time_to_say_sprung(
    pins: MockFactory, site: Site, clock: VirtualClock
) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            await clock.advance(1)
            heard.so_far()
            shaken_at = clock.now()
            await shake(pins.pin(VIBRATION), clock)
            await clock.advance(1.91)
            assert heard.so_far() == []
            await clock.advance(0.02)
            (happened,) = heard.events()
            assert happened.event == TrapMoved(device="trap-11", how="vibration")
            assert happened.at.mono_us - shaken_at.mono_us < 20_000

    play(story())


def test_a_trap_that_springs_shakes_and_that_is_no_news(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION, tilt_pin=TILT) as heard:
            await clock.advance(1)
            await shake(pins.pin(VIBRATION), clock)
            pins.pin(TILT).drive_low()
            pins.pin(SWITCH).drive_low()
            await clock.advance(10)
            await shake(pins.pin(VIBRATION), clock)  # what it caught
            await clock.advance(600)
            assert events(heard) == [TrapSprung(device="trap-11")]

    play(story())


def test_a_trap_whose_switch_only_blips_was_shaken(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            await shake(pins.pin(VIBRATION), clock)
            await clock.advance(1.85)
            pins.pin(SWITCH).drive_low()  # still undecided when the wait is over
            await clock.advance(0.15)
            pins.pin(SWITCH).drive_high()
            await clock.advance(1)
            assert events(heard) == [TrapMoved(device="trap-11", how="vibration")]

    play(story())


def test_a_tilted_trap_is_told_after_the_debounce_time(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        pins.pin(TILT)
        async with trap(site, tilt_pin=TILT) as heard:
            await clock.advance(1)
            pins.pin(TILT).drive_low()
            await clock.advance(0.1)
            pins.pin(TILT).drive_high()  # a blip
            await clock.advance(5)
            assert events(heard) == []
            pins.pin(TILT).drive_low()
            await clock.advance(3)
            assert events(heard) == [TrapMoved(device="trap-11", how="tilt")]

    play(story())


def test_a_trap_that_stands_tilted_at_the_start_was_not_moved(tmp_path: Path, site: Site, clock: VirtualClock) -> None:
    (tmp_path / "pins").write_text(f"{TILT} low\n")  # held low through every set-up of the pin, as a real switch does
    before, factory = Device.pin_factory, FilePins(tmp_path / "pins")
    Device.pin_factory = factory

    async def story() -> None:
        async with trap(site, tilt_pin=TILT) as heard:
            await clock.advance(3)
            assert events(heard) == []

    try:
        play(story())
    finally:
        Device.pin_factory = before
        factory.close()


def test_a_trap_that_springs_late_in_its_shaking_is_told_as_sprung_alone(
    pins: MockFactory, site: Site, clock: VirtualClock
) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            await shake(pins.pin(VIBRATION), clock, edges=1)
            await clock.advance(1.9)
            pins.pin(SWITCH).drive_low()
            await clock.advance(0.15)  # the wait is over, and the switch still bounces
            pins.pin(SWITCH).drive_high()
            pins.pin(SWITCH).drive_low()
            await clock.advance(10)
            assert events(heard) == [TrapSprung(device="trap-11", folded=2)]

    play(story())


def test_what_is_felt_while_waiting_is_counted_in_the_event(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            for _ in range(3):
                await shake(pins.pin(VIBRATION), clock)
                await clock.advance(0.3)
            await clock.advance(2)
            assert events(heard) == [TrapMoved(device="trap-11", how="vibration", folded=2)]

    play(story())


def test_a_trap_that_is_worried_all_night_is_told_of_every_five_minutes_and_no_movement_is_forgotten(
    pins: MockFactory, site: Site, clock: VirtualClock
) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            for _ in range(360):  # an hour
                await shake(pins.pin(VIBRATION), clock, edges=1)
                await clock.advance(9.99)
            await clock.advance(300)
            records = heard.so_far()
            told = [one.event for one in records if isinstance(one, Happened) and isinstance(one.event, TrapMoved)]
            assert 12 <= len(told) <= 14
            assert sum(1 + one.folded for one in told) == 360
            assert bumps(records)[-1] == 360

    play(story())


def test_bumps_go_on_over_a_restart_and_are_on_the_disk_before_they_are_said(
    pins: MockFactory, site: Site, clock: VirtualClock
) -> None:
    async def story() -> None:
        async with trap(site, vibration_pin=VIBRATION) as heard:
            for _ in range(3):
                await shake(pins.pin(VIBRATION), clock)
                await clock.advance(1)
            await clock.advance(60)
            assert bumps(heard.so_far()) == [0, 3]
            assert (site.state / "bumps").read_text() == "3"
        async with trap(site, vibration_pin=VIBRATION) as heard:
            assert bumps(heard.so_far()) == [3]

    play(story())


def test_a_total_that_can_not_be_read_is_said_and_begins_anew(
    pins: MockFactory, site: Site, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        (site.state / "bumps").write_text("3x")
        async with trap(site, vibration_pin=VIBRATION) as heard:
            assert bumps(heard.so_far()) == [0]
        assert "bumps can't be used" in caplog.text

    play(story())


def test_a_trap_without_sensors_says_no_bumps(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site) as heard:
            assert bumps(heard.so_far()) == []

    play(story())


# --- the visit button -----------------------------------------------------------------------------------


async def press(pin: MockPin, clock: VirtualClock, seconds: float = 0.5) -> None:
    pin.drive_low()
    await clock.advance(seconds)
    pin.drive_high()
    await clock.advance(0.5)


def test_a_pressed_button_is_a_visit_from_the_moment_of_the_press(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        async with trap(site, visit_pin=BUTTON) as heard:
            await clock.advance(1)
            heard.so_far()
            at = clock.now()
            await press(pins.pin(BUTTON), clock)
            assert heard.so_far() == [Happened(at, TrapVisited(device="trap-11"))]

    play(story())


def test_pressing_twice_or_long_is_one_visit_and_later_it_is_another(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        button = pins.pin(BUTTON)
        async with trap(site, visit_pin=BUTTON) as heard:
            await clock.advance(1)
            await press(button, clock, 20)
            await press(button, clock)
            assert events(heard) == [TrapVisited(device="trap-11")]
            await clock.advance(60)
            await press(button, clock)
            assert events(heard) == [TrapVisited(device="trap-11")]

    play(story())


def test_a_touch_a_chatter_and_a_jammed_button_are_no_visit(pins: MockFactory, site: Site, clock: VirtualClock) -> None:
    async def story() -> None:
        button = pins.pin(BUTTON)
        button.drive_low()
        async with trap(site, visit_pin=BUTTON) as heard:
            await clock.advance(600)
            assert events(heard) == []
            button.drive_high()
            await clock.advance(1)
            await shake(button, clock)
            await press(button, clock, 0.19)
            assert events(heard) == []
            await press(button, clock, 0.2)
            assert events(heard) == [TrapVisited(device="trap-11")]

    play(story())


def test_a_pin_that_is_taken_frees_the_others_again(pins: MockFactory, site: Site) -> None:
    async def story() -> None:
        async with trap(site, pin=4, vibration_pin=VIBRATION), trap(site, tilt_pin=VIBRATION) as second:
            with pytest.raises(DeviceError, match=r"GPIO pin 23 can't be opened"):
                await second.next()
        async with trap(site, tamper_pin=LOOP, vibration_pin=VIBRATION, tilt_pin=TILT) as heard:
            await heard.next()

    play(story())


@pytest.mark.parametrize(
    ("wrong", "said_so"),
    [
        ({"tamper_pin": 28}, "tamper_pin"),
        ({"vibration_pin": -1}, "vibration_pin"),
        ({"tilt_pin": 17}, "tilt_pin and pin are both 17"),
        ({"visit_pin": 17}, "visit_pin and pin are both 17"),
        ({"tilt_pin": 4, "tamper_pin": 4}, "tilt_pin and tamper_pin are both 4"),
        ({"tamper_when": "cut"}, "tamper_when"),
        ({"move_pause_s": 0}, "move_pause_s"),
    ],
)
def test_a_wrong_setting_of_an_input_is_refused(wrong: dict[str, object], said_so: str) -> None:
    with pytest.raises(ValidationError, match=said_so):
        ReedTrapConfig.model_validate({"type": "reed_trap", "pin": 17} | wrong)
