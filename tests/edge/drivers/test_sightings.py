from hypothesis import given
from hypothesis import strategies as st

from edge.clock import Instant
from edge.contract.events import ButtonPressed, TagBattery, TagEntered, TagLeft, TagSeen
from edge.contract.messages import Batch, encode
from edge.decoders.bthome import BtHome
from edge.drivers import sightings as module
from edge.drivers.sightings import Batteries, Buttons, Sightings
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


# --- What it costs ------------------------------------------------------------------------------------


def test_two_hundred_tags_in_reach_for_an_hour_fill_no_link() -> None:
    """720,000 advertisements become 6,000 records of some 1.1 MB: less than a picture each ten minutes."""
    town, said = sightings(), []
    tags = [f"ibeacon:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0:1:{number}" for number in range(200)]
    for second in range(3600):
        now = at(second)
        for tag in tags:
            said += town.heard(tag, -70, now)
        said += town.tick(now)
    assert len(said) <= 200 * (1 + 3600 / 120)
    events = [one.event.model_copy(update={"seq": number, "dt": one.at.mono_us}) for number, one in enumerate(said, 1)]
    sent = 0
    for start in range(0, len(events), 250):
        head = {"v": 1, "epoch": "ab" * 8, "boot": "cd" * 8, "clock": "sync", "t0": 1, "mono0": 1, "sent": 1, "sent_mono": 1}
        rows = [event.model_dump(by_alias=True) for event in events[start : start + 250]]
        sent += len(encode(Batch.model_validate(head | {"readings": [], "events": rows, "lost": []})))
    assert sent <= 1_200_000


# --- Batteries ----------------------------------------------------------------------------------------


def battery(voltage: float | None = None, level: int | None = None, tag: str = ONE) -> TagBattery:
    return TagBattery(device="tags", tag=tag, voltage=voltage, level=level)


def test_a_battery_is_told_when_first_heard_when_it_changed_and_once_a_day() -> None:
    batteries, said = Batteries("tags"), []
    for hour, voltage in ((0, 3.0), (1, 2.95), (2, 2.91), (3, 2.9), (4, 2.85), (26.9, 2.85), (27, 2.85), (28, 2.85)):
        said += [(hour, one.event) for one in batteries.heard(ONE, voltage, None, at(hour * 3600))]
    assert said == [(0, battery(3.0)), (3, battery(2.9)), (27, battery(2.85))]


def test_a_tag_that_says_volts_and_percent_in_turn_is_not_told_in_turn() -> None:
    batteries, said = Batteries("tags"), []
    for second in range(100):
        said += batteries.heard(ONE, 3.0, None, at(second)) + batteries.heard(ONE, None, 90, at(second))
    assert [one.event for one in said] == [battery(3.0), battery(3.0, 90)]
    assert [one.event for one in batteries.heard(ONE, None, 85, at(101))] == [battery(3.0, 85)]


def test_a_tag_that_says_nothing_of_its_battery_is_not_told() -> None:
    assert Batteries("tags").heard(ONE, None, None, at(0)) == []


def test_made_up_batteries_do_not_fill_the_memory() -> None:
    batteries = Batteries("tags")
    for number in range(module.MAX_TAGS + 10):
        batteries.heard(f"ibeacon:made-up:{number}", 3.0, None, at(number))
    assert len(batteries._told) == module.MAX_TAGS


# --- Buttons ------------------------------------------------------------------------------------------


def buttons() -> Buttons:
    return Buttons("tags", {}, at(0))


def pressed(which: Buttons, seconds: float, *presses: str, packet: int | None = None, counter: int | None = None) -> list[str]:
    """The kinds of press that one frame makes known."""
    said = which.heard(ONE, BtHome(packet_id=packet, presses=presses, counter=counter), -60, at(seconds))
    events = [one.event for one in said if isinstance(one.event, ButtonPressed)]
    assert all(one.at == at(seconds) for one in said)
    return [event.press for event in events]


def test_a_press_that_is_repeated_is_one_press() -> None:
    town = buttons()
    assert pressed(town, 1, "press", packet=7) == ["press"]
    assert [pressed(town, second, "press", packet=7) for second in range(2, 60)] == [[]] * 58
    assert pressed(town, 60, "press", packet=8) == ["press"]


def test_a_packet_id_that_comes_round_again_is_a_new_press() -> None:
    town = buttons()
    assert pressed(town, 1, "press", packet=7) == ["press"]
    assert pressed(town, 300, "press", packet=7) == []
    assert pressed(town, 601, "press", packet=7) == ["press"]


def test_without_a_packet_id_a_press_is_the_same_while_it_is_heard_on() -> None:
    town = buttons()
    assert pressed(town, 1, "press") == ["press"]
    assert [pressed(town, 1 + second, "press") for second in range(1, 20)] == [[]] * 19
    assert pressed(town, 21, "double_press") == ["double_press"]
    assert pressed(town, 40, "double_press") == ["double_press"]


def test_a_button_that_rested_in_between_was_pressed_again() -> None:
    town = buttons()
    assert pressed(town, 1, "press") == ["press"]
    assert pressed(town, 2) == []  # its buttons rest
    assert pressed(town, 3, "press") == ["press"]


def test_two_buttons_at_once_are_told_each() -> None:
    assert pressed(buttons(), 1, "press", "long_press", "press", packet=1) == ["press", "long_press"]


def test_a_recording_played_back_rings_nobody_but_a_new_battery_does() -> None:
    town = buttons()
    assert pressed(town, 1, "press", packet=7, counter=5000) == ["press"]
    assert pressed(town, 2, "press", packet=8, counter=4999) == []
    assert pressed(town, 3, "press", packet=1, counter=1) == ["press"]  # the counter began anew


def test_a_child_with_a_button_does_not_fill_the_disk() -> None:
    town = buttons()
    told = [press for second in range(60) for press in pressed(town, second, "press", packet=second)]
    assert len(told) == module.PRESSES
    assert pressed(town, 61, "press", packet=61) == ["press"]


def test_made_up_buttons_do_not_fill_the_disk_nor_silence_a_known_one() -> None:
    """A press is never dropped from a full outbox, and anybody may send a frame with the town's own UUID."""
    town = buttons()
    assert pressed(town, 0, "press", packet=1) == ["press"]
    made_up = [
        event
        for number in range(5000)
        for event in town.heard(f"ibeacon:made-up:{number}", BtHome(packet_id=1, presses=("press",)), -60, at(1 + number / 100))
    ]
    assert len(made_up) < module.NEWCOMERS
    assert town.refused == 5000 - len(made_up)
    assert pressed(town, 52, "press", packet=2) == ["press"]
    later = town.heard("ibeacon:of-a-neighbour:1", BtHome(packet_id=1, presses=("press",)), -60, at(70))
    assert len(later) == 1, "a newcomer is only put off"


def test_after_a_restart_an_old_press_is_still_the_old_one() -> None:
    before = buttons()
    pressed(before, 1, "press", packet=7)
    after_boot = Instant(at(61).utc_us, 5_000_000)
    again = Buttons("tags", before.memory, after_boot)
    assert again.heard(ONE, BtHome(packet_id=7, presses=("press",)), -60, after_boot) == []
    much_later = Buttons("tags", before.memory, Instant(at(7200).utc_us, 5_000_000))
    assert much_later.heard(ONE, BtHome(packet_id=7, presses=("press",)), -60, after_boot)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 400),
            st.one_of(st.none(), st.integers(0, 255)),
            st.one_of(st.none(), st.lists(st.sampled_from(["press", "long_press"]), max_size=2).map(tuple)),
            st.one_of(st.none(), st.integers(0, 2**32 - 1)),
        ),
        max_size=30,
    )
)
def test_no_press_is_made_up_and_the_first_is_always_told(
    frames: list[tuple[float, int | None, tuple[str, ...] | None, int | None]],
) -> None:
    town, now_s, first = buttons(), 0.0, True
    for pause_s, packet, presses, counter in frames:
        now_s += pause_s
        said = town.heard(ONE, BtHome(packet_id=packet, presses=presses, counter=counter), -60, at(now_s))
        kinds = [one.event.press for one in said if isinstance(one.event, ButtonPressed)]
        assert set(kinds) <= set(presses or ())
        if presses and first:
            assert kinds
            first = False
