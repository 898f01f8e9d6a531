"""Every table of the state database: whose its rows can be, what erasing somebody does to them, and which kind they are kept as.

A test compares it with the schema: a table that is not here fails it, and so does a column by its name somebody may stand in.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Whose = Literal["watched", "contact", "tag"]


class Held(NamedTuple):
    """One table."""

    of: frozenset[Whose]
    """Whom its rows can say something of."""
    rule: str
    """What erasing does to them; of a table that says nothing of anybody, why it does not."""
    kind: str
    """Of gateway.keeping.kinds: how long it is kept. `-`: as long as what it belongs to, or there is nothing to forget."""


def _held(of: str, rule: str, kind: str = "-") -> Held:
    return Held(frozenset(of.split()), rule, kind)  # type: ignore[arg-type]


HELD: Mapping[str, Held] = {
    "nodes": _held("", "names of nodes and what they run"),
    "devices": _held("", "names of devices"),
    "ranges": _held("", "numbers of records"),
    "boots": _held("", "when a node started"),
    "events": _held("watched tag", "deleted where they name the tag", "sightings, events"),
    "latest": _held("", "readings: a count, a voltage; a test keeps tags and people out of them"),
    "losses": _held("", "numbers of records", "losses"),
    "quarantine": _held("watched tag", "deleted where it names the tag", "quarantine"),
    "rule_states": _held("watched tag", "deleted with the person; without what stands under the tag's name"),
    "cursors": _held("", "how far parts of the gateway have come"),
    "workers": _held("", "processes of the gateway"),
    "leases": _held("", "which process does what"),
    "handed": _held("", "readings on their way to the rules: a test keeps tags and people out of them"),
    "alerts": _held("watched contact tag", "a watched person's are deleted; a contact's name is taken out", "alerts"),
    "alert_history": _held("watched contact", "deleted with its alert; a contact's name is taken out", "alerts"),
    "silences": _held("watched contact", "deleted where it silences the person; a contact's name is taken out", "orders"),
    "contacts": _held("contact", "loses name, quiet hours and deputy; the id stays where they answered"),
    "memberships": _held("contact", "deleted"),
    "addresses": _held("contact", "deleted"),
    "invitations": _held("contact", "deleted where it expects them by name", "sessions"),
    "pages": _held("watched contact tag", "deleted where it is about the person alone; a contact's name is taken out", "alerts"),
    "page_alerts": _held("watched", "deleted with its alert or page", "alerts"),
    "answers": _held("watched contact", "deleted with its page; of a contact it stays under an id without a name", "alerts"),
    "notifications": _held(
        "watched contact tag", "words about the person, and all that a contact was told, are taken out", "alerts"
    ),
    "digest_pages": _held("watched", "deleted with its page", "alerts"),
    "inbox": _held("watched contact", "the words of what came from them or names them are taken out", "inbox"),
    "quotas": _held("", "what a channel may still send"),
    "media": _held("", "a picture's size and type; which pictures show people is not known by person", "pictures"),
    "pictures": _held("contact", "a contact's name is taken out of who cleared or corrected it", "pictures"),
    "visits": _held("contact", "a contact's name is taken out, but of those that are a capture's papers", "visits"),
    "captures": _held("contact", "the municipality's papers: kept", "captures"),
    "capture_photos": _held("contact", "the municipality's papers: kept", "captures"),
    "watched": _held("watched contact", "deleted; the name of a contact who entered them is taken out"),
    "tags": _held("watched contact tag", "deleted; the name of a contact who entered it is taken out"),
    "consents": _held("watched contact", "deleted with the person; a contact's name is taken out", "consents"),
    "labels": _held("watched contact tag", "loses its tag, and says that it is nobody's; a contact's name is taken out"),
    "label_reports": _held("watched contact", "loses its words with the person; a contact's name is taken out", "label_reports"),
    "search_cases": _held("watched contact", "deleted with the person; a contact's name is taken out", "sightings"),
    "search_changes": _held("watched contact", "deleted with its case; a contact's name is taken out", "sightings"),
    "search_sightings": _held("watched", "deleted with its case", "sightings"),
    "recounts": _held("contact", "a contact's name is taken out", "counts"),
    "town_modes": _held("contact", "a contact's name is taken out"),
    "accounts": _held("contact", "deleted"),
    "passkeys": _held("contact", "deleted"),
    "ceremonies": _held("contact", "deleted", "sessions"),
    "login_links": _held("contact", "deleted", "sessions"),
    "sessions": _held("contact", "deleted", "sessions"),
    "jobs": _held("contact", "deleted with their account", "orders"),
    "job_nodes": _held("contact", "deleted with its job", "orders"),
    "installations": _held("contact", "a contact's name is taken out of who put it up and who answered", "installations"),
    "audit": _held("", "hashes: without the details they tell nothing"),
    "audit_details": _held("watched contact tag", "deleted where they are about them, or name them; who looked stays, as an id",
                           "audit"),
    "erasures": _held("", "ids that mean nothing any more, and SHA-256s: of tags' names, of pictures"),
    "removals": _held("", "numbers"),
    "open_days": _held("", "numbers that were published as open data", "counts"),
    "open_captures": _held("", "month, square and kind: published as open data", "captures"),
    "claims": _held("contact", "a contact's name is taken out of who made it", "orders"),
    "certificates": _held("contact", "a contact's name is taken out of the reason", "orders"),
    "node_tokens": _held("", "hashes of nodes' tokens", "orders"),
    "desired": _held("contact", "a contact's name is taken out of who asked for it", "orders"),
    "commands": _held("contact", "a contact's name is taken out of who gave it", "orders"),
    "rotating_tags": _held("watched tag", "the key is overwritten and deleted"),
}  # fmt: skip

SIGNED: Mapping[str, tuple[str, ...]] = {
    "alerts": ("acknowledged_by",),
    "alert_history": ("who",),
    "silences": ("created_by", "ended_by"),
    "contacts": ("created_by",),
    "invitations": ("created_by",),
    "pictures": ("cleared_by", "confirmed_by"),
    "visits": ("who",),
    "watched": ("created_by",),
    "tags": ("enrolled_by",),
    "consents": ("given_by", "entered_by", "revoked_by"),
    "labels": ("made_by",),
    "label_reports": ("settled_by",),
    "search_cases": ("opened_by", "ended_by"),
    "search_changes": ("who",),
    "recounts": ("who",),
    "town_modes": ("who",),
    "accounts": ("created_by",),
    "jobs": ("created_by",),
    "installations": ("by", "answered_by"),
    "erasures": ("asked_by",),
    "claims": ("created_by",),
    "desired": ("created_by",),
    "commands": ("issued_by",),
}
"""Columns that hold who did it, and nothing else: a name there is somebody's signature."""

WRITTEN: Mapping[str, tuple[str, ...]] = {
    "alerts": ("summary",),
    "alert_history": ("why",),
    "silences": ("why",),
    "notifications": ("error",),
    "visits": ("note",),
    "consents": ("relation", "entitled"),
    "label_reports": ("words", "reach"),
    "search_cases": ("reason",),
    "search_changes": ("why",),
    "town_modes": ("why",),
    "jobs": ("label",),
    "installations": ("note", "why"),
    "certificates": ("revoked_why",),
    "commands": ("reason",),
    "desired": ("reason",),
}
"""Columns in which somebody wrote what they liked."""

IN_JSON: Mapping[str, tuple[str, ...]] = {
    "alerts": ("facts",),
    "pages": ("memory",),
    "notifications": ("body",),
}
"""Columns of JSON in which names can stand."""

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "alerts": ("suppressed_by",),
    "losses": ("reason",),
    "quarantine": ("reason",),
    "addresses": ("why",),
    "captures": ("note", "completed_by"),
    "capture_photos": ("added_by",),
    "audit_details": ("who", "why"),
    "contacts": ("name",),
    "invitations": ("name",),
    "watched": ("name",),
    "accounts": ("name",),
    "passkeys": ("name",),
    "commands": ("name",),
    "cursors": ("name",),
    "inbox": ("error",),
    "sessions": ("browser",),
    "notifications": ("only_by",),
    "label_reports": ("label",),
    "nodes": ("offline_reason",),
}
"""Columns that sound as if a name could stand there, and do not, go with their row, or are papers."""
