"""How much of the gateway one node may take, so that no node delays another. Memory only; time is an argument.

    turn     a group of messages holds at most TURN of each node; the rest waits here, what is live before what is backlog
    budget   a node that has spent it is let in again as it refills; what does not fit into its queue meanwhile is left unread

Nothing is lost by either: a node keeps every record until `down/ack` names it, and sends again. An honest node has no more on its
way than its lanes' windows, which fit into the queue whole. What a node says of itself (birth, state, report) is never left
unread: the newest of each waits.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from gateway.flush import Message

log = logging.getLogger(__name__)

MESSAGE, EVENT, BYTES = 3, 20, 200
"""What a message costs, what an event (or another JSON object in it), in readings; and how many bytes cost one."""
TURN = 2000
"""Readings, or what costs as much: some 20 ms."""
QUEUE_MESSAGES, QUEUE_BYTES = 2000, 4 * 1024 * 1024
"""Of one node: more than all windows of its lanes."""
QUIET_US = 60 * 1_000_000
"""A node that nothing was left unread of for so long keeps within its budget again."""
_REMEMBERED = 10_000
_OF_ITSELF = ("/up/birth", "/up/state", "/up/reported")

Note = Callable[[str, str, int], object]
"""note(node, what, now_us): gateway.nodes.conduct.Conduct.note is one."""


class ShareConfig(BaseModel):
    """`[share]`: how much of the gateway one node may take. Counted in readings; an event counts as 20."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    readings_per_s: float = Field(500, ge=1, le=1e6, description="How fast a node's budget refills.")
    burst: int = Field(500_000, ge=10_000, le=10**9, description="How much it may send at once: a week's backlog and more.")


class _Queue:
    """What waits of one node. Almost none has one: a town may have 100,000, and an empty one takes 1.5 KiB."""

    __slots__ = ("backlog", "bytes", "itself", "live")

    def __init__(self) -> None:
        self.itself: dict[str, Message] = {}
        self.live: deque[Message] = deque()
        self.backlog: deque[Message] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.itself) + len(self.live) + len(self.backlog)


class Shares:
    """`take` is ingest's; `charge` the pipeline's, on the same thread."""

    def __init__(
        self, config: ShareConfig, note: Note = lambda *_: None, left_unread: Callable[[], object] = lambda: None
    ) -> None:
        """`note` hears of each message that is left unread, and `left_unread` counts it."""
        self._note, self._left_unread = note, left_unread
        # A budget is kept as the one time at which it is whole again (the generic cell rate algorithm, ITU-T I.371, of so many
        # readings): each reading puts that off. Of who is not here it is whole.
        self._whole_us: dict[str, float] = {}
        self._us_each = 1e6 / config.readings_per_s
        self._burst_us = config.burst * self._us_each
        self._waiting: dict[str, _Queue] = {}
        self._over: dict[str, int] = {}  # of whom something was left unread, and when last
        self._used: dict[str, int] = {}  # in this turn, by node
        self._now_us, self._most = 0, _REMEMBERED

    def take(self, messages: Iterable[Message], now_us: int) -> list[Message]:
        """What of these, and of what waits, is processed now."""
        self._see(now_us)
        whole_us, waiting, us_each = self._whole_us, self._waiting, self._us_each
        used = self._used = {}
        latest_us = now_us + self._burst_us
        taken = [*self._of_waiting(latest_us)] if waiting else []
        for message in messages:
            node = _node(message.topic)
            if node not in waiting:
                cost = cost_of(message.payload)
                spent = used.get(node, 0)
                at_us = whole_us.get(node, now_us)
                if at_us <= latest_us and (spent + cost <= TURN or not spent):
                    used[node] = spent + cost
                    whole_us[node] = (at_us if at_us > now_us else now_us) + cost * us_each  # noqa: FURB136 - half of `max`
                    taken.append(message)
                    continue
            self._queue(node, message, now_us)
        return taken

    def forget(self, others: Callable[[str], bool]) -> None:
        """Lets go of what waits of these nodes: another process hears them now, and they send it again."""
        for known in (self._whole_us, self._waiting, self._over):
            for node in [node for node in known if others(node)]:
                del known[node]

    def due_s(self, now_us: int) -> float | None:
        """When something that waits may be taken, in seconds from now; None when nothing waits."""
        if not self._waiting:
            return None
        self._see(now_us)
        latest_us = now_us + self._burst_us
        return max(min(self._whole_us.get(node, 0) for node in self._waiting) - latest_us, 0) / 1e6

    def charge(self, node: str, readings: float) -> None:
        """What a node's messages cost beyond what could be seen of them."""
        self._spend(node, readings)

    def tick(self, now_us: int) -> None:
        """Says who keeps within its budget again, and forgets who has all of it, where they have become many."""
        for node, dropped_us in list(self._over.items()):
            if not 0 <= now_us - dropped_us < QUIET_US:
                del self._over[node]
                log.warning("node %s keeps within its share again", node)
        self._see(now_us)
        if len(self._whole_us) > self._most:
            self._whole_us = {node: at_us for node, at_us in self._whole_us.items() if at_us > now_us}
            self._most = max(_REMEMBERED, 2 * len(self._whole_us))  # so that each is looked at once or twice in all

    def _see(self, now_us: int) -> None:
        """Where the clock was set back nobody waits for the old time, and nothing is won but what it gave before, set forward."""
        if (back_us := self._now_us - now_us) > 0:
            self._whole_us = {node: at_us - back_us for node, at_us in self._whole_us.items()}
        self._now_us = now_us

    def _spend(self, node: str, readings: float) -> None:
        self._whole_us[node] = max(self._whole_us.get(node, 0), self._now_us) + readings * self._us_each

    def _of_waiting(self, latest_us: float) -> Iterator[Message]:
        for node, waits in list(self._waiting.items()):
            used = 0
            while self._whole_us.get(node, 0) <= latest_us and waits:
                if waits.itself:
                    message = waits.itself.pop(next(iter(waits.itself)))
                else:
                    queue = waits.live or waits.backlog
                    message = queue[0]
                    if used and used + cost_of(message.payload) > TURN:
                        break
                    queue.popleft()
                    waits.bytes -= len(message.payload)
                cost = cost_of(message.payload)
                used += cost
                self._spend(node, cost)
                yield message
            self._used[node] = used
            if not waits:
                del self._waiting[node]

    def _queue(self, node: str, message: Message, now_us: int) -> None:
        waits = self._waiting.get(node) or _Queue()
        if message.topic.endswith(_OF_ITSELF):
            waits.itself[message.topic] = message
        elif len(waits.live) + len(waits.backlog) < QUEUE_MESSAGES and waits.bytes + len(message.payload) <= QUEUE_BYTES:
            (waits.backlog if message.topic.endswith("/up/backlog") else waits.live).append(message)
            waits.bytes += len(message.payload)
        else:
            if node not in self._over:
                log.error("node %s sends more than its share; what is beyond it is left unread until it sends it again", node)
            self._over[node] = now_us
            self._left_unread()
            self._note(node, "over_share", now_us)
        if waits:
            self._waiting[node] = waits


def cost_of(payload: bytes) -> int:
    """What a message will cost, in readings, by what its text can't hide: a reading is a JSON array, an event an object."""
    return MESSAGE + payload.count(b"[") + EVENT * payload.count(b"{") + len(payload) // BYTES


def _node(topic: str) -> str:
    """Whose message it is; "" of a topic that names nobody."""
    parts = topic.split("/", 4)
    return parts[3][:32] if len(parts) == 5 else ""
