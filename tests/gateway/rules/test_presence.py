"""presence: three values, never two; nights, silence, batteries, buttons. Every sentence of it is about the tag."""

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from gateway.deployments import Deployment, Deployments
from gateway.mimamori.enrolled import WATCHED, Enrolled, Watched
from gateway.rules.presence import Presence, PresenceConfig, state
from gateway.rules.verdict import Fact, Verdict

TOKYO = ZoneInfo("Asia/Tokyo")
TAG, ID = "ibeacon:0f:1:2", "ab" * 8
HOME, HALL = ("tsubaki", "tags"), ("kominkan", "tags")
SECOND = 1_000_000
ENROLLED = Enrolled({ID: Watched(ID, "ハナさん", "family-hana", frozenset((HOME,)))}, {TAG: ID})
DEPLOYMENTS = Deployments(
    [
        Deployment(node="tsubaki", device="tags", kind="home", place="つばきの家"),
        Deployment(node="kominkan", device="tags", kind="tags", place="中央公民館"),
    ]
)


def us(text: str, zone: ZoneInfo = TOKYO) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND


class Person:
    """One watched person as the watch drives the rule."""

    def __init__(self, start: str = "2026-06-03T20:00", zone: ZoneInfo = TOKYO, **config: Any) -> None:
        self.rule = Presence(PresenceConfig(type="presence", **config), DEPLOYMENTS, ENROLLED, zone)
        self.memory: dict[str, Any] = {}
        self.now_us = us(start, zone)
        self.listening_us = self.now_us
        self.seq = 0
        self.beside: tuple[str, str] | None = None  # the receiver that hears the tag now, and says so every other minute

    def fact(self, name: str, receiver: tuple[str, str], *, ago: int = 0, seq: int | None = None, **body: Any) -> Verdict | None:
        self.seq += 1
        if name in ("tag_entered", "tag_left"):
            self.beside = receiver if name == "tag_entered" else None
        at_us = self.now_us - ago * SECOND
        said = json.dumps({} if name == "heartbeat" else {"tag": TAG, **body})
        fact = Fact(*receiver, name, 0, at_us, self.now_us, ago > 300, f"{receiver[0]}:{seq or self.seq}", body=said)
        if (WATCHED, ID) not in self.rule.about(fact):
            return None
        found = self.rule.on_fact(self.memory, fact, self.now_us, (WATCHED, ID))
        self.memory = json.loads(json.dumps(self.memory))
        return found

    def wait(self, minutes: int, *, alive: bool = True, deaf: bool = False) -> Verdict | None:
        """Minute by minute; the receiver at home says that it is alive, unless it is not."""
        last = None
        for _ in range(minutes):
            self.now_us += 60 * SECOND
            if deaf:
                self.listening_us = self.now_us
            if alive:
                last = self.fact("heartbeat", HOME) or last
                if self.beside and self.now_us // (60 * SECOND) % 2:
                    last = self.fact("tag_seen", self.beside, frames=60, rssi=-60) or last
            last = self.rule.on_tick(self.memory, self.now_us, self.listening_us, (WATCHED, ID)) or last
        return last

    def state(self) -> str:
        return state(self.memory, (HOME,), self.now_us, 900)


@pytest.fixture
def night() -> Person:
    person = Person(when="left_home_at_night")
    person.fact("tag_entered", HOME)
    return person


def test_a_tag_that_leaves_home_in_the_night_is_told_with_where_it_was_last(night: Person) -> None:
    night.wait(6 * 60 + 40)
    verdict = night.fact("tag_left", HOME, ago=30)
    assert verdict is not None
    assert (verdict.level, verdict.since_us) == ("firing", us("2026-06-04T02:39:30"))
    assert verdict.facts["family"] == "family-hana"
    assert (verdict.facts["place"], verdict.facts["state"]) == ("つばきの家", "away")


def test_it_is_over_when_the_tag_is_home_again(night: Person) -> None:
    night.wait(6 * 60)
    night.fact("tag_left", HOME)
    night.wait(20)
    verdict = night.fact("tag_entered", HOME)
    assert verdict is not None
    assert verdict.level == "ok"
    assert night.state() == "home"


def test_another_receiver_says_where_the_tag_is_now_and_it_goes_on(night: Person) -> None:
    night.wait(6 * 60)
    first = night.fact("tag_left", HOME)
    night.wait(10)
    verdict = night.fact("tag_entered", HALL)
    assert first is not None
    assert verdict is not None
    assert (verdict.opening, verdict.facts["place"], verdict.facts["state"]) == (first.opening, "中央公民館", "near")


def test_to_leave_by_day_is_nobodys_business() -> None:
    person = Person("2026-06-03T09:00", when="left_home_at_night")
    person.fact("tag_entered", HOME)
    person.wait(30)
    assert person.fact("tag_left", HOME) is None
    assert person.wait(15 * 60) is None  # out when the night begins: that is not_seen's


def test_a_receiver_that_fell_silent_is_no_coverage_and_no_night_exit(night: Person) -> None:
    night.wait(6 * 60)
    assert night.wait(60, alive=False) is None
    assert night.state() == "no_coverage"


def test_a_receiver_that_started_anew_and_does_not_hear_the_tag_means_it_left(night: Person) -> None:
    night.wait(6 * 60)
    night.beside = None
    verdict = night.wait(21)
    assert verdict is not None
    assert verdict.level == "firing"


def test_a_late_word_that_it_left_is_nothing_when_it_was_heard_since(night: Person) -> None:
    night.wait(6 * 60)
    night.fact("tag_seen", HOME, seq=900)
    assert night.fact("tag_left", HOME, ago=3600, seq=899) is None


def test_two_receivers_at_home_and_one_that_still_hears_it_is_home() -> None:
    enrolled = Enrolled({ID: Watched(ID, "ハナさん", "family-hana", frozenset((HOME, HALL)))}, {TAG: ID})
    person = Person("2026-06-03T23:00", when="left_home_at_night")
    person.rule = Presence(PresenceConfig(type="presence", when="left_home_at_night"), DEPLOYMENTS, enrolled, TOKYO)
    person.fact("tag_entered", HOME)
    person.fact("tag_entered", HALL)
    assert person.fact("tag_left", HOME) is None
    verdict = person.fact("tag_left", HALL)
    assert verdict is not None
    assert verdict.level == "firing"


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_the_night_is_the_night_also_when_the_clocks_change(day: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    person = Person(f"{day}T04:30", zone=zone, when="left_home_at_night")
    person.fact("tag_entered", HOME)
    verdict = person.fact("tag_left", HOME)
    assert verdict is not None
    person = Person(f"{day}T05:00", zone=zone, when="left_home_at_night")
    person.fact("tag_entered", HOME)
    assert person.fact("tag_left", HOME) is None


def test_not_seen_counts_only_hours_in_which_somebody_could_have_heard() -> None:
    person = Person("2026-06-03T09:00", when="not_seen", for_s=6 * 3600)
    person.fact("tag_entered", HOME)
    person.fact("tag_left", HOME)
    assert person.wait(5 * 60) is None
    person.wait(16, alive=False)
    assert person.wait(10 * 60, alive=False) is None  # nobody listened
    assert person.wait(15) is None
    verdict = person.wait(60)
    assert verdict is not None
    assert (verdict.level, verdict.facts["state"]) == ("firing", "away")
    back = person.fact("tag_seen", HALL)
    assert back is not None
    assert back.level == "ok"


def test_a_gateway_that_was_deaf_does_not_count_its_own_deafness() -> None:
    person = Person("2026-06-03T09:00", when="not_seen", for_s=3600)
    person.fact("tag_entered", HOME)
    person.fact("tag_left", HOME)
    assert person.wait(120, deaf=True) is None


def test_no_coverage_is_an_alert_of_its_own_and_ends_with_the_receivers_next_word() -> None:
    person = Person("2026-06-03T13:10", when="no_coverage")
    person.fact("tag_seen", HOME)
    assert person.wait(15, alive=False) is None
    verdict = person.wait(2, alive=False)
    assert verdict is not None
    assert (verdict.level, verdict.since_us, verdict.facts["state"]) == ("firing", us("2026-06-03T13:10"), "no_coverage")
    over = person.wait(1)
    assert over is not None
    assert over.level == "ok"


def test_to_arrive_is_told_once_and_over_by_itself() -> None:
    person = Person("2026-06-03T09:00", when="arrived", places=["中央公民館"], severity="info")
    verdict = person.fact("tag_entered", HALL)
    assert verdict is not None
    assert verdict.facts["place"] == "中央公民館"
    assert person.fact("tag_entered", HOME) is not None  # another place: the same alert goes on, no new one
    over = person.wait(11)
    assert over is not None
    assert over.level == "ok"


def battery(person: Person, **said: Any) -> Verdict | None:
    return person.fact("tag_battery", HOME, **said)


def test_a_battery_that_is_low_is_told_and_a_new_one_ends_it() -> None:
    person = Person(when="battery")
    assert battery(person, level=60) is None
    person.wait(1)
    low = battery(person, level=18)
    assert low is not None
    assert (low.level, low.facts["battery"], low.facts["unit"]) == ("firing", 18.0, "level")
    person.wait(1)
    new = battery(person, level=100)
    assert new is not None
    assert new.level == "ok"


def test_a_battery_is_noticed_before_it_dies_by_how_fast_it_falls() -> None:
    person = Person(when="battery", battery_days=14)
    found: list[tuple[int, Verdict]] = []
    for day in range(40):
        verdict = battery(person, level=100 - 2 * day)
        if verdict and verdict.level == "firing":
            found.append((day, verdict))
        person.now_us += 86_400 * SECOND
    day, first = found[0]
    assert (day, first.facts["battery"]) == (36, 28.0)
    assert first.facts["days_left"] in (13, 14)


def test_a_tag_that_falls_silent_after_its_battery_was_low_says_so(night: Person) -> None:
    battery(night, voltage=2.3)
    night.wait(6 * 60)
    verdict = night.fact("tag_left", HOME)
    assert verdict is not None
    assert verdict.facts["battery_low"] is True


def test_one_press_that_two_receivers_hear_is_one_alert() -> None:
    person = Person(when="button", severity="critical")
    first = person.fact("button_pressed", HOME, press="long_press")
    person.now_us += SECOND
    second = person.fact("button_pressed", HALL, press="long_press")
    assert first is not None
    assert second is not None
    assert first.opening == second.opening
    person.wait(20)
    again = person.fact("button_pressed", HOME, press="press")
    assert again is not None
    assert again.opening != first.opening


def test_who_is_not_enrolled_is_nobody() -> None:
    rule = Presence(PresenceConfig(type="presence", when="button"), DEPLOYMENTS, Enrolled(), TOKYO)
    assert rule.about(Fact(*HOME, "tag_seen", 0, 1, 1, False, "e:1", body=json.dumps({"tag": TAG}))) == ()
    assert rule.on_tick({}, us("2026-06-03T09:00"), 0, (WATCHED, ID)) is None


def test_the_alert_of_who_is_watched_over_no_more_ends_and_nothing_is_remembered(night: Person) -> None:
    night.wait(6 * 60)
    night.fact("tag_left", HOME)
    night.rule = Presence(PresenceConfig(type="presence", when="left_home_at_night"), DEPLOYMENTS, Enrolled(), TOKYO)
    verdict = night.wait(1)
    assert verdict is not None
    assert (verdict.level, night.memory) == ("ok", {})


def test_a_tag_never_heard_is_unknown_and_not_away() -> None:
    assert Person(when="not_seen").state() == "never"
    assert Person(when="not_seen").wait(24 * 60) is None


@pytest.mark.parametrize(
    "wrong", [{"when": "arrived"}, {"when": "left_home_at_night", "night_from": "05:00", "night_to": "05:00"}, {"when": "lost"}]
)
def test_a_rule_that_can_never_fire_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PresenceConfig(type="presence", **wrong)


def test_a_months_end_is_a_night_like_any_other() -> None:
    person = Person("2026-06-30T23:30", when="left_home_at_night")
    person.fact("tag_entered", HOME)
    person.wait(60)
    verdict = person.fact("tag_left", HOME)
    assert verdict is not None
    assert verdict.since_us == us("2026-07-01T00:30")


# --- Several tags, several receivers, and what changes hands -----------------------------------------

SHOE = "ibeacon:0f:1:3"


def living(person: Person, tags: dict[str, str], homes: frozenset[tuple[str, str]] = frozenset((HOME,))) -> Person:
    """The same memory, with other tags or receivers at home from now on."""
    enrolled = Enrolled({ID: Watched(ID, "ハナさん", "family-hana", homes)}, tags)
    person.rule = Presence(person.rule._config, DEPLOYMENTS, enrolled, TOKYO)
    return person


def test_the_keys_that_stay_on_the_table_do_not_hide_the_shoes_that_leave(night: Person) -> None:
    living(night, {TAG: ID, SHOE: ID})
    night.fact("tag_entered", HOME, tag=SHOE)
    night.wait(6 * 60)
    night.fact("tag_seen", HOME, tag=SHOE)
    verdict = night.fact("tag_left", HOME, tag=SHOE)
    assert verdict is not None
    night.beside = HOME
    still = night.wait(10)  # the keys are heard every other minute
    assert still is not None
    assert (still.level, still.opening) == ("firing", verdict.opening)


def test_a_tag_that_was_taken_from_a_person_has_left_nobodys_home_and_has_no_battery_of_theirs() -> None:
    for when in ("left_home_at_night", "not_seen", "battery"):
        person = Person(when=when, for_s=3600)
        person.fact("tag_entered", HOME)
        person.fact("tag_battery", HOME, level=15)
        person.wait(6 * 60)
        person.beside = None
        living(person, {TAG: "cd" * 8})
        verdict = person.wait(6 * 60)
        assert verdict is None or verdict.level == "ok", when
        assert person.state() == "never"


def test_a_receiver_that_died_beside_the_tag_does_not_keep_it_at_home(night: Person) -> None:
    living(night, {TAG: ID}, frozenset((HOME, HALL)))
    night.fact("tag_entered", HALL)
    night.wait(20)  # HALL says nothing more
    night.beside = HOME
    night.wait(6 * 60)
    verdict = night.fact("tag_left", HOME)
    assert verdict is not None
    assert verdict.level == "firing"


def test_a_power_cut_beside_the_tag_alone_is_no_exit(night: Person) -> None:
    living(night, {TAG: ID}, frozenset((HOME, HALL)))
    night.fact("tag_entered", HALL)
    night.fact("tag_seen", HALL)
    night.fact("tag_left", HALL, ago=60)
    night.beside = HOME
    night.wait(6 * 60)
    night.beside = None
    for _ in range(60):  # HOME is without power, HALL is alive and did not hear the tag since long
        night.now_us += 60 * SECOND
        night.fact("heartbeat", HALL)
        assert night.wait(0) is None
        verdict = night.rule.on_tick(night.memory, night.now_us, night.listening_us, (WATCHED, ID))
        assert verdict is None


def test_a_receiver_that_is_not_at_home_any_more_does_not_keep_the_tag_there(night: Person) -> None:
    living(night, {TAG: ID}, frozenset((HOME, HALL)))
    night.fact("tag_entered", HALL)
    living(night, {TAG: ID})
    night.beside = HOME
    night.wait(6 * 60)
    verdict = night.fact("tag_left", HOME)
    assert verdict is not None
    assert verdict.level == "firing"


def test_who_comes_again_after_a_receiver_forgot_to_say_that_they_left_has_arrived() -> None:
    person = Person("2026-06-03T09:00", when="arrived", places=["中央公民館"])
    first = person.fact("tag_entered", HALL)
    person.beside = None
    person.wait(24 * 60)
    second = person.fact("tag_entered", HALL)
    assert first is not None
    assert second is not None
    assert second.opening != first.opening


def test_a_receiver_at_home_that_was_never_heard_is_no_coverage() -> None:
    person = Person("2026-06-03T09:00", when="no_coverage")
    assert person.wait(15, alive=False) is None
    verdict = person.wait(2, alive=False)
    assert verdict is not None
    assert verdict.level == "firing"


def test_where_a_tag_was_that_was_taken_away_is_forgotten_though_another_is_worn() -> None:
    other = "ibeacon:0f:1:3"
    both = Enrolled({ID: Watched(ID, "ハナさん", "family-hana", frozenset((HOME,)))}, {TAG: ID, other: ID})
    person = Person(when="not_seen")
    person.rule = Presence(PresenceConfig(type="presence", when="not_seen"), DEPLOYMENTS, both, TOKYO)
    person.fact("tag_seen", HALL, tag=other, frames=60, rssi=-60)
    person.wait(1)
    assert person.memory["seen_at"] == "kominkan/tags"
    person.rule = Presence(PresenceConfig(type="presence", when="not_seen"), DEPLOYMENTS, ENROLLED, TOKYO)
    person.wait(1)
    assert "kominkan" not in json.dumps(person.memory)
    assert other not in json.dumps(person.memory)
