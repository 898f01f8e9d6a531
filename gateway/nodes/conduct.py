"""What nodes do that honest ones do not, counted and said as alerts of the gateway's own: one for each node and kind of it.

What it stands for is contained already where it is noticed (gateway.shares, gateway.intake, the node listener): here it only
becomes visible. Memory only, but for what is open: an alert of before a restart ends as any other.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import select

from gateway.state import State
from gateway.state.tables import alerts

MINUTE_US = 60 * 1_000_000

Condition = Callable[[str, str, str, Mapping[str, Any], str], object]
"""condition(part, level, reason, facts, opening), as gateway.own has it."""


class Kind(NamedTuple):
    """A kind of conduct."""

    reason: str
    often: int
    """How many times within WITHIN_US it is worth a word."""
    quiet_us: int
    """So long without another one it is over."""


WITHIN_US = 10 * MINUTE_US
KINDS: Mapping[str, Kind] = {
    "over_share": Kind("sends more than its share", 1, 10 * MINUTE_US),
    "seq_reused": Kind("uses the numbers of known records for other ones", 1, 60 * MINUTE_US),
    "refused": Kind("sends much that can't be used", 100, 60 * MINUTE_US),
    "crowded": Kind("has more devices, series, starts or epochs than a node can have", 1, 60 * MINUTE_US),
    "reborn": Kind("connects anew again and again: does somebody come in its name?", 12, 20 * MINUTE_US),
    "pictures": Kind("sends more pictures than a node may", 1, 60 * MINUTE_US),
}
MOST = 200
"""Alerts at once: whoever can come under any name could make as many as there are names."""


class _Count:
    __slots__ = ("began_us", "firing", "last_us", "times")

    def __init__(self, now_us: int) -> None:
        self.began_us = self.last_us = now_us
        self.times, self.firing = 0, False


class Conduct:
    """`note` is safe from any thread; `run` is a chore."""

    def __init__(self, state: State, condition: Condition) -> None:
        self._state, self._condition = state, condition
        self._remembers = False
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], _Count] = {}

    def note(self, node: str, what: str, now_us: int, times: int = 1) -> None:
        """A node did `what`, one of KINDS, so many times."""
        with self._lock:
            count = self._counts.get((node, what))
            if count is None:
                if len(self._counts) >= 10_000:
                    return
                count = self._counts[node, what] = _Count(now_us)
            if not count.firing and not 0 <= now_us - count.began_us < WITHIN_US:
                count.began_us, count.times = now_us, 0
            count.times += times
            count.last_us = now_us

    def run(self, now_us: int) -> None:
        """Says what has become worth a word since, and what is over."""
        if not self._remembers:
            self._remember(now_us)
        begun, ended = [], []
        with self._lock:
            firing = sum(count.firing for count in self._counts.values())
            for (node, what), count in list(self._counts.items()):
                kind = KINDS[what]
                over = not 0 <= now_us - count.last_us < (kind.quiet_us if count.firing else WITHIN_US)
                if over:
                    del self._counts[node, what]
                    if count.firing:
                        ended.append((node, what))
                elif not count.firing and count.times >= kind.often and firing < MOST:
                    firing += 1
                    count.firing = True
                    begun.append((node, what, count.began_us))
        for node, what, began_us in begun:
            facts = {"moment": f"alert.node_{what}", "where": node, "about": node, "at_us": began_us}
            self._condition(f"{node}:{what}", "firing", f"node {node} {KINDS[what].reason}", facts, str(began_us))
        for node, what in ended:
            self._condition(f"{node}:{what}", "ok", f"node {node} no longer does", {"about": node}, "")

    def _remember(self, now_us: int) -> None:
        """Takes what an earlier run said, and did not take back, for said now."""
        own = (alerts.c.kind == "gateway", alerts.c.state != "resolved", alerts.c.device.contains(":"))
        with self._state.read() as connection:
            parts = connection.scalars(select(alerts.c.device).where(*own)).all()
        with self._lock:
            for part in parts:
                node, _, what = part.partition(":")
                if what in KINDS:
                    count = self._counts.setdefault((node, what), _Count(now_us))
                    count.firing = True
        self._remembers = True
