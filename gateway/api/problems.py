"""Errors as RFC 9457 problem documents: one shape, a sentence in the reader's language, and nothing of the inside.

`title` is one sentence of the catalogues by status. `detail` says what is wrong here: an id below `why.` with its facts, or the
fields that are wrong and how. An id that has a `.title` and a `.body` says both. `errors`, where fields are wrong, says them in
parts. What the domain refuses (`Refusal`) brings its id and facts along. A text that is no id is said as it stands:
tests/gateway/api/test_problem_words.py holds who may do that.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from gateway.errors import StoreDown, StoreRefused
from gateway.notify.message import Language
from gateway.pages import language_of
from gateway.policy import Forbidden
from gateway.words import LANGUAGES, has, text
from gateway.words.refusal import Refusal

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20
"""Faults that one answer names."""
LONGEST_WHERE = 80
LONGEST_DETAIL = 1000

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": (
        "accelerometer=(), autoplay=(), bluetooth=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
        "magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HSTS = {"Strict-Transport-Security": "max-age=31536000"}
"""Where people reach the gateway by https."""

Facts = Mapping[str, Any]


class Problem(Exception):
    """Raised by a route to answer with `status`, with words (`why.no_alert` and its facts, or a refusal's), and more members."""

    def __init__(
        self,
        status: int,
        why: str | Refusal,
        facts: Facts | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **more: str | int | None,
    ) -> None:
        said, of = (why.id, why.facts) if isinstance(why, Refusal) else (why, facts)
        super().__init__(said)
        self.status, self.why, self.facts, self.headers, self.more = status, said, of, headers, more


class NotHere(Problem):
    """404 for what a part of the gateway does that its configuration does not name: nothing to try again later."""

    def __init__(self, setting: str) -> None:
        """`setting`: as in gateway.toml, `[nodes]`."""
        super().__init__(404, "why.not_here", {"setting": setting})


class Fault(NamedTuple):
    """One thing that is wrong in a request. `where` as in `query.limit`; `why` an id below `fault.` with its facts, or a text."""

    where: str
    why: str
    facts: Mapping[str, Any]

    def said(self, language: Language) -> str:
        """Why, in words."""
        return text(language, self.why, **self.facts) if has(self.why) else self.why


class ProblemResponse(Response):
    """Chooses its language when it is sent, by who asks."""

    def __init__(
        self,
        status: int,
        why: str,
        headers: Mapping[str, str] | None = None,
        facts: Facts | None = None,
        *,
        more: Mapping[str, Any] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        """`faults` say what is wrong in place of `why`; `more`: members beside those that every problem has."""
        super().__init__(status_code=status, headers={**SECURITY_HEADERS, **(headers or {})}, media_type=MEDIA_TYPE)
        self._why, self._facts, self._more, self._faults, self._own = why, facts or {}, more or {}, faults, dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        content = self._document(reads(scope))
        headers = {**SECURITY_HEADERS, **self._own, "Cache-Control": "no-store"}
        await Response(content, self.status_code, headers, MEDIA_TYPE)(scope, receive, send)

    def _document(self, language: Language) -> bytes:
        title, detail = self._said(language)
        # about:blank, for nothing but the status says what kind of problem it is.
        said = {"title": title, "status": self.status_code, "detail": detail[:LONGEST_DETAIL]}
        body = {**self._more, "type": "about:blank", **said}
        if self._faults:
            body["errors"] = [{"where": one.where, "why": one.said(language)} for one in self._faults]
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

    def _said(self, language: Language) -> tuple[str, str]:
        status, by_status, own = self.status_code, f"fault.{self.status_code}", f"{self._why}.title"
        title = own if has(own) else by_status if has(by_status) else "fault.500" if status >= 500 else "fault.400"
        if self._faults:
            return text(language, title), "; ".join(f"{one.where}: {one.said(language)}" for one in self._faults)
        detail = f"{self._why}.body" if has(own) else self._why
        return text(language, title), text(language, detail, **self._facts) if has(detail) else detail


problem = ProblemResponse


def refused(status: int, faults: Sequence[Fault]) -> ProblemResponse:
    """The answer to a request in which these things are wrong."""
    return ProblemResponse(status, "", faults=faults[:MOST_ERRORS])


def reads(scope: Scope) -> Language:
    """The language of who asks: `?lang=` says it, else the browser's Accept-Language; Japanese when nothing does."""
    asked = parse_qs(scope.get("query_string", b"")[:4000].decode("latin-1")).get("lang", [""])[-1]
    return next((one for one in LANGUAGES if one == asked), None) or language_of(Headers(scope=scope).get("Accept-Language"))


def add_problem_handlers(app: FastAPI) -> None:
    """Every error of `app`, FastAPI's own ones too, becomes a problem document."""

    @app.exception_handler(Problem)
    async def _raised(_: Request, error: Problem) -> Response:
        return problem(error.status, error.why, error.headers, error.facts, more=error.more)

    @app.exception_handler(Forbidden)
    async def _forbidden(_: Request, error: Forbidden) -> Response:
        return problem(403, "why.forbidden", facts={"action": error.action})

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return refused(422, list(_faults(error.errors())))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        # The framework's own detail is the status' English name, and says no more than our title does.
        why = f"fault.{error.status_code}"
        return problem(error.status_code, why if has(why) else error.detail, error.headers)

    @app.exception_handler(StoreDown)
    async def _store_down(_: Request, error: StoreDown) -> Response:
        log.warning("a reading could not be read: %s", error)
        return problem(503, "why.store_down", {"Retry-After": "10"})

    @app.exception_handler(StoreRefused)
    async def _store_refused(_: Request, error: StoreRefused) -> Response:
        log.error("a reading could not be read: %s", error)
        return problem(500, "why.store_refused")

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, __: Exception) -> Response:
        # Starlette raises it again after this answer, so the server logs the traceback.
        return problem(500, "why.failed")


# --- What pydantic finds, in our words --------------------------------------------------------------

_WHY = {
    "missing": "missing",
    "extra_forbidden": "extra",
    "string_type": "text",
    "string_too_short": "short",
    "string_too_long": "long",
    "too_short": "few",
    "too_long": "many",
    "greater_than": "above",
    "greater_than_equal": "least",
    "less_than": "below",
    "less_than_equal": "most",
    "string_pattern_mismatch": "pattern",
    "literal_error": "choice",
    "enum": "choice",
    "int_type": "whole",
    "int_parsing": "whole",
    "int_parsing_size": "whole",
    "int_from_float": "whole",
    "float_type": "number",
    "float_parsing": "number",
    "finite_number": "number",
    "bool_type": "yes",
    "bool_parsing": "yes",
    "list_type": "list",
    "tuple_type": "list",
    "set_type": "list",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "json_invalid": "json",
}
"""pydantic's type of an error -> what follows `fault.` in the catalogues."""
_LIMITS = ("min_length", "max_length", "gt", "ge", "lt", "le")


def _faults(errors: Sequence[Any]) -> Iterator[Fault]:
    for error in errors:
        where = ".".join(str(one)[:LONGEST_WHERE] for one in error["loc"])[:LONGEST_WHERE] or "body"
        context = error.get("ctx") or {}
        kind = error["type"]
        if kind in ("value_error", "assertion_error"):  # one of our own checks, which says it in its own words
            own = context.get("error")
            said, of = (own.id, own.facts) if isinstance(own, Refusal) else (str(own or "") or error["msg"], {})
            yield Fault(where, said, of)
            continue
        limit = next((context[name] for name in _LIMITS if name in context), None)
        facts: dict[str, object] = {} if limit is None else {"n": limit}
        if kind in ("literal_error", "enum"):
            facts["expected"] = str(context.get("expected", "")).replace(" or ", ", ").replace("'", "")
        yield Fault(where, f"fault.{_WHY.get(kind, 'other')}", facts)


# --- In the OpenAPI document ------------------------------------------------------------------------

_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "For people, in the language that Accept-Language or ?lang= asks for."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What exactly is wrong, and where; as the title."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "why"],
                "properties": {"where": {"type": "string"}, "why": {"type": "string"}},
            },
        },
    },
}


def describe_problems(app: FastAPI) -> None:
    """Has the application's document say that any error is answered with a problem document."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = _SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        answer = {
            "description": "Why not, as a problem document.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"].update({"4XX": answer, "5XX": answer})
        return document

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's own manual extends the document
