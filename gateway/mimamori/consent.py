"""On whose word somebody is watched over: entered, said again every half year, missing, lapsed, revoked. Nothing of tags' labels.

Each word is a row of `consents`; the newest that was not revoked holds. What follows from time goes by level, so that `tick` may
be repeated: the family is asked by day, week after week; who stays without a word is told of, with the day, before anything
stands still; and nothing does unless that message has arrived at somebody in the office. Who has no row was entered before
consents were asked for: the office hears once of whom it lacks, and has the same time to enter them.
"""

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, case, func, insert, or_, select, update

from gateway.audit import record
from gateway.keeping.erase import erase_watched, erasing
from gateway.keeping.places import in_queue
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.search import UNENDED
from gateway.notify.message import Severity
from gateway.paging import Notices
from gateway.state import State
from gateway.state.tables import consents, label_reports, labels, memberships, notifications, pages, search_cases, tags, watched
from gateway.words.refusal import Refusal

log = logging.getLogger(__name__)

CONSENT = "consent"
"""The kind, and the route, of its pages."""
DAY_US = 86_400 * 1_000_000
NOTICE_US = 14 * DAY_US
"""So long after family and office were told of it, a watch without a word stands still; never earlier."""
AGAIN_US = 7 * DAY_US
BY_DAY = (dt.time(9), dt.time(18))
"""Between these, by the gateway's zone, families are asked: it wakes nobody."""
LEAP_US = DAY_US
"""By so much a clock does not go on between two looks: it was set, perhaps wrongly, and for so long nobody is asked or warned."""
NAMED = 12
"""Of more who lack a consent the office hears how many there are, and finds them in the list."""
_ARRIVED = ("sent", "seen", "answered")

Basis = Literal["self", "representative", "missing"]
Held = Literal["held", "due", "ending", "missing", "lapsed", "revoked"]
"""held: good. due: asked, no word yet. ending: told that it will stand still. lapsed: it stands still. revoked: it is over.
missing: nobody has entered one."""


class NoConsent(Refusal):
    """This can't be done or entered."""


class Given(NamedTuple):
    """What somebody agreed to."""

    basis: Basis
    by: str
    """The name of who agreed."""
    relation: str = ""
    """Of a representative: daughter."""
    entitled: str = ""
    """Of a representative: their right to it, and what shows it: guardian, by the extract of the register."""
    given_us: int | None = None
    """When; None: now."""


class Consent(NamedTuple):
    """How it stands with one person."""

    state: Held
    given: Given | None
    entered_us: int | None = None
    entered_by: str = ""
    confirm_by_us: int | None = None
    stops_us: int | None = None
    """The day on which the watch stands still unless somebody says a word before."""
    lapsed_us: int | None = None


def check(given: Given, now_us: int) -> None:
    """NoConsent for what is none."""
    if given.basis not in ("self", "representative"):
        raise NoConsent("why.consent_basis")
    if not given.by.strip():
        raise NoConsent("why.consent_by")
    if given.basis == "representative" and not (given.relation.strip() and given.entitled.strip()):
        raise NoConsent("why.consent_entitled")
    if given.given_us is not None and not 0 <= given.given_us <= now_us:
        raise NoConsent("why.consent_given")


def enter(connection: Connection, id_: str, given: Given, by: str, now_us: int, config: MimamoriConfig) -> None:
    """Puts a word on record; it holds from now on, and ends what asked for it. NoConsent for what is none."""
    check(given, now_us)
    at_us = now_us if given.given_us is None else given.given_us
    connection.execute(
        insert(consents),
        {"watched": id_, "basis": given.basis, "given_by": given.by.strip(), "relation": given.relation.strip(),
         "entitled": given.entitled.strip(), "given_us": at_us, "entered_us": now_us, "entered_by": by,
         "confirm_by_us": at_us + int(config.confirm_every * 1e6)},
    )  # fmt: skip
    record(connection, by, "watched.consent", f"watched/{id_}", now_us, more={"basis": given.basis})


def newest(connection: Connection, id_: str) -> Row[Any] | None:
    """The word that holds; None where there is none."""
    mine = select(consents).where(consents.c.watched == id_, consents.c.revoked_us.is_(None))
    return connection.execute(mine.order_by(consents.c.id.desc()).limit(1)).first()


def standing(connection: Connection, id_: str, now_us: int) -> Consent:
    """How it stands with this person."""
    row = newest(connection, id_)
    if row is None:
        is_revoked = connection.scalar(select(consents.c.id).where(consents.c.watched == id_).limit(1)) is not None
        return Consent("revoked" if is_revoked else "missing", None)
    given = None if row.basis == "missing" else Given(row.basis, row.given_by, row.relation, row.entitled, row.given_us)
    stops_us = None if row.told_us is None or row.lapsed_us is not None else row.told_us + NOTICE_US
    state: Held = "held"
    if row.lapsed_us is not None:
        state = "lapsed"
    elif stops_us is not None:
        state = "ending"
    elif row.basis == "missing":
        state = "missing"
    elif now_us >= row.confirm_by_us:
        state = "due"
    return Consent(state, given, row.entered_us, row.entered_by, row.confirm_by_us, stops_us, row.lapsed_us)


def must_hold(connection: Connection, id_: str, now_us: int) -> None:
    """NoConsent where nobody may be given a tag for want of a consent."""
    consent = standing(connection, id_, now_us)
    if consent.given is None or consent.state in ("lapsed", "revoked"):
        raise NoConsent("why.no_consent")


class Consents:
    """Safe on many threads. Everything but `tick` works in the caller's transaction; call `learn` once it is committed."""

    def __init__(
        self,
        state: State,
        config: MimamoriConfig,
        notices: Callable[[], Notices] | None = None,
        *,
        office: str | None = None,
        zone: ZoneInfo = ZoneInfo("Asia/Tokyo"),  # noqa: B008 - a value
        learn: Callable[[], None] = lambda: None,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`notices`: None in a gateway that tells nobody. `learn` has this process know anew whose tag is whose."""
        self._state, self.config, self._notices, self._office, self._zone = state, config, notices, office, zone
        self.learn, self._ring = learn, ring
        self._broken: set[str] = set()
        self._looked_us: int | None = None
        self._leapt_us: int | None = None

    # --- what people do -------------------------------------------------------------------------------

    def enter(self, connection: Connection, id_: str, given: Given, by: str, now_us: int) -> None:
        """As the function, and whoever was asked for it hears that it goes on. NoConsent for what is none, or nobody."""
        person = self._person(connection, id_)
        enter(connection, id_, given, by, now_us, self.config)
        self._close(connection, person, "consent.confirmed", now_us, by, until=standing(connection, id_, now_us).confirm_by_us)

    def confirm(self, connection: Connection, id_: str, by: str, now_us: int) -> None:
        """Family, or an officer on their word, says that it goes on; a watch that stood still goes on too.

        The word is kept as that of who gave the last one, entered by who says so now. NoConsent where there is none to say again.
        """
        consent = standing(connection, id_, now_us)
        if consent.given is None:
            raise NoConsent("why.no_consent_again")
        self.enter(connection, id_, consent.given._replace(given_us=now_us), by, now_us)

    def revoke(self, connection: Connection, id_: str, by: str, now_us: int, why: str = "") -> None:
        """Ends it for good: where the tags were is deleted everywhere, their keys are destroyed, the person is forgotten.

        Family and office hear that it is done. NoConsent where nobody is called so, or while they are searched for.
        """
        person = self._person(connection, id_)
        mark_revoked(connection, id_, by, now_us, why)
        self._finish(connection, person, by, now_us)

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> None:
        """Looks at everybody: a chore of a minute. One who fails is logged once, and stops nobody else."""
        self._notice_leap(now_us)
        with self._state.read() as connection:
            newest_of = select(func.max(consents.c.id)).where(consents.c.revoked_us.is_(None)).group_by(consents.c.watched)
            waits = consents.c.lapsed_us.is_not(None) | (consents.c.confirm_by_us > now_us)
            fine = select(consents.c.watched).where(consents.c.id.in_(newest_of), waits)
            people = connection.scalars(select(watched.c.id).where(watched.c.id.not_in(fine)).order_by(watched.c.id)).all()
        missing: list[str] = []
        for id_ in people:
            try:
                with self._state.read() as connection:
                    holds_none = newest(connection, id_) is None
                with erasing(self._state, "watched", id_) if holds_none else self._state.write() as connection:
                    is_gone = self._look(connection, id_, now_us, missing)
                if is_gone:
                    self._state.empty_log()
                self._broken.discard(id_)
            except Exception:
                if id_ not in self._broken:
                    self._broken.add(id_)
                    log.exception("the consent of watched/%s can't be looked at; it is tried again", id_)
        if missing:
            with self._state.write() as connection:
                self._tell_missing(connection, missing, now_us)
        self.learn()
        if people:
            self._ring()

    def _notice_leap(self, now_us: int) -> None:
        """A clock that was set far ahead makes words of half a year old at once: it must have stayed so for a day before that."""
        before_us, self._looked_us = self._looked_us, now_us
        if before_us is not None and now_us - before_us > LEAP_US:
            self._leapt_us = now_us
        elif self._leapt_us is not None and not 0 <= now_us - self._leapt_us < LEAP_US:
            self._leapt_us = None

    def _look(self, connection: Connection, id_: str, now_us: int, missing: list[str]) -> bool:
        """Whether they were erased."""
        person = connection.execute(select(watched).where(watched.c.id == id_)).first()
        if person is None:
            return False
        row = newest(connection, id_)
        if row is None:
            last = connection.execute(
                select(consents).where(consents.c.watched == id_).order_by(consents.c.id.desc()).limit(1)
            ).first()
            if last is not None:  # revoked where nobody could be told: at the command line
                if is_searched_for(connection, id_):
                    return False
                self._finish(connection, person, last.revoked_by or "gateway", now_us)
                return True
            if self._leapt_us is None:
                missing.append(id_)
            return False
        if self._leapt_us is not None or row.lapsed_us is not None or now_us < row.confirm_by_us:
            return False
        if row.told_us is not None:
            if now_us >= row.told_us + NOTICE_US:
                self._stand_still(connection, person, row, now_us)
        elif now_us >= row.confirm_by_us + int(self.config.confirm_grace * 1e6):
            self._warn(connection, person, row, now_us)
        elif row.basis != "missing" and (row.asked_us is None or now_us >= row.asked_us + AGAIN_US) and self._is_day(now_us):
            self._ask(connection, person, row, now_us)
        return False

    def _ask(self, connection: Connection, person: Row[Any], row: Row[Any], now_us: int) -> None:
        if self._set(connection, row, asked_us=now_us):
            self._tell(connection, person, "consent.ask", now_us, [person.family], key=f"ask/{now_us}", by_us=row.confirm_by_us)

    def _warn(self, connection: Connection, person: Row[Any], row: Row[Any], now_us: int) -> None:
        """Says to family and office on which day it will stand still. Where nobody can be told, it doesn't."""
        if self._notices is None or self._office is None or not self._set(connection, row, told_us=now_us):
            return
        self._tell(connection, person, "consent.ending", now_us, [person.family, self._office], key=f"ending/{now_us}",
                   severity="warning", until=now_us + NOTICE_US)  # fmt: skip

    def _stand_still(self, connection: Connection, person: Row[Any], row: Row[Any], now_us: int) -> None:
        if not self._office_heard(connection, row):
            self._warn(connection, person, row, now_us)  # anew, with another day: nothing stands still that nobody was told of
            return
        if not self._set(connection, row, lapsed_us=now_us):
            return
        record(connection, "gateway", "watched.lapse", f"watched/{row.watched}", now_us)
        in_queue(connection, row.watched)  # what was made a moment ago would still say where the tag was
        keepers = [person.family, *([self._office] if self._office else [])]
        self._tell(connection, person, "consent.lapsed", now_us, keepers, key=f"lapsed/{now_us}", severity="warning")

    def _office_heard(self, connection: Connection, row: Row[Any]) -> bool:
        """Whether the message that it will stand still arrived at anybody who is not of the family only."""
        mine = select(notifications.c.id).join(pages, pages.c.id == notifications.c.page)
        mine = mine.where(
            pages.c.route == CONSENT, pages.c.group_key == _key(row.watched), notifications.c.created_us >= row.told_us
        )
        arrived = mine.where(or_(notifications.c.state.in_(_ARRIVED), notifications.c.sent_us.is_not(None)))
        return (
            connection.scalar(arrived.where(notifications.c.contact.in_(self._office_contacts(connection))).limit(1)) is not None
        )

    def _office_contacts(self, connection: Connection) -> Any:
        theirs = select(memberships.c.contact).where(memberships.c.team == self._office)
        return [self._office, *connection.scalars(theirs)]

    def _tell_missing(self, connection: Connection, ids: Sequence[str], now_us: int) -> None:
        """Notes since when they lack one, and has the office hear of them: once, all together."""
        new = [id_ for id_ in ids if connection.scalar(select(consents.c.id).where(consents.c.watched == id_).limit(1)) is None]
        for id_ in new:
            connection.execute(
                insert(consents),
                {"watched": id_, "basis": "missing", "given_by": "", "relation": "", "entitled": "", "given_us": now_us,
                 "entered_us": now_us, "entered_by": "gateway", "confirm_by_us": now_us},
            )  # fmt: skip
        if not new or self._notices is None or self._office is None:
            return
        names = connection.scalars(select(watched.c.name).where(watched.c.id.in_(new[:NAMED])).order_by(watched.c.name)).all()
        facts = {"n": len(new), "who": "、".join(names), "until": now_us + int(self.config.confirm_grace * 1e6)}
        self._notices().tell(
            connection, route=CONSENT, group_key=f"missing/{now_us}", kind=CONSENT, severity="warning", to=[self._office],
            moment="consent.missing", facts=facts, now_us=now_us, asks=False, ends=True,
        )  # fmt: skip

    # --- inside ----------------------------------------------------------------------------------------

    def _finish(self, connection: Connection, person: Row[Any], by: str, now_us: int) -> None:
        """Erases, and says so in words that name nobody: who it was is gone by then."""
        theirs = connection.scalars(select(tags.c.tag).where(tags.c.watched == person.id)).all()
        end_labels(connection, theirs, now_us)
        erase_watched(connection, person.id, by, now_us)
        record(connection, by, "watched.revoke", f"watched/{person.id}", now_us)
        if self._notices is not None:
            self._notices().tell(
                connection, route=CONSENT, group_key=f"revoked/{person.id}", kind=CONSENT, severity="warning",
                to=[person.family, *([self._office] if self._office else [])], moment="consent.revoked", facts={},
                now_us=now_us, asks=False, ends=True,
            )  # fmt: skip

    def _tell(
        self, connection: Connection, person: Row[Any], moment: str, now_us: int, to: Sequence[str], *, key: str,
        severity: Severity = "info", **facts: Any,
    ) -> None:  # fmt: skip
        if self._notices is not None:
            self._notices().tell(
                connection, route=CONSENT, group_key=_key(person.id), kind=CONSENT, severity=severity, to=to, moment=moment,
                facts={"watched": person.id, "who": person.name, **facts}, now_us=now_us, key=key, asks=False,
            )  # fmt: skip

    def _close(self, connection: Connection, person: Row[Any], moment: str, now_us: int, by: str, **facts: Any) -> None:
        """Ends what was asked: who was told hears it."""
        open_ = select(pages.c.id).where(
            pages.c.route == CONSENT, pages.c.group_key == _key(person.id), pages.c.state != "closed"
        )
        page = connection.scalar(open_)
        if page is not None and self._notices is not None:
            about: Mapping[str, Any] = {"watched": person.id, "who": person.name, **facts}
            self._notices().close(connection, page, now_us, moment=moment, facts=about, but=(by.removeprefix("contact:"),))

    def _is_day(self, now_us: int) -> bool:
        return BY_DAY[0] <= dt.datetime.fromtimestamp(now_us / 1e6, self._zone).time() < BY_DAY[1]

    @staticmethod
    def _person(connection: Connection, id_: str) -> Row[Any]:
        row = connection.execute(select(watched).where(watched.c.id == id_)).first()
        if row is None:
            raise NoConsent("why.nobody")
        return row

    @staticmethod
    def _set(connection: Connection, row: Row[Any], **values: Any) -> bool:
        """Compare-and-set: False where somebody has said a word since it was read."""
        same = (consents.c.id == row.id, consents.c.revoked_us.is_(None), consents.c.told_us.is_not_distinct_from(row.told_us))
        is_newest = consents.c.id == select(func.max(consents.c.id)).where(consents.c.watched == row.watched).scalar_subquery()
        return connection.execute(update(consents).where(*same, is_newest).values(**values)).rowcount == 1


def mark_revoked(connection: Connection, id_: str, by: str, now_us: int, why: str = "") -> None:
    """Nothing of this person is taken in any more; a gateway that runs erases the rest. NoConsent while they are searched for."""
    if is_searched_for(connection, id_):
        raise NoConsent("why.searched_for")
    if connection.scalar(select(consents.c.id).where(consents.c.watched == id_).limit(1)) is None:
        connection.execute(
            insert(consents),
            {"watched": id_, "basis": "missing", "given_by": "", "relation": "", "entitled": "", "given_us": now_us,
             "entered_us": now_us, "entered_by": by, "confirm_by_us": now_us},
        )  # fmt: skip
    mine = consents.c.watched == id_
    connection.execute(update(consents).where(mine, consents.c.revoked_us.is_(None)).values(revoked_us=now_us, revoked_by=by))
    record(connection, by, "watched.revoke", f"watched/{id_}", now_us, why=why)


def end_labels(connection: Connection, theirs: Sequence[str], now_us: int) -> None:
    """Labels of these tags stay ours, and say of no tag any more: somebody may find one for years. What was reported goes."""
    mine = labels.c.tag.in_(theirs)
    said = label_reports.c.label.in_(select(labels.c.label).where(mine))
    state = case((label_reports.c.state == "open", "revoked"), else_=label_reports.c.state)
    connection.execute(update(label_reports).where(said).values(words="", reach="", state=state))
    connection.execute(update(labels).where(mine).values(ended_us=func.coalesce(labels.c.ended_us, now_us), tag=""))


def is_searched_for(connection: Connection, id_: str) -> bool:
    """Whether a search for this person is open or paused: till it ends nothing of them is erased."""
    unended = select(search_cases.c.id).where(search_cases.c.watched == id_, search_cases.c.state.in_(UNENDED))
    return connection.scalar(unended.limit(1)) is not None


def _key(id_: str) -> str:
    return f"person/{id_}"
