"""The configuration twin: which configuration this node runs, and what becomes of one that is asked for from afar.

    asked ──believed, newer──▶ checked ──▶ trial (on disk) ──▶ applied to the devices ──gateway answers──▶ applied
                                 │ no                              │ no answer in time, or died of it three times
                                 └──────────▶ failed, with the reason; the former one runs ◀──────────────┘

Decisions and their file only: what they do to devices and link is `edge.care`'s. A step is on disk before it is taken.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edge.config import EdgeConfig, checked
from edge.contract.messages import MAX_REASON, Applied
from edge.contract.names import Sha256
from edge.contract.remote import Desired, Reported
from edge.durable import read_whole, write_whole
from edge.errors import ConfigError

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Starts of the agent within one trial; a configuration that it does not survive is given up then."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(_Part):
    """A desired document that was believed."""

    sha256: Sha256
    statement: Desired

    @property
    def revision(self) -> int:
        """Its number."""
        return self.statement.revision


class Trial(_Part):
    """A document that is tried out."""

    document: Document
    attempts: int


class Failed(_Part):
    """The last document that could not be run."""

    revision: int
    sha256: Sha256
    reason: str


class Memory(_Part):
    """All that the twin knows; what its file holds."""

    applied: Document | None = None
    trial: Trial | None = None
    failed: Failed | None = None
    """The newest that failed."""
    seen: int = 0
    """The highest revision that was ever believed. A lower one is an old message, said again."""

    @property
    def running(self) -> Document | None:
        """What runs now: a trial counts. None is the node's own file."""
        return self.trial.document if self.trial else self.applied

    def told(self) -> Reported | None:
        """The last thing there is to say to the gateway."""
        running = self.applied.revision if self.applied else 0
        if self.failed and (self.applied is None or self.failed.revision > self.applied.revision):
            return Reported(
                revision=self.failed.revision, sha256=self.failed.sha256, outcome="failed", running=running,
                reason=self.failed.reason,
            )  # fmt: skip
        if self.applied:
            return Reported(revision=running, sha256=self.applied.sha256, outcome="applied", running=running)
        return None


def merged(base: EdgeConfig, desired: Desired) -> EdgeConfig:
    """The node's own file with what is desired in place of it. ConfigError that names each setting that can't be."""
    document: dict[str, Any] = base.model_dump(mode="python", exclude_unset=True)
    document["device"] = desired.device
    if desired.broker is not None:
        document["broker"] |= desired.broker.model_dump(exclude_none=True)
    return checked(document)


class Twin:
    """The twin's memory in a file. `try_out` is durable when it returns; OSError when the disk fails.

    What ends a trial holds even when it can't be written down: the worst is that it is tried once more after a restart.
    """

    def __init__(self, path: Path) -> None:
        """A file that can't be read is set aside: the node then runs its own file, which is what it was claimed with."""
        self._path = path
        self.memory = read_whole(path, Memory, "running edge.toml") or Memory()

    @property
    def applied(self) -> Applied | None:
        """What a birth says."""
        running = self.memory.running
        return Applied(revision=running.revision, sha256=running.sha256) if running else None

    def start(self, base: EdgeConfig) -> EdgeConfig:
        """At the agent's start: the configuration to run. A trial that was cut short counts one attempt more."""
        if base.remote is None:  # what was said from afar earlier counts no more
            self.memory = Memory()
        trial = self.memory.trial
        if trial is not None:
            if trial.attempts >= MAX_ATTEMPTS:
                self.roll_back(f"the agent was started {trial.attempts} times with it and never came so far as to prove it")
            else:
                try:
                    self._keep(trial=trial.model_copy(update={"attempts": trial.attempts + 1}))
                except OSError as error:  # what can't be counted could be tried for ever
                    self.roll_back(f"the agent's attempts with it can't be counted: {error}")
        running = self.memory.running
        if running is None:
            return base
        try:
            return merged(base, running.statement)
        except ConfigError as error:  # edge.toml or this version is another than when it was believed
            if self.memory.trial:
                self.roll_back(str(error))
                return self.start(base)
            self.give_up(str(error))
            return base

    def former(self, base: EdgeConfig) -> EdgeConfig:
        """What ran before the trial, and runs again after a failed one."""
        applied = self.memory.applied
        try:
            return merged(base, applied.statement) if applied else base
        except ConfigError as error:
            self.give_up(str(error))
            return base

    def give_up(self, reason: str) -> None:
        """What was applied can't be run any more: the node's own file does."""
        applied = self.memory.applied
        if applied is not None:
            log.error("revision %d can't be run any more: %s. Running edge.toml.", applied.revision, reason)
            self._settle(applied=None, failed=Failed(revision=applied.revision, sha256=applied.sha256, reason=_short(reason)))

    def take_back(self) -> Document | None:
        """Somebody at the box chose edge.toml, durably; what ran until now, or None. What was asked for stays seen: only a newer
        revision takes the place of edge.toml again. OSError when it can't be written."""
        document = self.memory.running
        if document is not None:
            failed = Failed(revision=document.revision, sha256=document.sha256, reason="taken back at the box: edge.toml runs")
            self._keep(applied=None, trial=None, failed=failed)
        return document

    def try_out(self, document: Document) -> None:
        """From now on it is tried; what another trial was is forgotten."""
        self._keep(trial=Trial(document=document, attempts=1), seen=max(self.memory.seen, document.revision))

    def confirm(self) -> None:
        """The trial is over: the link is back."""
        if self.memory.trial:
            self._settle(applied=self.memory.trial.document, trial=None)

    def roll_back(self, reason: str) -> None:
        """The trial is over: it failed."""
        if self.memory.trial:
            self.refuse(self.memory.trial.document, reason)

    def refuse(self, document: Document, reason: str) -> None:
        """This one can't be run. Another that is tried out goes on."""
        log.error("configuration revision %d failed: %s", document.revision, reason)
        failed = Failed(revision=document.revision, sha256=document.sha256, reason=_short(reason))
        before, trial = self.memory.failed, self.memory.trial
        self._settle(
            trial=None if trial and trial.document == document else trial,
            failed=before if before and before.revision > failed.revision else failed,
            seen=max(self.memory.seen, document.revision),
        )

    def _keep(self, **changes: object) -> None:
        memory = self.memory.model_copy(update=changes)
        write_whole(self._path, memory.model_dump_json(exclude_none=True).encode())
        self.memory = memory

    def _settle(self, **changes: object) -> None:
        try:
            self._keep(**changes)
        except OSError as error:
            log.error("%s can't be written: %s", self._path, error)
            self.memory = self.memory.model_copy(update=changes)


def _short(reason: str) -> str:
    """As much as travels; the rest stands in the log."""
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
