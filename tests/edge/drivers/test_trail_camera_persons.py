"""What a model on the node changes: the answer, the burst's vote, and pictures with persons, which stay on the node."""

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from edge.contract.events import MediaCaptured
from edge.drivers.trail_camera import TrailCamera, TrailCameraConfig
from edge.errors import DeviceError
from edge.media import MediaFolder
from edge.records import Happened, Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener
from tests.edge.drivers.trail_pictures import camera, captured, counted, picture, video, write
from tests.edge.tiny_model import tiny_model

ANIMAL, PERSON, NOTHING, ENDLESS = (20, 250, 20), (250, 20, 20), (20, 60, 20), (255, 0, 255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "card"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


class Trap:
    """A camera with a model on the node, and the pictures that it takes."""

    def __init__(self, site: Site, clock: VirtualClock, folder: Path, heard: Listener) -> None:
        self.site, self._clock, self._folder, self._heard, self._number = site, clock, folder, heard, 0

    async def takes(
        self, colour: tuple[int, int, int], taken: str = "06:12:00", events: int = 1, wait_s: float = 4
    ) -> list[MediaCaptured]:
        """Takes a picture; the events that come of it in this time."""
        self._number += 1
        content = picture(colour, f"2026:06:03 {taken}", (64, 64)) + bytes([self._number])  # no two are the same
        write(self._folder / f"IMG_{self._number:04}.jpg", content)
        await self._clock.advance(wait_s)
        return [captured(await self._heard.until("media_captured"))[0] for _ in range(events)]

    async def withheld_count(self) -> float:
        """What the camera says of it."""
        await self._clock.advance(60)
        return counted(await self._heard.until("media_withheld"), "media_withheld")[-1]

    @property
    def to_the_gateway(self) -> set[str]:
        """On the way out of the node."""
        return {one.sha256 for one in cast(MediaFolder, self.site.media).waiting()}

    @property
    def on_the_node(self) -> set[str]:
        """Withheld."""
        return {path.stem for path in (self.site.state / "withheld").iterdir()}


async def ready(site: Site, clock: VirtualClock, folder: Path, heard: Listener) -> Trap:
    await heard.until("media_withheld")  # the model is loaded
    return Trap(site, clock, folder, heard)


def test_a_picture_with_a_person_never_leaves_the_node(site: Site, clock: VirtualClock, folder: Path, model_file: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file)}) as heard:
            trap = await ready(site, clock, folder, heard)
            [boar] = await trap.takes(ANIMAL, "06:12:00")
            [hiker] = await trap.takes(PERSON, "07:00:00")
            [wind] = await trap.takes(NOTHING, "08:00:00")
            assert [(event.content, event.withheld) for event in (boar, hiker, wind)] == [
                ("animal", False),
                ("person_or_vehicle", True),
                ("unsure", False),
            ]
            assert boar.confidence == pytest.approx(0.98, abs=0.02)
            assert trap.to_the_gateway == {boar.media, wind.media}
            assert trap.on_the_node == {hiker.media}
            assert await trap.withheld_count() == 1

    asyncio.run(play())


def test_who_wants_them_at_the_gateway_can_have_them(site: Site, clock: VirtualClock, folder: Path, model_file: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file), "upload_persons": True}) as heard:
            trap = await ready(site, clock, folder, heard)
            [hiker] = await trap.takes(PERSON)
            assert (hiker.content, hiker.withheld) == ("person_or_vehicle", False)
            assert trap.to_the_gateway == {hiker.media}

    asyncio.run(play())


def test_a_person_in_one_picture_closes_the_whole_burst(site: Site, clock: VirtualClock, folder: Path, model_file: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file)}) as heard:
            trap = await ready(site, clock, folder, heard)
            [other] = await trap.takes(ANIMAL, "05:00:00")
            [boar] = await trap.takes(ANIMAL, "06:12:00")
            [wind] = await trap.takes(NOTHING, "06:12:01")
            cast(MediaFolder, site.media).done(boar.media)  # the gateway has this one already
            *corrected, hiker = await trap.takes(PERSON, "06:12:02", events=3)
            assert {event.media: (event.content, event.withheld) for event in corrected} == {
                wind.media: ("person_or_vehicle", True),
                boar.media: ("person_or_vehicle", False),  # gone, but the gateway knows now
            }
            [after] = await trap.takes(ANIMAL, "06:12:03")
            assert (after.content, after.withheld, after.burst) == ("person_or_vehicle", True, hiker.burst)
            assert trap.to_the_gateway == {other.media}
            assert trap.on_the_node == {wind.media, hiker.media, after.media}
            assert await trap.withheld_count() == 3

    asyncio.run(play())


def test_a_burst_is_no_animal_when_most_of_it_is_in_doubt(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path
) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file)}) as heard:
            trap = await ready(site, clock, folder, heard)
            said = []
            for colour in (NOTHING, ANIMAL, NOTHING, NOTHING, ANIMAL, NOTHING):
                said += await trap.takes(colour)
            assert [event.content for event in said] == ["unsure", "animal", "unsure", "unsure", "unsure", "unsure"]

    asyncio.run(play())


def test_a_crash_while_a_burst_is_closed_leaves_no_picture_open(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path
) -> None:
    config = TrailCameraConfig.model_validate(
        {"type": "trail_camera", "folder": folder, "watch": False, "model": {"file": model_file}}
    )

    async def until(count: int) -> list[MediaCaptured]:
        """Runs until so many events were yielded; the last one is never committed."""
        said: list[MediaCaptured] = []
        records: Any = TrailCamera("cam-02", config, site).records()
        pushing = asyncio.create_task(push())
        async for record in records:
            if isinstance(record, Happened):
                said.append(cast(MediaCaptured, record.event))
                if len(said) == count:
                    break
        await records.aclose()
        pushing.cancel()
        return said

    async def push() -> None:
        while True:
            await clock.advance(0.5)
            await asyncio.sleep(0.001)

    for number, colour in enumerate((ANIMAL, NOTHING, PERSON)):
        content = picture(colour, f"2026:06:03 06:12:0{number}", (64, 64))
        write(folder / f"IMG_{number}.jpg", content, 10**15 + number)
    boar, wind, first_correction = asyncio.run(until(3))
    assert first_correction == wind.model_copy(
        update={"content": "person_or_vehicle", "withheld": True, "confidence": first_correction.confidence}
    )
    again, second_correction, hiker = asyncio.run(until(3))
    assert again == first_correction
    assert (second_correction.media, hiker.content) == (boar.media, "person_or_vehicle")
    assert cast(MediaFolder, site.media).waiting() == []


def test_a_model_that_is_too_slow_leaves_pictures_unclassified_and_says_it_once(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file), "timeout_s": 10}) as heard:
            trap = await ready(site, clock, folder, heard)
            for number in range(2):
                [event] = await trap.takes(ENDLESS, f"0{number}:12:00", wait_s=15)
                assert (event.content, event.confidence, event.withheld) == ("unclassified", None, False)
                assert event.media in trap.to_the_gateway
            [boar] = await trap.takes(ANIMAL, "09:00:00")
            assert boar.content == "animal"
        assert [message for message in caplog.messages if "model" in message] == [
            "cam-02: the model is too slow for this node (it took longer than 10 s): pictures stay unclassified",
            "cam-02: the model is fast enough again",
        ]

    asyncio.run(play())


def test_videos_are_not_looked_at(site: Site, clock: VirtualClock, folder: Path, model_file: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file)}) as heard:
            await ready(site, clock, folder, heard)
            write(folder / "MOV_1.MP4", video())
            await clock.advance(4)
            [event] = captured(await heard.until("media_captured"))
            assert (event.content, event.withheld) == ("unclassified", False)

    asyncio.run(play())


def test_a_model_that_can_not_be_used_stops_the_camera_and_sends_nothing(
    site: Site, clock: VirtualClock, folder: Path, tmp_path: Path
) -> None:
    write(folder / "IMG_1.jpg", picture(PERSON))

    async def play() -> None:
        async with camera(site, folder, model={"file": str(tmp_path / "none.onnx")}) as heard:
            with pytest.raises(DeviceError, match=r"model\.file: .*none\.onnx can't be loaded"):
                await heard.next()

    asyncio.run(play())
    assert cast(MediaFolder, site.media).waiting() == []


def test_withheld_pictures_go_in_time_and_when_they_are_too_many(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path
) -> None:
    now_s = clock.now().utc_us / 1e6
    shelf = MediaFolder(site.state / "withheld", reserve_bytes=0)
    names = [shelf.keep(bytes([number]) * 400_000, "image/jpeg") for number in range(4)]
    for name, days in zip(names, (40, 3, 2, 1), strict=True):
        os.utime(site.state / "withheld" / f"{name}.jpg", (now_s - days * 86_400,) * 2)

    async def kept(site: Site) -> list[int]:
        async with camera(site, folder, model={"file": str(model_file), "withheld_mib": 1, "withheld_days": 30}) as heard:
            trap = await ready(site, clock, folder, heard)
            return sorted(names.index(name) for name in trap.on_the_node)

    assert asyncio.run(kept(site._replace(clock_state=lambda: "unsync"))) == [2, 3]  # too many; and no clock to tell age by
    os.utime(site.state / "withheld" / f"{names[2]}.jpg", (now_s - 31 * 86_400,) * 2)
    assert asyncio.run(kept(site._replace(clock_state=lambda: "unsync"))) == [2, 3]
    assert asyncio.run(kept(site)) == [3]


def test_a_withheld_picture_goes_when_its_time_has_come_without_a_restart(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path
) -> None:
    async def play() -> None:
        async with camera(site, folder, model={"file": str(model_file)}) as heard:
            trap = await ready(site, clock, folder, heard)
            [hiker] = await trap.takes(PERSON)
            long_ago_s = clock.now().utc_us / 1e6 - 31 * 86_400
            os.utime(site.state / "withheld" / f"{hiker.media}.jpg", (long_ago_s, long_ago_s))
            assert await trap.withheld_count() == 1
            await clock.advance(2)
            assert trap.on_the_node == set()

    asyncio.run(play())


def test_without_a_model_nothing_is_guessed(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            write(folder / "IMG_1.jpg", picture(PERSON, size=(64, 64)))
            await clock.advance(4)
            [event] = captured(heard.so_far())
            assert (event.content, event.confidence, event.withheld) == ("unclassified", None, False)

    asyncio.run(play())


def test_the_species_travels_with_the_picture_but_never_where_a_person_is_in_its_burst(
    site: Site, clock: VirtualClock, folder: Path, model_file: Path
) -> None:
    async def play() -> None:
        model = {"file": str(model_file), "classes": ("animal", "person", "animal"), "species": {"2": "bear"}}
        async with camera(site, folder, model=model) as heard:
            trap = await ready(site, clock, folder, heard)
            [bear] = await trap.takes((20, 20, 250), "06:12:00")
            assert (bear.content, bear.species) == ("animal", "bear")
            told = await trap.takes(PERSON, "06:12:02", events=2)
            assert [(one.content, one.species) for one in told] == [("person_or_vehicle", None)] * 2

    asyncio.run(play())
