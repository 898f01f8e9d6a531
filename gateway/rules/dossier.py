"""dossier: a capture whose papers are not complete after a day. The reminder ends when they are."""

import json
from typing import Any, Literal

from pydantic import Field

from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

DOSSIER = "dossier_changed"
_MOST = 20  # dossiers of one trap that wait at the same time


class DossierConfig(RuleBase):
    """`type = "dossier"`."""

    type: Literal["dossier"] = Field(description="The dossier of a capture is not complete.")
    remind_after: Duration = Field(86_400, ge=60, description="How long after the capture was entered it reminds.")


class Dossier:
    """Fires for the oldest dossier of a trap that is due, with what it lacks; ends when none is."""

    metrics: frozenset[str] = frozenset()
    events = frozenset((DOSSIER,))
    ends: frozenset[str] = frozenset()

    def __init__(self, config: DossierConfig) -> None:
        self._after_us = config.remind_after * 1_000_000

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """A dossier was opened, something was added to it, or it is complete."""
        said = json.loads(fact.body)
        waiting: dict[str, Any] = memory.setdefault("waiting", {})
        if said["completed"]:
            waiting.pop(said["capture"], None)
        elif len(waiting) < _MOST or said["capture"] in waiting:
            waiting[said["capture"]] = {"opened_us": said["opened_us"], "missing": said["missing"]}
        return self._judge(memory, now_us)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """Whether one is due."""
        return self._judge(memory, now_us)

    def _judge(self, memory: Memory, now_us: int) -> Verdict | None:
        due = [
            (one["opened_us"], capture)
            for capture, one in memory.get("waiting", {}).items()
            if now_us - one["opened_us"] >= self._after_us
        ]
        if not due:
            return Verdict("ok", now_us, reason="dossier complete") if memory.pop("said", None) is not None else None
        opened_us, capture = min(due)
        facts = {"capture": capture, "missing": memory["waiting"][capture]["missing"], "count": len(due)}
        if memory.get("said") == facts:
            return None
        memory["said"] = facts
        return Verdict("firing", opened_us, capture, reason="dossier incomplete", facts=facts)
