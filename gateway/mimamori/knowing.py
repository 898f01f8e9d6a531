"""What messages about a person say beyond their alert: the name they are called by, and the page where family and helpers look.

Alerts hold an id only. A machine hears neither (gateway.telling leaves it out); who is told at all is for routes and searches.
"""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from gateway.alerting.lifecycle import Alert
from gateway.contacts.person import Person
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import CONSENT
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.labels import LABEL
from gateway.mimamori.search import HELP, SEARCH, Search
from gateway.notify.links import Links
from gateway.notify.message import Link
from gateway.state.tables import tags, watched
from gateway.telling import About
from gateway.words import text

CONSENT_US = 90 * 86_400 * 1_000_000
"""How long the link of a question about consent opens: longer than it is asked."""
HELPERS_US = 7 * 86_400 * 1_000_000
"""How long a link to a search can be tried; whether it opens is asked at each look."""
_id = re.compile(r"[0-9a-f]{16}")


class Knowing:
    """`more` is Paging's, `links_for` the Teller's."""

    def __init__(self, search: Search, config: MimamoriConfig, links: Links | None, phone: str | None = None) -> None:
        """`links`: None where `[people]` is not configured, and so nothing can be opened. `phone`: the office's."""
        self._phone = phone
        self._search, self._links, self._family_us = search, links, int(config.family_link_for * 1e6)

    def more(self, connection: Connection, alert: Alert, contact: str) -> Mapping[str, Any]:
        """Who it is, and whether this contact may open the family's page. Nothing of other alerts."""
        if alert.node != WATCHED:
            return {}
        name = connection.scalar(select(watched.c.name).where(watched.c.id == alert.device))
        is_kept = name is not None and self._search.may_keep(connection, alert.device, contact, alert.since_us)
        # Once a tag was reported, an alert of before may go on and ask the next; where the tag was it says to nobody any more.
        reported = select(tags.c.tag).where(tags.c.watched == alert.device, tags.c.stopped_us.is_not(None)).limit(1)
        nowhere = {"place": None, "seen_us": None} if connection.scalar(reported) is not None else {}
        return {"who": name, "watched": alert.device, "family_page": is_kept, **nowhere}

    def links_for(self, person: Person, about: About, now_us: int) -> tuple[Link, ...]:
        """The family's page for family and office, the search's for who was asked to help."""
        facts, contact = about.facts, person.contact
        if self._links is None or not _id.fullmatch(contact) or not _id.fullmatch(str(facts.get("watched"))):
            return ()
        if about.kind == HELP:
            url = self._links.search_url(facts["search"], contact, now_us + HELPERS_US)
            return (Link(label=text(person.language, "link.search"), url=url),)
        if about.kind == CONSENT:
            url = self._links.consent_url(facts["watched"], contact, now_us + CONSENT_US)
            return (Link(label=text(person.language, "link.consent"), url=url), *self._office(person))
        if about.kind == LABEL:
            return self._office(person)
        if about.kind == SEARCH or facts.get("family_page"):
            url = self._links.family_url(facts["watched"], contact, now_us + self._family_us)
            return (Link(label=text(person.language, "link.family"), url=url),)
        return ()

    def _office(self, person: Person) -> tuple[Link, ...]:
        return (Link(label=text(person.language, "link.office"), url=f"tel:{self._phone}"),) if self._phone else ()
