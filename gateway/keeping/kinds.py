"""The kinds of what is kept: one line each, with the setting that says how long, and the pieces that forget what is older.

A piece works on one transaction's worth; what must not be forgotten by itself (open alerts, live certificates, what the
rules have not seen) it leaves out. Kinds without a setting are kept, or are forgotten where they stand.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, func, or_, select, update

from gateway.audit import forget as forget_acts
from gateway.keeping import pictures as of_pictures
from gateway.keeping import places
from gateway.keeping.places import AT_ONCE, Events, Piece
from gateway.mimamori.enrolled import WATCHED
from gateway.state.tables import (
    alert_history,
    alerts,
    answers,
    captures,
    ceremonies,
    certificates,
    claims,
    commands,
    consents,
    desired,
    digest_pages,
    events,
    inbox,
    installations,
    invitations,
    job_nodes,
    jobs,
    label_reports,
    login_links,
    losses,
    media,
    node_tokens,
    notifications,
    page_alerts,
    pages,
    quarantine,
    recounts,
    rule_states,
    sessions,
    silences,
    visits,
    watched,
)


class Kind(NamedTuple):
    """One kind."""

    name: str
    setting: str | None
    """Of `[keep]`; None: `why` says how long."""
    what: str
    """For people, in English."""
    ja: str
    """For people, in Japanese."""
    pieces: Sequence[Piece | Events] = ()
    oldest: tuple[Table, Any, ColumnElement[bool] | None] | None = None
    """The table, the column of its time, and which of its rows: what the report counts."""
    why: str = ""
    why_ja: str = ""
    files: Callable[[Connection, int, of_pictures.Own], list[str]] | None = None
    """files(connection, before_us, own): deletes the rows of pictures, and says whose files are to follow."""


def _pages(connection: Connection, before_us: int, _now_us: int) -> int:
    """Closed pages with all that was said on them, and messages of no page."""
    old = select(pages.c.id).where(pages.c.state == "closed", pages.c.closed_us < before_us)
    ids = connection.scalars(old.limit(AT_ONCE)).all()
    theirs = select(notifications.c.id).where(notifications.c.page.in_(ids))
    connection.execute(delete(digest_pages).where(digest_pages.c.page.in_(ids) | digest_pages.c.notification.in_(theirs)))
    for table in (answers, page_alerts, notifications):
        connection.execute(delete(table).where(table.c.page.in_(ids)))
    connection.execute(delete(pages).where(pages.c.id.in_(ids)))
    return len(ids)


def _messages(connection: Connection, before_us: int, _now_us: int) -> int:
    over = notifications.c.page.is_(None), notifications.c.created_us < before_us, notifications.c.state != "queued"
    old = select(notifications.c.id).where(*over)
    ids = connection.scalars(old.limit(AT_ONCE)).all()
    connection.execute(delete(digest_pages).where(digest_pages.c.notification.in_(ids)))
    connection.execute(delete(notifications).where(notifications.c.id.in_(ids)))
    return len(ids)


def _alerts(connection: Connection, before_us: int, _now_us: int) -> int:
    """What is over, and on no page any more. That a capture followed stays in its dossier."""
    on_page = exists().where(page_alerts.c.alert == alerts.c.id)
    told = exists().where(notifications.c.alert == alerts.c.id)
    old = select(alerts.c.id).where(alerts.c.state == "resolved", alerts.c.resolved_us < before_us, ~on_page, ~told)
    ids = connection.scalars(old.limit(AT_ONCE)).all()
    connection.execute(delete(alert_history).where(alert_history.c.alert.in_(ids)))
    connection.execute(delete(alerts).where(alerts.c.id.in_(ids)))
    return len(ids)


class Where:
    """A condition of `before_us`."""

    def __init__(self, *columns: Any, more: ColumnElement[bool] | None = None) -> None:
        """All of these times are before; NULL is not."""
        self._columns, self._more = columns, more

    def __call__(self, before_us: int) -> ColumnElement[bool]:
        """As SQL."""
        return and_(*(column < before_us for column in self._columns), *([self._more] if self._more is not None else []))


def _piece(table: Table, where: Where) -> Piece:
    """Deletes rows of one table."""

    def forget(connection: Connection, before_us: int, _now_us: int) -> int:
        key = list(table.primary_key.columns)
        old = select(*key).where(where(before_us)).limit(AT_ONCE)
        rows = connection.execute(old).all()
        if rows:
            these = or_(*(and_(*(column == value for column, value in zip(key, row, strict=True))) for row in rows))
            connection.execute(delete(table).where(these))
        return len(rows)

    return forget


def _label_reports(connection: Connection, before_us: int, _now_us: int) -> int:
    """What a finder wrote goes; that it was reported, and what became of it, stays for as long as alerts do (below)."""
    here = label_reports
    old = here.c.at_us < before_us, here.c.state != "open", (here.c.words != "") | (here.c.reach != "")
    return connection.execute(update(here).where(*old).values(words="", reach="")).rowcount


def _jobs(connection: Connection, before_us: int, _now_us: int) -> int:
    ids = connection.scalars(select(jobs.c.id).where(jobs.c.until_us < before_us).limit(AT_ONCE)).all()
    connection.execute(delete(job_nodes).where(job_nodes.c.job.in_(ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
    return len(ids)


def _nobodys(connection: Connection, _before_us: int, _now_us: int) -> int:
    """What rules remember of who is not watched over any more; of them they say nothing again."""
    here = select(watched.c.id)
    gone = delete(rule_states).where(rule_states.c.node == WATCHED, rule_states.c.device.not_in(here))
    return connection.execute(gone).rowcount


def _has_newer(table: Table, column: str) -> ColumnElement[bool]:
    """Whether its node has another, by this column."""
    later = table.alias("later")
    return exists().where(later.c.node == table.c.node, later.c[column] > table.c[column])


_ended_silence = func.coalesce(silences.c.ended_us, silences.c.until_us)
_ended_session = func.coalesce(sessions.c.ended_us, sessions.c.expires_us)

KINDS: tuple[Kind, ...] = (
    Kind(
        "sightings", "sightings", "where tags were, and what search cases say", "見守りタグの検知記録、捜索の記録",
        (places.sightings, places.in_alerts, places.in_messages, places.in_pages, places.in_cases, places.in_quarantine,
         _nobodys),
        (events, events.c.received_us, places.of_sighting()),
    ),
    Kind("label_reports", "sightings", "what finders of a tag wrote", "タグを見つけた人からの連絡", (_label_reports,),
         (label_reports, label_reports.c.at_us, label_reports.c.words != "")),
    Kind("pictures", "pictures", "pictures with an animal or nobody in them", "人が写っていない画像",
         (of_pictures.never_came,), (media, media.c.received_us, None), files=of_pictures.nobody_in_it),
    Kind("pictures_of_people", "pictures_of_people", "pictures in which somebody may be, and other files of nodes",
         "人が写っている可能性のある画像", files=of_pictures.somebody_in_it),
    Kind("events", "events", "what devices told beside sightings", "わな・カメラ・機器の記録", (places.others,),
         (events, events.c.received_us, ~places.of_sighting())),
    Kind("alerts", "alerts", "alerts that are over, who was told, what they said", "通知と応答の記録",
         (_pages, _messages, _alerts), (alerts, alerts.c.since_us, None)),
    Kind("quarantine", "quarantine", "messages that were refused", "受け付けられなかった電文",
         (_piece(quarantine, Where(quarantine.c.received_us)),), (quarantine, quarantine.c.received_us, None)),
    Kind("consents", "consents", "on whose word somebody was watched over, after it ended", "見守りの同意の記録(終了後)",
         (_piece(consents, Where(consents.c.revoked_us)),), (consents, consents.c.given_us, None)),
    Kind("sessions", "sessions", "sessions, one-time links, invitations, after they ended", "ログインと招待の記録(終了後)",
         (_piece(sessions, Where(_ended_session)), _piece(login_links, Where(login_links.c.expires_us)),
          _piece(ceremonies, Where(ceremonies.c.expires_us)), _piece(invitations, Where(invitations.c.expires_us))),
         (sessions, sessions.c.opened_us, None)),
    Kind("orders", "orders", "commands, configurations, certificates, codes, jobs, silences, after their time",
         "機器の管理の記録",
         (_piece(commands, Where(commands.c.issued_us, commands.c.expires_us, more=commands.c.state != "waiting")),
          # What a node should run now, and its last certificate, stay: by them it is known.
          _piece(desired, Where(desired.c.created_us, more=_has_newer(desired, "revision"))),
          _piece(certificates, Where(certificates.c.not_after_us, more=_has_newer(certificates, "issued_us"))),
          _piece(node_tokens, Where(node_tokens.c.revoked_us)),
          _piece(claims, Where(claims.c.expires_us)),
          _piece(silences, Where(_ended_silence)), _jobs),
         (commands, commands.c.issued_us, None)),
    Kind("losses", "losses", "which records never came", "届かなかった記録の番号",
         (_piece(losses, Where(losses.c.recorded_us)),), (losses, losses.c.recorded_us, None)),
    Kind("audit", "audit", "what the audit trail says of each entry", "操作と閲覧の記録", (forget_acts,)),
    Kind("inbox", None, "what came in from LINE and telephones", "LINE・電話からの受信", (), (inbox, inbox.c.received_us, None),
         "40 days, its words until they are worked on", "40日(本文は処理まで)"),
    Kind("visits", None, "visits of traps", "わなの見回りの記録", (), (visits, visits.c.at_us, None), "kept", "保存"),
    Kind("installations", None, "where and when devices were put up, with photos", "機器の設置の記録と写真", (),
         (installations, installations.c.begun_us, None), "kept", "保存"),
    Kind("captures", None, "dossiers of captures, with their photos", "捕獲の記録と写真", (),
         (captures, captures.c.opened_us, None), "kept: the municipality's papers", "保存(市町村の文書)"),
    Kind("readings", None, "what sensors measured, in the embedded series store: of nobody", "計測値(個人を含まない)", (), None,
         "as `keep` of the store says; their hours and days are kept", "時系列の設定による(1時間・1日ごとの値は保存)"),
    Kind("counts", None, "counts of people, animals, steps: of nobody", "人数などの計測値(個人を含まない)", (),
         (recounts, recounts.c.at_us, None), "kept", "保存"),
)  # fmt: skip
"""All of them, in the order in which the chore goes."""
