import hashlib
import os
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


def test_what_the_gateway_has_goes_and_may_go_twice(shelf: MediaFolder) -> None:
    shelf.keep(CONTENT, "image/jpeg")
    shelf.done(SHA256)
    assert shelf.waiting() == []
    shelf.done(SHA256)


def test_a_crash_while_writing_leaves_nothing(shelf: MediaFolder, tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match="takes image/jpeg, not 'text/html'"):
        shelf.keep(CONTENT, "text/html")
