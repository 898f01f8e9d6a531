"""`satomori-gateway audit ...`: one function a command, and what it prints. They read a database that may be in use.

What `show` prints says who did what, and who looked at whom: it is for who answers for that.
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from gateway.audit.acts import ROUTE, Outcome, came_of
from gateway.audit.chain import record
from gateway.audit.export import HeadsError, last, line_of, read_heads
from gateway.audit.trail import entries, known
from gateway.audit.verify import verify
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.terminal import Commands, Told, branch, clock_us, cut, leaf, minute, opened, who, whole, wrapped

READS = frozenset(("list", "show", "verify", "head", "report", "reports", "file-register", "camera-sign"))
"""What commands are called that change nothing: of them there is no entry."""
ENTER_THEMSELVES = frozenset(("account", "job", "state"))
"""Commands whose acts enter themselves, in one with what they do: with the roles that were given, the nodes that were opened; a
copy's behind the trail that was copied.
"""


def add_commands(commands: Commands) -> None:
    """Adds `audit` to the program; the function of the one that is chosen is in `arguments.act`."""
    below = branch(commands, "audit", "Who did what: the trail that can't be changed unseen.")
    check = leaf(below, "verify", "Walk the whole trail; exit 1 and name the first entry that was changed.", _verify)
    check.add_argument(
        "--heads", type=Path, metavar="FILE", help="lines `day id hash` that somebody outside kept; without: audit.heads_file"
    )
    show = leaf(below, "show", "Say what was done, the newest first.", _show)
    show.add_argument("--who", help="only by them, as account:<id>, contact:<id>, token:<name> or cli:<user>")
    show.add_argument("--thing", help="only to this, as watched/<id>")
    show.add_argument("--action", help="only this, as alert.acknowledge, silence.add or look")
    show.add_argument("--before", type=whole(1, 2**53), metavar="ID", help="only entries before this one: the next page")
    show.add_argument("--limit", type=whole(1, 2**53), default=50, help="entries at most; without: 50")
    leaf(below, "head", "Say the last entry's number and hash, for somebody outside to keep.", _head)


def entered(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    """Does what somebody at the command line asks for. What changes something is entered before it is begun, and what came of it.

    What was typed is not recorded, as it holds names and numbers; but what it is done to is.
    """
    if arguments.what in READS or arguments.command in ENTER_THEMSELVES:
        told: Told = arguments.act(config, arguments)
        return told
    number = _note(config, arguments)
    outcome: Outcome = "failed"
    try:
        told = arguments.act(config, arguments)
        outcome = "refused" if told.code else "done"
    except ConfigError:
        outcome = "refused"
        raise
    finally:
        with opened(config) as state, state.write() as connection:
            came_of(connection, number, outcome, clock_us())
    return told


def _note(config: GatewayConfig, arguments: argparse.Namespace) -> int:
    command, what = arguments.command, arguments.what
    thing = ""
    # What is added has no id yet, and its `--name` is a person's.
    for name in ("id", "tag", "node") if what == "add" and command != "node" else ("id", "name", "tag", "node"):
        if (value := getattr(arguments, name, None)) is not None:
            thing = f"{what if command == 'erase' else _KINDS.get(name, _KINDS.get(command, command))}/{value}"
            break
    with opened(config) as state, state.write() as connection:
        return record(
            connection, who(), f"{command}.{what}", thing, clock_us(), more={ROUTE: f"satomori-gateway {command} {what}"}
        )


_KINDS = {"tag": "tag", "node": "node", "mimamori": "watched", "invite": "invitation"}
"""What a command's `id` is the id of, where it is not of what the command is called by."""


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
        nobody = [] if found else _unknown(connection, arguments)
    lines = []
    for one in found:
        came = f"  {one['outcome']}{'' if one['status'] is None else ' ' + str(one['status'])}" if one["outcome"] else ""
        said = "(erased)" if one["who"] is None else f"{one['who']}  {one['action']}{came}"
        lines.append(cut(f"{one['id']:>7}  {minute(one['at_us'], zone)}  {said}"))
        more = " ".join(f"{name}={value}" for name, value in (one["more"] or {}).items())
        if rest := "  ".join(filter(None, (one["thing"], one["why"], more))):
            lines.append(cut(f"{'':9}{rest}"))
    return Told(0, {"entries": found}, lines or nobody or ["nothing"])


def _unknown(connection: Connection, arguments: argparse.Namespace) -> list[str]:
    """Of what was asked for and no entry has at all: that, and what there is instead."""
    lines = []
    for what, said, words in (("who", arguments.who, "by"), ("action", arguments.action, "of the action")):
        if said is not None and said not in (there := known(connection, what)):
            lines += wrapped(f"no entry {words} {said}; there are entries {words}: {', '.join(there) or 'nobody, as yet'}")
    return lines


def _head(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    with opened(config) as state, state.read() as connection:
        head = last(connection)
    if head is None:
        return Told(0, {"head": None}, ["the trail is empty"])
    now_us = clock_us()
    line = line_of(dt.datetime.fromtimestamp(now_us / 1e6, ZoneInfo(config.time_zone)).date(), head)
    return Told(0, {"line": line, "head": head._asdict()}, [line])
