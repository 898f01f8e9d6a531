"""What the gateway finds out about itself, as alerts of kind "gateway" like any other: ruled, muted, paged and answered.

The subject is ("gateway", part). Some parts are probed at each tick; of the others, whoever knows says so by `condition`,
and says it again when it is well: what nobody has spoken of since the start stays as it was.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from gateway.rules import OWN, Memory, Verdict
from gateway.rules.verdict import Severity
from gateway.watch import WatchedRule

SUBJECT = "gateway"

SEVERITIES: Mapping[str, Severity] = {"broker": "critical", "disk": "critical", "canary_lost": "critical"}
"""Of parts that are worse than a warning: while they last, an alarm may not come through at all."""


class Probe(NamedTuple):
    """A part that can be asked at any moment; `fault()` says what is wrong with it, None nothing. It must be quick."""

    fault: Callable[[], str | None]
    for_s: float = 0
    """A fault that lasted less is none: a broker that starts anew, say."""


class Condition(NamedTuple):
    """What was last said of a part."""

    level: Literal["ok", "pending", "firing"]
    reason: str
    facts: Mapping[str, Any]
    opening: str


class Own:
    """The rule of the gateway's own parts. `condition` is safe from any thread."""

    events: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __init__(self, probes: Mapping[str, Probe] | None = None) -> None:
        self._probes = dict(probes or {})
        self._lock = threading.Lock()
        self._said: dict[str, Condition] = {}

    def watched(self) -> WatchedRule:
        """As the watch wants it."""
        return WatchedRule(OWN, "warning", self)

    def condition(
        self, part: str, level: str, reason: str = "", facts: Mapping[str, Any] | None = None, opening: str = ""
    ) -> None:
        """A part is `ok`, `pending` or `firing`, until something else is said. No personal data in `reason` or `facts`.

        Another `opening` is another alert, and told anew; empty: the time at which it began.
        """
        if level not in ("ok", "pending", "firing"):
            raise ValueError(f"{level!r} is no level; say ok, pending or firing")
        with self._lock:
            self._said[part] = Condition(level, reason, dict(facts or {}), opening)  # type: ignore[arg-type]

    def standing(self) -> dict[str, Condition]:
        """Of the parts that were spoken of, those that are not well. For who judges in another process."""
        with self._lock:
            return {part: said for part, said in self._said.items() if said.level != "ok"}

    def subjects(self) -> Iterable[tuple[str, str]]:
        """Every part that is probed, or was spoken of."""
        with self._lock:
            return [(SUBJECT, part) for part in (*self._probes, *self._said)]

    def on_fact(self, memory: Memory, fact: object, now_us: int, subject: tuple[str, str]) -> Verdict | None:  # noqa: ARG002
        """It wants no facts."""
        return None

    def on_tick(
        self,
        memory: Memory,
        now_us: int,
        listening_since_us: int | None,  # noqa: ARG002 - of every rule
        subject: tuple[str, str],
    ) -> Verdict | None:
        """The part's condition now."""
        part = subject[1]
        with self._lock:
            said = self._said.get(part)
        if (probe := self._probes.get(part)) is not None:
            said = _probed(probe, memory, now_us)
        if said is None:
            return None
        if said.level == "ok":
            memory.clear()
            return Verdict("ok", now_us, reason=said.reason or "well again")
        since_us = memory["since_us"] = min(memory.get("since_us", now_us), now_us)
        if said.opening != memory.get("opening", ""):
            since_us = memory["since_us"] = now_us
            memory["opening"] = said.opening
        return Verdict(
            said.level,
            since_us,
            said.opening or str(memory.setdefault("began_us", since_us)),
            reason=said.reason or part,
            facts={**said.facts, "part": part},
            severity=SEVERITIES.get(part),
        )


def _probed(probe: Probe, memory: Memory, now_us: int) -> Condition | None:
    """None while a fault has not lasted long enough to be one."""
    fault = probe.fault()
    if fault is None:
        return Condition("ok", "", {}, "")
    since_us = memory["since_us"] = min(memory.get("since_us", now_us), now_us)
    return Condition("firing", fault, {}, "") if now_us - since_us >= probe.for_s * 1_000_000 else None
