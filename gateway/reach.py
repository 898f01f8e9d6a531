"""The wiring between an alert and a phone, and back: what is made of the configuration to reach people. Wiring, and nothing else.

`gateway.service` makes one and runs its threads; simulators make one to have the real thing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from gateway.accounts.account import role_of
from gateway.accounts.desk import Accounts
from gateway.alerting.lifecycle import Alert
from gateway.audit.export import Heads
from gateway.canary import CANARY, EVERY_S, Canary
from gateway.chores import Chore, Chores
from gateway.clock import OwnClock
from gateway.config import GatewayConfig
from gateway.contacts import proof
from gateway.contacts.book import Book
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joining
from gateway.contacts.office import Office, named
from gateway.contacts.proof import Proof
from gateway.deployments import Deployments
from gateway.heartbeat import Heartbeat
from gateway.inbox import Inbox, Worker
from gateway.keeping.retention import Retention
from gateway.mimamori.consent import Consents
from gateway.mimamori.knowing import Knowing
from gateway.mimamori.labels import Labels
from gateway.mimamori.search import Search
from gateway.notify.channels import Channels, build_channels
from gateway.notify.deliver import Deliverer
from gateway.notify.line import LineConfig, read_word
from gateway.notify.links import Links, open_link_key
from gateway.notify.mail import Bounces
from gateway.notify.message import Answer, Language, Link
from gateway.notify.quota import Quota
from gateway.own import Own, Probe
from gateway.paging import More, OnAnswer, Paging, Standing
from gateway.pictures import confirm_alert
from gateway.rules import build_rule
from gateway.state import State
from gateway.talk import HelpLinks, LineTalk
from gateway.telemetry import Telemetry
from gateway.telling import Teller
from gateway.watch import WatchedRule
from gateway.words import call_office, text

INBOX = "inbox"


class Outside(NamedTuple):
    """What the way to people needs of the rest of the gateway."""

    probes: Mapping[str, Probe]
    """Parts that can be asked how they are."""
    publish: Callable[[str, bytes], None]
    """To the gateway's own broker; may be lost."""
    well: Callable[[], Mapping[str, bool]]
    """Each part without which nobody would be told of an alarm."""
    say: Callable[[str, dict[str, Any]], None]
    """What was committed, to the live stream."""
    chores: Sequence[Chore] = ()
    """Periodic work of other rooms."""
    learn: Callable[[], None] = lambda: None
    """Has every process know anew whose tag is whose."""
    ring: Callable[[str], None] | None = None
    """Tells the process that delivers (`deliver`) or does a chore (its name) that there is something; None: it is this one."""
    worker: int | None = None
    """The number of this process among several; None: it is the only one."""


class Reach(NamedTuple):
    """Everything between an alert and a phone."""

    paging: Paging
    deliverer: Deliverer
    chores: Chores
    rules: Sequence[WatchedRule]
    """Those that the gateway has by itself: its own parts, the canary."""
    channels: Channels
    inbox: Inbox | None
    desk: Desk | None
    links: Links | None
    line_secret: str | None
    heartbeat: Heartbeat | None
    search: Search
    consents: Consents
    labels: Labels
    own: Own
    accounts: Accounts | None
    ring_deliveries: Callable[[], None]
    """Says, to whoever delivers, that there is something."""

    def close(self) -> None:
        """Gives back connections and threads. After the threads of deliveries and chores have ended."""
        if self.inbox is not None:
            self.inbox.close()
        if self.heartbeat is not None:
            self.heartbeat.close()
        for channel in self.channels.by_key.values():
            channel.close()


def open_reach(
    config: GatewayConfig,
    state: State,
    deployments: Deployments,
    telemetry: Telemetry,
    now_us: Callable[[], int],
    rng: random.Random,
    outside: Outside,
) -> Reach:
    """ConfigError when a key, a password or a secret can't be read."""
    zone = ZoneInfo(config.time_zone)
    book = Book(config.group, config.contact, zone)
    own = Own({**outside.probes, "dead_letters": Probe(lambda: _dead(deliverer))})

    def quota(line: LineConfig) -> Quota:
        return quotas.setdefault("line", Quota(state, "line", zone, line.reserve, own.condition))

    quotas: dict[str, Quota] = {}
    channels = build_channels(config.channel, config.contact, config.people, now_us, quota)
    deliverer = Deliverer(state, channels.by_key, telemetry, rng, now_us, lost=proof.lost, worker=outside.worker)
    ring_deliveries = partial(outside.ring, "deliver") if outside.ring else deliverer.ring
    links = Links(config.people.public_url, open_link_key(config.people.folder)) if config.people else None
    office = config.people.office if config.people else None
    call_office(config.people.office_name if config.people else "")
    search = Search(state, config.search, book, deployments, lambda: paging, office=office, ring=ring_deliveries)
    consents = Consents(
        state, config.mimamori, lambda: paging.notices, office=office, zone=zone, learn=outside.learn, ring=ring_deliveries
    )
    town = config.people.town if config.people else ""
    labels = Labels(lambda: paging.notices, office=office, town=town, learn=outside.learn)
    knowing = Knowing(search, config.mimamori, links, config.people.office_phone if config.people else None)
    paging = Paging(
        state,
        [*([config.canary.route] if config.canary else []), *config.route],
        deployments,
        book,
        _teller(config, deployments, zone, links, knowing),
        office=office,
        say=outside.say,
        ring=ring_deliveries,
        on_answer=_on_answer(search),
        more=_more(named(book), knowing.more),
        telemetry=telemetry,
    )
    rules = [own.watched()]
    clock = OwnClock(state, own.condition)
    clock.run(now_us())  # before anything goes by it
    chores = [
        Chore("clock", 1, clock.run),
        *outside.chores,
        Chore("search", 5, search.tick),
        Chore("consents", 60, consents.tick),
        Chore("label_reports", 60, partial(labels.remind, state)),
        Chore(
            "keeping",
            3600,
            Retention(state, config.keep, config.media.folder, telemetry, deployments.keep_pictures(), own.condition).run,
        ),
    ]
    if config.canary:
        rule = config.canary.rule
        rules.append(WatchedRule(CANARY, rule.severity, build_rule(rule)))
        chores.append(Chore("canary", EVERY_S, Canary(state, config.canary, zone, outside.publish, own.condition).run))
    if config.audit.heads_file or config.audit.heads_to:
        chores.append(Chore("audit_heads", 3600, Heads(state, config.audit, zone, paging.notices, own.condition).run))
    heartbeat = Heartbeat(state, config.heartbeat, outside.well) if config.heartbeat else None
    if config.heartbeat and heartbeat:
        chores.append(Chore("heartbeat", config.heartbeat.every, heartbeat.run))
    desk = inbox = line_secret = accounts = None
    talks: dict[str, Worker] = {}
    if config.people and links:
        proving = Proof(state, book, config.people, zone, links.answer_url, Office(state, own.condition), ring_deliveries)
        joining = Joining(config.group, config.people, proving)
        line = config.channel.line
        push_url = _push_url(links, config.people.link_for) if config.channel.push else None
        phone = config.people.office_phone
        friend_url = str(line.friend_url) if line and line.friend_url else None
        desk = Desk(book, proving, joining, zone, config.channel.typed, friend_url, push_url, phone)
        chores.append(Chore("contacts", 300, proving.run))
        accounts = Accounts(
            state, role_of(config.group), config.people.public_url, now_us, book, office=config.people.office,
            ring=ring_deliveries, mails=config.channel.mail is not None,
        )  # fmt: skip
        chores.append(Chore("accounts", 1, accounts.step))
        if line and channels.line:
            line_secret = read_word(line.channel_secret_file, "channel_secret_file")
            talk = LineTalk(
                book, joining, paging.answers.answer_to, zone, channels.line.reply, ring_deliveries, office=config.people.office,
                help_links=_help_links(push_url, phone), login_link=accounts.line_link,
            )  # fmt: skip
            talks["line"] = talk
            usage, left = channels.line.usage, quotas["line"]
            chores.append(Chore("line_quota", 60, lambda at_us: left.run(usage, at_us)))
        # Without LINE too: it forgets what Twilio's hooks keep.
        inbox = Inbox(state, talks, telemetry, lambda: ringing(INBOX))
        chores.append(Chore(INBOX, 1, inbox.step))
        if config.channel.mail and config.channel.mail.bounces:
            chores.append(Chore("bounces", 60, Bounces(config.channel.mail, state, proof.lost).run))
    all_chores = Chores(chores, telemetry, now_us)
    ringing = all_chores.ring if outside.ring is None else outside.ring
    return Reach(
        paging,
        deliverer,
        all_chores,
        rules,
        channels,
        inbox,
        desk,
        links,
        line_secret,
        heartbeat,
        search,
        consents,
        labels,
        own,
        accounts,
        ring_deliveries,
    )


def _dead(deliverer: Deliverer) -> str | None:
    return f"{deliverer.dead} messages reached nobody" if deliverer.dead else None


def _teller(config: GatewayConfig, deployments: Deployments, zone: ZoneInfo, links: Links | None, knowing: Knowing) -> Teller:
    if config.people is None or links is None:
        return Teller(deployments, zone)
    return Teller(
        deployments, zone, town=config.people.town, answer_url=links.answer_url, link_for_s=config.people.link_for,
        links_for=knowing.links_for, visit_url=links.visit_url, phone=config.people.office_phone,
    )  # fmt: skip


def _push_url(links: Links, link_for_s: float) -> Callable[[str, int], str]:
    return lambda contact, now_us: links.push_url(contact, now_us + int(link_for_s * 1e6))


def _help_links(push_url: Callable[[str, int], str] | None, phone: str | None) -> HelpLinks:
    def links(contact: str, language: Language, now_us: int) -> list[Link]:
        found = [Link(label=text(language, "link.office"), url=f"tel:{phone}")] if phone else []
        if push_url is not None:
            # LINE's own browser takes no push messages; by this it opens the telephone's.
            url = f"{push_url(contact, now_us)}?openExternalBrowser=1"
            found.append(Link(label=text(language, "link.push"), url=url))
        return found

    return links


def _on_answer(search: Search) -> OnAnswer:
    """What an answer does beyond its page: a person's word on a picture is kept, a search is opened, renewed or ended."""

    def done(connection: Connection, page: Standing, alerts: Sequence[Alert], contact: str, answer: Answer, now_us: int) -> None:
        if page.kind == "camera":
            for alert in alerts:
                confirm_alert(connection, alert.id, answer, contact, now_us)
        search.on_answer(connection, page, alerts, contact, answer, now_us)

    return done


def _more(*rooms: More) -> More:
    """What each of the rooms knows of an alert."""

    def known(connection: Connection, alert: Alert, contact: str) -> Mapping[str, Any]:
        return {name: fact for room in rooms for name, fact in room(connection, alert, contact).items()}

    return known
