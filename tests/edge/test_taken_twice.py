from pathlib import Path

import pytest

from edge.config import load
from edge.errors import ConfigError

NODE = 'node = { name = "kitayama-03", state = "state" }\nbroker = { url = "mqtt://localhost" }\n'
RECEIVER = 'type = "lora_traps", port = "/dev/ttyUSB0", key_file = "traps.key"'


@pytest.mark.parametrize(
    ("devices", "fault"),
    [
        (
            'a = { type = "reed_trap", pin = 17 }\nb = { type = "reed_trap", pin = 4, tamper_pin = 17 }',
            "device.b.tamper_pin: 17 belongs to device.a already",
        ),
        (
            'a = { type = "reed_trap", pin = 4, tilt_pin = 5 }\nb = { type = "reed_trap", pin = 6, vibration_pin = 5 }',
            "device.b.vibration_pin: 5 belongs to device.a already",
        ),
        (
            'a = { type = "beam_pair", pin_a = 4, pin_b = 5 }\nb = { type = "reed_trap", pin = 5 }',
            "device.b.pin: 5 belongs to device.a already",
        ),
        (
            f'a = {{ {RECEIVER}, trap = {{ c = {{ address = 1 }} }} }}\nb = {{ type = "people_counter", port = "/dev/ttyUSB0" }}',
            "device.b.port: /dev/ttyUSB0 belongs to device.a already",
        ),
        (
            f'a = {{ {RECEIVER}, trap = {{ b = {{ address = 1 }} }} }}\nb = {{ type = "reed_trap", pin = 5 }}',
            "device.a: b is the name of device.b already",
        ),
        (f"a = {{ {RECEIVER}, trap = {{ a = {{ address = 1 }} }} }}", "device.a: a is the name of device.a already"),
        (
            f"a = {{ {RECEIVER}, trap.c = {{ address = 1 }} }}\nb = {{ {RECEIVER}, trap.c = {{ address = 1 }} }}",
            "device.b: c is the name of device.a.c already",
        ),
        (
            f"a = {{ {RECEIVER}, trap = {{ clock = {{ address = 1 }} }} }}",
            "device.a: clock is the name of device.clock",
        ),
    ],
)
def test_what_two_devices_would_take_from_each_other_is_refused(tmp_path: Path, devices: str, fault: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(NODE + "[device]\n" + devices)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert fault in str(error.value)


def test_what_only_looks_alike_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        NODE
        + '[device]\na = { type = "reed_trap", pin = 17, tamper_pin = 4 }\nb = { type = "reed_trap", pin = 5 }\n'
        + f"c = {{ {RECEIVER}, trap = {{ d = {{ address = 17 }}, e = {{ address = 4 }} }} }}\n"
    )
    assert set(load(path).device) == {"a", "b", "c"}
