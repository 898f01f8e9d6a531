"""Who may do what: one table, one function, default deny. The only place that knows roles."""

from typing import NamedTuple

READ = frozenset(
    {
        "alert.read",
        "api.read",
        "area.read",
        "device.read",
        "event.read",
        "loss.read",
        "media.read",
        "metrics.read",
        "node.read",
        "reading.read",
        "silence.read",
        "stream.read",
    }
)

ROLES: dict[str, frozenset[str]] = {
    "operator": READ
    | {
        "alert.acknowledge",
        "alert.resolve",
        "alert.shelve",
        "silence.set",
        "contact.manage",
        "contact.read",  # names, telephone numbers, who is away
        "delivery.manage",
        "delivery.read",  # who was told what, and when
        "area.recount",
        "capture.edit",
        "capture.read",
        "media.clear",
        "media.read-uncleared",  # pictures in which a person may be
        "media.upload",
        "mimamori.manage",
        "mimamori.read",
        "node.admit",  # a code that makes a box a node; and the end of a node's identity
        "node.command",
        "node.configure",
        "page.answer",
        "page.read",  # who was asked, and what they said
        "picture.confirm",
        "search.open",  # and what follows of it: to renew and to end it
        "search.read",  # where somebody's tag was heard while they were missing
        "quarantine.read",  # raw messages as they came, whatever is in them
        "sighting.read",  # where tags were, who pressed a button: concerns persons
        "tag.enrol",
        "town.switch",
        "visit.read",  # who was at a trap, and when
        "visit.record",
    },
    "node": frozenset({"media.upload"}),
    "viewer": READ,
}


class Actor(NamedTuple):
    """Somebody or something with a token; `name` is what the history of an alert says."""

    name: str
    role: str


class Forbidden(Exception):
    """This actor may not do this."""


def authorize(actor: Actor, action: str, object_: str) -> None:
    """Returns when `actor` may do `action` to `object_` (as it stands in the path, or `*` for all); else Forbidden.

    Today the role alone decides; `object_` is handed in everywhere so that relations (whose trap, whose tag) can.
    """
    if action not in ROLES.get(actor.role, frozenset()):
        raise Forbidden(f"{actor.name} ({actor.role}) may not {action} {object_}")


def may(actor: Actor, action: str, object_: str = "*") -> bool:
    """`authorize` as a question, for answers that leave something out instead of being refused."""
    try:
        authorize(actor, action, object_)
    except Forbidden:
        return False
    return True
