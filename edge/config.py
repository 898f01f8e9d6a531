"""edge.toml: its shape, and the one way to read it. Every fault names the setting."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.contract.broker import BrokerConfig
from edge.contract.faults import plain
from edge.contract.names import Name
from edge.drivers import DeviceConfig
from edge.errors import ConfigError

CLOCK = "clock"
"""The device that the agent itself is: see edge.timekeeper."""
SELF_TEST = "self_test"
"""The section; no device can be called so."""


class NodeConfig(BaseModel):
    """`[node]`: which node this is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="This node's name, 1 to 32 of a-z, 0-9 and '-'.")
    state: Path = Field(Path("/var/lib/satomori-edge"), description="The one folder everything is written to.")


class OutboxConfig(BaseModel):
    """`[outbox]`: how much may wait."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_records: Annotated[int, Field(ge=1000, le=100_000_000)] = Field(
        3_000_000, description="Records kept while there is no link; beyond, the least important are dropped and declared."
    )
    max_mib: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        1024, description="The same in MiB on the disk, whichever is first."
    )


class MediaConfig(BaseModel):
    """`[media]`: where pictures go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="The gateway's address, http://host:port or https://host:port.")
    token_file: Path = Field(description="File that holds this node's token.")
    ca_file: Path | None = Field(None, description="Certificates of the gateway's authority; the system's when absent.")


class RemoteConfig(BaseModel):
    """`[remote]`: who may change this node from afar. `satomori-edge claim` writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys_file: Path = Field(description="File with the gateway's public keys: what they sign is believed.")
    url: str = Field(description="The gateway's node listener, https://host:port: where the certificate is renewed.")
    link_back_s: float = Field(
        300, ge=10, le=86_400, description="A new configuration is rolled back when the gateway has not answered for so long."
    )


class SelfTestConfig(BaseModel):
    """`[self_test]`: the button by which a node tests itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pin: Annotated[int, Field(ge=0, le=27)] = Field(
        description="BCM number of the button's pin; it stands between that and ground."
    )
    device: Name | None = Field(
        None, description="Whose test alarm it writes; absent: the first trap's, or the first device's where there is no trap."
    )


class EdgeConfig(BaseModel):
    """All of edge.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: NodeConfig
    broker: BrokerConfig
    outbox: OutboxConfig = OutboxConfig()
    media: MediaConfig | None = Field(None, description="Absent: pictures stay on the node until it is set.")
    remote: RemoteConfig | None = Field(None, description="Absent: nobody can change this node from afar.")
    self_test: SelfTestConfig | None = Field(None, description="Absent: there is no button by which this node tests itself.")
    device: dict[Name, DeviceConfig] = Field(min_length=1, description="The devices on this node, by name.")


def load(path: Path) -> EdgeConfig:
    """Reads and checks the file. ConfigError with one line a fault, each naming its setting."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    return checked(document, f"{path}: ")


def checked(document: object, where: str = "") -> EdgeConfig:
    """What a document says, as the configuration. ConfigError with one line a fault, each with `where` and its setting."""
    try:
        config = EdgeConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}{fault}" for fault in plain(EdgeConfig, error))) from error
    faults = _taken_twice(config)
    if CLOCK in config.device:
        faults.append(f"device.{CLOCK}: the agent speaks of the node's clock under this name; choose another")
    if faults:
        raise ConfigError("\n".join(f"{where}{fault}" for fault in faults))
    return config


def _taken_twice(config: EdgeConfig) -> list[str]:
    """The names, pins, serial ports, adapters and folders that two devices, or one device twice, would take from each other."""
    owners: dict[tuple[str, object], tuple[str, str]] = {}
    if config.self_test:
        owners["pin", config.self_test.pin] = (SELF_TEST, "pin")
    faults = []
    for name, device in config.device.items():
        for field in type(device).model_fields:
            value = getattr(device, field)
            # `pin`, and `tamper_pin` or `pin_a`: every field of that word takes one of the same things.
            for kind in {"pin", "port", "folder", "adapter"}.intersection(field.split("_")):
                owner = owners.setdefault((kind, value), (name, field))
                if value is not None and owner != (name, field):
                    whose = owner[0] if owner[0] == SELF_TEST else f"device.{owner[0]}"
                    faults.append(f"device.{name}.{field}: {value} belongs to {whose} already")
    faults += _names_taken_twice(config)
    return faults


def _names_taken_twice(config: EdgeConfig) -> list[str]:
    """The children (of a receiver) that are called as another device is."""
    owners = dict.fromkeys((*config.device, CLOCK), "device.")
    faults = []
    for name, device in config.device.items():
        for child in getattr(device, "children", ()):
            if (owner := owners.setdefault(child, f"device.{name}.")) != f"device.{name}.":
                whose = f"device.{child}" if owner == "device." else f"{owner}{child}"
                faults.append(f"device.{name}: {child} is the name of {whose} already; each device has its own")
    return faults
