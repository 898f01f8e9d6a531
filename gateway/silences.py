"""The table of silences: what must not be told, from when until when, by whom and why. What they do: gateway.alerting.mute."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from gateway.alerting.mute import Silence
from gateway.alerting.route import Match
from gateway.state.tables import silences
from gateway.words.refusal import Refusal

LONGEST_DAYS = 31
LONGEST_US = LONGEST_DAYS * 86_400_000_000
"""A silence that nobody remembers is how alarms are lost."""

_NOW = (
    select(silences.c.id, silences.c.match, silences.c.from_us, silences.c.until_us)
    .where(silences.c.ended_us.is_(None), silences.c.from_us <= bindparam("now_us"), silences.c.until_us > bindparam("now_us"))
    .order_by(silences.c.id)
)


class Wrong(Refusal):
    """This silence can't be made."""


def in_effect(connection: Connection, now_us: int) -> tuple[Silence, ...]:
    """Those that hold now."""
    rows = connection.execute(_NOW, {"now_us": now_us})
    return tuple(Silence(row.id, Match.model_validate_json(row.match), row.from_us, row.until_us) for row in rows)


def add(
    connection: Connection, match: Match, from_us: int | None, until_us: int, why: str, who: str, now_us: int
) -> Mapping[str, Any]:
    """Makes one, from now where `from_us` is None; its row. Wrong when it would mute all, nothing, or for too long."""
    from_us = now_us if from_us is None else from_us
    if not match.model_dump(exclude_none=True):
        raise Wrong("why.silence_all")
    if until_us <= max(from_us, now_us):
        raise Wrong("why.until")
    if until_us - from_us > LONGEST_US:
        raise Wrong("why.at_most_days", n=LONGEST_DAYS)
    row = {
        "match": json.dumps(match.model_dump(exclude_none=True)), "from_us": from_us, "until_us": until_us, "why": why,
        "created_us": now_us, "created_by": who,
    }  # fmt: skip
    done = connection.execute(insert(silences).values(row))
    assert done.inserted_primary_key is not None  # noqa: S101 - the table numbers its rows
    return {"id": done.inserted_primary_key[0], **row, "ended_us": None, "ended_by": None}


def end(connection: Connection, id_: int, who: str, now_us: int) -> bool:
    """Ends one before its time. False when there is none that goes on or is to come."""
    done = connection.execute(
        update(silences)
        .where(silences.c.id == id_, silences.c.ended_us.is_(None), silences.c.until_us > now_us)
        .values(ended_us=now_us, ended_by=who)
    )
    return done.rowcount == 1


def listed(connection: Connection, now_us: int, *, over: bool = False, limit: int = 200) -> list[Mapping[str, Any]]:
    """Rows, the newest first: those that go on or are to come, or with `over` all."""
    query = select(silences).order_by(silences.c.id.desc()).limit(limit)
    if not over:
        query = query.where(silences.c.ended_us.is_(None), silences.c.until_us > now_us)
    return [dict(row) for row in connection.execute(query).mappings()]


def one(connection: Connection, id_: int) -> Mapping[str, Any]:
    """The row with this id, which there must be."""
    return dict(connection.execute(select(silences).where(silences.c.id == id_)).mappings().one())
