"""The journal: what it said it kept is there, in order, whatever became of who wrote it; and nothing of the living is touched."""

import errno
import logging
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError, StoreDown
from gateway.store import journal as module
from gateway.store.disk import Reserve
from gateway.store.journal import Journal, put_aside


def opened(folder: Path, most_mib: int = 64) -> Journal:
    return Journal(folder, "store.journal", most_mib)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with closing(opened(folder)) as one:
        yield one


def held(journal: Journal) -> list[bytes]:
    """All that is sealed, and that nobody else has."""
    return [body for segment in journal.seal() for body in segment.bodies()]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- What it kept is there --------------------------------------------------------------------------------


def test_what_it_kept_is_there_in_order_for_who_comes_next(folder: Path) -> None:
    bodies = [b"one", b"two\nlines", bytes(100_000), b"\xff"]
    with closing(opened(folder)) as first:
        for body in bodies:
            first.append(body, 7)
    with closing(opened(folder)) as second:
        (segment,) = second.seal()
        assert list(segment.bodies()) == bodies
        assert list(segment.bodies()) == bodies, "as often as one likes"
        assert segment.mark is None, "what was known of it died with who knew it"


def write_anew(folder: Path, bodies: list[bytes]) -> None:
    """A journal that holds these, and nothing of an earlier example."""
    shutil.rmtree(folder, ignore_errors=True)
    with closing(opened(folder)) as writer:
        for body in bodies:
            writer.append(body, 1)


@given(bodies=st.lists(st.binary(min_size=1, max_size=50), max_size=6), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
def test_wherever_its_file_was_cut_off_all_that_was_whole_is_there_and_nothing_else(
    tmp_path: Path, bodies: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path / "cut"
    write_anew(folder, bodies)
    ends = [sum(8 + len(body) for body in bodies[:number]) for number in range(len(bodies) + 1)]
    cut = data.draw(st.integers(0, ends[-1]))
    # A power cut may leave anything at the end of what was not synced: nothing, zeros, or the disk's former content.
    rest = data.draw(st.sampled_from([b"", bytes(40), b"\xff" * 40]))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:cut] + rest)

    with closing(opened(folder)) as reader:
        found = held(reader)
    whole = sum(end <= cut for end in ends[1:])
    assert found == bodies[: len(found)]
    # What was cut may by chance stand there again.
    assert len(found) == whole if not rest else len(found) >= whole


@given(bodies=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
def test_of_what_its_disk_changed_the_rest_is_given_back_and_the_file_is_kept_for_people(
    tmp_path: Path, bodies: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path / "changed"
    write_anew(folder, bodies)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    number = data.draw(st.integers(0, len(bodies) - 1))
    begins = sum(8 + len(body) for body in bodies[:number])
    # Not its length: without that nobody knows where the next one begins.
    content[data.draw(st.integers(begins + 4, begins + 7 + len(bodies[number])))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)

    with closing(opened(folder)) as reader:
        (segment,) = reader.seal()
        assert list(segment.bodies()) == bodies[:number] + bodies[number + 1 :]
        reader.drop(segment)
    # Of the last one nobody can tell whether it was ever whole.
    assert put_aside(folder) == ([] if number == len(bodies) - 1 else [file.with_suffix(".unread")])


@given(bodies=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
def test_a_body_that_its_disk_changed_is_never_given_back(tmp_path: Path, bodies: list[bytes], data: st.DataObject) -> None:
    folder = tmp_path / "changed"
    write_anew(folder, bodies)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)

    with closing(opened(folder)) as reader:
        rest = iter(bodies)
        found = held(reader)
        assert all(body in rest for body in found), "in their order"
        assert len(found) < len(bodies)


def test_what_is_cut_off_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(opened(folder)) as writer:
        writer.append(b"whole", 1)
        writer.append(b"torn", 1)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with closing(opened(folder)) as reader:
        assert held(reader) == [b"whole"]
    assert f"{file} ends with 11 bytes of no whole record" in caplog.text


def test_the_room_it_makes_beforehand_reads_as_nothing(
    folder: Path, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append(b"body", 1)
    (file,) = folder.iterdir()
    assert file.stat().st_size > 1000, "as a process leaves it that is killed"
    (tmp_path / "found").mkdir()
    shutil.copy(file, tmp_path / "found")
    with closing(opened(tmp_path / "found")) as reader:
        assert held(reader) == [b"body"]
    assert not caplog.records


# ---- Segments --------------------------------------------------------------------------------------------


def test_bodies_of_one_mark_stand_together(journal: Journal) -> None:
    for body, mark in ((b"a", 1), (b"b", 1), (b"c", 2), (b"d", None), (b"e", None), (b"f", 1)):
        journal.append(body, mark)
    found = [(segment.mark, list(segment.bodies())) for segment in journal.seal()]
    assert found == [(1, [b"a", b"b"]), (2, [b"c"]), (None, [b"d", b"e"]), (1, [b"f"])]


def test_a_segment_does_not_grow_without_end(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 100)
    for number in range(10):
        journal.append(bytes([number + 1]) * 60, 1)
    assert [len(list(segment.bodies())) for segment in journal.seal()] == [2] * 5


def test_a_sealed_segment_gets_no_more_and_a_dropped_one_is_gone(folder: Path, journal: Journal) -> None:
    journal.append(b"first", 1)
    (first,) = journal.seal()
    journal.append(b"second", 1)
    assert list(first.bodies()) == [b"first"]
    journal.drop(first)
    assert held(journal) == [b"second"]
    assert journal.size == 8 + len(b"second")
    assert len(list(folder.iterdir())) == 1


def test_while_nothing_is_settled_it_does_not_open_ever_more_files(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEALED_MOST", 3)
    bodies = [bytes([number + 1]) for number in range(10)]
    for body in bodies:
        journal.append(body, 1)
        sealed = journal.seal()
    assert len(list(folder.iterdir())) == 4
    found: list[bytes] = []
    while sealed:
        for segment in sealed:
            found += segment.bodies()
            journal.drop(segment)
        sealed = journal.seal()
    assert found == bodies


def test_of_the_living_nothing_is_taken_and_of_the_dead_everything_once(folder: Path, journal: Journal) -> None:
    dead = opened(folder)
    with closing(opened(folder)) as living:
        living.append(b"sealed", 1)
        living.seal()
        living.append(b"open", 1)
        dead.append(b"dead", 1)
        assert held(journal) == []
        dead.close()
        assert held(journal) == [b"dead"]
        with closing(opened(folder)) as another:
            assert held(another) == [], "it has a new owner"
        assert held(living) == [b"sealed", b"open"], "it goes on with its own"


def test_one_that_is_dropped_while_another_opens_it_is_nobody_s(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(b"dropped", 1)
    (segment,) = journal.seal()
    honest = os.open

    def then_it_is_dropped(path: Path, *given: int) -> int:
        descriptor = honest(path, *given)
        monkeypatch.undo()
        journal.drop(segment)
        return descriptor

    with closing(opened(folder)) as another:
        monkeypatch.setattr(os, "open", then_it_is_dropped)
        assert another.seal() == []


def test_others_may_not_look_into_it(folder: Path, journal: Journal) -> None:
    journal.append(b"body", 1)
    journal.set_aside(b"body")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_leaves_there_belongs_to_the_gateway(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 65534, 65533)
    with closing(opened(folder)) as of_a_command:
        of_a_command.append(b"body", 1)
    (file,) = folder.iterdir()
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65533)


def test_one_that_can_not_be_opened_is_said_once_and_stops_no_other(
    folder: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opened(folder)) as dead:
        dead.append(b"body", 1)
    (folder / "0.segment").mkdir()
    assert held(journal) == held(journal) == [b"body"]
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "0.segment can't be opened (Is a directory)" in record.getMessage()


def test_one_that_its_disk_does_not_give_back_is_read_as_far_as_it_goes_and_kept(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for body, mark in ((b"before", 1), (b"behind", 1), (b"another", 2)):
        journal.append(body, mark)
    bad, other = journal.seal()
    content = bad.path.read_bytes()
    read = os.pread

    def fail_behind_the_first(descriptor: int, length: int, at: int) -> bytes:
        if descriptor == bad._descriptor and at + length > 8 + len(b"before"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, length, at)

    monkeypatch.setattr(os, "pread", fail_behind_the_first)
    assert [list(one.bodies()) for one in (bad, bad, other)] == [[b"before"], [b"before"], [b"another"]]
    assert [one.message.partition(" (")[0] for one in caplog.records] == [f"{bad.path} can't be read at byte 14"]
    for one in (bad, other):
        journal.drop(one)
    (kept,) = folder.iterdir()
    assert (kept, kept.read_bytes()) == (bad.path.with_suffix(".unread"), content)
    assert put_aside(folder) == [kept]
    assert journal.seal() == [], "nothing here reads it again"


def test_what_is_put_aside_is_a_file_for_people(folder: Path, journal: Journal) -> None:
    path = journal.set_aside(b"m,node=a value=1.0 1\n")
    assert path.read_bytes() == b"m,node=a value=1.0 1\n"
    assert path.parent == folder
    assert held(journal) == []


# ---- Room ------------------------------------------------------------------------------------------------


def test_it_is_bounded(folder: Path) -> None:
    with closing(opened(folder, most_mib=1)) as journal:
        journal.append(bytes(600_000), 1)
        journal.check_room(400_000)
        with pytest.raises(StoreDown, match=r"store\.journal: .*holds 0 MiB .*store\.journal_mib is 1: readings wait"):
            journal.check_room(500_000)
        for segment in journal.seal():
            journal.drop(segment)
        journal.check_room(500_000)


def test_it_leaves_alarms_their_room(folder: Path, journal: Journal) -> None:
    journal.disk = Reserve(folder, 2**40)
    with pytest.raises(StoreDown, match=r"store\.journal: less than .* MiB free on .*kept for alarms"):
        journal.check_room(1)


def test_a_full_disk_is_an_outage_and_takes_nothing_of_what_was_kept(journal: Journal) -> None:
    journal.append(b"before", 1)
    with (
        no_file_larger_than(10_000),
        pytest.raises(StoreDown, match=r"store\.journal: .*can't be written: .*has it room"),
    ):
        journal.append(bytes(module.ROOM_BYTES), 1)
    journal.append(b"after", 1)
    assert held(journal) == [b"before", b"after"]


def test_a_disk_that_takes_a_part_and_fails_takes_nothing_of_what_comes_after(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(b"before", 1)
    honest, rooms = os.pwrite, [5, 5]

    def take_a_part(descriptor: int, content: bytes, at: int) -> int:
        if not rooms:
            raise OSError(errno.EIO, "Input/output error")
        return honest(descriptor, content[: rooms.pop()], at)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", take_a_part)
        with pytest.raises(StoreDown, match="Input/output error"):
            journal.append(b"a body of some length", 1)
    journal.append(b"after", 1)
    assert held(journal) == [b"before", b"after"]


def test_a_disk_that_takes_little_at_once_gets_all_of_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, at: honest(descriptor, content[:3], at))
    journal.append(b"a body of some length", 1)
    assert held(journal) == [b"a body of some length"]


def test_a_folder_that_is_removed_is_an_outage_and_goes_on_once_it_is_back(folder: Path, journal: Journal) -> None:
    journal.append(b"before", 1)
    shutil.rmtree(folder)
    with pytest.raises(StoreDown, match=r"store\.journal: .*can't be written: No such file or directory. Is it there"):
        journal.append(b"lost on it", 1)
    folder.mkdir()
    journal.append(b"after", 1)
    assert held(journal) == [b"before", b"after"], "what it has open it can still read"


def test_several_may_begin_at_the_same_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Path.mkdir

    def after_another(path: Path, mode: int = 0o777) -> None:
        monkeypatch.undo()
        honest(path, mode)
        honest(path, mode)

    monkeypatch.setattr(Path, "mkdir", after_another)
    with closing(opened(folder)) as one:
        one.append(b"kept", 1)
        assert held(one) == [b"kept"]


@pytest.mark.parametrize("place", ["not/there", "a-file", "a-file/journal"])
def test_a_folder_that_can_not_be_is_a_fault_of_the_configuration(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ConfigError, match=rf"store\.journal: .*{place} can't be used: .*Name a folder that this user may write"):
        opened(tmp_path / place)
