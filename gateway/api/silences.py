"""GET silences, POST one, POST its end: what an officer wants not to be told of for a while. It ends and hides nothing."""

import json
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway import silences
from gateway.alerting.route import Match
from gateway.api.deps import Deps, LimitQuery, permitted
from gateway.api.problems import Problem
from gateway.api.shapes import SOMEBODY, Row
from gateway.policy import Actor, has

MAX_US = 2**53
TimeUs = Annotated[int, Field(ge=1, lt=MAX_US)]
AllQuery = Annotated[bool, Query(alias="all", description="Those that are over too.")]
SilencePath = Annotated[int, Path(ge=1, lt=MAX_US)]


class NewSilence(BaseModel):
    """What is not to be told, how long, and why."""

    model_config = ConfigDict(extra="forbid")

    match: Match = Field(description="Which alerts: at least one of kind, rule, severity, node, device.")
    from_us: TimeUs | None = Field(None, description="When it begins; now when null.")
    until_us: TimeUs = Field(description="When it ends, at most 31 days after it began.")
    why: Annotated[str, Field(min_length=1, max_length=200, description="For who wonders.")]


class SilenceJson(TypedDict):
    """One silence. It holds from `from_us` until `until_us`, or until `ended_us`."""

    id: int
    match: dict[str, str]
    from_us: int
    until_us: int
    why: str
    created_us: int
    created_by: str
    ended_us: int | None
    ended_by: str | None


class SilencesJson(TypedDict):
    """Silences, newest first."""

    now_us: int
    silences: list[SilenceJson]


def routes(deps: Deps) -> APIRouter:
    """GET /silences, POST /silences, POST /silences/{id}/end."""
    router = APIRouter()

    @router.get("/silences")
    def listed(
        actor: Annotated[Actor, Depends(permitted("silence.read"))],
        over: AllQuery = False,
        limit: LimitQuery = 200,
    ) -> SilencesJson:
        """Those that go on or are to come."""
        now_us = deps.now_us()
        with deps.state.read() as connection:
            rows = silences.listed(connection, now_us, over=over, limit=limit)
        return {"now_us": now_us, "silences": [silence_json(row, names=has(actor, "page.history")) for row in rows]}

    @router.post("/silences", status_code=201)
    def add(actor: Annotated[Actor, Depends(permitted("silence.set"))], new: Annotated[NewSilence, Body()]) -> SilenceJson:
        """Makes one. Alerts that it fits are suppressed within a second, and told when it ends."""
        with deps.state.write() as connection:
            try:
                row = silences.add(connection, new.match, new.from_us, new.until_us, new.why, actor.name, deps.now_us())
            except silences.Wrong as error:
                raise Problem(422, error) from error
        return silence_json(row)

    @router.post("/silences/{id}/end")
    def end(
        actor: Annotated[Actor, Depends(permitted("silence.set"))],
        id: SilencePath,  # noqa: A002 - the word of the path
    ) -> SilenceJson:
        """Ends one before its time. 404 when there is none that goes on or is to come."""
        now_us = deps.now_us()
        with deps.state.write() as connection:
            if not silences.end(connection, id, actor.name, now_us):
                raise Problem(404, "why.no_silence")
            row = silences.one(connection, id)
        return silence_json(row)

    return router


def silence_json(row: Row, names: bool = True) -> SilenceJson:
    """Of a row of `silences`. `names`: for who may read who did something; to others it was somebody (`contact:`)."""
    return {
        "id": row["id"],
        "match": json.loads(row["match"]),
        "from_us": row["from_us"],
        "until_us": row["until_us"],
        "why": row["why"],
        "created_us": row["created_us"],
        "created_by": row["created_by"] if names else SOMEBODY,
        "ended_us": row["ended_us"],
        "ended_by": row["ended_by"] if names or row["ended_by"] is None else SOMEBODY,
    }
