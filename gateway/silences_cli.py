"""`satomori-gateway silence ...`: one function a command, and what it prints. A gateway that runs heeds it within a second."""

import argparse
import json
from zoneinfo import ZoneInfo

from gateway import silences
from gateway.alerting.route import Match
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, duration_us, leaf, minute, opened, who


def add_commands(commands: Commands) -> None:
    """Adds `silence` to the program; the function of the one that is chosen is in `arguments.act`."""
    below = branch(commands, "silence", "What is not to be told for a while.")
    add = leaf(below, "add", "Have alerts that fit all that is given not told until it ends; then they are told.", _add)
    for name in Match.model_fields:
        add.add_argument(f"--{name}", help=f"only alerts of this {name}")
    add.add_argument("--for", required=True, dest="long", metavar="DURATION", help="how long, as 90m, 12h or 3d")
    add.add_argument("--why", required=True, help="for who wonders")
    listed = leaf(below, "list", "Say which silences go on or are to come.", _list)
    listed.add_argument("--all", action="store_true", help="those that are over too")
    end = leaf(below, "end", "End one before its time.", _end)
    end.add_argument("id", type=int, metavar="ID", help="as `silence list` shows it")


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    match = Match(**{name: getattr(arguments, name) for name in Match.model_fields})
    now_us, long_us = clock_us(), duration_us(arguments.long)
    with opened(config) as state, state.write() as connection:
        try:
            row = silences.add(connection, match, None, now_us + long_us, arguments.why, who(), now_us)
        except silences.Wrong as error:
            raise ConfigError(str(error)) from error
    return Told(0, {"silence": dict(row)}, [f"silence {row['id']} until {minute(row['until_us'], ZoneInfo(config.time_zone))}"])


def _list(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    with opened(config) as state, state.read() as connection:
        rows = silences.listed(connection, clock_us(), over=arguments.all)
    lines = [
        f"{row['id']:>4}  {minute(row['from_us'], zone)} - {minute(row['ended_us'] or row['until_us'], zone)}  "
        f"{' '.join(f'{name}={value}' for name, value in json.loads(row['match']).items())}  {row['created_by']}: {row['why']}"
        for row in rows
    ]
    return Told(0, {"silences": [dict(row) for row in rows]}, all_wrapped(lines) or ["nothing is silenced"])


def _end(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with opened(config) as state, state.write() as connection:
        if not silences.end(connection, arguments.id, who(), clock_us()):
            error = f"there is no silence {arguments.id} that goes on or is to come; `silence list` shows those"
            return Told(1, {"error": error}, [])
    return Told(0, {"id": arguments.id}, [f"silence {arguments.id} has ended; what it muted and still lasts is told now"])
