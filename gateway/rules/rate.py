"""rate: how much a metric changed within a window. Totals may restart; a restart is no change."""

from typing import Literal

from pydantic import Field, field_validator

from edge.contract.metrics import METRICS, Kind
from gateway.rules.duration import Duration
from gateway.rules.occurrence import known
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

_SAMPLES = 60  # kept of a window: enough for its shape, and the memory stays small whatever the sampling


class RateConfig(RuleBase):
    """`type = "rate"`."""

    type: Literal["rate"] = Field(description="A metric changes too fast.")
    metric: str = Field(description="The metric whose change is measured.")
    per: Duration = Field(60, ge=1, description="The unit of time of `above`: change per this long.")
    window: Duration = Field(300, ge=1, description="How far back the change is measured.")
    above: float = Field(description="Fires while the change per `per` is greater.")

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str | None:
        return known(name, METRICS, "metric")


class Rate:
    """Measures from the oldest sample of the window to the newest."""

    events: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __init__(self, config: RateConfig) -> None:
        self.metrics = frozenset((config.metric,))
        self._window_us = config.window * 1_000_000
        self._grain_us = self._window_us / _SAMPLES
        self._per, self._above = config.per, config.above
        self._total = METRICS[config.metric].kind is Kind.TOTAL

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """Adds a sample; samples that are older than the newest are not needed."""
        _, _, name, value, time_us, *_ = fact
        samples: list[list[float]] = memory.setdefault("samples", [])
        if samples and samples[-1][0] > now_us:
            samples.clear()  # our own clock was ahead then
        if samples and time_us <= samples[-1][0]:
            return None
        if self._total and samples and value < samples[-1][1]:
            samples.clear()
        while samples and time_us - samples[0][0] > self._window_us:
            samples.pop(0)
        # Keep at most _SAMPLES: the newest replaces its neighbour when they are closer than the window's grain.
        if len(samples) >= 2 and time_us - samples[-2][0] < self._grain_us:
            samples.pop()
        samples.append([time_us, value])
        began_us, at_first = samples[0]
        span_s, change = (time_us - began_us) / 1e6, value - at_first
        if span_s > 0 and change / span_s * self._per > self._above:
            since_us = memory.setdefault("since_us", time_us)
            return Verdict("firing", since_us, str(since_us), fact.late, f"{name} +{change:g} / {span_s:.0f} s")
        memory.pop("since_us", None)
        return Verdict("ok", time_us, "", False, f"{name} +{change:g}")

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """A window with nothing new in it has no rate."""
        samples = memory.get("samples")
        if "since_us" in memory and samples and now_us - samples[-1][0] > self._window_us:
            del memory["since_us"]
            samples.clear()
            return Verdict("ok", now_us, reason="no change within the window")
        return None
