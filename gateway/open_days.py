"""What is published, and when: days in `open_days`, captures in `open_captures`, each once, when its delay is over.

What they say: gateway.open_data.
"""

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from gateway.deployments import Deployments
from gateway.flow.config import AreaConfig
from gateway.open_data import (
    OpenCaptures,
    OpenDataConfig,
    OpenDay,
    bounds_of,
    heard_since,
    hours_of,
    newest_day,
    open_capture,
    open_day,
    said_meshes,
)
from gateway.state import State
from gateway.state.tables import captures, open_captures, open_days
from gateway.state.upsert import upsert
from gateway.store import SeriesReader

MOST_DAYS = 31
"""Of one area at one look: after a long stop the rest follows at the next."""
SHOWN_DAYS = 366
"""In one answer that names no month: everybody may ask, and an answer must not grow from year to year."""


class OpenDays:
    """The chore that publishes."""

    def __init__(
        self, state: State, store: SeriesReader, config: OpenDataConfig, areas: Mapping[str, AreaConfig], zone: ZoneInfo
    ) -> None:
        self._state, self._store, self._config, self._areas, self._zone = state, store, config, areas, zone

    def run(self, now_us: int) -> int:
        """Publishes the days that are due, from the last published one on; how many. Of a new area: the newest one.

        A day waits until one of the area's counters was heard after it.
        """
        newest, made = newest_day(now_us, self._config.delay_days, self._zone), 0
        for name in self._config.areas:
            with self._state.read() as connection:
                last = connection.scalar(select(func.max(open_days.c.day)).where(open_days.c.area == name))
            day = newest if last is None else date.fromisoformat(last) + timedelta(days=1)
            for _ in range(MOST_DAYS):
                bounds = bounds_of(day, self._zone)
                # A clock that jumped ahead would publish, for good, that nobody knows of days that have not been yet.
                if day > newest or not heard_since(self._store, self._areas[name], bounds[1]):
                    break
                hours = hours_of(self._store, self._areas[name], *bounds)
                body = json.dumps(open_day(name, self._areas[name], day, hours, self._zone), ensure_ascii=False)
                row = {"area": name, "day": day.isoformat(), "body": body, "published_us": now_us}
                with self._state.write() as connection:
                    connection.execute(upsert(open_days), row)  # where two gateways do so at once, the first one's counts
                day += timedelta(days=1)
                made += 1
        return made


class CapturesOpened:
    """The chore that publishes captures."""

    def __init__(self, state: State, config: OpenDataConfig, deployments: Deployments, zone: ZoneInfo) -> None:
        self._state, self._config, self._deployments, self._zone = state, config, deployments, zone

    def run(self, now_us: int) -> int:
        """Publishes complete dossiers of months whose delay is over, also those that were completed late; how many."""
        until = newest_day(now_us, self._config.delay_days, self._zone) + timedelta(days=1)
        until_us, _ = bounds_of(until.replace(day=1), self._zone)
        sprung_us = func.coalesce(captures.c.sprung_us, captures.c.opened_us)
        query = select(captures.c.id, captures.c.node, captures.c.device, captures.c.species, sprung_us.label("at_us")).where(
            captures.c.completed_us.is_not(None), sprung_us < until_us, captures.c.id.not_in(select(open_captures.c.capture))
        )
        said, rows = said_meshes(self._deployments), []
        with self._state.read() as connection:
            for row in connection.execute(query):
                mesh, kind = open_capture(row.species, self._deployments.of(row.node, row.device), said)
                month = datetime.fromtimestamp(row.at_us / 1e6, self._zone).strftime("%Y-%m")
                rows.append({"capture": row.id, "month": month, "mesh": mesh, "species": kind})
        if rows:
            with self._state.write() as connection:
                connection.execute(upsert(open_captures), rows)
        return len(rows)


def published_captures(connection: Connection) -> list[OpenCaptures]:
    """What everybody may know of captures, in order."""
    here = open_captures.c
    cells = select(here.month, here.mesh, here.species, func.count()).group_by(here.month, here.mesh, here.species)
    return [
        {"month": month, "mesh": mesh or None, "species": species, "captures": number}
        for month, mesh, species, number in connection.execute(cells.order_by(here.month, here.mesh, here.species))
    ]


def newest_published(connection: Connection, areas: list[str]) -> str | None:
    """The newest published day of any of these areas."""
    found: str | None = connection.scalar(select(func.max(open_days.c.day)).where(open_days.c.area.in_(areas)))
    return found


def published(connection: Connection, areas: list[str], month: str | None) -> list[OpenDay]:
    """The published days of these areas, in order; of one month (2026-06), or the newest `SHOWN_DAYS`."""
    query = select(open_days.c.body).where(open_days.c.area.in_(areas)).order_by(open_days.c.day, open_days.c.area)
    if month is not None:
        query = query.where(open_days.c.day.between(f"{month}-01", f"{month}-31"))
    elif newest := newest_published(connection, areas):
        query = query.where(open_days.c.day > (date.fromisoformat(newest) - timedelta(days=SHOWN_DAYS)).isoformat())
    return [json.loads(body) for body in connection.scalars(query)]
