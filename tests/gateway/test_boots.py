"""When it was: a node without a right clock tells times since its boot, and the gateway finds out when that boot began."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from edge.contract.topics import Channel
from gateway.pipeline import Message
from gateway.state import tables
from tests.gateway.town import (
    BOOT,
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
    event,
    locked,
    reading,
)

DAY_US = 24 * HOUR_US
ZERO_US = NOW_US - UPTIME_US
"""When the node's boot began, in truth, where the message has just left."""
EARLIER = "a" * 16


def unsync(
    readings: list[Any] | None = None, events: list[Any] | None = None, *, off_us: int, ago_us: int = 0, **more: Any
) -> Message:
    """A batch of what happened so long ago, that leaves now, of a node whose clock is off."""
    return batch(
        readings or [], events or [], clock="unsync", t0=NOW_US + off_us - ago_us, mono0=UPTIME_US - ago_us, sent=NOW_US + off_us,
        sent_mono=UPTIME_US, **more,
    )  # fmt: skip


def synced(seq: int, *, zero: int = ZERO_US, stepped: int = 0, boot: str = BOOT, dt: int = 0) -> dict[str, Any]:
    return {"seq": seq, "dt": dt, "device": "clock", "type": "clock_synced", "class": "alarm", "boot": boot, "zero": zero,
            "stepped": stepped}  # fmt: skip


def times(town: Town) -> dict[int, int]:
    """Of the stored events, by number: when they were, relative to the true now of the first message, in µs."""
    return {row["seq"]: row["time_us"] - NOW_US for row in town.rows(tables.events)}


def zeros(town: Town) -> list[tuple[str, int, bool]]:
    """Of the known boots: how far their zero is from the truth, and whether the node has said it."""
    return [(row["boot"], row["zero_us"] - ZERO_US, row["synced"]) for row in town.rows(tables.boots)]


# ---- before the clock is right --------------------------------------------------------------------------

OFF = pytest.mark.parametrize("off_us", [-30 * DAY_US, YEAR_US, -NOW_US + UPTIME_US], ids=["-30 days", "+1 year", "1970"])


@OFF
def test_what_happened_in_this_boot_is_timed_by_how_long_ago_it_was(town: Town, off_us: int) -> None:
    town.process(unsync([reading(1, 500_000)], [event(2)], off_us=off_us, ago_us=10 * MINUTE_US))
    [row] = town.rows(tables.events)
    assert (row["time_us"] - NOW_US, row["clock_trusted"], row["late"], row["boot"]) == (-10 * MINUTE_US, False, True, BOOT)
    assert [time_ms for time_ms, _ in town.points()] == [(NOW_US - 10 * MINUTE_US + 500_000) // 1000]
    assert zeros(town) == [(BOOT, 0, False)]


@OFF
@pytest.mark.parametrize("clock", ["sync", "unsync"])
def test_a_clock_that_was_set_between_the_event_and_its_sending_does_not_move_it(town: Town, off_us: int, clock: str) -> None:
    """The message leaves with the right time; what it holds was stamped before that."""
    town.process(
        batch(events=[event(1)], clock=clock, t0=NOW_US + off_us - MINUTE_US, mono0=UPTIME_US - MINUTE_US, sent=NOW_US,
              sent_mono=UPTIME_US)
    )  # fmt: skip
    assert times(town) == {1: -MINUTE_US}


def test_a_step_back_within_minutes_is_no_reason_not_to_believe_a_clock(town: Town) -> None:
    town.process(batch(events=[event(1)], t0=NOW_US + 2 * MINUTE_US, mono0=UPTIME_US - SECOND_US, sent=NOW_US,
                       sent_mono=UPTIME_US))  # fmt: skip
    assert [row["clock_trusted"] for row in town.rows(tables.events)] == [True]


def test_a_message_that_waited_in_the_broker_counts_as_just_sent_until_the_node_says_better(town: Town) -> None:
    """Nobody can know how long it waited. Too late is the better mistake: the trap rings, and not as something long over."""
    waited_us = 2 * HOUR_US
    off_us = -YEAR_US - waited_us  # when it left, the node's clock was a year slow
    town.process(unsync([], [event(1)], off_us=off_us), away_since_us=NOW_US - 3 * HOUR_US)
    assert (times(town), [row["late"] for row in town.rows(tables.events)]) == ({1: 0}, [False])
    town.later(MINUTE_US)
    true_zero_us = ZERO_US - waited_us
    town.process(batch(events=[synced(2, zero=true_zero_us, stepped=YEAR_US)], clock="unsync", t0=town.now_us - SECOND_US,
                       mono0=town.now_us - SECOND_US - true_zero_us, sent=town.now_us,
                       sent_mono=town.now_us - true_zero_us))  # fmt: skip
    assert times(town)[1] == -waited_us
    assert [row["late"] for row in town.rows(tables.events)] == [True, False]


def test_a_message_that_only_declares_losses_says_nothing_of_the_boot(town: Town) -> None:
    town.process(batch([reading(9)]), unsync(lost=[(1, 3, "outbox full")], off_us=-YEAR_US, boot=EARLIER))
    assert [boot for boot, _, _ in zeros(town)] == [BOOT]


# ---- the clock becomes right ----------------------------------------------------------------------------


@OFF
def test_once_the_node_says_when_its_boot_began_everything_of_it_has_its_true_time(town: Town, off_us: int) -> None:
    late_us = 40 * SECOND_US  # the network was slow: the guess is late by so much
    town.now_us += late_us
    town.process(unsync([reading(1)], [event(2)], off_us=off_us, ago_us=10 * MINUTE_US))
    assert times(town) == {2: late_us - 10 * MINUTE_US}
    # At once: one more of the old clock, the word itself, and what was read before that and comes after.
    town.process(unsync([], [event(3, type_="trap_reset"), synced(4, stepped=-off_us)], off_us=off_us, ago_us=MINUTE_US))
    town.process(unsync([reading(5)], [event(6)], off_us=off_us, ago_us=30 * SECOND_US))
    rows = town.rows(tables.events)
    assert times(town) == {2: -10 * MINUTE_US, 3: -MINUTE_US, 4: -MINUTE_US, 6: -30 * SECOND_US}
    assert [row["clock_trusted"] for row in rows] == [True] * 4
    assert [row["node_time_us"] - NOW_US - off_us for row in rows] == [-10 * MINUTE_US, -MINUTE_US, -MINUTE_US, -30 * SECOND_US]
    assert zeros(town) == [(BOOT, 0, True)]
    assert town.points()[-1][0] == (NOW_US - 30 * SECOND_US) // 1000


def test_an_event_in_the_same_group_as_the_word_is_retimed_too(town: Town) -> None:
    town.now_us += 10 * SECOND_US
    town.process(unsync([], [event(1)], off_us=-YEAR_US, ago_us=MINUTE_US), unsync([], [synced(2)], off_us=-YEAR_US))
    assert times(town) == {1: -MINUTE_US, 2: 0}


def test_an_event_that_had_counted_from_when_it_was_heard_gets_its_time_from_the_nodes_own_clock(town: Town) -> None:
    """The guess was two hours late, and so would have put the next event into the future."""
    off_us, waited_us = -YEAR_US, 2 * HOUR_US
    town.now_us = NOW_US + waited_us
    town.process(unsync([reading(1)], off_us=off_us), away_since_us=NOW_US)
    town.now_us += MINUTE_US
    sent_us = town.now_us
    for said in (event(2), synced(3, stepped=-off_us)):
        town.process(
            batch(
                events=[said],
                clock="unsync",
                t0=sent_us + off_us - 5 * SECOND_US,
                mono0=sent_us - 5 * SECOND_US - ZERO_US,
                sent=sent_us + off_us,
                sent_mono=sent_us - ZERO_US,
            )
        )
        if said["seq"] == 2:
            assert times(town) == {2: sent_us - NOW_US}
    assert times(town) == dict.fromkeys((2, 3), sent_us - NOW_US - 5 * SECOND_US)


def test_the_first_word_counts_and_other_boots_and_nodes_keep_theirs(town: Town) -> None:
    town.process(unsync([], [event(1)], off_us=-YEAR_US, boot=EARLIER), unsync([], [event(1)], off_us=-YEAR_US, node="other-01"))
    town.later(10 * SECOND_US)
    town.process(unsync([], [event(2), synced(3)], off_us=-YEAR_US))
    town.process(batch(events=[synced(4, zero=ZERO_US - MINUTE_US)], t0=town.now_us, mono0=UPTIME_US + 10 * SECOND_US))
    rows = {(row["node"], row["boot"]): (row["zero_us"] - ZERO_US, row["synced"]) for row in town.rows(tables.boots)}
    assert rows == {(NODE, EARLIER): (0, False), ("other-01", BOOT): (0, False), (NODE, BOOT): (0, True)}


def test_a_word_that_a_later_one_shows_to_be_wrong_is_replaced(town: Town) -> None:
    """A gateway that began a year ahead gave its node that time, and both were set right afterwards."""
    town.now_us = NOW_US + YEAR_US
    town.process(unsync([], [synced(1, zero=ZERO_US + YEAR_US)], off_us=YEAR_US))
    assert zeros(town) == [(BOOT, YEAR_US, True)]
    town.now_us = NOW_US
    town.process(unsync([], [synced(2, stepped=-YEAR_US)], off_us=YEAR_US))
    assert zeros(town) == [(BOOT, 0, True)]
    town.process(unsync([], [event(3)], off_us=YEAR_US, ago_us=MINUTE_US))  # read before, sent after
    assert times(town)[3] == -MINUTE_US


def test_what_people_were_told_stays_as_it_was_told(town: Town) -> None:
    town.now_us += 30 * SECOND_US
    town.process(unsync([], [event(1)], off_us=-YEAR_US, ago_us=MINUTE_US))
    [before] = town.rows(tables.alerts)
    told = town.rows(tables.notifications)
    town.process(unsync([], [synced(2)], off_us=-YEAR_US))
    assert times(town)[1] == -MINUTE_US
    assert (town.rows(tables.alerts), town.rows(tables.notifications)) == ([before], told)


ABSURD = {
    "begun in the future": (NOW_US + HOUR_US, BOOT),
    "a year slow": (ZERO_US - YEAR_US, BOOT),
    "a year fast": (ZERO_US + YEAR_US, BOOT),
    "the largest number": (2**53 - 1, BOOT),
    "zero": (0, BOOT),
    "another boot's": (ZERO_US, EARLIER),
}


@pytest.mark.parametrize(
    ("zero", "boot", "of_an_earlier_boot"),
    [(*said, False) for said in ABSURD.values()] + [(*said, True) for name, said in ABSURD.items() if name != "a year slow"],
    ids=[*ABSURD, *(f"{name}, earlier" for name in ABSURD if name != "a year slow")],
)
def test_a_word_that_cannot_be_true_is_kept_and_not_believed(town: Town, zero: int, boot: str, of_an_earlier_boot: bool) -> None:
    [ack] = town.process(
        batch(events=[event(1), synced(2, zero=zero, boot=boot)], clock="unsync", t0=NOW_US - YEAR_US - MINUTE_US,
              mono0=UPTIME_US - MINUTE_US, sent=NOW_US - YEAR_US, sent_mono=None if of_an_earlier_boot else UPTIME_US)
    )  # fmt: skip
    assert (ack.upto, ack.rejected) == (2, [])
    assert times(town) == {1: -MINUTE_US, 2: -MINUTE_US}
    assert zeros(town) == [(BOOT, 0, False)]


# ---- boots that are over --------------------------------------------------------------------------------

SEASON_US = 120 * DAY_US


@pytest.mark.parametrize("clock", ["sync", "holdover"])
@pytest.mark.parametrize("sent_us", [NOW_US, NOW_US - SEASON_US, NOW_US - YEAR_US], ids=["set since", "as it was", "wrong"])
def test_a_season_in_storage_does_not_make_what_was_right_wrong(town: Town, clock: str, sent_us: int) -> None:
    """Nobody fetched it before the winter. Its clock is wrong when it is switched on in spring; it was right then."""
    then_us = NOW_US - SEASON_US
    town.process(batch([reading(1)], [event(2)], boot=EARLIER, clock=clock, t0=then_us, mono0=9 * HOUR_US, sent=sent_us,
                       sent_mono=None, channel=Channel.BACKLOG))  # fmt: skip
    [row] = town.rows(tables.events)
    assert (row["time_us"], row["clock_trusted"], row["late"]) == (then_us, True, True)
    assert [time_ms for time_ms, _ in town.points()] == [then_us // 1000]


def test_an_earlier_boot_that_was_known_to_lie_is_not_believed_afterwards(town: Town) -> None:
    town.process(batch(events=[event(1)], t0=NOW_US - YEAR_US))  # says sync, a year off: heard live
    town.later(HOUR_US)
    lying_us = NOW_US - YEAR_US + MINUTE_US
    town.process(batch(events=[event(2)], t0=lying_us, mono0=UPTIME_US + MINUTE_US, sent=town.now_us - YEAR_US, sent_mono=None))
    assert times(town) == {1: 0, 2: MINUTE_US}


def test_an_earlier_boot_gets_its_time_from_its_own_word_however_late_that_comes(town: Town) -> None:
    """Its records waited in the outbox while the node booted again; it was set right in the middle."""
    zero_us, wrong_zero_us = NOW_US - 3 * DAY_US, NOW_US - YEAR_US
    word = synced(2, zero=zero_us, stepped=zero_us - wrong_zero_us, boot=EARLIER)
    for mono_us, said in ((10 * MINUTE_US, event(1)), (HOUR_US, word), (20 * MINUTE_US, event(3, type_="trap_reset"))):
        town.process(
            batch(
                events=[said],
                boot=EARLIER,
                clock="unsync",
                t0=wrong_zero_us + mono_us,
                mono0=mono_us,
                sent=NOW_US,
                sent_mono=None,
            )
        )
    assert [row["time_us"] - zero_us for row in town.rows(tables.events)] == [10 * MINUTE_US, HOUR_US, 20 * MINUTE_US]


# ---- whatever happens in between ------------------------------------------------------------------------

OFF_US = -30 * DAY_US
HISTORY = [
    unsync([reading(1)], [event(2)], off_us=OFF_US, ago_us=3 * MINUTE_US),
    unsync([reading(3)], [event(4, type_="trap_reset"), synced(5, stepped=-OFF_US)], off_us=OFF_US, ago_us=2 * MINUTE_US),
    unsync([reading(6)], [event(7)], off_us=OFF_US, ago_us=MINUTE_US),
]


def outcome(town: Town) -> dict[str, Any]:
    return {
        "events": [(row["seq"], row["time_us"], row["clock_trusted"]) for row in town.rows(tables.events)],
        "points": town.points(),
        "boots": zeros(town),
        "alerts": sorted((row["id"], row["state"]) for row in town.rows(tables.alerts)),
    }


@pytest.mark.parametrize("how", ["killed", "database locked"])
def test_interrupted_at_any_step_the_same_times_come_of_it(tmp_path: Path, how: str) -> None:
    with Town(tmp_path) as town:
        for message in HISTORY:
            town.process(message)
        steps, expected = len(town.steps.taken), outcome(town)
    assert [time_us - NOW_US for _, time_us, _ in expected["events"]] == [
        -3 * MINUTE_US, -2 * MINUTE_US, -2 * MINUTE_US, -MINUTE_US
    ]  # fmt: skip
    for step in range(steps):
        (folder := tmp_path / str(step)).mkdir()
        with Town(folder) as town:
            town.steps.fail_at = step
            town.steps.error = Killed() if how == "killed" else locked()
            for message in HISTORY:
                try:
                    town.process(message)
                except (Killed, OperationalError):
                    if how == "killed":
                        town.restart()
                    town.steps.fail_at = None
                    town.process(message)
            assert outcome(town) == expected, f"{how} at step {step}"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True)),
        st.tuples(st.sampled_from(["wait", "restart"]), st.just([])),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.sampled_from([OFF_US, YEAR_US]), st.integers(1, 12))
def test_however_often_it_is_resent_each_record_is_stored_once_and_all_have_their_true_time_in_the_end(
    steps: list[tuple[str, list[int]]], off_us: int, word: int
) -> None:
    """Records are a second apart since boot; any of them may be the one after which the clock is right."""

    def message(town: Town, seqs: list[int]) -> Message:
        sent_us = town.now_us
        events = [
            synced(seq, dt=seq * SECOND_US, stepped=-off_us) if seq == word else event(seq, seq * SECOND_US) for seq in seqs
        ]
        return batch(events=events, clock="unsync", t0=ZERO_US + off_us + UPTIME_US, mono0=UPTIME_US, sent=sent_us + off_us,
                     sent_mono=sent_us - ZERO_US)  # fmt: skip

    with tempfile.TemporaryDirectory() as folder, Town(Path(folder)) as town:
        town.later(MINUTE_US)
        for what, seqs in [*steps, ("send", list(range(1, 13)))]:
            town.later(SECOND_US if what == "send" else 40 * SECOND_US)
            if what == "restart":
                town.restart()
            elif what == "send":
                town.process(message(town, seqs))
        assert (sorted(town.seqs()), town.rows(tables.quarantine)) == (list(range(1, 13)), [])
        assert times(town) == {seq: seq * SECOND_US for seq in range(1, 13)}
        assert zeros(town) == [(BOOT, 0, True)]
