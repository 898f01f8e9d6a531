"""Readings on their way to a series store, column by column: as tuples they would take longer to make than to write as text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple, overload

Key = tuple[str, str, str]
"""Node, device and metric."""

Point = tuple[Key, int, float]
"""Series; UTC in ms; value in the metric's unit."""


class Run(NamedTuple):
    """Points of one node that follow each other."""

    node: str
    names: tuple[tuple[str, str], ...]
    """Device and metric of each; behind the last the first follows again."""
    number: int
    """Of points: of names, or more."""

    def part(self, start: int, stop: int) -> "Run":
        """Some of them, 1 or more."""
        names = self.names if len(self.names) == self.number else tuple(islice(cycle(self.names), self.number))
        return Run(self.node, names[start:stop], stop - start)


@dataclass(slots=True, eq=False)
class Points(Sequence[Point]):
    """Points that are only ever added to."""

    runs: list[Run] = field(default_factory=list)
    """Whose they are, one after the other."""
    times_ms: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    are_distinct: bool = True
    """Whether it is known that no two are of one series and ms."""

    @property
    def keys(self) -> list[Key]:
        """The series of each."""
        return [(node, device, metric) for node, names, number in self.runs for device, metric in islice(cycle(names), number)]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Point]:
        return zip(self.keys, self.times_ms, self.values, strict=True)

    @overload
    def __getitem__(self, at: int) -> Point: ...

    @overload
    def __getitem__(self, at: slice) -> "Points": ...

    def __getitem__(self, at: int | slice) -> "Point | Points":
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                raise ValueError("points are taken as they follow each other")
            if (start, stop) == (0, len(self)):
                return self
            return Points(self._runs(start, stop), self.times_ms[start:stop], self.values[start:stop], self.are_distinct)
        one = range(len(self))[at]
        [(node, [(device, metric)], _)] = self._runs(one, one + 1)
        return (node, device, metric), self.times_ms[one], self.values[one]

    def _runs(self, start: int, stop: int) -> list[Run]:
        found, begins = [], 0
        for run in self.runs:
            first, last = max(start - begins, 0), min(stop - begins, run.number)
            if first < last:
                found.append(run.part(first, last))
            begins += run.number
        return found


def in_columns(points: Sequence[Any]) -> Points:
    """Any points, of which nothing is known."""
    if isinstance(points, Points):
        return points
    keys, times_ms, values = zip(*points, strict=True) if points else ((), (), ())
    runs = []
    for node, of_node in groupby(keys, itemgetter(0)):
        names = tuple([key[1:] for key in of_node])
        runs.append(Run(node, names, len(names)))
    return Points(runs, list(times_ms), list(values), are_distinct=False)
