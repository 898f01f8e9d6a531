"""`satomori-gateway audit ...`: one function a command, and what it prints. They read a database that may be in use.

What `show` prints says who did what, and who looked at whom: it is for who answers for that.
"""

import argparse
import datetime as dt
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.audit.chain import record
from gateway.audit.export import HeadsError, last, line_of, read_heads
from gateway.audit.trail import entries
from gateway.audit.verify import verify
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.nodes.cli import who
from gateway.nodes.told import Told, minute, opened

Act = Callable[[GatewayConfig, argparse.Namespace], Told]
WIDTH = 80
READS = frozenset(("list", "show", "verify", "head", "report", "reports", "file-register", "camera-sign"))
"""What commands are called that change nothing: of them there is no entry."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `audit` to the program; the function of the one that is chosen is in `arguments.act`."""
    text = "Who did what: the trail that can't be changed unseen."
    group = commands.add_parser("audit", help=text, description=text).add_subparsers(dest="what", required=True)
    check = _leaf(group, "verify", "Walk the whole trail; exit 1 and name the first entry that was changed.", _verify)
    check.add_argument(
        "--heads", type=Path, metavar="FILE", help="lines `day id hash` that somebody outside kept; without: audit.heads_file"
    )
    show = _leaf(group, "show", "Say what was done, the newest first.", _show)
    show.add_argument("--who", help="only by them, as account:<id>, contact:<id>, token:<name> or cli:<user>")
    show.add_argument("--thing", help="only to this, as watched/<id>")
    show.add_argument("--action", help="only this, as alert.acknowledge or look")
    show.add_argument("--before", type=_number, metavar="ID", help="only entries before this one: the next page")
    show.add_argument("--limit", type=_number, default=50, help="entries at most; without: 50")
    _leaf(group, "head", "Say the last entry's number and hash, for somebody outside to keep.", _head)


def noting(config: GatewayConfig, arguments: argparse.Namespace) -> None:
    """Records that somebody at the command line is about to change something: durable before it is begun.

    What was typed is not recorded, as it holds names and numbers; but what it is done to is.
    """
    command, what = arguments.command, arguments.what
    if what in READS or command == "account":  # which enters itself what it does, with the roles that it gave
        return
    thing = ""
    # What is added has no id yet, and its `--name` is a person's.
    for name in ("id", "tag", "node") if what == "add" and command != "node" else ("id", "name", "tag", "node"):
        if (value := getattr(arguments, name, None)) is not None:
            thing = f"{what if command == 'erase' else _KINDS.get(name, _KINDS.get(command, command))}/{value}"
            break
    with opened(config) as state, state.write() as connection:
        record(connection, who(), f"{command} {what}", thing, time.time_ns() // 1000)


_KINDS = {"tag": "tag", "node": "node", "mimamori": "watched", "invite": "invitation"}
"""What a command's `id` is the id of, where it is not of what the command is called by."""


def _leaf(
    group: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, act: Act
) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=text, description=text)
    command.add_argument("config", type=Path, help="gateway.toml")
    command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
    command.set_defaults(act=act)
    return command


def _verify(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    path = arguments.heads or config.audit.heads_file
    if arguments.heads is not None and not arguments.heads.exists():
        raise ConfigError(f"--heads: there is no file {arguments.heads}")
    try:
        heads = read_heads(path) if path is not None else []
    except HeadsError as error:
        raise ConfigError(str(error)) from error
    with opened(config) as state:
        found = verify(state, heads)
    body: dict[str, Any] = {
        "entries": found.entries, "erased": found.erased, "heads": found.heads,
        "head": found.head._asdict() if found.head else None, "fault": found.fault._asdict() if found.fault else None,
    }  # fmt: skip
    if found.fault is not None:
        return Told(1, {**body, "error": f"entry {found.fault.id}: {found.fault.what}"}, [])
    lines = [f"{found.entries} entries, whole; the words of {found.erased} were erased as entries say"]
    lines.append(f"{found.heads} heads from outside agree" if found.heads else
                 "no head from outside to compare with: that its end was cut off could not be seen")  # fmt: skip
    return Told(0, body, lines)


def _show(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    with opened(config) as state, state.read() as connection:
        found = entries(
            connection, who=arguments.who, thing=arguments.thing, action=arguments.action, before=arguments.before,
            limit=arguments.limit,
        )  # fmt: skip
    lines = []
    for one in found:
        said = "(erased)" if one["who"] is None else f"{one['who']}  {one['action']}"
        lines.append(cut(f"{one['id']:>7}  {minute(one['at_us'], zone)}  {said}"))
        more = " ".join(f"{name}={value}" for name, value in (one["more"] or {}).items())
        if rest := "  ".join(filter(None, (one["thing"], one["why"], more))):
            lines.append(cut(f"{'':9}{rest}"))
    return Told(0, {"entries": found}, lines or ["nothing"])


def _head(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    with opened(config) as state, state.read() as connection:
        head = last(connection)
    if head is None:
        return Told(0, {"head": None}, ["the trail is empty"])
    now_us = time.time_ns() // 1000
    line = line_of(dt.datetime.fromtimestamp(now_us / 1e6, ZoneInfo(config.time_zone)).date(), head)
    return Told(0, {"line": line, "head": head._asdict()}, [line])


def cut(line: str) -> str:
    """To `WIDTH` columns, of which a full-width character takes two. What moves a cursor is shown, and moves none."""
    line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    width = 0
    for at, character in enumerate(line):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > WIDTH:
            return line[: at - 1] + "…"
    return line


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:19]) < 2**53:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no whole number from 1")
    return int(text)
