"""The invented town: the same for everyone who asks, with causes before effects."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.names import is_name
from simulators import world as module
from simulators.world import DAY_US, HOUR_US, JST_US, MINUTE_US, OPENED_US, SECOND_US, Tag, World

seeds = st.integers(0, 2**32)
times = st.integers(OPENED_US - 10 * DAY_US, OPENED_US + 3000 * DAY_US)
TOWN = World(1)
COUNTERS = [(node.name, d.name) for node in TOWN.nodes() for d in node.devices if d.kind == "people_counter"]
CAMERAS = [(node.name, d.name) for node in TOWN.nodes() for d in node.devices if d.kind == "trail_camera"]
TRAPS = [(node.name, d.name) for node in TOWN.nodes() for d in node.devices if d.kind == "reed_trap"]
RECEIVERS = [(node.name, d.name) for node in TOWN.nodes() for d in node.devices if d.kind == "ble_tags"]
JUNE_US = 1_780_326_000 * SECOND_US  # 2026-06-02 00:00 in Japan


def everything_at(town: World, t_us: int) -> list[object]:
    """Every answer the town can give about one moment."""
    questions: list[Callable[[], object]] = [lambda: town.festival(t_us)]
    questions += [partial(town.trap_is_sprung, *at, t_us) for at in TRAPS]
    questions += [partial(town.counter_totals, *at, t_us) for at in COUNTERS]
    questions += [partial(town.tags_near, *at, t_us) for at in RECEIVERS]
    questions += [partial(town.pictures_between, *at, t_us, t_us + HOUR_US) for at in CAMERAS]
    return [ask() for ask in questions]


# --- the same town ----------------------------------------------------------------------------------


@given(seeds, st.lists(times, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_same_seed_and_time_give_the_same_town_in_any_order_of_asking(
    seed: int, moments: list[int], chance: random.Random
) -> None:
    first = {t_us: everything_at(World(seed), t_us) for t_us in moments}
    module._night.cache_clear()
    module._stays.cache_clear()
    again, shuffled = World(seed), moments[:]
    chance.shuffle(shuffled)
    assert {t_us: everything_at(again, t_us) for t_us in shuffled} == first


def test_the_town_is_the_same_in_another_process() -> None:
    ask = (
        "from simulators.world import *; import hashlib; t = 1780326000000000;"
        "print(hashlib.sha256(repr(World(1).happenings(t, t + 3 * DAY_US)).encode()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", ask],
            env={**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for number in ("1", "2")
    }
    assert len(said) == 1


def test_other_seeds_are_other_towns_with_the_same_places() -> None:
    assert World(1).nodes() == World(2).nodes()
    assert World(1).happenings(JUNE_US, JUNE_US + DAY_US) != World(2).happenings(JUNE_US, JUNE_US + DAY_US)
    assert World(1).beacon_uuid != World(2).beacon_uuid


# --- what stands where ------------------------------------------------------------------------------


def test_eight_nodes_carry_four_kinds_of_device_with_names_that_the_contract_takes() -> None:
    nodes = TOWN.nodes()
    devices = [device for node in nodes for device in node.devices]
    assert len(nodes) == 8
    assert len(devices) == 18
    assert {device.kind for device in devices} == {"reed_trap", "trail_camera", "ble_tags", "people_counter"}
    assert all(is_name(name) for name in [n.name for n in nodes] + [d.name for d in devices])
    assert nodes[0].devices[2] == ("trap-3", "reed_trap", "北尾根", "北尾根 3番")


def test_a_larger_town_repeats_the_valley_with_its_own_life_and_leaves_the_first_as_it_was() -> None:
    large = World(1, scale=3)
    names = [node.name for node in large.nodes()]
    assert len(names) == len(set(names)) == 24
    assert all(is_name(name) for name in names)
    first = large.pictures_between("kitaone", "cam-1", JUNE_US, JUNE_US + 2 * DAY_US)
    assert first == TOWN.pictures_between("kitaone", "cam-1", JUNE_US, JUNE_US + 2 * DAY_US)
    assert first != large.pictures_between("kitaone-2", "cam-1", JUNE_US, JUNE_US + 2 * DAY_US)
    assert len({tag for tag, _ in large.residents()}) == 12


@pytest.mark.parametrize(("node", "device"), [("kitaone", "trap-9"), ("nowhere", "trap-1"), ("kitaone", "cam-1")])
def test_a_device_that_is_not_there_is_named(node: str, device: str) -> None:
    with pytest.raises(LookupError, match=f"no reed_trap '{device}' on a node '{node}'"):
        TOWN.trap_is_sprung(node, device, JUNE_US)


# --- people counters --------------------------------------------------------------------------------


@given(seeds, st.sampled_from(COUNTERS), st.lists(times, min_size=2, max_size=10))
def test_totals_never_get_smaller_and_nobody_leaves_who_did_not_come(seed: int, at: tuple[str, str], moments: list[int]) -> None:
    town = World(seed)
    totals = [town.counter_totals(*at, t_us) for t_us in sorted(moments)]
    for (came, went), (came_later, went_later) in pairwise(totals):
        assert came <= came_later
        assert went <= went_later
    assert all(0 <= went <= came for came, went in totals)


@given(seeds, st.sampled_from(COUNTERS), st.integers(0, 3000), st.integers(0, DAY_US), st.integers(1, HOUR_US))
def test_totals_are_smooth_from_hour_to_hour(seed: int, at: tuple[str, str], day: int, time_us: int, step_us: int) -> None:
    town, t_us = World(seed), OPENED_US + day * DAY_US + time_us
    before, after = town.counter_totals(*at, t_us), town.counter_totals(*at, t_us + step_us)
    assert all(0 <= new - old <= 3000 for old, new in zip(before, after, strict=True))


@given(seeds, st.sampled_from(COUNTERS), st.integers(0, 3000))
def test_at_night_everybody_has_gone_home(seed: int, at: tuple[str, str], day: int) -> None:
    came, went = World(seed).counter_totals(*at, OPENED_US + day * DAY_US + 3 * HOUR_US)
    assert came == went


def test_before_the_counters_were_installed_nobody_was_counted() -> None:
    assert TOWN.counter_totals("hiroba", "counter-east", OPENED_US - 1) == (0, 0)
    assert TOWN.counter_totals("hiroba", "counter-east", OPENED_US) == (0, 0)
    assert TOWN.counter_totals("hiroba", "counter-east", OPENED_US + DAY_US)[0] > 100


def test_the_festival_fills_the_square_on_saturday_evening() -> None:
    begin_us, end_us = TOWN.festival(JUNE_US)
    assert (begin_us + JST_US) // DAY_US % 7 == 2  # 1970-01-01 was a Thursday
    assert (end_us - begin_us) == 5 * HOUR_US

    def there(t_us: int) -> int:
        return sum(
            came - went for came, went in (TOWN.counter_totals("hiroba", d, t_us) for d in ("counter-east", "counter-south"))
        )

    assert there(begin_us + 3 * HOUR_US) > 2500 > 20 * there(begin_us - DAY_US + 3 * HOUR_US)
    assert there(end_us) == 0


@given(times)
def test_the_next_festival_has_not_ended_and_is_within_a_week(t_us: int) -> None:
    begin_us, end_us = TOWN.festival(t_us)
    assert t_us < end_us
    assert begin_us <= t_us + 7 * DAY_US


# --- the mountain -----------------------------------------------------------------------------------


@given(seeds, st.integers(0, 3000))
def test_every_sprung_trap_holds_an_animal_that_the_camera_beside_it_saw(seed: int, day: int) -> None:
    town, noon_us = World(seed), OPENED_US + day * DAY_US + DAY_US // 2
    cameras = dict(CAMERAS)
    night = town.happenings(noon_us, noon_us + DAY_US)
    for sprung in (h for h in night if h.kind == "trap_sprung"):
        near = town.pictures_between(sprung.node, cameras[sprung.node], sprung.t_us - MINUTE_US, sprung.t_us)
        assert sprung.what in {what for _, what in near}
        (reset,) = (h for h in night if (h.kind, h.node, h.device) == ("trap_reset", sprung.node, sprung.device))
        assert reset.t_us - sprung.t_us > HOUR_US
        for t_us, closed in [
            (sprung.t_us - 1, False),
            (sprung.t_us, True),
            (reset.t_us - 1, True),
            (reset.t_us, False),
        ]:
            assert town.trap_is_sprung(sprung.node, sprung.device, t_us) is closed


def test_a_caught_animal_goes_no_further() -> None:
    both_caught = 0
    for day in range(100):
        noon_us = JUNE_US + day * DAY_US + DAY_US // 2
        night = TOWN.happenings(noon_us, noon_us + DAY_US)
        for animal in ("wild-boar", "deer"):  # of which there are two each
            caught_us = [h.t_us for h in night if (h.kind, h.what) == ("trap_sprung", animal)]
            assert len(caught_us) <= 2
            if len(caught_us) == 2:
                both_caught += 1
                last_us = max(h.t_us for h in night if (h.kind, h.what) == ("picture", animal))
                assert last_us < max(caught_us) + MINUTE_US
    assert both_caught > 5


@given(seeds, st.sampled_from(TRAPS), times)
def test_a_trap_never_springs_by_day(seed: int, at: tuple[str, str], t_us: int) -> None:
    time_of_day_us = (t_us + JST_US) % DAY_US
    if 10 * HOUR_US <= time_of_day_us < 18 * HOUR_US:
        assert not World(seed).trap_is_sprung(*at, t_us)


def test_most_nights_a_trap_springs_somewhere() -> None:
    sprung = [h for h in TOWN.happenings(JUNE_US, JUNE_US + 30 * DAY_US) if h.kind == "trap_sprung"]
    assert 20 < len(sprung) < 120
    assert {(h.node, h.device) for h in sprung} == set(TRAPS)


def test_a_picture_belongs_to_the_span_that_begins_with_it() -> None:
    (first, *_) = whole = TOWN.pictures_between("kitaone", "cam-1", JUNE_US, JUNE_US + 3 * DAY_US)
    assert TOWN.pictures_between("kitaone", "cam-1", JUNE_US, first[0]) == []
    assert TOWN.pictures_between("kitaone", "cam-1", first[0], JUNE_US + 3 * DAY_US) == whole


@given(seeds, st.sampled_from(CAMERAS), st.lists(times, min_size=3, max_size=3))
def test_pictures_of_two_spans_are_those_of_the_whole_none_twice(seed: int, at: tuple[str, str], moments: list[int]) -> None:
    town = World(seed)
    start, middle, end = (OPENED_US + t_us % (4 * DAY_US) for t_us in sorted(t % (4 * DAY_US) for t in moments))
    whole = town.pictures_between(*at, start, end)
    assert town.pictures_between(*at, start, middle) + town.pictures_between(*at, middle, end) == whole
    assert whole == sorted(whole)


# --- watch tags -------------------------------------------------------------------------------------


@given(seeds, times)
def test_a_tag_is_at_one_place_at_a_time(seed: int, t_us: int) -> None:
    town = World(seed)
    heard = [tag for at in RECEIVERS for tag, _ in town.tags_near(*at, t_us)]
    assert len(heard) == len(set(heard))


@given(seeds, times, st.sampled_from(RECEIVERS))
def test_a_signal_is_as_strong_as_a_radio_can_tell(seed: int, t_us: int, at: tuple[str, str]) -> None:
    assert all(-100 <= rssi <= -40 for _, rssi in World(seed).tags_near(*at, t_us))


def test_the_wanderer_leaves_home_at_night_and_passes_the_bridge() -> None:
    (tag,) = TOWN.wanderers()
    month = TOWN.happenings(JUNE_US, JUNE_US + 30 * DAY_US)
    out = [h for h in month if h.kind == "tag_left" and h.what == tag.name and h.node == "tsubaki"]
    at_night = [h for h in out if 2 * HOUR_US < (h.t_us + JST_US) % DAY_US < 3 * HOUR_US]
    assert 5 < len(at_night) < 25
    left = at_night[0]
    minutes = [left.t_us + n * MINUTE_US for n in range(-10, 90)]
    heard_at = {
        node: [t for t in minutes if tag in dict(TOWN.tags_near(node, "tags", t))]
        for node in ("tsubaki", "kannonbashi", "momiji")
    }
    assert min(heard_at["tsubaki"]) < left.t_us < min(heard_at["kannonbashi"]) < max(heard_at["tsubaki"])
    assert heard_at["momiji"] == []


def test_the_others_sleep_at_home() -> None:
    homes = {tag: home for tag, home in TOWN.residents() if tag not in TOWN.wanderers()}
    for day in range(20):
        for node, device in RECEIVERS:
            for tag, _ in TOWN.tags_near(node, device, JUNE_US + day * DAY_US + 3 * HOUR_US):
                assert homes.get(tag, node) == node


def test_strangers_at_the_festival_carry_beacons_that_are_not_ours() -> None:
    begin_us, _ = TOWN.festival(JUNE_US)
    heard = TOWN.tags_near("hiroba", "tags", begin_us + 2 * HOUR_US)
    ours = {tag for tag, _ in TOWN.residents()}
    foreign = [tag for tag, _ in heard if tag not in ours]
    assert foreign
    assert all(tag.identity[:16] != TOWN.beacon_uuid.bytes for tag in foreign)


def test_a_tags_name_is_written_as_the_records_write_it() -> None:
    beacon = Tag("ibeacon", bytes.fromhex("00112233445566778899aabbccddeeff" + "0102" + "ff00"))
    assert beacon.name == "ibeacon:00112233-4455-6677-8899-aabbccddeeff:258:65280"
    eddystone = Tag("eddystone-uid", bytes.fromhex("00112233445566778899" + "aabbccddeeff"))
    assert eddystone.name == "eddystone-uid:00112233445566778899:aabbccddeeff"


# --- all that happened ------------------------------------------------------------------------------


@given(seeds, st.integers(0, 3 * DAY_US), st.integers(0, DAY_US), st.integers(0, DAY_US))
def test_what_happened_in_two_spans_is_what_happened_in_the_whole(seed: int, start: int, first: int, second: int) -> None:
    town, t0_us = World(seed, scale=2), JUNE_US + start
    t1_us, t2_us = t0_us + first, t0_us + first + second
    whole = town.happenings(t0_us, t2_us)
    assert sorted(town.happenings(t0_us, t1_us) + town.happenings(t1_us, t2_us)) == whole
    assert all(t0_us <= happening.t_us < t2_us for happening in whole)


def test_happenings_and_the_devices_tell_the_same_story() -> None:
    week = TOWN.happenings(JUNE_US, JUNE_US + 7 * DAY_US)
    for node, camera in CAMERAS:
        told = [(h.t_us, h.what) for h in week if h.kind == "picture" and (h.node, h.device) == (node, camera)]
        assert told == TOWN.pictures_between(node, camera, JUNE_US, JUNE_US + 7 * DAY_US)
    for happening in week:
        if happening.kind in {"tag_entered", "tag_left"}:
            here = [
                {tag.name for t_us in span for tag, _ in TOWN.tags_near(happening.node, "tags", t_us)}
                for span in (
                    range(happening.t_us - 60 * SECOND_US, happening.t_us, SECOND_US),
                    range(happening.t_us, happening.t_us + 60 * SECOND_US, SECOND_US),
                )
            ]
            before, after = (happening.what in heard for heard in here)
            assert (before, after) == ((False, True) if happening.kind == "tag_entered" else (True, False))
