import asyncio
import hashlib
import io
import json
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from PIL import ExifTags, Image
from pydantic import ValidationError

from edge.contract.events import MediaCaptured
from edge.drivers.taken import Taken
from edge.drivers.trail_camera import MAX_BYTES, PATIENT_SCANS, TrailCamera, TrailCameraConfig
from edge.errors import DeviceError
from edge.media import MediaFolder
from edge.records import Happened, Reading, Record, Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import Listener, values


def picture(colour: int = 120, taken: str | None = "2026:06:03 06:12:00") -> bytes:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (80, colour, 70)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "DCIM"
    made.mkdir()
    return made


def camera(site: Site, folder: Path, **settings: object) -> Listener:
    """A camera that is looked through every 2 s of the test's time, not when the kernel says something in real time."""
    given = {"type": "trail_camera", "folder": str(folder), "heartbeat_s": 60, "watch": False} | settings
    return Listener(TrailCamera("cam-02", TrailCameraConfig.model_validate(given), site))


def captured(records: list[Record]) -> list[MediaCaptured]:
    return [r.event for r in records if isinstance(r, Happened) and isinstance(r.event, MediaCaptured)]


def test_a_picture_is_stored_and_said_once(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            start = clock.now()
            assert heard.so_far() == [
                Reading(start, "cam-02", "heartbeat", 0.0),
                Reading(start, "cam-02", "media_count", 0),
            ]
            content = picture()
            (folder / "IMG_0001.JPG").write_bytes(content)
            await clock.advance(2)  # the scan that sees it first
            assert heard.so_far() == []
            await clock.advance(2)  # and the one that finds it unchanged
            sha256 = hashlib.sha256(content).hexdigest()
            assert heard.so_far() == [
                Happened(
                    clock.now(),
                    MediaCaptured(
                        device="cam-02",
                        media=sha256,
                        size=len(content),
                        content_type="image/jpeg",
                        camera_time="2026-06-03T06:12:00",
                        burst=hashlib.sha256(f"cam-02/{sha256}".encode()).hexdigest()[:16],
                    ),
                )
            ]
            [waiting] = cast(MediaFolder, site.media).waiting()
            assert (waiting.sha256, waiting.path.read_bytes()) == (sha256, content)
            await clock.advance(52)
            assert heard.so_far() == []
            await clock.advance(4)
            assert values(heard.so_far()) == {"heartbeat": 60.0, "media_count": 1}
        assert (folder / "IMG_0001.JPG").read_bytes() == content  # the card is left as it is

    asyncio.run(play())


def test_a_half_written_picture_is_waited_for(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            content = picture()
            with (folder / "IMG_0001.JPG").open("wb", buffering=0) as file:
                for at in range(0, len(content), 100):
                    file.write(content[at : at + 100])
                    await clock.advance(2)
                    assert captured(heard.so_far()) == []
            await clock.advance(2)
            assert [event.size for event in captured(heard.so_far())] == [len(content)]

    asyncio.run(play())


def test_pictures_come_in_the_order_in_which_they_were_written(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            for number, (name, seconds) in enumerate([("c.jpg", 1), ("a.JPEG", 3), ("b.Jpg", 2)]):
                (folder / name).write_bytes(picture(number))
                os.utime(folder / name, (seconds, seconds))
            (folder / "notes.txt").write_text("no picture")
            (folder / ".hidden.jpg").write_bytes(b"")
            (folder / "folder.jpg").mkdir()
            await clock.advance(4)
            said = heard.so_far()
            order = [hashlib.sha256(picture(number)).hexdigest() for number in (0, 2, 1)]
            assert [event.media for event in captured(said)] == order
            await clock.advance(120)
            assert "frames_bad" not in values(heard.so_far())

    asyncio.run(play())


def test_the_same_content_gives_no_second_event_whatever_its_name_and_after_a_restart(
    site: Site, clock: VirtualClock, folder: Path
) -> None:
    async def play() -> None:
        (folder / "IMG_0001.JPG").write_bytes(picture())
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert len(captured(heard.so_far())) == 1
            (folder / "COPY.JPG").write_bytes(picture())
            await clock.advance(60)
            assert captured(heard.so_far()) == []
        for waiting in cast(MediaFolder, site.media).waiting():
            cast(MediaFolder, site.media).done(waiting.sha256)
        (folder / "AGAIN.JPG").write_bytes(picture())
        async with camera(site, folder) as heard:
            await clock.advance(60)
            assert captured(said := heard.so_far()) == []
            assert values(said)["media_count"] == 1
        assert cast(MediaFolder, site.media).waiting() == []  # and is not sent a second time

    asyncio.run(play())


def test_a_name_that_the_camera_uses_again_is_a_new_picture(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            for colour in (1, 200):
                (folder / "IMG_0001.JPG").write_bytes(picture(colour))
                os.utime(folder / "IMG_0001.JPG", (colour, colour))
                await clock.advance(6)
                [event] = captured(heard.so_far())
                assert event.media == hashlib.sha256(picture(colour)).hexdigest()

    asyncio.run(play())


def test_the_bytes_are_durable_before_the_event_and_a_crash_in_between_repeats_it(
    site: Site, clock: VirtualClock, folder: Path
) -> None:
    (folder / "IMG_0001.JPG").write_bytes(picture())
    sha256 = hashlib.sha256(picture()).hexdigest()

    async def until_the_event_then_die() -> MediaCaptured:
        config = TrailCameraConfig(type="trail_camera", folder=folder, watch=False)
        records = cast(AsyncGenerator[Record, None], TrailCamera("cam-02", config, site).records())
        pushing = asyncio.create_task(clock.advance(10))
        async for record in records:
            if isinstance(record, Happened):
                assert [waiting.sha256 for waiting in cast(MediaFolder, site.media).waiting()] == [sha256]
                await records.aclose()  # never asked for the next one: this was not committed
                await pushing
                assert isinstance(record.event, MediaCaptured)
                return record.event
        raise AssertionError("no event")

    async def come_back() -> list[MediaCaptured]:
        async with camera(site, folder) as heard:
            await clock.advance(10)
            return captured(heard.so_far())

    event = asyncio.run(until_the_event_then_die())
    assert asyncio.run(come_back()) == [event]
    assert asyncio.run(come_back()) == []


def test_a_damaged_memory_repeats_pictures_and_loses_none(
    site: Site, clock: VirtualClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> list[MediaCaptured]:
        async with camera(site, folder) as heard:
            await clock.advance(10)
            return captured(heard.so_far())

    (folder / "IMG_0001.JPG").write_bytes(picture(1))
    (folder / "IMG_0002.JPG").write_bytes(picture(200))
    first = asyncio.run(play())
    assert asyncio.run(play()) == []
    (site.state / "taken.db").write_bytes(b"what the card left of it" * 500)
    assert {event.media for event in asyncio.run(play())} == {event.media for event in first}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert list(site.state.glob("taken.db.damaged-*"))  # kept for who wants to know why
    assert asyncio.run(play()) == []


def test_what_an_earlier_version_took_in_is_not_told_again(site: Site, clock: VirtualClock, folder: Path) -> None:
    path = folder / "IMG_0001.JPG"
    path.write_bytes(picture())
    found = path.stat()
    lines = [b"\xff\xfe", b"[1]", b"5", b'[["x"], 1, 2, 3]']
    lines.append(json.dumps([hashlib.sha256(picture()).hexdigest(), path.name, found.st_size, found.st_mtime_ns]).encode())
    (site.state / "taken").write_bytes(b"\n".join(lines) + b'\n["torn')

    async def play() -> None:
        (folder / "COPY.JPG").write_bytes(picture())
        async with camera(site, folder) as heard:
            await clock.advance(60)
            said = heard.so_far()
            assert captured(said) == []
            assert values(said)["media_count"] == 1

    asyncio.run(play())
    assert not (site.state / "taken").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jpg", b"", "it is empty"),
        ("movie.jpg", b"RIFF" + bytes(1000), "it does not begin as a JPEG"),
        ("cut.jpg", picture()[:-20], "its end is missing: it was cut off"),
    ],
)
def test_a_bad_file_is_said_once_after_some_patience_and_stops_nothing(
    site: Site,
    clock: VirtualClock,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: bytes,
    says: str,
) -> None:
    async def play() -> None:
        (folder / name).write_bytes(content)
        (folder / "IMG_0002.JPG").write_bytes(picture())
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert len(captured(heard.so_far())) == 1
            await clock.advance(2 * (PATIENT_SCANS - 3))
            assert not caplog.messages
            await clock.advance(300)
            assert caplog.messages == [f"cam-02: {name!r} is not taken in: {says}"]
            bad = [r.value for r in heard.so_far() if isinstance(r, Reading) and r.metric == "frames_bad"]
            assert bad == [1]
            (folder / name).write_bytes(picture(3))  # it became one in the end
            await clock.advance(6)
            assert len(captured(heard.so_far())) == 1

    asyncio.run(play())


def test_a_file_too_large_for_a_picture_is_not_even_read(
    site: Site, clock: VirtualClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        with (folder / "movie.jpg").open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        async with camera(site, folder) as heard:
            await clock.advance(60)
            assert values(heard.so_far())["frames_bad"] == 1
        assert caplog.messages == ["cam-02: 'movie.jpg' is not taken in: it has 33554433 bytes, a picture has 33554432 at most"]

    asyncio.run(play())


def test_a_name_that_is_no_utf_8_is_said_in_a_way_that_can_be_logged(
    site: Site, clock: VirtualClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\x8e\xca\x90^.jpg")).write_bytes(picture())

    async def play() -> None:
        async with camera(site, folder) as heard:
            await clock.advance(60)
            assert captured(heard.so_far()) == []
        [message] = caplog.messages
        assert "is not taken in: its name is not UTF-8" in message
        message.encode("utf-8")

    asyncio.run(play())


def test_an_unreadable_file_is_said_once_and_taken_in_when_it_can_be_read(
    site: Site, clock: VirtualClock, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        (folder / "IMG_0001.JPG").write_bytes(picture())
        real_open = Path.open

        def failing_open(path: Path, *args: object, **kwargs: object) -> object:
            if path.name == "IMG_0001.JPG":
                raise PermissionError(13, "Permission denied")
            return real_open(path, *args, **kwargs)  # type: ignore[call-overload]

        async with camera(site, folder) as heard:
            with monkeypatch.context() as patched:
                patched.setattr(Path, "open", failing_open)
                await clock.advance(300)
            assert caplog.messages == ["cam-02: 'IMG_0001.JPG' is not taken in: it can't be read: Permission denied"]
            assert captured(heard.so_far()) == []
            await clock.advance(2 * PATIENT_SCANS)
            assert len(captured(heard.so_far())) == 1

    asyncio.run(play())


def test_after_a_restart_a_full_card_is_not_read_again(
    site: Site, clock: VirtualClock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real_open = Path.open

    def noting_open(path: Path, *args: object, **kwargs: object) -> object:
        opened.append(path.name)
        return real_open(path, *args, **kwargs)  # type: ignore[call-overload]

    async def play() -> None:
        async with camera(site, folder):
            await clock.advance(60)

    (folder / "IMG_0001.JPG").write_bytes(picture())
    monkeypatch.setattr(Path, "open", noting_open)
    asyncio.run(play())
    assert opened.count("IMG_0001.JPG") == 1
    asyncio.run(play())
    assert opened.count("IMG_0001.JPG") == 1


def test_what_was_taken_in_is_remembered_durably(site: Site) -> None:
    taken = Taken(site.state)
    try:
        assert taken._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: on the disk when add returns
    finally:
        taken.close()


def test_a_picture_that_still_grows_while_it_is_read_is_one_picture(
    site: Site, clock: VirtualClock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "IMG_0001.JPG"
    path.write_bytes(picture())
    real_open = Path.open
    writes = iter([b"a preview ", b"behind it"])

    def open_while_the_camera_writes(opened: Path, *args: object, **kwargs: object) -> object:
        if opened == path and (more := next(writes, None)):
            with real_open(path, "ab") as file:
                file.write(more)
        return real_open(opened, *args, **kwargs)  # type: ignore[call-overload]

    async def play() -> None:
        async with camera(site, folder) as heard:
            monkeypatch.setattr(Path, "open", open_while_the_camera_writes)
            await clock.advance(20)
            assert [event.size for event in captured(heard.so_far())] == [len(picture()) + 19]

    asyncio.run(play())


def test_a_card_full_of_pictures_does_not_hold_up_the_others(site: Site, clock: VirtualClock, folder: Path) -> None:
    turns: list[str] = []

    async def listen() -> None:
        config = TrailCameraConfig(type="trail_camera", folder=folder, watch=False)
        async for record in TrailCamera("cam-02", config, site).records():
            if isinstance(record, Happened):
                turns.append("camera")
                asyncio.get_running_loop().call_soon(turns.append, "others")

    async def play() -> None:
        for number in range(5):
            (folder / f"IMG_{number}.JPG").write_bytes(picture(number))
        task = asyncio.create_task(listen())
        await clock.advance(4)
        task.cancel()

    asyncio.run(play())
    assert turns == ["camera", "others"] * 5


def test_a_picture_without_time_is_taken_in_without(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        (folder / "IMG_0001.JPG").write_bytes(picture(taken=None))
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert [event.camera_time for event in captured(heard.so_far())] == [None]

    asyncio.run(play())


def test_a_missing_folder_is_said_with_what_to_look_at(site: Site, tmp_path: Path) -> None:
    async def play() -> None:
        async with camera(site, tmp_path / "none") as heard:
            with pytest.raises(DeviceError, match=r"none can't be read: No such file .*Is the card in"):
                await heard.next()

    asyncio.run(play())


def test_a_card_that_is_taken_out_is_said_and_one_put_in_is_read(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            await clock.advance(2)
            heard.so_far()
            shutil.rmtree(folder)
            await clock.advance(2)
            with pytest.raises(DeviceError, match="Is the card in"):
                heard.so_far()

    asyncio.run(play())


def test_a_card_that_was_changed_is_read_anew(site: Site, clock: VirtualClock, folder: Path) -> None:
    (folder / "IMG_0001.JPG").write_bytes(picture(1))
    other = folder.with_name("other")
    other.mkdir()
    (other / "IMG_0001.JPG").write_bytes(picture(2))

    def change_the_card() -> None:
        folder.rename(folder.with_name("old"))
        other.rename(folder)

    async def play() -> None:
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert len(captured(heard.so_far())) == 1
            change_the_card()
            await clock.advance(2)
            with pytest.raises(DeviceError, match="another folder than before"):
                heard.so_far()
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert len(captured(heard.so_far())) == 1

    asyncio.run(play())


def test_a_full_disk_leaves_the_pictures_on_the_card_and_takes_them_in_later(
    site: Site, clock: VirtualClock, folder: Path, tmp_path: Path
) -> None:
    async def play() -> None:
        (folder / "IMG_0001.JPG").write_bytes(picture())
        full = site._replace(media=MediaFolder(tmp_path / "full", reserve_bytes=2**60))
        async with camera(full, folder) as heard:
            await clock.advance(4)
            with pytest.raises(DeviceError, match="can't be stored and waits where it is: no room for media"):
                heard.so_far()
        async with camera(site, folder) as heard:
            await clock.advance(4)
            assert len(captured(heard.so_far())) == 1

    asyncio.run(play())


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="scan_s"):
        TrailCameraConfig.model_validate({"type": "trail_camera", "folder": "/media/cam-02", "scan_s": 0})
