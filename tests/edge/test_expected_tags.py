from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import Instant
from edge.contract.remote import Expected
from edge.expected import ExpectedTags

T0_US = 1_780_434_720_000_000
FIRST, SECOND, OTHER = "0123456789abcdef", "00000000000000aa", "00000000000000bb"


def at(seconds: float) -> Instant:
    return Instant(T0_US + round(seconds * 1e6), round(seconds * 1e6))


def said(revision: int, *tags: tuple[str, str, float, float]) -> Expected:
    """The gateway's list; times in s after T0."""
    listed = [(eid, tag, at(begin).utc_us, at(end).utc_us) for eid, tag, begin, end in tags]
    return Expected(node="node-1", revision=revision, tags=listed)


def test_an_identifier_is_known_in_its_time_only(tmp_path: Path) -> None:
    tags = ExpectedTags(tmp_path / "expected.json")
    assert tags.at(at(0)) == {}
    tags.update(said(1, (FIRST, "tag-1", 10, 20), (SECOND, "tag-1", 18, 30), (OTHER, "tag-2", 0, 30)))
    first, second, other = (bytes.fromhex(eid) for eid in (FIRST, SECOND, OTHER))
    assert tags.at(at(5)) == {other: "tag-2"}
    assert tags.at(at(10)) == {first: "tag-1", other: "tag-2"}
    assert tags.at(at(19)) == {first: "tag-1", second: "tag-1", other: "tag-2"}
    assert tags.at(at(20)) == {second: "tag-1", other: "tag-2"}
    assert tags.at(at(30)) == {}
    assert tags.at(at(12)) == {first: "tag-1", other: "tag-2"}  # the wall clock stepped back


def test_only_a_newer_list_counts(tmp_path: Path) -> None:
    tags = ExpectedTags(tmp_path / "expected.json")
    assert tags.update(said(5, (FIRST, "tag-1", 0, 10)))
    assert not tags.update(said(5))
    assert not tags.update(said(4, (SECOND, "tag-2", 0, 10)))
    assert tags.at(at(5)) == {bytes.fromhex(FIRST): "tag-1"}
    assert tags.update(said(6))
    assert (tags.revision, tags.at(at(5))) == (6, {})


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    ExpectedTags(tmp_path / "expected.json").update(said(7, (FIRST, "tag-1", 0, 10)))
    again = ExpectedTags(tmp_path / "expected.json")
    assert (again.revision, again.at(at(5))) == (7, {bytes.fromhex(FIRST): "tag-1"})
    assert not again.update(said(7))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\x00\xff", b'{"kind":"expected","node":"node-1","revision":1,"tags":[["zz"]]}']
)
def test_a_damaged_file_is_as_none_and_said_so(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "expected.json"
    path.write_bytes(content)
    tags = ExpectedTags(path)
    assert (tags.revision, tags.at(at(0))) == (0, {})
    assert "rotating tags are foreign until the gateway says again" in caplog.text
    assert tags.update(said(1, (FIRST, "tag-1", 0, 10)))
    assert ExpectedTags(path).revision == 1


def test_the_same_answer_is_not_computed_for_each_advertisement(tmp_path: Path) -> None:
    tags = ExpectedTags(tmp_path / "expected.json")
    tags.update(said(1, (FIRST, "tag-1", 0, 10)))
    assert tags.at(at(1)) is tags.at(at(9))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=8), st.lists(st.integers(-5, 70), min_size=1, max_size=8)
)
def test_what_is_remembered_is_what_is_listed(windows: list[tuple[int, int]], moments: list[int]) -> None:
    tags = ExpectedTags(Path("/nonexistent/expected.json"))
    listed = [(f"{number:016x}", f"tag-{number}", begin, begin + length) for number, (begin, length) in enumerate(windows)]
    tags._take(said(1, *listed))
    for moment in moments:
        assert tags.at(at(moment)) == {bytes.fromhex(eid): tag for eid, tag, begin, end in listed if begin <= moment < end}
