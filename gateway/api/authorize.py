"""Who may do what: one table, one function, default deny. The only place that knows roles."""

from typing import NamedTuple

READ = frozenset(
    {
        "alert.read",
        "api.read",
        "device.read",
        "event.read",
        "loss.read",
        "media.read",
        "metrics.read",
        "node.read",
        "reading.read",
        "stream.read",
    }
)

ROLES: dict[str, frozenset[str]] = {
    "operator": READ
    | {
        "alert.acknowledge",
        "media.clear",
        "media.read-uncleared",  # pictures in which a person may be
        "media.upload",
        "node.admit",  # a code that makes a box a node; and the end of a node's identity
        "node.command",
        "node.configure",
        "quarantine.read",  # raw messages as they came, whatever is in them
        "sighting.read",  # where tags were, who pressed a button: concerns persons
        "tag.enrol",
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
