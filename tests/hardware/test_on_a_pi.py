"""What only a real Raspberry Pi can show: that the seams below the simulators are where we think they are."""

import asyncio
import os
from pathlib import Path

import pytest

from edge.clock import SystemClock, clock_state
from edge.decoders.jpeg import jpeg_fault
from edge.drivers.ble_tags import BleTags, BleTagsConfig
from edge.drivers.node_health import NodeHealth, NodeHealthConfig
from edge.drivers.pir_camera import PirCamera, PirCameraConfig
from edge.drivers.reed_trap import ReedTrap, ReedTrapConfig
from edge.hardware import machine
from edge.hardware.camera import open_camera
from edge.hardware.serial_port import open_serial
from edge.media import MediaFolder
from edge.records import Record, Site
from tests.edge.drivers.listening import Listener, said, values

MODEL = Path("/proc/device-tree/model")


def model() -> str:
    try:
        return MODEL.read_text(encoding="ascii", errors="replace").strip("\0")
    except OSError:
        return ""


pytestmark = pytest.mark.skipif(
    "Raspberry Pi" not in model(), reason=f"this machine is no Raspberry Pi ({MODEL} says {model() or 'nothing'!r})"
)


def wired(variable: str) -> str:
    """What the variable says, or a skip that says what to wire."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: see tests/hardware/README.md for what to wire")
    return value


@pytest.fixture
def site(tmp_path: Path) -> Site:
    state = tmp_path / "state"
    state.mkdir()
    return Site(SystemClock(), MediaFolder(tmp_path / "media"), state, epoch="ab" * 8, clock_state=clock_state)


def test_the_pi_says_its_heat_its_supply_and_its_disk() -> None:
    temperature = machine.cpu_temperature_c()
    assert temperature is not None
    assert 0 < temperature < 90
    assert machine.supply() is not None, "neither get_throttled nor rpi_volt in sysfs: which kernel is this?"
    assert machine.disk_written_bytes(Path("/var")) is not None


def test_the_health_driver_says_all_that_a_pi_has(site: Site) -> None:
    async def play() -> dict[str, float]:
        driver = NodeHealth("node", NodeHealthConfig(type="node_health"), site)
        async with Listener(driver) as heard:
            return values(await heard.until("outbox_waiting"))

    assert {"cpu_temperature", "throttled", "undervoltage", "agent_memory", "clock_sync"} <= set(asyncio.run(play()))


def test_a_wire_between_two_pins_springs_a_trap(site: Site) -> None:
    drive, read = (int(number) for number in wired("SATOMORI_LOOP_PINS").split(","))
    from gpiozero import DigitalOutputDevice

    async def play() -> list[str]:
        config = ReedTrapConfig.model_validate({"type": "reed_trap", "pin": read, "debounce_ms": 50})
        with DigitalOutputDevice(drive, initial_value=True) as switch:
            async with Listener(ReedTrap("trap-1", config, site)) as heard:
                await heard.until("trap_closed")
                switch.off()
                sprung = await heard.until("trap_sprung")
                switch.on()
                reset = await heard.until("trap_reset")
        return [type(record).__name__ for record in (sprung[-1], reset[-1])]

    assert asyncio.run(play()) == ["Happened", "Happened"]


def test_a_serial_port_with_its_ends_joined_hears_itself() -> None:
    port = wired("SATOMORI_LOOP_PORT")
    import serial

    async def play() -> bytes:
        came = asyncio.Event()
        with open_serial(port, 9600, came.set) as take:
            take()
            came.clear()
            with serial.Serial(port, 9600) as mouth:
                mouth.write(b"satomori\n")
                mouth.flush()
            heard = b""
            while b"\n" not in heard:
                await asyncio.wait_for(came.wait(), 5)
                came.clear()
                heard += take()
            return heard

    assert asyncio.run(play()) == b"satomori\n"


def test_the_camera_takes_a_whole_picture_of_the_size_asked_for() -> None:
    wired("SATOMORI_CAMERA")
    with open_camera(1920, 1080) as take:
        content = take()
    assert jpeg_fault(content) is None
    assert picture_size(content) == (1920, 1080)


def picture_size(content: bytes) -> tuple[int, int]:
    """Of a baseline or progressive JPEG, by its frame header (ITU-T T.81 B.2.2)."""
    at = min(found for marker in (b"\xff\xc0", b"\xff\xc2") if (found := content.find(marker)) >= 0)
    return int.from_bytes(content[at + 7 : at + 9]), int.from_bytes(content[at + 5 : at + 7])


def test_a_motion_sensor_wakes_the_camera(site: Site) -> None:
    wired("SATOMORI_CAMERA")
    drive, read = (int(number) for number in wired("SATOMORI_LOOP_PINS").split(","))
    from gpiozero import DigitalOutputDevice

    async def play() -> list[Record]:
        settings = {"type": "pir_camera", "pin": read, "pictures": 1, "warm_up_s": 0}
        with DigitalOutputDevice(drive, initial_value=False) as sensor:
            async with Listener(PirCamera("cam-1", PirCameraConfig.model_validate(settings), site)) as heard:
                await heard.until("media_count")
                sensor.on()
                return await heard.until("pir_count")

    assert "media_captured" in [said(record) for record in asyncio.run(play())]


def test_the_adapter_hears_what_advertises_nearby(site: Site) -> None:
    """Whatever it is: a stranger's phone counts as foreign."""
    adapter = wired("SATOMORI_BLE")

    async def play() -> dict[str, float]:
        config = BleTagsConfig.model_validate({"type": "ble_tags", "adapter": adapter, "heartbeat_s": 3})
        async with Listener(BleTags("tags-1", config, site)) as heard:
            await heard.until("tags_near")
            return values(await heard.until("frames_foreign"))

    assert asyncio.run(play())["frames_foreign"] > 0
