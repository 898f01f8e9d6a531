"""satomori-gateway: the program, and `run`. What it shares with the other commands stands in gateway.terminal.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 141 who reads what is printed has gone.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack

from gateway import check, jobs_cli, logs, metrics, silences_cli, state_cli, upgrade
from gateway.accounts import cli as accounts_cli
from gateway.audit import cli as audit_cli
from gateway.backup import cli as backup_cli
from gateway.backup.restore import unfinished
from gateway.config import GatewayConfig, load
from gateway.contacts import cli as contacts_cli
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.keeping import cli as keeping_cli
from gateway.mimamori import cli as mimamori_cli
from gateway.nodes import cli as nodes_cli
from gateway.roles import ROLES, Role
from gateway.roles import running as running_roles
from gateway.service import running
from gateway.store import cli as store_cli
from gateway.terminal import Told, leaf

READER_GONE = 141
"""As a shell says it of a program that a closed pipe ended: `| head` is no fault of ours."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        try:
            return _say(*_do(argv))
        finally:
            sys.stdout.flush()  # here, where it can still be said: at the interpreter's end it would be a traceback
    except BrokenPipeError:  # of what we print: what a command itself meets, `_do` has told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _do(argv: list[str] | None) -> tuple[Told, bool]:
    """Does what is asked. What is to be told of it, and whether to a program. Help and wrong usage are SystemExit."""
    parser = argparse.ArgumentParser(prog="satomori-gateway", description="What runs in the town: takes records, raises alerts.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = leaf(commands, "run", "Run until stopped.", _run)
    run.add_argument("--role", action="append", choices=[*ROLES, "all"],
                     help="Of several processes over one PostgreSQL: what this one does; may be given again.")  # fmt: skip
    run.add_argument("--metrics", metavar="[HOST:]PORT", help="Where this machine reads this process's metrics, without a token.")
    leaf(commands, "check", "Open everything the configuration names, say what is wrong.", check.tell)
    for one in (nodes_cli, contacts_cli, accounts_cli, mimamori_cli, silences_cli, keeping_cli, jobs_cli, audit_cli, backup_cli,
                upgrade, store_cli, state_cli):  # fmt: skip
        one.add_commands(commands)
    arguments = parser.parse_args(argv)
    logs.set_up(logs.LogConfig())  # until it is read how it should look
    try:
        config = load(arguments.config)
        logs.set_up(config.log)
        if arguments.command != "restore":
            unfinished(config)
        told = audit_cli.entered(config, arguments) if "what" in arguments else arguments.act(config, arguments)
    except (ConfigError, StoreRefused) as error:
        told = Told(2, {"error": str(error)}, [])
    except (StoreDown, OSError) as error:
        told = Told(1, {"error": str(error)}, [])
    return told, arguments.json


def _say(told: Told, as_json: bool) -> int:
    if as_json and told.body:
        print(json.dumps({"ok": told.code == 0, **told.body}, ensure_ascii=False))
    elif told.lines:
        print("\n".join(told.lines))
    if "error" in told.body:
        print(f"satomori-gateway: {told.body['error']}", file=sys.stderr)
    return told.code


def _run(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    """It says itself where it is, as it stays; when it has ended there is nothing to tell."""
    if roles := _roles(config, arguments.role):
        logs.set_up(config.log, role=",".join(roles))
    read_at = metrics.address_of(arguments.metrics) if arguments.metrics else None
    return Told(asyncio.run(_until_asked(config, roles, read_at, as_json=arguments.json)), {}, [])


def _roles(config: GatewayConfig, asked: list[str] | None) -> list[Role]:
    """Empty: the whole gateway in one process, over a database of its own."""
    if not config.state.is_shared and not {*(asked or ())} - {"all"}:
        return []
    return [role for role in ROLES if asked is None or role in asked or "all" in asked]


_PLACES = {"url": "the page is", "metrics": "its metrics are"}


async def _until_asked(config: GatewayConfig, roles: list[Role], read_at: metrics.Address | None, *, as_json: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_roles(config, roles) if roles else running(config))
        where = {"url": f"http://{config.api.host}:{gateway.port}/"} if gateway.port else {}
        if read_at is not None:
            where["metrics"] = stack.enter_context(metrics.served(gateway.telemetry.registry, read_at)).url
        said = [f"{_PLACES[what]} at {url}" for what, url in where.items()] or [f"works as {', '.join(roles)}"]
        lines = [json.dumps({"ok": True, **where})] if as_json else [f"satomori-gateway: {line}" for line in said]
        print("\n".join(lines), flush=True)
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.failed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return 1 if gateway.failed.is_set() else 0
