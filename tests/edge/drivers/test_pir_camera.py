"""Pins are gpiozero's own mock; the camera is a stand-in for the module picamera2, which PyPI's machines don't have."""

import asyncio
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin
from pydantic import ValidationError

from edge.drivers.pir_camera import PirCamera, PirCameraConfig
from edge.errors import DeviceError
from edge.media import MediaFolder
from edge.records import Happened, Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener, values
from tests.edge.drivers.trail_pictures import captured, counted, picture
from tests.edge.tiny_model import tiny_model


@pytest.fixture
def pin() -> Iterator[MockPin]:
    before, factory = Device.pin_factory, MockFactory()
    Device.pin_factory = factory
    try:
        yield factory.pin(22)
    finally:
        Device.pin_factory = before
        factory.close()


class FakeCamera:
    """What the driver uses of picamera2.Picamera2; each picture is another one."""

    opened: "list[FakeCamera]"
    colour = (20, 250, 20)
    fault: Exception | None = None
    absent = False

    def __init__(self) -> None:
        if self.absent:
            raise IndexError("list index out of range")  # what libcamera's list of no cameras gives
        self.size: tuple[int, int] | None = None
        self.running = self.closed = False
        self.taken: list[str] = []
        FakeCamera.opened.append(self)

    def create_still_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
        return {"main": main}

    def configure(self, configuration: dict[str, Any]) -> None:
        self.size = configuration["main"]["size"]

    def start(self) -> None:
        self.running = True

    def capture_file(self, file: io.BytesIO, *, format: str) -> None:  # noqa: A002 - picamera2's own name
        assert self.running
        assert format == "jpeg"
        if self.fault is not None:
            raise self.fault
        content = picture(self.colour, size=(64, 64)) + bytes([len(self.taken)])
        self.taken.append(hashlib.sha256(content).hexdigest())
        file.write(content)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[FakeCamera]:
    """The cameras that are opened in the test."""
    module = ModuleType("picamera2")
    module.Picamera2 = FakeCamera  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(FakeCamera, "opened", [], raising=False)
    return FakeCamera.opened


def driver(site: Site, **settings: object) -> PirCamera:
    return PirCamera("cam-04", PirCameraConfig.model_validate({"type": "pir_camera", "pin": 22} | settings), site)


def pulse(pin: MockPin) -> None:
    """Something warm moves."""
    pin.drive_high()
    pin.drive_low()


def test_movement_is_a_burst_of_pictures(pin: MockPin, cameras: list[FakeCamera], site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with Listener(driver(site, width=1280, height=720)) as heard:
            assert values(heard.so_far()) == {"heartbeat": 0, "media_count": 0}
            await clock.advance(60)
            heard.so_far()
            moved_at = clock.now()
            pin.drive_high()  # and stays there for some seconds, as such sensors do
            await clock.advance(3)
            said = heard.so_far()
            events = captured(said)
            assert [event.media for event in events] == cameras[0].taken
            assert len(events) == 3
            assert cameras[0].size == (1280, 720)
            assert len({event.burst for event in events}) == 1
            assert {(event.content, event.camera_time, event.content_type) for event in events} == {
                ("unclassified", None, "image/jpeg")
            }
            whens = [record.at.mono_us for record in said if isinstance(record, Happened)]
            assert whens == [moved_at.mono_us + number * 1_000_000 for number in range(3)]
            assert values(said)["pir_count"] == 1
            assert {one.sha256 for one in cast(MediaFolder, site.media).waiting()} == set(cameras[0].taken)
            await clock.advance(60)
            pin.drive_low()
            await clock.advance(60)
            said = heard.so_far()
            assert captured(said) == []
            assert counted(said, "pir_count") == []

    asyncio.run(play())
    assert cameras[0].closed


def test_a_sensor_that_was_just_switched_on_is_not_believed(
    pin: MockPin, cameras: list[FakeCamera], site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        async with Listener(driver(site)) as heard:
            await clock.advance(30)
            pulse(pin)
            await clock.advance(120)
            said = heard.so_far()
            assert captured(said) == []
            assert counted(said, "pir_count") == []

    asyncio.run(play())


def test_movement_soon_after_is_counted_and_not_pictured(
    pin: MockPin, cameras: list[FakeCamera], site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        async with Listener(driver(site, pictures=1, quiet_s=30, warm_up_s=0)) as heard:
            for _ in range(4):
                pulse(pin)
                await clock.advance(10)
            said = heard.so_far()
            assert len(captured(said)) == 2  # at once and after 30 s
            assert values(said)["pir_count"] == 4

    asyncio.run(play())


def test_a_picture_can_be_ordered_also_without_a_sensor(cameras: list[FakeCamera], site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        camera = driver(site, pin=None)
        async with Listener(camera) as heard:
            camera.take_picture()
            await clock.advance(0)
            said = heard.so_far()
            assert [event.media for event in captured(said)] == cameras[0].taken
            assert len(cameras[0].taken) == 1
            assert counted(said, "pir_count") == []

    asyncio.run(play())


def test_an_order_from_before_the_camera_could_be_used_is_not_carried_out_later(
    cameras: list[FakeCamera], site: Site, clock: VirtualClock
) -> None:
    async def play() -> None:
        camera = driver(site, pin=None)
        camera.take_picture()
        async with Listener(camera) as heard:
            await clock.advance(100)
            assert captured(heard.so_far()) == []

    asyncio.run(play())


def test_a_person_before_it_stays_on_the_node(
    cameras: list[FakeCamera], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCamera, "colour", (250, 20, 20))

    async def play() -> None:
        camera = driver(site, pin=None, model={"file": str(tiny_model(tmp_path / "tiny.onnx"))})
        async with Listener(camera) as heard:
            await heard.until("media_withheld")
            camera.take_picture()
            [event] = captured(await heard.until("media_captured"))
            assert (event.content, event.withheld) == ("person_or_vehicle", True)
            assert cast(MediaFolder, site.media).waiting() == []
            assert [path.stem for path in (site.state / "withheld").iterdir()] == [event.media]

    asyncio.run(play())


def says(site: Site, **settings: object) -> str:
    """With what the camera is down when a picture is ordered."""

    async def play() -> str:
        camera = driver(site, **settings)
        async with Listener(camera) as heard:
            camera.take_picture()
            with pytest.raises(DeviceError) as raised:
                await heard.until("nothing else")
        return str(raised.value)

    return asyncio.run(play())


def test_without_picamera2_it_says_what_to_install(pin: MockPin, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert "sudo apt install python3-picamera2" in says(site)


def test_without_a_camera_it_says_what_to_look_at(
    pin: MockPin, cameras: list[FakeCamera], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCamera, "absent", True)
    assert "the camera can't be opened: list index out of range. Is its cable in" in says(site)


@pytest.mark.parametrize("fault", [RuntimeError("Camera frontend has timed out!"), OSError(5, "Input/output error")])
def test_a_camera_that_fails_is_down_and_closed(
    cameras: list[FakeCamera], site: Site, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(FakeCamera, "fault", fault)
    assert says(site, pin=None) == f"the camera took no picture: {fault}"
    assert cameras[0].closed


def test_a_pin_that_is_taken_is_said_and_the_camera_let_go(pin: MockPin, cameras: list[FakeCamera], site: Site) -> None:
    from gpiozero import LED

    with LED(22):
        assert "GPIO pin 22 of the motion sensor can't be opened" in says(site)
    assert cameras[0].closed


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="width"):
        PirCameraConfig.model_validate({"type": "pir_camera", "width": 1281})


def test_a_loose_wire_fills_no_disk(pin: MockPin, cameras: list[FakeCamera], site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with Listener(driver(site, warm_up_s=0, quiet_s=3600)) as heard:
            pulse(pin)
            await clock.advance(10)
            heard.so_far()
            for _ in range(1000):
                pulse(pin)
                await clock.advance(0.01)
            await clock.advance(5)
            said = counted(heard.so_far(), "pir_count")
            assert len(said) <= 4
            assert said[-1] == 1001

    asyncio.run(play())
