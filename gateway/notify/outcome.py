"""How one attempt to deliver ended: the three outcomes and nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivered:
    """The other side said that it has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: try again, not before `after_s` if that is given."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Never: what was sent is wrong for this receiver. A dead letter."""

    reason: str


Outcome = Delivered | Retry | Refused
