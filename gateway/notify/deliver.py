"""The delivery outbox at work: takes what is due, attempts it, writes what came of it. Nothing is forgotten but by a person.

A notification leaves `queued` as sent, as failed over to another address of the same person, dropped because it is over, or
dead; a dead letter stays to be seen. One attempt at a time per address, the most severe first, then the oldest. Each channel has
slots of its own: one that hangs delays no other.

What a crash leaves behind: over a channel that tells a repetition it is simply tried again under the same id. For the others the
intent is committed before the attempt; what has an intent and no outcome is looked for at the provider where that can be asked,
and otherwise sent again, marked as possibly twice.
"""

import json
import logging
import random
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, insert, literal, or_, select, text, update
from sqlalchemy.exc import OperationalError

from gateway.notify import Channel, Delivered, Finder, Gone, NoQuota, Outcome, Refused, Retry, Unknown
from gateway.notify.commit import GroupCommit
from gateway.notify.message import Message
from gateway.notify.queue import FAILOVER_S, RANK, STAYS
from gateway.state import State
from gateway.state.tables import addresses, alerts, digest_pages, notifications, pages, workers
from gateway.telemetry import Telemetry
from gateway.words import over

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 300.0
ATTEMPTS = 600  # with the pauses above about a day: longer than a night in which nobody repairs anything
LOOK_S = 1.0
SLOTS = 16
"""Attempts at once over one channel. A `contact` of the configuration has one, for it is one address."""
AT_ONCE = 200  # rows of one look
REPETITION_US = 24 * 3600 * 1_000_000
"""So long LINE remembers a retry key: what was tried before that, and is taken now, may be there already."""
LOST = {"mail": "bounced", "sms": "number", "voice": "number"}
"""Why an address leads nowhere, by its channel, as the office is told; of the others it is gone."""
LATE_US = 5 * 60 * 1_000_000  # what is over, and fired longer ago than this, comes late
_REASON = 300
_SEVERITY = {rank: severity for severity, rank in RANK.items()}

WEBHOOK = "webhook"

Lost = Callable[[Connection, str, str, int], object]
"""lost(connection, address id, why, now_us): this address leads nowhere any more. gateway.contacts.proof.lost is one."""


# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_own = literal("contact.").concat(notifications.c.contact)
_address = func.coalesce(notifications.c.address, _own)
_key = case((notifications.c.address.is_(None), _own), else_=notifications.c.channel)
_place = func.row_number().over(
    partition_by=_address,
    order_by=(notifications.c.severity_rank, notifications.c.created_us, notifications.c.id),
)


def _next(*conditions: ColumnElement[bool]) -> Select[Any]:
    """What each address should have next. Nothing is sorted but what sorting needs: bodies are read of what is found."""
    due = (
        select(notifications.c.id, _address.label("at"), _key.label("key"), _place.label("place"))
        .where(notifications.c.state == "queued", notifications.c.due_us <= bindparam("now_us"), *conditions)
        .where(_address.not_in(bindparam("busy", expanding=True)))
        .where(_key.not_in(bindparam("full", expanding=True)))
        .subquery()
    )
    return (
        select(
            notifications,
            due.c.at,
            due.c.key,
            alerts.c.state.label("alert_state"),
            alerts.c.fired_us,
            pages.c.state.label("page_state"),
            pages.c.opened_us,
            addresses.c.address.label("to"),
            addresses.c.state.label("address_state"),
            addresses.c.why,
        )
        .select_from(due)
        .join(notifications, notifications.c.id == due.c.id)
        .join(alerts, alerts.c.id == notifications.c.alert, isouter=True)
        .join(pages, pages.c.id == notifications.c.page, isouter=True)
        .join(addresses, addresses.c.id == notifications.c.address, isouter=True)
        .where(due.c.place == 1)
        .order_by(notifications.c.severity_rank, notifications.c.created_us, notifications.c.id)
        .limit(AT_ONCE)
    )


_NEXT = _next()
# Where several processes deliver: nothing to an address to which another is sending.
_others = notifications.alias()
_claimed = (
    select(func.coalesce(_others.c.address, literal("contact.").concat(_others.c.contact)))
    .join(workers, workers.c.id == _others.c.claimed_by)
    .where(_others.c.state == "queued", workers.c.id != bindparam("me"))
)
_NEXT_OF_SEVERAL = _next(_address.not_in(_claimed))
# One claims at a time, any number that no other program in this database uses: of two that claim different messages of one
# address neither would see the other's claim.
_CLAIMING = text("SELECT pg_advisory_xact_lock(5462532)")
_claimable = (
    select(notifications.c.id)
    .where(notifications.c.id.in_(bindparam("ids", expanding=True)), notifications.c.state == "queued")
    .where(notifications.c.due_us <= bindparam("now_us"), _address.not_in(_claimed))
    .where(
        or_(
            notifications.c.claimed_by.is_(None),
            notifications.c.claimed_by == bindparam("me"),
            notifications.c.claimed_by.not_in(select(workers.c.id)),  # it died over it
        )
    )
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(notifications)
    .where(notifications.c.id.in_(_claimable))
    .values(claimed_by=bindparam("me"))
    .returning(notifications.c.id, notifications.c.attempts)
)
_OVERDUE = (
    select(notifications.c.id)
    .where(notifications.c.state == "queued", notifications.c.failover_us <= bindparam("now_us"))
    .order_by(notifications.c.severity_rank, notifications.c.failover_us)
    .limit(AT_ONCE)
)
_UNDELIVERED = (
    select(notifications.c.state, func.count().label("number"), func.min(notifications.c.due_us).label("due_us"))
    .where(notifications.c.state.in_(("queued", "dead")))
    .group_by(notifications.c.state)
)
_CHANGE_QUEUED = update(notifications).where(notifications.c.id == bindparam("key"), notifications.c.state == "queued")


class _Attempt(NamedTuple):
    """What came of one, and what was known before it."""

    outcome: Outcome
    unsure: bool = False
    """Whether an attempt may have got there of which no word came: the intent stands."""
    alone: bool = False
    """Whether nothing that follows from it is to be done: that failed."""


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
        self._state, self._channels, self._telemetry, self._rng, self._now_us = state, channels, telemetry, rng, now_us
        self._lost, self._worker = lost, worker
        self._commit = GroupCommit(state)  # of what attempts have to write, each of which waits until it is durable
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
            pool = self._pools[key] = ThreadPoolExecutor(_slots(key), thread_name_prefix=f"deliver-{key}")
        return pool

    # --- what is next -------------------------------------------------------------------------------

    def _due(self) -> list[Any]:
        """What each address that is not busy should have next, as far as its channel has a slot; marks them busy."""
        # Asked before the database is: an attempt that ends in between has written its outcome first, and what is
        # read here would be sent a second time.
        with self._lock:
            busy = dict(self._busy)
        used = Counter(busy.values())
        found: list[Any] = []
        with self._state.read() as connection:
            while True:
                full = [key for key, number in used.items() if number >= _slots(key)]
                asked = {"now_us": self._now_us(), "busy": list(busy), "full": full}
                if self._worker is None:
                    rows = connection.execute(_NEXT, asked).all()
                else:
                    rows = connection.execute(_NEXT_OF_SEVERAL, {**asked, "me": self._worker}).all()
                for row in rows:
                    if used[row.key] < _slots(row.key):
                        used[row.key] += 1
                        busy[row.at] = row.key
                        found.append(row)
                # A channel that has no slot left may have filled the look; others may wait behind it.
                if len(rows) < AT_ONCE:
                    break
        if self._worker is not None and found:
            found = self._claimed(found, self._worker)
        self.looked_us = self._now_us()
        self._telemetry.turned.labels("deliver").set(self.looked_us / 1e6)
        with self._lock:
            self._busy.update({row.at: row.key for row in found})
        return found

    def _claimed(self, rows: list[Any], worker: int) -> list[Any]:
        """Those of them that are ours to attempt: an address to which another process sends by now is its, and what it has
        attempted since we looked is looked at again.
        """
        asked = {"ids": [row.id for row in rows], "me": worker, "now_us": self._now_us()}
        with self._state.write(own=True) as connection:
            connection.execute(_CLAIMING)
            ours = {row.id: row.attempts for row in connection.execute(_CLAIM, asked)}
        return [row for row in rows if ours.get(row.id) == row.attempts]

    def count(self) -> None:
        """What waits, and what is dead. Not at each look: a long queue takes long to count."""
        with self._state.read() as connection:
            found = {row.state: row for row in connection.execute(_UNDELIVERED)}
        dead, queued = found.get("dead"), found.get("queued")
        self.dead = dead.number if dead else 0
        self._telemetry.waiting.set(queued.number if queued else 0)
        self._telemetry.overdue.set(max(self._now_us() - queued.due_us, 0) / 1e6 if queued else 0)
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
                attempt = self._send(row)
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
                    attempt = _Attempt(attempt.outcome, attempt.unsure, alone=True)
        finally:
            with self._lock:
                self._busy.pop(row.at, None)

    def _send(self, row: Any) -> _Attempt | None:
        """One attempt; None when there is nothing to attempt any more."""
        channel = self._channels.get(row.key)
        if channel is None:
            where = row.key if row.address is None else f"channel.{row.channel}"
            return _Attempt(Refused(f"{where} is not configured any more"))
        if (fault := _fault(row)) is not None:
            return _Attempt(Refused(fault))
        message = read_message(row.id, row.body)
        if row.kind in ("alert", "again") and (row.alert_state == "resolved" or row.page_state == "closed"):
            if row.severity_rank != RANK["critical"]:
                self._drop(row)
                return None
            message = _said_over(message, row, self._now_us())
        to = row.to or ""
        if row.intent_us is not None and isinstance(channel, Finder):
            try:
                if found := channel.find(row.id, to, message, row.intent_us, lambda sid: self._taken(row, sid)):
                    return _Attempt(found)
            except Exception as error:  # noqa: BLE001 - a channel's mistake is no reason to send it twice
                return _Attempt(Retry(f"asked whether it has it, its provider gave no answer: {error!r}"[:_REASON]), unsure=True)
        if not channel.knows_repetition and not self._intend(row, twice=row.intent_us is not None):
            return None
        try:
            outcome = channel.send(row.id, to, message)
        except Exception as error:
            log.exception("%s: its channel failed", row.key)
            reason = f"its channel failed: {error!r}"[:_REASON]
            outcome = Retry(reason) if channel.knows_repetition else Unknown(reason)
        return _Attempt(outcome, unsure=isinstance(outcome, Unknown))

    def _taken(self, row: Any, provider_id: str) -> bool:
        """Whether what its provider calls so is another notification: who is told the same twice has two of them."""
        known = select(notifications.c.id).where(notifications.c.channel == row.channel, notifications.c.id != row.id)
        with self._state.read() as connection:
            return connection.scalar(known.where(notifications.c.provider_id == provider_id).limit(1)) is not None

    def _intend(self, row: Any, *, twice: bool) -> bool:
        """Writes down that an attempt is about to be made. Whether it may be: not where the row was settled meanwhile."""
        values: dict[str, Any] = {"intent_us": self._now_us(), **({"possibly_twice": True} if twice else {})}
        return self._commit.do(lambda connection: _change_queued(connection, row.id, values))

    def _drop(self, row: Any) -> None:
        """What is over, and was not urgent, need not be told."""
        values = {"state": "dropped", "error": "over before it was sent"}
        self._commit.do(lambda connection: _change_queued(connection, row.id, values))

    # --- what came of it ----------------------------------------------------------------------------

    def _write(self, row: Any, attempt: _Attempt) -> None:
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
            if not _change_queued(connection, row.id, values):
                self._write_late(connection, row, values)
            elif attempt.alone:
                _page_changed(connection, row)
            elif values.get("state") == "dead":
                if isinstance(outcome, Gone) and row.address is not None and self._lost is not None:
                    self._lost(connection, row.address, LOST.get(row.channel, "gone"), now_us)
                return self._give_up(connection, row.id, now_us)
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
            ids = list(connection.scalars(_OVERDUE, {"now_us": self._now_us()}))
        if not ids:
            return
        with self._state.write() as connection:
            for id_ in ids:
                try:
                    with connection.begin_nested():
                        self._fail_over(connection, id_)
                    self._broken.discard(id_)
                except OperationalError:
                    raise
                except Exception:
                    if id_ not in self._broken:
                        self._broken.add(id_)
                        log.exception("notification %s is overdue, and no other address could be tried; it stays", id_)

    def _fail_over(self, connection: Connection, id_: str) -> None:
        now_us = self._now_us()
        row = connection.execute(select(notifications).where(notifications.c.id == id_)).one()
        if row.state != "queued" or row.failover_us is None or row.failover_us > now_us:
            return
        chain = _chain(connection, row)
        # Nobody's telephone rings for what is not urgent, only because it takes long.
        but = () if row.severity_rank == RANK["critical"] else ("voice",)
        if row.address is not None and (other := _next_address(connection, row, chain, but)) is not None:
            # It keeps its `failover_us`: who has no other way left comes back to what only took too long.
            connection.execute(_settle(id_, "failed_over", row.error or "not sent in time"))
            _stand_in(connection, row, chain, other, now_us)
            return
        # There is no other way: it goes on here for as long as it takes, and whoever asks for answers goes on without it.
        connection.execute(update(notifications).where(notifications.c.id == id_).values(failover_us=None))
        _page_changed(connection, row)

    def _give_up(self, connection: Connection, id_: str, now_us: int) -> bool:
        """A row that is dead now: the contact's next address stands in for it. Whether there is none: it stays a dead letter."""
        row = connection.execute(select(notifications).where(notifications.c.id == id_)).one()
        if row.kind in STAYS:
            # Nobody waits for it: that the address takes nothing is known of the address.
            connection.execute(_settle(id_, "dropped", row.error))
            return False
        if row.address is not None:
            chain = _chain(connection, row)
            if any(one.sent_us is not None for one in (*chain, *_stood_in(connection, row))):
                connection.execute(_settle(id_, "dropped", f"{row.error}; it has arrived at another address"))
                return False
            if (other := _next_address(connection, row, chain)) is not None:
                connection.execute(_settle(id_, "failed_over", row.error))
                connection.execute(update(notifications).where(notifications.c.id == id_).values(failover_us=None))
                _stand_in(connection, row, chain, other, now_us)
                return False
            waiting = [one for one in chain if one.state == "failed_over" and one.failover_us and one.sent_us is None]
            if waiting:
                # An earlier address was only slow. Its row comes back, under the id that its provider may know already.
                connection.execute(_settle(id_, "failed_over", row.error))
                connection.execute(
                    update(notifications)
                    .where(notifications.c.id == waiting[0].id)
                    .values(state="queued", due_us=now_us, failover_us=None)
                )
                return False
        _page_changed(connection, row)
        return True


def read_message(id_: str, body: str) -> Message:
    """A row's message. ValueError when there is none in it. Rows of before there were several channels hold one flat object."""
    match json.loads(body):
        case {"title": str(title), "body": str(text)} as said:
            with suppress(ValidationError):
                return Message.model_validate(said)
            return Message(
                id=id_,
                severity=said["severity"] if said.get("severity") in RANK else "warning",
                title=title,
                body=text,
                alert=said.get("alert"),
                late=bool(said.get("late", False)),
                data={name: value for name, value in said.items() if name not in Message.model_fields or name == "kind"},
            )
        case _:
            raise ValueError("it says no title and body")


def _fault(row: Any) -> str | None:
    """Why there is nothing that could be attempted."""
    if row.address is not None and row.to is None:
        return "its address was removed"
    if row.address_state == "unreachable" and row.kind not in STAYS:
        return f"its address can't be reached: {row.why or 'it is not known why'}"
    try:
        read_message(row.id, row.body)
    except ValueError as error:
        return f"its body can't be read: {error}"[:_REASON]
    return None


def _slots(key: str) -> int:
    return 1 if key.startswith("contact.") else SLOTS


def _change_queued(connection: Connection, id_: str, values: Mapping[str, Any]) -> bool:
    """Writes this of a row that is still queued. Whether it was."""
    done = connection.execute(_CHANGE_QUEUED.values(values), {"key": id_})
    return done.rowcount == 1


def _chain(connection: Connection, row: Any) -> list[Any]:
    """The rows that this one stands in for, the nearest first."""
    found: list[Any] = []
    before = row.failed_over_from
    while before is not None and len(found) < 100:
        one = connection.execute(select(notifications).where(notifications.c.id == before)).one_or_none()
        if one is None:
            break
        found.append(one)
        before = one.failed_over_from
    return found


def _stood_in(connection: Connection, row: Any) -> list[Any]:
    """The rows that stood in for this one before it came back."""
    found: list[Any] = []
    asked = [row.id]
    while asked and len(found) < 100:
        asked_for = notifications.c.failed_over_from.in_(asked)
        more = connection.execute(select(notifications).where(notifications.c.contact == row.contact, asked_for)).all()
        asked = [one.id for one in more]
        found += more
    return found


def _next_address(connection: Connection, row: Any, chain: list[Any], but: Sequence[str] = ()) -> Any | None:
    """The contact's first address that can be used and was not tried for this message; over no channel of `but`."""
    tried = [row.address, *(one.address for one in (*chain, *_stood_in(connection, row)))]
    query = (
        select(addresses)
        .where(addresses.c.contact == row.contact, addresses.c.state == "proved", addresses.c.id.not_in(tried))
        .where(addresses.c.channel.not_in(but))
        .order_by(addresses.c.rank, addresses.c.id)
        .limit(1)
    )
    if row.only_by is not None:
        query = query.where(addresses.c.channel == row.only_by)
    return connection.execute(query).one_or_none()


def _settle(id_: str, state: str, error: str | None) -> Any:
    return update(notifications).where(notifications.c.id == id_).values(state=state, error=error)


def _stand_in(connection: Connection, row: Any, chain: list[Any], address: Any, now_us: int) -> None:
    """Writes the row that goes to another address in this one's place. Its id comes of both: it is written once."""
    first = chain[-1].id if chain else row.id
    id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"satomori:notification:{first}:{address.id}"))
    try:
        body = read_message(row.id, row.body).model_copy(update={"id": id_}).model_dump_json()
    except ValueError:
        body = row.body
    connection.execute(
        insert(notifications),
        {
            "id": id_,
            **{name: getattr(row, name) for name in ("alert", "page", "kind", "contact", "severity_rank", "only_by")},
            "address": address.id,
            "channel": address.channel,
            "state": "queued",
            "body": body,
            "created_us": row.created_us,
            "due_us": now_us,
            "failover_us": now_us + int(FAILOVER_S[_SEVERITY[row.severity_rank]] * 1e6),
            "failed_over_from": row.id,
            "attempts": 0,
        },
    )
    of_digest = select(literal(id_), digest_pages.c.page).where(digest_pages.c.notification == row.id)
    connection.execute(insert(digest_pages).from_select(["notification", "page"], of_digest))


def _page_changed(connection: Connection, row: Any) -> None:
    """Whoever escalates looks at its pages at the next tick: this contact was not reached."""
    told = select(digest_pages.c.page).where(digest_pages.c.notification == row.id)
    mine = or_(pages.c.id == row.page, pages.c.id.in_(told))
    connection.execute(update(pages).where(mine, pages.c.state != "closed").values(changed=True))


def _said_over(message: Message, row: Any, now_us: int) -> Message:
    """A message whose alert is resolved already: nobody should set out for it, and nothing is asked."""
    title, body = over(message.title, message.body, message.language)
    began_us = row.fired_us if row.fired_us is not None else row.opened_us
    late = message.late or (began_us is not None and now_us - began_us > LATE_US)
    changed = {"title": title, "body": body, "late": late, "over": True, "spoken": "", "buttons": (), "answer_url": None}
    return message.model_copy(update=changed)
