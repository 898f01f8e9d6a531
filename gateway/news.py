"""What one process has committed, told to the others at once: NOTIFY and LISTEN of PostgreSQL.

It is a hint, never a record, as gateway.feed is: it may be lost with a connection, and who was away is told so (`again`). What
must not be lost stands in the state database, where everybody also looks by himself now and then.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gateway.state import State

log = logging.getLogger(__name__)

CHANNEL: Final = "satomori"
FEED: Final = "satomori_feed"
"""What people watch, and nobody who works must read."""
MOST_BYTES = 7900
"""A NOTIFY carries fewer than 8,000 bytes."""
WAITING = 5000
LOOK_S = 0.5
RESYNC = "resync"
ALIVE = "alive"
ALIVE_S = 10.0
"""So often each process says so, and hears itself."""
SILENT_S = 30.0
"""A connection over which nothing came for so long is not one, whatever the network says of it."""

# As JSON: the driver takes five times as long for an array of texts.
_TELL = text("SELECT pg_notify(one ->> 0, one ->> 1) FROM json_array_elements(CAST(:said AS json)) AS one")

Hear = Callable[[str, Any], None]
"""(kind, body), on the thread that listens. Everybody hears all that is said, the one who said it too."""


class News:
    """`say` from any thread; `run_saying` and `run_hearing` each have one of their own, until `stop`."""

    def __init__(self, state: State, hear: Hear, again: Callable[[], None], channels: Sequence[str] = (CHANNEL, FEED)) -> None:
        """`again`: something may have been said that was not heard; called once at the beginning too. `channels`: to hear."""
        self._state, self._hear, self._again, self._channels = state, hear, again, channels
        self._stop, self._bell = threading.Event(), threading.Event()
        self._waiting: deque[tuple[str, str]] = deque(maxlen=WAITING)
        self._spilt = False

    def stop(self) -> None:
        """Asks both threads to end."""
        self._stop.set()
        self._bell.set()

    def say(self, kind: str, body: Any = None, channel: str = CHANNEL) -> None:
        """Never blocks, never fails. What is too long for one message is told as: look for yourself."""
        for said in pieces(kind, body):
            if len(self._waiting) == WAITING:
                self._spilt = True
            self._waiting.append((channel, said))
        self._bell.set()

    def run_saying(self) -> None:
        """Tells what waits, all of it at once."""
        complained, next_s = False, time.monotonic() + ALIVE_S
        while not self._stop.is_set():
            self._bell.wait(max(next_s - time.monotonic(), 0))
            self._bell.clear()
            said = []
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + ALIVE_S
                said.append((CHANNEL, json.dumps([ALIVE, None])))
            while self._waiting:
                said.append(self._waiting.popleft())
            if self._spilt:
                self._spilt = False
                said.append((CHANNEL, json.dumps([RESYNC, None])))
            if not said:
                continue
            try:
                # Not in `write`: who tells waits for nobody, and writes nothing.
                with self._state.telling() as connection:
                    connection.execute(_TELL, {"said": json.dumps(said, ensure_ascii=False)})
                complained = False
            except OperationalError as error:
                if not complained:
                    complained = True
                    log.error("other processes can't be told what happens: the state database: %s", error.orig)
                self._spilt = True
                self._stop.wait(LOOK_S)
                self._bell.set()

    def run_hearing(self) -> None:
        """Listens; after each break says `again`."""
        import psycopg  # an extra: whoever has one process needs no database server

        complained = False
        while not self._stop.is_set():
            try:
                with self._state.listening(self._channels) as connection:
                    if complained:
                        complained = False
                        log.warning("what other processes say is heard again")
                    self._again()
                    heard_s = time.monotonic()
                    while not self._stop.is_set():
                        for said in connection.notifies(timeout=LOOK_S):
                            heard_s = time.monotonic()
                            self._heard(said.payload)
                            if self._stop.is_set():
                                return
                        if time.monotonic() - heard_s > SILENT_S:
                            raise psycopg.OperationalError(f"nothing was heard for {SILENT_S:g} s")
            except (psycopg.OperationalError, OperationalError) as error:  # the second of who looks for himself
                if not complained:
                    complained = True
                    log.error("what other processes say can't be heard: the state database: %s", error)
                self._stop.wait(LOOK_S)

    def _heard(self, payload: str) -> None:
        kind, body = json.loads(payload)
        if kind == RESYNC:
            self._again()
        elif kind != ALIVE:
            self._hear(kind, body)


def pieces(kind: str, body: Any) -> Iterator[str]:
    """As texts that a NOTIFY can carry."""
    said = json.dumps([kind, body], ensure_ascii=False, separators=(",", ":"))
    if (size := len(said.encode())) <= MOST_BYTES:
        yield said
    elif isinstance(body, Mapping) and isinstance(rows := body.get("rows"), Sequence) and len(rows) > 1:
        # Rows are much alike: so many are likely to go into one, and each is made into text no more than twice.
        some = max(len(rows) * MOST_BYTES // size * 9 // 10, 1)
        for at in range(0, len(rows), some):
            yield from pieces(kind, {**body, "rows": rows[at : at + some]})
    else:
        yield json.dumps([RESYNC, None])
