"""Pictures whose time is over: rows first, then files, and what has no row any more. A capture's photos stay with its dossier,
an installation's with what was put up.

A picture counts from when it was taken, where a node said so, else from when it came. Somebody may be in every picture but those
in which a model or a person saw an animal or nobody (gateway.pictures); all else has the shorter time.
"""

import re
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select

from gateway.installations import photographs
from gateway.keeping.places import AT_ONCE, parts
from gateway.media import discard
from gateway.state import State
from gateway.state.tables import capture_photos, media, pictures
from gateway.words.refusal import Refusal

ORPHAN_US = 2 * 86_400 * 1_000_000
"""A file without a row may be one that its sender is about to finish, or an upload that a weak link draws out."""
_name = re.compile(r"[0-9a-f]{64}(\..*)?")


def nobody_in_it(connection: Connection, before_us: int) -> list[str]:
    """Deletes rows of pictures with an animal, or with nobody; their SHA-256s."""
    return _forget(connection, before_us, ~_somebody())


def somebody_in_it(connection: Connection, before_us: int) -> list[str]:
    """Deletes rows of pictures in which somebody may be, and of other files of nodes; their SHA-256s."""
    return _forget(connection, before_us, _somebody())


def _somebody() -> ColumnElement[bool]:
    mine = pictures.c.sha256 == media.c.sha256
    # A person's word counts before the model's.
    said = func.coalesce(pictures.c.confirmed_content, pictures.c.content)
    seen = or_(said.in_(("animal", "no_animal")), and_(pictures.c.cleared_us.is_not(None), said != "person_or_vehicle"))
    return ~exists().where(mine) | exists().where(mine, ~seen)


def _forget(connection: Connection, before_us: int, which: ColumnElement[bool]) -> list[str]:
    taken = select(func.min(pictures.c.captured_us)).where(pictures.c.sha256 == media.c.sha256).scalar_subquery()
    old = select(media.c.sha256).where(
        func.coalesce(func.min(taken, media.c.received_us), media.c.received_us) < before_us,
        which,
        ~exists().where(capture_photos.c.sha256 == media.c.sha256),
        ~photographs(media.c.sha256),
    )
    gone = list(connection.scalars(old.limit(AT_ONCE)))
    connection.execute(delete(media).where(media.c.sha256.in_(gone)))
    connection.execute(delete(pictures).where(pictures.c.sha256.in_(gone)))
    return gone


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


def sweep(state: State, folder: Path, now_us: int) -> int:
    """Deletes files of which there is no row, with whatever was made of them; of how many. What is of today is left alone."""
    files = [path for path in folder.iterdir() if _name.fullmatch(path.name)]
    recent = {path.name[:64] for path in files if _age_us(path, now_us) <= ORPHAN_US}
    done = 0
    for part in parts({path.name[:64] for path in files} - recent):
        with state.read() as connection:
            kept = set(connection.scalars(select(media.c.sha256).where(media.c.sha256.in_(part))))
        done += sum(discard(state, folder / sha256) for sha256 in part if sha256 not in kept)
    return done


def remove(state: State, folder: Path, sha256s: list[str]) -> None:
    """Deletes these files, with whatever was made of them, where nobody has sent the picture anew since its row went."""
    for sha256 in sha256s:
        discard(state, folder / sha256)


def _age_us(path: Path, now_us: int) -> int:
    try:
        return now_us - path.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return 0
