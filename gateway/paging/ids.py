"""What pages and messages are called: ids that come from what they are, so that what is done again is the same."""

import uuid
from collections.abc import Iterable

_NAMESPACE = uuid.UUID("0c8f8b0e-3d5b-5a57-9c0a-706167657321")


def page_id(route: str, group: str, *opened_by: object) -> str:
    """A page of this route and group, and what tells it from their other ones: the alert that opened it, or its number."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, (route, group, *opened_by)))))


def message_id(page: str, contact: str, kind: str, key: str) -> str:
    """The same for the same thing said to the same contact of the same page, for ever."""
    return str(uuid.uuid5(uuid.UUID(page), f"{contact}/{kind}/{key}"))


def digest_id(messages: Iterable[str]) -> str:
    """Of the messages that it says together."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(sorted(messages))))
