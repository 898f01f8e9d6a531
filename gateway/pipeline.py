"""The way of a message through the gateway, in the order in which things become durable. The page to read first.

    1  parse or quarantine          whole messages that can't be read; single records that can't be used
    2  dedupe                       by exact ranges of (node, epoch, seq): live overtakes backlog, so never by the highest
    3  ONE transaction              events, ranges of events and refused records, births, losses, quarantine
    4  watch                        events and readings -> alerts -> notifications (its own transaction, see gateway.watch)
    5  series store                 readings; idempotent
    6  ONE transaction              ranges of those readings, only after the store called them durable
    7  acks                         down/ack to each node: what is durable, what is refused, what to hold back

1 and 2 are gateway.intake's; what is to become durable, and when, is decided here. A crash after any step repeats the ones
before it and changes nothing by that. When the series store is down, 1 to 4 go on: traps ring, readings stay
unacknowledged at the edge. One thread; `now` is given; nothing here calls upstream.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Table, case, delete, func, insert, select, update
from sqlalchemy.exc import OperationalError

from edge.contract.messages import VERSION, Ack, encode
from edge.contract.topics import ACK, unchecked
from gateway.errors import StoreDown, StoreRefused
from gateway.flush import Answer, EpochKey, Flush, Message, Work, runs
from gateway.intake import LATE_US, Intake
from gateway.keeping.late import TAKES_ALL, Keeps, count_late
from gateway.nodes.commands import commit_results
from gateway.nodes.desired import commit_reports
from gateway.nodes.outgoing import Outgoing
from gateway.pictures import commit_pictures
from gateway.points import Point, Points
from gateway.rules import Fact
from gateway.state import State as Database
from gateway.state.tables import boots, devices, events, latest, losses, nodes, quarantine, ranges
from gateway.state.upsert import upsert, upsert_rows
from gateway.telemetry import Telemetry
from gateway.traps.visits import commit_visits

__all__ = ["Message", "Pipeline", "Writer"]

log = logging.getLogger(__name__)

STORE_PAUSE_S = 5
POINTS_AT_ONCE = 20_000  # each call is one request to a server, or one transaction, and one sync of a disk
# Of a store that is down it is asked only whether it still is: traps wait for the answer.
PROBE_S, PROBE_POINTS = 0.5, 500
# How many refused writes one group may cost: in search of the points that are at fault, and while nothing at all is taken.
REFUSALS, REFUSALS_OF_ALL = 256, 64
QUARANTINE_ROWS = 100_000  # the newest; a flood of bad messages must not fill the disk
NODE_ROWS = 5_000  # of them of one node, and of its losses: its flood must not push out what is known of the others
PIECES = 50  # of an epoch's ranges cost as much to write as a reading
SAVED = 20_000
"""Series whose newest readings one tick looks at: in a town of any size it takes no more of the second than this."""
_RANGES = ("body", "declared")
_LATEST = ("time_us", "received_us", "seq", "value")
_NEWEST = ("node", "device", "metric", *_LATEST)
ACK_RANGES, ACK_REJECTED = 2000, 200  # in one ack, so that no broker finds it too large


class Writer(Protocol):
    """What the pipeline needs of a series store; see gateway.store."""

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:
        """Returns when the points are durable. StoreDown when they can't be now, StoreRefused when never."""
        ...


class Judge(Protocol):
    """What the pipeline needs of who judges: gateway.watch.Watch, or gateway.judging.Handing where another process does."""

    metrics: frozenset[str]
    """Of which it wants readings."""

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges these, and every committed event not judged yet; or makes sure, durably, that somebody will."""
        ...

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass."""
        ...


class Paging(Protocol):
    """What lets time pass for pages; gateway.paging.Paging is one."""

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Looks at the pages that are due."""
        ...


class Pipeline:
    """Steps 1 to 7. `process` takes a group of messages and returns the acks to publish."""

    def __init__(
        self,
        database: Database,
        store: Writer,
        watch: Judge,
        telemetry: Telemetry,
        say: Callable[[str, Any], None],
        outgoing: Outgoing | None = None,
        paging: Paging | None = None,
        keeps: Keeps = TAKES_ALL,
    ) -> None:
        """`say(kind, body)` tells the live stream what was committed: gateway.feed.Feed.say is one.

        `outgoing` is told which nodes came back. `paging` is told that time passes. `keeps`: what is dropped before it is stored.
        """
        self._database, self._store, self._watch, self._telemetry, self._say = database, store, watch, telemetry, say
        self.store_down = False
        """Whether the series store took no points when it was last asked."""
        self._store_try_us = 0
        self._intake = Intake(database, watch.metrics, keeps)
        self._outgoing, self._paging = outgoing, paging
        self._note: Callable[[str, str, int, int], object] = lambda *_: None
        self._charge: Callable[[str, float], object] = lambda *_: None
        self._deaf_until_us = 0
        # Events may be committed that no rule has seen: after a crash, and when the watch could not commit.
        self._unjudged = True

    def contain(self, note: Callable[[str, str, int, int], object], charge: Callable[[str, float], object]) -> None:
        """`note(node, what, now_us, times)` hears from now on what no honest node does (gateway.nodes.conduct), and
        `charge(node, readings)` what a node cost beyond what its messages showed (gateway.shares).
        """
        self._note, self._charge = note, charge

    def process(self, messages: Sequence[Message], now_us: int, away_since_us: int | None = None) -> list[Answer]:
        """Takes the messages through all steps; returns the acks to publish.

        `away_since_us`: when this gateway last listened, if messages may have waited in the broker since.
        A message that breaks the pipeline is found by halving the group and goes to quarantine. An OperationalError of the
        database is raised; the same messages may be processed again.
        """
        self._judge_rest(now_us)
        try:
            with self._telemetry.flush_seconds.time():
                return self._process(messages, now_us, away_since_us)
        except OperationalError:
            self._intake.forget()
            raise
        except Exception as error:
            self._intake.forget()
            if len(messages) > 1:
                half = len(messages) // 2
                first = self.process(messages[:half], now_us, away_since_us)
                return first + self.process(messages[half:], now_us, away_since_us)
            self._judge_rest(now_us)  # raises when it was not the message's fault
            log.exception("a message on %s broke the pipeline; quarantined", messages[0].topic[:256])
            flush = Flush(now_us, away_since_us)
            flush.refuse(messages[0], f"broke the pipeline: {type(error).__name__}: {error}"[:500])
            self._commit_facts(flush)
            self._telemetry.quarantined.labels("broke").inc()
            return []
        except BaseException:  # of who is fenced, say: what it was about to commit is not durable
            self._intake.forget()
            raise

    def _process(self, messages: Sequence[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        flush = self._intake.read(messages, now_us, away_since_us)
        if flush.events:
            self._unjudged = True  # whatever happens between their commit and their judgement
        self._commit_facts(flush)
        if flush.events or flush.facts:
            self._watch.run(flush.facts, now_us)
            self._unjudged = False
        wait_s = self._store_readings(flush)
        self._count(flush, messages)
        self._note_conduct(flush)
        return [
            ack
            for (node, epoch), work in flush.work.items()
            for ack in _acks(node, epoch, work, wait_s, birth=node in flush.births)
        ]

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: rules that wait for it, and the newest readings saved for the next start."""
        self._judge_rest(now_us)
        if self.store_down:
            # We asked the edges to hold their readings back: that is no silence of theirs.
            self._deaf_until_us, listening_since_us = now_us, None
        elif listening_since_us is not None:
            listening_since_us = max(listening_since_us, self._deaf_until_us)
        self._watch.tick(now_us, listening_since_us)
        if self._paging is not None:
            self._paging.tick(now_us, listening_since_us)
        self._save_newest()

    def save(self) -> None:
        """Saves all that a tick would have saved, and those after it: others write from now on, or nobody does."""
        while self._save_newest():
            pass

    def anew(self) -> None:
        """Others may have written what is remembered here: it is read anew before it is used."""
        self.save()
        self._intake.anew()

    def _save_newest(self) -> bool:
        """Saves and tells the newest readings, and when their nodes spoke, of who waits longest for it. False: nobody waits."""
        unsaved = self._intake.unsaved(SAVED)
        if not unsaved.nodes:
            return False
        if unsaved.newest or unsaved.seen:
            with self._database.write(own=True) as connection:
                upsert_rows(connection, latest, _LATEST, unsaved.newest)
                upsert_rows(connection, nodes, ("seen_us",), unsaved.seen)
        self._intake.saved(unsaved)
        if unsaved.newest:
            self._say("latest", lambda: {"rows": [dict(zip(_NEWEST, row, strict=True)) for row in unsaved.newest]})
        return True

    def _judge_rest(self, now_us: int) -> None:
        """Has events judged that were committed without: their own message may never come again."""
        if self._unjudged:
            self._watch.run((), now_us)
            self._unjudged = False

    # 3 one transaction for the facts

    def _commit_facts(self, flush: Flush) -> None:
        settling = {key: work for key, work in flush.work.items() if work.facts}
        answers = flush.reports or flush.results
        if not (settling or flush.quarantine or flush.boots or flush.births or flush.states or answers):
            return
        with self._telemetry.facts_seconds.time(), self._database.write() as connection:
            if flush.events:
                connection.execute(insert(events), flush.events)
                commit_pictures(connection, flush.events)
                commit_visits(connection, flush.events)
            count_late(connection, flush.late, flush.now_us)
            if flush.lost:
                connection.execute(insert(losses), flush.lost)
                _keep_newest(connection, losses, {row["node"] for row in flush.lost})
            if flush.quarantine:
                _commit_refused(connection, flush.quarantine)
            if flush.boots:
                _commit_boots(connection, flush)
            _commit_nodes(connection, flush, flush.seen & {*flush.births, *flush.states, *(node for node, _ in settling)})
            commit_reports(connection, flush.reports, flush.now_us)
            commit_results(connection, flush.results, flush.now_us)
            before = _pieces(settling.values())
            for work in settling.values():
                work.settled.settle(work.facts, work.declared)
            upsert_rows(connection, ranges, _RANGES, _rows_of(settling))
        self._intake.committed(flush, _pieces(settling.values()) - before)
        if self._outgoing is not None and flush.births:
            self._outgoing.heard(flush.births.keys(), flush.born)
        for row in flush.events:
            self._say("event", row)

    # 5 series store, 6 one transaction for its ranges

    def _store_readings(self, flush: Flush) -> int:
        """Writes the points and, once they are durable, their ranges. Seconds to hold readings back, 0 when all is settled.

        Points that the store will never take are given up: quarantined, and their numbers settled with the others'.
        """
        # Only what is left of the pause: an event's ack must not put off the readings by which we see that it is over.
        left_s = -((flush.now_us - self._store_try_us) // 1_000_000) if self.store_down else 0
        if not flush.points or left_s > 0:
            return min(max(left_s, 0), STORE_PAUSE_S)
        try:
            refused, left = self._write(flush.points)
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
        told = len(flush.quarantine)
        for index, reason in refused.items():
            flush.give_up(index, reason)
        # Memory and disk hold ranges, and `left` is rare: for it alone the numbers are looked through one by one.
        waiting = {flush.origin(index) for index in left}
        stored: dict[EpochKey, Work] = {}
        more = 0
        for key, work in flush.work.items():
            pieces = work.readings
            if waiting:
                pieces = runs(sorted(s for low, high in pieces for s in range(low, high + 1) if (key, s) not in waiting))
            if pieces:
                stored[key] = work
                more -= len(work.settled)
                work.settled.settle(pieces)
                more += len(work.settled)
        if refused:
            with self._database.write(own=True) as connection:
                _commit_refused(connection, flush.quarantine[told:])
                upsert_rows(connection, ranges, _RANGES, _rows_of(stored))
        else:
            self._database.upsert(ranges, _RANGES, _rows_of(stored))
        self._intake.committed(flush, more)
        self._telemetry.records.labels("reading").inc(len(flush.points) - len(refused) - len(left))
        self._telemetry.stored.set(flush.now_us / 1e6)
        if refused:
            log.error(
                "the series store will never take %d points, now in quarantine: %s", len(refused), next(iter(refused.values()))
            )
        return STORE_PAUSE_S if left else 0

    def _write(self, points: Points) -> tuple[dict[int, str], list[int]]:
        """Writes what the store takes: refused calls are halved until the single points that are at fault are found.

        Returns these (index: reason), and the indexes of those that were not settled within REFUSALS. StoreDown, or
        StoreRefused when the store takes nothing at all: then it is not the points' fault.
        """
        down = self.store_down
        first = min(PROBE_POINTS if down else POINTS_AT_ONCE, len(points))
        pieces = deque([(0, first)])
        pieces += [(start, min(start + POINTS_AT_ONCE, len(points))) for start in range(first, len(points), POINTS_AT_ONCE)]
        refused: dict[int, str] = {}
        refusals, taken = 0, False
        while pieces and refusals < REFUSALS:
            # First the largest, for the fewest calls; where many points are at fault, single ones, so that some are settled.
            start, end = pieces.popleft() if refusals < REFUSALS_OF_ALL // 2 else pieces.pop()
            try:
                with self._telemetry.store_seconds.time():
                    self._store.write(points[start:end], patience_s=PROBE_S if down else None)
            except StoreDown:
                self._telemetry.store_errors.labels("down").inc()
                raise
            except StoreRefused as error:
                self._telemetry.store_errors.labels("refused").inc()
                refusals += 1
                if end - start == 1:
                    refused[start] = str(error)
                else:
                    half = (start + end) // 2
                    pieces += [(start, half), (half, end)]
                if not taken and (not pieces or refusals >= REFUSALS_OF_ALL):
                    raise
            else:
                self._telemetry.store_points.inc(end - start)
                taken, down = True, False
        return refused, [index for start, end in pieces for index in range(start, end)]

    def _note_conduct(self, flush: Flush) -> None:
        now_us = flush.now_us
        for (node, _), work in flush.work.items():
            if work.reused:
                self._note(node, "seq_reused", now_us, 1)
            if (pieces := len(work.settled)) > PIECES:
                self._charge(node, pieces / PIECES)
        for node, number in flush.refusals.items():
            if node:
                self._note(node, "refused", now_us, number)
        for node in flush.born:
            self._note(node, "reborn", now_us, 1)
        for node in flush.crowded:
            self._note(node, "crowded", now_us, 1)

    def _count(self, flush: Flush, messages: Sequence[Message]) -> None:
        telemetry = self._telemetry
        telemetry.messages.inc(len(messages))
        telemetry.message_bytes.inc(sum(len(one.payload) for one in messages))
        telemetry.group_messages.observe(len(messages))
        telemetry.records.labels("event").inc(len(flush.events))
        for class_, number in Counter(row["class_"] for row in flush.events).items():
            telemetry.events.labels(class_).inc(number)
        telemetry.duplicates.inc(flush.duplicates)
        telemetry.strangers.inc(flush.strangers)
        for (kind, _), number in flush.late.items():
            telemetry.too_late.labels(kind).inc(number)
        for what, number in flush.refused.items():
            telemetry.quarantined.labels(what).inc(number)
        telemetry.lost.inc(sum(row["high"] - row["low"] + 1 for row in flush.lost))


def _commit_refused(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Writes them into quarantine, and lets go of its oldest."""
    connection.execute(insert(quarantine), rows)
    newest = select(func.max(quarantine.c.id)).scalar_subquery()
    connection.execute(delete(quarantine).where(quarantine.c.id <= newest - QUARANTINE_ROWS))
    _keep_newest(connection, quarantine, {row["node"] for row in rows})


def _keep_newest(connection: Connection, table: Table, whose: set[str | None]) -> None:
    """Lets go of what is older than the NODE_ROWS newest of each node."""
    for node in whose:
        oldest = (
            select(table.c.id)
            .where(table.c.node == node)
            .order_by(table.c.id.desc())
            .limit(1)
            .offset(NODE_ROWS)
            .scalar_subquery()
        )
        connection.execute(delete(table).where(table.c.node == node, table.c.id <= oldest))


def _rows_of(settled: Mapping[EpochKey, Work]) -> list[tuple[str, str, str, str]]:
    """As rows of `ranges`."""
    return [(node, epoch, work.settled.text(), work.settled.declared.text()) for (node, epoch), work in settled.items()]


def _pieces(works: Iterable[Work]) -> int:
    """In how many the numbers lie that are settled."""
    return sum(len(work.settled) for work in works)


def _commit_boots(connection: Connection, flush: Flush) -> None:
    """A guessed zero is set once; the node's own word replaces it, and re-times the boot's events that went by the guess.

    What was told of them stays as it was told: an alert's time, and the message to the phone.
    """
    rows = [{"node": node, "boot": boot, "zero_us": zero.us, "synced": zero.synced} for (node, boot), zero in flush.boots.items()]
    if guessed := [row for row in rows if not row["synced"]]:
        connection.execute(upsert(boots), guessed)
    if said := [row for row in rows if row["synced"]]:
        connection.execute(upsert(boots, "zero_us", "synced"), said)
    for (node, boot), synced in flush.synced.items():
        if synced.guessed_us is None:
            continue
        theirs = (events.c.node == node, events.c.boot == boot, events.c.clock_trusted.is_(False))
        # One that would have been in the future had counted from when it was heard: its own clock's word, put right, is left.
        by_clock = events.c.node_time_us + synced.stepped_us
        moved = events.c.time_us + (synced.zero_us - synced.guessed_us)
        for true_us, which in (
            (case((moved > events.c.received_us, events.c.received_us), else_=moved), [events.c.time_us < events.c.received_us]),
            (by_clock, [events.c.time_us >= events.c.received_us, by_clock.between(synced.zero_us, events.c.received_us)]),
        ):
            late = events.c.received_us - true_us > LATE_US
            connection.execute(update(events).where(*theirs, *which).values(time_us=true_us, clock_trusted=True, late=late))


def _commit_nodes(connection: Connection, flush: Flush, seen: Iterable[str]) -> None:
    upsert_rows(connection, nodes, ("seen_us",), [(node, flush.now_us) for node in seen])
    if flush.births:
        rows = [
            {"node": node, "epoch": birth.epoch, "session": birth.session, "boot": birth.boot, "agent": birth.agent,
             "born_us": flush.now_us, "config_revision": birth.config.revision if birth.config else None}
            for node, birth in flush.births.items()
        ]  # fmt: skip
        changed = ("epoch", "session", "boot", "agent", "config_revision")
        # A retained birth was said whenever it was said: it does not make the node born anew.
        for news in (True, False):
            if said := [row for row in rows if (row["node"] in flush.born) is news]:
                connection.execute(upsert(nodes, *changed, *(("born_us",) if news else ())), said)
        kinds = [
            {"node": node, "device": born.device, "kind": born.kind}
            for node, birth in flush.births.items()
            for born in birth.devices
        ]
        if kinds:
            connection.execute(upsert(devices, "kind"), kinds)
    if flush.states:
        rows = [{"node": node, "online": state.online, "offline_reason": state.reason} for node, state in flush.states.items()]
        connection.execute(upsert(nodes, "online", "offline_reason"), rows)


def _acks(node: str, epoch: str, work: Work, wait_s: int, *, birth: bool) -> list[Answer]:
    """What the node is told, in one ack or, where that grew too large, in several.

    What is not said a second time must arrive: of an outage, how much of what was sent before it came; what is refused, so that
    the node keeps it; what never came; and to a birth, that a configuration on trial speaks with us. All else it asks for again.
    """
    topic, durable = unchecked(node, ACK), work.settled
    upto = durable.upto
    above: list[tuple[int, int]] = []
    if work.reused:  # the known record may be another one: its outbox must not forget anything by number
        upto = 0
    elif upto < durable.top:
        above = durable.around((max(low, upto + 1), high) for low, high in work.seqs if high > upto)
    rejected, missing = work.rejected, work.missing
    if not (above or rejected or missing):
        # The common case by hand, in a fifth of the time; a test holds it to `encode`.
        text = f'{{"v":{VERSION},"epoch":"{epoch}","upto":{upto},"ranges":[],"missing":[],"rejected":[],"wait_s":{wait_s}}}'
        return [Answer(topic, text.encode(), birth)]
    answers = []
    while True:
        ack = Ack(epoch=epoch, upto=upto, ranges=above[:ACK_RANGES], missing=missing,
                  rejected=rejected[:ACK_REJECTED], wait_s=wait_s)  # fmt: skip
        answers.append(Answer(topic, encode(ack), birth or bool(rejected or missing)))
        above, rejected, missing = above[ACK_RANGES:], rejected[ACK_REJECTED:], []
        if not above and not rejected:
            return answers
