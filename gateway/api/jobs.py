"""GET jobs, POST one, POST its end: at which nodes an installer works, from when until when."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from edge.contract.names import Name
from gateway import jobs
from gateway.api.deps import Deps, LimitQuery, permitted, sifted
from gateway.api.problems import Problem
from gateway.audit import who_of
from gateway.deployments import Deployments
from gateway.installations import places
from gateway.policy import Actor, may

TimeUs = Annotated[int, Field(ge=1, lt=2**53)]
JobPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
AllQuery = Annotated[bool, Query(alias="all", description="Those that are over too.")]


class NewJob(BaseModel):
    """Whose, at which nodes, how long."""

    model_config = ConfigDict(extra="forbid")

    account: Annotated[str, Field(max_length=40, description="The installer's account.")]
    label: Annotated[str, Field(max_length=jobs.LONGEST_LABEL, description="What its people call it: 北山 3基.")]
    nodes: Annotated[list[Name], Field(min_length=1, max_length=jobs.MOST_NODES, description="Also such as are still to come.")]
    from_us: TimeUs | None = Field(None, description="When it begins; now when null.")
    until_us: TimeUs = Field(description="When it ends, at most 92 days after it began.")


class PlannedJson(TypedDict):
    """A device as it is meant to stand: what its installer takes along where there is no network. `at`: as of a device."""

    node: str
    device: str
    kind: str
    place: str
    label: str
    at: tuple[float, float] | None


class JobJson(TypedDict):
    """One job. It runs from `from_us` until `until_us`, or until `ended_us`. `name`: the installer's."""

    id: str
    account: str
    name: str
    label: str
    nodes: list[str]
    devices: list[PlannedJson]
    from_us: int
    until_us: int
    created_us: int
    created_by: str
    ended_us: int | None


class JobsJson(TypedDict):
    """Jobs, the last to begin first."""

    now_us: int
    jobs: list[JobJson]


def routes(deps: Deps) -> APIRouter:
    """GET /jobs, POST /jobs, POST /jobs/{id}/end."""
    router = APIRouter()

    @router.get("/jobs")
    def listed(actor: Annotated[Actor, Depends(sifted("job.read"))], over: AllQuery = False, limit: LimitQuery = 200) -> JobsJson:
        """Those that go on or are to come; of an installer, her own that go on."""
        now_us = deps.now_us()
        own = None if may(actor, "job.read", None, deps.world) else actor.account or ""  # a token has no account, and no job
        with deps.state.read() as connection:
            rows, measured = jobs.listed(connection, now_us, account=own, over=over, limit=limit), places(connection)
        return {"now_us": now_us, "jobs": [job_json(row, deps.deployments, measured) for row in rows]}

    @router.post("/jobs", status_code=201)
    def add(actor: Annotated[Actor, Depends(permitted("job.manage", enters=True))], new: Annotated[NewJob, Body()]) -> JobJson:
        """Makes one: from its beginning to its end the installer may see, admit, configure and command these nodes."""
        with deps.state.write() as connection:
            try:
                job = jobs.Job(new.account, new.label, new.nodes, new.until_us, new.from_us)
                id_ = jobs.add(connection, job, who_of(actor), deps.now_us(), deps.taken_names)
            except jobs.Wrong as error:
                raise Problem(422, error) from error
            return job_json(jobs.one(connection, id_), deps.deployments, places(connection))

    @router.post("/jobs/{id}/end")
    def end(
        actor: Annotated[Actor, Depends(permitted("job.manage", enters=True))],
        id: JobPath,  # noqa: A002 - the word of the path
    ) -> JobJson:
        """Ends one before its time: from now on it opens nothing. 404 when there is none that goes on or is to come."""
        with deps.state.write() as connection:
            if not jobs.end(connection, id, who_of(actor), deps.now_us()):
                raise Problem(404, "why.no_job")
            return job_json(jobs.one(connection, id), deps.deployments, places(connection))

    return router


def job_json(
    row: Mapping[str, Any], deployments: Deployments, measured: Mapping[tuple[str, str], tuple[float, float]]
) -> JobJson:
    """Of a row of `gateway.jobs.listed`. `measured`: gateway.installations.places."""
    return {
        "id": row["id"],
        "account": row["account"],
        "name": row["name"],
        "label": row["label"],
        "nodes": row["nodes"],
        "devices": [
            {"node": one.node, "device": one.device, "kind": one.kind, "place": one.place, "label": one.label,
             "at": measured.get((one.node, one.device), one.at)}
            for one in deployments if one.node in row["nodes"]
        ],
        "from_us": row["from_us"],
        "until_us": row["until_us"],
        "created_us": row["created_us"],
        "created_by": row["created_by"],
        "ended_us": row["ended_us"],
    }  # fmt: skip
