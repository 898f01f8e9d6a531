"""What is in memory of each node that was heard, in little room: a town may have 100,000 of them. The database has all of it.

No I/O, and nothing of messages: gateway.intake says what is to be remembered, and reads from the database what is not here.
"""

from array import array
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

from edge.contract.messages import Names
from gateway.flush import Settled, Zero

Name = tuple[str, str]
"""Of a series of one node: device and metric."""

Newest = tuple[int, int, int, float]
"""The newest reading of a series: when it was and when it came, in UTC µs; its seq; its value."""

SHARED = 100
"""Series, or devices, of one node: one that has more has a layout of its own."""


class Layout:
    """Which series a node has, and where in its memory they stand; and which devices, with and without series."""

    __slots__ = ("__weakref__", "devices", "series")

    def __init__(self, series: dict[Name, int], devices: set[str]) -> None:
        self.series, self.devices = series, devices


class Layouts:
    """Nodes of one kind have the same series: they share a layout, which is replaced then and never changed."""

    def __init__(self) -> None:
        self.empty = Layout({}, set())
        self._shared: WeakValueDictionary[tuple[tuple[Name, ...], frozenset[str]], Layout] = WeakValueDictionary()

    def grown(self, layout: Layout, devices: Iterable[str], *series: Name) -> Layout:
        """A layout with these too; series that it has not yet."""
        if not _is_shared(layout):
            layout.devices.update(devices)
            for name in series:
                layout.series[name] = len(layout.series)
            return layout
        names = (*layout.series, *series)
        known = layout.devices.union(devices)
        larger = Layout({name: at for at, name in enumerate(names)}, known)
        return self._shared.setdefault((names, frozenset(known)), larger) if _is_shared(larger) else larger


class Heard:
    """One node."""

    __slots__ = (
        "_times_and_seqs",
        "boot",
        "epoch",
        "layout",
        "names",
        "newest_us",
        "next_of",
        "next_seq",
        "node",
        "settled",
        "zero",
    )

    def __init__(self, node: str, layout: Layout) -> None:
        self.node = node
        self.layout = layout
        self._times_and_seqs = array("q")  # by place in the layout, as of what was kept last
        self.names: Names | None = None
        """What it said last, all of which are series of it."""
        self.newest_us = 0
        """No reading of any series is of later."""
        self.epoch: str | None = None
        """The last that was new here."""
        self.settled: Settled | None = None
        """Of that epoch; None: to be read anew."""
        self.next_of: str | None = None
        self.next_seq = 1
        """What the node said it would give out next, in the epoch `next_of`."""
        self.boot: str | None = None
        """The last that was new here."""
        self.zero: Zero | None = None
        """Of that boot; None: to be read anew, or nothing is known of it."""

    def last(self, name: Name) -> Newest | None:
        """The newest reading that was kept of a series, as far as it is in memory: its time and seq. None: no such series."""
        at = self.layout.series.get(name)
        if at is None:
            return None
        times_and_seqs = self._times_and_seqs
        return (times_and_seqs[2 * at], 0, times_and_seqs[2 * at + 1], 0.0) if 2 * at < len(times_and_seqs) else (0, 0, 0, 0.0)

    def keep(self, newest: Mapping[Name, Newest]) -> None:
        """Remembers the newest readings of some of its series."""
        series, times_and_seqs = self.layout.series, self._times_and_seqs
        if (places := 2 * len(series)) > len(times_and_seqs):
            times_and_seqs.extend(array("q", bytes(8 * (places - len(times_and_seqs)))))
        for name, (time_us, _, seq, _) in newest.items():
            at = 2 * series[name]
            times_and_seqs[at], times_and_seqs[at + 1] = time_us, seq


def _is_shared(layout: Layout) -> bool:
    return len(layout.series) <= SHARED and len(layout.devices) <= SHARED
