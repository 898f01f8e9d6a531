"""What came of an act that a route's check has entered in the trail: it stands there too, before whoever asked hears of it."""

import logging

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.deps import Deps
from gateway.audit.acts import by_status, came_of

log = logging.getLogger(__name__)


class Outcomes:
    """Stands outside of what makes answers of errors, so that a refusal is seen as it is sent."""

    def __init__(self, app: ASGIApp, deps: Deps) -> None:
        self._app, self._deps = app, deps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def send_once_entered(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._enter(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_once_entered)
        except Exception:
            await self._enter(scope, 500)
            raise

    async def _enter(self, scope: Scope, status: int) -> None:
        number = scope.get("state", {}).pop("noted", None)
        if number is not None:
            await run_in_threadpool(self._write, number, status)

    def _write(self, number: int, status: int) -> None:
        try:
            with self._deps.state.write() as connection:
                came_of(connection, number, by_status(status), self._deps.now_us(), status)
        except SQLAlchemyError as error:  # what is done is done, and is answered so; the trail says `unknown`
            log.error("what came of entry %d of the trail (HTTP %d) could not be written: %s", number, status, error)
