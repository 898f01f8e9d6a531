"""Pictures whose time is over: rows first, then files, and what has no row any more. A capture's photos stay with its dossier.

A picture counts from when it was taken, where a node said so, else from when it came. Somebody may be in every picture but those
in which a model or a person saw an animal or nobody (gateway.pictures); all else has the shorter time.
"""

import re
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select

from gateway.keeping.places import AT_ONCE
from gateway.state import State
from gateway.state.tables import capture_photos, media, pictures

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
    )
    gone = list(connection.scalars(old.limit(AT_ONCE)))
    connection.execute(delete(media).where(media.c.sha256.in_(gone)))
    connection.execute(delete(pictures).where(pictures.c.sha256.in_(gone)))
    return gone


def never_came(connection: Connection, before_us: int, _now_us: int) -> int:
    """What was said of pictures whose bytes stayed on their node."""
    here = exists().where(media.c.sha256 == pictures.c.sha256)
    old = select(pictures.c.sha256).where(pictures.c.captured_us < before_us, ~here)
    gone = connection.scalars(old.limit(AT_ONCE)).all()
    connection.execute(delete(pictures).where(pictures.c.sha256.in_(gone)))
    return len(gone)


def sweep(state: State, folder: Path, now_us: int) -> int:
    """Deletes files of which there is no row, with whatever was made of them; how many. A file of today is left alone."""
    old = [path for path in folder.iterdir() if _name.fullmatch(path.name) and _age_us(path, now_us) > ORPHAN_US]
    done = 0
    for at in range(0, len(old), AT_ONCE):
        part = old[at : at + AT_ONCE]
        with state.read() as connection:
            kept = set(connection.scalars(select(media.c.sha256).where(media.c.sha256.in_({path.name[:64] for path in part}))))
        for path in part:
            if path.name[:64] not in kept:
                path.unlink(missing_ok=True)
                done += 1
    return done


def remove(folder: Path, sha256s: list[str]) -> None:
    """Deletes these files, with whatever was made of them."""
    for sha256 in sha256s:
        for path in [folder / sha256, *folder.glob(f"{sha256}.*")]:
            path.unlink(missing_ok=True)


def _age_us(path: Path, now_us: int) -> int:
    try:
        return now_us - path.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return 0
