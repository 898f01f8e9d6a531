"""GET audit: who did what, and who looked at whom. The newest first, page by page; nothing here changes it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api.deps import BeforeQuery, Deps, LimitQuery, permitted
from gateway.audit.trail import EntryJson, entries
from gateway.policy import Actor

WhoQuery = Annotated[str | None, Query(max_length=100, description="Only by them: account:<id>, contact:<id>, token:<name>.")]
ThingQuery = Annotated[str | None, Query(max_length=150, description="Only about this: watched/<id>, alert/<id>, ...")]
ActionQuery = Annotated[str | None, Query(max_length=64, description="Only this, as in the policy, or `look`.")]


class AuditJson(TypedDict):
    """One page; `next_before` asks for the following one."""

    now_us: int
    entries: list[EntryJson]
    next_before: int | None


def routes(deps: Deps) -> APIRouter:
    """GET /audit."""
    router = APIRouter()

    @router.get("/audit")
    def audit(
        _: Annotated[Actor, Depends(permitted("audit.read"))],
        who: WhoQuery = None,
        thing: ThingQuery = None,
        action: ActionQuery = None,
        before: BeforeQuery = None,
        limit: LimitQuery = 100,
    ) -> AuditJson:
        """What was done or tried. Where `who` is null, what the entry said was erased; its hash stays in the chain."""
        with deps.state.read() as connection:
            found = entries(connection, who=who, thing=thing, action=action, before=before, limit=limit)
        return {"now_us": deps.now_us(), "entries": found, "next_before": found[-1]["id"] if len(found) == limit else None}

    return router
