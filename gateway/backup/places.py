"""Where a configuration keeps what a backup takes, and what it leaves to the machine. Reads nothing but the configuration."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from gateway.config import GatewayConfig

FOLDERS = ("people.folder", "nodes.folder")
"""Folders of keys and of what is signed with them: without them nodes and links would not know the gateway again."""

OF_ITS_OWN = ("media.folder", "store.path")
"""Copied as what they are, not as files."""

LEFT_OUT: Mapping[str, str] = {
    "keep.erasures_file": "it must outlive every restore, so that who was erased stays erased: keep a copy of it elsewhere",
    "audit.heads_file": "it is what the trail is compared with, and belongs on another disk",
    "store.journal": "VictoriaMetrics has what it holds: back that up by its own tool, after this",
    "nodes.broker_pid_file": "it is the broker's, and made at its start",
    "map.folder": "tiles are asked for again",
    "channel.mail.bounces": "it is the mail server's",
}
"""What is named by the configuration and never restored."""


def files(config: GatewayConfig) -> dict[str, Path]:
    """The files of keys, secrets and certificates, by setting."""
    others = (*FOLDERS, *OF_ITS_OWN, *LEFT_OUT)
    return {setting: path for setting, path in _paths(config, "") if setting not in others}


def folders(config: GatewayConfig) -> dict[str, Path]:
    """The folders of keys, by setting."""
    return {setting: path for setting, path in _paths(config, "") if setting in FOLDERS}


def left_out(config: GatewayConfig) -> dict[str, str]:
    """What of this configuration no backup has, and why."""
    found = {setting: LEFT_OUT[setting] for setting, _ in _paths(config, "") if setting in LEFT_OUT}
    if config.map.tiles.endswith(".pmtiles"):
        found["map.tiles"] = "keep the file that it came from"
    if config.store.type != "sqlite":
        found["store"] = f"it is on a server of its own ({config.store.type}): back it up by its own tool, after this"
    return found


def _paths(model: BaseModel, at: str) -> Iterator[tuple[str, Path]]:
    for name, field in type(model).model_fields.items():
        yield from _in(getattr(model, name), f"{at}{field.alias or name}")


def _in(value: object, setting: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield setting, value
    elif isinstance(value, BaseModel):
        yield from _paths(value, f"{setting}.")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _in(one, f"{setting}.{key}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _in(one, f"{setting}.{number}")
