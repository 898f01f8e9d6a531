"""What a node should run: asking for it, and noting what became of it. The document as it is signed, stored and answered.

A revision is used once and only grows, also where this database is older than what the node knows (a backup put back). What a
device's settings mean is the node's to judge: it answers `failed` with the reason. Here stands what can be said without it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select, update

from edge.contract.broker import BrokerConfig
from edge.contract.faults import plain
from edge.contract.messages import MAX_BYTES
from edge.contract.names import is_name
from edge.contract.remote import MAX_DEVICES, Desired, RemoteBroker, Reported
from gateway.nodes.known import must_be_known
from gateway.nodes.signing import Signer
from gateway.state import State
from gateway.state.tables import cursors, desired, nodes
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

ASKED = "desired"
"""The cursor that grows with every document, so that who publishes them need not look through all."""

MAX_DEPTH = 8
MAX_WHOLE = 2**53 - 1  # larger whole numbers are not the same number for everybody who reads JSON
_SETTING = "why.setting"  # says in English what the contract finds in a setting, and what only a command's TOML can hold


class NotAsked(Refusal):
    """This can't be asked of a node."""


class Overtaken(NotAsked):
    """Somebody else asked for something since; `revision` is theirs."""

    def __init__(self, revision: int) -> None:
        super().__init__("why.overtaken", revision=revision)
        self.revision = revision


def ask(
    state: State,
    signer: Signer,
    node: str,
    devices: dict[str, Any],
    broker: RemoteBroker | None,
    now_us: int,
    who: str,
    *,
    after: int | None = None,
) -> int:
    """Stores a signed document for the node; returns its revision. It is published by whoever runs `Outgoing`.

    `devices`: the device table of edge.toml as a whole. `after`: the newest revision that `who` has seen, 0 for none; None when
    they don't care. NotAsked for what can't be asked, Overtaken where `after` is not the newest, UnknownNode
    or NotClaimed; a box that is to be claimed gets it with its identity.
    """
    _check(devices, broker)
    with state.write() as connection:
        must_be_known(connection, node, now_us, to_come=True)
        newest = connection.scalar(select(func.max(desired.c.revision)).where(desired.c.node == node)) or 0
        if after is not None and after != newest:
            raise Overtaken(newest)
        running = connection.scalar(select(nodes.c.config_revision).where(nodes.c.node == node)) or 0
        revision = max(newest, running) + 1
        try:
            statement = signer.sign(Desired(node=node, revision=revision, device=devices, broker=broker))
        except ValidationError as error:
            raise NotAsked(_SETTING, what=plain(Desired, error)[0]) from None
        except ValueError as error:
            raise NotAsked(_SETTING, what=f"device: {error}") from None
        if len(statement.payload) > MAX_BYTES:
            raise NotAsked("why.document_long", n=len(statement.payload), most=MAX_BYTES)
        connection.execute(
            insert(desired).values(
                node=node, revision=revision, payload=statement.payload.decode(), sha256=statement.sha256,
                created_us=now_us, created_by=who,
            )
        )  # fmt: skip
        _count(connection)
    return revision


def check_report(connection: Connection, node: str, report: Reported) -> None:
    """ValueError where a report is about something that was never asked of this node."""
    if report.revision == 0:
        return
    sha256 = connection.scalar(select(desired.c.sha256).where(desired.c.node == node, desired.c.revision == report.revision))
    if sha256 is None:
        raise ValueError(f"reports on revision {report.revision}, which this gateway never asked of {node}")
    if report.sha256 is not None and report.sha256 != sha256:
        raise ValueError(f"reports on another revision {report.revision} than this gateway asked of {node}: its sha256 differs")
    if report.sha256 is None and report.outcome == "applied":
        raise ValueError(f"reports revision {report.revision} as applied without the sha256 of what was applied")


def commit_reports(connection: Connection, reports: Iterable[tuple[str, Reported, bool]], now_us: int) -> None:
    """Notes reports that were checked, in the order in which they came: (node, report, whether it was just said).

    The same report again changes nothing, a report on an older revision nothing of the newer.
    """
    for node, report, news in reports:
        if news:
            # What a broker had kept may be older than the node's birth.
            connection.execute(upsert(nodes, "config_revision"), {"node": node, "config_revision": report.running})
        if report.revision == 0:
            continue
        here = (desired.c.node == node, desired.c.revision == report.revision)
        row = connection.execute(select(desired.c.outcome, desired.c.reason).where(*here)).one()
        if row.outcome is not None and not news:
            continue  # a broker that lost its last minutes has an older answer than we
        if (row.outcome, row.reason) != (report.outcome, report.reason):
            connection.execute(
                update(desired).where(*here).values(outcome=report.outcome, reason=report.reason, reported_us=now_us)
            )


def highest(connection: Connection, of: Sequence[str] | None = None) -> Sequence[Any]:
    """(node, revision, outcome, reason) of the newest document of each node, or of those that are named, without the document."""
    newest = select(desired.c.node, func.max(desired.c.revision).label("revision")).group_by(desired.c.node)
    if of is not None:
        newest = newest.where(desired.c.node.in_(of))
    one = newest.subquery()
    return connection.execute(
        select(desired.c.node, desired.c.revision, desired.c.outcome, desired.c.reason).join(
            one, (desired.c.node == one.c.node) & (desired.c.revision == one.c.revision)
        )
    ).all()


def payload_of(connection: Connection, node: str, revision: int) -> bytes:
    """The signed document as it travels."""
    text = connection.scalar(select(desired.c.payload).where(desired.c.node == node, desired.c.revision == revision))
    return str(text).encode()


def _count(connection: Connection) -> None:
    value = connection.scalar(select(cursors.c.value).where(cursors.c.name == ASKED)) or 0
    connection.execute(upsert(cursors, "value"), {"name": ASKED, "value": value + 1})


def _check(devices: dict[str, Any], broker: RemoteBroker | None) -> None:
    if not devices:
        raise NotAsked("why.devices_none")
    if len(devices) > MAX_DEVICES:
        raise NotAsked("why.devices_many", n=len(devices), most=MAX_DEVICES)
    for device, settings in devices.items():
        if not is_name(device):
            raise NotAsked("why.bad_name", where="device", name=repr(device[:40]))
        if not isinstance(settings, dict) or not isinstance(settings.get("type"), str):
            raise NotAsked("why.device_table", where=f"device.{device}", example='{ type = "reed_trap", pin = 17 }')
        _check_json(settings, f"device.{device}", MAX_DEPTH)
    if broker is not None:
        said = broker.model_dump(exclude_none=True)
        try:
            BrokerConfig.model_validate({"url": "mqtts://broker.example", **said})
        except ValidationError as error:
            raise NotAsked(_SETTING, what=plain(BrokerConfig, error, "broker")[0]) from None


def _check_json(value: object, where: str, depth: int) -> None:
    """NotAsked for what TOML or Python can say and a signed document can't."""
    if depth == 0:
        raise NotAsked("why.setting_deep", where=where[:120], n=MAX_DEPTH)
    if value is None:
        raise NotAsked("why.setting_null", where=where[:120])
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise NotAsked(_SETTING, what=f"{where[:120]}: {name!r:.40} is no text, as the name of a setting must be")
            _check_json(inner, f"{where}.{name}", depth - 1)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _check_json(inner, f"{where}.{number}", depth - 1)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is what is not itself
            raise NotAsked(_SETTING, what=f"{where[:120]}: is {value}, which JSON can't say")
    elif isinstance(value, int):
        if abs(value) > MAX_WHOLE:
            raise NotAsked("why.setting_whole", where=where[:120], most=MAX_WHOLE)
    elif isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise NotAsked(_SETTING, what=f"{where[:120]}: holds half a letter (a lone surrogate)")
    else:
        raise NotAsked(_SETTING, what=f"{where[:120]}: is a {type(value).__name__}; write it as text or number")
