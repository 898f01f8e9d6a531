"""satomori-gateway: the program, and which module has which command. What the commands share stands in gateway.terminal.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 141 who reads what is printed has gone.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module

from gateway import logs
from gateway.audit.cli import entered
from gateway.backup.restore import unfinished
from gateway.config import load
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.state.database import FAILS, MISTAKES, trouble
from gateway.terminal import Told

log = logging.getLogger(__name__)

# Only the module of the command that is asked for is imported: all of them take a second, and four on a Raspberry Pi.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "gateway.run_cli": ("run",),
    "gateway.check": ("check",),
    "gateway.nodes.cli": ("authority", "node"),
    "gateway.contacts.cli": ("contact", "invite"),
    "gateway.accounts.cli": ("account",),
    "gateway.mimamori.cli": ("mimamori",),
    "gateway.silences_cli": ("silence",),
    "gateway.keeping.cli": ("keep", "erase", "draft"),
    "gateway.jobs_cli": ("job",),
    "gateway.audit.cli": ("audit",),
    "gateway.backup.cli": ("backup", "restore"),
    "gateway.upgrade": ("upgrade",),
    "gateway.store.cli": ("store",),
    "gateway.state_cli": ("state",),
}
"""Which module adds which commands, in the order of `--help`."""

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
    asked = sys.argv[1:] if argv is None else argv
    named = [module for module, names in COMMANDS.items() if asked and asked[0] in names]
    for module in named or COMMANDS:
        import_module(module).add_commands(commands)
    arguments = parser.parse_args(asked)
    logs.set_up(logs.LogConfig())  # until it is read how it should look
    try:
        config = load(arguments.config)
        logs.set_up(config.log)
        if arguments.command != "restore":
            unfinished(config)
        told = entered(config, arguments) if "what" in arguments else arguments.act(config, arguments)
    except (ConfigError, StoreRefused) as error:
        told = Told(2, {"error": str(error)}, [])
    except (StoreDown, OSError) as error:
        told = Told(1, {"error": str(error)}, [])
    except MISTAKES:
        raise
    except FAILS as error:  # of what reads the state database; a series store's are StoreDown or StoreRefused
        log.debug("where the state database failed", exc_info=True)
        told = Told(1, {"error": f"state.url: the database {config.state.url} {trouble(error)}"}, [])
    return told, arguments.json


def _say(told: Told, as_json: bool) -> int:
    if as_json and told.body:
        print(json.dumps({"ok": told.code == 0, **told.body}, ensure_ascii=False))
    elif told.lines:
        print("\n".join(told.lines))
    if "error" in told.body:
        print(f"satomori-gateway: {told.body['error']}", file=sys.stderr)
    return told.code
