"""What one group of messages wants to change: data that gateway.intake fills in and gateway.pipeline makes durable."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from edge.contract.messages import MAX_REASON, SEQ_REUSED, Birth, State
from edge.contract.ranges import Ranges
from edge.contract.remote import Reported, Result
from edge.contract.topics import parse
from gateway.points import Points
from gateway.rules import Fact

QUARANTINE_BYTES = 4096
KEPT_REFUSALS = 200  # of one node in one group
STORE = "store"  # instead of a topic: the series store refused it

EpochKey = tuple[str, str]  # node, epoch


class Message(NamedTuple):
    """One MQTT message as it came."""

    topic: str
    payload: bytes
    retained: bool = False
    """The broker had kept it: it says nothing of whether its sender is there now."""


class Answer(NamedTuple):
    """What a node is told of what it sent."""

    topic: str
    payload: bytes
    surely: bool = False
    """Its link may break at this very moment, and what this says is not said again: the broker keeps it (QoS 1)."""


_NONE = Ranges()
"""What almost every epoch has declared: one for all."""


class Settled(Ranges):
    """The numbers of an epoch that are durable: stored, refused or declared. Nobody needs to send them any more.

    What was committed, and for as long as that is being committed what is to be. Where that fails nobody may go on with it: it is
    read anew (Intake.forget).
    """

    # A set itself, and none beside others in an object: one place less in memory to go to, of 100,000 nodes.
    __slots__ = ("declared",)

    def __init__(self, durable: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__(durable)
        self.declared = _NONE
        """Those of them that the node said will never come. One that comes after all is taken as if nothing had been said."""

    def settle(self, durable: Iterable[tuple[int, int]], declared: Sequence[tuple[int, int]] = ()) -> None:
        """Adds numbers, as closed ranges; the declared ones are among the durable ones."""
        for low, high in durable:
            self.add(low, high)
        if declared:
            self.declared = self.declared.copy()
            for low, high in declared:
                self.declared.add(low, high)


class Work:
    """What one flush does for one node's epoch: what becomes durable, and what its ack will say. Numbers as closed ranges."""

    __slots__ = (
        "declared",
        "facts",
        "lost",
        "missing",
        "readings",
        "rejected",
        "reused",
        "seqs",
        "settled",
        "staged",
    )

    # By hand, in half of a dataclass's time: most nodes have but one message in a group.
    def __init__(self, settled: Settled) -> None:
        self.settled = settled
        self.facts: list[tuple[int, int]] = []  # become durable in step 3
        self.declared: list[tuple[int, int]] = []  # those of them that will never come
        self.readings: list[tuple[int, int]] = []  # become durable in step 6
        self.staged = Ranges()  # records of both, and what is refused
        self.seqs: list[tuple[int, int]] = []  # everything the messages held: what the ack is about
        self.lost: list[tuple[int, int, str]] = []  # as the node said; see Intake._record_losses
        self.rejected: list[tuple[int, str]] = []
        self.missing: list[tuple[int, int]] = []
        self.reused = False  # a number came with other content: nothing that this outbox calls by number is sure

    def knows(self, seq: int) -> bool:
        """Whether this record is durable, or about to be."""
        settled = self.settled
        return seq in self.staged or (seq in settled and seq not in settled.declared)

    def take(self, seqs: Sequence[int]) -> None:
        """Takes these readings in, none of which it knew; in rising order."""
        for low, high in (taken := runs(seqs)):
            self.staged.add(low, high)
        self.readings += taken
        self.seqs += taken

    def reuse(self, seq: int) -> None:
        """Says that a known number came with other content."""
        self.reused = True
        self.rejected.append((seq, SEQ_REUSED))


class Content(NamedTuple):
    """What makes an event this one: an equal event under the same number is the same event sent again."""

    device: str
    type: str
    node_time_us: int
    body: str


class Zero(NamedTuple):
    """UTC µs of a boot's mono 0."""

    us: int
    synced: bool = False
    """The node said it once its clock was right; otherwise it is what we could tell."""


class Synced(NamedTuple):
    """A boot whose clock has become right: what its events are re-timed by."""

    zero_us: int
    stepped_us: int
    guessed_us: int | None
    """Where its zero was taken to be until now."""


@dataclass(slots=True)
class Flush:
    """Everything one group of messages wants to change."""

    now_us: int
    away_since_us: int | None = None
    work: dict[EpochKey, Work] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[tuple[str, str, int], Content] = field(default_factory=dict)  # of the events, by identity
    points: Points = field(default_factory=Points)
    origins: list[tuple[int, EpochKey, Sequence[int]]] = field(default_factory=list)  # first point, epoch, numbers: once a batch
    facts: list[Fact] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    boots: dict[tuple[str, str], Zero] = field(default_factory=dict)  # by node and boot
    synced: dict[tuple[str, str], Synced] = field(default_factory=dict)  # those of them that have just become so
    births: dict[str, Birth] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)  # nodes whose birth is news, not the broker's memory
    states: dict[str, State] = field(default_factory=dict)
    reports: list[tuple[str, Reported, bool]] = field(default_factory=list)  # node, report, whether it was just said
    results: list[tuple[str, Result]] = field(default_factory=list)  # by the command's id
    seen: set[str] = field(default_factory=set)  # nodes that have just spoken themselves
    duplicates: int = 0
    strangers: int = 0  # events of tags that nobody is enrolled for, dropped
    late: dict[tuple[str, str], int] = field(default_factory=dict)  # by kind and node: past their retention, dropped
    refusals: dict[str, int] = field(default_factory=dict)  # by node: how many, also of those that are not kept
    refused: dict[str, int] = field(default_factory=dict)  # the same by what was refused (gateway.telemetry.REFUSED)
    crowded: set[str] = field(default_factory=set)  # nodes that have more of something than a node can have

    def refuse(self, message: Message, reason: str, seq: int | None = None, node: str | None = None) -> None:
        """Keeps the beginning of what is refused, with the reason. `seq` None: the whole message.

        Of one node so many in a group, that a flood of them costs no more; the others are counted. `node`: where the topic names
        none.
        """
        what = "store" if message.topic == STORE else "message" if seq is None else "reused" if reason == SEQ_REUSED else "record"
        self.refused[what] = self.refused.get(what, 0) + 1
        try:
            node = node or parse(message.topic).node
        except ValueError:
            node = None
        number = self.refusals[node or ""] = self.refusals.get(node or "", 0) + 1
        if number > KEPT_REFUSALS:
            return
        self.quarantine.append(
            {
                "received_us": self.now_us,
                "node": node,
                "seq": seq,
                "topic": _storable(message.topic[:256]),
                "reason": _storable(reason),
                "size": len(message.payload),
                "payload": message.payload[:QUARANTINE_BYTES],
            }
        )

    def origin(self, index: int) -> tuple[EpochKey, int]:
        """Whose record `points[index]` was made of, and its number."""
        start, key, seqs = self.origins[bisect_right(self.origins, index, key=itemgetter(0)) - 1]
        return key, seqs[index - start]

    def give_up(self, index: int, reason: str) -> None:
        """Has a point that the series store will never take kept like a refused record, and its node told."""
        (node, epoch), seq = self.origin(index)
        series, time_ms, value = self.points[index]
        reason = reason[:MAX_REASON] or "refused by the series store"
        self.refuse(Message(STORE, json.dumps([*series, time_ms, value]).encode()), reason, seq, node)
        self.work[node, epoch].rejected.append((seq, reason))


def _storable(text: str) -> str:
    """PostgreSQL's text has no NUL; MQTT forbids it, and who refuses must not break over what it refuses."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def runs(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers in rising order as closed ranges."""
    if not seqs or seqs[-1] - seqs[0] == len(seqs) - 1:
        return [(seqs[0], seqs[-1])] if seqs else []  # what a healthy agent sends, without a step of Python a number
    ends = [at for at in range(1, len(seqs)) if seqs[at] != seqs[at - 1] + 1]
    return [(seqs[first], seqs[end - 1]) for first, end in zip([0, *ends], [*ends, len(seqs)], strict=True)]
