"""GET alerts, GET one with its history, POST acknowledge: the one thing a person does to an alert."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, insert, select, update

from gateway.alerting.lifecycle import Alert, acknowledge
from gateway.api.authorize import Actor
from gateway.api.deps import Deps, LimitQuery, permitted
from gateway.api.problems import Problem
from gateway.api.shapes import AlertJson, AlertsJson, AlertWithHistoryJson, Row, alert_json
from gateway.state import tables

StateQuery = Annotated[
    list[Literal["pending", "firing", "acknowledged", "resolved"]] | None,
    Query(max_length=4, description="Only alerts in one of these states; all when not said."),
]
AlertPath = Annotated[str, Path(max_length=64)]


class Acknowledgement(BaseModel):
    """What a person says with it."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int | None, Field(ge=1, le=2**31 - 1, description="The version that was seen; any when null.")] = None
    why: Annotated[str, Field(max_length=200, description="In the person's own words.")] = ""


def routes(deps: Deps) -> APIRouter:
    """GET /alerts, GET /alerts/{id}, POST /alerts/{id}/acknowledge."""
    router = APIRouter()

    def shown(row: Row) -> AlertJson:
        return alert_json(row, deps.deployments.of(row["node"], row["device"]))

    @router.get("/alerts")
    def alerts(
        _: Annotated[Actor, Depends(permitted("alert.read"))], state: StateQuery = None, limit: LimitQuery = 200
    ) -> AlertsJson:
        """Alerts, the newest first."""
        query = select(tables.alerts).order_by(tables.alerts.c.since_us.desc(), tables.alerts.c.id).limit(limit)
        if state is not None:
            query = query.where(tables.alerts.c.state.in_(state))
        with deps.state.read() as connection:
            rows = connection.execute(query).mappings().all()
        return {"now_us": deps.now_us(), "alerts": [shown(dict(row)) for row in rows]}

    @router.get("/alerts/{id}")
    def alert(
        _: Annotated[Actor, Depends(permitted("alert.read"))],
        id: AlertPath,  # noqa: A002 - the word of the path
    ) -> AlertWithHistoryJson:
        """One alert with every step of its life and the messages that went out for it."""
        history, notifications = tables.alert_history, tables.notifications
        with deps.state.read() as connection:
            row = _row(connection, id)
            steps = connection.execute(select(history).where(history.c.alert == id).order_by(history.c.id)).all()
            sent = connection.execute(
                select(notifications).where(notifications.c.alert == id).order_by(notifications.c.created_us)
            ).all()
        return {
            **shown(row),
            "history": [
                {"at_us": step.at_us, "before": step.before, "after": step.after, "who": step.who, "why": step.why}
                for step in steps
            ],
            "notifications": [
                {
                    "id": one.id,
                    "contact": one.contact,
                    "state": one.state,
                    "created_us": one.created_us,
                    "due_us": one.due_us,
                    "attempts": one.attempts,
                    "sent_us": one.sent_us,
                    "error": one.error,
                }
                for one in sent
            ],
        }

    @router.post("/alerts/{id}/acknowledge")
    def acknowledge_alert(
        actor: Annotated[Actor, Depends(permitted("alert.acknowledge"))],
        id: AlertPath,  # noqa: A002 - the word of the path
        said: Annotated[Acknowledgement | None, Body()] = None,
    ) -> AlertJson:
        """Says that somebody has seen it. 409 when it is not firing, or changed since the version that was seen."""
        said = said or Acknowledgement()
        now_us = deps.now_us()
        with deps.state.write() as connection:
            row = _row(connection, id)
            current = Alert(**{column.name: row[column.name] for column in tables.alerts.columns})
            moved = acknowledge(current, actor.name, now_us)
            if moved is None:
                by = f" by {current.acknowledged_by}" if current.acknowledged_by else ""
                raise Problem(
                    409, f"This alert is not firing: it is {current.state}{by}.",
                    state=current.state, version=current.version, acknowledged_by=current.acknowledged_by,
                )  # fmt: skip
            if said.version is not None and said.version != current.version:
                raise Problem(
                    409, f"This alert has changed: version {current.version}, not {said.version}. Look at it again.",
                    state=current.state, version=current.version,
                )  # fmt: skip
            # Compare-and-set, as PostgreSQL lets others write between our look and this.
            done = connection.execute(
                update(tables.alerts)
                .where(tables.alerts.c.id == id, tables.alerts.c.version == current.version)
                .values(asdict(moved))
            )
            if done.rowcount != 1:
                raise Problem(409, "This alert has changed just now. Look at it again.")
            connection.execute(
                insert(tables.alert_history).values(
                    alert=id, at_us=now_us, before=current.state, after=moved.state, who=actor.name, why=said.why
                )
            )
        deps.feed.say("alert", asdict(moved))
        return shown(asdict(moved))

    return router


def _row(connection: Connection, id_: str) -> Row:
    row = connection.execute(select(tables.alerts).where(tables.alerts.c.id == id_)).mappings().first()
    if row is None:
        raise Problem(404, "There is no alert with this id.")
    return dict(row)
