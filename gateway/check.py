"""`satomori-gateway check`: opens each thing the configuration names, and says of each how it is, and what is wrong."""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from sqlalchemy import Connection, select

from edge.contract.broker import parse_url
from gateway import vitals
from gateway.alerting.route import FAMILY, Match, route_for
from gateway.alerting.route import Channel as AlertChannel
from gateway.api import built
from gateway.api.tokens import read_tokens
from gateway.clock import behind_us
from gateway.config import GatewayConfig, NodesConfig
from gateway.contacts import people
from gateway.contacts.book import Book
from gateway.errors import ConfigError, NotMade, StoreDown, StoreRefused
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.enrolment import Entry, Town, doubts
from gateway.nodes.authority import BROKER, CRL, GATEWAY, LISTENER, SIGNING_KEY, Authority, ends_us
from gateway.nodes.brokers import NATS_NODES, running_broker
from gateway.nodes.ended import NO_IDS, takes_client_ids
from gateway.nodes.signing import Signer
from gateway.notify.channels import build_channels
from gateway.notify.line import LineConfig, read_word
from gateway.notify.quota import Quota
from gateway.own import Own
from gateway.rules import OWN, SYNTHETIC, RuleConfig
from gateway.rules.crowd import AREA
from gateway.rules.trial import TEST
from gateway.session import certificate_ends_us, credentials
from gateway.state import State, open_state
from gateway.state.database import FAILS, trouble
from gateway.state.tables import labels, watched
from gateway.terminal import Commands, Told, all_wrapped, clock_us, leaf
from gateway.vitals import Vital

TIMEOUT_S = 10
WARN_DAYS = 30


def add_commands(commands: Commands) -> None:
    """Adds `check` to the program."""
    leaf(commands, "check", "Open everything the configuration names, say what is wrong.", tell)


def tell(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    """Opens and closes everything, the broker included, and tells one line each; then who would not hear of an alert.

    Those are warnings, and no failure: people join a gateway that runs.
    """
    results, unheard = check(config), []
    if "queues" in results:
        try:
            unheard = warnings(config)
        except FAILS as error:
            results["state"] = Vital("NG", trouble(error))
    lines = [f"{one.level}  {part}" + (f": {one.text}" if one.text else "") for part, one in results.items()]
    lines += [f"!!  {warning}" for warning in unheard]
    faults = {part: one.text for part, one in results.items() if one.level == "NG"}
    parts = {part: one._asdict() for part, one in results.items()}
    return Told(int(bool(faults)), {"faults": faults, "warnings": unheard, "parts": parts}, all_wrapped(lines))


def warnings(config: GatewayConfig) -> list[str]:
    """What opens and runs, but would leave an alert unheard: each with its setting and what to do. It tells no name.

    ConfigError where the state database, which knows who can be reached, doesn't open.
    """
    now_us = clock_us()
    with _looked_at(config) as state, state.read() as connection:
        return [
            *_unheard(config, connection, now_us),
            *_entered_twice(connection),
            *_watched(config, connection, now_us),
            *_clock(state, now_us),
            *_pages(),
        ]


@contextmanager
def _looked_at(config: GatewayConfig) -> Iterator[State]:
    """The state database, in which who looks makes no tables and begins no upgrade. Before the first start an empty one, made
    elsewhere: it knows as much. NotMade for one of an older version.
    """
    with ExitStack() as stack:
        try:
            state = open_state(config.state.url, config.state.password_file, as_it_is=True)
        except NotMade as error:
            if not error.is_empty:
                raise
            folder = stack.enter_context(TemporaryDirectory(prefix="satomori-"))
            state = open_state(f"sqlite:///{folder}/state.db")
        yield stack.enter_context(closing(state))


def _unheard(config: GatewayConfig, connection: Connection, now_us: int) -> list[str]:
    """Whom nobody would reach: the office, each route and its steps, other groups, the canary; and what nobody watches."""
    book = Book(config.group, config.contact, ZoneInfo(config.time_zone))
    found: list[str] = []

    def reaches(where: str, names: Sequence[str], otherwise: str, by: AlertChannel | None = None) -> bool:
        """Whether somebody is there now; a warning where not. A family is another one for each alert."""
        if FAMILY in names or any(book.who(connection, name, now_us, by) for name in names):
            return True
        over = f" over {by}" if by else ""
        found.append(f"{where}: nobody of {', '.join(names)} can be reached{over} now; {otherwise}.{_remedy(config, names, by)}")
        return False

    office = config.people.office if config.people else None
    heard = office is not None and reaches("people.office", [office], "an alert that nobody else takes would go unheard")
    whole = None
    for number, route in enumerate(config.route):
        if whole is not None:
            found.append(f"route.{number}: no alert comes here: route.{whole} before it fits every alert. Put it before that")
            continue
        if not route.match.model_dump(exclude_none=True):
            whole = number
        there = [
            reaches(
                f"route.{number}.to" if route.to else f"route.{number}.steps.{at}", step.to, "this step is passed over", step.by
            )
            for at, step in enumerate(route.all_steps)
        ]
        if not any(there):
            end = "only the office would hear of it" if heard else "it would go unheard"
            found.append(f"route.{number}: none of its steps reaches anybody; an alert comes by it, and {end}")
    found += _only_caught(config)
    found += _without_route(config, "only the office" if heard else "nobody")
    told = {to for route in config.route for step in route.all_steps for to in step.to} | {office}
    for name in config.group.keys() - told:
        reaches(f"group.{name}", [name], "what is for this group would go unheard")
    if config.canary is not None:
        reaches("canary.to", [config.canary.to], "nobody answers the daily test alarm")
    elif config.people is not None:
        found.append("canary: there is none, so nobody would notice that alarms no longer come through. Write [canary]")
    if config.people is not None and config.heartbeat is None:
        found.append("heartbeat: there is none, so nobody would notice that this gateway is dead. Write [heartbeat]")
    return found


def _remedy(config: GatewayConfig, names: Sequence[str], by: AlertChannel | None) -> str:
    """How somebody comes to be there; nothing where no group is named."""
    group = next((name for name in names if name not in config.contact), None)
    if group is None:
        return ""
    if by in ("mail", "sms", "voice"):
        return f" Enter an address: satomori-gateway contact add --group {group} --{by} ..., and have its test answered"
    return f" Have people join: satomori-gateway invite add ... {group}, and have their test answered"


def _without_route(config: GatewayConfig, hears: str) -> list[str]:
    """Kinds of alerts that no route fits: of rules, which always have one, none; the gateway's own, perhaps."""
    own = {"rule": OWN, "kind": "gateway", "severity": "warning", "node": "gateway", "device": "broker"}
    if config.people is None or route_for(config.route, own) is not None:
        return []
    return [f'route: none fits what the gateway finds wrong with itself: {hears} hears of it. Add match = {{ kind = "gateway" }}']


def _entered_twice(connection: Connection) -> list[str]:
    said = {"name": "are called the same", "number": "have one telephone number"}
    return [
        f"contacts {' and '.join(one.contacts)} {said[one.by]}: one person who is entered twice is told twice. "
        "See contact list; contact remove takes one away"
        for one in people.alike(connection)
    ]


def _watched(config: GatewayConfig, connection: Connection, now_us: int) -> list[str]:
    """Whose family is not there, or whose entry can't be meant; and labels on tags whose misuse nobody would hear of."""
    book = Book(config.group, config.contact, ZoneInfo(config.time_zone))
    office = config.people.office if config.people else None
    deployed = {(one.node, one.device) for one in config.deployment}
    town = Town({name: group.role for name, group in config.group.items()}, office, deployed)
    found = []
    for row in connection.execute(select(watched).order_by(watched.c.id)):
        entry = Entry(row.name, row.family, json.loads(row.homes))
        wrong = [str(doubt) for doubt in doubts(connection, entry, town, row.id)]
        if not book.who(connection, row.family, now_us):
            wrong.append(f"family: nobody of {row.family} can be reached now.{_remedy(config, [row.family], None)}")
        found += [f"watched {row.id}: {one}" for one in wrong]
    in_use = connection.scalar(select(labels.c.label).where(labels.c.ended_us.is_(None)).limit(1)) is not None
    if in_use and (office is None or not book.who(connection, office, now_us)):
        how = "Write [people] with its office" if office is None else "See people.office above"
        found.append(f"labels: there are some on tags, but nobody at an office would hear that one is misused. {how}")
    return found


_KINDS = {"presence": WATCHED, "crowd": AREA, "trial": TEST}
"""Kinds of alerts of rules that do not go by what stands where."""


def _only_caught(config: GatewayConfig) -> list[str]:
    """Kinds of rules whose alerts no route but that without a match takes, where there are others."""
    whole = next((n for n, route in enumerate(config.route) if not route.match.model_dump(exclude_none=True)), 0)
    caught = {
        rule.type
        for name, rule in config.rule.items()
        if not any(_could_take(route.match, name, rule) for route in config.route[:whole])
    }
    if not whole or not caught:
        return []
    kinds = ", ".join(sorted(caught))
    return [f"route.{whole}: it fits every alert, and alone takes what these kinds of rules find: {kinds}. Put one before it"]


def _could_take(match: Match, name: str, rule: RuleConfig) -> bool:
    kind = _KINDS.get(rule.type, rule.kind)
    return (
        match.rule in (None, name)
        and match.severity in (None, rule.severity)
        and (kind is None or match.kind in (None, kind))
        and (match.kind is None or kind is not None or match.kind not in (*SYNTHETIC, TEST))
    )


def _pages() -> list[str]:
    lacking = built.lacking()
    how = "Install a wheel that has them (make wheel), or run make web in the checkout"
    return [f"pages: this gateway was installed without {', '.join(lacking)}. {how}"] if lacking else []


def _clock(state: State, now_us: int) -> list[str]:
    by_us = behind_us(state, now_us)
    if not by_us:
        return []
    return [f"clock: this machine's clock is {by_us // 60_000_000} min behind what a gateway here knew. Check its time server"]


def check(config: GatewayConfig) -> dict[str, Vital]:
    """How each part is; what the state database tells is left out where that doesn't open."""
    now_us, zone = clock_us(), ZoneInfo(config.time_zone)
    parts: dict[str, Callable[[], Vital | None]] = {
        "clock": vitals.clock,
        "disk": lambda: vitals.disk(config),
        "state": lambda: _state(config),
        "store": lambda: vitals.store(config, now_us),
        "media": lambda: _media(config),
        "api.tokens_file": lambda: _tokens(config),
        "broker": lambda: _broker(config, now_us, zone),
    }
    if config.channel.any:
        parts["channel"] = lambda: _channels(config)
    if config.nodes is not None:
        nodes = config.nodes
        parts["nodes"] = lambda: _nodes(nodes)
    found = {name: _tried(name, part) for name, part in parts.items()}
    if found["state"].level != "NG":
        try:
            found |= _from_state(config, now_us, zone)
        except NotMade:
            pass  # `state` says so
        except FAILS as error:
            found["state"] = Vital("NG", trouble(error))
    return found


def _tried(name: str, part: Callable[[], Vital | None]) -> Vital:
    """How a part is. Who shows it names the part, so that the text need not begin with it too."""
    try:
        return part() or Vital("OK")
    except NotMade:
        return Vital("??", "can't be tried until the state database is upgraded")
    except FAILS as error:
        return Vital("NG", trouble(error))
    except (ConfigError, StoreDown, StoreRefused, OSError, ValueError) as error:
        return Vital("NG", str(error).removeprefix(f"{name}: "))


def _state(config: GatewayConfig) -> Vital | None:
    try:
        open_state(config.state.url, config.state.password_file, as_it_is=True).close()
    except NotMade as error:
        return Vital("!!", str(error).removeprefix("state.url: "))
    return None


def _from_state(config: GatewayConfig, now_us: int, zone: ZoneInfo) -> dict[str, Vital]:
    with _looked_at(config) as state, state.read() as connection:
        found = {"queues": vitals.queues(connection, now_us), "backup": vitals.backup(connection, now_us, zone)}
        if config.channel.line is not None:
            found["line"] = vitals.quota(connection, now_us, zone)
    return found


def _media(config: GatewayConfig) -> None:
    with ExitStack() as stack:
        try:
            state = stack.enter_context(_looked_at(config))
        except NotMade:
            raise
        except ConfigError:
            raise ConfigError("can't be tried until the state database opens, which lists what is there") from None
        MediaShelf(config.media.folder, state, lambda: 0)


def _channels(config: GatewayConfig) -> None:
    """Keys, passwords and secrets; nothing is sent. Whether people can be reached is what tests and the canary show."""
    with _looked_at(config) as state:
        zone = ZoneInfo(config.time_zone)

        def quota(line: LineConfig) -> Quota:
            return Quota(state, "line", zone, line.reserve, Own().condition)  # what it would warn of is heard by nobody

        channels = build_channels(config.channel, config.contact, config.people, clock_us, quota)
        for channel in channels.by_key.values():
            channel.close()
        if config.channel.line is not None:
            read_word(config.channel.line.channel_secret_file, "channel_secret_file")


def _tokens(config: GatewayConfig) -> None:
    read_tokens(config.api.tokens_file)


def _nodes(nodes: NodesConfig) -> None:
    """The authority and its files; the listener's port is not tried, for a running gateway has it."""
    folder = nodes.folder
    Authority.read(folder)
    Signer.read(folder / SIGNING_KEY)
    now_us = clock_us()
    for name in ("ca", BROKER, LISTENER, GATEWAY):
        if (days := (ends_us(folder / f"{name}.pem") - now_us) / 86_400e6) < WARN_DAYS:
            raise ConfigError(
                f"nodes.folder: {folder / name}.pem ends in {days:.0f} days. "
                + ("Nodes go by it: all must be claimed anew before" if name == "ca" else "Run: satomori-gateway authority init")
            )
    for name in (CRL, NATS_NODES):
        if not (folder / name).exists():
            raise ConfigError(f"nodes.folder: {folder / name} is missing. Run: satomori-gateway authority init")
    if nodes.broker_pid_file is not None and running_broker(nodes.broker_pid_file) is None:
        raise ConfigError(f"nodes.broker_pid_file: {nodes.broker_pid_file} names no running process: nobody tells the broker")


def _broker(config: GatewayConfig, now_us: int, zone: ZoneInfo) -> Vital | None:
    """Connects under another client id, so that a running gateway keeps its session. Over TLS: until when certificates last."""
    host, port, tls = parse_url(config.broker.url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{config.broker.client_id[:25]}-check")
    credentials(client, config.broker, tls=tls)
    answers: list[str] = []
    client.on_connect = lambda _c, _d, _f, code, _p: answers.append(str(code) if code.is_failure else "")
    try:
        client.connect(host, port)
    except OSError as error:
        raise ConfigError(f"broker.url: {host}:{port} can't be reached: {error}") from error
    until = time.monotonic() + TIMEOUT_S
    while not answers and time.monotonic() < until:
        if client.loop(0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            break
    ends = _ends(client, config) if tls and answers == [""] else {}
    client.disconnect()
    if not answers:
        raise ConfigError(f"broker.url: {host}:{port} accepts connections but does not answer in MQTT")
    if answers[0]:
        raise ConfigError(f"broker: {host}:{port} refused: {answers[0]}. Check username, password_file and certificates.")
    if config.nodes is not None and not takes_client_ids(config.broker):
        raise ConfigError(NO_IDS)
    return vitals.certificates(ends, now_us, zone) if ends else None


def _ends(client: mqtt.Client, config: GatewayConfig) -> dict[str, int]:
    """When the broker's certificate ends, and ours, in UTC µs."""
    ends = {}
    if (theirs := certificate_ends_us(client)) is not None:
        ends["its certificate"] = theirs
    if config.broker.certificate_file is not None:
        ends["ours"] = ends_us(config.broker.certificate_file)
    return ends
