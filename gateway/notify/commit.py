"""Many threads' small transactions as one: who comes while another commits goes along with the next. What they write is theirs.

A commit waits for the disk, and for its turn at the one write lock: fifty deliveries a second, each with its own, were all there
could be beside a busy ingest.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from gateway.state import State

_T = TypeVar("_T")


class _Part:
    """What one thread wants to write, and what came of it."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        self.result, self.error, self.is_done = result, error, True


class GroupCommit:
    """Safe on many threads."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._waiting: list[_Part] = []
        self._leading = threading.Lock()  # who has it writes for everybody who waits

    def do(self, work: Callable[[Connection], _T]) -> _T:
        """Has `work` done in a transaction, maybe with others' in it; returns when it is durable.

        What `work` raises is raised here, and nothing of it is written; others' are, unless the database itself failed
        (OperationalError): then all hear of it. `work` may be called twice, the first time in vain: it only reads and writes.
        """
        part = _Part(work)
        with self._lock:
            self._waiting.append(part)
        with self._leading:
            if not part.is_done:
                self._write()
        if part.error is not None:
            raise part.error
        result: _T = part.result
        return result

    def _write(self) -> None:
        parts: Sequence[_Part] = ()
        try:
            with self._state.write() as connection:
                # Taken only now: more have come while we waited for the lock.
                parts = self._taken()
                results = [part.work(connection) for part in parts]
        except OperationalError as error:
            for part in parts or self._taken():
                part.end(error=error)
        except Exception as error:  # noqa: BLE001 - raised by `do`, in the thread whose it is
            if len(parts) == 1:
                parts[0].end(error=error)
                return
            for part in parts or self._taken():
                self._write_alone(part)
        except BaseException as error:
            for part in parts or self._taken():
                part.end(error=error)
            raise
        else:
            for part, result in zip(parts, results, strict=True):
                part.end(result)

    def _write_alone(self, part: _Part) -> None:
        """Somebody's mistake has taken the transaction of all with it."""
        try:
            with self._state.write() as connection:
                result = part.work(connection)
        except Exception as error:  # noqa: BLE001 - as above
            part.end(error=error)
        else:
            part.end(result)

    def _taken(self) -> list[_Part]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken
