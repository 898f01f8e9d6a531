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


class _Share:
    """One node's. `left` may be below 0: what has been let in is let in whole."""

    __slots__ = ("at_us", "left", "turn", "used")

    def __init__(self, left: float, now_us: int, turn: int) -> None:
        self.left, self.at_us = left, now_us
        self.turn, self.used = turn, 0


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
        self._config, self._note, self._left_unread = config, note, left_unread
        self._shares: dict[str, _Share] = {}  # of who is not here all is left
        self._waiting: dict[str, _Queue] = {}
        self._over: dict[str, int] = {}  # of whom something was left unread, and when last
        self._turn, self._most = 0, _REMEMBERED

    def take(self, messages: Iterable[Message], now_us: int) -> list[Message]:
        """What of these, and of what waits, is processed now."""
        self._turn += 1
        taken = [*self._of_waiting(now_us)] if self._waiting else []
        shares, waiting, turn = self._shares, self._waiting, self._turn
        for message in messages:
            node = _node(message.topic)
            share = shares.get(node)
            if share is None:
                share = shares[node] = _Share(self._config.burst, now_us, turn)
            elif share.turn != turn:
                share.turn, share.used = turn, 0
                self._refill(share, now_us)
            if node not in waiting:
                cost = cost_of(message.payload)
                if share.left > 0 and (share.used + cost <= TURN or not share.used):
                    share.used += cost
                    share.left -= cost
                    taken.append(message)
                    continue
            self._queue(node, message, now_us)
        return taken

    def forget(self, others: Callable[[str], bool]) -> None:
        """Lets go of what waits of these nodes: another process hears them now, and they send it again."""
        for known in (self._shares, self._waiting, self._over):
            for node in [node for node in known if others(node)]:
                del known[node]

    def due_s(self, now_us: int) -> float | None:
        """When something that waits may be taken, in seconds from now; None when nothing waits."""
        if not self._waiting:
            return None
        longest = min(max(-share.left, 0) / self._config.readings_per_s - (now_us - share.at_us) / 1e6
                      for share in map(self._shares.__getitem__, self._waiting))  # fmt: skip
        return max(longest, 0.0)

    def charge(self, node: str, readings: float) -> None:
        """What a node's messages cost beyond what could be seen of them."""
        if (share := self._shares.get(node)) is not None:
            share.left -= readings

    def tick(self, now_us: int) -> None:
        """Says who keeps within its budget again, and forgets who has all of it, where they have become many."""
        for node, dropped_us in list(self._over.items()):
            if not 0 <= now_us - dropped_us < QUIET_US:
                del self._over[node]
                log.warning("node %s keeps within its share again", node)
        if len(self._shares) > self._most:
            full, per_us, waiting = self._config.burst, self._config.readings_per_s / 1e6, self._waiting
            self._shares = {
                node: share
                for node, share in self._shares.items()
                if share.left + (now_us - share.at_us) * per_us < full or node in waiting
            }
            self._most = max(_REMEMBERED, 2 * len(self._shares))  # so that each is looked at once or twice in all

    def _refill(self, share: _Share, now_us: int) -> None:
        # Where the clock was set back nothing is won, and nobody waits for the old time.
        if now_us > share.at_us:
            share.left = min(self._config.burst, share.left + (now_us - share.at_us) * self._config.readings_per_s / 1e6)
        share.at_us = now_us

    def _of_waiting(self, now_us: int) -> Iterator[Message]:
        for node, waits in list(self._waiting.items()):
            share = self._shares[node]
            share.turn, share.used = self._turn, 0
            self._refill(share, now_us)
            while share.left > 0 and waits:
                if waits.itself:
                    message = waits.itself.pop(next(iter(waits.itself)))
                else:
                    queue = waits.live or waits.backlog
                    message = queue[0]
                    if share.used and share.used + cost_of(message.payload) > TURN:
                        break
                    queue.popleft()
                    waits.bytes -= len(message.payload)
                cost = cost_of(message.payload)
                share.used += cost
                share.left -= cost
                yield message
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
