"""Commands from afar: which of them are done, and each at most once, over power cuts too.

Decisions and their file only: doing is `edge.care`'s. An id is on disk before its command is begun; a command that is found begun
and without result was cut short, and nobody knows how far it came: that is its result.
"""

import logging
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.clock import Instant
from edge.contract.messages import MAX_REASON
from edge.contract.names import Name
from edge.contract.remote import Command, Result
from edge.durable import write_whole

log = logging.getLogger(__name__)

KEEP_US = 86_400_000_000
"""So long after its expiry an id is remembered: a clock that is set back a little makes no command good again."""

MAX_KNOWN = 200
CUT_SHORT = Result(state="failed", reason="the node restarted while doing it")


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    expires: int
    result: Result | None = None


class _Book(BaseModel):
    model_config = ConfigDict(extra="forbid")

    known: dict[Name, _Known] = {}


class Commands:
    """The book of commands, in a file. OSError when it can't be written: then nothing was begun."""

    def __init__(self, path: Path) -> None:
        """What was begun in an earlier life of the agent has failed. A damaged file is set aside."""
        self._path = path
        self._book = _Book()
        try:
            self._book = _Book.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            pass
        except ValidationError as error:
            aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
            path.rename(aside)
            log.error("%s is damaged (%s); kept as %s", path, error.errors()[0]["msg"], aside.name)
        cut_short = [id_ for id_, known in self._book.known.items() if known.result is None]
        for id_ in cut_short:
            self.done(id_, CUT_SHORT)

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
        kept = {id_: one for id_, one in self._book.known.items() if one.expires + KEEP_US > now.utc_us}
        if len(kept) >= MAX_KNOWN:
            return Result(state="refused", reason=f"{MAX_KNOWN} commands are remembered already; try again tomorrow")
        self._keep(kept | {command.id: _Known(expires=command.expires)})
        return None

    def done(self, id_: str, result: Result) -> None:
        """Its result, for whoever asks again."""
        known = self._book.known[id_]
        self._keep(self._book.known | {id_: known.model_copy(update={"result": result})})

    def _keep(self, known: dict[str, _Known]) -> None:
        book = _Book(known=known)
        write_whole(self._path, book.model_dump_json(exclude_none=True).encode())
        self._book = book


def failed(reason: str) -> Result:
    """A command that was begun and came to nothing."""
    return Result(state="failed", reason=(reason or "without a word")[:MAX_REASON])
