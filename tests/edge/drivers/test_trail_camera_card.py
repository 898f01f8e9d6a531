"""Folders, cards, FTP drops, videos: how files get to the camera's driver."""

import asyncio
import ftplib
import hashlib
import io
import itertools
import logging
import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from edge.clock import Instant, SystemClock
from edge.contract.events import MediaCaptured
from edge.drivers import taken
from edge.drivers.taken import Recent, Stamp, Taken
from edge.drivers.trail_camera import WATCHED_SCAN_S
from edge.errors import DeviceError
from edge.hardware import card
from edge.hardware.card import AT_ONCE_S, CardReader
from edge.media import MediaFolder
from edge.records import Reading, Site
from simulators.clock import VirtualClock
from tests.edge.drivers.listening import values
from tests.edge.drivers.trail_pictures import camera, captured, counted, picture, video, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "card"
    made.mkdir()
    return made


# --- Folders ----------------------------------------------------------------------------------------


def test_pictures_in_folders_of_the_folder_are_taken_in(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            names = ("DCIM/100RECNX/RCNX0001.JPG", "DCIM/101RECNX/RCNX0001.JPG", "IMG_1.jpg")
            expected = {write(folder / name, picture((10 * number, 0, 0))) for number, name in enumerate(names, 60)}
            write(folder / ".Trashes/501/IMG_9.jpg", picture((9, 9, 9)))
            (folder / "link").symlink_to("DCIM")
            await clock.advance(4)
            assert {event.media for event in captured(heard.so_far())} == expected

    asyncio.run(play())


def test_a_folder_removed_in_the_middle_stops_nothing(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            write(folder / "DCIM/100RECNX/RCNX0001.JPG", picture())
            await clock.advance(2)
            shutil.rmtree(folder / "DCIM")
            sha256 = write(folder / "IMG_1.jpg", picture((1, 2, 3)))
            await clock.advance(4)
            assert [event.media for event in captured(heard.so_far())] == [sha256]

    asyncio.run(play())


# --- Cards ------------------------------------------------------------------------------------------


def test_a_mount_point_without_its_card_is_down_and_no_empty_folder(site: Site, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder, mount=True) as heard:
            with pytest.raises(DeviceError, match=r"card has no card mounted on it\. Is the card in\?"):
                await heard.next()

    asyncio.run(play())


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="nothing is mounted on /dev/shm here")
def test_a_mounted_card_is_read(site: Site, clock: VirtualClock) -> None:
    async def play() -> None:
        async with camera(site, Path("/dev/shm"), mount=True, full_below_mib=0) as heard:
            await clock.advance(4)
            assert "heartbeat" in values(heard.so_far())

    asyncio.run(play())


def test_a_full_card_is_down_once_all_of_it_was_taken_in(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        write(folder / "IMG_1.jpg", picture())
        async with camera(site, folder, full_below_mib=1_000_000) as heard:
            await clock.advance(2)
            assert len(captured([await heard.next(), await heard.next(), await heard.next()])) == 1
            with pytest.raises(DeviceError, match=r"card is full \(\d+ MiB are free\): the camera can save no more pictures"):
                await heard.next()
        async with camera(site, folder, full_below_mib=1_000_000) as heard:  # tried again: not up, not even for a moment
            with pytest.raises(DeviceError, match="is full"):
                await heard.next()
        async with camera(site, folder) as heard:  # somebody made room
            assert "media_count" in values([await heard.next(), await heard.next()])

    asyncio.run(play())


def test_a_card_that_hangs_stops_its_own_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "AT_ONCE_S", 0.01)
    monkeypatch.setattr(card, "PATIENCE_S", 0.2)
    plugged_in_again = threading.Event()

    async def play() -> None:
        reader = CardReader("the card")
        others = asyncio.create_task(asyncio.sleep(0.05, "alive"))
        hanging = asyncio.create_task(reader.run(plugged_in_again.wait))
        done, _ = await asyncio.wait((others, hanging), return_when=asyncio.FIRST_COMPLETED)
        assert done == {others}
        with pytest.raises(DeviceError, match=r"has not answered for 0\.2 s"):
            await hanging
        with pytest.raises(DeviceError, match="still does not answer"):  # and no second thread hangs beside it
            await reader.run(len, "x")
        plugged_in_again.set()
        assert reader._last is not None
        await asyncio.wrap_future(reader._last)
        assert await reader.run(len, "xyz") == 3

    asyncio.run(play())


# --- What was taken in ------------------------------------------------------------------------------


def event_of(number: int) -> MediaCaptured:
    return MediaCaptured(device="cam-02", media=f"{number:064x}", size=1, content_type="image/jpeg")


def test_the_memory_stays_small_and_forgets_nothing_that_lies_in_the_folder(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "KEPT", 20)
    memory = Taken(site.state)
    try:
        for number in range(60):
            memory.add(Recent(event_of(number), None, "unclassified"), [])
            if number < 5:
                memory.add_file(f"{number:064x}", f"IMG_{number}.jpg", Stamp(1, 1, number))
        known = {number for number in range(60) if f"{number:064x}" in memory}
        assert known == {*range(5), *range(40, 60)} | (known & {39})
        assert memory.count == 60
        memory.forget_files_but({"IMG_0.jpg"})
        assert (memory.has("IMG_0.jpg", Stamp(9, 1, 0)), memory.has("IMG_1.jpg", Stamp(9, 1, 1))) == (True, False)
    finally:
        memory.close()


def test_a_card_that_comes_back_tells_nothing_twice(site: Site, clock: VirtualClock, folder: Path) -> None:
    other = folder.with_name("other")
    write(folder / "IMG_1.jpg", picture((200, 0, 0)))
    write(other / "IMG_1.jpg", picture((0, 200, 0)))

    async def play() -> int:
        async with camera(site, folder) as heard:
            await clock.advance(60)
            return len(captured(heard.so_far()))

    told = []
    for _ in range(3):
        told.append(asyncio.run(play()))
        folder.rename(folder.with_name("aside"))
        other.rename(folder)
        folder.with_name("aside").rename(other)
    assert told == [1, 1, 0]


# --- Videos -----------------------------------------------------------------------------------------


def test_a_video_is_media_like_a_picture(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            content = video()
            sha256 = write(folder / "DSCF0002.AVI", content)  # its first bytes say what it is, not its name
            await clock.advance(4)
            [event] = captured(heard.so_far())
            assert (event.media, event.content_type, event.size) == (sha256, "video/mp4", 600)
            assert (event.content, event.camera_time, event.burst, event.withheld) == ("unclassified", None, None, False)
            [waiting] = cast(MediaFolder, site.media).waiting()
            assert waiting.path.read_bytes() == content

    asyncio.run(play())


def test_a_video_that_is_still_recorded_is_waited_for(site: Site, clock: VirtualClock, folder: Path) -> None:
    async def play() -> None:
        async with camera(site, folder) as heard:
            write(folder / "MOV_1.MP4", video(5000)[:4000])
            await clock.advance(20)
            assert captured(heard.so_far()) == []
            write(folder / "MOV_1.MP4", video(5000))
            await clock.advance(6)
            assert len(captured(said := heard.so_far())) == 1
            assert counted(said, "frames_bad") == []

    asyncio.run(play())


def test_a_video_larger_than_allowed_is_said_with_the_settings_to_change(
    site: Site, clock: VirtualClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        write(folder / "MOV_1.MP4", video(2**20 + 1))
        async with camera(site, folder, max_mib=1) as heard:
            await clock.advance(300)
            assert captured(said := heard.so_far()) == []
            assert counted(said, "frames_bad") == [1]
        [message] = caplog.messages
        assert "1048577 bytes, more than max_mib allows; set that, and media.max_mib of the gateway" in message

    asyncio.run(play())


# --- In real time: inotify and FTP ------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Site:
    state = tmp_path / "state"
    state.mkdir()
    return Site(SystemClock(), MediaFolder(tmp_path / "media", reserve_bytes=0), state)


def test_the_kernel_says_when_a_picture_comes_long_before_the_next_scan(
    real: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.drivers.trail_camera.SETTLED_S", 0.3)

    async def play() -> None:
        async with camera(real, folder, watch=True, scan_s=0.2, heartbeat_s=1) as heard:
            await heard.until("media_count")
            await heard.until("media_count")  # by now it is looked through once a minute only
            begun = time.monotonic()
            sha256 = write(folder / "DCIM/100RECNX/RCNX0001.JPG", picture())
            [event] = captured(await heard.until("media_captured"))
            assert event.media == sha256
            assert time.monotonic() - begun < WATCHED_SCAN_S / 4

    asyncio.run(play())


def test_a_folder_that_can_not_be_watched_is_said_once_and_looked_through(
    real: Site, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watches_left(*_: object) -> None:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr("watchfiles.main.RustNotify", no_watches_left)
    monkeypatch.setattr("edge.drivers.trail_camera.SETTLED_S", 0.0)

    async def play() -> None:
        async with camera(real, folder, watch=True, scan_s=0.1) as heard:
            await heard.until("media_count")
            write(folder / "IMG_1.jpg", picture())
            assert captured(await heard.until("media_captured"))

    asyncio.run(play())
    [message] = [m for m in caplog.messages if "can't be watched" in m]
    assert message.startswith(f"cam-02: {folder} can't be watched ([Errno 28] OS file watch limit reached)")


@pytest.fixture
def ftp(folder: Path) -> Iterator[ftplib.FTP]:
    """A camera's connection to the node's FTP server, whose files land in the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses asyncore, until Python 3.12
        from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
        from pyftpdlib.handlers import FTPHandler  # type: ignore[import-untyped]
        from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped]
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    users = DummyAuthorizer()
    users.add_user("cam-02", "simcam", str(folder), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": users, "use_sendfile": False})
    server = FTPServer(("127.0.0.1", 0), handler)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.serve_forever(timeout=0.05, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    connection = ftplib.FTP()  # noqa: S321 - cameras speak nothing else
    try:
        connection.connect("127.0.0.1", server.address[1], timeout=10)
        connection.login("cam-02", "simcam")
        yield connection
    finally:
        connection.close()
        ended.set()
        thread.join(10)


class SlowLink(io.BytesIO):
    """A picture as it comes over a thin link: a piece, then a pause longer than the camera's driver waits for a still file."""

    def read(self, size: int | None = -1, /) -> bytes:
        if 0 < self.tell() < len(self.getbuffer()):
            threading.Event().wait(0.15)
        return super().read(size)


def test_a_slow_upload_is_taken_in_when_it_is_whole(real: Site, folder: Path, ftp: ftplib.FTP) -> None:
    content = picture((10, 200, 30), "2026:06:03 06:12:00")

    def upload() -> None:
        ftp.mkd("DCIM")
        ftp.storbinary("STOR DCIM/IMG_0001.JPG", SlowLink(content), blocksize=len(content) // 4 + 1)

    async def play() -> None:
        async with camera(real, folder, watch=True, scan_s=0.1, heartbeat_s=1) as heard:
            uploading = asyncio.create_task(asyncio.to_thread(upload))
            [event] = captured(said := await heard.until("media_captured"))
            assert event.media == hashlib.sha256(content).hexdigest()
            assert counted(said, "frames_bad") == []
            await uploading

    asyncio.run(play())


def test_a_card_full_of_pictures_does_not_hold_up_the_heartbeat(site: Site, clock: VirtualClock, folder: Path) -> None:
    class Worked(VirtualClock):
        """Time that passes while somebody works."""

        worked_us = 0

        def now(self) -> Instant:
            now = super().now()
            return Instant(now.utc_us + self.worked_us, now.mono_us + self.worked_us)

    class SlowDisk(MediaFolder):
        def keep(self, content: bytes, content_type: str) -> str:
            worked.worked_us += 10_000_000
            return super().keep(content, content_type)

    worked = Worked(clock.now().utc_us, clock.now().mono_us)

    async def play() -> None:
        for number in range(20):
            write(folder / f"{number}.jpg", picture((10 * number, 0, 0)))
        slow = site._replace(clock=worked, media=SlowDisk(folder.parent / "slow", reserve_bytes=0))
        async with camera(slow, folder, heartbeat_s=60) as heard:
            await worked.advance(30)
            said = heard.so_far()
        assert len(captured(said)) == 20
        beats = [record.at.mono_us for record in said if isinstance(record, Reading) and record.metric == "heartbeat"]
        assert len(beats) == 4
        assert max(later - earlier for earlier, later in itertools.pairwise(beats)) <= 70_000_000

    asyncio.run(play())


def test_a_slow_card_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it reads for half a second, the loop turns; a trap needs some turns of it."""
    monkeypatch.setattr(card, "AT_ONCE_S", AT_ONCE_S)

    async def play() -> None:
        turns = 0
        reading = asyncio.create_task(CardReader("the card").run(time.sleep, 0.5))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert turns > 10

    asyncio.run(play())
