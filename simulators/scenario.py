"""A scenario: a story on virtual time, told to the real edge and gateway, and what came of it line by line.

A folder holds `scenario.toml` (nodes, rules, steps) and `expected.jsonl` (what comes of it, in order, nothing more). Everything
of edge and gateway is the real code on real files; what stands in is time, pins, the broker's wire and the phone's owner. The
wire is a broker's persistent session: it keeps what is published while the gateway is away, and can be emptied.
"""

import asyncio
import inspect
import json
import random
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from sqlalchemy import func, select

from edge.agent import Agent
from edge.clock import Clock, Instant
from edge.contract.broker import BrokerConfig
from edge.contract.names import is_name
from edge.contract.topics import Channel, Topic, parse, topic_for
from edge.drivers import DeviceConfig, Driver, make_driver
from edge.hardware import machine as own_machine
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Reading, Site
from edge.timekeeper import Timekeeper
from edge.uplink import LinkWords, Listener
from gateway.alerting.route import RouteConfig
from gateway.contacts.book import Book
from gateway.deployments import Deployment, Deployments
from gateway.errors import StoreDown
from gateway.notify.deliver import Deliverer
from gateway.notify.message import Message as Told
from gateway.notify.webhook import Webhook, WebhookConfig
from gateway.paging import Paging
from gateway.pipeline import Message, Pipeline
from gateway.rules import RuleConfig, build_rule
from gateway.rules.duration import parse_duration
from gateway.state import open_state
from gateway.state.tables import events, losses, quarantine
from gateway.store import SqliteStore, SqliteStoreConfig
from gateway.telemetry import Telemetry
from gateway.telling import Teller
from gateway.watch import Watch, WatchedRule
from simulators.clock import VirtualClock, settle
from simulators.hardware import own_pins, picture, save_picture
from simulators.phone import Phone

STEP_S = 0.5
ASLEEP_S = 3600.0
BOOTED_AGO_US = 30_000_000  # when its agent starts
IMAGE = "2026-01-01T00:00:00+00:00"
"""When the nodes' images were made: no clock that is `kept` begins before."""
GROUP = 500
_HOLDS_EVENT = b'"events":[{'

RULES: dict[str, dict[str, Any]] = {
    "trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"},
    "silent": {"type": "absence", "of": "heartbeat", "for": "26h", "severity": "warning"},
}


class ScenarioError(ValueError):
    """The scenario is written wrongly; the text says what."""


class CrashError(BaseException):
    """The gateway was killed here. Not an Exception: no code of the gateway may catch it."""


class Wire:
    """What a broker does between clients: sessions that keep messages, retained messages, last wills."""

    def __init__(self) -> None:
        self.links: dict[str, WireLink] = {}
        self.to_gateway: deque[Message] = deque()
        self.running = True
        self.lose_next_event = False
        self._retained: dict[str, bytes] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """From a node; kept until the gateway takes it."""
        if self.lose_next_event and _HOLDS_EVENT in payload:
            self.lose_next_event = False
            return
        self.to_gateway.append(Message(topic, payload))
        if retain:
            self._retained[topic] = payload

    def down(self, topic: str, payload: bytes) -> None:
        """From the gateway to one node, when it is there: an ack that comes late is of no use."""
        link = self.links.get(parse(topic).node)
        if link is not None and link.up:
            link.listener.received(topic, payload)

    def restart_empty(self) -> None:
        """Killed, and started again with nothing remembered."""
        self.to_gateway.clear()
        self._retained.clear()
        for link in self.links.values():
            link.cut("broker gone")


class WireLink:
    """A node's link (see edge.agent.Link): up whenever the wire runs and nobody has cut it."""

    def __init__(self, wire: Wire, words: LinkWords, listener: Listener) -> None:
        self.wire, self.words, self.listener = wire, words, listener
        self.up = False
        self.allowed = True
        wire.links[words.client_id] = self

    def start(self) -> None:
        """Connects at the next step."""

    def connect_if_possible(self) -> None:
        """What the real link's thread does with its backoff, here once a step."""
        if not self.up and self.allowed and self.wire.running:
            self.up = True
            self.listener.link_up()

    def cut(self, reason: str) -> None:
        """The connection breaks; the broker speaks the last will."""
        if self.up:
            self.up = False
            self.wire.publish(self.words.will_topic, self.words.will, retain=True)
            self.listener.link_down(reason)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """To the gateway, or nowhere while the link is cut."""
        if self.up:
            self.wire.publish(topic, payload, retain=retain)

    def use(self, config: BrokerConfig) -> None:
        """There is only this wire."""

    def stop(self) -> None:
        """A clean end: no last will."""
        self.up = False
        self.wire.links.pop(self.words.client_id, None)


class _Store(SqliteStore):
    """The real store with a plug to pull."""

    plugged = True

    def write(self, points: Any, *, patience_s: float | None = None) -> None:
        """As the real one, or StoreDown."""
        if not self.plugged:
            raise StoreDown("scenario: the store is down")
        super().write(points, patience_s=patience_s)


class Skewed:
    """A node's clock (see edge.clock.Clock): the story's time, wrong by so much, and since its own boot."""

    def __init__(self, true: VirtualClock, off_us: int, booted_us: int) -> None:
        self._true, self.off_us, self._booted_us = true, off_us, booted_us
        self.disciplined = False

    def now(self) -> Instant:
        """What the machine believes."""
        utc_us, mono_us = self._true.now()
        return Instant(utc_us + self.off_us, mono_us - self._booted_us)

    async def sleep(self, seconds: float) -> None:
        """A wrong clock runs as fast as a right one."""
        await self._true.sleep(seconds)


@dataclass
class _Node:
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
    """One scenario while it is told. `tell` returns the transcript: one mapping a line."""

    def __init__(self, folder: Path, home: Path) -> None:
        """`folder` holds scenario.toml; `home` is where databases and outboxes are made."""
        self._script = tomllib.loads((folder / "scenario.toml").read_text(encoding="utf-8"))
        self._home = home
        self._start_us = _time_us(self._script.get("start", "2026-06-03T05:00:00+09:00"))
        self._mono_us = 10 * 86_400 * 1_000_000  # every node booted ten days ago
        self._clock = VirtualClock(self._start_us, self._mono_us)
        self._wire = Wire()
        self._transcript: list[dict[str, Any]] = []
        self._nodes: dict[str, _Node] = {}
        self._boots = 0
        self._plugged = True
        self._crash_before_acks = False
        self._gateway_up = False
        self._listening_since_us: int | None = None
        self._away_since_us: int | None = None

    async def tell(self) -> list[dict[str, Any]]:
        """Everything that happened, in order, with the totals as the last line."""
        with own_pins() as pins, _same_machine(self._home / "machine"), Phone(now_us=self._now_us) as phone:
            self._pins, self._phone = pins, phone
            self._start_gateway()
            for description in self._script["node"]:
                self._start_node(description, description.get("clock_off", "0s"), booted_us=0)
            try:
                for step in self._script["step"]:
                    await self._until(parse_duration(step["at"]))  # type: ignore[arg-type]
                    self._do(dict(step))
                    await self._settle()
                await self._drain()
            finally:
                for node in self._nodes.values():
                    if node.task is not None:
                        node.task.cancel()
                await asyncio.gather(*(node.task for node in self._nodes.values() if node.task), return_exceptions=True)
                self._stop_gateway()
                self._transcript.append(self._totals())
                for node in self._nodes.values():
                    node.outbox.close()
        return self._transcript

    # Time

    def _now_us(self) -> int:
        return self._clock.now().utc_us

    def _at_s(self) -> int:
        return (self._now_us() - self._start_us) // 1_000_000

    async def _until(self, at_s: float) -> None:
        while (left_s := at_s - (self._now_us() - self._start_us) / 1e6) > 0:
            # Where every node is switched off, a season passes in seconds.
            asleep = all(node.task is None or node.task.done() for node in self._nodes.values())
            await self._advance(min(ASLEEP_S, left_s) if asleep else STEP_S)

    async def _advance(self, seconds: float) -> None:
        await self._clock.advance(seconds)
        await self._settle()

    async def _settle(self) -> None:
        """Lets everything that is due happen, to its end."""
        for link in list(self._wire.links.values()):
            link.connect_if_possible()
        await settle()
        if self._gateway_up:
            try:
                self._pipeline.tick(self._now_us(), self._listening_since_us)
                while self._wire.running and self._wire.to_gateway:
                    taken = [self._wire.to_gateway.popleft() for _ in range(min(GROUP, len(self._wire.to_gateway)))]
                    self._take(taken)
                    await settle()
                self._deliverer.step()
            except CrashError:
                self._crash()

    def _take(self, taken: list[Message]) -> None:
        acks = self._pipeline.process(taken, self._now_us(), self._away_since_us)
        if self._crash_before_acks and any(_HOLDS_EVENT in message.payload for message in taken):
            self._crash_before_acks = False
            self._wire.to_gateway.extendleft(reversed(taken))  # not acknowledged: the session has them still
            raise CrashError
        for topic, payload in acks:
            self._wire.down(topic, payload)

    async def _drain(self) -> None:
        """A story ends when everything committed is acknowledged, or after ten more minutes."""
        for _ in range(int(600 / STEP_S)):
            if not any(node.outbox.waiting for node in self._nodes.values()):
                return
            await self._advance(STEP_S)

    # The gateway

    def _start_gateway(self) -> None:
        script, home = self._script, self._home
        telemetry = Telemetry()
        self._state = open_state(f"sqlite:///{home / 'state.db'}")
        self._store = _Store(SqliteStoreConfig(type="sqlite", path=home / "series.db"))
        self._store.plugged = self._plugged
        configs = TypeAdapter(dict[str, RuleConfig]).validate_python(script.get("rule", RULES))
        rules = [WatchedRule(name, config.severity, build_rule(config), config.kind) for name, config in configs.items()]
        deployments = Deployments(Deployment(**one) for one in script.get("deployment", []))
        zone = ZoneInfo("Asia/Tokyo")
        routes = [RouteConfig(to=["phone"])]
        book = Book({}, ["phone"], zone)
        paging = Paging(self._state, routes, deployments, book, Teller(deployments, zone), say=self._say)
        watch = Watch(self._state, rules, deployments, telemetry, self._say, paging)
        self._pipeline = Pipeline(self._state, self._store, watch, telemetry, self._say, paging=paging)
        phone = Webhook("phone", WebhookConfig(type="webhook", url=self._phone.url))  # type: ignore[arg-type]
        self._deliverer = Deliverer(
            self._state, {"contact.phone": _Noting(phone, self)}, telemetry, random.Random(1), self._now_us
        )
        self._listening_since_us = self._now_us()
        self._gateway_up = True

    def _stop_gateway(self) -> None:
        if self._gateway_up:
            self._store.close()
            self._state.close()
            self._gateway_up = False

    def _crash(self) -> None:
        """As -9: nothing more is written, nothing in memory survives."""
        self._line("gateway", state="killed")
        self._away_since_us = self._now_us()
        self._stop_gateway()

    def _say(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "alert":
            self._line("alert", rule=body["rule"], node=body["node"], device=body["device"], state=body["state"],
                       late=body["late"])  # fmt: skip

    def _line(self, what: str, **rest: Any) -> None:
        self._transcript.append({"at": self._at_s(), "what": what, **rest})

    def _totals(self) -> dict[str, Any]:
        state = open_state(f"sqlite:///{self._home / 'state.db'}")
        store = SqliteStore(SqliteStoreConfig(type="sqlite", path=self._home / "series.db"))
        try:
            with state.read() as connection:
                stored_events = connection.scalar(select(func.count()).select_from(events)) or 0
                by_type = {
                    row[0]: row[1] for row in connection.execute(select(events.c.type, func.count()).group_by(events.c.type))
                }
                refused = connection.scalar(select(func.count()).select_from(quarantine)) or 0
                lost = connection.scalar(select(func.coalesce(func.sum(losses.c.high - losses.c.low + 1), 0)))
            produced = sum(node.outbox.next_seq - 1 for node in self._nodes.values())
            stored = stored_events + store.count()
            return {
                "at": "end",
                "what": "totals",
                "missing": produced - stored,  # negative: something stands twice
                "waiting": sum(node.outbox.waiting for node in self._nodes.values()),
                "lost": lost,
                "quarantined": refused,
                "events": by_type,
                "notifications": len({one.id for one in self._phone.received if one.shown}),
            }
        finally:
            store.close()
            state.close()

    # The nodes

    def _start_node(self, description: dict[str, Any], clock_off: str, booted_us: int) -> None:
        name, says = description["name"], description.get("clock", "sync")
        machine = Skewed(self._clock, int(_signed_s(clock_off) * 1e6), booted_us)
        folder = self._home / name
        folder.mkdir(exist_ok=True)
        boot = f"{self._boots:016x}"
        self._boots += 1
        clock: Clock = machine
        drivers: dict[str, tuple[str, Driver]] = {}
        if says == "kept":
            keeper = Timekeeper(folder, boot, machine, lambda: machine.disciplined, image_us=_time_us(IMAGE))
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
            lambda words, listener: WireLink(self._wire, words, listener),
            boot=boot,
            clock_state=keeper.clock_state if says == "kept" else lambda: says,
            rng=random.Random(1),
        )
        self._nodes[name] = _Node(name, description, outbox, machine, agent, asyncio.ensure_future(agent.run()), pins, cards)

    # What a step can do

    def _do(self, step: dict[str, Any]) -> None:
        del step["at"]
        name = step.pop("do", None)
        action = getattr(self, f"_do_{name}", None)
        if action is None:
            there_are = sorted(known.removeprefix("_do_") for known in dir(self) if known.startswith("_do_"))
            raise ScenarioError(f"do = {name!r} is no step; there are: {', '.join(there_are)}")
        try:
            inspect.signature(action).bind(**step)
        except TypeError as error:
            raise ScenarioError(f"step {name!r}: {error}") from error
        action(**step)

    def _do_spring(self, node: str, device: str) -> None:
        self._pins.low(self._nodes[node].pins[device])

    def _do_reset(self, node: str, device: str) -> None:
        self._pins.high(self._nodes[node].pins[device])

    def _do_take_pictures(self, node: str, device: str, count: int) -> None:
        """The camera writes so many different pictures to its card."""
        for number in range(count):
            at_us = self._now_us() + number * 1_000_000
            save_picture(self._nodes[node].cards[device], at_us, picture(at_us, "wild-boar", seed=1))

    def _do_set_clock(self, node: str, off: str) -> None:
        """Somebody, or NTP, sets the node's clock: wrong by so much from now on. It goes on saying that it is right."""
        self._nodes[node].clock.off_us = int(_signed_s(off) * 1e6)

    def _do_sync_clock(self, node: str) -> None:
        """NTP reaches a node whose clock is `kept`: the clock is set right, and disciplined from now on."""
        self._nodes[node].clock.off_us, self._nodes[node].clock.disciplined = 0, True

    def _do_cut(self, node: str) -> None:
        self._wire.links[node].allowed = False
        self._wire.links[node].cut("cut")

    def _do_mend(self, node: str) -> None:
        self._wire.links[node].allowed = True

    def _do_switch_off(self, node: str) -> None:
        """The node loses its power: the broker speaks its will, nothing more comes."""
        one = self._nodes[node]
        self._do_cut(node)
        if one.task is not None:
            one.task.cancel()

    def _do_switch_on(self, node: str, clock_off: str) -> None:
        """It has power again: another boot, the same card, and a clock that is wrong by so much and that nothing disciplines."""
        one = self._nodes[node]
        one.outbox.close()
        self._start_node(one.description, clock_off, booted_us=self._clock.now().mono_us - BOOTED_AGO_US)

    def _do_lose_next_event(self) -> None:
        """The broker takes the next batch that holds an event, says so, and forgets it."""
        self._wire.lose_next_event = True

    def _do_kill_broker(self) -> None:
        self._wire.running = False
        self._wire.restart_empty()

    def _do_start_broker(self) -> None:
        self._wire.running = True

    def _do_kill_gateway_before_acks(self) -> None:
        """The next group that holds an event is stored and judged, and the gateway dies before it can say so."""
        self._crash_before_acks = True

    def _do_kill_gateway(self) -> None:
        self._crash()

    def _do_start_gateway(self) -> None:
        self._start_gateway()

    def _do_store_down(self) -> None:
        self._plugged = self._store.plugged = False

    def _do_store_up(self) -> None:
        self._plugged = self._store.plugged = True

    def _do_commit_readings(self, node: str, count: int, device: str = "bulk") -> None:
        """So many readings at once in the node's outbox, as after days without a link."""
        one = self._nodes[node]
        now = one.clock.now()
        ago = [now._replace(utc_us=now.utc_us - i * 1_000_000, mono_us=now.mono_us - i * 1_000_000) for i in range(count, 0, -1)]
        one.outbox.put([Reading(at, device, "rssi", -float(i % 90)) for i, at in enumerate(ago)], "sync")

    def _do_send_bad_messages(self, node: str, count: int) -> None:
        """Messages that can't be used, each in its own way, among the good ones."""
        assert is_name(node)
        good = topic_for(Topic(node, Channel.LIVE))
        batch = {"v": 1, "epoch": "ab" * 8, "boot": "0" * 16, "clock": "sync", "t0": self._now_us(), "mono0": 0,
                 "sent": self._now_us(), "sent_mono": None, "readings": [], "events": [], "lost": []}  # fmt: skip
        bad: list[tuple[str, bytes]] = [
            (good, b"\xff\xfe not JSON"),
            (good, b"{}"),
            (good, json.dumps(batch | {"v": 2}).encode()),
            (good, json.dumps(batch | {"readings": [[0, 0, "x", "rssi", 1]]}).encode()),
            (good, json.dumps(batch | {"readings": [[1, 0, "x", "rssi", 1], [1, 0, "x", "rssi", 1]]}).encode()),
            (good, b"[" * 100_000),
            (f"satomori/v1/63/{node}/up/live", json.dumps(batch).encode()),
            (good.replace("up/live", "up/nothing"), json.dumps(batch).encode()),
            ("elsewhere/entirely", b"hello"),
            (good, b""),
        ]
        for number in range(count):
            topic, payload = bad[number % len(bad)]
            self._wire.to_gateway.append(Message(topic, payload))

    def _do_look(self) -> None:
        """Only lets the time pass up to here."""

    def _do_show_events(self, node: str) -> None:
        """Notes what the gateway has of the node, in the order in which it came, and when it says that was."""
        with self._state.read() as connection:
            for row in connection.execute(select(events).where(events.c.node == node).order_by(events.c.id)):
                at_s = (row.time_us - self._start_us) // 1_000_000
                self._line("event", device=row.device, type=row.type, happened=at_s, late=row.late, trusted=row.clock_trusted)

    def _do_count_waiting(self, node: str) -> None:
        """Notes how many records the node holds because nobody acknowledged them."""
        self._line("waiting", node=node, records=self._nodes[node].outbox.waiting)


MACHINE = {
    "proc/loadavg": "0.20 0.15 0.10 1/150 900",
    "proc/meminfo": "MemTotal: 440000 kB\nMemAvailable: 250000 kB",
    "proc/self/status": "VmRSS: 50000 kB",
    "proc/net/wireless": "wlan0: 0000 54. -62. -256 0 0 0 0 0 0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "48000",
}
"""What nodes find under / : a Pi over Wi-Fi. Otherwise a story would end as the sensors of this machine have it."""


@contextmanager
def _same_machine(root: Path) -> Iterator[None]:
    for name, content in MACHINE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n", encoding="ascii")
    before, own_machine.ROOT = own_machine.ROOT, root
    try:
        yield
    finally:
        own_machine.ROOT = before


class _Noting:
    """The phone's channel, which writes each delivery into the transcript."""

    knows_repetition = True

    def __init__(self, inner: Webhook, story: Story) -> None:
        self._inner, self._story = inner, story

    def send(self, id_: str, to: str, message: Told) -> Any:
        """As the real one."""
        outcome = self._inner.send(id_, to, message)
        self._story._line("phone", title=message.title, body=message.body, late=message.late)
        return outcome

    def close(self) -> None:
        """As the real one."""
        self._inner.close()


def _time_us(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1e6)


def _signed_s(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    return sign * float(parse_duration(text.removeprefix("-")))  # type: ignore[arg-type]


def told(folder: Path, home: Path) -> list[dict[str, Any]]:
    """The transcript of a scenario's folder."""
    return asyncio.run(Story(folder, home).tell())


def expected(folder: Path) -> list[dict[str, Any]]:
    """What must come of it: each line of expected.jsonl."""
    lines = (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
