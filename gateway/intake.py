"""From messages to a `Flush`, which is all that a group of them wants to change: steps 1 and 2 of gateway.pipeline.

It reads the state database and never writes it, and what it remembers of the database is only what was committed. Whatever
a message holds, the work it makes here is bounded.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import groupby
from operator import itemgetter, lt
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, bindparam, select

from edge.contract.events import AnyEvent, ClockSynced
from edge.contract.messages import MAX_BYTES, SEQ_REUSED, Birth, CheckedBatch, Columns, Names, State, check_batch
from edge.contract.ranges import Ranges
from edge.contract.remote import Reported, Result
from edge.contract.topics import LIVE, Channel, named_in, parse, unchecked
from gateway.flush import Content, EpochKey, Flush, Message, Settled, Synced, Work, Zero, runs
from gateway.heard import NOTHING_YET, Heard, Layouts, Name, Newest
from gateway.keeping.late import Keeps
from gateway.nodes.commands import check_result
from gateway.nodes.desired import check_report
from gateway.nodes.limit import Limit
from gateway.points import Run
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
_REMEMBERED = 10_000  # boots and epochs that are not the newest of their node; a flood must not fill the memory
_PIECES = 1_000_000  # of all remembered epochs together

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_RANGES = select(ranges.c.body, ranges.c.declared).where(ranges.c.node == bindparam("node"), ranges.c.epoch == bindparam("epoch"))
_LATEST = select(
    latest.c.node, latest.c.device, latest.c.metric, latest.c.time_us, latest.c.received_us, latest.c.seq, latest.c.value
).order_by(latest.c.node)
_DEVICES = select(devices.c.node, devices.c.device).order_by(devices.c.node)
_BOOT = select(boots.c.zero_us, boots.c.synced).where(boots.c.node == bindparam("node"), boots.c.boot == bindparam("boot"))


_OF_NO_EVENT = tuple(Fact._field_defaults.values())


class _TooEarly(Exception):
    """The message is left unread: neither used nor refused, so that its node sends it again later."""


class Unsaved(NamedTuple):
    """What memory has of some nodes and the database has not."""

    nodes: list[str]
    newest: list[tuple[str, str, str, int, int, int, float]]
    """Newest readings of series, as rows of `latest`."""
    seen: list[tuple[str, int]]
    """When nodes spoke last."""


class Intake:
    """Reads groups of messages; `committed` tells it what came of them."""

    def __init__(self, database: Database, wanted: frozenset[str], keeps: Keeps) -> None:
        """`wanted`: the metrics that rules want facts of. `keeps`: what is dropped before it is stored."""
        self._database, self._is_ours, self._late = database, keeps.is_ours, keeps.late
        self._wanted = wanted
        self._wanted_of: Callable[[Names], list[int]] = lru_cache(maxsize=2000)(
            lambda names: [at for at, metric in enumerate(names.metrics) if metric in wanted]
        )
        # Nodes of which not all is saved, the longest waiting first; and since when, by when it came.
        self._unsaved: dict[str, int] = {}
        self._layouts = Layouts()
        self._heard: dict[str, Heard] = {}
        # Of nodes that use several epochs or boots at once, the others: with an earlier one's backlog, say.
        self._settled: dict[EpochKey, Settled] = {}
        self._boots: dict[tuple[str, str], Zero | None] = {}
        self._pieces = 0
        self._group = ExitStack()
        self._connection: Connection | None = None
        self._new: dict[tuple[str, str], Limit] = {}  # by node, and what it has a new one of
        self.anew()

    def anew(self) -> None:
        """Lets go of all that is remembered, and reads what must be: another process may have written meanwhile."""
        heard: dict[str, Heard] = {}
        with self._database.read() as connection:
            for node, rows in groupby(connection.execute(_LATEST), itemgetter(0)):
                newest = {_interned(device, metric): one for _, device, metric, *one in rows}
                one = heard[node] = Heard(node, self._layouts.grown(self._layouts.empty, (name[0] for name in newest), *newest))
                for name, (time_us, received_us, seq, value) in newest.items():
                    one.keep(name, (time_us, received_us, seq, value))
            for node, named in groupby(connection.execute(_DEVICES), itemgetter(0)):
                one = heard.setdefault(node, Heard(node, self._layouts.empty))
                one.layout = self._layouts.grown(one.layout, [sys.intern(device) for _, device in named])
        # Only now: where the database could not be read, what was remembered stands.
        self._settled.clear()
        self._boots.clear()
        self._pieces = 0
        self._unsaved.clear()
        self._heard = heard

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

    def committed(self, flush: Flush, pieces: int) -> None:
        """Says that what the flush has settled so far is durable now, and in how many more pieces the numbers lie than before."""
        self._pieces += max(pieces, 0)
        if self._pieces > _PIECES:
            self.forget()
        for (node, boot), zero in flush.boots.items():
            heard = self._heard[node]
            if heard.boot == boot:
                heard.zero = zero
            else:
                self._boots[node, boot] = zero

    def unsaved(self, most: int) -> Unsaved:
        """What is not in the database yet, of the nodes that wait longest; of the next one only while fewer than `most` series
        were looked at.
        """
        found = Unsaved([], [], [])
        looked = 0
        for node, since_us in self._unsaved.items():
            if looked >= most:
                break
            heard = self._heard[node]
            looked += max(len(heard.layout.series), 1)
            found.nodes.append(node)
            if heard.seen_us:
                found.seen.append((node, heard.seen_us))
            found.newest.extend([(node, *name, *newest) for name, newest in heard.since(since_us)])
        return found

    def saved(self, what: Unsaved) -> None:
        """Says that this is in the database now."""
        for node in what.nodes:
            del self._unsaved[node]
            self._heard[node].seen_us = 0

    def forget(self) -> None:
        """Lets go of what is remembered of epochs and boots: the database has it."""
        self._settled.clear()
        self._boots = dict.fromkeys(self._boots)
        for heard in self._heard.values():
            heard.settled = heard.zero = None
        self._pieces = 0

    # 1 parse or quarantine

    def _read(self, flush: Flush, message: Message) -> None:
        """ValueError with the reason when the whole message is refused; nothing of it is in the flush then."""
        node = named_in(message.topic)
        heard = self._heard.get(node)
        channel, id_ = LIVE, None
        if heard is None or message.topic != unchecked(node, LIVE):  # else as most are: what `parse` would say is known
            node, channel, id_ = parse(message.topic)
            heard = self._heard.get(node)
        if len(message.payload) > MAX_BYTES:
            raise ValueError(f"message of {len(message.payload)} bytes, at most {MAX_BYTES}")
        spoke = not message.retained
        if channel == LIVE or channel is Channel.BACKLOG:
            try:
                decoded = orjson.loads(message.payload)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"no JSON: {error}") from None
            batch = check_batch(decoded)
            heard = heard or self._heard_of(node)
            self._batch(flush, message, heard, batch)
        elif channel is Channel.BIRTH:
            birth = _model(Birth, message.payload)
            self._birth(flush, self._heard_of(node), birth, news=spoke)
        elif channel is Channel.STATE:
            state = _model(State, message.payload)
            spoke = spoke and state.reason != "lost"  # those are the broker's words
            self._state(flush, node, state)
        elif channel is Channel.REPORTED:
            report = _model(Reported, message.payload)
            check_report(self._view, node, report)
            flush.reports.append((node, report, spoke))
        elif channel is Channel.RESULT and id_ is not None:
            result = _model(Result, message.payload)
            check_result(self._view, node, id_)
            flush.results.append((id_, result))
        else:
            raise ValueError(f"{channel} is not something this gateway takes")
        heard = heard or self._heard_of(node)
        if not 0 < heard.seen_us <= flush.now_us:  # else it waits already, since then or longer
            # The earliest, where our clock was set back meanwhile.
            self._unsaved[heard.node] = min(self._unsaved.get(heard.node, flush.now_us), flush.now_us)
        if spoke:
            flush.seen.add(heard.node)
            heard.seen_us = flush.now_us

    def _birth(self, flush: Flush, heard: Heard, birth: Birth, *, news: bool) -> None:
        """Notes what the node says of itself; asks for what it no longer has and we never saw."""
        node, work = heard.node, self._work(flush, heard, birth.epoch)
        if len(birth.devices) > MAX_DEVICES - len(heard.layout.devices):
            kept = [born for born in birth.devices if self._has_room(flush, heard, born.device)]
            birth = birth.model_copy(update={"devices": kept})
        self._add(heard, (born.device for born in birth.devices))
        flush.births[node] = birth
        if news:
            flush.born.add(node)
        heard.next_of, heard.next_seq = birth.epoch, birth.next
        durable = work.settled
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

    def _batch(self, flush: Flush, message: Message, heard: Heard, batch: CheckedBatch) -> None:
        work = self._work(flush, heard, batch.epoch)
        if batch.lost or len(work.settled) >= MAX_RANGES:
            self._check_size(heard, work, batch)
        if heard.boot != batch.boot:
            self._hear_boot(flush, heard, batch.boot)
        if batch.readings or batch.events:
            if batch.events:
                self._hear_synced(flush, work, heard, batch)
            zero_us, trusted = self._zero(flush, heard, batch)
            latest_us = flush.now_us + (LATE_US if trusted else FUTURE_US)
            if batch.columns is None or not self._take_together(flush, work, heard, batch, batch.columns, zero_us, latest_us):
                self._take_readings(flush, work, heard, batch, zero_us, latest_us)
            if batch.events:
                self._take_events(flush, work, message, heard, batch, zero_us, trusted=trusted)
        for seq, reason, record in batch.rejected:
            if work.knows(seq):
                work.seqs.append((seq, seq))
                flush.duplicates += 1
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.rejected.append((seq, reason))
                flush.refuse(message._replace(payload=orjson.dumps(record, default=str)), reason, seq)
        work.lost += batch.lost

    def _check_size(self, heard: Heard, work: Work, batch: CheckedBatch) -> None:
        """ValueError for a batch that scatters this epoch's numbers too far, or gives up what nobody can have had."""
        durable = work.settled
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
            top = max(durable.top, self._said_top(heard.node, batch.epoch), max(_seqs(batch), default=0))
            if high > top + MAX_UNHEARD:
                raise ValueError(f"gives up numbers to {high}, but no record above {top} was ever heard of")

    def _take_together(
        self, flush: Flush, work: Work, heard: Heard, batch: CheckedBatch, columns: Columns, zero_us: int, latest_us: int
    ) -> bool:
        """The hot path: takes all readings of a batch that is as most are. False, and nothing is done, where one is odd.

        None is known already, all series are, all times are later than any before, and in each series in order:
        `_take_readings` has nothing to ask.
        """
        names, seqs, dts, values, first, last = columns
        earliest_us = max(EARLIEST_US, heard.newest_us + 1000)
        if (
            not earliest_us <= zero_us + first <= zero_us + last <= latest_us
            or not heard.knows(names)
            or work.settled.meets(seqs[0], seqs[-1])
            or work.staged.meets(seqs[0], seqs[-1])
        ):
            return False
        number, size = len(seqs), len(names.pairs)
        times_us = [zero_us + dt for dt in dts]
        times_ms = [time_us // 1000 for time_us in times_us]
        if number > size and not all(map(lt, times_ms, times_ms[size:])):
            return False
        node, now_us, points, facts = heard.node, flush.now_us, flush.points, flush.facts
        flush.origins.append((len(points), (node, batch.epoch), seqs))
        points.runs.append(Run(node, names.pairs, number))
        points.times_ms += times_ms
        points.values += values
        wanted = self._wanted_of(names)
        if number > size:
            wanted = [row for begin in range(0, number, size) for at in wanted if (row := begin + at) < number]
        for row in wanted:
            facts.append(_fact(node, *names.pairs[row % size], values[row], times_us[row], now_us, batch.epoch, seqs[row]))
        heard.keep_together(names, times_us, now_us, seqs, values, zero_us + last)
        work.take(seqs)
        return True

    def _take_readings(self, flush: Flush, work: Work, heard: Heard, batch: CheckedBatch, zero_us: int, latest_us: int) -> None:
        """Takes what can be taken of a batch's readings, one by one."""
        rows = batch.readings
        if not rows:
            return
        seqs = [row[0] for row in rows]
        low, high = min(seqs), max(seqs)
        if work.staged.meets(low, high) or work.settled.meets(low, high):
            known = {seq for seq in seqs if work.knows(seq)}
            work.seqs += runs(sorted(known))
            flush.duplicates += len(known)
            rows = [row for row in rows if row[0] not in known]
            seqs = [row[0] for row in rows]
        node, epoch, wanted, now_us = heard.node, batch.epoch, self._wanted, flush.now_us
        refused: list[tuple[int, str, Any]] = []
        newest: dict[Name, Newest] = {}  # of these rows, of which many may be of one series
        taken: list[Name] = []
        points = flush.points
        for record in rows:
            seq, dt, device, metric, value = record
            time_us = zero_us + dt
            if not EARLIEST_US <= time_us <= latest_us:
                refused.append((seq, "time is out of range", record))
                continue
            name = (device, metric)
            last = newest.get(name) or heard.last(name)
            if last is None:
                if reason := self._why_no_series(flush, heard, device):
                    refused.append((seq, reason, record))
                    continue
                name = _interned(device, metric)
                heard.layout = self._layouts.grown(heard.layout, name[:1], name)
                last = NOTHING_YET
            time_ms, last_ms = time_us // 1000, last[0] // 1000
            if time_ms == last_ms and last[2] != seq:
                refused.append((seq, "second reading of its series in one millisecond", record))
                continue
            if time_ms <= last_ms:  # of those before the last one nobody knows here when they were
                points.are_distinct = False
            if time_us > last[0]:
                newest[name] = (time_us, now_us, seq, value)
            taken.append(name)
            points.times_ms.append(time_ms)
            points.values.append(value)
            if metric in wanted:
                flush.facts.append(_fact(node, *name, value, time_us, now_us, epoch, seq))
        for name, one in newest.items():
            heard.keep(name, one)
        if refused:
            batch.rejected += refused
            gone = {seq for seq, _, _ in refused}
            seqs = [seq for seq in seqs if seq not in gone]
        if seqs:
            points.runs.append(Run(node, tuple(taken), len(taken)))
            flush.origins.append((len(points) - len(seqs), (node, epoch), seqs))
            work.take(sorted(seqs))

    def _take_events(
        self, flush: Flush, work: Work, message: Message, heard: Heard, batch: CheckedBatch, zero_us: int, *, trusted: bool
    ) -> None:
        node, epoch, now_us = heard.node, batch.epoch, flush.now_us
        stored = self._stored(work, node, batch)
        for event in batch.events:
            seq, time_us = event.seq, zero_us + event.dt
            content = Content(event.device, event.type, batch.t0 + event.dt, _body(event))
            known = stored.get(seq) or flush.contents.get((node, epoch, seq))
            believed = trusted and EARLIEST_US <= time_us <= now_us + LATE_US
            if not believed and not EARLIEST_US <= time_us <= now_us:
                time_us = now_us  # a clock that is wrong must not cost an alarm: it counts from when we heard of it
            if known == content:
                work.seqs.append((seq, seq))
                flush.duplicates += 1
            elif known is None and (tag := getattr(event, "tag", None)) is not None and not self._is_ours(tag):
                # Whoever that is, it is nobody's business: not even stored. But settled, so that it is not sent again.
                if not work.knows(seq):
                    work.staged.add(seq)
                    work.facts.append((seq, seq))
                    flush.strangers += 1
                work.seqs.append((seq, seq))
            elif known is None and (kind := self._late(event, time_us, now_us)) is not None:
                # It is settled, so that its node lets go of it too.
                if not work.knows(seq):
                    work.staged.add(seq)
                    work.facts.append((seq, seq))
                    flush.late[kind, node] = flush.late.get((kind, node), 0) + 1
                work.seqs.append((seq, seq))
            elif known is None and getattr(event, "tag", None) is not None and work.knows(seq):
                work.seqs.append((seq, seq))  # sent again, and dropped when nobody was enrolled for it yet
                flush.duplicates += 1
            elif known is not None or work.knows(seq):  # known as another event, or as a reading
                work.reuse(seq)
                # Refused records are kept to be looked at: a stranger's tag is not, whatever number it came under.
                stranger = (tag := getattr(event, "tag", None)) is not None and not self._is_ours(tag)
                payload = event.model_dump_json(by_alias=True, exclude={"tag"} if stranger else None).encode()
                flush.refuse(message._replace(payload=payload), SEQ_REUSED, seq)
            elif not self._has_room(flush, heard, event.device):
                reason = f"this node has {MAX_DEVICES} devices already"
                batch.rejected.append((seq, reason, event.model_dump(by_alias=True)))
            else:
                work.staged.add(seq)
                work.facts.append((seq, seq))
                work.seqs.append((seq, seq))
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
        durable = work.settled
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
        known = work.settled.copy()
        for low, high in work.staged:
            known.add(low, high)
        top = max(work.settled.top, self._said_top(*key), work.staged.top)
        wanted = sorted((low, min(high, top), reason) for low, high, reason in work.lost if low <= top)
        holes = iter(known.holes(max((high for _, high, _ in wanted), default=0) + 1))
        hole = next(holes, None)
        recorded = 0  # losses may overlap
        for low, high, reason in wanted:
            work.seqs += [(low, low), (high, high)]
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

    def _heard_of(self, node: str) -> Heard:
        heard = self._heard.get(node)
        if heard is None:
            heard = self._heard[node] = Heard(node, self._layouts.empty)
        return heard

    def _work(self, flush: Flush, heard: Heard, epoch: str) -> Work:
        """This flush's work for the node's epoch, with what is settled of it, from memory or from the database."""
        key = (heard.node, epoch)
        work = flush.work.get(key)
        if work is None:
            settled = heard.settled if heard.epoch == epoch else self._settled.get(key)
            if settled is None:
                settled = self._read_settled(flush, heard, epoch)
            work = flush.work[key] = Work(settled)
        return work

    def _read_settled(self, flush: Flush, heard: Heard, epoch: str) -> Settled:
        row = self._view.execute(_RANGES, {"node": heard.node, "epoch": epoch}).first()
        if row is None and heard.epoch != epoch:
            self._begin(flush, heard.node, "epoch", NEW_EPOCHS, EPOCH_EVERY_US, is_first=heard.epoch is None)
        settled = Settled()
        if row is not None:
            settled = Settled.parse(row.body)
            if row.declared:
                settled.declared = Ranges.parse(row.declared)
        if heard.epoch not in (None, epoch) and heard.settled is not None:
            _make_room(self._settled)
            self._settled[heard.node, heard.epoch] = heard.settled
        heard.epoch, heard.settled = epoch, settled
        return settled

    def _said_top(self, node: str, epoch: str) -> int:
        """The highest number that a node said it had given out."""
        heard = self._heard[node]
        return heard.next_seq - 1 if heard.next_of == epoch else 0

    def _hear_boot(self, flush: Flush, heard: Heard, boot: str) -> None:
        """Remembers a boot that is not the last that was new. _TooEarly where the node starts more often than a node can."""
        if (heard.node, boot) in self._boots:
            return
        zero = self._known_zero(flush, heard, boot)
        if zero is None:
            self._begin(flush, heard.node, "boot", NEW_BOOTS, BOOT_EVERY_US, is_first=heard.boot is None)
        if heard.boot is not None:
            _make_room(self._boots)
            self._boots[heard.node, heard.boot] = heard.zero
        heard.boot, heard.zero = boot, zero

    def _begin(self, flush: Flush, node: str, what: str, burst: int, every_us: int, *, is_first: bool) -> None:
        """Counts something new of a node. _TooEarly where it has had too much of it lately."""
        if is_first:
            return  # one of the burst, for which nothing need be kept: most nodes never have another
        limit = self._new.get((node, what))
        if limit is None:
            _make_room(self._new)
            limit = self._new[node, what] = Limit(burst - 1, every_us)
        if limit.wait_s(flush.now_us):
            flush.crowded.add(node)
            raise _TooEarly
        limit.count(flush.now_us)

    def _has_room(self, flush: Flush, heard: Heard, device: str) -> bool:
        """Whether the device is known, or may still become so."""
        if device not in heard.layout.devices:
            if len(heard.layout.devices) >= MAX_DEVICES:
                flush.crowded.add(heard.node)
                return False
            self._add(heard, (device,))
        return True

    def _why_no_series(self, flush: Flush, heard: Heard, device: str) -> str | None:
        """Why a new series of the device can't be the node's, or None when it can."""
        if not self._has_room(flush, heard, device):
            return f"this node has {MAX_DEVICES} devices already"
        if len(heard.layout.series) >= MAX_SERIES:
            flush.crowded.add(heard.node)
            return f"this node has {MAX_SERIES} series already"
        return None

    def _add(self, heard: Heard, devices: Iterable[str]) -> None:
        heard.layout = self._layouts.grown(heard.layout, map(sys.intern, devices))

    # When it was

    def _zero(self, flush: Flush, heard: Heard, batch: CheckedBatch) -> tuple[int, bool]:
        """UTC µs of the batch's `dt` 0, and whether that is by a right clock."""
        if _trusted(batch, flush):
            if heard.boot != batch.boot or heard.zero is None:
                self._learn_zero(flush, heard, batch)
            return batch.t0, True
        known = self._known_zero(flush, heard, batch.boot)
        if known is not None and known.synced:
            return known.us + batch.mono0, True
        if batch.sent_mono is None and batch.clock != "unsync":
            # Of an earlier boot: that the clock is wrong now says nothing of the one that was right then.
            near = known is None or abs(known.us + batch.mono0 - batch.t0) <= LATE_US
            if near and EARLIEST_US <= batch.t0 <= flush.now_us + LATE_US:
                return batch.t0, True
        if known is None:
            known = flush.boots[heard.node, batch.boot] = Zero(_guess(batch, flush.now_us))
        return known.us + batch.mono0, False

    def _learn_zero(self, flush: Flush, heard: Heard, batch: CheckedBatch) -> None:
        """Takes the zero of a boot from a clock that is right, for records of the same boot from before it was."""
        if batch.clock != "sync" or abs(batch.sent - flush.now_us) > LATE_US:
            return
        if self._known_zero(flush, heard, batch.boot) is None:
            flush.boots[heard.node, batch.boot] = Zero(batch.t0 - batch.mono0)

    def _hear_synced(self, flush: Flush, work: Work, heard: Heard, batch: CheckedBatch) -> None:
        """Takes the zero of the batch's boot from the node's own word, where that can be: once, unless a later word comes when
        by the first it would be another time now.
        """
        for event in batch.events:
            if not isinstance(event, ClockSynced) or event.boot != batch.boot or work.knows(event.seq):
                continue
            key = (heard.node, batch.boot)
            known = self._known_zero(flush, heard, batch.boot)
            if not _is_right(event, batch, flush):
                continue
            if known is None or not known.synced:
                flush.synced[key] = Synced(event.zero, event.stepped, known.us if known else None)
                flush.boots[key] = Zero(event.zero, synced=True)
            elif batch.sent_mono is not None and not _was_now(known.us + batch.sent_mono, flush):
                flush.boots[key] = Zero(event.zero, synced=True)

    def _known_zero(self, flush: Flush, heard: Heard, boot: str) -> Zero | None:
        key = (heard.node, boot)
        zero = flush.boots.get(key) or (heard.zero if heard.boot == boot else self._boots.get(key))
        if zero is None:
            row = self._view.execute(_BOOT, {"node": heard.node, "boot": boot}).first()
            if row is not None:
                zero = Zero(row.zero_us, row.synced)
                if heard.boot == boot:
                    heard.zero = zero
                elif key in self._boots:
                    self._boots[key] = zero
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


def _fact(node: str, device: str, metric: str, value: float, time_us: int, now_us: int, epoch: str, seq: int) -> Fact:
    # Nothing is true in the future: a rule that believed it would be deaf until then.
    at_us = time_us if time_us < now_us else now_us  # noqa: FURB136 - a call of `min` takes as long as all of the rest
    # As `Fact(...)` makes it, in half of the time.
    return tuple.__new__(
        Fact, (node, device, metric, value, at_us, now_us, now_us - time_us > LATE_US, f"{epoch}:{seq}", *_OF_NO_EVENT)
    )


def _interned(device: str, metric: str) -> Name:
    """A name for memory: nodes of one kind have the same."""
    return sys.intern(device), sys.intern(metric)


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
