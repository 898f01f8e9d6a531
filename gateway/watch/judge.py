"""What the rules say: of each fact, and as time passes. Nothing is written here; a rule's mistake stops no other."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from gateway.deployments import Deployments
from gateway.rules import Fact, Verdict
from gateway.state.tables import events
from gateway.telemetry import Telemetry
from gateway.watch.known import Known
from gateway.watch.watched import Key, Said, Taken, kind_of

log = logging.getLogger(__name__)

_BROKEN = "rule.%s failed on a fact and judges nothing where it fails"


class Judge:
    """Used by the watch's thread only. What rules remember stands in `known`, and what of it they changed."""

    def __init__(self, rules: Mapping[str, Taken], deployments: Deployments, telemetry: Telemetry, known: Known) -> None:
        self._rules, self._deployments, self._telemetry, self._known = rules, deployments, telemetry, known
        self._on: dict[str, list[Taken]] = defaultdict(list)
        for rule in rules.values():
            for name in rule.rule.events | rule.rule.metrics:
                self._on[name].append(rule)
        self._broken: set[str] = set()

    def readings(self, facts: Iterable[Fact], now_us: int) -> list[Said]:
        """What is said of readings, in their order; without what is no news."""
        verdicts: list[Said] = []
        on, judge = self._on.get, self._judge
        dirty, standing, open_ = self._known.dirty, self._known.standing, self._known.open
        for fact in facts:
            node, device, name = fact[:3]
            for watched in on(name, ()):
                if watched.by_subject:
                    verdicts += self._judge_subjects(watched, fact, now_us, dirty)
                    continue
                key = (watched.name, node, device)
                verdict = judge(watched, key, fact, now_us, dirty)
                # That one more reading is well is the common case and no news, as long as nothing here waits to be committed.
                if verdict is not None and (verdicts or verdict[0] != "ok" or key in standing or key in open_):
                    verdicts.append((watched, key, verdict))
        return verdicts

    def time(self, now_us: int, listening_since_us: int | None) -> list[Said]:
        """What is said as time passes, of every subject that is known. `listening_since_us`: since when the broker is there."""
        for watched in self._rules.values():
            if watched.subjects is not None:
                for node, device in watched.subjects():
                    if watched.kind is None or kind_of(self._deployments, node, device) == watched.kind:
                        self._known.memory.setdefault((watched.name, node, device), {})
        verdicts: list[Said] = []
        for key, memory in self._known.memory.items():
            watched = self._rules[key[0]]
            if not memory and not watched.by_subject:
                continue
            known = bool(memory)
            try:
                if watched.by_subject:
                    verdict = watched.rule.on_tick(memory, now_us, listening_since_us, key[1:])
                else:
                    verdict = watched.rule.on_tick(memory, now_us, listening_since_us)
            except Exception:
                if self._is_news(watched):
                    log.exception(_BROKEN, watched.name)
                continue
            if known and not memory:
                self._known.dirty.add(key)  # it has forgotten a subject, and so must its row
            if verdict:
                verdicts.append((watched, key, verdict))
        return verdicts

    def event(self, connection: Connection, row: Any, now_us: int) -> list[Said]:
        """What is said of a row of `events`."""
        found: list[Said] = []
        for watched in self._on.get(row.type, ()):
            superseded = bool(row.late and watched.rule.ends) and (
                connection.execute(
                    select(events.c.id)
                    .where(events.c.node == row.node, events.c.device == row.device)
                    .where(events.c.type.in_(watched.rule.ends))
                    .where(
                        or_(
                            and_(events.c.epoch == row.epoch, events.c.seq > row.seq),
                            and_(events.c.epoch != row.epoch, events.c.id > row.id),
                        )
                    )
                    .limit(1)
                ).first()
                is not None
            )
            fact = Fact(
                row.node,
                row.device,
                row.type,
                0,
                row.time_us,
                row.received_us,
                row.late,
                f"{row.epoch}:{row.seq}",
                superseded,
                '"found":true' in row.body,
                row.body,
            )
            if watched.by_subject:
                found += self._judge_subjects(watched, fact, now_us, self._known.urgent)
            elif verdict := self._judge(watched, (watched.name, row.node, row.device), fact, now_us, self._known.urgent):
                found.append((watched, (watched.name, row.node, row.device), verdict))
        return found

    def _judge_subjects(self, watched: Taken, fact: Fact, now_us: int, changed: set[Key]) -> list[Said]:
        try:
            subjects = [(fact.node, fact.device)] if watched.about is None else watched.about(fact)
        except Exception:
            if self._is_news(watched):
                log.exception(_BROKEN, watched.name)
            return []
        keys = [(watched.name, node, device) for node, device in subjects]
        judged = [(key, self._judge(watched, key, fact, now_us, changed)) for key in keys]
        return [(watched, key, verdict) for key, verdict in judged if verdict is not None]

    def _judge(self, watched: Taken, key: Key, fact: Fact, now_us: int, changed: set[Key]) -> Verdict | None:
        if watched.kind is not None and kind_of(self._deployments, key[1], key[2]) != watched.kind:
            return None
        memory = self._known.memory.get(key)
        if memory is None:
            memory = self._known.memory[key] = {}
        changed.add(key)
        verdict: Verdict | None
        try:
            if watched.by_subject:
                verdict = watched.rule.on_fact(memory, fact, now_us, key[1:])
            else:
                verdict = watched.rule.on_fact(memory, fact, now_us)
        except Exception:
            if self._is_news(watched):
                log.exception(_BROKEN, watched.name)
            return None
        return verdict

    def _is_news(self, watched: Taken) -> bool:
        """One rule's mistake must not stop the others: it is counted each time, and True the first time, to be logged."""
        self._telemetry.rule_errors.labels(watched.name).inc()
        is_news = watched.name not in self._broken
        self._broken.add(watched.name)
        return is_news
