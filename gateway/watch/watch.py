"""What comes in and what follows from it, in ONE transaction; and time, which compares what stands with the rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Any

from sqlalchemy import bindparam, func, select

from gateway.alerting.lifecycle import OPEN, Move
from gateway.alerting.mute import Muting
from gateway.deployments import Deployments
from gateway.flow.mode import town_mode
from gateway.notify.queue import RANK
from gateway.rules import Fact
from gateway.silences import in_effect
from gateway.state import State
from gateway.state.tables import cursors, erasures, events
from gateway.state.upsert import upsert
from gateway.telemetry import Telemetry
from gateway.watch.judge import Judge
from gateway.watch.known import CHANGES, Known
from gateway.watch.moving import Moving, Paging
from gateway.watch.mutes import Mutes
from gateway.watch.watched import Key, Said, WatchedRule, taken

_FACTS_AT_ONCE = 5000
_SAVE_ALL_US = 10 * 60 * 1_000_000  # what rules remember of time alone may be so old after a crash
_COMPARE_US = 60 * 1_000_000  # rows are read again so often even where no history says that somebody changed one

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_NEW = select(events).where(events.c.id > bindparam("cursor")).order_by(events.c.id).limit(_FACTS_AT_ONCE)
_ERASED = select(func.count()).select_from(erasures)


class Watch:
    """Runs in one thread, the only one that moves alerts by verdicts, by time and by mutes."""

    def __init__(
        self,
        state: State,
        rules: Sequence[WatchedRule],
        deployments: Deployments,
        telemetry: Telemetry,
        say: Callable[[str, dict[str, Any]], None],
        paging: Paging,
        muting: Muting | None = None,
    ) -> None:
        """`say(kind, body)` tells the live stream what was committed. `muting` None: only what is built in."""
        self._state, self._telemetry, self._say = state, telemetry, say
        by_name = {one.name: taken(one) for one in rules}
        self._known = Known(by_name)
        self._judge = Judge(by_name, deployments, telemetry, self._known)
        self._mutes = Mutes(muting or Muting(), by_name, deployments, self._known)
        self._moving = Moving(deployments, telemetry, paging, self._known, self._mutes)
        self.metrics = frozenset[str]().union(*(rule.rule.metrics for rule in rules))
        """The metrics that some rule wants to see."""
        self._ahead = True  # what is known was not committed, and is read anew before it is used
        self._compared_us = self._saved_all_us = 0
        self._erased: int | None = None  # how many erasures are known here

    def _load(self, now_us: int) -> None:
        with self._state.read() as connection:
            self._known.load(connection)
            self._mutes.load(connection, now_us)
        self._compared_us = now_us

    # What comes in

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges the readings and every committed event not judged yet; commits what follows from them.

        After an error nothing of it has happened: the same readings may be handed over again.
        """
        with self._telemetry.judge_seconds.time():
            self._run(readings, now_us)

    def _run(self, readings: Iterable[Fact], now_us: int) -> None:
        if self._ahead:
            self._load(now_us)
        self._ahead = True
        verdicts = self._judge.readings(readings, now_us)
        self._judge_new(verdicts, now_us)
        self._ahead = False

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: events that the gateway made, absence, `for`, shelves, mutes; and compares what stands with the rows.

        Also saves what rules remember, where no alert made that urgent.
        """
        with self._telemetry.turning("rules", now_us):
            self._tick(now_us, listening_since_us)
        self._count_open()

    def _tick(self, now_us: int, listening_since_us: int | None) -> None:
        if self._ahead:
            self._load(now_us)
        self._ahead, known = True, self._known
        self._judge_new([], now_us)
        verdicts = self._judge.time(now_us, listening_since_us)
        with self._state.read() as connection:
            silences = in_effect(connection, now_us)
            self._mutes.mode = town_mode(connection)
            changes = connection.scalar(CHANGES) or 0
            compare = changes != known.changes or not 0 <= now_us - self._compared_us < _COMPARE_US
            if compare:
                before = known.open
                known.read_open(connection)
                self._mutes.reread(before, now_us)
                self._compared_us = now_us
        if compare:
            said = {key for _, key, _ in verdicts}
            verdicts += [one for one in known.against_rows() if one[1] not in said]
        for key, openings in list(known.openings.items()):
            if openings.is_quiet(now_us, self._mutes.muting.flapping):
                del known.openings[key]
                known.dirty.add(key)
        self._mutes.pass_to(now_us)
        if now_us - self._saved_all_us > _SAVE_ALL_US:
            known.dirty.update(key for key, memory in known.memory.items() if memory)
            self._saved_all_us = now_us
        force = self._mutes.force(silences, self._mutes.sources, now_us)
        self._commit(verdicts, now_us, None, save=True, unsettled=self._mutes.unsettled(force, now_us))
        self._ahead = False

    def _judge_new(self, verdicts: list[Said], now_us: int) -> None:
        """Judges every committed event behind the cursor, after the verdicts that wait already, and commits."""
        began_s = perf_counter()
        while True:
            with self._state.read() as connection:
                new = connection.execute(_NEW, {"cursor": self._known.cursor}).all()
                for row in new:
                    verdicts += self._judge.event(connection, row, now_us)
            self._commit(verdicts, now_us, new[-1].id if new else None)
            if new:
                waited_s = (now_us - min(row.received_us for row in new)) / 1e6
                self._telemetry.judge_lag.observe(max(waited_s, 0) + perf_counter() - began_s)
            verdicts = []
            if len(new) < _FACTS_AT_ONCE:
                break

    def _count_open(self) -> None:
        count: Counter[tuple[str, str]] = Counter((alert.state, alert.severity) for alert in self._known.open.values())
        for state in OPEN:
            for severity in RANK:
                self._telemetry.alerts_open.labels(state, severity).set(count[state, severity])

    # What is committed

    def _commit(
        self,
        verdicts: Sequence[Said],
        now_us: int,
        cursor: int | None,
        *,
        save: bool = False,
        unsettled: Sequence[Key] = (),
    ) -> None:
        known = self._known
        changed = known.changed_by(verdicts)
        refresh = [key for key in known.refresh if key in known.open] if save else []
        if save:
            known.urgent |= known.dirty
        if not changed and cursor is None and not known.urgent and not unsettled:
            return
        moves: list[Move] = []
        with self._state.write() as connection:
            if (erased := connection.scalar(_ERASED)) != self._erased:
                gone = known.forget_erased(connection)
                self._mutes.forget(gone)
                self._moving.forget(gone)
                changed = [said for said in changed if said[1] not in gone]
                unsettled = [key for key in unsettled if key not in gone]
                refresh = [key for key in refresh if key not in gone]
                self._erased = erased
            if changed or unsettled:
                moves = self._moving.move_all(connection, changed, unsettled, now_us)
            refreshed = [key for key in refresh if self._moving.refresh(connection, key)]
            if cursor is not None:
                connection.execute(upsert(cursors, "value"), {"name": "watch", "value": cursor})
            known.save(connection)
        known.saved()
        if save:
            known.refresh.clear()
        if cursor is not None:
            known.cursor = cursor
        for move in moves:
            known.moved(move.alert)
            self._mutes.note(self._mutes.sources, move.alert)
            self._say("alert", asdict(move.alert))
        for key in refreshed:
            self._say("alert", asdict(known.open[key]))
