"""GET /a/{token}/picture: the picture that a message is about, for who has the link of its answer page. No login.

Only one that is open to everybody who may see pictures: asked anew each time, so that one in which somebody saw a person after
the message went out is shown to nobody any more. It says nothing of where it was taken (gateway.stripping).
"""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, Row, select

from gateway.api.answer import AnswerPage, TokenPath
from gateway.api.stripped import stripped
from gateway.media import MediaShelf
from gateway.picture_news import IMAGES, shown
from gateway.state.tables import alerts, notifications, page_alerts

HEADERS = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}

Here = Literal["here", "later"]


def routes(page: AnswerPage, shelf: MediaShelf) -> APIRouter:
    """GET and HEAD /a/{token}/picture."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/a/{token}/picture", methods=["GET", "HEAD"])
    def picture(request: Request, token: TokenPath) -> Response:
        """404 for whatever is not to be had: a link that is none of ours or has ended, a picture that is closed or not here."""
        id_ = page.links.read(token, page.now_us())
        if not isinstance(id_, str):
            return Response(status_code=404, headers=HEADERS)
        with page.state.read() as connection:
            row = connection.execute(select(notifications).where(notifications.c.id == id_)).first()
            may_read = row is not None and page.withheld(connection, row) is None
            sha256 = told_picture(connection, row) if may_read and row is not None else None
        kept = shelf.find(sha256) if sha256 is not None else None
        if kept is None or kept.content_type not in IMAGES:
            return Response(status_code=404, headers=HEADERS)
        return stripped(kept, request.headers, HEADERS) or Response(status_code=404, headers=HEADERS)

    return router


def looking(shelf: MediaShelf) -> Callable[[Connection, Row[Any]], Here | None]:
    """For the answer page: whether the notification's picture can be seen now, or as soon as it arrives; None: there is none."""

    def look(connection: Connection, row: Row[Any]) -> Here | None:
        sha256 = told_picture(connection, row)
        return None if sha256 is None else "here" if shelf.find(sha256) is not None else "later"

    return look


def told_picture(connection: Connection, row: Row[Any]) -> str | None:
    """The SHA-256 of the picture that a notification's alerts name now, where everybody may see it."""
    of_page = select(page_alerts.c.alert).where(page_alerts.c.page == row.page)
    chosen = alerts.c.id.in_(of_page) if row.page is not None else alerts.c.id == row.alert
    told = connection.execute(select(alerts.c.id, alerts.c.facts).where(chosen).order_by(alerts.c.since_us.desc(), alerts.c.id))
    found = shown(connection, ((row.id, row.facts) for row in told))
    return None if found is None else found[1]
