"""The gateway in several processes over one PostgreSQL: what each role runs, and what the processes tell each other.

    ingest     hears the partitions that it holds; commits records and facts; hands readings on      any number
    rules      judges, asks people, does the chores                                                  one works, others stand by
    deliver    sends                                                                                 any number
    api        answers                                                                               any number

No process calls another. Each commits, under the number of its worker, and says so (gateway.news); whoever misses that looks by
itself a moment later. A process that was taken for dead ends, and its supervisor starts it anew. One process may have several
roles, or all.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy.exc import OperationalError

from edge.contract.topics import parse
from gateway import vitals
from gateway.alerting.mute import muting_of
from gateway.chores import Chore, Chores
from gateway.config import GatewayConfig
from gateway.core import Core, broker_of, now_us, open_core, settling
from gateway.errors import ConfigError
from gateway.feed import RESYNC, Body, Feed
from gateway.flow.mode import tell_mode, town_mode
from gateway.ingest import Ingest
from gateway.judging import FORGETS_S, Handing, Judging
from gateway.leases import RULES, Beating, Worker, all_held, faults_of, listening_since_us
from gateway.news import CHANNEL, FEED, News
from gateway.nodes.conduct import Conduct
from gateway.nodes.outgoing import Outgoing
from gateway.own import Condition, Own, Probe
from gateway.partitions import Partitions
from gateway.pipeline import Pipeline
from gateway.reach import Outside, Reach, open_reach
from gateway.rules import build_rule
from gateway.running import Running, thread_of
from gateway.shares import Shares
from gateway.state import State
from gateway.watch import Watch

log = logging.getLogger(__name__)

Role = Literal["ingest", "rules", "deliver", "api"]
ROLES: tuple[Role, ...] = get_args(Role)

JUDGE, SPEAK, DELIVER = "judge", "speak", "deliver"
"""What a process may be rung for, beside a chore by its name: facts, messages to nodes, messages to people."""
LEARN_S = 30.0
STAND_BY_S = 1.0


class SharedFeed(Feed):
    """What happened, heard in every process that has the role api."""

    tell: Callable[[str, Any, str], None]
    """gateway.news.News.say; set before anybody says anything."""

    def say(self, kind: str, body: Body) -> None:
        """Tells every process that somebody may watch, this one too."""
        self.tell(f"feed:{kind}", body() if callable(body) else body, FEED)

    def heard(self, kind: str, body: Mapping[str, Any]) -> None:
        """Tells every listener of this process."""
        super().say(kind, body)


@dataclass
class _Part:
    """What one role has in this process."""

    threads: list[tuple[str, Callable[[], None]]]
    stops: list[Callable[[], None]]
    faults: Callable[[], Mapping[str, Any]]
    rings: dict[str, Callable[[], None]] = field(default_factory=dict)
    publish: Callable[[str, bytes], None] | None = None
    closes: list[Callable[[], None]] = field(default_factory=list)


@asynccontextmanager
async def running(config: GatewayConfig, roles: Sequence[Role]) -> AsyncIterator[Running]:
    """These roles while the block runs. ConfigError when something can't be opened."""
    if not config.state.is_shared:
        raise ConfigError("state.url: several processes need PostgreSQL: postgresql://user@host/database")
    feed = SharedFeed()
    parts: list[_Part] = []
    core = open_core(config, feed)
    news = _listening(core, feed, parts, watched="api" in roles)
    failed, loop = asyncio.Event(), asyncio.get_running_loop()

    threads: list[threading.Thread] = []
    leases: list[threading.Thread] = []
    beatings: list[Beating] = []

    def fenced() -> None:
        loop.call_soon_threadsafe(failed.set)

    def start(name: str, run: Callable[[], None], among: list[threading.Thread]) -> None:
        among.append(thread_of(name, run, loop, failed))
        among[-1].start()

    async with AsyncExitStack() as stack:
        stack.callback(core.close)
        port, node_port = 0, None
        for role in roles:
            worker = Worker(core.state, role, config.state.lease)
            stack.callback(worker.leave)
            # At once: on a busy machine what follows may take longer than a lease.
            beating = Beating(worker, fenced)
            stack.callback(beating.stop)
            start(f"{role} lease", beating.run, leases)
            match role:
                case "ingest":
                    part = _ingest(core, worker, news)
                case "rules":
                    part = _rules(core, worker, news)
                case "deliver":
                    part = _deliver(core, worker, news)
                case "api":
                    part, listeners = _api(core, worker, news)
                    port, node_port = await stack.enter_async_context(listeners)
            for close in part.closes:
                stack.callback(close)
            beating.faults = part.faults
            beatings.append(beating)
            parts.append(part)
        for name, run in [
            ("saying", news.run_saying),
            ("hearing", news.run_hearing),
            *(one for part in parts for one in part.threads),
        ]:
            start(name, run, threads)
        try:
            yield Running(port, failed, core.telemetry, node_port)
        finally:
            # What is under way may take longer than a lease, an attempt at a slow mail server: who is taken for dead meanwhile
            # has it done a second time by another.
            for stops, ending in (
                ([news.stop, *(stop for part in parts for stop in part.stops)], threads),
                ([one.stop for one in beatings], leases),
            ):
                for stop in stops:
                    stop()
                for thread in ending:
                    await asyncio.to_thread(thread.join, 30)


def _listening(core: Core, feed: SharedFeed, parts: list[_Part], *, watched: bool) -> News:
    """What comes from the other processes goes to whom it concerns in this one."""

    def hear(kind: str, body: Any) -> None:
        what, _, of = kind.partition(":")
        match what:
            case "feed":
                feed.heard(of, body)
            case "learn":
                core.learn()
            case "ring":
                for part in parts:
                    if (ring := part.rings.get(of)) is not None:
                        ring()
            case "publish":
                for part in parts:
                    if part.publish is not None:
                        part.publish(of, body.encode())

    def again() -> None:
        core.learn()
        feed.heard(RESYNC, {})
        for part in parts:
            for ring in part.rings.values():
                ring()

    news = News(core.state, hear, again, (CHANNEL, FEED) if watched else (CHANNEL,))
    feed.tell = news.say
    return news


def _ingest(core: Core, worker: Worker, news: News) -> _Part:
    config, state = core.config, core.state.guarded(worker.guard, worker.alive)
    own = Own()
    conduct = Conduct(state, own.condition)
    shares = Shares(config.share, conduct.note, core.telemetry.left_unread.inc)
    outgoing = Outgoing(state, core.care.signer if core.care else None)
    handing = Handing(state, _wanted(core), lambda: news.say(f"ring:{JUDGE}"), core.telemetry.handed_dropped.inc)
    pipeline = Pipeline(
        state,
        core.store,
        handing,
        core.telemetry,
        core.feed.say,
        outgoing=outgoing,
        keeps=core.keeps(),
    )
    pipeline.contain(conduct.note, shares.charge)
    partitions = Partitions(worker, now_us, lambda: pipeline.store_down)
    broker = broker_of(config.broker, core.care)
    ingest = Ingest(broker, pipeline, core.telemetry, core.rng, now_us, None, outgoing, shares, partitions=partitions)
    outgoing.speaks_to = ingest.hears
    chores = Chores(
        [
            Chore("conduct", 5, conduct.run),
            Chore("waiting", 15, lambda at_us: vitals.waiting(state, core.telemetry, at_us)),
            Chore("handed", FORGETS_S, handing.forget),
            *settling(core.store),
            _learning(core),
        ],
        core.telemetry,
        now_us,
    )

    def faults() -> Mapping[str, Any]:
        found = own.standing()
        if ingest.fault is not None:
            found["broker"] = Condition("firing", ingest.fault, {}, "")
        if pipeline.store_down:
            found["store"] = Condition("firing", "the series store takes no points", {}, "")
        return found

    def publish(topic: str, payload: bytes) -> None:
        if ingest.hears(parse(topic).node):
            ingest.publish(topic, payload)

    threads = [("ingest", ingest.run), ("ingest chores", chores.run)]
    return _Part(threads, [ingest.stop, chores.stop], faults, {SPEAK: ingest.ring}, publish)


def _rules(core: Core, worker: Worker, news: News) -> _Part:
    config, state = core.config, core.state.guarded(worker.guard)
    fellows = _Fellows(core)
    leads, stopped = threading.Event(), threading.Event()

    def ring(name: str) -> None:
        # A chore is this process's own; messages to people are others'.
        news.say(f"ring:{name}")

    def say(kind: str, body: Mapping[str, Any]) -> None:
        core.feed.say(kind, body)
        if kind == "alert":
            ring(DELIVER)

    outside = Outside(
        probes={
            "broker": Probe(lambda: fellows.fault("broker"), 60),
            "store": Probe(lambda: fellows.fault("store"), 60),
            "disk": Probe(core.shortage, 60),
            "shelf": Probe(core.media.full, 60),
        },
        publish=lambda topic, payload: news.say(f"publish:{topic}", payload.decode()),
        well=lambda: {**fellows.well(), "alerts": now_us() - (reach.paging.looked_us or 0) < 120_000_000},
        say=say,
        learn=_teaching(core, news),
        chores=[
            *core.chores(state, lambda: installations),
            Chore("fellows", 2, lambda _: fellows.look(reach.own)),
            Chore("dead", 5, lambda _: reach.deliverer.count()),
            _learning(core),
        ],
        ring=ring,
        worker=worker.id,
    )
    reach = open_reach(config, state, core.deployments, core.telemetry, now_us, core.rng, outside)
    installations = core.installations(state, reach.paging)
    muting = muting_of(config.inhibit, config.maintenance, config.flapping, core.zone)
    watch = Watch(state, [*core.rules, *reach.rules], core.deployments, core.telemetry, say, reach.paging, muting)
    judging = Judging(state, watch, reach.paging, now_us, lambda: listening_since_us(core.state))

    def may_lead() -> bool:
        try:
            if not worker.take([RULES], 1):
                return False
            _catch_up(core, state)
        except OperationalError:
            return False  # gateway.leases.Beating says why
        return True

    def lead() -> None:
        while not may_lead():
            if stopped.wait(STAND_BY_S):
                return
        log.warning("this process judges now")
        leads.set()
        judging.run()

    def chores() -> None:
        while not leads.wait(STAND_BY_S):
            if stopped.is_set():
                return
        reach.chores.run()

    rings: dict[str, Callable[[], None]] = {JUDGE: judging.ring}
    for name in reach.chores.names:
        rings[name] = _ringing(reach, name)
    return _Part(
        [("rules", lead), ("chores", chores)],
        [stopped.set, judging.stop, reach.chores.stop],
        dict,
        rings,
        closes=[reach.close],
    )


def _catch_up(core: Core, state: State) -> None:
    """Before one that stood by begins to judge."""
    core.learn()
    with state.write() as connection:
        if town_mode(connection) == "disaster":
            tell_mode(connection, now_us())


def _deliver(core: Core, worker: Worker, news: News) -> _Part:
    reach = _reach(core, core.state.guarded(worker.guard), worker, news)
    chores = Chores([_learning(core)], core.telemetry, now_us)
    threads = [("deliver", reach.deliverer.run), ("deliver chores", chores.run)]
    return _Part(
        threads, [reach.deliverer.stop, chores.stop], reach.own.standing, {DELIVER: reach.deliverer.ring},
        closes=[reach.close],
    )  # fmt: skip


def _api(core: Core, worker: Worker, news: News) -> tuple[_Part, AbstractAsyncContextManager[tuple[int, int | None]]]:
    from gateway.doors import deps_of, serving  # it brings FastAPI, which no other role has a use for

    reach = _reach(core, core.state, worker, news)
    conduct = Conduct(core.state, reach.own.condition)
    fellows = _Fellows(core)
    chores = Chores(
        [
            Chore("conduct", 5, conduct.run),
            Chore("dead", 5, lambda _: reach.deliverer.count()),
            *_asked_here(reach),
            _learning(core),
        ],
        core.telemetry,
        now_us,
    )

    def health() -> Mapping[str, bool]:
        return {**fellows.well(), "dead_letters": reach.deliverer.dead == 0, "disk": core.shortage() is None}

    deps = deps_of(core, reach, health, lambda: news.say(f"ring:{DELIVER}"), lambda: news.say(f"ring:{SPEAK}"))
    part = _Part([("api chores", chores.run)], [chores.stop], reach.own.standing, closes=[reach.close])
    return part, serving(core, deps, conduct)


def _asked_here(reach: Reach) -> list[Chore]:
    """What people ask of a process that answers them, and that only its memory knows: links to come in by, and what they said."""
    said = Chore("said", 1, lambda _: reach.paging.say_moved())
    return [said] if reach.accounts is None else [said, Chore("accounts", 1, reach.accounts.step)]


def _reach(core: Core, state: State, worker: Worker, news: News) -> Reach:
    """Of a process that does no chores and judges nothing."""
    outside = Outside(
        probes={},
        publish=lambda topic, payload: news.say(f"publish:{topic}", payload.decode()),
        well=dict,
        say=core.feed.say,
        learn=_teaching(core, news),
        ring=lambda name: news.say(f"ring:{name}"),
        worker=worker.id,
    )
    return open_reach(core.config, state, core.deployments, core.telemetry, now_us, core.rng, outside)


class _Fellows:
    """How the other processes do, by what they say of themselves."""

    def __init__(self, core: Core) -> None:
        self._state = core.state
        self._standing: set[str] = set()
        self._faults: dict[str, str] = {}

    def look(self, own: Own) -> None:
        """Has what they say judged like what this process says."""
        said = faults_of(self._state)
        conditions = {part: one for role in said.values() for faults in role for part, one in faults.items()}
        self._faults = {part: str(conditions[part][1]) for part in ("broker", "store") if part in conditions}
        if not said.get("ingest"):
            self._faults["broker"] = "no process with the role ingest works"
        for part, (level, reason, facts, opening) in conditions.items():
            if part not in ("broker", "store"):
                own.condition(part, level, reason, facts, opening)
        for part in self._standing - conditions.keys():
            own.condition(part, "ok")
        self._standing = {part for part in conditions if part not in ("broker", "store")}

    def fault(self, part: str) -> str | None:
        """Why it is not well, at the last look."""
        return self._faults.get(part)

    def well(self) -> dict[str, bool]:
        """Each part without which something stands still, and whether it works: none that nobody can ask after."""
        try:
            said, are_held = faults_of(self._state), all_held(self._state)
        except OperationalError:
            return dict.fromkeys(("broker", "store", "ingest", "rules", "deliver"), False)
        faulty = {part for role in said.values() for faults in role for part in faults}
        return {
            "broker": bool(said.get("ingest")) and "broker" not in faulty,
            "store": "store" not in faulty,
            "ingest": are_held,
            "rules": bool(said.get("rules")),
            "deliver": bool(said.get("deliver")),
        }


def _wanted(core: Core) -> frozenset[str]:
    """The metrics that rules want to see."""
    config = core.config
    rules = [rule.rule for rule in core.rules] + ([build_rule(config.canary.rule)] if config.canary else [])
    return frozenset[str]().union(*(rule.metrics for rule in rules))


def _learning(core: Core) -> Chore:
    """Who missed a word of it knows whose tag is whose after this long."""
    return Chore("learning", LEARN_S, lambda _: core.learn())


def _teaching(core: Core, news: News) -> Callable[[], None]:
    def learn() -> None:
        core.learn()  # at once: who asked goes on by it
        news.say("learn")

    return learn


def _ringing(reach: Reach, name: str) -> Callable[[], None]:
    return lambda: reach.chores.ring(name)
