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
    false,
    text,
    true,
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
    Column("synced", Boolean, nullable=False, server_default=false()),
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

# The newest reading of each series, saved about once a second, so many at a time, who waits longest first; the series store
# has them all.
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
    Index("quarantine_node", "node", "id"),
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
    Column("state", Text, nullable=False),  # pending, firing, acknowledged, shelved, suppressed, resolved
    Column("since_us", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("summary", Text, nullable=False),
    Column("facts", Text, nullable=False, server_default=text("'{}'")),  # JSON, as in Verdict.facts
    Column("count", Integer, nullable=False, server_default=text("1")),  # identical occurrences that it stands for
    Column("fired_us", BigInteger),
    Column("acknowledged_us", BigInteger),
    Column("acknowledged_by", Text),
    Column("shelved_until_us", BigInteger),  # while shelved: when it fires again by itself
    Column("suppressed_by", Text),  # while suppressed: `silence:3`, `inhibit:node-offline`, `maintenance:...`, `flapping`, `mode`
    Column("resolved_us", BigInteger),
    Column("version", Integer, nullable=False),
    UniqueConstraint("rule", "node", "device", "opening", name="alerts_identity"),
    Index("alerts_state", "state"),
    Index("alerts_since", "since_us"),
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

# Who said that what must not be told, from when until when, and why. `match` is JSON of gateway.alerting.route.Match.
silences = Table(
    "silences",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("match", Text, nullable=False),
    Column("from_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_us", BigInteger),  # ended before its time
    Column("ended_by", Text),
    sqlite_autoincrement=True,
)

# --- People and what they are told: gateway.contacts, gateway.paging, gateway.notify ------------------

contacts = Table(
    "contacts",
    metadata,
    Column("id", Text, primary_key=True),  # 16 hex digits
    Column("name", Text, nullable=False),  # what others are told of them: 田中さん without the さん
    Column("language", Text, nullable=False, server_default=text("'ja'")),  # ja, ja-easy, en
    Column("quiet", Text),  # JSON list of gateway.contacts.config.QuietConfig; NULL: their groups'
    Column("away_until_us", BigInteger),  # 留守にします
    Column("deputy", Text),  # the contact who is told meanwhile
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("removed_us", BigInteger),
)

# Which groups of the configuration a contact is in.
memberships = Table(
    "memberships",
    metadata,
    Column("team", Text, primary_key=True),  # a `group` of the configuration
    Column("contact", Text, ForeignKey("contacts.id"), primary_key=True),
)

# Where a contact can be reached, in the order of `rank`.
addresses = Table(
    "addresses",
    metadata,
    Column("id", Text, primary_key=True),  # 16 hex digits
    Column("contact", Text, ForeignKey("contacts.id"), nullable=False, index=True),
    Column("channel", Text, nullable=False),  # line, push, mail, sms, voice
    Column("address", Text, nullable=False),  # a LINE user id, a push subscription as JSON, a mail address, +81...
    Column("rank", Integer, nullable=False),
    Column("state", Text, nullable=False),  # new (never answered), proved, unreachable
    Column("why", Text),  # of unreachable: unfollowed, bounced, gone, unanswered
    Column("created_us", BigInteger, nullable=False),
    Column("proved_us", BigInteger),  # its first answered test
    Column("tested_us", BigInteger),  # the last test sent
    Column("heard_us", BigInteger),  # the last answer of any kind that came over it
    UniqueConstraint("channel", "address", name="addresses_identity"),
)

# A printed QR or short code by which somebody joins a group.
invitations = Table(
    "invitations",
    metadata,
    Column("code_sha256", Text, primary_key=True),
    Column("team", Text, nullable=False),
    Column("name", Text),  # of who is expected; NULL: they say it themselves
    Column("uses_left", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

# One page is what people are told of together: alerts of one route and group, and how far its steps have come.
pages = Table(
    "pages",
    metadata,
    Column("id", Text, primary_key=True),  # UUID, from what opened it
    Column("route", Text, nullable=False),
    Column("group_key", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting (group_wait, digest), asking, answered, exhausted, closed
    Column("needed", Integer, nullable=False),
    Column("step", Integer, nullable=False),  # steps begun
    Column("round", Integer, nullable=False, server_default=text("0")),  # times everybody was asked anew
    Column("opened_us", BigInteger, nullable=False),
    Column("stepped_us", BigInteger),  # when the last step began
    Column("answered_us", BigInteger),  # when as many as needed had said that they go
    Column("due_us", BigInteger),  # when to look again, whatever happens; NULL: only when something does
    Column("changed", Boolean, nullable=False, server_default=true()),  # something happened: look at the next tick
    Column("closed_us", BigInteger),
    Column("memory", Text, nullable=False, server_default=text("'{}'")),  # JSON of gateway.alerting.escalation
    Column("version", Integer, nullable=False),
    Index("pages_state", "state", "due_us"),
    Index("pages_opened", "opened_us"),
    Index("pages_group", "route", "group_key", "state"),
)

page_alerts = Table(
    "page_alerts",
    metadata,
    Column("page", Text, ForeignKey("pages.id"), primary_key=True),
    Column("alert", Text, ForeignKey("alerts.id"), primary_key=True, index=True),
    Column("joined_us", BigInteger, nullable=False),
    Column("told_us", BigInteger),  # when a message first named it
)

# What people said, in order; the last of a contact on a page counts.
answers = Table(
    "answers",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("page", Text, ForeignKey("pages.id"), nullable=False, index=True),
    Column("contact", Text, nullable=False),
    Column("answer", Text, nullable=False),  # going, cannot, with_her, false_alarm, found, done, seen
    Column("at_us", BigInteger, nullable=False),
    Column("via", Text, nullable=False),  # line, link, keypad, api, visit
    Column("notification", Text),
    sqlite_autoincrement=True,
)

# The delivery outbox and ledger: one row is one message to one address of one contact, and its id is the same for ever.
notifications = Table(
    "notifications",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("alert", Text, ForeignKey("alerts.id"), index=True),  # the alert it is about; NULL: of several, or of none
    Column("page", Text, ForeignKey("pages.id"), index=True),
    Column("kind", Text, nullable=False, server_default=text("'alert'")),  # gateway.notify.message.Kind
    Column("contact", Text, nullable=False),  # contacts.id, or the name of a `contact` of the configuration
    Column("address", Text),  # addresses.id; NULL: a `contact` of the configuration has its own
    Column("channel", Text, nullable=False, server_default=text("'webhook'")),
    Column("state", Text, nullable=False),  # queued, sent, seen, answered, failed_over, dropped, dead
    Column("severity_rank", Integer, nullable=False, server_default=text("1")),  # 0 critical, 1 warning, 2 info: what goes first
    Column("body", Text, nullable=False),  # JSON of gateway.notify.message.Message
    Column("created_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("failover_us", BigInteger),  # not sent by then: the contact's next address is tried; NULL: never
    Column("failed_over_from", Text),  # the notification that this one stands in for
    Column("only_by", Text),  # the one channel that it may go over, as a step's `by` says; NULL: any
    Column("attempts", Integer, nullable=False),
    Column("intent_us", BigInteger),  # an attempt was begun, and what came of it is not known yet
    Column("possibly_twice", Boolean, nullable=False, server_default=false()),
    Column("provider_id", Text),  # what the provider calls it
    Column("claimed_by", BigInteger),  # workers.id of the process that attempts it, while that lives; NULL: none, or the only one
    Column("sent_us", BigInteger),
    Column("seen_us", BigInteger),
    Column("answered_us", BigInteger),
    Column("error", Text),
    Index("notifications_due", "state", "due_us"),
    Index("notifications_created", "created_us"),
    Index("notifications_stood_in", "failed_over_from"),
    Index("notifications_provider", "channel", "provider_id"),
)

# Which pages a digest told of, so that what becomes of it is known of each. Rows go with their notification or page.
digest_pages = Table(
    "digest_pages",
    metadata,
    Column("notification", Text, primary_key=True),
    Column("page", Text, primary_key=True, index=True),
)

# What came in from a provider, kept before it is answered and worked on after: `id` is what tells a repetition.
inbox = Table(
    "inbox",
    metadata,
    Column("id", Text, primary_key=True),  # line:<webhookEventId>, twilio:<sid>:<what>
    Column("channel", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("done_us", BigInteger),
    Column("error", Text),
    Index("inbox_done", "done_us"),
)

# What a channel may still send this month, as its provider says.
quotas = Table(
    "quotas",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("limit_", Integer),  # NULL: none
    Column("used", Integer, nullable=False),
    Column("read_us", BigInteger, nullable=False),
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
    Column("species", Text),  # what the node's model takes it for
    Column("confirmed_content", Text),  # what a person says it is: kept beside the model's word, never over it
    Column("confirmed_species", Text),
    Column("confirmed_us", BigInteger),
    Column("confirmed_by", Text),
)

# --- Traps: gateway.traps -----------------------------------------------------------------------------

# Somebody was there. Only a person makes one: by the box's button, the trap's QR, or a form.
visits = Table(
    "visits",
    metadata,
    Column("id", Text, primary_key=True),  # UUID; of the client, or of the button's event
    Column("node", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),  # button, qr, form
    Column("result", Text, nullable=False),  # set, capture, empty, moved, removed
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("recorded_us", BigInteger, nullable=False),
    Index("visits_device", "node", "device", "at_us"),
)

# A capture's dossier, for the municipality's form.
captures = Table(
    "captures",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("node", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("alert", Text),
    Column("sprung_us", BigInteger),  # by the sensor; NULL where none said so
    Column("visit", Text, ForeignKey("visits.id"), nullable=False),
    Column("species", Text),
    Column("sex", Text),  # male, female, unknown
    Column("weight_kg", Float),
    Column("disposal", Text),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("opened_us", BigInteger, nullable=False),
    Column("reminded_us", BigInteger),
    Column("completed_us", BigInteger),
    Column("completed_by", Text),
)

# The same picture can prove one capture only.
capture_photos = Table(
    "capture_photos",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("capture", Text, ForeignKey("captures.id"), nullable=False, index=True),
    Column("item", Text, nullable=False),  # of the checklist: gateway.traps.CHECKLIST
    Column("added_us", BigInteger, nullable=False),
    Column("added_by", Text, nullable=False),
)

# --- Watch tags: gateway.mimamori ---------------------------------------------------------------------

# Whom a tag belongs to. Nothing outside of this database knows a name.
watched = Table(
    "watched",
    metadata,
    Column("id", Text, primary_key=True),  # 16 hex digits
    Column("name", Text, nullable=False),  # 呼び名
    Column("family", Text, nullable=False),  # the `group` that is told
    Column("homes", Text, nullable=False),  # JSON list of "node/device": the receivers that hear the tag at home
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("tag", Text, primary_key=True),  # as records name it; of a rotating one its enrolled name
    Column("watched", Text, ForeignKey("watched.id"), nullable=False, index=True),
    Column("enrolled_us", BigInteger, nullable=False),
    Column("enrolled_by", Text, nullable=False),
    Column("stopped_us", BigInteger),  # somebody reported it: what is heard of it is dropped until an officer decides
)

# On whose word somebody is watched over. The newest that was not revoked holds.
consents = Table(
    "consents",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("watched", Text, ForeignKey("watched.id"), nullable=False, index=True),
    Column("basis", Text, nullable=False),  # self, representative; missing: entered before consents were asked for
    Column("given_by", Text, nullable=False),  # the name of who agreed
    Column("relation", Text, nullable=False),  # of a representative: daughter, guardian
    Column("entitled", Text, nullable=False),  # of a representative: their right to it, and what shows it
    Column("given_us", BigInteger, nullable=False),
    Column("entered_us", BigInteger, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("confirm_by_us", BigInteger, nullable=False),  # when it must have been said again
    Column("asked_us", BigInteger),  # when the family was asked last
    Column("told_us", BigInteger),  # when family and office were told that the watch will stand still
    Column("lapsed_us", BigInteger),  # nobody confirmed: the watch stands still
    Column("revoked_us", BigInteger),
    Column("revoked_by", Text),
    sqlite_autoincrement=True,
)

# What is written on a tag, by which a finder asks whether it is ours.
labels = Table(
    "labels",
    metadata,
    Column("label", Text, primary_key=True),  # without separators, with its check character
    Column("tag", Text, nullable=False, index=True),
    Column("made_us", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("ended_us", BigInteger),  # its tag is nobody's any more
)

# What finders reported. `words` and `reach` are theirs, and go with the retention of sightings.
label_reports = Table(
    "label_reports",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("label", Text, nullable=False, index=True),
    Column("what", Text, nullable=False),  # found, misuse
    Column("at_us", BigInteger, nullable=False),
    Column("words", Text, nullable=False),
    Column("reach", Text, nullable=False),  # how they can be reached, if they said so
    Column("state", Text, nullable=False),  # open, resumed, revoked, done
    Column("settled_us", BigInteger),
    Column("settled_by", Text),
    sqlite_autoincrement=True,
)

search_cases = Table(
    "search_cases",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("watched", Text, ForeignKey("watched.id"), nullable=False, index=True),
    Column("state", Text, nullable=False),  # open, paused (not renewed: volunteers see nothing), found, closed
    Column("reason", Text, nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("step", Integer, nullable=False),  # how far it was widened
    Column("renewed_us", BigInteger, nullable=False),
    Column("page", Text),  # of family and office
    Column("helpers_page", Text),  # of everybody else who was asked
    Column("cursor", BigInteger, nullable=False),  # events up to this id were looked through for sightings
    Column("asked_us", BigInteger),  # since its last renewal: when family and office were asked whether it goes on
    Column("counted_us", BigInteger),  # when it was said how many it reached
    Column("told_us", BigInteger),  # when a sighting was told last
    Column("ended_us", BigInteger),
    Column("ended_by", Text),
    Column("forgotten_us", BigInteger),  # its words and places are deleted
    # One at a time: two who open at once open the same.
    Index(
        "search_cases_open",
        "watched",
        unique=True,
        sqlite_where=text("state IN ('open', 'paused')"),
        postgresql_where=text("state IN ('open', 'paused')"),
    ),
)

# What was done to a case, by whom and when.
search_changes = Table(
    "search_changes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("case", Text, ForeignKey("search_cases.id"), nullable=False, index=True),
    Column("at_us", BigInteger, nullable=False),
    Column("who", Text, nullable=False),  # a contact, `staff:<name>`, or `time`
    Column("what", Text, nullable=False),  # opened, widened, asked, paused, renewed, found, closed
    Column("why", Text, nullable=False),
)

# Where the tags were heard while a case was open: the last time at each receiver.
search_sightings = Table(
    "search_sightings",
    metadata,
    Column("case", Text, ForeignKey("search_cases.id"), primary_key=True),
    Column("node", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("told", Boolean, nullable=False),
)

# --- People flow: gateway.flow ------------------------------------------------------------------------

# A person counted heads; `reckoned` is what we said at that moment, so the error can be published.
recounts = Table(
    "recounts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("area", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("reckoned", Integer),
    Column("who", Text, nullable=False),
    Index("recounts_area", "area", "at_us"),
    sqlite_autoincrement=True,
)

# Whether the town is in disaster mode; the last row holds.
town_modes = Table(
    "town_modes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("mode", Text, nullable=False),  # normal, disaster
    Column("since_us", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)

# What was published of an area's day, as gateway.open_data.OpenDay: made once, so that nobody can subtract two versions.
open_days = Table(
    "open_days",
    metadata,
    Column("area", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # local, 2026-06-03
    Column("body", Text, nullable=False),
    Column("published_us", BigInteger, nullable=False),
)

# A capture as it was published: once, with the square in which its trap stood then. A trap that moves takes none with it.
open_captures = Table(
    "open_captures",
    metadata,
    Column("capture", Text, ForeignKey("captures.id"), primary_key=True),
    Column("month", Text, nullable=False),  # local, 2026-06
    Column("mesh", Text, nullable=False),  # empty: not said
    Column("species", Text, nullable=False),  # of gateway.open_data.KINDS
)

# --- Who may come in: gateway.accounts ----------------------------------------------------------------

# Staff, and everybody of the contacts who ever signed in. What they may do: gateway.policy.
accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),  # 16 hex digits
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False),  # comma between; those of their groups come on top
    Column("contact", Text, ForeignKey("contacts.id"), unique=True),  # NULL: nobody who is told things
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("disabled_us", BigInteger),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),  # the credential's id, base64url
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("public_key", LargeBinary, nullable=False),  # COSE
    Column("sign_count", BigInteger, nullable=False),
    Column("transports", Text, nullable=False),  # comma between
    Column("name", Text, nullable=False),  # what its owner calls it
    Column("created_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
)

# A challenge that a browser has been given, until it answers: once, and soon.
ceremonies = Table(
    "ceremonies",
    metadata,
    Column("sha256", Text, primary_key=True),  # of what the browser brings back
    Column("purpose", Text, nullable=False),  # register, login
    Column("account", Text, ForeignKey("accounts.id")),  # NULL: the passkey says who
    Column("challenge", LargeBinary, nullable=False),
    Column("expires_us", BigInteger, nullable=False, index=True),
)

# A link that opens a session once.
login_links = Table(
    "login_links",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("via", Text, nullable=False),  # line, mail, hand (handed over by the office)
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),  # of the cookie
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("how", Text, nullable=False),  # passkey, line, mail, hand
    Column("browser", Text, nullable=False),  # as its owner would know it: Android, Chrome
    Column("opened_us", BigInteger, nullable=False),
    Column("used_us", BigInteger, nullable=False),  # to the minute
    Column("expires_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
)

# An installer's job: these nodes, from when until when.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),  # 16 hex digits
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("label", Text, nullable=False),  # what its people call it
    Column("from_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_us", BigInteger),
)

job_nodes = Table(
    "job_nodes",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("node", Text, primary_key=True, index=True),
)

# One device, put up by somebody at one place: gateway.installations. The id is made by the sender, so that it may be sent again.
installations = Table(
    "installations",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("node", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("by", Text, nullable=False),  # whose name the history says
    Column("account", Text, index=True),  # of the installer, who is told how it ends; null: a program
    Column("begun_us", BigInteger, nullable=False),  # by the sender's clock
    Column("received_us", BigInteger, nullable=False),
    Column("lat", Float),  # WGS 84
    Column("lon", Float),
    Column("accuracy_m", Float),
    Column("note", Text, nullable=False),
    Column("photos", Text, nullable=False),  # JSON: SHA-256 of each, in order
    Column("signal", Text, nullable=False),  # JSON: [[round trip in ms or null, dBm or null], ...]
    Column("self_test", Text),  # good, bad: what the node's lamp said, where there was no network
    Column("tripped_us", BigInteger),  # when the test trip was begun, by the sender's clock
    Column("state", Text, nullable=False),  # waiting, done, revisit
    Column("why", Text, nullable=False),  # of revisit
    Column("alert", Text),  # the test trip's
    Column("answered_by", Text),
    Column("ended_us", BigInteger),  # done or to be visited again since
    Column("version", Integer, nullable=False),
    Index("installations_device", "node", "device", "begun_us"),
    Index("installations_state", "state"),
)

# --- Who did what: gateway.audit ----------------------------------------------------------------------

# Append-only. Each entry's hash is over the one before, its own number and time, and the salted digest of its details.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),  # 1, 2, 3, ... without a gap
    Column("at_us", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),  # hex
    Column("hash", Text, nullable=False),  # hex
)

# What an entry says. Erased, the chain still holds: without the salt the digest tells nothing.
audit_details = Table(
    "audit_details",
    metadata,
    Column("id", _Id, ForeignKey("audit.id"), primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),  # 16 bytes
    Column("who", Text, nullable=False),  # an account, an actor of the tokens file, `contact:<id>`, or a part of the gateway
    Column("action", Text, nullable=False),  # as in gateway.policy, or `login`, `look`, ...
    Column("thing", Text, nullable=False),  # `watched/<id>`, `alert/<id>`, ...; empty: the gateway
    Column("why", Text, nullable=False),
    Column("more", Text, nullable=False),  # JSON
    Index("audit_details_thing", "thing", "id"),
    Index("audit_details_who", "who", "id"),
)

# What was erased, so that it can be done again after a restore. Names nobody: the id of what is gone.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Text, primary_key=True),  # UUID
    Column("kind", Text, nullable=False),  # watched, contact, tag, picture
    Column("thing", Text, nullable=False),  # its id; of a tag the SHA-256 of its name, of a picture of its bytes
    Column("asked_us", BigInteger, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("done_us", BigInteger),
)

# How much of what was forgotten, each day: by its retention, or because it was past it when it came. Numbers only.
removals = Table(
    "removals",
    metadata,
    Column("kind", Text, primary_key=True),  # as in gateway.keeping.kinds
    Column("node", Text, primary_key=True),  # which sent what came too late; empty: it was here
    Column("day_us", BigInteger, primary_key=True, autoincrement=False),  # where the UTC day began
    Column("count", Integer, nullable=False),
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
    Column("rssi_dbm", Integer),  # of a ping, as the node heard its network
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

# --- Several processes: gateway.leases -----------------------------------------------------------------

# One row is one process that lives. Its number is the token that each of its transactions names; without the row, none succeeds.
workers = Table(
    "workers",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),  # for people: host and process id
    Column("role", Text, nullable=False),  # gateway.roles.Role
    Column("until_us", BigInteger, nullable=False),  # by the database's clock: after that others may take its row away
    Column("faults", Text, nullable=False, server_default=text("'{}'")),  # JSON: which of its parts is not well, and why
    sqlite_autoincrement=True,
)

# What only one process at a time may do: hear a partition, judge.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),  # 00 to 63, rules
    Column("holder", BigInteger, ForeignKey("workers.id", ondelete="SET NULL"), index=True),  # NULL: it may be taken
    Column("heard_us", BigInteger),  # of a partition, by the database's clock: who held it was last at work, and listened
    Column("listening_since_us", BigInteger),  # heard without a break since; NULL: it is not heard
)

# Readings that rules want, on their way from an ingest process to the one that judges; gone once judged.
handed = Table(
    "handed",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("body", Text, nullable=False),  # JSON: gateway.rules.Fact, field by field
    sqlite_autoincrement=True,
)
