import asyncio
import logging
import os
from pathlib import Path

import pytest

from edge.drivers.node_health import NodeHealth, NodeHealthConfig
from edge.hardware import machine, modem
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
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
        "sys/class/hwmon/hwmon1/name": "ina219\n",
        "sys/class/hwmon/hwmon1/in1_input": "12480\n",
        "proc/self/status": "Name:\tpython3\nVmPeak:\t  90000 kB\nVmRSS:\t   48120 kB\n",
        "proc/net/wireless": "Inter-| sta-|   Quality        |   Discarded packets\n"
        " face | tus | link level noise |  nwid  crypt\n"
        " wlan0: 0000   54.  -61.  -256        0      0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    # The disk under the tests' folder: a partition of a card that wears as a whole.
    device = tmp_path.stat().st_dev
    card = tmp_path / "sys/devices/mmcblk0"
    (card / "mmcblk0p2").mkdir(parents=True)
    (card / "stat").write_text("  100 0 2000 30 400 0 8192 50 0 60 70\n")
    (card / "mmcblk0p2" / "stat").write_text("  100 0 2000 30 400 0 4096 50 0 60 70\n")
    (card / "mmcblk0p2" / "partition").write_text("2\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / f"sys/dev/block/{os.major(device)}:{os.minor(device)}").symlink_to(card / "mmcblk0p2")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
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
    assert first == {
        "heartbeat": 90.0,
        "cpu_temperature": 48.312,
        "cpu_load": 0.42,
        "memory_free": 2_969_600_000,
        "agent_memory": 49_274_880,
        "disk_written": 8192 * 512,
        "throttled": 0,
        "undervoltage": 0,
        "supply_voltage": 12.48,
        "uplink_rssi": -61,
        "clock_sync": 2,
        "outbox_waiting": 0,
    }
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
        ("proc/self/status", "VmSize: 1 kB", "agent_memory"),
        ("proc/net/wireless", "Inter-| sta-|\n wlan0: 0000   54.  0.  -256\n", "uplink_rssi"),
        ("sys/class/hwmon/hwmon1/in1_input", "", "supply_voltage"),
        ("sys/devices/mmcblk0/stat", "1 2 3", "disk_written"),
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


@pytest.mark.parametrize(
    ("bits", "throttled", "undervoltage"), [("0", 0, 0), ("1", 0, 1), ("2", 1, 0), ("4", 1, 0), ("8", 1, 0), ("50005", 1, 1)]
)
def test_what_the_firmware_says_of_supply_and_heat_now(
    root: Path, site: Site, clock: VirtualClock, bits: str, throttled: int, undervoltage: int
) -> None:
    """What was once, since boot, stands in the upper bits and is no news."""
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(bits)
    first, _ = hear(site, clock, 1)
    assert (first["throttled"], first["undervoltage"]) == (throttled, undervoltage)


def test_the_firmware_of_a_pi_5_stands_under_another_name(root: Path, site: Site, clock: VirtualClock) -> None:
    (root / "sys/devices/platform/soc").rename(root / "sys/devices/platform/soc@107c000000")
    soc = root / "sys/devices/platform/soc@107c000000"
    (soc / "soc:firmware").rename(soc / "soc@107c000000:firmware")
    (soc / "soc@107c000000:firmware" / "get_throttled").write_text("1\n")
    assert hear(site, clock, 1)[0]["undervoltage"] == 1


def test_a_newer_kernels_sensor_of_the_supply(root: Path, site: Site, clock: VirtualClock) -> None:
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    chip = root / "sys/class/hwmon/hwmon0"
    chip.mkdir()
    (chip / "name").write_text("rpi_volt\n")
    (chip / "in0_lcrit_alarm").write_text("1\n")
    assert hear(site, clock, 1)[0]["undervoltage"] == 1


@pytest.mark.parametrize("state", ["sync", "holdover", "unsync"])
def test_what_the_node_thinks_of_its_clock_and_how_much_waits(root: Path, site: Site, clock: VirtualClock, state: str) -> None:
    first, _ = hear(site._replace(clock_state=lambda: state, waiting=lambda: 4711), clock, 1)
    assert first["clock_sync"] == {"sync": 2, "holdover": 1, "unsync": 0}[state]
    assert first["outbox_waiting"] == 4711


def mmcli(root: Path, script: str) -> None:
    command = root / "bin" / "mmcli"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


async def signal_of(site: Site) -> dict[str, float]:
    driver = NodeHealth("node", NodeHealthConfig(type="node_health"), site)
    async with Listener(driver) as heard:
        return values(await heard.until("outbox_waiting"))


def test_the_signal_of_a_mobile_modem_where_there_is_no_wifi(root: Path, site: Site) -> None:
    """As ModemManager's own command prints it; the modem is on LTE."""
    (root / "proc/net/wireless").unlink()
    mmcli(
        root,
        """echo '{"modem":{"signal":{"5g":{"rsrp":"--"},"lte":{"rsrp":"-104.00","rssi":"-74.00"},"refresh":{"rate":"30"}}}}'""",
    )
    assert asyncio.run(signal_of(site))["uplink_rssi"] == -74


@pytest.mark.parametrize("script", ["echo 'error: couldn\\'t find modem'; exit 1", "echo '{}'", "echo '[1]'", ":"])
def test_no_modem_no_signal(root: Path, site: Site, script: str) -> None:
    (root / "proc/net/wireless").unlink()
    mmcli(root, script)
    assert "uplink_rssi" not in asyncio.run(signal_of(site))


def test_a_modem_that_was_never_told_to_measure_is_told(root: Path, site: Site) -> None:
    (root / "proc/net/wireless").unlink()
    mmcli(root, f'echo "$@" >>{root}/asked; echo \'{{"modem":{{"signal":{{"lte":{{"rssi":"--"}},"refresh":{{"rate":"0"}}}}}}}}\'')
    asyncio.run(signal_of(site))
    assert "--signal-setup 30" in (root / "asked").read_text()


@pytest.mark.parametrize(("script", "why"), [("exec /bin/sleep 60", "does not answer within"), ("", "can't be run")])
def test_a_modem_that_is_not_answered_for_is_said_once_and_stops_nothing_else(
    root: Path, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, script: str, why: str
) -> None:
    """A year has half a million minutes."""
    (root / "proc/net/wireless").unlink()
    mmcli(root, script)
    command = root / "bin" / "mmcli"
    if not script:
        command.write_text("#!/nonexistent\n")
    monkeypatch.setattr(modem, "PATIENCE_S", 0.05)

    async def play() -> None:
        asked = modem.Modem()
        assert [await asked.rssi_dbm(), await asked.rssi_dbm()] == [None, None]
        monkeypatch.setattr(modem, "PATIENCE_S", 5)
        command.write_text("#!/bin/sh\necho '{}'\n")
        await asked.rssi_dbm()

    with caplog.at_level(logging.INFO):
        asyncio.run(play())
    assert [why in caplog.messages[0], caplog.messages[1:]] == [True, [f"{command} answers again"]]
