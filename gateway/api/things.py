"""What each route is about: the `of` and `own` of `permitted`, a statement each. Reads only, and only what says whose it is.

Parameters come as they were written: not checked yet, perhaps no name, no id, absent. What there is nothing of is empty, and is
refused like what is somebody else's.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Select, or_, select

from gateway.api.deps import Deps
from gateway.installations import photo_of
from gateway.mimamori.enrolled import WATCHED
from gateway.policy import Actor, Thing
from gateway.state.tables import (
    alerts,
    capture_photos,
    captures,
    contacts,
    installations,
    memberships,
    page_alerts,
    pages,
    pictures,
    search_cases,
)
from gateway.state.tables import (
    watched as watched_people,
)

Params = Mapping[str, str]
GATEWAY = Thing("gateway")
"""What concerns no device: a message of the town's mode, a test."""
PEOPLE = Thing(WATCHED)
"""What concerns people who are watched over, and no one of them: who is in a family, who helps to search."""
PERSONAL = frozenset({"family", "volunteer"})
"""Roles of a group by which somebody sees where people are."""
LONGEST = 128


def node(_: Deps, params: Params) -> Sequence[Thing]:
    """{node}, whether it has spoken or not: a box that is to come is one too."""
    return _named(params, "node")


def device(_: Deps, params: Params) -> Sequence[Thing]:
    """{node} and {device}."""
    return _named(params, "node", "device")


def watched(_: Deps, params: Params) -> Sequence[Thing]:
    """{id} of a person."""
    id_ = _said(params, "id")
    return [Thing(WATCHED, id_)] if id_ else []


def alert(deps: Deps, params: Params) -> Sequence[Thing]:
    """{id} of an alert: its device, or person."""
    return _rows(deps, select(alerts.c.node, alerts.c.device).where(alerts.c.id == _said(params, "id")))


def page(deps: Deps, params: Params) -> Sequence[Thing]:
    """{id} of a page: what it is about. Where that is a person too, only they."""
    return page_things(deps, _said(params, "id"))


def case(deps: Deps, params: Params) -> Sequence[Thing]:
    """{id} of a search."""
    id_ = _said(params, "id")
    with deps.state.read() as connection:
        who = connection.scalar(select(search_cases.c.watched).where(search_cases.c.id == id_))
    return [] if who is None else [Thing(WATCHED, who, id_)]


def capture(deps: Deps, params: Params) -> Sequence[Thing]:
    """{id} of a capture's dossier: its trap."""
    return _rows(deps, select(captures.c.node, captures.c.device).where(captures.c.id == _said(params, "id")))


def picture(deps: Deps, params: Params) -> Sequence[Thing]:
    """{sha256}: the cameras that told of it, the traps whose dossiers it is in, what it was taken of as it was put up."""
    sha256 = _said(params, "sha256")
    taken = select(pictures.c.node, pictures.c.device).where(pictures.c.sha256 == sha256)
    proves = select(captures.c.node, captures.c.device).join(capture_photos, capture_photos.c.capture == captures.c.id)
    with deps.state.read() as connection:
        put_up = [Thing(node, device) for node, device, _ in photo_of(connection, sha256)]
    return [*_rows(deps, taken), *_rows(deps, proves.where(capture_photos.c.sha256 == sha256)), *put_up]


def own_photo(deps: Deps, params: Params, actor: Actor) -> bool:
    """{sha256}: whether the actor took it of what they put up."""
    with deps.state.read() as connection:
        return actor.account in {account for *_, account in photo_of(connection, _said(params, "sha256")) if account}


def own_installation(deps: Deps, params: Params, actor: Actor) -> bool:
    """{id}: whether the actor told of it before."""
    mine = select(installations.c.id).where(installations.c.id == _said(params, "id"), installations.c.account == actor.account)
    with deps.state.read() as connection:
        return actor.account is not None and connection.scalar(mine) is not None


def page_things(deps: Deps, id_: str) -> Sequence[Thing]:
    """What a page is about; empty where there is none with this id."""
    told = select(alerts.c.node, alerts.c.device).join(page_alerts, page_alerts.c.alert == alerts.c.id)
    searched = select(search_cases).where(or_(search_cases.c.page == id_, search_cases.c.helpers_page == id_))
    with deps.state.read() as connection:
        if connection.scalar(select(pages.c.id).where(pages.c.id == id_)) is None:
            return []
        people = [Thing(WATCHED, row.watched, row.id) for row in connection.execute(searched)]
        found = [Thing(row.node, row.device) for row in connection.execute(told.where(page_alerts.c.page == id_))]
    people += [one for one in found if one.node == WATCHED]
    return people or found or [GATEWAY]


def contact(deps: Deps, params: Params) -> Sequence[Thing]:
    """{id} of a contact: people, where what is written there leads to where somebody is; else the gateway."""
    id_ = _said(params, "id")
    mine = select(memberships.c.team).where(memberships.c.contact == id_)
    with deps.state.read() as connection:
        if connection.scalar(select(contacts.c.id).where(contacts.c.id == id_)) is None:
            return []
        return groups_things(deps, connection, connection.scalars(mine).all())


def groups_things(deps: Deps, connection: Connection, groups: Sequence[str]) -> Sequence[Thing]:
    """What being in these groups leads to."""
    roles = deps.accounts.group_roles if deps.accounts is not None else {}
    if any(roles.get(group) in PERSONAL for group in groups):
        return [PEOPLE]
    family = select(watched_people.c.id).where(watched_people.c.family.in_(groups)).limit(1)
    return [GATEWAY] if connection.scalar(family) is None else [PEOPLE]


def _said(params: Params, name: str) -> str:
    """Empty where it can't be the name or id of anything; a database is not even asked."""
    said = params.get(name, "")
    return "" if len(said) > LONGEST or "\0" in said else said


def _named(params: Params, *names: str) -> Sequence[Thing]:
    said = [_said(params, name) for name in names]
    return [Thing(*said)] if all(said) else []


def _rows(deps: Deps, query: Select[tuple[str, str]]) -> list[Thing]:
    with deps.state.read() as connection:
        return [Thing(row.node, row.device) for row in connection.execute(query)]
