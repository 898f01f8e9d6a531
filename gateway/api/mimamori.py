"""Who is watched over: entered, changed, forgotten, and where their tags were heard last. Concerns persons, whatever it says."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from edge.contract.events import MAX_SEQ
from gateway.api.deps import Deps, permitted, sifted
from gateway.api.looking import PlacesQuery, WhyQuery, look
from gateway.api.problems import Problem
from gateway.audit import who_of
from gateway.keeping import erasing
from gateway.mimamori import consent, enrolment
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Consent, Consents, Given, NoConsent
from gateway.mimamori.enrolled import WATCHED, Watched
from gateway.mimamori.enrolment import Entry, NotEnrolled, Town
from gateway.mimamori.knowing import CONSENT_US
from gateway.policy import Actor, Thing, extent, may
from gateway.rules.presence import state
from gateway.state.tables import rule_states, tags, watched

IdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
TagPath = Annotated[str, Path(pattern=r"^[a-z0-9:-]{1,80}$")]
SILENT_AFTER_S = 900


class WatchedJson(TypedDict):
    """One person. `state` is home, near, away, no_coverage or never; `place` is where the tag was heard last, not where it is.

    Where nothing is taken in any more it is `lapsed` (no consent holds) or `stopped` (every tag was reported). `stopped`: tags
    that were reported, until an officer decides: till then their place is shown to officers only. Where places were not asked
    for, and in answers to changes, `state` (but for those two), `place`, `seen_us` and `age_s` are null: nobody looked.
    `consent_url`: where family says whether it goes on; null to everybody else.
    """

    id: str
    name: str
    family: str
    homes: list[str]
    tags: list[str]
    stopped: list[str]
    consent: "ConsentJson"
    consent_url: str | None
    state: str | None
    place: str | None
    seen_us: int | None
    age_s: float | None


class ConsentJson(TypedDict):
    """On whose word. `state`: held, due (asked, no word yet), ending (told that it will stand still), missing, lapsed, revoked.

    `stops_us`: the day on which the watch stands still unless somebody says a word before.
    """

    state: str
    basis: str | None
    given_by: str | None
    relation: str | None
    entitled_by: str | None
    given_us: int | None
    entered_us: int | None
    entered_by: str
    confirm_by_us: int | None
    stops_us: int | None
    lapsed_us: int | None


class AllWatchedJson(TypedDict):
    """Everybody; `now_us` is the gateway's clock."""

    now_us: int
    watched: list[WatchedJson]


class SaidConsent(BaseModel):
    """Who agreed that a person is watched over."""

    model_config = ConfigDict(extra="forbid")

    basis: Annotated[Literal["self", "representative"], Field(description="The person, or somebody who may agree for them.")]
    given_by: Annotated[str, Field(min_length=1, max_length=60, description="The name of who agreed.")]
    relation: Annotated[str, Field(max_length=60, description="Of a representative: daughter.")] = ""
    entitled_by: Annotated[str, Field(max_length=200, description="Of a representative: their right to it, what shows it.")] = ""
    given_us: Annotated[int | None, Field(ge=0, le=MAX_SEQ, description="When, in UTC µs; null: now.")] = None

    def given(self) -> Given:
        """As the table takes it."""
        return Given(self.basis, self.given_by, self.relation, self.entitled_by, self.given_us)


class Why(BaseModel):
    """Why it is done, for who reads the trail later."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(max_length=200)] = ""


class Person(BaseModel):
    """What is entered of a person."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=40, description="How those who care for them call them.")]
    family: Annotated[str, Field(min_length=1, max_length=32, description="The group that is told.")]
    homes: Annotated[list[str], Field(min_length=1, max_length=20, description="Receivers at home, each as node/device.")]

    consent: Annotated[SaidConsent | None, Field(description="On whose word; needed to enter somebody.")] = None

    def entry(self) -> Entry:
        """As the table takes it."""
        return Entry(self.name, self.family, self.homes)


def routes(deps: Deps) -> APIRouter:
    """GET, POST /watched; PUT, DELETE /watched/{id}; PUT, DELETE /watched/{id}/tags/{tag}; /watched/{id}/consent and below."""
    router = APIRouter()
    consents = deps.consents or Consents(deps.state, MimamoriConfig())

    @router.get("/watched")
    def everybody(
        actor: Annotated[Actor, Depends(sifted("mimamori.read"))], why: WhyQuery = None, places: PlacesQuery = True
    ) -> AllWatchedJson:
        """Those whom the caller watches over, of an officer all, and where their tags were heard last. Each is a look.

        Officers say `why`, unless everybody shown is searched for or has an alert that is not over; 400 otherwise.
        """
        with deps.state.read() as connection:
            deps.enrolled.read(connection)
            memories = presence_memories(connection)
            theirs = extent(actor, "mimamori.read", deps.world)
            sees_all = may(actor, "sighting.read", None, deps.world)
            people = [one for id_ in deps.enrolled.ids() if (one := deps.enrolled.of(id_)) and theirs.covers(Thing(WATCHED, id_))]
            found = [_shown(deps, connection, who, memories, sees_all=sees_all, places=places) for who in people]
        if places:
            look(deps, actor, [one.id for one in people], "place", why, is_staff=theirs.everything)
        if actor.contact is not None and not theirs.everything and deps.answer_page is not None:
            for shown in found:
                shown["consent_url"] = deps.answer_page.links.consent_url(shown["id"], actor.contact, deps.now_us() + CONSENT_US)
        return {"now_us": deps.now_us(), "watched": found}

    @router.post("/watched", status_code=201)
    def enter(actor: Annotated[Actor, Depends(permitted("mimamori.manage"))], told: Annotated[Person, Body()]) -> WatchedJson:
        """Enters a person, on somebody's word. 422 without one, and for what can't be meant: who is entered twice, say."""
        with _or_problem(422), deps.state.write() as connection:
            if told.consent is None:
                raise NoConsent("consent: say on whose word they are watched over; without one nobody is entered")
            enrolment.refuse_doubtful(connection, told.entry(), _town(deps))
            id_ = enrolment.add(connection, told.entry(), told.consent.given(), who_of(actor), deps.now_us(), consents.config)
        return _one(deps, id_)

    @router.put("/watched/{id}")
    def change(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        told: Annotated[Person, Body()],
    ) -> WatchedJson:
        """Changes what was entered; a `consent` is another word, on top of those before."""
        with _or_problem(422), deps.state.write() as connection:
            _known(connection, id)
            enrolment.refuse_doubtful(connection, told.entry(), _town(deps), id)
            if enrolment.change(connection, id, told.entry()) and told.consent is not None:
                consents.enter(connection, id, told.consent.given(), who_of(actor), deps.now_us())
        return _one(deps, id)

    @router.delete("/watched/{id}", status_code=204, response_class=Response)
    def forget(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> Response:
        """Forgets a person, as `revoke` does: everything of them is erased, and family and office hear it. 409 in a search."""
        return _forget(deps, consents, id, actor, "")

    @router.put("/watched/{id}/tags/{tag}")
    def give(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        tag: TagPath,
    ) -> WatchedJson:
        """This tag is theirs from now on. 409 when it is somebody else's, or when no consent holds."""
        with _or_problem(409), deps.state.write() as connection:
            enrolment.give_tag(connection, id, tag, who_of(actor), deps.now_us())
        return _one(deps, id)

    @router.delete("/watched/{id}/tags/{tag}", status_code=204, response_class=Response)
    def take(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        tag: TagPath,
    ) -> Response:
        """The tag is nobody's from now on; where it was is erased, and its key destroyed. 409 in a search."""
        with _or_problem(409), erasing(deps.state, "tag", tag) as connection:
            known = enrolment.take_tag(connection, id, tag, who_of(actor), deps.now_us())
        if known:
            deps.state.empty_log()
        _learn(deps)
        if not known:
            raise Problem(404, "why.no_tag")
        return Response(status_code=204)

    _about_consent(deps, router, consents)
    return router


def _town(deps: Deps) -> Town:
    """What is configured, as far as this gateway tells people at all."""
    groups = deps.desk.joining.groups if deps.desk is not None else {}
    office = deps.labels.office if deps.labels is not None else None
    return Town(
        {name: group.role for name, group in groups.items()}, office, {(one.node, one.device) for one in deps.deployments}
    )


def _about_consent(deps: Deps, router: APIRouter, consents: Consents) -> None:
    """POST /watched/{id}/consent, and confirm and revoke below it."""

    @router.post("/watched/{id}/consent")
    def agree(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        told: Annotated[SaidConsent, Body()],
    ) -> WatchedJson:
        """Puts a word on record, on top of those before; a watch that stood still for want of one goes on. 422 for none."""
        with _or_problem(422), deps.state.write() as connection:
            _known(connection, id)
            consents.enter(connection, id, told.given(), who_of(actor), deps.now_us())
        deps.ring_deliveries()
        return _one(deps, id)

    @router.post("/watched/{id}/consent/confirm")
    def confirm(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
    ) -> WatchedJson:
        """They have said again that it goes on, to the office. 409 where there is no word that could be said again."""
        with _or_problem(409), deps.state.write() as connection:
            _known(connection, id)
            consents.confirm(connection, id, who_of(actor), deps.now_us())
        deps.ring_deliveries()
        return _one(deps, id)

    @router.post("/watched/{id}/consent/revoke", status_code=204, response_class=Response)
    def revoke(
        actor: Annotated[Actor, Depends(permitted("mimamori.manage"))],
        id: IdPath,  # noqa: A002 - the word of the path
        told: Annotated[Why, Body()],
    ) -> Response:
        """Ends the watch for good: erases where the tags were, destroys their keys, forgets the person. 409 in a search."""
        return _forget(deps, consents, id, actor, told.why)


def _forget(deps: Deps, consents: Consents, id_: str, actor: Actor, why: str) -> Response:
    with _or_problem(409), erasing(deps.state, "watched", id_) as connection:
        _known(connection, id_)
        consents.revoke(connection, id_, who_of(actor), deps.now_us(), why)
    deps.state.empty_log()
    _learn(deps)
    deps.ring_deliveries()
    return Response(status_code=204)


def _shown(
    deps: Deps, connection: Connection, who: Watched, memories: Mapping[str, dict[str, Any]], *, sees_all: bool = True,
    places: bool = True,
) -> WatchedJson:  # fmt: skip
    memory, now_us = memories.get(who.id, {}), deps.now_us()
    seen_us, seen_at = memory.get("seen_us"), memory.get("seen_at", "")
    node, _, device = seen_at.partition("/")
    theirs = connection.execute(select(tags).where(tags.c.watched == who.id).order_by(tags.c.tag)).all()
    stopped = [row.tag for row in theirs if row.stopped_us is not None]
    held = consent.standing(connection, who.id, now_us)
    is_over = held.state in ("lapsed", "revoked")
    how = state(memory, who.homes, now_us, SILENT_AFTER_S)
    if is_over or (stopped and len(stopped) == len(theirs)):
        how = "lapsed" if is_over else "stopped"
    places = places and (sees_all or not stopped)
    if not places:
        seen_at, seen_us = "", None
    return {
        "id": who.id,
        "name": who.name,
        "family": who.family,
        "homes": sorted("/".join(home) for home in who.homes),
        "tags": [row.tag for row in theirs],
        "stopped": stopped,
        "consent": _consent_json(held),
        "consent_url": None,
        "state": how if places or how in ("lapsed", "stopped") else None,
        "place": deps.deployments.of(node, device).place if seen_at else None,
        "seen_us": seen_us,
        "age_s": None if seen_us is None else max(now_us - seen_us, 0) / 1e6,
    }


def _one(deps: Deps, id_: str) -> WatchedJson:
    """One person, known anew to the rules."""
    _learn(deps)
    who = deps.enrolled.of(id_)
    if who is None:
        raise _nobody()
    with deps.state.read() as connection:
        return _shown(deps, connection, who, presence_memories(connection), places=False)


def _learn(deps: Deps) -> None:
    with deps.state.read() as connection:
        deps.enrolled.read(connection)


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
    except (NotEnrolled, NoConsent) as error:
        raise Problem(status, error) from error


def _known(connection: Connection, id_: str) -> None:
    if connection.scalar(select(watched.c.id).where(watched.c.id == id_)) is None:
        raise _nobody()


def _consent_json(held: Consent) -> ConsentJson:
    given = held.given
    return {
        "state": held.state,
        "basis": given.basis if given else None,
        "given_by": given.by if given else None,
        "relation": given.relation if given else None,
        "entitled_by": given.entitled if given else None,
        "given_us": given.given_us if given else None,
        "entered_us": held.entered_us,
        "entered_by": held.entered_by,
        "confirm_by_us": held.confirm_by_us,
        "stops_us": held.stops_us,
        "lapsed_us": held.lapsed_us,
    }


def _nobody() -> Problem:
    return Problem(404, "why.nobody")
