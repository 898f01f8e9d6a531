"""What the API answers with: the JSON of each thing, and how a row of state becomes it. Times are UTC µs (`*_us`)."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.events import EVENTS
from edge.contract.metrics import METRICS
from gateway.deployments import Deployment
from gateway.mimamori.enrolled import WATCHED
from gateway.nodes.commands import round_trip_ms

Row = Mapping[str, Any]

TAGGED = frozenset(name for name, model in EVENTS.items() if "tag" in model.model_fields)
"""The events that name a tag. Somebody carries it, so they concern a person."""


class LatestJson(TypedDict):
    """The newest value of one metric."""

    metric: str
    unit: str
    value: float
    time_us: int
    received_us: int
    age_s: float


class DeviceJson(TypedDict):
    """One device as it is known now. `unknown_why` says why the status is unknown, and is null otherwise.

    `at`: latitude and longitude, where its newest installation was measured; else as its deployment says.
    """

    node: str
    device: str
    kind: str | None
    place: str
    label: str
    at: tuple[float, float] | None
    status: Literal["ok", "alert", "unknown"]
    unknown_why: Literal["never_heard", "silent", "node_offline", "device_down"] | None
    heard_us: int | None
    age_s: float | None
    node_online: bool | None
    node_offline_reason: str | None
    latest: list[LatestJson]


class DevicesJson(TypedDict):
    """All devices; `now_us` is the gateway's clock, so that a page need not trust its own."""

    now_us: int
    stale_after_s: float
    devices: list[DeviceJson]


class BucketJson(TypedDict):
    """What a series said in one step; steps without points are left out."""

    time_ms: int
    points: int
    low: float
    mean: float
    high: float
    last: float


class ReadingsJson(TypedDict):
    """Points [time in ms, value] or, when asked for, buckets. `next_start_ms`: where the next page begins."""

    node: str
    device: str
    metric: str
    unit: str
    readings: list[tuple[int, float]] | None
    buckets: list[BucketJson] | None
    next_start_ms: int | None


# By calls, as `class` can't be a field of a class.
EventJson = TypedDict(
    "EventJson",
    {
        "id": int | None,
        "node": str,
        "device": str,
        "place": str,
        "label": str,
        "type": str,
        "class": str,
        "time_us": int,
        "received_us": int,
        "late": bool,
        "clock_trusted": bool,
        "body": dict[str, Any],
    },
)


class EventsJson(TypedDict):
    """One page, newest first; `next_before` asks for the following one."""

    events: list[EventJson]
    next_before: int | None


class AlertJson(TypedDict):
    """One alert; `version` grows with every change, `count` with every identical occurrence."""

    id: str
    rule: str
    kind: str
    severity: str
    node: str
    device: str
    place: str
    label: str
    state: str
    since_us: int
    late: bool
    summary: str
    fired_us: int | None
    acknowledged_us: int | None
    acknowledged_by: str | None
    shelved_until_us: int | None
    suppressed_by: str | None
    resolved_us: int | None
    count: int
    version: int


class AlertsJson(TypedDict):
    """Alerts, newest first. `acknowledged_by` `contact:` and no more: somebody, to who may not read who."""

    now_us: int
    alerts: list[AlertJson]


class ChangeJson(TypedDict):
    """One step in an alert's life. `who` `contact:` and no more: somebody, to who may not read who, and in what words."""

    at_us: int
    before: str | None
    after: str
    who: str
    why: str


class NotificationJson(TypedDict):
    """One message to one contact: what became of it, not what it says."""

    id: str
    contact: str
    state: str
    created_us: int
    due_us: int
    attempts: int
    sent_us: int | None
    error: str | None


class AlertWithHistoryJson(AlertJson):
    """An alert with all that happened to it. `page`: the newest that it is told in; null: in none, or not for who asks."""

    history: list[ChangeJson]
    notifications: list[NotificationJson]
    page: str | None


class QuarantinedJson(TypedDict):
    """One refused message or record; `payload` is its beginning as text, damaged bytes shown as U+FFFD."""

    id: int
    received_us: int
    node: str | None
    seq: int | None
    topic: str
    reason: str
    size: int
    payload: str


class QuarantineJson(TypedDict):
    """One page, newest first; `next_before` asks for the following one."""

    quarantine: list[QuarantinedJson]
    next_before: int | None


class LossJson(TypedDict):
    """Records `low` to `high` of a node's epoch that will never arrive."""

    id: int
    node: str
    epoch: str
    low: int
    high: int
    reason: str
    recorded_us: int


class LossesJson(TypedDict):
    """One page, newest first; `next_before` asks for the following one."""

    losses: list[LossJson]
    next_before: int | None


class AskedJson(TypedDict):
    """A configuration that a node was asked to run. `outcome`: `applied`, `failed` with the reason, null while not answered."""

    revision: int
    sha256: str
    created_us: int
    created_by: str
    outcome: str | None
    reason: str | None
    reported_us: int | None


class DesiredJson(AskedJson):
    """The same with its content. `device` and `broker` as in edge.toml."""

    node: str
    device: dict[str, Any]
    broker: dict[str, Any] | None


class NodeJson(TypedDict):
    """One node. `running` is the revision it says it runs, 0 and null its own file; `desired` the newest it was asked for."""

    node: str
    online: bool | None
    offline_reason: str | None
    seen_us: int | None
    born_us: int | None
    agent: str | None
    running: int | None
    desired: AskedJson | None
    certificate_not_after_us: int | None


class NodesJson(TypedDict):
    """All nodes, by name; `now_us` is the gateway's clock."""

    now_us: int
    nodes: list[NodeJson]


class RevisionJson(TypedDict):
    """What was asked for just now."""

    node: str
    revision: int


class CommandJson(TypedDict):
    """One command. `state`: `waiting`, `done`, `failed`, `refused`, or `expired`: not answered, so perhaps done, perhaps not.

    `round_trip_ms`: from when it was given to its answer. `rssi_dbm`: of a ping, as the node hears its network.
    """

    id: str
    node: str
    name: str
    device: str | None
    issued_us: int
    issued_by: str
    expires_us: int
    state: str
    reason: str | None
    media: str | None
    answered_us: int | None
    round_trip_ms: int | None
    rssi_dbm: int | None


class CommandsJson(TypedDict):
    """Commands to one node, newest first."""

    now_us: int
    commands: list[CommandJson]


class ClaimJson(TypedDict):
    """A code for a box, shown this once. `code` as it stands on the box, `qr` what its QR says."""

    node: str
    code: str
    qr: str
    expires_us: int


class RevokedJson(TypedDict):
    """How many certificates and codes of a node ended; `fault`: why the broker could not be told, which is tried again."""

    node: str
    certificates: int
    codes: int
    fault: str | None


class RotatingTagJson(TypedDict):
    """A tag that changes what it calls itself every 2^`exponent` s since `zero_us`. Its key is never shown."""

    tag: str
    exponent: int
    zero_us: int


class RotatingTagsJson(TypedDict):
    """All of them, by name."""

    tags: list[RotatingTagJson]


class PictureJson(TypedDict):
    """What is known of one picture, as one node told it. `open`: everybody who may see pictures may see it."""

    sha256: str
    node: str
    device: str
    content: str
    withheld: bool
    captured_us: int
    cleared_us: int | None
    cleared_by: str | None
    open: bool


class PicturesJson(TypedDict):
    """One picture, as each node that has it told it."""

    pictures: list[PictureJson]


class HealthJson(TypedDict):
    """Whether the gateway is well: `ok` when every part is up."""

    status: Literal["ok", "degraded"]
    version: str
    parts: dict[str, Literal["up", "down"]]


def unit_of(metric: str) -> str:
    """The metric's unit; empty for one that a newer contract dropped."""
    return METRICS[metric].unit if metric in METRICS else ""


def latest_json(row: Row, now_us: int) -> LatestJson:
    """Of a row of `latest`. A value from a clock that runs ahead is 0 s old, not younger than now."""
    return {
        "metric": row["metric"],
        "unit": unit_of(row["metric"]),
        "value": row["value"],
        "time_us": row["time_us"],
        "received_us": row["received_us"],
        "age_s": max(0.0, (now_us - row["time_us"]) / 1e6),
    }


def event_json(row: Row, deployment: Deployment) -> EventJson:
    """Of a row of `events`."""
    body = row["body"]
    return {
        "id": row.get("id"),
        "node": row["node"],
        "device": row["device"],
        "place": deployment.place,
        "label": deployment.label,
        "type": row["type"],
        "class": event_class(row),
        "time_us": row["time_us"],
        "received_us": row["received_us"],
        "late": row["late"],
        "clock_trusted": row["clock_trusted"],
        "body": json.loads(body) if isinstance(body, str) else dict(body),
    }


def event_class(row: Row) -> str:
    """The class of a row of `events`: under the column's name in results, under its key in inserted rows."""
    name: str = row["class"] if "class" in row else row["class_"]
    return name


def concerns_person(row: Row) -> bool:
    """Whether a row of `events` or `alerts` is about a tag, which somebody carries."""
    return row["node"] == WATCHED or ("type" in row and (event_class(row) == "sighting" or row["type"] in TAGGED))


def node_json(node: str, row: Row, asked: Row, not_after_us: int | None) -> NodeJson:
    """Of a row of `nodes` and the node's newest row of `desired`, each empty where there is none."""
    return {
        "node": node,
        "online": row.get("online"),
        "offline_reason": row.get("offline_reason"),
        "seen_us": row.get("seen_us"),
        "born_us": row.get("born_us"),
        "agent": row.get("agent"),
        "running": row.get("config_revision"),
        "desired": asked_json(asked) if asked else None,
        "certificate_not_after_us": not_after_us,
    }


def asked_json(row: Row) -> AskedJson:
    """Of a row of `desired`."""
    return {
        "revision": row["revision"],
        "sha256": row["sha256"],
        "created_us": row["created_us"],
        "created_by": row["created_by"],
        "outcome": row["outcome"],
        "reason": row["reason"],
        "reported_us": row["reported_us"],
    }


def command_json(row: Row) -> CommandJson:
    """Of a row of `commands`."""
    return {
        "id": row["id"],
        "node": row["node"],
        "name": row["name"],
        "device": row["device"],
        "issued_us": row["issued_us"],
        "issued_by": row["issued_by"],
        "expires_us": row["expires_us"],
        "state": row["state"],
        "reason": row["reason"],
        "media": row["media"],
        "answered_us": row["answered_us"],
        "round_trip_ms": round_trip_ms(row["issued_us"], row["answered_us"]),
        "rssi_dbm": row["rssi_dbm"],
    }


SOMEBODY = "contact:"
"""Who it was, to who may not see who: a member, without which."""


def alert_json(row: Row, deployment: Deployment, names: bool = True) -> AlertJson:
    """Of a row of `alerts`. `names`: for who may read who answered (`page.history`)."""
    return {
        "id": row["id"],
        "rule": row["rule"],
        "kind": row["kind"],
        "severity": row["severity"],
        "node": row["node"],
        "device": row["device"],
        "place": deployment.place,
        "label": deployment.label,
        "state": row["state"],
        "since_us": row["since_us"],
        "late": row["late"],
        "summary": row["summary"],
        "fired_us": row["fired_us"],
        "acknowledged_us": row["acknowledged_us"],
        "acknowledged_by": row["acknowledged_by"] if names or row["acknowledged_by"] is None else SOMEBODY,
        "shelved_until_us": row["shelved_until_us"],
        "suppressed_by": row["suppressed_by"],
        "resolved_us": row["resolved_us"],
        "count": row["count"],
        "version": row["version"],
    }
