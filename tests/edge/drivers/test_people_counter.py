import asyncio
import json

import pytest
from pydantic import ValidationError

from edge.clock import Instant
from edge.decoders.terabee import crc8
from edge.drivers.people_counter import PeopleCounter, PeopleCounterConfig
from edge.errors import DeviceError
from edge.records import Reading, Site
from simulators.clock import VirtualClock, settle
from simulators.hardware import counter_frame
from tests.edge.drivers.listening import Listener, values, wire


def counter(site: Site, port: str) -> Listener:
    config = PeopleCounterConfig.model_validate({"type": "people_counter", "port": port, "heartbeat_s": 60})
    return Listener(PeopleCounter("gate-1", config, site))


def test_the_first_good_frame_is_said_in_full_and_at_once(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                start = clock.now()
                await clock.advance(3)
                line.send(bytes.fromhex("aa550100 d2040000 b0040000 740e 8966"))
                now = Instant(start.utc_us + 3_000_000, start.mono_us + 3_000_000)
                assert await heard.until("battery_voltage") == [
                    Reading(now, "gate-1", "heartbeat", 3.0),
                    Reading(now, "gate-1", "count_in", 1234),
                    Reading(now, "gate-1", "count_out", 1200),
                    Reading(now, "gate-1", "counter_resets", 0),
                    Reading(now, "gate-1", "battery_voltage", 3.7),
                ]
                await settle()
                assert heard.so_far() == []

    asyncio.run(play())


def test_a_total_is_said_again_when_it_changed(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(5, 5, 3700))
                await heard.until("battery_voltage")
                line.send(counter_frame(5, 5, 3600) + counter_frame(6, 5, 3600) + counter_frame(6, 7, 3600))
                now = clock.now()
                assert await heard.until("count_out") == [
                    Reading(now, "gate-1", "count_in", 6),
                    Reading(now, "gate-1", "count_out", 7),
                ]

    asyncio.run(play())


def test_a_crowd_says_its_totals_every_five_seconds_and_what_was_said_is_on_the_disk(site: Site, clock: VirtualClock) -> None:
    """Node and counter lose their power together: what was said before must not be said again of other people."""

    def saved() -> int:
        return int(json.loads((site.state / "totals.json").read_text())["in"])

    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(100, 90, 3700))
                await heard.until("battery_voltage")
                line.send(counter_frame(101, 90, 3700))
                assert values(await heard.until("count_in"))["count_in"] == saved() == 101
                for more in range(2, 20):
                    line.send(counter_frame(100 + more, 90, 3700))
                    await settle()
                assert heard.so_far() == []
                await clock.advance(5)
                assert values(heard.so_far())["count_in"] == saved() == 119

    asyncio.run(play())


def test_a_restarted_counter_takes_nobody_back(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(1200, 900, 3700))
                assert values(await heard.until("battery_voltage"))["count_in"] == 1200
                line.send(counter_frame(3, 1, 3700))
                assert values(await heard.until("count_out")) == {"count_in": 1203, "count_out": 901}
                await clock.advance(60)
                assert values(heard.so_far())["counter_resets"] == 1

    asyncio.run(play())


def test_a_counter_that_runs_over_goes_on(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(2**32 - 1, 900, 3700))
                await heard.until("battery_voltage")
                line.send(counter_frame(0, 901, 3700))
                assert values(await heard.until("count_out")) == {"count_in": 2**32, "count_out": 901}

    asyncio.run(play())


def test_who_passed_while_the_agent_was_down_is_counted(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(100, 90, 3700))
                await heard.until("battery_voltage")
            async with counter(site, line.port) as heard:
                line.send(counter_frame(130, 95, 3700))
                assert values(await heard.until("battery_voltage"))["count_in"] == 130

    asyncio.run(play())


def other(site: Site, port: str, **settings: object) -> Listener:
    config = PeopleCounterConfig.model_validate({"type": "people_counter", "port": port, **settings})
    return Listener(PeopleCounter("gate-1", config, site))


def test_a_terabee_lives_by_its_distances_and_counts_by_its_passages(site: Site, clock: VirtualClock) -> None:
    def frame(head: bytes, body: bytes) -> bytes:
        return head + body + bytes([crc8(head + body)])

    async def play() -> None:
        with wire() as line:
            async with other(site, line.port, format="terabee") as heard:
                line.send(frame(b"DD", bytes.fromhex("0708 0703")))
                assert values(await heard.until("counter_resets")) == {
                    "heartbeat": 0.0, "count_in": 0, "count_out": 0, "counter_resets": 0,
                }  # fmt: skip
                line.send(frame(b"PC", bytes.fromhex("00000001 00000002 0005 0003")))
                assert values(await heard.until("count_out")) == {"count_in": 5, "count_out": 3}

    asyncio.run(play())


def test_a_box_that_prints_people_since_its_last_line(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            settings = {"format": "lines", "pattern": r"(?P<in>\d+),(?P<out>\d+)", "counts": "since_last"}
            async with other(site, line.port, **settings) as heard:
                line.send(b"9,9\r\n2,1\r\n")
                assert values(await heard.until("counter_resets"))["count_in"] == 2
                line.send(b"3,0\r\n")
                assert values(await heard.until("count_in"))["count_in"] == 5
            async with other(site, line.port, **settings) as heard:
                line.send(b"\n1,0\r\n")
                assert values(await heard.until("counter_resets"))["count_in"] == 6

    asyncio.run(play())


def test_a_box_that_prints_totals_is_alive_at_once_and_believed_when_its_lines_agree(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            settings = {"format": "lines", "pattern": r"(?P<in>\d+),(?P<out>\d+)"}
            async with other(site, line.port, **settings) as heard:
                line.send(b"\n1050,1000\n")
                assert values(await heard.until("counter_resets")) == {
                    "heartbeat": 0.0, "count_in": 0, "count_out": 0, "counter_resets": 0,
                }  # fmt: skip
                line.send(b"1050,1000\n1050,1000\n")
                assert values(await heard.until("count_out")) == {"count_in": 1050, "count_out": 1000}
                await clock.advance(5)
                line.send(b"1010,1000\n1051,1000\n9051,1000\n1051,1000\n1051,1000\n")
                assert values(await heard.until("count_in")) == {"count_in": 1051}
                await clock.advance(5)
                line.send(b"2,1\n2,1\n2,1\n")
                assert values(await heard.until("count_out")) == {"count_in": 1053, "count_out": 1001}

    asyncio.run(play())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"format": "lines"}, "pattern is missing"),
        ({"format": "lines", "pattern": "("}, "pattern is no regular expression"),
        ({"format": "terabee", "pattern": "(?P<in>x)"}, "are for format"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(settings: dict[str, str], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        PeopleCounterConfig.model_validate({"type": "people_counter", "port": "/dev/x", **settings})


def test_each_heartbeat_says_everything_as_long_as_frames_come(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(5, 5, 3700))
                await heard.until("battery_voltage")
                line.send(counter_frame(6, 5, 3700))
                await heard.until("count_in")
                await clock.advance(60)
                assert values(heard.so_far()) == {
                    "heartbeat": 60.0,
                    "count_in": 6,
                    "count_out": 5,
                    "battery_voltage": 3.7,
                }
                await clock.advance(600)  # the counter has stopped: nothing says that it is alive
                assert heard.so_far() == []

    asyncio.run(play())


def test_a_total_that_changes_with_the_heartbeat_is_said_once(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(5, 5, 3700) + counter_frame(6, 6, 3700))
                said = [(r.metric, r.value) for r in await heard.until("battery_voltage") if isinstance(r, Reading)]
                assert said == [
                    ("heartbeat", 0.0),
                    ("count_in", 6),
                    ("count_out", 6),
                    ("counter_resets", 0),
                    ("battery_voltage", 3.7),
                ]

    asyncio.run(play())


def test_noise_alone_gives_no_heartbeat_but_is_counted(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(5, 5, 3700))
                await heard.until("battery_voltage")
                await clock.advance(60)
                heard.so_far()
                damaged = bytearray(counter_frame(4_000_000, 5, 3700))
                damaged[5] ^= 0x40
                line.send(bytes(damaged) + counter_frame(6, 5, 3700))
                assert values(await heard.until("count_in")) == {"count_in": 6}
                await clock.advance(60)
                assert values(heard.so_far())["frames_bad"] == 1
                await clock.advance(60)
                assert heard.so_far() == []

    asyncio.run(play())


def test_a_mains_counter_has_no_battery_voltage(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(bytes.fromhex("aa550101 07000000 00000000 0000 1eb5"))
                assert values(await heard.until("counter_resets")).keys() == {
                    "heartbeat",
                    "count_in",
                    "count_out",
                    "counter_resets",
                }
                await settle()
                assert heard.so_far() == []

    asyncio.run(play())


def test_an_unplugged_counter_is_said_with_its_port(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port) as heard:
                line.send(counter_frame(5, 5, 3700))
                await heard.until("battery_voltage")
                line.unplug()
                with pytest.raises(DeviceError, match=f"serial port {line.port} was unplugged or fails: .*plug"):
                    await heard.next()

    asyncio.run(play())


def test_a_port_that_is_not_there_is_said_with_what_to_look_at(site: Site) -> None:
    async def play() -> None:
        async with counter(site, "/dev/serial/by-id/none") as heard:
            with pytest.raises(DeviceError, match=r"serial port /dev/serial/by-id/none can't be opened .*plugged in"):
                await heard.next()

    asyncio.run(play())


def test_two_devices_on_one_port_are_refused(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with counter(site, line.port), counter(site, line.port) as second:
                with pytest.raises(DeviceError, match="does nothing else use the port"):
                    await second.next()

    asyncio.run(play())
