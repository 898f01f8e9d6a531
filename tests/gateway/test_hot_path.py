"""Where the hot path does by hand what the specification does slowly, both must say the same."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from edge.contract.messages import Ack, Batch, check_batch, encode, reading_fault
from edge.contract.metrics import METRICS
from edge.contract.ranges import Ranges
from gateway.flush import Settled, Work, runs
from gateway.pipeline import _acks
from gateway.state import open_state
from gateway.state.tables import latest, nodes, ranges
from gateway.state.upsert import upsert_rows

EPOCH = "0123456789abcdef"


@given(st.integers(0, 2**53 - 1), st.integers(0, 3600), st.lists(st.integers(1, 2**53 - 1), max_size=5))
def test_an_ack_by_hand_is_byte_for_byte_the_encoded_one(upto: int, wait_s: int, seqs: list[int]) -> None:
    durable = Ranges([(1, upto)] if upto else [])
    [(topic, payload)] = _acks("kitayama-03", EPOCH, Work(Settled(durable, Ranges()), upto, seqs=seqs), wait_s)
    assert topic == "satomori/v1/29/kitayama-03/down/ack"
    assert payload == encode(Ack(epoch=EPOCH, upto=upto, wait_s=wait_s))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8))), st.integers(1, 80), st.integers(0, 10))
def test_ranges_meet_what_they_share_a_number_with(parts: list[tuple[int, int]], low: int, width: int) -> None:
    held = Ranges((start, start + length) for start, length in parts)
    assert held.meets(low, low + width) == any(seq in held for seq in range(low, low + width + 1))


@given(st.lists(st.integers(1, 30)))
def test_runs_hold_the_numbers_in_their_order(seqs: list[int]) -> None:
    found = list(runs(seqs))
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
