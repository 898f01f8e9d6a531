"""Sets of sequence numbers as closed ranges: what the gateway has, what the edge may forget."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of positive integers, kept as sorted, disjoint, non-touching closed ranges.

    Adding at the end of the last range is O(1); elsewhere O(log n) to find and O(n) to insert.
    """

    __slots__ = ("_high", "_low")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._low: list[int] = []
        self._high: list[int] = []
        for low, high in ranges:
            self.add(low, high)

    def add(self, low: int, high: int | None = None) -> None:
        """Adds `low..high` (or just `low`). ValueError when the range is empty or below 1."""
        high = low if high is None else high
        if not 1 <= low <= high:
            raise ValueError(f"no range of sequence numbers: {low}..{high}")
        lows, highs = self._low, self._high
        if highs and low == highs[-1] + 1:
            highs[-1] = high
            return
        first = bisect_right(lows, low) - 1
        if first < 0 or highs[first] + 1 < low:
            first += 1
        last = bisect_right(lows, high + 1, first) - 1
        if last < first:
            lows.insert(first, low)
            highs.insert(first, high)
            return
        lows[first : last + 1] = [min(low, lows[first])]
        highs[first : last + 1] = [max(high, highs[last])]

    def __contains__(self, seq: int) -> bool:
        highs = self._high
        if not highs or seq > highs[-1]:
            return False
        at = bisect_right(self._low, seq) - 1
        return at >= 0 and seq <= highs[at]

    def meets(self, low: int, high: int) -> bool:
        """Whether any of `low..high` is in the set."""
        highs = self._high
        if not highs or low > highs[-1]:
            return False
        at = bisect_right(self._low, high) - 1
        return at >= 0 and highs[at] >= low

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._low, self._high, strict=True)

    def __len__(self) -> int:
        """How many ranges, not how many numbers."""
        return len(self._low)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._low == other._low and self._high == other._high

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ranges.parse({self.text()!r})"

    @property
    def upto(self) -> int:
        """The highest n with all of 1..n in the set; 0 when 1 is not."""
        return self._high[0] if self._low and self._low[0] == 1 else 0

    @property
    def top(self) -> int:
        """The highest number in the set; 0 when it is empty."""
        return self._high[-1] if self._high else 0

    @property
    def size(self) -> int:
        """How many numbers are in the set."""
        return sum(self._high) - sum(self._low) + len(self._low)

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

    def around(self, seqs: Iterable[int]) -> list[tuple[int, int]]:
        """The ranges of this set that hold any of `seqs`, once each, in order."""
        found: dict[int, int] = {}
        for seq in seqs:
            at = bisect_right(self._low, seq) - 1
            if at >= 0 and seq <= self._high[at]:
                found[self._low[at]] = self._high[at]
        return sorted(found.items())

    def text(self) -> str:
        """`1-500,502` : what `parse` reads."""
        return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in self)

    @classmethod
    def parse(cls, text: str) -> "Ranges":
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
        twin = Ranges()
        twin._low, twin._high = self._low[:], self._high[:]
        return twin
