"""What somebody at the desk makes happen in the played town, and what the world goes on with beside it."""

import pytest

from simulators.hands import (
    CAMERA,
    COMING_S,
    CROWD,
    CROWD_AT,
    GOING_S,
    HELD_S,
    HOME_AFTER_S,
    HOME_FIRST_S,
    SILENT,
    STAYING_S,
    Hands,
    crowd,
    walk,
)
from simulators.hardware import picture
from simulators.world import OPENED_US, World

WORLD = World(1)
WALKER = WORLD.wanderers()[0]
HOME = dict(WORLD.residents())[WALKER]
TRAP = ("kitaone", "trap-1")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Program:
    """A node's program, as the town has it."""

    def __init__(self) -> None:
        self.running = True
        self.said: list[str] = []

    def start(self) -> None:
        self.running = True
        self.said.append("start")

    def kill(self) -> None:
        self.running = False
        self.said.append("kill")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hands(clock: Clock) -> Hands:
    return Hands(WORLD, WORLD.nodes(), clock)


def hears(hands: Hands, node: str, *, at_home: bool = True) -> bool:
    """Whether the walker's tag is heard by a node, when the world has it at home or nowhere."""
    near = [(WALKER, -70)] if at_home and node == HOME else []
    return WALKER in [tag for tag, _ in hands.tags(node, near)]


def at_home(hands: Hands, clock: Clock) -> None:
    """The walker is at home for long enough that the gateway knows."""
    assert hears(hands, HOME)
    clock.now_s += HOME_FIRST_S
    assert hears(hands, HOME)


def test_nothing_is_so_by_hand_before_anything_is_pressed(hands: Hands) -> None:
    near = [(WALKER, -70)]
    assert [hands.trap(*TRAP, sprung=is_so) for is_so in (True, False)] == [True, False]
    assert hands.tags(HOME, near) is near
    assert hands.counted(CROWD_AT, "counter-east") == (0, 0)
    assert hands.pictures(*CAMERA) == []
    program = Program()
    hands.power(SILENT, program)
    assert program.said == []


def test_everything_waits_until_nothing_was_pressed_for_a_while(hands: Hands, clock: Clock) -> None:
    assert not hands.held()
    hands.press("spring")
    clock.now_s += HELD_S - 1
    hands.press("set")
    clock.now_s += HELD_S - 1
    assert hands.held()
    clock.now_s += 1
    assert not hands.held()


# --- A trap


def test_a_trap_springs_and_the_next_beat_does_not_undo_it(hands: Hands) -> None:
    hands.press("spring")
    assert [hands.trap(*TRAP, sprung=False) for _ in range(3)] == [True] * 3
    hands.press("set")
    assert hands.trap(*TRAP, sprung=False) is False


def test_a_trap_that_the_world_sprung_is_left_and_another_one_springs(hands: Hands) -> None:
    assert hands.trap(*TRAP, sprung=True)
    hands.press("spring")
    assert hands.trap("kitaone", "trap-2", sprung=False)


def test_who_sets_the_worlds_trap_sets_it_until_the_world_springs_it_anew(hands: Hands) -> None:
    assert hands.trap(*TRAP, sprung=True)
    hands.press("set")
    assert not hands.trap(*TRAP, sprung=True)  # the animal of that night
    assert not hands.trap(*TRAP, sprung=False)
    assert hands.trap(*TRAP, sprung=True)  # the next one


# --- A walk


def test_who_leaves_goes_over_the_bridge_to_the_market_and_is_at_one_place_at_a_time(hands: Hands, clock: Clock) -> None:
    at_home(hands, clock)
    assert hands.press("leave") == 0
    began_s, heard = clock.now_s, []
    for second in range(60):
        clock.now_s = began_s + second
        by = [node.name for node in WORLD.nodes() if hears(hands, node.name)]
        assert len(by) <= 1
        heard += [one for one in by if one not in heard]
    assert heard == ["kannonbashi", "hiroba"]
    assert walk(0) is None, "nobody hears them when they have just left"


@pytest.mark.parametrize("by_hand", [True, False], ids=["out by hand", "out by the world"])
def test_who_is_out_already_is_heard_at_home_first_and_leaves_anew(hands: Hands, clock: Clock, by_hand: bool) -> None:
    at_home(hands, clock)
    if by_hand:
        hands.press("leave")
        clock.now_s += 30
    assert not hears(hands, HOME, at_home=False)
    assert hands.press("leave") == HOME_FIRST_S
    assert hears(hands, HOME, at_home=False)
    assert not hears(hands, CROWD_AT)
    clock.now_s += HOME_FIRST_S
    assert not hears(hands, HOME)
    clock.now_s += 30
    assert hears(hands, CROWD_AT)


def test_who_has_just_come_home_stays_for_the_rest_of_that_time(hands: Hands, clock: Clock) -> None:
    assert not hears(hands, HOME, at_home=False)
    assert hears(hands, HOME)
    clock.now_s += 2
    assert hands.press("leave") == HOME_FIRST_S - 2


def test_who_is_brought_home_stays_there_until_the_world_has_them_there_too(hands: Hands, clock: Clock) -> None:
    hands.press("leave")
    clock.now_s += 40
    hands.press("home")
    assert hears(hands, HOME, at_home=False)
    assert not hears(hands, CROWD_AT)
    assert hears(hands, HOME, at_home=True)
    assert not hears(hands, HOME, at_home=False), "from then on it is the world's again"


def test_nobody_walks_for_ever(hands: Hands, clock: Clock) -> None:
    at_home(hands, clock)
    hands.press("leave")
    clock.now_s += HOME_AFTER_S
    assert hears(hands, HOME, at_home=False)


# --- A crowd


def test_a_crowd_comes_within_seconds_to_all_counters_and_goes_again(hands: Hands, clock: Clock) -> None:
    hands.press("crowd")
    before = (0, 0)
    for _ in range(int(COMING_S + STAYING_S + GOING_S) + 2):
        east, south = (hands.counted(CROWD_AT, name) for name in ("counter-east", "counter-south"))
        now = (east[0] + south[0], east[1] + south[1])
        assert before[0] <= now[0] <= CROWD, "totals never get smaller"
        assert before[1] <= now[1] <= now[0]
        assert abs(east[0] - south[0]) <= 1
        before = now
        clock.now_s += 1
    assert before == (CROWD, CROWD)
    assert crowd(COMING_S) == (CROWD, 0)
    assert hands.counted("kominkan", "counter") == (0, 0)


def test_a_second_crowd_adds_to_the_first(hands: Hands, clock: Clock) -> None:
    hands.press("crowd")
    hands.press("crowd")
    clock.now_s += COMING_S
    assert hands.counted(CROWD_AT, "counter-east") == (CROWD, 0)


# --- A bear, and a box


def test_a_bear_is_taken_once_by_one_camera(hands: Hands) -> None:
    hands.press("bear")
    assert hands.pictures("kitaone", "cam-1") == []
    assert [hands.pictures(*CAMERA) for _ in range(2)] == [["bear"], []]
    assert picture(OPENED_US, "bear", WORLD.seed).startswith(b"\xff\xd8")


def test_a_box_without_power_is_killed_once_and_started_once(hands: Hands) -> None:
    program, other = Program(), Program()
    for what in ("silence", "silence", "speak", "speak"):
        hands.press(what)
        hands.power(SILENT, program)
        hands.power("kitaone", other)
    assert program.said == ["kill", "start"]
    assert other.said == []


def test_at_the_end_of_the_day_a_box_has_its_power_again(hands: Hands) -> None:
    program = Program()
    hands.press("silence")
    hands.power(SILENT, program)
    hands.let_go()
    hands.power(SILENT, program)
    assert program.running
