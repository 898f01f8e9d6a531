"""From messages to a `Flush`, which is all that a group of them wants to change: steps 1 and 2 of gateway.pipeline.

It reads the state database and never writes it, and what it remembers of the database is only what was committed. Whatever
a message holds, the work it makes here is bounded.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, bindparam, select

from edge.contract.events import AnyEvent, ClockSynced
from edge.contract.messages import MAX_BYTES, SEQ_REUSED, Birth, CheckedBatch, State, check_batch
from edge.contract.ranges import Ranges
from edge.contract.remote import Reported, Result
from edge.contract.topics import Channel, Topic, parse
from gateway.flush import Content, EpochKey, Flush, Latest, Message, Settled, Synced, Work, Zero, runs
from gateway.keeping.late import Keeps
from gateway.nodes.commands import check_result
from gateway.nodes.desired import check_report
from gateway.nodes.limit import Limit
from gateway.rules import Fact
from gateway.state import State as Database
from gateway.state.tables import boots, devices, events, latest, nodes, ranges

_Wire = TypeVar("_Wire", bound=BaseModel)

LATE_US = 5 * 60 * 1_000_000
"""An event that arrives this long after it happened is late; a clock that is off by more is not trusted."""

EARLIEST_US = 1_577_836_800_000_000  # 2020-01-01: nothing of ours is older
FUTURE_US = 24 * 3600 * 1_000_000  # of a boot whose zero we had to guess; a trusted clock is never so far ahead
LONGEST_WAIT_US = 90 * 86_400 * 1_000_000  # a record that waited longer by a clock never set: that clock was set meanwhile
MAX_DEVICES = 1000  # of one node, as in its Birth: the flood of names of a broken one must not fill memory and disk
MAX_SERIES = 10_000  # of one node
MAX_RANGES = 50_000  # pieces that one epoch's numbers lie in; a week of events while the series store is down
MAX_UNHEARD = 10_000_000  # numbers a node may have given up before we heard of them: more than an outbox holds
# New ones of one node: a card that was restored now and then, and a week of power cuts. What comes too early is left unread.
NEW_EPOCHS, EPOCH_EVERY_US = 50, 600 * 1_000_000
NEW_BOOTS, BOOT_EVERY_US = 2000, 60 * 1_000_000
_REMEMBERED = 100_000  # topics, boots and epochs kept in memory; a flood of names must not fill it
_PIECES = 1_000_000  # of all remembered epochs together

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_RANGES = select(ranges.c.body, ranges.c.declared).where(ranges.c.node == bindparam("node"), ranges.c.epoch == bindparam("epoch"))
_BOOT = select(boots.c.zero_us, boots.c.synced).where(boots.c.node == bindparam("node"), boots.c.boot == bindparam("boot"))


class _TooEarly(Exception):
    """The message is left unread: neither used nor refused, so that its node sends it again later."""


class Intake:
    """Reads groups of messages; `committed` tells it what came of them."""

    def __init__(self, database: Database, wanted: frozenset[str], keeps: Keeps) -> None:
        """`wanted`: the metrics that rules want facts of. `keeps`: what is dropped before it is stored."""
        self._database, self._wanted, self._is_ours, self._late = database, wanted, keeps.is_ours, keeps.late
        self.unsaved: set[Latest] = set()
        """Of which series a newer reading came since somebody cleared this."""
        self._latest: dict[str, dict[tuple[str, str], Latest]] = defaultdict(dict)  # by node, then by device and metric
        self._names: dict[tuple[str, str], tuple[str, str]] = {}  # of those: nodes of one kind share them, for memory's sake
        self._topics: dict[str, Topic] = {}
        self._settled: dict[EpochKey, Settled] = {}
        self._pieces = 0
        self._next: dict[EpochKey, int] = {}  # the next seq a node said it will give out
        self._boots: dict[tuple[str, str], Zero] = {}
        self._devices: dict[str, set[str]] = defaultdict(set)
        self._heard: set[tuple[str, str]] = set()  # boots, whether there is something to know of them or not
        self._group = ExitStack()
        self._connection: Connection | None = None
        self._new: dict[tuple[str, str], Limit] = {}  # by node, and what it has a new one of
        self.anew()

    def anew(self) -> None:
        """Lets go of all that is remembered, and reads what must be: another process may have written meanwhile."""
        known: dict[str, dict[tuple[str, str], Latest]] = defaultdict(dict)
        theirs: dict[str, set[str]] = defaultdict(set)
        with self._database.read() as connection:
            for row in connection.execute(select(latest)):
                name = self._name(row.device, row.metric)
                key = (row.node, *name)
                known[row.node][name] = Latest(key, row.time_us, row.received_us, row.seq, row.value)
                theirs[row.node].add(name[0])
            for row in connection.execute(select(devices.c.node, devices.c.device)):
                theirs[row.node].add(row.device)
        # Only now: where the database could not be read, what was remembered stands.
        self.forget()
        self.unsaved.clear()
        self._next.clear()
        self._heard.clear()
        self._latest, self._devices = known, theirs

    def read(self, messages: Sequence[Message], now_us: int, away_since_us: int | None) -> Flush:
        """What the messages want to change; what can't be used of them stands in its quarantine."""
        flush = Flush(now_us, away_since_us)
        with self._group:
            try:
                for message in messages:
                    try:
                        self._read(flush, message)
                    except ValueError as error:
                        flush.refuse(message, str(error))
                    except _TooEarly:
                        pass  # flush.crowded has the node
            finally:
                self._connection = None
        for key, work in flush.work.items():
            if work.lost:
                self._record_losses(flush, key, work)
        return flush

    @property
    def _view(self) -> Connection:
        """The database as it was at this group's first question: a server takes long to open it anew for each."""
        if self._connection is None:
            self._connection = self._group.enter_context(self._database.read())
        return self._connection

    def committed(self, flush: Flush, after: dict[EpochKey, Settled]) -> None:
        """Remembers what is durable now."""
        for key, settled in after.items():
            self._pieces += max(len(settled.durable) - len(flush.work[key].settled.durable), 0)
            flush.work[key].settled = settled
        if self._pieces > _PIECES:
            self.forget()
        self._settled.update(after)
        if flush.boots:
            _make_room(self._boots)
            self._boots.update(flush.boots)

    def forget(self) -> None:
        """Lets go of what is remembered of epochs and boots: the database has it."""
        self._settled.clear()
        self._boots.clear()
        self._pieces = 0

    # 1 parse or quarantine

    def _read(self, flush: Flush, message: Message) -> None:
        """ValueError with the reason when the whole message is refused; nothing of it is in the flush then."""
        topic = self._topics.get(message.topic)
        if topic is None:
            topic = parse(message.topic)
            _make_room(self._topics)
            self._topics[message.topic] = topic
        node, channel = topic.node, topic.channel
        if len(message.payload) > MAX_BYTES:
            raise ValueError(f"message of {len(message.payload)} bytes, at most {MAX_BYTES}")
        spoke = not message.retained
        if channel is Channel.LIVE or channel is Channel.BACKLOG:
            try:
                decoded = orjson.loads(message.payload)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"no JSON: {error}") from None
            self._batch(flush, message, node, check_batch(decoded))
        elif channel is Channel.BIRTH:
            self._birth(flush, node, _model(Birth, message.payload), news=spoke)
        elif channel is Channel.STATE:
            state = _model(State, message.payload)
            spoke = spoke and state.reason != "lost"  # those are the broker's words
            self._state(flush, node, state)
        elif channel is Channel.REPORTED:
            report = _model(Reported, message.payload)
            check_report(self._view, node, report)
            flush.reports.append((node, report, spoke))
        elif channel is Channel.RESULT and topic.id is not None:
            result = _model(Result, message.payload)
            check_result(self._view, node, topic.id)
            flush.results.append((topic.id, result))
        else:
            raise ValueError(f"{channel} is not something this gateway takes")
        if spoke:
            flush.seen.add(node)

    def _birth(self, flush: Flush, node: str, birth: Birth, *, news: bool) -> None:
        """Notes what the node says of itself; asks for what it no longer has and we never saw."""
        work = self._work(flush, node, birth.epoch)
        if len(birth.devices) > MAX_DEVICES - len(self._devices[node]):
            kept = [born for born in birth.devices if self._has_room(flush, node, born.device)]
            birth = birth.model_copy(update={"devices": kept})
        else:
            self._devices[node].update(born.device for born in birth.devices)
        flush.births[node] = birth
        if news:
            flush.born.add(node)
        _make_room(self._next)
        self._next[node, birth.epoch] = birth.next
        durable = work.settled.durable
        if birth.first > 1 and durable.holes(birth.first):
            earlier = (1, birth.first - 1)  # numbers of an earlier epoch: not this one's to miss
            work.facts.append(earlier)
            work.declared += durable.holes(birth.first)
        holes = ((max(low, birth.first), high) for low, high in durable.holes(birth.oldest) if high >= birth.first)
        work.missing += list(holes)[: max(100 - len(work.missing), 0)]

    def _state(self, flush: Flush, node: str, state: State) -> None:
        """Notes whether the node is there. The last will of a session that another has followed says nothing."""
        born = flush.births.get(node)
        session = born.session if born else None
        if not state.online and session is None:
            session = self._view.scalar(select(nodes.c.session).where(nodes.c.node == node))
        if state.online or session in (None, state.session):
            flush.states[node] = state

    # 2 dedupe

    def _batch(self, flush: Flush, message: Message, node: str, batch: CheckedBatch) -> None:
        work = self._work(flush, node, batch.epoch)
        self._check_size((node, batch.epoch), work, batch)
        if (node, batch.boot) not in self._heard:
            self._hear_boot(flush, node, batch.boot)
        if batch.readings or batch.events:
            self._hear_synced(flush, work, node, batch)
            zero_us, trusted = self._zero(flush, node, batch)
            self._take_readings(flush, work, node, batch, zero_us, trusted=trusted)
            if batch.events:
                self._take_events(flush, work, message, node, batch, zero_us, trusted=trusted)
        for seq, reason, record in batch.rejected:
            if work.knows(seq):
                work.seqs.append(seq)
                flush.duplicates += 1
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.rejected.append((seq, reason))
                flush.refuse(message._replace(payload=orjson.dumps(record, default=str)), reason, seq)
        work.lost += batch.lost

    def _check_size(self, key: EpochKey, work: Work, batch: CheckedBatch) -> None:
        """ValueError for a batch that scatters this epoch's numbers too far, or gives up what nobody can have had."""
        durable = work.settled.durable
        if len(durable) + len(batch.lost) >= MAX_RANGES:
            after = durable.copy()
            for seq in _seqs(batch):
                after.add(seq)
            for low, high, _ in batch.lost:
                after.add(low, high)
            if len(after) > max(len(durable), MAX_RANGES - 1):
                raise ValueError(f"this epoch's numbers lie in {len(durable)} pieces already: only what fills gaps is taken")
        if batch.lost:
            high = max(row[1] for row in batch.lost)
            top = max(work.given_out, self._next.get(key, 1) - 1, max(_seqs(batch), default=0))
            if high > top + MAX_UNHEARD:
                raise ValueError(f"gives up numbers to {high}, but no record above {top} was ever heard of")

    def _take_readings(self, flush: Flush, work: Work, node: str, batch: CheckedBatch, zero_us: int, *, trusted: bool) -> None:
        """The hot loop: once a reading. What can be done once a batch is done there."""
        rows = batch.readings
        if not rows:
            return
        seqs = [row[0] for row in rows]
        if not work.staged.isdisjoint(seqs) or work.settled.durable.meets(min(seqs), max(seqs)):
            known = {seq for seq in seqs if work.knows(seq)}
            work.seqs += known
            flush.duplicates += len(known)
            rows = [row for row in rows if row[0] not in known]
            seqs = [row[0] for row in rows]
        series, epoch, wanted, now_us = self._latest[node], batch.epoch, self._wanted, flush.now_us
        points, facts, unsaved = flush.points, flush.facts, self.unsaved
        latest_us = now_us + (LATE_US if trusted else FUTURE_US)
        refused: list[tuple[int, str, Any]] = []
        for record in rows:
            seq, dt, device, metric, value = record
            time_us = zero_us + dt
            if not EARLIEST_US <= time_us <= latest_us:
                refused.append((seq, "time is out of range", record))
                continue
            last = series.get((device, metric))
            if last is None:
                name = self._name(device, metric)
                if not self._has_room(flush, node, name[0]):
                    refused.append((seq, f"this node has {MAX_DEVICES} devices already", record))
                    continue
                if len(series) >= MAX_SERIES:
                    flush.crowded.add(node)
                    refused.append((seq, f"this node has {MAX_SERIES} series already", record))
                    continue
                last = series[name] = Latest((node, *name), time_us, now_us, seq, value)
                unsaved.add(last)
            elif time_us - last.time_us < 1000 and time_us // 1000 == last.time_us // 1000 and last.seq != seq:
                refused.append((seq, "second reading of its series in one millisecond", record))
                continue
            elif time_us > last.time_us:
                last.time_us, last.received_us, last.seq, last.value = time_us, now_us, seq, value
                unsaved.add(last)
            key = last.key
            points.append((key, time_us // 1000, value))
            if metric in wanted:
                # Nothing is true in the future: a rule that believed it would be deaf until then. The names are those of the
                # key, for their hashes are known: each fact is looked up by them several times.
                at_us = min(time_us, now_us)
                facts.append(Fact(*key, value, at_us, now_us, now_us - time_us > LATE_US, f"{epoch}:{seq}"))
        if refused:
            batch.rejected += refused
            gone = {seq for seq, _, _ in refused}
            seqs = [seq for seq in seqs if seq not in gone]
        if seqs:
            flush.origins.append((len(points) - len(seqs), (node, epoch), seqs))
        work.staged.update(seqs)
        work.readings += seqs
        work.seqs += seqs

    def _take_events(
        self, flush: Flush, work: Work, message: Message, node: str, batch: CheckedBatch, zero_us: int, *, trusted: bool
    ) -> None:
        epoch, now_us = batch.epoch, flush.now_us
        stored = self._stored(work, node, batch)
        for event in batch.events:
            seq, time_us = event.seq, zero_us + event.dt
            content = Content(event.device, event.type, batch.t0 + event.dt, _body(event))
            known = stored.get(seq) or flush.contents.get((node, epoch, seq))
            believed = trusted and EARLIEST_US <= time_us <= now_us + LATE_US
            if not believed and not EARLIEST_US <= time_us <= now_us:
                time_us = now_us  # a clock that is wrong must not cost an alarm: it counts from when we heard of it
            if known == content:
                work.seqs.append(seq)
                flush.duplicates += 1
            elif known is None and (tag := getattr(event, "tag", None)) is not None and not self._is_ours(tag):
                # Whoever that is, it is nobody's business: not even stored. But settled, so that it is not sent again.
                if not work.knows(seq):
                    work.staged.add(seq)
                    work.facts.append((seq, seq))
                    flush.strangers += 1
                work.seqs.append(seq)
            elif known is None and (kind := self._late(event, time_us, now_us)) is not None:
                # It is settled, so that its node lets go of it too.
                if not work.knows(seq):
                    work.staged.add(seq)
                    work.facts.append((seq, seq))
                    flush.late[kind, node] = flush.late.get((kind, node), 0) + 1
                work.seqs.append(seq)
            elif known is None and getattr(event, "tag", None) is not None and work.knows(seq):
                work.seqs.append(seq)  # sent again, and dropped when nobody was enrolled for it yet
                flush.duplicates += 1
            elif known is not None or work.knows(seq):  # known as another event, or as a reading
                work.reuse(seq)
                # Refused records are kept to be looked at: a stranger's tag is not, whatever number it came under.
                stranger = (tag := getattr(event, "tag", None)) is not None and not self._is_ours(tag)
                payload = event.model_dump_json(by_alias=True, exclude={"tag"} if stranger else None).encode()
                flush.refuse(message._replace(payload=payload), SEQ_REUSED, seq)
            elif not self._has_room(flush, node, event.device):
                reason = f"this node has {MAX_DEVICES} devices already"
                batch.rejected.append((seq, reason, event.model_dump(by_alias=True)))
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.seqs.append(seq)
                flush.contents[node, epoch, seq] = content
                flush.events.append(
                    {
                        "node": node,
                        "epoch": epoch,
                        "seq": seq,
                        "device": event.device,
                        "type": event.type,
                        "class_": event.class_,
                        "time_us": time_us,
                        "node_time_us": content.node_time_us,
                        "received_us": now_us,
                        "late": now_us - time_us > LATE_US,
                        "clock_trusted": believed,
                        "boot": batch.boot,
                        "body": content.body,
                    }
                )

    def _stored(self, work: Work, node: str, batch: CheckedBatch) -> dict[int, Content]:
        """Those of the batch's events whose numbers are committed already, as they are stored."""
        durable = work.settled.durable
        seqs = [event.seq for event in batch.events if event.seq in durable]
        if not seqs:
            return {}
        rows = self._view.execute(
            select(events.c.seq, events.c.device, events.c.type, events.c.node_time_us, events.c.body).where(
                events.c.node == node, events.c.epoch == batch.epoch, events.c.seq.in_(seqs)
            )
        )
        return {row.seq: Content(row.device, row.type, row.node_time_us, row.body) for row in rows}

    def _record_losses(self, flush: Flush, key: EpochKey, work: Work) -> None:
        """Records what of the declared losses never came, and stops waiting for it.

        Only numbers that were given out, as far as we know: an ack for more would free records that are yet to be made.
        """
        known = work.settled.durable.copy()
        for low, high in runs(sorted(work.staged)):
            known.add(low, high)
        top = max(work.given_out, self._next.get(key, 1) - 1, max(work.staged, default=0))
        wanted = sorted((low, min(high, top), reason) for low, high, reason in work.lost if low <= top)
        holes = iter(known.holes(max((high for _, high, _ in wanted), default=0) + 1))
        hole = next(holes, None)
        recorded = 0  # losses may overlap
        for low, high, reason in wanted:
            work.seqs += (low, high)
            while hole is not None and hole[0] <= high:
                first, last = max(hole[0], low, recorded + 1), min(hole[1], high)
                if first <= last:
                    recorded = last
                    work.facts.append((first, last))
                    work.declared.append((first, last))
                    flush.lost.append(
                        {"node": key[0], "epoch": key[1], "low": first, "high": last, "reason": reason,
                         "recorded_us": flush.now_us}
                    )  # fmt: skip
                if hole[1] > high:
                    break
                hole = next(holes, None)

    # What is known of before

    def _work(self, flush: Flush, node: str, epoch: str) -> Work:
        """This flush's work for the node's epoch, with what is settled of it, from memory or from the database."""
        key = (node, epoch)
        work = flush.work.get(key)
        if work is None:
            settled = self._settled.get(key)
            if settled is None:
                row = self._view.execute(_RANGES, {"node": node, "epoch": epoch}).first()
                if row is None:
                    self._begin(flush, node, "epoch", NEW_EPOCHS, EPOCH_EVERY_US)
                settled = Settled(Ranges.parse(row.body), Ranges.parse(row.declared)) if row else Settled(Ranges(), Ranges())
                _make_room(self._settled)
                self._settled[key] = settled
            work = flush.work[key] = Work(settled, max((high for _, high in settled.durable), default=0))
        return work

    def _name(self, device: str, metric: str) -> tuple[str, str]:
        """Device and metric as they are in memory already."""
        _make_room(self._names)
        name = (device, metric)
        return self._names.setdefault(name, name)

    def _hear_boot(self, flush: Flush, node: str, boot: str) -> None:
        """_TooEarly where the node starts more often than a node can."""
        if self._known_zero(flush, node, boot) is None:
            self._begin(flush, node, "boot", NEW_BOOTS, BOOT_EVERY_US)
        if len(self._heard) >= _REMEMBERED:
            self._heard.clear()
        self._heard.add((node, boot))

    def _begin(self, flush: Flush, node: str, what: str, burst: int, every_us: int) -> None:
        """Counts something new of a node. _TooEarly where it has had too much of it lately."""
        limit = self._new.get((node, what))
        if limit is None:
            _make_room(self._new)
            limit = self._new[node, what] = Limit(burst, every_us)
        if limit.wait_s(flush.now_us):
            flush.crowded.add(node)
            raise _TooEarly
        limit.count(flush.now_us)

    def _has_room(self, flush: Flush, node: str, device: str) -> bool:
        """Whether the device is known, or may still become so."""
        known = self._devices[node]
        if device not in known:
            if len(known) >= MAX_DEVICES:
                flush.crowded.add(node)
                return False
            known.add(device)
        return True

    # When it was

    def _zero(self, flush: Flush, node: str, batch: CheckedBatch) -> tuple[int, bool]:
        """UTC µs of the batch's `dt` 0, and whether that is by a right clock."""
        if _trusted(batch, flush):
            self._learn_zero(flush, node, batch)
            return batch.t0, True
        known = self._known_zero(flush, node, batch.boot)
        if known is not None and known.synced:
            return known.us + batch.mono0, True
        if batch.sent_mono is None and batch.clock != "unsync":
            # Of an earlier boot: that the clock is wrong now says nothing of the one that was right then.
            near = known is None or abs(known.us + batch.mono0 - batch.t0) <= LATE_US
            if near and EARLIEST_US <= batch.t0 <= flush.now_us + LATE_US:
                return batch.t0, True
        if known is None:
            known = flush.boots[node, batch.boot] = Zero(_guess(batch, flush.now_us))
        return known.us + batch.mono0, False

    def _learn_zero(self, flush: Flush, node: str, batch: CheckedBatch) -> None:
        """Takes the zero of a boot from a clock that is right, for records of the same boot from before it was."""
        key = (node, batch.boot)
        if key in self._boots or batch.clock != "sync" or abs(batch.sent - flush.now_us) > LATE_US:
            return
        if self._known_zero(flush, node, batch.boot) is None:
            flush.boots[key] = Zero(batch.t0 - batch.mono0)

    def _hear_synced(self, flush: Flush, work: Work, node: str, batch: CheckedBatch) -> None:
        """Takes the zero of the batch's boot from the node's own word, where that can be: once, unless a later word comes when
        by the first it would be another time now.
        """
        for event in batch.events:
            if not isinstance(event, ClockSynced) or event.boot != batch.boot or work.knows(event.seq):
                continue
            key = (node, batch.boot)
            known = self._known_zero(flush, node, batch.boot)
            if not _is_right(event, batch, flush):
                continue
            if known is None or not known.synced:
                flush.synced[key] = Synced(event.zero, event.stepped, known.us if known else None)
                flush.boots[key] = Zero(event.zero, synced=True)
            elif batch.sent_mono is not None and not _was_now(known.us + batch.sent_mono, flush):
                flush.boots[key] = Zero(event.zero, synced=True)

    def _known_zero(self, flush: Flush, node: str, boot: str) -> Zero | None:
        key = (node, boot)
        zero = flush.boots.get(key) or self._boots.get(key)
        if zero is None:
            row = self._view.execute(_BOOT, {"node": node, "boot": boot}).first()
            if row is not None:
                _make_room(self._boots)
                zero = self._boots[key] = Zero(row.zero_us, row.synced)
        return zero


def _trusted(batch: CheckedBatch, flush: Flush) -> bool:
    """Whether the node's clock can be believed: it says so, it does not differ from ours, and it was not set meanwhile.

    `sent` was the node's time when the message left; it may have waited in the broker while this gateway was away.
    """
    if batch.clock == "unsync" or not _was_now(batch.sent, flush):
        return False
    return batch.sent_mono is None or abs((batch.sent - batch.sent_mono) - (batch.t0 - batch.mono0)) <= LATE_US


def _is_right(event: ClockSynced, batch: CheckedBatch, flush: Flush) -> bool:
    """Whether the zero that a node claims gives times that can be: the message's leaving; where that is unknown, the event's."""
    if batch.sent_mono is not None:
        return _was_now(event.zero + batch.sent_mono, flush)
    return EARLIEST_US <= event.zero + batch.mono0 + event.dt <= flush.now_us + LATE_US


def _was_now(sent_us: int, flush: Flush) -> bool:
    """Whether a message that is here now can have left at that time, give or take what a trusted clock may be off."""
    earliest_us = flush.now_us if flush.away_since_us is None else min(flush.away_since_us, flush.now_us)
    return earliest_us - LATE_US <= sent_us <= flush.now_us + LATE_US


def _guess(batch: CheckedBatch, now_us: int) -> int:
    """UTC µs of mono 0 of a boot of which nothing is known: as if the message had just left, by the time since boot where it
    is of this boot, else by the node's UTC. One that waited in the broker makes it too late, never too early: what is told
    late is told, and not taken for long over.
    """
    if batch.sent_mono is not None:
        return now_us - max(batch.sent_mono, batch.mono0)
    waited_us = batch.sent - batch.t0
    if not 0 <= waited_us <= LONGEST_WAIT_US:
        waited_us = 0
    return now_us - waited_us - batch.mono0


def _seqs(batch: CheckedBatch) -> Iterator[int]:
    yield from (row[0] for row in batch.readings)
    yield from (event.seq for event in batch.events)
    yield from (row[0] for row in batch.rejected)


def _body(event: AnyEvent) -> str:
    """An event's own fields as JSON, the same text for the same event: one of before there was `species` too."""
    without = {"seq", "dt", "device", "type", "class_"}
    if getattr(event, "species", "") is None:
        without.add("species")
    return event.model_dump_json(by_alias=True, exclude=without)


def _make_room(cache: dict[Any, Any]) -> None:
    """Empties a cache that has grown too large; what it held is found again where it came from."""
    if len(cache) >= _REMEMBERED:
        cache.clear()


def _model(model: type[_Wire], payload: bytes) -> _Wire:
    """A message by its model. ValueError of one readable line."""
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"])) or "message"
        raise ValueError(f"{where}: {fault['msg']}"[:300]) from None
