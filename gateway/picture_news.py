"""A picture that arrives after people were told: whose page is looked at again, who has not seen it. Reads and marks only.

Text goes first: an alert names its best picture by SHA-256 while the bytes are still on their way over a thin link. What is said
of it, and that it is said once, is for the page (gateway.alerting.escalation).
"""

import json
from collections.abc import Iterable

from sqlalchemy import Connection, func, select, update

from gateway.alerting.escalation import Lacking
from gateway.pictures import is_open
from gateway.state.tables import alerts, digest_pages, media, notifications, page_alerts, pages

IMAGES = frozenset(("image/jpeg", "image/png"))
"""What a message's page can show."""
_OPEN = ("waiting", "asking", "answered", "exhausted")  # named, because an index finds what is named


def arrived(connection: Connection, sha256: str) -> None:
    """Has every open page looked at whose alerts name this picture, in the transaction that puts it on record."""
    named = alerts.c.facts.contains(f'"{sha256}"', autoescape=True)
    mine = select(page_alerts.c.page).join(alerts, alerts.c.id == page_alerts.c.alert)
    mine = mine.join(pages, pages.c.id == page_alerts.c.page).where(pages.c.state.in_(_OPEN), named)
    connection.execute(update(pages).where(pages.c.id.in_(mine)).values(changed=True))


def shown(connection: Connection, told: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(alert, SHA-256) of the first picture that everybody may see, of alerts as (id, facts in JSON)."""
    for alert, facts in told:
        sha256 = json.loads(facts).get("media") if '"media":' in facts else None
        if isinstance(sha256, str) and is_open(connection, sha256):
            return alert, sha256
    return None


def lacking(connection: Connection, page: str, told: Iterable[tuple[str, str]]) -> Lacking | None:
    """Who of the page was told before its picture came; None while there is none. `told`: as `shown`, the newest alert first.

    What counts is when a message was really sent: one that waited until the picture was here leads to it by its own link.
    """
    found = shown(connection, told)
    if found is None:
        return None
    alert, sha256 = found
    here = select(media.c.received_us).where(media.c.sha256 == sha256, media.c.content_type.in_(IMAGES))
    received_us = connection.scalar(here)
    if received_us is None:
        return None
    first = select(notifications.c.contact, func.min(notifications.c.sent_us)).group_by(notifications.c.contact)
    of_digest = select(digest_pages.c.notification).where(digest_pages.c.page == page)
    contacts: set[str] = set()
    for mine in (notifications.c.page == page, notifications.c.id.in_(of_digest)):
        rows = connection.execute(first.where(mine, notifications.c.sent_us.is_not(None)))
        contacts |= {contact for contact, sent_us in rows if sent_us <= received_us}
    return Lacking(alert, frozenset(contacts)) if contacts else None
