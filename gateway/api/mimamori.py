"""Who is watched over: entered, changed, forgotten, and where their tags were heard last. Concerns persons, whatever it says."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api.authorize import Actor
from gateway.api.deps import Deps, permitted
from gateway.api.problems import Problem
from gateway.mimamori import enrolment
from gateway.mimamori.enrolled import WATCHED, Watched
from gateway.mimamori.enrolment import Entry, NotEnrolled
from gateway.rules.presence import state
from gateway.state.tables import rule_states, tags

IdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
TagPath = Annotated[str, Path(pattern=r"^[a-z0-9:-]{1,80}$")]
SILENT_AFTER_S = 900


class WatchedJson(TypedDict):
    """One person. `state` is home, near, away, no_coverage or never; `place` is where the tag was heard last, not where it is."""

    id: str
    name: str
    family: str
    homes: list[str]
    tags: list[str]
    state: str
    place: str | None
    seen_us: int | None
    age_s: float | None


class AllWatchedJson(TypedDict):
    """Everybody; `now_us` is the gateway's clock."""

    now_us: int
    watched: list[WatchedJson]


class Person(BaseModel):
    """What is entered of a person."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=40, description="How those who care for them call them.")]
    family: Annotated[str, Field(min_length=1, max_length=32, description="The group that is told.")]
    homes: Annotated[list[str], Field(min_length=1, max_length=20, description="Receivers at home, each as node/device.")]

    def entry(self) -> Entry:
        """As the table takes it."""
        return Entry(self.name, self.family, self.homes)


def routes(deps: Deps) -> APIRouter:
    """GET, POST /watched; PUT, DELETE /watched/{id}; PUT, DELETE /watched/{id}/tags/{tag}."""
    router = APIRouter()

    def shown(connection: Connection, who: Watched, memories: Mapping[str, dict[str, Any]]) -> WatchedJson:
        memory, now_us = memories.get(who.id, {}), deps.now_us()
        seen_us, seen_at = memory.get("seen_us"), memory.get("seen_at", "")
        node, _, device = seen_at.partition("/")
        theirs = connection.scalars(select(tags.c.tag).where(tags.c.watched == who.id).order_by(tags.c.tag)).all()
        return {
            "id": who.id,
            "name": who.name,
            "family": who.family,
            "homes": sorted("/".join(home) for home in who.homes),
            "tags": list(theirs),
            "state": state(memory, who.homes, now_us, SILENT_AFTER_S),
            "place": deps.deployments.of(node, device).place if seen_at else None,
            "seen_us": seen_us,
            "age_s": None if seen_us is None else max(now_us - seen_us, 0) / 1e6,
        }

    @router.get("/watched")
    def everybody(_: Annotated[Actor, Depends(permitted("mimamori.read"))]) -> AllWatchedJson:
        """Everybody who is watched over, and where their tags were heard last."""
        with deps.state.read() as connection:
            deps.enrolled.read(connection)
            memories = presence_memories(connection)
            people = [one for id_ in deps.enrolled.ids() if (one := deps.enrolled.of(id_)) is not None]
            return {"now_us": deps.now_us(), "watched": [shown(connection, who, memories) for who in people]}

    @router.post("/watched", status_code=201)
    def enter(actor: Annotated[Actor, Depends(permitted("mimamori.manage"))], told: Annotated[Person, Body()]) -> WatchedJson:
        """Enters a person."""
        with _or_problem(422), deps.state.write() as connection:
            id_ = enrolment.add(connection, told.entry(), actor.name, deps.now_us())
        return one(id_)

    @router.put("/watched/{id}")
    def change(
        _: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        told: Annotated[Person, Body()],
    ) -> WatchedJson:
        """Changes what was entered."""
        with _or_problem(422), deps.state.write() as connection:
            enrolment.change(connection, id, told.entry())
        return one(id)

    @router.delete("/watched/{id}", status_code=204, response_class=Response)
    def forget(
        _: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> Response:
        """Forgets a person and takes their tags: what is heard of these from now on is dropped before it is stored.

        409 while they are searched for.
        """
        with _or_problem(409), deps.state.write() as connection:
            known = enrolment.remove(connection, id)
        _learn()
        if not known:
            raise _nobody()
        return Response(status_code=204)

    @router.put("/watched/{id}/tags/{tag}")
    def give(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        tag: TagPath,
    ) -> WatchedJson:
        """This tag is theirs from now on. 409 when it is somebody else's."""
        with _or_problem(409), deps.state.write() as connection:
            enrolment.give_tag(connection, id, tag, actor.name, deps.now_us())
        return one(id)

    @router.delete("/watched/{id}/tags/{tag}", status_code=204, response_class=Response)
    def take(
        _: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        tag: TagPath,
    ) -> Response:
        """The tag is nobody's from now on."""
        with deps.state.write() as connection:
            known = enrolment.take_tag(connection, id, tag)
        _learn()
        if not known:
            raise Problem(404, "They have no such tag.")
        return Response(status_code=204)

    def one(id_: str) -> WatchedJson:
        _learn()
        who = deps.enrolled.of(id_)
        if who is None:
            raise _nobody()
        with deps.state.read() as connection:
            return shown(connection, who, presence_memories(connection))

    def _learn() -> None:
        with deps.state.read() as connection:
            deps.enrolled.read(connection)

    return router


def presence_memories(connection: Connection) -> dict[str, dict[str, Any]]:
    """What the presence rules remember of each person: of several, the one that heard the tag last."""
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(select(rule_states.c.device, rule_states.c.body).where(rule_states.c.node == WATCHED)):
        memory = json.loads(row.body)
        if memory.get("seen_us", -1) >= found.get(row.device, {}).get("seen_us", -1):
            found[row.device] = memory
    return found


@contextmanager
def _or_problem(status: int) -> Iterator[None]:
    try:
        yield
    except NotEnrolled as error:
        raise Problem(status, f"{error}.") from error


def _nobody() -> Problem:
    return Problem(404, "There is nobody with this id.")
