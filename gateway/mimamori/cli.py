"""`satomori-gateway mimamori ...`: consents and labels at the command line, one function a command.

It works beside a gateway that runs. What it revokes is taken in no more within a minute; the gateway that runs erases the rest,
and tells family and office.
"""

import argparse
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.mimamori import consent, labels
from gateway.mimamori.consent import Given, NoConsent
from gateway.state.tables import label_reports, tags, watched
from gateway.terminal import Commands, Told, branch, clock_us, day, leaf, opened, who


def add_commands(commands: Commands) -> None:
    """Adds `mimamori` to the program; the function of the one that is chosen is in `arguments.act`."""
    below = branch(commands, "mimamori", "On whose word people are watched over; labels of their tags.")
    leaf(below, "list", "Say of everybody on whose word they are watched over, and until when it holds.", _list)
    agree = leaf(below, "consent", "Put a consent on record.", _consent)
    agree.add_argument("id", metavar="ID", help="as `mimamori list` shows it")
    agree.add_argument("--basis", required=True, choices=("self", "representative"), help="who agreed")
    agree.add_argument("--by", required=True, help="the name of who agreed")
    agree.add_argument("--relation", default="", help="of a representative: daughter")
    agree.add_argument("--entitled-by", default="", help="of a representative: their right to it, and what shows it")
    revoke = leaf(below, "revoke", "End a watch for good: everything of it is erased.", _revoke)
    revoke.add_argument("id", metavar="ID", help="as `mimamori list` shows it")
    revoke.add_argument("--why", default="", help="for who reads the trail later")
    revoke.add_argument("--yes", action="store_true", help="needed: it can't be undone")
    label = leaf(below, "label", "Say the label of a tag; a new one where it has none.", _label)
    label.add_argument("tag", metavar="TAG", help="as it is enrolled")
    leaf(below, "reports", "Say what finders reported and nobody has settled.", _reports)


def _list(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    zone, now_us = ZoneInfo(config.time_zone), clock_us()
    found, lines = [], []
    with opened(config) as state, state.read() as connection:
        for id_ in connection.scalars(select(watched.c.id).order_by(watched.c.id)):
            held = consent.standing(connection, id_, now_us)
            basis = held.given.basis if held.given else None
            found.append({"id": id_, "consent": held.state, "basis": basis, "confirm_by_us": held.confirm_by_us,
                          "stops_us": held.stops_us})  # fmt: skip
            until = held.stops_us or held.confirm_by_us
            lines.append(f"{id_}  {held.state:8}  {basis or '-':14}  {day(until, zone) if until else '-'}")
    if not lines:
        return Told(0, {"watched": found}, ["nobody is watched over"])
    head = [f"{'id':16}  {'consent':8}  {'basis':14}  holds until", *lines]
    where = "Names and tags: an officer's GET /api/v1/watched?why=..., which the log keeps"
    return Told(0, {"watched": found}, [*head, where])


def _consent(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    given = Given(arguments.basis, arguments.by, arguments.relation, arguments.entitled_by)
    with opened(config) as state, state.write() as connection:
        _known(connection, arguments.id)
        try:
            consent.enter(connection, arguments.id, given, who(), clock_us(), config.mimamori)
        except NoConsent as error:
            raise ConfigError(str(error)) from error
    return Told(0, {"id": arguments.id}, [f"{arguments.id}: the consent is on record"])


def _revoke(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    if not arguments.yes:
        raise ConfigError("say --yes: where the tags were is erased, their keys are destroyed, and that can't be undone")
    with opened(config) as state, state.write() as connection:
        _known(connection, arguments.id)
        try:
            consent.mark_revoked(connection, arguments.id, who(), clock_us(), arguments.why)
        except NoConsent as error:
            return Told(1, {"error": str(error)}, [])
    return Told(0, {"id": arguments.id}, [f"{arguments.id}: revoked. The gateway that runs erases it within a minute"])


def _label(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    with opened(config) as state, state.write() as connection:
        if connection.scalar(select(tags.c.tag).where(tags.c.tag == arguments.tag)) is None:
            raise ConfigError(f"{arguments.tag[:80]!r} is nobody's tag: enrol it first")
        label = labels.shown(labels.make(connection, arguments.tag, who(), clock_us()))
    return Told(0, {"label": label}, [label])


def _reports(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    zone = ZoneInfo(config.time_zone)
    with opened(config) as state, state.read() as connection:
        rows = connection.execute(select(label_reports).where(label_reports.c.state == "open").order_by(label_reports.c.id)).all()
    found = [{"id": row.id, "label": labels.shown(row.label), "what": row.what, "at_us": row.at_us} for row in rows]
    lines = [f"{one['id']:>4}  {one['what']:7}  {one['label']:10}  {day(one['at_us'], zone)}" for one in found]
    if not lines:
        return Told(0, {"reports": found}, ["nothing is to be settled"])
    head = [f"{'id':>4}  {'what':7}  {'label':10}  day", *lines]
    return Told(0, {"reports": found}, [*head, "What finders wrote, and the decision: officers, at /labels of the gateway"])


def _known(connection: Connection, id_: str) -> None:
    if connection.scalar(select(watched.c.id).where(watched.c.id == id_)) is None:
        raise ConfigError(f"nobody who is watched over has the id {id_[:40]!r}: see `satomori-gateway mimamori list`")
