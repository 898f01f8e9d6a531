"""Sets of sequence numbers as closed ranges: what the gateway has, what the edge may forget."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

_END = 2**63 - 1  # of what fits


class Ranges:
    """A set of positive integers, kept as sorted, disjoint, non-touching closed ranges.

    Adding at or after the end of the last range is O(1); elsewhere O(log n) to find and O(n) to insert.
    """

    # Where each range begins, and where it is over: low, high + 1, low, high + 1, ... and always rising. A number is in the set
    # where an odd number of edges is not above it. No list: that many objects, replaced one by one, of 100,000 nodes each, leave
    # the whole memory of a gateway full of holes, and what it makes next lies anywhere.
    __slots__ = ("_edges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._edges = array("q")
        for low, high in ranges:
            self.add(low, high)

    def add(self, low: int, high: int | None = None) -> None:
        """Adds `low..high` (or just `low`). ValueError when the range is empty, below 1 or too high for any counter."""
        high = low if high is None else high
        if not 1 <= low <= high < _END:
            raise ValueError(f"no range of sequence numbers: {low}..{high}")
        edges = self._edges
        last = edges[-1] if edges else 0
        if low > last:
            edges.extend((low, high + 1))
            return
        if low == last:
            edges[-1] = high + 1
            return
        # All edges in it go, and those that it touches; its own stay where they are not within another range.
        first, last = bisect_left(edges, low), bisect_right(edges, high + 1)
        edges[first:last] = array("q", [low][first % 2 :] + [high + 1][last % 2 :])

    def __contains__(self, seq: int) -> bool:
        return bisect_right(self._edges, seq) % 2 == 1

    def meets(self, low: int, high: int) -> bool:
        """Whether any of `low..high` is in the set."""
        edges = self._edges
        if not edges or low >= edges[-1]:
            return False
        at = bisect_right(edges, low)
        return at % 2 == 1 or edges[at] <= high

    def __iter__(self) -> Iterator[tuple[int, int]]:
        edges = iter(self._edges)
        return ((low, end - 1) for low, end in zip(edges, edges, strict=True))

    def __len__(self) -> int:
        """How many ranges, not how many numbers."""
        return len(self._edges) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._edges == other._edges

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ranges.parse({self.text()!r})"

    @property
    def upto(self) -> int:
        """The highest n with all of 1..n in the set; 0 when 1 is not."""
        edges = self._edges
        return edges[1] - 1 if edges and edges[0] == 1 else 0

    @property
    def top(self) -> int:
        """The highest number in the set; 0 when it is empty."""
        return self._edges[-1] - 1 if self._edges else 0

    @property
    def size(self) -> int:
        """How many numbers are in the set."""
        return sum(self._edges[1::2]) - sum(self._edges[::2])

    def holes(self, below: int) -> list[tuple[int, int]]:
        """The numbers of 1..below-1 that are not in the set, as ranges."""
        found = []
        next_wanted = 1
        for low, high in self:
            if low >= below:
                break
            if low > next_wanted:
                found.append((next_wanted, low - 1))
            next_wanted = high + 1
        if next_wanted < below:
            found.append((next_wanted, below - 1))
        return found

    def around(self, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The ranges of this set that hold any number of these closed ranges, once each, in order."""
        edges = self._edges
        found: dict[int, int] = {}
        for low, high in spans:
            for at in range(bisect_right(edges, low) // 2 * 2, bisect_right(edges, high), 2):
                found[edges[at]] = edges[at + 1] - 1
        return sorted(found.items())

    def text(self) -> str:
        """`1-500,502` : what `parse` reads."""
        if not self._edges:
            return ""
        edges = iter(self._edges)
        return ",".join([f"{low}-{end - 1}" if end - 1 > low else f"{low}" for low, end in zip(edges, edges, strict=True)])

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`. ValueError for anything else."""
        ranges = cls()
        for part in text.split(",") if text else ():
            low, _, high = part.partition("-")
            ranges.add(int(low), int(high or low))
        if ranges.text() != text:  # `int` is generous, and ranges may be written in more ways than one
            raise ValueError(f"not ranges as this program writes them: {text[:60]!r}")
        return ranges

    def copy(self) -> "Ranges":
        """An independent set with the same numbers."""
        twin = Ranges.__new__(Ranges)
        twin._edges = self._edges[:]
        return twin
