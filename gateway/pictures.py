"""What a picture shows and who may see it: as its event said, and as a person has said since. Rows of `pictures`, one rule.

A picture opens to everybody who may see pictures only where a model has seen an animal, or a person who looked has said that
nobody is in it. Nothing known of it, or told differently by two nodes: the strictest counts. What a person says it shows is kept
beside the model's word, never over it; that a person is in it closes it, that an animal is in it opens nothing: what was closed
so opens only when somebody who may see it has looked and cleared it after that.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from gateway.notify.message import Answer
from gateway.own_facts import CONFIRMED, add_fact
from gateway.state.tables import alerts, pictures

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
                    withheld=said["withheld"], captured_us=event["time_us"], species=said.get("species"),
                )
            )  # fmt: skip
        else:
            content = max(known, said["content"], key=_STRICTNESS.index)
            connection.execute(
                update(pictures).where(*here).values(content=content, withheld=said["withheld"], species=said.get("species"))
            )


def is_open(connection: Connection, sha256: str) -> bool:
    """Whether everybody who may see pictures may see this one."""
    rows = connection.execute(select(pictures).where(pictures.c.sha256 == sha256)).all()
    return bool(rows) and not any(_is_closed(row) for row in rows) and all(
        row.content == "animal" or row.cleared_us is not None for row in rows
    )  # fmt: skip


def _is_closed(row: Any) -> bool:
    """Whether a person said that somebody is in it, and nobody has cleared it since."""
    return row.confirmed_content == "person_or_vehicle" and not (row.cleared_us or 0) > row.confirmed_us


def clear(connection: Connection, sha256: str, who: str, now_us: int) -> None:
    """Notes that somebody looked and saw nobody in it. Who said so first stays, unless it was closed after that."""
    closed_since = (pictures.c.confirmed_content == "person_or_vehicle") & (pictures.c.confirmed_us >= pictures.c.cleared_us)
    connection.execute(
        update(pictures)
        .where(pictures.c.sha256 == sha256, pictures.c.cleared_us.is_(None) | closed_since)
        .values(cleared_us=now_us, cleared_by=who)
    )


def unclear(connection: Connection, sha256: str) -> None:
    """Takes that back."""
    connection.execute(update(pictures).where(pictures.c.sha256 == sha256).values(cleared_us=None, cleared_by=None))


Confirmed = Literal["animal", "no_animal", "person_or_vehicle"]
"""What a person can say that a picture shows."""

_ANSWERS: dict[str, tuple[Confirmed, str | None]] = {
    "animal": ("animal", None),
    "no_animal": ("no_animal", None),
    "bear": ("animal", "bear"),
}
"""What the buttons under a camera's message mean."""


def confirm(
    connection: Connection, sha256: str, content: Confirmed, species: str | None, who: str, now_us: int
) -> list[dict[str, Any]]:
    """Keeps what a person says that a picture shows, with a fact of it for each node that told of it. The last word counts.

    But for one in which a person was said to be: a tap on a message that went out before must not take that back.

    Returns the facts' rows, for the live stream: none where nobody told of such a picture, or it was said so already.
    """
    rows = connection.execute(select(pictures).where(pictures.c.sha256 == sha256)).all()
    said = {"media": sha256, "content": content, "species": species}
    facts = []
    for row in rows:
        if (row.confirmed_content, row.confirmed_species) == (content, species) or _is_closed(row):
            continue
        connection.execute(
            update(pictures)
            .where(pictures.c.sha256 == sha256, pictures.c.node == row.node)
            .values(confirmed_content=content, confirmed_species=species, confirmed_us=now_us, confirmed_by=who)
        )
        facts.append(add_fact(connection, row.node, row.device, CONFIRMED, said, now_us, now_us))
    return facts


def confirm_alert(connection: Connection, alert: str, answer: Answer, who: str, now_us: int) -> list[dict[str, Any]]:
    """The same by a button of a camera's message: of the alert's best pictures. Other answers say nothing of them."""
    if answer not in _ANSWERS:
        return []
    content, species = _ANSWERS[answer]
    told = json.loads(connection.scalar(select(alerts.c.facts).where(alerts.c.id == alert)) or "{}")
    return [row for sha256 in told.get("media_all", ()) for row in confirm(connection, sha256, content, species, who, now_us)]
