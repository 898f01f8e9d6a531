"""`satomori-gateway node desired` and `node command`: remote care from the gateway's own shell, on its state database.

They store what is asked; the running gateway publishes it within a second, and a gateway that is not running when it starts.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row, Select, null, select

from edge.contract.faults import plain
from edge.contract.remote import RemoteBroker
from gateway.config import GatewayConfig, read_toml
from gateway.errors import ConfigError
from gateway.media import Kept, MediaShelf
from gateway.nodes.authority import SIGNING_KEY, write_whole
from gateway.nodes.commands import NAMES, TTL_S, WAITING, NotOrdered, order, round_trip_ms
from gateway.nodes.desired import NotAsked, ask
from gateway.nodes.known import UnknownNode
from gateway.nodes.signing import Signer
from gateway.state import State, tables
from gateway.terminal import Commands, Told, clock_us, leaf, media_path, opened, who

LOOK_EVERY_S = 0.5


def add_commands(subparsers: Commands) -> None:
    """Adds both; `arguments.act(config, arguments)` does the one that was given. ConfigError for what can't be asked."""
    wanted = leaf(subparsers, "desired", "Ask a node to run another configuration.", _ask)
    wanted.add_argument("name", metavar="NAME", help="the node's name")
    wanted.add_argument("devices", type=Path, help="TOML with the [device] table as in edge.toml, and perhaps [broker]")
    wanted.set_defaults(save=None)
    given = leaf(subparsers, "command", "Give a node a command.", _order)
    given.add_argument("name", metavar="NAME", help="the node's name")
    given.add_argument("order", choices=NAMES, metavar="ORDER", help=f"what it shall do: {', '.join(NAMES)}")
    given.add_argument("--device", help="for test_alarm, take_picture and restart_device")
    given.add_argument("--ttl", type=int, default=TTL_S, metavar="S", help="it is not done later than this many seconds from now")
    given.add_argument("--save", type=Path, metavar="FILE", help="write the file that the answer names here; with --wait")
    for command in (wanted, given):
        command.add_argument("--wait", type=float, default=0, metavar="S", help="wait so many seconds for the node's answer")


def _ask(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    devices, broker = _document(arguments.devices)

    def make(state: State, signer: Signer, who: str) -> tuple[dict[str, Any], Select[Any]]:
        revision = ask(state, signer, arguments.name, devices, broker, clock_us(), who)
        desired = tables.desired
        none = (null().label(name) for name in ("media", "issued_us", "answered_us", "rssi_dbm"))
        query = select(desired.c.outcome, desired.c.reason, *none).where(desired.c.node == arguments.name)
        return {"revision": revision}, query.where(desired.c.revision == revision)

    return _done(config, arguments, make, waiting=None, good="applied")


def _order(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    def make(state: State, signer: Signer, who: str) -> tuple[dict[str, Any], Select[Any]]:
        id_ = order(state, signer, arguments.name, arguments.order, arguments.device, clock_us(), who, arguments.ttl)
        one = tables.commands.c
        query = select(one.state.label("outcome"), one.reason, one.media, one.issued_us, one.answered_us, one.rssi_dbm)
        return {"command": id_}, query.where(one.id == id_)

    return _done(config, arguments, make, waiting=WAITING, good="done")


def _done(
    config: GatewayConfig,
    arguments: argparse.Namespace,
    make: Callable[[State, Signer, str], tuple[dict[str, Any], Select[Any]]],
    *,
    waiting: str | None,
    good: str,
) -> Told:
    """Stores what is asked and waits for the answer as long as was said. 1 where that is not the `good` one."""

    from gateway.nodes.cli import nodes_of

    signer = Signer.read(nodes_of(config).folder / SIGNING_KEY)
    save: Path | None = arguments.save
    if save is not None and (save.exists() or not save.parent.is_dir() or not arguments.wait):
        raise ConfigError(f"--save: {save} has to be a new file in a folder that is there, and --wait has to be given")
    kept = None
    with opened(config) as state:
        until = time.monotonic() + arguments.wait
        try:
            what, query = make(state, signer, who())
        except (NotAsked, NotOrdered, UnknownNode) as error:
            raise ConfigError(str(error)) from error
        row = _answer(state, query, waiting, until)
        if save is not None and row.media is not None:
            shelf = MediaShelf(config.media.folder, state, clock_us)
            kept = _kept(shelf, row.media, until)
            if kept is not None:
                write_whole(save, kept.path.read_bytes(), 0o600)
    outcome = None if row.outcome == waiting else row.outcome
    asked = " ".join(f"{name} {value}" for name, value in what.items())
    line = f"{arguments.name}: {asked}: {outcome or 'on its way; not answered yet'}" + (f": {row.reason}" if row.reason else "")
    lines, body = [line], {"node": arguments.name, **what, "outcome": outcome, "reason": row.reason, "media": row.media}
    if (trip_ms := round_trip_ms(row.issued_us, row.answered_us)) is not None:
        body |= {"round_trip_ms": trip_ms, "rssi_dbm": row.rssi_dbm}
        heard = "" if row.rssi_dbm is None else f"; it hears its network with {row.rssi_dbm} dBm"
        lines.append(f"answered after {trip_ms} ms{heard}")
    if kept is not None:
        lines.append(f"{save}: {kept.size} bytes, {kept.content_type}")
    elif row.media is not None:
        lines.append(f"its file, as soon as it has arrived: GET {media_path(row.media)}")
    elif outcome is None:
        lines.append(f"its answer, later: satomori-gateway node show {arguments.config} {arguments.name}")
    if kept is None and save is not None and outcome == good:
        missing = "it names no file" if row.media is None else f"its file has not arrived yet; later: GET {media_path(row.media)}"
        return Told(1, {**body, "error": f"{line}, but {missing}"}, [])
    if outcome == good or (outcome is None and not arguments.wait):
        return Told(0, body, lines)
    return Told(1, {**body, "error": line}, lines[1:])


def _answer(state: State, query: Select[Any], waiting: str | None, until_s: float) -> Row[Any]:
    """The row when it is answered, or as it is at `until_s`, monotonic."""
    while True:
        with state.read() as connection:
            row = connection.execute(query).one()
        if row.outcome != waiting or not _slept(until_s):
            return row


def _kept(shelf: MediaShelf, sha256: str, until_s: float) -> Kept | None:
    """The file, which may come after the answer that names it; None where it is not here at `until_s`, monotonic."""
    while True:
        kept = shelf.find(sha256)
        if kept is not None or not _slept(until_s):
            return kept


def _slept(until_s: float) -> bool:
    """Waits a little; False where the time is over."""
    left_s = until_s - time.monotonic()
    if left_s > 0:
        time.sleep(min(LOOK_EVERY_S, left_s))
    return left_s > 0


def _document(path: Path) -> tuple[dict[str, Any], RemoteBroker | None]:
    """The devices and the broker's settings in a TOML file. ConfigError names what is wrong."""
    document = read_toml(path)
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
        raise ConfigError(f"{path}: {plain(RemoteBroker, error, 'broker')[0]}") from error
    return devices, broker
