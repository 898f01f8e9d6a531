"""`satomori-gateway job ...`: one function a command, and what it prints. A gateway that runs heeds it at once."""

import argparse
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway import jobs
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.state.tables import accounts
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, duration_us, leaf, minute, opened, who


def add_commands(commands: Commands) -> None:
    """Adds `job` to the program; the function of the one that is chosen is in `arguments.act`."""
    below = branch(commands, "job", "At which nodes an installer works, and how long.")
    add = leaf(below, "add", "Let an installer see, admit, configure and command these nodes, from now until it ends.", _add)
    add.add_argument("account", metavar="ACCOUNT", help="the installer's account: its id, or its name")
    add.add_argument("--node", action="append", required=True, dest="nodes", metavar="NAME", help="a node; may be said again")
    add.add_argument("--for", required=True, dest="long", metavar="DURATION", help="how long, as 8h or 3d")
    add.add_argument("--label", required=True, help="what its people call it")
    listed = leaf(below, "list", "Say which jobs go on or are to come.", _list)
    listed.add_argument("--all", action="store_true", help="those that are over too")
    end = leaf(below, "end", "End one before its time.", _end)
    end.add_argument("id", metavar="ID", help="as `job list` shows it")


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us, long_us = clock_us(), duration_us(arguments.long)
    with opened(config) as state, state.write() as connection:
        account, until_us = _account(connection, arguments.account), now_us + long_us
        try:
            job = jobs.Job(account, arguments.label, arguments.nodes, until_us)
            id_ = jobs.add(connection, job, who(), now_us, config.taken_names)
        except jobs.Wrong as error:
            raise ConfigError(str(error)) from error
        row = jobs.one(connection, id_)
    return Told(0, {"job": dict(row)}, [f"job {id_} until {minute(until_us, ZoneInfo(config.time_zone))}"])


def _account(connection: Connection, said: str) -> str:
    """By id, else by name, where only one has it."""
    found = connection.scalars(select(accounts.c.id).where(accounts.c.id == said)).all()
    found = found or connection.scalars(select(accounts.c.id).where(accounts.c.name == said)).all()
    if len(found) != 1:
        why = "there are several of this name: say the id" if found else "there is none of this id or name"
        raise ConfigError(f"ACCOUNT: {why}.")
    id_: str = found[0]
    return id_


def _list(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    with opened(config) as state, state.read() as connection:
        rows = jobs.listed(connection, clock_us(), over=arguments.all)
    lines = [
        f"{row['id']}  {minute(row['from_us'], zone)} - {minute(row['ended_us'] or row['until_us'], zone)}  "
        f"{row['name']}: {row['label']}  {' '.join(row['nodes'])}"
        for row in rows
    ]
    return Told(0, {"jobs": [dict(row) for row in rows]}, all_wrapped(lines) or ["nobody has a job"])


def _end(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with opened(config) as state, state.write() as connection:
        if not jobs.end(connection, arguments.id, who(), clock_us()):
            return Told(1, {"error": f"there is no job {arguments.id} that goes on or is to come; `job list` shows those"}, [])
    return Told(0, {"id": arguments.id}, [f"job {arguments.id} has ended; it opens nothing any more"])
