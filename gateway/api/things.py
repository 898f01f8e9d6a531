"""What each route is about: the `of` of `permitted`, one statement each. Reads only, and only what says whose something is.

Parameters come as they were written: not checked yet, perhaps no name, no id, absent. What there is nothing of is empty, and is
refused like what is somebody else's.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, or_, select

from gateway.api.deps import Deps
from gateway.mimamori.enrolled import WATCHED
from gateway.policy import Thing
from gateway.state.tables import alerts, capture_photos, captures, page_alerts, pages, pictures, search_cases

Params = Mapping[str, str]
GATEWAY = Thing("gateway")
"""What concerns no device: a message of the town's mode, a test."""
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
    """{sha256}: the cameras that told of it, and the traps whose dossiers it is in."""
    sha256 = _said(params, "sha256")
    taken = select(pictures.c.node, pictures.c.device).where(pictures.c.sha256 == sha256)
    proves = select(captures.c.node, captures.c.device).join(capture_photos, capture_photos.c.capture == captures.c.id)
    return [*_rows(deps, taken), *_rows(deps, proves.where(capture_photos.c.sha256 == sha256))]


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
