"""What a node believes of its clock: never before a time it has known, sync only when that is true, and said once."""

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import Clock, Instant
from edge.contract.events import ClockSynced
from edge.errors import DeviceError
from edge.records import Happened
from edge.timekeeper import FILE, LOOK_S, Timekeeper, image_time_us, set_clock_to_floor
from simulators.clock import VirtualClock

SECOND_US, MINUTE_US = 1_000_000, 60_000_000
DAY_US = 24 * 60 * MINUTE_US
TRUE_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z
IMAGE_US = TRUE_US - 300 * DAY_US
BOOT, NEXT_BOOT = "b" * 16, "c" * 16
UPTIME_US = 90 * SECOND_US


class Machine:
    """A Pi: a clock that stands where the test puts it, and the kernel's word on whether something disciplines it."""

    def __init__(
        self, state: Path, off_us: int = 0, *, disciplined: bool = False, boot: str = BOOT, at_us: int = TRUE_US
    ) -> None:
        self.clock = VirtualClock(TRUE_US + off_us, UPTIME_US)
        self.disciplined, self.boot = disciplined, boot
        self.state = state
        self.events: list[ClockSynced] = []
        self.states_at_commit: list[str] = []
        self.start()

    def start(self, clock: Clock | None = None) -> None:
        """The agent starts: what was in its memory is gone."""
        self.keeper = Timekeeper(self.state, self.boot, clock or self.clock, lambda: self.disciplined, image_us=IMAGE_US)

    async def live(self, story: Callable[[], object] | None = None, seconds: float = 2 * LOOK_S) -> None:
        """Runs the keeper as the agent does, lets the story happen, and some time pass; then the agent ends cleanly."""

        async def collect() -> None:
            async with aclosing(self.keeper.records()) as records:  # type: ignore[type-var]  # an async generator
                async for record in records:
                    assert isinstance(record, Happened)
                    assert isinstance(record.event, ClockSynced)
                    self.states_at_commit.append(self.keeper.clock_state())
                    self.events.append(record.event)

        task = asyncio.ensure_future(collect())
        await self.clock.advance(LOOK_S)
        if story is not None:
            story()
        await self.clock.advance(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def run(self, story: Callable[[], object] | None = None, seconds: float = 2 * LOOK_S) -> None:
        asyncio.run(self.live(story, seconds))

    def set(self, by_us: int, *, disciplined: bool) -> None:
        self.clock.step_utc(by_us)
        self.disciplined = disciplined

    @property
    def off_us(self) -> int:
        """How far what the agent believes is from the machine's own clock."""
        return self.keeper.now().utc_us - self.clock.now().utc_us


# ---- never before a time it has known ---------------------------------------------------------------


def test_without_a_battery_time_starts_when_the_image_was_made_and_goes_on_from_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path, -TRUE_US)  # 1970
    assert machine.keeper.now() == Instant(IMAGE_US, UPTIME_US)
    machine.run(seconds=55)
    assert machine.keeper.now().utc_us == IMAGE_US + 60 * SECOND_US


def test_a_version_installed_in_the_middle_of_a_boot_does_not_put_the_clock_ahead(tmp_path: Path) -> None:
    month = VirtualClock(0, UPTIME_US + 30 * DAY_US)
    keeper = Timekeeper(tmp_path / "new", BOOT, month, lambda: False, image_us=IMAGE_US + 30 * DAY_US)
    assert keeper.now().utc_us == IMAGE_US + 30 * DAY_US


def test_the_next_boot_starts_from_the_last_time_that_was_right(tmp_path: Path) -> None:
    Machine(tmp_path, disciplined=True).run(seconds=3600)
    last_us = TRUE_US + 3605 * SECOND_US
    after = Machine(tmp_path, -TRUE_US, boot=NEXT_BOOT)
    assert after.keeper.now().utc_us == last_us + UPTIME_US
    assert after.keeper.clock_state() == "unsync"


def test_a_power_cut_costs_ten_minutes_of_it_at_most(tmp_path: Path) -> None:
    async def cut() -> None:
        machine = Machine(tmp_path, disciplined=True)
        records = machine.keeper.records()
        task = asyncio.ensure_future(anext(records))
        await machine.clock.advance(1)
        await task
        task = asyncio.ensure_future(anext(records))
        await machine.clock.advance(3600)
        kept = (tmp_path / FILE).read_bytes()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (tmp_path / FILE).write_bytes(kept)  # what the card held when the power went

    asyncio.run(cut())
    floor_us = Machine(tmp_path, -TRUE_US, boot=NEXT_BOOT).keeper.now().utc_us - UPTIME_US
    assert TRUE_US + 3600 * SECOND_US - 10 * MINUTE_US - LOOK_S * SECOND_US <= floor_us <= TRUE_US + 3601 * SECOND_US


def test_boots_that_are_never_synced_add_up(tmp_path: Path) -> None:
    Machine(tmp_path, disciplined=True).run()
    for boot in range(3):
        Machine(tmp_path, -TRUE_US, boot=f"{boot:016x}").run(seconds=3600)
    floor_us = Machine(tmp_path, -TRUE_US, boot=NEXT_BOOT).keeper.now().utc_us
    assert floor_us > TRUE_US + 3 * 3600 * SECOND_US


def test_a_clock_a_year_ahead_that_nobody_vouches_for_leaves_no_trace(tmp_path: Path) -> None:
    Machine(tmp_path, disciplined=True).run()
    ahead = Machine(tmp_path, 365 * DAY_US, boot=NEXT_BOOT)
    assert ahead.off_us == 0  # the floor only ever lifts
    ahead.run(seconds=3600)
    after = Machine(tmp_path, -TRUE_US, boot="d" * 16)
    assert after.keeper.now().utc_us < TRUE_US + DAY_US


def test_a_disciplined_clock_is_believed_even_below_the_floor(tmp_path: Path) -> None:
    """The saved time was wrong, e.g. from a lying time server."""
    Machine(tmp_path, 365 * DAY_US, disciplined=True).run()
    after = Machine(tmp_path, boot=NEXT_BOOT)
    assert after.off_us > 364 * DAY_US
    after.run(lambda: after.set(0, disciplined=True))
    assert after.off_us == 0
    assert Machine(tmp_path, -TRUE_US, boot="d" * 16).keeper.now().utc_us < TRUE_US + DAY_US


def test_an_agent_that_starts_anew_in_one_boot_counts_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path, -TRUE_US)
    machine.run(seconds=100)
    before = machine.keeper.now()
    machine.start()
    assert machine.keeper.now() == before


# ---- sync, holdover, unsync -------------------------------------------------------------------------


def test_a_clock_that_is_right_from_the_start_is_said_once_and_is_sync_for_every_record(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disciplined=True)
    assert machine.keeper.clock_state() == "sync"  # other devices may be read before this one
    machine.run(seconds=3600)
    assert machine.events == [ClockSynced(device="clock", boot=BOOT, zero=TRUE_US - UPTIME_US, stepped=0)]


@pytest.mark.parametrize("off_us", [-30 * DAY_US, 365 * DAY_US, -5 * SECOND_US], ids=["-30 days", "+1 year", "-5 s"])
def test_a_clock_that_becomes_right_says_so_and_what_was_read_before_stays_unsync(tmp_path: Path, off_us: int) -> None:
    machine = Machine(tmp_path, off_us)
    assert machine.keeper.clock_state() == "unsync"
    machine.run(lambda: machine.set(-off_us, disciplined=True))
    assert machine.events == [ClockSynced(device="clock", boot=BOOT, zero=TRUE_US - UPTIME_US, stepped=-off_us)]
    assert machine.states_at_commit == ["unsync"]  # what waits in memory is committed with it
    assert machine.keeper.clock_state() == "sync"


def test_what_it_moved_by_is_told_as_records_saw_it_also_when_counting_from_the_floor(tmp_path: Path) -> None:
    machine = Machine(tmp_path, -TRUE_US)
    believed_us = machine.keeper.now().utc_us
    machine.run(lambda: machine.set(TRUE_US, disciplined=True))
    assert machine.events[0].stepped == TRUE_US - believed_us


def test_a_daemon_that_sets_the_clock_first_and_vouches_for_it_later(tmp_path: Path) -> None:
    async def story() -> None:
        machine = Machine(tmp_path, -30 * DAY_US)
        await machine.live(lambda: machine.set(30 * DAY_US, disciplined=False))
        assert (machine.events, machine.keeper.clock_state()) == ([], "unsync")
        await machine.live(lambda: machine.set(0, disciplined=True))
        assert [event.stepped for event in machine.events] == [30 * DAY_US]

    asyncio.run(story())


def test_without_its_server_it_goes_on_in_holdover_and_back_without_a_word(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disciplined=True)
    machine.run(lambda: machine.set(0, disciplined=False))
    assert machine.keeper.clock_state() == "holdover"
    machine.run(lambda: machine.set(-200_000, disciplined=True))  # a fifth of a second of drift
    assert machine.keeper.clock_state() == "sync"
    assert len(machine.events) == 1


@pytest.mark.parametrize("by_us", [-7 * SECOND_US, 3600 * SECOND_US], ids=["back", "forward"])
def test_a_disciplined_clock_that_steps_says_so_again(tmp_path: Path, by_us: int) -> None:
    machine = Machine(tmp_path, disciplined=True)
    machine.run(lambda: machine.set(by_us, disciplined=True))
    assert [(event.zero, event.stepped) for event in machine.events[1:]] == [(TRUE_US + by_us - UPTIME_US, by_us)]


def test_a_clock_set_by_hand_in_holdover_is_not_known_any_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disciplined=True)
    machine.run(lambda: machine.set(0, disciplined=False))
    machine.run(lambda: machine.set(3600 * SECOND_US, disciplined=False))
    assert machine.keeper.clock_state() == "unsync"
    machine.run(seconds=3600)
    assert machine.keeper.clock_state() == "unsync"
    machine.run(lambda: machine.set(-3595 * SECOND_US, disciplined=True))
    assert (machine.keeper.clock_state(), machine.events[-1].stepped) == ("sync", 5 * SECOND_US)


def test_a_clock_set_back_by_hand_in_holdover_is_not_followed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disciplined=True)
    machine.run(lambda: machine.set(0, disciplined=False))
    machine.run(lambda: machine.set(-DAY_US, disciplined=False))
    assert (machine.keeper.clock_state(), machine.off_us) == ("holdover", DAY_US)
    machine.start()
    assert (machine.keeper.clock_state(), machine.off_us) == ("holdover", DAY_US)
    machine.run(lambda: machine.set(DAY_US, disciplined=True))
    assert (machine.keeper.clock_state(), machine.off_us, len(machine.events)) == ("sync", 0, 1)


def test_a_restart_of_the_agent_forgets_none_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disciplined=True)
    machine.run(lambda: machine.set(0, disciplined=False))
    machine.start()
    assert machine.keeper.clock_state() == "holdover"
    machine.run(lambda: machine.set(0, disciplined=True))
    assert (machine.keeper.clock_state(), len(machine.events)) == ("sync", 1)
    machine.disciplined = False
    machine.clock.step_utc(DAY_US)  # while the agent was down
    machine.start()
    assert machine.keeper.clock_state() == "unsync"


def test_a_clock_that_was_wrong_for_a_while_says_when_it_is_right_again(tmp_path: Path) -> None:
    """Else readings that still wait in memory would be committed as those of a right clock."""
    machine = Machine(tmp_path, disciplined=True)
    machine.run()
    machine.set(365 * DAY_US, disciplined=False)  # while the agent was down
    machine.start()
    assert machine.keeper.clock_state() == "unsync"
    machine.run(lambda: machine.set(-365 * DAY_US, disciplined=True))
    assert machine.states_at_commit == ["sync", "unsync"]
    assert machine.events[-1].zero == TRUE_US - UPTIME_US
    assert machine.keeper.clock_state() == "sync"


@pytest.mark.parametrize(("off_us", "state"), [(-DAY_US, "unsync"), (DAY_US, "unsync"), (-30 * SECOND_US, "holdover")])
def test_openssl_may_judge_dates_only_while_the_machines_own_clock_tells_our_time(
    tmp_path: Path, off_us: int, state: str
) -> None:
    """The right time was the gateway's, earlier in this boot: the agent knows it still, the machine never did."""
    Machine(tmp_path, disciplined=True).run()
    machine = Machine(tmp_path)
    wrong = VirtualClock(TRUE_US + off_us, UPTIME_US)
    assert machine.keeper.clock_state() == "holdover"
    assert machine.keeper.machine_state(machine.clock) == "holdover"
    assert machine.keeper.machine_state(wrong) == state


class Torn:
    """A clock that is set between the reading of its two halves, once."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.tear_in = clock, 0

    def now(self) -> Instant:
        now = self.clock.now()
        self.tear_in -= 1
        return now._replace(utc_us=now.utc_us - 2 * SECOND_US) if self.tear_in == 0 else now

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


@pytest.mark.parametrize("tear_in", [1, 2, 3, 4])
def test_a_clock_that_is_set_while_it_is_read_is_read_again(tmp_path: Path, tear_in: int) -> None:
    machine = Machine(tmp_path, disciplined=True)
    torn = Torn(machine.clock)
    machine.start(torn)
    machine.run(lambda: setattr(torn, "tear_in", tear_in))
    assert len(machine.events) == 1


# ---- the file ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200)
    | st.dictionaries(
        st.sampled_from(["boot", "mono_us", "zero_us", "synced"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
    ).map(lambda said: json.dumps(said).encode())
)
def test_whatever_stands_in_the_file_the_agent_starts_and_not_before_its_image(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(content)
        machine = Machine(Path(folder), -TRUE_US)
        assert machine.keeper.now().utc_us >= IMAGE_US
        assert machine.keeper.clock_state() in ("unsync", "holdover")


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(b"\0" * 4096)
    Machine(tmp_path)
    assert f"{tmp_path / FILE} can't be used" in caplog.text


def test_a_folder_that_takes_nothing_is_reported_as_the_devices_fault_and_the_end_is_still_clean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        asyncio.run(anext(machine.keeper.records()))  # type: ignore[arg-type]
    (tmp_path / "gone").mkdir()
    machine.run(lambda: shutil.rmtree(tmp_path / "gone"))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# ---- the machine's own clock ------------------------------------------------------------------------


def test_the_command_sets_the_machines_clock_forward_and_says_so(tmp_path: Path) -> None:
    Machine(tmp_path, disciplined=True).run()
    set_to: list[int] = []
    said = set_clock_to_floor(
        tmp_path, now=lambda: Instant(0, UPTIME_US), disciplined=lambda: False, image_us=IMAGE_US, set_utc_ns=set_to.append
    )
    assert set_to == [(TRUE_US + 15 * SECOND_US + UPTIME_US) * 1000]
    assert said == "the clock said 1970-01-01T00:00:00Z: set forward to 2026-06-02T21:13:45Z, the last time known"


@pytest.mark.parametrize(("utc_us", "disciplined"), [(0, True), (TRUE_US, False)], ids=["disciplined", "ahead"])
def test_the_command_leaves_a_clock_alone_that_may_be_right(tmp_path: Path, utc_us: int, disciplined: bool) -> None:
    set_to: list[int] = []
    said = set_clock_to_floor(
        tmp_path,
        now=lambda: Instant(utc_us, UPTIME_US),
        disciplined=lambda: disciplined,
        image_us=IMAGE_US,
        set_utc_ns=set_to.append,
    )
    assert (set_to, said.endswith("left alone")) == ([], True)


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    def refused(_ns: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(DeviceError, match=r"says 1970.*can't be set: Operation not permitted.*CAP_SYS_TIME"):
        set_clock_to_floor(tmp_path, now=lambda: Instant(0, 0), disciplined=lambda: False, image_us=IMAGE_US, set_utc_ns=refused)


def test_the_image_is_as_old_as_its_newest_file() -> None:
    import edge.timekeeper

    assert image_time_us() >= Path(edge.timekeeper.__file__).stat().st_mtime_ns // 1000
