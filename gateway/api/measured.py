"""What requests cost, by route: counted and timed here, outside of everything else that answers them.

A route is known by its template (`/api/v1/devices/{node}`), never by a path that somebody asked for: that may be a link that
opens something, and there is no end to them. What no route answers is `none`, a refusal at the gate too.
"""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.telemetry import Telemetry

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Whoever comes can call a method anything."""


class Measured:
    """Until an answer begins: a stream goes on for hours, and a thin link is no fault of ours."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, is_answered = perf_counter(), False

        def answered(status: int) -> None:
            nonlocal is_answered
            is_answered = True
            method, route = scope["method"] if scope["method"] in METHODS else "other", _template(scope)
            self._telemetry.requests.labels(method, route, str(status)).inc()
            self._telemetry.request_seconds.labels(method, route).observe(perf_counter() - began_s)

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_measured)
        except Exception:
            if not is_answered:
                answered(500)  # what is raised here is answered further out
            raise


def _template(scope: Scope) -> str:
    # FastAPI keeps the whole path of a route that was included with a prefix beside it; a test holds that.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return str(route.path) if route is not None else "none"
