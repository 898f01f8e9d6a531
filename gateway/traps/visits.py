"""Visits: somebody was at a trap. Rows of `visits`, each with its fact, each made once, whatever is sent again.

Only a person makes one: by the box's button, by the trap's QR, or by a form. Who it was stands here and in no event.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, select

from gateway.own_facts import VISITED, add_fact
from gateway.state.tables import visits
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

Result = Literal["set", "capture", "empty", "moved", "removed"]
"""What the visitor found, or left: a trap that is set, a capture, sprung and empty, moved, taken away."""
UNSAID = "unsaid"
"""The result of a visit by the button, which says no more than that somebody is there."""

LATE_US = 5 * 60 * 1_000_000
OLDEST_DAYS = 30
OLDEST_US = OLDEST_DAYS * 24 * 3600 * 1_000_000
"""A phone may have been without a link for some days; what is older was typed wrongly."""

_NAMESPACE = uuid.UUID("5c0c4c0b-94a5-5d0c-9d5f-0c8a8c1f0a11")


class Visit(NamedTuple):
    """One visit, as its row. `id` is a UUID that whoever reports it has made, so that it may be reported again."""

    id: str
    node: str
    device: str
    at_us: int
    who: str
    via: Literal["button", "qr", "form"]
    result: str
    note: str = ""


class NotTaken(Refusal):
    """This visit can't be entered."""


def add_visit(connection: Connection, visit: Visit, now_us: int) -> dict[str, Any] | None:
    """Enters a visit with its fact. Returns the fact's row; None where it was entered before. NotTaken for what can't be."""
    if visit.at_us > now_us + LATE_US:
        raise NotTaken("why.visit_future")
    if visit.at_us < now_us - OLDEST_US:
        raise NotTaken("why.visit_old", n=OLDEST_DAYS)
    visit = visit._replace(at_us=min(visit.at_us, now_us))
    known = connection.execute(select(visits).where(visits.c.id == visit.id)).mappings().first()
    if known is not None:
        if any(known[name] != getattr(visit, name) for name in ("node", "device", "via", "result")):
            raise NotTaken("why.visit_other")
        return None
    connection.execute(upsert(visits), {**visit._asdict(), "recorded_us": now_us})
    body = {"visit": visit.id, "via": visit.via, "result": visit.result}
    late = now_us - visit.at_us > LATE_US
    return add_fact(connection, visit.node, visit.device, VISITED, body, visit.at_us, now_us, late=late)


def commit_visits(connection: Connection, new_events: Iterable[Mapping[str, Any]]) -> None:
    """Enters the visits that traps' buttons said, among these new rows of `events`, in the transaction that commits them."""
    for event in new_events:
        if event["type"] != VISITED:
            continue
        id_ = str(uuid.uuid5(_NAMESPACE, json.dumps([event["node"], event["epoch"], event["seq"]])))
        row = Visit(id_, event["node"], event["device"], event["time_us"], "", "button", UNSAID)
        connection.execute(upsert(visits), {**row._asdict(), "recorded_us": event["received_us"]})
