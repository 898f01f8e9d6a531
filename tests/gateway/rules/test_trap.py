"""The trap rule: sprung until somebody was there, any sensor rings, agreement changes the wording, silence is never green."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deployments import Deployment, Deployments
from gateway.rules import Fact, Memory, Verdict
from gateway.rules.trap import Trap, TrapConfig

S, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
T0 = 1_780_434_720 * S
TRAP, CAMERA = ("kitayama-03", "trap-11"), ("kitayama-04", "cam-02")
STANDS = Deployments(
    [
        Deployment(node=TRAP[0], device=TRAP[1], kind="trap", place="北尾根", label="3番"),
        Deployment(node=CAMERA[0], device=CAMERA[1], kind="camera", place="北尾根"),
        Deployment(node="kawa-01", device="cam-09", kind="camera", place="川原"),
    ]
)


class Told:
    """One trap as people are told of it. `us` is the time since T0."""

    def __init__(self, **settings: Any) -> None:
        self.rule = Trap(TrapConfig(type="trap", **settings), STANDS)
        self.memory: Memory = {}
        self.verdicts: list[Verdict] = []
        self._seq = 0

    def hear(self, name: str, us: int, *, value: float = 0, device: tuple[str, str] = TRAP, epoch: str = "e",
             seq: int | None = None, late_us: int = 0, **body: Any) -> "Told":  # fmt: skip
        """Something that happened at `us` and was heard `late_us` after that."""
        self._seq += 1
        fact = Fact(*device, name, value, T0 + us, T0 + us + late_us, late_us > 5 * MINUTE, f"{epoch}:{seq or self._seq}",
                    found=bool(body.get("found")), body=json.dumps(body))  # fmt: skip
        for subject in self.rule.about(fact):
            self._take(self.rule.on_fact(self.memory, fact, T0 + us + late_us, subject))
        self.memory = json.loads(json.dumps(self.memory))
        return self

    def visit(self, us: int, late_us: int = 0) -> "Told":
        return self.hear("trap_visited", us, epoch="gateway", late_us=late_us, visit="v", via="qr", result="set")

    def wait(self, us: int) -> "Told":
        self._take(self.rule.on_tick(self.memory, T0 + us, T0 - HOUR, TRAP))
        return self

    def _take(self, verdict: Verdict | None) -> None:
        if verdict is not None:
            self.verdicts.append(verdict)

    @property
    def pages(self) -> list[str]:
        """What opened each alert that people were woken for."""
        openings: list[str] = []
        for one in self.verdicts:
            if one.level == "firing" and one.opening not in openings:
                openings.append(one.opening)
        return openings

    @property
    def rings(self) -> bool:
        return bool(self.verdicts) and self.verdicts[-1].level == "firing"

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.verdicts[-1].facts)


# --- sprung, and until when -----------------------------------------------------------------------------


def test_a_sprung_trap_rings_at_once_and_says_no_more_than_its_switch_knows() -> None:
    told = Told().hear("trap_sprung", 0)
    assert told.rings
    assert told.verdicts[-1].reason == "trap_sprung"
    assert told.facts == {"signs": ["switch"], "state": "sprung"}


def test_it_stays_sprung_until_somebody_was_there_whatever_its_switch_says() -> None:
    told = Told().hear("trap_sprung", 0).hear("trap_reset", MINUTE)
    assert told.rings
    assert told.facts["reset_us"] == T0 + MINUTE
    assert not told.wait(9 * HOUR).visit(10 * HOUR).rings


@pytest.mark.parametrize("by", ["button", "form"])
def test_a_visit_ends_it(by: str) -> None:
    told = Told().hear("trap_sprung", 0)
    told = told.hear("trap_visited", HOUR) if by == "button" else told.visit(HOUR)
    assert told.verdicts[-1].level == "ok"
    assert told.hear("trap_sprung", 2 * HOUR).rings, "and the next catch rings"
    assert len(told.pages) == 2


def test_a_visit_of_before_it_sprang_that_is_told_afterwards_ends_nothing() -> None:
    told = Told().hear("trap_sprung", HOUR).visit(10 * MINUTE, late_us=2 * HOUR)
    assert told.rings
    told = Told().hear("trap_sprung", HOUR, seq=9).hear("trap_visited", 0, seq=5, late_us=2 * HOUR)
    assert told.rings, "the numbers of the node say that the button came first"


def test_a_visit_ends_what_a_clock_ahead_of_ours_has_stamped() -> None:
    told = Told().hear("trap_sprung", 4 * MINUTE, late_us=-4 * MINUTE).visit(MINUTE)
    assert not told.rings


@pytest.mark.parametrize("by", ["button", "form"])
def test_a_late_sprung_that_a_visit_has_overtaken_tells_nobody(by: str) -> None:
    told = Told()
    told = told.hear("trap_visited", HOUR, seq=7) if by == "button" else told.visit(HOUR)
    told.hear("trap_sprung", 0, seq=5, late_us=2 * HOUR)
    assert told.verdicts == []


def test_a_late_sprung_that_nobody_has_seen_to_rings_and_says_that_it_is_late() -> None:
    told = Told().visit(0).hear("trap_sprung", HOUR, late_us=2 * HOUR)
    assert told.verdicts[-1].late


def test_two_clocks_that_differ_by_seconds_make_no_trap_deaf() -> None:
    assert Told().visit(10 * S).hear("trap_sprung", 0, late_us=20 * S).rings


def test_a_trap_that_was_set_and_sprang_again_without_a_recorded_visit_is_another_catch() -> None:
    told = Told().hear("trap_sprung", 0).hear("trap_reset", HOUR).hear("trap_sprung", 5 * HOUR)
    assert len(told.pages) == 2


def test_another_catch_that_looks_like_the_first_is_told_all_the_same() -> None:
    assert len(Told().hear("trap_sprung", 0).hear("trap_sprung", 5 * HOUR).pages) == 2, "its reset is still on the way"


def test_an_animal_that_shakes_the_switch_is_one_catch() -> None:
    told = Told().hear("trap_sprung", 0)
    for minute in range(1, 40, 2):
        told.hear("trap_reset", minute * MINUTE).hear("trap_sprung", (minute + 1) * MINUTE)
    assert len(told.pages) == 1


def test_a_sprung_that_is_found_at_the_start_is_the_one_that_was_told() -> None:
    told = Told().hear("trap_sprung", 0).hear("trap_sprung", 5 * HOUR, epoch="f", found=True)
    assert len(told.pages) == 1


def test_events_that_come_twice_or_in_another_order_wake_nobody_again() -> None:
    told = Told().hear("trap_sprung", HOUR, seq=5).hear("trap_sprung", HOUR, seq=5).hear("trap_sprung", 0, seq=3, late_us=HOUR)
    assert len(told.pages) == 1


# --- what the sensors agree on --------------------------------------------------------------------------


def test_movement_alone_rings_as_moved_and_is_over_when_it_is_calm() -> None:
    told = Told().hear("trap_moved", 0, how="vibration")
    assert told.verdicts[-1].reason == "trap_moved"
    assert told.facts["likely"] == "moved"
    assert told.wait(29 * MINUTE).rings
    assert not told.wait(30 * MINUTE).rings


def test_moved_and_then_sprung_is_worse_and_wakes_people_again() -> None:
    told = Told().hear("trap_moved", 0, how="tilt").hear("trap_sprung", MINUTE)
    assert len(told.pages) == 2
    assert told.verdicts[-1].reason == "trap_sprung"
    assert told.facts["likely"] == "capture"


def test_sprung_and_then_moved_is_a_likely_capture_and_wakes_nobody_again() -> None:
    told = Told().hear("trap_sprung", 0)
    assert "likely" not in told.facts
    told.hear("trap_moved", HOUR, how="vibration")
    assert told.facts["likely"] == "capture"
    assert len(told.pages) == 1


def test_movements_that_are_only_counted_agree_too_but_not_the_shake_of_springing() -> None:
    told = Told().hear("bump", -MINUTE, value=7).hear("trap_sprung", 0)
    told.hear("bump", 2 * S, value=9).hear("bump", 5 * S, value=12).hear("bump", MINUTE, value=12)
    assert "likely" not in told.facts
    told.hear("bump", 2 * MINUTE, value=15)
    assert told.facts["likely"] == "capture"
    assert len(told.pages) == 1


def test_no_movement_where_a_sensor_would_feel_it_is_likely_empty_after_a_while() -> None:
    told = Told().hear("bump", -MINUTE, value=7).hear("trap_sprung", 0)
    for minute in range(1, 10):
        told.hear("bump", minute * MINUTE, value=7).wait(minute * MINUTE)
    assert "likely" not in told.facts
    assert told.wait(10 * MINUTE).facts["likely"] == "empty"
    assert told.hear("bump", 11 * MINUTE, value=9).facts["likely"] == "capture"
    assert len(told.pages) == 1


def test_a_trap_without_such_a_sensor_is_never_called_empty() -> None:
    assert "likely" not in Told().hear("trap_sprung", 0).wait(5 * MINUTE).wait(14 * MINUTE).facts


def picture(told: Told, us: int, **body: Any) -> Told:
    return told.hear("media_captured", us, device=body.pop("device", CAMERA), epoch="c",
                     **{"media": "a" * 64, "content": "animal", "withheld": False, **body})  # fmt: skip


def test_an_animal_before_the_camera_of_the_place_agrees() -> None:
    told = picture(Told().hear("trap_sprung", 0), 3 * MINUTE, species="boar")
    assert told.facts == {
        "signs": ["switch", "camera"], "state": "sprung", "likely": "capture", "media": "a" * 64, "species": "boar"
    }  # fmt: skip
    assert len(told.pages) == 1


def test_an_animal_hours_later_or_elsewhere_does_not() -> None:
    assert "likely" not in picture(Told().hear("trap_sprung", 0), 3 * HOUR).facts
    assert "likely" not in picture(Told().hear("trap_sprung", 0), MINUTE, device=("kawa-01", "cam-09")).facts


def test_a_camera_alone_raises_it_or_not_as_configured() -> None:
    assert picture(Told(), 0).facts["state"] == "seen"
    assert not picture(Told(camera="agrees"), 0).rings
    told = picture(Told(camera="agrees"), 0).hear("trap_sprung", MINUTE)
    assert told.facts["likely"] == "capture", "and it is remembered for what follows"


def test_where_a_detection_rule_tells_of_the_animal_the_trap_does_not_tell_of_it_again() -> None:
    told = Told()
    told.rule = Trap(TrapConfig(type="trap"), STANDS, pictures_told=True)
    assert not picture(told, 0).rings
    told.hear("trap_sprung", MINUTE)
    assert told.facts["likely"] == "capture"
    told.rule = Trap(TrapConfig(type="trap", camera="raises"), STANDS, pictures_told=True)
    assert picture(told.visit(HOUR), 2 * HOUR).rings


def test_a_springing_stamped_just_before_a_visit_and_heard_after_it_is_told_rather_than_lost() -> None:
    told = Told().visit(MINUTE).hear("trap_sprung", 0, late_us=2 * MINUTE)
    assert told.rings, "two clocks may differ by as much"
    assert told.hear("trap_reset", 3 * MINUTE).rings, "and only a person ends it"


@pytest.mark.parametrize("content", ["person_or_vehicle", "unsure", "unclassified"])
def test_no_other_picture_raises_a_trap(content: str) -> None:
    assert not picture(Told(), 0, content=content).rings


def test_a_picture_that_is_withdrawn_for_a_person_is_not_named_any_more() -> None:
    told = picture(picture(Told().hear("trap_sprung", 0), MINUTE), 2 * MINUTE, content="person_or_vehicle")
    assert "media" not in told.facts


def test_a_withheld_picture_is_never_named() -> None:
    assert "media" not in picture(Told().hear("trap_sprung", 0), MINUTE, withheld=True).facts


# --- silence --------------------------------------------------------------------------------------------


def test_silence_while_sprung_is_said_and_wakes_nobody_again() -> None:
    told = Told().hear("heartbeat", 0).hear("trap_sprung", MINUTE).wait(15 * MINUTE)
    assert told.facts["state"] == "sprung"
    told.wait(16 * MINUTE)
    assert (told.facts["state"], told.facts["silent_since_us"]) == ("sprung_silent", T0 + MINUTE)
    assert told.hear("heartbeat", 20 * MINUTE).facts["state"] == "sprung"
    assert len(told.pages) == 1


def test_silence_that_nobody_could_have_heard_is_none() -> None:
    told = Told().hear("trap_sprung", 0)
    for listening_since_us in (None, T0 + 59 * MINUTE):
        told._take(told.rule.on_tick(told.memory, T0 + HOUR, listening_since_us, TRAP))
    assert "silent_since_us" not in told.facts


def test_a_heartbeat_concerns_this_rule_only_where_it_is_a_traps() -> None:
    def beat(node: str) -> Fact:
        return Fact(node, "box", "heartbeat", 1, T0, T0, False, "e:1")

    rule = Told().rule
    assert list(rule.about(beat("minami-01"))) == []
    assert list(rule.about(Fact(*TRAP, "heartbeat", 1, T0, T0, False, "e:1"))) == [TRAP]
    # One that nobody deployed is a trap from when it springs, also after a restart.
    rule.about(Fact("minami-01", "box", "trap_sprung", 0, T0, T0, False, "e:2"))
    assert list(rule.about(beat("minami-01"))) == [("minami-01", "box")]
    told = Told().hear("trap_sprung", 0)
    told.rule = Trap(TrapConfig(type="trap"), Deployments([]))
    told.wait(MINUTE)
    assert told.hear("heartbeat", 20 * MINUTE).wait(21 * MINUTE).facts["state"] == "sprung"


# --- whatever comes ------------------------------------------------------------------------------------

EVENTS = st.sampled_from(
    ["trap_sprung", "trap_reset", "trap_moved", "trap_visited", "media_captured", "heartbeat", "bump", "wait"]
)


@given(st.lists(st.tuples(EVENTS, st.integers(0, 12 * 60), st.sampled_from(["e", "gateway"]), st.integers(1, 9)), max_size=30))
def test_whatever_comes_sprung_holds_until_a_visit_and_the_memory_stays_small(story: list[tuple[str, int, str, int]]) -> None:
    told, sprung = Told(), False
    for name, minute, epoch, seq in story:
        before = len(told.verdicts)
        if name == "wait":
            told.wait(minute * MINUTE)
        elif name == "media_captured":
            picture(told, minute * MINUTE)
        else:
            told.hear(name, minute * MINUTE, epoch=epoch if name == "trap_visited" else "e", seq=seq, value=seq)
        new = told.verdicts[before:]
        if sprung and any(one.level == "ok" for one in new):
            assert name == "trap_visited"
        sprung = told.rings and told.verdicts[-1].reason == "trap_sprung"
    assert len(json.dumps(told.memory)) < 2000
