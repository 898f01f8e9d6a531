"""Readings on their way to a series store, column by column: as tuples they would take longer to make than to write as text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

Point = tuple[tuple[str, str, str], int, float]
"""Node, device and metric; UTC in ms; value in the metric's unit."""


@dataclass(slots=True)
class Points(Sequence[Point]):
    """Points that are only ever added to: one entry in each column for each of them."""

    keys: list[tuple[str, str, str]] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    are_distinct: bool = field(default=True, compare=False)
    """Whether it is known that no two are of one series and ms."""

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
            return Points(self.keys[at], self.times_ms[at], self.values[at], self.are_distinct)
        return self.keys[at], self.times_ms[at], self.values[at]


def in_columns(points: Sequence[Any]) -> Points:
    """Any points, of which nothing is known."""
    if isinstance(points, Points):
        return points
    keys, times_ms, values = zip(*points, strict=True) if points else ((), (), ())
    return Points(list(keys), list(times_ms), list(values), are_distinct=False)
