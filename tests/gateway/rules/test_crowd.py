"""crowd and stuck: when an area holds too many, when a shelter fills, when a counter can't be believed."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from gateway.flow.config import AreaConfig
from gateway.rules.crowd import AREA, RECOUNTED, TOWN_MODE, Crowd, CrowdConfig
from gateway.rules.stuck import Stuck, StuckConfig
from gateway.rules.verdict import Fact, Verdict

TOKYO = ZoneInfo("Asia/Tokyo")
EVENING = datetime(2026, 8, 13, 19, tzinfo=TOKYO)
SECOND = 1_000_000
HIROBA = {"label": "朝市広場", "m2": 100, "advice": "南口へ誘導してください。",
          "line": [{"node": "hiroba", "device": "east"}, {"node": "hiroba", "device": "south", "turned": True}]}  # fmt: skip
HALL = {"label": "体育館", "capacity": 100, "shelter": True, "line": [{"node": "hall", "device": "door"}]}


def us(at: datetime) -> int:
    return int(at.timestamp()) * SECOND


class Place:
    """One area as the watch drives it."""

    def __init__(self, area: dict[str, Any], name: str = "place", **config: Any) -> None:
        self.area = AreaConfig(**area)
        self.rule = Crowd(CrowdConfig(type="crowd", **config), {name: self.area}, TOKYO)
        self.memory: dict[str, Any] = {}
        self.subject = (AREA, name)
        self.now_us = us(EVENING)
        self.number = 0

    def fact(self, node: str, device: str, name: str, value: float = 0, body: Any = None) -> Verdict | None:
        self.number += 1
        fact = Fact(node, device, name, value, self.now_us, self.now_us, False, f"e:{self.number}", body=json.dumps(body or {}))
        assert self.subject in self.rule.about(fact)
        found = self.rule.on_fact(self.memory, fact, self.now_us, self.subject)
        self.memory = json.loads(json.dumps(self.memory))
        return found

    def wait(self, seconds: int) -> Verdict | None:
        self.now_us += seconds * SECOND
        return self.rule.on_tick(self.memory, self.now_us, 0, self.subject)

    def until(self, at: datetime) -> Verdict | None:
        return self.wait((us(at) - self.now_us) // SECOND)

    def come(self, total: float) -> Verdict | None:
        return self.fact("hiroba", "east", "count_in", total)


@pytest.fixture
def hiroba() -> Place:
    place = Place(HIROBA)
    place.wait(0)
    place.come(0)
    place.fact("hiroba", "south", "count_in", 0)
    return place


def test_it_fires_where_people_touch_and_says_how_many_how_dense_and_what_helps(hiroba: Place) -> None:
    hiroba.wait(600)
    assert hiroba.come(356) is None
    verdict = hiroba.come(357)
    assert verdict is None  # the same moment again: a total is taken once
    hiroba.wait(1)
    verdict = hiroba.come(357)
    assert verdict is not None
    assert (verdict.level, verdict.facts["inside"], verdict.facts["density"], verdict.facts["level"]) == ("firing", 357, 3.57, 2)
    assert verdict.facts["advice"] == "南口へ誘導してください。"
    assert (verdict.facts["alive"], verdict.facts["lines"]) == (2, 2)


def test_a_line_that_is_turned_counts_the_other_way(hiroba: Place) -> None:
    hiroba.wait(1)
    hiroba.come(100)
    hiroba.fact("hiroba", "south", "count_in", 30)
    assert hiroba.memory["inside"] == 70


def test_a_crowd_at_the_edge_is_one_alert_and_over_only_after_it_was_calm(hiroba: Place) -> None:
    hiroba.wait(600)
    first = hiroba.come(360)
    assert first is not None
    hiroba.wait(1)
    still = hiroba.fact("hiroba", "east", "count_out", 0)
    hiroba.wait(1)
    still = hiroba.fact("hiroba", "east", "count_out", 20)  # 3.4: below the limit, not clearly
    assert still is not None
    assert (still.level, still.opening) == ("firing", first.opening)
    hiroba.wait(1)
    hiroba.fact("hiroba", "east", "count_out", 100)
    still = hiroba.wait(60)
    assert still is not None
    assert still.level == "firing"
    over = hiroba.wait(90)
    assert over is not None
    assert over.level == "ok"


def test_a_higher_level_is_told_anew(hiroba: Place) -> None:
    hiroba.wait(600)
    first = hiroba.come(360)
    hiroba.wait(600)
    worse = hiroba.come(560)
    assert first is not None
    assert worse is not None
    assert worse.opening != first.opening
    assert worse.facts["level"] == 3


def test_a_crowd_that_grows_fast_is_told_before_it_touches(hiroba: Place) -> None:
    found: list[Verdict] = []
    for minute in range(1, 6):
        hiroba.wait(60)
        verdict = hiroba.come(50 * minute)
        found += [verdict] if verdict else []
    assert hiroba.memory["inside"] == 250
    assert [(one.facts["rising"], one.facts["level"]) for one in found[:1]] == [(True, 2)]


def test_what_a_counter_brings_after_it_was_out_of_reach_is_no_rush(hiroba: Place) -> None:
    hiroba.wait(1800)
    assert hiroba.come(250) is None
    assert hiroba.wait(90) is None


def test_an_empty_square_that_fills_is_no_alarm(hiroba: Place) -> None:
    hiroba.wait(60)
    hiroba.come(60)
    hiroba.wait(60)
    assert hiroba.come(120) is None


def test_at_night_nobody_is_there_and_the_drift_is_kept_to_be_shown(hiroba: Place) -> None:
    hiroba.wait(1)
    hiroba.come(40)
    hiroba.until(datetime(2026, 8, 14, 3, 0, 1, tzinfo=TOKYO))
    assert hiroba.memory["inside"] == 0
    assert hiroba.memory["correction"]["reckoned"] == 40
    hiroba.fact("hiroba", "east", "heartbeat")
    hiroba.wait(1)
    hiroba.come(45)
    hiroba.wait(3600)
    assert hiroba.memory["inside"] == 5


def test_the_night_is_once_a_day_also_when_the_clock_turns_back() -> None:
    zone = ZoneInfo("Europe/Berlin")
    area = AreaConfig(label="Platz", m2=100, empty_at="02:30", line=[{"node": "n", "device": "d"}])  # type: ignore[list-item]
    rule = Crowd(CrowdConfig(type="crowd"), {"platz": area}, zone)
    memory: dict[str, Any] = {}
    emptied = []
    now = datetime(2026, 10, 24, 12, tzinfo=zone).timestamp()
    for minute in range(0, 36 * 60, 10):
        rule.on_tick(memory, int(now + minute * 60) * SECOND, 0, (AREA, "platz"))
        emptied.append(memory["emptied_us"])
    assert len(set(emptied)) == 2


def test_a_recount_sets_it_right(hiroba: Place) -> None:
    hiroba.wait(1)
    hiroba.come(200)
    hiroba.wait(1)
    hiroba.fact(AREA, "place", RECOUNTED, body={"counted": 180})
    assert hiroba.memory["inside"] == 180
    assert (hiroba.memory["correction"]["reckoned"], hiroba.memory["correction"]["how"]) == (200, "recount")


def test_a_silent_counter_is_missing_in_the_coverage_and_nothing_becomes_zero(hiroba: Place) -> None:
    hiroba.wait(600)
    verdict = hiroba.come(400)
    assert verdict is not None
    later = hiroba.wait(901)
    assert later is not None
    assert (later.level, later.facts["alive"], later.facts["inside"]) == ("firing", 0, 400)


def test_an_area_that_nobody_ever_counted_says_nothing() -> None:
    place = Place(HIROBA)
    assert place.wait(10) is None
    assert place.fact("hiroba", "east", "heartbeat", 1) is None


def door(place: Place, total: float) -> Verdict | None:
    place.wait(60)
    return place.fact("hall", "door", "count_in", total)


def test_a_shelter_is_judged_by_its_capacity_in_disaster_mode_only() -> None:
    place = Place(HALL)
    door(place, 0)
    assert door(place, 85) is None
    verdict = place.fact("town", "mode", TOWN_MODE, body={"mode": "disaster"})
    assert verdict is not None
    assert (verdict.level, verdict.facts["level"], verdict.facts["share"], verdict.facts["shelter"]) == ("firing", 4, 0.85, True)
    place.fact("town", "mode", TOWN_MODE, body={"mode": "normal"})
    over = place.wait(121)
    assert over is not None
    assert over.level == "ok"


def test_a_shelter_in_use_is_not_emptied_at_night() -> None:
    place = Place(HALL)
    place.wait(0)
    door(place, 0)
    place.fact("town", "mode", TOWN_MODE, body={"mode": "disaster"})
    door(place, 50)
    place.until(datetime(2026, 8, 14, 3, 30, tzinfo=TOKYO))
    assert place.memory["inside"] == 50


def test_a_shelter_without_a_capacity_is_refused() -> None:
    with pytest.raises(ValidationError, match="capacity"):
        AreaConfig.model_validate(HALL | {"capacity": None})


def test_whatever_is_remembered_of_an_area_that_is_gone_harms_nobody() -> None:
    rule = Crowd(CrowdConfig(type="crowd"), {}, TOKYO)
    assert rule.on_tick({}, us(EVENING), 0, (AREA, "gone")) is None


# --- stuck ------------------------------------------------------------------------------------------


def weeks(count: int) -> Iterator[tuple[datetime, int]]:
    """Every hour of so many weeks, and 100 people in each hour of the day, nobody at night."""
    total = 0
    start = datetime(2026, 6, 1, 0, 30, tzinfo=TOKYO)
    for hour in range(count * 7 * 24):
        at = start + timedelta(hours=hour)
        total += 100 if 8 <= at.hour < 20 else 0
        yield at, total


def told(rule: Stuck, memory: dict[str, Any], at: datetime, name: str, value: float) -> Verdict | None:
    return rule.on_fact(memory, Fact("n", "d", name, value, us(at), us(at), False, "e:1"), us(at))


@pytest.fixture
def known() -> tuple[Stuck, dict[str, Any], datetime, int]:
    rule, memory = Stuck(StuckConfig(type="stuck"), TOKYO), dict[str, Any]()
    at, total = EVENING, 0
    for at, total in weeks(4):
        assert told(rule, memory, at, "count_in", total) is None
    return rule, memory, at, total


def test_a_counter_that_is_alive_and_counts_nobody_by_day_is_said_to_be_stuck(
    known: tuple[Stuck, dict[str, Any], datetime, int],
) -> None:
    rule, memory, at, total = known
    fired: list[tuple[int, Verdict]] = []
    for hour in range(1, 14):
        verdict = told(rule, memory, at + timedelta(hours=hour), "heartbeat", 1)
        fired += [(hour, verdict)] if verdict else []
    assert [(hour, one.level, one.facts["usual"]) for hour, one in fired] == [(11, "firing", 100.0)]  # 08 and 09 were empty
    over = told(rule, memory, at + timedelta(hours=14), "count_in", total + 1)
    assert over is not None
    assert over.level == "ok"


def test_a_quiet_night_is_no_fault(known: tuple[Stuck, dict[str, Any], datetime, int]) -> None:
    rule, memory, at, _ = known
    assert [told(rule, memory, at + timedelta(hours=hour), "heartbeat", 1) for hour in range(1, 9)] == [None] * 8


def test_the_hours_of_a_fault_do_not_become_usual(known: tuple[Stuck, dict[str, Any], datetime, int]) -> None:
    rule, memory, at, _ = known
    for hour in range(1, 7 * 24):
        told(rule, memory, at + timedelta(hours=hour), "heartbeat", 1)
    assert memory["usual"]["tue-12"][-1] == 100


# --- What comes late, and what ends ------------------------------------------------------------------


def test_a_quiet_hour_is_remembered_as_quiet_and_not_left_out(hiroba: Place) -> None:
    for hour in range(3):
        for minute in range(0, 60, 10):
            hiroba.now_us = us(EVENING + timedelta(hours=hour, minutes=minute))
            hiroba.fact("hiroba", "east", "heartbeat")
            hiroba.fact("hiroba", "south", "heartbeat")
    assert hiroba.memory["usual"] == {"thu-20": [0]}


def test_a_recount_holds_also_against_what_a_silent_counter_brings_from_before_it(hiroba: Place) -> None:
    hiroba.wait(3600)
    hiroba.fact("area", "place", RECOUNTED, body={"counted": 80})
    hiroba.wait(3600)
    hiroba.fact("hiroba", "east", "heartbeat")
    hiroba.come(200)  # counted over two hours, the first of which the recount has seen
    assert hiroba.memory["inside"] == 180


def test_who_came_after_the_night_in_which_the_gateway_was_away_is_there(hiroba: Place) -> None:
    hiroba.wait(1)
    hiroba.come(300)
    hiroba.now_us = us(EVENING + timedelta(hours=7, minutes=30))
    hiroba.come(300)
    for hours in (9, 10):  # readings of that morning come before any tick
        hiroba.now_us = us(EVENING + timedelta(hours=hours))
        hiroba.come(300 + 10 * hours)
    hiroba.wait(3600)
    assert hiroba.memory["inside"] == 10 + round(90 * 60 / 90)
    assert hiroba.memory["correction"]["how"] == "night"


def test_a_recount_before_the_first_tick_of_the_day_is_not_emptied_by_the_night_before_it(hiroba: Place) -> None:
    hiroba.wait(1)
    hiroba.now_us = us(EVENING + timedelta(hours=12))
    hiroba.fact("area", "place", RECOUNTED, body={"counted": 40})
    hiroba.wait(1)
    assert hiroba.memory["inside"] == 40


def test_a_shelter_does_not_become_empty_by_the_end_of_the_disaster() -> None:
    hall = Place(HALL)
    hall.wait(0)
    hall.fact("town", "mode", TOWN_MODE, body={"mode": "disaster"})
    hall.fact("hall", "door", "count_in", 0)
    hall.wait(60)
    hall.fact("hall", "door", "count_in", 70)
    hall.until(EVENING + timedelta(hours=15))
    hall.fact("town", "mode", TOWN_MODE, body={"mode": "normal"})
    hall.wait(60)
    assert hall.memory["inside"] == 70


def test_the_alert_of_an_area_that_is_no_area_any_more_ends(hiroba: Place) -> None:
    hiroba.wait(600)
    verdict = hiroba.come(800)
    assert verdict is not None
    hiroba.rule = Crowd(CrowdConfig(type="crowd"), {}, TOKYO)
    over = hiroba.wait(1)
    assert over is not None
    assert (over.level, hiroba.memory) == ("ok", {})
