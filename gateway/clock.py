"""The gateway's own clock set back, or far ahead: noticed, said once. Nobody waits until it is again as late as it was, and
nothing is forgotten for its age before a clock that leapt has stayed there for a day.

What has happened can't lie in the future, whatever the clock showed then: such times of open pages become now, and what was to go
at once goes now. What waits for a time of day, as quiet hours, goes on waiting for it. Repeating it changes nothing.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from gateway.alerting.escalation import Memory
from gateway.notify.queue import RANK
from gateway.state import State
from gateway.state.tables import cursors, notifications, pages
from gateway.state.upsert import upsert

log = logging.getLogger(__name__)

PART = "clock"
SLACK_US = 5 * 60 * 1_000_000
"""By so much a clock may be set back without a word: time servers do that."""
SAID_US = 24 * 3600 * 1_000_000
"""So long it is said that it was set back, also over a restart."""
WRITTEN_EVERY_US = 10 * 1_000_000
LEAP_US = 7 * 24 * 3600 * 1_000_000
"""A clock that is later by more than this than at the last look leapt, or nobody looked for so long."""
HOLD_US = 24 * 3600 * 1_000_000
"""So long nothing is forgotten for its age after a leap: whoever is told can still put the clock right."""
_NEWEST, _BACK, _BY = "clock newest_us", "clock set_back_us", "clock set_back_by_us"
_LEAPT, _AHEAD = "clock leapt_us", "clock leapt_by_us"
SET_BACK, LEAPT = "alert.clock_set_back", "alert.clock_leapt"
_WORDS = ((_BACK, _BY, SET_BACK), (_LEAPT, _AHEAD, LEAPT))
_OPEN = ("waiting", "asking", "answered", "exhausted")
_PAST = ("opened_us", "stepped_us", "answered_us")
_REMEMBERED = ("begun_us", "spoke_us", "result_us", "asked_us", "muted_us")

Condition = Callable[[str, str, str, Mapping[str, Any], str], object]
"""condition(part, level, reason, facts, opening), as gateway.own has it."""


class OwnClock:
    """`run` is a chore of each second, and is run once before anything else works. Used by one thread at a time."""

    def __init__(self, state: State, condition: Condition) -> None:
        self._state, self._condition = state, condition
        self._newest_us: int | None = None
        self._written_us = 0
        self._said: tuple[int, int, str] | None = None  # when, by how much, and the words for it

    def run(self, now_us: int) -> None:
        """One look."""
        if self._newest_us is None:
            with self._state.read() as connection:
                known = _known(connection)
            self._newest_us, self._written_us = known.get(_NEWEST, now_us), known.get(_NEWEST, 0)
            told = [(known[at], known.get(by, 0), word) for at, by, word in _WORDS if at in known]
            self._said = max(told, default=None)
        if now_us < self._newest_us - SLACK_US:
            self._set_back(now_us, self._newest_us - now_us)
        elif now_us > self._newest_us + LEAP_US:
            self._leap(now_us, now_us - self._newest_us)
        elif now_us - self._written_us >= WRITTEN_EVERY_US or now_us < self._newest_us:
            with self._state.write() as connection:
                _note(connection, {_NEWEST: now_us})
            self._newest_us = self._written_us = now_us
        else:
            self._newest_us = now_us
        self._say(now_us)

    def _set_back(self, now_us: int, by_us: int) -> None:
        with self._state.write() as connection:
            number = come_back(connection, now_us)
            _note(connection, {_NEWEST: now_us, _BACK: now_us, _BY: by_us})
        self._newest_us = self._written_us = now_us
        self._said = (now_us, by_us, SET_BACK)
        log.error(
            "this machine's clock was set back by %d min; %d messages and pages that would have waited go on now. "
            "Check its time server", by_us // 60_000_000, number,
        )  # fmt: skip

    def _leap(self, now_us: int, by_us: int) -> None:
        with self._state.write() as connection:
            _note(connection, {_NEWEST: now_us, _LEAPT: now_us, _AHEAD: by_us})
        self._newest_us = self._written_us = now_us
        self._said = (now_us, by_us, LEAPT)
        log.error(
            "this machine's clock is %d days later than when it was last looked at; for a day nothing is forgotten for its age. "
            "Unless it was off for so long, check its time server", by_us // 86_400_000_000,
        )  # fmt: skip

    def _say(self, now_us: int) -> None:
        if self._said is None:
            return
        at_us, by_us, moment = self._said
        facts = {"moment": moment, "by_us": by_us, "at_us": at_us}
        if 0 <= now_us - at_us < SAID_US:
            self._condition(PART, "firing", "the gateway's clock was set back, or leapt", facts, str(at_us))
        else:
            self._condition(PART, "ok", "the gateway's clock went on well for a day", facts, str(at_us))
            self._said = None


def may_forget(state: State, now_us: int) -> bool:
    """Whether what is too old by the clock is so: not within `HOLD_US` of a leap of it."""
    with state.read() as connection:
        leapt_us = _known(connection).get(_LEAPT)
    return leapt_us is None or not 0 <= now_us - leapt_us < HOLD_US


def behind_us(state: State, now_us: int) -> int:
    """By how much the clock is now behind the newest time that a gateway on this database knew; 0 where it is not by more than
    `SLACK_US`."""
    with state.read() as connection:
        by_us = _known(connection).get(_NEWEST, now_us) - now_us
    return by_us if by_us > SLACK_US else 0


def come_back(connection: Connection, now_us: int) -> int:
    """Has everything that would wait for a time that the clock shows only later go on now; how many messages and pages."""
    return _messages(connection, now_us) + _pages(connection, now_us)


def _messages(connection: Connection, now_us: int) -> int:
    soon_us, due_us = now_us + SLACK_US, notifications.c.due_us
    at_once = or_(
        notifications.c.severity_rank == RANK["critical"],
        notifications.c.attempts > 0,
        and_(notifications.c.created_us > soon_us, due_us - notifications.c.created_us <= SLACK_US),
    )
    # The right-hand sides are the row's values of before.
    done = connection.execute(
        update(notifications)
        .where(notifications.c.state == "queued", due_us > soon_us, at_once)
        .values(due_us=now_us, failover_us=notifications.c.failover_us - due_us + now_us)
    )
    return done.rowcount


def _pages(connection: Connection, now_us: int) -> int:
    found = connection.execute(select(pages).where(pages.c.state.in_(_OPEN))).all()
    number = 0
    for row in found:
        past = {name: now_us for name in _PAST if (getattr(row, name) or 0) > now_us}
        memory = Memory.model_validate_json(row.memory)
        for name in _REMEMBERED:
            if (getattr(memory, name) or 0) > now_us:
                setattr(memory, name, now_us)
        for told in memory.told.values():
            told.us = min(told.us, now_us)
        late = row.due_us is not None and row.due_us > now_us + SLACK_US
        text = memory.model_dump_json(exclude_defaults=True)
        if not past and not late and memory == Memory.model_validate_json(row.memory):
            continue
        # Whoever wrote it meanwhile did so by the clock of now.
        done = connection.execute(
            update(pages)
            .where(pages.c.id == row.id, pages.c.version == row.version)
            .values(**past, memory=text, changed=True, version=row.version + 1)
        )
        number += done.rowcount
    return number


def _known(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(cursors).where(cursors.c.name.in_((_NEWEST, _BACK, _BY, _LEAPT, _AHEAD))))
    return {row.name: row.value for row in rows}


def _note(connection: Connection, values: Mapping[str, int]) -> None:
    connection.execute(upsert(cursors, "value"), [{"name": name, "value": value} for name, value in values.items()])
