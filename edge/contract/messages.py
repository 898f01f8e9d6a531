"""The messages on the wire: Batch, Birth, State, Ack. The pydantic models are the specification.

`check_batch` is the same specification as one flat loop for the gateway's hot path: tests/contract proves with generated
input that both give the same verdict. It differs in one thing only: it tells a bad *record* from a bad *message*.
"""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import starmap
from operator import itemgetter, le, lt
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edge.contract.events import EVENTS, MAX_DT_US, MAX_SEQ, AnyEvent, DtUs, Event, Seq
from edge.contract.metrics import METRICS
from edge.contract.names import Hex16, Name, Sha256, is_name

VERSION = 1
MAX_RECORDS = 500
MAX_BYTES = 64 * 1024
MAX_TIME_US = 2**53 - 1
MAX_REASON = 200

Version = Annotated[int, Field(strict=True, ge=VERSION, le=VERSION)]
"""1, and not true or 1.0 either, which a Literal would let through."""

TimeUs = Annotated[int, Field(strict=True, ge=0, le=MAX_TIME_US)]
"""UTC in µs since 1970, or µs since boot, as the field says."""

Reason = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_REASON)]
Clock = Literal["sync", "holdover", "unsync"]
"""What the node says of its own clock: disciplined now, was disciplined since boot, never was."""

_strict = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Reading = tuple[Seq, DtUs, Name, Annotated[str, Field(strict=True)], Number]
"""seq, dt in µs, device, metric, value in the metric's unit."""

Lost = tuple[Seq, Seq, Reason]
"""First and last seq (both included) that this node can never send, and why."""


class Batch(BaseModel):
    """Records of one boot, in one message. At most 500 records and 64 KiB; no seq twice."""

    model_config = _strict

    v: Version
    epoch: Hex16
    boot: Hex16
    clock: Clock
    t0: TimeUs = Field(description="Zero of every `dt`, by the node's clock, UTC µs.")
    mono0: TimeUs = Field(description="The same instant in µs since boot.")
    sent: TimeUs = Field(description="The node's clock when this message was made, UTC µs: how the gateway sees its skew.")
    sent_mono: TimeUs | None = Field(
        description="When it was made, in µs since boot; null when the records are of an earlier boot, whose time has ended."
    )
    readings: Annotated[list[Annotated[Reading, Field(strict=False)]], Field(max_length=MAX_RECORDS)]
    events: Annotated[list[Event], Field(max_length=MAX_RECORDS)]
    lost: Annotated[list[Annotated[Lost, Field(strict=False)]], Field(max_length=MAX_RECORDS)]

    @model_validator(mode="after")
    def _rows(self) -> "Batch":
        for _, dt, device, metric, value in self.readings:
            if fault := reading_fault(dt, device, metric, value):
                raise ValueError(fault)
        for event in self.events:
            if unsaid := {"seq", "dt", "class_"} - event.model_fields_set:
                raise ValueError(f"{event.type} does not say {sorted(unsaid)}")
        seqs = [row[0] for row in self.readings] + [event.seq for event in self.events]
        if len(seqs) > MAX_RECORDS:
            raise ValueError(f"{len(seqs)} records, at most {MAX_RECORDS}")
        if len(set(seqs)) != len(seqs):
            raise ValueError("a seq stands twice in the message")
        for low, high, _ in self.lost:
            if low > high:
                raise ValueError(f"lost range {low}..{high} is empty")
        return self


class BornDevice(BaseModel):
    """One device as the node announces it."""

    model_config = _strict

    device: Name
    kind: Name
    metrics: Annotated[list[Annotated[str, StringConstraints(max_length=32)]], Field(max_length=100)] = []


class Applied(BaseModel):
    """The configuration a node runs."""

    model_config = _strict

    revision: Annotated[int, Field(ge=0, le=MAX_SEQ)]
    sha256: Sha256


class Birth(BaseModel):
    """Who a node is, said retained after every connect. `first` <= `oldest` <= `next`."""

    model_config = _strict

    v: Version = VERSION
    epoch: Hex16
    session: Hex16
    boot: Hex16
    agent: Annotated[str, StringConstraints(max_length=64)]
    sent: TimeUs
    first: Seq = Field(description="The first seq this epoch ever gave out.")
    oldest: Seq = Field(description="The oldest seq still in the outbox, or `next`.")
    next: Seq = Field(description="The seq the next record will get.")
    devices: Annotated[list[BornDevice], Field(max_length=1000)]
    config: Applied | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Birth":
        if not self.first <= self.oldest <= self.next:
            raise ValueError(f"first {self.first}, oldest {self.oldest}, next {self.next} are not in order")
        return self


class State(BaseModel):
    """Whether a node is there; retained, and its own last will."""

    model_config = _strict

    v: Version = VERSION
    session: Hex16
    online: bool
    reason: Literal["clean", "lost", "sleeping"] | None = None


class Ack(BaseModel):
    """What the gateway has durably, said to one node; the only thing that empties an outbox."""

    model_config = _strict

    v: Version = VERSION
    epoch: Hex16
    upto: Annotated[int, Field(ge=0, le=MAX_SEQ)] = Field(description="All of 1..upto is durable.")
    ranges: list[Annotated[tuple[Seq, Seq], Field(strict=False)]] = Field([], description="Durable above `upto`.")
    missing: list[Annotated[tuple[Seq, Seq], Field(strict=False)]] = Field([], description="Never seen: send, or declare lost.")
    rejected: list[Annotated[tuple[Seq, Reason], Field(strict=False)]] = Field(
        [], description="Refused for good, with the reason; kept by the edge in its own quarantine."
    )
    wait_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        0, description="The series store is down: hold readings back this long. Events never wait."
    )

    @model_validator(mode="after")
    def _ranges(self) -> "Ack":
        for low, high in (*self.ranges, *self.missing):
            if low > high:
                raise ValueError(f"range {low}..{high} is empty")
        return self


SEQ_REUSED = "seq reused with other content"
"""Reason of a rejection that asks the edge for a new epoch: its outbox is an old copy."""


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """Whose readings stand in the rows of a batch, each series once: one round of them. One object for all such batches."""

    devices: tuple[str, ...]
    metrics: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    known: frozenset[tuple[str, str]]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


class Columns(NamedTuple):
    """The readings of a batch column by column: all of them good, in order, and the series in rounds."""

    names: Names  # of a round; the last may end early
    seqs: tuple[int, ...]  # in order
    dts: tuple[int, ...]
    values: tuple[float, ...]
    first: int  # of the dts
    last: int


@dataclass(slots=True)
class CheckedBatch:
    """A batch whose header is right, with its good records apart from the refused ones."""

    epoch: str
    boot: str
    clock: str
    t0: int
    mono0: int
    sent: int
    sent_mono: int | None
    readings: list[list[Any]]
    events: list[AnyEvent]
    lost: list[tuple[int, int, str]]
    rejected: list[tuple[int, str, Any]] = field(default_factory=list)  # seq, reason, the record as it came
    columns: Columns | None = field(default=None, compare=False)  # of the readings, where they are as most are


def reading_fault(dt: object, device: object, metric: object, value: object) -> str | None:
    """Why this can't be a reading, or None when it can."""
    if type(dt) is not int or not -MAX_DT_US <= dt <= MAX_DT_US:
        return f"dt is no whole number of µs: {_short(dt)}"
    if not is_name(device):
        return f"device is no name of 1 to 32 of a-z, 0-9 and '-': {_short(device)}"
    row = METRICS.get(metric) if type(metric) is str else None
    if row is None:
        return f"metric is not in the table: {_short(metric)}"
    if type(value) is not int and type(value) is not float:
        return f"{metric} is no number: {_short(value)}"
    if not row.low <= value <= row.high:
        return f"{metric} {_short(value)} is outside {row.low:g}..{row.high:g} {row.unit}"
    return None


_FIELDS = frozenset(Batch.model_fields)
_fields_of = itemgetter(*Batch.model_fields)
_CLOCKS = frozenset(("sync", "holdover", "unsync"))
_INT, _NUMBERS = frozenset((int,)), frozenset((int, float))
_ROUNDS = range(1, 33)  # rounds of so many series are looked at column by column; what is remembered of their names stays small

_HEX = "0123456789abcdef"  # what is left of an id without these is no id: `is_hex16` in half of the time


# What is no name is not remembered: it may be as long as a message.


@lru_cache(maxsize=10_000)
def _span(device: str, metric: str) -> tuple[float, float]:
    """What is possible of a metric. ValueError where the device is no name or the metric not in the table."""
    row = METRICS.get(metric)
    if row is None or not is_name(device):
        raise ValueError("no series")  # who asks says of what
    return row.low, row.high


@lru_cache(maxsize=2_000)
def _names(devices: tuple[str, ...], metrics: tuple[str, ...]) -> Names | None:
    """None where a series stands twice. ValueError where one is no name or not in the table."""
    pairs = tuple(zip(devices, metrics, strict=True))
    lows, highs = zip(*starmap(_span, pairs), strict=True)
    known = frozenset(pairs)
    return Names(devices, metrics, pairs, known, lows, highs) if len(known) == len(pairs) else None


def _columns(rows: list[Any]) -> Columns | None:
    """The rows column by column, where all are good, in order, and the series in rounds; None says nothing of what is odd.

    What `check_batch` asks of each row, asked of each column: half the time.
    """
    try:
        seqs, dts, devices, metrics, values = zip(*rows, strict=True)
        names = _names(devices, metrics) if len(devices) in _ROUNDS else None
        if names is None and (size := _round(devices, metrics)):
            names = _names(devices[:size], metrics[:size])
    except (TypeError, ValueError, RecursionError):  # a row that is none, or not of five; a name that is none, or a list
        return None
    if names is None or not (_INT.issuperset(map(type, seqs + dts)) and _NUMBERS.issuperset(map(type, values))):
        return None
    first, last = min(dts), max(dts)
    if not (1 <= seqs[0] <= seqs[-1] <= MAX_SEQ and all(map(lt, seqs, seqs[1:])) and -MAX_DT_US <= first <= last <= MAX_DT_US):
        return None
    rounds = -(-len(values) // len(names.pairs))
    if not (all(map(le, names.lows * rounds, values)) and all(map(le, values, names.highs * rounds))):
        return None
    return Columns(names, seqs, dts, values, first, last)


def _round(devices: tuple[str, ...], metrics: tuple[str, ...]) -> int:
    """After how many rows the first series follows again, and from there on all the others as before; 0 where they don't."""
    for at in range(1, min(len(devices), _ROUNDS.stop)):
        if devices[at] == devices[0] and metrics[at] == metrics[0]:
            return at if devices[at:] == devices[:-at] and metrics[at:] == metrics[:-at] else 0
    return 0


def check_batch(message: object) -> CheckedBatch:  # noqa: C901, PLR0912, PLR0915 - the hot path: one flat loop
    """The verdict of `Batch` on decoded JSON, record by record.

    ValueError with the reason when the message as a whole can't be used: wrong shape, bad header, a record without a
    usable seq. A record that has its seq but is otherwise bad goes to `rejected`, so that the edge can be told.
    """
    if type(message) is not dict:
        raise ValueError(f"message is no object: {_short(message)}")
    if message.keys() != _FIELDS:
        odd = sorted(map(str, message.keys() - _FIELDS))
        raise ValueError(f"unknown fields {_short(odd)}" if odd else f"fields missing: {sorted(_FIELDS - message.keys())}")
    version, epoch, boot, clock, t0, mono0, sent, sent_mono, readings, events, lost = _fields_of(message)
    if type(version) is not int or version != VERSION:
        raise ValueError(f"message version {_short(version)}, this gateway speaks {VERSION}")
    if type(epoch) is not str or len(epoch) != 16 or epoch.strip(_HEX):
        raise ValueError(f"epoch is not 16 hex digits: {_short(epoch)}")
    if type(boot) is not str or len(boot) != 16 or boot.strip(_HEX):
        raise ValueError(f"boot is not 16 hex digits: {_short(boot)}")
    if type(clock) is not str or clock not in _CLOCKS:
        raise ValueError(f"clock is not sync, holdover or unsync: {_short(clock)}")
    if type(t0) is not int or not 0 <= t0 <= MAX_TIME_US:
        raise ValueError(f"t0 is no time in µs: {_short(t0)}")
    if type(mono0) is not int or not 0 <= mono0 <= MAX_TIME_US:
        raise ValueError(f"mono0 is no time in µs: {_short(mono0)}")
    if type(sent) is not int or not 0 <= sent <= MAX_TIME_US:
        raise ValueError(f"sent is no time in µs: {_short(sent)}")
    if sent_mono is not None and (type(sent_mono) is not int or not 0 <= sent_mono <= MAX_TIME_US):
        raise ValueError(f"sent_mono is no time in µs: {_short(sent_mono)}")
    if type(readings) is not list or type(events) is not list or type(lost) is not list:
        raise ValueError("readings, events and lost must be lists")
    count = len(readings) + len(events)
    if count > MAX_RECORDS or len(lost) > MAX_RECORDS:
        raise ValueError(f"{max(count, len(lost))} records, at most {MAX_RECORDS}")

    rejected: list[tuple[int, str, Any]] = []
    good: list[list[Any]] = []
    seqs: set[int] = set()
    columns = _columns(readings) if len(readings) > 1 else None
    if columns is not None:
        good = readings
        if events:
            seqs.update(columns.seqs)
    for row in readings if columns is None else ():
        if type(row) is not list or len(row) != 5:
            raise ValueError(f"a reading is not [seq, dt, device, metric, value]: {_short(row)}")
        seq, dt, device, metric, value = row
        if type(seq) is not int or not 1 <= seq <= MAX_SEQ:
            raise ValueError(f"a reading has no usable seq: {_short(seq)}")
        seqs.add(seq)
        # What `reading_fault` asks, with its answers on names remembered; whatever is odd here is asked there again.
        try:
            span = _span(device, metric)
        except (TypeError, ValueError):
            span = None
        if (
            span is not None
            and type(dt) is int
            and -MAX_DT_US <= dt <= MAX_DT_US
            and (type(value) is float or type(value) is int)
            and span[0] <= value <= span[1]
        ) or (fault := reading_fault(dt, device, metric, value)) is None:
            good.append(row)
        else:
            rejected.append((seq, fault[:MAX_REASON], row))
    checked_events: list[AnyEvent] = []
    for raw in events:
        seq = raw.get("seq") if type(raw) is dict else None
        if type(seq) is not int or not 1 <= seq <= MAX_SEQ:
            raise ValueError(f"an event has no usable seq: {_short(raw)}")
        seqs.add(seq)
        try:
            checked_events.append(parse_event(raw))
        except ValueError as error:
            rejected.append((seq, str(error)[:MAX_REASON], raw))
    if (columns is None or events) and len(seqs) != count:
        raise ValueError("a seq stands twice in the message")
    gone = [_check_lost(row) for row in lost]
    return CheckedBatch(epoch, boot, clock, t0, mono0, sent, sent_mono, good, checked_events, gone, rejected, columns)


def parse_event(raw: object) -> AnyEvent:
    """One event from decoded JSON. ValueError whose text is one readable line."""
    if type(raw) is not dict:
        raise ValueError(f"an event is no object: {_short(raw)}")
    kind = raw.get("type")
    model = EVENTS.get(kind) if type(kind) is str else None
    if model is None:
        raise ValueError(f"event type is not in the table: {_short(kind)}")
    if "class" not in raw or "seq" not in raw or "dt" not in raw:
        raise ValueError(f"{kind} needs class, seq and dt")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "event"
        where = where if where.isidentifier() else _short(where)  # a field that is not ours may be called anything
        raise ValueError(f"{kind}: {where}: {first['msg']}") from None


def _check_lost(row: object) -> tuple[int, int, str]:
    if type(row) is not list or len(row) != 3:
        raise ValueError(f"a loss is not [from, to, reason]: {_short(row)}")
    low, high, reason = row
    if type(low) is not int or type(high) is not int or not 1 <= low <= high <= MAX_SEQ:
        raise ValueError(f"a loss has no usable range: {_short(row)}")
    if type(reason) is not str or not 1 <= len(reason) <= MAX_REASON:
        raise ValueError(f"a loss has no reason of 1 to {MAX_REASON} characters: {_short(row)}")
    return low, high, reason


def encode(message: BaseModel) -> bytes:
    """A message as it travels: compact JSON, UTF-8, fields by their wire names."""
    return message.model_dump_json(by_alias=True).encode()


def _short(thing: object) -> str:
    """Enough of anything to recognise it in a reason, on one line, whatever it is."""
    try:
        text = json.dumps(thing, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = object.__repr__(thing)
    return text if len(text) <= 60 else text[:57] + "..."
