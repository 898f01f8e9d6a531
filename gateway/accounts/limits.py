"""How often who may try what: moving windows, in memory only.

`limits` keeps the rule; the windows are kept here, because the library's own memory goes by the system's clock, starts a thread
at each try, and grows with every address that asks. After a restart everybody may try anew.
"""

import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Literal

from limits import RateLimitItem, parse
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter

Try = Literal[
    "ask", "asked", "asked_day", "begin", "passkey", "finish", "link", "open", "label", "label_miss", "report", "token", "change",
    "tile", "upload",
]  # fmt: skip

RULES: dict[Try, RateLimitItem] = {
    "ask": parse("10/15 minutes"),  # links asked for, by one asker
    "asked": parse("3/15 minutes"),  # links asked for, to one mail address
    "asked_day": parse("10/1 day"),  # the same: a mail box is not filled by who knows its address
    "begin": parse("60/5 minutes"),  # challenges, by one asker
    "finish": parse("30/5 minutes"),  # answers to challenges, by one asker
    "passkey": parse("10/5 minutes"),  # answers with one passkey
    "link": parse("30/5 minutes"),  # links tried, by one asker
    "open": parse("120/5 minutes"),  # open data, by one asker
    "label": parse("60/1 hour"),  # labels of tags looked up, by one asker
    "label_miss": parse("300/1 hour"),  # labels that were none of ours, by everybody together
    "report": parse("6/1 hour"),  # reports of tags, by one asker
    "token": parse("60/5 minutes"),  # wrong bearer tokens, by one asker
    "tile": parse("6000/5 minutes"),  # tiles of the map, by one asker: an installer's area is some 2,000
    "upload": parse("8000/1 day"),  # UPLOAD_BYTES that one account sends: 500 MiB are a hundred photos
    "change": parse("300/5 minutes"),  # what one account tries to change: each try is in the trail for years
}
"""What may be tried how often. An asker is an address, of IPv6 a network of 64 bits: a household has as many as it wants."""
UPLOAD_BYTES = 64 * 1024
MOST_KEYS = 20_000
"""Windows remembered; of more, those that were used last."""


class _Windows(Storage, MovingWindowSupport):
    """What `MovingWindowRateLimiter` keeps its tries in."""

    STORAGE_SCHEME = None
    base_exceptions = ValueError

    def __init__(self, now_us: Callable[[], int]) -> None:
        super().__init__()
        self._now_us, self._lock = now_us, Lock()
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether one more may be made now; if so, it is one."""
        with self._lock:
            tries = self._window(key, expiry)
            if len(tries) + amount > limit:
                return False
            tries.extend([self._now_us() / 1e6] * amount)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 - the library's
        """(when the oldest try that counts was made, how many count)."""
        with self._lock:
            tries = self._window(key, expiry)
            return (tries[0] if tries else self._now_us() / 1e6), len(tries)

    def _window(self, key: str, expiry: int) -> deque[float]:
        now_s = self._now_us() / 1e6
        tries = self._tries.setdefault(key, deque())
        self._tries.move_to_end(key)
        if len(self._tries) > MOST_KEYS:
            self._tries.popitem(last=False)
        # Where the clock went back, nobody waits for the old time to come again.
        while tries and not now_s - expiry < tries[0] <= now_s:
            tries.popleft()
        return tries

    def clear(self, key: str) -> None:
        """Forgets a window."""
        with self._lock:
            self._tries.pop(key, None)

    def check(self) -> bool:
        """It is there."""
        return True

    def reset(self) -> int | None:
        """Forgets all."""
        with self._lock:
            count = len(self._tries)
            self._tries.clear()
            return count

    # Abstract in `Storage`, so they must exist; of counters, which a moving window has none of, so nobody calls them.

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Never called."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Never called."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Never called."""
        raise NotImplementedError


class Limits:
    """Of one gateway. Safe on many threads."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us, self._windows = now_us, _Windows(now_us)
        self._limiter = MovingWindowRateLimiter(self._windows)

    def wait_s(self, what: Try, who: str) -> int:
        """0 when one more may be tried, which then counts; else in how many whole seconds."""
        rule, key = RULES[what], f"{what} {who}"
        if self._limiter.hit(rule, key):
            return 0
        return self._until_s(rule, key)

    def closed_s(self, what: Try, who: str) -> int:
        """As `wait_s`, of what counts only once it has failed: looking counts nothing."""
        rule, key = RULES[what], f"{what} {who}"
        return 0 if self._limiter.test(rule, key) else self._until_s(rule, key)

    def spend(self, what: Try, who: str, count: int) -> None:
        """Counts so many, or as many as are left: what is done can't be refused, and keeps off what comes next (`closed_s`)."""
        rule, key = RULES[what], f"{what} {who}"
        left = self._limiter.get_window_stats(rule, key).remaining
        if min(count, left) > 0:
            self._limiter.hit(rule, key, cost=min(count, left))

    def _until_s(self, rule: RateLimitItem, key: str) -> int:
        ends_s = self._limiter.get_window_stats(rule, key).reset_time
        return max(1, math.ceil(ends_s - self._now_us() / 1e6))


def asker(host: str | None) -> str:
    """Whom a limit counts for, by the address that they came from."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
