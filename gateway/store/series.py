"""The language of the series store: what is written, what is read, and what a store promises. No I/O.

A store is one module with a pydantic config (`type: Literal[...]`) and one class that is a `SeriesStore`: a `SeriesWriter` and a
`SeriesReader`. gateway/store/__init__.py lists them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.errors import StoreRefused
from gateway.points import in_columns


class SeriesKey(NamedTuple):
    """Which series. A plain tuple of the same three is the same key; the pipeline keeps one object per series."""

    node: str
    device: str
    metric: str


Key = SeriesKey | tuple[str, str, str]

Point = tuple[Key, int, float]
"""Series, UTC in ms, value in the metric's unit. A plain tuple; many of them are written fastest as `gateway.points.Points`."""


class Bucket(NamedTuple):
    """What a series said in `time_ms <= t < time_ms + bucket_ms`; `points` is never 0, and low <= mean <= high."""

    time_ms: int
    points: int
    low: float
    mean: float
    high: float
    last: float


class SeriesWriter(Protocol):
    """Takes points, durably. Used by one thread at a time."""

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:
        """Writes 1 to 10,000 points, all or none as far as anyone is told, and returns only when they are durable.

        Writing a point again changes nothing. Another value for the same series and time takes the old one's place; of
        two in one call the later counts. StoreDown: not now, the same call may succeed later. StoreRefused: never, as
        it is. `patience_s`: how long a server may take to answer before it counts as down, where the caller can't wait for as
        long as is configured.
        """
        ...

    def close(self) -> None:
        """Lets go of files and connections. What `write` returned for is safe without it."""
        ...


class SeriesReader(Protocol):
    """Gives points, from any thread. StoreDown and StoreRefused as in `SeriesWriter`. Times are UTC in ms."""

    def read(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, limit: int) -> list[tuple[int, float]]:
        """The first `limit` points with start <= time < end, oldest first. For the next page, start after the last."""
        ...

    def read_bucketed(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, bucket_ms: int) -> list[Bucket]:
        """What start <= time < end says in steps of `bucket_ms`, oldest first.

        Steps are counted from `start_ms`, so that a day may begin at local midnight. A step without points has no
        bucket: a gap stays a gap.
        """
        ...

    def latest(self, node: str, device: str, metric: str) -> tuple[int, float] | None:
        """Time and value of the newest point, or None when there is none."""
        ...

    def series(self) -> list[SeriesKey]:
        """Every series that was ever written, in order."""
        ...

    def count(self) -> int:
        """How many points there are. Reads the whole index: for people and tests, not for a loop."""
        ...


class SeriesStore(SeriesWriter, SeriesReader, Protocol):
    """What every kind is. Written by one thread, read by any."""


def check_finite(points: Sequence[Point]) -> None:
    """StoreRefused, naming the point, when a value is NaN or infinite: no store can hold or chart those."""
    if math.isfinite(sum(in_columns(points).values)):  # one addition each; the loop below only when in doubt
        return
    for key, time_ms, value in points:
        if not math.isfinite(value):
            raise StoreRefused(f"{'/'.join(key)} at {time_ms} ms is {value}: only finite values can be stored")
