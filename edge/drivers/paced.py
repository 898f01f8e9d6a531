"""What a trap has to tell, folded in rate: a chattering input fills no disk, and the last of its changes is always told. Pure."""

from collections import deque
from typing import Literal, NamedTuple

from edge.clock import Instant
from edge.contract.events import TamperClosed, TamperOpened, TrapMoved, TrapReset, TrapSprung

Kind = Literal["trap_sprung", "trap_reset", "tamper_opened", "tamper_closed", "vibration", "tilt"]
"""What can be told of a trap; the last two are how it was moved."""

BURST, BURST_US = 6, 60_000_000
"""At most so many changes of one input in so long."""


class Tale(NamedTuple):
    """One thing to tell."""

    at: Instant
    kind: Kind
    folded: int = 0
    found: bool = False


class Paced:
    """A queue of one input's tales. It never holds a kind twice, so at most as many as the input has kinds."""

    def __init__(self, burst: int = BURST, window_us: int = BURST_US) -> None:
        self._window_us = window_us
        self._told_us: deque[int] = deque(maxlen=burst)
        self._queue: list[Tale] = []

    def add(self, tale: Tale) -> None:
        """Queues it. A kind that waits already is told once: it and all after it are folded into the first."""
        for number, waiting in enumerate(self._queue):
            if waiting.kind == tale.kind:
                folded = tale.folded + sum(1 + one.folded for one in self._queue[number + 1 :])
                self._queue[number:] = [waiting._replace(folded=waiting.folded + 1 + folded)]
                return
        self._queue.append(tale)

    def take(self, now_us: int) -> Tale | None:
        """The next one if it may be told now."""
        if not self._queue or now_us < self._allowed_us:
            return None
        self._told_us.append(now_us)
        return self._queue.pop(0)

    @property
    def due_us(self) -> int | None:
        """When `take` has something; None while nothing waits."""
        return self._allowed_us if self._queue else None

    @property
    def waiting(self) -> list[Kind]:
        """What was added and not taken yet, in order."""
        return [tale.kind for tale in self._queue]

    @property
    def _allowed_us(self) -> int:
        full = len(self._told_us) == self._told_us.maxlen
        return self._told_us[0] + self._window_us if full else 0


def event_of(tale: Tale, device: str) -> TrapSprung | TrapReset | TamperOpened | TamperClosed | TrapMoved:
    """The event that tells it."""
    match tale.kind:
        case "trap_sprung":
            return TrapSprung(device=device, folded=tale.folded, found=tale.found)
        case "trap_reset":
            return TrapReset(device=device, folded=tale.folded, found=tale.found)
        case "tamper_opened":
            return TamperOpened(device=device, folded=tale.folded, found=tale.found)
        case "tamper_closed":
            return TamperClosed(device=device, folded=tale.folded, found=tale.found)
        case "vibration" | "tilt":
            return TrapMoved(device=device, how=tale.kind, folded=tale.folded)
