"""What every process of the gateway opens, whatever its work is. No threads here, and nothing that answers: see gateway.doors."""

import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway import vitals
from gateway.chores import Chore
from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.feed import Feed
from gateway.ingest import GatewayBrokerConfig
from gateway.installations import Installations, telling
from gateway.keeping.late import Keeps, late_by
from gateway.keeping.retention import Erasures, Readings, replay
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import Enrolled
from gateway.nodes import ended
from gateway.nodes.care import Care, open_care
from gateway.open_days import CapturesOpened, OpenDays
from gateway.paging import Paging
from gateway.rules import Surroundings, build_rule
from gateway.state import State, open_state
from gateway.store import SeriesStore, SqliteStore, VictoriaMetricsStore, open_store
from gateway.store.sqlite import FOLD_S
from gateway.store.victoriametrics import SETTLE_S
from gateway.telemetry import Telemetry, version
from gateway.tiles import Tiles, open_tiles
from gateway.watch import WatchedRule


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


@dataclass(frozen=True)
class Core:
    """Open until `close`. `state` is unguarded."""

    config: GatewayConfig
    rng: random.Random
    zone: ZoneInfo
    telemetry: Telemetry
    feed: Feed
    state: State
    care: Care | None
    store: SeriesStore
    media: MediaShelf
    tiles: Tiles | None
    deployments: Deployments
    enrolled: Enrolled
    rules: list[WatchedRule]
    """Those of the configuration."""

    def shortage(self) -> str | None:
        """Which disk is too full, and what to do; None where none is."""
        disks = [self.media.disk]
        if isinstance(self.store, SqliteStore | VictoriaMetricsStore):
            disks.append(self.store.disk)
        return next(filter(None, (disk.shortage() for disk in disks)), None)

    def learn(self) -> None:
        """Has this process know anew whose tag is whose."""
        with self.state.read() as connection:
            self.enrolled.read(connection)

    def keeps(self) -> Keeps:
        """What is dropped before it is stored."""
        return Keeps(lambda tag: self.enrolled.whose(tag) is not None, late_by(self.config.keep))

    def chores(self, state: State, installations: Callable[[], Installations]) -> list[Chore]:
        """Of the rooms that know nothing of each other; they write by `state`."""
        config = self.config
        found = [
            Chore("erasures", 5, Erasures(state, self.enrolled.read).run),
            Chore("installations", 5, lambda at_us: installations().close(at_us)),
            Chore("vitals", 15, lambda at_us: vitals.note(state, self.telemetry, at_us)),
        ]
        if isinstance(self.store, SqliteStore):
            found.append(Chore("series", 10, Readings(self.store, state, self.telemetry).run))
        if config.open_data:
            found.append(Chore("open_data", 600, OpenDays(state, self.store, config.open_data, config.area, self.zone).run))
        if config.open_data and config.open_data.captures:
            found.append(Chore("open_captures", 600, CapturesOpened(state, config.open_data, self.deployments, self.zone).run))
        if self.care:
            found.append(Chore("ended", ended.EVERY_S, ended.Ended(state, broker_of(config.broker, self.care)).run))
        return found

    def installations(self, state: State, paging: Paging) -> Installations:
        """Which wait for an answer, and end by it."""
        return Installations(state, telling(paging.notices, self.deployments))

    def close(self) -> None:
        """Lets go of files and connections."""
        if self.tiles is not None:
            self.tiles.close()
        self.store.close()
        self.state.close()


def open_core(config: GatewayConfig, feed: Feed) -> Core:
    """ConfigError when something can't be opened. `feed`: where is said what happens."""
    calm_collector()
    take_short_turns()
    telemetry = Telemetry()
    state = open_state(config.state.url, config.state.password_file)
    state.erasures_file = config.keep.erasures_file
    state.wrote = telemetry.state_seconds.observe
    telemetry.state_bytes.set_function(state.size_bytes)
    vitals.expose(config, telemetry)
    telemetry.build.labels(version(), state.schema()).set(1)
    feed.dropped = telemetry.unheard.inc
    telemetry.listeners.set_function(lambda: feed.listeners)
    replay(state, now_us())  # before anything is read: an older database may have brought somebody back
    care = open_care(config.nodes, state, now_us) if config.nodes else None
    store = open_store(config.store)
    media = MediaShelf(config.media.folder, state, now_us, config.media.max_mib * 1024 * 1024,
                       most_megapixels=config.media.max_megapixels, total_gib=config.media.total_gib)  # fmt: skip
    beside = config.media.folder if state.is_shared else Path(config.state.url.removeprefix("sqlite:///"))
    tiles = open_tiles(config.map, beside, now_us)
    deployments, enrolled, zone = Deployments(config.deployment), Enrolled(), ZoneInfo(config.time_zone)
    with state.read() as connection:
        enrolled.read(connection)
    town = Surroundings(deployments, zone, config.area, enrolled,
                        keep_sightings_s=config.keep.sightings, pictures_told=config.tells_pictures)  # fmt: skip
    rules = [WatchedRule(name, rule.severity, build_rule(rule, town), rule.kind, rule.mode) for name, rule in config.rule.items()]
    return Core(
        config, random.SystemRandom(), zone, telemetry, feed, state, care, store, media, tiles, deployments, enrolled, rules
    )


def settling(store: SeriesStore) -> list[Chore]:
    """Of each process that writes readings: what a store took as it came is put where it stays."""
    if isinstance(store, VictoriaMetricsStore):
        return [Chore("settle", SETTLE_S, lambda _: store.settle())]
    return [Chore("settle", FOLD_S, lambda _: store.fold())] if isinstance(store, SqliteStore) else []


def broker_of(config: GatewayBrokerConfig, care: Care | None) -> GatewayBrokerConfig:
    """With a client id that no node can guess, unless one was chosen: on NATS, who comes with our id puts us out."""
    if care is None or "client_id" in config.model_fields_set:
        return config
    return config.model_copy(update={"client_id": f"satomori-gateway-{care.signer.derived('client id')[:15]}"})
