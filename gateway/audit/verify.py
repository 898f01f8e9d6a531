"""Whether the trail is whole: walks the chain from its first entry, in pieces, while others append to it. Reads only.

Of itself the chain shows every entry that was changed, left out or put in between, and words that were changed or taken away.
That its end was cut off, or that all of it was written anew, only somebody outside can know: by heads that they were given
(gateway.audit.export).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from gateway.audit.chain import FIRST, digest_of, hash_of
from gateway.audit.erase import ERASE, erased_by
from gateway.state import State
from gateway.state.tables import audit, audit_details

PIECE = 2000
_WORDS = ("who", "action", "thing", "why", "more")
_Range = tuple[int, int]


class Head(NamedTuple):
    """What somebody outside remembers: that the entry with this number had this hash."""

    id: int
    hash: str


class Fault(NamedTuple):
    """The first entry that is not as it was written, and what is wrong with it."""

    id: int
    what: str


class Found(NamedTuple):
    """What the walk found. `erased` are entries whose words were erased as an entry says."""

    entries: int
    erased: int
    head: Head | None
    """The last entry; None where there is none."""
    heads: int
    """How many heads from outside were compared."""
    fault: Fault | None


def verify(state: State, heads: Sequence[Head] = (), piece: int = PIECE) -> Found:
    """Walks all of it, `piece` entries a transaction. Ends at the first fault."""
    known: dict[int, str] = {}
    for one in heads:
        if known.setdefault(one.id, one.hash) != one.hash:
            return Found(0, 0, None, 0, Fault(one.id, "two hashes were told outside for this entry"))
    number, before, gone, explained = 0, FIRST, list[_Range](), list[_Range]()
    while True:
        rows = _piece(state, number, piece)
        for row in rows:
            what = _wrong(number, before, row, known.get(number + 1))
            if what is not None:
                return Found(number, _count(gone), _head(number, before), len(known), Fault(number + 1, what))
            number, before = row["id"], row["hash"]
            if row["salt"] is None:
                _add(gone, number)
            elif row["action"] == ERASE:
                try:
                    explained += erased_by(row["more"])
                except ValueError:
                    return Found(number, _count(gone), _head(number, before), len(known), Fault(number, "lists nothing erased"))
        if len(rows) < piece:
            break
    return Found(number, _count(gone), _head(number, before), len(known), _at_the_end(state, number, known, gone, explained))


def _piece(state: State, after: int, piece: int) -> list[Mapping[str, Any]]:
    words = [audit_details.c[name] for name in ("salt", *_WORDS)]
    query = select(audit, *words).outerjoin(audit_details, audit_details.c.id == audit.c.id)
    query = query.where(audit.c.id > after).order_by(audit.c.id).limit(piece)
    with state.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _wrong(number: int, before: str, row: Mapping[str, Any], told: str | None) -> str | None:
    """What is wrong with the entry that comes after `number`; None: nothing."""
    if row["id"] != number + 1:
        return f"it is missing; the next there is has the number {row['id']}"
    if not _is_written(row):
        return "it holds what no entry holds"
    if row["hash"] != hash_of(before, number + 1, row["at_us"], row["digest"]):
        return "its time, digest or hash was changed, or an entry before it"
    if row["salt"] is not None and row["digest"] != digest_of(bytes(row["salt"]), _words(row)):
        return "what it says was changed"
    if told is not None and told != row["hash"]:
        return "its hash is not the one that was told outside: the trail was written anew"
    return None


def _is_written(row: Mapping[str, Any]) -> bool:
    """Whether everything is of the kind that we write: SQLite takes anything in any column."""
    if not isinstance(row["at_us"], int) or not isinstance(row["digest"], str) or not isinstance(row["hash"], str):
        return False
    return row["salt"] is None or (isinstance(row["salt"], bytes) and all(isinstance(row[name], str) for name in _WORDS))


def _words(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name]) for name in _WORDS}


def _at_the_end(
    state: State, last: int, known: Mapping[int, str], gone: Sequence[_Range], explained: Sequence[_Range]
) -> Fault | None:
    faults = [Fault(id_, f"it is missing: the trail ends at {last}, and was longer when this was told outside")
              for id_ in known if id_ > last]  # fmt: skip
    faults += [Fault(id_, "its words are gone, and no entry says that they were erased") for id_ in _beyond(gone, explained)]
    with state.read() as connection:
        stray = select(audit_details.c.id).outerjoin(audit, audit.c.id == audit_details.c.id).where(audit.c.id.is_(None))
        # What was appended since the walk has its place in the chain.
        alone = connection.scalar(stray.order_by(audit_details.c.id).limit(1))
    if alone is not None:
        faults.append(Fault(alone, "its words are there, and it is not in the chain"))
    return min(faults, default=None)


def _beyond(gone: Sequence[_Range], explained: Sequence[_Range]) -> list[int]:
    """The first number that is gone without an explanation, or none."""
    for low, high in gone:
        at = low
        for start, end in sorted(explained):
            if start <= at <= end:
                at = end + 1
        if at <= high:
            return [at]
    return []


def _add(ranges: list[_Range], number: int) -> None:
    if ranges and ranges[-1][1] == number - 1:
        ranges[-1] = (ranges[-1][0], number)
    else:
        ranges.append((number, number))


def _count(ranges: Sequence[_Range]) -> int:
    return sum(high - low + 1 for low, high in ranges)


def _head(number: int, hash_: str) -> Head | None:
    return Head(number, hash_) if number else None
