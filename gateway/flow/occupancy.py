"""How many are in an area by the totals of its counters, and what corrects it. Pure: a memory in, the same memory changed.

A counter that misses one in a hundred is off by hundreds in the evening. So the reckoning is set right each night when nobody is
there and whenever a person has counted heads, and never goes below nobody; how far it was off is kept, to be shown beside it.
Totals are the counters' own and only grow, so a reading that comes late or twice changes nothing, and a counter that was out of
reach brings all it has counted meanwhile with its next word; of that, what passed before heads were counted is in that count.
"""

from typing import Any, NamedTuple

Memory = dict[str, Any]
"""`{"inside", "lines": {key: {"in", "out", "at_us", "in0", "out0"}}, "drift", "corrected_us", "gaps"}`, as JSON."""


class Correction(NamedTuple):
    """How far the reckoning was off when it was set right."""

    reckoned: int
    true: int

    @property
    def error(self) -> int:
        """Positive: too many were reckoned."""
        return self.reckoned - self.true


def count(memory: Memory, line: str, total: str, value: float, time_us: int, *, sign: int, said_us: int = 0) -> None:
    """A counter said a new total (`in` or `out`). `sign` is +1 where this total's people come in, -1 where they leave.

    `said_us`: when it last said something before, whatever it was: until then the total was what it was.

    Its first word is only where it begins. A total smaller than before began anew: what it says now has passed since then,
    and what passed in between nobody knows; that is noted in `gaps`.
    """
    lines = memory.setdefault("lines", {})
    known = lines.setdefault(line, {})
    before, new = known.get(total), int(value)
    at_us = known.get(f"{total}_us", 0)
    if before is not None and time_us <= at_us:
        return
    known[total], known[f"{total}_us"] = new, time_us
    if before is None:
        known[f"{total}0"] = new
        return
    if new < before:
        memory["gaps"] = memory.get("gaps", 0) + 1
        known[f"{total}0"] = known.get(f"{total}0", before) - before  # what was counted today stays counted
    passed = new - before if new >= before else new
    passed = round(passed * _since_corrected(memory, max(at_us, said_us), time_us))
    inside = memory.get("inside", 0) + sign * passed
    if inside < 0:
        memory["drift"] = memory.get("drift", 0) + inside  # more left than came: they were there before, or not counted in
    memory["inside"] = max(inside, 0)


def _since_corrected(memory: Memory, from_us: int, to_us: int) -> float:
    """The share of the time between two words of a counter that came after the last correction: people as evenly as time."""
    corrected_us = memory.get("corrected_us", 0)
    if corrected_us <= from_us:
        return 1.0
    return max(to_us - corrected_us, 0) / (to_us - from_us) if to_us > from_us else 0.0


def set_right(memory: Memory, true: int, now_us: int) -> Correction:
    """Somebody counted, or it is night and nobody is there."""
    correction = Correction(memory.get("inside", 0), true)
    memory["inside"], memory["corrected_us"], memory["drift"] = true, now_us, 0
    return correction


def new_day(memory: Memory) -> None:
    """Today's sums begin."""
    for known in memory.get("lines", {}).values():
        for total in ("in", "out"):
            if total in known:
                known[f"{total}0"] = known[total]


def today(memory: Memory, line: str) -> tuple[int, int] | None:
    """How many came in and went out over a line today, by its own sense of in and out; None: it has never spoken."""
    known = memory.get("lines", {}).get(line)
    if known is None or ("in" not in known and "out" not in known):
        return None
    found = [known.get(total, 0) - known.get(f"{total}0", known.get(total, 0)) for total in ("in", "out")]
    return found[0], found[1]
