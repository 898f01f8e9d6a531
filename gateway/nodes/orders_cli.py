"""`satomori-gateway node desired` and `node command`: remote care from the gateway's own shell, on its state database.

They store what is asked; the running gateway publishes it within a second, and a gateway that is not running when it starts.
"""

import argparse
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Row, Select, select

from edge.contract.remote import RemoteBroker
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.nodes.authority import SIGNING_KEY
from gateway.nodes.commands import NAMES, TTL_S, WAITING, NotOrdered, order
from gateway.nodes.desired import NotAsked, ask
from gateway.nodes.known import UnknownNode
from gateway.nodes.signing import Signer
from gateway.state import State, open_state, tables

if TYPE_CHECKING:
    from gateway.nodes.cli import Told  # which adds these commands to its own

LOOK_EVERY_S = 0.5


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both; `arguments.act(config, arguments)` does the one that was given. ConfigError for what can't be asked."""
    text = "Ask a node to run another configuration."
    wanted = subparsers.add_parser("desired", help=text, description=text)
    wanted.add_argument("config", type=Path, help="gateway.toml")
    wanted.add_argument("name", metavar="NAME", help="the node's name")
    wanted.add_argument("devices", type=Path, help="TOML with the [device] table as in edge.toml, and perhaps [broker]")
    wanted.set_defaults(act=_ask)
    text = "Give a node a command."
    given = subparsers.add_parser("command", help=text, description=text)
    given.add_argument("config", type=Path, help="gateway.toml")
    given.add_argument("name", metavar="NAME", help="the node's name")
    given.add_argument("order", choices=NAMES, help="what it shall do")
    given.add_argument("--device", help="for take_picture and restart_device")
    given.add_argument("--ttl", type=int, default=TTL_S, metavar="S", help="it is not done later than this many seconds from now")
    given.set_defaults(act=_order)
    for command in (wanted, given):
        command.add_argument("--wait", type=float, default=0, metavar="S", help="wait so many seconds for the node's answer")
        command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")


def _ask(config: GatewayConfig, arguments: argparse.Namespace) -> "Told":
    devices, broker = _document(arguments.devices)

    def make(state: State, signer: Signer, who: str) -> tuple[dict[str, Any], Select[Any]]:
        revision = ask(state, signer, arguments.name, devices, broker, _now_us(), who)
        desired = tables.desired
        query = select(desired.c.outcome, desired.c.reason).where(desired.c.node == arguments.name)
        return {"revision": revision}, query.where(desired.c.revision == revision)

    return _done(config, arguments, make, waiting=None, good="applied")


def _order(config: GatewayConfig, arguments: argparse.Namespace) -> "Told":
    def make(state: State, signer: Signer, who: str) -> tuple[dict[str, Any], Select[Any]]:
        id_ = order(state, signer, arguments.name, arguments.order, arguments.device, _now_us(), who, arguments.ttl)
        commands = tables.commands
        return {"command": id_}, select(commands.c.state.label("outcome"), commands.c.reason).where(commands.c.id == id_)

    return _done(config, arguments, make, waiting=WAITING, good="done")


def _done(
    config: GatewayConfig,
    arguments: argparse.Namespace,
    make: Callable[[State, Signer, str], tuple[dict[str, Any], Select[Any]]],
    *,
    waiting: str | None,
    good: str,
) -> "Told":
    """Stores what is asked and waits for the answer as long as was said. 1 where that is not the `good` one."""
    from gateway.nodes.cli import Told, nodes_of, who

    signer = Signer.read(nodes_of(config).folder / SIGNING_KEY)
    state = open_state(config.state.url)
    try:
        try:
            what, query = make(state, signer, who())
        except (NotAsked, NotOrdered, UnknownNode) as error:
            raise ConfigError(str(error)) from error
        row = _answer(state, query, waiting, arguments.wait)
    finally:
        state.close()
    outcome = None if row.outcome == waiting else row.outcome
    asked = " ".join(f"{name} {value}" for name, value in what.items())
    line = f"{arguments.name}: {asked}: {outcome or 'on its way; not answered yet'}" + (f": {row.reason}" if row.reason else "")
    body = {"node": arguments.name, **what, "outcome": outcome, "reason": row.reason}
    if outcome == good or (outcome is None and not arguments.wait):
        return Told(0, body, [line])
    return Told(1, {**body, "error": line}, [])


def _answer(state: State, query: Select[Any], waiting: str | None, wait_s: float) -> Row[Any]:
    until = time.monotonic() + wait_s
    while True:
        with state.read() as connection:
            row = connection.execute(query).one()
        left_s = until - time.monotonic()
        if row.outcome != waiting or left_s <= 0:
            return row
        time.sleep(min(LOOK_EVERY_S, left_s))


def _document(path: Path) -> tuple[dict[str, Any], RemoteBroker | None]:
    """The devices and the broker's settings in a TOML file. ConfigError names what is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    if other := sorted(document.keys() - {"device", "broker"}):
        raise ConfigError(f"{path}: {other[0]}: only [device] and [broker] can be changed from afar; take the rest out")
    devices = document.get("device")
    if not isinstance(devices, dict):
        raise ConfigError(
            f'{path}: device: there is no table of devices; write device.trap-11 = {{ type = "reed_trap", pin = 17 }}'
        )
    try:
        broker = RemoteBroker.model_validate(document["broker"]) if "broker" in document else None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{path}: broker.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return devices, broker


def _now_us() -> int:
    return time.time_ns() // 1000
