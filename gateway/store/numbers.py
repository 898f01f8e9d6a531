"""The number of each series in the embedded store's file, in little room: a town may have a million of them.

Memory only. Nodes of one kind have the same series: they share the table of names, and of each node there is but a row of
numbers.
"""

from array import array
from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

from gateway.store.series import Key, Point

Name = tuple[str, str]
"""Device and metric."""

SHARED = 100
"""Series of one node: one that has more has a table of its own."""


class _Places(dict[Name, int]):
    """Where in a node's row the number of each series stands."""

    __slots__ = ("__weakref__",)


class Numbers:
    """Told by `add`, asked by `flat`."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[_Places, array[int]]] = {}
        self._shared: WeakValueDictionary[tuple[Name, ...], _Places] = WeakValueDictionary()

    def __contains__(self, key: Key) -> bool:
        node, device, metric = key
        known = self._of.get(node)
        return known is not None and (device, metric) in known[0]

    def __getitem__(self, key: Key) -> int:
        node, device, metric = key
        places, numbers = self._of[node]
        return numbers[places[device, metric]]

    def add(self, named: Iterable[tuple[Key, int]]) -> None:
        """Series that are not here yet, each once."""
        for (node, device, metric), number in named:
            places, numbers = self._of.get(node) or (_Places(), array("q"))
            if len(places) < SHARED:
                names = (*places, (device, metric))
                places = self._shared.get(names) or _Places({name: at for at, name in enumerate(names)})
                self._shared[names] = places
            elif len(places) == SHARED:
                places = _Places({**places, (device, metric): SHARED})
            else:
                places[device, metric] = len(places)
            numbers.append(number)
            self._of[node] = (places, numbers)

    def flat(self, points: Sequence[Point]) -> list[float]:
        """Number, time in ms, value, number, time in ms, ... of all points. KeyError where a series is not known."""
        found: list[float] = []
        last, places, numbers = None, _Places(), array("q")
        for (node, device, metric), time_ms, value in points:
            if node is not last:
                (places, numbers), last = self._of[node], node
            found += (numbers[places[device, metric]], time_ms, value)
        return found
