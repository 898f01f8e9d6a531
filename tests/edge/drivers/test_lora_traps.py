import asyncio
import json
import os
import re
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.clock import Instant
from edge.contract.events import TamperClosed, TamperOpened, TrapMoved, TrapReset, TrapSprung
from edge.drivers.lora_traps import MAX_TRAPS, LoraTraps, LoraTrapsConfig
from edge.drivers.paced import BURST
from edge.errors import DeviceError
from edge.records import Happened, Reading, Record, Site
from simulators import lora
from simulators.clock import VirtualClock, settle
from tests.edge.drivers.listening import Listener, Wire, said, values, wire

KEY = bytes(range(16))
OTHER_KEY = bytes(range(1, 17))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "traps.key").write_text(KEY.hex() + "\n")
    (tmp_path / "other.key").write_text(OTHER_KEY.hex().upper())
    return tmp_path


@pytest.fixture
def line() -> Iterator[Wire]:
    with wire() as one:
        yield one


def receiver(site: Site, line: Wire, keys: Path, **settings: object) -> Listener:
    config = LoraTrapsConfig.model_validate(
        {
            "type": "lora_traps",
            "port": line.port,
            "key_file": keys / "traps.key",
            "trap": {"trap-21": {"address": 1}, "trap-22": {"address": 2}},
        }
        | settings
    )
    return Listener(LoraTraps("receiver-1", config, site))


def transmitter(address: int = 1, **fields: int | bool | None) -> lora.Transmitter:
    return lora.Transmitter(KEY, address, **fields)  # type: ignore[arg-type]


async def told(heard: Listener, line: Wire, *frames: bytes) -> list[Record]:
    """What is said of these frames: up to what is said of a last heartbeat of another trap, which is left out.

    That one speaks through the receiver too, so that nothing has to be waited for by the clock.
    """
    line.send(b"".join(map(lora.receiver_line, frames)))
    return [record for record in await marked(heard, line) if record.device != "trap-22"]


marks = transmitter(2, counter=10_000)


async def marked(heard: Listener, line: Wire) -> list[Record]:
    line.send(lora.receiver_line(marks.send()))
    records: list[Record] = []
    while not (records and records[-1].device == "trap-22" and said(records[-1]) == "battery_voltage"):
        records.append(await heard.next())
    return records


def events(records: list[Record]) -> list[object]:
    return [record.event for record in records if isinstance(record, Happened)]


def play(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


def test_a_frame_is_told_in_full_under_the_traps_own_name(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            await clock.advance(5)
            trap = transmitter(battery_mv=3010, tilt_deg=-12, bump=513, pir_count=7, bait_percent=80, sprung=True)
            line.send(lora.receiver_line(trap.send(lora.SPRUNG), rssi=-101, snr=-4.25))
            now = clock.now()
            assert await heard.until("pir_count") == [
                Happened(now, TrapSprung(device="trap-21")),
                *(
                    Reading(now, "trap-21", metric, value)
                    for metric, value in {
                        "heartbeat": 0.0,
                        "trap_closed": 1.0,
                        "rssi": -101,
                        "snr": -4.25,
                        "frames_lost": 0,
                        "battery_voltage": 3.01,
                        "tilt_angle": -12,
                        "bait_level": 80,
                        "bump": 513,
                        "pir_count": 7,
                    }.items()
                ),
            ]

    play(story())


def test_what_a_trap_does_not_measure_is_not_said(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            records = await told(heard, line, transmitter(battery_mv=None).send())
            assert values(records) == {"heartbeat": 0, "trap_closed": 0, "rssi": -97, "snr": 7.5, "frames_lost": 0}

    play(story())


def test_the_way_of_a_trap_through_a_day(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        trap = transmitter()
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            assert events(await told(heard, line, trap.send())) == []
            assert events(await told(heard, line, trap.send(lora.VIBRATION))) == [TrapMoved(device="trap-21", how="vibration")]
            assert events(await told(heard, line, trap.send(lora.TILT))) == [TrapMoved(device="trap-21", how="tilt")]
            trap.sprung = True
            assert events(await told(heard, line, trap.send(lora.SPRUNG))) == [TrapSprung(device="trap-21")]
            # An animal in the trap shakes it: counted by the trap, but no news.
            assert events(await told(heard, line, trap.send(lora.VIBRATION))) == []
            trap.tamper_open = True
            assert events(await told(heard, line, trap.send(lora.TAMPER))) == [TamperOpened(device="trap-21")]
            trap.tamper_open = trap.sprung = False
            assert events(await told(heard, line, trap.send(lora.SET))) == [
                TrapReset(device="trap-21"),
                TamperClosed(device="trap-21"),
            ]
            assert events(await told(heard, line, trap.send(lora.BAIT_LEVEL))) == []

    play(story())


def test_an_event_that_is_sent_three_times_is_told_once(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            frame = transmitter(sprung=True).send(lora.SPRUNG)
            assert events(await told(heard, line, frame, frame, frame)) == [TrapSprung(device="trap-21")]
            await clock.advance(60)
            assert "frames_bad" not in values(heard.so_far())

    play(story())


def test_a_catch_whose_own_frame_was_lost_rings_with_the_next_heartbeat(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            trap = transmitter()
            await told(heard, line, trap.send())
            trap.sprung = True
            trap.send(lora.SPRUNG)  # nobody hears it
            records = await told(heard, line, trap.send())
            assert events(records) == [TrapSprung(device="trap-21")]
            assert values(records)["frames_lost"] == 1

    play(story())


def test_a_catch_and_its_reset_in_one_frame_are_both_told(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            both = transmitter().send(lora.SPRUNG)  # it sprang, and was set again before the frame was made
            assert events(await told(heard, line, both)) == [TrapSprung(device="trap-21"), TrapReset(device="trap-21")]

    play(story())


def test_a_second_catch_rings_also_when_the_reset_between_was_lost(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            trap = transmitter(sprung=True)
            await told(heard, line, trap.send(lora.SPRUNG))
            trap.counter += 1  # the frame that said "set"
            assert events(await told(heard, line, trap.send(lora.SPRUNG))) == [TrapSprung(device="trap-21")]

    play(story())


def test_lost_frames_are_counted_for_each_trap_and_over_restarts(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        trap = transmitter(counter=500)  # what came before it was installed is not lost
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            assert values(await told(heard, line, trap.send()))["frames_lost"] == 0
            trap.counter += 3
            assert values(await told(heard, line, trap.send()))["frames_lost"] == 3
        trap.counter += 2
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            assert values(await told(heard, line, trap.send()))["frames_lost"] == 5

    play(story())


def test_a_replayed_frame_is_dropped_and_counted_also_after_a_restart(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    """Who plays an old "set" again must not be able to hide a catch."""

    async def story() -> None:
        trap = transmitter()
        old = trap.send(lora.SET)
        trap.sprung = True
        sprung = trap.send(lora.SPRUNG)
        for at in range(2):
            async with receiver(site, line, keys) as heard:
                await heard.until("heartbeat")
                if at == 0:
                    assert len(events(await told(heard, line, old, sprung))) == 1
                assert await told(heard, line, old, old, sprung) == []
                await clock.advance(60)
                counted = [r for r in heard.so_far() if isinstance(r, Reading) and r.metric == "frames_bad"]
                assert [(one.device, one.value) for one in counted] == [("trap-21", 2)]

    play(story())


def test_a_frame_of_another_key_is_dropped_and_counted_for_its_trap(
    site: Site, clock: VirtualClock, line: Wire, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            forged = lora.Transmitter(OTHER_KEY, 1, sprung=True)
            assert await told(heard, line, forged.send(lora.SPRUNG), forged.send(lora.SPRUNG)) == []
            await clock.advance(60)
            assert [(r.device, r.value) for r in heard.so_far() if isinstance(r, Reading) and r.metric == "frames_bad"] == [
                ("trap-21", 2)
            ]
            assert len(re.findall("is the same key", caplog.text)) == 1  # said once
            # What was forged has used up no number.
            assert events(await told(heard, line, transmitter(sprung=True).send(lora.SPRUNG))) == [TrapSprung(device="trap-21")]

    play(story())


def test_a_trap_may_have_a_key_of_its_own(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        traps = {"trap-21": {"address": 1, "key_file": keys / "other.key"}, "trap-22": {"address": 2}}
        async with receiver(site, line, keys, trap=traps) as heard:
            await heard.until("heartbeat")
            own = lora.Transmitter(OTHER_KEY, 1, sprung=True)
            assert events(await told(heard, line, own.send(lora.SPRUNG))) == [TrapSprung(device="trap-21")]
            assert await told(heard, line, transmitter(counter=9).send()) == []

    play(story())


def test_a_transmitter_begun_anew_is_believed_under_a_new_key(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            await told(heard, line, transmitter(counter=900).send())
            assert await told(heard, line, transmitter().send()) == []
        traps = {"trap-21": {"address": 1, "key_file": keys / "other.key"}, "trap-22": {"address": 2}}
        async with receiver(site, line, keys, trap=traps) as heard:
            await heard.until("heartbeat")
            assert values(await told(heard, line, lora.Transmitter(OTHER_KEY, 1).send()))["frames_lost"] == 0

    play(story())


def test_strangers_and_damage_are_counted_and_the_next_line_is_read(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            good = lora.receiver_line(transmitter(sprung=True).send(lora.SPRUNG))
            line.send(lora.receiver_line(transmitter(99).send()) + lora.receiver_line(b"weather station") + b"\n\r\n")
            line.send(good[: len(good) // 2] + b"\n" + good[5:] + b"x" * 3000 + b"\n" + good)
            assert events(await marked(heard, line)) == [TrapSprung(device="trap-21")]
            await clock.advance(60)
            assert {
                (r.metric, r.value)
                for r in heard.so_far()
                if isinstance(r, Reading) and r.device == "receiver-1" and r.metric != "heartbeat"
            } == {("frames_foreign", 2), ("frames_bad", 3)}

    play(story())


def test_a_restart_goes_on_from_what_was_told(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        trap = transmitter(sprung=True)
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            await told(heard, line, trap.send(lora.SPRUNG))
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            assert events(await told(heard, line, trap.send())) == []  # it is sprung, as everybody knows
        trap.sprung = False
        trap.send(lora.SET)  # while nobody listened
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            assert events(await told(heard, line, trap.send())) == [TrapReset(device="trap-21", found=True)]
            trap.sprung = True
            assert events(await told(heard, line, trap.send())) == [TrapSprung(device="trap-21")]

    play(story())


def test_an_outbox_begun_anew_is_told_what_is_sprung_at_once(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        trap = transmitter(sprung=True, tamper_open=True)
        async with receiver(site._replace(epoch="cd" * 8), line, keys) as heard:
            await heard.until("heartbeat")
            assert len(events(await told(heard, line, trap.send(lora.SPRUNG)))) == 2
        async with receiver(site, line, keys) as heard:
            assert events(await heard.until("heartbeat")) == [
                TrapSprung(device="trap-21", found=True),
                TamperOpened(device="trap-21", found=True),
            ]
        async with receiver(site, line, keys) as heard:
            assert events(await heard.until("heartbeat")) == []

    play(story())


@pytest.mark.parametrize("committed", [False, True])
def test_a_kill_while_an_event_is_told_repeats_it_and_loses_none(
    site: Site, clock: VirtualClock, line: Wire, keys: Path, committed: bool
) -> None:
    """The agent is killed when it has the event, before or after its commit; the transmitter has long stopped repeating."""

    async def story() -> None:
        trap = transmitter(sprung=True, tamper_open=True)
        config = LoraTrapsConfig.model_validate(
            {"type": "lora_traps", "port": line.port, "key_file": keys / "traps.key", "trap": {"trap-21": {"address": 1}}}
        )
        records = LoraTraps("receiver-1", config, site).records()
        assert said(await anext(records)) == "heartbeat"
        line.send(lora.receiver_line(trap.send(lora.SPRUNG)))
        assert said(await asyncio.wait_for(anext(records), 5)) == "trap_sprung"
        if committed:
            assert said(await anext(records)) == "tamper_opened"  # asking for it says that the first is committed
        left = {path.name: path.read_bytes() for path in site.state.iterdir()}
        await records.aclose()  # type: ignore[attr-defined]
        for name, content in left.items():  # what a kill would have left
            (site.state / name).write_bytes(content)
        async with receiver(site, line, keys) as heard:
            again = [TamperOpened(device="trap-21", found=True)]
            if not committed:
                again.insert(0, TrapSprung(device="trap-21", found=True))  # type: ignore[arg-type]
            assert events(await heard.until("heartbeat")) == again
            assert events(await told(heard, line, trap.send())) == []

    play(story())


def test_what_a_frame_changes_is_on_the_disk_before_anybody_is_told(
    site: Site, clock: VirtualClock, line: Wire, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(Path(f"/proc/self/fd/{number}").readlink().name)
        real(number)

    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            monkeypatch.setattr(os, "fsync", fsync)
            line.send(lora.receiver_line(transmitter(sprung=True).send(lora.SPRUNG)))
            while said(await heard.next()) != "trap_sprung":
                pass
            assert synced[:2] == ["trap-21.json.new", site.state.name]

    play(story())


def test_a_memory_that_can_not_be_used_is_said_and_the_trap_is_heard_again(
    site: Site, clock: VirtualClock, line: Wire, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        for number, content in enumerate(("", "[]", "{}", '{"telling": 1}', json.dumps({"address": "1", "telling": []}))):
            caplog.clear()
            (site.state / "trap-21.json").write_text(content)
            async with receiver(site, line, keys) as heard:
                await heard.until("heartbeat")
                assert "trap-21.json can't be used" in caplog.text
                records = await told(heard, line, transmitter(counter=10 - number, sprung=True).send())
                assert events(records) == [TrapSprung(device="trap-21", found=True)]

    play(story())


def test_a_trap_that_chatters_fills_no_disk_and_its_last_state_is_told(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            trap = transmitter()
            happened: list[object] = []
            for _ in range(60):
                trap.sprung = not trap.sprung
                happened += events(await told(heard, line, trap.send(lora.SPRUNG if trap.sprung else lora.SET)))
            assert len(happened) == BURST
            trap.sprung = True
            happened += events(await told(heard, line, trap.send(lora.SPRUNG)))
            await clock.advance(61)
            happened += events(heard.so_far())
            assert happened[-1] == TrapSprung(device="trap-21", folded=54)  # changes 7 to 60 and the last: 55 in one

    play(story())


def test_a_trap_that_is_worried_all_night_is_told_of_every_five_minutes(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            trap = transmitter()
            happened: list[object] = []
            for _ in range(20):
                happened += events(await told(heard, line, trap.send(lora.VIBRATION)))
                await clock.advance(30)
                happened += events(heard.so_far())
            assert happened == [
                TrapMoved(device="trap-21", how="vibration"),
                TrapMoved(device="trap-21", how="vibration", folded=8),
                TrapMoved(device="trap-21", how="vibration", folded=9),
            ]

    play(story())


def test_49_traps_speak_at_once_through_cut_pieces(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        traps = [transmitter(address) for address in range(1, MAX_TRAPS + 1)]
        names = {f"trap-{trap.address}": {"address": trap.address} for trap in traps}
        async with receiver(site, line, keys, trap=names) as heard:
            await heard.until("heartbeat")
            for trap in traps:
                trap.sprung = True
            frames = [[trap.send(), trap.send(lora.VIBRATION)] for trap in traps]
            text = b"".join(lora.receiver_line(frame) for turn in zip(*frames, strict=True) for frame in turn)
            records: list[Record] = []
            for at in range(0, len(text), 97):
                line.send(text[at : at + 97])
                await settle()
            while sum(said(one) == "battery_voltage" for one in records) < 2 * MAX_TRAPS:
                records.append(await heard.next())
            assert {one.device for one in records if isinstance(one, Happened)} == set(names)
            assert len(events(records)) == MAX_TRAPS
            assert values(records)["frames_lost"] == 0

    play(story())


def test_it_is_unplugged_and_comes_back_with_nothing_forgotten(site: Site, clock: VirtualClock, keys: Path) -> None:
    async def story() -> None:
        trap = transmitter(sprung=True)
        with wire() as line:
            async with receiver(site, line, keys) as heard:
                await heard.until("heartbeat")
                await told(heard, line, trap.send(lora.SPRUNG))
                line.unplug()
                with pytest.raises(DeviceError, match=f"serial port {line.port} was unplugged"):
                    await heard.next()
        with wire() as line:
            async with receiver(site, line, keys) as heard:
                await heard.until("heartbeat")
                assert events(await told(heard, line, trap.send())) == []

    play(story())


def test_the_receiver_says_that_it_is_alive_and_a_silent_one_is_said(
    site: Site, clock: VirtualClock, line: Wire, keys: Path
) -> None:
    async def story() -> None:
        start = clock.now()
        async with receiver(site, line, keys, silent_after_s=150) as heard:
            await heard.until("heartbeat")
            await clock.advance(60)
            assert heard.so_far() == [
                Reading(Instant(start.utc_us + 60_000_000, start.mono_us + 60_000_000), "receiver-1", "heartbeat", 60.0)
            ]
            line.send(b"\n")
            await told(heard, line)
            await clock.advance(149)
            heard.so_far()
            await clock.advance(1)
            with pytest.raises(DeviceError, match="has been silent for 150 s: it hangs"):
                heard.so_far()

    play(story())


def test_a_rylr998_hears_the_same_frames(site: Site, clock: VirtualClock, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys, format="rylr998") as heard:
            await heard.until("heartbeat")
            line.send(b"+READY\r\n" + lora.rylr998_line(transmitter(sprung=True).send(lora.SPRUNG), rssi=-88, snr=11))
            records = await heard.until("battery_voltage")
            assert events(records) == [TrapSprung(device="trap-21")]
            assert (values(records)["rssi"], values(records)["snr"]) == (-88, 11)
            forged = lora.Transmitter(OTHER_KEY, 1, counter=50)
            line.send(b"+RCV=50,5,HELLO,-99,40\r\n" + lora.rylr998_line(forged.send()))
            line.send(lora.rylr998_line(transmitter(2).send()))
            await heard.until("battery_voltage")
            await clock.advance(60)
            assert {(r.device, r.value) for r in heard.so_far() if isinstance(r, Reading) and r.metric == "frames_bad"} == {
                ("receiver-1", 1),
                ("trap-21", 1),
            }

    play(story())


@pytest.mark.parametrize("content", ["", "00" * 15, "00" * 17, "zz" * 16, "鍵"])
def test_a_key_that_is_none_is_said_by_its_setting_and_not_shown(site: Site, line: Wire, keys: Path, content: str) -> None:
    async def story() -> None:
        (keys / "bad.key").write_text(content, encoding="utf-8")
        traps = {"trap-21": {"address": 1, "key_file": keys / "bad.key"}}
        async with receiver(site, line, keys, trap=traps) as heard:
            with pytest.raises(DeviceError, match=r"device\.receiver-1\.trap\.trap-21\.key_file: .*openssl") as error:
                await heard.next()
            assert not content or content not in str(error.value)

    play(story())


def test_a_key_file_that_is_not_there_is_said(site: Site, line: Wire, keys: Path) -> None:
    async def story() -> None:
        async with receiver(site, line, keys, key_file="/nowhere/key") as heard:
            with pytest.raises(DeviceError, match=r"device\.[a-z0-9-]+\.key_file: /nowhere/key can't be read: No such file"):
                await heard.next()

    play(story())


@pytest.mark.parametrize(
    ("wrong", "said_so"),
    [
        ({"trap": {}}, "trap"),
        ({"trap": {f"t-{n}": {"address": n} for n in range(1, MAX_TRAPS + 2)}}, "at most 49"),
        ({"trap": {"a": {"address": 3}, "b": {"address": 3}}}, r"trap\.b\.address: 3 belongs to trap\.a already"),
        ({"trap": {"a": {"address": 0}}}, r"trap\.a\.address"),
        ({"trap": {"A": {"address": 1}}}, "trap"),
        ({"trap": {"a": {"adress": 1}}}, r"trap\.a\.adress"),
        ({"key_file": None}, r"trap\.trap-21 has no key"),
        ({"format": "es920lr"}, "format"),
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object], said_so: str) -> None:
    right = {"type": "lora_traps", "port": "/dev/ttyUSB0", "key_file": "k", "trap": {"trap-21": {"address": 1}}}
    assert LoraTrapsConfig.model_validate(right).children == {"trap-21": "lora-trap"}
    with pytest.raises(ValidationError, match=said_so):
        LoraTrapsConfig.model_validate(right | wrong)


def test_recordings_played_back_fill_no_log(
    site: Site, clock: VirtualClock, line: Wire, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with receiver(site, line, keys) as heard:
            await heard.until("heartbeat")
            trap = transmitter()
            recorded = [trap.send() for _ in range(20)]
            await told(heard, line, recorded[-1])
            assert await told(heard, line, *recorded[:-1]) == []

    play(story())
    assert [message for message in caplog.messages if "a replay" in message] == caplog.messages
    assert len(caplog.messages) == 1
