"""What a driver yields: readings and events with the instant they were true."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from edge.clock import Clock, Instant
from edge.contract.events import AnyEvent, RecordClass


class Reading(NamedTuple):
    """One value of one metric of one device; `metric` is a row of edge.contract.metrics, in that row's unit."""

    at: Instant
    device: str
    metric: str
    value: float

    @property
    def rank(self) -> RecordClass:
        """Readings are the first to be dropped from a full outbox."""
        return RecordClass.READING


class Happened(NamedTuple):
    """One event. The event's own `seq` and `dt` are left at their defaults: the outbox gives them."""

    at: Instant
    event: AnyEvent

    @property
    def device(self) -> str:
        """The device it happened to."""
        return self.event.device

    @property
    def rank(self) -> RecordClass:
        """The event type's class."""
        return self.event.rank


Record = Reading | Happened


class MediaShelf(Protocol):
    """Where a driver puts a file that must reach the gateway: on disk, durable, before the event is yielded."""

    def keep(self, content: bytes, content_type: str) -> str:
        """Stores the bytes; returns their SHA-256 in hex. Storing the same bytes again changes nothing."""
        ...

    def keep_file(self, source: Path, sha256: str, content_type: str) -> None:
        """As `keep`, of a file that is too large for memory; OSError when its SHA-256 is another one."""
        ...

    def withdraw(self, sha256: str, folder: Path) -> bool:
        """Takes a file that was kept out of the way to the gateway, into `folder`; False when it has gone already."""
        ...


class Site(NamedTuple):
    """What the agent hands to a driver, one Site for each device. Nothing else of the agent is a driver's business."""

    clock: Clock
    media: MediaShelf
    state: Path
    """A folder of this device's own, e.g. `<state>/devices/cam-02`: made by the agent, kept over restarts."""
    epoch: str = ""
    """The outbox's epoch: what was told in another one may never have left the node."""
    waiting: Callable[[], int] = lambda: 0
    """Records in the outbox that the gateway has not acknowledged."""
    clock_state: Callable[[], str] = lambda: "sync"
    """sync, holdover or unsync, as in `Batch.clock`."""
    expected: Callable[[Instant], Mapping[bytes, str]] = lambda _: {}
    """What rotating tags call themselves at an instant: Eddystone-EID (8 bytes) -> the tag's name. The gateway says it."""
