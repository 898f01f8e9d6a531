"""How one attempt to deliver ended: these outcomes and nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivered:
    """The other side said that it has it. That nobody has seen it yet is another matter."""

    provider_id: str | None = None
    """What the provider calls it, so that its later word (seen, bounced, a key pressed) finds its row."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: try again, not before `after_s` if that is given."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Never: what was sent is wrong for this receiver. The contact's next address is tried; without one, a dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """This address leads nowhere any more: unfollowed, bounced, a subscription that ended (410). The address is unreachable."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoQuota:
    """The channel may send no more of this urgency this month. The contact's next address is tried at once."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was handed over, and no word came back: it may have arrived. Only of channels that can't tell a repetition."""

    reason: str


Outcome = Delivered | Retry | Refused | Gone | NoQuota | Unknown
