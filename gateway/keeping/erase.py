"""Erasing one person, contact or tag from every table, now: `erase_watched`, `erase_contact`, `erase_tag`.

Each works in the caller's transaction (`erasing`, or any of `State.write`), and notes first, on disk and outside of the database,
what it is about to erase (gateway.keeping.ledger). After the transaction call `State.empty_log`, so that the bytes are gone from
SQLite's log too, and have `Enrolled` read anew; the chore `erasures` does both where a command of another process erased.

What is nobody's secret stays without its person: that there was an alert of a trap, who (as an id that means nothing any more)
answered. `gateway.keeping.held` says of every table what is done here; names are looked for in the columns it lists.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, delete, func, literal, or_, select, update

from gateway.audit.chain import record
from gateway.audit.erase import erase_where
from gateway.contacts import people
from gateway.keeping import pictures, places
from gateway.keeping.held import IN_JSON, SIGNED, WRITTEN
from gateway.keeping.ledger import Kind, Line, Noted, note
from gateway.mimamori.enrolled import WATCHED
from gateway.nodes.expected import next_revision
from gateway.state import State
from gateway.state.sql import json_value, position
from gateway.state.tables import (
    accounts,
    addresses,
    alert_history,
    alerts,
    answers,
    audit_details,
    captures,
    ceremonies,
    consents,
    contacts,
    digest_pages,
    erasures,
    events,
    inbox,
    installations,
    invitations,
    job_nodes,
    jobs,
    label_reports,
    labels,
    login_links,
    metadata,
    notifications,
    page_alerts,
    pages,
    passkeys,
    quarantine,
    rotating_tags,
    rule_states,
    search_cases,
    search_changes,
    search_sightings,
    sessions,
    silences,
    tags,
    visits,
    watched,
)
from gateway.words.refusal import Refusal

_WHERE = (*places.PLACES, "seen_at", "seen_tag")
"""By what rules remember where a tag was: themselves, and in the verdict that stands (`watch`)."""


class NotErased(Refusal):
    """Nothing was erased. `unknown`: there is nobody of this id."""

    def __init__(self, id_: str, *, unknown: bool = False) -> None:
        super().__init__(id_)
        self.unknown = unknown


@dataclass(slots=True)
class Erased:
    """What was done."""

    kind: Noted
    rows: dict[str, int] = field(default_factory=dict)
    """Of each table, how many rows were deleted or lost their words."""
    remains: list[str] = field(default_factory=list)
    """What still says something of them, and why."""

    @property
    def total(self) -> int:
        """Of all tables."""
        return sum(self.rows.values())

    def count(self, table: Table, number: int) -> None:
        """Adds to the rows of a table."""
        if number:
            self.rows[table.name] = self.rows.get(table.name, 0) + number


class _Seen(NamedTuple):
    """Which events name these tags, of those up to this id: known before anybody had to wait."""

    upto: int
    of: Mapping[str, Sequence[int]]


_NOTHING_SEEN = _Seen(0, {})
_SEEN = "seen"  # where a connection has it


@contextmanager
def erasing(state: State, kind: Kind, id_: str) -> Iterator[Connection]:
    """`State.write` for who erases: the largest table was gone through by then, and only what came since is looked at inside.

    Under the one write lock that second would keep alarms waiting.
    """
    with state.read() as connection:
        upto = connection.scalar(select(func.max(events.c.id))) or 0
        theirs = [id_] if kind == "tag" else connection.scalars(select(tags.c.tag).where(tags.c.watched == id_)).all()
        found = {tag: connection.scalars(select(events.c.id).where(_names(tag))).all() for tag in theirs}
    with state.write() as connection:
        connection.info[_SEEN] = _Seen(upto, found)
        try:
            yield connection
        finally:
            connection.info.pop(_SEEN, None)


def erase_watched(connection: Connection, id_: str, by: str, now_us: int) -> Erased:
    """Erases who is watched over, with all their tags. NotErased where nobody has this id, or while they are searched for."""
    if connection.scalar(select(watched.c.id).where(watched.c.id == id_)) is None:
        raise NotErased("why.nobody", unknown=True)
    cases = select(search_cases.c.id).where(search_cases.c.watched == id_)
    if connection.scalar(cases.where(search_cases.c.state.in_(("open", "paused")))) is not None:
        raise NotErased("why.searched_for")
    line = Line(str(uuid.uuid4()), "watched", id_, now_us, by)
    note(connection, line)
    return redo(connection, line, now_us)


def erase_tag(connection: Connection, tag: str, by: str, now_us: int) -> Erased:
    """Erases a tag: whose it is, its sightings, its key, its label, and what was told of where it was.

    Where its person carries others, what was told of those goes too: which tag was heard is not said there. NotErased where
    nothing here names it, nor ever did.
    """
    if not tag or not _is_known(connection, tag):  # labels of what was erased have an empty one
        raise NotErased("why.no_such_tag", unknown=True)
    line = Line(str(uuid.uuid4()), "tag", tag_sha256(tag), now_us, by)
    note(connection, line)
    return _tag(connection, tag, line, now_us)


def erase_contact(connection: Connection, id_: str, by: str, now_us: int) -> Erased:
    """Erases a contact: name, addresses, account and keys, what they were told, and their name in what others were told.

    That they answered stays, under an id that means nothing any more. NotErased where nobody has this id.
    """
    if connection.scalar(select(contacts.c.id).where(contacts.c.id == id_)) is None:
        raise NotErased("why.no_contact", unknown=True)
    line = Line(str(uuid.uuid4()), "contact", id_, now_us, by)
    note(connection, line)
    return redo(connection, line, now_us)


def redo(connection: Connection, line: Line, now_us: int) -> Erased:
    """Does what the line says, whatever of it is here: also in an older database that was put back."""
    if line.kind == "watched":
        return _watched(connection, line.thing, line, now_us)
    if line.kind == "contact":
        return _contact(connection, line.thing, line, now_us)
    if line.kind == "picture":
        with suppress(pictures.InPapers):  # it has become evidence meanwhile
            pictures.erase(connection, line.thing)  # its file has no row any more, and is swept
        record(connection, line.asked_by, "erase", f"erasure/{line.id}", now_us, more={"kind": line.kind})
        return Erased("picture")
    erased = Erased("tag")
    for tag in _tags_like(connection, line.thing):
        more = _tag(connection, tag, line, now_us)
        for table, number in more.rows.items():
            erased.rows[table] = erased.rows.get(table, 0) + number
    return erased


def tag_sha256(tag: str) -> str:
    """How a tag is called where it must not be named."""
    return hashlib.sha256(tag.encode()).hexdigest()


# --- Somebody who is watched over -----------------------------------------------------------------------


def _watched(connection: Connection, id_: str, line: Line, now_us: int) -> Erased:
    erased = Erased("watched")
    name = connection.scalar(select(watched.c.name).where(watched.c.id == id_))
    carried = connection.scalars(select(tags.c.tag).where(tags.c.watched == id_)).all()
    printed = {label for tag in carried for label in _tag_itself(connection, tag, line.asked_us, erased)}
    said = update(label_reports).where(label_reports.c.label.in_(printed)).values(words="", reach="")
    erased.count(label_reports, connection.execute(said).rowcount)
    _alerts_and_pages(connection, id_, erased)
    cases = select(search_cases.c.id).where(search_cases.c.watched == id_)
    _delete(connection, erased, search_changes, search_changes.c.case.in_(cases))
    _delete(connection, erased, search_sightings, search_sightings.c.case.in_(cases))
    _delete(connection, erased, search_cases, search_cases.c.watched == id_)
    _delete(connection, erased, rule_states, (rule_states.c.node == WATCHED) & (rule_states.c.device == id_))
    _delete(connection, erased, events, (events.c.node == WATCHED) & (events.c.device == id_))
    _delete(connection, erased, silences, silences.c.match.contains(f'"{id_}"', autoescape=True))
    _delete(connection, erased, consents, consents.c.watched == id_)
    _delete(connection, erased, tags, tags.c.watched == id_)
    _delete(connection, erased, watched, watched.c.id == id_)
    things = {f"watched/{id_}", *(f"tag/{tag}" for tag in carried), *(f"label/{one}" for one in printed)}
    _audit(connection, erased, things, {id_, *carried}, line, now_us)
    if name:
        # A message that tells of none of their alerts can only be known by the name: an answer in a chat, a word to the office.
        others = connection.scalar(select(func.count()).select_from(watched).where(watched.c.name == name))
        _forget_name(connection, erased, name, is_shared=bool(others))
        _delete_inbox(connection, erased, {name})
    return erased


def _alerts_and_pages(connection: Connection, id_: str, erased: Erased) -> None:
    """Their alerts; pages about nobody else, with all that was said there; the words of what told of them among others."""
    mine = list(
        connection.scalars(
            select(alerts.c.id).where(
                ((alerts.c.node == WATCHED) & (alerts.c.device == id_)) | alerts.c.facts.contains(f'"{id_}"', autoescape=True)
            )
        )
    )
    cases = connection.scalars(select(search_cases.c.id).where(search_cases.c.watched == id_)).all()
    told = set(connection.scalars(select(pages.c.id).where(pages.c.group_key.in_(cases))))
    told |= set(connection.scalars(select(pages.c.id).where(pages.c.memory.contains(f'"{id_}"', autoescape=True))))
    with_mine = _of(connection, page_alerts.c.page, page_alerts.c.alert, mine)
    shared = _of(connection, page_alerts.c.page, page_alerts.c.page, with_mine, ~page_alerts.c.alert.in_(mine)) - told
    for part in places.parts(with_mine | told):
        theirs, pages_ = select(alerts.c.id).where(alerts.c.id.in_(mine)), select(pages.c.id).where(pages.c.id.in_(part))
        for row in connection.execute(select(notifications).where(places.about(pages_, theirs))).all():
            places.blank(connection, row.id, row.body)
            erased.count(notifications, 1)
    for part in places.parts(mine):
        _delete(connection, erased, page_alerts, page_alerts.c.alert.in_(part))
        connection.execute(update(notifications).where(notifications.c.alert.in_(part)).values(alert=None))
        _delete(connection, erased, alert_history, alert_history.c.alert.in_(part))
        connection.execute(update(captures).where(captures.c.alert.in_(part)).values(alert=None))
        _delete(connection, erased, alerts, alerts.c.id.in_(part))
    for part in places.parts((with_mine | told) - shared):
        ours = select(notifications.c.id).where(notifications.c.page.in_(part))
        _delete(connection, erased, digest_pages, digest_pages.c.page.in_(part) | digest_pages.c.notification.in_(ours))
        _delete(connection, erased, answers, answers.c.page.in_(part))
        _delete(connection, erased, page_alerts, page_alerts.c.page.in_(part))
        _delete(connection, erased, notifications, notifications.c.page.in_(part))
        _delete(connection, erased, pages, pages.c.id.in_(part))
    # What is shared goes on, and is looked at anew without theirs.
    for part in places.parts(shared):
        connection.execute(update(pages).where(pages.c.id.in_(part), pages.c.state != "closed").values(changed=True))


def _of(connection: Connection, found: Any, column: Any, ids: Collection[str], *more: ColumnElement[bool]) -> set[str]:
    return {
        one for part in places.parts(ids) for one in connection.scalars(select(found).where(column.in_(part), *more).distinct())
    }


# --- A tag ----------------------------------------------------------------------------------------------


def _tag(connection: Connection, tag: str, line: Line, now_us: int) -> Erased:
    erased = Erased("tag")
    owner = connection.execute(select(tags).where(tags.c.tag == tag, tags.c.enrolled_us <= line.asked_us)).first()
    if owner is not None:
        _rule_memory(connection, owner.watched, tag, erased)
        places.of_person(connection, owner.watched, min(line.asked_us, now_us))
    printed = _tag_itself(connection, tag, line.asked_us, erased)
    _audit(connection, erased, {f"tag/{tag}", *(f"label/{one}" for one in printed)}, {tag}, line, now_us)
    return erased


def _tag_itself(connection: Connection, tag: str, asked_us: int, erased: Erased) -> set[str]:
    """Everything under its name from before it was asked for: afterwards the same thing may be another person's. Its labels."""
    for part in places.parts(_events_of(connection, tag)):
        _delete(connection, erased, events, events.c.id.in_(part) & (events.c.received_us <= asked_us))
    _delete(connection, erased, quarantine, _is_refused_with(tag) & (quarantine.c.received_us <= asked_us))
    for row in connection.execute(select(alerts).where(alerts.c.facts.contains(f'"{tag}"', autoescape=True))).all():
        if row.since_us <= asked_us:
            left = json.dumps(_without(json.loads(row.facts), tag), ensure_ascii=False)
            connection.execute(update(alerts).where(alerts.c.id == row.id).values(facts=left))
            erased.count(alerts, 1)
    # What is printed on it says from now on that it is nobody's; a misuse that was reported stays reported.
    mine = (labels.c.tag == tag, labels.c.made_us <= asked_us)
    printed = set(connection.scalars(select(labels.c.label).where(*mine)))
    ended = update(labels).where(*mine).values(tag="", ended_us=func.coalesce(labels.c.ended_us, asked_us))
    erased.count(labels, connection.execute(ended).rowcount)
    theirs = tags.c.tag == tag
    is_newer = connection.scalar(select(tags.c.tag).where(theirs, tags.c.enrolled_us > asked_us)) is not None
    if not is_newer:
        # Overwritten first: a key is not to be found in what the database has freed.
        if connection.execute(update(rotating_tags).where(rotating_tags.c.tag == tag).values(key=bytes(16))).rowcount:
            next_revision(connection, asked_us)  # nodes are told what to listen for without it
        _delete(connection, erased, rotating_tags, rotating_tags.c.tag == tag)
        _delete(connection, erased, tags, theirs)
    return printed


def _is_known(connection: Connection, tag: str) -> bool:
    """Whether anything here names it, or it was erased before: asked for twice it is done twice."""
    before = (erasures.c.kind == "tag") & (erasures.c.thing == tag_sha256(tag))
    itself = (tags.c.tag == tag, labels.c.tag == tag, rotating_tags.c.tag == tag, before)
    named = (alerts.c.facts.contains(f'"{tag}"', autoescape=True), _is_refused_with(tag))
    here = (connection.scalar(select(literal(1)).where(where).limit(1)) for where in (*itself, *named))
    return any(here) or bool(_events_of(connection, tag))


def _events_of(connection: Connection, tag: str) -> list[int]:
    """The ids of what names it: as `erasing` has seen, and what came since."""
    seen: _Seen = connection.info.get(_SEEN, _NOTHING_SEEN)
    upto = seen.upto if tag in seen.of else 0
    since = connection.scalars(select(events.c.id).where(events.c.id > upto, _names(tag)))
    return [*seen.of.get(tag, ()), *since]


def _names(tag: str) -> ColumnElement[bool]:
    """As a record says whose it is. Somebody may give a tag a name that other records have for something else: `dt`, `bear`."""
    said = (f'"tag":"{tag}"', f'"tag": "{tag}"')
    return or_(*(events.c.body.contains(one, autoescape=True) for one in said))


def _is_refused_with(tag: str) -> ColumnElement[bool]:
    return position(tag.encode(), quarantine.c.payload) > 0


def _rule_memory(connection: Connection, id_: str, tag: str, erased: Erased) -> None:
    """What rules remember of it, in the form of gateway.rules.presence; the watch's own memory drops it at its next tick."""
    here = (rule_states.c.node == WATCHED, rule_states.c.device == id_)
    for row in connection.execute(select(rule_states).where(*here)).all():
        memory = _without(json.loads(row.body), tag, _WHERE)
        same = (rule_states.c.rule == row.rule, *here)
        connection.execute(update(rule_states).where(*same).values(body=json.dumps(memory, ensure_ascii=False)))
        erased.count(rule_states, 1)


def _without(value: Any, tag: str, names: Collection[str] = ()) -> Any:
    """JSON without the tag's name, and whatever stands under it, under a name that ends with it, or under one of `names`."""
    if isinstance(value, dict):
        said = {key: one for key, one in value.items() if key not in names and tag not in (key, key.rpartition(" ")[2], one)}
        return {key: _without(one, tag, names) for key, one in said.items()}
    if isinstance(value, list):
        return [_without(one, tag, names) for one in value if one != tag]
    return value


def _tags_like(connection: Connection, sha256: str) -> list[str]:
    """The tags in this database whose name has this SHA-256."""
    found = {tag for column in (tags.c.tag, labels.c.tag, rotating_tags.c.tag) for tag in connection.scalars(select(column))}
    of_event = json_value(events.c.body, "tag")
    found |= set(connection.scalars(select(of_event).where(events.c.body.contains('"tag"')).distinct()))
    return [tag for tag in found if isinstance(tag, str) and tag_sha256(tag) == sha256]


# --- A contact ------------------------------------------------------------------------------------------


def _contact(connection: Connection, id_: str, line: Line, now_us: int) -> Erased:
    erased = Erased("contact")
    row = connection.execute(select(contacts).where(contacts.c.id == id_)).first()
    if row is None:
        return erased
    ways = list(connection.scalars(select(addresses.c.address).where(addresses.c.contact == id_)))
    mine = connection.scalars(select(accounts.c.id).where(accounts.c.contact == id_)).all()
    names = {row.name, *connection.scalars(select(accounts.c.name).where(accounts.c.contact == id_))} - {people.REMOVED}
    if row.removed_us is None:
        people.remove(connection, id_, now_us)
    else:
        connection.execute(update(contacts).where(contacts.c.id == id_).values(name=people.REMOVED, deputy=None, quiet=None))
    erased.count(contacts, 1)
    erased.count(addresses, len(ways))
    told = update(notifications).where(notifications.c.contact == id_).values(provider_id=None, error=None, address=None)
    erased.count(notifications, connection.execute(told).rowcount)
    for table in (passkeys, ceremonies, login_links, sessions):
        _delete(connection, erased, table, table.c.account.in_(mine))
    theirs = select(jobs.c.id).where(jobs.c.account.in_(mine))
    _delete(connection, erased, job_nodes, job_nodes.c.job.in_(theirs))
    _delete(connection, erased, jobs, jobs.c.account.in_(mine))
    connection.execute(update(installations).where(installations.c.account.in_(mine)).values(account=None))
    _delete(connection, erased, accounts, accounts.c.id.in_(mine))
    _delete(connection, erased, invitations, invitations.c.name.in_(names))
    _delete_inbox(connection, erased, {*ways, *names})
    # Who they were to the trail is an id; what it says of them in words goes.
    things = {f"contact/{id_}", *(f"account/{one}" for one in mine)}
    _audit(connection, erased, things, {*ways, *names}, line, now_us)
    for name in names:
        others = connection.scalar(select(func.count()).select_from(contacts).where(contacts.c.name == name))
        _forget_name(connection, erased, name, is_shared=bool(others))
    for way in ways:
        _forget_words(connection, erased, {way: people.REMOVED})
    papers = select(func.count()).select_from(visits).join(captures, captures.c.visit == visits.c.id)
    kept = sum(connection.scalar(papers.where(visits.c.who == name)) or 0 for name in names)
    if kept:
        erased.remains.append(f"{kept} dossiers of captures: who was there is part of the municipality's papers")
    return erased


# --- What all three need ----------------------------------------------------------------------------------


def _forget_name(connection: Connection, erased: Erased, name: str, *, is_shared: bool) -> None:
    """Out of every column in which somebody may have written it. A namesake's stays, and so all that could be theirs."""
    if is_shared:
        erased.remains.append("what others wrote under or with this name: somebody else is called the same")
    elif len(name) == 1:
        erased.remains.append("words of others: a name of one sign can't be told from other words")
    else:
        _forget_words(connection, erased, {name: people.REMOVED})


def _forget_words(connection: Connection, erased: Erased, instead: Mapping[str, str]) -> None:
    """`instead`: old -> new. A signature is the whole of its column; elsewhere it may stand anywhere."""
    for where, spellings in ((SIGNED, _plainly), (WRITTEN, _plainly), (IN_JSON, _in_json)):
        for name, columns in where.items():
            table = metadata.tables[name]
            for column in columns:
                for old, new in ((spelt, new) for word, new in instead.items() for spelt in spellings(word)):
                    mine = table.c[column]
                    here = or_(mine == old, mine.endswith(f":{old}", autoescape=True)) if where is SIGNED else mine.contains(
                        old, autoescape=True
                    )  # fmt: skip
                    if table is visits:  # of a capture's: the municipality's papers
                        here &= ~select(captures.c.id).where(captures.c.visit == visits.c.id).exists()
                    values: dict[str, Any] = {column: func.replace(mine, old, new)}
                    if "version" in table.c:
                        values["version"] = table.c.version + 1  # who read it before must read it again
                    erased.count(table, connection.execute(update(table).where(here).values(values)).rowcount)


def _plainly(name: str) -> Iterable[str]:
    return (name,)


def _in_json(name: str) -> Iterable[str]:
    """As it stands between the quotes of JSON: with its own signs, or with ASCII only."""
    return {json.dumps(name, ensure_ascii=ascii_)[1:-1] for ascii_ in (False, True)}


def _delete_inbox(connection: Connection, erased: Erased, words: Collection[str]) -> None:
    """What came from them or names them. The row keeps its id, so that it is not taken again."""
    spelt = {one for word in words if len(word) > 1 for one in _in_json(word)}
    if spelt:
        here = or_(*(inbox.c.body.contains(one, autoescape=True) for one in spelt))
        gone = (
            update(inbox).where(here).values(body="{}", error=None, done_us=func.coalesce(inbox.c.done_us, inbox.c.received_us))
        )
        erased.count(inbox, connection.execute(gone).rowcount)


def _audit(
    connection: Connection, erased: Erased, things: Collection[str], words: Collection[str], line: Line, now_us: int
) -> None:
    """Empties what the trail says of these things, or with these words in it, and enters that; its chain holds."""
    spelt = {one for word in words if len(word) > 1 for one in (*_plainly(word), *_in_json(word))}
    columns = (audit_details.c.why, audit_details.c.more, audit_details.c.thing)
    said = [column.contains(one, autoescape=True) for column in columns for one in spelt]
    here = or_(audit_details.c.thing.in_(things), *said)
    erased.count(audit_details, erase_where(connection, here, line.asked_by, now_us))
    record(connection, line.asked_by, "erase", f"erasure/{line.id}", now_us, more={"kind": line.kind})


def _delete(connection: Connection, erased: Erased, table: Table, where: ColumnElement[bool]) -> None:
    erased.count(table, connection.execute(delete(table).where(where)).rowcount)


Erase = Callable[[Connection, str, str, int], Erased]
ERASE: Mapping[Kind, Erase] = {"watched": erase_watched, "contact": erase_contact, "tag": erase_tag}
"""By what is erased."""
