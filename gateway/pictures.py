"""What a picture shows and who may see it: as its event said, and as a person has said since. Rows of `pictures`, one rule.

A picture opens to everybody who may see pictures only where a model has seen an animal, or a person who looked has said that
nobody is in it. Nothing known of it, or told differently by two nodes: the strictest counts.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gateway.state.tables import pictures

_STRICTNESS = ("animal", "unclassified", "unsure", "person_or_vehicle")  # what a later event may make of an earlier one


def commit_pictures(connection: Connection, new_events: Iterable[Mapping[str, Any]]) -> None:
    """Notes what the `media_captured` among these rows of `events` say of their pictures."""
    for event in new_events:
        if event["type"] != "media_captured":
            continue
        said = json.loads(event["body"])
        here = (pictures.c.sha256 == said["media"], pictures.c.node == event["node"])
        known = connection.scalar(select(pictures.c.content).where(*here))
        if known is None:
            connection.execute(
                insert(pictures).values(
                    sha256=said["media"], node=event["node"], device=event["device"], content=said["content"],
                    withheld=said["withheld"], captured_us=event["time_us"],
                )
            )  # fmt: skip
        else:
            content = max(known, said["content"], key=_STRICTNESS.index)
            connection.execute(update(pictures).where(*here).values(content=content, withheld=said["withheld"]))


def is_open(connection: Connection, sha256: str) -> bool:
    """Whether everybody who may see pictures may see this one."""
    rows = connection.execute(select(pictures.c.content, pictures.c.cleared_us).where(pictures.c.sha256 == sha256)).all()
    return bool(rows) and all(row.content == "animal" or row.cleared_us is not None for row in rows)


def clear(connection: Connection, sha256: str, who: str, now_us: int) -> None:
    """Notes that somebody looked and saw nobody in it. Who said so first stays."""
    connection.execute(
        update(pictures)
        .where(pictures.c.sha256 == sha256, pictures.c.cleared_us.is_(None))
        .values(cleared_us=now_us, cleared_by=who)
    )


def unclear(connection: Connection, sha256: str) -> None:
    """Takes that back."""
    connection.execute(update(pictures).where(pictures.c.sha256 == sha256).values(cleared_us=None, cleared_by=None))
