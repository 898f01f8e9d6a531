import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.counter_lines import MAX_LINE, Agreed, LineCounts, LineStream, compile_pattern

PATTERN = compile_pattern(r"N\d+ IN=(?P<in>\d+) OUT=(?P<out>\d+)")


def heard(*chunks: bytes) -> list[LineCounts]:
    stream = LineStream(PATTERN)
    return [counts for chunk in (b"\r\n", *chunks) for counts in stream.feed(chunk)]


def test_a_line_as_the_box_prints_it() -> None:
    assert heard(b"N1 IN=000012 OUT=000010\r\n") == [LineCounts(12, 10)]


def test_a_box_with_one_direction_only() -> None:
    stream = LineStream(compile_pattern(r"(?P<in>\d+)"))
    stream.feed(b"\n")
    assert stream.feed(b"42\n") == [LineCounts(42, 0)]


def test_the_first_line_may_be_cut_off_at_its_front_and_is_not_believed() -> None:
    stream = LineStream(compile_pattern(r"(?P<in>\d+)"))
    assert stream.feed(b"34\n1235\n") == [LineCounts(1235, 0)]


def test_what_does_not_match_as_a_whole_is_counted() -> None:
    stream = LineStream(PATTERN)
    stream.feed(b"\n")
    assert stream.feed(b"xN1 IN=1 OUT=2\nN1 IN=1 OUT=2x\nN1 IN= OUT=2\n\xffN1 IN=1 OUT=2\nN1 IN=9 OUT=2\n") == [LineCounts(9, 2)]
    assert stream.bad == 4


def test_a_line_without_end_is_dropped_and_its_rest_is_no_line() -> None:
    stream = LineStream(PATTERN)
    stream.feed(b"\n")
    assert stream.feed(b"x" * (MAX_LINE + 1)) == []
    assert stream.feed(b"N1 IN=1 OUT=2\nN1 IN=3 OUT=2\n") == [LineCounts(3, 2)]
    assert stream.bad == 1


@given(st.binary(max_size=300), st.integers(0, 10**11), st.data())
def test_noise_never_raises_and_lines_are_read_however_cut(noise: bytes, number: int, data: st.DataObject) -> None:
    stream, line = LineStream(PATTERN), f"N1 IN={number} OUT=2\n".encode()
    stream.feed(noise + b"\n\n")
    stream.feed(b"\n")
    cut = data.draw(st.integers(0, len(line)))
    assert [*stream.feed(line[:cut]), *stream.feed(line[cut:])] == [LineCounts(number, 2)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("(?P<in>", "no regular expression"),
        (r"\d+", "needs a group"),
        (r"(?P<out>\d+)", "needs a group"),
        (r"(?P<in>\d+)(?P<sum>\d+)", "no other names"),
        (r"(?P<in>(\d+)+)", "repeats a group"),
        (r"(?P<in>\d+)(\d+,?)*X", "repeats a group"),
        (r"(?P<in>\d+)(?:\s|\s)+X", "repeats a group"),
        (r"(?P<in>\d+)([)]){1,50}X", "repeats a group"),
    ],
)
def test_a_pattern_that_can_not_serve_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        compile_pattern(text)


@pytest.mark.parametrize("text", [r"\(\)+ (?P<in>\d+)", r"[)]+ (?P<in>\d+)", r"[])\]]* (?P<in>\d+)", r"(?:IN|in)? ?(?P<in>\d+)"])
def test_a_parenthesis_that_ends_no_group_may_be_repeated(text: str) -> None:
    compile_pattern(text)


def test_a_box_that_ends_its_lines_with_carriage_returns() -> None:
    stream = LineStream(PATTERN)
    assert stream.feed(b"\rN1 IN=1 OUT=2\rN1 IN=3") == [LineCounts(1, 2)]
    assert stream.feed(b" OUT=4\r") == [LineCounts(3, 4)]
    assert stream.bad == 0


def believed(*totals: int) -> list[int]:
    agreed = Agreed()
    return [one.inward for total in totals if (one := agreed.heard(LineCounts(total, 0)))]


def test_a_total_is_believed_when_the_next_line_agrees() -> None:
    assert believed(1050, 1050, 1051, 1052, 1052) == [1050, 1051, 1052]


@pytest.mark.parametrize("damaged", [0, 105, 1010, 1049, 1052, 1090, 9050, 999_999_999_999])
def test_a_damaged_digit_brings_nobody_in(damaged: int) -> None:
    said = believed(1050, 1050, 1050, 1051, damaged, 1051, 1052, 1052)
    assert set(said) <= {1050, 1051, 1052}
    assert said == sorted(said)
    assert said[-1] == 1052


def test_a_box_that_began_anew_is_believed_with_its_third_line() -> None:
    assert believed(1050, 1050, 1050, 0, 0, 1, 1) == [1050, 0, 1]
