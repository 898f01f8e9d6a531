"""`satomori-gateway store init`: makes in a series server what the configuration names, and says what it found and made."""

import argparse
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.store import InfluxdbStoreConfig, try_store
from gateway.store.influxdb_init import prepare
from gateway.store.server import read_login
from gateway.terminal import Commands, Told, all_wrapped, branch, leaf


def add_commands(commands: Commands) -> None:
    """Adds them to the program; the function of the one that is chosen is in `arguments.act`."""
    store = branch(commands, "store", "The series store.")
    init = leaf(store, "init", "Make what the series store needs, where it is not there yet, and try it.", _init)
    init.add_argument(
        "--token-file", type=Path, help="File with an all-access token (InfluxDB 2) or user:password of an administrator (1)."
    )


def _init(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    done: list[str] = []
    if isinstance(config.store, InfluxdbStoreConfig):
        path = arguments.token_file or config.store.token_file
        secret = read_login(path, "--token-file" if arguments.token_file else "store.token_file", "one token, or user:password,")
        done = prepare(config.store, secret, path)
    try_store(config.store)
    return Told(
        0, {"store": config.store.type, "done": done}, all_wrapped([*done, f"{config.store.type}: takes and gives readings"])
    )
