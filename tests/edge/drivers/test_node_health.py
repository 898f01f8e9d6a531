import asyncio
from pathlib import Path

import pytest

from edge.drivers.node_health import NodeHealth, NodeHealthConfig
from edge.hardware import machine
from edge.records import Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener, values


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's /proc and /sys, as a Raspberry Pi 4 shows them."""
    for name, text in {
        "proc/loadavg": "0.42 0.30 0.25 1/180 4242\n",
        "proc/meminfo": "MemTotal:        3884072 kB\nMemFree:          120000 kB\nMemAvailable:    2900000 kB\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    return tmp_path


def hear(site: Site, clock: VirtualClock, seconds: float) -> list[dict[str, float]]:
    """What the node says at the start and after so many seconds."""

    async def play() -> list[dict[str, float]]:
        driver = NodeHealth("node", NodeHealthConfig(type="node_health", interval_s=60), site)
        async with Listener(driver) as heard:
            first = values(heard.so_far())
            await clock.advance(seconds)
            return [first, values(heard.so_far())]

    return asyncio.run(play())


def test_the_node_speaks_of_itself_at_once_and_each_minute(root: Path, site: Site, clock: VirtualClock) -> None:
    first, second = hear(site, clock, 60)
    assert first.pop("disk_free") > 0
    assert first == {"heartbeat": 90.0, "cpu_temperature": 48.312, "cpu_load": 0.42, "memory_free": 2_969_600_000}
    assert second["heartbeat"] == 150.0


@pytest.mark.parametrize(
    ("file", "text", "metric"),
    [
        ("sys/class/thermal/thermal_zone0/temp", None, "cpu_temperature"),
        ("sys/class/thermal/thermal_zone0/temp", "", "cpu_temperature"),
        ("sys/class/thermal/thermal_zone0/temp", "-273200", "cpu_temperature"),
        ("sys/class/thermal/thermal_zone0/type", "battery", "cpu_temperature"),
        ("proc/loadavg", None, "cpu_load"),
        ("proc/loadavg", "nan", "cpu_load"),
        ("proc/meminfo", "MemTotal: 3884072 kB", "memory_free"),
        ("proc/meminfo", "MemAvailable: much kB", "memory_free"),
    ],
)
def test_a_sensor_that_is_missing_or_wrong_is_absent_and_never_zero(
    root: Path, site: Site, clock: VirtualClock, file: str, text: str | None, metric: str
) -> None:
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    first, _ = hear(site, clock, 1)
    assert set(NodeHealth.metrics) - set(first) == {metric}


def test_no_state_folder_no_disk_free(root: Path, site: Site, clock: VirtualClock) -> None:
    first, _ = hear(site._replace(state=site.state / "gone"), clock, 1)
    assert "disk_free" not in first


def test_this_very_machine_says_at_least_its_load_and_memory(site: Site, clock: VirtualClock) -> None:
    first, _ = hear(site, clock, 1)
    assert {"heartbeat", "cpu_load", "memory_free", "disk_free"} <= set(first)
