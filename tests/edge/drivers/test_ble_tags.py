import asyncio
import binascii
import gc
import itertools
from collections import deque
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from pydantic import ValidationError

from edge.contract.events import ButtonPressed, TagBattery, TagEntered, TagLeft, TagSeen
from edge.decoders.advertisement import MAX_LINE
from edge.drivers import ble_tags
from edge.drivers.ble_tags import BleTags, BleTagsConfig
from edge.errors import DeviceError
from edge.records import Happened, Record, Site
from simulators.clock import VirtualClock, settle
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


# --- Every kind of tag -------------------------------------------------------------------------------

ALTBEACON = b"-71 1bff1801beac00112233445566778899aabbccddeeff00010002c500\n"
EID = b"-72 0303aafe0d16aafe30ec0123456789abcdef\n"
TLM = b"-60 0303aafe1116aafe20000bb8160000000001000000640000\n"
WHO, STRANGER = b"c0ffee000001", b"4a1122334455"


def by(address: bytes, line: bytes) -> bytes:
    """A line that also says who sent it."""
    return line.rstrip(b"\n") + b" " + address + b"\n"


def bthome(objects: str, information: str = "40", rssi: int = -55) -> bytes:
    data = bytes.fromhex(information + objects)
    return f"{rssi} {len(data) + 3:02x}16d2fc{data.hex()}\n".encode()


def test_an_altbeacon_of_the_town_enters(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, altbeacon_ids=["0118:00112233445566778899AABBCCDDEEFF"]) as heard:
                other_company, other_group = ALTBEACON.replace(b"1801", b"4c00"), ALTBEACON.replace(b"00112233", b"ff112233")
                said = await deliver(line, heard, ALTBEACON + other_company + other_group)
                tag = "altbeacon:0118:00112233445566778899aabbccddeeff00010002"
                assert events(said) == [TagEntered(device="tags", tag=tag, rssi=-71)]

    asyncio.run(play())


def test_a_rotating_tag_is_known_while_the_gateway_expects_it(site: Site, clock: VirtualClock) -> None:
    expected = {bytes.fromhex("0123456789abcdef"): "tag-9"}
    site = site._replace(expected=lambda now: expected if now.mono_us < 100_000_000 else {})

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                said = await deliver(line, heard, EID.replace(b"0123", b"ffff") + EID)
                assert events(said) == [TagEntered(device="tags", tag="eid:tag-9", rssi=-72)]
                await clock.advance(60)
                left = [event for event in events(heard.so_far()) if event.tag == "eid:tag-9"]
                assert [event.type for event in left] == ["tag_left"]
                assert events(await deliver(line, heard, EID)) == []

    asyncio.run(play())


def test_a_battery_is_told_of_the_tag_that_uses_the_address(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                said = await deliver(line, heard, by(WHO, TLM) + by(WHO, OURS) + by(STRANGER, TLM) + by(WHO, TLM) * 3 + TLM)
                told = [record.event for record in said if isinstance(record, Happened)]
                assert told == [
                    TagEntered(device="tags", tag=TAG, rssi=-67),
                    TagBattery(device="tags", tag=TAG, voltage=3.0, level=None),
                ]

    asyncio.run(play())


def test_an_address_stands_for_a_tag_for_a_minute_only(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                await deliver(line, heard, by(WHO, OURS))
                await clock.advance(60)
                heard.so_far()
                said = await deliver(line, heard, by(WHO, TLM))
                assert [record.event for record in said if isinstance(record, Happened)] == []

    asyncio.run(play())


NAMED = {"bthome_tags": {"tag-7": {"address": "C0:FF:EE:00:00:01"}}}
PRESS = ButtonPressed(device="tags", tag="bthome:tag-7", press="press", rssi=-55)


def presses(records: list[Record]) -> list[ButtonPressed]:
    return [record.event for record in records if isinstance(record, Happened) and isinstance(record.event, ButtonPressed)]


def test_a_button_rings_once_before_anything_else_is_said(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **NAMED) as heard:
                pressed = by(WHO, bthome("0007 015a 3a01"))
                said = await deliver(line, heard, pressed * 20 + by(STRANGER, bthome("0001 3a01")))
                assert [record.event for record in said if isinstance(record, Happened)] == [
                    PRESS,
                    TagBattery(device="tags", tag="bthome:tag-7", voltage=None, level=90),
                    TagEntered(device="tags", tag="bthome:tag-7", rssi=-55),
                ]
                assert presses(await deliver(line, heard, by(WHO, bthome("0008 3a01")))) == [PRESS]

    asyncio.run(play())


def test_a_press_is_not_told_again_after_a_restart(site: Site) -> None:
    pressed = by(WHO, bthome("0007 3a01"))

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **NAMED) as heard:
                assert presses(await deliver(line, heard, pressed)) == [PRESS]
            async with receiver(site, line.port, **NAMED) as heard:
                assert presses(await deliver(line, heard, pressed + by(WHO, bthome("0008 3a04")))) == [
                    PRESS.model_copy(update={"press": "long_press"})
                ]

    asyncio.run(play())


def test_a_damaged_memory_of_presses_stops_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (site.state / "pressed.json").write_bytes(b"\x00\xff")

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **NAMED) as heard:
                assert presses(await deliver(line, heard, by(WHO, bthome("0007 3a01")))) == [PRESS]

    asyncio.run(play())
    assert "pressed.json can't be read" in caplog.text


KEY = bytes.fromhex("000102030405060708090a0b0c0d0e0f")


def sealed(objects: str, counter: int, key: bytes = KEY) -> bytes:
    count = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(WHO.decode()) + b"\xd2\xfc\x41" + count
    content = AESCCM(key, tag_length=4).encrypt(nonce, bytes.fromhex(objects), None)
    return by(WHO, bthome((content[:-4] + count + content[-4:]).hex(), "41"))


def test_a_tag_with_a_key_is_believed_only_when_sealed_with_it(site: Site, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY.hex() + "\n", encoding="ascii")
    named = {"bthome_tags": {"tag-7": {"address": "C0FFEE000001", "key_file": str(key_file)}}}

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **named) as heard:
                forged = by(WHO, bthome("0001 3a01")) + sealed("0002 3a01", 500, bytes(16))
                assert presses(await deliver(line, heard, forged)) == []
                assert presses(await deliver(line, heard, sealed("0003 3a01", 500))) == [PRESS]
                played_back = sealed("0002 3a01", 499)
                assert presses(await deliver(line, heard, played_back)) == []
                assert presses(await deliver(line, heard, sealed("0004 3a01", 501))) == [PRESS]

    asyncio.run(play())


def test_what_a_beacon_seals_and_nobody_can_open_says_nothing(site: Site) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                beacon = OURS.rstrip(b"\n") + b" " + WHO + b"\n"
                said = await deliver(line, heard, beacon + sealed("0003 015a 3a01", 500))
                assert [type(record.event) for record in said if isinstance(record, Happened)] == [TagEntered]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("content", "says"), [(None, "can't be read"), ("00112233", "no key of 32 hex digits"), ("tag", "can't")]
)
def test_a_key_that_can_not_be_used_is_named(site: Site, tmp_path: Path, content: str | None, says: str) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_text(content, encoding="ascii")
    named = {"bthome_tags": {"tag-7": {"address": "C0FFEE000001", "key_file": str(key_file)}}}

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **named) as heard:
                with pytest.raises(DeviceError, match=rf"bthome_tags\.tag-7\.key_file.*{says}"):
                    await heard.next()

    asyncio.run(play())


# --- Passers-by ---------------------------------------------------------------------------------------


def test_nothing_of_a_stranger_is_kept_anywhere(site: Site, clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what is told, nor in the log, nor in the state folder, nor in any object that the program still holds."""
    secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e"
    strangers = b"".join(
        by(STRANGER, line)
        for line in (
            f"-50 1aff4c000215{secret}0000101f4c5\n".replace("0000101f4c5", "000101f4c5").encode(),
            f"-50 1716aafe00ec{secret[:20]}0a0b0c0d0e0f0000\n".encode(),
            f"-50 0d16aafe30ec{secret[:16]}\n".encode(),
            f"-50 1bff1801beac{secret}00010002c500\n".encode(),
            TLM,
            bthome("0001 3a01"),
        )
    )

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port, **NAMED) as heard:
                said = await deliver(line, heard, strangers)
                await clock.advance(60)
                said += heard.so_far()
                assert values(said)["frames_foreign"] == 6
                told = repr(said) + caplog.text + "".join(path.read_text() for path in site.state.iterdir())
                assert "5ec2e7" not in told
                assert STRANGER.decode() not in told
                line.send(strangers)  # and once more, with nobody behind them
                while values(said).get("frames_foreign") != 12:
                    await clock.advance(60)
                    said += [await heard.next()]
                assert _held(bytes.fromhex(secret)[:8], STRANGER.decode()) == []

    asyncio.run(play())


def _held(content: bytes, address: str) -> list[object]:
    """What of these bytes or this address stands in any container or any object of the project."""
    gc.collect()
    containers = (dict, list, tuple, set, deque)
    parts = [
        part
        for one in gc.get_objects()
        if isinstance(one, containers) or str(type(one).__module__).startswith("edge.")
        for part in gc.get_referents(one)
    ]
    return [
        part
        for part in parts
        if (isinstance(part, bytes | bytearray) and content in part) or (isinstance(part, str) and part == address)
    ]


# --- The checksum of a receiver's line ----------------------------------------------------------------


def checked(line: bytes) -> bytes:
    text = line.rstrip(b"\n")
    return text + f" {binascii.crc_hqx(text, 0xFFFF):04x}\n".encode()


def test_once_a_receiver_sends_checksums_a_line_without_one_is_damaged(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                line.send(OURS + checked(by(WHO, OURS_TOO)))
                assert [event.tag for event in events([await _event(heard), await _event(heard)])] == [TAG, TAG_TOO]
                third = OURS.replace(b"01f4", b"01f5")
                line.send(third + checked(third).replace(b"01f5", b"01f6") + checked(OURS.replace(b"01f4", b"01f7")))
                assert [event.tag for event in events([await _event(heard)])] == [TAG.replace(":500", ":503")]
                await clock.advance(60)
                assert values(heard.so_far())["frames_bad"] == 2

    asyncio.run(play())


async def _event(heard: Listener) -> Record:
    while not isinstance(record := await heard.next(), Happened):
        pass
    return record


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ibeacon_uuids": ["0f1e2d3c"]}, "ibeacon_uuids"),
        ({"eddystone_namespaces": ["0011"]}, "eddystone_namespaces"),
        ({"altbeacon_ids": ["0118:0011"]}, "altbeacon_ids"),
        ({"adapter": "hci0"}, "give either adapter .* or port"),
        ({"port": None}, "give either adapter .* or port"),
        ({"port": None, "adapter": "/dev/hci0"}, "adapter"),
        ({"bthome_tags": {"tag-7": {"address": "C0:FF:EE:00:00"}}}, "bthome_tags.tag-7.address"),
        ({"bthome_tags": {"tag-7": {"address": "C0FFEE000001"}, "tag-8": {"address": "c0:ff:ee:00:00:01"}}}, "the same address"),
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


def test_a_busy_street_wakes_the_processor_twenty_times_a_second(
    site: Site, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not once for each advertisement, of which a small Pi could not take in a thousand a second."""
    monkeypatch.setattr(ble_tags, "GATHER_S", 0.05)

    async def play() -> None:
        with wire() as line:
            async with receiver(site, line.port) as heard:
                heard.so_far()
                line.send(OURS)
                await settle()
                line.send(OURS_TOO)
                await settle()
                first = heard.so_far()
                await clock.advance(0.05)
                assert first == []
                assert [event.tag for event in events(heard.so_far())] == [TAG, TAG_TOO]

    asyncio.run(play())
