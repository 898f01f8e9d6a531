"""How each trap stands now, and how sure that is: what the API shows. It reads what the rules remember and what was recorded.

Where no `trap` rule is configured, the same rule is asked with its defaults, of the trap's own events. Nothing here is written.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from gateway.deployments import Deployment
from gateway.rules import Fact, RuleConfig, Surroundings, build_rule
from gateway.rules.round import RoundConfig
from gateway.rules.trap import TrapConfig, facts_of
from gateway.rules.verdict import Memory
from gateway.state.tables import events, latest, rule_states, visits

State = Literal["set", "sprung", "unknown", "sprung_silent"]
_EVENTS = 200  # the newest of a trap: enough to know how it stands


def state_of(connection: Connection, trap: Deployment, rules: Mapping[str, RuleConfig], now_us: int) -> dict[str, Any]:
    """One trap: `state`, `since_us`, `signs`, `likely`, `switch` (set, sprung, null), `heard_us`, `heard_age_s`,
    `last_visit_us`, `last_visit_via`, `overdue` (null where no `round` rule is configured).

    A trap that was not heard for `silent_after` is unknown, or sprung and silent; never set.
    """  # fmt: skip
    name, config = next(((n, c) for n, c in rules.items() if isinstance(c, TrapConfig)), (None, TrapConfig(type="trap")))
    memory = _remembered(connection, name, trap) if name else _replayed(connection, trap, config, now_us)
    here = (latest.c.node == trap.node, latest.c.device == trap.device)
    said = connection.execute(select(latest).where(*here, latest.c.metric == "trap_closed")).first()
    heard_us = max(
        memory.get("heard_us", 0),
        connection.scalar(select(func.max(latest.c.received_us)).where(*here)) or 0,
    )
    silent = now_us - heard_us >= config.silent_after * 1_000_000
    opened = memory.get("open")
    by_switch = opened is not None and opened["by"] == "switch"
    # Who stands before a sprung trap and said so has ended its alert, and it is sprung all the same.
    closed = said is not None and said.value == 1
    if by_switch or closed:
        state: State = "sprung_silent" if silent else "sprung"
    else:
        state = "unknown" if silent or said is None else "set"
    facts = facts_of(memory) if opened is not None else {}
    since_us = opened["since_us"] if opened is not None else (said.time_us if said is not None else None)
    if state == "unknown":
        since_us = heard_us or None
    visited = connection.execute(
        select(visits.c.at_us, visits.c.via)
        .where(visits.c.node == trap.node, visits.c.device == trap.device)
        .order_by(visits.c.at_us.desc())
        .limit(1)
    ).first()
    return {
        "node": trap.node,
        "device": trap.device,
        "place": trap.place,
        "label": trap.label,
        "state": state,
        "since_us": since_us,
        "signs": facts.get("signs", []),
        "likely": facts.get("likely"),
        "switch": None if said is None else "sprung" if closed else "set",
        "heard_us": heard_us or None,
        "heard_age_s": max(now_us - heard_us, 0) / 1e6 if heard_us else None,
        "last_visit_us": visited.at_us if visited else None,
        "last_visit_via": visited.via if visited else None,
        "overdue": _is_overdue(connection, trap, rules),
    }


def _remembered(connection: Connection, rule: str | None, trap: Deployment) -> Memory:
    body = connection.scalar(
        select(rule_states.c.body).where(
            rule_states.c.rule == rule, rule_states.c.node == trap.node, rule_states.c.device == trap.device
        )
    )
    found: Memory = json.loads(body) if body else {}
    return found


def _replayed(connection: Connection, trap: Deployment, config: TrapConfig, now_us: int) -> Memory:
    rule: Any = build_rule(config, Surroundings())
    rows = connection.execute(
        select(events)
        .where(events.c.node == trap.node, events.c.device == trap.device, events.c.type.in_(rule.events))
        .order_by(events.c.id.desc())
        .limit(_EVENTS)
    ).all()
    memory: Memory = {}
    for row in reversed(rows):
        id_ = f"{row.epoch}:{row.seq}"
        fact = Fact(row.node, row.device, row.type, 0, row.time_us, row.received_us, row.late, id_, body=row.body)
        rule.on_fact(memory, fact, row.received_us, (row.node, row.device))
    rule.on_tick(memory, now_us, None, (trap.node, trap.device))
    return memory


def _is_overdue(connection: Connection, trap: Deployment, rules: Mapping[str, RuleConfig]) -> bool | None:
    rounds = [name for name, rule in rules.items() if isinstance(rule, RoundConfig)]
    if not rounds:
        return None
    bodies = connection.scalars(select(rule_states.c.body).where(rule_states.c.rule.in_(rounds)))
    late = {name for body in bodies for name in json.loads(body).get("said", {}).get("traps", ())}
    return f"{trap.node}/{trap.device}" in late
