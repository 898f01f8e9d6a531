"""One attempt: whether there is anything to attempt, its intent, and what the channel says. What comes of it `deliver` writes."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from gateway.notify import Channel, Finder, Outcome, Refused, Retry, Unknown
from gateway.notify.commit import GroupCommit
from gateway.notify.message import Message
from gateway.notify.queue import RANK, STAYS, read_message
from gateway.state import State
from gateway.state.tables import notifications
from gateway.words import over

log = logging.getLogger(__name__)

LATE_US = 5 * 60 * 1_000_000  # what is over, and fired longer ago than this, comes late
_REASON = 300

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_CHANGE_QUEUED = update(notifications).where(notifications.c.id == bindparam("key"), notifications.c.state == "queued")


class Attempt(NamedTuple):
    """What came of one, and what was known before it."""

    outcome: Outcome
    unsure: bool = False
    """Whether an attempt may have got there of which no word came: the intent stands."""
    alone: bool = False
    """Whether nothing that follows from it is to be done: that failed."""


class Attempts:
    """Safe on many threads."""

    def __init__(self, state: State, channels: Mapping[str, Channel], commit: GroupCommit, now_us: Callable[[], int]) -> None:
        """`channels`: as `Deliverer` has them. `commit`: for what has to be durable before an attempt."""
        self._state, self._channels, self._commit, self._now_us = state, channels, commit, now_us

    def make(self, row: Any) -> Attempt | None:
        """One attempt; None when there is nothing to attempt any more."""
        channel = self._channels.get(row.key)
        if channel is None:
            where = row.key if row.address is None else f"channel.{row.channel}"
            return Attempt(Refused(f"{where} is not configured any more"))
        if (fault := _fault(row)) is not None:
            return Attempt(Refused(fault))
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
                    return Attempt(found)
            except Exception as error:  # noqa: BLE001 - a channel's mistake is no reason to send it twice
                return Attempt(Retry(f"asked whether it has it, its provider gave no answer: {error!r}"[:_REASON]), unsure=True)
        if not channel.knows_repetition and not self._intend(row, twice=row.intent_us is not None):
            return None
        try:
            outcome = channel.send(row.id, to, message)
        except Exception as error:
            log.exception("%s: its channel failed", row.key)
            reason = f"its channel failed: {error!r}"[:_REASON]
            outcome = Retry(reason) if channel.knows_repetition else Unknown(reason)
        return Attempt(outcome, unsure=isinstance(outcome, Unknown))

    def _taken(self, row: Any, provider_id: str) -> bool:
        """Whether what its provider calls so is another notification: who is told the same twice has two of them."""
        known = select(notifications.c.id).where(notifications.c.channel == row.channel, notifications.c.id != row.id)
        with self._state.read() as connection:
            return connection.scalar(known.where(notifications.c.provider_id == provider_id).limit(1)) is not None

    def _intend(self, row: Any, *, twice: bool) -> bool:
        """Writes down that an attempt is about to be made. Whether it may be: not where the row was settled meanwhile."""
        values: dict[str, Any] = {"intent_us": self._now_us(), **({"possibly_twice": True} if twice else {})}
        return self._commit.do(lambda connection: change_queued(connection, row.id, values))

    def _drop(self, row: Any) -> None:
        """What is over, and was not urgent, need not be told."""
        values = {"state": "dropped", "error": "over before it was sent"}
        self._commit.do(lambda connection: change_queued(connection, row.id, values))


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


def change_queued(connection: Connection, id_: str, values: Mapping[str, Any]) -> bool:
    """Writes this of a row that is still queued. Whether it was."""
    done = connection.execute(_CHANGE_QUEUED.values(values), {"key": id_})
    return done.rowcount == 1


def _said_over(message: Message, row: Any, now_us: int) -> Message:
    """A message whose alert is resolved already: nobody should set out for it, and nothing is asked."""
    title, body = over(message.title, message.body, message.language)
    began_us = row.fired_us if row.fired_us is not None else row.opened_us
    late = message.late or (began_us is not None and now_us - began_us > LATE_US)
    changed = {"title": title, "body": body, "late": late, "over": True, "spoken": "", "buttons": (), "answer_url": None}
    return message.model_copy(update=changed)
