"""The hands of who sits at the desk: what they make happen in the played town, now, beside what the world plays by itself.

Hands move nothing. They say what is so at a device at a moment; the town asks them first and moves its seams, each beat, so that
the next beat does not undo it. What a thing comes to by and by (a walk, a crowd) is a pure function of the time since it began.
Any thread may press; times are seconds of one clock that never goes back.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from simulators.world import SimNode, Tag, World

Press = Literal["spring", "set", "leave", "home", "crowd", "bear", "silence", "speak"]
"""What may be pressed. Everything may be pressed again at any time."""

WALK: tuple[tuple[float, str | None], ...] = ((0, None), (9, "kannonbashi"), (20, None), (28, "hiroba"))
"""Where the tag of a resident who leaves is heard: from so many seconds after it left, by which node; None: by none."""
HOME_AFTER_S = 240.0
"""By then they are home by themselves, where nobody brought them."""
HOME_FIRST_S = 6.0
"""So long they must have been heard at home before they leave: by then an alert of the time before is over."""
HELD_S = 90.0
"""So long after a press the town and its people leave everything to who pressed."""
CROWD, CROWD_AT = 2000, "hiroba"
"""So many people come, one by one, to all counters of this node together."""
COMING_S, STAYING_S, GOING_S = 20.0, 90.0, 30.0
CAMERA = ("karasuiwa", "cam-3")
SILENT = "karasuiwa"
"""The node that loses its power: one with a trap, of which nothing is known from then on."""


def walk(since_s: float) -> str | None:
    """The node that hears the tag of who left so long ago; None: none does."""
    return next((node for from_s, node in reversed(WALK) if since_s >= from_s), None)


def crowd(since_s: float) -> tuple[int, int]:
    """How many of the crowd have come and gone again, since the first of them came. Neither gets smaller."""
    gone_s = since_s - COMING_S - STAYING_S
    return _part(since_s / COMING_S), _part(gone_s / GOING_S)


def _part(share: float) -> int:
    return int(CROWD * min(max(share, 0.0), 1.0))


class Program(Protocol):
    """What runs on a node, as the town has it."""

    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


class _Trap(NamedTuple):
    node: str
    device: str


class Hands:
    """What is pressed, for one played town."""

    def __init__(self, world: World, nodes: Sequence[SimNode], now_s: Callable[[], float]) -> None:
        """`nodes`: those that the town has."""
        self._now_s, self._lock = now_s, threading.Lock()
        self._traps = [_Trap(node.name, device.name) for node in nodes for device in node.devices if device.kind == "reed_trap"]
        self._counters = [d.name for node in nodes if node.name == CROWD_AT for d in node.devices if d.kind == "people_counter"]
        self._walker = world.wanderers()[0]
        self._home = dict(world.residents())[self._walker]
        self._is_sprung: dict[_Trap, bool] = {}
        self._told: dict[_Trap, bool] = {}
        self._left_s: float | None = None
        self._home_s: float | None = None
        self._pressed_s: float | None = None
        self._is_back = False
        self._crowds: list[float] = []
        self._pictures: list[str] = []
        self._dark: set[str] = set()
        self._out: set[str] = set()

    def held(self) -> bool:
        """Whether somebody has just pressed something: nothing else is to happen now."""
        with self._lock:
            return self._pressed_s is not None and 0 <= self._now_s() - self._pressed_s < HELD_S

    def press(self, what: Press) -> float:
        """Somebody pressed it. In so many seconds it begins: 0 but for who is to leave and is not at home yet."""
        with self._lock:
            self._pressed_s = now_s = self._now_s()
            match what:
                case "spring":
                    quiet = [trap for trap in self._traps if not self._is_sprung.get(trap, False)]
                    if quiet:
                        self._told[quiet[0]] = self._is_sprung[quiet[0]] = True
                case "set":
                    self._told.update({trap: False for trap in self._traps if self._is_sprung.get(trap, False)})
                case "leave":
                    at_home_s = now_s - self._home_s if self._home_s is not None else 0.0
                    wait_s = max(HOME_FIRST_S - at_home_s, 0.0)
                    self._left_s, self._is_back = now_s + wait_s, False
                    return wait_s
                case "home":
                    self._left_s, self._is_back = None, True
                case "crowd":
                    self._crowds.append(now_s)
                case "bear":
                    self._pictures.append("bear")
                case "silence":
                    self._dark.add(SILENT)
                case "speak":
                    self._dark.discard(SILENT)
            return 0.0

    # What the town asks, each beat

    def trap(self, node: str, device: str, *, sprung: bool) -> bool:
        """Whether this trap is sprung, where the world says `sprung`. One set by hand stays so until the world has set it too."""
        with self._lock:
            trap = _Trap(node, device)
            if self._told.get(trap) is False and not sprung:
                del self._told[trap]
            self._is_sprung[trap] = is_sprung = self._told.get(trap, sprung)
            return is_sprung

    def tags(self, node: str, near: list[tuple[Tag, int]]) -> list[tuple[Tag, int]]:
        """What a receiver of this node hears, with its signal in dBm, where by the world it is `near`.

        Who was brought home stays there until they are at home by the world too.
        """
        with self._lock:
            if self._left_s is not None and self._now_s() - self._left_s >= HOME_AFTER_S:
                self._left_s, self._is_back = None, True
            if self._is_back and node == self._home and any(tag == self._walker for tag, _ in near):
                self._is_back = False
            heard = near
            if self._left_s is not None or self._is_back:
                since_s = self._now_s() - self._left_s if self._left_s is not None else -1.0
                here = self._home if since_s < 0 else walk(since_s)
                others = [(tag, rssi) for tag, rssi in near if tag != self._walker]
                heard = [*others, (self._walker, -62)] if here == node else others
            if node == self._home:
                is_home = any(tag == self._walker for tag, _ in heard)
                self._home_s = (self._now_s() if self._home_s is None else self._home_s) if is_home else None
            return heard

    def counted(self, node: str, device: str) -> tuple[int, int]:
        """How many people of all crowds this counter has seen come in and go out, beside the world's."""
        if node != CROWD_AT or device not in self._counters:
            return 0, 0
        at, of = self._counters.index(device), len(self._counters)
        with self._lock:
            crowds = [crowd(self._now_s() - began_s) for began_s in self._crowds]
        came, went = (sum(one[way] for one in crowds) for way in (0, 1))
        return (came + at) // of, (went + at) // of

    def pictures(self, node: str, device: str) -> list[str]:
        """What is to be on the camera's pictures of this moment; each is given once."""
        if (node, device) != CAMERA:
            return []
        with self._lock:
            taken, self._pictures = self._pictures, []
        return taken

    def let_go(self) -> None:
        """The day is over: what has no power gets it again, so that nothing waits in an outbox."""
        with self._lock:
            self._dark.clear()

    def power(self, node: str, program: Program) -> None:
        """Ends or starts the node's program as it was pressed: without a goodbye, as where a battery gives out."""
        with self._lock:
            dark = node in self._dark
            lost = dark and program.running
            back = not dark and node in self._out
            (self._out.add if dark else self._out.discard)(node)
        if lost:
            program.kill()
        elif back and not program.running:
            program.start()
