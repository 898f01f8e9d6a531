"""A story while it is told: its time, its nodes, its people, and the transcript. What can be done in one: `steps`.

A story without people has one phone, a webhook, which is told everything; its times are seconds since its start. With people
(`[[person]]`) it has their phones, and its times are those of the clock on the wall: `06-03 06:12:00`.
"""

import asyncio
import random
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from sqlalchemy import func, select

from edge.agent import Agent
from edge.clock import Clock
from edge.drivers import DeviceConfig, Driver, make_driver
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from edge.timekeeper import Timekeeper
from gateway.mimamori import enrolment
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Given
from gateway.rules.duration import parse_duration
from gateway.state import open_state
from gateway.state.tables import events, losses, notifications, quarantine
from gateway.store import SqliteStore, SqliteStoreConfig
from simulators.clock import VirtualClock, settle
from simulators.hardware import own_pins
from simulators.phone import Phone
from simulators.phones import Phones, Someone
from simulators.scenario.gateway import PUBLIC_URL, Gateway, configuration
from simulators.scenario.steps import ScenarioError, Steps
from simulators.scenario.wire import HOLDS_EVENT, CrashError, Skewed, Wire, WireLink, same_machine

STEP_S = 0.5
AFTER_A_STEP_S = 5.0
"""So long after each step, time goes on in small pieces also where a story has its own `pace`."""
ASLEEP_S = 86_400.0
IMAGE = "2026-01-01T00:00:00+00:00"
"""When the nodes' images were made: no clock that is `kept` begins before."""
GROUP = 500

RULES: dict[str, dict[str, Any]] = {
    "trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"},
    "silent": {"type": "absence", "of": "heartbeat", "for": "26h", "severity": "warning"},
}


@dataclass
class Node:
    """One node of the story."""

    name: str
    description: dict[str, Any]
    outbox: Outbox
    clock: Skewed
    agent: Agent
    task: "asyncio.Task[None] | None" = None
    pins: dict[str, int] = field(default_factory=dict)
    cards: dict[str, Path] = field(default_factory=dict)


class Story:
    """One scenario. `tell` returns the transcript: one mapping a line."""

    def __init__(self, folder: Path, home: Path) -> None:
        """`folder` holds scenario.toml; `home` is where databases and outboxes are made."""
        self.script = tomllib.loads((folder / "scenario.toml").read_text(encoding="utf-8"))
        self.home = home
        self.zone = ZoneInfo(self.script.get("time_zone", "Asia/Tokyo"))
        self.start_us = time_us(self.script.get("start", "2026-06-03T05:00:00+09:00"))
        mono_us = 10 * 86_400 * 1_000_000  # every node booted ten days ago
        self.clock = VirtualClock(self.start_us, mono_us)
        self.wire = Wire()
        self.nodes: dict[str, Node] = {}
        self.people = [_someone(one) for one in self.script.get("person", [])]
        self.gateway: Gateway | None = None
        self._phones: Phones | None = None
        self.plugged = True
        self.crash_before_acks = False
        self._pace_s = float(parse_duration(self.script.get("pace", "30s" if self.people else STEP_S)))  # type: ignore[arg-type]
        self._transcript: list[dict[str, Any]] = []
        self._alerts: dict[str, str] = {}
        self._steps = Steps(self)
        self._boots = self._received = 0
        self._away_since_us: int | None = None

    async def tell(self) -> list[dict[str, Any]]:
        """Everything that happened, in order, with the totals as the last line."""
        with ExitStack() as opened:
            self.pins = opened.enter_context(own_pins())
            opened.enter_context(same_machine(self.home / "machine"))
            self.phone = opened.enter_context(Phone(now_us=self.now_us))
            if self.people:
                self._phones = opened.enter_context(
                    Phones(
                        self.people, now_us=self.now_us, public_url=PUBLIC_URL, webhook=self._hook, client=_Web(self),  # type: ignore[arg-type]
                        limit=self.script.get("line_limit"),
                    )
                )  # fmt: skip
                self._enrol()
            self.start_gateway()
            for description in self.script.get("node", []):
                self.start_node(description, description.get("clock_off", "0s"), booted_us=0)
            try:
                if self.people:
                    await self._advance(STEP_S)
                for step in self.script["step"]:
                    await self._until((self._time_of(step["at"]) - self.start_us) / 1e6)
                    self._steps.do({name: value for name, value in step.items() if name != "at"})
                    await self._settle()
                    if self.people:
                        await self._until(self._at_s() + AFTER_A_STEP_S, STEP_S)
                await self._drain()
            finally:
                for node in self.nodes.values():
                    if node.task is not None:
                        node.task.cancel()
                await asyncio.gather(*(node.task for node in self.nodes.values() if node.task), return_exceptions=True)
                self.stop_gateway()
                self._transcript.append(self._totals())
                for node in self.nodes.values():
                    node.outbox.close()
        return self._transcript

    @property
    def phones(self) -> Phones:
        """Those of the people; ScenarioError in a story without."""
        if self._phones is None:
            raise ScenarioError("nobody has a phone here: the story has no person")
        return self._phones

    # Time

    def now_us(self) -> int:
        """The true time."""
        return self.clock.now().utc_us

    def _at_s(self) -> float:
        return (self.now_us() - self.start_us) / 1e6

    def _time_of(self, at: str) -> int:
        """Of a step: so long after the start, or the next time that clocks show `HH:MM[:SS]`, or `MM-DD HH:MM[:SS]`."""
        if ":" not in at:
            return self.start_us + int(parse_duration(at) * 1_000_000)  # type: ignore[operator]
        start = datetime.fromtimestamp(self.start_us / 1e6, self.zone)
        if " " in at:
            return int(datetime.fromisoformat(f"{start.year}-{at}").replace(tzinfo=self.zone).timestamp() * 1e6)
        now = datetime.fromtimestamp(self.now_us() / 1e6, self.zone)
        return int(datetime.fromisoformat(f"{now.date()} {at}").replace(tzinfo=self.zone).timestamp() * 1e6)

    async def _until(self, at_s: float, pace_s: float | None = None) -> None:
        while (left_s := at_s - self._at_s()) > 0.0000005:
            # Where every node is switched off, a season passes in seconds.
            asleep = not self.people and all(node.task is None or node.task.done() for node in self.nodes.values())
            step_s = ASLEEP_S if asleep else pace_s or self._pace_s
            if self.people and pace_s is None:
                step_s -= self._at_s() % step_s  # whole minutes stay whole after a step in between
            next_us = self.gateway.next_us() if self.people and self.gateway else None
            if next_us is not None:
                step_s = min(step_s, (next_us - self.now_us()) / 1e6)
            await self._advance(min(step_s, left_s))

    async def _advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self._settle()

    async def _settle(self) -> None:
        """Lets everything that is due happen, to its end."""
        for link in list(self.wire.links.values()):
            link.connect_if_possible()
        await settle()
        if self.gateway is not None:
            try:
                self.gateway.pass_time()
                while self.wire.running and self.wire.to_gateway:
                    taken = [self.wire.to_gateway.popleft() for _ in range(min(GROUP, len(self.wire.to_gateway)))]
                    self._take(taken)
                    await settle()
                self.gateway.work()
            except CrashError:
                self.crash()
        self._note_news()

    def _take(self, taken: list[Any]) -> None:
        assert self.gateway is not None
        acks = self.gateway.take(taken, self._away_since_us)
        if self.crash_before_acks and any(HOLDS_EVENT in message.payload for message in taken):
            self.crash_before_acks = False
            self.wire.to_gateway.extendleft(reversed(taken))  # not acknowledged: the session has them still
            raise CrashError
        for topic, payload, _ in acks:
            self.wire.down(topic, payload)

    async def _drain(self) -> None:
        """A story ends when everything committed is acknowledged, or after ten more minutes."""
        for _ in range(int(600 / STEP_S)):
            if not any(node.outbox.waiting for node in self.nodes.values()):
                return
            await self._advance(STEP_S)

    # The gateway

    def start_gateway(self) -> None:
        """A new process on the files that are there."""
        if self.gateway is not None:
            raise ScenarioError("start_gateway: it runs")
        script = {"rule": RULES, "route": [{"to": ["phone"]}], **self.script}
        contact = {"phone": {"type": "webhook", "url": self.phone.url}}
        if self.people:
            groups = {group: {"label": group} for one in self.people for group in one.groups} | {"office": {"label": "市役所"}}
            config = configuration(
                script, self.home, contact=contact, group=groups | self.script.get("group", {}),
                channel=self.phones.channel_settings(self.home / "channels"),
                people={"public_url": PUBLIC_URL, "folder": self.home / "people", "town": "霧沢町", "office": "office",
                        **self.script.get("people", {})},
            )  # fmt: skip
        else:
            config = configuration(script, self.home, contact=contact)
        self.gateway = Gateway(config, self.wire, self.now_us, self._say)
        self.gateway.store.plugged = self.plugged

    def stop_gateway(self) -> None:
        """Where it runs."""
        if self.gateway is not None:
            self.gateway.close()
            self.gateway = None

    def crash(self) -> None:
        """As -9: nothing more is written, nothing in memory survives."""
        self.line("gateway", state="killed")
        self._away_since_us = self.now_us()
        self.stop_gateway()

    def _enrol(self) -> None:
        state = open_state(f"sqlite:///{self.home / 'state.db'}")
        try:
            with state.write() as connection:
                self.phones.enrol(connection, self.start_us - 3_600_000_000)
                for one in self.script.get("watched", []):
                    who = enrolment.add(
                        connection,
                        enrolment.Entry(one["name"], one["family"], one["homes"]),
                        Given("self", one["name"]),
                        "desk",
                        self.start_us,
                        MimamoriConfig.model_validate(self.script.get("mimamori", {})),
                    )
                    enrolment.give_tag(connection, who, one["tag"], "desk", self.start_us)
        finally:
            state.close()

    def _hook(self, body: bytes, headers: Mapping[str, str]) -> int:
        """LINE's webhook."""
        if self.gateway is None:
            return 0
        return self.gateway.web.post("/hooks/line", content=body, headers=dict(headers)).status_code

    # The transcript

    def line(self, what: str, **rest: Any) -> None:
        """One more line, of this moment."""
        at: Any = int(self._at_s())
        if self.people:
            at = f"{datetime.fromtimestamp(self.now_us() // 1_000_000, self.zone):%m-%d %H:%M:%S}"
        self._transcript.append({"at": at, "what": what, **rest})

    def _say(self, kind: str, body: Mapping[str, Any]) -> None:
        """What the live stream is told. That an alert has other facts now is no news here."""
        if kind == "alert" and self._alerts.get(body["id"]) != body["state"]:
            self._alerts[body["id"]] = body["state"]
            # An id is another each time.
            device = "contact" if body["device"].startswith("contact-") else body["device"]
            device = "somebody" if body["node"] == "watched" else device
            why = {"by": body["suppressed_by"]} if body["state"] == "suppressed" else {}
            self.line("alert", rule=body["rule"], node=body["node"], device=device, state=body["state"],
                      late=body["late"], **why)  # fmt: skip

    def _note_news(self) -> None:
        received = self.phone.received
        for one in received[self._received :]:
            self.line("phone", title=one.message["title"], body=one.message["body"], late=one.message["late"])
        self._received = len(received)
        # Of what one person got at one moment, which came first is chance: its ids are others each time.
        order = {one.name: number for number, one in enumerate(self.people)}
        for got in sorted(self.phones.news(), key=lambda got: (order[got.to], *got[1:])) if self.people else ():
            said = {"title": got.title} if got.title else {}
            self.line("phone", to=got.to, channel=got.channel, **said, body=got.body)

    def _totals(self) -> dict[str, Any]:
        state = open_state(f"sqlite:///{self.home / 'state.db'}")
        store = SqliteStore(SqliteStoreConfig(type="sqlite", path=self.home / "series.db"))
        try:
            with state.read() as connection:
                stored_events = (
                    connection.scalar(select(func.count()).select_from(events).where(events.c.epoch != "gateway")) or 0
                )
                by_type = {
                    row[0]: row[1] for row in connection.execute(select(events.c.type, func.count()).group_by(events.c.type))
                }
                refused = connection.scalar(select(func.count()).select_from(quarantine)) or 0
                lost = connection.scalar(select(func.coalesce(func.sum(losses.c.high - losses.c.low + 1), 0)))
                made = connection.scalar(select(func.count()).select_from(events).where(events.c.node == "canary")) or 0
                ledger = {
                    row[0]: row[1]
                    for row in connection.execute(
                        select(notifications.c.state, func.count())
                        .group_by(notifications.c.state)
                        .order_by(notifications.c.state)
                    )
                }
            produced = sum(node.outbox.next_seq - 1 for node in self.nodes.values())
            stored = stored_events - made + store.count()
            told: dict[str, Any] = {"notifications": len({one.id for one in self.phone.received if one.shown})}
            if self.people:
                told = {"phones": self.phones.count(), "ledger": ledger}
            return {
                "at": "end",
                "what": "totals",
                "missing": produced - stored,  # negative: something stands twice
                "waiting": sum(node.outbox.waiting for node in self.nodes.values()),
                "lost": lost,
                "quarantined": refused,
                "events": by_type,
                **told,
            }
        finally:
            store.close()
            state.close()

    # The nodes

    def start_node(self, description: dict[str, Any], clock_off: str, booted_us: int) -> None:
        """One boot of a node."""
        name, says = description["name"], description.get("clock", "sync")
        machine = Skewed(self.clock, int(signed_s(clock_off) * 1e6), booted_us)
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        boot = f"{self._boots:016x}"
        self._boots += 1
        clock: Clock = machine
        drivers: dict[str, tuple[str, Driver]] = {}
        if says == "kept":
            keeper = Timekeeper(folder, boot, machine, lambda: machine.disciplined, image_us=time_us(IMAGE))
            clock, drivers["clock"] = keeper, ("clock", keeper)
        outbox = Outbox(folder / "outbox.db", machine=name, boot=boot, max_records=description.get("max_records", 3_000_000))
        media = MediaFolder(folder / "media")
        pins: dict[str, int] = {}
        cards: dict[str, Path] = {}
        for device, written in description["device"].items():
            settings = dict(written)
            (folder / device).mkdir(parents=True, exist_ok=True)
            if "folder" in settings:
                cards[device] = folder / settings["folder"]
                cards[device].mkdir(exist_ok=True)
                settings["folder"] = cards[device]
            config: Any = TypeAdapter(DeviceConfig).validate_python(settings)
            site = Site(clock, media, folder / device, outbox.epoch)
            drivers[device] = (config.type.replace("_", "-"), make_driver(device, config, site))
            if config.type == "reed_trap":
                pins[device] = config.pin
        agent = Agent(
            name,
            drivers,
            outbox,
            clock,
            lambda words, listener: WireLink(self.wire, words, listener),
            boot=boot,
            clock_state=keeper.clock_state if says == "kept" else lambda: says,
            rng=random.Random(1),
        )
        self.nodes[name] = Node(name, description, outbox, machine, agent, asyncio.ensure_future(agent.run()), pins, cards)


class _Web:
    """What Twilio's hooks are asked by: the gateway of the moment."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def post(self, url: str, **asked: Any) -> Any:
        """As httpx.Client.post."""
        if self._story.gateway is None:
            raise ScenarioError("Twilio asks the gateway while that does not run")
        return self._story.gateway.web.post(url, **asked)


def _someone(said: Mapping[str, Any]) -> Someone:
    settings = dict(said)
    group = settings.pop("group", [])
    groups = (group,) if isinstance(group, str) else tuple(group)
    if unknown := settings.keys() - set(Someone._fields):
        raise ScenarioError(f"person: {', '.join(sorted(unknown))} is unknown; there are: group, {', '.join(Someone._fields)}")
    for name in ("channels", "quiet"):
        if name in settings:
            settings[name] = tuple(settings[name])
    return Someone(groups=groups, **settings)


def time_us(text: str) -> int:
    """UTC µs of an ISO time with its offset."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1e6)


def signed_s(text: str) -> float:
    """Seconds of `-2h`."""
    sign = -1 if text.startswith("-") else 1
    return sign * float(parse_duration(text.removeprefix("-")))  # type: ignore[arg-type]
