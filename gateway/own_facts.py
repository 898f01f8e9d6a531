"""Facts that the gateway makes itself: rows of `events` with the epoch `gateway`, so that rules see them as they see any other.

A fact stands in one transaction with what it tells of. It names no person: events are read by more people than names are.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select

from gateway.state.tables import events

EPOCH = "gateway"
"""Of all facts that the gateway makes. No node has it: theirs are 16 hex digits."""

VISITED = "trap_visited"
"""Somebody was there: `{"visit": id, "via": "qr" | "form", "result": ...}`. The node's own event of this name, its button's, says
nothing more."""
DOSSIER = "dossier_changed"
"""A capture's dossier: `{"capture": id, "opened_us": ..., "missing": [...], "completed": true | false}`."""
CONFIRMED = "picture_confirmed"
"""A person says what a picture shows: `{"media": sha256, "content": ..., "species": ... | null}`."""
RECOUNTED = "area_recounted"
"""Somebody counted heads: `{"counted": 120}`."""
TOWN_MODE = "town_mode"
"""The town's mode: `{"mode": "disaster"}`."""
OWN_TYPES = (VISITED, DOSSIER, CONFIRMED, RECOUNTED, TOWN_MODE)
"""All of them."""


def add_fact(
    connection: Connection,
    node: str,
    device: str,
    type_: str,
    body: Mapping[str, Any],
    time_us: int,
    now_us: int,
    *,
    late: bool = False,
) -> dict[str, Any]:
    """Writes one about a device (or another subject), as of `time_us`. Returns the row, for the live stream.

    Nothing tells a repetition: who calls writes, in the same transaction, a row of its own that can't be written twice.
    """
    here = (events.c.node == node, events.c.epoch == EPOCH)
    seq = (connection.scalar(select(func.max(events.c.seq)).where(*here)) or 0) + 1
    row = {
        "node": node,
        "epoch": EPOCH,
        "seq": seq,
        "device": device,
        "type": type_,
        "class_": "alarm" if type_ == VISITED else "evidence",
        "time_us": time_us,
        "node_time_us": time_us,
        "received_us": now_us,
        "late": late,
        "clock_trusted": True,
        "boot": None,
        "body": json.dumps(dict(body), ensure_ascii=False, separators=(",", ":")),
    }
    connection.execute(insert(events).values(row))
    return row
