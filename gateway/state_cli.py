"""`satomori-gateway state ...`: moving the state database. Nothing may run on either while it is copied."""

import argparse
from pathlib import Path

from gateway.audit.chain import record
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.state import open_state
from gateway.state.copy import copy
from gateway.state.database import FAILS, trouble
from gateway.terminal import Commands, Told, branch, clock_us, leaf, opened, who


def add_commands(commands: Commands) -> None:
    """Adds `state` to the program; the function of the one that is chosen is in `arguments.act`."""
    below = branch(commands, "state", "Where the gateway keeps what it knows.")
    one = leaf(below, "copy", "Copy a SQLite file's state into the empty database that gateway.toml names.", _copy)
    one.add_argument("file", metavar="FILE", type=Path, help="the state.db of before; no gateway may run on it")


def _copy(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    if not arguments.file.is_file():
        raise ConfigError(f"FILE: there is no {arguments.file}")
    try:
        source = open_state(f"sqlite:///{arguments.file.absolute()}")
    except ConfigError as error:
        raise ConfigError(str(error).replace("state.url", "FILE", 1)) from error
    try:
        with opened(config) as target:
            act = f"{arguments.command}.{arguments.what}"
            counts = copy(source, target, last=lambda new: record(new, who(), act, "", clock_us()))
    except FAILS as error:
        raise ConfigError(f"one of {arguments.file} and the database {config.state.url} {trouble(error)}") from error
    finally:
        source.close()
    rows = sum(counts.values())
    return Told(0, {"rows": rows, "tables": dict(counts)}, [f"{rows} rows of {len(counts)} tables are copied"])
