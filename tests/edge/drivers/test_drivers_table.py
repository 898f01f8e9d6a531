import typing

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from edge.contract.metrics import METRICS
from edge.drivers import DRIVERS, DeviceConfig, make_driver
from edge.records import Site

SMALLEST: dict[str, dict[str, object]] = {
    "beam_pair": {"pin_a": 22, "pin_b": 23},
    "ble_tags": {"port": "/dev/ttyACM0", "eddystone_namespaces": ["00112233445566778899"]},
    "lidar_pair": {"port_a": "/dev/ttyUSB0", "port_b": "/dev/ttyUSB1", "near_cm": 200},
    "lora_traps": {"port": "/dev/ttyUSB0", "key_file": "/etc/satomori-edge/traps.key", "trap": {"trap-21": {"address": 1}}},
    "node_health": {},
    "people_counter": {"port": "/dev/ttyUSB0"},
    "pir_camera": {},
    "reed_trap": {"pin": 17},
    "trail_camera": {"folder": "/media/cam-02"},
}
configs: TypeAdapter[BaseModel] = TypeAdapter(DeviceConfig)


def test_the_table_and_the_union_name_the_same_configs() -> None:
    union, _ = typing.get_args(DeviceConfig)
    assert set(typing.get_args(union)) == {config for config, _ in DRIVERS}


@pytest.mark.parametrize("kind", sorted(SMALLEST))
def test_every_kind_is_made_from_its_smallest_configuration(kind: str, site: Site) -> None:
    config = configs.validate_python({"type": kind} | SMALLEST[kind])
    driver = make_driver("device-1", config, site)
    assert "heartbeat" in driver.metrics
    assert set(driver.metrics) <= set(METRICS)


@pytest.mark.parametrize("config", [config for config, _ in DRIVERS])
def test_every_setting_is_described_and_none_is_unknown(config: type[BaseModel]) -> None:
    assert config.model_config.get("extra") == "forbid"
    assert config.model_config.get("frozen") is True
    for name, field in config.model_fields.items():
        assert name == "type" or field.description, f"{config.__name__}.{name} has no description"


def test_an_unknown_kind_says_which_there_are() -> None:
    with pytest.raises(ValidationError, match="'reed_trap'"):
        configs.validate_python({"type": "reed_trapp", "pin": 17})


def test_a_config_that_is_not_in_the_table_is_a_mistake_of_ours(site: Site) -> None:
    class Forgotten(BaseModel):
        pass

    with pytest.raises(LookupError, match="device-1: no driver for Forgotten"):
        make_driver("device-1", Forgotten(), site)
