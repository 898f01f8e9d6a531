"""An alert that fires joins the open page of its route and group, or opens one."""

import json
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, func, select, update

from gateway.alerting.escalation import Memory
from gateway.alerting.lifecycle import Alert
from gateway.deployments import Deployments
from gateway.paging.ids import page_id
from gateway.paging.messages import SEVERITIES
from gateway.paging.reading import OPEN
from gateway.paging.routes import Routes
from gateway.paging.writing import open_page
from gateway.state.tables import alerts, answers, page_alerts, pages
from gateway.state.upsert import upsert

# Built once: they are asked and written for each alert that fires.
_OPEN_PAGE = (
    select(pages.c.id, pages.c.severity)
    .where(pages.c.route == bindparam("named"), pages.c.group_key == bindparam("group"), pages.c.state.in_(OPEN))
    .with_for_update()
)
_ADD_TO_PAGE = upsert(page_alerts)
_ALERTS_ON = (
    select(alerts.c.id, alerts.c.state)
    .join(page_alerts, page_alerts.c.alert == alerts.c.id)
    .where(page_alerts.c.page == bindparam("its"))
)
_JOINED = update(pages).where(pages.c.id == bindparam("key")).values(changed=True, severity=bindparam("worst"))


class Joining:
    """In the transaction of the alert's move."""

    def __init__(self, routes: Routes, deployments: Deployments, look: Callable[[Connection, Sequence[str], int], None]) -> None:
        """`look(connection, pages, now_us)` closes a page whose alerts are over, before another thing is another page."""
        self._routes, self._deployments, self._look = routes, deployments, look

    def join(self, connection: Connection, alert: Alert, *, tell: bool, now_us: int) -> str | None:
        """The open page of the alert's group, or a new one. None where no route fits. `tell`: as of its move."""
        route = self._routes.of_alert(alert)
        if route is None:
            return None
        place = self._deployments.of(alert.node, alert.device).place
        group = json.dumps([place if name == "place" else getattr(alert, name) for name in route.group_by], ensure_ascii=False)
        mine = {"named": route.name, "group": group}
        open_ = connection.execute(_OPEN_PAGE, mine).first()
        if open_ is not None and _is_over(connection, open_.id, alert.id):
            self._look(connection, [open_.id], now_us)
            open_ = connection.execute(_OPEN_PAGE, mine).first()
        if open_ is None:
            page = page_id(route.name, group, alert.id, alert.version)
            open_page(connection, page, route.name, group, alert.kind, alert.severity, route.needed, now_us)
        else:
            page = str(open_.id)
            if tell:
                _afresh(connection, page, alert.id, now_us)
            worst = min(open_.severity, alert.severity, key=SEVERITIES.index)
            connection.execute(_JOINED, {"key": page, "worst": worst})
        connection.execute(_ADD_TO_PAGE, {"page": page, "alert": alert.id, "joined_us": now_us})
        return page


def _is_over(connection: Connection, page: str, but: str) -> bool:
    """Whether all its alerts are: then it is closed first, and another thing is another page."""
    found = {row.id: row.state for row in connection.execute(_ALERTS_ON, {"its": page})}
    return but not in found and set(found.values()) == {"resolved"}


def _afresh(connection: Connection, page: str, alert: str, now_us: int) -> None:
    """To be told anew, though it was told: a shelf's time is over, or that of the mute after it.

    Where the page has no other alert that people know of, it is told as for the first time.
    """
    before = select(page_alerts.c.told_us).where(page_alerts.c.page == page, page_alerts.c.alert == alert)
    if connection.scalar(before) is None:
        return
    others = select(alerts.c.id).join(page_alerts, page_alerts.c.alert == alerts.c.id)
    others = others.where(page_alerts.c.page == page, alerts.c.id != alert, alerts.c.state.in_(("firing", "acknowledged")))
    row = connection.execute(select(pages).where(pages.c.id == page)).one()
    connection.execute(update(page_alerts).where(page_alerts.c.page == page, page_alerts.c.alert == alert).values(told_us=None))
    if connection.scalar(others.limit(1)) is not None:
        return
    last = connection.execute(
        select(answers.c.contact, func.max(answers.c.id)).where(answers.c.page == page).group_by(answers.c.contact)
    )
    memory = Memory(life=Memory.model_validate_json(row.memory).life + 1, void={one[0]: one[1] for one in last})
    connection.execute(
        update(pages)
        .where(pages.c.id == page)
        .values(state="waiting", step=0, round=0, opened_us=now_us, stepped_us=None, answered_us=None,
                memory=memory.model_dump_json(exclude_defaults=True), version=pages.c.version + 1)
    )  # fmt: skip
