import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.media import MediaFolder, Waiting

CONTENT = b"\xff\xd8\xff picture \xff\xd9"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path) -> MediaFolder:
    return MediaFolder(tmp_path / "media", reserve_bytes=0)


def test_a_file_is_kept_under_its_own_hash_and_waits(shelf: MediaFolder, tmp_path: Path) -> None:
    assert shelf.keep(CONTENT, "image/jpeg") == SHA256
    path = tmp_path / "media" / f"{SHA256}.jpg"
    assert shelf.waiting() == [Waiting(SHA256, path, "image/jpeg")]
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_same_bytes_again_change_nothing(shelf: MediaFolder, tmp_path: Path) -> None:
    shelf.keep(CONTENT, "image/jpeg")
    before = (tmp_path / "media" / f"{SHA256}.jpg").stat()
    assert shelf.keep(CONTENT, "image/jpeg") == SHA256
    assert (tmp_path / "media" / f"{SHA256}.jpg").stat() == before


def test_the_oldest_waits_first_and_over_a_restart(shelf: MediaFolder, tmp_path: Path) -> None:
    names = [shelf.keep(bytes([number]), "image/jpeg") for number in range(3)]
    for age, name in zip((2, 1, 3), names, strict=True):
        os.utime(tmp_path / "media" / f"{name}.jpg", (age, age))
    again = MediaFolder(tmp_path / "media", reserve_bytes=0)
    assert [item.sha256 for item in again.waiting()] == [names[1], names[0], names[2]]


def test_a_picture_does_not_wait_behind_an_older_video(shelf: MediaFolder, tmp_path: Path) -> None:
    video, picture = shelf.keep(b"long", "video/mp4"), shelf.keep(b"short", "image/jpeg")
    os.utime(tmp_path / "media" / f"{video}.mp4", (1, 1))
    assert [item.sha256 for item in shelf.waiting()] == [picture, video]


def test_what_the_gateway_has_goes_and_may_go_twice(shelf: MediaFolder) -> None:
    shelf.keep(CONTENT, "image/jpeg")
    shelf.done(SHA256)
    assert shelf.waiting() == []
    shelf.done(SHA256)


def test_a_shelf_that_nothing_was_put_on_leaves_no_folder(shelf: MediaFolder, tmp_path: Path) -> None:
    assert shelf.waiting() == []
    shelf.done(SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_nothing(shelf: MediaFolder, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / f"{SHA256}.part").write_bytes(CONTENT[:5])
    (tmp_path / "media" / "readme.txt").write_text("somebody's")
    assert shelf.waiting() == []
    again = MediaFolder(tmp_path / "media", reserve_bytes=0)
    assert [entry.name for entry in (tmp_path / "media").iterdir()] == ["readme.txt"]
    again.keep(CONTENT, "image/jpeg")
    assert [item.sha256 for item in again.waiting()] == [SHA256]


def test_the_bytes_are_on_the_disk_before_their_name_is_and_the_name_before_keep_returns(
    shelf: MediaFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(number: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{number}").readlink().name.replace(SHA256, "file"))
        real_fsync(number)

    def rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    shelf.keep(CONTENT, "image/jpeg")
    assert steps == ["sync file.part", "rename", "sync media"]


def test_a_disk_that_fails_is_heard_and_leaves_nothing(
    shelf: MediaFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output error"):
            shelf.keep(CONTENT, "image/jpeg")
    assert list((tmp_path / "media").iterdir()) == []


def test_pictures_never_take_the_room_of_alarms(tmp_path: Path) -> None:
    shelf = MediaFolder(tmp_path / "media", reserve_bytes=2**60)
    with pytest.raises(OSError, match=r"no room for media: .* are kept for alarms"):
        shelf.keep(CONTENT, "image/jpeg")
    assert shelf.waiting() == []


def test_another_type_is_a_mistake_of_the_caller(shelf: MediaFolder) -> None:
    with pytest.raises(ValueError, match=r"takes image/jpeg, .*, not 'text/html'"):
        shelf.keep(CONTENT, "text/html")


def test_a_large_file_is_kept_without_being_held_in_memory(shelf: MediaFolder, tmp_path: Path) -> None:
    source = tmp_path / "VIDEO.AVI"
    with source.open("wb") as file:
        for number in range(40):
            file.write(bytes([number]) * 2**20)
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    tracemalloc.start()
    try:
        shelf.keep_file(source, sha256, "video/x-msvideo")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    [waiting] = shelf.waiting()
    assert (waiting.sha256, waiting.content_type, waiting.path.stat().st_size) == (sha256, "video/x-msvideo", 40 * 2**20)


def test_a_file_that_was_changed_meanwhile_is_not_kept_under_a_wrong_name(shelf: MediaFolder, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"other")
    with pytest.raises(OSError, match=r"a\.mp4 was changed while it was copied"):
        shelf.keep_file(tmp_path / "a.mp4", SHA256, "video/mp4")
    assert list((tmp_path / "media").iterdir()) == []


def test_what_waits_can_be_withdrawn_and_what_has_gone_can_not(shelf: MediaFolder, tmp_path: Path) -> None:
    other = MediaFolder(tmp_path / "withheld", reserve_bytes=0)
    shelf.keep(CONTENT, "image/jpeg")
    assert shelf.withdraw(SHA256, tmp_path / "withheld")
    assert (shelf.waiting(), [item.sha256 for item in other.waiting()]) == ([], [SHA256])
    assert not shelf.withdraw(SHA256, tmp_path / "withheld")


def test_a_file_that_goes_while_we_look_is_no_error(shelf: MediaFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera withdraws pictures while others are sent."""
    shelf.keep(CONTENT, "image/jpeg")
    scandir = os.scandir

    @contextmanager
    def slow(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            seen = list(entries)
        shelf.done(SHA256)
        yield seen

    monkeypatch.setattr(os, "scandir", slow)
    assert shelf.waiting() == []
