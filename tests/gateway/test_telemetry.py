"""`/metrics` as whoever keeps a gateway alive reads it: what each stage did, and nothing of anybody."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from gateway.chores import Chore, Chores
from gateway.feed import Feed
from gateway.inbox import Arrival, Inbox
from gateway.pipeline import Message
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry
from gateway.upgrade import revisions
from tests.gateway.scraped import Shown
from tests.gateway.town import MINUTE_US, NOW_US, SECOND_US, Town, batch, event, locked, reading

# --- From the broker to the alert -------------------------------------------------------------------


def test_a_group_of_messages_is_counted_in_each_stage_that_it_passes(town: Town) -> None:
    messages = [
        batch(events=[event(1)], readings=[reading(2), reading(3, dt=2000)], lost=[(4, 6, "outbox full")]),
        batch(events=[event(1)]),
        batch(readings=[reading(7, metric="nonsense")]),
        Message("satomori/v1/29/kitayama-03/up/live", b"no JSON"),
    ]
    town.tick()  # what an earlier run may have left is judged
    before = Shown(town.telemetry)
    town.process(*messages)
    shown = Shown(town.telemetry)
    assert shown("messages_total") == 4
    assert shown("message_bytes_total") == sum(len(one.payload) for one in messages)
    assert (shown("group_messages_count"), shown("group_messages_sum")) == (1, 4)
    assert {of: shown("records_total", of) for of in ("event", "reading")} == {"event": 1, "reading": 2}
    assert {of: shown("events_total", of) for of in ("alarm", "evidence", "sighting")} == {
        "alarm": 1,
        "evidence": 0,
        "sighting": 0,
    }
    assert shown("duplicates_total") == 1
    assert shown("lost_total") == 3
    assert {of: shown("quarantined_total", of) for of in ("message", "record", "reused", "store", "broke")} == {
        "message": 1, "record": 1, "reused": 0, "store": 0, "broke": 0,
    }  # fmt: skip
    for stage in ("facts_commit", "judge", "judge_lag", "store_write", "flush"):
        assert shown(f"{stage}_seconds_count") - before(f"{stage}_seconds_count") == 1, stage
    assert (shown("store_points_total"), shown("stored_timestamp_seconds")) == (2, NOW_US / 1e6)
    assert shown("alerts_total", "trap") == 1


def test_what_is_refused_says_where(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.process(batch(events=[event(1)]))
    town.process(batch(events=[event(1, type_="trap_reset")]))
    town.store.refuses = lambda point: point[2] == 0.0
    town.process(batch(readings=[reading(2, value=0.0), reading(3, dt=2000)]))

    def breaks(connection: Connection, rows: Sequence[Any]) -> None:
        if any(row["device"] == "trap-12" for row in rows):
            raise RuntimeError("of the test")

    monkeypatch.setattr("gateway.pipeline.commit_pictures", breaks)
    town.process(batch(events=[event(4, device="trap-12")]))
    shown = Shown(town.telemetry)
    assert [shown("quarantined_total", of) for of in ("message", "record", "reused", "store", "broke")] == [0, 0, 1, 1, 1]
    assert shown("store_errors_total", "refused") >= 1
    assert shown("store_errors_total", "down") == 0
    assert sum(shown("quarantined_total", of) for of in ("reused", "store", "broke")) == len(town.reasons())


def test_a_store_that_is_down_is_counted_and_nothing_is_called_stored(town: Town) -> None:
    town.store.plugged = False
    town.process(batch(readings=[reading(1)]))
    shown = Shown(town.telemetry)
    assert (shown("store_down"), shown("store_errors_total", "down")) == (1, 1)
    assert (shown("store_points_total"), shown("stored_timestamp_seconds"), shown("records_total", "reading")) == (0, 0, 0)


def test_how_long_an_event_waited_to_be_judged_counts_the_time_that_nobody_could(town: Town) -> None:
    """The facts are committed, the judge fails; a minute later it can again."""
    town.steps.fail_at, town.steps.error = 3, locked()
    with pytest.raises(type(locked())):
        town.process(batch(events=[event(1)]))
    assert len(town.seqs()) == 1
    town.steps.fail_at = None
    town.later(MINUTE_US)
    town.tick()
    shown = Shown(town.telemetry)
    assert town.alerts() == [("sprung", "firing")]
    assert 60 <= shown("judge_lag_seconds_sum") < 65


def test_open_alerts_are_counted_as_they_stand_after_each_second(town: Town) -> None:
    town.process(batch(events=[event(1), event(2, device="trap-12")]))
    town.tick()
    assert Shown(town.telemetry)("alerts_open", "firing", "critical") == 2
    town.process(batch(events=[event(3, type_="trap_reset", dt=SECOND_US)]))
    town.later(SECOND_US)
    town.tick()
    shown = Shown(town.telemetry)
    assert shown("alerts_open", "firing", "critical") == 1
    assert sum(shown.samples["alerts_open"].values()) == 1
    assert len(shown.samples["alerts_open"]) == 5 * 3, "those that there are none of are 0, not absent"
    assert shown("turned_timestamp_seconds", "rules") == shown("turned_timestamp_seconds", "paging") == town.now_us / 1e6
    assert shown("tick_seconds_count", "rules") == shown("tick_seconds_count", "paging") == 2


# --- What happens beside ----------------------------------------------------------------------------


def test_of_a_chore_stands_when_it_last_ended_well_and_what_it_took() -> None:
    telemetry, works = Telemetry(), True

    def run(_: int) -> None:
        if not works:
            raise RuntimeError("of the test")

    chores = Chores([Chore("keeping", 10, run)], telemetry, lambda: NOW_US)
    chores.step(NOW_US)
    works = False
    chores.step(NOW_US + MINUTE_US)
    shown = Shown(telemetry)
    assert shown("chore_last_success_timestamp_seconds", "keeping") == NOW_US / 1e6
    assert (shown("chore_seconds_count", "keeping"), shown("chore_errors_total", "keeping")) == (2, 1)
    assert shown("turned_timestamp_seconds", "chores") == (NOW_US + MINUTE_US) / 1e6


def test_how_long_an_answer_has_waited(tmp_path: Path) -> None:
    telemetry, state = Telemetry(), open_state(f"sqlite:///{tmp_path / 'state.db'}")

    def fail(*_: object) -> None:
        raise RuntimeError("of the test")

    inbox = Inbox(state, {"line": fail}, telemetry)
    inbox.keep("line", [Arrival("1", {}, NOW_US)], NOW_US)
    inbox.step(NOW_US + 90 * SECOND_US)
    assert Shown(telemetry)("inbox_oldest_seconds") == 90
    inbox.close()
    state.close()


def test_who_is_too_slow_for_the_live_stream_is_counted_with_what_is_dropped() -> None:
    telemetry = Telemetry()
    feed = Feed(queue_limit=3, dropped=telemetry.unheard.inc)

    async def listen() -> None:
        with feed.listen():
            for _ in range(4):
                feed.say("event", {})

    asyncio.run(listen())
    assert Shown(telemetry)("stream_dropped_total") == 4


def test_the_state_database_tells_its_size_and_what_a_transaction_took(tmp_path: Path) -> None:
    telemetry, state = Telemetry(), open_state(f"sqlite:///{tmp_path / 'state.db'}")
    state.wrote = telemetry.state_seconds.observe
    telemetry.state_bytes.set_function(state.size_bytes)
    for one in (state, state.guarded(lambda _: None)):
        with one.write() as connection:
            connection.execute(insert(tables.cursors), {"name": f"of {id(one)}", "value": 1})
    shown = Shown(telemetry)
    assert shown("state_write_seconds_count") == 2
    assert shown("state_bytes") >= (tmp_path / "state.db").stat().st_size
    assert state.schema() == revisions()[-1]
    state.close()


def test_a_size_that_nobody_can_say_is_no_number_and_breaks_no_scrape(tmp_path: Path) -> None:
    class Unreadable(State):
        @property
        def is_shared(self) -> bool:
            return True  # and then it is asked as PostgreSQL is, which this database does not understand

    telemetry, state = Telemetry(), open_state(f"sqlite:///{tmp_path / 'state.db'}")
    telemetry.state_bytes.set_function(Unreadable(state._engine).size_bytes)
    shown = Shown(telemetry)
    assert shown("state_bytes") != shown("state_bytes")
    assert shown("messages_total") == 0
    state.close()


def test_the_process_itself_and_faults_that_never_were_are_there_from_the_start() -> None:
    shown = Shown(Telemetry())
    assert shown("process_resident_memory_bytes") > 1e6
    assert shown("process_cpu_seconds_total") > 0
    for name, label in (("quarantined_total", "broke"), ("store_errors_total", "down"), ("events_total", "alarm")):
        assert shown.samples[name][label,] == 0, "an increase from nothing is none to Prometheus"


# --- What it may cost -------------------------------------------------------------------------------


def test_a_thousand_records_cost_as_many_counts_as_ten(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one group: so counting stays below a hundredth of what a group costs, whatever it holds."""
    calls: list[str] = []
    for name, instrument in vars(town.telemetry).items():
        for method in ("inc", "set", "observe", "labels"):
            if callable(real := getattr(instrument, method, None)):
                monkeypatch.setattr(instrument, method, _counted(calls, f"{name}.{method}", real))
    counts = []
    for first, number in ((1, 10), (1001, 1000)):
        calls.clear()
        readings = [reading(first + n, dt=n * 2000) for n in range(number)]
        town.process(*(batch(readings[at : at + 10]) for at in range(0, number, 10)))
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 40


def _counted(calls: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        calls.append(name)
        return real(*args, **more)

    return call
