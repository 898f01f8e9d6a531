"""GET nodes; POST nodes/{node}/claim, /revoke; GET, PUT nodes/{node}/desired; GET, POST nodes/{node}/commands.

How nodes do, how they come and go, what they should run and do.

What is asked here is stored, signed, and goes down by itself; whether it arrived is what the next GET says.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from edge.contract.events import MAX_SEQ
from edge.contract.names import Name
from edge.contract.remote import CommandName, RemoteBroker
from gateway.api import things
from gateway.api.deps import Deps, LimitQuery, permitted, sifted
from gateway.api.problems import NotHere, Problem
from gateway.api.shapes import (
    ClaimJson,
    CommandJson,
    CommandsJson,
    DesiredJson,
    NodesJson,
    RevisionJson,
    RevokedJson,
    Row,
    asked_json,
    command_json,
    node_json,
)
from gateway.canary import CANARY
from gateway.nodes.claims import Claims, NameTaken
from gateway.nodes.commands import LONGEST_S, SHORTEST_S, TTL_S, NotOrdered, TooManyWaiting, order
from gateway.nodes.desired import NotAsked, Overtaken, ask
from gateway.nodes.known import UnknownNode
from gateway.nodes.signing import Signer
from gateway.policy import Actor, Thing, extent
from gateway.state import tables

NodePath = Annotated[Name, Path()]
NODES = "[nodes]"


class Invited(BaseModel):
    """A code for a box."""

    model_config = ConfigDict(extra="forbid")

    hours: Annotated[int | None, Field(ge=1, le=24 * 90)] = Field(
        None, description="How long it may be used; nodes.claim_hours when null."
    )


class Revoked(BaseModel):
    """The end of a node's identity."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(min_length=1, max_length=200, description="The reason, for the list.")]


class Asked(BaseModel):
    """The configuration that a node should run."""

    model_config = ConfigDict(extra="forbid")

    device: dict[str, Any] = Field(description="All devices, each as in edge.toml; replaces the table as a whole.")
    broker: RemoteBroker | None = None
    after: Annotated[int | None, Field(ge=0, le=MAX_SEQ)] = Field(
        None,
        description="The newest revision that was seen, 0 for none: 409 when somebody asked for another since. Any when null.",
    )


class Ordered(BaseModel):
    """A command."""

    model_config = ConfigDict(extra="forbid")

    name: CommandName
    device: Name | None = Field(None, description="For test_alarm, take_picture and restart_device.")
    ttl_s: Annotated[int, Field(ge=SHORTEST_S, le=LONGEST_S)] = Field(TTL_S, description="It is not done later than this.")


def routes(deps: Deps) -> APIRouter:
    """GET /nodes and what belongs to one node."""
    router = APIRouter()
    for group in (_list, _identity, _desired, _commands):
        group(deps, router)
    return router


def signing(deps: Deps) -> Signer:
    """What nodes are told is signed with. NotHere where there is nothing to sign with."""
    if deps.signer is None:
        raise NotHere(NODES)
    return deps.signer


def _list(deps: Deps, router: APIRouter) -> None:

    @router.get("/nodes")
    def nodes(actor: Annotated[Actor, Depends(sifted("node.read"))]) -> NodesJson:
        """The caller's nodes that spoke, were asked for something, or have a certificate."""
        desired, certificates = tables.desired, tables.certificates
        newest = select(desired.c.node, func.max(desired.c.revision).label("revision")).group_by(desired.c.node).subquery()
        columns = [column for column in desired.columns if column is not desired.c.payload]
        asked_now = select(*columns).join(newest, (desired.c.node == newest.c.node) & (desired.c.revision == newest.c.revision))
        last_day = (
            select(certificates.c.node, func.max(certificates.c.not_after_us).label("not_after_us"))
            .where(certificates.c.revoked_us.is_(None))
            .group_by(certificates.c.node)
        )
        with deps.state.read() as connection:
            boxes = select(tables.nodes).where(tables.nodes.c.node != CANARY)
            said: dict[str, Row] = {row["node"]: dict(row) for row in connection.execute(boxes).mappings()}
            asked: dict[str, Row] = {row["node"]: dict(row) for row in connection.execute(asked_now).mappings()}
            until: dict[str, int] = {row.node: row.not_after_us for row in connection.execute(last_day)}
        theirs = extent(actor, "node.read", deps.world)
        names = sorted(name for name in said.keys() | asked.keys() | until.keys() if theirs.covers(Thing(name)))
        found = [node_json(name, said.get(name, {}), asked.get(name, {}), until.get(name)) for name in names]
        return {"now_us": deps.now_us(), "nodes": found}


def _identity(deps: Deps, router: APIRouter) -> None:
    @router.post("/nodes/{node}/claim", status_code=201)
    def invite(
        actor: Annotated[Actor, Depends(permitted("node.admit", things.node))], node: NodePath, wanted: Invited
    ) -> ClaimJson:
        """Makes a code that a box comes to its identity by, once. Earlier codes for the node are void."""
        try:
            claim, qr = _claims(deps).invite(node, wanted.hours, actor.name, deps.taken_names)
        except NameTaken as error:
            raise Problem(422, error) from error
        return {"node": node, "code": claim.shown, "qr": qr, "expires_us": claim.expires_us}

    @router.post("/nodes/{node}/revoke")
    def revoke(actor: Annotated[Actor, Depends(permitted("node.revoke"))], node: NodePath, wanted: Revoked) -> RevokedJson:
        """Ends all that a node has; it can come back by a new code only."""
        ended, fault = _claims(deps).revoke(node, f"{actor.name}: {wanted.why}")
        if not any(ended):
            raise Problem(404, "why.no_identity")
        return {"node": node, "certificates": ended.certificates, "codes": ended.codes, "fault": fault}


def _claims(deps: Deps) -> Claims:
    if deps.claims is None:
        raise NotHere(NODES)
    return deps.claims


def _desired(deps: Deps, router: APIRouter) -> None:
    @router.get("/nodes/{node}/desired")
    def read_desired(_: Annotated[Actor, Depends(permitted("node.configure", things.node))], node: NodePath) -> DesiredJson:
        """What the node should run now, and what became of it."""
        desired = tables.desired
        query = select(desired).where(desired.c.node == node).order_by(desired.c.revision.desc()).limit(1)
        with deps.state.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise Problem(404, "why.own_file")
        statement = json.loads(row["payload"])["statement"]
        return {**asked_json(dict(row)), "node": node, "device": statement["device"], "broker": statement.get("broker")}

    @router.put("/nodes/{node}/desired", status_code=202)
    def ask_for(
        actor: Annotated[Actor, Depends(permitted("node.configure", things.node))], node: NodePath, wanted: Asked
    ) -> RevisionJson:
        """Asks for another configuration. 202: it is on its way; the node applies it, or says why it can't."""
        try:
            revision = ask(
                deps.state, signing(deps), node, wanted.device, wanted.broker, deps.now_us(), actor.name, after=wanted.after
            )
        except UnknownNode as error:
            raise Problem(404, error) from error
        except Overtaken as error:
            raise Problem(409, error, revision=error.revision) from error
        except NotAsked as error:
            raise Problem(422, error) from error
        deps.ring()
        return {"node": node, "revision": revision}


def _commands(deps: Deps, router: APIRouter) -> None:
    @router.get("/nodes/{node}/commands")
    def given(
        _: Annotated[Actor, Depends(permitted("node.command", things.node))], node: NodePath, limit: LimitQuery = 100
    ) -> CommandsJson:
        """Commands to the node, the newest first."""
        commands = tables.commands
        query = select(commands).where(commands.c.node == node).order_by(commands.c.issued_us.desc(), commands.c.id).limit(limit)
        with deps.state.read() as connection:
            rows = connection.execute(query).mappings().all()
        return {"now_us": deps.now_us(), "commands": [command_json(dict(row)) for row in rows]}

    @router.post("/nodes/{node}/commands", status_code=202)
    def give(
        actor: Annotated[Actor, Depends(permitted("node.command", things.node))], node: NodePath, wanted: Ordered
    ) -> CommandJson:
        """Gives a command. 202: it is on its way; done at most once, and not after it has run out."""
        try:
            id_ = order(deps.state, signing(deps), node, wanted.name, wanted.device, deps.now_us(), actor.name, wanted.ttl_s)
        except UnknownNode as error:
            raise Problem(404, error) from error
        except TooManyWaiting as error:
            raise Problem(429, error, headers={"Retry-After": "60"}) from error
        except NotOrdered as error:
            raise Problem(422, error) from error
        deps.ring()
        with deps.state.read() as connection:
            row = connection.execute(select(tables.commands).where(tables.commands.c.id == id_)).mappings().one()
        return command_json(dict(row))
