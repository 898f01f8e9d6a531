"""The lanes: whatever the way to the gateway does, everything produced gets there, in time and in its turn."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.clock import Instant
from edge.contract.events import AnyEvent, DeviceDown, DeviceUp, RecordClass, TrapSprung
from edge.contract.messages import MAX_BYTES, MAX_RECORDS, SEQ_REUSED, Ack, Batch
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel
from edge.lanes import FIRST_EVENT_TIMEOUT_S, FIRST_TIMEOUT_S, LONGEST_TIMEOUT_S, Lanes, pack
from edge.outbox import APART_MS, Outbox
from edge.records import Happened, Reading, Record

START = Instant(1_780_434_720_000_000, 90_000_000)
BOOT = "00000000000000b0"


class Edge:
    """An outbox with its lanes, and a time that only the test moves."""

    def __init__(self, path: Path, max_records: int = 3_000_000) -> None:
        self.path, self.now, self.max_records = path, START, max_records
        self.boots = 0
        self.open()

    def open(self) -> None:
        """As the agent does when it starts: in a new boot."""
        self.boots += 1
        self.outbox = Outbox(self.path, machine="pi-1", boot=f"{self.boots:016x}", max_records=self.max_records)
        self.lanes = Lanes(self.outbox, random.Random(1))

    def wait(self, seconds: float) -> None:
        self.now = Instant(self.now.utc_us + int(seconds * 1e6), self.now.mono_us + int(seconds * 1e6))

    def wait_until_due(self) -> None:
        due_us = self.lanes.next_due_us()
        assert due_us is not None
        self.wait((due_us - self.now.mono_us) / 1e6 + 0.001)

    def read(self, count: int = 1) -> list[int]:
        """Puts readings, a second apart; their seqs."""
        first = self.outbox.next_seq
        for _ in range(count):
            self.wait(1)
            self.outbox.put([Reading(self.now, "trap-11", "rssi", -70)], "sync")
        return list(range(first, self.outbox.next_seq))

    def happen(self, *events: AnyEvent) -> list[int]:
        first = self.outbox.next_seq
        self.outbox.put([Happened(self.now, event) for event in events], "sync")
        return list(range(first, self.outbox.next_seq))

    def sprung(self, count: int = 1) -> list[int]:
        return self.happen(*[TrapSprung(device="trap-11")] * count)

    def poll(self) -> list[tuple[Channel, list[int]]]:
        """What is sent now: each message's channel and seqs, in order."""
        return [(channel, seqs_of(payload)) for channel, payload in self.lanes.poll(self.now)]

    def poll_seqs(self) -> list[list[int]]:
        return [seqs for _, seqs in self.poll()]

    def ack(self, *seqs: int, rejected: list[tuple[int, str]] | None = None, wait_s: int = 0, upto: int = 0) -> bool:
        ranges = list(Ranges((seq, seq) for seq in seqs))
        ack = Ack(epoch=self.outbox.epoch, upto=upto, ranges=ranges, rejected=rejected or [], wait_s=wait_s)
        return self.lanes.on_ack(ack, self.now)


def seqs_of(payload: bytes) -> list[int]:
    batch = Batch.model_validate_json(payload)
    return [row[0] for row in batch.readings] + [event.seq for event in batch.events]


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    one = Edge(tmp_path / "outbox.db")
    with closing(one.outbox):
        yield one


# What goes first


def test_alarms_leave_before_evidence_and_events_before_readings(edge: Edge) -> None:
    read = edge.read(3)
    up = edge.happen(DeviceUp(device="cam-02"))
    sprung = edge.sprung()
    edge.lanes.connected()
    assert edge.poll() == [(Channel.BACKLOG, sprung + up), (Channel.BACKLOG, read)]


def test_a_trap_rings_at_once_while_thousands_of_readings_drain(edge: Edge) -> None:
    edge.outbox.put(
        [Reading(Instant(START.utc_us + i * 10_000, START.mono_us + i * 10_000), "a", "rssi", -1) for i in range(5000)], "sync"
    )
    edge.lanes.connected()
    assert {channel for channel, _ in edge.poll()} == {Channel.BACKLOG}
    assert edge.poll() == []  # its window is full
    sprung = edge.sprung()
    assert edge.poll() == [(Channel.LIVE, sprung)]


def test_what_waited_when_the_link_came_is_backlog_and_what_comes_after_is_live(edge: Edge) -> None:
    old = edge.read(2)
    edge.lanes.connected()
    new = edge.read(2)
    assert edge.poll() == [(Channel.LIVE, new), (Channel.BACKLOG, old)]


def test_nothing_is_sent_twice_while_its_ack_may_still_come(edge: Edge) -> None:
    edge.lanes.connected()
    edge.read(2)
    edge.sprung()
    assert len(edge.poll()) == 2
    edge.wait(0.8 * FIRST_EVENT_TIMEOUT_S)
    assert edge.poll() == []


# Windows


@pytest.mark.parametrize(("backlog", "most"), [(False, 8), (True, 4)])
def test_a_window_holds_even_where_every_record_needs_a_batch_of_its_own(edge: Edge, backlog: bool, most: int) -> None:
    if not backlog:
        edge.lanes.connected()
    for number in range(40):
        edge.wait(1)
        edge.outbox.put([Reading(edge.now, "trap-11", "rssi", -70)], "sync" if number % 2 else "unsync")
    if backlog:
        edge.lanes.connected()
    sent = edge.poll_seqs()
    assert sent == [[seq] for seq in range(1, most + 1)]
    edge.ack(2, 3)
    assert edge.poll_seqs() == [[most + 1], [most + 2]]


def test_a_batch_that_is_sent_again_in_part_is_still_one_batch(edge: Edge) -> None:
    """All of its rows are within a step of each other, not only of the first."""
    edge.lanes.connected()
    for drift_us in (0, 700_000, -700_000):
        edge.outbox.put([Happened(Instant(START.utc_us + drift_us, START.mono_us), DeviceUp(device="a"))], "sync")
    assert edge.poll_seqs() == [[1, 2], [3]]
    edge.ack(1)
    edge.wait(2 * FIRST_EVENT_TIMEOUT_S)
    assert edge.poll_seqs() == [[2], [3]]


def test_the_backlog_finds_out_how_much_of_it_the_link_carries_without_a_queue(edge: Edge) -> None:
    edge.outbox.put(
        [Reading(Instant(START.utc_us + i * 10_000, START.mono_us + i * 10_000), "a", "rssi", -1) for i in range(20_000)], "sync"
    )

    def on_the_way(ack_s: float, rounds: int) -> int:
        for _ in range(rounds):
            seqs = [seq for some in edge.poll_seqs() for seq in some]
            most = len(seqs)
            edge.wait(ack_s)
            edge.ack(*seqs)
        return most

    edge.lanes.connected()
    assert on_the_way(0.05, 1) == 100
    assert on_the_way(0.05, 6) == 2000  # four batches of 500
    assert on_the_way(0.3, 2) == 2000  # neither quick nor slow
    assert on_the_way(1.0, 6) == 10
    assert on_the_way(0.05, 3) > 10  # and it tries again


def test_a_backlog_that_must_be_sent_again_is_halved(edge: Edge) -> None:
    """No ack at all: the link carries less than that, and all of it stands before the next alarm."""
    edge.read(1000)
    edge.lanes.connected()
    first = [seq for some in edge.poll_seqs() for seq in some]
    edge.wait(2 * FIRST_TIMEOUT_S)
    assert [seq for some in edge.poll_seqs() for seq in some] == first
    edge.wait(0.1)
    edge.ack(*first)
    assert (len(first), sum(map(len, edge.poll_seqs()))) == (100, 50)


# Sending again


def test_three_attempts_in_vain_then_each_record_alone(edge: Edge) -> None:
    edge.lanes.connected()
    seqs = edge.sprung(5)
    assert edge.poll_seqs() == [seqs]
    for _ in range(2):
        edge.wait_until_due()
        assert edge.poll_seqs() == [seqs]
    edge.wait_until_due()
    assert edge.poll_seqs() == [[seq] for seq in seqs]
    edge.ack(*seqs[1:])  # all but the one that the gateway can't take
    later = edge.sprung(2)
    assert edge.poll_seqs() == [later]
    edge.wait(120)
    assert [seqs[0]] in edge.poll_seqs()


def test_a_new_connection_forms_its_batches_anew(edge: Edge) -> None:
    edge.lanes.connected()
    seqs = edge.sprung(20)
    edge.poll()
    for _ in range(3):
        edge.wait_until_due()
        edge.poll()
    edge.lanes.connected()
    assert edge.poll() == [(Channel.BACKLOG, seqs)]


@pytest.mark.parametrize(("event", "first_s"), [(True, FIRST_EVENT_TIMEOUT_S), (False, FIRST_TIMEOUT_S)])
def test_pauses_double_to_two_minutes_and_stay_there_for_days(edge: Edge, event: bool, first_s: float) -> None:
    edge.lanes.connected()
    _ = edge.sprung() if event else edge.read()
    edge.poll()
    pauses = []
    for _ in range(1500):  # more than two days at two minutes each
        due_us = edge.lanes.next_due_us()
        assert due_us is not None
        pauses.append((due_us - edge.now.mono_us) / 1e6)
        edge.wait(pauses[-1] + 0.001)
        assert edge.poll_seqs() == [[1]]
    for number, pause in enumerate(pauses):
        middle = min(first_s * 2 ** min(number, 20), LONGEST_TIMEOUT_S)
        assert 0.9 * middle <= pause <= 1.1 * middle
    assert len(set(pauses)) > 1000  # jitter: nodes that lost one gateway do not come back in step


def test_what_left_the_outbox_meanwhile_is_not_sent_again(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "outbox.db", max_records=3)
    edge.lanes.connected()
    edge.read(3)
    edge.poll()
    edge.sprung(3)
    edge.poll()
    edge.wait(12)
    assert edge.poll_seqs()[0] == [4, 5, 6]
    edge.outbox.close()


# Acks


def test_an_ack_for_another_epoch_changes_nothing(edge: Edge) -> None:
    edge.lanes.connected()
    edge.sprung()
    edge.poll()
    assert edge.lanes.on_ack(Ack(epoch="0" * 16, upto=1), edge.now) is False
    assert edge.outbox.waiting == 1


def test_a_refused_record_is_kept_in_quarantine_although_the_ack_covers_it(edge: Edge) -> None:
    """To the gateway a refused record is settled: it is inside `upto`."""
    edge.lanes.connected()
    edge.sprung(2)
    edge.poll()
    edge.ack(upto=2, rejected=[(2, "time is out of range")])
    assert edge.outbox.waiting == 0
    assert [(seq, reason) for seq, reason, _ in edge.outbox.quarantined()] == [(2, "time is out of range")]


@pytest.mark.parametrize(
    "ack",
    [{"upto": 500}, {"upto": 0, "ranges": [(2, 500)]}, {"upto": 3, "rejected": [(3, SEQ_REUSED)]}],
    ids=["upto", "ranges", "reused"],
)
def test_an_old_copy_of_the_outbox_begins_a_new_epoch_and_loses_nothing(edge: Edge, ack: dict[str, object]) -> None:
    """The gateway knows these numbers from the newer copy: its ack is not about the records that wait here."""
    edge.lanes.connected()
    edge.read(4)
    epoch = edge.outbox.epoch
    edge.poll()
    assert edge.lanes.on_ack(Ack.model_validate({"epoch": epoch, **ack}), edge.now) is True
    assert edge.outbox.epoch != epoch
    assert (edge.outbox.waiting, edge.outbox.quarantined()) == (4, [])
    edge.lanes.connected()
    ((_, payload),) = edge.lanes.poll(edge.now)
    assert Batch.model_validate_json(payload).epoch == edge.outbox.epoch


def test_a_lost_record_that_the_gateway_asks_for_is_declared_at_once_and_until_it_knows(edge: Edge) -> None:
    edge.lanes.connected()
    edge.read(5)
    edge.poll()
    edge.ack(upto=3)
    edge.lanes.on_ack(Ack(epoch=edge.outbox.epoch, upto=0, missing=[(2, 3)]), edge.now)
    ((channel, payload),) = edge.lanes.poll(edge.now)
    lost = Batch.model_validate_json(payload)
    assert (channel, lost.boot, lost.lost) == (Channel.BACKLOG, f"{1:016x}", [(2, 3, "not in the outbox any more")])
    assert edge.lanes.poll(edge.now) == []
    edge.wait(10)
    assert any(Batch.model_validate_json(payload).lost for _, payload in edge.lanes.poll(edge.now))
    edge.ack(upto=5)
    edge.wait(10)
    assert edge.lanes.poll(edge.now) == []


# The series store is down


def test_readings_wait_as_long_as_they_are_asked_to_and_events_never(edge: Edge) -> None:
    edge.lanes.connected()
    read = edge.read(2)
    edge.poll()
    edge.ack(wait_s=30)
    edge.wait(20)
    later = edge.read(2)
    sprung = edge.sprung()
    assert edge.poll_seqs() == [sprung]
    edge.ack(*sprung, wait_s=30)
    assert edge.lanes.next_due_us() == edge.now.mono_us + 8_000_000  # 30 s, of which 22 are gone
    edge.wait(8)
    assert edge.poll_seqs() == [read, later]


def test_waiting_for_the_store_is_no_attempt_in_vain(edge: Edge) -> None:
    edge.lanes.connected()
    read = edge.read(3)
    for _ in range(10):
        assert read in edge.poll_seqs()
        edge.ack(wait_s=5)
        edge.wait(5)


def test_acks_of_events_do_not_put_off_the_next_try_for_ever(edge: Edge) -> None:
    """The store is only tried by a reading: if every ack of an event began the wait anew, a busy node would never try."""
    edge.lanes.connected()
    read = edge.read(1)
    edge.poll()
    edge.ack(wait_s=5)
    tries = 0
    for _ in range(30):
        edge.wait(1)
        sprung = edge.sprung()
        tries += read in edge.poll_seqs()
        edge.ack(*sprung, wait_s=5)
    assert tries >= 4


def test_the_first_ack_that_asks_for_no_wait_lets_the_readings_go(edge: Edge) -> None:
    edge.lanes.connected()
    edge.read(1)
    edge.poll()
    edge.ack(wait_s=3600)
    later = edge.read(1)
    edge.sprung()
    edge.poll()
    edge.ack(3)
    assert later in edge.poll_seqs()


# Batches


def test_a_batch_has_one_boot_one_state_of_the_clock_and_no_step_of_it(edge: Edge) -> None:
    def put(utc_us: int, mono_us: int, clock: str = "sync") -> None:
        edge.outbox.put([Reading(Instant(START.utc_us + utc_us, START.mono_us + mono_us), "a", "rssi", -1)], clock)

    put(0, 0)
    put(1_000_000, 1_000_000)
    put(2_000_000, 2_000_000, "unsync")
    put(90_000_000, 3_000_000, "unsync")  # set forward
    put(91_000_000, 4_000_000, "unsync")
    put(5_000_000, 5_000_000, "unsync")  # and back
    edge.outbox.close()
    edge.open()
    put(6_000_000, 6_000_000, "unsync")
    assert [seqs for _, seqs in pack(edge.outbox.epoch, edge.outbox.boot, edge.outbox.readings(1, 99, 99), START)] == [
        [1, 2],
        [3],
        [4, 5],
        [6],
        [7],
    ]


def test_a_clock_set_back_to_less_than_a_second_before_the_last_reading_puts_the_next_one_20_ms_after_that(edge: Edge) -> None:
    """On the wire too, by both clocks, and apart from what came before the clock was set. Events stay when they were."""
    edge.lanes.connected()
    edge.outbox.put([Reading(START, "a", "rssi", -70)], "sync")
    at = Instant(START.utc_us - 990_000, START.mono_us + 6_010_000)
    edge.outbox.put([Reading(at, "a", "rssi", -71), Happened(at, DeviceUp(device="a"))], "sync")
    up, before, after = [Batch.model_validate_json(payload) for _, payload in edge.lanes.poll(at)]
    assert (before.t0, before.mono0) == START
    assert (after.t0, after.mono0) == (START.utc_us + APART_MS * 1000, at.mono_us + 990_000 + APART_MS * 1000)
    assert (up.t0, up.mono0) == at


def test_no_batch_is_larger_than_the_wire_allows(edge: Edge) -> None:
    edge.happen(*[DeviceDown(device="d" * 32, reason="山" * 300)] * 150)
    edge.outbox.put([Reading(START, "d" * 32, "frames_foreign", 2**53 - 1 - i) for i in range(1200)], "sync")
    rows = edge.outbox.events(1, 9999, set(), 9999) + edge.outbox.readings(1, 9999, 9999)
    packed = pack(edge.outbox.epoch, edge.outbox.boot, rows, START)
    assert all(len(payload) <= MAX_BYTES for payload, _ in packed)
    assert max(len(seqs) for _, seqs in packed) == MAX_RECORDS
    assert sorted(seq for payload, _ in packed for seq in seqs_of(payload)) == list(range(1, 1351))
    assert len(packed) == 5  # and the room is used


# A gateway that does everything wrong that it may


KINDS = st.lists(st.sampled_from(["reading", "reading", "sprung", "up"]), min_size=1, max_size=6)


class Way(RuleBasedStateMachine):
    """An edge; a wire that loses, doubles, reorders; a gateway whose store comes and goes, and that can't take some records."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.edge = Edge(Path(self.folder.name) / "outbox.db")
        self.sync_off()
        self.produced: dict[int, tuple[Instant, str, str, bool]] = {}  # when, boot, clock, whether it is an event
        self.wire: list[bytes] = []
        self.acks: list[Ack] = []
        self.durable = Ranges()
        self.refused: set[int] = set()
        self.bad: set[int] = set()
        self.store_up = True
        self.hold_until_us = 0
        self.connected = False

    def sync_off(self) -> None:
        self.edge.outbox._db.execute("PRAGMA synchronous = OFF")  # a model needs no disk

    @initialize()
    def connect(self) -> None:
        self.reconnect()

    @rule(kinds=KINDS, clock=st.sampled_from(["sync", "unsync"]), step_s=st.sampled_from([0, 0, 0, -7, 3600]), bad=st.booleans())
    def produce(self, kinds: list[str], clock: str, step_s: int, bad: bool) -> None:
        edge = self.edge
        edge.now = Instant(edge.now.utc_us + step_s * 1_000_000, edge.now.mono_us)
        first = edge.outbox.next_seq
        records: list[Record] = []
        for kind in kinds:
            edge.wait(0.01)
            event = TrapSprung(device="trap-11") if kind == "sprung" else DeviceUp(device="cam-02")
            records.append(Reading(edge.now, "a", "rssi", -70) if kind == "reading" else Happened(edge.now, event))
        edge.outbox.put(records, clock)
        for seq, record in enumerate(records, first):
            self.produced[seq] = (record.at, f"{edge.boots:016x}", clock, record.rank is not RecordClass.READING)
        if bad:
            self.bad.add(first)

    @rule(seconds=st.sampled_from([0.1, 1, 5, 12, 30, 130]))
    def wait(self, seconds: float) -> None:
        self.edge.wait(seconds)

    @precondition(lambda self: self.connected)
    @rule()
    def poll(self) -> None:
        seen_reading = False
        for channel, payload in self.edge.lanes.poll(self.edge.now):
            batch = Batch.model_validate_json(payload)
            assert len(payload) <= MAX_BYTES
            assert channel in (Channel.LIVE, Channel.BACKLOG)
            assert not (batch.readings and batch.events)
            assert batch.epoch == self.edge.outbox.epoch
            assert not (seen_reading and batch.events), "events waited behind readings"
            seen_reading = seen_reading or bool(batch.readings)
            if batch.readings:
                assert self.edge.now.mono_us >= self.hold_until_us, "the gateway had asked to hold readings back"
            for seq, dt in [(row[0], row[1]) for row in batch.readings] + [(event.seq, event.dt) for event in batch.events]:
                at, boot, clock, is_event = self.produced[seq]
                assert (batch.boot, batch.clock) == (boot, clock)
                # A reading goes after those before it: a clock less than a second behind them is not followed.
                moved_us = batch.t0 + dt - at.utc_us
                assert 0 <= moved_us < (1 if is_event else 1_000_000 + (seq - 1) * APART_MS * 1000)
                assert abs(batch.mono0 + dt - moved_us - at.mono_us) <= 1_000_000
            self.wire.append(payload)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "arrives", "arrives", "is lost", "arrives twice"]))
    def message(self, data: st.DataObject, fate: str) -> None:
        payload = self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))
        if fate != "is lost":
            self.take(payload)
        if fate == "arrives twice":
            self.take(payload)

    def take(self, payload: bytes) -> None:
        """The gateway: as gateway.pipeline, but that it breaks on some records when they come with others."""
        seqs = seqs_of(payload)
        if len(seqs) > 1 and self.bad.intersection(seqs):
            return
        rejected = []
        for seq in seqs:
            if seq in self.durable:
                continue
            if seq in self.bad:
                rejected.append((seq, "bad"))
                self.refused.add(seq)
            elif not self.store_up and not self.produced[seq][3]:
                continue
            self.durable.add(seq)
        wait_s = 0 if self.store_up else 5
        self.acks.append(
            Ack(
                epoch=self.edge.outbox.epoch,
                upto=self.durable.upto,
                ranges=self.durable.around((seq, seq) for seq in seqs),
                rejected=rejected,
                wait_s=wait_s,
            )
        )

    @precondition(lambda self: self.acks)
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "arrives", "is lost", "arrives, and comes again later"]))
    def ack(self, data: st.DataObject, fate: str) -> None:
        index = data.draw(st.integers(0, len(self.acks) - 1))
        ack = self.acks[index] if "again" in fate else self.acks.pop(index)
        if fate != "is lost":
            self.hear(ack)

    def hear(self, ack: Ack) -> None:
        now_us = self.edge.now.mono_us
        assert self.edge.lanes.on_ack(ack, self.edge.now) is False
        if not ack.wait_s:
            self.hold_until_us = 0 if ack.upto or ack.ranges else self.hold_until_us
        elif now_us >= self.hold_until_us:
            self.hold_until_us = now_us + ack.wait_s * 1_000_000

    @rule()
    def store_goes_or_comes(self) -> None:
        self.store_up = not self.store_up

    @rule()
    def reconnect(self) -> None:
        self.edge.lanes.connected()
        self.connected, self.hold_until_us = True, 0

    @rule()
    def restart(self) -> None:
        self.edge.outbox.close()
        self.edge.open()
        self.sync_off()
        self.connected = False

    @invariant()
    def windows_hold(self) -> None:
        for lane in self.edge.lanes._lanes:
            assert len(lane.flights) <= lane.window

    @invariant()
    def everything_is_somewhere(self) -> None:
        here = {row.seq for row in self.edge.outbox.rows(self.produced)}
        assert here.union(self.refused) >= {seq for seq in self.produced if seq not in self.durable}

    def teardown(self) -> None:
        self.store_up = True
        self.reconnect()
        for _ in range(300):
            if not self.edge.outbox.waiting:
                break
            self.poll()
            while self.wire:
                self.take(self.wire.pop())
            while self.acks:
                self.hear(self.acks.pop())
            self.edge.wait(31)
        assert list(self.durable) == ([(1, len(self.produced))] if self.produced else [])
        assert self.edge.outbox.waiting == 0
        kept = {seq for seq, _, _ in self.edge.outbox.quarantined()}
        assert kept <= self.refused == self.bad
        self.edge.outbox.close()
        self.folder.cleanup()


@pytest.mark.parametrize("times", [1, 4])
def test_a_clock_that_goes_back_just_before_the_last_reading_moves_the_next_by_a_second_not_further_each_time(times: int) -> None:
    """Each time 7 s back, 6.01 s after the reading before."""
    way = Way()
    with way.folder, closing(way.edge.outbox):
        way.reconnect()
        way.produce(["reading"], "sync", 0, bad=False)
        for _ in range(times):
            way.wait(6)
            way.produce(["reading"], "sync", -7, bad=False)
        way.poll()  # holds each to the bound
        sent = [(row[0], batch.t0 + row[1]) for batch in map(Batch.model_validate_json, way.wire) for row in batch.readings]
        assert sorted(seq for seq, _ in sent) == list(way.produced), "all of them were looked at"
        (_, said_us), (_, second_us) = sorted(sent)[:2]
        assert second_us == said_us + APART_MS * 1000, "0.99 s back is not followed"


TestWay = Way.TestCase
TestWay.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
