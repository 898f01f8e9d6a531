import asyncio
import itertools

import pytest
from pydantic import ValidationError

from edge.contract.events import TagEntered, TagLeft, TagSeen
from edge.decoders.advertisement import MAX_LINE
from edge.drivers.ble_tags import BleTags, BleTagsConfig
from edge.errors import DeviceError
from edge.records import Happened, Record, Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener, Wire, values, wire

OURS = b"-67 0201061aff4c0002150f1e2d3c4b5a49788796a5b4c3d2e1f0000101f4c5\n"
OURS_TOO = b"-80 0201060303aafe1716aafe00ec001122334455667788990a0b0c0d0e0f0000\n"
FOREIGN = b"-50 0201061aff4c000215ffffffff4b5a49788796a5b4c3d2e1f0000101f4c5\n"
TAG = "ibeacon:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0:1:500"
TAG_TOO = "eddystone-uid:00112233445566778899:0a0b0c0d0e0f"

UUIDS = {
    "ibeacon_uuids": ["0F1E2D3C-4B5A-4978-8796-A5B4C3D2E1F0"],
    "eddystone_namespaces": ["00112233445566778899"],
}


def receiver(site: Site, port: str, **settings: object) -> Listener:
    config = BleTagsConfig.model_validate({"type": "ble_tags", "port": port} | UUIDS | settings)
    return Listener(BleTags("tags", config, site))


def events(records: list[Record]) -> list[TagEntered | TagSeen | TagLeft]:
    return [
        record.event
        for record in records
        if isinstance(record, Happened) and isinstance(record.event, TagEntered | TagSeen | TagLeft)
    ]


def test_our_tags_enter_and_are_near(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                assert values(await heard.until("tags_near")) == {"heartbeat": 0.0, "tags_near": 0}
                line.send(OURS + OURS_TOO + OURS.replace(b"\n", b"\r\n"))
                assert [await heard.next(), await heard.next()] == [
                    Happened(clock.now(), TagEntered(device="tags", tag=TAG, rssi=-67)),
                    Happened(clock.now(), TagEntered(device="tags", tag=TAG_TOO, rssi=-80)),
                ]
                await clock.advance(59)
                assert heard.so_far() == []
                await clock.advance(1)
                assert values(heard.so_far()) == {"heartbeat": 60.0, "tags_near": 0}  # both left, just now

    asyncio.run(play())


def test_a_tag_that_is_not_heard_any_more_left_when_it_was_heard_last(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                line.send(OURS)
                await heard.until("tag_entered")
                await clock.advance(30)
                heard.so_far()
                last = clock.now()
                line.send(OURS.replace(b"-67", b"-91") + OURS_TOO)
                await heard.until("tag_entered")
                await clock.advance(59)
                assert heard.events() == []
                await clock.advance(1)
                assert heard.events()[0] == Happened(last, TagLeft(device="tags", tag=TAG, rssi=-91))

    asyncio.run(play())


def test_a_tag_that_stays_is_spoken_of_every_two_minutes(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                said: list[Record] = []
                for _ in range(13):
                    said += await deliver(line, heard, OURS)
                    await clock.advance(10)
                said += heard.so_far()
                assert [event for event in events(said) if event.tag == TAG] == [
                    TagEntered(device="tags", tag=TAG, rssi=-67),
                    TagSeen(device="tags", tag=TAG, rssi=-67, frames=11),
                ]

    asyncio.run(play())


def test_what_is_not_ours_is_counted_and_nothing_else(site: Site, clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                other_namespace = OURS_TOO.replace(b"0011223344", b"ffffffffff")
                nothing_at_all = b"-40 020106\n"
                said = await deliver(line, heard, FOREIGN * 3 + other_namespace + nothing_at_all)
                await clock.advance(60)
                said += heard.so_far()
                assert values(said)["frames_foreign"] == 5
                assert "ffffffff" not in repr(said) + caplog.text

    asyncio.run(play())


def test_noise_of_every_kind_is_counted_and_the_next_line_is_read(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                await heard.until("tags_near")
                bad = (
                    b"67 0201061aff4c000215\n",
                    OURS[:-5] + b"\n",  # cut off: the structure runs over the end
                    bytes(range(1, 10)) + bytes(range(11, 256)) + b"\n",
                    "-67 ０２０１\n".encode(),
                    b"\xff\x00\n",
                    OURS[3:],
                    b"A" * (MAX_LINE + 1) + b"\n",
                )
                assert events(await deliver(line, heard, b"".join(bad))) == []
                await clock.advance(60)
                said = values(heard.so_far())
                assert said["frames_bad"] == len(bad)
                assert "frames_foreign" not in said

    asyncio.run(play())


def test_only_the_configured_kind_passes(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, eddystone_namespaces=[]) as heard:
                said = await deliver(line, heard, OURS_TOO + OURS)
                assert events(said) == [TagEntered(device="tags", tag=TAG, rssi=-67)]

    asyncio.run(play())


def test_a_receiver_that_promised_to_speak_and_hangs_makes_nobody_leave(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, silent_after_s=30) as heard:
                await deliver(line, heard, OURS)
                await clock.advance(29)
                assert heard.events() == []
                await clock.advance(1)
                with pytest.raises(DeviceError, match="has been silent for 30 s: it hangs"):
                    heard.so_far()

    asyncio.run(play())


def test_an_empty_line_says_that_the_receiver_is_alive(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, silent_after_s=30, leave_after_s=600) as heard:
                said = await deliver(line, heard, OURS)
                for _ in range(4):
                    await clock.advance(25)
                    said += await deliver(line, heard, b"\n\r\n")
                assert "frames_bad" not in values(said)

    asyncio.run(play())


def test_a_receiver_that_comes_back_begins_with_nobody_near(site: Site) -> None:
    async def play() -> None:
        with wire() as line, wire() as second:
            config = BleTagsConfig.model_validate({"type": "ble_tags", "port": line.port} | UUIDS)
            driver = BleTags("tags", config, site)
            async with Listener(driver) as heard:
                await deliver(line, heard, OURS)
                line.unplug()
                with pytest.raises(DeviceError, match="unplugged"):
                    await heard.next()
            driver = BleTags("tags", config.model_copy(update={"port": second.port}), site)
            async with Listener(driver) as heard:
                said = await deliver(second, heard, OURS)
                assert events(said) == [TagEntered(device="tags", tag=TAG, rssi=-67)]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ibeacon_uuids": ["0f1e2d3c"]}, "ibeacon_uuids"),
        ({"eddystone_namespaces": ["0011"]}, "eddystone_namespaces"),
        ({"ibeacon_uuids": [], "eddystone_namespaces": []}, "every tag is foreign"),
        ({"silent_after_s": 60}, "silent_after_s must be less than leave_after_s"),
        ({"leave_after": 60}, "leave_after"),
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        BleTagsConfig.model_validate({"type": "ble_tags", "port": "/dev/ttyACM0"} | UUIDS | wrong)


_markers = itertools.count(1000)


async def deliver(line: Wire, heard: Listener, data: bytes) -> list[Record]:
    """Sends bytes and waits until the driver has read them all; gives what it said meanwhile.

    A tag of its own is sent behind them, and taken out of the answer.
    """
    minor = next(_markers)
    line.send(data + OURS.replace(b"000101f4c5", f"0001{minor:04x}c5".encode()))
    said: list[Record] = []
    while True:
        record = await heard.next()
        if [event.tag for event in events([record])] == [f"{TAG.removesuffix('500')}{minor}"]:
            return said
        said.append(record)
