"""The way of a message through the gateway, in the order in which things become durable. The page to read first.

    1  parse or quarantine          whole messages that can't be read; single records that can't be used
    2  dedupe                       by exact ranges of (node, epoch, seq): live overtakes backlog, so never by the highest
    3  ONE transaction              events, ranges of events and refused records, births, losses, quarantine
    4  watch                        events and readings -> alerts -> notifications (its own transaction, see gateway.watch)
    5  series store                 readings; idempotent
    6  ONE transaction              ranges of those readings, only after the store called them durable
    7  acks                         down/ack to each node: what is durable, what is refused, what to hold back

A crash after any step repeats the ones before it and changes nothing by that. When the series store is down, 1 to 4 go on: traps
ring, readings stay unacknowledged at the edge. One thread; `now` is given; nothing here calls upstream.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import OperationalError

from edge.contract.events import AnyEvent
from edge.contract.messages import MAX_BYTES, SEQ_REUSED, Ack, Birth, CheckedBatch, State, check_batch, encode
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel, Topic, parse, topic_for
from gateway.errors import StoreDown, StoreRefused
from gateway.rules import Fact
from gateway.state import State as Database
from gateway.state.tables import boots, devices, events, latest, losses, nodes, quarantine, ranges
from gateway.state.upsert import upsert
from gateway.telemetry import Telemetry
from gateway.watch import Watch

log = logging.getLogger(__name__)

_Wire = TypeVar("_Wire", bound=BaseModel)

LATE_US = 5 * 60 * 1_000_000
"""An event that arrives this long after it happened is late; a clock that is off by more is not trusted."""

EARLIEST_US = 1_577_836_800_000_000  # 2020-01-01: nothing of ours is older
FUTURE_US = 24 * 3600 * 1_000_000
STORE_PAUSE_S = 5
POINTS_AT_ONCE = 5000
QUARANTINE_BYTES = 4096
MAX_RANGES = 4096  # a node whose numbers are more scattered than this is not one of our agents
_REMEMBERED = 100_000  # topics and epochs kept in memory; a flood of names must not fill it

SeriesKey = tuple[str, str, str]  # node, device, metric


class Message(NamedTuple):
    """One MQTT message as it came."""

    topic: str
    payload: bytes


class Latest(NamedTuple):
    """The newest reading of a series."""

    time_us: int
    received_us: int
    seq: int
    value: float


@dataclass(slots=True)
class _Work:
    """What one flush does for one node's epoch: what becomes durable, and what its ack will say."""

    durable: Ranges  # as committed; changed only after a commit
    facts: list[tuple[int, int]] = field(default_factory=list)  # become durable in step 3
    readings: list[int] = field(default_factory=list)  # become durable in step 6
    staged: set[int] = field(default_factory=set)  # both of them, and what is refused
    seqs: list[int] = field(default_factory=list)  # everything the messages held: what the ack is about
    rejected: list[tuple[int, str]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)

    def knows(self, seq: int) -> bool:
        """Whether this record is durable, or about to be."""
        return seq in self.durable or seq in self.staged


@dataclass(slots=True)
class _Flush:
    """Everything one group of messages wants to change."""

    now_us: int
    away_since_us: int | None
    work: dict[tuple[str, str], _Work] = field(default_factory=dict)  # by (node, epoch)
    events: list[dict[str, Any]] = field(default_factory=list)
    points: list[tuple[SeriesKey, int, float]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    boots: dict[tuple[str, str], int] = field(default_factory=dict)
    births: dict[str, Birth] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    duplicates: int = 0


class Writer(Protocol):
    """What the pipeline needs of a series store; see gateway.store."""

    def write(self, points: Sequence[tuple[SeriesKey, int, float]]) -> None:
        """Returns when the points are durable. StoreDown when they can't be now."""
        ...


class Pipeline:
    """Steps 1 to 7. `process` takes a group of messages and returns the acks to publish."""

    def __init__(
        self,
        database: Database,
        store: Writer,
        watch: Watch,
        telemetry: Telemetry,
        say: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """`say(kind, body)` tells the live stream what was committed."""
        self._database, self._store, self._watch, self._telemetry, self._say = database, store, watch, telemetry, say
        self.store_down = False
        """Whether the series store took no points when it was last asked."""
        self._store_try_us = 0
        self._topics: dict[str, Topic] = {}
        self._durable: dict[tuple[str, str], Ranges] = {}
        self._boots: dict[tuple[str, str], int] = {}
        self._latest: dict[SeriesKey, Latest] = {}
        self._unsaved: set[SeriesKey] = set()
        with database.read() as connection:
            for row in connection.execute(select(latest)):
                self._latest[row.node, row.device, row.metric] = Latest(row.time_us, row.received_us, row.seq, row.value)

    def process(self, messages: Sequence[Message], now_us: int, away_since_us: int | None = None) -> list[tuple[str, bytes]]:
        """Takes the messages through all steps; returns (topic, payload) of the acks to publish.

        `away_since_us`: when this gateway last listened, if messages may have waited in the broker since.
        A message that breaks the pipeline is found by halving the group and goes to quarantine. An OperationalError of the
        database is raised; the same messages may be processed again.
        """
        try:
            with self._telemetry.flush_seconds.time():
                return self._process(messages, now_us, away_since_us)
        except OperationalError:
            self._durable.clear()
            raise
        except Exception as error:
            self._durable.clear()
            if len(messages) > 1:
                half = len(messages) // 2
                first = self.process(messages[:half], now_us, away_since_us)
                return first + self.process(messages[half:], now_us, away_since_us)
            log.exception("a message on %s broke the pipeline; quarantined", messages[0].topic[:256])
            flush = _Flush(now_us, away_since_us)
            _quarantine(flush, messages[0], f"broke the pipeline: {type(error).__name__}: {error}"[:500])
            self._commit_facts(flush)
            return []

    def _process(self, messages: Sequence[Message], now_us: int, away_since_us: int | None) -> list[tuple[str, bytes]]:
        flush = _Flush(now_us, away_since_us)
        for message in messages:
            try:
                self._read(flush, message)
            except ValueError as error:
                _quarantine(flush, message, str(error))
        self._commit_facts(flush)
        if flush.events or flush.facts:
            self._watch.run(flush.facts, now_us)
        wait_s = self._store_readings(flush)
        self._count(flush, len(messages))
        return [_ack(node, epoch, work, wait_s) for (node, epoch), work in flush.work.items()]

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: rules that wait for it, and the newest readings saved for the next start."""
        self._watch.tick(now_us, listening_since_us)
        if self._unsaved:
            rows = [
                dict(zip(("node", "device", "metric"), key, strict=True)) | self._latest[key]._asdict() for key in self._unsaved
            ]
            with self._database.write() as connection:
                connection.execute(upsert(latest, "time_us", "received_us", "seq", "value"), rows)
            self._unsaved.clear()
            self._say("latest", {"rows": rows})

    # 1 parse or quarantine

    def _read(self, flush: _Flush, message: Message) -> None:
        """ValueError with the reason when the whole message is refused."""
        topic = self._topics.get(message.topic)
        if topic is None:
            topic = parse(message.topic)
            if len(self._topics) >= _REMEMBERED:
                self._topics.clear()
            self._topics[message.topic] = topic
        node, channel = topic.node, topic.channel
        if len(message.payload) > MAX_BYTES:
            raise ValueError(f"message of {len(message.payload)} bytes, at most {MAX_BYTES}")
        if channel is Channel.LIVE or channel is Channel.BACKLOG:
            try:
                decoded = orjson.loads(message.payload)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"no JSON: {error}") from None
            self._batch(flush, message, node, check_batch(decoded))
        elif channel is Channel.BIRTH:
            self._birth(flush, node, _model(Birth, message.payload))
        elif channel is Channel.STATE:
            flush.states[node] = _model(State, message.payload)
        else:
            raise ValueError(f"{channel} is not something this gateway takes")

    # 2 dedupe

    def _batch(self, flush: _Flush, message: Message, node: str, batch: CheckedBatch) -> None:
        work = self._work(flush, node, batch.epoch)
        if len(work.durable) > MAX_RANGES:
            raise ValueError(f"this node's numbers lie in {len(work.durable)} pieces, at most {MAX_RANGES}: no agent of ours")
        trusted = _trusted(batch, flush)
        zero_us = batch.t0 if trusted else self._boot_zero(flush, node, batch) + batch.mono0
        refused = batch.rejected
        self._take_readings(flush, work, node, batch, zero_us)
        for event in batch.events:
            seq, time_us = event.seq, zero_us + event.dt
            if work.knows(seq):
                if self._is_same(flush, node, batch.epoch, event):
                    work.seqs.append(seq)
                    flush.duplicates += 1
                else:
                    work.rejected.append((seq, SEQ_REUSED))
                    _quarantine(flush, message._replace(payload=_body(event).encode()), SEQ_REUSED, seq)
            elif not EARLIEST_US <= time_us <= flush.now_us + FUTURE_US:
                refused.append((seq, "time is out of range", _body(event)))
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.seqs.append(seq)
                flush.events.append(
                    {
                        "node": node,
                        "epoch": batch.epoch,
                        "seq": seq,
                        "device": event.device,
                        "type": event.type,
                        "class_": event.class_,
                        "time_us": time_us,
                        "node_time_us": batch.t0 + event.dt,
                        "received_us": flush.now_us,
                        "late": flush.now_us - time_us > LATE_US,
                        "clock_trusted": trusted,
                        "body": _body(event),
                    }
                )
        for seq, reason, record in refused:
            if work.knows(seq):
                work.seqs.append(seq)
                flush.duplicates += 1
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.rejected.append((seq, reason))
                _quarantine(flush, message._replace(payload=orjson.dumps(record, default=str)), reason, seq)
        for low, high, reason in batch.lost:
            self._lose(flush, work, (node, batch.epoch), low, high, reason)

    def _take_readings(self, flush: _Flush, work: _Work, node: str, batch: CheckedBatch, zero_us: int) -> None:
        """The hot loop: once a reading."""
        durable, staged, done, points = work.durable, work.staged, work.readings, flush.points
        latest_, unsaved, wanted, now_us = self._latest, self._unsaved, self._watch.metrics, flush.now_us
        latest_us = now_us + FUTURE_US
        for record in batch.readings:
            seq, dt, device, metric, value = record
            if seq in durable or seq in staged:
                work.seqs.append(seq)
                flush.duplicates += 1
                continue
            time_us = zero_us + dt
            if not EARLIEST_US <= time_us <= latest_us:
                batch.rejected.append((seq, "time is out of range", record))
                continue
            key = (node, device, metric)
            last = latest_.get(key)
            if last is None or time_us > last.time_us:
                latest_[key] = Latest(time_us, now_us, seq, value)
                unsaved.add(key)
            elif last.time_us // 1000 == time_us // 1000 and last.seq != seq:
                batch.rejected.append((seq, "second reading of its series in one millisecond", record))
                continue
            staged.add(seq)
            done.append(seq)
            work.seqs.append(seq)
            points.append((key, time_us // 1000, value))
            if metric in wanted:
                late = now_us - time_us > LATE_US
                flush.facts.append(Fact(node, device, metric, value, time_us, now_us, late, f"{batch.epoch}:{seq}"))

    def _lose(self, flush: _Flush, work: _Work, key: tuple[str, str], low: int, high: int, reason: str) -> None:
        """Records what of low..high never came, and stops waiting for it."""
        known = work.durable.copy()
        for first, last in work.facts:
            known.add(first, last)
        for seq in work.readings:
            known.add(seq)
        for first, last in known.holes(high + 1):
            if last >= low:
                flush.lost.append(
                    {
                        "node": key[0],
                        "epoch": key[1],
                        "low": max(first, low),
                        "high": last,
                        "reason": reason,
                        "recorded_us": flush.now_us,
                    }
                )
                work.facts.append((max(first, low), last))
        work.seqs += (low, high)

    def _work(self, flush: _Flush, node: str, epoch: str) -> _Work:
        """This flush's work for the node's epoch, with what is durable of it, from memory or from the database."""
        key = (node, epoch)
        work = flush.work.get(key)
        if work is None:
            durable = self._durable.get(key)
            if durable is None:
                with self._database.read() as connection:
                    body = connection.scalar(select(ranges.c.body).where(ranges.c.node == node, ranges.c.epoch == epoch))
                if len(self._durable) >= _REMEMBERED:
                    self._durable.clear()
                durable = self._durable[key] = Ranges.parse(body or "")
            work = flush.work[key] = _Work(durable)
        return work

    def _is_same(self, flush: _Flush, node: str, epoch: str, event: AnyEvent) -> bool:
        """Whether the event that is known under this number is this one; a reading or a refused record is not compared."""
        with self._database.read() as connection:
            stored = connection.scalar(
                select(events.c.body).where(events.c.node == node, events.c.epoch == epoch, events.c.seq == event.seq)
            )
        staged = (row["body"] for row in flush.events if (row["node"], row["epoch"], row["seq"]) == (node, epoch, event.seq))
        known = stored if stored is not None else next(staged, None)
        return known is None or known == _body(event)

    def _boot_zero(self, flush: _Flush, node: str, batch: CheckedBatch) -> int:
        """UTC µs of mono 0 of the batch's boot, by our clock: set at its first message, then the same for ever."""
        key = (node, batch.boot)
        zero_us = self._boots.get(key)
        if zero_us is None:
            with self._database.read() as connection:
                zero_us = connection.scalar(select(boots.c.zero_us).where(boots.c.node == node, boots.c.boot == batch.boot))
            if zero_us is None:
                zero_us = flush.boots.get(key)
            if zero_us is None:
                zero_us = flush.boots[key] = flush.now_us - (batch.mono0 + batch.sent - batch.t0)
                return zero_us  # remembered once it is committed
            self._boots[key] = zero_us
        return zero_us

    def _birth(self, flush: _Flush, node: str, birth: Birth) -> None:
        """Notes what the node says of itself; asks for what it no longer has and we never saw."""
        flush.births[node] = birth
        work = self._work(flush, node, birth.epoch)
        if birth.first > 1 and birth.first - 1 not in work.durable:
            work.facts.append((1, birth.first - 1))  # numbers of an earlier epoch: not this one's to miss
        work.missing += [hole for hole in work.durable.holes(birth.oldest) if hole[0] >= birth.first][:100]

    # 3 one transaction for the facts

    def _commit_facts(self, flush: _Flush) -> None:
        settled = {key: work.facts for key, work in flush.work.items() if work.facts}
        if not (settled or flush.quarantine or flush.boots or flush.births or flush.states):
            return
        with self._database.write() as connection:
            if flush.events:
                connection.execute(insert(events), flush.events)
            if flush.lost:
                connection.execute(insert(losses), flush.lost)
            if flush.quarantine:
                connection.execute(insert(quarantine), flush.quarantine)
            if flush.boots:
                rows = [{"node": node, "boot": boot, "zero_us": zero} for (node, boot), zero in flush.boots.items()]
                connection.execute(upsert(boots), rows)
            self._commit_nodes(connection, flush)
            after = _commit_ranges(connection, flush, settled)
        self._durable.update(after)
        for key, durable in after.items():
            flush.work[key].durable = durable
        for row in flush.events:
            self._say("event", row)

    def _commit_nodes(self, connection: Connection, flush: _Flush) -> None:
        seen = {node for node, _ in flush.work} | flush.states.keys()
        if flush.births:
            rows = [
                {"node": node, "epoch": birth.epoch, "session": birth.session, "boot": birth.boot, "agent": birth.agent,
                 "born_us": flush.now_us, "config_revision": birth.config.revision if birth.config else None}
                for node, birth in flush.births.items()
            ]  # fmt: skip
            connection.execute(upsert(nodes, "epoch", "session", "boot", "agent", "born_us", "config_revision"), rows)
            kinds = [
                {"node": node, "device": born.device, "kind": born.kind}
                for node, birth in flush.births.items()
                for born in birth.devices
            ]
            if kinds:
                connection.execute(upsert(devices, "kind"), kinds)
        connection.execute(upsert(nodes, "seen_us"), [{"node": node, "seen_us": flush.now_us} for node in seen])
        if flush.states:
            rows = [
                {"node": node, "online": state.online, "offline_reason": state.reason} for node, state in flush.states.items()
            ]
            connection.execute(upsert(nodes, "online", "offline_reason"), rows)

    # 5 series store, 6 one transaction for its ranges

    def _store_readings(self, flush: _Flush) -> int:
        """Writes the points and, once they are durable, their ranges. Seconds to wait when the store is down, else 0."""
        if not flush.points:
            return STORE_PAUSE_S if self.store_down else 0
        if self.store_down and flush.now_us < self._store_try_us:
            return STORE_PAUSE_S
        try:
            for start in range(0, len(flush.points), POINTS_AT_ONCE):
                self._store.write(flush.points[start : start + POINTS_AT_ONCE])
        except (StoreDown, StoreRefused) as error:
            if not self.store_down:
                log.error("the series store takes no points (%s); readings wait at the edge, events go on", error)
            self.store_down = True
            self._store_try_us = flush.now_us + STORE_PAUSE_S * 1_000_000
            self._telemetry.store_down.set(1)
            return STORE_PAUSE_S
        if self.store_down:
            log.warning("the series store takes points again")
            self.store_down = False
            self._telemetry.store_down.set(0)
        added = {key: _runs(work.readings) for key, work in flush.work.items() if work.readings}
        with self._database.write() as connection:
            after = _commit_ranges(connection, flush, added)
        self._durable.update(after)
        for key, durable in after.items():
            flush.work[key].durable = durable
        return 0

    def _count(self, flush: _Flush, messages: int) -> None:
        telemetry = self._telemetry
        telemetry.messages.inc(messages)
        telemetry.records.labels("event").inc(len(flush.events))
        telemetry.records.labels("reading").inc(0 if self.store_down else len(flush.points))
        telemetry.duplicates.inc(flush.duplicates)
        telemetry.quarantined.inc(len(flush.quarantine))
        telemetry.lost.inc(sum(row["high"] - row["low"] + 1 for row in flush.lost))


def _commit_ranges(
    connection: Connection, flush: _Flush, added: dict[tuple[str, str], list[tuple[int, int]]]
) -> dict[tuple[str, str], Ranges]:
    """Writes the ranges with what was added; returns them, for memory, once the transaction is through."""
    after = {}
    for key, pieces in added.items():
        durable = after[key] = flush.work[key].durable.copy()
        for low, high in pieces:
            durable.add(low, high)
    if after:
        rows = [{"node": node, "epoch": epoch, "body": durable.text()} for (node, epoch), durable in after.items()]
        connection.execute(upsert(ranges, "body"), rows)
    return after


def _trusted(batch: CheckedBatch, flush: _Flush) -> bool:
    """Whether the node's clock can be believed: it says so, and it does not differ from ours.

    `sent` was the node's time when the message left; it may have waited in the broker while this gateway was away.
    """
    if batch.clock == "unsync" or batch.sent > flush.now_us + LATE_US:
        return False
    earliest_us = flush.now_us if flush.away_since_us is None else min(flush.away_since_us, flush.now_us)
    return batch.sent >= earliest_us - LATE_US


def _quarantine(flush: _Flush, message: Message, reason: str, seq: int | None = None) -> None:
    """Keeps the beginning of what is refused, with the reason. `seq` None: the whole message."""
    try:
        node = parse(message.topic).node
    except ValueError:
        node = None
    flush.quarantine.append(
        {
            "received_us": flush.now_us,
            "node": node,
            "seq": seq,
            "topic": message.topic[:256],
            "reason": reason,
            "size": len(message.payload),
            "payload": message.payload[:QUARANTINE_BYTES],
        }
    )


def _ack(node: str, epoch: str, work: _Work, wait_s: int) -> tuple[str, bytes]:
    upto = work.durable.upto
    above = work.durable.around(seq for seq in work.seqs if seq > upto)
    ack = Ack(epoch=epoch, upto=upto, ranges=above, missing=work.missing, rejected=work.rejected, wait_s=wait_s)
    return topic_for(Topic(node, Channel.ACK)), encode(ack)


def _body(event: AnyEvent) -> str:
    """An event's own fields as JSON, the same text for the same event."""
    return event.model_dump_json(by_alias=True, exclude={"seq", "dt", "device", "type", "class_"})


def _runs(seqs: list[int]) -> list[tuple[int, int]]:
    """Numbers as closed ranges, in the order in which they came."""
    runs: list[tuple[int, int]] = []
    low = high = seqs[0]
    for seq in seqs:
        if seq > high + 1 or seq < high:
            runs.append((low, high))
            low = seq
        high = seq
    runs.append((low, high))
    return runs


def _model(model: type[_Wire], payload: bytes) -> _Wire:
    """A message by its model. ValueError of one readable line."""
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"])) or "message"
        raise ValueError(f"{where}: {fault['msg']}"[:300]) from None
