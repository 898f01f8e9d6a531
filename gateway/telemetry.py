"""What the gateway counts about itself, for `/metrics`. Every name here is explained in gateway/README.md; a test checks.

Labels are of few values that the code or the configuration knows: never a node, a device or a person. What a group of messages
passes is counted once a group, never once a record.
"""

import importlib.metadata
import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, Summary

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
"""Buckets of what should take a moment."""
UNTIL_A_PERSON = (1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400)
"""Buckets of what people wait for."""
REFUSED = ("message", "record", "reused", "store", "broke")
"""What is refused: a message or a record that can't be read, a number used twice, a point that the series store never takes, and
what a mistake of ours could not get through the pipeline."""


def version() -> str:
    """The installed version; `0` when it runs from a folder that nobody installed."""
    try:
        return importlib.metadata.version("satomori")
    except importlib.metadata.PackageNotFoundError:
        return "0"


class Telemetry:
    """One registry and its instruments, of one process; made once in the wiring and handed down."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.build = Gauge("satomori_build_info", "Always 1: what runs.", ["version", "schema"], registry=registry)
        self.turned = Gauge(
            "satomori_turned_timestamp_seconds", "When a stage last looked what is to be done.", ["stage"], registry=registry
        )
        self.messages = Counter("satomori_messages", "MQTT messages taken from the broker.", registry=registry)
        self.message_bytes = Counter("satomori_message_bytes", "Bytes of those messages.", registry=registry)
        self.group_messages = Histogram(
            "satomori_group_messages",
            "Messages that were taken together.",
            buckets=(1, 2, 5, 10, 30, 100, 300, 1000),
            registry=registry,
        )
        self.group_since = Gauge(
            "satomori_group_since_timestamp_seconds",
            "When the messages were taken that are not acknowledged yet; 0 without.",
            registry=registry,
        )
        self.connections = Counter("satomori_broker_connections", "Connections made to the broker.", registry=registry)
        self.records = Counter("satomori_records", "Records made durable.", ["kind"], registry=registry)
        self.events = Counter("satomori_events", "Events made durable, by their class.", ["class"], registry=registry)
        self.duplicates = Counter("satomori_duplicates", "Records that were known already.", registry=registry)
        self.strangers = Counter("satomori_strangers", "Events of tags nobody is enrolled for, dropped.", registry=registry)
        self.too_late = Counter("satomori_too_late", "Records past their retention, dropped.", ["kind"], registry=registry)
        self.removed = Counter("satomori_removed", "What was forgotten: its time was over.", ["kind"], registry=registry)
        self.pictures_bytes = Gauge("satomori_pictures_bytes", "Bytes of the pictures on record.", registry=registry)
        self.pictures_missing = Gauge("satomori_pictures_missing", "Pictures on record without a file.", registry=registry)
        self.quarantined = Counter("satomori_quarantined", "Messages and records refused.", ["what"], registry=registry)
        self.lost = Counter("satomori_lost", "Records that a node declared lost.", registry=registry)
        self.facts_seconds = Histogram(
            "satomori_facts_commit_seconds",
            "Committing the facts of a group.",
            buckets=SECONDS,
            registry=registry,
        )
        self.judge_seconds = Histogram(
            "satomori_judge_seconds",
            "Judging the facts of a group, alerts and pages included.",
            buckets=SECONDS,
            registry=registry,
        )
        self.judge_lag = Histogram(
            "satomori_judge_lag_seconds",
            "From receiving an event to having judged it: the longest of a commit.",
            buckets=(*SECONDS, 60, 600),
            registry=registry,
        )
        self.tick_seconds = Histogram(
            "satomori_tick_seconds",
            "Letting a second pass for rules or pages.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.alerts_open = Gauge("satomori_alerts_open", "Alerts that are open.", ["state", "severity"], registry=registry)
        self.store_seconds = Histogram(
            "satomori_store_write_seconds",
            "One write to the series store.",
            buckets=SECONDS,
            registry=registry,
        )
        self.store_points = Counter("satomori_store_points", "Points that the series store took.", registry=registry)
        self.store_errors = Counter("satomori_store_errors", "Writes that it did not take.", ["kind"], registry=registry)
        self.stored = Gauge(
            "satomori_stored_timestamp_seconds", "When readings last became durable; 0: not yet.", registry=registry
        )
        self.store_down = Gauge("satomori_store_down", "1 while the series store takes no points.", registry=registry)
        self.broker_up = Gauge("satomori_broker_up", "1 while the broker is connected.", registry=registry)
        self.left_unread = Counter("satomori_left_unread", "Messages of nodes beyond their share.", registry=registry)
        self.rule_errors = Counter("satomori_rule_errors", "Rules that raised on a fact.", ["rule"], registry=registry)
        self.chore_seconds = Summary("satomori_chore_seconds", "What chores took.", ["chore"], registry=registry)
        self.chore_done = Gauge(
            "satomori_chore_last_success_timestamp_seconds", "When a chore last ended well.", ["chore"], registry=registry
        )
        self.chore_errors = Counter("satomori_chore_errors", "Chores that failed.", ["chore"], registry=registry)
        self.inbox = Counter("satomori_inbox", "What came in from channels.", ["channel", "outcome"], registry=registry)
        self.inbox_oldest = Gauge(
            "satomori_inbox_oldest_seconds", "How long the oldest of it has waited to be worked on.", registry=registry
        )
        self.alerts = Counter("satomori_alerts", "Alerts that fired.", ["kind"], registry=registry)
        self.deliveries = Counter("satomori_deliveries", "Delivery attempts.", ["channel", "outcome"], registry=registry)
        self.waiting = Gauge("satomori_notifications_waiting", "Notifications not delivered yet.", registry=registry)
        self.overdue = Gauge(
            "satomori_notifications_overdue_seconds",
            "How long the one that is due the longest has been.",
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "satomori_delivery_seconds",
            "From making a notification to a provider's having it.",
            ["channel"],
            buckets=UNTIL_A_PERSON,
            registry=registry,
        )
        self.dead = Gauge("satomori_notifications_dead", "Notifications given up: dead letters.", registry=registry)
        self.flush_seconds = Histogram(
            "satomori_flush_seconds",
            "From taking a group of messages to having it durable.",
            buckets=SECONDS,
            registry=registry,
        )
        self.requests = Counter("satomori_requests", "Requests answered.", ["method", "route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "satomori_request_seconds",
            "From a request to the beginning of its answer.",
            ["method", "route"],
            buckets=(0.005, 0.02, 0.05, 0.1, 0.5, 2, 10),
            registry=registry,
        )
        self.listeners = Gauge("satomori_stream_listeners", "Who hears the live stream.", registry=registry)
        self.unheard = Counter("satomori_stream_dropped", "Messages dropped: a listener was too slow.", registry=registry)
        self.uploads = Counter("satomori_uploads", "Pictures that arrived whole.", registry=registry)
        self.upload_bytes = Counter("satomori_upload_bytes", "Bytes of pictures that arrived.", registry=registry)
        self.state_seconds = Histogram(
            "satomori_state_write_seconds",
            "A transaction that writes, from asking for it to its being durable.",
            buckets=SECONDS,
            registry=registry,
        )
        self.state_bytes = Gauge("satomori_state_bytes", "Size of the state database.", registry=registry)
        self.disk_free = Gauge("satomori_disk_free_bytes", "Room on the disk that this is written to.", ["of"], registry=registry)
        self.certificate_ends = Gauge(
            "satomori_certificate_ends_timestamp_seconds", "Until when a certificate is good.", ["of"], registry=registry
        )
        self.unjudged_oldest = Gauge(
            "satomori_unjudged_oldest_seconds", "How long the oldest event has waited to be judged.", registry=registry
        )
        self._of_several_processes()
        self.backup_made = Gauge("satomori_backup_timestamp_seconds", "When a backup was made last; 0: never.", registry=registry)
        self.restore_tested = Gauge(
            "satomori_restore_tested_timestamp_seconds", "When a restore was tested last; 0: never.", registry=registry
        )
        self._begin_at_zero()
        for gauge in (self.broker_up, self.unjudged_oldest, self.handed_oldest, self.backup_made, self.restore_tested):
            gauge.set(math.nan)  # of a process that does not do this work nobody is to think that it fails at it

    @contextmanager
    def turning(self, stage: str, now_us: int) -> Iterator[None]:
        """Times what a stage does each second, and notes that it has."""
        with self.tick_seconds.labels(stage).time():
            yield
        self.turned.labels(stage).set(now_us / 1e6)

    def _of_several_processes(self) -> None:
        self.handed_oldest = Gauge(
            "satomori_handed_oldest_seconds",
            "How long the oldest reading that rules want has waited for the process that judges.",
            registry=self.registry,
        )
        self.handed_dropped = Counter(
            "satomori_handed_dropped", "Readings that no process judged in time, and none will.", registry=self.registry
        )

    def _begin_at_zero(self) -> None:
        """A count that begins to exist with its first fault has no increase that anybody could be told of."""
        for counter, values in (
            (self.records, ("event", "reading")),
            (self.events, ("alarm", "evidence", "sighting")),
            (self.quarantined, REFUSED),
            (self.store_errors, ("down", "refused")),
        ):
            for value in values:
                counter.labels(value)
