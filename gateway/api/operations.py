"""GET health (for everybody), metrics and the OpenAPI document: how the gateway itself does."""

import logging
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.api.deps import Deps, permitted
from gateway.api.shapes import HealthJson
from gateway.policy import Actor
from gateway.telemetry import version

log = logging.getLogger(__name__)


def routes(deps: Deps) -> APIRouter:
    """GET /health, /openapi.json."""
    router = APIRouter()

    @router.get("/health", openapi_extra={"x-open": "names of parts and whether they work"})
    def health(response: Response) -> HealthJson:
        """Whether each part works. 503 when the gateway can't answer anything else either."""
        parts: dict[str, Literal["up", "down"]] = {name: "up" if works else "down" for name, works in deps.health().items()}
        parts["state"] = "up" if _state_answers(deps) else "down"
        if parts["state"] == "down":
            response.status_code = 503
        status: Literal["ok", "degraded"] = "degraded" if "down" in parts.values() else "ok"
        response.headers["Cache-Control"] = "no-store"
        return {"status": status, "version": version(), "parts": parts}

    @router.get("/openapi.json")
    def openapi(request: Request, _: Annotated[Actor, Depends(permitted("api.read"))]) -> dict[str, Any]:
        """This API, described."""
        document: dict[str, Any] = request.app.openapi()
        return document

    return router


def metrics_route(deps: Deps) -> APIRouter:
    """GET /metrics, where Prometheus looks for it."""
    router = APIRouter()

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics(_: Annotated[Actor, Depends(permitted("metrics.read"))]) -> Response:
        """In Prometheus' text format."""
        return Response(generate_latest(deps.telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _state_answers(deps: Deps) -> bool:
    try:
        with deps.state.read() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        log.warning("the state database does not answer: %s", error)
        return False
    return True
