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

    __slots__ = ("at_us", "backlog", "bytes", "dropped_us", "itself", "left", "live", "turn", "used")

    def __init__(self, left: float, now_us: int) -> None:
        self.left, self.at_us = left, now_us
        self.turn, self.used = 0, 0
        # None of almost all nodes: an empty queue takes 0.7 KiB, and a town may have 100,000.
        self.live: deque[Message] | None = None
        self.backlog: deque[Message] | None = None
        self.itself: dict[str, Message] = {}
        self.bytes = 0
        self.dropped_us: int | None = None

    @property
    def waits(self) -> bool:
        return bool(self.live or self.backlog or self.itself)


class Shares:
    """`take` is ingest's; `charge` the pipeline's, on the same thread."""

    def __init__(
        self, config: ShareConfig, note: Note = lambda *_: None, left_unread: Callable[[], object] = lambda: None
    ) -> None:
        """`note` hears of each message that is left unread, and `left_unread` counts it."""
        self._config, self._note, self._left_unread = config, note, left_unread
        self._shares: dict[str, _Share] = {}
        self._waiting: dict[str, _Share] = {}
        self._turn = 0

    def take(self, messages: Iterable[Message], now_us: int) -> list[Message]:
        """What of these, and of what waits, is processed now."""
        self._turn += 1
        taken = [*self._of_waiting(now_us)] if self._waiting else []
        shares, waiting, turn = self._shares, self._waiting, self._turn
        for message in messages:
            node = _node(message.topic)
            share = shares.get(node)
            if share is None:
                share = shares[node] = _Share(self._config.burst, now_us)
            if share.turn != turn:
                share.turn, share.used = turn, 0
                self._refill(share, now_us)
            if node not in waiting:
                cost = cost_of(message.payload)
                if share.left > 0 and (share.used + cost <= TURN or not share.used):
                    share.used += cost
                    share.left -= cost
                    taken.append(message)
                    continue
            self._queue(node, share, message, now_us)
        return taken

    def forget(self, others: Callable[[str], bool]) -> None:
        """Lets go of what waits of these nodes: another process hears them now, and they send it again."""
        for node in [node for node in self._shares if others(node)]:
            del self._shares[node]
            self._waiting.pop(node, None)

    def due_s(self, now_us: int) -> float | None:
        """When something that waits may be taken, in seconds from now; None when nothing waits."""
        if not self._waiting:
            return None
        longest = min(max(-share.left, 0) / self._config.readings_per_s - (now_us - share.at_us) / 1e6
                      for share in self._waiting.values())  # fmt: skip
        return max(longest, 0.0)

    def charge(self, node: str, readings: float) -> None:
        """What a node's messages cost beyond what could be seen of them."""
        if (share := self._shares.get(node)) is not None:
            share.left -= readings

    def tick(self, now_us: int) -> None:
        """Says who keeps within its budget again, and forgets who has all of it."""
        for node, share in self._shares.items():
            if share.dropped_us is not None and not 0 <= now_us - share.dropped_us < QUIET_US:
                share.dropped_us = None
                log.warning("node %s keeps within its share again", node)
        if len(self._shares) > _REMEMBERED:
            for share in self._shares.values():
                self._refill(share, now_us)
            full = self._config.burst
            self._shares = {
                node: share for node, share in self._shares.items() if share.left < full or share.waits or share.dropped_us
            }

    def _refill(self, share: _Share, now_us: int) -> None:
        # Where the clock was set back nothing is won, and nobody waits for the old time.
        if now_us > share.at_us:
            share.left = min(self._config.burst, share.left + (now_us - share.at_us) * self._config.readings_per_s / 1e6)
        share.at_us = now_us

    def _of_waiting(self, now_us: int) -> Iterator[Message]:
        for node, share in list(self._waiting.items()):
            share.turn, share.used = self._turn, 0
            self._refill(share, now_us)
            while share.left > 0 and share.waits:
                if share.itself:
                    message = share.itself.pop(next(iter(share.itself)))
                elif queue := share.live or share.backlog:
                    message = queue[0]
                    if share.used and share.used + cost_of(message.payload) > TURN:
                        break
                    queue.popleft()
                    share.bytes -= len(message.payload)
                cost = cost_of(message.payload)
                share.used += cost
                share.left -= cost
                yield message
            if not share.waits:
                share.live = share.backlog = None
                del self._waiting[node]

    def _queue(self, node: str, share: _Share, message: Message, now_us: int) -> None:
        if message.topic.endswith(_OF_ITSELF):
            share.itself[message.topic] = message
        elif (
            len(share.live or ()) + len(share.backlog or ()) < QUEUE_MESSAGES
            and share.bytes + len(message.payload) <= QUEUE_BYTES
        ):
            share.live, share.backlog = share.live or deque(), share.backlog or deque()
            (share.backlog if message.topic.endswith("/up/backlog") else share.live).append(message)
            share.bytes += len(message.payload)
        else:
            if share.dropped_us is None:
                log.error("node %s sends more than its share; what is beyond it is left unread until it sends it again", node)
            share.dropped_us = now_us
            self._left_unread()
            self._note(node, "over_share", now_us)
        if share.waits:
            self._waiting[node] = share


def cost_of(payload: bytes) -> int:
    """What a message will cost, in readings, by what its text can't hide: a reading is a JSON array, an event an object."""
    return MESSAGE + payload.count(b"[") + EVENT * payload.count(b"{") + len(payload) // BYTES


def _node(topic: str) -> str:
    """Whose message it is; "" of a topic that names nobody."""
    parts = topic.split("/", 4)
    return parts[3][:32] if len(parts) == 5 else ""
