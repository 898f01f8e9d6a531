"""The gateway's own way of a message, as gateway/service.py wires it, in a process that is measured: Ingest to acks.

python -m simulators.bench.ours URL CLIENT_ID FOLDER MESSAGES [STORE]   (waits for a line on stdin, prints one JSON object)

STORE is the URL of a VictoriaMetrics: readings go there, and there are no rules, as the peers of that measurement have none.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from sqlalchemy import func, select

from gateway.alerting.route import RouteConfig
from gateway.chores import Chores
from gateway.contacts.book import Book
from gateway.core import calm_collector, now_us, settling
from gateway.deployments import Deployments
from gateway.feed import Feed
from gateway.flush import Answer
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.paging import Paging
from gateway.pipeline import Message, Pipeline
from gateway.rules import RuleConfig, build_rule
from gateway.state import State, open_state
from gateway.state.tables import alerts, events, quarantine
from gateway.store import SeriesStore, SqliteStoreConfig, VictoriaMetricsStoreConfig, open_store
from gateway.telemetry import Telemetry
from gateway.telling import Teller
from gateway.watch import Watch, WatchedRule
from simulators.bench.servers import most_mib

GIVE_UP_S = 120

RULES: dict[str, dict[str, Any]] = {
    "trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"},
    "camera-picture": {"type": "occurrence", "event": "media_captured", "severity": "info"},
    "tag-away": {"type": "threshold", "metric": "tags_near", "below": 1, "for": "3s", "severity": "critical"},
    "crowd": {"type": "rate", "metric": "count_in", "per": "60s", "window": "10s", "above": 60, "severity": "warning"},
    "silent": {"type": "absence", "of": "heartbeat", "for": "10m", "severity": "warning"},
}
"""One rule of each kind and one more, of all nodes; four of ten readings of the load concern a rule."""

_rules: TypeAdapter[dict[str, RuleConfig]] = TypeAdapter(dict[str, RuleConfig])


class Parts:
    """Everything between the broker and the disk. `store`: the URL of a VictoriaMetrics, in place of SQLite.

    Where the store has a chore of its own, a thread does it, as in a gateway.
    """

    def __init__(self, folder: Path, store: str | None = None, rules: Mapping[str, Any] = RULES) -> None:
        self.telemetry = Telemetry()
        self.state: State = open_state(f"sqlite:///{folder / 'state.db'}")
        self.store: SeriesStore = open_store(
            SqliteStoreConfig(type="sqlite", path=folder / "series.db")
            if store is None
            else VictoriaMetricsStoreConfig(type="victoriametrics", url=store, journal=folder / "journal")
        )
        feed = Feed()
        watched = [
            WatchedRule(name, rule.severity, build_rule(rule)) for name, rule in _rules.validate_python(rules).items()
        ]  # fmt: skip
        deployments = Deployments([])
        zone = ZoneInfo("Asia/Tokyo")
        routes = [RouteConfig(to=["phone"])]
        book = Book({}, ["phone"], zone)
        paging = Paging(self.state, routes, deployments, book, Teller(deployments, zone), say=feed.say)
        watch = Watch(self.state, watched, deployments, self.telemetry, feed.say, paging)
        self.pipeline = Pipeline(self.state, self.store, watch, self.telemetry, feed.say, paging=paging)
        self._chores = Chores(settling(self.store), self.telemetry, now_us)
        self._thread = threading.Thread(target=self._chores.run, daemon=True)
        if self._chores.names:
            self._thread.start()

    def process(self, messages: list[Message]) -> None:
        """A group of messages through the pipeline, now."""
        self.pipeline.process(messages, time.time_ns() // 1000)

    def counts(self) -> dict[str, int]:
        """What became durable."""
        with self.state.read() as connection:
            rows = {
                table.name: connection.scalar(select(func.count()).select_from(table)) for table in (events, alerts, quarantine)
            }
        return {"readings": self.store.count(), **{name: int(count or 0) for name, count in rows.items()}}

    def close(self) -> None:
        """Lets go of the files."""
        self._chores.stop()
        if self._chores.names:
            self._thread.join()
        self.store.close()
        self.state.close()


class _UntilDone:
    """The pipeline, and the end of the measurement after so many messages."""

    def __init__(self, pipeline: Pipeline, messages: int) -> None:
        self._pipeline, self._messages = pipeline, messages
        self.ingest: Ingest | None = None
        self.got = 0

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        """As the pipeline's. Ingest sends the acks of this group before it looks whether it should stop."""
        acks = self._pipeline.process(messages, now_us, away_since_us)
        self.got += len(messages)
        if self.got >= self._messages and self.ingest is not None:
            self.ingest.stop()
        return acks

    def save(self) -> None:
        """As the pipeline does."""
        self._pipeline.save()

    def anew(self) -> None:
        """As the pipeline does."""
        self._pipeline.anew()

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """As the pipeline's."""
        self._pipeline.tick(now_us, listening_since_us)


def main() -> int:
    """The process that is measured."""
    sys.modules["numpy"] = None  # type: ignore[assignment]  # no gateway is installed with it; influxdb-client takes it where it is
    url, client_id, folder, messages, *store = sys.argv[1:]
    parts = Parts(Path(folder), store[0], {}) if store else Parts(Path(folder))
    until = _UntilDone(parts.pipeline, int(messages))
    config = GatewayBrokerConfig(url=url, client_id=client_id)
    ingest = Ingest(config, until, parts.telemetry, random.Random(1), lambda: time.time_ns() // 1000, None)
    until.ingest = ingest
    guard = threading.Timer(GIVE_UP_S, ingest.stop)
    guard.daemon = True
    guard.start()
    calm_collector()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, cpu_s = time.monotonic(), time.process_time()
    ingest.run()
    seconds, cpu_s = time.monotonic() - begun, time.process_time() - cpu_s
    guard.cancel()
    did = {"seconds": seconds, "cpu_s": cpu_s, "most_mib": most_mib(), "messages": until.got}
    print(json.dumps({**did, **parts.counts()}))
    parts.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
