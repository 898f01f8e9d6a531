"""GET rotating-tags; PUT, DELETE rotating-tags/{tag}: tags that change what they call themselves. Keys come in, none goes out."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from edge.contract.events import MAX_SEQ
from edge.contract.names import Name
from gateway.api.deps import Deps, permitted
from gateway.api.nodes import signing
from gateway.api.problems import Problem
from gateway.api.shapes import RotatingTagJson, RotatingTagsJson
from gateway.nodes.eid import MAX_EXPONENT
from gateway.nodes.expected import MIN_EXPONENT, NotEnrolled, add_tag, remove_tag
from gateway.policy import Actor
from gateway.state import tables

TagPath = Annotated[Name, Path()]


class Enrolled(BaseModel):
    """A rotating tag (Eddystone-EID). The key can't be read back."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$", description="The tag's identity key, 16 bytes in hex.")]
    exponent: Annotated[
        int, Field(ge=MIN_EXPONENT, le=MAX_EXPONENT, description="It calls itself differently every 2^exponent seconds.")
    ]
    zero_us: Annotated[int, Field(ge=0, le=MAX_SEQ, description="When the tag's own clock was 0, UTC µs.")]


def routes(deps: Deps) -> APIRouter:
    """GET /rotating-tags; PUT, DELETE /rotating-tags/{tag}."""
    router = APIRouter()

    @router.get("/rotating-tags")
    def tags(_: Annotated[Actor, Depends(permitted("tag.enrol"))]) -> RotatingTagsJson:
        """The enrolled tags that change what they call themselves, without their keys."""
        known = tables.rotating_tags
        with deps.state.read() as connection:
            rows = connection.execute(select(known.c.tag, known.c.exponent, known.c.zero_us).order_by(known.c.tag)).all()
        return {"tags": [{"tag": row.tag, "exponent": row.exponent, "zero_us": row.zero_us} for row in rows]}

    @router.put("/rotating-tags/{tag}")
    def enrol(
        _: Annotated[Actor, Depends(permitted("tag.enrol"))], tag: TagPath, told: Annotated[Enrolled, Body()]
    ) -> RotatingTagJson:
        """Enrols a tag, or changes it. Nodes are told what it will call itself, never its key."""
        signing(deps)
        try:
            add_tag(deps.state, tag, bytes.fromhex(told.key), told.exponent, told.zero_us, deps.now_us())
        except NotEnrolled as error:
            raise Problem(422, error) from error
        deps.ring()
        return {"tag": tag, "exponent": told.exponent, "zero_us": told.zero_us}

    @router.delete("/rotating-tags/{tag}", status_code=204, response_class=Response)
    def forget(_: Annotated[Actor, Depends(permitted("tag.enrol"))], tag: TagPath) -> Response:
        """Forgets a tag and destroys its key."""
        if not remove_tag(deps.state, tag, deps.now_us()):
            raise Problem(404, "why.no_tag")
        deps.ring()
        return Response(status_code=204)

    return router
