"""What stands before each route, read off the routes themselves, and written into the OpenAPI document: the rule that runs is the
rule that is described.

`x-action`: the action of gateway.policy; `x-relation`: what it is done to, as gateway.api.things calls it, `sifted` where the
route leaves out what is not the caller's, `all` where only who may do it to all there is gets in. A route for everybody says why
in `x-open`: `openapi_extra={"x-open": "..."}`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

ALL = "all"


class Rule(NamedTuple):
    """What one route demands."""

    method: str
    path: str
    action: str | None
    """None: nothing stands before it."""
    relation: str
    """As `x-relation`; empty without an action."""
    documented: bool


def rules_of(app: FastAPI) -> Iterator[Rule]:
    """Of every route of the application, its hidden ones too."""
    for route in iter_route_contexts(app.routes):
        if not isinstance(route.original_route, APIRoute):
            continue
        checks = [(check.action, check.of) for check in _calls(route.dependant) if hasattr(check, "action")]
        if len(checks) > 1:
            raise ValueError(f"{route.path} has {len(checks)} rules; one is what it is about")
        action, of = checks[0] if checks else (None, None)
        relation = "" if action is None else of if isinstance(of, str) else ALL if of is None else of.__name__
        for method in sorted(route.methods or ()):
            yield Rule(method, str(route.path_format), action, relation, bool(route.include_in_schema))


def describe(app: FastAPI) -> None:
    """Has the application's document say what stands before each route."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        for rule in rules_of(app):
            operation = document["paths"].get(rule.path, {}).get(rule.method.lower())
            if operation is not None and rule.action is not None:
                operation.update({"x-action": rule.action, "x-relation": rule.relation})
        return document

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's own manual extends the document


def _calls(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)
