"""Tags that change what they call themselves: enrolled here with their keys, told to nodes as the coming hours' identifiers.

A key comes in, stays in its table, and goes out of it only into the bin: no answer, message, log line or error of ours has one.
"""

import json
import logging
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, exists, func, select, update

from edge.contract.messages import MAX_BYTES
from edge.contract.names import is_name
from edge.contract.remote import MAX_EXPECTED, Expected
from gateway.nodes.eid import DRIFT_PPM, MAX_EXPONENT, RESTART_S, ExpectedIdentifier, RotatingTag, expected_identifiers
from gateway.nodes.signing import Signer, Statement
from gateway.state import State
from gateway.state.tables import certificates, cursors, desired, devices, nodes, rotating_tags
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

log = logging.getLogger(__name__)

REVISION = "expected"
"""The cursor that holds the newest revision given out; absent where no tag was ever enrolled."""

DRIVER, KIND = "ble_tags", "ble-tags"  # what listens for tags: as it is configured, and as nodes announce it
KEY_BYTES = 16
MIN_EXPONENT = 8
"""A tag that changes more often than every 2^8 s fills what a node can be told by itself. Eddystone allows 0 to 15."""

SPANS_H = (24, 12, 6, 3, 1)
"""How far ahead nodes are told: the longest that fits a message."""

_HOUR_US = 3600 * 1_000_000
_ROOM = MAX_BYTES - 1024  # of a message: the rest is for its signature, and what else stands around the list
_AROUND = len('["0123456789abcdef","",1780434720000000,1780434720000000],')


class NotEnrolled(Refusal):
    """This is no rotating tag. What was given as key is never said."""


class Coming(NamedTuple):
    """What all tags will call themselves from now on."""

    revision: int
    entries: list[ExpectedIdentifier]
    remake_us: int
    """When it should be made anew, UTC."""

    def statement(self, signer: Signer, node: str) -> Statement:
        """Signed for one node."""
        return signer.sign(Expected(node=node, revision=self.revision, tags=list(self.entries)))


def add_tag(state: State, tag: str, key: bytes, exponent: int, zero_us: int, now_us: int) -> None:
    """Enrols a tag, or changes it. `exponent`: it changes every 2^exponent s; `zero_us`: when its own clock was 0, UTC µs.

    NotEnrolled for what is none.
    """
    if not is_name(tag):
        raise NotEnrolled("why.bad_name", where="tag", name=repr(tag[:40]))
    if len(key) != KEY_BYTES:
        raise NotEnrolled("why.tag_key", n=len(key), wanted=KEY_BYTES)
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise NotEnrolled("why.tag_exponent", exponent=exponent, least=MIN_EXPONENT, most=MAX_EXPONENT)
    if not 0 <= zero_us <= now_us:
        raise NotEnrolled("why.tag_zero")
    with state.write() as connection:
        one = RotatingTag(tag, key, exponent, zero_us)
        others = [other for other in _enrolled(connection) if other.tag != tag]
        if not _may_fit([*others, one], now_us, SPANS_H[-1]):
            raise NotEnrolled("why.tags_crowded", n=len(others), most=MAX_EXPECTED)
        connection.execute(upsert(rotating_tags, "key", "exponent", "zero_us"), one._asdict())
        next_revision(connection, now_us)


def remove_tag(state: State, tag: str, now_us: int) -> bool:
    """Forgets a tag and destroys its key, in the files too. Whether there was one."""
    with state.write() as connection:
        here = rotating_tags.c.tag == tag
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")  # what is deleted is overwritten
        # Overwritten first, so that it is gone wherever deleting only marks a row.
        if connection.execute(update(rotating_tags).where(here).values(key=bytes(KEY_BYTES))).rowcount == 0:
            return False
        connection.execute(delete(rotating_tags).where(here))
        next_revision(connection, now_us)
    state.empty_log()
    return True


def listeners(connection: Connection) -> list[str]:
    """The nodes that should listen for tags: by what they were asked to run and did not refuse, else by what they announced.

    Never one whose certificates all were revoked: a stolen one, say.
    """
    theirs = certificates.c.node == nodes.c.node
    ended = exists().where(theirs) & ~exists().where(theirs, certificates.c.revoked_us.is_(None))
    announced = exists().where(devices.c.node == nodes.c.node, devices.c.kind == KIND)
    here = connection.execute(select(nodes.c.node, announced.label("says")).where(~ended).order_by(nodes.c.node)).all()
    wanted = desired.c.outcome.is_distinct_from("failed")
    newest_of = select(desired.c.node, func.max(desired.c.revision).label("revision")).where(wanted).group_by(desired.c.node)
    one = newest_of.subquery()
    documents = select(desired.c.node, desired.c.payload).join(
        one, (desired.c.node == one.c.node) & (desired.c.revision == one.c.revision)
    )
    should = {row.node: _has_receiver(row.payload) for row in connection.execute(documents)}
    return [row.node for row in here if should.get(row.node, row.says)]


def newest(connection: Connection) -> int | None:
    """The revision that stands; None where there is nothing to tell and never was."""
    return connection.scalar(select(cursors.c.value).where(cursors.c.name == REVISION))


def make(state: State, now_us: int, known: int | None = None) -> Coming:
    """The coming hours of all tags: as many as fit a message, at most a day.

    Under a new revision, but for who has `known`, and a higher one stands: of who has changed the tags, or of another process
    that speaks to other nodes. To give out one more would have those go by it in turn, for ever.
    """
    with state.write() as connection:
        tags = _enrolled(connection)
        stands = newest(connection)
        is_newer = known is not None and stands is not None and stands > known
        revision = stands if is_newer and stands is not None else next_revision(connection, now_us)
    hours = next((span for span in SPANS_H if _may_fit(tags, now_us, span)), SPANS_H[-1])
    found = expected_identifiers(tags, now_us, hours)
    fitting = _fitting(found, now_us + _HOUR_US // 2)
    if len(fitting) < len(found):
        log.warning(
            "%d rotating tags need %d identifiers in an hour, and nodes can be told %d: tags whose clocks are far off are not "
            "known any more. Let tags change more seldom, or set their clocks anew",
            len(tags), len(found), len(fitting),
        )  # fmt: skip
    return Coming(revision, fitting, now_us + min(_HOUR_US, hours * _HOUR_US // 2))


def _has_receiver(payload: str) -> bool:
    """Whether a desired document, as it travels, has a device that listens for tags."""
    if DRIVER not in payload:
        return False
    return any(one.get("type") == DRIVER for one in json.loads(payload)["statement"]["device"].values())


def _enrolled(connection: Connection) -> list[RotatingTag]:
    rows = connection.execute(select(rotating_tags).order_by(rotating_tags.c.tag))
    return [RotatingTag(row.tag, row.key, row.exponent, row.zero_us) for row in rows]


def _may_fit(tags: Sequence[RotatingTag], now_us: int, hours: int) -> bool:
    """Whether so many hours fit a message, by a count that is never too small."""
    count = size = 0
    for tag in tags:
        # As gateway.nodes.eid lays them out: one a window, each known for two windows, and the clock's doubt on both sides.
        window_us = 2**tag.exponent * 1_000_000
        doubt_us = RESTART_S * 1_000_000 + max(now_us + hours * _HOUR_US - tag.zero_us, 0) * DRIFT_PPM // 1_000_000
        ours = (hours * _HOUR_US + 2 * doubt_us) // window_us + 4
        count += ours
        size += ours * (_AROUND + len(tag.tag))
    return count <= MAX_EXPECTED and size <= _ROOM


def _fitting(found: list[ExpectedIdentifier], middle_us: int) -> list[ExpectedIdentifier]:
    """Those that fit a message. Where they don't all fit, those that most probably will be heard around `middle_us`."""
    if len(found) <= MAX_EXPECTED and sum(_AROUND + len(one.tag) for one in found) <= _ROOM:
        return found
    kept: list[ExpectedIdentifier] = []
    size = 0
    for one in sorted(found, key=lambda one: abs((one.from_us + one.until_us) // 2 - middle_us)):
        size += _AROUND + len(one.tag)
        if len(kept) == MAX_EXPECTED or size > _ROOM:
            break
        kept.append(one)
    return sorted(kept, key=lambda one: (one.from_us, one.tag, one.eid))


def next_revision(connection: Connection, now_us: int) -> int:
    """Has nodes told anew, under the number that this returns. Whoever changes `rotating_tags` does it in their transaction.

    Grows with the clock too, so that a database put back from a backup does not give a revision out twice."""
    revision = max((newest(connection) or 0) + 1, now_us // 1_000_000)
    connection.execute(upsert(cursors, "value"), {"name": REVISION, "value": revision})
    return revision
