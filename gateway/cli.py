"""satomori-gateway: the program, and `run`. What it shares with the other commands stands in gateway.terminal.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 141 who reads what is printed has gone.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys

from gateway import check, jobs_cli, silences_cli
from gateway.accounts import cli as accounts_cli
from gateway.audit import cli as audit_cli
from gateway.config import GatewayConfig, load
from gateway.contacts import cli as contacts_cli
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.keeping import cli as keeping_cli
from gateway.mimamori import cli as mimamori_cli
from gateway.nodes import cli as nodes_cli
from gateway.service import running
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
    leaf(commands, "run", "Run until stopped.", _run)
    leaf(commands, "check", "Open everything the configuration names, say what is wrong.", check.tell)
    for one in (nodes_cli, contacts_cli, accounts_cli, mimamori_cli, silences_cli, keeping_cli, jobs_cli, audit_cli):
        one.add_commands(commands)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config = load(arguments.config)
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
    return Told(asyncio.run(_until_asked(config, as_json=arguments.json)), {}, [])


async def _until_asked(config: GatewayConfig, *, as_json: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as gateway:
        url = f"http://{config.api.host}:{gateway.port}/"
        print(json.dumps({"ok": True, "url": url}) if as_json else f"satomori-gateway: the page is at {url}", flush=True)
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.failed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return 1 if gateway.failed.is_set() else 0
