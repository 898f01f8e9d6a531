"""Each rule as a table: what it says of a sequence of facts. And of all of them: nothing makes them raise or grow."""

import itertools
import json
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge.contract.events import EVENTS
from edge.contract.metrics import METRICS
from gateway.rules import Fact, Memory, Rule, RuleConfig, Verdict, build_rule

S = 1_000_000
T0 = 1_780_434_720 * S
ADAPTER: TypeAdapter[RuleConfig] = TypeAdapter(RuleConfig)


def rule(**config: Any) -> Rule:
    return build_rule(ADAPTER.validate_python(config))


def fact(name: str, at_s: float, value: float = 0, *, late: bool = False, superseded: bool = False, heard_s: float = -1) -> Fact:
    """`at_s`: when it was true; heard at once where `heard_s` is not given."""
    received_us = T0 + int((at_s if heard_s < 0 else heard_s) * S)
    return Fact("n", "d", name, value, T0 + int(at_s * S), received_us, late, f"e:{round(at_s)}", superseded)


def levels(one: Rule, *facts: Fact) -> list[str | None]:
    memory: Memory = {}
    return [verdict.level if (verdict := one.on_fact(memory, each, each.received_us)) else None for each in facts]


# ---- occurrence -----------------------------------------------------------------------------------------

TRAP = {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset"}


def test_occurrence_fires_at_the_event_and_ends_with_its_end() -> None:
    assert levels(rule(**TRAP), fact("trap_sprung", 1), fact("trap_reset", 2), fact("trap_sprung", 3)) == [
        "firing",
        "ok",
        "firing",
    ]


def test_a_late_event_that_a_later_fact_has_overtaken_does_not_fire() -> None:
    assert levels(rule(**TRAP), fact("trap_sprung", 1, late=True, superseded=True)) == [None]
    assert levels(rule(**TRAP), fact("trap_sprung", 1, late=True)) == ["firing"]
    assert levels(rule(**TRAP), fact("trap_sprung", 1, superseded=True)) == ["firing"], "what came in time rings"


@pytest.mark.parametrize("last", ["sprung", "reset"])
def test_the_order_of_arrival_does_not_decide_how_a_trap_stands(last: str) -> None:
    """Sprung and reset twice each, arriving in every order: it fires in the end if, and only if, it was sprung last."""
    story = [("trap_sprung", 1), ("trap_reset", 2), ("trap_sprung", 3), ("trap_reset", 4)]
    story = story if last == "reset" else [*story[:-1], ("trap_sprung", 5)]
    for order in itertools.permutations(story):
        memory: Memory = {}
        one, level = rule(**TRAP), "ok"
        for name, at_s in order:
            known = order[: order.index((name, at_s))]
            superseded = any(other == "trap_reset" and other_s > at_s for other, other_s in known)
            if verdict := one.on_fact(memory, fact(name, at_s, late=True, superseded=superseded, heard_s=9), T0):
                level = verdict.level
        assert level == ("ok" if last == "reset" else "firing"), order


def test_the_opening_is_the_event_itself_so_that_it_can_never_alert_twice() -> None:
    memory: Memory = {}
    verdict = rule(**TRAP).on_fact(memory, fact("trap_sprung", 1, late=True), T0 + 99 * S)
    assert verdict == Verdict("firing", T0 + S, "e:1", late=True, reason="trap_sprung")


def test_without_an_end_events_that_follow_each_other_are_one_thing_and_a_quiet_time_ends_it() -> None:
    one, memory = rule(type="occurrence", event="media_captured", hold="10m"), dict[str, Any]()
    said = [one.on_fact(memory, fact("media_captured", minute * 60), T0) for minute in (0, 5, 14)]
    assert [levels_of(verdict) for verdict in said] == ["firing", None, None]
    assert one.on_tick(memory, T0 + 23 * 60 * S, T0) is None
    assert levels_of(one.on_tick(memory, T0 + 24 * 60 * S, T0)) == "ok"
    assert one.on_tick(memory, T0 + 99 * 60 * S, T0) is None
    again = one.on_fact(memory, fact("media_captured", 3600), T0)
    assert again is not None
    assert (again.level, again.opening) == ("firing", "e:3600")


def test_a_second_event_before_its_end_is_another_opening() -> None:
    one, memory = rule(**TRAP), dict[str, Any]()
    said = [one.on_fact(memory, fact("trap_sprung", at_s), T0) for at_s in (1, 5, 3)]
    assert [verdict and verdict.opening for verdict in said] == ["e:1", "e:5", None]


# ---- threshold ------------------------------------------------------------------------------------------


def battery(*values: float, **config: Any) -> list[str | None]:
    one = rule(type="threshold", metric="battery_voltage", **config)
    return levels(one, *(fact("battery_voltage", i, value) for i, value in enumerate(values)))


@pytest.mark.parametrize(
    ("config", "values", "expected"),
    [
        ({"below": 3.4}, [3.5, 3.4, 3.39, 3.4, 3.39], [None, None, "firing", "ok", "firing"]),
        ({"below": 3.4, "clear": 3.6}, [3.3, 3.5, 3.59, 3.6, 3.5], ["firing", "firing", "firing", "ok", None]),
        ({"above": 4.3}, [4.3, 4.4, 4.3], [None, "firing", "ok"]),
        ({"above": 4.3, "clear": 4.1}, [4.4, 4.2, 4.1, 4.2], ["firing", "firing", "ok", None]),
        ({"below": 3.4, "for": "2s"}, [3.3, 3.3, 3.3, 3.3, 3.5, 3.3],
         ["pending", "pending", "firing", "firing", "ok", "pending"]),
    ],
)  # fmt: skip
def test_threshold(config: dict[str, Any], values: list[float], expected: list[str | None]) -> None:
    assert battery(*values, **config) == expected


def test_a_pending_threshold_fires_when_its_time_is_over_without_another_reading_and_over_a_restart() -> None:
    one, memory = rule(type="threshold", metric="battery_voltage", below=3.4, **{"for": "10m"}), dict[str, Any]()
    one.on_fact(memory, fact("battery_voltage", 0, 3.3), T0)
    memory = json.loads(json.dumps(memory))
    one = rule(type="threshold", metric="battery_voltage", below=3.4, **{"for": "10m"})
    before, after = one.on_tick(memory, T0 + 599 * S, None), one.on_tick(memory, T0 + 600 * S, None)
    assert (before and before.level, after and after.level) == ("pending", "firing")
    assert after == Verdict("firing", T0, str(T0), reason="battery_voltage 3.3")


def test_an_older_reading_does_not_overrule_a_newer_one() -> None:
    one, memory = rule(type="threshold", metric="battery_voltage", below=3.4), dict[str, Any]()
    one.on_fact(memory, fact("battery_voltage", 10, 3.3), T0 + 20 * S)
    assert one.on_fact(memory, fact("battery_voltage", 9, 4.0, late=True), T0 + 20 * S) is None
    assert "since_us" in memory


def test_a_clock_that_was_wrong_once_does_not_make_a_trap_deaf() -> None:
    """The reset carries a time two hours ahead; the next catch, by the right clock, seems older and is not."""
    one, memory = rule(**TRAP), dict[str, Any]()
    wrong = Fact("n", "d", "trap_reset", 0, T0 + 7200 * S, T0 + 7200 * S, late=False, id="e:2")
    again = Fact("n", "d", "trap_sprung", 0, T0 + 60 * S, T0 + 60 * S, late=False, id="e:3")
    assert levels_of(one.on_fact(memory, fact("trap_sprung", 1), T0)) == "firing"
    assert levels_of(one.on_fact(memory, wrong, T0 + 7200 * S)) == "ok"
    assert levels_of(one.on_fact(memory, again, T0 + 60 * S)) == "firing"


def test_a_catch_under_a_new_epoch_is_newer_than_any_end_of_the_old_one() -> None:
    one, memory = rule(**TRAP), dict[str, Any]()
    one.on_fact(memory, fact("trap_reset", 500), T0 + 500 * S)
    assert levels_of(one.on_fact(memory, fact("trap_sprung", 1)._replace(id="f:1"), T0 + 501 * S)) == "firing"


def test_a_trap_found_sprung_when_its_agent_starts_is_told_once() -> None:
    one, memory = rule(**TRAP), dict[str, Any]()
    found = fact("trap_sprung", 1)._replace(found=True)
    assert levels_of(one.on_fact(memory, found, T0)) == "firing", "nobody knew of it"
    assert one.on_fact(memory, found._replace(id="e:2"), T0) is None, "it was told, and the agent started anew"
    assert levels_of(one.on_fact(memory, fact("trap_reset", 3), T0)) == "ok"
    assert levels_of(one.on_fact(memory, found._replace(id="e:4"), T0)) == "firing"


@pytest.mark.parametrize("kind", ["threshold", "rate"])
def test_a_gateway_clock_that_was_ahead_does_not_make_a_rule_deaf(kind: str) -> None:
    one, memory = rule(type=kind, metric="count_in", above=30), dict[str, Any]()
    one.on_fact(memory, fact("count_in", 7200, 1), T0 + 7200 * S)
    one.on_fact(memory, fact("count_in", 10, 2), T0 + 10 * S)
    assert levels_of(one.on_fact(memory, fact("count_in", 60, 999), T0 + 60 * S)) == "firing"


# ---- absence --------------------------------------------------------------------------------------------

H = 3600
SILENT = {"type": "absence", "of": "heartbeat", "for": "26h"}


def silence(*ticks: tuple[float, float | None]) -> list[str | None]:
    """Heard at 0 h, then ticks at (hour, hour since which we listen); restarts of the process between all of them."""
    memory: Memory = {}
    one = rule(**SILENT)
    one.on_fact(memory, fact("heartbeat", 0), T0)
    said: list[str | None] = []
    for at_h, since_h in ticks:
        memory = json.loads(json.dumps(memory))
        since_us = None if since_h is None else T0 + int(since_h * H * S)
        verdict = one.on_tick(memory, T0 + int(at_h * H * S), since_us)
        said.append(verdict.level if verdict else None)
    return said


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([(25.9, -1), (26, -1)], [None, "firing"]),
        ([(100, None)], [None]),  # nobody listens
        ([(1, -1), (60, 60)], [None, None]),  # away for days: nothing could be heard
        ([(1, -1), (60, 50), (74.9, 50), (75, 50)], [None, None, None, "firing"]),  # 1 h + 25 h
        ([(10, -1), (20, 11), (26.9, 21), (28, 21)], [None, None, None, "firing"]),  # two short gaps of 1 h
    ],
)
def test_absence_counts_the_silence_that_could_have_been_heard(
    ticks: list[tuple[float, float | None]], expected: list[str | None]
) -> None:
    assert silence(*ticks) == expected


def test_a_gateway_that_restarts_every_night_still_notices_a_day_of_silence() -> None:
    ticks = [(night * 12 + hour, night * 12 + 0.1) for night in range(4) for hour in (1, 6, 11.9)]
    assert "firing" in silence(*ticks)


def test_absence_never_speaks_of_what_never_spoke_and_ends_at_the_next_word() -> None:
    one, memory = rule(**SILENT), dict[str, Any]()
    assert one.on_tick(memory, T0 + 99 * H * S, T0) is None
    one.on_fact(memory, fact("heartbeat", 0), T0)
    first = one.on_tick(memory, T0 + 26 * H * S, T0)
    assert first == Verdict("firing", T0, str(T0), reason="no heartbeat")
    assert levels_of(one.on_fact(memory, fact("heartbeat", 27 * H), T0)) == "ok"
    assert one.on_tick(memory, T0 + 28 * H * S, T0) is None
    second = one.on_tick(memory, T0 + 60 * H * S, T0)
    assert second is not None
    assert second.opening != first.opening, "another silence is another alert"


def levels_of(verdict: Verdict | None) -> str | None:
    return verdict.level if verdict else None


def test_a_reading_sent_again_is_no_sign_of_life() -> None:
    """While the series store is down, nodes send the last readings of a dead device again and again."""
    one, memory = rule(**SILENT), dict[str, Any]()
    for at_h in range(30):
        one.on_fact(memory, fact("heartbeat", 0, heard_s=at_h * H), T0 + at_h * H * S)
    assert levels_of(one.on_tick(memory, T0 + 26 * H * S, T0)) == "firing"


# ---- rate -----------------------------------------------------------------------------------------------


def counted(*samples: tuple[float, float], **config: Any) -> list[str | None]:
    one = rule(**{"type": "rate", "metric": "count_in", "above": 30, "per": "60s", "window": "120s", **config})
    heard = accumulate((at_s for at_s, _ in samples), max)
    return levels(one, *(fact("count_in", at_s, value, heard_s=at) for (at_s, value), at in zip(samples, heard, strict=True)))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, 0), (60, 30), (120, 61)], ["ok", "ok", "firing"]),
        ([(0, 0), (60, 90), (120, 90), (240, 90)], ["ok", "firing", "firing", "ok"]),
        ([(0, 5000), (60, 10), (120, 20)], ["ok", "ok", "ok"]),  # the counter restarted: no change
        ([(0, 0), (60, 60), (70, 0), (130, 61)], ["ok", "firing", "ok", "firing"]),
        ([(0, 0), (0, 999), (-5, 999)], ["ok", None, None]),
        ([(0, 0), (500, 1000)], ["ok", "ok"]),  # too far apart to be measured
    ],
)
def test_rate(samples: list[tuple[float, float]], expected: list[str | None]) -> None:
    assert counted(*samples) == expected


def test_a_gauge_has_no_restarts() -> None:
    one = rule(type="rate", metric="tags_near", above=1, per="60s", window="120s")
    assert levels(one, fact("tags_near", 0, 9), fact("tags_near", 30, 2), fact("tags_near", 60, 14)) == ["ok", "ok", "firing"]


def test_a_rate_ends_when_nothing_is_counted_any_more() -> None:
    one, memory = rule(type="rate", metric="count_in", above=1, per="60s", window="60s"), dict[str, Any]()
    one.on_fact(memory, fact("count_in", 0, 0), T0)
    one.on_fact(memory, fact("count_in", 30, 50), T0)
    assert one.on_tick(memory, T0 + 60 * S, T0) is None
    assert levels_of(one.on_tick(memory, T0 + 91 * S, T0)) == "ok"
    assert one.on_tick(memory, T0 + 200 * S, T0) is None


# ---- all of them ----------------------------------------------------------------------------------------

ALL = [
    TRAP, {"type": "occurrence", "event": "media_captured"}, {"type": "threshold", "metric": "battery_voltage", "below": 3.4},
    {"type": "threshold", "metric": "count_in", "above": 10, "clear": 5, "for": "1m"}, SILENT,
    {"type": "absence", "of": "trap_sprung", "for": "1s"}, {"type": "rate", "metric": "count_in", "above": 30},
]  # fmt: skip
MOMENTS = st.integers(T0 - 2**40, T0 + 2**40)
FACTS = st.builds(
    Fact, st.just("n"), st.just("d"), st.sampled_from([*EVENTS, *METRICS]), st.floats(allow_nan=False, allow_infinity=False),
    MOMENTS, MOMENTS, st.booleans(), st.builds("{}:{}".format, st.sampled_from("ab"), st.integers(1, 9)), st.booleans(),
)  # fmt: skip


@given(st.sampled_from(ALL), st.lists(st.one_of(FACTS, st.tuples(MOMENTS, st.none() | MOMENTS)), max_size=40))
def test_no_sequence_of_facts_and_ticks_makes_a_rule_raise(config: dict[str, Any], moments: list[Any]) -> None:
    one, memory = rule(**config), dict[str, Any]()
    for moment in moments:
        if isinstance(moment, Fact):
            if moment.name in one.events | one.metrics:
                one.on_fact(memory, moment, moment.received_us)
        else:
            one.on_tick(memory, *moment)
        memory = json.loads(json.dumps(memory, allow_nan=False))


@pytest.mark.parametrize("config", ALL, ids=str)
def test_what_a_rule_remembers_does_not_grow(config: dict[str, Any]) -> None:
    one, memory = rule(**config), dict[str, Any]()
    names = sorted(one.events | one.metrics)
    for i in range(5000):
        one.on_fact(memory, fact(names[i % len(names)], i * 0.37, i % 17), T0)
    assert len(json.dumps(memory)) < 10_000


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"type": "occurrence", "event": "trap_spring"}, "there are: "),
        ({"type": "threshold", "metric": "battery", "below": 3}, "there are: "),
        ({"type": "threshold", "metric": "battery_voltage"}, "either above or below"),
        ({"type": "threshold", "metric": "battery_voltage", "above": 3, "below": 2}, "either above or below"),
        ({"type": "threshold", "metric": "battery_voltage", "above": 3, "clear": 4}, "quiet side"),
        ({"type": "threshold", "metric": "battery_voltage", "above": float("nan")}, "finite"),
        ({"type": "absence", "of": "heartbeat", "for": "26 hours"}, "90s, 10m, 26h or 2d"),
        ({"type": "absence", "of": "heartbeat", "for": "0s"}, "greater than or equal to 1"),
        ({"type": "rate", "metric": "count_in", "above": 1, "window": "0s"}, "greater than or equal to 1"),
        ({"type": "rate", "metric": "count_in", "above": 1, "windw": "5s"}, "not permitted"),
        ({"type": "telepathy"}, "does not match any"),
    ],
)
def test_a_rule_that_could_never_work_is_refused(config: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        rule(**config)
