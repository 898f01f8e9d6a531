"""The shelf of pictures in the long run: what belongs to nothing goes, what is missing is said, each place has its own time."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.deployments import Deployment, Deployments
from gateway.keeping import pictures
from gateway.keeping.config import KeepConfig
from gateway.keeping.retention import Retention
from gateway.media import MediaShelf, discard
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry

NOW_US = 1_780_434_720_000_000
DAY_S, DAY_US = 86_400, 86_400 * 1_000_000
NODE = "kitayama-03"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "media"
    made.mkdir()
    return made


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield made
    made.close()


def sha(number: int) -> str:
    return f"{number:064x}"


def lay(path: Path, age_days: float, content: bytes = b"x") -> None:
    path.write_bytes(content)
    os.utime(path, (NOW_US / 1e6 - age_days * DAY_S,) * 2)


def put_on_record(state: State, folder: Path | None, number: int, device: str | None = None, content: str = "animal") -> str:
    """A picture, taken now, with its file where there is a folder."""
    row = {"sha256": sha(number), "size": 1, "content_type": "image/jpeg", "received_us": NOW_US}
    told = {"sha256": sha(number), "node": NODE, "device": device, "content": content, "withheld": False, "captured_us": NOW_US}
    with state.write() as connection:
        connection.execute(insert(tables.media), row)
        if device is not None:
            connection.execute(insert(tables.pictures), told)
    if folder is not None:
        lay(folder / sha(number), 30)
    return sha(number)


def on_record(state: State) -> set[str]:
    with state.read() as connection:
        return set(connection.scalars(select(tables.media.c.sha256)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- What belongs to nothing ------------------------------------------------------------------------------


def test_what_belongs_to_nothing_goes_and_is_counted(state: State, folder: Path) -> None:
    kept = put_on_record(state, folder, 1)
    lay(folder / f"{kept}.thumb1.jpg", 9)
    for name in (sha(2), f"{sha(3)}.part", f"{sha(4)}.thumb1.jpg", f"{sha(5)}.thumb1.new"):
        lay(folder / name, 3)
    lay(folder / "readme.txt", 900)
    telemetry = Telemetry()
    Retention(state, KeepConfig(), folder, telemetry).run(NOW_US)
    assert names(folder) == {kept, f"{kept}.thumb1.jpg", "readme.txt"}
    assert telemetry.removed.labels("orphans")._value.get() == 4
    assert telemetry.pictures_bytes._value.get() == 1


def test_what_a_sender_may_still_be_at_is_left_alone(state: State, folder: Path) -> None:
    for name in (sha(2), f"{sha(3)}.part", f"{sha(4)}.thumb1.jpg"):
        lay(folder / name, 1.9)
    before = names(folder)
    assert pictures.sweep(state, folder, NOW_US) == (0, 0)
    assert names(folder) == before


def test_an_upload_that_goes_on_while_it_is_swept_stays(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After weeks without a link a node goes on at the very moment at which its part was found to be old."""
    part = folder / f"{sha(3)}.part"
    lay(part, 20, b"abc")
    sender, sweep = MediaShelf(folder, state, lambda: NOW_US, reserve_mib=0), discard

    def goes_on_first(*of: Any, **how: Any) -> bool:
        sender.append(sha(3), 3, 10, b"def")
        return sweep(*of, **how)

    monkeypatch.setattr(pictures, "discard", goes_on_first)
    assert pictures.sweep(state, folder, NOW_US).files == 0
    assert part.read_bytes() == b"abcdef"


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.keeping import pictures
from gateway.state import open_state
folder, left, now_us = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
unlink = Path.unlink
def counted(path, *, missing_ok=False):
    global left
    if path.exists():
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    unlink(path, missing_ok=missing_ok)
Path.unlink = counted
pictures.sweep(open_state(f"sqlite:///{folder.parent / 'state.db'}"), folder, now_us)
"""


@pytest.mark.sqlite_only("a process of its own opens the file")
@pytest.mark.parametrize("deletions", [0, 1, 2, 3, 5])
def test_a_kill_in_the_middle_of_a_sweep_costs_no_picture_and_the_next_one_ends_it(
    state: State, folder: Path, deletions: int
) -> None:
    kept = {put_on_record(state, folder, number) for number in (1, 3, 5)}
    for number in (2, 4, 6):
        lay(folder / sha(number), 3)
        lay(folder / f"{sha(number)}.thumb1.jpg", 3)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(deletions), str(NOW_US)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert kept <= names(folder)
    assert len({name[:64] for name in names(folder)} - kept) > 0, "it was killed before the end"

    # What the killed one held open is as old as the kill: real time, so the next sweep is of days later.
    pictures.sweep(state, folder, 10 * NOW_US)
    assert names(folder) == kept


def test_the_lock_goes_last(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a sender could put the whole picture on record just before that goes."""
    for name in (sha(2), f"{sha(2)}.part", f"{sha(2)}.thumb1.jpg"):
        lay(folder / name, 3)
    gone: list[str] = []
    real = Path.unlink

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        gone.append(path.name)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert discard(state, folder / sha(2))
    assert gone == [f"{sha(2)}.thumb1.jpg", sha(2), f"{sha(2)}.part"]


def test_a_kill_between_rows_and_files_leaves_nothing_for_ever(state: State, folder: Path) -> None:
    put_on_record(state, folder, 1, "cam-1")
    with state.write() as connection:
        assert pictures.nobody_in_it(connection, NOW_US + 1, {}) == [sha(1)]
    assert names(folder) == {sha(1)}, "here it was killed"
    assert pictures.sweep(state, folder, NOW_US).files == 1
    assert names(folder) == set()


# --- What is missing --------------------------------------------------------------------------------------


def test_a_picture_without_its_file_is_said_once_and_stays_on_record(
    state: State, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its disk may not be mounted, or a backup may have it: a row that was deleted would not find it again."""
    put_on_record(state, folder, 1)
    lost = put_on_record(state, None, 2)
    said: list[tuple[str, str, Any]] = []
    telemetry = Telemetry()
    chore = Retention(
        state, KeepConfig(), folder, telemetry, condition=lambda part, level, _, facts: said.append((part, level, facts))
    )
    with caplog.at_level(logging.WARNING, "gateway.keeping"):
        for _ in range(3):
            chore.run(NOW_US)
        assert said[-1] == ("pictures_missing", "firing", {"n": 1})
        assert telemetry.pictures_missing._value.get() == 1
        assert on_record(state) == {sha(1), lost}
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert str(folder) in caplog.text

        lay(folder / lost, 0)
        chore.run(NOW_US)
    assert said[-1][:2] == ("pictures_missing", "ok")
    assert telemetry.pictures_missing._value.get() == 0
    assert len(caplog.records) == 2


def test_what_comes_or_goes_while_it_is_counted_is_not_missing(
    state: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, goes = put_on_record(state, None, 1), put_on_record(state, None, 2)
    real = Path.exists
    looked: list[Path] = []

    def exists(path: Path, **how: Any) -> bool:
        if path.name == come and not looked:
            looked.append(path)
            lay(path, 0)
            with state.write() as connection:
                connection.execute(tables.media.delete().where(tables.media.c.sha256 == goes))
        return real(path, **how)

    monkeypatch.setattr(Path, "exists", exists)
    assert pictures.sweep(state, folder, NOW_US).missing == 0
    assert looked


# --- Each place its own time ------------------------------------------------------------------------------


def deployed(**keep: str) -> Deployments:
    """Cameras with a time of their own."""
    return Deployments(
        Deployment.model_validate(
            {"node": NODE, "device": device.replace("_", "-"), "kind": "camera", "place": "北尾根", "keep_pictures": days}
        )
        for device, days in keep.items()
    )


@pytest.mark.parametrize(
    ("days", "left"),
    [
        (8, {"usual animal", "usual person", "long animal", "long person"}),
        (31, {"usual animal", "long animal"}),
        (91, {"long animal"}),
        (201, set()),
    ],
)
def test_a_deployment_keeps_its_pictures_longer_or_shorter_and_those_of_people_never_longer(
    state: State, folder: Path, days: int, left: set[str]
) -> None:
    own = deployed(short="7d", long="200d")
    numbers: dict[str, str] = {}
    for place in ("usual", "short", "long"):
        for content, name in (("animal", "animal"), ("person_or_vehicle", "person")):
            number = len(numbers) + 1
            numbers[put_on_record(state, folder, number, place, content)] = f"{place} {name}"
    Retention(state, KeepConfig(), folder, own_s=own.keep_pictures()).run(NOW_US + days * DAY_US)
    assert {numbers[one] for one in on_record(state)} == left
    assert {numbers[one] for one in names(folder)} == left


def test_of_two_cameras_that_told_of_one_picture_the_shorter_time_counts(state: State, folder: Path) -> None:
    put_on_record(state, folder, 1, "long")
    with state.write() as connection:
        told = {"sha256": sha(1), "node": "minami-01", "device": "usual", "content": "animal", "withheld": False}
        connection.execute(insert(tables.pictures), told | {"captured_us": NOW_US})
    Retention(state, KeepConfig(), folder, own_s=deployed(long="200d").keep_pictures()).run(NOW_US + 91 * DAY_US)
    assert on_record(state) == set()


@pytest.mark.parametrize("said", ["12h", "0d", "forever", 5])
def test_a_time_that_is_none_is_refused(said: object) -> None:
    with pytest.raises(ValueError, match="keep_pictures"):
        Deployment.model_validate({"node": NODE, "device": "cam", "kind": "camera", "place": "北尾根", "keep_pictures": said})
