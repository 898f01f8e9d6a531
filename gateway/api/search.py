"""The search for a missing person: opened with a reason, read, renewed, ended; by officers, and by the person's family."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from gateway.api import sift, things
from gateway.api.deps import Deps, LimitQuery, permitted, sifted
from gateway.api.looking import look_for
from gateway.api.mimamori import IdPath
from gateway.api.problems import NotHere, Problem
from gateway.audit import who_of
from gateway.mimamori.looks import looked
from gateway.mimamori.search import UNENDED, NobodyError, NoSearchError, Search
from gateway.paging import STAFF
from gateway.policy import Actor, extent, may
from gateway.state.tables import search_cases, search_changes

CasePath = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
StateQuery = Annotated[
    list[Literal["open", "paused", "found", "closed"]] | None,
    Query(max_length=4, description="Only searches in one of these states; all when not said."),
]


class ReachedJson(TypedDict):
    """How many people its messages arrived at, of how many who should have them: by the delivery ledger."""

    office: int
    office_all: int
    helpers: int
    helpers_all: int


class AudienceJson(TypedDict):
    """How many people would be told at once; who is in two of these groups counts in both."""

    now_us: int
    family: int
    office: int
    volunteers: int


class SightingJson(TypedDict):
    """Where a tag was heard while the search was open. It is not where it is."""

    place: str
    first_us: int
    last_us: int
    age_s: float


class SearchChangeJson(TypedDict):
    """What was done, by whom: a contact's name, an officer, or `time`."""

    at_us: int
    who: str
    what: str
    why: str


class SearchJson(TypedDict):
    """One search. `state`: open, paused (volunteers see nothing), found or closed; `pauses_us`: when it pauses unless renewed."""

    id: str
    watched: str
    state: str
    reason: str
    opened_us: int
    opened_by: str
    renewed_us: int
    pauses_us: int | None
    step: int
    ended_us: int | None
    ended_by: str | None


class SearchWithAllJson(SearchJson):
    """A search with what came of it."""

    now_us: int
    reached: ReachedJson
    sightings: list[SightingJson]
    history: list[SearchChangeJson]


class SearchesJson(TypedDict):
    """Searches, the newest first."""

    now_us: int
    searches: list[SearchJson]


class Reason(BaseModel):
    """Why somebody is searched for."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=200, description="In the person's own words.")]


class EndOfSearch(BaseModel):
    """Why it is ended without that anybody was found."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(min_length=1, max_length=200, description="In the person's own words.")]


def routes(deps: Deps) -> APIRouter:
    """GET, POST /watched/{id}/search; GET /searches, /searches/{id}; POST /searches/{id}/renew, /found, /close."""
    router = APIRouter()

    def named(connection: Connection, who: str) -> str:
        return deps.paging.answers.name_of(connection, who) if deps.paging is not None else who.removeprefix(STAFF)

    def shown(connection: Connection, row: Row[Any]) -> SearchJson:
        return {
            "id": row.id,
            "watched": row.watched,
            "state": row.state,
            "reason": row.reason,
            "opened_us": row.opened_us,
            "opened_by": named(connection, row.opened_by),
            "renewed_us": row.renewed_us,
            "pauses_us": _search(deps).pauses_us(row),
            "step": row.step,
            "ended_us": row.ended_us,
            "ended_by": None if row.ended_by is None else named(connection, row.ended_by),
        }

    def whole(connection: Connection, id_: str) -> SearchWithAllJson:
        search, now_us = _search(deps), deps.now_us()
        row = _case(search, connection, id_)
        query = select(search_changes).where(search_changes.c.case == id_).order_by(search_changes.c.id)
        reached = search.reached(connection, row)
        return {
            **shown(connection, row),
            "now_us": now_us,
            "reached": {"office": reached.office, "office_all": reached.office_all, "helpers": reached.helpers,
                        "helpers_all": reached.helpers_all},
            "sightings": [
                {"place": one.place, "first_us": one.first_us, "last_us": one.last_us,
                 "age_s": max(now_us - one.last_us, 0) / 1e6}
                for one in search.sightings(connection, id_)
            ],
            "history": [
                {"at_us": one.at_us, "who": named(connection, one.who), "what": one.what, "why": one.why}
                for one in connection.execute(query)
            ],
        }  # fmt: skip

    def done(actor: Actor, id_: str, act: Callable[[Search, Connection], bool]) -> SearchWithAllJson:
        search = _search(deps)
        with deps.state.write() as connection:
            row = _case(search, connection, id_)
            if not act(search, connection):
                state = _case(search, connection, id_).state
                raise Problem(409, "why.changed" if state in UNENDED else "why.search_over", state=row.state)
            found = whole(connection, id_)
            _looked(connection, deps, actor, found)
        deps.ring_deliveries()
        return found

    @router.post("/watched/{id}/search", status_code=201)
    def opened(
        actor: Annotated[Actor, Depends(permitted("search.open", things.watched))],
        id: IdPath,  # noqa: A002 - the word of the path
        told: Annotated[Reason, Body()],
        response: Response,
    ) -> SearchWithAllJson:
        """Opens a search and tells family, office and volunteers at once. 200 where one is under way: that one."""
        search = _search(deps)
        with deps.state.write() as connection:
            try:
                case, is_new = search.open(connection, id, told.reason, _by(deps, actor), deps.now_us())
            except NoSearchError as error:
                raise Problem(404 if isinstance(error, NobodyError) else 422, error) from error
            found = whole(connection, case)
            _looked(connection, deps, actor, found)
        deps.ring_deliveries()
        response.status_code = 201 if is_new else 200
        return found

    @router.get("/searches")
    def searches(
        actor: Annotated[Actor, Depends(sifted("search.read"))], state: StateQuery = None, limit: LimitQuery = 200
    ) -> SearchesJson:
        """Those searches that the caller may read, the newest first."""
        query = select(search_cases).where(sift.of_case(extent(actor, "search.read", deps.world)))
        query = query.order_by(search_cases.c.opened_us.desc(), search_cases.c.id).limit(limit)
        if state is not None:
            query = query.where(search_cases.c.state.in_(state))
        with deps.state.read() as connection:
            rows = connection.execute(query).all()
            return {"now_us": deps.now_us(), "searches": [shown(connection, row) for row in rows]}

    @router.get("/searches/{id}")
    def one(
        actor: Annotated[Actor, Depends(permitted("search.read", things.case))],
        id: CasePath,  # noqa: A002 - the word of the path
    ) -> SearchWithAllJson:
        """One search: whom it reached, where the tag was heard, who did what. A look at the person."""
        with deps.state.read() as connection:
            found = whole(connection, id)
        look_for(deps, actor, {found["watched"]: f"search/{id}"}, "search")
        return found

    @router.post("/searches/{id}/renew")
    def renew(
        actor: Annotated[Actor, Depends(permitted("search.open", things.case))],
        id: CasePath,  # noqa: A002 - the word of the path
    ) -> SearchWithAllJson:
        """It goes on; where it had paused, volunteers see it again. 409 when it is over."""
        return done(actor, id, lambda search, connection: search.renew(connection, id, _by(deps, actor), deps.now_us()))

    @router.post("/searches/{id}/found")
    def found(
        actor: Annotated[Actor, Depends(permitted("search.open", things.case))],
        id: CasePath,  # noqa: A002 - the word of the path
    ) -> SearchWithAllJson:
        """They are found; everybody who was told hears it. 409 when it is over."""
        return done(actor, id, lambda search, connection: search.found(connection, id, _by(deps, actor), deps.now_us()))

    @router.post("/searches/{id}/close")
    def close(
        actor: Annotated[Actor, Depends(permitted("search.open", things.case))],
        id: CasePath,  # noqa: A002 - the word of the path
        told: Annotated[EndOfSearch, Body()],
    ) -> SearchWithAllJson:
        """Ends it without that anybody was found; everybody who was told hears it. 409 when it is over."""
        return done(actor, id, lambda search, connection: search.close(connection, id, _by(deps, actor), told.why, deps.now_us()))

    _add_audience(router, deps)
    return router


def _add_audience(router: APIRouter, deps: Deps) -> None:
    @router.get("/watched/{id}/search")
    def audience(
        _: Annotated[Actor, Depends(permitted("search.open", things.watched))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> AudienceJson:
        """How many people would be told if a search were opened now. It says nothing of the person."""
        now_us = deps.now_us()
        with deps.state.read() as connection:
            try:
                told = _search(deps).audience(connection, id, now_us)
            except NobodyError as error:
                raise Problem(404, error) from error
        return {"now_us": now_us, "family": told.family, "office": told.office, "volunteers": told.volunteers}


def _by(deps: Deps, actor: Actor) -> str:
    """Who it was, for the history: one of the staff, or a family's contact."""
    return STAFF + actor.name if actor.contact is None or may(actor, "search.open", None, deps.world) else actor.contact


def _looked(connection: Connection, deps: Deps, actor: Actor, found: SearchWithAllJson) -> None:
    """What is answered says where a tag was."""
    looked(connection, who_of(actor), found["watched"], "search", f"search/{found['id']}", deps.now_us(), deps.look_every_us)


def _search(deps: Deps) -> Search:
    if deps.search is None:
        raise NotHere("[people]")
    return deps.search


def _case(search: Search, connection: Connection, id_: str) -> Row[Any]:
    try:
        return search.case(connection, id_)
    except NoSearchError as error:
        raise Problem(404, "why.no_search") from error
