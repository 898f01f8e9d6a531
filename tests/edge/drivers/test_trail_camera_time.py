"""The camera's clock against the node's, and what belongs to one burst."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drivers.camera_clock import AGREE_S, CameraClock
from edge.errors import DeviceError
from edge.records import Site
from simulators.clock import VirtualClock
from tests.edge.drivers.trail_pictures import camera, captured, exif_time, picture, write

DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "card"
    made.mkdir()
    return made


class Trigger:
    """A camera whose clock is off, and that writes a picture into the folder a moment after it took it."""

    def __init__(self, clock: VirtualClock, folder: Path, off_s: int) -> None:
        self._clock, self._folder, self.off_s, self._number = clock, folder, off_s, 0

    def shoot(self, late_s: int = 0, written_late_s: int = 0) -> None:
        """Takes a picture `late_s` ago; the file was written `written_late_s` ago."""
        self._number += 1
        now_us = self._clock.now().utc_us
        content = picture((self._number, 0, 0), exif_time(now_us + (self.off_s - late_s) * 1_000_000))
        write(self._folder / f"IMG_{self._number:04}.jpg", content, now_us - written_late_s * 1_000_000)


def test_the_cameras_clock_is_known_after_three_live_pictures(site: Site, clock: VirtualClock, folder: Path) -> None:
    trigger = Trigger(clock, folder, off_s=-3 * 3600)

    async def play() -> list[int | None]:
        async with camera(site, folder) as heard:
            for _ in range(4):
                await clock.advance(1799)
                trigger.shoot(late_s=10)
                await clock.advance(6)
            return [event.camera_offset_s for event in captured(heard.so_far())]

    unknown, unknown_too, *known = asyncio.run(play())
    assert (unknown, unknown_too) == (None, None)
    assert [offset is not None and abs(offset + 3 * 3600 + 10) <= 2 for offset in known] == [True, True]

    async def after_a_restart() -> int | None:
        async with camera(site, folder) as heard:
            await clock.advance(100)
            trigger.shoot(late_s=10)
            await clock.advance(6)
            [event] = captured(heard.so_far())
            return event.camera_offset_s

    offset = asyncio.run(after_a_restart())
    assert offset is not None
    assert abs(offset + 3 * 3600 + 10) <= 2


def test_the_cameras_times_are_of_the_zone_that_is_set(site: Site, clock: VirtualClock, folder: Path) -> None:
    trigger = Trigger(clock, folder, off_s=0)

    async def play() -> int | None:
        async with camera(site, folder, time_zone="America/New_York") as heard:
            for _ in range(3):
                await clock.advance(200)
                trigger.shoot()
                await clock.advance(6)
            return captured(heard.so_far())[-1].camera_offset_s

    offset = asyncio.run(play())  # the pictures' times are Japan's
    assert offset is not None
    assert abs(offset - 13 * 3600) <= 2


def test_a_card_brought_home_days_later_says_nothing(site: Site, clock: VirtualClock, folder: Path) -> None:
    trigger = Trigger(clock, folder, off_s=0)
    for days in (5, 4, 3, 2):
        trigger.shoot(late_s=days * DAY, written_late_s=0)

    async def play() -> None:
        async with camera(site, folder) as heard:
            await clock.advance(10)
            said = captured(heard.so_far())
            for days in (5, 4, 3, 2, 1):  # copied into the folder by hand, one after the other, with their own times
                trigger.shoot(late_s=days * DAY, written_late_s=days * DAY)
                await clock.advance(100)
            for days in (5, 4, 3, 2, 1):  # ... or all at once, as if just written
                trigger.shoot(late_s=days * DAY)
            await clock.advance(100)
            said += captured(heard.so_far())
            assert len(said) == 14
            assert {event.camera_offset_s for event in said} == {None}

    asyncio.run(play())


def test_what_lay_in_the_folder_when_it_was_opened_says_nothing(site: Site, clock: VirtualClock, folder: Path) -> None:
    trigger = Trigger(clock, folder, off_s=0)

    async def one_visit() -> list[int | None]:
        trigger.shoot(late_s=5 * DAY)  # copied in while the agent was not running
        async with camera(site, folder) as heard:
            await clock.advance(100)
            return [event.camera_offset_s for event in captured(heard.so_far())]

    assert [asyncio.run(one_visit()) for _ in range(4)] == [[None]] * 4


def test_while_the_nodes_own_clock_is_not_right_nothing_is_said(site: Site, clock: VirtualClock, folder: Path) -> None:
    trigger = Trigger(clock, folder, off_s=-100)
    state = "holdover"

    async def play() -> list[int | None]:
        nonlocal state
        async with camera(site._replace(clock_state=lambda: state), folder) as heard:
            for number in range(8):
                if number == 4:
                    state = "sync"
                await clock.advance(200)
                trigger.shoot()
                await clock.advance(6)
            return [event.camera_offset_s for event in captured(heard.so_far())]

    *before, known, known_too = asyncio.run(play())
    assert before == [None] * 6
    assert known is not None
    assert abs(known + 100) <= 2
    assert known_too is not None


@given(st.lists(st.integers(-5, 0), min_size=3, max_size=20), st.integers(-(10**8), 10**8), st.integers(-(10**8), 10**8))
def test_one_absurd_time_among_good_ones_changes_nothing(late_s: list[int], off_s: int, absurd_s: int) -> None:
    known = CameraClock([])
    for number, late in enumerate([*late_s, *late_s]):
        known.saw(number * 1000 + off_s + late, number * 1000, number * 1000)
    known.saw(absurd_s, 50_000, 50_000)
    offset = known.offset_s()
    assert offset is not None
    assert off_s - 5 <= offset <= off_s


def test_a_camera_that_is_set_is_known_anew_and_in_between_not_at_all() -> None:
    known = CameraClock([3600] * 9)
    said = []
    for number in range(4):
        known.saw(number * 1000 - 7, number * 1000, number * 1000)
        said.append(known.offset_s())
    assert said == [3600, None, -7, -7]


def test_of_pictures_that_come_together_the_newest_counts() -> None:
    known = CameraClock([])
    for arrival in range(3):
        for taken_s in (0, 20, 40):  # sent together at 45
            known.saw(arrival * 10_000 + taken_s, arrival * 10_000 + 45, arrival * 10_000 + taken_s / 100)
    assert known.offset_s() == -5


def test_pictures_that_waited_for_the_link_together_say_nothing() -> None:
    known = CameraClock([])
    for arrival in range(5):
        for taken_s in (0, 2000, 3000):
            known.saw(arrival * 10_000 + taken_s, arrival * 10_000 + 7000, arrival * 10_000 + taken_s / 100)
    assert known.offset_s() is None


def test_arrivals_that_do_not_agree_say_nothing() -> None:
    known = CameraClock([])
    for number in range(9):
        known.saw(number * 10_000 + number * 2 * AGREE_S, number * 10_000, number * 10_000)
    assert known.offset_s() is None


def test_a_zone_that_is_none_is_said(site: Site, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, time_zone="Asia/Kitayama") as heard:
            with pytest.raises(DeviceError, match="time_zone: 'Asia/Kitayama' is not known here"):
                await heard.next()

    asyncio.run(play())


# --- Bursts -----------------------------------------------------------------------------------------


def bursts(site: Site, clock: VirtualClock, folder: Path, times: list[str], **settings: object) -> list[str | None]:
    """The bursts of pictures taken at these times of 3 June, told in this order."""

    async def play() -> list[str | None]:
        async with camera(site, folder, **settings) as heard:
            for number, taken in enumerate(times):
                content = picture((number, 50, 50), f"2026:06:03 {taken}" if taken else None)
                write(folder / f"IMG_{number:04}.jpg", content, clock.now().utc_us + number * 1_000_000)
            await clock.advance(10)
            return [event.burst for event in captured(heard.so_far())]

    return asyncio.run(play())


def test_pictures_close_together_by_the_cameras_clock_are_one_burst(site: Site, clock: VirtualClock, folder: Path) -> None:
    told = bursts(site, clock, folder, ["06:12:00", "06:12:01", "06:12:05", "06:20:00", "06:20:02", "06:12:03", ""])
    assert told[0] is not None
    assert told[:3] == [told[0]] * 3
    assert told[3] == told[4] not in (told[0], None)
    assert told[5] == told[0]  # one that came late belongs to its own burst
    assert told[6] is None  # a picture without a time belongs to none


def test_the_same_pictures_give_the_same_burst_and_another_camera_another(
    site: Site, clock: VirtualClock, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    times = ["06:12:00", "06:12:01"]
    one = bursts(site, clock, folder, times)
    assert bursts(site._replace(state=tmp_path / "again"), clock, folder, times) == one


def test_pictures_for_an_hour_are_many_bursts(site: Site, clock: VirtualClock, folder: Path) -> None:
    told = bursts(site, clock, folder, [f"06:{minute:02}:{second:02}" for minute in range(4) for second in range(0, 60, 4)])
    assert len(set(told)) == 4


def test_a_burst_goes_on_after_a_restart(site: Site, clock: VirtualClock, folder: Path) -> None:
    first = bursts(site, clock, folder, ["06:12:00"])
    assert bursts(site, clock, folder, ["", "06:12:02"])[-1:] == first
