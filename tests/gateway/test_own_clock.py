"""The gateway's clock is set back: nobody waits until it is again as late as it was, and the office hears of it once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.alerting.escalation import Memory, Told
from gateway.clock import HOLD_US, LEAP_US, SAID_US, OwnClock, behind_us, may_forget
from gateway.state import State, open_state
from gateway.state.tables import notifications, pages
from tests.gateway.town import HOUR_US, MINUTE_US, NOW_US, SECOND_US


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


class Said:
    def __init__(self) -> None:
        self.levels: list[tuple[str, str]] = []

    def __call__(self, part: str, level: str, reason: str = "", facts: Any = None, opening: str = "") -> None:
        assert part == "clock"
        assert reason
        assert facts["by_us"] > 0
        if (level, opening) not in self.levels:
            self.levels.append((level, opening))


def message(state: State, id_: str, rank: int, created_us: int, due_us: int, attempts: int = 0) -> None:
    with state.write() as connection:
        connection.execute(
            insert(notifications).values(
                id=id_, kind="alert", contact="somebody", channel="line", state="queued", severity_rank=rank, body="{}",
                created_us=created_us, due_us=due_us, failover_us=due_us + MINUTE_US, attempts=attempts,
            )
        )  # fmt: skip


def due(state: State) -> dict[str, tuple[int, int]]:
    with state.read() as connection:
        return {row.id: (row.due_us, row.failover_us) for row in connection.execute(select(notifications))}


def test_what_was_to_go_at_once_goes_now_and_what_waits_for_a_time_of_day_waits(state: State) -> None:
    clock = OwnClock(state, Said())
    clock.run(NOW_US)
    morning_us = NOW_US + 9 * HOUR_US
    message(state, "critical", 0, NOW_US, NOW_US)
    message(state, "at-once", 1, NOW_US, NOW_US)
    message(state, "tried", 1, NOW_US - 5 * HOUR_US, NOW_US + MINUTE_US, attempts=3)
    message(state, "morning", 1, NOW_US, morning_us)
    back_us = NOW_US - 3 * HOUR_US
    clock.run(back_us)
    now = (back_us, back_us + MINUTE_US)
    assert due(state) == {"critical": now, "at-once": now, "tried": now, "morning": (morning_us, morning_us + MINUTE_US)}


def test_a_page_asks_on_by_the_clock_as_it_is_now(state: State) -> None:
    clock = OwnClock(state, Said())
    clock.run(NOW_US)
    memory = Memory(begun_us=NOW_US, told={"tanaka": Told(us=NOW_US)}, waiting={"suzuki": NOW_US + HOUR_US})
    with state.write() as connection:
        for id_, opened_us in (("young", NOW_US), ("closed", NOW_US)):
            connection.execute(
                insert(pages).values(
                    id=id_, route="main", group_key=id_, severity="critical", kind="trap", needed=1, step=1, opened_us=opened_us,
                    state="closed" if id_ == "closed" else "asking", stepped_us=NOW_US, due_us=NOW_US + 10 * MINUTE_US,
                    changed=False, memory=memory.model_dump_json(exclude_defaults=True), version=4,
                )
            )  # fmt: skip
    back_us = NOW_US - 24 * HOUR_US
    clock.run(back_us)
    with state.read() as connection:
        rows = {row.id: row for row in connection.execute(select(pages))}
    young = rows["young"]
    assert (young.opened_us, young.stepped_us, young.changed, young.version) == (back_us, back_us, True, 5)
    after = Memory.model_validate_json(young.memory)
    assert (after.begun_us, after.told["tanaka"].us) == (back_us, back_us)
    assert after.waiting == memory.waiting, "quiet hours end by the clock on the wall"
    assert rows["closed"].version == 4


def test_it_is_said_once_for_a_day_also_over_a_restart(state: State, caplog: pytest.LogCaptureFixture) -> None:
    OwnClock(state, Said()).run(NOW_US)
    back_us = NOW_US - HOUR_US
    assert behind_us(state, back_us) == HOUR_US
    said = Said()
    started = OwnClock(state, said)
    for n in range(3):
        started.run(back_us + n * SECOND_US)
    assert said.levels == [("firing", str(back_us))]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "60 min" in caplog.text
    assert behind_us(state, back_us) == 0, "it was dealt with"
    again = Said()
    clock = OwnClock(state, again)
    clock.run(back_us + HOUR_US)
    clock.run(back_us + SAID_US)
    assert again.levels == [("firing", str(back_us)), ("ok", str(back_us))]


def test_a_time_server_s_small_corrections_are_nobody_s_business(state: State) -> None:
    said = Said()
    clock = OwnClock(state, said)
    message(state, "critical", 0, NOW_US, NOW_US)
    for at_us in (NOW_US, NOW_US - 4 * MINUTE_US, NOW_US, NOW_US + HOUR_US):
        clock.run(at_us)
    assert said.levels == []
    assert due(state)["critical"][0] == NOW_US


def test_a_clock_that_leaps_far_ahead_is_said_and_nothing_is_forgotten_for_a_day(state: State) -> None:
    said = Said()
    clock = OwnClock(state, said)
    clock.run(NOW_US)
    assert may_forget(state, NOW_US)
    leapt_us = NOW_US + LEAP_US + SECOND_US
    clock.run(leapt_us)
    assert said.levels == [("firing", str(leapt_us))]
    assert not may_forget(state, leapt_us + HOLD_US - 1)
    clock.run(leapt_us + HOLD_US)
    assert said.levels[-1] == ("ok", str(leapt_us))
    assert may_forget(state, leapt_us + HOLD_US), "it stayed there: it is right"


def test_a_leap_that_is_put_right_holds_nothing_up(state: State) -> None:
    clock = OwnClock(state, Said())
    clock.run(NOW_US)
    clock.run(NOW_US + 3650 * 24 * HOUR_US)
    clock.run(NOW_US + MINUTE_US)
    assert may_forget(state, NOW_US + MINUTE_US)


def test_a_night_without_power_is_no_leap(state: State) -> None:
    said = Said()
    OwnClock(state, said).run(NOW_US)
    OwnClock(state, said).run(NOW_US + 12 * HOUR_US)
    assert (said.levels, may_forget(state, NOW_US + 12 * HOUR_US)) == ([], True)
