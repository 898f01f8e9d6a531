"""The chain: an entry's hash is over the one before, its number, its time and the salted digest of what it says.

SHA-256 over canonical JSON (RFC 8785). The salt is 16 random bytes, kept with the details: when those are erased, the digest
that stays tells nothing, and the chain still holds. Entries are written in the caller's transaction: what they tell of and they
themselves are durable together or not at all.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import rfc8785
from sqlalchemy import Connection, insert, select

from gateway.state.tables import audit, audit_details

FIRST = "0" * 64
"""What stands for the hash before the first entry."""


def record(
    connection: Connection,
    who: str,
    action: str,
    thing: str,
    now_us: int,
    *,
    why: str = "",
    more: Mapping[str, Any] | None = None,
) -> int:
    """Appends an entry; returns its number. In a transaction of `State.write`, which lets one in at a time.

    `who`: `account:<id>`, `contact:<id>`, `token:<name>` (these by gateway.audit.who_of), `cli:<user>`, or a part of the gateway.
    `action`: `noun.verb`; those that neither the policy nor a command names stand in a table of gateway/README.md.
    `thing`: `<kind>/<id>`; empty for the gateway.
    """
    last = connection.execute(select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)).first()
    number, before = (1, FIRST) if last is None else (last.id + 1, last.hash)
    salt = secrets.token_bytes(16)
    details = {"who": who, "action": action, "thing": thing, "why": why, "more": json.dumps(more or {}, ensure_ascii=False)}
    digest = digest_of(salt, details)
    hash_ = hash_of(before, number, now_us, digest)
    connection.execute(insert(audit).values(id=number, at_us=now_us, digest=digest, hash=hash_))
    connection.execute(insert(audit_details).values(id=number, salt=salt, **details))
    return number


def digest_of(salt: bytes, details: Mapping[str, str]) -> str:
    """What the chain holds of an entry's words, in hex."""
    return hashlib.sha256(salt + rfc8785.dumps(dict(details))).hexdigest()


def hash_of(before: str, number: int, at_us: int, digest: str) -> str:
    """The hash of an entry, in hex. The time is text, because JSON's numbers end at 2^53."""
    return hashlib.sha256(rfc8785.dumps([before, number, str(at_us), digest])).hexdigest()
