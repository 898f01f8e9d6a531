"""trial: somebody sends a test alarm, an installer's trip or the daily canary. Each is told once, and asks nobody to set out."""

from typing import Literal

from pydantic import Field

from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

TEST_ALARM = "test_alarm"
TEST = "test"
"""The kind of its alerts, and of pages about them."""


class TrialConfig(RuleBase):
    """`type = "trial"`."""

    type: Literal["trial"] = Field(description="A test alarm was sent.")
    hold: Duration = Field(7200, description="How long each can be answered: it ends by itself after that.")
    late: Duration = Field(
        1_209_600, description="One that comes later than this rings nobody: a box may have been put up without a network."
    )


class Trial:
    """Every test alarm is one of its own: who tests again wants to hear it again."""

    events = frozenset({TEST_ALARM})
    metrics: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()
    flaps = False
    alert_kind = TEST  # a trap's test alarm is no trap's alarm: nobody is asked to go

    def __init__(self, config: TrialConfig) -> None:
        self._hold_us, self._late_us = config.hold * 1_000_000, config.late * 1_000_000

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """Firing at each that is newer than the last, from when it came; nothing for one that was overtaken, or is too late."""
        if not fact.is_newer_than(memory.get("opened")) or now_us - fact.time_us >= max(self._late_us, self._hold_us):
            return None
        memory["opened"], memory["since_us"] = fact.id, max(fact.time_us, now_us)
        return Verdict("firing", fact.time_us, fact.id, fact.late, fact.name)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002 - of every rule
        """Over after `hold`."""
        if "since_us" not in memory or now_us - memory["since_us"] < self._hold_us:
            return None
        del memory["since_us"]
        return Verdict("ok", now_us, reason="its time is over")
