from hypothesis import given
from hypothesis import strategies as st

from edge.clock import Instant
from edge.contract.events import TrapMoved, TrapSprung
from edge.drivers.paced import BURST, BURST_US, Kind, Paced, Tale, event_of

SPRUNG_OR_RESET: st.SearchStrategy[Kind] = st.sampled_from(["trap_sprung", "trap_reset"])


def at(us: int) -> Instant:
    return Instant(us, us)


@given(st.lists(st.tuples(st.integers(0, BURST_US // 3), SPRUNG_OR_RESET), max_size=60))
def test_nothing_is_forgotten_the_last_is_told_last_and_no_minute_has_too_many(steps: list[tuple[int, Kind]]) -> None:
    paced, now_us = Paced(), 0
    told: list[tuple[int, Tale]] = []
    for pause_us, kind in steps:
        now_us += pause_us
        paced.add(Tale(at(now_us), kind))
        assert len(paced.waiting) <= 2
        while (tale := paced.take(now_us)) is not None:
            told.append((now_us, tale))
    while paced.waiting:
        assert paced.due_us is not None
        now_us = max(now_us, paced.due_us)
        while (tale := paced.take(now_us)) is not None:
            told.append((now_us, tale))
    assert sum(1 + tale.folded for _, tale in told) == len(steps)
    assert [tale.kind for _, tale in told[-1:]] == [kind for _, kind in steps[-1:]]
    for (first_us, _), (after_us, _) in zip(told, told[BURST:], strict=False):
        assert after_us - first_us >= BURST_US


def test_what_is_told_is_the_first_of_those_folded_into_it() -> None:
    paced = Paced(1, 10)
    for us in (0, 1, 2):
        paced.add(Tale(at(us), "tilt"))
        if us == 0:
            assert paced.take(0) == Tale(at(0), "tilt")
    assert paced.take(9) is None
    assert paced.due_us == 10
    assert paced.take(10) == Tale(at(1), "tilt", folded=1)
    assert paced.due_us is None


def test_a_tale_becomes_its_event() -> None:
    assert event_of(Tale(at(0), "trap_sprung", 3, found=True), "trap-1") == TrapSprung(device="trap-1", folded=3, found=True)
    assert event_of(Tale(at(0), "tilt", 3), "trap-1") == TrapMoved(device="trap-1", how="tilt", folded=3)
