"""What is past its retention when it comes: a node that was silent for weeks sends where tags were then. Counted, and dropped.

It is settled all the same, so that the node deletes it too. An alarm is never dropped for its age.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, update

from gateway.keeping.config import KeepConfig
from gateway.state.tables import removals
from gateway.state.upsert import upsert

DAY_US = 86_400 * 1_000_000

Late = Callable[[Any, int, int], str | None]
"""late(event, time_us, now_us) -> the kind that it is past the retention of; None: it is taken."""


def late_by(keep: KeepConfig) -> Late:
    """What drops, by this configuration."""
    sightings_us, events_us = keep.sightings * 1_000_000, keep.events * 1_000_000

    def late(event: Any, time_us: int, now_us: int) -> str | None:
        if getattr(event, "tag", None) is not None:
            # A button that was pressed is an alarm, and where a tag was: weeks later it calls nobody.
            return "sightings" if time_us < now_us - sightings_us else None
        if event.class_ != "alarm" and time_us < now_us - events_us:
            return "events"
        return None

    return late


def never(_event: Any, _time_us: int, _now_us: int) -> None:
    """Takes everything."""


def everybody(_tag: str) -> bool:
    """Takes every tag for one of ours."""
    return True


class Keeps(NamedTuple):
    """What may be stored at all of what comes."""

    is_ours: Callable[[str], bool] = everybody
    """Of a tag: whether somebody is enrolled for it. Others are dropped before they are stored."""
    late: Late = never
    """What is past its retention when it comes."""


TAKES_ALL = Keeps()


def count(connection: Connection, kind: str, number: int, now_us: int, node: str = "") -> None:
    """Adds to what was forgotten today. `node`: which sent it too late; empty: it was here, and its time was over."""
    if number:
        row = {"kind": kind, "node": node, "day_us": now_us - now_us % DAY_US}
        connection.execute(upsert(removals), {**row, "count": 0})
        same = [removals.c[name] == value for name, value in row.items()]
        connection.execute(update(removals).where(*same).values(count=removals.c.count + number))


def count_late(connection: Connection, late: Mapping[tuple[str, str], int], now_us: int) -> None:
    """The same of a group of messages: (kind, node) -> how many."""
    for (kind, node), number in late.items():
        count(connection, kind, number, now_us, node)


def dropped(connection: Connection, since_us: int) -> dict[str, dict[str, int]]:
    """What came too late since then: node -> kind -> how many."""
    query = select(removals).where(removals.c.node != "", removals.c.day_us >= since_us - since_us % DAY_US)
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(query.order_by(removals.c.node, removals.c.kind)):
        of = found.setdefault(row.node, {})
        of[row.kind] = of.get(row.kind, 0) + row._mapping["count"]
    return found
