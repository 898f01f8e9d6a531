"""What the gateway counts about itself, for `/metrics`. Every name here is explained in gateway/README.md; a test checks."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Telemetry:
    """One registry and its instruments; made once in the wiring and handed down."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.messages = Counter("satomori_messages", "MQTT messages taken from the broker.", registry=registry)
        self.records = Counter("satomori_records", "Records made durable.", ["kind"], registry=registry)
        self.duplicates = Counter("satomori_duplicates", "Records that were known already.", registry=registry)
        self.strangers = Counter("satomori_strangers", "Events of tags nobody is enrolled for, dropped.", registry=registry)
        self.too_late = Counter("satomori_too_late", "Records past their retention, dropped.", ["kind"], registry=registry)
        self.removed = Counter("satomori_removed", "What was forgotten: its time was over.", ["kind"], registry=registry)
        self.quarantined = Counter("satomori_quarantined", "Messages and records refused.", registry=registry)
        self.lost = Counter("satomori_lost", "Records that a node declared lost.", registry=registry)
        self.store_down = Gauge("satomori_store_down", "1 while the series store takes no points.", registry=registry)
        self.broker_up = Gauge("satomori_broker_up", "1 while the broker is connected.", registry=registry)
        self.left_unread = Counter("satomori_left_unread", "Messages of nodes beyond their share.", registry=registry)
        self.rule_errors = Counter("satomori_rule_errors", "Rules that raised on a fact.", ["rule"], registry=registry)
        self.chore_errors = Counter("satomori_chore_errors", "Chores that failed.", ["chore"], registry=registry)
        self.inbox = Counter("satomori_inbox", "What came in from channels.", ["channel", "outcome"], registry=registry)
        self.alerts = Counter("satomori_alerts", "Alerts that fired.", ["kind"], registry=registry)
        self.deliveries = Counter("satomori_deliveries", "Delivery attempts.", ["channel", "outcome"], registry=registry)
        self.waiting = Gauge("satomori_notifications_waiting", "Notifications not delivered yet.", registry=registry)
        self.dead = Gauge("satomori_notifications_dead", "Notifications given up: dead letters.", registry=registry)
        self.flush_seconds = Histogram(
            "satomori_flush_seconds",
            "From taking a group of messages to having it durable.",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=registry,
        )
