"""The delivery ledger: GET what was sent to whom and what became of it; POST retry and dismiss, for dead letters alone.

It says which contact was told what and when, which concerns persons: operators only. Messages' texts are not in it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, and_, or_, select, update
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.alerting.route import Channel
from gateway.api.deps import Deps, LimitQuery, permitted
from gateway.api.problems import Problem
from gateway.notify.queue import RANK
from gateway.policy import Actor
from gateway.state.tables import notifications

DeliveryState = Literal["queued", "sent", "seen", "answered", "failed_over", "dropped", "dead"]

StateQuery = Annotated[
    list[DeliveryState] | None, Query(max_length=7, description="Only those in one of these states; all when not said.")
]
IdPath = Annotated[str, Path(max_length=64)]
IdQuery = Annotated[str | None, Query(max_length=64)]

_SEVERITY = {rank: severity for severity, rank in RANK.items()}
_TWICE = "It may have arrived twice: an attempt's end was not known, and this channel can't tell a repetition."
_AFTER_ALL = "Another address was tried because it took too long; it arrived after all."


class DeliveryJson(TypedDict):
    """One message to one address of one contact. `age_s` counts since it was queued; `said` is what a person should know."""

    id: str
    kind: str
    severity: str
    contact: str
    channel: str
    state: str
    alert: str | None
    page: str | None
    created_us: int
    age_s: float
    due_us: int
    attempts: int
    sent_us: int | None
    seen_us: int | None
    answered_us: int | None
    failed_over_from: str | None
    possibly_twice: bool
    error: str | None
    said: str


class DeliveriesJson(TypedDict):
    """The newest first."""

    now_us: int
    deliveries: list[DeliveryJson]


class Dismissal(BaseModel):
    """Why nobody needs it any more."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(min_length=1, max_length=200, description="In the person's own words.")]


def routes(deps: Deps) -> APIRouter:
    """GET /deliveries, POST /deliveries/{id}/retry, POST /deliveries/{id}/dismiss."""
    router = APIRouter()

    @router.get("/deliveries")
    def deliveries(
        _: Annotated[Actor, Depends(permitted("delivery.read"))],
        state: StateQuery = None,
        contact: IdQuery = None,
        page: IdQuery = None,
        channel: Annotated[Channel | None, Query()] = None,
        before: Annotated[str | None, Query(max_length=64, description="The id of the last one seen: the next page.")] = None,
        limit: LimitQuery = 200,
    ) -> DeliveriesJson:
        """What was sent, is to be sent, or never will be."""
        query = select(notifications).order_by(notifications.c.created_us.desc(), notifications.c.id).limit(limit)
        if state is not None:
            query = query.where(notifications.c.state.in_(state))
        for column, wanted in (
            (notifications.c.contact, contact),
            (notifications.c.page, page),
            (notifications.c.channel, channel),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        with deps.state.read() as connection:
            if before is not None:
                seen_us = _row(connection, before)["created_us"]
                same = and_(notifications.c.created_us == seen_us, notifications.c.id > before)
                query = query.where(or_(notifications.c.created_us < seen_us, same))
            rows = connection.execute(query).mappings().all()
        now_us = deps.now_us()
        return {"now_us": now_us, "deliveries": [delivery_json(row, now_us) for row in rows]}

    @router.post("/deliveries/{id}/retry")
    def retry(
        _: Annotated[Actor, Depends(permitted("delivery.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> DeliveryJson:
        """Has a dead letter tried again, over the same address. 409 when it is none."""
        now_us = deps.now_us()
        again = {"state": "queued", "due_us": now_us, "attempts": 0, "failover_us": None}
        with deps.state.write() as connection:
            _settle(connection, id, again)
            return delivery_json(_row(connection, id), now_us)

    @router.post("/deliveries/{id}/dismiss")
    def dismiss(
        actor: Annotated[Actor, Depends(permitted("delivery.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        said: Annotated[Dismissal, Body()],
    ) -> DeliveryJson:
        """Puts a dead letter away, with who and why. 409 when it is none."""
        with deps.state.write() as connection:
            before = _row(connection, id)["error"]
            error = f"dismissed by {actor.name}: {said.why}" + (f" (was: {before})" if before else "")
            _settle(connection, id, {"state": "dropped", "error": error})
            return delivery_json(_row(connection, id), deps.now_us())

    return router


def delivery_json(row: Mapping[Any, Any], now_us: int) -> DeliveryJson:
    """Of a row of `notifications`."""
    notes = [_TWICE] if row["possibly_twice"] else []
    if row["state"] == "failed_over" and row["sent_us"] is not None:
        notes.append(_AFTER_ALL)
    return {
        "id": row["id"],
        "kind": row["kind"],
        "severity": _SEVERITY.get(row["severity_rank"], "info"),
        "contact": row["contact"],
        "channel": row["channel"],
        "state": row["state"],
        "alert": row["alert"],
        "page": row["page"],
        "created_us": row["created_us"],
        "age_s": max(0.0, (now_us - row["created_us"]) / 1e6),
        "due_us": row["due_us"],
        "attempts": row["attempts"],
        "sent_us": row["sent_us"],
        "seen_us": row["seen_us"],
        "answered_us": row["answered_us"],
        "failed_over_from": row["failed_over_from"],
        "possibly_twice": row["possibly_twice"],
        "error": row["error"],
        "said": " ".join(notes),
    }


def _row(connection: Connection, id_: str) -> Mapping[Any, Any]:
    row = connection.execute(select(notifications).where(notifications.c.id == id_)).mappings().first()
    if row is None:
        raise Problem(404, "why.no_delivery")
    return row


def _settle(connection: Connection, id_: str, values: dict[str, Any]) -> None:
    """Compare-and-set: a dead letter that somebody else has just settled is none any more."""
    done = connection.execute(
        update(notifications).where(notifications.c.id == id_, notifications.c.state == "dead").values(values)
    )
    if done.rowcount != 1:
        state = _row(connection, id_)["state"]
        raise Problem(409, "why.not_dead", {"state": state}, state=state)
