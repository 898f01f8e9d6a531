"""Looks at where people's tags were, on the side of the API: the reason that staff give, and the entry before the answer.

Family needs no reason. Staff needs none while the person is searched for, or an alert about them is not over; then that is the
reason. In any other case they say why, in their own words, which the family can read.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

from fastapi import Query

from gateway.api.deps import Deps
from gateway.api.problems import Problem
from gateway.audit import who_of
from gateway.mimamori.looks import What, note, reasons
from gateway.policy import Actor

WhyQuery = Annotated[
    str | None,
    Query(max_length=200, description="Why you look, in your own words: the person's family can read it."),
]
PlacesQuery = Annotated[bool, Query(description="false: everything but where tags were; needs no reason.")]
NO_REASON = (
    "Say why you look, by ?why=...: for somebody here there is neither a search nor an open alert. "
    "Their family can read it. With ?places=false you get everything but where tags were."
)


def look(deps: Deps, actor: Actor, people: Iterable[str], what: What, why: str | None, *, is_staff: bool) -> None:
    """Logs looks at these people, before they are answered. 400 where staff must say why and does not."""
    said = (why or "").strip()
    if said.startswith(("search/", "alert/")):
        raise Problem(400, "why: say it in your own words.")
    ids = list(people)
    if said:
        found: Mapping[str, str] = dict.fromkeys(ids, said)
    else:
        with deps.state.read() as connection:
            known = reasons(connection, ids)
        if is_staff and not known.keys() >= set(ids):
            raise Problem(400, NO_REASON)
        found = {id_: known.get(id_, "") for id_ in ids}
    look_for(deps, actor, found, what)


def look_for(deps: Deps, actor: Actor, why: Mapping[str, str], what: What) -> None:
    """Logs looks at these people, each with its reason."""
    note(deps.state, who_of(actor), why, what, deps.now_us(), deps.look_every_us)
