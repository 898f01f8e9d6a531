"""The gateway in one process: which thread runs what. Several processes are wired in gateway.roles.

thread `ingest`    Ingest -> Pipeline -> Watch        the only writer of facts and alerts' moves
thread `deliver`   Deliverer and its pool
thread `chores`    what may come a little late: what people wrote to us, tests of contacts, the canary, the outside watcher
asyncio            the API, its streams and pages
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from gateway.alerting.mute import muting_of
from gateway.chores import Chore
from gateway.config import GatewayConfig
from gateway.core import broker_of, now_us, open_core, settling
from gateway.doors import deps_of, serving
from gateway.feed import Body, Feed
from gateway.flow.mode import tell_mode, town_mode
from gateway.ingest import Ingest
from gateway.nodes.conduct import Conduct
from gateway.nodes.outgoing import Outgoing
from gateway.own import Probe
from gateway.pipeline import Pipeline
from gateway.reach import Outside, open_reach
from gateway.running import Running, thread_of
from gateway.shares import Shares
from gateway.state import State
from gateway.state.tables import cursors
from gateway.state.upsert import upsert
from gateway.watch import Watch

log = logging.getLogger(__name__)

LISTENED = "listened_until_us"
LISTENED_EVERY_S = 10.0


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Running]:
    """The whole gateway while the block runs. ConfigError when something can't be opened."""
    core = open_core(config, Feed())
    state, telemetry = core.state, core.telemetry
    with state.write() as connection:
        if town_mode(connection) == "disaster":
            tell_mode(connection, now_us())

    def say(kind: str, body: Body) -> None:
        core.feed.say(kind, body)
        if kind == "alert":
            reach.deliverer.ring()

    outside = Outside(
        probes={
            "broker": Probe(lambda: ingest.fault, 60),
            "store": Probe(lambda: "the series store takes no points" if pipeline.store_down else None, 60),
            "disk": Probe(core.shortage, 60),
            "shelf": Probe(core.media.full, 60),
        },
        publish=lambda topic, payload: ingest.publish(topic, payload),  # noqa: PLW0108 - it is made further down
        well=lambda: {**{thread.name: thread.is_alive() for thread in threads},
                      # A thread may live and hang: who was to be asked next is then asked by nobody.
                      "alerts": now_us() - (reach.paging.looked_us or 0) < 120_000_000,
                      "deliveries": now_us() - (reach.deliverer.looked_us or 0) < 30_000_000},
        say=say,
        learn=core.learn,
        chores=[*core.chores(state, lambda: installations), *settling(core.store),
                Chore("conduct", 5, lambda at_us: conduct.run(at_us))],  # noqa: PLW0108 - likewise
    )  # fmt: skip
    reach = open_reach(config, state, core.deployments, telemetry, now_us, core.rng, outside)
    installations, conduct = core.installations(state, reach.paging), Conduct(state, reach.own.condition)
    shares = Shares(config.share, conduct.note, telemetry.left_unread.inc)
    muting = muting_of(config.inhibit, config.maintenance, config.flapping, core.zone)
    watch = Watch(state, [*core.rules, *reach.rules], core.deployments, telemetry, say, reach.paging, muting)
    outgoing = Outgoing(state, core.care.signer if core.care else None)
    pipeline = Pipeline(state, core.store, watch, telemetry, say, outgoing=outgoing, paging=reach.paging, keeps=core.keeps())
    ingest = Ingest(
        broker_of(config.broker, core.care), pipeline, telemetry, core.rng, now_us, _listened_until(state), outgoing, shares
    )
    pipeline.contain(conduct.note, shares.charge)

    def health() -> Mapping[str, bool]:
        return {"broker": ingest.fault is None, "store": not pipeline.store_down,
                **{thread.name: thread.is_alive() for thread in threads},
                "dead_letters": reach.deliverer.dead == 0, "disk": core.shortage() is None}  # fmt: skip

    deps = deps_of(core, reach, health, reach.deliverer.ring, ingest.ring)
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads = [thread_of("ingest", ingest.run, loop, failed), thread_of("deliver", reach.deliverer.run, loop, failed),
               thread_of("chores", reach.chores.run, loop, failed)]  # fmt: skip
    try:
        async with serving(core, deps, conduct) as (port, nodes):
            for thread in threads:
                thread.start()
            remembering = asyncio.create_task(_remember_listening(state, ingest))
            try:
                yield Running(port, failed, telemetry, nodes)
            finally:
                remembering.cancel()
                ingest.stop()
                reach.chores.stop()
                reach.deliverer.stop()
                for thread in threads:
                    await asyncio.to_thread(thread.join, 30)
    finally:
        reach.close()
        core.close()


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
