"""The schema, one table after the other. A change here needs a migration beside it; a test compares the two.

Times are UTC µs since 1970 (`*_us`). `node_time_us` is what the node's clock said, `time_us` what rules go by.
What concerns a person (tag sightings) stands here only, never in the series store, so that it can be erased.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# SQLite numbers rows by itself only for INTEGER PRIMARY KEY; PostgreSQL gets BIGINT.
_Id = BigInteger().with_variant(Integer, "sqlite")

nodes = Table(
    "nodes",
    metadata,
    Column("node", Text, primary_key=True),
    Column("epoch", Text),
    Column("session", Text),
    Column("boot", Text),
    Column("agent", Text),
    Column("online", Boolean),  # NULL: never said
    Column("offline_reason", Text),
    Column("born_us", BigInteger),
    Column("seen_us", BigInteger),
    Column("config_revision", BigInteger),
)

devices = Table(
    "devices",
    metadata,
    Column("node", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)

# Which records of a node's epoch are durable, as text `1-500,502`: what dedupe and acks go by. `declared` are those of
# them that will never come, as the node said; one that comes after all is taken.
ranges = Table(
    "ranges",
    metadata,
    Column("node", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("declared", Text, nullable=False),
)

# Where a boot's zero lies, for records whose clock is not trusted: UTC µs of mono 0. A guess is set once, so that resends
# agree; what the node says when its clock has become right (`synced`) replaces it, once, and re-times the boot's events.
boots = Table(
    "boots",
    metadata,
    Column("node", Text, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("zero_us", BigInteger, nullable=False),
    Column("synced", Boolean, nullable=False, server_default=text("0")),
)

# `id` is the commit order, which rules follow.
events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("node", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("device", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("class", Text, nullable=False, key="class_"),
    Column("time_us", BigInteger, nullable=False),
    Column("node_time_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("clock_trusted", Boolean, nullable=False),
    Column("boot", Text),  # NULL: from before this was kept
    Column("body", Text, nullable=False),  # JSON of the event's own fields
    UniqueConstraint("node", "epoch", "seq", name="events_identity"),
    Index("events_device_time", "node", "device", "time_us"),
    sqlite_autoincrement=True,
)

# The newest reading of each series, saved about once a second; the series store has them all.
latest = Table(
    "latest",
    metadata,
    Column("node", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("time_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("value", Float, nullable=False),
)

losses = Table(
    "losses",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("node", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("low", BigInteger, nullable=False),
    Column("high", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    UniqueConstraint("node", "epoch", "low", "high", name="losses_identity"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("received_us", BigInteger, nullable=False),
    Column("node", Text),  # NULL where the topic names none
    Column("seq", BigInteger),  # NULL where the whole message was refused
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # the first 4 KiB
)

# What a rule remembers of one device, as JSON.
rule_states = Table(
    "rule_states",
    metadata,
    Column("rule", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("rule", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("opening", Text, nullable=False),  # what opened it, so that the same thing never opens two
    Column("state", Text, nullable=False),  # pending, firing, acknowledged, resolved
    Column("since_us", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("summary", Text, nullable=False),
    Column("fired_us", BigInteger),
    Column("acknowledged_us", BigInteger),
    Column("acknowledged_by", Text),
    Column("resolved_us", BigInteger),
    Column("version", Integer, nullable=False),
    UniqueConstraint("rule", "node", "device", "opening", name="alerts_identity"),
    Index("alerts_state", "state"),
)

alert_history = Table(
    "alert_history",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("alert", Text, ForeignKey("alerts.id"), nullable=False, index=True),
    Column("at_us", BigInteger, nullable=False),
    Column("before", Text),  # NULL: it was opened
    Column("after", Text, nullable=False),
    Column("who", Text, nullable=False),  # an actor's name, or `rule`
    Column("why", Text, nullable=False),
)

# The delivery outbox: one row is one message to one contact, and its id is the same for ever.
notifications = Table(
    "notifications",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("alert", Text, ForeignKey("alerts.id"), nullable=False, index=True),
    Column("contact", Text, nullable=False),
    Column("state", Text, nullable=False),  # queued, delivered, dead
    Column("severity_rank", Integer, nullable=False, server_default=text("1")),  # 0 critical, 1 warning, 2 info: what goes first
    Column("body", Text, nullable=False),  # JSON, as it is sent; `deliver` says so where the alert is over
    Column("created_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delivered_us", BigInteger),
    Column("error", Text),
    Index("notifications_due", "state", "due_us"),
)

media = Table(
    "media",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
)

# What a picture shows, as its event said: who may open it. `cleared` by a person who saw that nobody is in it.
pictures = Table(
    "pictures",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("content", Text, nullable=False),  # unclassified, animal, person_or_vehicle, unsure
    Column("withheld", Boolean, nullable=False),
    Column("captured_us", BigInteger, nullable=False),
    Column("cleared_us", BigInteger),
    Column("cleared_by", Text),
)

# --- The nodes' identities and their remote care: gateway.nodes --------------------------------------

# A code on a box, until it is used. `code` is the key both sides prove themselves with; it is forgotten with its use.
claims = Table(
    "claims",
    metadata,
    Column("id", Text, primary_key=True),  # the code's first 4 characters
    Column("node", Text, nullable=False),
    Column("code", Text),  # NULL once used, replaced or revoked
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Index("claims_node", "node"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),  # hex
    Column("node", Text, nullable=False),
    Column("issued_us", BigInteger, nullable=False),
    Column("not_after_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
    Column("revoked_why", Text),
    Index("certificates_node", "node"),
)

node_tokens = Table(
    "node_tokens",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("issued_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
    Index("node_tokens_node", "node"),
)

# Each configuration a node was ever asked to run; the highest revision is what it should run now.
desired = Table(
    "desired",
    metadata,
    Column("node", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("payload", Text, nullable=False),  # the Signed message, as it travels
    Column("sha256", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("outcome", Text),  # NULL: not answered yet; applied, failed
    Column("reason", Text),
    Column("reported_us", BigInteger),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("device", Text),
    Column("payload", Text, nullable=False),  # the Signed message, as it travels
    Column("issued_us", BigInteger, nullable=False),
    Column("issued_by", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # waiting, done, failed, refused, expired
    Column("reason", Text),
    Column("media", Text),
    Column("answered_us", BigInteger),
    Index("commands_node", "node", "issued_us"),
    Index("commands_state", "state"),
)

# Tags that change what they call themselves (Eddystone-EID). The key stays here; nodes get the coming identifiers only.
rotating_tags = Table(
    "rotating_tags",
    metadata,
    Column("tag", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),  # 16 bytes
    Column("exponent", Integer, nullable=False),  # the identifier changes every 2^exponent seconds
    Column("zero_us", BigInteger, nullable=False),  # when the tag's own clock was 0
)
