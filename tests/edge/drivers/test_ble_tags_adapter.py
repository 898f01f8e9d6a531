import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.contract.events import ButtonPressed, TagBattery, TagEntered, TagLeft
from edge.drivers.ble_tags import BleTags, BleTagsConfig
from edge.errors import DeviceError
from edge.records import Happened, Record, Site
from simulators.clock import VirtualClock
from tests.edge.bluez import Bluez, bluez_on, private_bus
from tests.edge.drivers.listening import Listener, values

pytestmark = pytest.mark.services

OURS = {0x4C: bytes.fromhex("02150f1e2d3c4b5a49788796a5b4c3d2e1f0000101f4c5")}
TAG = "ibeacon:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0:1:500"
UID = bytes.fromhex("00ec001122334455667788990a0b0c0d0e0f0000")
TLM = bytes.fromhex("20000bb8160000000001000000640000")[:14]
WHO, PHONE = "C0:FF:EE:00:00:01", "4A:11:22:33:44:55"
SETTINGS = {
    "type": "ble_tags",
    "adapter": "hci0",
    "ibeacon_uuids": ["0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0"],
    "eddystone_namespaces": ["00112233445566778899"],
    "bthome_tags": {"tag-7": {"address": "C0:FF:EE:00:00:07"}},
}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with private_bus(tmp_path) as (address, process):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address, process


@pytest.fixture
def bus(daemon: tuple[str, subprocess.Popen[bytes]]) -> str:
    return daemon[0]


def driver(site: Site, **settings: object) -> BleTags:
    return BleTags("tags", BleTagsConfig.model_validate(SETTINGS | settings), site)


async def events_of(heard: Listener, count: int) -> list[object]:
    """The next so many events."""
    found: list[object] = []
    while len(found) < count:
        record = await heard.next()
        if isinstance(record, Happened):
            found.append(record.event)
    return found


async def play_until_heard(bluez: Bluez, heard: Listener, marker: int) -> list[Record]:
    """Sends a tag of its own behind everything else; gives what the driver said until it came, without it."""
    data = OURS[0x4C][:-3] + marker.to_bytes(2) + b"\xc5"
    await bluez.advertise(f"C0:FF:EE:00:{marker >> 8:02X}:{marker & 0xFF:02X}", -60, manufacturer={0x4C: data})
    said: list[Record] = []
    while True:
        record = await heard.next()
        if isinstance(record, Happened) and isinstance(record.event, TagEntered) and record.event.tag.endswith(f":{marker}"):
            return said
        said.append(record)


def test_our_tags_enter_and_a_button_rings_over_the_nodes_own_bluetooth(bus: str, site: Site) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez, Listener(driver(site)) as heard:
            await heard.until("tags_near")
            await bluez.advertise(PHONE, -40, manufacturer={0x4C: b"\x10\x05\x01"})
            await bluez.advertise(WHO, -67, manufacturer=OURS)
            await bluez.advertise("C0:FF:EE:00:00:02", -71, services={0xFEAA: UID})
            await bluez.advertise("C0:FF:EE:00:00:02", -72, services={0xFEAA: TLM})
            await bluez.advertise("C0:FF:EE:00:00:07", -55, services={0xFCD2: bytes.fromhex("4000093a01")})
            eddystone = "eddystone-uid:00112233445566778899:0a0b0c0d0e0f"
            assert await events_of(heard, 5) == [
                TagEntered(device="tags", tag=TAG, rssi=-67),
                TagEntered(device="tags", tag=eddystone, rssi=-71),
                TagBattery(device="tags", tag=eddystone, voltage=3.0, level=None),
                ButtonPressed(device="tags", tag="bthome:tag-7", press="press", rssi=-55),
                TagEntered(device="tags", tag="bthome:tag-7", rssi=-55),
            ]

    asyncio.run(play())


def test_a_tag_that_never_moves_stays(bus: str, site: Site, clock: VirtualClock) -> None:
    """Its advertisements are the same for ever, its signal too: BlueZ tells of such ones only when asked for duplicates."""

    async def play() -> None:
        async with bluez_on(bus) as bluez, Listener(driver(site, leave_after_s=30)) as heard:
            await heard.until("tags_near")
            said: list[Record] = []
            for minute in range(8):
                await bluez.advertise(WHO, -67, manufacturer=OURS)
                said += await play_until_heard(bluez, heard, 1000 + minute)
                await clock.advance(20)
            said += heard.so_far()
            ours = [
                record.event.type for record in said if isinstance(record, Happened) and getattr(record.event, "tag", "") == TAG
            ]
            assert ours == ["tag_entered", "tag_seen"]

    asyncio.run(play())


def test_a_phone_that_passes_by_is_counted_and_nothing_else(
    bus: str, site: Site, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez, Listener(driver(site)) as heard:
            await heard.until("tags_near")
            for number in range(5):
                await bluez.advertise(PHONE, -40 - number, manufacturer={0x4C: b"\x10\x05secret"}, services={0xFE9F: b"secret"})
            said = await play_until_heard(bluez, heard, 1000)
            await clock.advance(60)
            said += heard.so_far()
            assert values(said)["frames_foreign"] == 5
            told = (repr(said) + caplog.text).upper().replace("_", ":")
            assert "SECRET" not in told
            assert PHONE not in told

    asyncio.run(play())


@pytest.mark.parametrize("what", ["switched off", "unplugged", "bus gone"])
def test_an_adapter_that_fails_makes_nobody_leave(
    daemon: tuple[str, subprocess.Popen[bytes]], site: Site, clock: VirtualClock, what: str
) -> None:
    bus, process = daemon

    async def play() -> None:
        async with bluez_on(bus) as bluez, Listener(driver(site, leave_after_s=15)) as heard:
            await heard.until("tags_near")
            await bluez.advertise(WHO, -67, manufacturer=OURS)
            await heard.until("tag_entered")
            if what == "switched off":
                bluez.adapter.power(on=False)
            elif what == "unplugged":
                bluez.unplug()
            else:
                process.kill()
                process.wait()
            await clock.advance(7.5)
            with pytest.raises(DeviceError, match=r"hci0|D-Bus has ended"):
                await heard.until("tag_left")

    asyncio.run(play())


def test_after_a_failure_the_same_driver_hears_again(bus: str, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        tags = driver(site)
        async with bluez_on(bus) as bluez:
            async with Listener(tags) as heard:
                await heard.until("tags_near")
                bluez.adapter.power(on=False)
                await clock.advance(10)
                with pytest.raises(DeviceError, match="was switched off or reset"):
                    await heard.next()
            async with Listener(tags) as heard:
                await heard.until("tags_near")
                await bluez.advertise(WHO, -67, manufacturer=OURS)
                assert await events_of(heard, 1) == [TagEntered(device="tags", tag=TAG, rssi=-67)]

    asyncio.run(play())


def test_an_adapter_that_hears_nobody_for_too_long_is_switched_off_and_on(bus: str, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        tags = driver(site, silent_after_s=30)
        async with bluez_on(bus) as bluez:
            async with Listener(tags) as heard:
                await heard.until("tags_near")
                await bluez.advertise(WHO, -67, manufacturer=OURS)
                await heard.until("tag_entered")
                await clock.advance(30)
                with pytest.raises(DeviceError, match="has heard nobody at all for 30 s: it hangs"):
                    await heard.next()
            assert bluez.adapter.switched == []
            async with Listener(tags) as heard:
                await heard.until("tags_near")
                assert bluez.adapter.switched == [False, True]
                await bluez.advertise(WHO, -67, manufacturer=OURS)
                assert await events_of(heard, 1) == [TagEntered(device="tags", tag=TAG, rssi=-67)]

    asyncio.run(play())


def test_a_tag_that_goes_has_left_when_it_was_heard_last(bus: str, site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez, Listener(driver(site)) as heard:
            await heard.until("tags_near")
            await bluez.advertise(WHO, -67, manufacturer=OURS)
            await heard.until("tag_entered")
            last = clock.now()
            bluez.forget(WHO)
            await bluez.paced()
            for _ in range(6):
                await clock.advance(10)
                await bluez.paced()
            assert (await heard.until("tag_left"))[-1] == Happened(last, TagLeft(device="tags", tag=TAG, rssi=-67))

    asyncio.run(play())
