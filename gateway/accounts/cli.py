"""`satomori-gateway account ...`: one function a command, and what it prints. The way in for the first officer.

It works on the database of a gateway that runs: run it as its user. Who may do that may do all that an officer may.
"""

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import segno
from sqlalchemy import Connection

from gateway import audit
from gateway.accounts import account as rows
from gateway.accounts.account import GIVEN, Account, GroupRoles, NotDone, role_of
from gateway.accounts.desk import Accounts
from gateway.accounts.links import LASTS_US
from gateway.accounts.passkeys import of_account
from gateway.accounts.sessions import open_sessions
from gateway.config import GatewayConfig
from gateway.contacts.address import clean_name
from gateway.contacts.book import Book
from gateway.errors import ConfigError
from gateway.state import State
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, leaf, minute, opened, who


def add_commands(commands: Commands) -> None:
    """Adds `account` to the program; the function of the command that is chosen is in `arguments.act`."""
    below = branch(commands, "account", "Who may come in, and as what.")
    add = leaf(below, "add", "Make an account, and print a one-time link to come in by.", _add)
    add.add_argument("--name", required=True, help="what the history of an alert says")
    add.add_argument(
        "--role",
        action="append",
        required=True,
        choices=GIVEN,
        metavar="ROLE",
        help=f"a role of their own; may be repeated: {', '.join(GIVEN)}",
    )
    add.add_argument("--contact", metavar="ID", help="who they are among those who are told; see contact list")
    leaf(below, "list", "Say who may come in, as what, and where they are signed in.", _list)
    link = leaf(below, "link", "Print a one-time link, good for 15 minutes, to hand over.", _link)
    shut = leaf(below, "disable", "Shut an account, and end its sessions at once.", _disable)
    for command in (link, shut):
        command.add_argument("id", metavar="ID", help="the account's id; see account list")


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    name, now_us = clean_name(arguments.name), clock_us()
    if name is None:
        raise ConfigError("a name is one line of 1 to 40 characters")
    with _at_work(config) as (state, desk), state.write() as connection:
        id_ = rows.add(connection, name, arguments.role, who(), now_us, arguments.contact)
        audit.record(connection, who(), "account.add", f"account/{id_}", now_us, more={"roles": arguments.role})
        url = desk.hand_link(connection, id_, who(), now_us)
    return _shown_link(config, id_, url, now_us)


def _list(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    now_us, zone = clock_us(), ZoneInfo(config.time_zone)
    with _at_work(config) as (state, desk), state.read() as connection:
        found = rows.listed(connection, desk.group_roles)
        lines = [line for one in found for line in _lines(connection, one, now_us, zone)]
    body = [
        {"id": one.id, "name": one.name, "roles": sorted(one.own), "by_groups": sorted(one.by_groups), "contact": one.contact,
         "disabled_us": one.disabled_us}
        for one in found
    ]  # fmt: skip
    return Told(0, {"accounts": body}, all_wrapped(lines) or ["nobody: account add makes the first"])


def _link(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    with _at_work(config) as (state, desk), state.write() as connection:
        one = _one(connection, arguments.id, desk.group_roles)
        if one.disabled_us is not None:
            raise ConfigError("This account is shut; over the API another officer can open it again.")
        url = desk.hand_link(connection, one.id, who(), now_us)
    return _shown_link(config, one.id, url, now_us)


def _disable(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    with _at_work(config) as (state, desk), state.write() as connection:
        rows.disable(connection, _one(connection, arguments.id, desk.group_roles), now_us)
        audit.record(connection, who(), "account.disable", f"account/{arguments.id}", now_us)
    return Told(0, {"disabled": arguments.id}, [f"{arguments.id}: shut, and signed out everywhere"])


@contextmanager
def _at_work(config: GatewayConfig) -> Iterator[tuple[State, Accounts]]:
    """The database and the desk while the block runs. ConfigError for what can't be done, and without `[people]`."""
    if config.people is None:
        raise ConfigError("people: this configuration has no [people], and so no accounts; gateway/README.md shows one")
    with opened(config) as state:
        book = Book(config.group, config.contact, ZoneInfo(config.time_zone))
        try:
            yield state, Accounts(state, role_of(config.group), config.people.public_url, clock_us, book)
        except NotDone as error:
            raise ConfigError(str(error)) from error


def _shown_link(config: GatewayConfig, id_: str, url: str, now_us: int) -> Told:
    drawing = io.StringIO()
    segno.make(url, error="m", micro=False).terminal(drawing, compact=True)
    until_us = now_us + LASTS_US
    lines = [
        *drawing.getvalue().splitlines(),
        f"account {id_}: opens once, until {minute(until_us, ZoneInfo(config.time_zone))}",
        f"  {url}",
        "Whoever opens it is signed in: give it to them alone. There they make a passkey.",
    ]
    return Told(0, {"id": id_, "url": url, "expires_us": until_us}, lines)


def _lines(connection: Connection, one: Account, now_us: int, zone: ZoneInfo) -> list[str]:
    state = f"SHUT since {minute(one.disabled_us, zone)}" if one.disabled_us is not None else ""
    by_groups = f" (by groups: {', '.join(sorted(one.by_groups))})" if one.by_groups else ""
    keys = len(of_account(connection, one.id))
    lines = [
        f"{one.id}  {one.name}: {', '.join(sorted(one.own)) or 'no role of their own'}{by_groups}, {keys} passkey(s) {state}"
    ]
    lines += [
        f"  {session.id}  {session.browser}, by {session.how}, last used {minute(session.used_us, zone)}"
        for session in open_sessions(connection, one.id, now_us)
    ]
    return [line.rstrip() for line in lines]


def _one(connection: Connection, id_: str, group_roles: GroupRoles) -> Account:
    found = rows.get(connection, id_, group_roles)
    if found is None:
        raise ConfigError(f"There is no account {id_[:40]!r}; see account list.")
    return found
