"""What to send next and when to send it again: the uplink's decisions, without any I/O but the outbox. `now` is given.

    events,   live     the moment they are committed       each lane has its own window of unacked
    events,   backlog  alarms first, then evidence ...     batches, so that no lane waits for another:
    readings, live     each second                         a trap rings while 100,000 readings drain
    readings, backlog  what waited when the link came      and while the series store is down

A batch without its ack is resent after a backed-off timeout; sent three times in vain it goes record by record, so that
one record that the gateway can't take does not hold up the others.

A thin link is one queue for all lanes: what of the backlog is on its way already delays the next alarm. So there is never more of
it than what was acknowledged within QUEUE_S, found by trying: more while acks come quickly, half when they do not.
"""

import json
import random
from collections import deque
from dataclasses import dataclass, field

from edge.clock import Instant
from edge.contract.messages import MAX_BYTES, MAX_RECORDS, SEQ_REUSED, VERSION, Ack
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel
from edge.outbox import Outbox, Row

FIRST_TIMEOUT_S = 10.0
FIRST_EVENT_TIMEOUT_S = 3.0  # a broker that came back empty drops what is published before the gateway is back
LONGEST_TIMEOUT_S = 120.0
ATTEMPTS_TOGETHER = 3
QUEUE_S = 0.4
"""What of the backlog is on its way may take about so long to be acknowledged, and delay a live record by as much."""
FIRST_ROOM, LEAST_ROOM = 100, 10  # records of the backlog on their way at once, in each of its lanes
_DOUBLINGS = 6  # of any first timeout reach the longest
_HEADER_BYTES = 512  # more than the header of a batch can take
_STEP_US = 1_000_000  # a wall clock that moved this much against the monotonic one was set


@dataclass(slots=True)
class _Flight:
    """A batch on its way."""

    seqs: list[int]
    attempts: int
    due_us: int  # monotonic: when to send it again
    sent_us: int  # monotonic: when it was sent last


@dataclass(slots=True)
class _Lane:
    channel: Channel
    events: bool
    window: int
    low: int = 1
    high: int = 0  # seqs low <= seq < high belong to this lane
    next: int = 1  # readings below were sent
    flights: list[_Flight] = field(default_factory=list)
    alone: deque[int] = field(default_factory=deque)  # to be sent one record a batch
    room: int = FIRST_ROOM  # of a backlog lane: records on their way at once

    def learn(self, flight: _Flight, records: int, now_us: int) -> None:
        """What an ack for all `records` of a flight says of the link. One that was sent again says nothing."""
        if self.channel is Channel.BACKLOG and flight.attempts == 1:
            took_s = (now_us - flight.sent_us) / 1e6
            if took_s < QUEUE_S / 2:
                self.room = min(self.room + records, self.window * MAX_RECORDS)
            elif took_s > QUEUE_S:
                self.shrink()

    def shrink(self) -> None:
        """The link is slower than was thought, or gone."""
        self.room = max(self.room // 2, LEAST_ROOM)

    def may_send(self) -> int:
        """Records that the next batch may have. By halves, so that one is on its way while the other's ack is."""
        if self.channel is Channel.LIVE:
            return MAX_RECORDS
        on_their_way = sum(len(flight.seqs) for flight in self.flights)
        return min(self.room - on_their_way, max(self.room // 2, 1), MAX_RECORDS)


_NO_END = 2**53


class Lanes:
    """The four lanes of one outbox. `connected` starts anew; `poll` says what to publish; `on_ack` frees."""

    def __init__(self, outbox: Outbox, rng: random.Random) -> None:
        self._outbox, self._rng = outbox, rng
        self._lanes = (
            _Lane(Channel.LIVE, events=True, window=8),
            _Lane(Channel.BACKLOG, events=True, window=4),
            _Lane(Channel.LIVE, events=False, window=8),
            _Lane(Channel.BACKLOG, events=False, window=4),
        )
        self._readings_wait_until_us = 0
        self._lost_due_us = 0

    def connected(self) -> None:
        """A link is there: nothing is in flight, and what waits now is the backlog."""
        live_from = self._outbox.next_seq
        for lane in self._lanes:
            lane.low, lane.high = (live_from, _NO_END) if lane.channel is Channel.LIVE else (1, live_from)
            lane.next = lane.low
            lane.flights.clear()
            lane.alone.clear()
            lane.room = FIRST_ROOM
        self._readings_wait_until_us = 0
        self._lost_due_us = 0

    def poll(self, now: Instant) -> list[tuple[Channel, bytes]]:
        """The messages to publish now, most urgent first."""
        out: list[tuple[Channel, bytes]] = []
        if now.mono_us >= self._readings_wait_until_us:
            self._readings_wait_until_us = 0
        for lane in self._lanes:
            if lane.events or not self._readings_wait_until_us:
                self._resend(lane, now, out)
                self._fill(lane, now, out)
        if now.mono_us >= self._lost_due_us:
            self._lost_due_us = 0
            if lost := self._outbox.lost(MAX_RECORDS):
                row = Row(0, 0, self._outbox.boot, "unsync", now.utc_us, now.mono_us, "")
                out.append((Channel.BACKLOG, _message(self._outbox.epoch, row.boot, row, now, [], [], lost)))
                self._lost_due_us = now.mono_us + int(FIRST_TIMEOUT_S * 1e6)
        return out

    def next_due_us(self) -> int | None:
        """Monotonic time at which `poll` should be called even if nothing happens; None when nothing waits for time."""
        due = [
            flight.due_us if lane.events else max(flight.due_us, self._readings_wait_until_us)
            for lane in self._lanes
            for flight in lane.flights
        ]
        due += [at_us for at_us in (self._readings_wait_until_us, self._lost_due_us) if at_us]
        return min(due, default=None)

    def on_ack(self, ack: Ack, now: Instant) -> bool:
        """Takes an ack. True when the gateway knows other records by this epoch's numbers: it was renewed, say birth again.

        It says so itself, or acks numbers that were never given out. Such an ack is about the other records: it frees nothing.
        """
        if ack.epoch != self._outbox.epoch:
            return False
        rejected = list(ack.rejected)
        highest = max((ack.upto, *(high for _, high in ack.ranges)))
        if highest >= self._outbox.next_seq or any(reason == SEQ_REUSED for _, reason in rejected):
            self._outbox.renew_epoch()
            return True
        # First the refused ones: to the gateway they are settled, so that the ack covers them too.
        self._outbox.reject(rejected)
        self._outbox.ack(ack.upto, ack.ranges)
        if ack.missing:
            self._outbox.declare_missing(ack.missing)
            self._lost_due_us = 0
        done = Ranges([*([(1, ack.upto)] if ack.upto else []), *ack.ranges, *((seq, seq) for seq, _ in rejected)])
        for lane in self._lanes:
            for flight in lane.flights:
                records = len(flight.seqs)
                flight.seqs = [seq for seq in flight.seqs if seq not in done]
                if not flight.seqs:
                    lane.learn(flight, records, now.mono_us)
            lane.flights = [flight for flight in lane.flights if flight.seqs]
        if ack.wait_s:
            # Acks of events say it again and again: that must not put off for ever the reading that tries the store.
            if now.mono_us >= self._readings_wait_until_us:
                self._readings_wait_until_us = now.mono_us + ack.wait_s * 1_000_000
            for lane in self._lanes:
                for flight in lane.flights:
                    if not lane.events:  # the gateway said why there is no ack: that is no attempt in vain
                        flight.attempts, flight.due_us = 0, self._readings_wait_until_us
        elif done:
            self._readings_wait_until_us = 0
        return False

    def _resend(self, lane: _Lane, now: Instant, out: list[tuple[Channel, bytes]]) -> None:
        overdue = [flight for flight in lane.flights if flight.due_us <= now.mono_us]
        if not overdue:
            return
        lane.flights = [flight for flight in lane.flights if flight.due_us > now.mono_us]
        lane.shrink()
        for flight in overdue:
            if flight.attempts >= ATTEMPTS_TOGETHER and len(flight.seqs) > 1:
                lane.alone.extend(flight.seqs)
            else:
                self._send(
                    lane,
                    pack(self._outbox.epoch, self._outbox.boot, self._outbox.rows(flight.seqs), now),
                    now,
                    flight.attempts,
                    out,
                )

    def _fill(self, lane: _Lane, now: Instant, out: list[tuple[Channel, bytes]]) -> None:
        while lane.alone and len(lane.flights) < lane.window:
            alone = pack(self._outbox.epoch, self._outbox.boot, self._outbox.rows([lane.alone.popleft()]), now)
            self._send(lane, alone, now, ATTEMPTS_TOGETHER, out)
        while len(lane.flights) < lane.window and (most := lane.may_send()) > 0:
            if lane.events:
                busy = {seq for flight in lane.flights for seq in flight.seqs} | set(lane.alone)
                rows = self._outbox.events(lane.low, lane.high, busy, most)
            else:
                rows = self._outbox.readings(lane.next, lane.high, most)
            if not rows:
                return
            batches = pack(self._outbox.epoch, self._outbox.boot, rows, now, lane.window - len(lane.flights))
            if not lane.events:
                lane.next = batches[-1][1][-1] + 1
            self._send(lane, batches, now, 0, out)

    def _send(
        self,
        lane: _Lane,
        batches: list[tuple[bytes, list[int]]],
        now: Instant,
        attempts: int,
        out: list[tuple[Channel, bytes]],
    ) -> None:
        first_s = FIRST_EVENT_TIMEOUT_S if lane.events else FIRST_TIMEOUT_S
        timeout_s = min(first_s * 2 ** min(attempts, _DOUBLINGS), LONGEST_TIMEOUT_S) * self._rng.uniform(0.9, 1.1)
        due_us = now.mono_us + int(timeout_s * 1e6)
        for payload, seqs in batches:
            out.append((lane.channel, payload))
            lane.flights.append(_Flight(seqs, attempts + 1, due_us, now.mono_us))


def pack(epoch: str, boot: str, rows: list[Row], now: Instant, most: int = MAX_RECORDS) -> list[tuple[bytes, list[int]]]:
    """Rows as batches with their seqs: one boot, one clock state and no step of the clock in a batch, within the limits.

    `boot` is the one we are in, `now` its time. The first `most` batches; the rows of the others are left out. What was one
    batch stays one when some of its rows are gone.
    """
    packed: list[tuple[bytes, list[int]]] = []
    readings: list[str] = []
    events: list[str] = []
    seqs: list[int] = []
    size = _HEADER_BYTES
    first: Row | None = None
    earliest = latest = 0  # of the batch's rows, when they say that the machine started: apart where the clock was set

    def close() -> None:
        nonlocal size, first
        if first is not None:
            packed.append((_message(epoch, boot, first, now, readings, events, []), seqs.copy()))
        readings.clear()
        events.clear()
        seqs.clear()
        size, first = _HEADER_BYTES, None

    for row in rows:
        length = len(row.body.encode()) + 48
        started = row.utc_us - row.mono_us
        if first is not None and (
            (row.boot, row.clock) != (first.boot, first.clock)
            or max(latest, started) - min(earliest, started) > _STEP_US
            or size + length > MAX_BYTES
            or len(seqs) == MAX_RECORDS
        ):
            close()
            if len(packed) == most:
                return packed
        if first is None:
            first, earliest, latest = row, started, started
        earliest, latest = min(earliest, started), max(latest, started)
        dt = row.utc_us - first.utc_us
        if row.body.startswith("{"):
            events.append(f'{{"seq":{row.seq},"dt":{dt},{row.body[1:]}')
        else:
            readings.append(f"[{row.seq},{dt},{row.body}]")
        seqs.append(row.seq)
        size += length
    close()
    return packed


def _message(
    epoch: str, boot: str, first: Row, now: Instant, readings: list[str], events: list[str], lost: list[tuple[int, int, str]]
) -> bytes:
    losses = ",".join(f"[{low},{high},{json.dumps(reason)}]" for low, high, reason in lost)
    return (
        f'{{"v":{VERSION},"epoch":"{epoch}","boot":"{first.boot}","clock":"{first.clock}","t0":{first.utc_us},'
        f'"mono0":{first.mono_us},"sent":{now.utc_us},'
        f'"sent_mono":{now.mono_us if first.boot == boot else "null"},"readings":[{",".join(readings)}],'
        f'"events":[{",".join(events)}],"lost":[{losses}]}}'
    ).encode()
