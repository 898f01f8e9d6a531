"""GET who looked where somebody's tags were, and why: for officers, and for the family. It says nothing of any place."""

from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy import select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api import things
from gateway.api.deps import BeforeQuery, Deps, LimitQuery, permitted
from gateway.api.mimamori import IdPath
from gateway.api.problems import Problem
from gateway.mimamori.looks import log_of
from gateway.policy import Actor
from gateway.state.tables import watched


class LookJson(TypedDict):
    """One look at where a tag was. `by`: family, helper (in a search), officer, operator, installer, office, program or gone;
    `name` null: erased. `what` is `link` where a link was handed out by which whoever has it comes in as family.

    `why`: `search/<id>`, `alert/<id>`, or in their own words; empty: of family.
    """

    id: int
    at_us: int
    who: str
    name: str | None
    by: str
    what: str
    why: str


class LooksJson(TypedDict):
    """The newest first; `next_before` asks for the following ones."""

    now_us: int
    looks: list[LookJson]
    next_before: int | None


def routes(deps: Deps) -> APIRouter:
    """GET /watched/{id}/looks."""
    router = APIRouter()

    @router.get("/watched/{id}/looks")
    def looks(
        _: Annotated[Actor, Depends(permitted("mimamori.log", things.watched))],
        id: IdPath,  # noqa: A002 - the word of the path
        before: BeforeQuery = None,
        limit: LimitQuery = 100,
    ) -> LooksJson:
        """Who looked where this person's tags were, and why; the newest first."""
        with deps.state.read() as connection:
            family = connection.scalar(select(watched.c.family).where(watched.c.id == id))
            if family is None:
                raise Problem(404, "why.nobody")
            office = deps.search.office if deps.search is not None else None
            found = log_of(connection, id, family, office, before=before, limit=limit)
        shown: list[LookJson] = [
            {"id": one.id, "at_us": one.at_us, "who": one.who, "name": one.name, "by": one.by, "what": one.what, "why": one.why}
            for one in found
        ]
        return {"now_us": deps.now_us(), "looks": shown, "next_before": found[-1].id if len(found) == limit else None}

    return router
