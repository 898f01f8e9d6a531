"""Which days are published: rows of `open_days`, each made once, when its delay is over. What they say: gateway.open_data."""

import json
from collections.abc import Mapping
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from gateway.flow.config import AreaConfig
from gateway.open_data import OpenDataConfig, OpenDay, bounds_of, hours_of, newest_day, open_day
from gateway.state import State
from gateway.state.tables import open_days
from gateway.state.upsert import upsert
from gateway.store import SeriesReader

MOST_DAYS = 31
"""Of one area at one look: after a long stop the rest follows at the next."""


class OpenDays:
    """The chore that publishes."""

    def __init__(
        self, state: State, store: SeriesReader, config: OpenDataConfig, areas: Mapping[str, AreaConfig], zone: ZoneInfo
    ) -> None:
        self._state, self._store, self._config, self._areas, self._zone = state, store, config, areas, zone

    def run(self, now_us: int) -> int:
        """Publishes the days that are due, from the last published one on; how many. Of a new area: the newest one."""
        newest, made = newest_day(now_us, self._config.delay_days, self._zone), 0
        for name in self._config.areas:
            with self._state.read() as connection:
                last = connection.scalar(select(func.max(open_days.c.day)).where(open_days.c.area == name))
            day = newest if last is None else date.fromisoformat(last) + timedelta(days=1)
            for _ in range(MOST_DAYS):
                if day > newest:
                    break
                hours = hours_of(self._store, self._areas[name], *bounds_of(day, self._zone))
                body = json.dumps(open_day(name, self._areas[name], day, hours, self._zone), ensure_ascii=False)
                row = {"area": name, "day": day.isoformat(), "body": body, "published_us": now_us}
                with self._state.write() as connection:
                    connection.execute(upsert(open_days), row)  # where two gateways do so at once, the first one's counts
                day += timedelta(days=1)
                made += 1
        return made


def published(connection: Connection, areas: list[str], month: str | None) -> list[OpenDay]:
    """The published days of these areas, in order; of one month (2026-06), or of all time."""
    query = select(open_days.c.body).where(open_days.c.area.in_(areas)).order_by(open_days.c.day, open_days.c.area)
    if month is not None:
        query = query.where(open_days.c.day.like(f"{month}-%"))
    return [json.loads(body) for body in connection.scalars(query)]
