"""What rules take and give: Fact, Memory, Verdict; and what all rule configs share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Memory = dict[str, Any]
"""What one rule remembers of one device, as a JSON object; empty at first."""

Level = Literal["ok", "pending", "firing"]
Severity = Literal["info", "warning", "critical"]


class Fact(NamedTuple):
    """Something that is now known: an event or a reading, in the order of its commit."""

    node: str
    device: str
    name: str  # event type or metric
    value: float  # of a reading; 0 of an event
    time_us: int  # when it was true
    received_us: int
    late: bool  # it arrived long after it was true
    id: str  # `epoch:seq`
    superseded: bool = False  # a later fact that ends this one is committed already
    found: bool = False  # the state was found so when the agent started
    body: str = "{}"  # of an event: JSON of its own fields

    def is_newer_than(self, remembered: str | None) -> bool:
        """Whether this fact of a device came about after the one with the id `remembered`.

        Within an epoch its numbers say so, whatever clocks said meanwhile; a new epoch comes after the old one.
        """
        if remembered is None:
            return True
        epoch, _, seq = self.id.rpartition(":")
        old_epoch, _, old_seq = remembered.rpartition(":")
        return epoch != old_epoch or int(seq) > int(old_seq)


class Verdict(NamedTuple):
    """What a rule says of one device now. `opening` names what began it: the same opening never alerts twice."""

    level: Level
    since_us: int
    opening: str = ""
    late: bool = False
    reason: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})
    """What the words need beside the reason, as a JSON object: a value, a species, a picture's SHA-256, who a tag belongs to."""
    times: int = 1
    """How many identical occurrences this stands for."""
    severity: Severity | None = None
    """Where it is not the rule's own: a bear among animals. What an alert was opened with stays."""


class RuleBase(BaseModel):
    """The settings every rule has."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    kind: str | None = Field(None, description="Only devices deployed as this kind (trap, camera, ...); absent: all.")
    severity: Severity = Field("warning", description="How urgent an alert of this rule is.")
    mode: Literal["normal", "disaster"] | None = Field(
        None, description="Its alerts are told only while the town is in this mode; absent: always."
    )
