"""`satomori-gateway contact ...` and `satomori-gateway invite ...`: one function a command, and what it prints.

They work on the database of a gateway that runs, which then sends what they queue: run them as its user. What they print is
personal data.
"""

import argparse
import datetime as dt
import io
from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import segno
from sqlalchemy import Connection

from gateway.config import GatewayConfig
from gateway.contacts import people
from gateway.contacts.address import AddressChannel, clean_name
from gateway.contacts.away import SAME, away, back
from gateway.contacts.book import Book
from gateway.contacts.desk import Desk
from gateway.contacts.join import LONGEST_DAYS, MOST_USES, Joining, open_invitations
from gateway.contacts.listed import ContactJson, contacts_json, groups_json, invitations_json, require_json
from gateway.contacts.proof import Proof
from gateway.contacts.quiet import wall_us
from gateway.errors import ConfigError
from gateway.keeping.erase import erase_contact
from gateway.notify.links import Links, open_link_key
from gateway.state import State
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, leaf, minute, opened, who, whole

_TYPED: tuple[AddressChannel, ...] = ("mail", "sms", "voice")  # what an officer can enter; the others come from a phone


def add_commands(commands: Commands) -> None:
    """Adds `contact` and `invite` to the program; the function of the one that is chosen is in `arguments.act`."""
    contact = branch(commands, "contact", "Who is told, and whether they can be reached.")
    listed = leaf(contact, "list", "Say who there is, over what they can be reached, and who is away.", _list)
    listed.add_argument("--group", help="only members of this group")
    listed.add_argument("--unreachable", action="store_true", help="only who can't be reached")
    add = leaf(contact, "add", "Enter somebody; each address gets a test, and is used when that is answered.", _add)
    add.add_argument("--name", required=True, help="what others are told of them")
    add.add_argument("--group", action="append", required=True, help="the group they are in; may be repeated")
    add.add_argument("--language", choices=["ja", "ja-easy", "en"], default="ja", help="their language")
    _add_addresses(add)
    change = leaf(contact, "change", "Change what is given, and nothing else.", _change)
    _add_id(change)
    change.add_argument("--name", help="what others are told of them")
    change.add_argument("--language", choices=["ja", "ja-easy", "en"], help="their language")
    change.add_argument("--join", action="append", default=[], metavar="GROUP", help="into this group; may be repeated")
    change.add_argument("--leave", action="append", default=[], metavar="GROUP", help="out of this group; may be repeated")
    change.add_argument("--drop", action="append", default=[], metavar="ADDRESS", help="forget this address, by its id")
    _add_addresses(change)
    remove = leaf(contact, "remove", "Erase somebody: name, addresses, groups, and what was still to be sent to them.", _remove)
    _add_id(remove)
    remove.add_argument("--yes", action="store_true", help="really; it can't be undone")
    test = leaf(contact, "test", "Send a test to each of their addresses, now.", _test)
    _add_id(test)
    gone = leaf(contact, "away", "Somebody is not there: their deputy is told in their place.", _away)
    _add_id(gone)
    gone.add_argument("--until", required=True, type=_day, help="their last day away, as 2026-06-30")
    gone.add_argument(
        "--deputy", default=SAME, metavar="ID", help="the contact who is told meanwhile; without: the one of before"
    )
    there = leaf(contact, "back", "They are there again.", _back)
    _add_id(there)
    invite = branch(commands, "invite", "Codes by which people join a group.")
    new = leaf(invite, "add", "Make a code for a group, printed with the QR to scan.", _invite)
    new.add_argument("group", metavar="GROUP", help="the group's name")
    new.add_argument("--uses", type=whole(1, MOST_USES), default=1, help="how many people may join by it; without: one")
    new.add_argument("--days", type=whole(1, LONGEST_DAYS), default=7, help="how long it can be used; without: 7")
    new.add_argument("--name", help="who is expected, for a code of one use")
    leaf(invite, "list", "Say which codes can still be used, and how each group does.", _invitations)
    end = leaf(invite, "end", "Nobody comes in by this code any more.", _end)
    end.add_argument("id", metavar="ID", help="the invitation's id; see invite list")


@contextmanager
def _at_work(config: GatewayConfig) -> Iterator[tuple[State, Desk]]:
    """The database and the desk while the block runs. ConfigError for what can't be done, and without `[people]`."""
    if config.people is None:
        raise ConfigError("people: this configuration has no [people], and so tells nobody; gateway/README.md shows one")
    with opened(config) as state:
        try:
            zone = ZoneInfo(config.time_zone)
            links = Links(config.people.public_url, open_link_key(config.people.folder))
            book = Book(config.group, config.contact, zone)
            proof = Proof(state, book, config.people, zone, links.answer_url)
            yield state, Desk(book, proof, Joining(config.group, config.people, proof), zone, config.channel.typed)
        except people.NotDone as error:
            raise ConfigError(str(error)) from error


def _list(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with _at_work(config) as (state, _desk), state.read() as connection:
        found = contacts_json(connection, clock_us(), group=arguments.group, reachable=False if arguments.unreachable else None)
    zone = ZoneInfo(config.time_zone)
    return Told(0, {"contacts": found}, all_wrapped(line for one in found for line in _lines(one, zone)) or ["nobody"])


def _add(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    with _at_work(config) as (state, desk), state.write() as connection:
        for group in arguments.group:
            desk.joining.check_group(connection, group)
        id_ = people.add(connection, _name(arguments.name), arguments.language, arguments.group, who(), now_us)
        _enter_addresses(connection, desk, id_, arguments, now_us)
        return _shown(connection, id_, now_us, config)


def _change(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    values = {}
    if arguments.name is not None:
        values["name"] = _name(arguments.name)
    if arguments.language is not None:
        values["language"] = arguments.language
    with _at_work(config) as (state, desk), state.write() as connection:
        people.change(connection, arguments.id, values)
        for group in arguments.join:
            desk.joining.check_group(connection, group)
            people.enter(connection, arguments.id, group)
        for group in arguments.leave:
            if not people.leave(connection, arguments.id, group):
                raise ConfigError(f"{arguments.id} is not in a group {group[:40]!r}")
        for address in arguments.drop:
            people.remove_address(connection, arguments.id, address)
        _enter_addresses(connection, desk, arguments.id, arguments, now_us)
        return _shown(connection, arguments.id, now_us, config)


def _remove(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    if not arguments.yes:
        raise ConfigError(f"this erases contact {arguments.id} for good, and that can't be undone: say --yes")
    with _at_work(config) as (state, _desk), state.write() as connection:
        people.require(connection, arguments.id)
        erase_contact(connection, arguments.id, who(), clock_us())
    return Told(0, {"removed": arguments.id}, [f"{arguments.id}: erased"])


def _test(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    with _at_work(config) as (state, desk), state.write() as connection:
        one = require_json(connection, arguments.id, now_us)
        sent = [desk.proof.test(connection, way["id"], now_us) for way in one["addresses"]]
    if not sent:
        return Told(1, {"contact": one, "error": "they have no address: contact change enters one"}, [])
    return Told(0, {"tests": sent}, [f"{len(sent)} test(s) on their way; contact list says which are answered"])


def _away(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    until_us = wall_us(arguments.until + dt.timedelta(days=1), dt.time(), zone)
    with _at_work(config) as (state, desk), state.write() as connection:
        noted = away(connection, desk.book, arguments.id, until_us, clock_us(), arguments.deputy)
    told = f"{noted.deputy_name} is told in their place" if noted.deputy else "nobody is told in their place"
    return Told(0, noted._asdict(), [f"away until {minute(noted.until_us, zone)}; {told}"])


def _back(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with _at_work(config) as (state, _desk), state.write() as connection:
        was_away = back(connection, arguments.id)
    return Told(0, {"was_away": was_away}, ["there again" if was_away else "they were not away"])


def _invite(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    with _at_work(config) as (state, desk), state.write() as connection:
        made = desk.joining.invite(
            connection, arguments.group, who(), clock_us(), uses=arguments.uses, days=arguments.days, name=arguments.name
        )
        label = desk.book.label_of(made.group)
    drawing = io.StringIO()
    segno.make(made.url, error="m", micro=False).terminal(drawing, compact=True)
    body = {"id": made.id, "group": made.group, "code": made.shown, "qr": made.url, "uses": made.uses}
    lines = [
        *drawing.getvalue().splitlines(),
        f"{label}: {made.shown}   {made.uses} use(s), until {minute(made.expires_us, zone)}",
        f"  {made.url}",
        "Or, to the town's LINE account, as a message: the code alone.",
    ]
    return Told(0, {**body, "expires_us": made.expires_us}, lines)


def _invitations(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    zone, now_us = ZoneInfo(config.time_zone), clock_us()
    with _at_work(config) as (state, desk), state.read() as connection:
        found = invitations_json(open_invitations(connection, now_us))
        groups = groups_json(connection, desk.book, desk.joining.groups, now_us)
    lines = [
        f"{one['group']}: {one['members']} member(s), {one['reachable']} reachable, {one['away']} away, {one['told']} told now"
        for one in groups
    ]
    lines += [
        f"{one['id']}  {one['group']}  {one['uses_left']} use(s) until {minute(one['expires_us'], zone)}, by {one['created_by']}"
        for one in found
    ]
    return Told(0, {"groups": groups, "invitations": found}, all_wrapped(lines) or ["no groups and no codes"])


def _end(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with _at_work(config) as (state, desk), state.write() as connection:
        desk.joining.end(connection, arguments.id, clock_us())
    return Told(0, {"ended": arguments.id}, [f"{arguments.id}: nobody joins by it any more"])


def _shown(connection: Connection, id_: str, now_us: int, config: GatewayConfig) -> Told:
    """Somebody as they are now, and what an officer should know of it."""
    one = require_json(connection, id_, now_us)
    warnings = _warnings(connection, id_)
    lines = [*_lines(one, ZoneInfo(config.time_zone)), *(f"!! {warning}" for warning in warnings)]
    return Told(0, {"contact": one, "warnings": warnings}, all_wrapped(lines))


def _warnings(connection: Connection, id_: str) -> list[str]:
    """Whether they may be somebody who is there already: nobody should be told twice of one thing."""
    said = {"name": "is called the same", "number": "has the same telephone number"}
    return [
        f"{other} {said[one.by]}: if that is the same person, change one (contact change) and remove the other (contact remove)"
        for one in people.alike(connection)
        if id_ in one.contacts
        for other in one.contacts
        if other != id_
    ]


def _lines(one: ContactJson, zone: ZoneInfo) -> list[str]:
    state = "reachable" if one["reachable"] else "NOT REACHABLE"
    if one["away_until_us"] is not None:
        state += f", away until {minute(one['away_until_us'], zone)}, deputy {one['deputy'] or 'none'}"
    lines = [f"{one['id']}  {one['name']} ({one['language']})  {', '.join(one['groups']) or 'in no group'}: {state}"]
    for way in one["addresses"]:
        why = f" ({way['why']})" if way["why"] else ""
        heard = f", last heard {minute(way['heard_us'], zone)}" if way["heard_us"] else ", never answered"
        lines.append(f"  {way['id']}  {way['channel']:5} {way['address']}: {way['state']}{why}{heard}")
    return lines


def _enter_addresses(connection: Connection, desk: Desk, id_: str, arguments: argparse.Namespace, now_us: int) -> None:
    for channel in _TYPED:
        for to in getattr(arguments, channel):
            desk.add_address(connection, id_, channel, to, now_us)


def _add_addresses(command: argparse.ArgumentParser) -> None:
    said = {"mail": "a mail address", "sms": "a mobile's number, for SMS", "voice": "a telephone's number, for calls"}

    for channel in _TYPED:
        command.add_argument(
            f"--{channel}", action="append", default=[], metavar="ADDRESS", help=f"{said[channel]}; may be repeated"
        )


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="ID", help="the contact's id; see contact list")


def _name(text: str) -> str:
    name = clean_name(text)
    if name is None:
        raise ConfigError("a name is one line of 1 to 40 characters")
    return name


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no day like 2026-06-30") from None
