"""stuck: a counter that is alive and counts nobody, at hours in which there always are people. Silence is absence's."""

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from gateway.flow import baseline
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict


class StuckConfig(RuleBase):
    """`type = "stuck"`."""

    type: Literal["stuck"] = Field(description="A people counter is alive and counts nobody, when there usually are people.")
    least: Annotated[int, Field(ge=1)] = Field(
        20, description="An hour in which usually so many pass is one that can't be empty."
    )
    hours: Annotated[int, Field(ge=1, le=24)] = Field(2, description="So many such hours without anybody, one after the other.")


class Stuck:
    """Fires after `hours` empty hours that are not usually empty; ends with the first person counted."""

    metrics = frozenset(("count_in", "count_out", "heartbeat"))
    events: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __init__(self, config: StuckConfig, zone: ZoneInfo) -> None:
        self._config, self._zone = config, zone

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:  # noqa: ARG002 - every rule takes now
        """Sums what passes, hour by hour; a heartbeat says that an hour without anybody was watched."""
        kind, hour = baseline.hour_of(fact.time_us, self._zone)
        running: dict[str, Any] | None = memory.get("hour")
        if running is None or hour > running["hour"]:
            if running is not None:
                self._close(memory, running)
            # The first hour began before we listened; later ones count from their first word.
            running = memory["hour"] = {"hour": hour, "kind": kind, "passed": 0, "whole": running is not None}
        if fact.name == "heartbeat":
            return self._judge(memory, running, fact)
        if hour < running["hour"]:
            return None
        totals: dict[str, float] = memory.setdefault("totals", {})
        before = totals.get(fact.name)
        verdict = None
        if before is not None and fact.value > before:
            running["passed"] += int(fact.value - before)
            memory["empty"] = 0
            if memory.pop("since_us", None) is not None:
                verdict = Verdict("ok", fact.time_us, reason="it counts again")
        if before is None or fact.value != before:
            totals[fact.name] = fact.value
        return verdict or self._judge(memory, running, fact)

    def _judge(self, memory: Memory, hour: dict[str, Any], fact: Fact) -> Verdict | None:
        if "since_us" in memory or memory.get("empty", 0) < self._config.hours:
            return None
        memory["since_us"] = fact.time_us
        facts = {"usual": baseline.expected(memory.get("usual", {}), hour["kind"]), "hours": memory["empty"]}
        return Verdict("firing", fact.time_us, str(fact.time_us), fact.late, "stuck", facts)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """Time alone says nothing of a counter that is not heard."""
        return None

    def _close(self, memory: Memory, hour: dict[str, Any]) -> None:
        """An hour is over: either it was too empty to be true, or it is one more that says what is usual."""
        usual = memory.setdefault("usual", {})
        expected = baseline.expected(usual, hour["kind"])
        if not hour["whole"]:
            return
        if hour["passed"] == 0 and expected is not None and expected >= self._config.least:
            memory["empty"] = memory.get("empty", 0) + 1
            return
        if hour["passed"]:
            memory["empty"] = 0
        baseline.remember(usual, hour["kind"], hour["passed"])
