"""The application: the gate, the routes, errors as problems. Wiring only.

Routes are plain `def` wherever they touch a database or a disk: FastAPI runs those in its thread pool, and the event
loop stays free for the streams.
"""

from fastapi import APIRouter, FastAPI

from gateway.api import alerts, devices, facts, media, nodes, operations, page, readings, rotating_tags, stream
from gateway.api.deps import Deps
from gateway.api.gate import Gate
from gateway.api.problems import add_problem_handlers


def create_app(deps: Deps) -> FastAPI:
    """The gateway's web side, ready to be served."""
    app = FastAPI(
        title="satomori gateway",
        version=operations.version(),
        # The built-in pages load scripts from elsewhere; the document has a route of its own, behind a token.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_problem_handlers(app)
    app.add_middleware(Gate, tokens=deps.tokens)
    api = APIRouter(prefix="/api/v1")
    for group in (devices, readings, facts, alerts, stream, media, nodes, rotating_tags, operations):
        api.include_router(group.routes(deps))
    app.include_router(api)
    app.include_router(operations.metrics_route(deps))
    app.include_router(page.routes())
    app.state.feed = deps.feed  # so that the server can end the streams when it stops
    return app
