"""GET /erasures, POST /erasures: what concerns a person, a contact or a tag, erased now, and in what is restored later.

Who is erased is said by an id; what was erased names nobody any more.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from typing_extensions import TypedDict

from gateway.api.deps import Deps, LimitQuery, permitted
from gateway.api.problems import Problem
from gateway.audit import who_of
from gateway.keeping.erase import ERASE, NotErased, erasing
from gateway.keeping.ledger import Kind
from gateway.policy import Actor
from gateway.state.tables import erasures


class Wanted(BaseModel):
    """Whom to erase. It can't be undone."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    id: Annotated[str, Field(pattern=r"^[a-z0-9:-]{1,80}$", description="The id of a person or contact; of a tag its name.")]


class ErasedJson(TypedDict):
    """What was done: rows deleted or emptied, by table, and what still says something of them, and why."""

    kind: str
    rows: dict[str, int]
    remains: list[str]


class ErasureJson(TypedDict):
    """One erasure. `thing` is an id that means nothing any more; of a tag the SHA-256 of its name."""

    id: str
    kind: str
    thing: str
    asked_us: int
    asked_by: str
    done_us: int | None


class ErasuresJson(TypedDict):
    """Erasures, newest first."""

    now_us: int
    erasures: list[ErasureJson]


def routes(deps: Deps) -> APIRouter:
    """GET /erasures, POST /erasures."""
    router = APIRouter()

    @router.get("/erasures")
    def listed(_: Annotated[Actor, Depends(permitted("person.erase"))], limit: LimitQuery = 200) -> ErasuresJson:
        """What was erased, when and by whom."""
        with deps.state.read() as connection:
            rows = connection.execute(select(erasures).order_by(erasures.c.asked_us.desc(), erasures.c.id).limit(limit)).all()
        found: list[ErasureJson] = [
            {"id": row.id, "kind": row.kind, "thing": row.thing, "asked_us": row.asked_us, "asked_by": row.asked_by,
             "done_us": row.done_us}
            for row in rows
        ]  # fmt: skip
        return {"now_us": deps.now_us(), "erasures": found}

    @router.post("/erasures", status_code=201)
    def erase(actor: Annotated[Actor, Depends(permitted("person.erase"))], wanted: Annotated[Wanted, Body()]) -> ErasedJson:
        """Erases them. 404 where nobody has this id, or nothing names the tag; 409 in a search; 503 while the disk is full."""
        try:
            with erasing(deps.state, wanted.kind, wanted.id) as connection:
                erased = ERASE[wanted.kind](connection, wanted.id, who_of(actor), deps.now_us())
        except NotErased as error:
            raise Problem(404 if error.unknown else 409, error) from error
        except OSError as error:
            raise Problem(503, "why.not_noted") from error
        with deps.state.read() as connection:
            deps.enrolled.read(connection)
        deps.state.empty_log()  # where a reader keeps it just now, the chore does it within seconds
        return {"kind": erased.kind, "rows": erased.rows, "remains": erased.remains}

    return router
