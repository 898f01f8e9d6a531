import asyncio

import pytest

from edge.clock import Clock, Instant
from simulators.clock import VirtualClock

START_US = 1_780_434_720_000_000


def test_time_stands_still_until_it_is_moved() -> None:
    async def play() -> None:
        clock: Clock = (moved := VirtualClock(START_US, start_mono_us=5))
        assert clock.now() == Instant(START_US, 5)
        await asyncio.sleep(0.002)
        assert clock.now() == Instant(START_US, 5)
        await moved.advance(1.5)
        assert clock.now() == Instant(START_US + 1_500_000, 1_500_005)

    asyncio.run(play())


def test_sleepers_wake_in_order_each_at_its_own_instant() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, *naps: float) -> None:
            for nap in naps:
                await clock.sleep(nap)
                woken.append((name, clock.now().mono_us / 1e6))

        tasks = [asyncio.create_task(sleeper("c", 3)), asyncio.create_task(sleeper("a", 1, 1, 5))]
        tasks.append(asyncio.create_task(sleeper("b", 2)))
        await clock.advance(2.5)
        # At 2 s, b went to sleep before a did for the second time.
        assert woken == [("a", 1.0), ("b", 2.0), ("a", 2.0)]
        await clock.advance(0.5)
        assert woken[3:] == [("c", 3.0)]
        await clock.advance(4)
        assert woken[4:] == [("a", 7.0)]
        await asyncio.gather(*tasks)

    asyncio.run(play())


def test_a_night_passes_at_once() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                await clock.sleep(60)
                beats += 1

        task = asyncio.create_task(heart())
        await clock.advance(12 * 3600)
        assert beats == 720
        task.cancel()

    asyncio.run(play())


def test_a_sleeper_that_was_cancelled_is_left_alone() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        task = asyncio.create_task(clock.sleep(1))
        await clock.advance(0.5)
        task.cancel()
        await clock.advance(10)
        assert task.cancelled()

    asyncio.run(play())


def test_what_is_woken_runs_on_to_its_next_wait_before_time_moves_on() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        seen: list[Instant] = []

        async def long_way() -> None:
            await clock.sleep(1)
            for _ in range(200):
                await asyncio.create_task(asyncio.sleep(0))
            seen.append(clock.now())

        task = asyncio.create_task(long_way())
        await clock.advance(100)
        assert seen == [Instant(START_US + 1_000_000, 1_000_000)]
        await task

    asyncio.run(play())


def test_no_time_at_all_lets_the_others_run_once() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        ran: list[bool] = []
        asyncio.get_running_loop().call_soon(ran.append, True)
        await clock.sleep(0)
        await clock.sleep(-1)
        assert ran == [True]
        assert clock.now().mono_us == 0

    asyncio.run(play())


def test_a_step_of_the_wall_clock_wakes_nobody_and_time_since_boot_goes_on() -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        task = asyncio.create_task(clock.sleep(10))
        await clock.advance(1)
        clock.step_utc(3_600_000_000)
        assert clock.now() == Instant(START_US + 3_601_000_000, 1_000_000)
        clock.step_utc(-7_200_000_000)
        await clock.advance(8)
        assert not task.done()
        await clock.advance(1)
        assert task.done()
        assert clock.now() == Instant(START_US - 3_590_000_000, 10_000_000)

    asyncio.run(play())


def test_time_since_boot_never_goes_back() -> None:
    async def play() -> None:
        with pytest.raises(ValueError, match="step_utc"):
            await VirtualClock(START_US).advance(-1)

    asyncio.run(play())


def test_a_loop_that_never_waits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        clock = VirtualClock(START_US)
        monkeypatch.setattr("simulators.clock.MAX_ROUNDS", 100)

        async def busy() -> None:
            while True:
                await clock.sleep(0)

        task = asyncio.create_task(busy())
        with pytest.raises(RuntimeError, match="without ever waiting"):
            await clock.advance(1)
        task.cancel()

    asyncio.run(play())
