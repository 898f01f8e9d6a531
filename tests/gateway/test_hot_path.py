"""Where the hot path does by hand what the specification does slowly, both must say the same."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select

from edge.contract import messages
from edge.contract.messages import Ack, Batch, Names, check_batch, encode, reading_fault
from edge.contract.metrics import METRICS
from edge.contract.ranges import Ranges
from edge.contract.topics import WITH_ID, Channel, Topic, parse, topic_for
from gateway.flush import Flush, Message, Settled, Work, runs
from gateway.heard import Heard, Layouts, Name, Newest
from gateway.intake import Intake
from gateway.keeping.late import TAKES_ALL
from gateway.pipeline import _acks
from gateway.state import State, open_state
from gateway.state.tables import latest, nodes, ranges
from gateway.state.upsert import upsert_rows

EPOCH = "0123456789abcdef"
ALL = 1_000_000_000


@given(st.integers(0, 2**53 - 1), st.integers(0, 3600), st.lists(st.integers(1, 2**53 - 1), max_size=5))
def test_an_ack_by_hand_is_byte_for_byte_the_encoded_one(upto: int, wait_s: int, seqs: list[int]) -> None:
    work = Work(Settled([(1, upto)] if upto else []))
    work.seqs += [(seq, seq) for seq in seqs]
    [(topic, payload, _)] = _acks("kitayama-03", EPOCH, work, wait_s, birth=False)
    assert topic == "satomori/v1/29/kitayama-03/down/ack"
    assert payload == encode(Ack(epoch=EPOCH, upto=upto, wait_s=wait_s))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8))), st.integers(1, 80), st.integers(0, 10))
def test_ranges_meet_what_they_share_a_number_with(parts: list[tuple[int, int]], low: int, width: int) -> None:
    held = Ranges((start, start + length) for start, length in parts)
    assert held.meets(low, low + width) == any(seq in held for seq in range(low, low + width + 1))


@given(st.sets(st.integers(1, 30)).map(sorted))
def test_runs_hold_the_numbers_in_their_order(seqs: list[int]) -> None:
    found = runs(seqs)
    assert [seq for low, high in found for seq in range(low, high + 1)] == seqs
    assert all(high + 1 != low for (_, high), (low, _) in pairwise(found))


_odd = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.lists(st.integers(), max_size=1), st.floats(), st.integers())
_often = st.integers(0, 5).map(bool)  # a record is refused for one fault: the other fields must be good, mostly


def _mostly(good: st.SearchStrategy[object], other: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return _often.flatmap(lambda often: good if often else st.one_of(other, _odd))


@given(
    _mostly(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(-(2**54), 2**54)),
    _mostly(st.just("trap-1"), st.sampled_from(["Trap 1", "", "x" * 33, "trap-1\n"])),
    _mostly(st.sampled_from([*METRICS]), st.just("weight")),
    _mostly(st.one_of(st.integers(0, 2), st.floats(-300, 300)), st.one_of(st.floats(), st.integers(-(10**20), 10**20))),
)
def test_a_reading_is_refused_when_and_only_when_the_specification_finds_a_fault(
    dt: object, device: object, metric: object, value: object
) -> None:
    batch = {
        "v": 1, "epoch": EPOCH, "boot": EPOCH, "clock": "sync", "t0": 1, "mono0": 1, "sent": 1, "sent_mono": None,
        "readings": [[1, dt, device, metric, value]], "events": [], "lost": [],
    }  # fmt: skip
    fault = reading_fault(dt, device, metric, value)
    for _ in range(2):  # the second time from what was remembered
        checked = check_batch(batch)
        assert (checked.readings == []) == (fault is not None)
        assert [reason for _, reason, _ in checked.rejected] == ([fault[:200]] if fault else [])


@pytest.mark.parametrize("field", ["epoch", "boot"])
@pytest.mark.parametrize("wrong", ["0123456789ABCDEF", EPOCH + "\n", "", None, 7, [EPOCH], {"a": 1}])
def test_an_epoch_or_boot_that_is_none_refuses_the_message(field: str, wrong: object) -> None:
    batch = {
        "v": 1, "epoch": EPOCH, "boot": EPOCH, "clock": "sync", "t0": 1, "mono0": 1, "sent": 1, "sent_mono": None,
        "readings": [], "events": [], "lost": [],
    }  # fmt: skip
    Batch.model_validate(batch)
    check_batch(batch)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{field} is not 16 hex digits"):
            check_batch(batch | {field: wrong})


def test_many_rows_are_inserted_and_those_that_stand_are_changed_in_the_named_columns_only(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    try:
        with state.write() as connection:
            upsert_rows(connection, ranges, ("body", "declared"), [("a", EPOCH, "1-5", ""), ("b", EPOCH, "7", "7")])
            upsert_rows(connection, nodes, ("seen_us", "online"), [("a", 5, False)])  # not in the table's order
            upsert_rows(connection, latest, ("time_us", "received_us", "seq", "value"), [("a", "trap-1", "rssi", 1, 2, 3, -70.5)])
        with state.write() as connection:
            upsert_rows(connection, ranges, ("body", "declared"), [])
            upsert_rows(connection, ranges, ("body", "declared"), [("a", EPOCH, "1-6", "6"), ("c", EPOCH, "1", "")])
            upsert_rows(connection, nodes, ("seen_us",), [("a", 6), ("b", 6)])
        with state.read() as connection:
            assert connection.execute(select(ranges).order_by(ranges.c.node)).all() == [
                ("a", EPOCH, "1-6", "6"), ("b", EPOCH, "7", "7"), ("c", EPOCH, "1", ""),
            ]  # fmt: skip
            rows = connection.execute(select(nodes.c.node, nodes.c.seen_us, nodes.c.online).order_by(nodes.c.node)).all()
            assert rows == [("a", 6, False), ("b", 6, None)]
            assert connection.execute(select(latest)).one() == ("a", "trap-1", "rssi", 1, 2, 3, -70.5)
    finally:
        state.close()


@pytest.mark.parametrize("number", [1, 39, 40, 41, 95])
def test_each_of_many_rows_is_its_own_whether_it_stands_already_or_not(tmp_path: Path, number: int) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    rows = [(f"node-{at:02}", EPOCH, f"1-{at + 2}", "" if at % 3 else "1") for at in range(number)]
    try:
        with state.write() as connection:
            upsert_rows(connection, ranges, ("body", "declared"), [(node, epoch, "1", "") for node, epoch, _, _ in rows[::2]])
            upsert_rows(connection, ranges, ("body", "declared"), rows)
        with state.read() as connection:
            assert connection.execute(select(ranges).order_by(ranges.c.node)).all() == rows
    finally:
        state.close()


# ---- Readings column by column ---------------------------------------------------------------------------

NOW_US = 1_780_434_720_000_000
LIVE = "satomori/v1/29/kitayama-03/up/live"
USUAL = [[at, 0, device, "rssi", -70] for at, device in enumerate(("a", "b", "c"), start=1)]
_NO_COLUMNS = range(0)

_rows = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 12), st.sampled_from([0, True, 2.0, "3"])),
        st.one_of(st.integers(-3000, 3000), st.sampled_from([None, 0.0, 10**17])),
        st.one_of(st.sampled_from(["a", "b", "c"]), st.sampled_from(["A", "", 1, ["a"]])),
        st.one_of(st.sampled_from(["rssi", "heartbeat"]), st.sampled_from(["weight", None])),
        st.one_of(st.integers(-250, 60), st.floats(allow_nan=False), st.sampled_from([True, "1", None])),
    ).map(list),
    max_size=5,
)
# Most batches are as most are: their numbers in order, each row of another series, nothing wrong in them.
_good_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-3000, 3000), st.sampled_from(["rssi", "heartbeat"]), st.integers(0, 50)), max_size=4
).map(
    lambda rows: [
        [1 + at + skip, dt, f"{at}", metric, value]
        for at, (skip, (_, dt, metric, value)) in enumerate(zip(sorted(row[0] for row in rows), rows, strict=True))
    ]
)


# The same series again and again, the last time perhaps not all of them; sometimes in one millisecond, or out of order.
def _in_rounds(size: int, count: int, step_us: int, dt: int, value: int) -> list[list[Any]]:
    rows = []
    for at in range(count):
        number, series = divmod(at, size)
        rows.append([1 + at, dt + number * step_us, f"{series // 2}", ("rssi", "heartbeat")[series % 2], value + at % 7])
    return rows


_rounds = st.builds(
    _in_rounds, st.integers(1, 4), st.integers(0, 14), st.sampled_from([1000, 1500, 700, 0, -1000]), st.integers(0, 999),
    st.integers(0, 20),
)  # fmt: skip


def _batch(rows: list[Any], at_us: int = NOW_US, seq: int = 0) -> dict[str, Any]:
    moved = [[row[0] + seq, *row[1:]] if seq else row for row in rows]
    return {
        "v": 1, "epoch": EPOCH, "boot": EPOCH, "clock": "sync", "t0": at_us, "mono0": 1, "sent": NOW_US, "sent_mono": None,
        "readings": moved, "events": [], "lost": [],
    }  # fmt: skip


def _said(batch: dict[str, Any]) -> object:
    try:
        checked = check_batch(batch)
    except ValueError as error:
        return str(error)
    if checked.columns is not None:
        names, seqs, dts, values, first, last = checked.columns
        assert [list(row) for row in zip(seqs, dts, cycle(names.devices), cycle(names.metrics), values)] == checked.readings
        assert (first, last) == (min(dts), max(dts))
    return checked.readings, checked.rejected


# One thing is odd in what is otherwise as most are: rows of different series, or rounds of them.
_odd_rows = st.tuples(
    st.integers(0, 2), st.integers(0, 4),
    st.sampled_from([True, False, 1.0, 2.0, 0, -1, 1, 2, 2**53, 10**17, None, "3", "a", "", "rsi", 51, -201, [1], {"a": 1}]),
    st.integers(0, 5), st.integers(0, 3),
).map(
    lambda odd: [
        [*row[: odd[1]], odd[2], *row[odd[1] + 1 :]] if at == odd[0] + odd[4] else row
        for at, row in enumerate([*USUAL, *([4 + at, 1000 * (1 + at // 3), *USUAL[at % 3][2:]] for at in range(odd[3]))])
    ]
)  # fmt: skip


@given(st.one_of(_rows, _good_rows, _rounds, _odd_rows))
def test_columns_are_judged_as_rows_are(rows: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        together = _said(_batch(rows))
        patched.setattr(messages, "_ROUNDS", _NO_COLUMNS)
        assert together == _said(_batch(rows))


def test_what_most_batches_are_like_is_looked_at_column_by_column() -> None:
    assert check_batch(_batch(USUAL)).columns is not None
    for odd in ([4, 0, "d", "rssi", True], [3, 0, "d", "rssi", 1], [4, 0, "b", "rssi", 1], [4, 0, "d", "rssi", 51]):
        assert check_batch(_batch([*USUAL, [4, 0, "d", "rssi", 1]])).columns is not None
        assert messages._columns([*USUAL, odd]) is None
    rounds = [[1 + at, at, *USUAL[at % 3][2:]] for at in range(200)]
    assert check_batch(_batch(rounds)).columns is not None, "however many, whole rounds or not"
    assert messages._columns([*rounds[:100], *rounds[101:]]) is None
    for odd in (["a", "rssi", 51], ["a", "rssi", -201], ["a", "heartbeat", 1], ["b", "rssi", 1]):
        assert messages._columns([*rounds[:150], [151, 150, *odd], *rounds[151:]]) is None
    many = [[1 + at, 0, f"d-{at % 40}", "rssi", 1] for at in range(80)]
    assert messages._columns(many) is None, "what is remembered of a round stays small"


def test_what_is_nested_as_deep_as_json_can_be_is_refused_row_by_row() -> None:
    rows = b",".join(b'[%d,0,"a",%s%s,1]' % (seq, b"[" * 1000, b"]" * 1000) for seq in range(1, 9))
    checked = check_batch(_batch(orjson.loads(b"[" + rows + b"]")))
    assert (checked.readings, len(checked.rejected)) == ([], 8)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path_factory.mktemp('hot') / 'state.db'}")
    yield opened
    opened.close()


@given(
    st.lists(st.tuples(st.one_of(_good_rows, _rounds), st.integers(-2, 12), st.integers(0, 8)), max_size=12),
    st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)),
)  # fmt: skip
def test_readings_taken_together_come_to_the_same_as_one_by_one(
    state: State,
    said: list[tuple[list[Any], int, int]],
    saved_after: set[int],
    settled_after: set[int],
    failed_at: set[int],
    started_after: set[int],
) -> None:
    """Also where a group fails and comes again, and where what was saved is all that a new process knows."""
    at_us = NOW_US - 60_000_000
    known = [[1 + at, 0, f"{at // 2}", ("rssi", "heartbeat")[at % 2], 1] for at in range(8)]
    batches = [_batch(known, at_us, 1000)]
    for rows, step, seq in said:
        at_us += step * 1000
        batches.append(_batch(rows, at_us, seq))

    def taken() -> list[object]:
        with state.write() as connection:
            connection.execute(delete(latest).where(latest.c.node == "kitayama-03"))
        intake = Intake(state, frozenset({"heartbeat"}), TAKES_ALL)
        found: list[object] = []
        for number in range(-(-len(batches) // 2)):
            group = [Message(LIVE, json.dumps(batch).encode()) for batch in batches[2 * number : 2 * number + 2]]
            flush = intake.read(group, NOW_US, None)
            if number in failed_at:
                found.append(_of(flush))
                intake.forget()
                flush = intake.read(group, NOW_US, None)
            found.append(_of(flush))
            if number in settled_after:
                for work in flush.work.values():
                    work.settled.settle(work.readings)
                intake.committed(flush, 0)
            found.append(_unsaved(intake) if number in saved_after else None)
            if number in saved_after:
                unsaved = intake.unsaved(ALL)
                if number in started_after:
                    with state.write() as connection:
                        upsert_rows(connection, latest, ("time_us", "received_us", "seq", "value"), unsaved.newest)
                    intake.anew()
                else:
                    intake.saved(unsaved)
        return [*found, _unsaved(intake)]

    with pytest.MonkeyPatch.context() as patched:
        together = taken()
        patched.setattr(messages, "_ROUNDS", _NO_COLUMNS)
        assert together == taken()


_near = st.tuples(st.integers(0, len(LIVE)), st.integers(0, 3), st.text("/-adeiklmoprstuvy0123456789A\0", max_size=3)).map(
    lambda change: LIVE[: change[0]] + change[2] + LIVE[change[0] + change[1] :]
)


@given(st.one_of(_near, st.sampled_from([topic_for(Topic("kitayama-03", one)) for one in {*Channel} - WITH_ID])))
def test_a_topic_is_read_as_it_is_parsed_whether_its_node_is_known_or_not(state: State, topic: str) -> None:
    payload = json.dumps(_batch([])).encode()
    found = []
    for before in ([], [Message(LIVE, payload)]):
        intake = Intake(state, frozenset(), TAKES_ALL)
        intake.read(before, NOW_US, None)
        flush = intake.read([Message(topic, payload)], NOW_US, None)
        found.append(([*flush.work], [row["reason"] for row in flush.quarantine]))
    assert found[0] == found[1]
    assert found[0] == _read_by_parse(topic) or _is_of_no_records(topic)


def _read_by_parse(topic: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Of which epochs records come under this topic, and why it is refused."""
    try:
        return [(parse(topic).node, EPOCH)], []
    except ValueError as error:
        return [], [str(error)]


def _is_of_no_records(topic: str) -> bool:
    with suppress(ValueError):
        return parse(topic).channel not in (Channel.LIVE, Channel.BACKLOG)
    return False


def test_the_newest_reading_is_the_last_that_came_whatever_came_with_it(state: State) -> None:
    intake = Intake(state, frozenset(), TAKES_ALL)
    for number, rows in enumerate((USUAL, USUAL[:2], USUAL[1:], USUAL[:2])):
        _speak(intake, "hayama-2", rows, 10 * number)
    assert {name: newest[2] for name, newest in _unsaved(intake)["hayama-2"].items()} == {
        ("a", "rssi"): 31, ("b", "rssi"): 32, ("c", "rssi"): 23
    }  # fmt: skip


def _unsaved(intake: Intake) -> dict[str, dict[Name, Newest]]:
    unsaved = intake.unsaved(ALL)
    found: dict[str, dict[Name, Newest]] = {node: {} for node in unsaved.nodes}
    for node, device, metric, time_us, received_us, seq, value in unsaved.newest:
        found[node][device, metric] = (time_us, received_us, seq, value)
    return found


def _speak(intake: Intake, node: str, rows: list[Any], seq: int, now_us: int = NOW_US) -> None:
    message = Message(topic_for(Topic(node, Channel.LIVE)), json.dumps(_batch(rows, NOW_US + seq * 1000, seq)).encode())
    assert intake.read([message], now_us, None).points


def test_who_waits_longest_is_saved_first_and_nobody_is_left_out(state: State) -> None:
    intake = Intake(state, frozenset(), TAKES_ALL)
    names = [f"nagai-{number}" for number in range(5)]
    for at, node in enumerate([*names, names[0]]):
        _speak(intake, node, USUAL, 10 * at)
    first = intake.unsaved(2 * len(USUAL))
    assert (first.nodes, first.seen) == (names[:2], [(node, NOW_US) for node in names[:2]])
    assert {row[5] for row in first.newest if row[0] == names[0]} == {51, 52, 53}, "as it is now, not as when it began to wait"
    intake.saved(first)
    _speak(intake, names[0], USUAL[:1], 60, NOW_US + 1)
    rest = intake.unsaved(ALL)
    assert rest.nodes == [*names[2:], names[0]]
    assert [row[:3] for row in rest.newest if row[0] == names[0]] == [(names[0], "a", "rssi")], "what is saved is not saved again"
    intake.saved(rest)
    assert intake.unsaved(ALL) == ([], [], [])


def test_what_came_before_our_clock_was_set_back_is_saved_and_so_is_what_came_after(state: State) -> None:
    intake = Intake(state, frozenset(), TAKES_ALL)
    _speak(intake, "hayama-1", USUAL[:2], 0)
    _speak(intake, "hayama-1", USUAL[2:], 10, NOW_US - 60_000_000)
    assert {name for name, _ in _unsaved(intake)["hayama-1"]} == {"a", "b", "c"}


def test_after_a_start_a_reading_is_new_only_if_it_is_later_than_what_the_database_has(state: State) -> None:
    with state.write() as connection:
        columns = ("time_us", "received_us", "seq", "value")
        upsert_rows(connection, latest, columns, [("misawa-07", row[2], "rssi", NOW_US, NOW_US - 1, 90, -70) for row in USUAL])
    intake = Intake(state, frozenset(), TAKES_ALL)

    def taken(at_us: int, seq: int) -> tuple[int, list[str]]:
        payload = json.dumps(_batch(USUAL, at_us, seq)).encode()
        flush = intake.read([Message(LIVE.replace("29/kitayama-03", "50/misawa-07"), payload)], NOW_US, None)
        return len(flush.points), [row["reason"] for row in flush.quarantine]

    assert taken(NOW_US - 60_000_000, 0) == (3, []), "a backlog is taken"
    assert taken(NOW_US + 500, 10) == (0, ["second reading of its series in one millisecond"] * 3)
    assert not _unsaved(intake)["misawa-07"], "and what the database has stays the newest"
    assert taken(NOW_US + 1000, 20) == (3, [])
    assert {newest[2] for newest in _unsaved(intake)["misawa-07"].values()} == {21, 22, 23}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("field", ["epoch", "boot", "device", "metric"])
def test_names_that_are_none_are_not_remembered_whatever_they_are_as_long_as(field: str, rows: int) -> None:
    """A message may be one name of 60 kB; thousands of names are remembered."""
    tracemalloc.start()
    try:
        for number in range(100):
            name = f"{rows}{number:060000}"
            place = {"device": 2, "metric": 3}.get(field)
            readings = [[*row[:place], name, *row[place + 1 :]] if place else row for row in USUAL[:rows]]
            with suppress(ValueError):
                check_batch(_batch(readings) | ({} if place else {field: name}))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000


def _of(flush: Flush) -> object:
    told = [(key, time_ms) for key, time_ms, _ in flush.points]
    assert len(set(told)) == len(told) or not flush.points.are_distinct
    works = [(work.readings, work.staged, sorted(work.seqs), work.rejected) for work in flush.work.values()]
    origins = [flush.origin(index) for index in range(len(flush.points))]
    return list(flush.points), origins, flush.facts, flush.quarantine, works, flush.duplicates


# ---- What is in memory of a node -------------------------------------------------------------------------


@given(
    st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")),
            st.tuples(st.integers(1, 2**60), st.integers(1, 2**60), st.integers(1, 2**53), st.floats(allow_nan=False)),
            max_size=6,
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_of_each_series_the_last_that_was_kept_is_known(kept: list[dict[Name, Newest]], together: bool) -> None:
    layouts = Layouts()
    one, other = Heard("kitayama-03", layouts.empty), Heard("minamiyama-01", layouts.empty)
    known: dict[Name, Newest] = {}
    said_us = 0
    for new in kept:
        newest = new
        for heard in (one, other):
            more = [name for name in newest if heard.last(name) is None]
            heard.layout = layouts.grown(heard.layout, [device for device, _ in more], *more)
        latest_us = max((one[0] for one in newest.values()), default=0)
        if together and latest_us > one.newest_us:
            devices, metrics = zip(*newest, strict=True)
            names = Names(devices, metrics, tuple(newest), frozenset(newest), (), ())
            received_us = min(received_us for _, received_us, _, _ in newest.values())
            newest = {name: (time_us, received_us, seq, value) for name, (time_us, _, seq, value) in newest.items()}
            times_us, _, seqs, values = zip(*newest.values(), strict=True)
            assert one.knows(names)
            one.keep_together(names, times_us, received_us, seqs, values, latest_us)
        else:
            for name, reading in newest.items():
                one.keep(name, reading)
        said_us = max(said_us, latest_us)
        assert one.newest_us == said_us
        known |= newest
    assert {name: one.last(name) for name in known} == known
    for since_us in {received_us for _, received_us, _, _ in known.values()}:
        assert dict(one.since(since_us)) == {name: new for name, new in known.items() if new[1] >= since_us}
    assert one.last(("d", "x")) is None
    assert one.layout is other.layout, "nodes with the same series share where they stand"


def test_there_is_room_for_readings_of_series_of_which_none_was_kept_yet() -> None:
    """What is told of a node's series may break off before the first reading of them is remembered."""
    layouts, pairs = Layouts(), (("a", "rssi"), ("b", "rssi"))
    one = Heard("kitayama-03", layouts.grown(layouts.empty, ("a",), ("a", "rssi")))
    one.keep(("a", "rssi"), (1, 1, 1, -70.0))
    one.layout = layouts.grown(one.layout, ("b",), ("b", "rssi"))
    names = Names(("a", "b"), ("rssi", "rssi"), pairs, frozenset(pairs), (), ())
    assert one.knows(names)
    one.keep_together(names, [2, 3], 4, [2, 3], [-71.0, -72.0], 3)
    assert [one.last(name) for name in pairs] == [(2, 4, 2, -71.0), (3, 4, 3, -72.0)]


def test_a_node_of_very_many_series_has_them_for_itself() -> None:
    layouts = Layouts()
    one, other = Heard("kitayama-03", layouts.empty), Heard("minamiyama-01", layouts.empty)
    for number in range(300):
        for heard in (one, other):
            heard.layout = layouts.grown(heard.layout, (), ("d", f"{number}"))
    one.layout = layouts.grown(one.layout, ["cam-1"], ("d", "more"))
    one.keep(("d", "more"), (5, 0, 6, 0.0))
    assert one.last(("d", "more")) == (5, 0, 6, 0.0)
    assert other.last(("d", "more")) is None
    assert "cam-1" not in other.layout.devices
