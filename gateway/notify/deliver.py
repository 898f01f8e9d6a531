"""The delivery outbox at work: takes what is due, attempts it, writes what came of it. Nothing is forgotten but by a person.

A notification leaves `queued` as sent, as failed over to another address of the same person, dropped because it is over, or
dead; a dead letter stays to be seen. One attempt at a time per address, the most severe first, then the oldest. Each channel has
slots of its own: one that hangs delays no other.

What a crash leaves behind: over a channel that tells a repetition it is simply tried again under the same id. For the others the
intent is committed before the attempt; what has an intent and no outcome is looked for at the provider where that can be asked,
and otherwise sent again, marked as possibly twice.
"""

import logging
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from gateway.notify import Channel, Delivered, Gone, NoQuota, Outcome, Refused, Retry, Unknown
from gateway.notify.attempt import Attempt, Attempts, change_queued
from gateway.notify.commit import GroupCommit
from gateway.notify.due import Due, slots
from gateway.notify.failover import fail_over, give_up, overdue, page_changed
from gateway.state import State
from gateway.state.tables import notifications
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 300.0
ATTEMPTS = 600  # with the pauses above about a day: longer than a night in which nobody repairs anything
LOOK_S = 1.0
REPETITION_US = 24 * 3600 * 1_000_000
"""So long LINE remembers a retry key: what was tried before that, and is taken now, may be there already."""
LOST = {"mail": "bounced", "sms": "number", "voice": "number"}
"""Why an address leads nowhere, by its channel, as the office is told; of the others it is gone."""

Lost = Callable[[Connection, str, str, int], object]
"""lost(connection, address id, why, now_us): this address leads nowhere any more. gateway.contacts.proof.lost is one."""


class Deliverer:
    """Delivers by `run` in its own thread, or by `step` in the caller's."""

    def __init__(
        self,
        state: State,
        channels: Mapping[str, Channel],
        telemetry: Telemetry,
        rng: random.Random,
        now_us: Callable[[], int],
        lost: Lost | None = None,
        worker: int | None = None,
    ) -> None:
        """`channels`: line, push, mail, sms, voice as far as they are configured, and `contact.<name>` for each `contact`.

        `worker`: the number of this process among several that deliver (gateway.leases); None: it is the only one.
        """
        self._state, self._telemetry, self._rng, self._now_us, self._lost = state, telemetry, rng, now_us, lost
        self._commit = GroupCommit(state)  # of what attempts have to write, each of which waits until it is durable
        self._waiting = Due(state, now_us, worker)
        self._attempts = Attempts(state, channels, self._commit, now_us)
        self._stop = threading.Event()
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[str, str] = {}  # address -> channel
        self._failing: dict[str, set[str]] = defaultdict(set)  # channel -> addresses
        self._broken: set[str] = set()  # overdue rows that a mistake of ours keeps where they are
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self.dead = 0
        """Dead letters at the last look, at most a moment ago while `run` runs."""
        self.looked_us: int | None = None
        """When it last looked what is due; None before the first time."""

    def ring(self) -> None:
        """Something new is due: look now. Safe from any thread."""
        self._bell.set()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stop.set()
        self._bell.set()

    def run(self) -> None:
        """Until `stop`; attempts under way are waited for."""
        complained = False
        overdue_us = 0
        try:
            while not self._stop.is_set():
                self._bell.clear()
                try:
                    if self._now_us() >= overdue_us:
                        self._fail_over_what_is_overdue()
                        self.count()
                        overdue_us = self._now_us() + int(LOOK_S / 2 * 1e6)
                    for row in self._due():
                        self._pool(row.key).submit(self._attempt_in_pool, row)
                    if complained:
                        complained = False
                        log.warning("deliveries go on")
                except OperationalError as error:
                    if not complained:
                        complained = True
                        log.error("deliveries wait: the state database: %s", error.orig)
                self._bell.wait(LOOK_S)
        finally:
            for pool in self._pools.values():
                pool.shutdown()

    def step(self) -> int:
        """Attempts everything that is due now, one after the other; how many."""
        done = 0
        self._fail_over_what_is_overdue()
        while rows := self._due():
            for row in rows:
                self._attempt(row)
                done += 1
        self.count()
        return done

    def _pool(self, key: str) -> ThreadPoolExecutor:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = ThreadPoolExecutor(slots(key), thread_name_prefix=f"deliver-{key}")
        return pool

    # --- what is next -------------------------------------------------------------------------------

    def _due(self) -> list[Any]:
        """What each address that is not busy should have next, as far as its channel has a slot; marks them busy."""
        # Asked before the database is: an attempt that ends in between has written its outcome first, and what is
        # read here would be sent a second time.
        with self._lock:
            busy = dict(self._busy)
        found = self._waiting.look(busy)
        self.looked_us = self._now_us()
        self._telemetry.turned.labels("deliver").set(self.looked_us / 1e6)
        with self._lock:
            self._busy.update({row.at: row.key for row in found})
        return found

    def count(self) -> None:
        """What waits, and what is dead. Not at each look: a long queue takes long to count."""
        found = self._waiting.undelivered()
        self.dead = found.dead
        self._telemetry.waiting.set(found.waiting)
        self._telemetry.overdue.set(max(self._now_us() - found.due_us, 0) / 1e6 if found.due_us is not None else 0)
        self._telemetry.dead.set(self.dead)

    # --- one attempt --------------------------------------------------------------------------------

    def _attempt_in_pool(self, row: Any) -> None:
        try:
            self._attempt(row)
        except Exception:
            log.exception("delivery %s over %s: what came of it could not be written down", row.id, row.key)
        self.ring()

    def _attempt(self, row: Any) -> None:
        try:
            try:
                attempt = self._attempts.make(row)
            except OperationalError as error:
                # Before the attempt: it was not made. The next look finds the row as it was.
                log.warning("delivery %s over %s waits: the state database: %s", row.id, row.key, error.orig)
                self._stop.wait(LOOK_S)
                return
            if attempt is None:
                return
            complained = False
            while True:
                try:
                    self._write(row, attempt)
                    return
                except OperationalError as error:
                    # Kept until it can be written: to send again would wake somebody twice.
                    if not complained:
                        complained = True
                        log.error("delivery %s is %s; the state database can't be told: %s", row.id,
                                  type(attempt.outcome).__name__.lower(), error.orig)  # fmt: skip
                    if self._stop.wait(LOOK_S):
                        return
                except Exception:
                    # A mistake of ours in what follows from it: tried again, the same would be sent for ever.
                    log.exception("delivery %s over %s: what follows from its end could not be written down", row.id, row.key)
                    if attempt.alone:
                        self._stop.wait(LOOK_S)
                        return
                    attempt = Attempt(attempt.outcome, attempt.unsure, alone=True)
        finally:
            with self._lock:
                self._busy.pop(row.at, None)

    # --- what came of it ----------------------------------------------------------------------------

    def _write(self, row: Any, attempt: Attempt) -> None:
        now_us, outcome = self._now_us(), attempt.outcome
        attempts = row.attempts + 1
        values: dict[str, Any] = {"attempts": attempts, "claimed_by": None}
        if not attempt.unsure:
            values["intent_us"] = None
        match outcome:
            case Delivered(provider_id):
                values |= {"state": "sent", "sent_us": now_us, "error": None}
                if provider_id is not None:
                    values["provider_id"] = provider_id
                if row.attempts and now_us - row.created_us > REPETITION_US:
                    values["possibly_twice"] = True
            case Retry(reason) | Unknown(reason) if attempts < ATTEMPTS:
                after_s = outcome.after_s if isinstance(outcome, Retry) else None
                ceiling = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 16), LONGEST_RETRY_S)
                pause_s = max(self._rng.uniform(0, ceiling), after_s or 0)
                values |= {"due_us": now_us + int(pause_s * 1e6), "error": reason}
            case Retry(reason) | Unknown(reason) | Refused(reason) | Gone(reason) | NoQuota(reason):
                values |= {"state": "dead", "error": reason}

        def write(connection: Connection) -> bool:
            if not change_queued(connection, row.id, values):
                self._write_late(connection, row, values)
            elif attempt.alone:
                page_changed(connection, row)
            elif values.get("state") == "dead":
                if isinstance(outcome, Gone) and row.address is not None and self._lost is not None:
                    self._lost(connection, row.address, LOST.get(row.channel, "gone"), now_us)
                return give_up(connection, row.id, now_us)
            return False

        if self._commit.do(write):
            # Not inside, which may be done twice, and in vain.
            log.error("notification %s over %s is a dead letter; the ledger says why", row.id, row.channel)
        self._telemetry.deliveries.labels(row.channel, type(outcome).__name__.lower()).inc()
        if isinstance(outcome, Delivered):
            self._telemetry.delivery_seconds.labels(row.channel).observe(max(now_us - row.created_us, 0) / 1e6)
        self._note(row, outcome)

    @staticmethod
    def _write_late(connection: Connection, row: Any, values: dict[str, Any]) -> None:
        """Of a row that was settled while the attempt was under way: only that it did get there is news, and its place stays."""
        if values.get("state") == "sent":
            known = {name: values[name] for name in ("sent_us", "provider_id", "intent_us") if name in values}
            connection.execute(
                update(notifications).where(notifications.c.id == row.id, notifications.c.sent_us.is_(None)).values(known)
            )

    def _note(self, row: Any, outcome: Outcome) -> None:
        """Says once that an address, or a whole channel, can't be reached, and once that it can again. Names nobody."""
        with self._lock:
            failing = self._failing[row.key]
            was_down = bool(failing)
            if isinstance(outcome, Retry | Unknown):
                failing.add(row.at)
            else:
                failing.discard(row.at)
            is_down = bool(failing)
        if is_down and not was_down:
            # What a provider says of a person may name them: it stands in the ledger.
            why = f" ({outcome.reason})" if row.address is None and isinstance(outcome, Retry | Unknown) else ""
            log.error("%s can't be reached%s; trying again. First: notification %s", row.key, why, row.id)
        elif was_down and not is_down:
            log.warning("%s can be reached again", row.key)

    # --- another address ----------------------------------------------------------------------------

    def _fail_over_what_is_overdue(self) -> None:
        """Has the next address tried of what was not sent in time."""
        with self._state.read() as connection:
            ids = overdue(connection, self._now_us())
        if not ids:
            return
        with self._state.write() as connection:
            for id_ in ids:
                try:
                    with connection.begin_nested():
                        fail_over(connection, id_, self._now_us())
                    self._broken.discard(id_)
                except OperationalError:
                    raise
                except Exception:
                    if id_ not in self._broken:
                        self._broken.add(id_)
                        log.exception("notification %s is overdue, and no other address could be tried; it stays", id_)
