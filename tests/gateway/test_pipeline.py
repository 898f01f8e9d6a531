"""What the pipeline promises of records: each stored once, whatever the order; acknowledged only when durable."""

import gc
import json
import logging
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from edge.contract.messages import SEQ_REUSED, Ack, check_batch
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel, Topic, topic_for
from gateway import intake, pipeline
from gateway.pipeline import Message
from gateway.state import tables
from tests.gateway.town import (
    BOOT,
    EPOCH,
    HOUR_US,
    MINUTE_US,
    NODE,
    NOW_US,
    SECOND_US,
    UPTIME_US,
    YEAR_US,
    Killed,
    Town,
    batch,
    birth,
    covered,
    event,
    locked,
    reading,
    state,
)  # fmt: skip

OTHER = "f" * 16


def readings(first: int, last: int) -> list[Any]:
    return [reading(seq, seq * 1000) for seq in range(first, last + 1)]


# ---- each record once ---------------------------------------------------------------------------------


def test_a_batch_is_stored_and_acknowledged(town: Town) -> None:
    [ack] = town.process(batch([reading(1), reading(2, 1000)], [event(3)]))
    assert (ack.upto, ack.ranges, ack.rejected, ack.wait_s) == (3, [], [], 0)
    assert town.seqs() == [3]
    assert len(town.points()) == 2


def test_the_same_batch_twice_is_acknowledged_twice_and_stored_once(town: Town) -> None:
    message = batch([reading(1)], [event(2)])
    [first], [second] = town.process(message), town.process(message)
    assert first == second
    assert (town.seqs(), len(town.store.written)) == ([2], 1)
    [both] = town.process(message, message)
    assert both.upto == 2
    assert len(town.store.written) == 1


def test_batches_that_overlap_are_told_apart_record_by_record(town: Town) -> None:
    town.process(batch(readings(1, 3)))
    [ack] = town.process(batch(readings(2, 5)))
    assert ack.upto == 5
    assert len(town.store.written) == 5


def test_live_overtakes_the_backlog(town: Town) -> None:
    [ack] = town.process(batch([reading(100)], [event(101)]))
    assert (ack.upto, ack.ranges) == (0, [(100, 101)])
    [ack] = town.process(batch([reading(seq, -seq * 1000) for seq in range(1, 51)], channel=Channel.BACKLOG))
    assert ack.upto == 50
    [ack] = town.process(batch([reading(seq, -seq * 1000) for seq in range(51, 100)], channel=Channel.BACKLOG))
    assert (ack.upto, len(town.points())) == (101, 100)


def test_two_epochs_number_their_records_apart(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    town.process(batch(events=[event(1, SECOND_US)], epoch=OTHER))
    assert [row["epoch"] for row in town.rows(tables.events)] == [EPOCH, OTHER]


RECORDS = 24
EVENTS = {seq for seq in range(1, RECORDS + 1) if seq % 5 == 0}


def message_of(seqs: list[int]) -> Message:
    return batch(
        [reading(seq, seq * 1000) for seq in seqs if seq not in EVENTS], [event(seq, seq * 1000) for seq in seqs if seq in EVENTS]
    )


DELIVERIES = st.lists(
    st.one_of(
        st.lists(st.lists(st.integers(1, RECORDS), min_size=1, max_size=8, unique=True).map(message_of), min_size=1, max_size=4),
        st.sampled_from(["restart", "store down", "store up"]),
    ),
    max_size=10,
)


@given(DELIVERIES)
@settings(max_examples=40, deadline=None)
def test_whatever_the_order_the_batching_and_the_repeats_each_record_is_stored_once(deliveries: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, Town(Path(folder)) as town:
        acks: list[Ack] = []
        for delivery in [*deliveries, "store up", [message_of(list(range(1, RECORDS + 1)))]]:
            if delivery == "restart":
                plugged = town.store.plugged
                town.restart()
                town.store.plugged = plugged
            elif isinstance(delivery, str):
                town.store.plugged = delivery == "store up"
            else:
                town.later(10 * SECOND_US)  # longer than the pause after the store was down
                acks += town.process(*delivery)
            stored = Ranges((seq, seq) for seq in town.seqs())
            for time_ms, _ in town.points():
                stored.add(time_ms - NOW_US // 1000)
            assert all(low in stored and high in stored for low, high in covered(acks)), "freed before it was durable"
        assert sorted(town.seqs()) == sorted(EVENTS)
        assert len(town.points()) == RECORDS - len(EVENTS)
        assert covered(acks).upto == acks[-1].upto == RECORDS


# ---- the order in which things become durable ----------------------------------------------------------

HISTORY = [
    batch(readings(1, 3), [event(4, 5000)]),
    batch(readings(7, 8), [event(9, 9000), event(10, 10_000, "trap_reset")], [(5, 6, "outbox full")]),
    batch(events=[event(11, 20_000), event(12, 20_000, "trap_nonsense")]),
]


def outcome(town: Town) -> dict[str, Any]:
    """What a user would notice: everything durable but internal row numbers."""
    return {
        "events": [(row["seq"], row["time_us"]) for row in town.rows(tables.events)],
        "points": town.points(),
        "losses": [(row["low"], row["high"]) for row in town.rows(tables.losses)],
        "refused": [(row["seq"], row["reason"]) for row in town.rows(tables.quarantine)],
        "alerts": sorted((row["id"], row["state"]) for row in town.rows(tables.alerts)),
        "notifications": sorted((row["id"], row["contact"]) for row in town.rows(tables.notifications)),
        "ranges": [(row["node"], row["body"]) for row in town.rows(tables.ranges)],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    with Town(tmp_path_factory.mktemp("undisturbed")) as town:
        for message in HISTORY:
            town.process(message)
        return len(town.steps.taken), outcome(town)


def test_the_steps_stand_in_the_documented_order(town: Town) -> None:
    town.process(batch([reading(1)], [event(2)]))
    transaction = ["before a transaction", "before its commit", "after its commit"]
    assert town.steps.taken == [
        *transaction,  # 3 facts
        *transaction,  # 4 alerts and notifications
        "before the store's write", "after the store's write",
        *transaction,  # 6 ranges of the readings
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["killed", "database locked"])
def test_interrupted_at_any_step_and_delivered_again_nothing_is_lost_or_doubled(
    how: str, tmp_path: Path, undisturbed: tuple[int, dict[str, Any]]
) -> None:
    steps, expected = undisturbed
    assert steps > 20
    assert len(expected["alerts"]) == 3
    assert len(expected["notifications"]) == 6
    for step in range(steps):
        folder = tmp_path / str(step)
        folder.mkdir()
        with Town(folder) as town:
            town.steps.fail_at = step
            town.steps.error = Killed() if how == "killed" else locked()
            acks: list[Ack] = []
            for message in HISTORY:
                try:
                    acks += town.process(message)
                except (Killed, OperationalError):
                    if how == "killed":
                        town.restart()
                    town.steps.fail_at = None
                    acks += town.process(message)
            assert outcome(town) == expected, f"{how} at step {step}"
            assert acks[-1].upto == 12


def test_what_fails_otherwise_at_any_step_is_done_again_from_what_is_durable(
    tmp_path: Path, undisturbed: tuple[int, dict[str, Any]]
) -> None:
    """A group whose commit fails is taken anew, in halves: nothing counts as durable because it was about to be."""
    _, expected = undisturbed
    for step in range(11):
        folder = tmp_path / str(step)
        folder.mkdir()
        with Town(folder) as town:
            town.steps.fail_at, town.steps.error = step, RuntimeError("of a kind that nobody thought of")
            acks = town.process(*HISTORY)
            assert len(town.steps.taken) > step
            assert outcome(town) == expected, f"at step {step}"
            assert acks[-1].upto == 12


def test_what_one_node_gave_up_counts_for_no_other(town: Town) -> None:
    town.process(batch([reading(4)], lost=[(1, 3, "outbox full")]))
    for value in (1.0, 2.0):  # the second is another record under a known number
        town.process(batch([reading(1, 5000 * int(value), value=value)], node="minamiyama-01"))
    assert [point for point in town.points(node="minamiyama-01") if point[1] == 2.0] == []


def test_an_event_that_was_stored_but_not_judged_rings_after_the_next_start_without_another_message(town: Town) -> None:
    town.steps.fail_at = 3  # the watch's transaction
    with pytest.raises(Killed):
        town.process(batch(events=[event(1)]))
    assert (town.seqs(), town.alerts()) == ([1], [])
    town.restart()
    town.tick()
    assert town.alerts() == [("sprung", "firing")]


def test_an_event_whose_watch_found_the_database_locked_rings_with_the_next_tick(town: Town) -> None:
    town.steps.fail_at, town.steps.error = 3, locked()
    with pytest.raises(OperationalError):
        town.process(batch(events=[event(1)]))
    town.tick()
    assert town.alerts() == [("sprung", "firing")]


# ---- the series store is down --------------------------------------------------------------------------


def test_without_the_store_traps_ring_and_readings_wait(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    town.store.plugged = False
    [ack] = town.process(batch(readings(1, 3), [event(4, 9000)]))
    assert (ack.upto, ack.ranges, ack.wait_s) == (0, [(4, 4)], pipeline.STORE_PAUSE_S)
    assert town.alerts() == [("sprung", "firing")]
    assert len(town.rows(tables.notifications)) == 2
    assert town.pipeline.store_down
    town.process(batch(readings(1, 3)))
    assert sum("series store takes no points" in record.message for record in caplog.records) == 1

    town.store.plugged = True
    town.later(pipeline.STORE_PAUSE_S * SECOND_US)
    [ack] = town.process(batch(readings(1, 3)))
    assert (ack.upto, ack.wait_s, len(town.points())) == (4, 0, 3)
    assert not town.pipeline.store_down


def test_acks_of_events_do_not_put_off_the_readings_that_show_that_the_store_is_back(town: Town) -> None:
    town.store.plugged = False
    town.process(batch([reading(1)]))
    waits = []
    for second in range(7):
        [ack] = town.process(batch(events=[event(2 + second, second * 1000)]))
        waits.append(ack.wait_s)
        town.later(SECOND_US)
    assert waits == [5, 4, 3, 2, 1, 0, 0]


def test_a_long_outage_of_the_store_takes_no_memory(town: Town) -> None:
    town.store.plugged = False

    def group(number: int) -> Message:
        return batch(readings(1 + 100 * number, 100 + 100 * number), t0=NOW_US + number * SECOND_US)

    def goes_on(first: int, last: int) -> None:
        for number in range(first, last):
            town.later(10 * SECOND_US)
            town.process(group(number))
            town.tick()

    goes_on(0, 20)  # what is done once a minute, and made once, is in memory now
    gc.collect()
    tracemalloc.start()
    try:
        goes_on(20, 120)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 200_000, "10,000 readings would take some 2 MB"


def test_a_week_of_events_during_an_outage_is_still_taken_and_heals(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_RANGES", 10)
    town.store.plugged = False
    town.process(batch(events=[event(seq, seq * 1000) for seq in range(2, 22, 2)]))  # each between two readings
    assert town.process(batch(events=[event(30, 30_000)]))[0].upto == 0
    assert "pieces already" in town.reasons()[0]
    town.store.plugged = True
    town.later(HOUR_US)
    [ack] = town.process(batch([reading(seq, seq * 1000) for seq in range(1, 22, 2)]))
    assert ack.upto == 21
    [ack] = town.process(batch(events=[event(30, 30_000)]))
    assert ack.ranges == [(30, 30)]


def test_a_store_that_is_down_is_asked_shortly_and_for_little(town: Town) -> None:
    messages = batch(readings(1, 300)), batch(readings(301, 600))
    town.process(batch([reading(1001)]))
    town.store.plugged = False
    for _ in range(2):
        town.process(*messages)
        town.later(pipeline.STORE_PAUSE_S * SECOND_US)
    town.store.plugged = True
    town.process(*messages)
    town.process(batch([reading(1002, SECOND_US)]))
    assert town.store.patience == [(None, 1), (None, 600), (0.5, 500), (0.5, 500), (None, 100), (None, 1)]
    assert len(town.points()) == 602


# ---- the series store refuses ---------------------------------------------------------------------------


def test_points_that_the_store_will_never_take_cost_no_others(town: Town) -> None:
    first, second = batch(readings(1, 40)), batch(readings(41, 90), [event(91)], epoch=OTHER, t0=NOW_US + SECOND_US // 2)
    never = {NOW_US // 1000 + 7, NOW_US // 1000 + 500 + 60}
    town.store.refuses = lambda point: point[1] in never
    one, other = town.process(first, second)
    assert (one.upto, one.rejected, one.wait_s) == (40, [(7, "refused by the test")], 0)
    assert (other.ranges, other.rejected) == ([(41, 91)], [(60, "refused by the test")])
    assert len(town.points()) == 88
    rows = town.rows(tables.quarantine)
    assert [(row["seq"], row["node"], row["topic"], row["reason"]) for row in rows] == [
        (seq, NODE, "store", "refused by the test") for seq in (7, 60)
    ]
    assert json.loads(rows[0]["payload"]) == [NODE, "trap-11", "heartbeat", NOW_US // 1000 + 7, 1.0]
    assert not town.pipeline.store_down
    assert (None, 40) not in town.store.patience, "the group was not taken apart as if a message had broken the pipeline"

    town.restart()
    again = town.process(first, second)
    assert [(ack.upto, ack.rejected) for ack in again] == [(40, []), (0, [])]
    assert len(town.rows(tables.quarantine)) == 2


def test_a_point_is_named_rightly_beside_records_refused_before_it(town: Town) -> None:
    records = [reading(1), reading(2, 1000, metric="mood"), reading(3, 1000), reading(4, YEAR_US), reading(5, 2000)]
    town.store.refuses = lambda point: point[1] == NOW_US // 1000 + 2
    [ack] = town.process(batch(records), batch(records[:1]))
    assert dict(ack.rejected)[5] == "refused by the test"
    assert sorted(seq for seq, _ in ack.rejected) == [2, 4, 5]
    assert (ack.upto, len(town.points())) == (5, 2)


@pytest.mark.parametrize("count", [1, 2, 600])
def test_a_store_that_refuses_everything_is_down_and_nothing_is_given_up(town: Town, count: int) -> None:
    town.store.refuses = lambda _: True
    messages = [batch(readings(low, min(low + 299, count))) for low in range(1, count + 1, 300)] + [batch(events=[event(1000)])]
    for _ in range(2):
        town.store.patience.clear()
        [ack] = town.process(*messages)
        assert (ack.upto, ack.ranges, ack.rejected, ack.wait_s) == (0, [(1000, 1000)], [], pipeline.STORE_PAUSE_S)
        assert town.pipeline.store_down
        assert len(town.store.patience) <= pipeline.REFUSALS_OF_ALL, "traps wait for every one of these calls"
        town.later(pipeline.STORE_PAUSE_S * SECOND_US)
    assert (town.points(), town.reasons()) == ([], [])

    town.store.refuses = lambda _: False
    town.process(*messages)
    assert (len(town.points()), town.pipeline.store_down) == (count, False)


def test_many_refused_points_are_given_up_little_by_little(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "REFUSALS", 40)
    monkeypatch.setattr(pipeline, "REFUSALS_OF_ALL", 20)
    message = batch(readings(1, 100))
    town.store.refuses = lambda point: point[1] % 4 > 0
    bad = [seq for seq in range(1, 101) if town.store.refuses((None, NOW_US // 1000 + seq, 1.0))]
    rejected: list[int] = []
    turns = 0
    while turns < 30:
        turns += 1
        [ack] = town.process(message)
        rejected += [seq for seq, _ in ack.rejected]
        stored = {time_ms - NOW_US // 1000 for time_ms, _ in town.points()}
        freed = {seq for low, high in covered([ack]) for seq in range(low, high + 1)}
        assert freed <= stored | set(rejected), "freed before it was durable"
        assert (ack.wait_s == 0) == (ack.upto == 100)
        if ack.upto == 100:
            break
    assert turns > 1
    assert sorted(rejected) == bad
    assert len(town.points()) == 100 - len(bad)


# ---- what can't be used ---------------------------------------------------------------------------------


def test_bad_records_are_kept_with_their_reason_told_to_the_node_and_known_afterwards(town: Town) -> None:
    message = batch([reading(1), reading(2, 1000, metric="mood")], [event(3, 0, "trap_nonsense")])
    [ack] = town.process(message)
    assert ack.rejected == [(2, 'metric is not in the table: "mood"'), (3, 'event type is not in the table: "trap_nonsense"')]
    assert ack.upto == 3
    rows = town.rows(tables.quarantine)
    assert [(row["seq"], row["node"], row["reason"]) for row in rows] == [(seq, NODE, why) for seq, why in ack.rejected]
    assert json.loads(rows[0]["payload"]) == [2, 1000, "trap-11", "mood", 1.0]
    town.restart()
    [again] = town.process(message)
    assert (again.rejected, again.upto, len(town.rows(tables.quarantine))) == ([], 3, 2)


def test_300_bad_records_among_300_good_ones(town: Town) -> None:
    records = [reading(seq, seq * 1000, value=1.0 if seq % 2 else "much") for seq in range(1, 601)]
    acks = town.process(batch(records[:300]), batch(records[300:]))
    assert len(town.points()) == 300
    assert sorted(seq for ack in acks for seq, _ in ack.rejected) == list(range(2, 601, 2))
    assert {ack.upto for ack in acks} == {600}
    assert len(acks) == 2, "one ack of all the reasons would be too large for some broker"


def test_an_ack_is_never_larger_than_a_broker_takes(town: Town) -> None:
    messages = [batch([reading(1 + 1000 * i + seq * 2, seq, metric="x" * 70) for seq in range(400)]) for i in range(10)]
    acks = town.pipeline.process(messages, town.now_us)
    assert max(len(ack.payload) for ack in acks) < 200_000
    assert sum(len(Ack.model_validate_json(ack.payload).rejected) for ack in acks) == 4000


def test_what_is_not_said_a_second_time_is_said_so_that_it_arrives(town: Town) -> None:
    """All else a node asks for again, by sending again what it heard nothing of."""

    def surely(*messages: Message) -> list[bool]:
        return [ack.surely for ack in town.pipeline.process(messages, town.now_us)]

    assert surely(batch([reading(1)])) == [False]
    assert surely(batch([reading(2), reading(3, metric="no such thing!")])) == [True], "a refusal"
    assert surely(batch([reading(1)])) == [False], "known already"
    assert surely(birth(next_=4)) == [True], "that it is heard"


TOPICS = st.one_of(
    st.sampled_from([topic_for(Topic(NODE, channel)) for channel in Channel if channel.count("/") and "command" not in channel
                     and "result" not in channel]),
    st.text(max_size=40),
    st.text("abc/+#-0123456789", max_size=40).map(lambda tail: f"satomori/v1/{tail}"),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["v", "epoch", "seq", "type", "x"]), inner),
    max_leaves=8,
)


def broken(field: str, value: object) -> bytes:
    """A batch with one field replaced."""
    body = json.loads(batch([reading(1)], [event(2)]).payload)
    return json.dumps(body | {field: value}).encode()


FIELDS = st.sampled_from(["v", "epoch", "boot", "clock", "t0", "mono0", "sent", "sent_mono", "readings", "events", "lost"])
PAYLOADS = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()) | st.builds(broken, FIELDS, JSON)


@given(st.lists(st.builds(Message, TOPICS, PAYLOADS), min_size=1, max_size=20))
@example([Message("satomori/v1/29/kitayama-03/up/live\0", b"{}")])
@settings(max_examples=30, deadline=None)
def test_no_message_breaks_the_pipeline_and_none_goes_unseen(messages: list[Message]) -> None:
    with tempfile.TemporaryDirectory() as folder, Town(Path(folder)) as town:
        town.process(*messages)
        town.process(batch([reading(50)], node="minamiyama-01"))
        assert len(town.points(node="minamiyama-01")) == 1
        assert not [reason for reason in town.reasons() if reason.startswith("broke")]
        town.tick()
        heard = {row["node"] for row in town.rows(tables.nodes)} - {"minamiyama-01"}
        refused = sum(row["seq"] is None for row in town.rows(tables.quarantine))
        if not any(message.retained for message in messages):  # what the broker kept does not make its node heard
            assert bool(heard) == (refused < len(messages))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message("elsewhere", b"{}"), "topic does not start with"),
        (Message(topic_for(Topic(NODE, Channel.LIVE)).replace("/29/", "/30/"), b"{}"), "belongs on 29"),
        (Message(topic_for(Topic(NODE, Channel.LIVE)), b"\xff"), "no JSON"),
        (Message(topic_for(Topic(NODE, Channel.LIVE)), b"[" * 60_000), "no JSON"),
        (Message(topic_for(Topic(NODE, Channel.LIVE)), b" " * 70_000), "at most 65536"),
        (Message(topic_for(Topic(NODE, Channel.ACK)), b"{}"), "down/ack is not something this gateway takes"),
        (Message(topic_for(Topic(NODE, Channel.BIRTH)), b"{}"), "epoch"),
        (batch([reading(1), reading(1)]), "twice"),
    ],
)
def test_a_whole_message_is_refused_with_its_reason(town: Town, message: Message, reason: str) -> None:
    assert town.process(message) == []
    [row] = town.rows(tables.quarantine)
    assert reason in row["reason"]
    assert (row["seq"], row["size"]) == (None, len(message.payload))
    assert message.payload.startswith(row["payload"])


def test_a_message_that_breaks_us_is_found_and_the_others_go_through(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:

    def check(decoded: Any) -> Any:
        if decoded["readings"][0][0] == 13:
            raise KeyError("a mistake of ours")
        return check_batch(decoded)

    monkeypatch.setattr(intake, "check_batch", check)
    acks = town.process(*(batch([reading(seq, seq * 1000)]) for seq in range(1, 21)))
    assert len(town.points()) == 19
    assert town.reasons() == ["broke the pipeline: KeyError: 'a mistake of ours'"]
    assert covered(acks).text() == "1-12,14-20"


def test_a_mistake_in_the_watch_is_not_blamed_on_the_messages(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(town.watch, "run", fail)
    with pytest.raises(RuntimeError):
        town.process(batch(events=[event(1)]), batch(events=[event(2, 1000)]))
    assert town.reasons() == []


def test_the_quarantine_keeps_the_newest_and_does_not_fill_the_disk(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "QUARANTINE_ROWS", 10)
    for number in range(5):
        town.process(*(Message(f"nowhere/{number}/{i}", b"x" * 9000) for i in range(4)))
    rows = town.rows(tables.quarantine)
    assert [row["topic"] for row in rows] == [f"nowhere/{n // 4}/{n % 4}" for n in range(10, 20)]
    assert (rows[0]["size"], len(rows[0]["payload"])) == (9000, 4096)


# ---- a number used again --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        event(1, 0, "trap_reset"),
        event(1, 0, device="trap-12"),
        event(1, 1),
        event(1, folded=3),
    ],
    ids=["type", "device", "time", "content"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["in one group", "later"])
def test_an_event_number_used_again_for_another_event_is_seen(town: Town, other: dict[str, Any], at_once: bool) -> None:
    first, second = batch([reading(2, 5)], [event(1)]), batch(events=[other])
    ack = town.process(first, second)[-1] if at_once else (town.process(first), town.process(second))[1][-1]
    assert ack.rejected == [(1, SEQ_REUSED)]
    assert covered([ack]).size == 0, "an outbox that numbers anew must not forget by number"
    assert town.reasons() == [SEQ_REUSED]
    assert json.loads(town.rows(tables.quarantine)[0]["payload"])["type"] == other["type"]


def test_an_event_under_the_number_of_a_reading_is_a_reuse_too(town: Town) -> None:
    town.process(batch([reading(1)]))
    [ack] = town.process(batch(events=[event(1)]))
    assert ack.rejected == [(1, SEQ_REUSED)]


# ---- losses ---------------------------------------------------------------------------------------------


def losses(town: Town) -> list[tuple[int, int, str]]:
    return [(row["low"], row["high"], row["reason"]) for row in town.rows(tables.losses)]


def test_a_declared_loss_is_recorded_once_and_only_for_what_never_came(town: Town) -> None:
    town.process(batch([reading(3), reading(10, 1000)]))
    message = batch(lost=[(1, 6, "outbox full"), (5, 8, "damaged")])
    [ack] = town.process(message, message)
    assert ack.upto == 8
    assert losses(town) == [(1, 2, "outbox full"), (4, 6, "outbox full"), (7, 8, "damaged")]
    town.restart()
    town.process(message)
    assert len(losses(town)) == 3


def test_a_record_that_comes_after_it_was_declared_lost_is_stored_all_the_same(town: Town) -> None:
    town.process(batch([reading(9)], lost=[(1, 8, "outbox full")]))
    late = batch([reading(2, 2000)], [event(3, 3000)])
    for _ in range(2):
        [ack] = town.process(late)
        assert ack.upto == 9
        town.restart()
    assert (town.seqs(), len(town.points()), town.alerts()) == ([3], 2, [("sprung", "firing")])


def test_a_loss_of_numbers_that_were_never_given_out_frees_none_of_them(town: Town) -> None:
    town.process(batch([reading(1)]))
    [ack] = town.process(batch(lost=[(1, 500, "a counter gone wild")]))
    assert ack.upto == 1
    assert losses(town) == []
    town.process(birth(next_=400))
    [ack] = town.process(batch(lost=[(1, 500, "outbox full")]))
    assert (ack.upto, losses(town)) == (399, [(2, 399, "outbox full")])
    [ack] = town.process(batch(events=[event(400)]))
    assert town.seqs() == [400]


def test_a_node_cannot_blind_itself_by_giving_up_every_number_there_is(town: Town) -> None:
    everything = batch(lost=[(1, 2**53 - 1, "all of them")])
    acks = town.process(everything)
    assert covered(acks).size == 0
    assert "no record above 0 was ever heard of" in town.reasons()[0]
    town.process(birth(first=2**53 - 1, oldest=2**53 - 1, next_=2**53 - 1))
    town.process(batch([reading(5)], [event(6)]))
    assert (town.seqs(), len(town.points()), town.alerts()) == ([6], 1, [("sprung", "firing")])


# ---- births and states ----------------------------------------------------------------------------------


def test_what_the_node_has_no_more_and_we_never_saw_is_asked_for_at_birth(town: Town) -> None:
    town.process(batch([reading(2), reading(5, 1000)]))
    [ack] = town.process(birth(oldest=8, next_=9))
    assert ack.missing == [(1, 1), (3, 4), (6, 7)]
    [ack] = town.process(batch(lost=ack.missing and [(low, high, "not in the outbox") for low, high in ack.missing]))
    assert ack.upto == 7


def test_a_renewed_epoch_is_not_asked_for_what_came_before_it(town: Town) -> None:
    [ack] = town.process(birth(first=50, oldest=60, next_=61))
    assert ack.missing == [(50, 59)]
    assert ack.upto == 49
    assert losses(town) == []


def test_a_birth_the_broker_remembered_does_not_make_a_dead_node_look_alive(town: Town) -> None:
    town.process(birth(devices=["trap-11"]), batch([reading(1)]))
    town.tick()
    [before] = town.rows(tables.nodes)
    town.later(9 * HOUR_US)
    town.restart()
    town.process(birth(devices=["trap-11"], retained=True), state(True, retained=True))
    town.tick()
    [after] = town.rows(tables.nodes)
    assert (after["seen_us"], after["born_us"]) == (before["seen_us"], before["born_us"]) == (NOW_US, NOW_US)


def test_a_node_that_sends_readings_only_is_seen(town: Town) -> None:
    town.process(batch([reading(1)]))
    town.later(HOUR_US)
    town.process(batch([reading(2, 1000)], t0=town.now_us))
    town.tick()
    assert town.rows(tables.nodes)[0]["seen_us"] == town.now_us


def test_the_last_will_of_a_session_that_another_followed_says_nothing(town: Town) -> None:
    town.process(birth(session="1" * 16), state(True, session="1" * 16))
    town.process(birth(session="2" * 16), state(True, session="2" * 16), state(False, "lost", session="1" * 16))
    assert town.rows(tables.nodes)[0]["online"] is True
    town.later(HOUR_US)
    town.process(state(False, "lost", session="1" * 16))
    assert town.rows(tables.nodes)[0]["online"] is True
    town.process(state(False, "lost", session="2" * 16))
    [row] = town.rows(tables.nodes)
    assert (row["online"], row["offline_reason"], row["seen_us"]) == (False, "lost", NOW_US)


# ---- clocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_us", [-YEAR_US, YEAR_US, -HOUR_US, HOUR_US], ids=["year behind", "year ahead", "behind", "ahead"])
def test_a_clock_that_is_off_does_not_move_what_happened(town: Town, off_us: int) -> None:
    """The trap sprang two minutes ago, by the time since boot; the node's clock says anything."""
    wrong_us = NOW_US + off_us
    message = batch([reading(1, 5000)], [event(2)], t0=wrong_us - 2 * MINUTE_US, mono0=UPTIME_US - 2 * MINUTE_US, sent=wrong_us)
    town.process(message)
    [row] = town.rows(tables.events)
    assert (row["time_us"], row["clock_trusted"], row["late"]) == (NOW_US - 2 * MINUTE_US, False, False)
    assert row["node_time_us"] == wrong_us - 2 * MINUTE_US
    assert [time_ms for time_ms, _ in town.points()] == [(NOW_US - 2 * MINUTE_US + 5000) // 1000]


def test_a_clock_that_was_never_set_is_not_believed_even_when_it_looks_right(town: Town) -> None:
    town.process(batch(events=[event(1)], clock="unsync"))
    assert town.rows(tables.events)[0]["clock_trusted"] is False


def test_resends_agree_on_the_time_whatever_the_node_or_a_restart_does(town: Town) -> None:
    town.store.plugged = False
    wrong_us = NOW_US - YEAR_US
    town.process(batch([reading(1)], t0=wrong_us))
    town.restart()
    town.later(20 * MINUTE_US)
    message = batch([reading(1), reading(2, 1000)], t0=wrong_us, sent=wrong_us + 25 * MINUTE_US, clock="unsync")
    town.process(message)
    assert [time_ms for time_ms, _ in town.points()] == [NOW_US // 1000, NOW_US // 1000 + 1]


def test_the_zero_of_a_boot_is_not_remembered_before_it_is_committed(town: Town) -> None:
    town.steps.fail_at, town.steps.error = 0, locked()
    wrong_us = NOW_US - YEAR_US
    with pytest.raises(OperationalError):
        town.process(batch(events=[event(1)], t0=wrong_us))
    town.later(SECOND_US)
    town.process(batch(events=[event(1)], t0=wrong_us, sent=wrong_us + SECOND_US))
    assert [(row["boot"], row["zero_us"]) for row in town.rows(tables.boots)] == [(BOOT, NOW_US - UPTIME_US)]


def test_once_the_clock_was_right_the_records_from_before_get_their_true_time(town: Town) -> None:
    """A Pi without a clock chip: a day behind at first, then set. What it recorded before waits until after."""
    town.process(batch([reading(10)]))
    behind_us = NOW_US - 24 * HOUR_US - 3 * MINUTE_US
    town.process(batch(events=[event(1)], clock="unsync", t0=behind_us, mono0=UPTIME_US - 3 * MINUTE_US, sent=NOW_US))
    assert town.rows(tables.events)[0]["time_us"] == NOW_US - 3 * MINUTE_US


def test_a_clock_that_jumped_by_decades_costs_no_alarm(town: Town) -> None:
    [ack] = town.process(batch(events=[event(1)], clock="unsync", t0=20 * SECOND_US, mono0=20 * SECOND_US, sent=NOW_US))
    assert ack.rejected == []
    [row] = town.rows(tables.events)
    assert (row["time_us"], row["late"]) == (NOW_US, False)
    assert town.alerts() == [("sprung", "firing")]


def test_an_event_of_a_boot_whose_zero_was_guessed_too_late_is_not_in_the_future(town: Town) -> None:
    """Its first message was hours on its way, and nobody could know."""
    wrong_us = NOW_US - YEAR_US
    town.process(batch([reading(1)], t0=wrong_us))
    town.process(batch(events=[event(2)], t0=wrong_us + 3 * HOUR_US, mono0=UPTIME_US + 3 * HOUR_US))
    [row] = town.rows(tables.events)
    assert (row["time_us"], row["clock_trusted"]) == (NOW_US, False)


def test_messages_that_waited_in_the_broker_while_nobody_listened_keep_their_time(town: Town) -> None:
    then_us = NOW_US - 3 * HOUR_US
    town.process(batch(events=[event(1)], t0=then_us), away_since_us=then_us - MINUTE_US)
    town.process(batch(events=[event(2)], t0=then_us - HOUR_US), away_since_us=then_us - MINUTE_US)
    first, second = town.rows(tables.events)
    assert (first["time_us"], first["clock_trusted"], first["late"]) == (then_us, True, True)
    assert second["clock_trusted"] is False, "older than any message that can have waited"


@pytest.mark.parametrize(("age_us", "late"), [(5 * MINUTE_US, False), (5 * MINUTE_US + 1, True)])
def test_an_event_is_late_after_five_minutes(town: Town, age_us: int, late: bool) -> None:
    town.process(batch(events=[event(1, -age_us)]))
    assert town.rows(tables.events)[0]["late"] is late


@pytest.mark.parametrize("dt", [-7 * YEAR_US, 6 * MINUTE_US, 2 * 24 * HOUR_US, 2**53 - 1, -(2**53) + 1])
def test_a_reading_from_an_impossible_time_is_refused(town: Town, dt: int) -> None:
    [ack] = town.process(batch([reading(1, dt)]))
    assert ack.rejected == [(1, "time is out of range")]
    assert (town.points(), ack.upto) == ([], 1)


@pytest.mark.parametrize("dt", [-7 * YEAR_US, 6 * MINUTE_US, 2 * 24 * HOUR_US, 2**53 - 1, -(2**53) + 1])
def test_an_alarm_is_never_refused_for_its_time_but_counts_from_when_it_was_heard(town: Town, dt: int) -> None:
    [ack] = town.process(batch(events=[event(1, dt)]))
    assert (ack.rejected, ack.upto) == ([], 1)
    [row] = town.rows(tables.events)
    assert (row["time_us"], row["clock_trusted"], row["late"]) == (NOW_US, False, False)
    assert len(town.rows(tables.alerts)) == 1


def test_two_readings_of_a_series_in_one_millisecond_are_not_written_over_each_other(town: Town) -> None:
    [ack] = town.process(batch([reading(1, 100, value=1), reading(2, 900, value=2)]))
    assert ack.rejected == [(2, "second reading of its series in one millisecond")]
    assert [value for _, value in town.points()] == [1]


# ---- hostile nodes --------------------------------------------------------------------------------------


def test_the_largest_numbers_there_are(town: Town) -> None:
    top = 2**53 - 1
    [ack] = town.process(batch([reading(top)], [event(top - 1)]))
    assert ack.ranges == [(top - 1, top)]
    town.restart()
    [ack] = town.process(batch([reading(top)]), birth(oldest=top, next_=top))
    assert (ack.ranges, ack.missing) == ([(top - 1, top)], [(1, top - 2)])


def test_ten_thousand_names_of_one_node_leave_room_for_the_others(town: Town) -> None:
    for start in range(0, 10_000, 500):
        town.process(batch([reading(start + i + 1, 0, f"d{start + i}") for i in range(500)], epoch=f"{start:016x}"))
        town.process(batch(events=[event(1, 0, device=f"e{start}")], epoch=f"{start + 1:016x}"))
    town.tick()
    assert len(town.store.series()) == len(town.rows(tables.latest)) == intake.MAX_DEVICES - 1  # one is known by its event
    assert f"this node has {intake.MAX_DEVICES} devices already" in town.reasons()
    town.process(batch([reading(1)], node="minamiyama-01"))
    assert len(town.points(node="minamiyama-01")) == 1


def test_thousands_of_epochs_are_kept_on_disk_and_not_in_memory(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_REMEMBERED", 100)
    monkeypatch.setattr(intake, "NEW_EPOCHS", 5000)
    for start in range(0, 2000, 200):
        town.process(
            *(batch([reading(1, i)], epoch=f"{i:016x}", boot=f"{i:016x}", clock="unsync") for i in range(start, start + 200))
        )
    held = town.pipeline._intake
    assert max(len(held._settled), len(held._boots)) <= 300
    [ack] = town.process(batch([reading(1)], epoch=f"{7:016x}"))
    assert ack.upto == 1
    assert len(town.rows(tables.ranges)) == 2000


def test_pieces_of_many_epochs_together_are_let_go_of(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_PIECES", 1000)
    for number in range(10):
        town.process(batch([reading(seq * 2, seq * 1000) for seq in range(1, 401)], epoch=f"{number:016x}"))
        held = town.pipeline._intake
        settled = [*held._settled.values(), *(one.settled for one in held._heard.values() if one.settled is not None)]
        assert sum(map(len, settled)) <= 1400


def test_no_secret_of_a_message_goes_to_the_log(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    town.process(batch(events=[event(1, 0, "tag_seen", class_="sighting", tag="ibeacon:f00d:1:2", rssi=-60, frames=3)]))
    assert town.seqs() == [1]
    assert "f00d" not in caplog.text
