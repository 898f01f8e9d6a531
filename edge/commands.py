"""Commands from afar: which of them are done, and each at most once, over power cuts too.

Decisions and their file only: doing is `edge.care`'s. An id is on disk before its command is begun; a command that is found begun
and without result was cut short, and nobody knows how far it came: that is its result.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edge.clock import Instant
from edge.contract.messages import MAX_REASON
from edge.contract.names import Name
from edge.contract.remote import Command, Result
from edge.durable import read_whole, write_whole

log = logging.getLogger(__name__)

KEEP_US = 86_400_000_000
"""So long after its expiry an id is remembered. What expired before one that is forgotten is never begun: a clock that is set
back makes no command good again."""

MAX_KNOWN = 200
CUT_SHORT = Result(state="failed", reason="the node restarted while doing it")


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    expires: int
    result: Result | None = None


class _Book(BaseModel):
    model_config = ConfigDict(extra="forbid")

    known: dict[Name, _Known] = {}
    forgotten: int = 0
    """The latest expiry of those that are not known any more."""


class Commands:
    """The book of commands, in a file. OSError when it can't be written: then nothing was begun."""

    def __init__(self, path: Path) -> None:
        """What was begun in an earlier life of the agent has failed. A damaged file is set aside."""
        self._path = path
        self._book = read_whole(path, _Book, "no command is known") or _Book()
        cut_short = [id_ for id_, known in self._book.known.items() if known.result is None]
        for id_ in cut_short:
            try:
                self.done(id_, CUT_SHORT)
            except OSError as error:  # a full card is no reason not to start: `begin` says the same of it
                log.error("what became of command %s can't be kept: %s", id_, error)

    def begin(self, command: Command, now: Instant, clock: str) -> Result | None:
        """None: do it, its id is durable. Otherwise the answer, and it must not be done.

        `clock` is this node's: sync, holdover or unsync.
        """
        known = self._book.known.get(command.id)
        if known is not None:
            return known.result or CUT_SHORT
        if clock == "unsync":
            return Result(
                state="refused", reason="this node's clock is not set: whether the command is still good, it can't tell"
            )
        if now.utc_us >= command.expires:
            return Result(state="refused", reason=f"it expired {(now.utc_us - command.expires) // 1_000_000} s ago")
        if command.expires <= self._book.forgotten:  # the clock was ahead for a while, and is right again
            return Result(state="refused", reason="it is older than what this node remembers: perhaps it was done already")
        kept = {id_: one for id_, one in self._book.known.items() if one.expires + KEEP_US > now.utc_us}
        if len(kept) >= MAX_KNOWN:
            return Result(state="refused", reason=f"{MAX_KNOWN} commands are remembered already; try again tomorrow")
        left = max((one.expires for id_, one in self._book.known.items() if id_ not in kept), default=0)
        self._keep(kept | {command.id: _Known(expires=command.expires)}, max(self._book.forgotten, left))
        return None

    def done(self, id_: str, result: Result) -> None:
        """Its result, for whoever asks again."""
        known = self._book.known[id_]
        self._keep(self._book.known | {id_: known.model_copy(update={"result": result})}, self._book.forgotten)

    def _keep(self, known: dict[str, _Known], forgotten: int) -> None:
        book = _Book(known=known, forgotten=forgotten)
        write_whole(self._path, book.model_dump_json(exclude_none=True).encode())
        self._book = book


def failed(reason: str) -> Result:
    """A command that was begun and came to nothing."""
    return Result(state="failed", reason=(reason or "without a word")[:MAX_REASON])
