"""How a page is opened, and written as planned: by compare-and-set on `version`, and the moves of its alerts with it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, update

from gateway.alerting.escalation import Memory, PageState, Plan
from gateway.alerting.lifecycle import Alert, Move, acknowledge, resolve
from gateway.moves import write_move
from gateway.state.tables import page_alerts, pages
from gateway.state.upsert import upsert

# Built once: a town that comes back is a thousand pages in one look.
_WRITTEN = (
    "state", "step", "round", "stepped_us", "answered_us", "due_us", "changed", "closed_us", "memory", "version",
)  # fmt: skip
_CHANGE = (
    update(pages)
    .where(pages.c.id == bindparam("key"), pages.c.version == bindparam("seen"))
    .values({name: bindparam(f"new_{name}") for name in _WRITTEN})
)
_TOLD = (
    update(page_alerts)
    .where(page_alerts.c.page == bindparam("its"), page_alerts.c.alert == bindparam("named"), page_alerts.c.told_us.is_(None))
    .values(told_us=bindparam("now_us"))
)

_ADD_PAGE = upsert(pages)


class OvertakenError(Exception):
    """Somebody else has written the page, or its alert, since it was read: it is looked at again."""


def open_page(
    connection: Connection, page: str, route: str, group: str, kind: str, severity: str, needed: int, now_us: int
) -> None:
    """It waits to be looked at. Where there is one of this id, nothing happens."""
    connection.execute(
        _ADD_PAGE,
        {"id": page, "route": route, "group_key": group, "severity": severity, "kind": kind, "state": "waiting", "needed": needed,
         "step": 0, "round": 0, "opened_us": now_us, "changed": True, "memory": "{}", "version": 1},
    )  # fmt: skip


def write_plan(connection: Connection, row: Any, plan: Plan, mine: Sequence[Alert], now_us: int) -> dict[str, int]:
    """The page as planned, and what its answers do to its alerts. The ids of those that moved, and the version each came to.

    OvertakenError where somebody was first.
    """
    moved: dict[str, int] = {}
    written = {
        "state": plan.state,
        "step": plan.step,
        "round": plan.round,
        "stepped_us": plan.stepped_us,
        "answered_us": plan.answered_us,
        "due_us": plan.due_us,
        "changed": False,
        "closed_us": now_us if plan.state == "closed" else None,
        "memory": plan.memory.model_dump_json(exclude_defaults=True),
        "version": row.version + 1,
    }
    values = {f"new_{name}": value for name, value in written.items()}
    if connection.execute(_CHANGE, {"key": row.id, "seen": row.version, **values}).rowcount != 1:
        raise OvertakenError(row.id)
    if plan.told:
        connection.execute(_TOLD, [{"its": row.id, "named": alert, "now_us": now_us} for alert in plan.told])
    for alert in mine:
        if move := _move_of(plan, alert, now_us):
            # The watch may have moved it just now (on a database that lets it): then the page is looked at once more.
            if not write_move(connection, move, now_us):
                raise OvertakenError(alert.id)
            moved[alert.id] = move.alert.version
    return moved


def _move_of(plan: Plan, alert: Alert, now_us: int) -> Move | None:
    """What the answers do to an alert."""
    if plan.resolve is not None:
        if alert.id in plan.newer:
            return None
        return resolve(alert, plan.resolve.contact, plan.resolve.answer, now_us)
    if plan.acknowledge and alert.state == "firing" and alert.id not in plan.silent:
        who = ", ".join(plan.acknowledge)
        taken = acknowledge(alert, who, now_us)
        return Move(taken, alert.state, "going", tell=False, who=who) if taken else None
    return None


def keep(connection: Connection, row: Any, memory: Memory, state: PageState, now_us: int, due_us: int | None = None) -> None:
    """A page of `gateway.paging.notices`, as it is once everybody was told. OvertakenError where somebody was first."""
    done = connection.execute(
        update(pages)
        .where(pages.c.id == row.id, pages.c.version == row.version)
        .values(state=state, step=1, memory=memory.model_dump_json(exclude_defaults=True), version=row.version + 1,
                due_us=due_us, closed_us=now_us if state == "closed" else None)
    )  # fmt: skip
    if done.rowcount != 1:
        raise OvertakenError(row.id)
