"""`satomori-gateway authority ...` and `satomori-gateway node ...`: one function a command, and what it prints.

Each takes the configuration and the arguments, and returns what `--json` prints and the lines for people. They write to the same
database and folder as a gateway that runs: run them as its user.
"""

import argparse
import io
from typing import Any
from zoneinfo import ZoneInfo

import segno

from gateway.config import GatewayConfig, NodesConfig
from gateway.errors import ConfigError
from gateway.nodes import claims, orders_cli
from gateway.nodes.authority import BROKER, CA, GATEWAY, LISTENER, SIGNING_KEY, Authority, ends_us, init
from gateway.nodes.brokers import Brokers
from gateway.nodes.image import add_options, write_image
from gateway.nodes.list_cli import list_nodes, show_node
from gateway.nodes.signing import Signer
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, day, leaf, minute, opened, who, whole


def add_commands(commands: Commands) -> None:
    """Adds `authority` and `node` to the program; the function of the one that is chosen is in `arguments.act`."""
    authority = branch(commands, "authority", "The town's own certificate authority.")
    leaf(authority, "init", "Make what is missing of the authority, and of broker's and gateway's certificates.", _init)
    leaf(authority, "show", "Say what there is and how long it lasts.", _show)
    node = branch(commands, "node", "The nodes' identities.")
    add = leaf(node, "add", "Make a code that a node comes to its identity by, once.", _add)
    add.add_argument("name", metavar="NAME", help="the node's name")
    add.add_argument(
        "--hours", type=whole(1, 24 * 90, " of hours"), help="how long the code may be used; without: nodes.claim_hours"
    )
    leaf(node, "list", "Say how every node does: online, what it runs, its certificate, the code that waits.", list_nodes)
    show = leaf(node, "show", "Say all that is known of one node, its last commands and their answers included.", show_node)
    show.add_argument("name", metavar="NAME", help="the node's name")
    revoke = leaf(node, "revoke", "End all that a node has; it can come back by a new code only.", _revoke)
    revoke.add_argument("name", metavar="NAME", help="the node's name")
    revoke.add_argument("--why", default="revoked by hand", help="the reason, for the list")
    image = leaf(node, "image", "Write what is copied to a new node's card, its code included.", _image)
    image.add_argument(
        "--hours", type=whole(1, 24 * 90, " of hours"), help="how long the code may be used; without: nodes.claim_hours"
    )
    add_options(image)
    orders_cli.add_commands(node)


def nodes_of(config: GatewayConfig) -> NodesConfig:
    """`[nodes]`. ConfigError where it is absent."""
    if config.nodes is None:
        raise ConfigError("nodes: this configuration has no [nodes], and so no authority; gateway/README.md shows one")
    return config.nodes


def _init(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    made = init(nodes.folder, nodes.server_names, clock_us())
    fault = _tell(config, nodes, anyway=bool(made))
    lines = [f"made {nodes.folder / name}" for name in made] or [f"{nodes.folder}: nothing is missing"]
    if CA in made:
        lines.append(f"Keep a copy of {nodes.folder} where nobody else can read it: without it every node must be claimed anew.")
    return _told({"folder": str(nodes.folder), "made": made}, all_wrapped(lines), fault)


def _show(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)
    signer = Signer.read(nodes.folder / SIGNING_KEY)
    ends = {name: ends_us(nodes.folder / f"{name}.pem") for name in ("ca", BROKER, LISTENER, GATEWAY)}
    zone = ZoneInfo(config.time_zone)
    lines = [f"{name + '.pem':14} good until {day(end, zone)}" for name, end in ends.items()]
    body = {"folder": str(nodes.folder), "good_until_us": ends, "signing_key": signer.public.hex()}
    return Told(0, body, [f"authority in {nodes.folder}", *lines, f"signing key    {signer.public.hex()}"])


def _new_claim(config: GatewayConfig, arguments: argparse.Namespace) -> claims.Claim:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)  # before a code is on a box that nothing could answer
    with opened(config) as state:
        try:
            return claims.add(state, arguments.name, arguments.hours or nodes.claim_hours, clock_us(), who(), config.taken_names)
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
    until = minute(made[-1].expires_us, ZoneInfo(config.time_zone))
    body = {"node": arguments.name, "folder": str(folder), "expires_us": made[-1].expires_us}
    lines = [
        f"{folder}: user-data, meta-data and network-config for the card of {arguments.name}.",
        f"They hold its code, good once and until {until}: whoever reads them can be {arguments.name}.",
        *_void(made[-1]),
    ]
    return Told(0, body, all_wrapped(lines))


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    nodes, claim = nodes_of(config), _new_claim(config, arguments)
    url = nodes.public_url.rstrip("/")
    text, typed = claims.qr_text(url, claim.code, claim.node), f"satomori-edge claim {claim.shown} --gateway {url}"
    drawing = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(drawing, compact=True)
    body = {"node": claim.node, "code": claim.shown, "qr": text, "type": typed, "expires_us": claim.expires_us}
    until = minute(claim.expires_us, ZoneInfo(config.time_zone))
    lines = [
        *drawing.getvalue().splitlines(),
        f"{claim.node}: {claim.shown}   once, until {until}",
        "On the node, as the user that the agent runs as:",
        f"  {typed}",
        *_void(claim),
    ]
    return Told(0, body, lines)


def _void(claim: claims.Claim) -> list[str]:
    text = f"The code made earlier for {claim.node} is void now: a box or card that has it needs this one."
    return [text] if claim.voided else []


def _revoke(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    nodes = nodes_of(config)
    Authority.read(nodes.folder)
    with opened(config) as state:
        ended = claims.revoke(state, arguments.name, arguments.why[:200], clock_us())
    body = {"node": arguments.name, "certificates": ended.certificates, "codes": ended.codes}
    if not any(ended):
        return Told(1, {**body, "error": f"{arguments.name} has neither a certificate nor a code: is it the node's name?"}, [])
    lines = [f"{arguments.name}: revoked {ended.certificates} certificate(s) and {ended.codes} code(s)"]
    if ended.certificates:
        lines += [
            "If it is connected now, the gateway ends its connection within seconds.",
            "Where the gateway does not run, Mosquitto keeps it until:",
            "  sudo systemctl restart mosquitto",
        ]
    return _told(body, all_wrapped(lines), _tell(config, nodes))


def _tell(config: GatewayConfig, nodes: NodesConfig, *, anyway: bool = False) -> str | None:
    with opened(config) as state:
        return Brokers(state, Authority.read(nodes.folder), nodes.broker_pid_file, clock_us).tell(anyway=anyway)


def _told(body: dict[str, Any], lines: list[str], fault: str | None) -> Told:
    """Done, but where the broker could not be told somebody must know."""
    return Told(0, body, lines) if fault is None else Told(1, {**body, "error": fault}, [*lines, fault])
