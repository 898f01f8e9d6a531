from hypothesis import given
from hypothesis import strategies as st

from edge.drivers.direction import Passage, Way

A, B = 0, 1
GAP_US = 300_000


def passed(*changes: tuple[int, int, bool], then_us: int = 10_000_000) -> list[Way]:
    """Who passed, of (ms, beam, cut) and a long quiet time."""
    passage = Passage(GAP_US)
    ways = [way for ms, beam, cut in changes for way in passage.follow(beam, cut=cut, at_us=ms * 1000)]
    return ways + passage.tick(then_us)


def test_through_beams_a_hand_apart() -> None:
    assert passed((0, A, True), (100, B, True), (400, A, False), (500, B, False)) == [Way.IN]
    assert passed((0, B, True), (100, A, True), (400, B, False), (500, A, False)) == [Way.OUT]


def test_through_beams_further_apart_than_a_body() -> None:
    assert passed((0, A, True), (100, A, False), (250, B, True), (350, B, False)) == [Way.IN]


def test_two_close_behind_each_other_are_two() -> None:
    one = [(0, A, True), (100, B, True), (400, A, False), (500, B, False)]
    assert passed(*one, *((ms + 510, beam, cut) for ms, beam, cut in one)) == [Way.IN, Way.IN]


def test_one_who_turns_round_is_nobody() -> None:
    assert passed((0, A, True), (100, B, True), (200, B, False), (300, A, False)) == []


def test_a_single_beam_is_nobody() -> None:
    assert passed((0, A, True), (100, A, False)) == []


def test_too_long_between_the_beams_is_not_one_passage() -> None:
    assert passed((0, A, True), (100, A, False), (500, B, True), (600, B, False)) == []


def test_who_stands_in_a_beam_is_known_since_when() -> None:
    passage = Passage(GAP_US)
    since = []
    for at_us, beam, cut in ((1_000, A, True), (2_000, B, True), (3_000, A, False), (4_000, B, False)):
        passage.follow(beam, cut=cut, at_us=at_us)
        since.append(passage.cut_since_us)
    assert since == [1_000, 1_000, 1_000, None]


@given(st.lists(st.tuples(st.integers(1, 500), st.sampled_from([A, B]), st.booleans()), max_size=40))
def test_whatever_flickers_the_pair_comes_to_rest(steps: list[tuple[int, int, bool]]) -> None:
    passage, at_us, ways = Passage(GAP_US), 0, []
    for ms, beam, cut in steps:
        at_us += ms * 1000
        ways += passage.follow(beam, cut=cut, at_us=at_us)
    for beam in (A, B):
        ways += passage.follow(beam, cut=False, at_us=at_us + 1)
    ways += passage.tick(at_us + GAP_US + 1)
    assert passage.due_us is None
    assert len(ways) <= sum(cut for _, _, cut in steps) // 2
