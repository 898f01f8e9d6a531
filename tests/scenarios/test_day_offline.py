"""A day's backlog goes over a thin link while the town lives on: no live alarm waits behind it, and nothing gets lost.

The real outbox and lanes, the real pipeline; what stands in is time and the link, which has so many bytes a second.
"""

import random
from contextlib import closing
from pathlib import Path

import pytest

from edge.clock import Instant
from edge.contract.events import TrapReset, TrapSprung
from edge.contract.messages import Ack
from edge.contract.topics import Topic, topic_for
from edge.lanes import Lanes
from edge.outbox import Outbox
from edge.records import Happened, Reading
from gateway.pipeline import Message
from gateway.state import tables
from tests.gateway.town import NODE, NOW_US, Town

DAY_S, RECORDS = 24 * 3600, 36_000  # 25 readings a minute
BOOTED_US = NOW_US - 2 * DAY_S * 1_000_000
DELAY_US = 60_000  # one way
EVERY_US = 500_000  # a live event each half second: each is one that must not wait


class ThinLink:
    """One queue up, of so many bytes a second; the way down is free. `now_us` is UTC, and moved by `run` only."""

    def __init__(self, outbox: Outbox, town: Town, bytes_s: int) -> None:
        self.outbox, self.town, self.bytes_s = outbox, town, bytes_s
        self.lanes = Lanes(outbox, random.Random(1))
        self.now_us = NOW_US
        self.free_us = NOW_US  # when the last byte that was handed over has left
        self.up: list[tuple[int, Message]] = []
        self.down: list[tuple[int, Ack]] = []
        self.committed: dict[int, int] = {}
        self.took_s: list[float] = []

    @property
    def now(self) -> Instant:
        return Instant(self.now_us, self.now_us - BOOTED_US)

    def happen(self) -> None:
        """A trap springs, or is reset."""
        number = len(self.committed)
        event = (TrapReset if number % 2 else TrapSprung)(device=f"trap-{number // 2 % 10}")
        self.committed[self.outbox.next_seq] = self.now_us
        self.outbox.put([Happened(self.now, event)], "sync")

    def run(self) -> None:
        """Until everything is acknowledged."""
        self.lanes.connected()
        next_us = self.now_us
        while self.outbox.waiting:
            if self.now_us >= next_us:
                self.happen()
                next_us += EVERY_US
            for channel, payload in self.lanes.poll(self.now):
                self.free_us = max(self.free_us, self.now_us) + len(payload) * 1_000_000 // self.bytes_s
                self.up.append((self.free_us + DELAY_US, Message(topic_for(Topic(NODE, channel)), payload)))
            due = [at_us for at_us, _ in (*self.up[:1], *self.down[:1])]
            if (due_us := self.lanes.next_due_us()) is not None:
                due.append(due_us + BOOTED_US)
            self.now_us = max(min([*due, next_us]), self.now_us + 1)
            self.deliver()

    def deliver(self) -> None:
        while self.up and self.up[0][0] <= self.now_us:
            _, message = self.up.pop(0)
            self.town.now_us = self.now_us
            for ack in self.town.process(message):
                self.down.append((self.now_us + DELAY_US, ack))
            for name, row in self.town.said:
                if name == "event":
                    self.took_s.append((self.now_us - self.committed[row["seq"]]) / 1e6)
            self.town.said.clear()
        while self.down and self.down[0][0] <= self.now_us:
            _, ack = self.down.pop(0)
            self.lanes.on_ack(ack, self.now)


@pytest.mark.parametrize(("bytes_s", "within_s"), [(32_000, 150), (1_000_000, 10)], ids=["256 kbit/s", "8 Mbit/s"])
def test_while_a_day_of_backlog_drains_99_of_100_live_alarms_are_there_within_a_second(
    tmp_path: Path, bytes_s: int, within_s: float
) -> None:
    (tmp_path / "gateway").mkdir()
    with Town(tmp_path / "gateway") as town:
        with closing(Outbox(tmp_path / "outbox.db", machine="pi-1", boot="b" * 16)) as outbox:
            for start in range(0, RECORDS, 500):
                at_us = [(start + n) * DAY_S * 1_000_000 // RECORDS - DAY_S * 1_000_000 for n in range(500)]
                outbox.put(
                    [
                        Reading(Instant(NOW_US + us, NOW_US + us - BOOTED_US), "counter-01", "count_in", float(us % 1000))
                        for us in at_us
                    ],
                    "sync",
                )
            link = ThinLink(outbox, town, bytes_s)
            link.run()
            assert outbox.lost(1) == []
        took_s = sorted(link.took_s)
        assert len(took_s) == len(link.committed) >= 5
        assert took_s[int(len(took_s) * 0.99)] < 1.0
        assert took_s[len(took_s) // 2] < 0.6
        assert len(town.points("counter-01", "count_in")) == RECORDS
        assert len(town.rows(tables.events)) == len(link.committed)
        # And the link is used: the bytes alone take half of it.
        assert (link.now_us - NOW_US) / 1e6 < within_s
