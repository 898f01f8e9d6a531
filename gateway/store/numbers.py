"""The number of each series in the embedded store's file, in little room: a town may have a million of them.

Memory only. Nodes of one kind have the same series: they share the table of names, and of each node there is but a row of
numbers.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from struct import Struct
from weakref import WeakValueDictionary

from gateway.points import Key, Points

Name = tuple[str, str]
"""Device and metric."""

Names = tuple[Name, ...]

_ONE = Struct("q")

SHARED = 100
"""Series of one node: one that has more has a table of its own."""


class _Places(dict[Name, int]):
    """Where in a node's row the number of each series stands."""

    __slots__ = ("__weakref__", "at", "names", "row")

    row: Struct
    """Of a node's numbers, as they stand in memory."""
    names: Names | None
    """What was asked for last,"""
    at: list[int] | None
    """and where that stands; None: it is the whole row."""

    def __init__(self, places: Iterable[tuple[Name, int]] = ()) -> None:
        super().__init__(places)
        self.grown()

    def grown(self) -> None:
        """Says that it has as many as it has now."""
        self.row = Struct(f"{len(self)}q")
        self.names = self.at = None

    def find(self, names: Names) -> None:
        """Sets `at`. KeyError, and nothing is set, where one is not known."""
        at = [self[name] for name in names]
        self.names, self.at = names, None if at == [*range(len(self))] else at


class Numbers:
    """Told by `add`, asked by `flat`."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[_Places, bytes]] = {}
        self._shared: WeakValueDictionary[tuple[Name, ...], _Places] = WeakValueDictionary()

    def __contains__(self, key: Key) -> bool:
        node, device, metric = key
        known = self._of.get(node)
        return known is not None and (device, metric) in known[0]

    def __getitem__(self, key: Key) -> int:
        node, device, metric = key
        places, numbers = self._of[node]
        return memoryview(numbers).cast("q")[places[device, metric]]

    def add(self, named: Iterable[tuple[Key, int]]) -> None:
        """Series that are not here yet, each once."""
        for (node, device, metric), number in named:
            places, numbers = self._of.get(node) or (_Places(), b"")
            if len(places) < SHARED:
                names = (*places, (device, metric))
                places = self._shared.get(names) or _Places((name, at) for at, name in enumerate(names))
                self._shared[names] = places
            elif len(places) == SHARED:
                places = _Places([*places.items(), ((device, metric), SHARED)])
            else:
                places[device, metric] = len(places)
                places.grown()
            self._of[node] = (places, numbers + _ONE.pack(number))

    def flat(self, points: Points) -> list[float]:
        """Number, time in ms, value, number, time in ms, ... of all points. KeyError where a series is not known."""
        found: list[int] = []
        for node, names, number in points.runs:
            places, numbers = self._of[node]
            if names is not places.names:
                places.find(names)
            if places.at is None:
                of_names: Sequence[int] = places.row.unpack(numbers)
            else:  # a few of very many, maybe
                row = memoryview(numbers).cast("q")
                of_names = [row[at] for at in places.at]
            found += of_names if number == len(names) else islice(cycle(of_names), number)
        flat: list[float] = [0] * (3 * len(found))
        flat[::3], flat[1::3], flat[2::3] = found, points.times_ms, points.values
        return flat
