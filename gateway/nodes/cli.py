"""`satomori-gateway authority ...` and `satomori-gateway node ...`: one function a command, and what it prints.

Each takes the configuration and the arguments, and returns what `--json` prints and the lines for people. They write to the same
database and folder as a gateway that runs: run them as its user.
"""

import argparse
import datetime as dt
import getpass
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import segno
from sqlalchemy import select

from gateway.config import GatewayConfig, NodesConfig
from gateway.errors import ConfigError
from gateway.nodes import claims, orders_cli
from gateway.nodes.authority import BROKER, CA, GATEWAY, LISTENER, SIGNING_KEY, Authority, ends_us, init
from gateway.nodes.brokers import Brokers
from gateway.nodes.image import add_options, write_image
from gateway.nodes.signing import Signer
from gateway.state import State, open_state, tables


class Told(NamedTuple):
    """What a command found out or did."""

    code: int
    """The exit code: 0 or 1."""
    body: dict[str, Any]
    """For programs; `ok` is added. With code 1 it has an `error`."""
    lines: list[str]
    """For people."""


Act = Callable[[GatewayConfig, argparse.Namespace], Told]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `authority` and `node` to the program; the function of the one that is chosen is in `arguments.act`."""
    authority = _group(commands, "authority", "The town's own certificate authority.")
    _leaf(authority, "init", "Make what is missing of the authority, and of broker's and gateway's certificates.", _init)
    _leaf(authority, "show", "Say what there is and how long it lasts.", _show)
    node = _group(commands, "node", "The nodes' identities.")
    add = _leaf(node, "add", "Make a code that a node comes to its identity by, once.", _add)
    add.add_argument("name", metavar="NAME", help="the node's name")
    add.add_argument("--hours", type=_hours, help="how long the code may be used; without: nodes.claim_hours")
    _leaf(node, "list", "Say which nodes there are, their certificates and codes.", _list)
    revoke = _leaf(node, "revoke", "End all that a node has; it can come back by a new code only.", _revoke)
    revoke.add_argument("name", metavar="NAME", help="the node's name")
    revoke.add_argument("--why", default="revoked by hand", help="the reason, for the list")
    image = _leaf(node, "image", "Write what is copied to a new node's card, its code included.", _image)
    image.add_argument("--hours", type=_hours, help="how long the code may be used; without: nodes.claim_hours")
    add_options(image)
    orders_cli.add_commands(node)


def nodes_of(config: GatewayConfig) -> NodesConfig:
    """`[nodes]`. ConfigError where it is absent."""
    if config.nodes is None:
        raise ConfigError("nodes: this configuration has no [nodes], and so no authority; gateway/README.md shows one")
    return config.nodes


def who() -> str:
    """Who sits at the command line, for the record."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a user id without a name
        return "cli"


def _init(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    made = init(nodes.folder, nodes.server_names, _now_us())
    fault = _tell(config, nodes, anyway=bool(made))
    lines = [f"made {nodes.folder / name}" for name in made] or [f"{nodes.folder}: nothing is missing"]
    if CA in made:
        lines.append(f"Keep a copy of {nodes.folder} where nobody else can read it: without it every node must be claimed anew.")
    return _told({"folder": str(nodes.folder), "made": made}, lines, fault)


def _show(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)
    signer = Signer.read(nodes.folder / SIGNING_KEY)
    ends = {name: ends_us(nodes.folder / f"{name}.pem") for name in ("ca", BROKER, LISTENER, GATEWAY)}
    zone = ZoneInfo(config.time_zone)
    lines = [f"{name + '.pem':14} good until {_day(end, zone)}" for name, end in ends.items()]
    body = {"folder": str(nodes.folder), "good_until_us": ends, "signing_key": signer.public.hex()}
    return Told(0, body, [f"authority in {nodes.folder}", *lines, f"signing key    {signer.public.hex()}"])


def _new_claim(config: GatewayConfig, arguments: argparse.Namespace) -> claims.Claim:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)  # before a code is on a box that nothing could answer
    with _State(config) as state:
        try:
            return claims.add(state, arguments.name, arguments.hours or nodes.claim_hours, _now_us(), who(), config.taken_names)
        except claims.NameTaken as error:
            raise ConfigError(str(error)) from error


def _image(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    made: list[claims.Claim] = []

    def new_code() -> str:
        made.append(_new_claim(config, arguments))
        return made[-1].code

    try:
        claims.check_name(arguments.name, config.taken_names)
    except claims.NameTaken as error:
        raise ConfigError(str(error)) from error
    folder = write_image(arguments, nodes_of(config).public_url.rstrip("/"), new_code)
    until = _minute(made[-1].expires_us, ZoneInfo(config.time_zone))
    body = {"node": arguments.name, "folder": str(folder), "expires_us": made[-1].expires_us}
    lines = [
        f"{folder}: user-data, meta-data and network-config for the card of {arguments.name}.",
        f"They hold its code, good once and until {until}: whoever reads them can be {arguments.name}.",
    ]
    return Told(0, body, lines)


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    nodes, claim = nodes_of(config), _new_claim(config, arguments)
    text = claims.qr_text(nodes.public_url.rstrip("/"), claim.code)
    drawing = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(drawing, compact=True)
    body = {"node": claim.node, "code": claim.shown, "qr": text, "expires_us": claim.expires_us}
    until = _minute(claim.expires_us, ZoneInfo(config.time_zone))
    lines = [
        *drawing.getvalue().splitlines(),
        f"{claim.node}: {claim.shown}   once, until {until}",
        "On the node: satomori-edge claim CODE. Earlier codes for it are void.",
    ]
    return Told(0, body, lines)


def _list(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    now_us, zone = _now_us(), ZoneInfo(config.time_zone)
    found: dict[str, dict[str, Any]] = {}
    with _State(config) as state, state.read() as connection:
        for name in connection.scalars(select(tables.nodes.c.node)):
            found[name] = {"node": name, "certificates": [], "claim": None}
        certificates = tables.certificates
        for row in connection.execute(select(certificates).order_by(certificates.c.issued_us)):
            node = found.setdefault(row.node, {"node": row.node, "certificates": [], "claim": None})
            node["certificates"].append(row._asdict())
        codes = tables.claims.c
        columns = (codes.node, codes.created_us, codes.created_by, codes.expires_us, codes.failures)
        open_ = (codes.code.is_not(None), codes.used_us.is_(None), codes.expires_us > now_us)
        for row in connection.execute(select(*columns).where(*open_)):
            node = found.setdefault(row.node, {"node": row.node, "certificates": [], "claim": None})
            node["claim"] = {key: value for key, value in row._asdict().items() if key != "node"}
    lines = []
    for name in sorted(found):
        live = [one for one in found[name]["certificates"] if one["revoked_us"] is None]
        good = [one for one in live if one["not_after_us"] > now_us]
        if good:
            said = f"certificate good until {_day(max(one['not_after_us'] for one in good), zone)}"
        elif live:
            said = f"certificate ran out {_day(max(one['not_after_us'] for one in live), zone)}; it may renew itself"
        else:
            said = "revoked" if found[name]["certificates"] else "no certificate"
        if found[name]["claim"]:
            said += f"; a code waits until {_minute(found[name]['claim']['expires_us'], zone)}"
        lines.append(f"{name:32} {said}")
    return Told(0, {"nodes": [found[name] for name in sorted(found)]}, lines or ["no nodes yet"])


def _revoke(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)
    with _State(config) as state:
        ended = claims.revoke(state, arguments.name, arguments.why[:200], _now_us())
    body = {"node": arguments.name, "certificates": ended.certificates, "codes": ended.codes}
    if not any(ended):
        return Told(1, {**body, "error": f"{arguments.name} has neither a certificate nor a code: is it the node's name?"}, [])
    line = f"{arguments.name}: revoked {ended.certificates} certificate(s) and {ended.codes} code(s)"
    return _told(body, [line], _tell(config, nodes))


def _tell(config: GatewayConfig, nodes: NodesConfig, *, anyway: bool = False) -> str | None:
    with _State(config) as state:
        return Brokers(state, Authority.read(nodes.folder), nodes.broker_pid_file, _now_us).tell(anyway=anyway)


def _told(body: dict[str, Any], lines: list[str], fault: str | None) -> Told:
    """Done, but where the broker could not be told somebody must know."""
    return Told(0, body, lines) if fault is None else Told(1, {**body, "error": fault}, [*lines, fault])


class _State:
    """The state database while the block runs."""

    def __init__(self, config: GatewayConfig) -> None:
        self._url = config.state.url

    def __enter__(self) -> State:
        self._state = open_state(self._url)
        return self._state

    def __exit__(self, *_: object) -> None:
        self._state.close()


def _group(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    return commands.add_parser(name, help=text, description=text).add_subparsers(dest="what", required=True)


def _leaf(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, act: Act
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("config", type=Path, help="gateway.toml")
    command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
    command.set_defaults(act=act)
    return command


def _hours(text: str) -> int:
    hours = int(text)
    if not 1 <= hours <= 24 * 90:
        raise argparse.ArgumentTypeError("1 to 2160 hours")
    return hours


def _now_us() -> int:
    return time.time_ns() // 1000


def _day(us: int, zone: ZoneInfo) -> str:
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d")


def _minute(us: int, zone: ZoneInfo) -> str:
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d %H:%M %Z")
