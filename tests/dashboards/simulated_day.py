"""A festival Saturday in the invented town, as its devices' own drivers tell it; then a gateway's `/metrics` while a trap rings.

The drivers are the real ones, over the simulators' pins, serial ports and cards, on virtual time. Kept small: three nodes, a word
of each device every ten minutes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from edge.drivers import DeviceConfig, Driver, make_driver
from edge.hardware import card
from edge.media import MediaFolder
from edge.records import Reading, Site
from simulators import lora
from simulators.clock import VirtualClock, settle
from simulators.hardware import OwnPins, SerialPort, counter_frame, own_pins, picture, save_picture
from simulators.scenario.gateway import DESK
from simulators.scenario.steps import Steps
from simulators.scenario.story import Story
from simulators.world import DAY_US, MINUTE_US, World

BEGAN_US = 1_785_510_000_000_000
"""2026-08-01 00:00 in Japan, a Saturday."""
ENDED_US = BEGAN_US + DAY_US
STEP_US = 10 * MINUTE_US
NODES = ("kitaone", "kominkan", "hiroba")
FAR = "trap-21"
"""A trap far from its node, heard over radio: what has a battery."""
KEY = bytes(range(16))

Point = tuple[tuple[str, str, str], int, float]
"""(node, device, metric), UTC in ms, value."""


def readings(home: Path) -> list[Point]:
    """Every reading of the day, in order of time."""
    return asyncio.run(_Day(home).play())


class _Day:
    def __init__(self, home: Path) -> None:
        self._home, self._world, self._clock = home, World(seed=1), VirtualClock(BEGAN_US, 10 * DAY_US)
        self._points: list[Point] = []
        self._last_ms: dict[tuple[str, str, str], int] = {}
        self._pins: dict[tuple[str, str], int] = {}
        self._ports: dict[tuple[str, str], SerialPort] = {}
        self._cards: dict[tuple[str, str], Path] = {}
        (home / "key").write_text(KEY.hex())
        (home / "key").chmod(0o600)

    async def play(self) -> list[Point]:
        with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
            patch.setattr(card, "AT_ONCE_S", 5.0)  # virtual time stands still while cards are read
            pins = opened.enter_context(own_pins())
            tasks = [asyncio.create_task(self._listen(node, driver)) for node, driver in self._drivers(opened)]
            await settle()
            far = lora.Transmitter(KEY, 1, tilt_deg=3, bait_percent=100, bump=0)
            for now_us in range(BEGAN_US, ENDED_US, STEP_US):
                self._move(pins, far, now_us)
                await self._clock.advance(STEP_US / 1e6)
            for task in tasks:
                assert not task.done(), task
                task.cancel()
            await asyncio.wait(tasks)
        return sorted(self._points, key=lambda point: point[1])

    async def _listen(self, node: str, driver: Driver) -> None:
        async for record in driver.records():
            if isinstance(record, Reading):
                key = (node, record.device, record.metric)
                # No two readings of a series have one time: whatever the gateway writes is 2 ms apart.
                self._last_ms[key] = time_ms = max(record.at.utc_us // 1000, self._last_ms.get(key, 0) + 2)
                self._points.append((key, time_ms, record.value))

    def _drivers(self, opened: ExitStack) -> Iterator[tuple[str, Driver]]:
        for node in self._world.nodes():
            if node.name not in NODES:
                continue
            devices: dict[str, dict[str, Any]] = {"node": {"type": "node_health", "interval_s": STEP_US / 1e6}}
            if node.name == "kitaone":
                devices["radio"] = {"type": "lora_traps", "key_file": self._home / "key", "trap": {FAR: {"address": 1}}}
            for device in node.devices:
                if device.kind == "reed_trap":
                    self._pins[node.name, device.name] = 17 + len(self._pins)
                    devices[device.name] = {"type": device.kind, "pin": self._pins[node.name, device.name]}
                elif device.kind == "trail_camera":
                    self._cards[node.name, device.name] = folder = self._home / f"card-{device.name}"
                    folder.mkdir()
                    devices[device.name] = {"type": device.kind, "folder": folder, "watch": False, "scan_s": 60.0}
                elif device.kind == "people_counter":
                    devices[device.name] = {"type": device.kind}
            for name, settings in devices.items():
                state = self._home / "state" / node.name / name
                state.mkdir(parents=True)
                if settings["type"] in ("people_counter", "lora_traps"):
                    self._ports[node.name, name] = port = opened.enter_context(SerialPort(state / "port"))
                    settings["port"] = str(port.path)
                if settings["type"] != "node_health":
                    settings["heartbeat_s"] = STEP_US / 1e6
                config: Any = TypeAdapter(DeviceConfig).validate_python(settings)
                yield node.name, make_driver(name, config, Site(self._clock, MediaFolder(self._home / "media"), state))

    def _move(self, pins: OwnPins, far: lora.Transmitter, now_us: int) -> None:
        for (node, device), pin in self._pins.items():
            (pins.low if self._world.trap_is_sprung(node, device, now_us) else pins.high)(pin)
        for (node, device), folder in self._cards.items():
            for at_us, what in self._world.pictures_between(node, device, now_us - STEP_US, now_us):
                save_picture(folder, at_us, picture(at_us, what, self._world.seed))
        hours = (now_us - BEGAN_US) // (60 * MINUTE_US)
        far.battery_mv, far.bait_percent, far.bump = 3600 - 10 * hours, 100 - hours, hours // 6
        for (node, device), port in self._ports.items():
            if device == "radio":
                port.write(lora.receiver_line(far.send()))
            else:
                port.write(counter_frame(*self._world.counter_totals(node, device, now_us), 3700))


def gateways_own(home: Path) -> list[tuple[int, str]]:
    """(UTC ms, what `/metrics` says) each 15 s of two minutes in which a trap springs and a phone is told."""
    folder = home / "story"
    folder.mkdir()
    (folder / "scenario.toml").write_text(_TRAP_RINGS, encoding="utf-8")
    scraped: list[tuple[int, str]] = []
    story = Story(folder, home)

    class ReadSteps(Steps):
        def _do_read(self) -> None:
            said = self._gateway.web.request("GET", "/metrics", headers={"Authorization": f"Bearer {DESK}"})
            assert said.status_code == 200, said.text
            scraped.append((story.now_us() // 1000, said.text))

    story._steps = ReadSteps(story)
    steps = [{"at": f"{second}s", "do": "read"} for second in range(15, 136, 15)]
    story.script["step"] = [*steps[:3], {"at": "50s", "do": "spring", "node": "kitaone", "device": "trap-1"}, *steps[3:]]
    asyncio.run(story.tell())
    return scraped


_TRAP_RINGS = """
title = "A trap springs, and a phone is told"
pace = "5s"

[[node]]
name = "kitaone"
device = { node = { type = "node_health" }, trap-1 = { type = "reed_trap", pin = 17 } }

[[deployment]]
node = "kitaone"
device = "trap-1"
kind = "trap"
place = "北尾根"
label = "1番"
"""
