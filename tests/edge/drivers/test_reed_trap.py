import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import Device, DigitalInputDevice
from gpiozero.pins.mock import MockFactory, MockPin
from pydantic import ValidationError

from edge.clock import Instant
from edge.contract.events import TrapReset, TrapSprung
from edge.drivers.paced import BURST
from edge.drivers.reed_trap import ReedTrap, ReedTrapConfig
from edge.errors import DeviceError
from edge.records import Happened, Reading, Site
from simulators.clock import VirtualClock, settle
from tests.edge.drivers.listening import Listener


@pytest.fixture
def pin() -> Iterator[MockPin]:
    before, factory = Device.pin_factory, MockFactory()
    Device.pin_factory = factory
    try:
        yield factory.pin(17)
    finally:
        Device.pin_factory = before
        factory.close()


def trap(site: Site, *, debounce_ms: int = 200, sprung_when: str = "closed") -> Listener:
    config = ReedTrapConfig.model_validate(
        {"type": "reed_trap", "pin": 17, "debounce_ms": debounce_ms, "sprung_when": sprung_when, "heartbeat_s": 60}
    )
    return Listener(ReedTrap("trap-11", config, site))


def later(start: Instant, seconds: float) -> Instant:
    return Instant(start.utc_us + round(seconds * 1e6), start.mono_us + round(seconds * 1e6))


def test_a_set_trap_says_at_once_and_each_minute_that_it_is_alive(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        start = clock.now()
        async with trap(site) as heard:
            assert heard.so_far() == [
                Reading(start, "trap-11", "heartbeat", 0.0),
                Reading(start, "trap-11", "trap_closed", 0.0),
            ]
            await clock.advance(59.9)
            assert heard.so_far() == []
            await clock.advance(0.1)
            assert heard.so_far() == [
                Reading(later(start, 60), "trap-11", "heartbeat", 60.0),
                Reading(later(start, 60), "trap-11", "trap_closed", 0.0),
            ]

    asyncio.run(play())


def test_it_springs_once_at_the_first_edge_and_after_the_debounce_time(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            await clock.advance(10)
            heard.so_far()
            sprung_at = clock.now()
            pin.drive_low()
            await clock.advance(0.199)
            assert heard.so_far() == []
            await clock.advance(0.001)
            assert heard.so_far() == [
                Happened(sprung_at, TrapSprung(device="trap-11", folded=0)),
                Reading(sprung_at, "trap-11", "trap_closed", 1.0),
            ]
            await clock.advance(49)
            assert heard.so_far() == []

    asyncio.run(play())


def test_it_is_reset(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            pin.drive_low()
            await clock.advance(30)
            heard.so_far()
            reset_at = clock.now()
            pin.drive_high()
            await clock.advance(1)
            assert heard.so_far() == [
                Happened(reset_at, TrapReset(device="trap-11", folded=0)),
                Reading(reset_at, "trap-11", "trap_closed", 0.0),
            ]

    asyncio.run(play())


def test_a_trap_found_sprung_at_the_start_rings(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        start = clock.now()
        async with trap(site, sprung_when="open") as heard:  # the pull-up alone: an open switch
            await clock.advance(0.2)
            records = heard.so_far()
            assert Happened(start, TrapSprung(device="trap-11", folded=0, found=True)) in records
            assert records[-1] == Reading(start, "trap-11", "trap_closed", 1.0)

    asyncio.run(play())


def test_a_trap_reset_while_the_node_had_no_power_says_so_and_can_ring_again(
    pin: MockPin, site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            pin.drive_low()
            await clock.advance(1)
            assert TrapSprung(device="trap-11") in [one.event for one in heard.so_far() if isinstance(one, Happened)]
        pin.drive_high()
        async with trap(site) as heard:
            await clock.advance(1)
            assert [one.event for one in heard.so_far() if isinstance(one, Happened)] == [TrapReset(device="trap-11", found=True)]

    asyncio.run(play())


def test_only_the_state_at_the_start_was_found_so(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    """What changes afterwards is known to change, also in a run that began with a state found."""

    async def play() -> None:
        async with trap(site, sprung_when="open") as heard:  # the pull-up alone: an open switch
            await clock.advance(1)
            pin.drive_low()
            await clock.advance(1)
            pin.drive_high()
            await clock.advance(1)
            assert [happened.event for happened in heard.events()] == [
                TrapSprung(device="trap-11", found=True),
                TrapReset(device="trap-11"),
                TrapSprung(device="trap-11"),
            ]

    asyncio.run(play())


def test_a_change_that_is_read_before_its_edge_is_heard_was_not_found(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    """The edge comes from another thread, so that a heartbeat may look at the switch before it."""

    async def play() -> None:
        async with trap(site) as heard:
            await clock.advance(1)
            heard.so_far()
            pin.when_changed = None  # the edge is never heard of: the longest delay there is
            pin.drive_low()
            await clock.advance(60)
            assert [happened.event for happened in heard.events()] == [TrapSprung(device="trap-11")]

    asyncio.run(play())


def test_a_trap_that_was_told_to_be_sprung_is_not_told_again_after_a_restart(
    pin: MockPin, site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        for told in (1, 0):
            async with trap(site, sprung_when="open") as heard:  # the pull-up alone: an open switch
                await clock.advance(1)
                assert sum(isinstance(one, Happened) for one in heard.so_far()) == told

    asyncio.run(play())


def test_a_trap_that_was_told_to_be_sprung_rings_again_when_the_outbox_was_begun_anew(
    pin: MockPin, site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        lost = site._replace(epoch="cd" * 8)
        for one, told in ((lost, 1), (site, 1), (site, 0)):
            async with trap(one, sprung_when="open") as heard:  # the pull-up alone: an open switch
                await clock.advance(1)
                assert [happened.event for happened in heard.events()] == [TrapSprung(device="trap-11", found=True)] * told

    asyncio.run(play())


def test_a_set_trap_says_nothing_when_the_outbox_was_begun_anew(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site._replace(epoch="cd" * 8)) as heard:
            pin.drive_low()
            await clock.advance(1)
            pin.drive_high()
            await clock.advance(1)
            assert len(heard.events()) == 2
        async with trap(site) as heard:
            await clock.advance(1)
            assert heard.events() == []

    asyncio.run(play())


def test_what_was_told_is_on_the_disk_before_the_next_record(
    pin: MockPin, site: Site, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the new file, then its place in the folder: after a power cut the old state is there or the new one, whole."""
    synced: list[tuple[str, bool]] = []

    def fsync(number: int) -> None:
        there = site.state / "told"
        synced.append((Path(f"/proc/self/fd/{number}").readlink().name, there.exists()))

    monkeypatch.setattr("edge.durable.os.fsync", fsync)

    async def play() -> None:
        async with trap(site, sprung_when="open") as heard:  # the pull-up alone: an open switch
            await clock.advance(1)
            assert [happened.event.type for happened in heard.events()] == ["trap_sprung"]

    asyncio.run(play())
    assert synced == [("told.new", False), (site.state.name, True)]


def test_a_switch_that_opens_when_the_trap_springs(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site, sprung_when="open") as heard:
            await clock.advance(1)
            heard.so_far()
            pin.drive_low()
            await clock.advance(1)
            assert [happened.event for happened in heard.events()] == [TrapReset(device="trap-11")]
            pin.drive_high()
            await clock.advance(1)
            assert [happened.event for happened in heard.events()] == [TrapSprung(device="trap-11")]

    asyncio.run(play())


def test_chatter_is_folded_into_one_event(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            await clock.advance(1)
            sprung_at = clock.now()
            pin.drive_low()
            for _ in range(3):
                await clock.advance(0.05)
                pin.drive_high()
                await clock.advance(0.05)
                pin.drive_low()
            await clock.advance(5)
            assert heard.events() == [Happened(sprung_at, TrapSprung(device="trap-11", folded=6))]

    asyncio.run(play())


def test_a_blip_shorter_than_the_debounce_time_is_nothing(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            for _ in range(20):
                pin.drive_low()
                await clock.advance(0.1)
                pin.drive_high()
                await clock.advance(1)
            assert heard.events() == []

    asyncio.run(play())


def test_without_debounce_each_change_counts_at_once(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site, debounce_ms=0) as heard:
            pin.drive_low()
            await settle()
            assert [happened.event for happened in heard.events()] == [TrapSprung(device="trap-11")]

    asyncio.run(play())


def test_a_switch_that_never_settles_rings_and_its_heart_goes_on_beating(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            await clock.advance(1)
            heard.so_far()
            shaken_at = clock.now()
            for _ in range(700):  # 70 s of it
                pin.drive_low()
                await clock.advance(0.05)
                pin.drive_high()
                await clock.advance(0.05)
            records = heard.so_far()
            events = [record for record in records if isinstance(record, Happened)]
            assert events[0].at == shaken_at
            assert [happened.event.type for happened in events] == ["trap_sprung"]
            assert any(isinstance(record, Reading) and record.metric == "heartbeat" for record in records)

    asyncio.run(play())


def test_a_switch_that_changes_for_ever_fills_no_disk(pin: MockPin, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with trap(site) as heard:
            for _ in range(120):  # 2 minutes
                pin.drive_low()
                await clock.advance(0.5)
                pin.drive_high()
                await clock.advance(0.5)
            events = heard.events()
            assert len(events) <= 3 * BURST
            pin.drive_low()
            await clock.advance(120)
            last = heard.events()
            assert last[-1].event.type == "trap_sprung"  # what is true in the end is said in the end
            changes = [happened.event for happened in events + last]
            said = sum(1 + change.folded for change in changes if isinstance(change, TrapSprung | TrapReset))
            assert said == 241  # and no change is forgotten

    asyncio.run(play())


def test_a_pin_that_another_device_has_is_said_with_its_number(pin: MockPin, site: Site) -> None:
    async def play() -> None:
        with DigitalInputDevice(17, pull_up=True):
            async with trap(site) as heard:
                with pytest.raises(DeviceError, match=r"GPIO pin 17 can't be opened: .*another device"):
                    await heard.next()

    asyncio.run(play())


def test_the_pin_is_free_again_when_the_driver_is_closed(pin: MockPin, site: Site) -> None:
    async def play() -> None:
        for _ in range(2):
            async with trap(site) as heard:
                await heard.next()

    asyncio.run(play())


@pytest.mark.parametrize("wrong", [{"pin": 28}, {"pin": -1}, {"debounce_ms": -1}, {"pinn": 3}, {"sprung_when": "shut"}])
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ReedTrapConfig.model_validate({"type": "reed_trap", "pin": 17} | wrong)
