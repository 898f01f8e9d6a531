"""Errors as RFC 9457 problem documents: one shape, a plain text, nothing of the inside."""

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.api.authorize import Forbidden
from gateway.errors import StoreDown, StoreRefused

log = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Problem(Exception):
    """Raised by a route to answer with `status`, a text, and members that say more."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: str | int | None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None
) -> JSONResponse:
    """The response. `type` is about:blank, so `title` is the status's own phrase."""
    body = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse({**(more or {}), **body}, status, {**SECURITY_HEADERS, **(headers or {})}, "application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    """Every error of `app`, FastAPI's own ones too, becomes a problem document."""

    @app.exception_handler(Problem)
    async def _raised(_: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.detail, error.headers, error.more)

    @app.exception_handler(Forbidden)
    async def _forbidden(_: Request, error: Forbidden) -> JSONResponse:
        return problem(403, str(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        return problem(422, "; ".join(faults)[:1000])

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(StoreDown)
    async def _store_down(_: Request, error: StoreDown) -> JSONResponse:
        log.warning("a reading could not be read: %s", error)
        return problem(503, "The series store can't be read now. Try again later.", {"Retry-After": "10"})

    @app.exception_handler(StoreRefused)
    async def _store_refused(_: Request, error: StoreRefused) -> JSONResponse:
        log.error("a reading could not be read: %s", error)
        return problem(500, "The series store refuses to be read; the gateway's log says why.")

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, _: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, so the server logs the traceback.
        return problem(500, f"{request.method} {request.url.path} failed; the gateway's log says why.")
