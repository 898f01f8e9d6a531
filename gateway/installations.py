"""What installers put up: where, how well it hears its network, and whether the alarm of its test trip was answered.

An installation is one device at one place, told by its installer's phone, with an id that the phone made, so that it may be sent
again. It ends in one of three ways: `done`, once somebody who is meant to come answered the test trip; `waiting` for that;
`revisit`, as its installer said. `Installations.close`, a chore, goes by level: what waits is compared with the ledger at each
look, whichever came first, the test alarm (which a node may have kept for days) or the installation (which a phone may have).

What was said is never changed. A later one of the same device supersedes it, and after a later `revisit` no answer ends what
waits: its installer has said that the device is not done.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, or_, select, update

from gateway.deployments import Deployments
from gateway.paging import STAFF, Notices
from gateway.rules.trial import TEST
from gateway.state import State
from gateway.state.sql import greatest, least, position
from gateway.state.tables import accounts, alerts, answers, contacts, installations, media, notifications, page_alerts, pictures
from gateway.state.upsert import upsert

INSTALLATION = "installation"
"""The kind and route of the pages that tell how one ended."""
MOST_PHOTOS = 8
MOST_TRIPS = 30
"""Round trips of one signal test."""
LONGEST_NOTE = 1000
EARLY_US = 10 * 60 * 1_000_000
"""A node's clock may be behind the phone's by as much: a test alarm of so long before the trip still is its own."""
OLDEST_US = 30 * 86_400 * 1_000_000
"""So long before it was received a trip may have been. A phone that has lost its time claims no older alarm."""

Result = Literal["waiting", "done", "revisit"]
Trip = tuple[float | None, int | None]
"""Milliseconds there and back (None: no answer), and dBm as the node heard its network (None: it could not say)."""


class Differs(ValueError):
    """There is one with this id already, and it says something else."""


class NotHere(ValueError):
    """A photo of it was not sent yet."""


class NotAPhoto(ValueError):
    """A camera's picture, in which somebody may be who came by, is no photo of an installation; nor is a node's diagnostics."""


class Installed(NamedTuple):
    """What an installer's phone says. Times are µs by that phone's clock."""

    id: str
    node: str
    device: str
    begun_us: int
    lat: float | None = None
    lon: float | None = None
    accuracy_m: float | None = None
    note: str = ""
    photos: Sequence[str] = ()
    signal: Sequence[Trip] = ()
    self_test: Literal["good", "bad"] | None = None
    tripped_us: int | None = None
    """When the test trip was begun. None: there was none, so it can't become `done`."""
    revisit: str = ""
    """Why somebody must come again; empty: nobody must."""


def enter(connection: Connection, said: Installed, by: str, account: str | None, now_us: int) -> bool:
    """Keeps it; False where it is there already, word for word. Differs where another stands under its id; NotHere, NotAPhoto."""
    told = {
        "node": said.node, "device": said.device, "begun_us": said.begun_us, "lat": said.lat, "lon": said.lon,
        "accuracy_m": said.accuracy_m, "note": said.note, "photos": json.dumps(list(said.photos)),
        "signal": json.dumps([list(trip) for trip in said.signal]), "self_test": said.self_test, "tripped_us": said.tripped_us,
        "why": said.revisit,
    }  # fmt: skip
    row = {
        "id": said.id, "by": by, "account": account, "received_us": now_us, "state": "revisit" if said.revisit else "waiting",
        "ended_us": now_us if said.revisit else None, "version": 1,
    }  # fmt: skip
    if connection.execute(upsert(installations), {**row, **told}).rowcount == 1:
        _check_photos(connection, said.photos)
        return True
    there = connection.execute(select(installations).where(installations.c.id == said.id)).mappings().one()
    if any(there[name] != value for name, value in {**told, "account": account}.items()):
        raise Differs(said.id)
    return False


def _check_photos(connection: Connection, photos: Sequence[str]) -> None:
    kinds = {row.sha256: row.content_type for row in connection.execute(select(media).where(media.c.sha256.in_(photos)))}
    if missing := set(photos) - kinds.keys():
        raise NotHere(f"photos that were not sent: {len(missing)}")
    if not all(kind.startswith("image/") for kind in kinds.values()):
        raise NotAPhoto("a photo is no image")
    if connection.scalar(select(pictures.c.sha256).where(pictures.c.sha256.in_(photos)).limit(1)) is not None:
        raise NotAPhoto("a photo is a camera's picture")


def listed(
    connection: Connection, which: ColumnElement[bool], *, state: Result | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """Those of which `which` holds, the newest first. Each with `told`: the names of those to whom its test alarm was sent; and
    `superseded_by`: the id of the newest later one of its device, or None."""
    query = select(installations).where(which).order_by(installations.c.received_us.desc(), installations.c.id).limit(limit)
    if state is not None:
        query = query.where(installations.c.state == state)
    return [_with_told(connection, row) for row in connection.execute(query).all()]


def one(connection: Connection, id_: str) -> Mapping[str, Any]:
    """The one with this id, which there must be; as `listed`."""
    return _with_told(connection, connection.execute(select(installations).where(installations.c.id == id_)).one())


def _told_us(of: Any) -> Any:
    """When it was, as SQL. No clock of a phone is believed where it is ahead: it would stay the newest for ever."""
    return least(of.c.begun_us, of.c.received_us)


_after = installations.alias("after")
_IS_AFTER = and_(
    _after.c.node == installations.c.node,
    _after.c.device == installations.c.device,
    _told_us(_after) > _told_us(installations),
)


def places(connection: Connection) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Latitude and longitude of each (node, device), as its newest installation with a place says."""
    mine = installations
    rows = connection.execute(
        select(mine.c.node, mine.c.device, mine.c.lat, mine.c.lon)
        .where(mine.c.lat.is_not(None), mine.c.lon.is_not(None))
        .order_by(_told_us(mine), mine.c.received_us)
    )
    return {(row.node, row.device): (row.lat, row.lon) for row in rows}


def photo_of(connection: Connection, sha256: str) -> Sequence[tuple[str, str, str | None]]:
    """(node, device, account) of the installations that it is a photo of. None for what a node has told of: a camera's."""
    told = connection.scalar(select(pictures.c.sha256).where(pictures.c.sha256 == sha256).limit(1))
    if told is not None or not sha256:
        return []
    mine = installations.c
    rows = connection.execute(select(mine.node, mine.device, mine.account).where(_is_photo(sha256)))
    return [(row.node, row.device, row.account) for row in rows]


def _is_photo(sha256: ColumnElement[str] | str) -> ColumnElement[bool]:
    return position('"' + sha256 + '"', installations.c.photos) > 0


def photographs(sha256: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether it is a photo of an installation, and no node has told of it: it is kept as that installation is."""
    told = exists().where(pictures.c.sha256 == sha256)
    return exists().where(installations.c.photos != "[]", _is_photo(sha256)) & ~told


OnDone = Callable[[Connection, Mapping[str, Any], int], None]
"""on_done(connection, row, now_us): in the transaction that ends it."""


def telling(notices: Notices, deployments: Deployments) -> OnDone:
    """Tells the installer that it is done and who answered, where their account has a contact."""

    def told(connection: Connection, row: Mapping[str, Any], now_us: int) -> None:
        contact = connection.scalar(select(accounts.c.contact).where(accounts.c.id == row["account"]))
        if contact is None:
            return
        place = deployments.of(row["node"], row["device"])
        facts = {"where": f"{place.place} {place.label}".strip(), "who": [row["answered_by"]]}
        notices.tell(
            connection, route=INSTALLATION, group_key=row["id"], kind=INSTALLATION, severity="info", to=(), contacts=[contact],
            moment="installation.done", facts=facts, now_us=now_us, asks=False, ends=True,
        )  # fmt: skip

    return told


class Installations:
    """Ends what waits, and tells its installer by `on_done`."""

    def __init__(self, state: State, on_done: OnDone) -> None:
        self._state, self._on_done = state, on_done

    def close(self, now_us: int) -> None:
        """A chore: those whose test alarm was answered are done. Safe to repeat."""
        with self._state.read() as connection:
            answered = [row.id for row in connection.execute(_WAITING).all() if _answer_of(connection, row) is not None]
        for id_ in answered:
            with self._state.write() as connection:
                self._close(connection, id_, now_us)

    def _close(self, connection: Connection, id_: str, now_us: int) -> None:
        # Looked up again: of two that wait for one device, the alarm is the first's, and the other waits on.
        row = connection.execute(_WAITING.where(installations.c.id == id_).with_for_update()).first()
        if row is None or (answer := _answer_of(connection, row)) is None:
            return
        alert, by = answer
        connection.execute(
            update(installations)
            .where(installations.c.id == id_)
            .values(state="done", alert=alert, answered_by=by, ended_us=now_us, version=installations.c.version + 1)
        )
        self._on_done(connection, {**row._mapping, "answered_by": by}, now_us)


_since_us = greatest(
    least(installations.c.tripped_us, installations.c.received_us) - EARLY_US, installations.c.received_us - OLDEST_US
)
_ended = installations.alias("ended")
# The test alarms that may be a trip's: of its device, not before it. One that ended an installation is that one's.
_IS_ITS = and_(
    alerts.c.kind == TEST,
    alerts.c.node == installations.c.node,
    alerts.c.device == installations.c.device,
    alerts.c.since_us >= _since_us,
    alerts.c.id.not_in(select(_ended.c.alert).where(_ended.c.alert.is_not(None))),
)
# The newest trip before the others: an alarm is the trip's that it follows, not that of one before.
_WAITING = (
    select(installations)
    .where(installations.c.state == "waiting", installations.c.tripped_us.is_not(None))
    .where(exists(select(alerts.c.id).where(_IS_ITS).correlate(installations)))
    .where(~exists(select(_after.c.id).where(_IS_AFTER, _after.c.state == "revisit").correlate(installations)))
    .order_by(least(installations.c.tripped_us, installations.c.received_us).desc(), installations.c.id)
)


def _alerts_of(row: Row[Any]) -> Any:
    """The ids of the test alarms that may be its trip's, as SQL."""
    return select(alerts.c.id).join(installations, installations.c.id == row.id).where(_IS_ITS)


def _answer_of(connection: Connection, row: Row[Any]) -> tuple[str, str] | None:
    """(alert, who answered) of the first of its test alarms that somebody has; None while nobody has."""
    said = connection.execute(
        select(page_alerts.c.alert, contacts.c.name)
        .join(answers, answers.c.page == page_alerts.c.page)
        .join(contacts, contacts.c.id == answers.c.contact)
        .where(page_alerts.c.alert.in_(_alerts_of(row)), answers.c.at_us >= page_alerts.c.joined_us)
        .order_by(answers.c.at_us, answers.c.id)
        .limit(1)
    ).first()
    if said is not None:
        return said.alert, said.name
    seen = connection.execute(
        select(alerts.c.id, alerts.c.acknowledged_by)
        .where(alerts.c.id.in_(_alerts_of(row)), alerts.c.acknowledged_by.is_not(None))
        .order_by(alerts.c.acknowledged_us)
        .limit(1)
    ).first()
    return None if seen is None else (seen.id, _name(connection, seen.acknowledged_by))


def _name(connection: Connection, who: str) -> str:
    """What others are told of somebody who acknowledged an alert: a contact, or one of the staff."""
    known = connection.scalar(select(contacts.c.name).where(contacts.c.id == who.removeprefix("contact:")))
    return known or who.removeprefix(STAFF)


def _with_told(connection: Connection, row: Row[Any]) -> Mapping[str, Any]:
    """A row as it is said: JSON read, `superseded_by`, and `told`: the names whose phone its test alarm reached."""
    after = select(_after.c.id).join(installations, _IS_AFTER).where(installations.c.id == row.id)
    newest = connection.scalar(after.order_by(_told_us(_after).desc(), _after.c.id).limit(1))
    read = {"photos": json.loads(row.photos), "signal": json.loads(row.signal)}
    found = {**row._mapping, **read, "superseded_by": newest, "told": []}
    if row.tripped_us is not None:
        mine = [row.alert] if row.alert else _alerts_of(row)
        pages = select(page_alerts.c.page).where(page_alerts.c.alert.in_(mine))
        found["told"] = connection.scalars(
            select(contacts.c.name)
            .join(notifications, notifications.c.contact == contacts.c.id)
            .where(or_(notifications.c.page.in_(pages), notifications.c.alert.in_(mine)))
            .where(and_(notifications.c.sent_us.is_not(None), func.length(contacts.c.name) > 0))
            .group_by(contacts.c.name)
            .order_by(func.min(notifications.c.sent_us))
        ).all()
    return found
