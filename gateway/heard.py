"""What is in memory of each node that was heard, in little room: a town may have 100,000 of them. The database has all of it.

No I/O, and nothing of messages: gateway.intake says what is to be remembered, and reads from the database what is not here.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct
from weakref import WeakValueDictionary

from edge.contract.messages import Names
from gateway.flush import Settled, Zero

Name = tuple[str, str]
"""Of a series of one node: device and metric."""

Newest = tuple[int, int, int, float]
"""The newest reading of a series: when it was and when it came, in UTC µs; its seq; its value."""

NOTHING_YET: Newest = (0, 0, 0, 0.0)
"""Of a series that has no reading."""

_NEWEST = "qqqd"  # as one stands in memory
_ONE = Struct(f"<{_NEWEST}")
_HEAD = Struct("<q")

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
        "_newest",
        "_together_at",
        "boot",
        "epoch",
        "layout",
        "names",
        "next_of",
        "next_seq",
        "node",
        "seen_us",
        "settled",
        "zero",
    )

    def __init__(self, node: str, layout: Layout) -> None:
        self.node = node
        self.layout = layout
        # What is replaced with each message, in one piece, as objects lie anywhere: the latest time, then by place in the layout;
        # zeros: nothing is known of that series.
        self._newest = bytearray(_HEAD.size)
        self.names: Names | None = None
        """What it said last, all of which are series of it."""
        self._together_at: int | None = None  # where these stand, one after the other and nothing between
        self.seen_us = 0
        """When it spoke last, where that is not saved yet; else 0."""
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

    @property
    def newest_us(self) -> int:
        """No reading of any series is of later."""
        (newest_us,) = _HEAD.unpack_from(self._newest)
        return newest_us  # type: ignore[no-any-return]

    def last(self, name: Name) -> Newest | None:
        """The newest reading of a series; NOTHING_YET where there is none. None: no such series."""
        at = self.layout.series.get(name)
        if at is None:
            return None
        at = _HEAD.size + at * _ONE.size
        return _ONE.unpack_from(self._newest, at) if at < len(self._newest) else NOTHING_YET

    def keep(self, name: Name, newest: Newest) -> None:
        """Remembers the newest reading of one of its series."""
        at = self._room(self.layout.series[name])
        _ONE.pack_into(self._newest, at, *newest)
        if newest[0] > self.newest_us:
            _HEAD.pack_into(self._newest, 0, newest[0])

    def knows(self, names: Names) -> bool:
        """Whether all of these are series of the node; what it says most is remembered."""
        if self.names is names:
            return True
        series = self.layout.series
        if not series.keys() >= names.known:
            return False
        places = [series[pair] for pair in names.pairs]
        self.names = names
        self._together_at = places[0] if places == [*range(places[0], places[0] + len(places))] else None
        return True

    def keep_together(
        self, names: Names, times_us: Sequence[int], received_us: int, seqs: Sequence[int], values: Sequence[float], last_us: int
    ) -> None:
        """Remembers the newest readings of the series that it was asked last whether it `knows` them: the last of each, where
        these are rounds of them. `last_us`: the latest time, and later than any before.
        """
        at, number, of_all = self._together_at, len(names.pairs), len(seqs)
        if of_all > number:
            whole = of_all // number * number  # what is behind begins one more round
            rows = [*range(whole, of_all), *range(of_all - number, whole)]
            times_us, seqs, values = ([column[row] for row in rows] for column in (times_us, seqs, values))
        newest: list[float] = [received_us] * (4 * number)
        newest[::4], newest[2::4], newest[3::4] = times_us, seqs, values
        if at is not None:
            at = self._room(at)
            _together(number).pack_into(self._newest, at, *newest)
        else:
            for index, pair in enumerate(names.pairs):
                at = self._room(self.layout.series[pair])
                _ONE.pack_into(self._newest, at, *newest[4 * index : 4 * index + 4])
        _HEAD.pack_into(self._newest, 0, last_us)

    def since(self, received_us: int) -> list[tuple[Name, Newest]]:
        """The newest reading of each series that has had one since, by when it came."""
        known = zip(self.layout.series, _ONE.iter_unpack(memoryview(self._newest)[_HEAD.size :]), strict=False)
        return [(name, newest) for name, newest in known if newest[1] >= received_us]

    def _room(self, place: int) -> int:
        """Where in memory a series stands, by its place in the layout; there is room for all of that then."""
        whole = _HEAD.size + len(self.layout.series) * _ONE.size
        if len(self._newest) < whole:
            self._newest += bytes(whole - len(self._newest))
        return _HEAD.size + place * _ONE.size


@lru_cache(maxsize=100)
def _together(number: int) -> Struct:
    return Struct(f"<{_NEWEST * number}")


def _is_shared(layout: Layout) -> bool:
    return len(layout.series) <= SHARED and len(layout.devices) <= SHARED
