"""GET alerts, GET one with its history, and what a person does to one: acknowledge, shelve, take off the shelf, resolve."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, or_, select

from gateway.alerting.lifecycle import RULE, Alert, Move, acknowledge, resolve, shelve, unshelve
from gateway.api import sift, things
from gateway.api.deps import Deps, LimitQuery, permitted, sifted
from gateway.api.looking import WhyQuery, look, look_for, shown
from gateway.api.problems import Problem
from gateway.api.shapes import (
    SOMEBODY,
    AlertJson,
    AlertsJson,
    AlertWithHistoryJson,
    ChangeJson,
    NotificationJson,
    Row,
    alert_json,
)
from gateway.audit import who_of
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.looks import looked
from gateway.moves import write_move
from gateway.policy import Actor, Extent, Thing, extent
from gateway.state import tables

LONGEST_SHELF_US = 31 * 86_400_000_000

StateQuery = Annotated[
    list[Literal["pending", "firing", "acknowledged", "shelved", "suppressed", "resolved"]] | None,
    Query(max_length=6, description="Only alerts in one of these states; all when not said."),
]
AlertPath = Annotated[str, Path(max_length=64)]
Version = Annotated[int | None, Field(ge=1, le=2**31 - 1, description="The version that was seen; any when null.")]
Why = Annotated[str, Field(max_length=200, description="In the person's own words.")]


class Acknowledgement(BaseModel):
    """What a person says with it."""

    model_config = ConfigDict(extra="forbid")

    version: Version = None
    why: Why = ""


class Shelving(Acknowledgement):
    """Not before then."""

    until_us: Annotated[int, Field(ge=1, lt=2**53, description="When it is told again, at most 31 days from now.")]


class Ending(Acknowledgement):
    """Why it is over, though no sensor says so."""

    why: Annotated[str, Field(min_length=1, max_length=200, description="In the person's own words.")]


def routes(deps: Deps) -> APIRouter:
    """GET /alerts, GET /alerts/{id}, POST /alerts/{id}/acknowledge, /shelve, /unshelve, /resolve."""
    router = APIRouter()

    def as_json(row: Row, answers: Extent) -> AlertJson:
        names = answers.covers(Thing(row["node"], row["device"]))
        return alert_json(row, deps.stands(row["node"], row["device"]), names)

    @router.get("/alerts")
    def alerts(
        actor: Annotated[Actor, Depends(sifted("alert.read"))],
        state: StateQuery = None,
        limit: LimitQuery = 200,
        why: WhyQuery = None,
    ) -> AlertsJson:
        """Those alerts that the caller may read, the newest first. Of people's they are a look at them.

        To staff, alerts of somebody who is not searched for and has no open alert are shown with a `why` only.
        """
        theirs = extent(actor, "alert.read", deps.world)
        reasons = shown(deps, theirs, why)
        query = select(tables.alerts).order_by(tables.alerts.c.since_us.desc(), tables.alerts.c.id).limit(limit)
        query = query.where(sift.of_device(theirs, tables.alerts.c.node, tables.alerts.c.device))
        query = query.where(or_(tables.alerts.c.node != WATCHED, tables.alerts.c.device.in_(reasons)))
        if state is not None:
            query = query.where(tables.alerts.c.state.in_(state))
        with deps.state.read() as connection:
            rows = connection.execute(query).mappings().all()
        look_for(deps, actor, {row["device"]: reasons[row["device"]] for row in rows if row["node"] == WATCHED}, "alerts")
        answers = extent(actor, "page.history", deps.world)
        return {"now_us": deps.now_us(), "alerts": [as_json(dict(row), answers) for row in rows]}

    @router.get("/alerts/{id}")
    def alert(
        actor: Annotated[Actor, Depends(permitted("alert.read", things.alert))],
        id: AlertPath,  # noqa: A002 - the word of the path
        why: WhyQuery = None,
    ) -> AlertWithHistoryJson:
        """One alert with every step of its life and, for who may read pages, the messages that went out for it.

        Of a person it is a look at them: staff say `why` where it is over and they are not searched for; 400 otherwise.
        """
        history, notifications = tables.alert_history, tables.notifications
        with deps.state.read() as connection:
            row = _row(connection, id)
            steps = connection.execute(select(history).where(history.c.alert == id).order_by(history.c.id)).mappings().all()
            query = select(notifications).where(notifications.c.alert == id).order_by(notifications.c.created_us)
            answers = extent(actor, "page.history", deps.world)
            told = answers.covers(Thing(row["node"], row["device"]))
            sent = connection.execute(query).mappings().all() if told else []
            joined = tables.page_alerts
            pages = select(joined.c.page).where(joined.c.alert == id).order_by(joined.c.joined_us.desc()).limit(1)
            page = connection.execute(pages).scalar() if told else None
        if row["node"] == WATCHED:
            is_staff = extent(actor, "alert.read", deps.world).everything
            look(deps, actor, [row["device"]], "alert", why, is_staff=is_staff)
        return {
            **as_json(row, answers),
            "history": [_change_json(dict(step), told) for step in steps],
            "notifications": [_notification_json(dict(one)) for one in sent],
            "page": page,
        }

    @router.post("/alerts/{id}/acknowledge")
    def acknowledge_alert(
        actor: Annotated[Actor, Depends(permitted("alert.acknowledge", things.alert))],
        id: AlertPath,  # noqa: A002 - the word of the path
        said: Annotated[Acknowledgement | None, Body()] = None,
    ) -> AlertJson:
        """Says that somebody takes care of it. 409 when it is not firing, or changed since the version that was seen."""
        return _moved(deps, actor, id, said or Acknowledgement(), lambda one, now_us: acknowledge(one, actor.name, now_us))

    @router.post("/alerts/{id}/shelve")
    def shelve_alert(
        actor: Annotated[Actor, Depends(permitted("alert.shelve", things.alert))],
        id: AlertPath,  # noqa: A002 - the word of the path
        said: Annotated[Shelving, Body()],
    ) -> AlertJson:
        """Not before `until_us`: then it fires again, and is told again. 409 when it is pending or over."""
        now_us = deps.now_us()
        if not now_us < said.until_us <= now_us + LONGEST_SHELF_US:
            raise Problem(422, "why.shelf")
        return _moved(deps, actor, id, said, lambda one, _: shelve(one, said.until_us))

    @router.post("/alerts/{id}/unshelve")
    def unshelve_alert(
        actor: Annotated[Actor, Depends(permitted("alert.shelve", things.alert))],
        id: AlertPath,  # noqa: A002 - the word of the path
        said: Annotated[Acknowledgement | None, Body()] = None,
    ) -> AlertJson:
        """Ends its time on the shelf now: within a second it fires again, unless something mutes it. 409 when not shelved."""
        return _moved(deps, actor, id, said or Acknowledgement(), unshelve)

    @router.post("/alerts/{id}/resolve")
    def resolve_alert(
        actor: Annotated[Actor, Depends(permitted("alert.resolve", things.alert))],
        id: AlertPath,  # noqa: A002 - the word of the path
        said: Annotated[Ending, Body()],
    ) -> AlertJson:
        """A person says that it is over, and why; what opened it opens no other. 409 when it is over already."""

        def over(one: Alert, now_us: int) -> Alert | None:
            move = resolve(one, actor.name, said.why, now_us)
            return move.alert if move else None

        return _moved(deps, actor, id, said, over)

    return router


def _moved(deps: Deps, actor: Actor, id_: str, said: Acknowledgement, act: Callable[[Alert, int], Alert | None]) -> AlertJson:
    """The alert as `act` moved it, written with who and why. 409 when it may not move, or changed since it was seen."""
    now_us = deps.now_us()
    with deps.state.write() as connection:
        row = _row(connection, id_)
        current = Alert(**{name: row[name] for name in Alert.__slots__})
        after = act(current, now_us)
        if after is None:
            by, state = current.acknowledged_by, current.state
            raise Problem(
                409, "why.alert_taken" if by and state == "acknowledged" else "why.alert_not_now", {"by": by, "state": state},
                state=state, version=current.version, acknowledged_by=by,
            )  # fmt: skip
        if said.version is not None and said.version != current.version:
            raise Problem(409, "why.changed", state=current.state, version=current.version)
        move = Move(after, current.state, said.why, tell=False, who=actor.name)
        # Compare-and-set, as PostgreSQL lets others write between our look and this.
        if not write_move(connection, move, now_us):
            raise Problem(409, "why.changed")
        deps.moved(connection, move, now_us)
        if row["node"] == WATCHED:  # the answer shows it
            looked(connection, who_of(actor), row["device"], "alert", f"alert/{id_}", now_us, deps.look_every_us)
    deps.feed.say("alert", asdict(after))
    return alert_json(asdict(after), deps.stands(after.node, after.device))


def _row(connection: Connection, id_: str) -> Row:
    row = connection.execute(select(tables.alerts).where(tables.alerts.c.id == id_)).mappings().first()
    if row is None:
        raise _nothing()
    return dict(row)


def _nothing() -> Problem:
    return Problem(404, "why.no_alert")


def _change_json(row: Row, names: bool) -> ChangeJson:
    """`names`: for who may read who answered, and in what words."""
    is_told = names or row["who"] == RULE
    return {
        "at_us": row["at_us"],
        "before": row["before"],
        "after": row["after"],
        "who": row["who"] if is_told else SOMEBODY,
        "why": row["why"] if is_told else "",
    }


def _notification_json(row: Row) -> NotificationJson:
    return {
        "id": row["id"],
        "contact": row["contact"],
        "state": row["state"],
        "created_us": row["created_us"],
        "due_us": row["due_us"],
        "attempts": row["attempts"],
        "sent_us": row["sent_us"],
        "error": row["error"],
    }
