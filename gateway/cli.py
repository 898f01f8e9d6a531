"""satomori-gateway: run, check. `authority` and `node` stand in gateway.nodes.cli, `contact` and `invite` in contacts.cli.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from gateway import jobs_cli, silences_cli
from gateway.accounts import cli as accounts_cli
from gateway.audit import cli as audit_cli
from gateway.config import GatewayConfig, load
from gateway.contacts import cli as contacts_cli
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.keeping import cli as keeping_cli
from gateway.mimamori import cli as mimamori_cli
from gateway.nodes.cli import add_commands
from gateway.nodes.told import Told
from gateway.service import running


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="satomori-gateway", description="What runs in the town: takes records, raises alerts.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "Run until stopped."), ("check", "Open everything the configuration names, say what is wrong.")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("config", type=Path, help="gateway.toml")
        command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
    add_commands(commands)
    contacts_cli.add_commands(commands)
    accounts_cli.add_commands(commands)
    mimamori_cli.add_commands(commands)
    silences_cli.add_commands(commands)
    keeping_cli.add_commands(commands)
    jobs_cli.add_commands(commands)
    audit_cli.add_commands(commands)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config = load(arguments.config)
        if "act" in arguments:
            audit_cli.noting(config, arguments)
            return _tell(arguments.act(config, arguments), as_json=arguments.json)
        return asyncio.run((_run if arguments.command == "run" else _check)(config, as_json=arguments.json))
    except (ConfigError, StoreRefused) as error:
        return _fail(str(error), 2, as_json=arguments.json)
    except (StoreDown, OSError) as error:
        return _fail(str(error), 1, as_json=arguments.json)


def _tell(told: Told, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": told.code == 0, **told.body}, ensure_ascii=False))
    elif told.lines:
        print("\n".join(told.lines))
    if told.code:
        print(f"satomori-gateway: {told.body['error']}", file=sys.stderr)
    return told.code


def _fail(text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text}, ensure_ascii=False))
    print(f"satomori-gateway: {text}", file=sys.stderr)
    return code


async def _run(config: GatewayConfig, *, as_json: bool) -> int:
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


async def _check(config: GatewayConfig, *, as_json: bool) -> int:
    """Opens and closes everything, the broker included, and tells one line each; then who would not hear of an alert.

    Those are warnings, and no failure: people join a gateway that runs.
    """
    from gateway.check import check, warnings

    results = await asyncio.to_thread(check, config)
    unheard = [] if results["state"] else await asyncio.to_thread(warnings, config)
    if as_json:
        faults = {part: fault for part, fault in results.items() if fault}
        print(json.dumps({"ok": not faults, "faults": faults, "warnings": unheard}, ensure_ascii=False))
    else:
        for part, fault in results.items():
            print(f"{'NG' if fault else 'OK'}  {part}" + (f": {fault}" if fault else ""))
        for warning in unheard:
            print(f"!!  {warning}")
    return 1 if any(results.values()) else 0
