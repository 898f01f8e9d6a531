"""What the watch and time say to paging: an alert moved, a second passed. The rest is in the other files of this room."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from gateway.alerting.lifecycle import Move
from gateway.alerting.route import RouteConfig
from gateway.deployments import Deployments
from gateway.paging.answers import Answers, OnAnswer
from gateway.paging.joining import Joining
from gateway.paging.looking import Looking
from gateway.paging.messages import More
from gateway.paging.notices import Notices
from gateway.paging.reading import ALERT_COLUMNS, Directory, due_pages, parts
from gateway.paging.routes import Routes
from gateway.state import State
from gateway.state.tables import alerts, page_alerts, pages
from gateway.telemetry import Telemetry
from gateway.telling import Teller

HOLD_US = 60 * 1_000_000
"""After a start, or a return of the broker, what is not critical waits so long: a town that comes back is one message."""
_CHANGED_WITH = (
    update(pages)
    .where(pages.c.id.in_(select(page_alerts.c.page).where(page_alerts.c.alert == bindparam("named"))), pages.c.state != "closed")
    .values(changed=True)
)


class Paging:
    """`moved` in the watch's transaction, `tick` each second: safe on many threads."""

    def __init__(  # noqa: PLR0913 - wiring
        self,
        state: State,
        routes: Sequence[RouteConfig],
        deployments: Deployments,
        book: Directory,
        teller: Teller,
        *,
        office: str | None = None,
        say: Callable[[str, dict[str, Any]], None] = lambda _kind, _body: None,
        ring: Callable[[], None] = lambda: None,
        on_answer: OnAnswer | None = None,
        more: More | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """`office`: the group or contact that hears when nobody can be reached (`people.office`).

        `say(kind, body)` tells the live stream what was committed; `ring` says that messages were. `telemetry` None: nobody asks
        how long looking takes.
        """
        self._state, self._say, self._ring, self._telemetry = state, say, ring, telemetry or Telemetry()
        configured = Routes(routes, office)
        self._looking = Looking(configured, book, teller, more)
        self._joining = Joining(configured, deployments, self._looking.look)
        self._together: tuple[Connection, dict[str, None]] | None = None  # pages that wait for the end of `together`
        self.answers = Answers(book, self._looking.look, on_answer)
        """What people say to pages."""
        self.notices = Notices(book, teller, office)
        """Pages that other rooms open, words and end."""
        self.looked_us: int | None = None
        """When `tick` last got through: without it nobody is asked any more. None before the first time."""

    def hold(self, until_us: int) -> None:
        """What is not critical and has not begun waits until then, and comes as one digest. Longer holds stand."""
        self._looking.held_until_us = max(self._looking.held_until_us, until_us)

    # --- what the watch says ------------------------------------------------------------------------

    def moved(self, connection: Connection, move: Move, now_us: int) -> None:
        """An alert has moved, in the watch's transaction. What is critical is told in the same one."""
        alert = move.alert
        page = self._joining.join(connection, alert, tell=move.tell, now_us=now_us) if _fires(move) else None
        if page is None:
            connection.execute(_CHANGED_WITH, {"named": alert.id})
        elif alert.severity == "critical":
            if self._together is not None and self._together[0] is connection:
                self._together[1][page] = None
            else:
                self._looking.look(connection, [page], now_us)

    @contextmanager
    def together(self, connection: Connection, now_us: int) -> Iterator[Callable[[], None]]:
        """What moves in the block, over this connection, is told at its end: one look for a hundred pages costs as ten do.

        Gives what tells it at once, up to there: for who moves one alert twice. One thread at a time, the watch's.
        """
        waiting: dict[str, None] = {}
        self._together = (connection, waiting)

        def tell_now() -> None:
            if waiting:
                ids = list(waiting)
                waiting.clear()
                self._looking.look(connection, ids, now_us)

        try:
            yield tell_now
            tell_now()
        finally:
            self._together = None

    # --- time ---------------------------------------------------------------------------------------

    def tick(self, now_us: int, listening_since_us: int | None = None) -> None:
        """Looks at every page that is changed or due. `listening_since_us`: since when the broker is there, if it is."""
        if listening_since_us is not None:
            self.hold(listening_since_us + HOLD_US)
        with self._telemetry.turning("paging", now_us):
            with self._state.read() as connection:
                ids = list(connection.scalars(due_pages(now_us)))
            if ids:
                with self._state.write() as connection:
                    self._looking.look(connection, ids, now_us)
                self._ring()
            self.say_moved(ids)
        self.looked_us = now_us

    def say_moved(self, ids: Sequence[str] = ()) -> None:
        """Tells the live stream of the alerts that answers moved, and of these pages, as they are now: of what is committed.

        `tick` does. A process that takes answers and has no `tick` calls it now and then.
        """
        moved = self._looking.moved
        waiting = {id_: moved.pop(id_) for id_ in list(moved)}
        if not waiting and not ids:
            return
        with self._state.read() as connection:
            for part in parts(list(waiting)):
                for row in connection.execute(select(*ALERT_COLUMNS).where(alerts.c.id.in_(part))):
                    if row.version >= waiting[row.id]:
                        self._say("alert", dict(row._mapping))
                    else:  # another thread's answer is not committed yet; one that was taken back waits for the alert's next move
                        moved.setdefault(row.id, waiting[row.id])
            for part in parts(list(ids)):
                for row in connection.execute(select(pages.c.id, pages.c.state, pages.c.severity).where(pages.c.id.in_(part))):
                    self._say("page", dict(row._mapping))


def _fires(move: Move) -> bool:
    """Whether it is something that people may have to hear."""
    return move.alert.state == "firing" and move.before != "firing"
