"""threshold: a metric beyond a limit for a time, with hysteresis: it ends only beyond `clear`."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge.contract.metrics import METRICS
from gateway.rules.duration import Duration
from gateway.rules.occurrence import known
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict


class ThresholdConfig(RuleBase):
    """`type = "threshold"`: exactly one of `above` and `below`."""

    type: Literal["threshold"] = Field(description="A metric is beyond a limit.")
    metric: str = Field(description="The metric that is compared.")
    above: float | None = Field(None, description="Fires while the value is greater.")
    below: float | None = Field(None, description="Fires while the value is smaller.")
    clear: float | None = Field(None, description="The value that ends it; absent: the limit itself.")
    for_s: Duration = Field(0, alias="for", description="How long it must last before it fires.")

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str | None:
        return known(name, METRICS, "metric")

    @model_validator(mode="after")
    def _one_limit(self) -> "ThresholdConfig":
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        if self.clear is not None and (
            (self.above is not None and self.clear > self.above) or (self.below is not None and self.clear < self.below)
        ):
            raise ValueError("clear must lie on the quiet side of the limit")
        return self


class Threshold:
    """ok -> pending while beyond the limit -> firing after `for`; back to ok beyond `clear`."""

    events: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __init__(self, config: ThresholdConfig) -> None:
        self._config = config
        self.metrics = frozenset((config.metric,))
        # `below` is `above` with the sign turned, so that there is one comparison to get right.
        self._sign = 1.0 if config.above is not None else -1.0
        limit = config.above if config.above is not None else config.below
        assert limit is not None  # noqa: S101 - ThresholdConfig saw to it
        self._limit = limit * self._sign
        self._clear = (config.clear if config.clear is not None else limit) * self._sign

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """Compares the newest value; older ones than the newest known change nothing."""
        if fact.time_us < memory.get("time_us", 0) <= now_us:  # a time to come is from when our own clock was ahead
            return None
        value = fact.value * self._sign
        memory["time_us"] = fact.time_us
        if "since_us" not in memory:
            if value <= self._limit:
                return None
            memory["since_us"], memory["began"] = fact.time_us, str(fact.time_us)
            memory["late"], memory["reason"] = fact.late, f"{fact.name} {fact.value:g}"
        elif value <= self._clear:
            del memory["since_us"]
            return Verdict("ok", fact.time_us, reason=f"{fact.name} {fact.value:g}")
        return self._level(memory, max(fact.time_us, now_us if not fact.late else fact.time_us))

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """A pending verdict becomes firing when its time is over."""
        return self._level(memory, now_us) if "since_us" in memory else None

    def _level(self, memory: Memory, now_us: int) -> Verdict:
        since_us = memory["since_us"] = min(memory["since_us"], now_us)
        lasted = now_us - since_us >= self._config.for_s * 1_000_000
        return Verdict("firing" if lasted else "pending", since_us, memory["began"], memory["late"], memory["reason"])
