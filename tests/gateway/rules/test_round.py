"""The round rule: each trap, each local day, by a person. And the dossier's reminder."""

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deployments import Deployment, Deployments
from gateway.rules import Fact, Memory, Verdict
from gateway.rules.dossier import Dossier, DossierConfig
from gateway.rules.round import Round, RoundConfig, last_deadline

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")
STANDS = Deployments(
    [
        Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番"),
        Deployment(node="kitayama-03", device="trap-12", kind="trap", place="北尾根", label="4番"),
        Deployment(node="kawa-01", device="trap-21", kind="trap", place="川原"),
        Deployment(node="kitayama-04", device="cam-02", kind="camera", place="北尾根"),
    ]
)
FIRST = ("kitayama-03", "trap-11")


def us(text: str, zone: ZoneInfo = TOKYO) -> int:
    """UTC µs of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1_000_000


class Ridge:
    """The place 北尾根 with its two traps."""

    def __init__(self, zone: ZoneInfo = TOKYO, **settings: Any) -> None:
        self.zone = zone
        self.rule = Round(RoundConfig(type="round", **settings), STANDS, zone)
        self.memory: Memory = {}
        self.last: Verdict | None = None
        self.openings: list[str] = []

    def at(self, text: str) -> "Ridge":
        self._take(self.rule.on_tick(self.memory, us(text, self.zone), None, FIRST))
        return self

    def visit(self, device: str, text: str, told: str = "", name: str = "trap_visited", result: str = "set") -> "Ridge":
        now_us = us(told or text, self.zone)
        body = json.dumps({"result": result})
        fact = Fact("kitayama-03", device, name, 0, us(text, self.zone), now_us, False, "gateway:1", body=body)
        if name in self.rule.events:
            assert self.rule.about(fact) == (FIRST,)
            self._take(self.rule.on_fact(self.memory, fact, now_us, FIRST))
        return self

    def _take(self, verdict: Verdict | None) -> None:
        if verdict is not None:
            self.last = verdict
            if verdict.level == "firing" and verdict.opening not in self.openings:
                self.openings.append(verdict.opening)

    @property
    def overdue(self) -> list[str]:
        return list(self.last.facts["labels"]) if self.last is not None and self.last.level == "firing" else []


def test_places_are_judged_though_nothing_was_ever_heard_there() -> None:
    assert set(Ridge().rule.subjects()) == {FIRST, ("kawa-01", "trap-21")}


def test_traps_without_a_visit_by_the_hour_are_overdue_in_one_alert_of_their_place() -> None:
    ridge = Ridge().at("2026-06-02T08:00").visit("trap-11", "2026-06-03T07:00").at("2026-06-03T16:59:59")
    assert ridge.overdue == []
    ridge.at("2026-06-03T17:00")
    assert ridge.overdue == ["4番"]
    assert ridge.last is not None
    assert ridge.last.facts["where"] == "北尾根 4番"
    assert ridge.last.facts["day_us"] == us("2026-06-03T00:00")


def test_a_visit_takes_a_trap_off_the_list_and_the_last_one_ends_it() -> None:
    ridge = Ridge().at("2026-06-02T08:00").at("2026-06-03T17:00")
    assert ridge.overdue == ["3番", "4番"]
    assert ridge.visit("trap-12", "2026-06-03T17:30").overdue == ["3番"]
    assert ridge.visit("trap-11", "2026-06-03T18:00").overdue == []
    assert ridge.openings == ["2026-06-03"], "told once, whatever changed of the list"


def test_each_day_needs_a_visit_of_its_own_and_yesterdays_stays_missed_until_one_comes() -> None:
    ridge = Ridge().at("2026-06-02T08:00").at("2026-06-03T17:00").at("2026-06-04T09:00")
    assert ridge.overdue == ["3番", "4番"]
    ridge.at("2026-06-04T17:00")
    assert ridge.openings == ["2026-06-03", "2026-06-04"]
    ridge.visit("trap-11", "2026-06-04T18:00").visit("trap-12", "2026-06-04T18:00").at("2026-06-05T16:59")
    assert ridge.overdue == []
    assert ridge.at("2026-06-05T17:00").overdue == ["3番", "4番"], "last evening's visit was for last evening"


def test_a_visit_told_later_counts_for_the_day_it_was_on() -> None:
    ridge = Ridge().at("2026-06-02T08:00").at("2026-06-03T17:00").visit("trap-12", "2026-06-03T10:00", told="2026-06-03T20:00")
    assert ridge.overdue == ["3番"]
    assert ridge.visit("trap-11", "2026-06-02T23:59", told="2026-06-03T20:30").overdue == ["3番"]


@pytest.mark.parametrize("name", ["heartbeat", "trap_reset", "media_captured", "trap_moved", "trap_sprung", "picture_confirmed"])
def test_no_sensor_counts_as_the_round(name: str) -> None:
    ridge = Ridge().at("2026-06-02T08:00").visit("trap-11", "2026-06-03T10:00", name=name).at("2026-06-03T17:00")
    assert ridge.overdue == ["3番", "4番"]


def test_what_was_before_the_books_were_begun_is_not_asked_for() -> None:
    ridge = Ridge().at("2026-06-03T16:00").at("2026-06-03T17:00")
    assert ridge.overdue == []
    assert ridge.at("2026-06-04T17:00").overdue == ["3番", "4番"]


def test_a_trap_that_was_taken_away_needs_no_visit_until_it_is_set_again() -> None:
    ridge = Ridge().at("2026-06-02T08:00").visit("trap-11", "2026-06-03T10:00", result="removed").at("2026-06-04T17:00")
    assert ridge.overdue == ["4番"]
    assert ridge.visit("trap-11", "2026-06-05T08:00").at("2026-06-06T17:00").overdue == ["3番", "4番"]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-02-28", 24), ("2028-02-29", 24), ("2026-12-31", 24), ("2027-01-01", 24)],
)
def test_days_are_local_on_the_days_clocks_change_and_at_the_ends_of_months(day: str, hours: int) -> None:
    at_us = us(f"{day}T17:00", BERLIN)
    deadline_us, day_us, name = last_deadline(at_us, "17:00", BERLIN)
    assert (deadline_us, name) == (at_us, day)
    assert last_deadline(at_us - 1_000_000, "17:00", BERLIN)[2] < day
    after = last_deadline(at_us + 24 * 3_600_000_000, "00:00", BERLIN)
    assert after[1] - day_us == hours * 3_600_000_000


def test_an_hour_that_the_clock_skips_or_says_twice_is_passed_once() -> None:
    for day in ("2026-03-29", "2026-10-25"):
        ridge = Ridge(BERLIN, by="02:30").at("2026-03-01T08:00")
        start_us = us(f"{day}T00:00", BERLIN)
        for minute in range(0, 6 * 60, 10):
            ridge._take(ridge.rule.on_tick(ridge.memory, start_us + minute * 60_000_000, None, FIRST))
        assert ridge.openings[-1:] == [day]
        assert ridge.openings.count(day) == 1


@given(st.integers(us("2020-01-01T00:00"), us("2035-01-01T00:00")), st.integers(0, 23), st.integers(0, 59))
def test_the_last_deadline_is_past_and_no_more_than_a_long_day_ago(now_us: int, hour: int, minute: int) -> None:
    for zone in (TOKYO, BERLIN):
        deadline_us, day_us, day = last_deadline(now_us, f"{hour:02}:{minute:02}", zone)
        assert day_us <= deadline_us <= now_us < deadline_us + 26 * 3_600_000_000
        assert datetime.fromtimestamp(day_us / 1e6, zone).isoformat().startswith(f"{day}T0")


# --- the dossier ----------------------------------------------------------------------------------------

HOUR = 3_600_000_000
T0 = us("2026-06-03T06:00")


def changed(at_us: int, missing: list[str], capture: str = "c-1", opened_us: int = T0, *, completed: bool = False) -> Fact:
    body = {"capture": capture, "opened_us": opened_us, "missing": missing, "completed": completed}
    return Fact("n", "d", "dossier_changed", 0, at_us, at_us, False, "gateway:1", body=json.dumps(body))


def test_a_dossier_reminds_after_a_day_with_what_it_lacks_until_it_is_complete() -> None:
    rule, memory = Dossier(DossierConfig(type="dossier")), dict[str, Any]()
    assert rule.on_fact(memory, changed(T0, ["tail", "sex"]), T0) is None
    assert rule.on_tick(memory, T0 + 24 * HOUR - 1, None) is None
    fires = rule.on_tick(memory, T0 + 24 * HOUR, None)
    assert fires is not None
    assert (fires.level, fires.opening, fires.facts["missing"]) == ("firing", "c-1", ["tail", "sex"])
    assert rule.on_tick(memory, T0 + 25 * HOUR, None) is None, "it is said once"
    less = rule.on_fact(memory, changed(T0 + 26 * HOUR, ["sex"]), T0 + 26 * HOUR)
    assert less is not None
    assert (less.opening, less.facts["missing"]) == ("c-1", ["sex"])
    over = rule.on_fact(memory, changed(T0 + 27 * HOUR, [], completed=True), T0 + 27 * HOUR)
    assert over is not None
    assert over.level == "ok"


def test_a_dossier_completed_in_time_never_reminds() -> None:
    rule, memory = Dossier(DossierConfig(type="dossier")), dict[str, Any]()
    rule.on_fact(memory, changed(T0, ["tail"]), T0)
    rule.on_fact(memory, changed(T0 + HOUR, [], completed=True), T0 + HOUR)
    assert rule.on_tick(memory, T0 + 99 * HOUR, None) is None


def test_two_dossiers_of_one_trap_are_reminded_of_one_after_the_other() -> None:
    rule, memory = Dossier(DossierConfig(type="dossier")), dict[str, Any]()
    rule.on_fact(memory, changed(T0, ["tail"]), T0)
    rule.on_fact(memory, changed(T0 + HOUR, ["sex"], "c-2", T0 + HOUR), T0 + HOUR)
    first = rule.on_tick(memory, T0 + 25 * HOUR, None)
    assert first is not None
    assert (first.opening, first.facts["count"]) == ("c-1", 2)
    second = rule.on_fact(memory, changed(T0 + 26 * HOUR, [], completed=True), T0 + 26 * HOUR)
    assert second is not None
    assert (second.level, second.opening) == ("firing", "c-2")
