"""edge.toml: its shape, and the one way to read it. Every fault names the setting."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.contract.broker import BrokerConfig
from edge.contract.names import Name
from edge.drivers import DeviceConfig
from edge.errors import ConfigError


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


class MediaConfig(BaseModel):
    """`[media]`: where pictures go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="The gateway's address, http://host:port or https://host:port.")
    token_file: Path = Field(description="File that holds this node's token.")


class EdgeConfig(BaseModel):
    """All of edge.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: NodeConfig
    broker: BrokerConfig
    outbox: OutboxConfig = OutboxConfig()
    media: MediaConfig | None = Field(None, description="Absent: pictures stay on the node until it is set.")
    device: dict[Name, DeviceConfig] = Field(min_length=1, description="The devices on this node, by name.")


def load(path: Path) -> EdgeConfig:
    """Reads and checks the file. ConfigError with one line a fault, each naming its setting."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    try:
        config = EdgeConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {setting(fault['loc'])}: {fault['msg']}" for fault in error.errors())) from error
    if taken := _taken_twice(config):
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in taken))
    return config


def _taken_twice(config: EdgeConfig) -> list[str]:
    """The pins, serial ports and folders that two devices would take from each other."""
    owners: dict[tuple[str, object], str] = {}
    faults = []
    for name, device in config.device.items():
        for field in ("pin", "port", "folder"):
            value = getattr(device, field, None)
            if value is not None and (owner := owners.setdefault((field, value), name)) != name:
                faults.append(f"device.{name}.{device.type}.{field}: {value} belongs to device.{owner} already")
    return faults


def setting(location: tuple[int | str, ...]) -> str:
    """`device.trap-11.reed_trap.pin` of pydantic's location."""
    return ".".join(str(part) for part in location)
