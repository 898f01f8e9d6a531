import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.decoders.advertisement import Advertisement, Received
from edge.errors import DeviceError
from edge.hardware import ble
from edge.hardware.ble import Scan, open_scan
from simulators.clock import VirtualClock
from tests.edge.bluez import bluez_on, private_bus

pytestmark = pytest.mark.services

PATIENCE_S = 5
APPLE = bytes.fromhex("02150f1e2d3c4b5a49788796a5b4c3d2e1f0000101f4c5")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with private_bus(tmp_path) as (address, process):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address, process


@pytest.fixture
def bus(daemon: tuple[str, subprocess.Popen[bytes]]) -> str:
    return daemon[0]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_780_434_720_000_000)


async def heard(scan: Scan, came: asyncio.Event) -> list[Received]:
    """The next that comes; raises what `take` raises."""
    await asyncio.wait_for(came.wait(), PATIENCE_S)
    came.clear()
    return scan.take()[0]


def test_an_advertisement_comes_with_its_signal_its_sender_and_its_data(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            await bluez.advertise("C0:FF:EE:00:00:01", -67, manufacturer={0x4C: APPLE}, services={0xFEAA: b"\x30\xec12345678"})
            expected = Advertisement({0x4C: APPLE}, {0xFEAA: b"\x30\xec12345678"}, whole=True)
            assert await heard(scan, came) == [Received(-67, "c0ffee000001", expected)]

    asyncio.run(play())


def test_a_tag_that_stands_still_and_says_the_same_is_heard_each_time(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            for _ in range(5):
                await bluez.advertise("C0:FF:EE:00:00:01", -67, manufacturer={0x4C: APPLE})
                assert [one.rssi_dbm for one in await heard(scan, came)] == [-67]

    asyncio.run(play())


def test_a_signal_that_ends_is_no_advertisement(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            await bluez.advertise("C0:FF:EE:00:00:01", -67, manufacturer={0x4C: APPLE})
            await heard(scan, came)
            await bluez.silence("C0:FF:EE:00:00:01")
            await bluez.advertise("C0:FF:EE:00:00:02", -70, manufacturer={0x4C: APPLE})
            assert [one.address for one in await heard(scan, came)] == ["c0ffee000002"]

    asyncio.run(play())


def test_a_slow_reader_loses_the_oldest_and_knows_how_many(
    bus: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "MAX_WAITING", 3)

    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            for number in range(5):
                await bluez.advertise("C0:FF:EE:00:00:01", -60 - number, manufacturer={0x4C: APPLE})
                await asyncio.wait_for(came.wait(), PATIENCE_S)
                came.clear()
            assert [one.rssi_dbm for one in scan.take()[0]] == [-62, -63, -64]
            assert scan.lost == 2

    asyncio.run(play())


def test_the_scan_ends_with_the_block(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez:
            async with open_scan("hci0", clock, 10, lambda: None):
                assert bluez.adapter.discovering
                assert bluez.adapter.filter == {"Transport": "le", "DuplicateData": True}
            assert not bluez.adapter.discovering

    asyncio.run(play())


def test_an_adapter_that_is_off_is_switched_on(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez:
            bluez.adapter.powered = False
            async with open_scan("hci0", clock, 10, lambda: None):
                assert bluez.adapter.discovering
            assert bluez.adapter.switched == [True]

    asyncio.run(play())


def test_an_adapter_that_hangs_is_switched_off_and_on(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez:
            async with open_scan("hci0", clock, 10, lambda: None, restart=True):
                assert bluez.adapter.discovering
            assert bluez.adapter.switched == [False, True]

    asyncio.run(play())


def test_an_adapter_that_stays_off_says_how_to_mend_it(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus) as bluez:
            bluez.adapter.powered, bluez.adapter.can_be_switched_on = False, False
            with pytest.raises(DeviceError, match="rfkill unblock bluetooth"):
                async with open_scan("hci0", clock, 10, lambda: None):
                    pass

    asyncio.run(play())


def test_an_adapter_that_is_not_there_is_named(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        async with bluez_on(bus):
            with pytest.raises(DeviceError, match=r"hci7.*there is no such adapter: bluetoothctl list"):
                async with open_scan("hci7", clock, 10, lambda: None):
                    pass

    asyncio.run(play())


def test_without_bluez_it_says_how_to_start_it(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        with pytest.raises(DeviceError, match="BlueZ does not run: sudo systemctl"):
            async with open_scan("hci0", clock, 10, lambda: None):
                pass

    asyncio.run(play())


def test_without_a_bus_it_says_what_to_install(clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'nobody'}")

    async def play() -> None:
        with pytest.raises(DeviceError, match="D-Bus can't be reached; is BlueZ installed"):
            async with open_scan("hci0", clock, 10, lambda: None):
                pass

    asyncio.run(play())


def test_without_bleak_it_says_what_to_install(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bleak", None)

    async def play() -> None:
        with pytest.raises(DeviceError, match=r"pip install 'satomori\[edge,ble\]'"):
            async with open_scan("hci0", clock, 10, lambda: None):
                pass

    asyncio.run(play())


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("switched off", "was switched off or reset"),
        ("unplugged", "there is no such adapter"),
        ("stopped", "has stopped scanning"),
    ],
)
def test_an_adapter_that_fails_is_noticed_at_the_next_look(bus: str, clock: VirtualClock, what: str, says: str) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            match what:
                case "switched off":
                    bluez.adapter.power(on=False)
                case "unplugged":
                    bluez.unplug()
                case _:
                    bluez.adapter.discovers(now=False)
            await clock.advance(9)
            assert scan.take() == ([], False)
            await clock.advance(1)
            with pytest.raises(DeviceError, match=says):
                await heard(scan, came)

    asyncio.run(play())


def test_a_bus_that_ends_is_noticed_at_once(daemon: tuple[str, subprocess.Popen[bytes]], clock: VirtualClock) -> None:
    bus, process = daemon

    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus), open_scan("hci0", clock, 10, came.set) as scan:
            process.kill()
            process.wait()
            with pytest.raises(DeviceError, match="D-Bus has ended"):
                await heard(scan, came)

    asyncio.run(play())


def test_after_a_reset_it_is_opened_again(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez:
            async with open_scan("hci0", clock, 10, came.set) as scan:
                bluez.unplug()
                await clock.advance(10)
                with pytest.raises(DeviceError):
                    await heard(scan, came)
            bluez.plug()
            async with open_scan("hci0", clock, 10, came.set) as scan:
                came.clear()
                await bluez.advertise("C0:FF:EE:00:00:01", -67, manufacturer={0x4C: APPLE})
                assert len(await heard(scan, came)) == 1

    asyncio.run(play())


def test_a_well_adapter_that_hears_nobody_is_left_alone(bus: str, clock: VirtualClock) -> None:
    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            for _ in range(5):
                await clock.advance(10)
                await bluez.paced()
            assert scan.take() == ([], False)
            assert bluez.adapter.discovering

    asyncio.run(play())


def test_a_scan_that_is_closed_while_bluez_answers_is_closed(
    bus: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer and the end come in the same round of the loop; the look-out must not go on for ever."""

    async def play() -> None:
        async with bluez_on(bus), asyncio.timeout(PATIENCE_S), open_scan("hci0", clock, 10, lambda: None):
            answer = asyncio.get_running_loop().create_future()

            async def properties(*_: object) -> object:
                return await answer

            monkeypatch.setattr(ble, "_properties", properties)
            await clock.advance(10)
            answer.set_result({"Powered": True, "Discovering": True})

    asyncio.run(play())


def test_nobody_who_passes_by_is_written_down_even_when_debugging(
    bus: str, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def play() -> None:
        came = asyncio.Event()
        async with bluez_on(bus) as bluez, open_scan("hci0", clock, 10, came.set) as scan:
            await bluez.advertise("4A:11:22:33:44:55", -50, manufacturer={0x4C: b"\x10\x05secret"})
            await heard(scan, came)

    asyncio.run(play())
    assert "secret" not in caplog.text
    assert "4A:11" not in caplog.text.upper().replace("_", ":")
