"""The delivery outbox at work: takes what is due, attempts it, writes what came of it. Nothing is forgotten but by a person.

A notification leaves `queued` only as delivered, or dead after the last attempt, and a dead letter stays to be seen. A crash
between the attempt and its row repeats the attempt under the same id. One attempt at a time per contact, the most severe first,
then the oldest; several contacts at once: a slow one delays nobody else. What is over when it is sent says so.
"""

import json
import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.exc import OperationalError

from gateway.notify import Channel, Delivered, Outcome, Refused, Retry
from gateway.state import State
from gateway.state.tables import alerts, notifications
from gateway.telemetry import Telemetry
from gateway.words import over

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 300.0
ATTEMPTS = 600  # with the pauses above about a day: longer than a night in which nobody repairs anything
LOOK_S = 1.0
WORKERS = 16
LATE_US = 5 * 60 * 1_000_000  # what is over, and fired longer ago than this, comes late


# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_place = func.row_number().over(
    partition_by=notifications.c.contact,
    order_by=(notifications.c.severity_rank, notifications.c.created_us, notifications.c.id),
)
_due = (
    select(notifications, _place.label("place"))
    .where(notifications.c.state == "queued", notifications.c.due_us <= bindparam("now_us"))
    .where(notifications.c.contact.not_in(bindparam("busy", expanding=True)))
    .subquery()
)
_NEXT = (
    select(_due, alerts.c.state.label("alert_state"), alerts.c.fired_us)
    .join(alerts, alerts.c.id == _due.c.alert)
    .where(_due.c.place == 1)
    .order_by(_due.c.severity_rank, _due.c.created_us)
)
_UNDELIVERED = (
    select(notifications.c.state, func.count().label("number"))
    .where(notifications.c.state.in_(("queued", "dead")))
    .group_by(notifications.c.state)
)


class Deliverer:
    """Delivers by `run` in its own thread, or by `step` in the caller's."""

    def __init__(
        self,
        state: State,
        channels: Mapping[str, Channel],
        telemetry: Telemetry,
        rng: random.Random,
        now_us: Callable[[], int],
    ) -> None:
        self._state, self._channels, self._telemetry, self._rng, self._now_us = state, channels, telemetry, rng, now_us
        self._stop = threading.Event()
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._failing: set[str] = set()
        self.dead = 0
        """Dead letters at the last look, at most a moment ago while `run` runs."""

    def ring(self) -> None:
        """Something new is due: look now. Safe from any thread."""
        self._bell.set()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stop.set()
        self._bell.set()

    def run(self) -> None:
        """Until `stop`; attempts under way are waited for."""
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="deliver") as pool:
            complained = False
            while not self._stop.is_set():
                self._bell.clear()
                try:
                    for row in self._due():
                        pool.submit(self._attempt_in_pool, row)
                    if complained:
                        complained = False
                        log.warning("deliveries go on")
                except OperationalError as error:
                    if not complained:
                        complained = True
                        log.error("deliveries wait: the state database: %s", error.orig)
                self._bell.wait(LOOK_S)

    def step(self) -> int:
        """Attempts everything that is due now, one after the other; how many."""
        done = 0
        while rows := self._due():
            for row in rows:
                self._attempt(row)
                done += 1
        return done

    def _due(self) -> list[Any]:
        """What each contact that is not busy should have next, of what is due; marks them busy."""
        # Asked before the database is: an attempt that ends in between has written its outcome first, and what is
        # read here would be sent a second time.
        with self._lock:
            busy = set(self._busy)
        with self._state.read() as connection:
            rows = list(connection.execute(_NEXT, {"now_us": self._now_us(), "busy": list(busy)}))
            count = {row.state: row.number for row in connection.execute(_UNDELIVERED)}
        self.dead = count.get("dead", 0)
        self._telemetry.waiting.set(count.get("queued", 0))
        self._telemetry.dead.set(self.dead)
        with self._lock:
            self._busy.update(row.contact for row in rows)
        return rows

    def _attempt_in_pool(self, row: Any) -> None:
        try:
            self._attempt(row)
        except Exception:
            log.exception("delivery %s to %s: what came of it could not be written down", row.id, row.contact)
        self.ring()

    def _attempt(self, row: Any) -> None:
        try:
            outcome = self._send(row)
            complained = False
            while True:
                try:
                    self._write(row, outcome)
                    return
                except OperationalError as error:
                    # Kept until it can be written: to send again would wake somebody twice.
                    if not complained:
                        complained = True
                        log.error("delivery %s is %s; the state database can't be told: %s", row.id, outcome, error.orig)
                    if self._stop.wait(LOOK_S):
                        return
        finally:
            with self._lock:
                self._busy.discard(row.contact)

    def _send(self, row: Any) -> Outcome:
        channel = self._channels.get(row.contact)
        if channel is None:
            return Refused(f"contact.{row.contact} is not configured any more")
        try:
            return channel.send(row.id, _said_over(row, self._now_us()) if row.alert_state == "resolved" else row.body)
        except Exception as error:
            log.exception("contact.%s: its channel failed", row.contact)
            return Retry(f"its channel failed: {error!r}"[:300])

    def _write(self, row: Any, outcome: Outcome) -> None:
        now_us = self._now_us()
        attempts = row.attempts + 1
        values: dict[str, Any] = {"attempts": attempts}
        match outcome:
            case Delivered():
                values |= {"state": "sent", "sent_us": now_us, "error": None}
                if row.contact in self._failing:
                    self._failing.discard(row.contact)
                    log.warning("contact %s can be reached again", row.contact)
            case Retry(reason, after_s) if attempts < ATTEMPTS:
                ceiling = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 16), LONGEST_RETRY_S)
                pause_s = max(self._rng.uniform(0, ceiling), after_s or 0)
                values |= {"due_us": now_us + int(pause_s * 1e6), "error": reason}
                if row.contact not in self._failing:
                    self._failing.add(row.contact)
                    log.error("contact %s can't be reached (%s); trying again", row.contact, reason)
            case Retry(reason) | Refused(reason):
                values |= {"state": "dead", "error": reason}
                log.error("notification %s to %s is a dead letter: %s", row.id, row.contact, reason)
        with self._state.write() as connection:
            connection.execute(update(notifications).where(notifications.c.id == row.id).values(values))
        self._telemetry.deliveries.labels(row.contact, type(outcome).__name__.lower()).inc()


def _said_over(row: Any, now_us: int) -> str:
    """The body of a notification whose alert is resolved already: nobody should set out for it."""
    body = json.loads(row.body)
    body["title"], body["body"] = over(body["title"], body["body"])
    body["late"] = body["late"] or (row.fired_us is not None and now_us - row.fired_us > LATE_US)
    body["over"] = True
    return json.dumps(body, ensure_ascii=False)
