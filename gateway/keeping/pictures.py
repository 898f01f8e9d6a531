"""Pictures whose time is over: rows first, then files, and what has no row any more. A capture's photos stay with its dossier,
an installation's with what was put up.

A picture counts from when it was taken, where a node said so, else from when it came. Somebody may be in every picture but those
in which a model or a person saw an animal or nobody (gateway.pictures); all else has the shorter time. A deployment may have a
time of its own: longer for animals only, shorter for all. Of two nodes that told of one, the shorter time counts.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, literal, or_, select, tuple_

from gateway.installations import photographs
from gateway.keeping.places import AT_ONCE, parts
from gateway.media import discard
from gateway.state import State
from gateway.state.sql import least
from gateway.state.tables import capture_photos, media, pictures
from gateway.words.refusal import Refusal

ORPHAN_US = 2 * 86_400 * 1_000_000
"""A file without a row may be one that its sender is about to finish, or an upload that a weak link draws out."""
_name = re.compile(r"[0-9a-f]{64}(\..*)?")

Own = Mapping[tuple[str, str], int]
"""Of devices with a time of their own, (node, device): what was taken before that goes, UTC µs."""


def nobody_in_it(connection: Connection, before_us: int, own: Own) -> list[str]:
    """Deletes rows of pictures with an animal, or with nobody; their SHA-256s."""
    return _forget(connection, before_us, own, ~_somebody())


def somebody_in_it(connection: Connection, before_us: int, own: Own) -> list[str]:
    """Deletes rows of pictures in which somebody may be, and of other files of nodes; their SHA-256s."""
    sooner = {device: own_us for device, own_us in own.items() if own_us > before_us}
    return _forget(connection, before_us, sooner, _somebody())


def _somebody() -> ColumnElement[bool]:
    mine = pictures.c.sha256 == media.c.sha256
    # A person's word counts before the model's.
    said = func.coalesce(pictures.c.confirmed_content, pictures.c.content)
    seen = or_(said.in_(("animal", "no_animal")), and_(pictures.c.cleared_us.is_not(None), said != "person_or_vehicle"))
    return ~exists().where(mine) | exists().where(mine, ~seen)


def _forget(connection: Connection, before_us: int, own: Own, which: ColumnElement[bool]) -> list[str]:
    told = pictures.c.sha256 == media.c.sha256
    its_time_is_over = least(pictures.c.captured_us, media.c.received_us) < _before(before_us, own)
    old = select(media.c.sha256).where(
        or_(exists().where(told, its_time_is_over), ~exists().where(told) & (media.c.received_us < before_us)),
        which,
        ~exists().where(capture_photos.c.sha256 == media.c.sha256),
        ~photographs(media.c.sha256),
    )
    gone = list(connection.scalars(old.limit(AT_ONCE)))
    connection.execute(delete(media).where(media.c.sha256.in_(gone)))
    connection.execute(delete(pictures).where(pictures.c.sha256.in_(gone)))
    return gone


def _before(before_us: int, own: Own) -> ColumnElement[int]:
    devices: dict[int, list[tuple[str, str]]] = {}
    for device, own_us in own.items():
        devices.setdefault(own_us, []).append(device)
    here = tuple_(pictures.c.node, pictures.c.device)
    times = [(here.in_(those), literal(own_us)) for own_us, those in devices.items()]
    return case(*times, else_=literal(before_us)) if times else literal(before_us)


class InPapers(Refusal):
    """It is part of a capture's dossier, which stays."""


def erase(connection: Connection, sha256: str) -> bool:
    """Deletes the rows of one picture; False where there were none. Its file goes by `remove`. InPapers where it must stay."""
    if connection.scalar(select(capture_photos.c.sha256).where(capture_photos.c.sha256 == sha256)) is not None:
        raise InPapers("why.picture_in_papers")
    rows = [connection.execute(delete(table).where(table.c.sha256 == sha256)).rowcount for table in (media, pictures)]
    return any(rows)


def never_came(connection: Connection, before_us: int, _now_us: int) -> int:
    """What was said of pictures whose bytes stayed on their node."""
    here = exists().where(media.c.sha256 == pictures.c.sha256)
    old = select(pictures.c.sha256).where(pictures.c.captured_us < before_us, ~here)
    gone = connection.scalars(old.limit(AT_ONCE)).all()
    connection.execute(delete(pictures).where(pictures.c.sha256.in_(gone)))
    return len(gone)


class Swept(NamedTuple):
    """What a sweep found."""

    files: int
    """Pictures' worth of files of which there was no row, deleted."""
    missing: int
    """Pictures on record without a file."""


def sweep(state: State, folder: Path, now_us: int) -> Swept:
    """Deletes files of which there is no row, with whatever was made of them, and counts rows of which there is no file.

    What was written to within ORPHAN_US is left alone. Nothing on record is ever touched: killed at any moment, it goes on
    another time.
    """
    files = [path for path in folder.iterdir() if _name.fullmatch(path.name)]
    before_us = now_us - ORPHAN_US
    recent = {path.name[:64] for path in files if _written_us(path, now_us) >= before_us}
    swept = 0
    for part in parts(sorted({path.name[:64] for path in files} - recent)):
        with state.read() as connection:
            kept = set(connection.scalars(select(media.c.sha256).where(media.c.sha256.in_(part))))
        swept += sum(discard(state, folder / sha256, before_us=before_us) for sha256 in part if sha256 not in kept)
    return Swept(swept, _missing(state, folder, {path.name for path in files}))


def _missing(state: State, folder: Path, here: set[str]) -> int:
    """How many are on record and not `here`. One that comes or goes meanwhile is none: its file is looked for before its row."""
    number, after = 0, ""
    while True:
        with state.read() as connection:
            some = connection.scalars(select(media.c.sha256).where(media.c.sha256 > after).order_by(media.c.sha256).limit(10_000))
            known = list(some)
        gone = [sha256 for sha256 in known if sha256 not in here and not (folder / sha256).exists()]
        for part in parts(gone):
            with state.read() as connection:
                number += connection.scalar(select(func.count()).where(media.c.sha256.in_(part))) or 0
        if not known:
            return number
        after = known[-1]


def remove(state: State, folder: Path, sha256s: list[str]) -> None:
    """Deletes these files, with whatever was made of them, where nobody has sent the picture anew since its row went."""
    for sha256 in sha256s:
        discard(state, folder / sha256)


def _written_us(path: Path, now_us: int) -> int:
    """When it was written to; of one that is gone meanwhile, now."""
    try:
        return path.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return now_us
