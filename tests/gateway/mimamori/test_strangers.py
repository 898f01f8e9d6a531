"""Tags that nobody is enrolled for: gone before they are stored, and never sent twice for that."""

from pathlib import Path
from typing import Any

import pytest

from gateway.state import tables
from tests.gateway.town import Town, batch, covered, event

OURS, THEIRS = "ibeacon:0f:1:2", "ibeacon:0f:9:9"


def seen(seq: int, tag: str) -> dict[str, Any]:
    return event(seq, type_="tag_seen", device="tags", class_="sighting", tag=tag, rssi=-60, frames=5)


@pytest.fixture
def town(tmp_path: Path) -> Any:
    with Town(tmp_path, rules={}) as town:
        town.ours = {OURS}
        yield town


def tags(town: Town) -> list[int]:
    return town.seqs()


def test_a_strangers_sighting_is_acknowledged_and_not_stored(town: Town) -> None:
    acks = town.process(batch(events=[seen(1, THEIRS), seen(2, OURS), seen(3, THEIRS)]))
    assert tags(town) == [2]
    assert all(seq in covered(acks) for seq in (1, 2, 3))
    assert town.telemetry.strangers._value.get() == 2
    for table in tables.metadata.sorted_tables:
        assert THEIRS not in str(town.rows(table)), table.name


def test_sent_again_it_is_acknowledged_again_and_no_reuse_of_a_number(town: Town) -> None:
    sent = batch(events=[seen(1, THEIRS)])
    town.process(sent)
    town.restart()
    assert 1 in covered(town.process(sent))
    assert town.reasons() == []


def test_sent_again_after_it_was_enrolled_it_stays_dropped_and_the_next_one_counts(town: Town) -> None:
    sent = batch(events=[seen(1, THEIRS)])
    town.process(sent)
    town.ours = {OURS, THEIRS}
    assert 1 in covered(town.process(sent))
    town.process(batch(events=[seen(2, THEIRS)]))
    assert tags(town) == [2]
    assert town.reasons() == []


def test_a_number_that_was_an_event_is_still_not_to_be_used_again(town: Town) -> None:
    town.process(batch(events=[event(1)]))
    town.process(batch(events=[seen(1, THEIRS)]))
    assert len(town.reasons()) == 1
    for table in tables.metadata.sorted_tables:
        assert THEIRS not in str(town.rows(table)), table.name
