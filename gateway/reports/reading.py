"""What the databases know of a month, for `figures`. Reads only; nobody's name, and of watch tags no place either."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, select

from gateway.deployments import Deployment, Deployments
from gateway.flow.config import AreaConfig
from gateway.mimamori.enrolled import WATCHED
from gateway.open_data import hours_of
from gateway.reports.figures import Counted, Device, Figures, Month, Notice, Recount, Watch, checks_of, reckon, silences_of
from gateway.rules.crowd import AREA
from gateway.rules.trap import MOVED, PICTURE, SPRUNG
from gateway.state import State
from gateway.state.tables import alerts, captures, events, recounts, visits
from gateway.store import SeriesReader

NOTICES: Mapping[Watch, tuple[str, ...]] = {
    "traps": (SPRUNG, MOVED, PICTURE),
    "cameras": ("detection", PICTURE),
    "tags": ("left home", "not seen", "tag button"),
    "flow": ("crowd",),
}
"""Alerts that ask people to act, by their summary; that a device is silent, or a battery low, stands in its own table."""
KIND: Mapping[Watch, str] = {"traps": "trap", "cameras": "camera", "tags": "tags", "flow": "flow"}
"""Deployments of each watch."""
_DAY_MS = 86_400_000

Theirs = Callable[[ColumnElement[str], ColumnElement[str]], ColumnElement[bool]]
"""Rows, by node and device, that the reader may see."""


class Town(NamedTuple):
    """What is read from."""

    state: State
    store: SeriesReader
    deployments: Deployments
    areas: Mapping[str, AreaConfig]
    zone: ZoneInfo
    allowed_s: float
    """A device that says nothing for longer is silent."""


def figures_of(town: Town, watch: Watch, month: Month, theirs: Theirs, sees: Callable[[Deployment], bool]) -> Figures:
    """The month's figures, as far as the reader may see. StoreDown where the series store is."""
    with town.state.read() as connection:
        notices = list(_notices(town, connection, watch, month, theirs))
        counted, kinds = _counted(town, connection, watch, month, theirs)
        counts = list(_recounts(town, connection, month)) if watch == "flow" else []
    if watch == "flow":
        counted = list(_people(town, month))
    stand = [one for one in town.deployments if one.kind == KIND[watch] and sees(one)]
    figures = reckon(watch, month, town.zone, notices, counted, kinds, [_device(town, one, month) for one in stand])
    if watch != "flow":
        return figures
    return figures._replace(checks=checks_of(month, [area.label for area in town.areas.values()], counts))


def _notices(town: Town, connection: Connection, watch: Watch, month: Month, theirs: Theirs) -> Iterator[Notice]:
    told = select(alerts).where(
        alerts.c.fired_us >= month.from_us,
        alerts.c.fired_us < month.known_until_us,
        alerts.c.summary.in_(NOTICES[watch]),
    )
    if watch == "tags":
        told = told.where(alerts.c.node == WATCHED)
    elif watch == "flow":
        told = told.where(alerts.c.node == AREA)
    else:
        told = told.where(alerts.c.kind == KIND[watch], theirs(alerts.c.node, alerts.c.device))
    for row in connection.execute(told):
        # A trap's alert ends by who stands before it; any other may end by itself, which nobody has answered.
        ended_us = row.resolved_us if watch == "traps" else None
        answered_us = min((one for one in (row.acknowledged_us, ended_us) if one is not None), default=None)
        yield Notice(_place(town, watch, row.node, row.device), row.fired_us, answered_us)


def _counted(
    town: Town, connection: Connection, watch: Watch, month: Month, theirs: Theirs
) -> tuple[Sequence[Counted], list[str]]:
    """What is counted beside notices; and kinds of animals."""
    found: list[Counted] = []
    if watch == "traps":
        here = visits.c.at_us.between(month.from_us, month.known_until_us - 1)
        rows = connection.execute(select(visits).where(here, theirs(visits.c.node, visits.c.device))).all()
        found += [Counted("visits", _place(town, watch, row.node, row.device), row.at_us) for row in rows]
        caught = select(captures, visits.c.at_us).join(visits, visits.c.id == captures.c.visit)
        rows = connection.execute(caught.where(here, theirs(captures.c.node, captures.c.device))).all()
        found += [Counted("captures", _place(town, watch, row.node, row.device), row.at_us) for row in rows]
        return found, [(row.species or "").strip() for row in rows]
    if watch == "cameras":
        seen = select(events.c.node, events.c.device, events.c.time_us, events.c.body).where(
            events.c.type == PICTURE,
            events.c.time_us.between(month.from_us, month.known_until_us - 1),
            theirs(events.c.node, events.c.device),
        )
        kinds = []
        for row in connection.execute(seen):
            found.append(Counted("pictures", _place(town, watch, row.node, row.device), row.time_us))
            if species := json.loads(row.body).get("species"):
                kinds.append(str(species))
        return found, kinds
    return found, []


def _people(town: Town, month: Month) -> Iterator[Counted]:
    for area in town.areas.values():
        for hour in hours_of(town.store, area, month.from_us, month.known_until_us):
            for what, n in (("came", hour.came), ("left", hour.left)):
                if n is not None:
                    yield Counted(what, area.label, hour.start_us, n)


def _recounts(town: Town, connection: Connection, month: Month) -> Iterator[Recount]:
    here = recounts.c.at_us.between(month.from_us, month.known_until_us - 1)
    for row in connection.execute(select(recounts).where(here)):
        yield Recount(_place(town, "flow", "", row.area), row.at_us, row.counted, row.reckoned)


def _place(town: Town, watch: Watch, node: str, device: str) -> str:
    if watch == "tags":
        return ""
    if watch == "flow":
        return town.areas[device].label if device in town.areas else device
    return town.deployments.of(node, device).place


def _device(town: Town, one: Deployment, month: Month) -> Device:
    name = f"{one.place} {one.label}".strip()
    if town.store.latest(one.node, one.device, "heartbeat") is None:
        return Device(name, None)
    allowed_us = round(town.allowed_s * 1e6)
    slot_ms = max(60_000, allowed_us // 4000)
    # From a day before, in whole slots: what was heard until the month began is no silence.
    start_ms = month.from_us // 1000 - slot_ms * -(-_DAY_MS // slot_ms)
    buckets = town.store.read_bucketed(one.node, one.device, "heartbeat", start_ms, month.known_until_us // 1000, slot_ms)
    heard_us = [bucket.time_ms * 1000 for bucket in buckets]
    return Device(name, silences_of(heard_us, slot_ms * 1000, allowed_us, start_ms * 1000, month.known_until_us))
