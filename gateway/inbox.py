"""What came in from providers: kept before it is answered, worked on after, once. It knows rows and no provider.

`id` is what tells a repetition, so a webhook that is delivered again, or replayed, changes nothing. Work on a row and the note
that it is done are one transaction. A done row keeps its id and loses its body: what somebody wrote is kept no longer.
"""

import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import OperationalError

from gateway.state import State
from gateway.state.tables import inbox
from gateway.state.upsert import upsert
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

TRIES = 5
FIRST_PAUSE_US = 2_000_000
AT_ONCE = 200
DAY_US = 86_400 * 1_000_000
LATE_US = DAY_US
"""What happened longer ago than this when it came is late."""
OLDEST_US = 30 * DAY_US
"""What happened longer ago is not taken at all: its id may have been forgotten, so nothing could tell a replay."""
KEPT_US = OLDEST_US + 10 * DAY_US
_CLEAN_EVERY_US = DAY_US // 24


class Arrival(NamedTuple):
    """One thing that a provider told us."""

    id: str
    """The provider's, without the channel: the same at each repetition."""
    body: Mapping[str, Any]
    """JSON."""
    at_us: int
    """When it happened, as the provider says."""


class Came(NamedTuple):
    """A row to work on."""

    id: str
    body: Mapping[str, Any]
    received_us: int
    late: bool


After = Callable[[], object]
"""What is done when the work is durable, and only tried once."""


Worker = Callable[[Connection, Came, int], After | None]
"""worker(connection, came, now_us) works on what came over one channel, in the transaction that notes it as done. What it raises
undoes all of it."""


class Inbox:
    """`keep` from any thread, `step` from one. Works by `step`, as the chore `inbox`."""

    def __init__(
        self, state: State, workers: Mapping[str, Worker], telemetry: Telemetry, ring: Callable[[], None] = lambda: None
    ) -> None:
        """`workers`: by channel. `ring`: something was kept, `step` has work."""
        self._state, self._workers, self._telemetry, self._ring = state, workers, telemetry, ring
        self._tried: dict[str, tuple[int, int]] = {}  # id -> times, not again before
        self._cleaned_us: int | None = None
        # What is only tried once may hang on the provider, and must not hold up the work.
        self._later = ThreadPoolExecutor(2, thread_name_prefix="inbox")

    def keep(self, channel: str, arrivals: Sequence[Arrival], now_us: int) -> int:
        """Makes them durable, all or none, and says how many are new."""
        rows: list[dict[str, Any]] = []
        for arrival in arrivals:
            if now_us - arrival.at_us > OLDEST_US:
                self._count(channel, "too_old")
                continue
            late = now_us - arrival.at_us > LATE_US
            if late:
                self._count(channel, "late")
            body = {**arrival.body, "late": True} if late else dict(arrival.body)
            # ASCII only: half of a surrogate pair, which JSON may hold, is no text that a database takes.
            rows.append({"id": f"{channel}:{arrival.id}", "channel": channel, "received_us": now_us, "body": json.dumps(body)})
        new = 0
        if rows:
            with self._state.write() as connection:
                for row in rows:
                    new += connection.execute(upsert(inbox), row).rowcount
        for outcome, number in (
            ("kept", new),
            ("known", len(rows) - new),
            ("late", sum('"late": true' in r["body"] for r in rows)),
        ):
            if number:
                self._count(channel, outcome, number)
        if new:
            self._ring()
        return new

    def step(self, now_us: int) -> int:
        """Works on everything that waits and is due; how many rows were done. Call it each second, and when `ring` rang."""
        done = 0
        self._clean(now_us)
        with self._state.read() as connection:
            query = select(inbox).where(inbox.c.done_us.is_(None), inbox.c.channel.in_(self._workers))
            rows = connection.execute(query.order_by(inbox.c.received_us, inbox.c.id).limit(AT_ONCE)).all()
        self._telemetry.inbox_oldest.set(max(now_us - rows[0].received_us, 0) / 1e6 if rows else 0)
        for row in rows:
            if self._tried.get(row.id, (0, 0))[1] <= now_us:
                done += self._work(row, now_us)
        return done

    def close(self) -> None:
        """Waits for what is still being said."""
        self._later.shutdown(wait=True, cancel_futures=True)

    def _work(self, row: Any, now_us: int) -> int:
        body = json.loads(row.body)
        came = Came(row.id, body, row.received_us, bool(body.get("late")))
        try:
            with self._state.write() as connection:
                # Compare-and-set first: another worker may have it already.
                mine = update(inbox).where(inbox.c.id == row.id, inbox.c.done_us.is_(None))
                if connection.execute(mine.values(done_us=now_us, body="{}", error=None)).rowcount != 1:
                    return 0
                after = self._workers[row.channel](connection, came, now_us)
        except OperationalError:
            raise  # the database is away: not this row's fault, and told by who runs us
        except Exception as error:  # noqa: BLE001 - told in `_failed`, without its text
            self._failed(row, error, now_us)
            return 0
        self._tried.pop(row.id, None)
        self._count(row.channel, "done")
        if after is not None:
            self._later.submit(_once, after, row.channel)
        return 1

    def _failed(self, row: Any, error: Exception, now_us: int) -> None:
        times = self._tried.get(row.id, (0, 0))[0] + 1
        # Without the error's own text: it may hold what somebody wrote, or their id.
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = ", ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames)
        if times < TRIES:
            self._tried[row.id] = (times, now_us + FIRST_PAUSE_US * 2 ** (times - 1))
            self._count(row.channel, "failed")
            if times == 1:
                log.error("inbox %s: %s; trying again. It came from %s", row.channel, type(error).__name__, where)
            return
        self._tried.pop(row.id, None)
        self._count(row.channel, "given_up")
        log.error(
            "inbox %s: %s %d times: given up, its row says so. It came from %s", row.channel, type(error).__name__, times, where
        )
        with self._state.write() as connection:
            connection.execute(
                update(inbox)
                .where(inbox.c.id == row.id, inbox.c.done_us.is_(None))
                .values(done_us=now_us, error=f"{type(error).__name__}, {times} times")
            )

    def _clean(self, now_us: int) -> None:
        if self._cleaned_us is not None and now_us - self._cleaned_us < _CLEAN_EVERY_US:
            return
        self._cleaned_us = now_us
        with self._state.write() as connection:
            # Also what was never worked on: its channel is configured no more, and what somebody wrote is not kept for ever.
            connection.execute(delete(inbox).where(inbox.c.received_us < now_us - KEPT_US))

    def _count(self, channel: str, outcome: str, number: int = 1) -> None:
        self._telemetry.inbox.labels(channel, outcome).inc(number)


def _once(after: After, channel: str) -> None:
    try:
        after()
    except Exception as error:  # noqa: BLE001 - told, without its text
        log.error("inbox %s: an answer could not be given: %s", channel, type(error).__name__)
