"""The law of looking at where people's tags were, on the side of the API: who may see it, why, and the entry before the answer.

Family needs no reason; while a tag of theirs is stopped, or no consent holds, it sees nothing. Staff needs none while the person
is searched for, or an alert about them is not over; then that is the reason. In any other case they say why, in their own words,
which the family can read.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

from fastapi import Query
from sqlalchemy import select

from gateway.api.deps import Deps
from gateway.api.problems import Problem
from gateway.audit import who_of
from gateway.mimamori.looks import What, note, reasons, still
from gateway.policy import Actor, Extent
from gateway.state.tables import watched

WhyQuery = Annotated[
    str | None,
    Query(max_length=200, description="Why you look, in your own words: the person's family can read it."),
]
PlacesQuery = Annotated[bool, Query(description="false: everything but where tags were; needs no reason.")]


def shown(deps: Deps, theirs: Extent, why: str | None, people: Iterable[str] | None = None) -> dict[str, str]:
    """Of whom the caller may be shown now where their tags were, each with the reason. `people` None: all that are theirs.

    400 for a reason that only the gateway gives.
    """
    said = (why or "").strip()
    if said.startswith(("search/", "alert/")):
        raise Problem(400, "why.own_words")
    if people is None and not theirs.everything:
        people = theirs.people
    ids = None if people is None else set(people)
    if ids is not None and not ids:
        return {}
    with deps.state.read() as connection:
        known = reasons(connection, ids)
        if theirs.everything:
            if not said:
                return known
            everybody = {*connection.scalars(select(watched.c.id)), *known} if ids is None else ids
            return dict.fromkeys(everybody, said)
        ids = ids or set()
        return {id_: said or known.get(id_, "") for id_ in ids - still(connection, ids, deps.now_us())}


def look(deps: Deps, actor: Actor, people: Iterable[str], what: What, why: str | None, *, is_staff: bool) -> None:
    """Logs looks at these people, before they are answered. 400 where staff must say why and does not.

    `what` is `place`: a list, in which family finds a person without their place where nothing may be shown; else 403.
    """
    ids = set(people)
    found = shown(deps, Extent(everything=is_staff, people=frozenset(ids)), why, ids)
    if is_staff and not found.keys() >= ids:
        raise Problem(400, "why.say_why" if what == "place" else "why.alert_over")
    if what != "place" and not found.keys() >= ids:
        raise Problem(403, "why.tag_stopped")
    look_for(deps, actor, found, what)


def look_for(deps: Deps, actor: Actor, why: Mapping[str, str], what: What) -> None:
    """Logs looks at these people, each with its reason."""
    note(deps.state, who_of(actor), why, what, deps.now_us(), deps.look_every_us)
