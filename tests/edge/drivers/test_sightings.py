from hypothesis import given
from hypothesis import strategies as st

from edge.clock import Instant
from edge.contract.events import TagEntered, TagLeft, TagSeen
from edge.drivers import sightings as module
from edge.drivers.sightings import Sightings
from edge.records import Happened

ONE = "ibeacon:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0:1:500"
TWO = "eddystone-uid:00112233445566778899:0a0b0c0d0e0f"


def at(seconds: float) -> Instant:
    return Instant(1_780_434_720_000_000 + round(seconds * 1e6), round(seconds * 1e6))


def sightings() -> Sightings:
    return Sightings("tags", leave_after_s=60, summary_s=120)


def test_a_tag_enters_when_it_is_heard_first() -> None:
    town = sightings()
    assert town.heard(ONE, -70, at(0)) == [Happened(at(0), TagEntered(device="tags", tag=ONE, rssi=-70))]
    assert town.heard(ONE, -60, at(1)) == []
    assert town.heard(TWO, -80, at(1)) == [Happened(at(1), TagEntered(device="tags", tag=TWO, rssi=-80))]
    assert town.near == 2


def test_a_tag_left_at_the_instant_it_was_heard_last() -> None:
    town = sightings()
    town.heard(ONE, -70, at(0))
    town.heard(ONE, -90, at(10))
    assert town.tick(at(69.9)) == []
    assert town.tick(at(70)) == [Happened(at(10), TagLeft(device="tags", tag=ONE, rssi=-90))]
    assert town.tick(at(1000)) == []
    assert town.near == 0


def test_a_tag_that_stays_is_summed_up_once_an_interval() -> None:
    town = sightings()
    said = []
    for second in range(250):
        said += town.heard(ONE, -50 if second == 30 else -70, at(second))
        said += town.tick(at(second))
    assert said == [
        Happened(at(0), TagEntered(device="tags", tag=ONE, rssi=-70)),
        Happened(at(120), TagSeen(device="tags", tag=ONE, rssi=-50, frames=120)),
        Happened(at(240), TagSeen(device="tags", tag=ONE, rssi=-70, frames=120)),
    ]


def test_a_tag_of_which_nothing_was_heard_is_not_said_to_be_seen() -> None:
    town = Sightings("tags", leave_after_s=600, summary_s=120)
    town.heard(ONE, -70, at(0))
    assert [happened for second in range(600) for happened in town.tick(at(second))] == []
    assert town.tick(at(600)) == [Happened(at(0), TagLeft(device="tags", tag=ONE, rssi=-70))]


def test_a_tag_that_comes_back_before_anybody_looked_has_left_and_entered() -> None:
    town = sightings()
    town.heard(ONE, -70, at(0))
    assert town.heard(ONE, -75, at(500)) == [
        Happened(at(0), TagLeft(device="tags", tag=ONE, rssi=-70)),
        Happened(at(500), TagEntered(device="tags", tag=ONE, rssi=-75)),
    ]


def test_a_stepped_wall_clock_makes_nobody_leave() -> None:
    town = sightings()
    town.heard(ONE, -70, at(0))
    assert town.tick(Instant(at(86_400).utc_us, at(1).mono_us)) == []


def test_made_up_identities_do_not_fill_the_memory() -> None:
    town = sightings()
    for number in range(module.MAX_TAGS + 10):
        town.heard(f"ibeacon:made-up:{number}", -70, at(0))
    assert (town.near, town.refused) == (module.MAX_TAGS, 10)
    assert town.heard("ibeacon:made-up:0", -70, at(1)) == []  # those within reach are still followed
    town.tick(at(60.5))
    assert [happened.event.type for happened in town.heard(ONE, -70, at(61))] == ["tag_entered"]


@given(st.lists(st.tuples(st.sampled_from(["hear", "tick"]), st.sampled_from([ONE, TWO]), st.floats(0, 100)), max_size=60))
def test_enter_and_leave_alternate_and_frames_are_never_made_up(steps: list[tuple[str, str, float]]) -> None:
    town, now_s = sightings(), 0.0
    heard_of: dict[str, int] = {ONE: 0, TWO: 0}
    near: dict[str, bool] = {ONE: False, TWO: False}
    frames = {ONE: 0, TWO: 0}
    for what, tag, pause_s in steps:
        now_s += pause_s
        now = at(now_s)
        due_us = town.next_due_us()
        if what == "hear":
            heard_of[tag] += 1
            said = town.heard(tag, -70, now)
        else:
            said = town.tick(now)
            assert (due_us is None or now.mono_us < due_us) <= (not said)  # it says when it must be looked at
        for happened in said:
            event = happened.event
            assert isinstance(event, TagEntered | TagSeen | TagLeft)
            assert near[event.tag] is not isinstance(event, TagEntered)
            near[event.tag] = not isinstance(event, TagLeft)
            frames[event.tag] += event.frames if isinstance(event, TagSeen) else 0
            assert happened.at.mono_us <= now.mono_us
    assert town.near == sum(near.values())
    for tag, count in frames.items():
        assert count <= heard_of[tag]
