"""What is written on a tag: `ABCD-EFGHJ`, by which a finder asks whether it is ours, and what follows when one is reported.

Eight characters and a check character, of 31 that can't be taken for each other. A label says nothing of who carries the tag: it
is drawn by chance. Who reports that a tag is where it should not be stops it: what is heard of it is dropped from then on,
before it is stored, until an officer decides. Only while its person is searched for, or an alert says that they left or are not
heard of, it goes on, and the office decides at once.
"""

import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, Text, cast, func, insert, select, update

from gateway.audit import record
from gateway.keeping.erase import erase_tag
from gateway.keeping.places import in_queue
from gateway.mimamori.consent import end_labels, is_searched_for
from gateway.mimamori.enrolled import WATCHED
from gateway.notify.message import Severity
from gateway.paging import Notices
from gateway.state import State
from gateway.state.tables import alerts, label_reports, labels, pages, tags, watched
from gateway.words.refusal import Refusal

LABEL = "label"
"""The kind, and the route, of its pages."""
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""No 0 and O, no 1, I and L. A prime number of them: the check character finds every single wrong one, and every swap of two."""
LENGTH = 8
WHOLE = LENGTH + 1
MOST_PAGES_A_DAY = 3
"""Reports of one label and kind that ring at the office within a day; more are kept, and shown in the list."""
MOST_REPORTS_A_DAY = 20
"""Of one label and kind; more are refused: it has been heard. Never a report of misuse that would stop the tag."""
MOST_WORDS, MOST_REACH = 1000, 100
DAY_US = 86_400 * 1_000_000
AGAIN_US = tuple(hours * 3600 * 1_000_000 for hours in (1, 4, 12, 24, 48, 72))
"""So long after a report of misuse that nobody has settled the office hears of it again: meanwhile nobody knows of that tag."""

What = Literal["found", "misuse"]
How = Literal["stop", "resume", "revoke", "done"]
"""stop: at once, in a search; it stays to be decided. resume: it is taken in again. revoke: where it was is erased, its key
destroyed. done: of a found one, that somebody saw to it."""
_STATES: Mapping[str, str] = {"resume": "resumed", "revoke": "revoked", "done": "done"}


class Mistyped(Refusal):
    """This is not written as a label is, or a character of it is wrong."""


class NotSettled(Refusal):
    """It can't be settled so."""


class Outcome(NamedTuple):
    """What became of a report."""

    report: int
    is_stopped: bool
    """Whether what is heard of the tag is dropped now."""


def check_of(eight: str) -> str:
    """The check character: with it, the sum of values weighted 9, 8, ... 1 is a multiple of 31."""
    total = sum(weight * ALPHABET.index(one) for weight, one in zip(range(WHOLE, 1, -1), eight, strict=True))
    return ALPHABET[-total % len(ALPHABET)]


def draw() -> str:
    """Another label, by chance."""
    eight = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return eight + check_of(eight)


def read(typed: str) -> str:
    """The label as it is kept, from whatever somebody typed: small letters, full width, with or without separators. Mistyped."""
    plain = re.sub(r"[\s\-_.\u30fb\u30fc\u2010-\u2015\u2212]", "", unicodedata.normalize("NFKC", typed[:100])).upper()
    if len(plain) != WHOLE or any(one not in ALPHABET for one in plain) or check_of(plain[:LENGTH]) != plain[LENGTH]:
        raise Mistyped("why.label_mistyped")
    return plain


def shown(label: str) -> str:
    """As it is printed: ABCD-EFGHJ."""
    return f"{label[:4]}-{label[4:]}"


def make(connection: Connection, tag: str, by: str, now_us: int) -> str:
    """The label of this tag: the one that it has, or a new one."""
    mine = select(labels.c.label).where(labels.c.tag == tag, labels.c.ended_us.is_(None))
    known = connection.scalar(mine.order_by(labels.c.made_us.desc()).limit(1))
    if known is not None:
        return str(known)
    label = draw()
    while connection.scalar(select(labels.c.label).where(labels.c.label == label)) is not None:
        label = draw()
    connection.execute(insert(labels), {"label": label, "tag": tag, "made_us": now_us, "made_by": by})
    record(connection, by, "tag.label", f"label/{label}", now_us)
    return label


def is_ours(connection: Connection, label: str) -> bool:
    """Whether it is one of ours, whatever became of its tag since."""
    return connection.scalar(select(labels.c.label).where(labels.c.label == label)) is not None


class Labels:
    """Safe on many threads; each works in the caller's transaction. Call `learn` once that is committed."""

    def __init__(
        self,
        notices: Callable[[], Notices] | None = None,
        *,
        office: str | None = None,
        town: str = "",
        learn: Callable[[], None] = lambda: None,
    ) -> None:
        """`notices`: None in a gateway that tells nobody. `town`: whose tags these are, as finders read it; empty: the office.

        `learn` has this process know anew whose tag is whose.
        """
        self._notices, self.office, self.town, self.learn = notices, office, town, learn

    def report(self, connection: Connection, label: str, what: What, words: str, reach: str, now_us: int) -> Outcome | None:
        """What a finder says of a tag of ours. None where it was said so often today that it is kept no more."""
        row = connection.execute(select(labels).where(labels.c.label == label)).one()
        today = select(label_reports.c.what).where(label_reports.c.label == label, label_reports.c.at_us > now_us - DAY_US)
        before = connection.scalars(today).all()
        tag = connection.execute(select(tags).where(tags.c.tag == row.tag)).first() if row.tag else None
        person = None if tag is None else connection.execute(select(watched).where(watched.c.id == tag.watched)).first()
        is_missed = person is not None and _is_missed(connection, person.id)
        stops = what == "misuse" and tag is not None and tag.stopped_us is None and not is_missed
        if before.count(what) >= MOST_REPORTS_A_DAY and not stops:
            return None
        said = {"label": label, "what": what, "at_us": now_us, "words": words.strip()[:MOST_WORDS],
                "reach": reach.strip()[:MOST_REACH], "state": "open"}  # fmt: skip
        report = int(connection.scalar(insert(label_reports).values(said).returning(label_reports.c.id)) or 0)
        rings = before.count(what) < MOST_PAGES_A_DAY
        if what == "found":
            if rings:
                to = [*([person.family] if person is not None else []), *self._the_office()]
                self._tell(connection, report, person, "label.found", to, now_us, "warning")
            return Outcome(report, is_stopped=tag is None or tag.stopped_us is not None)
        if is_missed:
            if rings:
                self._tell(connection, report, person, "label.misuse_in_search", self._the_office(), now_us, "critical")
            return Outcome(report, is_stopped=tag is not None and tag.stopped_us is not None)
        if person is not None:
            self._stop(connection, report, row.tag, person, "finder", now_us)
        if rings:
            self._tell(connection, report, person, "label.misuse", self._the_office(), now_us, "critical")
        return Outcome(report, is_stopped=True)

    def settle(self, connection: Connection, report: int, how: How, by: str, now_us: int, why: str = "") -> None:
        """What an officer decides. It settles every open report of the same kind of this tag. NotSettled where it can't be.

        A tag that is revoked is nobody's any more; its person stays enrolled and can be given another.
        """
        row = connection.execute(select(label_reports).where(label_reports.c.id == report)).first()
        if row is None:
            raise NotSettled("why.no_report")
        if row.state != "open":
            raise NotSettled("why.report_settled")
        if (how == "done") != (row.what == "found"):
            raise NotSettled("why.report_how")
        tag = connection.scalar(select(labels.c.tag).where(labels.c.label == row.label)) or ""
        owner = connection.scalar(select(tags.c.watched).where(tags.c.tag == tag))
        person = connection.execute(select(watched).where(watched.c.id == owner)).first()
        if how == "revoke" and person is not None and is_searched_for(connection, person.id):
            raise NotSettled("why.searched_for")
        if how == "stop":
            self._stop(connection, report, tag, person, by, now_us)
            return
        same = select(labels.c.label).where(labels.c.tag == tag) if tag else [row.label]
        mine = label_reports.c.label.in_(same), label_reports.c.what == row.what, label_reports.c.state == "open"
        ids = connection.scalars(select(label_reports.c.id).where(*mine)).all()
        connection.execute(
            update(label_reports).where(label_reports.c.id.in_(ids)).values(state=_STATES[how], settled_us=now_us, settled_by=by)
        )
        thing = f"label/{row.label}" if person is None else f"watched/{person.id}"
        record(connection, by, "label.settle", thing, now_us, why=why, more={"report": report, "how": how})
        if how == "resume":
            connection.execute(update(tags).where(tags.c.tag == tag).values(stopped_us=None))
        elif how == "revoke":
            end_labels(connection, [tag] if tag else [], now_us)
            if person is not None:
                erase_tag(connection, tag, by, now_us)
        for id_ in ids:
            self._close(connection, id_, f"label.{_STATES[how]}", person, by, now_us)

    def remind(self, state: State, now_us: int) -> None:
        """A chore: has the office hear again of misuse that rang and that nobody has settled. May be repeated."""
        if self._notices is None or self.office is None:
            return
        waits = (label_reports.c.what == "misuse", label_reports.c.state == "open", label_reports.c.at_us <= now_us - AGAIN_US[0])
        rang = select(pages.c.id).where(pages.c.route == LABEL, pages.c.group_key == "report/" + cast(label_reports.c.id, Text))
        first = select(func.min(label_reports.c.id)).where(*waits, rang.where(pages.c.state != "closed").exists())
        with state.read() as connection:
            ids = connection.scalars(first.group_by(label_reports.c.label)).all()
        for id_ in ids:
            with state.write() as connection:
                self._remind(connection, id_, now_us)

    def _remind(self, connection: Connection, id_: int, now_us: int) -> None:
        still = label_reports.c.id == id_, label_reports.c.state == "open"
        row = connection.execute(select(label_reports).where(*still)).first()
        if row is None:
            return
        tag = select(labels.c.tag).where(labels.c.label == row.label).scalar_subquery()
        mine = select(watched).join(tags, tags.c.watched == watched.c.id).where(tags.c.tag == tag)
        person = connection.execute(mine).first()
        is_missed = person is not None and _is_missed(connection, person.id)
        moment = "label.misuse_in_search" if is_missed else "label.misuse"
        passed = sum(now_us >= row.at_us + after_us for after_us in AGAIN_US)
        self._tell(connection, id_, person, moment, self._the_office(), now_us, "critical", key=f"again/{passed}", when=row.at_us)

    # Inside

    def _stop(self, connection: Connection, report: int, tag: str, person: Row[Any] | None, by: str, now_us: int) -> None:
        """What is heard of it is dropped from now on; the family hears that, and nothing of why."""
        stopped = update(tags).where(tags.c.tag == tag, tags.c.stopped_us.is_(None)).values(stopped_us=now_us)
        if person is not None and connection.execute(stopped).rowcount == 1:
            record(connection, by, "tag.stop", f"watched/{person.id}", now_us, more={"report": report})
            in_queue(connection, person.id)  # what was made a moment ago would still say where it was
            self._tell(connection, report, person, "label.stopped", [person.family], now_us, "warning", group=f"stopped/{report}")

    def _the_office(self) -> list[str]:
        return [self.office] if self.office is not None else []

    def _tell(  # noqa: PLR0913 - what is said
        self, connection: Connection, report: int, person: Row[Any] | None, moment: str, to: Sequence[str], now_us: int,
        severity: Severity, *, group: str | None = None, key: str | None = None, **facts: Any,
    ) -> None:  # fmt: skip
        if self._notices is not None and to:
            self._notices().tell(
                connection, route=LABEL, group_key=group or f"report/{report}", kind=LABEL, severity=severity, to=to,
                moment=moment, facts={**_about(person), **facts}, now_us=now_us, key=key, asks=False,
            )  # fmt: skip

    def _close(self, connection: Connection, report: int, moment: str, person: Row[Any] | None, by: str, now_us: int) -> None:
        groups = (f"report/{report}", f"stopped/{report}")
        open_ = select(pages.c.id).where(pages.c.route == LABEL, pages.c.group_key.in_(groups), pages.c.state != "closed")
        for page in connection.scalars(open_).all():
            if self._notices is not None:
                self._notices().close(
                    connection, page, now_us, moment=moment, facts=_about(person), but=(by.removeprefix("contact:"),)
                )


def _about(person: Row[Any] | None) -> dict[str, Any]:
    return {} if person is None else {"watched": person.id, "who": person.name}


def _is_missed(connection: Connection, id_: str) -> bool:
    """Whether their tag is what they may be found by now. Stopped, it would end the alert that sends somebody to look."""
    theirs = select(alerts.c.id).where(alerts.c.node == WATCHED, alerts.c.device == id_, alerts.c.state != "resolved")
    away = theirs.where(alerts.c.fired_us.is_not(None), alerts.c.severity == "critical")
    return is_searched_for(connection, id_) or connection.scalar(away.limit(1)) is not None
