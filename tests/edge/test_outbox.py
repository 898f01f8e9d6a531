"""The outbox: what `put` returned for is there, whatever happens, until it is acknowledged, refused or declared lost."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import outbox as module
from edge.clock import Instant
from edge.contract.events import AnyEvent, DeviceUp, RecordClass, TagSeen, TrapSprung
from edge.errors import OutboxError
from edge.outbox import APART_MS, Outbox
from edge.records import Happened, Reading, Record
from simulators.soak import PRODUCER, outbox_storm

NOW = Instant(1_780_434_720_000_000, 90_000_000)
BOOT = "00000000000000b0"
RANKS = list(RecordClass)


def after(us: int) -> Instant:
    return Instant(NOW.utc_us + us, NOW.mono_us + us)


def record(rank: RecordClass, us: int = 0) -> Record:
    events: dict[RecordClass, AnyEvent] = {
        RecordClass.ALARM: TrapSprung(device="trap-11"),
        RecordClass.EVIDENCE: DeviceUp(device="cam-02"),
        RecordClass.SIGHTING: TagSeen(device="gate-1", tag="ibeacon:0:1:2", rssi=-70, frames=3),
    }
    return Reading(after(us), "trap-11", "rssi", -70.5) if rank is RecordClass.READING else Happened(after(us), events[rank])


def readings(count: int, first: int = 0) -> list[Record]:
    return [record(RecordClass.READING, (first + number) * 1_000_000) for number in range(count)]


def opened(folder: Path, machine: str = "pi-1", max_records: int = 3_000_000) -> Outbox:
    return Outbox(folder / "outbox.db", machine=machine, boot=BOOT, max_records=max_records)


def held(outbox: Outbox) -> dict[int, int]:
    """seq -> rank of everything that waits, as the lanes see it."""
    rows = outbox.events(1, 2**53, set(), 10**6) + outbox.readings(1, 2**53, 10**6)
    assert outbox.waiting == len(rows)
    return {row.seq: row.rank for row in rows}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(opened(tmp_path)) as one:
        yield one


def test_put_hands_out_numbers_from_1_in_order_and_keeps_what_it_was_given(outbox: Outbox) -> None:
    outbox.put([record(RecordClass.READING), record(RecordClass.ALARM)], "sync")
    outbox.put([record(RecordClass.SIGHTING, 5)], "unsync")
    reading, sprung, seen = outbox.rows([1, 2, 3])
    assert reading == (1, 3, BOOT, "sync", *NOW, '"trap-11", "rssi", -70.5'.replace(" ", ""))
    own = {"folded": 0, "found": False}
    assert json.loads(sprung.body) == {"device": "trap-11", "type": "trap_sprung", "class": "alarm", **own}
    assert (seen.rank, seen.clock, seen.utc_us, seen.mono_us) == (2, "unsync", *after(5))
    assert (outbox.oldest_seq, outbox.next_seq, outbox.waiting) == (1, 4, 3)


def test_a_commit_is_on_the_disk_when_it_returns(outbox: Outbox) -> None:
    """A process that is killed shows nothing of this: only a power cut would, so the settings themselves are looked at."""
    outbox.put(readings(1), "sync")
    outbox.ack(1, [])  # an ack may be slower: what comes back after a power cut is sent again, and known
    (journal,) = outbox._db.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = outbox._db.execute("PRAGMA synchronous").fetchone()
    assert (journal, synchronous) == ("wal", 2)  # 2: FULL


def test_the_next_process_finds_everything_and_goes_on_counting(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        first.put(readings(3), "sync")
        first.ack(1, [])
        first.reject([(2, "no")])
    with closing(opened(tmp_path)) as second:
        assert (second.epoch, second.first_seq, second.next_seq, second.waiting) == (first.epoch, 1, 4, 1)
        assert [seq for seq, _, _ in second.quarantined()] == [2]
        second.put(readings(1), "sync")
        assert list(held(second)) == [3, 4]


def test_an_emptied_outbox_never_gives_out_a_number_again(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        first.put(readings(5), "sync")
        first.ack(5, [])
    with closing(opened(tmp_path)) as second:
        assert (second.oldest_seq, second.next_seq) == (6, 6)


# SIGKILL


def test_after_sigkill_at_any_moment_nothing_reported_is_missing_and_no_number_is_used_twice(tmp_path: Path) -> None:
    """Ten kills; `make soak` does hundreds with the same code."""
    outcome = outbox_storm(tmp_path / "outbox.db", kills=10, seed=20260603)
    assert outcome.faults == []
    assert outcome.reported > 100


# Acks, refusals, losses


@settings(max_examples=25)
@given(st.integers(0, 30), st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=6))
def test_an_ack_forgets_exactly_what_it_names(upto: int, spans: list[tuple[int, int]]) -> None:
    outbox = Outbox(Path(":memory:"), machine="pi-1", boot=BOOT)
    outbox.put([record(RANKS[number % 4], number * 10_000) for number in range(25)], "sync")
    outbox.ack(upto, [(low, low + more) for low, more in spans])
    gone = set(range(1, upto + 1)).union(*(range(low, low + more + 1) for low, more in spans))
    assert set(held(outbox)) == set(range(1, 26)) - gone
    outbox.close()


def test_a_refused_record_moves_to_the_quarantine_with_the_reason(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    outbox.put(readings(3), "sync")
    outbox.reject([(2, "time is out of range"), (99, "never was here")])
    assert outbox.quarantined() == [(2, "time is out of range", '"trap-11","rssi",-70.5')]
    assert list(held(outbox)) == [1, 3]
    assert "refused record 2: time is out of range" in caplog.text


def test_the_quarantine_keeps_the_newest(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUARANTINE_ROWS", 3)
    outbox.put(readings(5), "sync")
    for seq in range(1, 6):
        outbox.reject([(seq, "no")])
    assert [seq for seq, _, _ in outbox.quarantined()] == [3, 4, 5]


def test_what_the_gateway_misses_is_declared_lost_unless_it_is_here(outbox: Outbox) -> None:
    outbox.put(readings(9), "sync")
    outbox.ack(5, [])
    outbox.declare_missing([(2, 2), (4, 7), (9, 9)])
    assert [(low, high) for low, high, _ in outbox.lost(10)] == [(2, 2), (4, 5)]
    assert list(held(outbox)) == [6, 7, 8, 9]
    outbox.ack(2, [])
    assert [(low, high) for low, high, _ in outbox.lost(10)] == [(4, 5)]
    outbox.ack(5, [])
    assert outbox.lost(10) == []


def test_a_loss_that_grows_is_declared_whole(outbox: Outbox) -> None:
    outbox.put(readings(9), "sync")
    outbox.ack(3, [])
    outbox.declare_missing([(2, 9)])
    outbox.ack(0, [(4, 7)])
    outbox.declare_missing([(2, 9)])
    assert [(low, high) for low, high, _ in outbox.lost(10)] == [(2, 7)]


# Full


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from(RANKS), min_size=1, max_size=8), max_size=12), st.integers(1, 20))
def test_a_full_outbox_drops_the_oldest_of_the_least_class_declares_it_and_never_drops_an_alarm(
    puts: Sequence[Sequence[RecordClass]], most: int
) -> None:
    outbox = Outbox(Path(":memory:"), machine="pi-1", boot=BOOT, max_records=most)
    ranks: dict[int, int] = {}
    for batch in puts:
        before = {**held(outbox), **{outbox.next_seq + number: int(rank) for number, rank in enumerate(batch)}}
        ranks |= before
        outbox.put([record(rank, (len(ranks) + number) * 10_000) for number, rank in enumerate(batch)], "sync")
        kept = held(outbox)
        for seq in before.keys() - kept.keys():
            assert ranks[seq] != RecordClass.ALARM
            assert all(rank < ranks[seq] or (rank == ranks[seq] and other > seq) for other, rank in kept.items())
        assert len(kept) <= max(most, sum(rank == RecordClass.ALARM for rank in kept.values()))
        assert len(kept) == min(most, len(before)) or set(kept.values()) == {RecordClass.ALARM}
        declared = [seq for low, high, reason in outbox.lost(1000) for seq in range(low, high + 1) if reason == "outbox full"]
        assert sorted(declared) == sorted(ranks.keys() - kept.keys())
    outbox.close()


def test_losses_side_by_side_are_one_loss(outbox: Outbox, tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "small.db", machine="pi-1", boot=BOOT, max_records=2)) as small:
        for number in range(50):
            small.put(readings(1, number), "sync")
        assert small.lost(10) == [(1, 48, "outbox full")]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RANKS), st.integers(1, 300)), min_size=1, max_size=12), st.integers(60, 200))
def test_an_outbox_that_is_full_by_its_bytes_drops_by_class_too(puts: list[tuple[RecordClass, int]], most_kib: int) -> None:
    outbox = Outbox(Path(":memory:"), machine="pi-1", boot=BOOT, max_bytes=most_kib * 1024)
    ranks: dict[int, int] = {}
    for rank, count in puts:
        ranks |= {outbox.next_seq + number: int(rank) for number in range(count)}
        outbox.put([record(rank, (len(ranks) + number) * 10_000) for number in range(count)], "sync")
    kept = held(outbox)
    gone = ranks.keys() - kept.keys()
    assert all(ranks[seq] != RecordClass.ALARM for seq in gone)
    declared = [seq for low, high, _ in outbox.lost(1000) for seq in range(low, high + 1)]
    assert sorted(declared) == sorted(gone)
    assert outbox._used_bytes() <= (most_kib + 60) * 1024 or set(kept.values()) == {RecordClass.ALARM}
    outbox.close()


def test_an_outbox_full_of_alarms_takes_more_of_them_and_of_nothing_else(outbox: Outbox, tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "small.db", machine="pi-1", boot=BOOT, max_records=100)) as small:
        small.put([record(RecordClass.ALARM, number) for number in range(150)], "sync")
        small.put(readings(10), "sync")
        small.put([record(RecordClass.ALARM, number) for number in range(50)], "sync")
        assert list(held(small).values()) == [RecordClass.ALARM] * 200
        assert small.lost(10) == [(151, 160, "outbox full")]


def test_thirty_days_of_a_busy_node_fit(tmp_path: Path) -> None:
    """25 readings a minute, 200 tags' summaries and a few alarms an hour, measured on an hour and multiplied."""
    with closing(opened(tmp_path)) as outbox:
        before = outbox._used_bytes()
        for minute in range(60):
            at_us = minute * 60_000_000
            hour: list[Record] = [Reading(after(at_us + n * 1000), "counter-01", "count_in", 123_456.0) for n in range(25)]
            hour += [record(RecordClass.SIGHTING, at_us + n) for n in range(10)] + [record(RecordClass.EVIDENCE, at_us)]
            outbox.put(hour, "sync")
        outbox.put([record(RecordClass.ALARM, n) for n in range(6)], "sync")
        hours = 30 * 24
        assert outbox.waiting * hours < outbox._max_records
        assert (outbox._used_bytes() - before) * hours < outbox._max_bytes / 2


# One agent


def test_a_second_agent_on_the_same_outbox_is_refused_and_the_first_goes_on(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match=r"outbox.db: another satomori-edge is using it. Stop that one first"):
        opened(tmp_path)
    outbox.put(readings(1), "sync")


def test_a_kill_leaves_no_lock_behind(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PRODUCER, str(tmp_path / "outbox.db"), "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(OutboxError, match="another satomori-edge"):
            opened(tmp_path)
        child.kill()
    opened(tmp_path).close()


# Epochs


def test_an_outbox_from_another_machine_begins_a_new_epoch_and_still_sends_what_waits(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        first.put(readings(5), "sync")
        first.ack(2, [])
    with closing(opened(tmp_path, machine="pi-2")) as second:
        assert second.epoch != first.epoch
        assert (second.first_seq, second.oldest_seq, second.next_seq) == (3, 3, 6)
        assert list(held(second)) == [3, 4, 5]
    with closing(opened(tmp_path, machine="pi-2")) as third:
        assert third.epoch == second.epoch


def test_each_new_outbox_has_its_own_epoch(tmp_path: Path) -> None:
    epochs = set()
    for name in "abc":
        with closing(opened(tmp_path / name)) as one:
            epochs.add(one.epoch)
    assert len(epochs) == 3


def test_a_new_epoch_says_in_the_log_what_was_lost_and_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(opened(tmp_path, max_records=2)) as outbox:
        outbox.put(readings(4), "sync")
        outbox.renew_epoch()
        assert (outbox.first_seq, outbox.lost(10)) == (3, [])
    assert "records 1 to 2 were lost (outbox full)" in caplog.text


def spoil(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def spoil_inside(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("how", [spoil, spoil_inside])
def test_a_damaged_file_is_kept_aside_and_a_new_epoch_begins(
    how: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(how)
    with closing(opened(tmp_path)) as first:
        first.put(readings(200), "sync")
    how(tmp_path / "outbox.db")
    damaged = (tmp_path / "outbox.db").read_bytes()
    with closing(opened(tmp_path)) as second:
        assert second.epoch != first.epoch
        assert (second.next_seq, second.waiting) == (1, 0)
        second.put(readings(1), "sync")
    (aside,) = tmp_path.glob("outbox.db.damaged-????????")
    assert aside.read_bytes() == damaged
    assert aside.name in caplog.text


def test_what_can_be_read_of_a_damaged_file_is_sent_under_the_new_epoch(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        bulk = [record(RANKS[number % 4], number * 10_000) for number in range(4000)]
        first.put(bulk, "sync")
        first.ack(10, [])
        kept = {row.seq: row for row in first.rows(range(1, 4001))}
    path = tmp_path / "outbox.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 40_000)  # ten pages in the middle
    with closing(opened(tmp_path)) as second:
        assert second.epoch != first.epoch
        found = {row.seq: row for row in second.rows(range(1, 5000))}
        assert held(second).keys() == found.keys()
        assert found.items() <= kept.items()
        assert len(found) > 3000
        assert (second.first_seq, second.oldest_seq, second.next_seq) == (11, 11, 4001)
        second.put(readings(1, 10**6), "sync")
        assert second.next_seq == 4002


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_became_of_the_file_only_records_that_were_put_come_out_of_it(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        with closing(opened(Path(folder))) as first:
            first.put([record(RANKS[number % 4], number * 10_000) for number in range(300)], "sync")
            kept = {row.seq: row for row in first.rows(range(1, 301))}
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            noise = data.draw(st.binary(min_size=1, max_size=300))
            content[at : at + len(noise)] = noise
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        for start in range(4):
            try:
                with closing(opened(Path(folder))) as second:
                    found = {row.seq: row for row in second.rows(range(1, 301))}
                    if second.epoch != first.epoch:
                        for seq, row in found.items():
                            assert sum(mine == then for mine, then in zip(row, kept[seq], strict=True)) >= 4, "no row of ours"
                    second.put(readings(1, 10**6), "sync")
                return
            except OutboxError as error:  # the service ends, and is started again
                if "another version" in str(error):
                    return
                assert start < 3, "started again and again, it never recovers"


def test_a_record_that_a_failing_card_has_spoilt_is_given_up_and_the_others_go_on(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.put(readings(6), "sync")
    outbox._db.execute("UPDATE records SET boot = CAST(x'80' || substr(boot, 2) AS TEXT) WHERE seq = 2")
    outbox._db.execute("UPDATE records SET utc_us = 'x' WHERE seq = 3")
    assert [row.seq for row in outbox.readings(1, 99, 99)] == [1, 4, 5, 6]
    assert (outbox.waiting, outbox.lost(9)) == (4, [(2, 3, "damaged on the disk")])
    assert "2 records are damaged on the disk" in caplog.text


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(OutboxError, match=r"outbox.db.*another version.*schema 7"):
        opened(tmp_path)
    assert not list(tmp_path.glob("*damaged*"))


def test_a_folder_that_cannot_be_had_is_an_error_that_says_what_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutboxError, match=r"file/outbox.db can't be opened.*Is the disk full or read-only"):
        opened(tmp_path / "file")


# A disk that takes no more


def test_a_put_that_fails_leaves_nothing_behind_and_the_next_one_goes_on(outbox: Outbox) -> None:
    outbox.put(readings(10), "sync")
    (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    bulk = [record(RANKS[number % 4], 10**9 + number * 900) for number in range(1000)]
    with pytest.raises(OutboxError, match=r"can't be written: database or disk is full"):
        outbox.put(bulk, "sync")
    assert (outbox.next_seq, list(held(outbox))) == (11, list(range(1, 11)))
    outbox._db.execute("PRAGMA max_page_count = 100000")
    outbox.put(bulk, "sync")
    assert sorted(held(outbox)) == list(range(1, 1011))
    assert outbox.rows([14])[0].utc_us == bulk[3].at.utc_us  # no reading was moved by the attempt before


def test_on_a_full_disk_an_alarm_takes_the_room_of_readings(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    outbox.put(readings(5000), "sync")
    (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    number = 0
    while "the disk is full" not in caplog.text:
        outbox.put([record(RecordClass.ALARM, number)], "sync")
        number += 1
    kept = list(held(outbox).values())
    assert kept.count(RecordClass.ALARM) == number
    [(low, high, reason)] = outbox.lost(10)
    assert (low, reason) == (1, "disk full")
    assert high == 5000 - kept.count(RecordClass.READING)


def test_a_put_that_fails_half_way_is_taken_back_whole(outbox: Outbox) -> None:
    outbox._db.execute("CREATE TRIGGER t BEFORE INSERT ON records WHEN new.seq = 3 BEGIN SELECT RAISE (ABORT, 'bad block'); END")
    with pytest.raises(OutboxError, match="bad block"):
        outbox.put(readings(5), "sync")
    assert (outbox.next_seq, held(outbox)) == (1, {})
    outbox._db.execute("DROP TRIGGER t")
    outbox.put(readings(5), "sync")
    assert list(held(outbox)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "write",
    [
        lambda one: one.put(readings(1), "sync"),
        lambda one: one.ack(3, [(5, 5)]),
        lambda one: one.reject([(2, "no")]),
        lambda one: one.declare_missing([(1, 1)]),
        lambda one: one.renew_epoch(),
    ],
    ids=["put", "ack", "reject", "declare_missing", "renew_epoch"],
)
def test_no_write_error_passes_unseen_and_none_changes_anything(outbox: Outbox, write: object) -> None:
    assert callable(write)
    outbox.put(readings(6), "sync")
    outbox.ack(1, [])
    before = (outbox.epoch, outbox.first_seq, outbox.next_seq, held(outbox), outbox.lost(9))
    outbox._db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutboxError, match="outbox can't be written"):
        write(outbox)
    assert (outbox.epoch, outbox.first_seq, outbox.next_seq, held(outbox), outbox.lost(9)) == before
    outbox._db.execute("PRAGMA query_only = OFF")
    write(outbox)  # and nothing stands in its way when the disk has recovered
    assert (outbox.epoch, outbox.first_seq, outbox.next_seq, held(outbox), outbox.lost(9)) != before


def test_an_outbox_that_cannot_be_read_says_so(outbox: Outbox) -> None:
    outbox._db.execute("DROP TABLE records")
    for read in (lambda: outbox.oldest_seq, lambda: outbox.readings(1, 9, 9), lambda: outbox.events(1, 9, set(), 9)):
        with pytest.raises(OutboxError, match="outbox can't be read"):
            read()


# One series, one millisecond

STEPS_US = st.one_of(st.integers(0, 3000), st.integers(-999_999, 0), st.integers(-5_000_000, 5_000_000))


@given(st.lists(st.lists(STEPS_US, max_size=8), max_size=5))
def test_two_readings_of_a_series_never_share_a_millisecond(puts: list[list[int]]) -> None:
    outbox = Outbox(Path(":memory:"), machine="pi-1", boot=BOOT)
    said_us, said = NOW.utc_us, []
    for steps in puts:
        batch: list[Record] = []
        for step in steps:
            said_us += step
            said.append(said_us)
            batch.append(Reading(Instant(said_us, 5), "trap-11", "rssi", -70))
        outbox.put(batch, "sync")
    stored = [row.utc_us for row in outbox.readings(1, 2**53, 1000)]
    latest_us = 0
    for number in range(len(said)):
        if said[number] > latest_us - 1_000_000:
            assert number == 0 or stored[number] // 1000 > stored[number - 1] // 1000
            latest_us = max(latest_us, said[number])
        else:
            assert stored[number] == said[number]  # the clock was set back: believed
            latest_us = said[number]
        assert 0 <= stored[number] - said[number] < 1_000_000 + number * APART_MS * 1000
    outbox.close()


def test_a_clock_that_goes_back_bit_by_bit_is_believed_when_that_makes_a_second(outbox: Outbox) -> None:
    """Else each bit would move the readings further ahead of it, without an end."""
    for said_ms in (0, -600, -900, -1200, -700):
        outbox.put([Reading(after(said_ms * 1000), "trap-11", "rssi", -70)], "sync")
    stored = outbox.readings(1, 9, 9)
    assert [(row.utc_us - NOW.utc_us) // 1000 for row in stored] == [0, 20, 40, -1200, -700]
    assert {row.utc_us - row.mono_us for row in stored} == {NOW.utc_us - NOW.mono_us}


def test_not_even_thousands_at_one_instant_and_other_series_are_left_alone(outbox: Outbox) -> None:
    outbox.put([*readings(1)] * 3000 + [Reading(NOW, "trap-11", "snr", 1), Reading(NOW, "trap-12", "rssi", 1)], "sync")
    rows = outbox.readings(1, 2**53, 4000)
    assert len({row.utc_us // 1000 for row in rows[:3000]}) == 3000
    assert len({row.utc_us - row.mono_us for row in rows}) == 1  # moved by both clocks: no step of the clock
    assert [row.utc_us for row in rows[3000:]] == [NOW.utc_us] * 2


def test_a_loss_is_joined_to_the_one_before_it_without_reading_them_all(outbox: Outbox) -> None:
    plan = outbox._db.execute("EXPLAIN QUERY PLAN SELECT low FROM lost WHERE high = 5 AND reason = 'x'").fetchall()
    assert "USING INDEX lost_by_high" in plan[0][3]


def test_the_newest_events_are_found_without_reading_all_the_older_ones(outbox: Outbox) -> None:
    outbox.put([record(RecordClass.ALARM)], "sync")
    with_trace: list[str] = []
    outbox._db.set_trace_callback(with_trace.append)
    outbox.events(1, 9, set(), 9)
    outbox._db.set_trace_callback(None)
    plan = outbox._db.execute(f"EXPLAIN QUERY PLAN {with_trace[0]}").fetchall()
    assert "events_by_rank (rank=? AND seq>? AND seq<?)" in plan[0][3]


def test_nothing_of_a_record_is_logged(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    outbox.put([record(RecordClass.SIGHTING)], "sync")
    outbox.reject([(1, "no")])
    assert "ibeacon" not in caplog.text


def test_the_file_and_its_log_are_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(opened(tmp_path)) as made:
            made.put([record(RecordClass.ALARM)], "sync")
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("outbox.db*")}
    finally:
        os.umask(before)
    assert {"outbox.db", "outbox.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_schema_that_is_no_text_any_more_does_not_keep_the_node_from_starting(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as made:
        made.put(readings(3), "sync")
    path = tmp_path / "outbox.db"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE records", b"CR\x80ATE TABLE records"))
    with closing(opened(tmp_path)) as anew:
        assert held(anew) == {}
        anew.put(readings(1), "sync")
