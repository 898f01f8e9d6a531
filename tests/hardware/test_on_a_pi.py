"""What only a real Raspberry Pi can show: that the seams below the simulators are where we think they are."""

import asyncio
import importlib.util
import os
from pathlib import Path

import pytest

from edge.clock import SystemClock, clock_state
from edge.drivers.node_health import NodeHealth, NodeHealthConfig
from edge.drivers.reed_trap import ReedTrap, ReedTrapConfig
from edge.hardware import machine
from edge.hardware.serial_port import open_serial
from edge.media import MediaFolder
from edge.records import Site
from tests.edge.drivers.listening import Listener, values

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


def test_the_camera_takes_a_picture() -> None:
    wired("SATOMORI_CAMERA")
    assert importlib.util.find_spec("picamera2") is not None, "sudo apt install python3-picamera2"
