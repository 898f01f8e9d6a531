"""The gateway's wiring, and nothing else: what is made of the configuration, and which thread runs what.

thread `ingest`    Ingest -> Pipeline -> Watch        the only writer of facts and alerts' moves
thread `deliver`   Deliverer and its pool
thread `chores`    what may come a little late: what people wrote to us, tests of contacts, the canary, the outside watcher
asyncio            the API, its streams and pages
"""

import asyncio
import gc
import logging
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from gateway.alerting.mute import muting_of
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.server import serve
from gateway.api.tokens import read_tokens
from gateway.chores import Chore
from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.feed import Feed
from gateway.flow.mode import tell_mode, town_mode
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.installations import Installations, telling
from gateway.keeping.late import Keeps, late_by
from gateway.keeping.retention import Erasures, replay
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import Enrolled
from gateway.nodes import ended
from gateway.nodes.conduct import Conduct
from gateway.nodes.listener import Care, create_node_app, listening, open_care
from gateway.nodes.outgoing import Outgoing
from gateway.open_days import CapturesOpened, OpenDays
from gateway.own import Probe
from gateway.pipeline import Pipeline
from gateway.reach import Outside, open_reach
from gateway.relations import Relations
from gateway.rules import Surroundings, build_rule
from gateway.shares import Shares
from gateway.state import State, open_state
from gateway.state.tables import cursors
from gateway.state.upsert import upsert
from gateway.store import SqliteStore, open_store, readable
from gateway.telemetry import Telemetry
from gateway.tiles import open_tiles
from gateway.watch import Watch, WatchedRule

log = logging.getLogger(__name__)

LISTENED = "listened_until_us"
LISTENED_EVERY_S = 10.0


class Running(NamedTuple):
    """A gateway at work."""

    port: int
    """Of the API."""
    failed: asyncio.Event
    """Set when a part of it ended by an error: stop, and start anew. Half a gateway would look alive and be deaf."""
    node_port: int | None = None
    """Of the node listener; None without `[nodes]`."""


def now_us() -> int:
    """The gateway's clock: UTC in µs. The one place that reads it."""
    return time.time_ns() // 1000


def calm_collector() -> None:
    """Has Python look for cyclic garbage seldom, and never in what was imported: under load it takes a tenth of the time.

    A group of messages makes some 50,000 objects, almost all of them without cycles: their count of references frees them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def take_short_turns() -> None:
    """Has Python's threads take turns ten times as often as by default.

    A message on its way waits for its turn some thirty times, each time for as long as ingest, when it is busy, keeps it: with
    the default of 5 ms deliveries came to a third of their rate.
    """
    sys.setswitchinterval(0.0005)


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Running]:  # noqa: PLR0915 - a line for each part
    """The whole gateway while the block runs. ConfigError when something can't be opened."""
    rng = random.SystemRandom()
    telemetry, feed = Telemetry(), Feed()
    deployments = Deployments(config.deployment)
    tokens = read_tokens(config.api.tokens_file)
    state = open_state(config.state.url)
    state.erasures_file = config.keep.erasures_file
    replay(state, now_us())  # before anything is read: an older database may have brought somebody back
    care = open_care(config.nodes, state, now_us) if config.nodes else None
    store = open_store(config.store)
    media = MediaShelf(config.media.folder, state, now_us, config.media.max_mib * 1024 * 1024)
    tiles = open_tiles(config.map, Path(config.state.url.removeprefix("sqlite:///")), now_us)
    disks = [media.disk, *([store.disk] if isinstance(store, SqliteStore) else [])]

    def say(kind: str, body: Mapping[str, Any]) -> None:
        feed.say(kind, body)
        if kind == "alert":
            reach.deliverer.ring()

    calm_collector()
    take_short_turns()
    enrolled = Enrolled()
    with state.write() as connection:
        enrolled.read(connection)
        if town_mode(connection) == "disaster":
            tell_mode(connection, now_us())
    town = Surroundings(deployments, ZoneInfo(config.time_zone), config.area, enrolled,
                        keep_sightings_s=config.keep.sightings, pictures_told=config.tells_pictures)  # fmt: skip
    rules = [WatchedRule(name, rule.severity, build_rule(rule, town), rule.kind, rule.mode) for name, rule in config.rule.items()]
    zone = ZoneInfo(config.time_zone)
    outside = Outside(
        probes={
            "broker": Probe(lambda: ingest.fault, 60),
            "store": Probe(lambda: "the series store takes no points" if pipeline.store_down else None, 60),
            "disk": Probe(lambda: next(filter(None, (disk.shortage() for disk in disks)), None), 60),
        },
        publish=lambda topic, payload: ingest.publish(topic, payload),  # noqa: PLW0108 - it is made further down
        well=lambda: {**{thread.name: thread.is_alive() for thread in threads},
                      # A thread may live and hang: who was to be asked next is then asked by nobody.
                      "alerts": now_us() - (paging.looked_us or 0) < 120_000_000,
                      "deliveries": now_us() - (reach.deliverer.looked_us or 0) < 30_000_000},
        say=say,
        learn=_learning(state, enrolled),
        chores=[Chore("erasures", 5, Erasures(state, enrolled.read).run),
                *([Chore("open_data", 600, OpenDays(state, reader, config.open_data, config.area, zone).run)]
                  if config.open_data and (reader := readable(store)) else []),
                *([Chore("open_captures", 600, CapturesOpened(state, config.open_data, deployments, zone).run)]
                  if config.open_data and config.open_data.captures else []),
                Chore("conduct", 5, lambda at_us: conduct.run(at_us)),  # noqa: PLW0108 - likewise
                Chore("installations", 5, lambda at_us: installations.close(at_us)),  # noqa: PLW0108 - likewise
                *([Chore("ended", ended.EVERY_S, ended.Ended(state, broker_of(config.broker, care)).run)] if care else [])],
    )  # fmt: skip
    reach = open_reach(config, state, deployments, telemetry, now_us, rng, outside)
    paging = reach.paging
    installations = Installations(state, telling(paging, deployments))
    shares = Shares(config.share, (conduct := Conduct(state, reach.own.condition)).note, telemetry.left_unread.inc)
    rules += reach.rules
    muting = muting_of(config.inhibit, config.maintenance, config.flapping, zone)
    watch = Watch(state, rules, deployments, telemetry, say, paging, muting)
    outgoing = Outgoing(state, care.signer if care else None)
    pipeline = Pipeline(
        state,
        store,
        watch,
        telemetry,
        say,
        outgoing=outgoing,
        paging=paging,
        keeps=Keeps(lambda tag: enrolled.whose(tag) is not None, late_by(config.keep)),
    )
    ingest = Ingest(broker_of(config.broker, care), pipeline, telemetry, rng, now_us, _listened_until(state), outgoing, shares)
    pipeline.contain(conduct.note, shares.charge)
    deps = Deps(
        state=state,
        store=readable(store),
        feed=feed,
        media=media,
        tokens=tokens,
        telemetry=telemetry,
        now_us=now_us,
        health=lambda: {"broker": ingest.fault is None, "store": not pipeline.store_down, "ingest": threads[0].is_alive(),
                        "deliver": threads[1].is_alive(), "chores": threads[2].is_alive(),
                        "dead_letters": reach.deliverer.dead == 0,
                        "disk": all(disk.shortage() is None for disk in disks)},
        deployments=deployments,
        moved=paging.moved,
        paging=paging,
        mode_to=config.people.hear_mode if config.people else (),
        answer_page=reach.answer_page,
        desk=reach.desk,
        accounts=reach.accounts,
        inbox=reach.inbox,
        line_secret=reach.line_secret,
        push=reach.push,
        twilio=reach.twilio,
        rules=config.rule,
        areas=config.area,
        open_data=config.open_data,
        tiles=tiles,
        links=config.map.link,
        alerts_kept_us=config.keep.alerts * 1_000_000,
        zone=zone,
        enrolled=enrolled,
        world=Relations(state, deployments, enrolled, now_us),
        search=reach.search,
        consents=reach.consents,
        labels=reach.labels,
        look_every_us=int(config.mimamori.look_every * 1e6),
        ring_deliveries=reach.deliverer.ring,
        stale_after_s=config.api.stale_after_s,
        signer=care.signer if care else None,
        claims=care.claims if care else None,
        taken_names=config.taken_names,
        ring=ingest.ring,
    )  # fmt: skip
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads = [_thread("ingest", ingest.run, loop, failed), _thread("deliver", reach.deliverer.run, loop, failed),
               _thread("chores", reach.chores.run, loop, failed)]  # fmt: skip
    try:
        async with (
            serve(
                create_app(deps),
                config.api.host,
                config.api.port,
                proxies=config.api.trusted_proxies,
                most_of_one=config.api.connections_per_address,
            ) as port,
            listening(create_node_app(deps, care, conduct.note), config.nodes, care, now_us)
            if config.nodes and care
            else nullcontext() as nodes,
        ):
            for thread in threads:
                thread.start()
            remembering = asyncio.create_task(_remember_listening(state, ingest))
            try:
                yield Running(port, failed, nodes)
            finally:
                remembering.cancel()
                ingest.stop()
                reach.chores.stop()
                reach.deliverer.stop()
                for thread in threads:
                    await asyncio.to_thread(thread.join, 30)
    finally:
        if tiles is not None:
            tiles.close()
        reach.close()
        store.close()
        state.close()


def broker_of(config: GatewayBrokerConfig, care: Care | None) -> GatewayBrokerConfig:
    """With a client id that no node can guess, unless one was chosen: on NATS, who comes with our id puts us out."""
    if care is None or "client_id" in config.model_fields_set:
        return config
    return config.model_copy(update={"client_id": f"satomori-gateway-{care.signer.derived('client id')[:15]}"})


def _thread(name: str, run: Callable[[], None], loop: asyncio.AbstractEventLoop, failed: asyncio.Event) -> threading.Thread:
    """A thread whose failure is told to who runs the gateway."""

    def guarded() -> None:
        try:
            run()
        except BaseException:
            log.exception("the %s thread failed; the gateway must be started again", name)
            loop.call_soon_threadsafe(failed.set)

    return threading.Thread(target=guarded, name=name, daemon=True)


def _learning(state: State, enrolled: Enrolled) -> Callable[[], None]:
    """Has this process know anew whose tag is whose."""

    def learn() -> None:
        with state.read() as connection:
            enrolled.read(connection)

    return learn


def _listened_until(state: State) -> int | None:
    with state.read() as connection:
        return connection.scalar(select(cursors.c.value).where(cursors.c.name == LISTENED))


async def _remember_listening(state: State, ingest: Ingest) -> None:
    """Writes down, now and then, that we listen: after a stop, messages may have waited in the broker since."""
    while True:
        if ingest.fault is None:
            try:
                await asyncio.to_thread(_save_listened, state)
            except OperationalError as error:
                log.warning("the state database can't be told that we listen: %s; trying again", error.orig)
        await asyncio.sleep(LISTENED_EVERY_S)


def _save_listened(state: State) -> None:
    with state.write() as connection:
        connection.execute(upsert(cursors, "value"), {"name": LISTENED, "value": now_us()})
