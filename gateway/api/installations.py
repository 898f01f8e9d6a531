"""PUT an installation, GET them: what an installer put up, and whether somebody answered its test alarm.

What comes in was perhaps written days ago, on a mountain, and comes again until its phone has heard that it is kept.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import or_
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.names import Name
from gateway.api import sift, things
from gateway.api.deps import Deps, permitted, sifted
from gateway.api.problems import Problem
from gateway.installations import (
    LONGEST_NOTE,
    MOST_PHOTOS,
    MOST_TRIPS,
    Differs,
    Installed,
    NotAPhoto,
    NotHere,
    Result,
    enter,
    listed,
    one,
)
from gateway.policy import Actor, extent
from gateway.state.tables import installations

TimeUs = Annotated[int, Field(strict=True, ge=1, lt=2**53)]
Degrees = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Trip = tuple[
    Annotated[float, Field(strict=True, ge=0, le=600_000, allow_inf_nan=False)] | None,
    Annotated[int, Field(strict=True, ge=-200, le=50)] | None,
]
IdPath = Annotated[UUID, Path(description="Made by who sends it, so that it may be sent again.")]
NodePath = Annotated[Name, Path()]
StateQuery = Annotated[Result | None, Query(description="Only those; all when not said.")]
MostQuery = Annotated[int, Query(ge=1, le=200, description="Rows at most.")]


class NewInstallation(BaseModel):
    """One device at one place, as its installer's phone says it. Times are by that phone's clock."""

    model_config = ConfigDict(extra="forbid")

    device: Name
    begun_us: TimeUs
    lat: Annotated[Degrees, Field(ge=-90, le=90, description="WGS 84.")] | None = None
    lon: Annotated[Degrees, Field(ge=-180, le=180)] | None = None
    accuracy_m: Annotated[Degrees, Field(ge=0, le=1e6)] | None = None
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] = ""
    photos: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]],
        Field(max_length=MOST_PHOTOS, description="SHA-256 of each, which was sent to /media before."),
    ] = []
    signal: Annotated[
        list[Trip], Field(max_length=MOST_TRIPS, description="Of each round trip: ms (null: no answer) and dBm as the node says.")
    ] = []
    self_test: Annotated[
        Literal["good", "bad"] | None, Field(description="What the node's lamp said where there was no network.")
    ] = None
    tripped_us: Annotated[
        TimeUs | None, Field(description="When the test trip was begun; without one it is never done by itself.")
    ] = None
    revisit: Annotated[str, Field(max_length=LONGEST_NOTE, description="Why somebody must come again; empty: nobody must.")] = ""

    @model_validator(mode="after")
    def _is_a_place(self) -> "NewInstallation":
        if (self.lat is None) != (self.lon is None):
            raise ValueError("lat and lon stand together, or neither does")
        return self


class InstallationJson(TypedDict):
    """One installation. `told`: the names of those to whom its test alarm was sent; `answered_by`: who answered it.

    `state`: `waiting` for that answer, `done`, or `revisit`, then with `why`. `at`: latitude and longitude. `superseded_by`: the
    newest later one of the same device; after a later `revisit` it waits no more.
    """

    id: str
    node: str
    device: str
    place: str
    label: str
    state: str
    by: str
    begun_us: int
    received_us: int
    ended_us: int | None
    at: tuple[float, float] | None
    accuracy_m: float | None
    note: str
    photos: list[str]
    signal: list[tuple[float | None, int | None]]
    self_test: str | None
    tripped_us: int | None
    why: str
    told: list[str]
    answered_by: str | None
    superseded_by: str | None


class InstallationsJson(TypedDict):
    """The newest first."""

    now_us: int
    installations: list[InstallationJson]


def routes(deps: Deps) -> APIRouter:
    """PUT /nodes/{node}/installations/{id}, GET /installations."""
    router = APIRouter()

    @router.put("/nodes/{node}/installations/{id}", status_code=201, responses={200: {"model": InstallationJson}})
    def record(
        actor: Annotated[Actor, Depends(permitted("installation.record", things.node, own=things.own_installation))],
        node: NodePath,
        id: IdPath,  # noqa: A002 - the word of the path
        said: NewInstallation,
        response: Response,
    ) -> InstallationJson:
        """Keeps it: 201. The same again: 200, and nothing changes; something else under its id: 409."""
        if node in deps.taken_names:
            raise Problem(422, "why.node_name", {"node": node})
        told = Installed(id=str(id), node=node, **dict(said))
        with deps.state.write() as connection:
            try:
                new = enter(connection, told, actor.name, actor.account, deps.now_us())
            except Differs as error:
                raise Problem(409, "why.installation_differs") from error
            except NotHere as error:
                raise Problem(409, "why.photo_first") from error
            except NotAPhoto as error:
                raise Problem(422, "why.photo_of_camera") from error
            row = one(connection, told.id)
        response.status_code = 201 if new else 200
        return _json(deps, row)

    @router.get("/installations")
    def read(
        actor: Annotated[Actor, Depends(sifted("installation.read"))], state: StateQuery = None, limit: MostQuery = 100
    ) -> InstallationsJson:
        """Those at the nodes that the caller may see, and the caller's own, the newest first."""
        which = sift.of_node(extent(actor, "installation.read", deps.world), installations.c.node)
        if actor.account is not None:
            which = or_(which, installations.c.account == actor.account)
        with deps.state.read() as connection:
            rows = listed(connection, which, state=state, limit=limit)
        return {"now_us": deps.now_us(), "installations": [_json(deps, row) for row in rows]}

    return router


def _json(deps: Deps, row: Mapping[str, Any]) -> InstallationJson:
    deployment = deps.deployments.of(row["node"], row["device"])
    said = {name: row[name] for name in InstallationJson.__annotations__ if name in row}
    at = None if row["lat"] is None else (row["lat"], row["lon"])
    return {**said, "place": deployment.place, "label": deployment.label, "at": at}  # type: ignore[typeddict-item]
