"""What of a list is somebody's: an Extent as a condition of SQL, so that no count, no page's end and no limit tells more.

The same question for rows in hand is `Extent.covers`; a test holds the two together.
"""

from sqlalchemy import ColumnElement, and_, exists, false, not_, or_, select, true, tuple_

from gateway.mimamori.enrolled import WATCHED
from gateway.policy import Extent
from gateway.state.tables import alerts, page_alerts, pages, search_cases


def of_device(theirs: Extent, node: ColumnElement[str], device: ColumnElement[str]) -> ColumnElement[bool]:
    """Rows about a device, a person (`watched`, id), or what else stands for one."""
    if theirs.everything:
        return true()
    things = [
        *([true()] if theirs.things else []),
        *([node.in_(theirs.nodes)] if theirs.nodes else []),
        *([tuple_(node, device).in_(sorted(theirs.devices))] if theirs.devices else []),
    ]
    people = [and_(node == WATCHED, device.in_(theirs.people))] if theirs.people else []
    return or_(false(), and_(node != WATCHED, or_(false(), *things)), *people)


def of_node(theirs: Extent, node: ColumnElement[str]) -> ColumnElement[bool]:
    """Rows about a node as a whole."""
    return true() if theirs.everything or theirs.things else node.in_(theirs.nodes)


def of_case(theirs: Extent) -> ColumnElement[bool]:
    """Rows of `search_cases`."""
    if theirs.everything:
        return true()
    return or_(search_cases.c.watched.in_(theirs.people), search_cases.c.id.in_(theirs.cases))


def of_page(theirs: Extent) -> ColumnElement[bool]:
    """Rows of `pages`: by their alerts, or by the search they ask for. What is about a person too is about them alone."""
    if theirs.everything:
        return true()
    told = select(page_alerts.c.alert).join(alerts, alerts.c.id == page_alerts.c.alert).where(page_alerts.c.page == pages.c.id)
    search = or_(search_cases.c.page == pages.c.id, search_cases.c.helpers_page == pages.c.id)
    of_person = or_(exists(told.where(alerts.c.node == WATCHED)), exists(select(search_cases.c.id).where(search)))
    theirs_told = exists(told.where(of_device(theirs, alerts.c.node, alerts.c.device)))
    of_nothing = and_(not_(exists(told)), true() if theirs.things else false())
    theirs_search = exists(select(search_cases.c.id).where(search, of_case(theirs)))
    person_told = exists(told.where(alerts.c.node == WATCHED, of_device(theirs, alerts.c.node, alerts.c.device)))
    return or_(and_(not_(of_person), or_(theirs_told, of_nothing)), theirs_search, person_told)
